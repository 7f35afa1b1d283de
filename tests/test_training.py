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
from lits_helpers.files import DataError
from lits_helpers.index import build_index, split_patients, split_slices
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


def test_the_policy_comes_with_its_reason():
    policy, reason = training.precision_policy()
    assert policy in ("float32", "mixed_bfloat16", "mixed_float16") and reason


def test_the_last_layer_computes_in_float32_under_any_policy(settings):
    model = training.compiled_unet(settings)
    assert model.layers[-1].compute_dtype == "float32"
    assert model.layers[1].compute_dtype == keras.config.dtype_policy().compute_dtype


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


def test_the_best_network_is_that_of_the_lowest_validation_loss(settings, table):
    folder = training.train(replace(settings, epochs=5, learning_rate=0.05), table)
    best = int(training.read_history(folder).val_loss.argmin()) + 1
    expected = unet((32, 32, 3), filters=2, depth=2)
    expected.load_weights(folder / "weights" / f"epoch-{best:03d}.weights.h5")
    found = training.load_checkpoint(folder / "best.keras", 32)
    assert all((a == b).all() for a, b in zip(found.get_weights(), expected.get_weights(), strict=True))


def test_a_finished_run_is_not_trained_again_but_more_epochs_are(settings, table, monkeypatch):
    folder = training.train(settings, table)
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", None)
        assert training.train(settings, table) == folder
    assert training.train(replace(settings, epochs=4), table) == folder
    assert training.read_history(folder).epoch.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_an_interrupted_run_ends_like_an_undisturbed_one(settings, table, tmp_path, monkeypatch, schedule):
    settings = replace(settings, schedule=schedule, epochs=7, learning_rate=0.02)
    undisturbed = training.train(replace(settings, output_root=tmp_path / "other"), table)

    def interrupt(self, batch, logs=None):
        if len(self.rows) == 5 and batch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training._RunFolder, "on_train_batch_end", interrupt)
        patch.setattr(training._RunFolder, "on_train_end", lambda self, logs=None: None)
        with pytest.raises(KeyboardInterrupt):
            training.train(settings, table)
    folder = training.run_folder(settings, table)
    assert len(training.read_history(folder)) == 5
    training.train(settings, table)
    expected, resumed = training.read_history(undisturbed), training.read_history(folder)
    assert same_curve(expected, resumed)


def test_a_run_killed_between_history_and_state_repeats_that_epoch(settings, table):
    folder = training.train(settings, table)
    whole = training.read_history(folder)
    (folder / "last" / "epoch-003.keras").unlink()
    assert len(training.read_history(folder)) == 0  # no state to go on from
    training.train(settings, table)
    assert same_curve(training.read_history(folder), whole)


def test_a_run_killed_by_the_system_goes_on(settings, table, tmp_path):
    settings = replace(settings, epochs=6)
    undisturbed = training.train(replace(settings, output_root=tmp_path / "other"), table)
    script = f"""
import tensorflow as tf
from lits_helpers import load_settings, training
from lits_helpers.index import build_index, split_patients
tf.config.run_functions_eagerly(True)
s = load_settings(data_root={str(settings.data_root)!r}, output_root={str(settings.output_root)!r},
                  **{TINY | dict(epochs=6)!r})
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
    assert not list(folder.rglob(".writing-*")) or finished < 6


def test_a_time_budget_stops_after_an_epoch_and_the_next_call_goes_on(settings, table, capsys):
    folder = training.train(settings, table, minutes=0)
    assert len(training.read_history(folder)) == 1
    assert "call train again" in capsys.readouterr().out
    training.train(settings, table)
    assert len(training.read_history(folder)) == 3


def test_early_stopping_is_final(settings, table, monkeypatch):
    monkeypatch.setattr(training, "EARLY_STOPPING_PATIENCE", 1)
    settings = replace(settings, epochs=30, learning_rate=0.5)
    folder = training.train(settings, table)
    history = training.read_history(folder)
    assert len(history) < 30
    monkeypatch.setattr(keras.Model, "fit", None)
    training.train(settings, table)


def test_both_splits_train_in_folders_of_their_own(settings, table):
    by_slice = split_slices(build_index(settings.data_root, settings.output_root))
    assert training.split_name(table) == "patient split"
    assert training.split_name(by_slice) == "slice split: leaks"
    leaking = training.train(replace(settings, epochs=1), by_slice)
    assert "slice" in leaking.name and leaking != training.run_folder(settings, table)


@pytest.mark.parametrize("change", [{"filters": 4}, {"seed": 1}, {"batch_size": 2}, {"schedule": "step"}])
def test_other_choices_are_another_run(settings, table, change):
    assert training.run_folder(replace(settings, **change), table) != training.run_folder(settings, table)


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
    elif kind == "hidden code":
        spy = keras.layers.Lambda(lambda x: x[..., :1])
        keras.Sequential([keras.Input((32, 32, 3)), spy]).save(path)
    return path


@pytest.mark.parametrize("kind", ["missing", "garbage", "other size", "no segmentation", "hidden code"])
def test_a_checkpoint_that_does_not_fit_is_named(tmp_path, kind):
    with pytest.raises(DataError, match="model.keras"):
        training.load_checkpoint(a_checkpoint(tmp_path, kind), 32)


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
