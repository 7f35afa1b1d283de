"""The surveyed systems are trained once, share what they can, and refuse what they cannot learn from."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from lits_helpers import surveyed
from lits_helpers.candidate_filter import CandidateFilter
from lits_helpers.conversion import write_slice_files
from lits_helpers.files import DataError
from lits_helpers.index import build_index
from lits_helpers.runs import read_history, state_path
from lits_helpers.settings import load_settings
from lits_helpers.superpixel_system import SuperpixelOptions
from lits_helpers.surveyed import SYSTEMS, survey_folder, train_system
from lits_helpers.training import run

SMALL = dict(image_size=32, filters=4, depth=1, batch_size=4, learning_rate=3e-3)
SMALL_BAI = SuperpixelOptions(
    liver_size=16, liver_slices=4, liver_filters=4, liver_depth=2, liver_steps=3, scales=(10,),
    patch=(3, 8, 8), filters=4, fractal_columns=1, blocks=1, batch=4, steps=3,
)


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(surveyed.SIZES, "tiny", {"slices": SMALL, "region": SMALL})
        patch.setitem(surveyed.SORTER, "tiny", dict(size=16, epochs=1))
        patch.setitem(surveyed.BAI, "tiny", SMALL_BAI)
        yield


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Settings and slice table: four patients with a dark lesion, two to learn from, one of each other side."""
    root = tmp_path_factory.mktemp("surveyed")
    rows, columns = np.ogrid[:64, :64]
    for volume in range(4):
        labels = np.zeros((6, 64, 64), np.uint8)
        labels[1:, np.hypot(rows - 32, columns - 28 - volume) < 20] = 1
        labels[2:5, np.hypot(rows - 30, columns - 26 - 2 * volume) < 8] = 2
        noise = np.random.default_rng(volume).normal(0, 8, labels.shape).round()
        write_slice_files(root / "slices", volume, (np.choose(labels, (-80, 110, 40)) + noise).astype(np.int16), labels)
    table = build_index(root / "slices", root / "out")
    sides = {0: "train", 1: "train", 2: "validation", 3: "test"}
    settings = load_settings(profile="tiny", data_root=root / "slices", output_root=root / "out")
    return settings, table.assign(split=table.volume.map(sides), patient=table.volume)


def run_or_store(task):
    """Train the shared network; of the others look at a batch, and store them as they are."""
    if task.folder.name == "slices" or (task.folder / "history.csv").exists():
        return run(task)
    assert sum(len(images) for images, _ in task.validation(2)) == 4  # every second of five or six, the last twice
    for images, truth in (*task.training(0, 1).take(1), *task.validation(1).take(1)):
        assert images.shape == truth.shape and images.shape[1:] == (32, 32, 3)
        assert images.numpy().max() <= 1 and (truth.numpy().sum(axis=-1) == 1).all()
    state_path(task.folder, 1).parent.mkdir(parents=True)
    task.network().save(state_path(task.folder, 1))
    row = pd.DataFrame({"epoch": [1], "val_loss": [1.0], "learning_rate": [0.1], "seconds": [2 * task.seconds]})
    row.to_csv(task.folder / "history.csv", index=False)
    return task.folder


@pytest.fixture(scope="module")
def trained(patients):
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surveyed, "run", run_or_store)
        tf.config.run_functions_eagerly(True)  # tracing takes longer than the few steps
        try:
            return {name: train_system(name, *patients, seconds=0.1) for name in SYSTEMS}
        finally:
            tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_system_looks_at_a_patient_it_has_not_seen(trained, patients, name):
    test = patients[1][patients[1].split == "test"]
    found = trained[name].predict_table(test)
    assert found.shape == (6, 64, 64) and found.dtype == np.float16
    assert found.min() >= 0 and found.max() <= 1
    assert trained[name].parameters > 0 and trained[name].seconds > 0


def test_four_systems_share_one_network_on_whole_slices(trained, patients):
    folder = survey_folder(*patients)
    assert len(list(folder.glob("slices*"))) == 1
    weights = [
        trained[name].networks[0].get_weights()[0] for name in ("Kaur 2021", "Han 2017", "Chlebus 2017", "Yuan 2017")
    ]
    assert all((other == weights[0]).all() for other in weights[1:])


def test_a_trained_system_is_loaded_and_answers_alike(trained, patients, monkeypatch):
    def fit(*_):
        raise AssertionError("trained again")

    for name in ("training._fit", "sorting._fit", "surveyed.train_superpixel_system", "surveyed._grow"):
        monkeypatch.setattr(f"lits_helpers.{name}", fit)
    test = patients[1][patients[1].split == "test"]
    for name, system in trained.items():
        again = train_system(name, *patients, seconds=0.1)
        assert again.seconds == system.seconds and again.parameters == system.parameters
        assert (again.predict_table(test) == system.predict_table(test)).all()


def test_the_lesion_networks_are_what_their_papers_ask_for(trained):
    def kinds(network):
        return [layer.__class__.__name__ for layer in network.layers]

    han, chlebus = (trained[name].networks[1] for name in ("Han 2017", "Chlebus 2017"))
    assert "Add" in kinds(han)  # residual blocks
    assert han.layers[1].kernel.shape[2] == 3  # slices that it sees
    pictures = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    others = pictures.copy()
    others[..., [0, 2]] = 0
    # Chlebus's is of single slices: the neighbours' channels make no difference to it.
    assert (chlebus.predict_on_batch(others) == chlebus.predict_on_batch(pictures)).all()
    assert not (han.predict_on_batch(others) == han.predict_on_batch(pictures)).all()


@pytest.mark.parametrize("name", ["Han 2017", "Chlebus 2017"])
def test_nothing_is_dropped_for_being_nowhere_sure(trained, name):
    predictor = trained[name].predictor
    cascade = getattr(predictor, "cascade", predictor)
    assert cascade.sure == cascade.threshold == 0.5


def test_candidates_of_another_threshold_have_a_forest_of_their_own(trained, patients, monkeypatch):
    grown = []
    monkeypatch.setattr(surveyed, "_grow", lambda *arguments: grown.append(arguments[3]))
    monkeypatch.setattr(surveyed, "CANDIDATE_THRESHOLD", 0.1)
    system = train_system("Chlebus 2017", *patients, seconds=0.1)
    assert system.threshold == system.predictor.threshold == 0.1 and system.predictor.forest is None
    assert [path.exists() for path in grown] == [False]


def test_a_network_of_other_parts_has_a_folder_of_its_own(patients, tmp_path, monkeypatch):
    folders = []
    monkeypatch.setattr(surveyed, "_trained", lambda *arguments, **parts: (folders.append(arguments[3]), 0.0))
    for parts in ({}, {"block_kind": "residual"}, {"block_kind": "residual", "middle_slice_only": True}):
        surveyed._cascade(*patients, tmp_path, 0.1, "han", **parts)
    shared, *others = [folder for folder in dict.fromkeys(folders)]
    assert shared.name == "slices" and len(others) == 3


def test_the_tumour_network_of_yuan_learns_from_the_equalised_true_liver(trained, patients):
    settings, table = patients
    cache, rows = surveyed._region(settings, table)
    seen = surveyed._liver_cache(settings, rows, cache)
    assert ((seen.images[..., 0] > 0) == (seen.labels > 0)).all()
    tumour, liver = (np.median(seen.images[..., 0][seen.labels == kind]) for kind in (2, 1))
    assert tumour < 64 < liver  # darker than healthy liver, so of the lowest ranks


def test_only_patients_that_are_learnt_from_are_cropped(patients):
    _, rows = surveyed._region(*patients)
    assert set(rows.split) == {"train", "validation"} and len(rows) == 3 * 5


@pytest.mark.parametrize("true", [[True, True], [False, False], []])
def test_candidates_of_one_kind_grow_no_forest_and_are_said_aloud(patients, tmp_path, monkeypatch, true):
    found = pd.DataFrame({"volume": 0, "true": np.array(true, bool)})
    monkeypatch.setattr(surveyed, "volumes", lambda table: [(table.head(1), [np.zeros((2, 2, 3), np.uint8)])])
    monkeypatch.setattr(surveyed, "candidate_table", lambda cases: found)
    empty = np.zeros((1, 2, 2))
    cascade = SimpleNamespace(predict=lambda *_: (empty, empty > 0))
    with pytest.warns(UserWarning, match="not both true and false candidates"):
        surveyed._grow(*patients, cascade, tmp_path / "forest.npz", tmp_path / "threshold.json")
    assert list(tmp_path.iterdir()) == []


def test_a_forest_and_its_threshold_tell_the_candidates_of_few_patients_with_lesions_apart(
    patients, tmp_path, monkeypatch
):
    """Two patients of seven: left out together, they would leave nothing to learn from."""
    pytest.importorskip("sklearn")
    volume = np.repeat(np.arange(7), 3)
    true = np.isin(np.arange(21), [0, 3])  # one candidate of patients 0 and 1 each
    found = pd.DataFrame({
        "volume": volume, "mean": np.where(true, 20.0, 90.0), "voxels": 5, "true": true,
    })
    monkeypatch.setattr(surveyed, "volumes", lambda table: [(table.head(1), [np.zeros((2, 2, 3), np.uint8)])])
    monkeypatch.setattr(surveyed, "candidate_table", lambda cases: found)
    cascade = SimpleNamespace(predict=lambda *_: (np.zeros((1, 2, 2)),) * 2)
    surveyed._grow(*patients, cascade, tmp_path / "forest.npz", tmp_path / "threshold.json")
    probabilities = CandidateFilter.load(tmp_path / "forest.npz").probabilities(found)
    threshold = json.loads((tmp_path / "threshold.json").read_text(encoding="utf-8"))
    assert (probabilities >= threshold).tolist() == true.tolist()


def test_what_was_done_once_is_not_done_again(tmp_path):
    done = []
    first = surveyed._timed(tmp_path / "seconds.json", lambda: done.append(1))
    assert surveyed._timed(tmp_path / "seconds.json", lambda: done.append(2)) == first >= 0
    assert done == [1]


def test_an_unknown_system_is_refused_by_name(patients):
    with pytest.raises(DataError, match="'Christ 2016' is none of the surveyed systems: choose from Kaur 2021"):
        train_system("Christ 2016", *patients)


@pytest.mark.parametrize("missing", ["train", "validation"])
def test_a_table_without_one_side_is_refused(patients, missing):
    settings, table = patients
    with pytest.raises(DataError, match="needs train and validation patients"):
        train_system("Han 2017", settings, table[table.split != missing])


def test_a_side_without_a_liver_is_refused(patients):
    settings, table = patients
    empty = table[~((table.split == "validation") & (table.slice > 0))]
    with pytest.raises(DataError, match="no slice shows a liver on one side"):
        surveyed._region(settings, empty)


def test_more_patients_have_a_folder_of_their_own(patients):
    settings, table = patients
    assert survey_folder(settings, table) != survey_folder(settings, table[table.volume > 0])
    assert read_history(survey_folder(settings, table[table.volume > 0]) / "slices").empty
