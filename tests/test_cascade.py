"""The cascade: trained against a clock that ticks once a question, and looking at patients known to the pixel."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import cv2
import keras
import nibabel
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from cascades import LESIONS, by_brightness, cascade, ellipse, labelled, saved, write_patients

from lits_helpers import cascade as module
from lits_helpers import clocks, training
from lits_helpers.blocks import NestedClasses
from lits_helpers.cascade import Cascade
from lits_helpers.files import DataError
from lits_helpers.generators import decode_slices
from lits_helpers.index import build_index
from lits_helpers.inference import predict_files, predict_scan
from lits_helpers.model_size import check_sizes
from lits_helpers.runs import read_history
from lits_helpers.settings import load_settings
from lits_helpers.splits import split_patients, without_test
from lits_helpers.windows import three_channels


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def centre(mask):
    return np.argwhere(mask).mean(0)


def pictures(hounsfield):
    return [three_channels(plane) for plane in hounsfield]


# Where it looks


@pytest.mark.parametrize("shape", [(96, 96), (90, 122), (77, 101)])
@pytest.mark.parametrize("flips", [False, True])
def test_liver_and_lesion_are_found_at_their_own_pixels(shape, flips):
    labels, hounsfield = labelled(shape)
    probabilities, liver = cascade().predict(pictures(hounsfield), range(5), flips=flips)
    assert (probabilities.dtype, liver.dtype) == (np.float16, bool)
    assert probabilities.shape == liver.shape == labels.shape
    assert probabilities.min() >= 0 and probabilities.max() <= 1
    found = probabilities > 0.5
    assert [bool(plane.any()) for plane in found] == [False, False, True, True, False]
    assert dice(found, labels == 2) > 0.9 and dice(liver, labels > 0) > 0.95
    assert centre(found) == pytest.approx(centre(labels == 2), abs=0.5)
    assert centre(liver) == pytest.approx(centre(labels > 0), abs=0.5)


def test_a_smaller_liver_elsewhere_and_a_lesion_in_it_are_ignored():
    labels, hounsfield = labelled((96, 96))
    second = ellipse((96, 96), 0.76, 0.26, 0.04, 0.04)
    hounsfield[1:, second] = 38
    probabilities, liver = cascade().predict(pictures(hounsfield), range(5))
    assert not liver[:, second].any() and not (probabilities[:, second] > 0.5).any()
    assert dice(probabilities > 0.5, labels == 2) > 0.9


@pytest.mark.parametrize(("sure", "stays"), [(0.95, False), (0.5, True)])
def test_a_part_stays_whole_or_goes_by_what_it_exceeds_somewhere(sure, stays):
    labels, hounsfield = labelled((96, 96))
    made = cascade()
    kernel, bias = made.tumour.layers[1].get_weights()
    # A lesion is 39 levels below the middle of lesion and liver: the logit is 39 / 20, the probability 0.88.
    made.tumour.layers[1].set_weights([kernel / [1, 20], bias / [1, 20]])
    probabilities, _ = replace(made, sure=sure).predict(pictures(hounsfield), range(5))
    assert probabilities.max() < 0.95
    assert dice(probabilities > 0.5, labels == 2) > 0.9 if stays else not (probabilities > 0.5).any()


def test_without_a_liver_there_is_nothing():
    probabilities, liver = cascade().predict(pictures(np.full((2, 40, 50), 200, np.int16)), [3, 4])
    assert probabilities.shape == liver.shape == (2, 40, 50)
    assert not probabilities.any() and not liver.any()


@pytest.mark.parametrize(("level", "looks"), [(180, 1), (75, 4), (110, 2)])
def test_a_liver_that_is_dark_is_looked_for_in_brighter_slices(level, looks, monkeypatch):
    # Sure of what is as bright as usual livers are, as trained networks are; the rest of the slice is black.
    inputs = keras.Input((32, 32, 3))
    layer = keras.layers.Conv2D(2, 1, kernel_initializer="zeros")
    used_to_bright = keras.Model(inputs, NestedClasses()(layer(inputs)))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 1, 0] = 255 / 40
    layer.set_weights([kernel, np.array([-70 / 40, -1000], np.float32)])  # 0.94 at 180; at 75, 0.53; 0.9 from 158
    small = np.zeros((2, 32, 32, 3), np.uint8)
    small[:, 8:20, 10:25] = level
    seen = []
    predicted = module.predict_images
    monkeypatch.setattr(module, "predict_images", lambda model, images, **kwargs: (
        seen.append(int(images.max())), predicted(model, images, **kwargs))[1])
    probabilities, region, found = Cascade(used_to_bright, used_to_bright)._find_liver(small)
    assert seen == [int(level * gain) for gain in (1, 1.5, 2, 2.5)][:looks]
    assert np.array_equal(found, small[..., 1] > 0)
    assert region.level == level  # as it is, not as it was shown
    assert probabilities[found].mean() == pytest.approx(1 / (1 + np.exp((70 - seen[-1]) / 40)), abs=0.01)


def test_labels_are_liver_and_tumour_above_the_threshold():
    labels, hounsfield = labelled((80, 80))
    found = cascade().labels(hounsfield)
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 1, 2}
    assert dice(found == 2, labels == 2) > 0.9 and dice(found > 0, labels > 0) > 0.95


def test_a_slice_sees_its_neighbours_in_the_body_not_those_beyond_a_gap():
    labels, hounsfield = labelled((64, 64))
    # A second network that calls tumour what is dark in the slice after.
    look_ahead = by_brightness(64, 1000, 0)
    layer = look_ahead.layers[1]
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 2, 1] = -255
    layer.set_weights([kernel, np.array([1000, 88.5], np.float32)])
    seeing = module.Cascade(cascade().liver, look_ahead)

    def with_lesion(numbers):
        inside = ellipse((64, 64), *LESIONS[0], 0.05, 0.05)
        return [bool((plane[inside] > 0.5).all()) for plane in seeing.predict(pictures(hounsfield), numbers)[0]]

    # Slices 2 and 3 have the lesion: seen from 1 and 2; the last slice stands in for its own next.
    assert with_lesion([0, 1, 2, 3, 4]) == [False, True, True, False, False]
    assert with_lesion([0, 1, 10, 11, 30]) == [False, False, True, True, False]


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Folder and slice table of four small patients."""
    folder = tmp_path_factory.mktemp("patients")
    root = write_patients(folder / "slices")
    return root, build_index(root, folder / "out")


def truth_of(table):
    return np.stack([labelled((64, 64), lesion=LESIONS[row.volume])[0][row.slice] for row in table.itertuples()])


def test_a_table_is_answered_in_its_own_order(patients):
    _, table = patients
    shuffled = table.sample(frac=1, random_state=3)
    found = cascade().predict_table(shuffled)
    truth = truth_of(shuffled) == 2
    assert found.shape == truth.shape and found.dtype == np.float16
    for answer, lesion in zip(found > 0.5, truth, strict=True):
        assert dice(answer, lesion) > 0.85 if lesion.any() else not answer.any()


def test_slices_of_two_sizes_make_no_table(patients):
    table = patients[1].copy()
    table.loc[table.volume == 1, "height"] = 32
    with pytest.raises(DataError, match="slices of 2 sizes: predict them volume by volume"):
        cascade().predict_table(table)


def test_slice_files_get_masks_in_order_of_volume_and_slice(patients, tmp_path):
    _, table = patients
    listed = pd.read_csv(predict_files(cascade(), table.sample(frac=1, random_state=1), tmp_path))
    ordered = table.sort_values(["volume", "slice"])
    assert listed[["volume", "slice"]].values.tolist() == ordered[["volume", "slice"]].values.tolist()
    assert (listed.threshold == 0.5).all()
    for row, labels in zip(listed.itertuples(), truth_of(listed), strict=True):
        mask = cv2.imread(str(tmp_path / row.file), cv2.IMREAD_GRAYSCALE)
        lesion = labels == 2
        assert row.tumour_pixels == (mask == 255).sum()
        assert (dice(mask == 255, lesion) > 0.85 and row.highest_probability > 0.5) if lesion.any() else not mask.any()


def test_a_scan_gets_liver_and_tumour_on_its_own_grid(tmp_path):
    labels, hounsfield = labelled((64, 72))
    # Stored (columns from the right, rows from the front, slices): the screen's order, in LPS.
    affine = np.diag([-0.8, -0.8, 2.5, 1])
    nibabel.save(nibabel.Nifti1Image(hounsfield.transpose(2, 1, 0), affine), tmp_path / "ct.nii.gz")
    written = nibabel.load(predict_scan(cascade(), tmp_path / "ct.nii.gz", tmp_path / "found"))
    found = np.asarray(written.dataobj).transpose(2, 1, 0)
    assert written.affine == pytest.approx(affine)
    assert dice(found == 2, labels == 2) > 0.9 and dice(found > 0, labels > 0) > 0.95


# Its folder


def test_a_saved_cascade_answers_as_before(tmp_path):
    loaded = module.load_cascade(saved(tmp_path / "cascade"))
    _, hounsfield = labelled((64, 64))
    assert loaded.threshold == 0.5
    for again, before in zip(loaded.predict(pictures(hounsfield), range(5)), cascade().predict(pictures(hounsfield), range(5))):
        assert (again == before).all()


def without(name):
    return lambda folder: (folder / name).unlink()


def described(text):
    return lambda folder: (folder / "cascade.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "no cascade.json, so no finished cascade: run `train --recipe strong`"),
        (without("cascade.json"), "no cascade.json, so no finished cascade"),
        (described("{"), r"cascade.json: damaged \("),
        (described("[]"), r"cascade.json: damaged \("),
        (described('{"sizes": {"liver": 32}, "threshold": 0.5}'), r"cascade.json: damaged \('tumour'\)"),
        (described('{"sizes": {"liver": 32, "tumour": 64}}'), r"cascade.json: damaged \('threshold'\)"),
        (described('{"sizes": {"liver": 32, "tumour": 32}, "threshold": 0.5}'), "tumour.keras: a network from"),
        (without("liver.keras"), "liver.keras: no such checkpoint"),
        (lambda folder: (folder / "tumour.keras").write_bytes(b"PK"), "tumour.keras: not a checkpoint that can be loaded"),
    ],
)
def test_a_folder_that_is_no_cascade_is_refused_with_the_name_of_what_is_wrong(damage, words, tmp_path, untouched):
    folder = tmp_path / "cascade"
    shutil.copytree(untouched, folder)
    damage(folder)
    with pytest.raises(DataError, match=words):
        module.load_cascade(folder)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("untouched") / "cascade")


# How it learns

SMALL = {
    "tiny": {
        "liver": dict(image_size=16, filters=2, depth=1, batch_size=4, learning_rate=1e-2),
        "tumour": dict(image_size=24, filters=2, depth=1, batch_size=4, learning_rate=1e-2),
    }
}
HALF_A_MINUTE = 30  # ticks


@pytest.fixture
def ticking(monkeypatch):
    """Networks of two filters, and a clock that moves a second whenever it is asked."""
    clock = SimpleNamespace(now=0)

    def monotonic():
        clock.now += 1
        return clock.now

    monkeypatch.setattr(module, "STAGES", SMALL)
    monkeypatch.setattr(module, "WINDOWS", {"tiny": 16})
    monkeypatch.setattr(module, "PASSES", 1)
    monkeypatch.setattr(module, "STARTING", 0)
    for user in (module, clocks, training):
        monkeypatch.setattr(user, "time", SimpleNamespace(monotonic=monotonic))
    tf.config.run_functions_eagerly(True)  # networks this small train faster than they are compiled
    yield clock
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def task(patients, tmp_path):
    root, table = patients
    return load_settings(data_root=root, output_root=tmp_path / "out", recipe="strong"), without_test(split_patients(table))


def spent(folder):
    return [read_history(folder / stage).seconds.sum() for stage in ("liver", "tumour")]


def test_both_networks_are_trained_within_the_minutes_and_once(ticking, task, monkeypatch):
    folder = module.train_cascade(*task, minutes=0.5)
    # A fifth for the liver, the rest for the tumours; each ends with the batch in which its time is over.
    liver, tumour = spent(folder)
    assert 6 <= liver <= 6 + 3 and tumour > 10 and liver + tumour <= HALF_A_MINUTE + 3
    assert ticking.now <= HALF_A_MINUTE + 6
    found = module.load_cascade(folder)
    assert (found.liver.input_shape[1], found.tumour.input_shape[1]) == (16, 24)
    assert json.loads((folder / "cascade.json").read_text()) == {
        "sizes": {"liver": 16, "tumour": 24}, "threshold": module.THRESHOLD, "minutes": 0.5,
    }
    for stage, model in (("liver", found.liver), ("tumour", found.tumour)):
        last = read_history(folder / stage).epoch.max()
        kept = training.load_checkpoint(folder / stage / "last" / f"epoch-{last:03d}.keras", 16)  # from windows
        assert all((a == b).all() for a, b in zip(model.get_weights(), kept.get_weights(), strict=True))
    probabilities, _ = found.predict(pictures(labelled((64, 64))[1]), range(5))
    assert np.isfinite(probabilities).all()
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", None)
        assert module.train_cascade(*task, minutes=0.5) == folder
        assert module.train_cascade(*task, minutes=0.2) == folder
    assert spent(folder) == [liver, tumour]


def test_an_interrupted_training_goes_on_with_what_is_left_of_the_time(ticking, task, monkeypatch):
    batches = []

    def interrupted(self, batch, logs=None):
        if self.seconds != 6:  # the liver's time
            batches.append(batch)
            if len(batches) == 5:  # in the second epoch of three batches
                raise KeyboardInterrupt

    folder = module.cascade_folder(*task)
    folder.mkdir(parents=True)
    (folder / "cascade.json").write_text("{")  # of a disk that was full: not taken for a finished one
    with monkeypatch.context() as patch:
        real = clocks.ClockSchedule.on_train_batch_end
        patch.setattr(clocks.ClockSchedule, "on_train_batch_end",
                      lambda self, batch, logs=None: (interrupted(self, batch), real(self, batch)))
        with pytest.raises(KeyboardInterrupt):
            module.train_cascade(*task, minutes=0.5)
    with pytest.raises(DataError, match="damaged"):
        module.load_cascade(folder)
    before = [read_history(folder / stage) for stage in ("liver", "tumour")]
    assert len(before[1]) == 1
    started = ticking.now
    assert module.train_cascade(*task, minutes=0.5) == folder
    after = [read_history(folder / stage) for stage in ("liver", "tumour")]
    pd.testing.assert_frame_equal(after[0], before[0])
    pd.testing.assert_frame_equal(after[1][:1], before[1])
    assert len(after[1]) > 1 and HALF_A_MINUTE - 8 <= sum(spent(folder)) <= HALF_A_MINUTE + 3
    assert ticking.now - started <= HALF_A_MINUTE + 6 - sum(history.seconds.sum() for history in before)
    module.load_cascade(folder)


def test_no_device_is_left_without_slices_to_validate(ticking, task):
    settings, table = task
    stage = module._stage_settings(settings, "liver")
    cache = decode_slices(table, stage.image_size, settings.output_root)
    made = module._task(stage, "liver", table, cache, settings.output_root, seconds=1)
    assert (table.split == "validation").sum() == 5
    # Batches of four, of which the last is two devices', and of one slice alone would leave the second none.
    assert [len(images) for images, _ in made.validation(2)] == [4, 2]


def test_a_table_without_livers_is_refused_before_anything_is_trained(ticking, task):
    settings, table = task
    with pytest.raises(DataError, match="no slice shows a liver"):
        module.train_cascade(settings, table[table.slice == 0], minutes=0.5)
    assert not list(settings.output_root.rglob("history.csv"))


def test_networks_of_other_sizes_and_other_splits_have_folders_of_their_own(task, monkeypatch):
    settings, table = task
    here = module.cascade_folder(settings, table)
    assert here.parent == settings.output_root / "runs" and here.name.startswith("tiny-strong-")
    assert module.cascade_folder(settings, table) == here
    assert module.cascade_folder(settings, table.assign(split="train")) != here
    for name, changed in (("STAGES", SMALL), ("WINDOWS", {"tiny": 96})):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, changed)
            assert module.cascade_folder(settings, table) != here


def test_regions_are_decoded_once_with_image_and_labels_in_step(patients, tmp_path, monkeypatch):
    _, table = patients
    cache = decode_slices(table, 32, tmp_path)
    crops, rows = module.region_cache(table.sample(frac=1, random_state=2), decode_slices(table, 32, tmp_path), 48, tmp_path)
    with_liver = [(volume, number) for volume in range(4) for number in range(1, 5)]
    assert list(rows[["volume", "slice"]].itertuples(index=False, name=None)) == with_liver
    assert crops.images.shape == (16, 48, 48, 3) and crops.positions(rows).tolist() == list(range(16))
    middle = crops.images[..., 1].astype(int)
    for label, level in ((0, 205), (1, 128), (2, 49)):
        # Medians, as edges are in between; JPEG.
        assert np.median(middle[crops.labels == label]) == pytest.approx(level, abs=4)
    for (volume, number), labels, image in zip(with_liver, crops.labels, middle, strict=True):
        assert (labels == 2).any() == (number in (2, 3) and volume < 3)
        assert dice(labels == 2, image < 88) > 0.85 if (labels == 2).any() else not (image < 88).any()
    monkeypatch.setattr(module, "read_image", None)
    again, _ = module.region_cache(table.sample(frac=1, random_state=2), cache, 48, tmp_path)
    assert (again.images == crops.images).all()


@pytest.mark.parametrize("profile", module.STAGES)
def test_the_stages_sizes_can_be_halved_as_often_as_the_networks_do(profile):
    assert list(module.STAGES[profile]) == ["liver", "tumour"] and profile in module.MINUTES
    for stage in module.STAGES[profile].values():
        check_sizes((stage["image_size"],) * 2 + (3,), halvings=stage["depth"] + 1, filters=stage["filters"])
