import json
import os
import shutil
import signal
import subprocess
import sys
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
from lits_helpers.losses import class_loss
from lits_helpers.splits import split_patients, split_slices
from lits_helpers.model import unet
from lits_helpers.settings import load_settings

TINY = dict(image_size=32, filters=2, depth=1, batch_size=4, epochs=3)


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


def same_weights(first, second):
    """Whether the networks, and the optimizers, of two checkpoints agree to the last digit but one."""
    first, second = (training.load_checkpoint(path, 32) for path in (first, second))
    pairs = zip(first.variables + first.optimizer.variables, second.variables + second.optimizer.variables, strict=True)
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs)


def scripted(monkeypatch, losses):
    """Let validation losses be those given, whatever the network does."""

    class Scripted(training._RunFolder):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, {**logs, "val_loss": losses[epoch]})

    monkeypatch.setattr(training, "_RunFolder", Scripted)


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
    fresh = unet((32, 32, 3), filters=2, depth=1)
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
    expected = unet((32, 32, 3), filters=2, depth=1)
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
    saver = training._RunFolder(tmp_path, history, [plateau], deadline=np.inf)
    model = training.compiled_unet(replace(settings, learning_rate=1e-10))
    for callback in (plateau, saver):
        callback.set_model(model)
        callback.set_params({"steps": 2, "epochs": 20})
        callback.on_train_begin()
    saver.on_train_end()
    assert plateau.wait == 1
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(1e-10)


# Forks for each moment: TensorFlow, imported once, has started nothing by then. What is patched
# writes or moves to its second argument.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import keras, pandas as pd, tensorflow as tf
from lits_helpers import load_settings, training
from lits_helpers.index import build_index
from lits_helpers.losses import class_loss
from lits_helpers.splits import split_patients

MOMENTS = {
    "in a batch": (training._RunFolder, "on_train_batch_end", "1"),
    "in the weights": (keras.Model, "save_weights", "epoch-002.weights.h5"),
    "after the weights": (os, "replace", "epoch-002.weights.h5"),
    "in the state": (keras.Model, "save", "epoch-002.keras"),
    "after the state": (os, "replace", "epoch-002.keras"),
    "in the history": (pd.DataFrame, "to_csv", "history.csv"),
    "after the history": (os, "replace", "history.csv"),
    "in the best network": (shutil, "copy2", "best.keras"),
    "after the best network": (os, "replace", "best.keras"),
}

def die_at(owner, attribute, name):
    usual = getattr(owner, attribute)
    def dying(*args, **kwargs):
        if len(args) < 2 or not str(args[1]).endswith(name):
            return usual(*args, **kwargs)
        if owner is os:
            usual(*args, **kwargs)
        elif owner is not training._RunFolder:
            Path(args[1]).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, attribute, dying)

data, output = map(Path, sys.argv[1:])
for moment, where in MOMENTS.items():
    shutil.copytree(output / "once", output / moment)
    if not (child := os.fork()):
        try:
            tf.config.run_functions_eagerly(True)
            s = load_settings(data_root=data, output_root=output / moment, **CHOICES)
            table = split_patients(build_index(s.data_root, s.output_root))
            die_at(*where)
            training.train(s, table)
        finally:
            os._exit(1)
    print(moment, os.waitpid(child, 0)[1], sep=":")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has neither fork nor SIGKILL")
def test_a_run_killed_at_any_moment_ends_like_an_undisturbed_one(settings, table, tmp_path):
    changes = dict(learning_rate=0.02, momentum=0.5, prior=0.5)
    settings = replace(settings, **changes)
    undisturbed = training.train(replace(settings, output_root=tmp_path / "undisturbed"), table)
    expected = training.read_history(undisturbed).drop(columns="seconds")
    assert expected.val_loss.is_monotonic_decreasing  # so that each epoch writes a best network
    training.train(replace(settings, output_root=tmp_path / "once"), table, minutes=0)
    done = subprocess.run(
        [sys.executable, "-c", KILLED.replace("CHOICES", repr(TINY | changes)), settings.data_root, tmp_path],
        capture_output=True, text=True, timeout=300,
    )
    deaths = dict(line.split(":") for line in done.stdout.splitlines() if line.count(":") == 1)
    assert len(deaths) == 9, done.stderr
    assert set(deaths.values()) == {str(int(signal.SIGKILL))}, deaths
    finished = {}
    for moment in deaths:
        here = replace(settings, output_root=tmp_path / moment)
        folder = training.run_folder(here, table)
        finished[moment] = len(training.read_history(folder))
        training.train(here, table)
        pd.testing.assert_frame_equal(
            training.read_history(folder).drop(columns="seconds"), expected, rtol=1e-6, obj=moment
        )
        for name in ("best.keras", "last/epoch-003.keras"):
            assert same_weights(folder / name, undisturbed / name), (moment, name)
        names = sorted(path.relative_to(folder) for path in folder.rglob("*"))
        assert names == sorted(path.relative_to(undisturbed) for path in undisturbed.rglob("*")), moment
    assert list(finished.values()) == [1] * 6 + [2] * 3


def test_a_run_without_any_state_starts_anew(settings, table):
    folder = training.train(replace(settings, epochs=1), table)
    (folder / "last" / "epoch-001.keras").unlink()
    assert len(training.read_history(folder)) == 0
    training.train(settings, table)
    assert training.read_history(folder).epoch.tolist() == [1, 2, 3]


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


def with_memory_for(monkeypatch, slices):
    """Let training steps of more slices at once run out of memory. Gives the list of those that did not."""
    usual, taken = keras.Model.compute_loss, []

    def limited(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if training and len(x) > slices:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        if training:
            taken.append(len(x))
        return usual(self, x, y, y_pred, sample_weight, training)

    monkeypatch.setattr(keras.Model, "compute_loss", limited)
    return taken


def test_out_of_memory_halves_the_batch_aloud_and_keeps_steps_and_schedule(settings, table, tmp_path, monkeypatch, capsys):
    undisturbed = training.train(replace(settings, output_root=tmp_path / "other"), table)
    capsys.readouterr()
    taken = with_memory_for(monkeypatch, slices=1)
    folder = training.train(settings, table)
    assert taken == [1] * 8 * 3  # slices times epochs
    said = capsys.readouterr().out
    assert [f"batches of 4 are taken in {parts} parts" in said for parts in (2, 4, 8)] == [True, True, False]
    rates = [training.read_history(run).learning_rate.tolist() for run in (folder, undisturbed)]
    steps = [training.load_checkpoint(run / "last/epoch-003.keras", 32).optimizer.iterations for run in (folder, undisturbed)]
    assert rates[0] == rates[1] and int(steps[0]) == int(steps[1]) == 6


def test_a_run_that_was_out_of_memory_once_goes_on_in_parts(settings, table, monkeypatch):
    folder = training.train(replace(settings, epochs=1), table)
    first = training.read_history(folder)
    with monkeypatch.context() as patch:
        with_memory_for(patch, slices=2)
        training.train(replace(settings, epochs=2), table)
    taken = with_memory_for(monkeypatch, slices=4)
    training.train(settings, table)
    assert taken == [2] * 4
    history = training.read_history(folder)
    assert history.epoch.tolist() == [1, 2, 3] and history[:1].equals(first)


def test_no_memory_for_a_single_slice_is_told(settings, table, monkeypatch):
    with_memory_for(monkeypatch, slices=0)
    with pytest.raises(DataError, match="one slice at a time, 32 x 32 and 2 filters: take fewer"):
        training.train(settings, table)


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


def test_a_recipe_of_two_networks_is_not_trained_as_one(settings, table):
    with pytest.raises(DataError, match="recipe 'strong' trains two networks: call cascade.train_cascade"):
        training.train(replace(settings, recipe="strong"), table)
    assert not (settings.output_root / "runs").exists()


def test_training_names_what_is_missing(settings, table):
    with pytest.raises(DataError, match="at least one row"):
        training.train(settings, table[table.split != "validation"])
    assert files.shown(training.run_folder(settings, table))


def test_a_disk_too_full_for_an_epoch_is_told_before_it_is_written_to(settings, table, monkeypatch):
    """HDF5 crashes on it."""
    folder = training.train(replace(settings, epochs=1), table)
    before = sorted(path.name for path in folder.rglob("*"))
    usage = shutil.disk_usage(folder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
        with pytest.raises(DataError, match="make room, or set LITS_OUTPUT_ROOT"):
            training.train(settings, table)
    assert sorted(path.name for path in folder.rglob("*")) == before
    training.train(settings, table)
    assert len(training.read_history(folder)) == 3


# Five slices validate two devices in batches of four: of the last, a second device would get none.
TWO_DEVICES = """
import sys
from pathlib import Path
import tensorflow as tf
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from lits_helpers import load_settings, training
from lits_helpers.index import build_index
from lits_helpers.losses import class_loss
from lits_helpers.splits import split_patients

training.precision_policy = lambda: ("float32", "to compare")
usual = training.batches
for name in ("two", "parts"):
    if name == "two":
        training.strategy = lambda: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    else:
        training.strategy, training.parts_per_batch = tf.distribute.get_strategy, lambda folder: 2
        training.batches = lambda *given, first_epoch=0, **more: usual(*given, first_epoch=first_epoch + 1, **more)
    s = load_settings(data_root=sys.argv[1], output_root=Path(sys.argv[2]) / name, **CHOICES)
    table = split_patients(build_index(s.data_root, s.output_root))
    table.loc[table.index[table.split == "test"][0], "split"] = "validation"  # a fifth
    print(name, training.read_history(training.train(s, table)).loss.tolist(), sep=":")
"""


def test_devices_share_rows_of_which_the_last_is_repeated():
    rows = pd.DataFrame({"slice": [3, 5, 8, 9, 12]})
    assert training.shared_by(rows, 1).slice.tolist() == [3, 5, 8, 9, 12]
    assert training.shared_by(rows, 2).slice.tolist() == [3, 5, 8, 9, 12, 12]
    assert training.shared_by(rows, 4).slice.tolist() == [3, 5, 8, 9, 12, 12, 12, 12]


def test_two_devices_train_as_one_does_in_two_parts(slice_folder, tmp_path):
    script = TWO_DEVICES.replace("CHOICES", repr(TINY | dict(epochs=2)))
    done = subprocess.run(
        [sys.executable, "-c", script, slice_folder, tmp_path], capture_output=True, text=True, timeout=300
    )
    lines = dict(line.split(":") for line in done.stdout.splitlines() if line.startswith(("two:", "parts:")))
    assert set(lines) == {"two", "parts"}, done.stderr
    assert json.loads(lines["two"]) == pytest.approx(json.loads(lines["parts"]), rel=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_network_of_three_classes_ends_in_float32_whatever_the_policy(settings, monkeypatch, policy):
    monkeypatch.setattr(training, "precision_policy", lambda: (policy, "as the test wants"))
    model = training.compiled_unet(replace(settings, recipe="fast"))
    assert model.output_shape == (None, 32, 32, 3) and model.loss is class_loss
    assert model.layers[1].dtype_policy.name == policy and model.layers[-1].compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_a_recipe_of_three_classes_watches_the_pooled_dice_alone_and_goes_on_the_same(
    settings, table, tmp_path, monkeypatch
):
    settings = replace(settings, recipe="fast", epochs=2, learning_rate=0.01)
    undisturbed = training.train(replace(settings, output_root=tmp_path / "other"), table)
    folder = interrupted(settings, table, monkeypatch, epoch=2)
    assert folder != training.run_folder(replace(settings, recipe="report"), table)
    training.train(settings, table)
    assert same_curve(training.read_history(undisturbed), training.read_history(folder))
    assert list(training.read_history(folder)) == [
        "epoch", "loss", "pooled_dice", "val_loss", "val_pooled_dice", "learning_rate", "seconds"
    ]
    assert same_weights(*(path / "last" / "epoch-002.keras" for path in (undisturbed, folder)))


@pytest.mark.parametrize(
    ("seconds", "done"),
    # Ten in all. With 8 spent an epoch of 4 is worth beginning; with 9 spent one of 5 is not.
    [([], False), ([4, 4], False), ([4, 5], True), ([12], True)],
)
def test_a_run_by_the_clock_is_done_when_less_is_left_than_half_an_epoch_takes(settings, table, seconds, done):
    task = replace(training.slice_task(settings, table, augmentation=Augmentation()), seconds=10)
    history = pd.DataFrame({"seconds": seconds, "val_loss": np.arange(len(seconds))})
    assert training._is_done(task, history) == done


def test_a_run_by_the_clock_is_not_ended_by_its_number_of_epochs(settings, table):
    task = training.slice_task(replace(settings, epochs=2), table, augmentation=Augmentation())
    history = pd.DataFrame({"seconds": [4, 4], "val_loss": [2, 1]})
    assert training._is_done(task, history) and not training._is_done(replace(task, seconds=100), history)
