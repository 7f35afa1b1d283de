import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
from phantom_layouts import write_layout
import pytest
import tensorflow as tf

from lits_helpers import __main__ as command_line
from lits_helpers import settings
from lits_helpers.model import unet
from lits_helpers.phantom import phantom_volume
from lits_helpers.recipes import RECIPES
from lits_helpers.volumes import read_volume, write_nifti

SMALL = dict(
    image_size=32, filters=2, depth=2, momentum=0.9, prior=0.1,
    batch_size=8, epochs=1, learning_rate=1e-3, schedule="cosine",
)


@pytest.fixture
def run(slice_folder, tmp_path, monkeypatch, capsys):
    """Call the command line on the small slice folder; gives status and what was printed."""
    monkeypatch.setitem(settings.PROFILES, "tiny", SMALL)
    monkeypatch.setattr(settings, "KAGGLE_INPUT", tmp_path / "no kaggle")
    tf.config.run_functions_eagerly(True)  # a network this small trains faster than it is compiled

    def call(*words, data=slice_folder):
        places = ["--output", str(tmp_path / "out")] + (["--data", str(data)] if data else [])
        status = command_line.main([*words, *places])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    yield call
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("command", command_line.COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.main([command, "--help"])
    words = capsys.readouterr().out
    assert stopped.value.code == 0
    own = {
        "index": ["--skip-problems"],
        "train": ["--epochs", "--minutes", "--split", "--skip-problems"],
        "evaluate": ["--model", "--split", "--skip-problems", "--report"],
        "crossvalidate": ["--folds", "--epochs", "--minutes", "--skip-problems"],
        "predict": ["--model", "--series", "--dicom-seg", "--keep-patient"],
        "export": ["--model", "--format"],
        "convert": ["--jpeg", "--skip-problems"],
    }
    assert all(option in words for option in ["--data", "--output", "--profile", *own.get(command, [])])


@pytest.mark.parametrize("epochs", ["0", "-1", "1.5", "many"])
def test_training_takes_at_least_one_epoch(run, epochs, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("train", "--epochs", epochs)
    assert stopped.value.code == 2
    assert f"--epochs: must be a whole number of at least 1, got {epochs}" in capsys.readouterr().err


def test_epochs_given_stand_in_for_the_profiles(run, tmp_path):
    assert run("train", "--epochs", "2")[0] == 0
    (history,) = (tmp_path / "out").rglob("history.csv")
    assert len(pd.read_csv(history)) == 2


def test_help_names_all_commands_and_loads_no_tensorflow():
    script = (
        "import sys, runpy; sys.argv = ['lits_helpers', '--help']\n"
        "try: runpy.run_module('lits_helpers', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('LOADED', 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "LOADED False" in done.stdout and "Not a medical device" in done.stdout
    assert all(command in done.stdout for command in command_line.COMMANDS)


def test_index_prints_the_counts(run):
    status, out, _ = run("index")
    assert status == 0
    assert "16 slices of 4 volumes" in out
    assert re.search(r"liver and tumour\s+6\s", out)


def volumes_scored(printed):
    """Volumes in the table of patients, the last that is printed."""
    *_, head, rows = re.split(r"( *volume +slices.*)\n", printed)
    return [int(row.split()[0]) for row in rows.strip().splitlines()]


def test_train_evaluate_and_predict_follow_each_other(run, tmp_path, slice_folder):
    status, out, _ = run("train")
    assert status == 0 and "best.keras" in out
    (model,) = (tmp_path / "out").rglob("best.keras")
    status, out, _ = run("evaluate")
    assert status == 0
    assert "test slices of the patient split" in out and "Dice, pooled" in out and "threshold 0.30" in out
    split = pd.read_csv(model.parent / "split.csv")
    assert volumes_scored(out) == sorted(split.volume[split.split == "test"].unique())
    status, out, _ = run("evaluate", "--model", str(model))
    assert status == 0 and "all slices, whether or not" in out
    assert volumes_scored(out) == [0, 1, 2, 3]
    status, out, _ = run("evaluate", "--report")
    page = (tmp_path / "out" / "results" / "report.html").read_text()
    assert status == 0 and "report.html" in out
    assert "test slices of the patient split" in page and "Where it fails" in page
    assert re.search(r"<dt>training</dt><dd>\d+ s for 1 epochs</dd>", page)
    for path in slice_folder.rglob("*_mask.jpg"):
        path.unlink()
    status, out, _ = run("predict", "--model", str(model))
    assert status == 0
    assert len(pd.read_csv(tmp_path / "out" / "predictions" / "predictions.csv")) == 16


def test_cross_validation_scores_every_patient_and_is_not_done_twice(run, tmp_path):
    status, out, _ = run("crossvalidate", "--folds", "2")
    assert status == 0 and "4 of 4 volumes tested once" in out and "Dice, pooled" in out
    assert re.search(r"dice, mean by fold: 1: [\d.]+, 2: [\d.]+ \(mean", out) and "95 % interval" in out
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = run("crossvalidate", "--folds", "2")[1]
    assert "Run folder" not in again and out.endswith(again[again.index("4 of 4 volumes"):])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == written


def test_a_recipe_without_folds_is_not_cross_validated(run, tmp_path):
    status, _, err = run("crossvalidate", "--recipe", "strong")
    assert status == 2 and "error: recipe 'strong' has no folds: train on some volumes" in err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def untrained(tmp_path):
    """File of a network of the profile's size."""
    unet((32, 32, 3), filters=2, depth=2, momentum=0.9, prior=0.1).save(tmp_path / "untrained.keras")
    return str(tmp_path / "untrained.keras")


@pytest.fixture
def volume_folder(tmp_path):
    """One synthetic patient as a LiTS volume, and its scan once more as DICOM."""
    patient = phantom_volume(3, size=64)
    write_layout(tmp_path / "data" / "lits", "lits-nifti", {3: patient})
    write_layout(tmp_path / "data" / "dicom", "dicom-scans", {3: patient})
    return tmp_path / "data"


def test_data_lists_each_layout_and_its_problems(run, volume_folder):
    status, out, _ = run("data", data=volume_folder)
    assert status == 0
    assert re.search(r"lits-nifti +lits +1 +\d+ +labels", out) and re.search(r"dicom .* no masks", out)
    assert "1 problem(s)" in out and "serve for prediction only" in out


def test_two_layouts_are_listed_and_one_is_chosen(run, volume_folder, tmp_path):
    status, _, err = run("index", data=volume_folder)
    assert status == 2 and "lits-nifti" in err and "dicom" in err and "LITS_LAYOUT" in err
    status, out, _ = run("index", "--layout", "lits-nifti", data=volume_folder)
    assert status == 0 and "slices of 1 volumes" in out


def test_volumes_are_converted_and_predicted(run, volume_folder, tmp_path, untrained):
    status, out, _ = run("convert", "--layout", "lits-nifti", "--jpeg", data=volume_folder)
    assert status == 0 and len(list((tmp_path / "out" / "converted").rglob("*.jpg"))) > 10
    status, out, _ = run("predict", "--model", untrained, "--layout", "lits-nifti", data=volume_folder)
    assert status == 0 and out.strip().endswith("volume-3_prediction.nii.gz")
    [series] = {path.parent for path in (volume_folder / "dicom").rglob("*.dcm")}
    with pytest.warns(UserWarning, match="no tumour found"):  # by a network that knows nothing yet
        status, out, _ = run("predict", "--model", untrained, "--dicom-seg", str(series), data=volume_folder)
    assert status == 0 and out.strip().endswith("_prediction.nii.gz")


@pytest.mark.parametrize(("format", "ending"), [("openvino", ".xml"), ("onnx", ".onnx")])
def test_an_exported_network_predicts_like_the_one_it_was_made_from(run, untrained, tmp_path, format, ending):
    status, out, _ = run("export", "--model", untrained, "--format", format)
    [written] = (tmp_path / "out" / "exported").glob(f"*-untrained{ending}")
    assert status == 0 and written.name in out
    assert re.search(r"differ by 0\.0\d+ at most, masks at 0.30 in \d+ of \d", out)
    listed = []
    for model in (untrained, str(written)):
        assert run("predict", "--model", model)[0] == 0
        listed.append(pd.read_csv(tmp_path / "out" / "predictions" / "predictions.csv"))
    assert listed[1].highest_probability.tolist() == pytest.approx(listed[0].highest_probability.tolist(), abs=0.01)


def test_exporting_nothing_or_a_cascade_says_what_to_do(run, tmp_path):
    status, _, err = run("export", "--model", "nothing.keras")
    assert status == 2 and "nothing.keras: no such checkpoint" in err
    (tmp_path / "cascade.json").touch()
    status, _, err = run("export", "--model", str(tmp_path))
    assert status == 2 and "a cascade is more than networks and cannot be exported" in err
    status, _, err = run("predict", "--model", "nothing.onnx")
    assert status == 2 and "nothing.onnx: no such file, export" in err


def test_a_scan_that_cannot_be_read_does_not_stop_the_others(run, volume_folder, untrained, tmp_path):
    scans = [str(tmp_path / "missing.nii"), str(next(volume_folder.rglob("volume-3.nii*")))]
    status, out, err = run("predict", "--model", untrained, *scans, data=volume_folder)
    assert status == 2 and "missing.nii: no such file" in err
    assert (tmp_path / "out" / "predictions" / "volume-3_prediction.nii.gz").exists()


def test_an_audit_is_printed_and_stored_with_its_split(run, tmp_path):
    status, out, _ = run("audit")
    assert status == 0 and "no volumes on several sides" in out
    assert (tmp_path / "out" / "split_patient.csv").exists()
    stored = json.loads((tmp_path / "out" / "split_patient_audit.json").read_text())
    assert stored["leaks"] == ("The split leaks" in out) and stored["volumes_on_several_sides"] == []
    status, out, _ = run("audit", "--split", "slice")
    assert status == 0 and "The split leaks" in out


def test_minutes_end_a_run_early(run, tmp_path):
    status, out, _ = run("train", "--epochs", "3", "--minutes", "0")
    assert status == 0 and "time budget used up after epoch 1" in out


def test_the_slice_split_is_said_to_leak(run):
    assert run("train", "--split", "slice")[0] == 0
    status, out, _ = run("evaluate", "--split", "slice")
    assert status == 0 and "slice split: leaks" in out


def test_evaluating_before_training_says_what_to_do(run):
    status, _, err = run("evaluate")
    assert status == 2 and "error: " in err and "train first" in err


@pytest.mark.parametrize("command", ["index", "train", "evaluate"])
def test_bad_files_stop_a_command_or_are_skipped(run, slice_folder, command):
    next(slice_folder.rglob("volume-1_slice_2_mask.jpg")).unlink()
    status, _, err = run(command)
    assert status == 2 and "volume-1_slice_2.jpg: no mask" in err
    if command == "index":
        with pytest.warns(UserWarning, match="volume-1_slice_2"):
            status, out, _ = run("index", "--skip-problems")
        assert status == 0 and "15 slices" in out


def test_a_missing_folder_is_an_error_of_one_line(run, tmp_path):
    status, _, err = run("index", data=tmp_path / "nowhere")
    assert status == 2 and "nowhere" in err and "Traceback" not in err


def test_a_missing_model_is_named(run):
    status, _, err = run("predict", "--model", "nothing.keras")
    assert status == 2 and "nothing.keras" in err


def test_the_phantom_is_not_written_beside_real_data(run):
    status, _, err = run("phantom")
    assert status == 2 and "--data" in err


def test_the_phantom_command_says_where_it_is(run, monkeypatch):
    monkeypatch.setattr("lits_helpers.phantom.ensure_phantom", lambda chosen: chosen.data_root)
    status, out, _ = run("phantom", data=None)
    assert status == 0 and "synthetic volumes and slices" in out and "phantom" in out


@pytest.mark.parametrize("command", command_line.COMMANDS)
def test_every_command_takes_a_recipe(command, capsys):
    with pytest.raises(SystemExit):
        command_line.main([command, "--help"])
    words = capsys.readouterr().out
    assert "--recipe {report,fast,strong}" in words
    assert ("--flips" in words) == (command in ("evaluate", "predict"))


def test_an_unknown_recipe_is_refused_with_the_choices(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("train", "--recipe", "slow")
    assert stopped.value.code == 2 and "choose from" in capsys.readouterr().err


def test_the_fast_recipe_is_trained_scored_and_predicts(run, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "fast", replace(RECIPES["fast"], changes={}))  # of the small profile's sizes
    assert run("train", "--recipe", "fast")[0] == 0
    (model,) = (tmp_path / "out").rglob("best.keras")
    status, out, _ = run("evaluate", "--recipe", "fast")
    assert status == 0 and "test slices of the patient split; threshold 0.30" in out
    status, _, err = run("evaluate")  # the report's own is not there
    assert status == 2 and "train first" in err
    assert run("predict", "--model", str(model))[0] == 0
    assert len(pd.read_csv(tmp_path / "out" / "predictions" / "predictions.csv")) == 16


@pytest.fixture
def small_stages(monkeypatch):
    stage = dict(image_size=16, filters=2, depth=1, batch_size=4, learning_rate=1e-2)
    monkeypatch.setattr("lits_helpers.cascade.STAGES", {"tiny": {"liver": stage, "tumour": stage}})
    monkeypatch.setattr("lits_helpers.cascade.WINDOWS", {"tiny": 16})
    monkeypatch.setattr("lits_helpers.cascade.THRESHOLD", 0.35)  # no other command's


SECONDS = ["--minutes", "0.02"]  # a second for each network


def test_the_strong_recipe_trains_on_all_patients_for_a_test_on_others(run, tmp_path, small_stages):
    status, out, _ = run("train", "--recipe", "strong", *SECONDS)
    assert status == 0 and "cascade, for --model: " in out
    (described,) = (tmp_path / "out").rglob("cascade.json")
    split = pd.read_csv(described.parent / "liver" / "split.csv").split
    assert set(split) == {"train", "validation"} and len(split) == 16
    status, _, err = run("evaluate", "--recipe", "strong")
    assert status == 2 and "no patients were kept for a test: name the network with --model" in err
    status, out, _ = run("evaluate", "--model", str(described.parent), "--flips")
    assert status == 0 and "all slices, whether or not the network was trained on them; threshold 0.35" in out
    assert volumes_scored(out) == [0, 1, 2, 3]
    status, out, _ = run("predict", "--model", str(described.parent))
    assert status == 0 and (pd.read_csv(tmp_path / "out" / "predictions" / "predictions.csv").threshold == 0.35).all()


def test_the_strong_recipe_can_keep_patients_for_a_test(run, tmp_path, small_stages):
    assert run("train", "--recipe", "strong", "--split", "patient", *SECONDS)[0] == 0
    status, out, _ = run("evaluate", "--recipe", "strong", "--split", "patient", "--report")
    assert status == 0 and "test slices of the patient split; threshold 0.35" in out
    assert (tmp_path / "out" / "results" / "report.html").exists()
    status, _, err = run("evaluate", "--recipe", "strong", "--split", "slice")
    assert status == 2 and "train first" in err


def test_a_folder_that_is_no_cascade_is_no_model(run, tmp_path):
    status, _, err = run("predict", "--model", str(tmp_path))
    assert status == 2 and "no cascade.json" in err


def test_flips_change_what_is_predicted(run, untrained, tmp_path):
    listed = []
    for flips in ([], ["--flips"]):
        assert run("predict", "--model", untrained, *flips)[0] == 0
        listed.append(pd.read_csv(tmp_path / "out" / "predictions" / "predictions.csv").highest_probability)
    assert (listed[0] != listed[1]).any()


def test_slices_of_air_are_left_out_if_asked_for(run, tmp_path):
    unet((32, 32, 3), filters=2, depth=2, prior=0.9).save(tmp_path / "all.keras")  # calls all of a slice tumour
    hounsfield = np.full((2, 64, 64), 40, np.int16)
    hounsfield[0] = -1000
    write_nifti(tmp_path / "scan.nii.gz", hounsfield, (5.0, 1.0, 1.0))
    for options, shares in (([], [1, 1]), (["--skip-air"], [0, 1])):
        command = ["predict", "--model", str(tmp_path / "all.keras"), *options, str(tmp_path / "scan.nii.gz")]
        assert run(*command)[0] == 0
        labels = read_volume(tmp_path / "out" / "predictions" / "scan_prediction.nii.gz").hounsfield
        assert (labels == 2).mean(axis=(1, 2)).tolist() == shares


@pytest.mark.parametrize("options", [["--split", "all"], ["--recipe", "strong"]], ids=["asked for", "the recipe's"])
def test_a_split_without_test_is_stored_under_its_own_name(run, tmp_path, options):
    assert run("audit", *options)[0] == 0
    assert not (tmp_path / "out" / "split_patient.csv").exists()
    assert set(pd.read_csv(tmp_path / "out" / "split_all.csv").split) == {"train", "validation"}
