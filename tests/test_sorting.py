"""Sorting slices: the network, what it is shown, what it learns, and the triage made of it."""

from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from lits_helpers import sorting
from lits_helpers.files import DataError
from lits_helpers.generators import SliceCache
from lits_helpers.settings import load_settings


@pytest.fixture
def without_tracing(monkeypatch):
    """A network so small that it trains faster step by step than it is compiled."""
    monkeypatch.setattr(sorting, "classifier", partial(sorting.classifier, filters=2, depth=2))
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def settings(slice_folder, tmp_path):
    return load_settings(data_root=slice_folder, output_root=tmp_path / "out", batch_size=8, learning_rate=5e-3)


@pytest.fixture
def split_table(table):
    """Volumes 0, 1 and 3 train, volume 2 validates."""
    return table.assign(split=np.where(table.volume == 2, "validation", "train"))


def trained(settings, table, cache, **options):
    return sorting.train_sorter(settings, table, cache, **(dict(size=32, epochs=1) | options))


# The network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows, columns", [(16, 16), (97, 61)])
def test_the_network_gives_three_probabilities_a_slice(rows, columns):
    model = sorting.classifier((rows, columns, 3), filters=2)
    found = model(np.random.default_rng(0).random((2, rows, columns, 3), np.float32)).numpy()
    assert found.shape == (2, 3) and np.allclose(found.sum(axis=1), 1)


def test_the_network_answers_in_float32_whatever_it_computes_in():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = sorting.classifier((16, 16, 3), filters=2)
    assert model(np.zeros((1, 16, 16, 3), np.float32)).dtype == "float32"


def test_batch_normalisation_remembers_few_steps():
    model = sorting.classifier((16, 16, 3), filters=2, depth=2)
    assert [layer.momentum for layer in model.layers if "batch_norm" in layer.name] == [0.9, 0.9]


def test_the_network_has_the_parameters_counted_by_hand():
    # Two levels of 2 and 4 filters: 3*3*3*2 + 4*2 and 3*3*2*4 + 4*4; then 2 times 4 values to 3 classes.
    assert sorting.classifier((16, 16, 3), filters=2, depth=2).count_params() == 54 + 8 + 72 + 16 + 8 * 3 + 3


def test_every_weight_gets_a_gradient():
    model = sorting.classifier((16, 16, 3), filters=2, depth=2)
    images = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    with tf.GradientTape() as tape:
        loss = keras.losses.sparse_categorical_crossentropy(np.array([0, 1, 2, 2]), model(images, training=True))
    gradients = tape.gradient(loss, model.trainable_weights)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_a_slice_too_small_to_be_halved_is_refused():
    with pytest.raises(ValueError, match=r"\(15, 64\).*4 times"):
        sorting.classifier((15, 64, 3))


# What it is shown -----------------------------------------------------------------------------


def test_equalised_levels_are_spread_over_the_whole_range():
    image = np.repeat(np.array([[10, 11], [12, 13]], np.uint8)[..., None], 3, axis=2)
    # Four levels, a pixel each: (cumulative count - 1) of 3, times 255.
    assert sorting.equalised(image)[..., 1].tolist() == [[0, 85], [170, 255]]


def test_each_channel_is_equalised_by_itself():
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, :, 0], image[0, :, 2] = (3, 4), (9, 5)
    assert sorting.equalised(image)[0].tolist() == [[0, 0, 255], [255, 0, 0]]


def test_a_third_each_is_filtered_equalised_and_left_alone():
    slope = np.linspace(50, 90, 32).round().astype(np.uint8)
    image = np.repeat(np.tile(slope, (32, 1))[..., None], 3, axis=2)
    image[16, 16] = 200
    images = np.repeat(image[None], 300, axis=0)
    changed = sorting.kaur_augmented(images, np.random.default_rng(0))
    same = (changed == images).all(axis=(1, 2, 3))
    spread = (changed == sorting.equalised(image)).all(axis=(1, 2, 3))
    blurred = ~same & ~spread
    assert all(70 < kind.sum() < 130 for kind in (same, spread, blurred))
    assert (changed[blurred][:, 16, 16] < 160).all()  # the bright pixel is smeared ...
    assert np.allclose(changed[blurred].mean(axis=(1, 2, 3)), image.mean(), atol=1)  # ... and nothing lost
    assert (images == image).all()


def test_classes_then_volumes_then_slices_are_drawn_equally_often():
    table = pd.DataFrame({"diagnosis": [0, 1, 1, 1, 2, 2], "volume": [1, 1, 1, 2, 1, 2]})
    assert sorting.sampling_weights(table).tolist() == pytest.approx([1 / 3, 1 / 12, 1 / 12, 1 / 6, 1 / 6, 1 / 6])


def test_a_diagnosis_that_is_not_there_takes_no_share():
    table = pd.DataFrame({"diagnosis": [1, 2, 2], "volume": [1, 1, 1]})
    assert sorting.sampling_weights(table).tolist() == [1 / 2, 1 / 4, 1 / 4]


# What it learns -------------------------------------------------------------------------------


def test_it_learns_to_sort_a_patient_it_has_not_trained_on(settings, split_table, cache):
    model = trained(settings, split_table, cache, epochs=20)
    unseen = split_table[split_table.volume == 2]
    assert sorting.predict_classes(model, cache, unseen).argmax(axis=1).tolist() == unseen.diagnosis.tolist()


def test_a_trained_sorter_is_loaded_and_not_trained_again(settings, split_table, cache, without_tracing, monkeypatch):
    first = trained(settings, split_table, cache)
    monkeypatch.setattr(sorting, "_fit", lambda *arguments: pytest.fail("trained again"))
    again = trained(settings, split_table, cache)
    assert np.array_equal(*(sorting.predict_classes(model, cache, split_table) for model in (first, again)))
    with pytest.raises(pytest.fail.Exception):
        trained(settings, split_table, cache, augmented=False)


def test_the_same_seed_gives_the_same_sorter(settings, split_table, cache, tmp_path, without_tracing):
    found = []
    for name in ("first", "second"):
        there = load_settings(data_root=settings.data_root, output_root=tmp_path / name, batch_size=8)
        found.append(sorting.predict_classes(trained(there, split_table, cache), cache, split_table))
    assert np.allclose(*found, atol=1e-3)


class Recorder:
    """Stands in for a compiled network: notes what it is trained on; its weights are the step's number."""

    input_shape = (None, 32, 32, 3)

    def __init__(self):
        self.optimizer = SimpleNamespace(learning_rate=None)
        self.rates, self.images, self.truth, self.weights = [], [], [], 0

    def train_on_batch(self, images, truth):
        self.rates.append(self.optimizer.learning_rate)
        self.images.append(images)
        self.truth.extend(truth)
        self.weights += 1

    def predict_on_batch(self, images):
        return np.full((len(images), 3), 1 / 3)

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights


def recorded(settings, split_table, cache, *, epochs, augmented=True):
    model = Recorder()
    sides = {side: split_table[split_table.split == side] for side in ("train", "validation")}
    sorting._fit(model, settings, sides, cache, epochs, augmented)
    return model


def test_the_epoch_best_on_validation_is_kept(settings, split_table, cache, monkeypatch):
    losses = iter([0.9, 0.4, 0.7])
    monkeypatch.setattr(sorting, "_balanced_loss", lambda truth, probabilities: next(losses))
    # 12 training slices in batches of 8 are 2 steps an epoch: the second epoch ends after 4.
    assert recorded(settings, split_table, cache, epochs=3).weights == 4


def test_the_learning_rate_rises_for_a_tenth_of_the_steps_and_falls_to_nothing(settings, split_table, cache):
    rates = np.array(recorded(settings, split_table, cache, epochs=50).rates) / settings.learning_rate
    assert rates[:3].tolist() == pytest.approx([0.1, 0.2, 0.3])  # a hundred steps, ten of them to rise
    assert rates.argmax() in (9, 10) and rates[50] == pytest.approx(0.5) and 0 < rates[-1] < 0.001


def test_classes_are_trained_on_equally_often(settings, split_table, cache):
    shares = np.bincount(recorded(settings, split_table, cache, epochs=100).truth) / 1600
    assert shares == pytest.approx([1 / 3] * 3, abs=0.04)  # three standard deviations are 0.035


def test_slices_are_moved_and_filtered_only_if_asked(settings, split_table, cache, monkeypatch):
    monkeypatch.setattr(sorting, "kaur_augmented", lambda images, random: np.zeros_like(images))
    plain, filtered = (
        np.concatenate(recorded(settings, split_table, cache, epochs=10, augmented=augmented).images)
        for augmented in (False, True)
    )
    assert plain.dtype == np.float32 and 0 <= plain.min() and 0.5 < plain.max() <= 1
    assert len(np.unique(plain, axis=0)) > 12  # more than there are slices
    assert not filtered.any()


def test_validation_loss_counts_each_class_alike():
    probabilities = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    # Two empty slices at ln 2, one tumour at ln 4: the mean of the two classes.
    assert sorting._balanced_loss(np.array([0, 0, 2]), probabilities) == pytest.approx(1.5 * np.log(2))


def test_scores_of_a_confident_mistake_stay_finite():
    assert np.isfinite(sorting._balanced_loss(np.array([0]), np.array([[0.0, 1.0, 0.0]])))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_it_trains_in_every_precision_and_leaves_kerass_own(settings, split_table, cache, without_tracing, monkeypatch, policy):
    monkeypatch.setattr(sorting, "precision_policy", lambda: (policy, "as the test wants"))
    model = trained(settings, split_table, cache)
    assert model.layers[1].dtype_policy.name == policy
    assert np.isfinite(sorting.predict_classes(model, cache, split_table)).all()
    assert keras.config.dtype_policy().name == "float32"


def test_a_split_without_validation_is_refused(settings, split_table, cache):
    with pytest.raises(DataError, match="validation"):
        trained(settings, split_table[split_table.split == "train"], cache)


def test_a_table_without_split_is_refused(settings, table, cache):
    with pytest.raises(DataError, match="split_patients"):
        trained(settings, table, cache)


def test_slices_of_one_diagnosis_are_refused(settings, split_table, cache):
    with pytest.raises(DataError, match="liver and tumour"):
        trained(settings, split_table[split_table.diagnosis == 2], cache)


def test_a_file_that_is_no_sorter_is_refused(tmp_path):
    damaged, other = tmp_path / "damaged.keras", tmp_path / "other.keras"
    damaged.write_bytes(b"not a network")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(other)
    for path, named in ((damaged, "damaged"), (other, r"\(None, 2\)"), (tmp_path / "none.keras", "none.keras")):
        with pytest.raises(DataError, match=named):
            sorting.load_sorter(path)


# Predicting, and skipping ---------------------------------------------------------------------


def test_pictures_of_any_size_are_sorted_in_their_order():
    model = sorting.classifier((32, 32, 3), filters=2)
    pictures = [np.full((size, size + 3, 3), level, np.uint8) for size, level in ((32, 0), (45, 128), (64, 255))]
    found = sorting.predict_pictures(model, pictures, batch_size=2)
    expected = model(np.stack([np.full((32, 32, 3), level / 255, np.float32) for level in (0, 128, 255)])).numpy()
    assert found.dtype == np.float32 and np.allclose(found, expected, atol=1e-5)
    assert not np.allclose(found[0], found[2], atol=1e-4)


def test_no_picture_gives_no_probability():
    assert sorting.predict_pictures(sorting.classifier((16, 16, 3), filters=2), []).shape == (0, 3)


def test_rows_of_a_part_of_the_table_get_their_own_slices():
    images = np.zeros((3, 16, 16, 3), np.uint8)
    images[1], images[2] = 120, 250
    cache = SliceCache(images, images[..., 0], pd.Index(["a", "b", "c"]))
    model = sorting.classifier((16, 16, 3), filters=2)
    part = pd.DataFrame({"image_path": ["c", "a"]})
    assert np.allclose(
        sorting.predict_classes(model, cache, part), sorting.predict_pictures(model, images[[2, 0]]), atol=1e-6
    )


def probabilities_of_tumour(*values):
    return np.array([[(1 - value) / 2, (1 - value) / 2, value] for value in values])


def test_triage_keeps_what_reaches_the_threshold():
    found = sorting.triage(probabilities_of_tumour(0.1, 0.3, 0.9), threshold=0.3)
    assert found.dtype == bool and found.tolist() == [False, True, True]
    assert sorting.triage(probabilities_of_tumour(0, 0.5), threshold=0).all()


@pytest.mark.parametrize(("keep", "expected"), [(1, 0.1), (0.99, 0.1), (0.9, 0.2), (0.7, 0.4), (0.1, 1.0)])
def test_the_threshold_is_the_highest_that_keeps_enough_tumour_slices(keep, expected):
    # Ten tumour slices at 0.1, 0.2 ... 1.0; the others do not count.
    truth = np.array([2] * 10 + [1, 0])
    probabilities = probabilities_of_tumour(*np.arange(1, 11) / 10, 0.05, 0.95)
    assert sorting.choose_triage_threshold(truth, probabilities, keep=keep) == pytest.approx(expected)


def test_one_tumour_slice_sets_the_threshold():
    assert sorting.choose_triage_threshold(np.array([2]), probabilities_of_tumour(0.25)) == 0.25


def test_no_tumour_to_choose_by_is_refused():
    with pytest.raises(DataError, match="no slice has a tumour"):
        sorting.choose_triage_threshold(np.array([0, 1]), probabilities_of_tumour(0.1, 0.2))


@pytest.mark.parametrize("keep", [0, 1.01])
def test_a_share_to_keep_that_is_none_is_refused(keep):
    with pytest.raises(ValueError, match=str(keep)):
        sorting.choose_triage_threshold(np.array([2]), probabilities_of_tumour(0.5), keep=keep)
