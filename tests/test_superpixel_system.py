"""The system of superpixels on volumes of discs, with networks whose answers are known."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from lits_helpers.files import DataError
from lits_helpers.generators import SliceCache
from lits_helpers.superpixel_system import (
    SuperpixelOptions, SuperpixelSystem, as_rare_as, levelled, load_superpixel_system, predict_liver,
    save_superpixel_system, segment_volume,
)
from lits_helpers.windows import three_channels

SMALL = SuperpixelOptions(
    liver_size=16, liver_slices=4, liver_filters=4, liver_depth=2, liver_steps=100, scales=(10, 40),
    patch=(3, 8, 8), filters=4, fractal_columns=1, blocks=2, batch=16, steps=80, learning_rate=1e-2,
)
SLICES = 6


def disc_volume(number):
    """HU and labels (6, 32, 32): fat with a liver of 110 HU and a tumour of 40 HU in four slices."""
    rows, columns = np.ogrid[:32, :32]
    labels = np.zeros((SLICES, 32, 32), np.uint8)
    labels[:, np.hypot(rows - 16, columns - 13 - number) < 11] = 1
    labels[1:5, np.hypot(rows - 13 - number, columns - 14) < 4] = 2
    noise = np.random.default_rng(number).normal(0, 8, labels.shape).round()
    return (np.choose(labels, (-80, 110, 40)) + noise).astype(np.int16), labels


def cached(volumes):
    """A cache of (HU, labels), and its table."""
    table = pd.DataFrame(
        [(number, place) for number, (_, labels) in enumerate(volumes) for place in range(len(labels))],
        columns=["volume", "slice"],
    )
    table["image_path"] = [f"{volume}-{place}.png" for volume, place in zip(table.volume, table.slice)]
    table["diagnosis"] = [plane.max() for _, labels in volumes for plane in labels]
    images = np.stack([three_channels(plane) for hounsfield, _ in volumes for plane in hounsfield])
    labels = np.concatenate([labels for _, labels in volumes])
    return SliceCache(images, labels, pd.Index(table.image_path)), table


@pytest.fixture(scope="module")
def discs():
    return cached([disc_volume(number) for number in range(4)])


def voxelwise(size, kernel, bias):
    """A network whose answer to a voxel is known: sigmoid(kernel * channels + bias)."""
    inputs = keras.Input(size)
    layer = keras.layers.Conv3D(1, 1, activation="sigmoid")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.array(kernel, np.float32).reshape(1, 1, 1, 3, 1), np.array([bias], np.float32)])
    return model


def darkness():
    """A classifier whose answer is known: tumour if half of the voxels that are meant are dark."""
    inputs = keras.Input((3, 8, 8, 4))
    features = keras.layers.Conv3D(2, 1, activation="relu")
    answer = keras.layers.Dense(1, activation="sigmoid")
    pooled = keras.layers.GlobalAveragePooling3D()(features(inputs))
    model = keras.Model(inputs, {"candidate": answer(pooled)})
    # Of a voxel that is meant, 1 - 2.5 * green: 0.6 in tumour, 0 in healthy liver, whose green is 0.5.
    kernel = np.array([[0, 0], [-2.5, 0], [0, 0], [1, 1]], np.float32)
    features.set_weights([kernel.reshape(1, 1, 1, 4, 2), np.zeros(2, np.float32)])
    answer.set_weights([np.array([[1e5], [-0.3e5]]), np.zeros(1)])
    return model


@pytest.fixture(scope="module")
def system():
    """Green above a quarter, 10 HU, is liver; the fat of the discs, at -80 HU, is 0."""
    return SuperpixelSystem(voxelwise((4, 32, 32, 3), (0, 80, 0), -20), darkness(), 0.1, SMALL)


@pytest.fixture(scope="module")
def found(system, discs):
    cache, _ = discs
    return segment_volume(system, cache.images[3 * SLICES :])


def test_tumour_and_liver_are_found(found, discs):
    truth = discs[0].labels[3 * SLICES :]
    assert np.array_equal(found.liver, truth > 0)
    there, seen = truth == 2, found.labels == 2
    assert 2 * (there & seen).sum() / (there.sum() + seen.sum()) > 0.8


def test_everything_lies_in_the_liver_and_follows_from_the_stage_before(found):
    assert np.array_equal(np.unique(found.labels), [0, 1, 2])
    assert np.array_equal(found.labels > 0, found.liver)
    assert np.array_equal(found.candidates > 0, np.stack([found.liver] * 2))
    assert found.probability.dtype == np.float32
    assert 0 == found.probability[~found.liver].max() and 0 < found.probability.max() <= 1
    assert np.array_equal(found.coarse, found.probability > 0.30)


def test_without_contours_the_coarse_mask_is_the_result(system, found, discs):
    without = replace(system, options=replace(SMALL, reach=0))
    again = segment_volume(without, discs[0].images[3 * SLICES :])
    assert np.array_equal(again.labels == 2, found.coarse)


def test_no_liver_gives_no_candidates_and_no_tumour(system, discs):
    blind = replace(system, liver=voxelwise((4, 16, 16, 3), (0, 0, 0), -5))
    nothing = segment_volume(blind, discs[0].images[:SLICES])
    assert not any(stage.any() for stage in nothing)
    assert nothing.labels.shape == (SLICES, 32, 32) and nothing.candidates.shape == (2, SLICES, 32, 32)


@pytest.mark.parametrize("slices", [1, 4, 7])
def test_the_liver_of_any_number_of_slices_is_outlined_as_each_voxel_says(slices):
    images = np.zeros((slices, 8, 8, 3), np.uint8)
    images[:, 2:7, 1:6, 1] = 255  # green alone is liver
    images[:, 2:7, 6:, 0] = 255
    network = voxelwise((4, 8, 8, 3), (-20, 20, -20), -10)
    assert np.array_equal(predict_liver(network, images), images[..., 1] > 0)


def test_of_the_liver_the_largest_part_is_kept_and_its_holes_are_filled():
    images = np.zeros((5, 9, 9, 3), np.uint8)
    images[:, 1:6, 1:6, 1] = 255
    images[2, 3, 3] = 0
    images[:, 8, 8, 1] = 255
    expected = np.zeros((5, 9, 9), bool)
    expected[:, 1:6, 1:6] = True
    assert np.array_equal(predict_liver(voxelwise((4, 9, 9, 3), (0, 20, 0), -10), images), expected)


def test_the_liver_is_brought_to_one_brightness():
    images = np.full((1, 2, 2, 3), 10, np.uint8)
    images[0, 0] = [[100, 150, 250], [100, 150, 200]]
    liver = np.array([[[True, True], [False, False]]])
    # Medians 100, 150 and 225 become 128.
    expected = [[[128, 128, 153], [128, 128, 103]], [[38, 0, 0], [38, 0, 0]]]
    assert np.array_equal(levelled(images, liver)[0], expected)
    assert np.array_equal(levelled(images, np.zeros_like(liver)), images)


@pytest.mark.parametrize(
    ("balanced", "share", "expected"),
    [(0.5, 0.1, 0.1), (0.9, 0.1, 0.5), (0.0, 0.1, 0.0), (1.0, 0.1, 1.0), (0.3, 0.5, 0.3)],
)
def test_a_balanced_probability_is_told_how_rare_tumour_is(balanced, share, expected):
    assert as_rare_as(np.array([balanced]), share) == pytest.approx([expected])


def test_a_saved_system_answers_the_same(system, found, discs, tmp_path):
    folder = save_superpixel_system(system, tmp_path / "system")
    assert sorted(path.name for path in folder.iterdir()) == ["classifier.keras", "liver.keras", "options.json"]
    loaded = load_superpixel_system(folder)
    assert loaded.options == SMALL
    assert np.array_equal(segment_volume(loaded, discs[0].images[3 * SLICES :]).labels, found.labels)


@pytest.mark.parametrize("damaged", ["classifier.keras", "options.json"])
def test_a_damaged_or_incomplete_system_is_refused(system, damaged, tmp_path):
    folder = save_superpixel_system(system, tmp_path / "system")
    (folder / damaged).write_text("{}")
    with pytest.raises(DataError, match="system: holds no superpixel system that can be loaded"):
        load_superpixel_system(folder)
    with pytest.raises(DataError, match="train one anew"):
        load_superpixel_system(tmp_path / "nothing")
