"""Batch normalisation in one operation, beside Keras's own."""

import keras
import numpy as np
import pytest

from lits_helpers.normalisation import BatchNormalization


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 0.03)])
def test_batch_normalisation_in_one_operation_is_keras_own(dtype, tolerance):
    random = np.random.default_rng(0)
    x, truth = random.normal(5, 3, (2, 3, 4, 6)), random.normal(0, 1, (2, 3, 4, 6))
    found = []
    for kind in (keras.layers.BatchNormalization, BatchNormalization):
        norm = kind(momentum=0.9, dtype=dtype)
        model = keras.Sequential([keras.Input((3, 4, 6)), norm])
        norm.gamma.assign(np.arange(1, 7))
        model.compile("sgd", "mse", jit_compile=False)
        for _ in range(3):
            model.train_on_batch(x, truth)
        found.append([*model.get_weights(), model.predict(x, verbose=0).astype(np.float32), model(x, training=True).numpy()])
    keras_own, ours = found
    for ours_is, expected in zip(ours, keras_own, strict=True):
        assert np.allclose(ours_is, expected, rtol=tolerance, atol=tolerance)
    assert not np.allclose(ours[2], 0) and not np.allclose(ours[3], 1)  # averages were taken
    norm.trainable = False
    before = norm.get_weights()
    assert np.allclose(model(x, training=True), model(x, training=False))
    assert all(map(np.array_equal, norm.get_weights(), before))


@pytest.mark.parametrize(("shape", "axis"), [((3, 4, 6), 1), ((4, 6), -1), ((2, 3, 4, 6), -1)])
def test_other_axes_are_refused(shape, axis):
    with pytest.raises(ValueError, match="channels come last of four axes"):
        BatchNormalization(axis=axis)(keras.Input(shape))


def test_it_comes_back_with_a_network(tmp_path):
    model = keras.Sequential([keras.Input((3, 4, 6)), BatchNormalization(axis=3, momentum=0.8)])
    x = np.random.default_rng(1).normal(5, 3, (2, 3, 4, 6)).astype(np.float32)
    model.compile("sgd", "mse", jit_compile=False)
    model.train_on_batch(x, 0 * x)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(loaded.layers[-1]) is BatchNormalization and loaded.layers[-1].momentum == 0.8
    assert np.array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
