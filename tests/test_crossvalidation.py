"""Folds are trained once, tested on whom they have not seen, and gone on with after a stop."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from lits_helpers import crossvalidation, training
from lits_helpers.crossvalidation import patients_of, score_folds
from lits_helpers.files import DataError
from lits_helpers.index import build_index
from lits_helpers.masks import TUMOUR, read_labels
from lits_helpers.settings import load_settings
from lits_helpers.splits import fold_patients
from lits_helpers.uncertainty import summarise_runs

TINY = dict(image_size=32, filters=2, depth=2, batch_size=8, epochs=1)


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
    return build_index(settings.data_root, settings.output_root)


def uniform(probability):
    """A network that gives every pixel the same probability."""
    inputs = keras.Input((32, 32, 3))
    layer = keras.layers.Conv2D(1, 1)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.zeros((1, 1, 3, 1)), np.full(1, probability)])
    return model


@pytest.fixture
def trained(monkeypatch):
    """Training that takes no time: its network says tumour everywhere. Gives the volumes left for testing."""
    calls = []

    def train(settings, split, *, minutes=None):
        calls.append(sorted(split.volume[split.split == "test"].unique().tolist()))
        folder = training.run_folder(settings, split)
        finished = len(training.read_history(folder))
        finished = settings.epochs if minutes is None else finished + 1
        (folder / "last").mkdir(parents=True, exist_ok=True)
        (folder / "last" / f"epoch-{finished:03d}.keras").touch()
        epochs = range(1, finished + 1)
        history = pd.DataFrame({"epoch": epochs, "val_loss": epochs, "learning_rate": 0.1, "seconds": 1.0})
        history.to_csv(folder / "history.csv", index=False)
        uniform(1).save(folder / "best.keras")
        return folder

    monkeypatch.setattr(crossvalidation, "train", train)
    return calls


def cross_validate(*given, **more):
    return patients_of(score_folds(*given, **more))


def test_each_fold_is_trained_for_real_without_the_patients_it_is_tested_on(settings, table, capsys):
    """Two calls: the first stops after an epoch, as train does, and the second goes on."""
    two = replace(settings, epochs=2)
    assert cross_validate(two, table, folds=2, minutes=0).empty
    assert "time used up in fold 1 of 2: call again" in capsys.readouterr().out
    patients = cross_validate(two, table, folds=2)
    assert sorted(patients.volume) == [0, 1, 2, 3]
    folders = list((settings.output_root / "runs").iterdir())
    assert [training.read_history(folder).epoch.tolist() for folder in folders] == [[1, 2]] * 2
    tested = []
    for folder in folders:
        split = pd.read_csv(folder / "split.csv")
        tested.append(set(split.volume[split.split == "test"]))
        assert not tested[-1] & set(split.volume[split.split != "test"])
    assert sorted(map(sorted, tested)) == sorted(patients.groupby("fold").volume.agg(list))


def test_every_patient_is_tested_once_in_its_fold(settings, table, trained):
    patients = cross_validate(settings, table)
    assert len(trained) == 3  # the tiny profile's folds
    assert sorted(patients.volume) == [0, 1, 2, 3]
    assert patients.groupby("fold").volume.agg(list).tolist() == trained
    assert summarise_runs(dict(list(patients.groupby("fold")))).kind == "folds"


def test_all_slices_are_scored_at_native_resolution_with_their_fold(settings, table, trained):
    slices = score_folds(settings, table)
    assert len(slices) == 16 and (slices.pixels == 64 * 64).all()
    truth = [np.count_nonzero(read_labels(path) == TUMOUR) for path in table.mask_path]
    found = slices.set_index(["volume", "slice"]).truth_pixels
    assert found.loc[list(zip(table.volume, table.slice))].tolist() == truth
    assert sorted(slices.fold.unique()) == [1, 2, 3]


def test_a_folds_scores_are_those_of_its_best_network(settings, table, trained):
    patients = cross_validate(settings, table).set_index("volume")
    assert (patients.predicted_pixels == 4 * 64 * 64).all()  # four slices, all tumour
    truth = table.groupby("volume").tumour_pixels.sum()
    for volume in range(4):
        assert patients.dice[volume] == pytest.approx(2 * truth[volume] / (truth[volume] + 4 * 64 * 64))


def test_a_second_call_reads_the_scores_and_gives_the_same_table(settings, table, trained):
    first = cross_validate(settings, table)
    for folder in sorted((settings.output_root / "runs").iterdir()):
        (folder / "best.keras").unlink()
    pd.testing.assert_frame_equal(cross_validate(settings, table), first)
    assert len(trained) == 3


def test_a_stopped_cross_validation_goes_on_where_it_was(settings, table, trained, monkeypatch):
    calls = iter([crossvalidation.evaluate_slices])  # a second fold finds none
    with monkeypatch.context() as broken, pytest.raises(StopIteration):
        broken.setattr(crossvalidation, "evaluate_slices", lambda *given: next(calls)(*given))
        cross_validate(settings, table)
    assert len(trained) == 2
    patients = cross_validate(settings, table)
    assert trained[2:] == patients.groupby("fold").volume.agg(list).tolist()[1:]
    assert sorted(patients.volume) == [0, 1, 2, 3]
    assert not list(settings.output_root.rglob(".writing*"))


def test_when_time_is_used_up_the_finished_folds_are_given_and_no_other_is_begun(settings, table, trained):
    patients = cross_validate(settings, table, minutes=0)  # of one epoch each
    assert patients.fold.unique().tolist() == [1] and sorted(patients.volume) == trained[0]
    assert len(trained) == 1
    assert cross_validate(settings, table, minutes=0).fold.unique().tolist() == [1, 2]
    assert cross_validate(settings, table, minutes=0).fold.unique().tolist() == [1, 2, 3]
    assert len(trained) == 3


def test_more_epochs_train_on_and_score_anew(settings, table, trained):
    cross_validate(settings, table)
    cross_validate(replace(settings, epochs=2), table)
    assert len(trained) == 6 and len(list((settings.output_root / "runs").iterdir())) == 3


def test_seeds_train_anew_on_the_same_folds(settings, table, trained):
    first, second = (cross_validate(replace(settings, seed=seed), table) for seed in (1, 2))
    assert first[["volume", "fold"]].equals(second[["volume", "fold"]])
    assert len(list((settings.output_root / "runs").iterdir())) == 6
    assert summarise_runs([first, second]).kind == "seeds"


def test_folds_of_the_tables_own_are_used(settings, table, trained):
    folded = fold_patients(table, folds=2, seed=5)
    patients = cross_validate(settings, folded)
    assert len(trained) == 2
    assert patients.set_index("volume").fold.to_dict() == folded.groupby("volume").fold.first().to_dict()
    assert not list((settings.output_root / "crossvalidation").glob("folds-*"))


def test_volumes_of_one_patient_are_tested_together_and_named_in_the_scores(settings, table, trained):
    patients = cross_validate(settings, table.assign(patient=table.volume.replace({3: 0})))
    assert patients.set_index("volume").patient.to_dict() == {0: 0, 1: 1, 2: 2, 3: 0}
    assert (patients.groupby("patient").fold.nunique() == 1).all()


def test_a_changed_table_is_refused_before_anything_is_trained(settings, table, trained):
    cross_validate(settings, table)
    with pytest.raises(DataError, match=r"folds-3-\w+\.csv: .*missing volumes \[3\]"):
        cross_validate(settings, table[table.volume < 3])
    assert len(trained) == 3


def test_too_few_patients_are_refused_before_anything_is_trained(settings, table, trained):
    with pytest.raises(DataError, match="nothing for validation"):
        cross_validate(settings, table[table.volume < 2], folds=2)
    assert trained == []
