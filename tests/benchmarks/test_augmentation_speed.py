"""Cost of each random change, in parts of the affine map's, which every pair pays: `make bench`."""

import statistics
import time

import cv2
import numpy as np
import pytest

from lits_helpers.augmentation import Augmentation, change_intensity, warp_in_place
from lits_helpers.generators import decode_slices
from lits_helpers.index import build_index

SIZE, SLICES, ROUNDS = 256, 16, 25
REACHES = {  # the widest of nnU-Net's
    "brightness": {"brightness": 0.3},
    "contrast": {"contrast": 0.5},
    "gamma": {"gamma": 0.5},
    "brightness, contrast, gamma": {"brightness": 0.3, "contrast": 0.5, "gamma": 0.5},
    "noise": {"noise": 0.1},
    "blur": {"blur": 1.5},
    "low resolution": {"low_resolution": 2},
}
EVERYTHING = Augmentation(
    brightness=0.3, contrast=0.5, gamma=0.5, noise=0.1, blur=1.5, low_resolution=2,
)


@pytest.fixture
def one_thread():
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def test_cost_of_each_change(benchmark, phantom, tmp_path, one_thread):
    table = build_index(phantom, tmp_path / "out", layout="report-slices")
    cache = decode_slices(table, SIZE, tmp_path / "out")
    middle = len(cache.images) // 2
    images = cache.images[middle - SLICES // 2 : middle + SLICES // 2].copy()
    labels = np.zeros(images.shape[:3], np.uint8)
    random = np.random.default_rng(0)

    def warped(augmentation):
        def run():
            maps = augmentation.matrices(random, SLICES, SIZE)
            displacements = [augmentation.displacement(random, SIZE) for _ in maps]
            warp_in_place(images.copy(), labels, zip(maps, displacements, strict=True))
        return run

    def changed(augmentation):
        def run():
            for image, change in zip(images, augmentation.intensities(random, SLICES), strict=True):
                change_intensity(image, change)
        return run

    ways = {
        "affine map": warped(Augmentation()),
        "affine map and elastic": warped(Augmentation(elastic=0.02)),
    }
    for name, reach in REACHES.items():
        ways[name] = changed(Augmentation(**reach, intensity_probability=1))
    ways["all of intensity, a fifth of slices each"] = changed(EVERYTHING)
    seconds = {name: [] for name in ways}

    def one_round():  # each in turn, in processor time: a busy moment of the machine hits all alike
        for name, run in ways.items():
            started = time.thread_time()
            run()
            seconds[name].append((time.thread_time() - started) / SLICES)

    benchmark.pedantic(one_round, rounds=1 if benchmark.disabled else ROUNDS, warmup_rounds=1)
    medians = {name: statistics.median(runs) for name, runs in seconds.items()}
    benchmark.extra_info["milliseconds_a_slice"] = {name: 1e3 * median for name, median in medians.items()}
    print()
    for name, median in medians.items():
        ratio = median / medians["affine map"]
        print(f"{name:<42} {1e3 * median:6.3f} ms a slice, {ratio:5.2f} of the affine map")
