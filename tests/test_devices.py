from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lits_helpers import devices, metrics


@pytest.fixture(autouse=True)
def without_tracing():
    """Networks this small train faster step by step than they are compiled."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize(
    ("capability", "policy"),
    [((6, 0), "float32"), ((7, 5), "mixed_float16"), ((8, 0), "mixed_bfloat16"), ((12, 0), "mixed_bfloat16")],
)
def test_a_gpus_policy_follows_from_its_compute_capability(monkeypatch, capability, policy):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    found, reason = devices.precision_policy()
    assert found == policy and f"{capability[0]}.{capability[1]}" in reason


@pytest.mark.parametrize(
    ("flags", "policy"),
    [("avx2 avx512f", "float32"), ("avx2 avx512_bf16", "mixed_bfloat16"), ("amx_bf16", "mixed_bfloat16")],
)
def test_a_cpus_policy_follows_from_its_instructions(monkeypatch, flags, policy):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: f"flags : {flags}")
    assert devices.precision_policy()[0] == policy


def test_a_machine_that_does_not_tell_its_instructions_computes_in_float32(monkeypatch):
    def unreadable(path, encoding):
        raise FileNotFoundError(path)

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(Path, "read_text", unreadable)
    assert devices.precision_policy()[0] == "float32"


def line(loss, optimizer=None):
    """A network with one weight, of 0.5, that multiplies its input by it."""
    inputs = keras.Input((1,))
    layer = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.full((1, 1), 0.5)])
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss)
    return model


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_in_parts_is_the_step_of_the_whole_batch_where_losses_add_up(parts, scaled):
    """Five slices, so parts of unequal size, and with eight some that are empty."""
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])[:, None]
    optimizer = keras.optimizers.SGD(0.1)
    model = line("mse", keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4) if scaled else optimizer)
    devices.train_in_parts(model, parts)
    loss = model.train_on_batch(x, np.zeros((5, 1)))
    # Mean of (x/2)^2 over 1..5 is 55/5/4; its slope 2 * 0.5 * 55/5 = 11, times 0.1.
    assert loss == pytest.approx(2.75)
    assert model.get_weights()[0].item() == pytest.approx(0.5 - 1.1)
    assert int(model.optimizer.iterations) == 1


def test_in_parts_the_dice_of_the_loss_is_the_mean_of_the_parts_dice():
    model = line(metrics.dice_loss)
    devices.train_in_parts(model, 2)
    loss = model.train_on_batch(np.array([[2.0], [0.0]]), np.array([[1.0], [0.0]]))
    # The parts: (2 * 1 * 1 + 1) / (1 + 1 + 1) = 1, and 1 / 1. Then all is found in each.
    assert loss == pytest.approx(0)
    model.reset_metrics()  # which Keras 3.13 does not do between batches
    loss = model.train_on_batch(np.array([[0.0], [0.0]]), np.array([[1.0], [0.0]]))
    # 1 / (1 + 1) and 1, so 1/4 is lost; of the whole batch, 1/2 would be.
    assert loss == pytest.approx(0.25)


def test_validation_in_parts_is_that_of_the_whole_batch():
    model = line(metrics.dice_loss)
    devices.train_in_parts(model, 2)
    loss = model.test_on_batch(np.array([[0.0], [0.0]]), np.array([[1.0], [0.0]]))
    assert loss == pytest.approx(0.5)


def test_a_network_that_trains_in_parts_is_saved_as_any_other(tmp_path):
    model = line("mse")
    devices.train_in_parts(model, 2)
    model.train_on_batch(np.ones((2, 1)), np.zeros((2, 1)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model) and "train_step" not in vars(loaded)
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)


def test_one_device_is_used_as_it_is():
    assert devices.strategy().num_replicas_in_sync == 1
