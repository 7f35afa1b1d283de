from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
import pytest

from lits_helpers import masks
from lits_helpers.files import DataError
from lits_helpers.pictures import write_image
from lits_helpers.windows import three_channels


def jpeg(labels, quality):
    """A mask file of the report's coding."""
    picture = three_channels(labels)[..., ::-1]
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]


def saved(labels, quality):
    """Grey levels after the report's coding and JPEG, read by OpenCV alone."""
    return cv2.imdecode(jpeg(labels, quality), cv2.IMREAD_GRAYSCALE)


def drawn(size, liver=0, tumour=0):
    """A liver and inside it a tumour, discs with these radii as parts of the slice."""
    rows, columns = np.ogrid[:size, :size]
    distance = np.hypot(rows - size / 2, columns - size / 2) / size
    return np.where(distance < tumour, 2, distance < liver).astype(np.uint8)


def dice(truth, decoded):
    return 2 * (truth & decoded).sum() / (truth.sum() + decoded.sum())


@pytest.mark.parametrize("size", [64, 101, 255, 512])
@pytest.mark.parametrize("quality", [75, 90, 100])
def test_a_tumour_in_a_liver_is_decoded_at_any_size_and_quality(size, quality):
    truth = drawn(size, liver=0.3, tumour=0.1)
    decoded = masks.decode(saved(truth, quality))
    assert (decoded.coding, decoded.small_tumours_known) == ("report-jpg", False)
    assert dice(truth == 2, decoded.labels == 2) > 0.98
    assert dice(truth > 0, decoded.labels > 0) > 0.98


@pytest.mark.parametrize("quality", [75, 90, 100])
@pytest.mark.parametrize(
    ("truth", "diagnosis"),
    [
        (drawn(512), masks.EMPTY),
        (drawn(512, liver=0.25), masks.LIVER_ONLY),
        (drawn(512, liver=0.015), masks.LIVER_ONLY),  # 184 pixels: coded one level above nothing
        (drawn(512, liver=0.25, tumour=0.015), masks.LIVER_ONLY),  # a tumour it cannot know
        (drawn(512, tumour=0.1), masks.LIVER_AND_TUMOUR),  # no healthy liver beside it
        (drawn(512, liver=0.25, tumour=0.02), masks.LIVER_AND_TUMOUR),
        (drawn(512, liver=1, tumour=0.3), masks.LIVER_AND_TUMOUR),
    ],
)
def test_the_diagnosis_reads_the_slice_as_a_whole(truth, diagnosis, quality):
    assert masks.diagnose(masks.decode(saved(truth, quality)).labels) == diagnosis


@pytest.mark.parametrize("size", [64, 333, 512])
def test_a_lossless_file_gives_back_every_label(size, tmp_path):
    truth = drawn(size, liver=0.3, tumour=0.1)
    truth[2, 2] = 1
    for labels in (truth, drawn(size, liver=0.3), np.zeros_like(truth)):
        labels[size // 2 + 1, 5] = 2  # a tumour of one pixel
        write_image(tmp_path / "mask.png", three_channels(labels))
        assert (masks.read_labels(tmp_path / "mask.png") == labels).all()


@pytest.mark.parametrize("label", [masks.LIVER, masks.TUMOUR])
@pytest.mark.parametrize("pixels", [1, 3, 4, 1000, 3500])  # 0.1 % of 50x70 are 4, all are 3500
def test_a_lossless_label_alone_in_its_slice_is_known(tmp_path, label, pixels):
    labels = np.zeros((50, 70), np.uint8)
    labels.flat[:pixels] = label
    write_image(tmp_path / "mask.png", three_channels(labels))
    assert (masks.read_labels(tmp_path / "mask.png") == labels).all()


@pytest.mark.parametrize("quality", [30, 65, 75, 90, 100])
def test_a_jpeg_of_one_level_is_empty_whichever_level_its_quality_gives(quality):
    grey = saved(drawn(512), quality)
    assert len(np.unique(grey)) == 1
    assert not masks.decode(grey).labels.any()


def test_a_png_made_from_a_jpeg_is_read_as_a_jpeg():
    decoded = masks.decode(saved(drawn(256, liver=0.3, tumour=0.1), 75), lossless=True)
    assert not decoded.small_tumours_known
    assert masks.diagnose(decoded.labels) == masks.LIVER_AND_TUMOUR


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_files_are_taken_as_they_are(tmp_path, dtype):
    labels = drawn(40, liver=0.4, tumour=0.1)
    cv2.imwrite(str(tmp_path / "mask.png"), labels.astype(dtype))
    read = masks.read_labels(tmp_path / "mask.png")
    assert (read == labels).all() and read.dtype == np.uint8


@pytest.mark.parametrize("highest", [0, 1, 2])
def test_labels_are_recognised_with_and_without_liver_and_tumour_and_hide_none(highest):
    labels = np.minimum(drawn(40, liver=0.4, tumour=0.1), highest)
    decoded = masks.decode(labels)
    assert (decoded.coding, decoded.small_tumours_known) == ("labels", True)
    assert np.array_equal(decoded.labels, labels)


@pytest.mark.parametrize("levels", [(0, 255), (0, 127, 255), (0, 1, 2, 3), (53, 200), (3, 84)])
def test_an_unknown_coding_is_refused_with_file_and_levels(tmp_path, levels):
    mask = np.resize(np.array(levels, np.uint8), (8, 8))
    cv2.imwrite(str(tmp_path / "volume-1_slice_2_mask.png"), mask)
    with pytest.raises(DataError, match=f"volume-1_slice_2_mask.png.*{len(levels)} grey levels"):
        masks.read_labels(tmp_path / "volume-1_slice_2_mask.png")


@pytest.mark.parametrize(("size", "pixels"), [(512, 263), (256, 66), (100, 10)])
def test_the_least_tumour_of_the_coding(size, pixels):
    assert masks.smallest_coded_tumour(size * size) == pixels


def test_the_reports_levels_are_exact_in_a_png_alone():
    grey = np.array([[53, 83, 84]], np.uint8)
    assert masks.decode_file(grey, "mask.PNG").small_tumours_known
    assert not masks.decode_file(grey, "mask.jpg").small_tumours_known


@pytest.mark.parametrize("label", [1, 2])
def test_labels_saved_as_jpeg_are_refused_and_an_empty_mask_as_jpeg_is_empty(label):
    with pytest.raises(DataError, match="a.jpg: levels 0, 1 and 2 do not survive JPEG"):
        masks.decode_file(np.array([[0, label]], np.uint8), "a.jpg")
    assert masks.decode_file(np.zeros((1, 2), np.uint8), "a.jpg").labels.tolist() == [[0, 0]]


def test_tumour_wins_where_two_masks_overlap_whatever_their_level_inside():
    liver, tumour = np.array([[0, 1, 255, 0]], np.uint8), np.array([[0, 0, 1, 255]], np.uint8)
    assert masks.merge_binary(liver, tumour).tolist() == [[0, 1, 2, 2]]


def two_files(folder, liver, tumour):
    paths = folder / "liver.png", folder / "tumour.png"
    for path, grey in zip(paths, (liver, tumour), strict=True):
        write_image(path, np.array(grey, np.uint8))
    return paths


@pytest.mark.parametrize(
    ("liver", "tumour", "labels"),
    [
        ([[0, 255, 255]], [[0, 0, 1]], [[0, 1, 2]]),
        ([[255, 255, 255]], [[0, 0, 0]], [[1, 1, 1]]),  # each of one level, all or nothing
    ],
)
def test_a_mask_for_the_liver_and_one_for_its_tumours_make_one_of_labels(tmp_path, liver, tumour, labels):
    assert masks.read_two_files(*two_files(tmp_path, liver, tumour)).tolist() == labels


@pytest.mark.parametrize(
    ("liver", "tumour", "message"),
    [
        ([[0, 1, 2]], [[0, 0, 1]], "liver.png: 3 levels up to 2"),
        ([[0, 0, 1]], [[7, 7, 9]], "tumour.png: 2 levels up to 9"),
        ([[0, 1, 1]], [[0, 1]], r"tumour.png: \(1, 2\) pixels, .*liver.png has \(1, 3\)"),
        ([[0, 1]], [[0, 1, 1]], r"tumour.png: \(1, 3\) pixels, .*liver.png has \(1, 2\)"),
    ],
)
def test_two_files_that_are_no_masks_of_one_slice_are_refused_by_name(tmp_path, liver, tumour, message):
    with pytest.raises(DataError, match=message):
        masks.read_two_files(*two_files(tmp_path, liver, tumour))


def literal_report_rule(labels, quality):
    """The report's classification as its text has it, on the colour file."""
    picture = cv2.imdecode(jpeg(labels, quality), cv2.IMREAD_COLOR)
    if picture.sum() == 33554432:
        return 0
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return 2 if ((grey > 55) & (grey < 75)).any() else 1


@pytest.mark.parametrize("quality", [75, 90, 100])
@pytest.mark.parametrize("size", [256, 512])
@pytest.mark.parametrize(("liver", "tumour"), [(0, 0), (0.3, 0), (0.3, 0.1), (0.3, 0.01)])
def test_the_reports_rule_is_the_literal_one(quality, size, liver, tumour):
    labels = drawn(size, liver, tumour)
    assert masks.report_diagnosis(saved(labels, quality)) == literal_report_rule(labels, quality)


@pytest.mark.parametrize(("level", "diagnosis"), [(55, 1), (56, 2), (74, 2), (75, 1)])
def test_the_reports_tumour_band_is_open_at_both_ends(level, diagnosis):
    assert masks.report_diagnosis(np.array([[53, level]], np.uint8)) == diagnosis


def test_the_reports_checksum_is_of_512_x_512_pixels_of_one_level():
    empty = np.full((512, 512), 53, np.uint8)
    assert masks.report_diagnosis(empty) == masks.EMPTY
    rippled = empty.copy()
    rippled[3, 4] = 52
    for other in (rippled, empty - 1, empty + 1, np.full((513, 512), 53, np.uint8)):
        assert masks.report_diagnosis(other) == masks.LIVER_ONLY


def test_the_reports_rule_fails_where_the_text_says():
    liver = drawn(512, liver=0.3)
    assert masks.report_diagnosis(saved(liver, 100)) == masks.LIVER_ONLY
    assert masks.report_diagnosis(saved(liver, 90)) == masks.LIVER_AND_TUMOUR  # blurred edges
    assert masks.report_diagnosis(saved(drawn(256), 100)) == masks.LIVER_ONLY  # empty, other size


def test_the_reports_target_is_the_tumour_or_else_the_whole_liver():
    with_tumour, without = drawn(512, liver=0.3, tumour=0.1), drawn(512, liver=0.3)
    assert (masks.report_target(saved(with_tumour, 100)) == (with_tumour == 2)).mean() > 0.999
    assert (masks.report_target(saved(without, 100)) == (without == 1)).mean() > 0.999


@pytest.fixture(scope="module", params=[75, 90, 100])
def real_masks(request, real_slices):
    """One row a real mask: what became of it in the report's coding at one JPEG quality."""
    nothing = jpeg(np.zeros((512, 512), np.uint8), request.param)

    def row(path):
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        file = jpeg(truth, request.param)
        decoded = masks.decode(cv2.imdecode(file, cv2.IMREAD_GRAYSCALE)).labels
        # Tumours of 0.1 % of the slice and more count, smaller ones the coding does not know.
        tumour, found = truth == 2, decoded == 2
        diagnosis = 2 if tumour.sum() >= 263 else min(int(truth.max()), 1)
        return {
            "name": path.name,
            "right": masks.diagnose(decoded) == diagnosis,
            "traceless": truth.any() and np.array_equal(file, nothing),
            "large": diagnosis == 2,
            "tumour": tumour.sum(), "found": found.sum(), "shared": (tumour & found).sum(),
        }

    with ThreadPoolExecutor() as pool:
        return pd.DataFrame(pool.map(row, sorted(real_slices.rglob("*_mask.png")))).assign(
            quality=request.param
        )


@pytest.mark.realdata
def test_real_masks_are_diagnosed_from_the_reports_files(real_masks):
    readable = real_masks[~real_masks.traceless]
    assert readable.right.mean() >= 0.995
    # At quality 75 seven livers of 5 to 70 pixels are gone, 0.6 % of the slices.
    if real_masks.quality[0] >= 90:
        assert real_masks.right.mean() >= 0.995


@pytest.mark.realdata
def test_a_real_mask_is_misread_only_where_its_file_is_an_empty_masks(real_masks):
    wrong = real_masks[~real_masks.right]
    assert wrong.traceless.all(), wrong.name.tolist()
    assert len(wrong) <= 7


@pytest.mark.realdata
def test_real_tumours_in_the_reports_files_are_decoded_to_dice_99_pooled_and_by_slice(real_masks):
    large = real_masks[real_masks.large]
    assert 2 * large.shared.sum() / (large.tumour + large.found).sum() >= 0.99
    assert (2 * large.shared / (large.tumour + large.found)).mean() >= 0.99
