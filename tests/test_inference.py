import os
import tracemalloc

import cv2
import keras
import nibabel
import numpy as np
import pandas as pd
from phantom_layouts import write_series
import pydicom
import pytest
import SimpleITK

from lits_helpers import inference
from lits_helpers.conversion import write_slice_files
from lits_helpers.files import DataError
from lits_helpers.layouts import find_layouts
from lits_helpers.masks import read_labels
from lits_helpers.phantom import phantom_volume


@pytest.fixture(scope="module")
def green_is_probability():
    """A network whose answer is known: the green channel of its input."""
    inputs = keras.Input((32, 32, 3))
    layer = keras.layers.Conv2D(1, 1, use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.array([0, 1, 0], np.float32).reshape(1, 1, 3, 1)])
    return model


def test_predictions_come_in_the_tables_order_and_the_last_batch_may_be_short(
    table, cache, green_is_probability
):
    part = table.sample(frac=1, random_state=1)[:7]
    found = inference.predict_slices(green_is_probability, cache, part, batch_size=3)
    assert found.shape == (7, 32, 32) and found.dtype == np.float32
    assert found == pytest.approx(cache.images[part.index, ..., 1] / 255, abs=1e-6)


def test_a_network_that_answers_in_16_bits_is_used_all_the_same(table, cache, tmp_path):
    inputs = keras.Input((32, 32, 3))
    outputs = keras.layers.Conv2D(1, 1, activation="sigmoid", dtype="mixed_bfloat16")(inputs)
    model = keras.Model(inputs, outputs)
    assert model.output.dtype == "bfloat16"
    assert inference.predict_slices(model, cache, table).dtype == np.float32
    assert len(pd.read_csv(inference.predict_files(model, table, tmp_path / "p"))) == 16


@pytest.fixture(scope="module")
def corner_is_certain():
    """A network that answers one thing in all pictures: 0.9 at the left of the upper edge, 0.1 beside it."""
    answer = np.zeros((32, 32, 1), np.float32)
    answer[0, 0], answer[0, 1] = 0.9, 0.1
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1, use_bias=False)(inputs))
    model.set_weights([np.zeros((1, 1, 3, 1), np.float32)])
    model.predict_on_batch = lambda images: np.repeat(answer[None], len(images), axis=0)
    return model


def test_flips_average_four_answers_each_flipped_back(table, cache, corner_is_certain):
    found = inference.predict_slices(corner_is_certain, cache, table[:3], batch_size=2, flips=True)
    expected = np.zeros((32, 32), np.float32)
    expected[[0, 0, 31, 31], [0, 31, 0, 31]] = 0.9 / 4
    expected[[0, 0, 31, 31], [1, 30, 1, 30]] = 0.1 / 4
    assert found == pytest.approx(np.stack([expected] * 3), abs=1e-7)
    without = inference.predict_slices(corner_is_certain, cache, table[:3])
    assert without[:, 0, :3].tolist() == [pytest.approx([0.9, 0.1, 0])] * 3 and (without > 0).sum() == 6


def test_flips_change_nothing_for_a_network_that_sees_single_pixels(table, cache, green_is_probability):
    found = inference.predict_slices(green_is_probability, cache, table, flips=True)
    assert found == pytest.approx(cache.images[..., 1] / 255, abs=1e-6)


def test_the_network_sees_each_slice_in_four_different_orientations(table, cache, green_is_probability):
    seen = []
    answers = green_is_probability.predict_on_batch

    class Watched:
        input_shape = (None, 32, 32, 3)

        def predict_on_batch(self, images):
            seen.append(np.array(images[0, ..., 1]))
            return answers(images)

    inference.predict_slices(Watched(), cache, table[2:3], flips=True)
    slice_ = cache.images[2, ..., 1] / np.float32(255)
    wanted = (slice_, slice_[::-1], slice_[:, ::-1], slice_[::-1, ::-1])
    assert len(seen) == 4
    assert all(any(np.allclose(view, way, atol=1e-6) for view in seen) for way in wanted)


# Skipping -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tissue", "expected"), [(0, False), (1, False), (40, False), (41, True), (64 * 64, True)])
def test_a_body_is_a_hundredth_of_the_picture_in_tissue(tissue, expected):
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[..., 2] = 255  # blue is equalised: it says nothing about tissue
    picture.reshape(-1, 3)[:tissue, 1] = 1
    assert inference.shows_body(picture) is expected


def test_skipped_slices_are_zero_and_the_others_as_without_skipping(table, cache, green_is_probability):
    kept = np.arange(16) % 3 == 0
    whole = inference.predict_slices(green_is_probability, cache, table)
    for batch_size in (1, 4, 16):
        found = inference.predict_slices(green_is_probability, cache, table, wanted=kept, batch_size=batch_size)
        assert (found[kept] == whole[kept]).all() and (found[~kept] == 0).all()
    assert whole[~kept].any()


def test_nothing_is_predicted_where_no_slice_is_wanted(table, cache, tmp_path):
    class Refusing:
        input_shape = (None, 32, 32, 3)

        def predict_on_batch(self, images):
            raise AssertionError("the network was asked")

    assert not inference.predict_slices(Refusing(), cache, table, wanted=[False] * 16).any()
    assert not inference.predict_volume(Refusing(), np.zeros((3, 32, 32), np.int16), wanted=lambda p: False).any()


def test_a_rule_sees_the_picture_of_each_slice(table, cache, green_is_probability):
    found = inference.predict_slices(
        green_is_probability, cache, table, wanted=lambda picture: picture[..., 1].mean() > cache.images[0, ..., 1].mean()
    )
    brighter = cache.images[..., 1].mean((1, 2)) > cache.images[0, ..., 1].mean()
    assert (found.any((1, 2)) == brighter).all() and 0 < brighter.sum() < 16


def test_answers_go_by_place_however_the_rows_are_numbered(table, cache, green_is_probability):
    mixed = table.sample(frac=1, random_state=1)
    found = inference.predict_slices(green_is_probability, cache, mixed, wanted=mixed.slice == 1)
    assert (found.any((1, 2)) == (mixed.slice == 1)).all()


def test_too_few_answers_are_refused(table, cache, green_is_probability):
    with pytest.raises(ValueError, match="2 answers for 16 slices"):
        inference.predict_slices(green_is_probability, cache, table, wanted=[True, False])
    with pytest.raises(ValueError, match="2 answers for 3 slices"):
        inference.predict_volume(green_is_probability, np.zeros((3, 32, 32), np.int16), wanted=[True, False])


def test_blank_slices_of_a_volume_are_skipped_and_keep_their_place(green_is_probability):
    hounsfield = np.random.default_rng(1).integers(0, 200, (9, 40, 32)).astype(np.int16)
    hounsfield[[0, 3, 4, 5, 8]] = -1000
    expected = inference.predict_volume(green_is_probability, hounsfield)
    assert expected[[1, 2, 6, 7]].any((1, 2)).all()
    shown = []

    def rule(picture):
        shown.append(inference.shows_body(picture))
        return shown[-1]

    found = inference.predict_volume(green_is_probability, hounsfield, wanted=rule, batch_size=3)
    assert (found == expected).all() and len(shown) == 9 and sum(shown) == 4


def test_a_skipped_file_gets_an_empty_mask_and_no_probability(table, tmp_path, green_is_probability):
    listed = pd.read_csv(
        inference.predict_files(green_is_probability, table, tmp_path / "p", wanted=table.slice == 1, batch_size=3)
    )
    assert len(listed) == 16 and (listed.highest_probability.isna() == (listed.slice != 1)).all()
    assert (listed.tumour_pixels > 0).tolist() == (listed.slice == 1).tolist()
    assert not cv2.imread(str(tmp_path / "p" / listed.file[0]), cv2.IMREAD_UNCHANGED).any()


def test_the_effect_of_skipping_counts_lost_tumour_and_false_pixels(table, cache):
    class Everywhere:
        """Sees tumour in every pixel."""

        input_shape = (None, 32, 32, 3)

        def predict_on_batch(self, images):
            return np.ones((*images.shape[:3], 1), np.float32)

    wanted = (table.slice != 0) & (table.volume != 0)  # tumour in two slices of volume 0 is lost
    effect = inference.skipping_effect(Everywhere(), cache, table, wanted.to_numpy())
    tumour, slice_pixels = table.tumour_pixels, 64 * 64
    assert effect.slices.tolist() == ["all slices", "with skipping"]
    assert effect.slices_predicted.tolist() == [16, 9]
    assert effect.tumour_slices_skipped.tolist() == [0, 2]
    kept = tumour[wanted].sum()
    assert effect.false_positive_pixels.tolist() == [16 * slice_pixels - tumour.sum(), 9 * slice_pixels - kept]
    assert effect.dice_pooled.tolist() == pytest.approx(
        [2 * tumour.sum() / (tumour.sum() + 16 * slice_pixels), 2 * kept / (tumour.sum() + 9 * slice_pixels)]
    )
    assert (effect.seconds > 0).all()


def test_a_probability_is_enlarged_before_it_is_cut():
    probability = np.zeros((2, 2), np.float32)
    probability[:, 1] = 1
    # Bilinear between centres at 1/4 and 3/4 of the width.
    assert inference.enlarged(probability, (2, 8))[0].tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    assert inference.enlarged(probability, (6, 4)).shape == (6, 4)


def test_the_threshold_itself_is_no_tumour(table):
    row = table[:1]
    ((_, predicted),) = inference.mask_pairs(row, np.full((1, 32, 32), 0.3, np.float32), threshold=0.3)
    assert not predicted.any()
    ((_, predicted),) = inference.mask_pairs(row, np.full((1, 32, 32), 0.31, np.float32), threshold=0.3)
    assert predicted.all() and predicted.shape == (64, 64)


def test_the_right_probabilities_score_nearly_one_at_native_resolution(table, cache):
    truth = (cache.labels == 2).astype(np.float32)
    scores = inference.evaluate_slices(table, truth, threshold=0.5)
    assert scores[["volume", "slice"]].equals(table[["volume", "slice"]])
    assert scores.truth_pixels.tolist() == table.tumour_pixels.tolist()
    assert (scores.dice[table.tumour_pixels > 0] > 0.93).all()
    assert scores.dice[table.tumour_pixels == 0].isna().all()


def test_slices_without_masks_get_files_of_their_own_size(slice_folder, tmp_path, green_is_probability):
    for path in slice_folder.rglob("*_mask.jpg"):
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in slice_folder.rglob("*")}
    [layout] = find_layouts(slice_folder)
    images = layout.cases
    listed = inference.predict_files(green_is_probability, images, tmp_path / "p", batch_size=5)
    rows = pd.read_csv(listed)
    assert rows[["volume", "slice"]].equals(images[["volume", "slice"]])
    for row, image in zip(rows.itertuples(), images.image_path, strict=True):
        mask = cv2.imread(str(tmp_path / "p" / row.file), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (64, 64) and set(np.unique(mask)) <= {0, 255}
        assert (mask == 255).sum() == row.tumour_pixels
        small = cv2.resize(cv2.imread(image)[..., 1], (32, 32), interpolation=cv2.INTER_AREA) / 255
        expected = cv2.resize(small, (64, 64)) > 0.30
        assert ((mask == 255) == expected).mean() > 0.999
        assert row.highest_probability == pytest.approx(small.max(), abs=0.01)
    assert (rows.threshold == 0.30).all()
    assert {path: path.stat().st_mtime_ns for path in slice_folder.rglob("*")} == before


def test_files_and_cache_give_the_same_masks(table, cache, tmp_path, green_is_probability):
    probabilities = inference.predict_slices(green_is_probability, cache, table)
    listed = pd.read_csv(inference.predict_files(green_is_probability, table, tmp_path / "p"))
    masks = [predicted.sum() for _, predicted in inference.mask_pairs(table, probabilities)]
    assert listed.tumour_pixels.tolist() == masks


def test_an_unreadable_image_is_named(table, tmp_path, green_is_probability):
    with open(table.image_path[3], "wb") as file:
        file.write(b"cut")
    with pytest.raises(DataError, match=os.path.basename(table.image_path[3])):
        inference.predict_files(green_is_probability, table, tmp_path / "p")
    assert not (tmp_path / "p" / "predictions.csv").exists()


def test_an_empty_table_is_refused_before_anything_is_written(table, tmp_path, green_is_probability):
    with pytest.raises(DataError, match="no slices to predict"):
        inference.predict_files(green_is_probability, table[:0], tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_the_truth_of_a_pair_is_the_tumour_alone(table):
    row = table[table.diagnosis == 2].iloc[:1]
    ((truth, _),) = inference.mask_pairs(row, np.zeros((1, 32, 32), np.float32))
    assert (truth == (read_labels(row.mask_path.iloc[0]) == 2)).all()


def spaced(table):
    return table.assign(slice_mm=5.0, row_mm=0.7, column_mm=0.8)


def test_slices_are_stacked_to_volumes_in_order_with_their_spacing(table, cache):
    mixed = spaced(table).sample(frac=1, random_state=2)
    probabilities = (cache.labels[mixed.index] == 2).astype(np.float32)
    cases = list(inference.volume_cases(mixed, probabilities, threshold=0.5))
    assert [volume for volume, *_ in cases] == [0, 1, 2, 3]
    for volume, truth, predicted, spacing in cases:
        assert truth.shape == predicted.shape == (4, 64, 64) and spacing == (5.0, 0.7, 0.8)
        rows = table[table.volume == volume]
        assert (truth == np.stack([read_labels(path) for path in rows.mask_path])).all()
        assert set(np.unique(predicted)) <= {0, 2}
        assert ((predicted == 2) == (truth == 2)).mean() > 0.98


def test_spacing_is_not_told_where_slices_are_missing_or_it_is_unknown(table, cache):
    gaps = spaced(table)[table.slice != 2]
    nothing = np.zeros((len(gaps), 32, 32), np.float32)
    assert [spacing for *_, spacing in inference.volume_cases(gaps, nothing)] == [None] * 4
    assert [spacing for *_, spacing in inference.volume_cases(table, cache.labels * 0.0)] == [None] * 4


# Volumes --------------------------------------------------------------------------------------


def scan(folder, orientation="LPS"):
    """A CT of noise as NIfTI, 32x32 as the network takes it, stored in some orientation."""
    array = np.random.default_rng(3).integers(-200, 200, (5, 32, 32), np.int16)
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([-0.8, -0.7, 4, 1]))
    way = nibabel.orientations.axcodes2ornt(orientation)
    image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), way))
    nibabel.save(image, folder / "volume-3.nii.gz")
    return folder / "volume-3.nii.gz"


# Green is (HU + 40) / 200 in 255 steps, cut: over 0.30 of 255 from 77 on, which 21 HU is the first to give.
FIRST_HU_OVER_THRESHOLD = 21


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SAR", "PIL"])
def test_labels_lie_on_their_scan_voxel_by_voxel_for_an_independent_reader(tmp_path, green_is_probability, orientation):
    path = scan(tmp_path, orientation)
    written = inference.predict_scan(green_is_probability, path, tmp_path / "p", batch_size=2)
    assert written == tmp_path / "p" / "volume-3_prediction.nii.gz"
    ct, labels = SimpleITK.ReadImage(path), SimpleITK.ReadImage(written)
    assert labels.GetSize() == ct.GetSize()
    assert labels.GetOrigin() == ct.GetOrigin() and labels.GetSpacing() == ct.GetSpacing()
    assert labels.GetDirection() == ct.GetDirection()
    expected = 2 * (SimpleITK.GetArrayFromImage(ct) >= FIRST_HU_OVER_THRESHOLD)
    assert (SimpleITK.GetArrayFromImage(labels) == expected).all()


@pytest.fixture
def series(tmp_path):
    """A DICOM series of the same noise."""
    image = nibabel.load(scan(tmp_path))
    write_series(tmp_path / "ct", np.asarray(image.dataobj), image.affine)
    return tmp_path / "ct"


def test_labels_of_a_dicom_series_are_nifti_in_its_geometry(series, tmp_path, green_is_probability):
    written = inference.predict_scan(green_is_probability, series, tmp_path / "p")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    ct, labels = reader.Execute(), SimpleITK.ReadImage(written)
    assert labels.GetSize() == ct.GetSize()
    for ours, theirs in zip(
        (labels.GetOrigin(), labels.GetSpacing(), labels.GetDirection()),
        (ct.GetOrigin(), ct.GetSpacing(), ct.GetDirection()), strict=True,
    ):
        assert ours == pytest.approx(theirs, abs=1e-4)
    expected = 2 * (SimpleITK.GetArrayFromImage(ct) >= FIRST_HU_OVER_THRESHOLD)
    assert (SimpleITK.GetArrayFromImage(labels) == expected).all()


def test_labels_of_a_dicom_series_may_be_a_segmentation_that_names_its_slices(series, tmp_path, green_is_probability):
    written = inference.predict_scan(green_is_probability, series, tmp_path / "p", dicom_seg=True)
    segmentation = pydicom.dcmread(written)
    assert segmentation.Modality == "SEG" and written.name == "ct_prediction.dcm"
    slices = {dataset.SOPInstanceUID: dataset for dataset in map(pydicom.dcmread, series.iterdir())}
    assert len(segmentation.pixel_array) == len(slices) == 5
    for frame, groups in zip(segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        derivation = groups.DerivationImageSequence[0].SourceImageSequence[0]
        ct = slices[derivation.ReferencedSOPInstanceUID]
        hounsfield = ct.pixel_array * float(ct.RescaleSlope) + float(ct.RescaleIntercept)
        assert (frame == (hounsfield >= FIRST_HU_OVER_THRESHOLD)).all()


@pytest.mark.parametrize(
    ("scans", "names"),
    [
        (["a/volume-3.nii.gz", "b/volume-4.nii"], ["volume-3", "volume-4"]),
        (["1.1/PATIENT_DICOM", "1.2/PATIENT_DICOM"], ["1.1_PATIENT_DICOM", "1.2_PATIENT_DICOM"]),
        (["1/study/CT", "2/study/CT", "2/study/CT2"], ["1_study_CT", "2_study_CT", "2_study_CT2"]),
        (["a/two series", "a/two series", "b/c"], ["two series_1", "two series_2", "c"]),
        (["a/scan.nii", "a/scan.nii.gz"], ["scan_1", "scan_2"]),
        ([], []),
    ],
)
def test_scans_that_are_called_alike_get_names_of_their_own(tmp_path, scans, names):
    assert inference.scan_names([tmp_path / scan for scan in scans]) == names


def test_a_segmentation_object_for_a_nifti_file_is_refused(tmp_path, green_is_probability):
    with pytest.raises(DataError, match="volume-3.nii.gz: a DICOM segmentation refers"):
        inference.predict_scan(green_is_probability, scan(tmp_path), tmp_path / "p", dicom_seg=True)


def test_a_volume_and_its_jpeg_slices_are_the_same_to_a_network(tmp_path, green_is_probability):
    patient = phantom_volume(5, size=128)
    write_slice_files(tmp_path / "slices", 0, patient.hounsfield, patient.labels)
    [layout] = find_layouts(tmp_path / "slices")
    listed = pd.read_csv(inference.predict_files(green_is_probability, layout.cases, tmp_path / "p"))
    of_files = [cv2.imread(str(tmp_path / "p" / name), cv2.IMREAD_UNCHANGED) > 0 for name in listed.file]
    of_volume = inference.predict_volume(green_is_probability, patient.hounsfield) == 2
    assert 0.2 < of_volume.mean() < 0.8
    assert (np.stack(of_files) == of_volume).mean() > 0.995  # JPEG moves some levels over the threshold


def test_memory_of_a_volume_does_not_grow_with_its_slices(green_is_probability):
    def peak_beside_input_and_labels(slices):
        hounsfield = np.zeros((slices, 128, 128), np.int16)
        hounsfield[:, ::2] = 100
        inference.predict_volume(green_is_probability, hounsfield[:4], batch_size=4)  # compiled before
        tracemalloc.start()
        labels = inference.predict_volume(green_is_probability, hounsfield, batch_size=4)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - labels.nbytes

    few, many = peak_beside_input_and_labels(20), peak_beside_input_and_labels(200)
    # One picture is 49 kB; keeping a single one of every slice would be nine million bytes more.
    assert many - few < 500_000, (few, many)


@pytest.mark.realdata
def test_a_real_ct_gets_labels_of_its_own_geometry(real_volume, tmp_path, green_is_probability):
    written = inference.predict_scan(green_is_probability, real_volume, tmp_path)
    ct, labels = SimpleITK.ReadImage(real_volume), SimpleITK.ReadImage(written)
    assert labels.GetSize() == ct.GetSize() and labels.GetDirection() == ct.GetDirection()
    assert labels.GetOrigin() == ct.GetOrigin() and labels.GetSpacing() == ct.GetSpacing()
    found = SimpleITK.GetArrayFromImage(labels) == 2
    hounsfield = SimpleITK.GetArrayFromImage(ct)
    # The network blurs to 32 x 32, so only the middle of tissues and of air is certain.
    assert hounsfield[found].mean() > 0 > hounsfield[~found].mean()
