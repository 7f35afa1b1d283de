import os
from dataclasses import replace

import keras
import pandas as pd
import pytest

from lits_helpers import runs
from lits_helpers.augmentation import Augmentation
from lits_helpers.files import DataError
from lits_helpers.index import build_index
from lits_helpers.model import unet
from lits_helpers.settings import load_settings
from lits_helpers.splits import split_patients


@pytest.fixture
def settings(slice_folder, tmp_path):
    return load_settings(data_root=slice_folder, output_root=tmp_path / "out", image_size=32, filters=2, depth=2)


@pytest.fixture
def table(settings):
    return split_patients(build_index(settings.data_root, settings.output_root))


@pytest.mark.parametrize("change", [{"filters": 4}, {"seed": 1}, {"batch_size": 2}, {"schedule": "step"}])
def test_other_choices_are_another_run(settings, table, change):
    assert runs.run_folder(replace(settings, **change), table) != runs.run_folder(settings, table)


def test_another_augmentation_is_another_run(settings, table):
    bent = Augmentation(elastic=0.02)
    assert runs.run_folder(settings, table, bent) != runs.run_folder(settings, table)


def test_more_epochs_are_the_same_run_and_other_files_are_not(settings, table):
    folder = runs.run_folder(settings, table)
    assert runs.run_folder(replace(settings, epochs=99), table) == folder
    os.utime(table.mask_path[0], ns=(1, 1))
    assert runs.run_folder(settings, table) != folder


def a_checkpoint(folder, kind):
    path = folder / "model.keras"
    if kind == "garbage":
        path.write_bytes(b"PK\3\4 no archive")
    elif kind == "other size":
        unet((64, 64, 3), filters=2, depth=2).save(path)
    elif kind == "no segmentation":
        keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()]).save(path)
    elif kind == "two answers":
        inputs = keras.Input((32, 32, 3))
        keras.Model(inputs, {name: keras.layers.Conv2D(1, 1, name=name)(inputs) for name in ("one", "other")}).save(path)
    return path


@pytest.mark.parametrize("kind", ["missing", "garbage", "other size", "no segmentation", "two answers"])
def test_a_checkpoint_that_does_not_fit_is_named(tmp_path, kind):
    with pytest.raises(DataError, match="(?s)model.keras: .*train (first|anew)"):
        runs.load_checkpoint(a_checkpoint(tmp_path, kind), 32)


def test_code_hidden_in_a_checkpoint_is_not_run(tmp_path):
    trace = tmp_path / "trace"
    spy = keras.layers.Lambda(eval(f"lambda x: (open({str(trace)!r}, 'w'), x[..., :1])[1]"))
    keras.Sequential([keras.Input((32, 32, 3)), spy]).save(tmp_path / "model.keras")
    trace.unlink()  # left by building the network here, so that the code is known to work
    with pytest.raises(DataError, match="model.keras"):
        runs.load_checkpoint(tmp_path / "model.keras", 32)
    assert not trace.exists()


def a_run(folder, losses, states, best=b"before"):
    """A run folder with these validation losses, the states of these epochs, and a best network."""
    (folder / "last").mkdir()
    rows = {"epoch": range(1, len(losses) + 1), "val_loss": losses, "learning_rate": 0.1, "seconds": 1.0}
    pd.DataFrame(rows).to_csv(folder / "history.csv", index=False)
    for epoch in states:
        runs.state_path(folder, epoch).write_bytes(b"state %d" % epoch)
    if best:
        (folder / "best.keras").write_bytes(best)


def test_epochs_count_as_far_as_there_is_a_state_to_go_on_from(tmp_path):
    a_run(tmp_path, [3, 2, 1], states=[1, 2])
    assert runs.read_history(tmp_path).epoch.tolist() == [1, 2]
    runs.state_path(tmp_path, 2).unlink()
    runs.state_path(tmp_path, 1).unlink()
    assert len(runs.read_history(tmp_path)) == 0
    assert len(runs.read_history(tmp_path / "nowhere")) == 0


@pytest.mark.parametrize("best", [b"before", None])
def test_a_best_network_that_a_kill_left_out_is_copied_from_its_state(tmp_path, best):
    a_run(tmp_path, [3, 1], states=[1, 2], best=best)
    runs.settle(tmp_path)
    assert (tmp_path / "best.keras").read_bytes() == b"state 2"
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["epoch-002.keras"]


@pytest.mark.parametrize("losses", [[1, 3], [1, 1]])
def test_an_earlier_best_network_stays_and_so_does_the_first_of_equals(tmp_path, losses):
    a_run(tmp_path, losses, states=[2])
    runs.settle(tmp_path)
    assert (tmp_path / "best.keras").read_bytes() == b"before"


def test_a_state_beyond_the_history_is_no_epoch_and_is_left_to_be_replaced(tmp_path):
    a_run(tmp_path, [3], states=[1, 2])
    runs.settle(tmp_path)
    assert (tmp_path / "best.keras").read_bytes() == b"state 1"
    assert runs.read_history(tmp_path).epoch.tolist() == [1]


def test_a_run_remembers_in_how_many_parts_it_takes_a_batch(settings, table, tmp_path):
    assert runs.parts_per_batch(tmp_path) == 1
    runs.write_description(tmp_path, settings, table, policy="float32", parts=4)
    assert runs.parts_per_batch(tmp_path) == 4
    (tmp_path / "run.json").write_text("{}")  # of an earlier version
    assert runs.parts_per_batch(tmp_path) == 1
