"""Speed against the report's own code: `make bench`. Passes or fails on results alone."""

import gc
import os
import re
from itertools import count, islice

import cv2
import keras
import nibabel
import numpy as np
import pandas as pd
import pytest
import report_way

from lits_helpers import export, load_settings, training
from lits_helpers.augmentation import Augmentation
from lits_helpers.conversion import convert_volumes, slice_paths
from lits_helpers.generators import batches, decode_slices
from lits_helpers.index import build_index
from lits_helpers.inference import predict_slices, predict_volume
from lits_helpers.layouts import find_layouts
from lits_helpers.masks import LIVER_AND_TUMOUR, TUMOUR, smallest_coded_tumour
from lits_helpers.phantom import phantom_volume, write_phantom

SIZE, BATCH = 256, 32  # the report's
TRAINING_BATCH = 4  # its 32 need more memory than many machines have
INFERENCE_BATCH = 16  # what predict_slices does unless told otherwise


@pytest.fixture
def table(phantom, tmp_path):
    return build_index(phantom, tmp_path / "out", layout="report-slices")


@pytest.fixture
def cache(table, tmp_path):
    return decode_slices(table, SIZE, tmp_path / "out")


@pytest.fixture
def networks(phantom, tmp_path):
    """The 31-million-parameter U-Net compiled as the report does and as we do, of equal weights."""
    keras.utils.set_random_seed(1)
    policy = keras.config.dtype_policy()
    theirs = report_way.compiled_unet()
    settings = load_settings(profile="full", data_root=phantom, output_root=tmp_path / "out")
    ours = training.compiled_unet(settings)
    keras.config.set_dtype_policy(policy)
    assert theirs.count_params() == ours.count_params() == 31_043_521
    theirs.set_weights(ours.get_weights())
    yield theirs, ours
    keras.backend.clear_session()
    gc.collect()


def test_classification_of_masks(compare, phantom, tmp_path):
    # 128 times the two patients, a tenth of LiTS, so that starting processes weighs little.
    slices = tmp_path / "slices"
    for source in sorted(phantom.rglob("*_slice_*.jpg")):
        volume, rest = re.fullmatch(r"volume-(\d+)(_slice_.*)", source.name).groups()
        for copy in range(128):
            target = slices / source.relative_to(phantom).with_name(f"volume-{int(volume) + 2 * copy}{rest}")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
    numbers = count()  # a new output root each time, or the table would come from its cache
    table = build_index(slices, tmp_path / "index")

    def ours():
        return build_index(slices, tmp_path / f"index-{next(numbers)}")

    def theirs():
        return report_way.classify(table.mask_path)

    # The truth, as far as the coding holds it: a tumour of less than 0.1 % of its slice reads as liver.
    truth = []
    for volume in range(256):
        [path] = phantom.rglob(f"segmentation-{volume % 2}.nii*")
        labels = np.asanyarray(nibabel.load(path).dataobj)
        coded = (labels == TUMOUR).sum(axis=(0, 1)) >= smallest_coded_tumour(labels[..., 0].size)
        truth += np.where(coded, LIVER_AND_TUMOUR, (labels > 0).any(axis=(0, 1))).tolist()
    assert set(truth) == {0, 1, 2}
    # At JPEG quality 100 the report's rule is right, so both must agree.
    assert ours().diagnosis.tolist() == theirs() == truth
    empty = np.mean(np.array(truth) == 0)
    compare(
        "classification", report=theirs, ours=ours, units=len(table), unit="mask", rounds=3,
        report_ran=f"cv2.imread in colour, checksum, grey band; nothing but the diagnosis; {empty:.0%} are empty",
        ours_ran="build_index: finding the files, decoding to labels, pixel counts, size checks, "
        "both diagnoses, the table written",
    )


def test_conversion_of_volumes(compare, phantom, tmp_path):
    numbers = count()  # a new folder each time, or finished volumes would be left as they are
    found = find_layouts(phantom)[0].cases
    cases = pd.concat([found.assign(volume=found.volume + 2 * copy) for copy in range(8)], ignore_index=True)

    def ours():
        folder = tmp_path / f"ours-{next(numbers)}"
        convert_volumes(cases, folder, ending=".jpg", jpeg_quality=90)
        return folder

    def theirs():
        folder = tmp_path / f"theirs-{next(numbers)}"
        folder.mkdir()
        report_way.convert(cases.image_path, cases.mask_path, folder)
        return folder

    our_folder, their_folder = ours(), theirs()
    mine, reports = (
        cv2.imread(str(path)).astype(int)
        for path in (slice_paths(our_folder, 1, 12)[0], their_folder / "volume-1_slice_12_image.jpg")
    )
    assert np.abs(mine - reports).mean() < 1  # two JPEG encoders
    compare(
        "conversion of volumes", report=theirs, ours=ours, units=int(cases.slices.sum()), unit="slice",
        rounds=3,
        report_ran="nibabel get_fdata in float64, each slice windowed and equalised pixel by pixel, image and "
        "mask saved by Pillow as JPEG of quality 90, one after the other",
        ours_ran=f"convert_volumes of {len(cases)} volumes, JPEG of quality 90 and PNG labels, a process a core, "
        "their start included, affine and pairs checked",
    )


def test_augmented_pairs_into_fit(compare, tmp_path):
    # Its own six patients: 139 slices, 36 MB decoded, more than most processors' caches hold.
    folder = write_phantom(tmp_path / "phantom", patients=6)
    distinct = build_index(folder, tmp_path / "out", layout="report-slices")
    cache = decode_slices(distinct, SIZE, tmp_path / "out")
    epoch = pd.concat([distinct] * -(-400 // len(distinct)))[:400]
    data = batches(cache, epoch, BATCH, augmentation=Augmentation(), seed=1)
    generator = report_way.train_generator(epoch, BATCH, SIZE)
    steps = int(data.cardinality())

    def consumed(pairs):
        """Number of pairs, and the last batch."""
        last, number = None, 0
        for last in pairs:
            number += len(last[0])
        return number, last

    def ours():
        return consumed(data)

    def theirs():
        return consumed(islice(generator, steps))

    (our_number, our_last), (their_number, their_last) = ours(), theirs()
    assert our_number == their_number == len(epoch)
    for mine, reports in zip(our_last, their_last, strict=True):
        assert mine.shape == reports.shape and mine.dtype == reports.dtype == np.float32
        assert 0 <= reports.min() and reports.max() <= 1
        assert 0 <= np.min(mine) and np.max(mine) <= 1
    assert set(np.unique(our_last[1])) == set(np.unique(their_last[1])) == {0, 1}
    compare(
        "augmented pairs into fit", report=theirs, ours=ours, units=len(epoch), unit="pair", rounds=7,
        report_ran=f"two ImageDataGenerator.flow_from_dataframe zipped, JPEG files 512x512 read in "
        f"every epoch, to {SIZE}x{SIZE}, batch {BATCH}",
        ours_ran=f"generators.batches from the uint8 cache, an epoch after it was made, same changes, "
        f"same size and batch, as float32 tensors; {len(epoch)} pairs an epoch, of {len(distinct)} slices",
    )


def test_training_step_of_31_million_parameters(compare, cache, networks):
    report_network, our_network = networks
    images = cache.images[:TRAINING_BATCH] / np.float32(255)
    masks = (cache.labels[:TRAINING_BATCH, ..., None] == TUMOUR).astype(np.float32)

    def theirs():
        return report_network.train_on_batch(images, masks)[0]

    def ours():
        return our_network.train_on_batch(images, masks)[0]

    assert ours() == pytest.approx(theirs(), rel=0.02)  # the loss, from equal weights
    compare(
        "training step, 31 M U-Net", report=theirs, ours=ours, units=TRAINING_BATCH, unit="image",
        rounds=3,
        report_ran=f"train_on_batch, float32, jit_compile=False, {SIZE}x{SIZE}x3, batch {TRAINING_BATCH}",
        ours_ran=f"train_on_batch of training.compiled_unet, full profile, "
        f"{training.precision_policy()[0]}, jit_compile={our_network.jit_compile}, same batch",
    )


def test_inference_of_31_million_parameters(compare, table, cache, networks):
    report_network, our_network = networks
    part = table[:INFERENCE_BATCH]
    images = cache.images[cache.positions(part)]

    def theirs():
        return report_way.predict(report_network, images)

    def ours():
        return predict_slices(our_network, cache, part)

    # Probabilities of one network, in 16 bits beside 32.
    assert ours() == pytest.approx(np.stack(theirs()), abs=0.02)
    compare(
        "inference, 31 M U-Net", report=theirs, ours=ours, units=len(part), unit="slice", rounds=3,
        report_ran=f"model.predict slice by slice, float32, {SIZE}x{SIZE}x3",
        ours_ran=f"predict_slices, batch {INFERENCE_BATCH}, {training.precision_policy()[0]}",
    )


@pytest.mark.parametrize("format", export.FORMATS)
def test_inference_of_31_million_parameters_exported(compare, table, cache, networks, tmp_path, format):
    report_network, our_network = networks
    path = export.export_model(our_network, tmp_path / f"unet{export.FORMATS[format]}", format=format)
    exported = export.load_exported(path)
    part = table[:INFERENCE_BATCH]
    images = cache.images[cache.positions(part)]

    def theirs():
        return report_way.predict(report_network, images)

    def ours():
        return predict_slices(exported, cache, part)

    assert ours() == pytest.approx(np.stack(theirs()), abs=0.02)
    compare(
        f"inference, 31 M U-Net, {format}", report=theirs, ours=ours, units=len(part), unit="slice", rounds=3,
        report_ran=f"model.predict slice by slice, float32, {SIZE}x{SIZE}x3",
        ours_ran=f"predict_slices with the network exported as {format}, in OpenVINO, batch {INFERENCE_BATCH}, "
        f"{exported.precision}",
    )


@pytest.mark.parametrize(("profile", "slices"), [("tiny", 500), ("full", 32)])
def test_a_whole_volume(benchmark, phantom, tmp_path, profile, slices):
    """Yuan (2017), "Hierarchical convolutional-deconvolutional neural networks for automatic liver and
    tumor segmentation", is cited with 33 s a volume: other hardware and networks, liver included."""
    model = training.compiled_unet(load_settings(profile=profile, data_root=phantom, output_root=tmp_path))
    drawn = phantom_volume(1).hounsfield
    hounsfield = drawn[np.arange(slices) % len(drawn)]
    predict_volume(model, hounsfield[:1])  # compiled
    labels = benchmark.pedantic(predict_volume, (model, hounsfield), rounds=1)
    assert labels.shape == (slices, 512, 512)
    if not benchmark.disabled:
        seconds = benchmark.stats.stats.median / slices * 500
        benchmark.extra_info.update(profile=profile, seconds_per_500_slices=seconds)
        print(f"\n{profile}: {seconds:.0f} s per 500 slices of 512x512, from {slices}; Yuan 2017: 33 s a volume")
