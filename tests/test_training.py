import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from lits_helpers import files, training
from lits_helpers.augmentation import Augmentation
from lits_helpers.files import DataError
from lits_helpers.index import build_index
from lits_helpers.splits import split_patients, split_slices
from lits_helpers.model import unet
from lits_helpers.settings import load_settings

TINY = dict(image_size=32, filters=2, depth=2, batch_size=4, epochs=3)


@pytest.fixture(autouse=True)
def without_tracing():
    """Networks this small train faster step by step than they are compiled."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def settings(slice_folder, tmp_path):
    return load_settings(data_root=slice_folder, output_root=tmp_path / "out", **TINY)


@pytest.fixture
def table(settings):
    return split_patients(build_index(settings.data_root, settings.output_root))


def same_curve(first, second):
    """Whether two histories agree in everything but the seconds."""
    first, second = first.drop(columns="seconds"), second.drop(columns="seconds")
    return first.shape == second.shape and np.allclose(first, second, rtol=1e-4, atol=1e-5)


def scripted(monkeypatch, losses):
    """Let validation losses be those given, whatever the network does."""

    class Scripted(training._RunFolder):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, {**logs, "val_loss": losses[epoch]})

    monkeypatch.setattr(training, "_RunFolder", Scripted)


@pytest.mark.parametrize(
    ("capability", "policy"),
    [((6, 0), "float32"), ((7, 5), "mixed_float16"), ((8, 0), "mixed_bfloat16"), ((12, 0), "mixed_bfloat16")],
)
def test_a_gpus_policy_follows_from_its_compute_capability(monkeypatch, capability, policy):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    found, reason = training.precision_policy()
    assert found == policy and f"{capability[0]}.{capability[1]}" in reason


@pytest.mark.parametrize(
    ("flags", "policy"),
    [("avx2 avx512f", "float32"), ("avx2 avx512_bf16", "mixed_bfloat16"), ("amx_bf16", "mixed_bfloat16")],
)
def test_a_cpus_policy_follows_from_its_instructions(monkeypatch, flags, policy):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(Path, "read_text", lambda path: f"flags : {flags}")
    assert training.precision_policy()[0] == policy


def test_a_machine_that_does_not_tell_its_instructions_computes_in_float32(monkeypatch):
    def unreadable(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(Path, "read_text", unreadable)
    assert training.precision_policy()[0] == "float32"


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_the_policy_is_the_networks_alone_and_ends_in_float32(settings, monkeypatch, policy):
    monkeypatch.setattr(training, "precision_policy", lambda: (policy, "as the test wants"))
    before = keras.config.dtype_policy().name
    model = training.compiled_unet(settings)
    assert {layer.dtype_policy.name for layer in model.layers[1:-1]} == {policy}
    assert model.layers[-1].compute_dtype == "float32"
    scales = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scales == (policy == "mixed_float16")
    assert keras.config.dtype_policy().name == before


def test_a_run_leaves_all_it_promises(settings, table):
    folder = training.train(settings, table)
    history = training.read_history(folder)
    assert history.epoch.tolist() == [1, 2, 3]
    assert sorted(path.name for path in (folder / "weights").iterdir()) == [
        f"epoch-00{n}.weights.h5" for n in (1, 2, 3)
    ]
    assert [path.name for path in (folder / "last").iterdir()] == ["epoch-003.keras"]
    assert pd.read_csv(folder / "split.csv").split.value_counts().sum() == 16
    description = json.loads((folder / "run.json").read_text())
    assert description["split"] == "patient split" and description["volumes"]["test"] == 1
    fresh = unet((32, 32, 3), filters=2, depth=2)
    fresh.load_weights(folder / "weights" / "epoch-003.weights.h5")
    last = training.load_checkpoint(folder / "last" / "epoch-003.keras", 32)
    for ours, theirs in zip(fresh.get_weights(), last.get_weights(), strict=True):
        assert (ours == theirs).all()


def test_seeds_have_run_folders_of_their_own_and_end_in_different_networks(settings, table):
    folders = [training.train(replace(settings, seed=seed, epochs=1), table) for seed in (1, 2)]
    assert folders[0] != folders[1]
    first, second = (training.load_checkpoint(folder / "best.keras", 32).get_weights() for folder in folders)
    assert any((a != b).any() for a, b in zip(first, second, strict=True))
    assert training.run_folder(replace(settings, seed=1), table) == folders[0]


def test_the_best_network_is_that_of_the_lowest_validation_loss(settings, table, monkeypatch):
    scripted(monkeypatch, [3, 1, 2])
    folder = training.train(settings, table)
    expected = unet((32, 32, 3), filters=2, depth=2)
    expected.load_weights(folder / "weights" / "epoch-002.weights.h5")
    found = training.load_checkpoint(folder / "best.keras", 32)
    assert all((a == b).all() for a, b in zip(found.get_weights(), expected.get_weights(), strict=True))


def test_a_finished_run_is_not_trained_again_but_more_epochs_are(settings, table, monkeypatch):
    folder = training.train(settings, table)
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", None)
        assert training.train(settings, table) == folder
    assert training.train(replace(settings, epochs=4), table) == folder
    assert training.read_history(folder).epoch.tolist() == [1, 2, 3, 4]


def interrupted(settings, table, monkeypatch, epoch):
    """Train, and stop in the middle of an epoch, as Ctrl-C does; gives the run folder."""

    def interrupt(self, batch, logs=None):
        if len(self.rows) == epoch - 1 and batch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training._RunFolder, "on_train_batch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            training.train(settings, table)
    folder = training.run_folder(settings, table)
    assert len(training.read_history(folder)) == epoch - 1
    return folder


# The second keeps a state of its own, of how far losses are scaled.
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_an_interrupted_run_ends_like_an_undisturbed_one(settings, table, tmp_path, monkeypatch, policy):
    monkeypatch.setattr(training, "precision_policy", lambda: (policy, "as the test wants"))
    settings = replace(settings, epochs=4, learning_rate=0.02)
    undisturbed = training.train(replace(settings, output_root=tmp_path / "other"), table)
    folder = interrupted(settings, table, monkeypatch, epoch=3)
    training.train(settings, table)
    assert same_curve(training.read_history(undisturbed), training.read_history(folder))


# A network that hardly moves, so that its validation loss stays where it is.
STANDSTILL = dict(momentum=1.0, learning_rate=1e-9, schedule="plateau")


@pytest.mark.parametrize("epoch", [3, 7])
def test_an_interruption_does_not_reset_the_plateau(settings, table, monkeypatch, epoch):
    settings = replace(settings, **STANDSTILL, epochs=7)
    folder = interrupted(settings, table, monkeypatch, epoch)
    training.train(settings, table)
    # The report's patience: five epochs without a gain after the first, then a tenth.
    expected = [1e-9] * 6 + [1e-10]
    assert training.read_history(folder).learning_rate.tolist() == pytest.approx(expected, rel=1e-3)


def test_a_plateau_is_replayed_at_the_rates_of_its_time(settings, tmp_path):
    # Two cuts made, one more to the lower bound of 1e-11, and one epoch waited since.
    rates = [1e-8] * 6 + [1e-9] * 5 + [1e-10]
    history = pd.DataFrame({"epoch": range(1, 13), "val_loss": 1.0, "learning_rate": rates})
    plateau = training.SCHEDULES["plateau"](settings)
    saver = training._RunFolder(tmp_path, history, [plateau], minutes=None)
    model = training.compiled_unet(replace(settings, learning_rate=1e-10))
    for callback in (plateau, saver):
        callback.set_model(model)
        callback.set_params({"steps": 2, "epochs": 20})
        callback.on_train_begin()
    saver.on_train_end()
    assert plateau.wait == 1
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(1e-10)


def test_a_run_killed_between_history_and_state_repeats_that_epoch(settings, table, tmp_path, monkeypatch):
    undisturbed = training.train(replace(settings, output_root=tmp_path / "other"), table)
    saving = keras.Model.save

    def killed(self, path, *args, **kwargs):
        if "epoch-002" in str(path):
            raise KeyboardInterrupt
        return saving(self, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(settings, table)
    folder = training.run_folder(settings, table)
    assert len(pd.read_csv(folder / "history.csv")) == 2
    assert training.read_history(folder).epoch.tolist() == [1]
    training.train(settings, table)
    assert same_curve(training.read_history(folder), training.read_history(undisturbed))


def test_a_run_without_any_state_starts_anew(settings, table):
    folder = training.train(replace(settings, epochs=1), table)
    (folder / "last" / "epoch-001.keras").unlink()
    assert len(training.read_history(folder)) == 0
    training.train(settings, table)
    assert training.read_history(folder).epoch.tolist() == [1, 2, 3]


def test_a_run_killed_by_the_system_goes_on(settings, table, tmp_path):
    settings = replace(settings, epochs=4)
    undisturbed = training.train(replace(settings, output_root=tmp_path / "other"), table)
    script = f"""
import tensorflow as tf
from lits_helpers import load_settings, training
from lits_helpers.index import build_index
from lits_helpers.splits import split_patients
tf.config.run_functions_eagerly(True)
s = load_settings(data_root={str(settings.data_root)!r}, output_root={str(settings.output_root)!r},
                  **{TINY | dict(epochs=4)!r})
training.train(s, split_patients(build_index(s.data_root, s.output_root)))
"""
    folder = training.run_folder(settings, table)
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while len(training.read_history(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = len(training.read_history(folder))
    assert 2 <= finished
    training.train(settings, table)
    assert same_curve(training.read_history(folder), training.read_history(undisturbed))
    assert not list(folder.rglob(".writing-*")) or finished < 4


def test_a_time_budget_stops_after_an_epoch_and_the_next_call_goes_on(settings, table, capsys):
    folder = training.train(settings, table, minutes=0)
    assert len(training.read_history(folder)) == 1
    assert "call train again" in capsys.readouterr().out
    training.train(settings, table)
    assert len(training.read_history(folder)) == 3


def test_a_time_budget_that_ends_with_the_last_epoch_leaves_nothing_to_go_on_with(settings, table, capsys):
    training.train(replace(settings, epochs=1), table, minutes=0)
    assert "call train again" not in capsys.readouterr().out


def test_early_stopping_is_final(settings, table, monkeypatch):
    monkeypatch.setattr(training, "EARLY_STOPPING_PATIENCE", 2)
    settings = replace(settings, **STANDSTILL | dict(learning_rate=0.0), epochs=30)
    folder = training.train(settings, table)
    assert training.read_history(folder).epoch.tolist() == [1, 2, 3]  # two without a gain
    monkeypatch.setattr(keras.Model, "fit", None)
    training.train(settings, table)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_network_that_diverges_stops_the_run_and_keeps_what_was(settings, table, monkeypatch, loss):
    scripted(monkeypatch, [1.0, loss, 1.0])
    with pytest.raises(DataError, match=f"val_loss is {loss} after epoch 2.*smaller learning_rate"):
        training.train(settings, table)
    folder = training.run_folder(settings, table)
    assert training.read_history(folder).val_loss.tolist() == [1.0]
    assert [path.name for path in (folder / "last").iterdir()] == ["epoch-001.keras"]


def test_both_splits_train_in_folders_of_their_own(settings, table):
    by_slice = split_slices(build_index(settings.data_root, settings.output_root))
    assert training.split_name(table) == "patient split"
    assert training.split_name(by_slice) == "slice split: leaks"
    leaking = training.train(replace(settings, epochs=1), by_slice)
    assert "slice" in leaking.name and leaking != training.run_folder(settings, table)


@pytest.mark.parametrize("change", [{"filters": 4}, {"seed": 1}, {"batch_size": 2}, {"schedule": "step"}])
def test_other_choices_are_another_run(settings, table, change):
    assert training.run_folder(replace(settings, **change), table) != training.run_folder(settings, table)


def test_another_augmentation_is_another_run(settings, table):
    bent = Augmentation(elastic=0.02)
    assert training.run_folder(settings, table, bent) != training.run_folder(settings, table)


def test_more_epochs_are_the_same_run_and_other_files_are_not(settings, table):
    folder = training.run_folder(settings, table)
    assert training.run_folder(replace(settings, epochs=99), table) == folder
    os.utime(table.mask_path[0], ns=(1, 1))
    assert training.run_folder(settings, table) != folder


def test_an_unknown_schedule_is_named(settings, table):
    with pytest.raises(DataError, match="'linear'.*plateau"):
        training.train(replace(settings, schedule="linear"), table)


def test_the_step_schedule_is_the_reports():
    step = training.SCHEDULES["step"](None)
    assert [step.schedule(epoch) for epoch in (0, 29, 30, 54)] == [1e-4, 1e-4, 1e-5, 1e-5]


def test_the_cosine_starts_low_peaks_and_ends_near_zero(settings):
    rates = [training.SCHEDULES["cosine"](replace(settings, epochs=40)).schedule(e) for e in range(40)]
    assert rates[0] == pytest.approx(settings.learning_rate / 4, rel=0.01)
    assert np.argmax(rates) == 3 and rates[-1] < 0.01 * settings.learning_rate


def a_checkpoint(folder, kind):
    path = folder / "model.keras"
    if kind == "garbage":
        path.write_bytes(b"PK\3\4 no archive")
    elif kind == "other size":
        unet((64, 64, 3), filters=2, depth=2).save(path)
    elif kind == "no segmentation":
        keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()]).save(path)
    return path


@pytest.mark.parametrize("kind", ["missing", "garbage", "other size", "no segmentation"])
def test_a_checkpoint_that_does_not_fit_is_named(tmp_path, kind):
    with pytest.raises(DataError, match="(?s)model.keras: .*train (first|anew)"):
        training.load_checkpoint(a_checkpoint(tmp_path, kind), 32)


def test_code_hidden_in_a_checkpoint_is_not_run(tmp_path):
    trace = tmp_path / "trace"
    spy = keras.layers.Lambda(eval(f"lambda x: (open({str(trace)!r}, 'w'), x[..., :1])[1]"))
    keras.Sequential([keras.Input((32, 32, 3)), spy]).save(tmp_path / "model.keras")
    trace.unlink()  # left by building the network here, so that the code is known to work
    with pytest.raises(DataError, match="model.keras"):
        training.load_checkpoint(tmp_path / "model.keras", 32)
    assert not trace.exists()


def test_a_full_disk_leaves_the_last_epoch_whole(settings, table, monkeypatch):
    folder = training.train(replace(settings, epochs=1), table)
    saving = keras.Model.save

    def full(self, path, *args, **kwargs):
        if Path(path).parent.name == "last":
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return saving(self, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", full)
        with pytest.raises(DataError, match="no space left.*LITS_OUTPUT_ROOT"):
            training.train(settings, table)
    assert not list(folder.rglob(".writing-*"))
    assert len(training.read_history(folder)) == 1
    training.load_checkpoint(folder / "last" / "epoch-001.keras", 32)
    training.train(settings, table)
    assert len(training.read_history(folder)) == 3


def test_training_names_what_is_missing(settings, table):
    with pytest.raises(DataError, match="at least one row"):
        training.train(settings, table[table.split != "validation"])
    assert files.shown(training.run_folder(settings, table))
