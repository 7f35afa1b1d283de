import os

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

from lits_helpers import inference
from lits_helpers.files import DataError
from lits_helpers.layouts import find_layouts
from lits_helpers.masks import read_labels


@pytest.fixture(scope="module")
def green_is_probability():
    """A network whose answer is known: the green channel of its input."""
    inputs = keras.Input((32, 32, 3))
    layer = keras.layers.Conv2D(1, 1, use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.array([0, 1, 0], np.float32).reshape(1, 1, 3, 1)])
    return model


def test_predictions_come_in_the_tables_order_and_the_last_batch_may_be_short(
    table, cache, green_is_probability
):
    part = table.sample(frac=1, random_state=1)[:7]
    found = inference.predict_slices(green_is_probability, cache, part, batch_size=3)
    assert found.shape == (7, 32, 32) and found.dtype == np.float32
    assert found == pytest.approx(cache.images[part.index, ..., 1] / 255, abs=1e-6)


def test_a_network_that_answers_in_16_bits_is_used_all_the_same(table, cache, tmp_path):
    inputs = keras.Input((32, 32, 3))
    outputs = keras.layers.Conv2D(1, 1, activation="sigmoid", dtype="mixed_bfloat16")(inputs)
    model = keras.Model(inputs, outputs)
    assert model.output.dtype == "bfloat16"
    assert inference.predict_slices(model, cache, table).dtype == np.float32
    assert len(pd.read_csv(inference.predict_files(model, table, tmp_path / "p"))) == 16


def test_a_probability_is_enlarged_before_it_is_cut():
    probability = np.zeros((2, 2), np.float32)
    probability[:, 1] = 1
    # Bilinear between centres at 1/4 and 3/4 of the width.
    assert inference.enlarged(probability, (2, 8))[0].tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    assert inference.enlarged(probability, (6, 4)).shape == (6, 4)


def test_the_threshold_itself_is_no_tumour(table):
    row = table[:1]
    ((_, predicted),) = inference.mask_pairs(row, np.full((1, 32, 32), 0.3, np.float32), threshold=0.3)
    assert not predicted.any()
    ((_, predicted),) = inference.mask_pairs(row, np.full((1, 32, 32), 0.31, np.float32), threshold=0.3)
    assert predicted.all() and predicted.shape == (64, 64)


def test_the_right_probabilities_score_nearly_one_at_native_resolution(table, cache):
    truth = (cache.labels == 2).astype(np.float32)
    scores = inference.evaluate_slices(table, truth, threshold=0.5)
    assert scores[["volume", "slice"]].equals(table[["volume", "slice"]])
    assert scores.truth_pixels.tolist() == table.tumour_pixels.tolist()
    assert (scores.dice[table.tumour_pixels > 0] > 0.93).all()
    assert scores.dice[table.tumour_pixels == 0].isna().all()


def test_slices_without_masks_get_files_of_their_own_size(slice_folder, tmp_path, green_is_probability):
    for path in slice_folder.rglob("*_mask.jpg"):
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in slice_folder.rglob("*")}
    [layout] = find_layouts(slice_folder)
    images = layout.cases
    listed = inference.predict_files(green_is_probability, images, tmp_path / "p", batch_size=5)
    rows = pd.read_csv(listed)
    assert rows[["volume", "slice"]].equals(images[["volume", "slice"]])
    for row, image in zip(rows.itertuples(), images.image_path, strict=True):
        mask = cv2.imread(str(tmp_path / "p" / row.file), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (64, 64) and set(np.unique(mask)) <= {0, 255}
        assert (mask == 255).sum() == row.tumour_pixels
        small = cv2.resize(cv2.imread(image)[..., 1], (32, 32), interpolation=cv2.INTER_AREA) / 255
        expected = cv2.resize(small, (64, 64)) > 0.30
        assert ((mask == 255) == expected).mean() > 0.999
        assert row.highest_probability == pytest.approx(small.max(), abs=0.01)
    assert (rows.threshold == 0.30).all()
    assert {path: path.stat().st_mtime_ns for path in slice_folder.rglob("*")} == before


def test_files_and_cache_give_the_same_masks(table, cache, tmp_path, green_is_probability):
    probabilities = inference.predict_slices(green_is_probability, cache, table)
    listed = pd.read_csv(inference.predict_files(green_is_probability, table, tmp_path / "p"))
    masks = [predicted.sum() for _, predicted in inference.mask_pairs(table, probabilities)]
    assert listed.tumour_pixels.tolist() == masks


def test_an_unreadable_image_is_named(table, tmp_path, green_is_probability):
    with open(table.image_path[3], "wb") as file:
        file.write(b"cut")
    with pytest.raises(DataError, match=os.path.basename(table.image_path[3])):
        inference.predict_files(green_is_probability, table, tmp_path / "p")
    assert not (tmp_path / "p" / "predictions.csv").exists()


def test_an_empty_table_is_refused_before_anything_is_written(table, tmp_path, green_is_probability):
    with pytest.raises(DataError, match="no slices to predict"):
        inference.predict_files(green_is_probability, table[:0], tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_the_truth_of_a_pair_is_the_tumour_alone(table):
    row = table[table.diagnosis == 2].iloc[:1]
    ((truth, _),) = inference.mask_pairs(row, np.zeros((1, 32, 32), np.float32))
    assert (truth == (read_labels(row.mask_path.iloc[0]) == 2)).all()
