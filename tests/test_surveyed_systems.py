"""What the surveyed systems do with a volume, by networks whose answers follow from brightness alone."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from cascades import CROP_LIVER_BELOW, CROP_TUMOUR_BELOW, LIVER_BELOW, by_brightness, cascade, ellipse, labelled

from lits_helpers import surveyed_systems as module
from lits_helpers.candidate_filter import CandidateFilter
from lits_helpers.files import DataError
from lits_helpers.index import build_index
from lits_helpers.superpixel_system import SuperpixelSegmentation
from lits_helpers.surveyed_systems import Filtered, Hierarchy, OfSuperpixels, System, Triaged, with_liver
from lits_helpers.windows import three_channels

RAW_TUMOUR_BELOW = (99 + 178) / 2  # lesion and liver in the green channel


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def pictures(hounsfield):
    return [three_channels(plane) for plane in hounsfield]


def sorter_by_mean(size=8):
    """The darker a slice, the surer of a tumour: probability of tumour is that of the mean green level."""
    inputs = keras.Input((size, size, 3))
    layer = keras.layers.Dense(3, activation="softmax")
    model = keras.Model(inputs, layer(keras.layers.GlobalAveragePooling2D()(inputs)))
    kernel = np.zeros((3, 3), np.float32)
    kernel[1, 2] = -50
    layer.set_weights([kernel, np.array([0, 0, 50 * 0.5], np.float32)])
    return model


def forest(*, least_voxels):
    """One tree: a candidate of more voxels than this is surely true, others surely false."""
    return CandidateFilter(
        names=np.array(["voxels"]), roots=np.array([0], np.int32), left=np.array([1, -1, -1], np.int32),
        right=np.array([2, -1, -1], np.int32), feature=np.array([0, -1, -1], np.int32),
        threshold=np.array([least_voxels, -2, -2], float), unknown_left=np.zeros(3, bool),
        share=np.array([0.5, 0.0, 1.0]),
    )


# Kaur


def test_slices_that_the_sorter_keeps_back_are_not_segmented():
    hounsfield = np.full((3, 32, 32), 200, np.int16)
    hounsfield[:, 8:24, 8:24] = 100
    hounsfield[:, 12:20, 12:20] = 38
    hounsfield[2, 25:] = hounsfield[2, :7] = -300  # the only slice that is dark on the whole
    network = by_brightness(32, LIVER_BELOW, RAW_TUMOUR_BELOW)
    probabilities, liver = Triaged(network, sorter_by_mean(), 0.5).predict(pictures(hounsfield), range(3))
    assert probabilities.shape == (3, 32, 32) and probabilities.dtype == np.float16
    assert not probabilities[:2].any() and (probabilities[2, 12:20, 12:20] > 0.5).all()
    assert not liver.any()


def test_a_sorter_that_lets_nothing_through_leaves_everything_empty():
    network = by_brightness(32, LIVER_BELOW, RAW_TUMOUR_BELOW)
    found, _ = Triaged(network, sorter_by_mean(), 2.0).predict(pictures(np.full((2, 20, 30), 38, np.int16)), range(2))
    assert found.shape == (2, 20, 30) and not found.any()


# Chlebus


@pytest.mark.parametrize(("least_voxels", "stays"), [(1, True), (10**6, False)])
def test_the_forest_takes_out_a_candidate_or_leaves_it_as_it_was(least_voxels, stays):
    pytest.importorskip("skimage")
    labels, hounsfield = labelled((64, 64))
    plain, liver = cascade().predict(pictures(hounsfield), range(5))
    filtered = Filtered(cascade(), forest(least_voxels=least_voxels), 0.5, threshold=0.3)
    found, same = filtered.predict(pictures(hounsfield), range(5))
    assert (same == liver).all() and dice(plain > 0.5, labels == 2) > 0.9
    assert (found == plain).all() if stays else not (found > 0.3).any()
    # Nothing is a candidate where none is above the threshold.
    assert (replace(filtered, threshold=1.0).predict(pictures(hounsfield), range(5))[0] == plain).all()


def test_without_a_forest_and_without_candidates_nothing_changes():
    _, hounsfield = labelled((64, 64), lesion=None)
    plain, _ = cascade().predict(pictures(hounsfield), range(5))
    for trees in (None, forest(least_voxels=10**6)):
        assert (Filtered(cascade(), trees, 0.5, 0.3).predict(pictures(hounsfield), range(5))[0] == plain).all()


# Yuan


def hierarchy():
    return Hierarchy(
        by_brightness(32, LIVER_BELOW, -1000), by_brightness(64, CROP_LIVER_BELOW, -1000),
        by_brightness(64, CROP_LIVER_BELOW, CROP_TUMOUR_BELOW),
    )


@pytest.mark.parametrize("shape", [(64, 64), (77, 101)])
def test_liver_and_lesion_are_found_at_their_own_pixels(shape):
    labels, hounsfield = labelled(shape)
    probabilities, liver = hierarchy().predict(pictures(hounsfield), range(5))
    assert probabilities.shape == liver.shape == labels.shape
    assert dice(probabilities > 0.5, labels == 2) > 0.9 and dice(liver, labels > 0) > 0.95
    assert not probabilities[~liver].any()


def test_without_a_liver_there_is_no_tumour():
    probabilities, liver = hierarchy().predict(pictures(np.full((2, 40, 50), 200, np.int16)), [3, 4])
    assert probabilities.shape == (2, 40, 50) and not probabilities.any() and not liver.any()


def test_the_tumour_network_gets_the_liver_that_was_found():
    # A network that calls tumour what is 0 in the first channel: everything but the liver.
    asking = by_brightness(64, 1000, 0)
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 0, 1] = -255
    asking.layers[1].set_weights([kernel, np.array([1000, 0.5], np.float32)])
    parts = hierarchy()
    _, hounsfield = labelled((64, 64))
    found, liver = Hierarchy(parts.coarse, parts.liver, asking).predict(pictures(hounsfield), range(5))
    inside = ellipse((64, 64), 0.45, 0.55, 0.2, 0.2)
    assert liver[2][inside].all() and not (found[2][inside] > 0.5).any()


def test_equalising_gives_each_liver_pixel_its_rank():
    crops = np.zeros((1, 2, 2, 3), np.uint8)
    crops[0, ..., 1] = [[10, 20], [30, 200]]
    crops[..., 0], crops[..., 2] = 7, 9
    liver = np.array([[[True, True], [True, False]]])
    found = with_liver(crops, liver)
    # A third, two thirds and all of the liver are as dark: 1 + 254 / 3 is 85.67, rounded before 1 is added.
    assert found[0, ..., 0].tolist() == [[86, 170], [255, 0]]
    assert (found[..., 1:] == crops[..., 1:]).all() and (crops[..., 0] == 7).all()


def test_an_empty_liver_leaves_the_channel_empty_and_a_full_one_leaves_no_zero():
    crops = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3)).astype(np.uint8)
    assert not with_liver(crops, np.zeros((2, 5, 5), bool))[..., 0].any()
    assert with_liver(crops, np.ones((2, 5, 5), bool))[..., 0].min() >= 1


# Bai


def test_labels_of_small_slices_come_back_at_their_place(monkeypatch):
    small = np.zeros((2, 16, 16), np.uint8)
    small[1, 4:12, 4:12] = 1
    small[1, 6:10, 4:8] = 2

    def segment(system, images):
        assert images.shape == (2, 16, 16, 3)
        return SuperpixelSegmentation(small > 0, None, None, None, small)

    monkeypatch.setattr(module, "segment_volume", segment)
    tumour, liver = OfSuperpixels(None, 16).predict(pictures(np.zeros((2, 48, 32), np.int16)), [0, 1])
    truth = np.zeros((2, 48, 32), bool)
    truth[1, 18:30, 8:16] = True  # three times the rows, twice the columns
    assert dice(tumour > 0.5, truth) > 0.9
    truth[1, 12:36, 8:24] = True
    assert dice(liver, truth) > 0.9 and not liver[0].any()


# All


class Counting:
    """Gives each slice its number as a probability, in hundredths."""

    def predict(self, pictures, numbers):
        found = np.array(numbers, np.float16)[:, None, None] / 100
        return found * np.ones(pictures[0].shape[:2], np.float16), np.zeros((len(numbers), 1, 1), bool)


def test_a_table_is_predicted_in_its_own_order(slice_folder, tmp_path):
    table = build_index(slice_folder, tmp_path / "out").sample(frac=1, random_state=1)
    found = System(Counting(), (), 0.5, 0.0).predict_table(table)
    assert found.shape == (16, 64, 64)
    assert found[:, 0, 0].tolist() == pytest.approx((table.slice / 100).tolist(), abs=1e-3)


def test_slices_of_two_sizes_make_no_one_array():
    with pytest.raises(DataError, match="slices of 2 sizes"):
        System(Counting(), (), 0.5, 0.0).predict_table(pd.DataFrame({"height": [4, 5], "width": [4, 4]}))


def test_parameters_are_those_of_all_networks():
    # A 1x1 convolution from three channels to two has 3 * 2 weights and 2 biases.
    networks = by_brightness(8, 0, 0), by_brightness(16, 0, 0)
    assert System(Counting(), networks, 0.5, 0.0).parameters == 16


def test_no_images_have_no_answers():
    assert module.predict_images(by_brightness(8, 0, 0), []).shape == (0, 8, 8, 3)
