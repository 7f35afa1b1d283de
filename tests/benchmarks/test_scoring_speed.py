"""Time and memory to score one large case: `make bench`. Passes or fails on results alone.

512x512x500 voxels, a liver and 200 tumours in truth and prediction, once inside the liver and once
all over the volume, where the common box of the masks is the whole of it.
"""

import tracemalloc

import numpy as np
import pytest

from lits_helpers.cases import case_scores

SHAPE, SPACING = (500, 512, 512), (1.0, 0.7, 0.7)
SECONDS_WANTED = 30  # on two cores
LATTICE = (4, 5, 10)  # 200 tumours, apart from each other


def painted(first, last, shift):
    """A liver, and balls of radius 3 to 6 in a lattice between two corners, all moved by ``shift``."""
    labels = np.zeros(SHAPE, np.uint8)
    grid = np.ogrid[-109:110, -149:150, -129:130]
    liver = sum((axis / radius) ** 2 for axis, radius in zip(grid, (109, 149, 129), strict=True)) < 1
    labels[141 + shift : 360 + shift, 101:400, 81:340][liver] = 1
    centres = np.stack(np.meshgrid(*map(np.linspace, first, last, LATTICE), indexing="ij"), axis=-1)
    for number, centre in enumerate(centres.reshape(-1, 3).round().astype(int)):
        radius = 3 + number % 4
        ball = sum(axis**2 for axis in np.ogrid[(slice(-radius, radius + 1),) * 3]) <= radius**2
        box = tuple(slice(middle - radius, middle + radius + 1) for middle in centre + (shift, 0, 0))
        labels[box][ball] = 2
    return labels


@pytest.mark.parametrize("convention", ["standard", "lits2017"])
@pytest.mark.parametrize(
    ("first", "last"),
    [((200, 180, 130), (300, 320, 290)), ((10, 10, 10), (480, 500, 500))],
    ids=["inside the liver", "all over"],
)
def test_a_large_case_is_scored(benchmark, first, last, convention):
    truth, predicted = painted(first, last, 0), painted(first, last, 1)
    scores = benchmark.pedantic(
        case_scores, (truth, predicted, SPACING), {"convention": convention}, rounds=1
    )
    assert (scores["lesions"], scores["lesions_found_any"], scores["predicted_right_any"]) == (200, 200, 200)
    assert scores["tumour_msd_mm"] == scores["liver_msd_mm"] == pytest.approx(1.0)
    if not benchmark.disabled:
        seconds = benchmark.stats.stats.median
        benchmark.extra_info.update(seconds=seconds, wanted=SECONDS_WANTED)
        print(f"\n{convention}: {seconds:.1f} s, {SECONDS_WANTED} s wanted")


def test_memory_beside_the_labels_is_a_few_bytes_a_voxel(benchmark):
    truth, predicted = (painted((10, 10, 10), (480, 500, 500), shift) for shift in (0, 1))
    tracemalloc.start()
    benchmark.pedantic(case_scores, (truth, predicted, SPACING), rounds=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    benchmark.extra_info["peak_bytes_a_voxel"] = peak / truth.size
    print(f"\n{peak / 1e9:.2f} GB beside the labels, {peak / truth.size:.1f} bytes a voxel")
    assert peak < 16 * truth.size
