"""Ladders: tables worked out by hand, and a climb."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from lits_helpers import clocks, ladder
from lits_helpers.conversion import write_slice_files
from lits_helpers.files import DataError
from lits_helpers.generators import decode_slices
from lits_helpers.index import build_index
from lits_helpers.rungs import FINDER, LADDER, Rung
from lits_helpers.runs import read_history
from lits_helpers.settings import load_settings

PLAIN = Rung("plain", "three classes", classes=3, loss="class", block="plain")
REGION = replace(PLAIN, name="region", region=True)


@pytest.fixture
def settings(tmp_path):
    return load_settings(output_root=tmp_path, image_size=32, filters=2, depth=1)


# Tables


def results(**dice):
    """Rows as climb gives them: 100 voxels predicted unless both are empty, truth in all patients but the last."""
    rows = [
        {
            "rung": rung, "volume": volume, "patient": volume, "dice": value, "truth_voxels": 0 if volume == 3 else 50,
            "predicted_voxels": 0 if np.isnan(value) else 100, "shared_voxels": 0, "parameters": 7,
            "training_seconds": 4.0, "training_images": 80, "seconds_per_training_image": 0.05,
            "seconds_per_100_slices": 2.0,
        }
        for rung, values in dice.items()
        for volume, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_the_table_gives_means_and_paired_gains_over_the_rung_before():
    table = ladder.ladder_table(results(zero=[0.2, 0.4, 0.6, np.nan], alpha=[0.5, 0.4, 0.9, 0.0], beta=[0.4, 0.3, 0.8, 0.0]))
    assert table.index.tolist() == ["zero", "alpha", "beta"]  # as they were climbed, not by the alphabet
    assert table.tumour_dice_per_case.tolist() == pytest.approx([0.4, 0.45, 0.375])
    assert table.cases.tolist() == [3, 4, 4] and table.left_out.tolist() == [1, 0, 0]
    # alpha - zero over three patients: 0.3, 0, 0.3; the fourth has no Dice in zero. beta - alpha: three times -0.1, and 0.
    assert table.gain.tolist() == pytest.approx([np.nan, 0.2, -0.075], nan_ok=True)
    assert table.better.tolist() == [0, 2, 0] and table.worse.tolist() == [0, 0, 3]
    assert table.false_positive_voxels.tolist() == [0, 100, 100]
    assert (table.low <= table.tumour_dice_per_case).all() and (table.high >= table.tumour_dice_per_case).all()
    # Resampled means of three values 0.3, 0, 0.3 lie between 0 and 0.3.
    assert 0 <= table.gain_low["alpha"] < 0.2 < table.gain_high["alpha"] <= 0.3 + 1e-9


def test_all_rungs_can_be_compared_to_one():
    found = results(top=[0.5, 0.5, 0.5, np.nan], one=[0.6, 0.6, 0.6, np.nan], two=[0.4, 0.4, 0.4, np.nan])
    assert ladder.ladder_table(found, against="top").gain.tolist() == pytest.approx([np.nan, 0.1, -0.1], nan_ok=True)
    with pytest.raises(ValueError, match="there is no rung 'three': choose from"):
        ladder.ladder_table(found, against="three")


def test_one_patient_has_no_interval_and_none_with_tumour_no_score():
    one = ladder.ladder_table(results(a=[0.5])).iloc[0]
    assert one.tumour_dice_per_case == 0.5 and np.isnan([one.low, one.high]).all()
    none = ladder.ladder_table(results(a=[np.nan, np.nan])).iloc[0]
    assert np.isnan(none.tumour_dice_per_case) and (none.cases, none.left_out) == (0, 2)


# Predicting whole slices


def test_a_lesion_is_found_at_its_pixels_whatever_the_size_of_the_slices():
    inputs = keras.Input((48, 48, 3))
    layer = keras.layers.Conv2D(1, 1, activation="sigmoid")
    network = keras.Model(inputs, layer(inputs))
    kernel = np.zeros((1, 1, 3, 1), np.float32)
    kernel[0, 0, 1] = 40
    layer.set_weights([kernel, np.array([-20], np.float32)])  # bright is tumour
    pictures = np.zeros((19, 96, 120, 3), np.uint8)  # more than a batch
    pictures[17, 30:60, 40:90] = 255
    found, liver = ladder.WholeSlices(network).predict(list(pictures), range(19), flips=True)
    assert found.shape == (19, 96, 120) and found.dtype == np.float16 and liver is None
    assert np.flatnonzero((found > 0.5).any(axis=(1, 2))).tolist() == [17]
    rows, columns = np.nonzero(found[17] > 0.5)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((30, 59, 40, 89), abs=2)


# Climbing


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Slice table of four small patients: two train, one validates, one tests and cannot be read."""
    folder = tmp_path_factory.mktemp("patients")
    rows, columns = np.mgrid[:64, :64]
    for volume in range(4):
        labels = np.zeros((4, 64, 64), np.uint8)
        labels[1:, (rows - 30) ** 2 + (columns - 34) ** 2 < 20**2] = 1
        labels[2:, (rows - 30) ** 2 + (columns - 28 - volume) ** 2 < 8**2] = 2
        write_slice_files(folder / "slices", volume, np.choose(labels, (-80, 110, 40)).astype(np.int16), labels)
    table = build_index(folder / "slices", folder / "out")
    for path in table.image_path[table.volume == 3]:
        open(path, "w").close()
    return table.assign(split=table.volume.map({0: "train", 1: "train", 2: "validation", 3: "test"}))


@pytest.fixture
def small(monkeypatch):
    """Networks of two filters that are quicker to run than to compile, and a clock that moves when it is asked."""
    sizes = dict(image_size=32, filters=2, depth=1, batch_size=4, learning_rate=1e-2)
    monkeypatch.setattr(ladder, "SIZES", {"phantom": {"rung": sizes, "liver": sizes}})
    monkeypatch.setattr(ladder, "PARTS", {"phantom": 16})
    ticks = itertools.count()
    monkeypatch.setattr(ladder, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_rungs_are_climbed_once_for_the_same_time_each_and_scored_on_validation_patients(patients, settings, small, monkeypatch):
    flipped, parts = replace(REGION, name="flipped", flips=True), replace(REGION, name="parts", windows=True)
    rungs = [LADDER[0], PLAIN, REGION, flipped, parts]
    found = ladder.climb(settings, patients, rungs, seconds=15)
    assert found.rung.tolist() == ["report", "plain", "region", "flipped", "parts"]
    assert found.volume.tolist() == [2] * 5
    assert (found.truth_voxels == 2 * 193).all()  # grid points within 8 of a centre, on two slices
    counted = 2 * found.shared_voxels / (found.truth_voxels + found.predicted_voxels)
    assert found.dice.tolist() == pytest.approx(counted.tolist())
    # A step asks three times, and the network with the step in which the time is over. A region has two networks.
    assert (found.training_seconds >= 15).all() and (found.training_seconds <= [18, 18, 21, 21, 21]).all()
    assert found.training_seconds[2] == found.training_seconds[3]
    parameters = found.parameters.tolist()
    finder = FINDER.network(settings).count_params()
    assert parameters[2] == parameters[3] == parameters[4] == REGION.network(settings).count_params() + finder
    [folder] = (settings.output_root / "ladder").iterdir()
    assert sorted(path.is_dir() for path in folder.iterdir()) == [False] * 5 + [True] * 5  # one network for two rungs
    finder_time = read_history(folder / "liver").trained_seconds.iloc[-1]
    assert 3 <= finder_time <= 6  # a fifth
    monkeypatch.setattr(keras.Model, "fit", None)
    pd.testing.assert_frame_equal(ladder.climb(settings, patients, rungs, seconds=15), found)


def test_no_device_is_left_without_slices_to_validate(patients, settings, small):
    table = patients[patients.split != "test"]
    cache = decode_slices(table, 32, settings.output_root)
    task = ladder._task(PLAIN, replace(settings, batch_size=3), table, cache, PLAIN.augmentation, 1, settings.output_root)
    # The patient has four slices, and the last batch would have one for three devices.
    assert [len(images) for images, _ in task.validation(3)] == [3, 3]


def test_a_network_that_was_trained_but_not_scored_is_not_trained_again(patients, settings, small, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ladder, "overlap", None)
        with pytest.raises(TypeError):
            ladder.climb(settings, patients, [PLAIN], seconds=3)
    monkeypatch.setattr(keras.Model, "fit", None)
    assert len(ladder.climb(settings, patients, [PLAIN], seconds=3)) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns="split"), "needs train and validation patients"),
        (lambda table: table[table.split != "validation"], "needs train and validation patients"),
    ],
)
def test_patients_on_both_sides_are_asked_for(patients, settings, change, words):
    with pytest.raises(DataError, match=words):
        ladder.climb(settings, change(patients))


def test_rungs_of_one_name_and_no_time_are_refused(patients, settings):
    with pytest.raises(ValueError, match="names of their own"):
        ladder.climb(settings, patients, [PLAIN, PLAIN])
    with pytest.raises(ValueError, match="seconds must be above 0, got 0"):
        ladder.climb(settings, patients, [PLAIN], seconds=0)


def test_patients_without_livers_have_no_region(patients, settings, small, tmp_path):
    root = tmp_path / "none"
    for volume in range(2):
        write_slice_files(root, volume, np.zeros((2, 64, 64), np.int16), np.zeros((2, 64, 64), np.uint8))
    table = build_index(root, tmp_path / "out").assign(split=["train", "train", "validation", "validation"])
    with pytest.raises(DataError, match="there is no region to learn from"):
        ladder.climb(settings, table, [REGION], seconds=3)


def test_filters_cost_and_those_too_many_are_only_timed(patients, settings, small, monkeypatch):
    monkeypatch.setattr(ladder, "COST_DEPTH", 1)
    table = ladder.cost_ladder(settings, patients, filters=(1, 2, 4), seconds=3, largest=2)
    assert table.index.tolist() == [1, 2, 4] and table.trained.tolist() == [True, True, False]
    expected = [replace(LADDER[0], filters=number).network(settings).count_params() for number in (1, 2, 4)]
    assert table.parameters.tolist() == expected
    assert table.tumour_dice_per_case.notna().tolist() == [True, True, False]
    assert (table[["seconds_per_training_image", "seconds_per_100_slices"]] > 0).all(axis=None)
    timed = ladder.cost_ladder(settings, patients, filters=(1, 2), seconds=3, largest=0)
    assert timed.columns.tolist() == table.columns.tolist()
    assert timed.parameters.tolist() == expected[:2] and not timed.trained.any()
    assert timed[["tumour_dice_per_case", "cases", "training_seconds"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="filters must rise"):
        ladder.cost_ladder(settings, patients, filters=(4, 2))


def test_scores_that_were_cut_short_are_named(patients, settings, small):
    ladder.climb(settings, patients, [PLAIN], seconds=3)
    [stored] = (settings.output_root / "ladder").glob("*/*.csv")
    stored.write_text(stored.read_text()[:20])
    with pytest.raises(DataError, match=f"{stored.name}: damaged, or of another version"):
        ladder.climb(settings, patients, [PLAIN], seconds=3)
