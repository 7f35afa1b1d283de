import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from lits_helpers import masks
from lits_helpers.files import DataError
from lits_helpers.pictures import read_image, write_image

EMPTY = np.zeros((96, 80), np.uint8)
LIVER = EMPTY.copy()
LIVER[10:70, 12:60] = 1
BOTH = LIVER.copy()
BOTH[20:40, 20:40] = 2
BOTH[64:72, 50:64] = 2  # at the liver's edge, hence beside background
SLICES = [EMPTY, LIVER, BOTH, LIVER]

# The meaning that settles each coding, and the labels that it can give back for 0, 1 and 2.
SETTLED = {
    "labels": (None, (0, 1, 2)), "0/127/255": (None, (0, 1, 2)), "0/128/255": (None, (0, 1, 2)),
    "0/1": ("liver and tumour", (0, 1, 1)), "0/255": ("liver and tumour", (0, 1, 1)),
    "0/1 tumour": ("tumour", (0, 0, 2)), "0/255 tumour": ("tumour", (0, 0, 2)),
    "colours": (None, (0, 1, 2)), "report-jpg": (None, (0, 1, 2)),
}


def written(folder, slices, coding, ending=".png", quality=90):
    """Mask files of a coding, by name in the order of the slices."""
    paths = [folder / f"volume-0_slice_{number:03d}_mask{ending}" for number in range(len(slices))]
    for path, labels in zip(paths, slices, strict=True):
        write_image(path, masks.encode(labels, coding), jpeg_quality=quality)
    return paths


def grey_files(folder, *levels):
    """A PNG of stripes for each set of levels."""
    paths = [folder / f"{number}.png" for number in range(len(levels))]
    for path, of_file in zip(paths, levels, strict=True):
        write_image(path, np.repeat(np.array(of_file, np.uint8), 10)[:, None].repeat(20, axis=1))
    return paths


def test_every_coding_is_covered_below():
    assert set(SETTLED) == set(masks.CODINGS)


@pytest.mark.parametrize("coding", masks.CODINGS)
def test_a_lossless_set_of_each_coding_gives_back_its_labels(tmp_path, coding):
    meaning, labels = SETTLED[coding]
    paths = written(tmp_path, SLICES, coding)
    found = masks.detect(paths, meaning=meaning)
    assert not found.smeared
    for path, truth in zip(paths, SLICES, strict=True):
        decoded = masks.read_labels(path, found)
        assert decoded.dtype == np.uint8 and (decoded == np.array(labels)[truth]).all()


@pytest.mark.parametrize("quality", [75, 90, 100])
@pytest.mark.parametrize("coding", [name for name in masks.CODINGS if name[:3] in ("0/2", "0/1", "col") and len(name) > 4 and name != "0/1 tumour"])
def test_a_jpeg_set_of_each_coding_gives_back_its_labels(tmp_path, coding, quality):
    meaning, labels = SETTLED[coding]
    paths = written(tmp_path, SLICES, coding, ".jpg", quality)
    found = masks.detect(paths, meaning=meaning)
    assert found.smeared
    for path, truth in zip(paths, SLICES, strict=True):
        wrong = masks.read_labels(path, found) != np.array(labels)[truth]
        assert wrong.sum() <= (0.002 * wrong.size if coding == "colours" else 0)


def test_the_reports_masks_are_recognised_as_such(tmp_path):
    found = masks.detect(written(tmp_path, SLICES, "report-jpg", ".jpg"))
    assert (found.name, found.smeared, found.tumours_known) == ("report-jpg", True, False)


@pytest.mark.parametrize("coding", ["labels", "0/1", "0/1 tumour"])
@pytest.mark.parametrize("quality", [75, 100])
def test_labels_saved_as_jpeg_are_refused_with_the_reason(tmp_path, coding, quality):
    paths = written(tmp_path, SLICES, coding, ".jpg", quality)
    with pytest.raises(DataError, match="_mask.jpg: levels 0, 1 and 2 do not survive JPEG"):
        masks.detect(paths, meaning=SETTLED[coding][0])


@pytest.mark.parametrize("coding", ["0/1", "0/255", "0/1 tumour", "0/255 tumour"])
def test_two_levels_are_ambiguous_and_the_error_says_what_settles_them(tmp_path, coding):
    paths = written(tmp_path, SLICES, coding)
    levels = "0, 1" if "0/1" in coding else "0, 255"
    with pytest.raises(DataError, match=f"4 masks .* levels {levels} alone.*meaning= .LITS_MASK_MEANING.: liver, tumour"):
        masks.detect(paths)


@pytest.mark.parametrize(("meaning", "label", "known"), [("liver", 1, False), ("tumour", 2, True), ("liver and tumour", 1, False)])
def test_the_meaning_settles_two_levels(tmp_path, meaning, label, known):
    found = masks.detect(written(tmp_path, SLICES, "0/255"), meaning=meaning)
    assert (found.mapping, found.tumours_known) == ({0: 0, 255: label}, known)


def test_a_single_file_with_a_two_makes_a_set_of_labels(tmp_path):
    slices = [LIVER] * 150
    slices[77] = BOTH  # not among the 64 of 150 that are spread evenly
    found = masks.detect(written(tmp_path, slices, "labels"))
    assert (found.name, found.files) == ("labels", 150)


def test_a_large_set_is_judged_by_64_files(tmp_path):
    assert masks.detect(written(tmp_path, [LIVER, BOTH] * 100, "labels")).files == 64


def test_127_alone_is_the_middle_of_three_levels(tmp_path):
    assert masks.detect(written(tmp_path, [EMPTY, LIVER], "0/127/255")).mapping == {0: 0, 127: 1, 255: 2}


def test_empty_masks_throughout_are_labels(tmp_path):
    assert masks.detect(written(tmp_path, [EMPTY] * 3, "labels")).name == "labels"


@pytest.mark.parametrize("levels", [(0, 1, 2, 3), (0, 50, 100), (7, 9), (0, 85, 170, 255)])
def test_other_levels_are_refused_and_shown(tmp_path, levels):
    with pytest.raises(DataError, match=", ".join(map(str, levels))):
        masks.detect(grey_files(tmp_path, levels))


def test_levels_that_a_user_knows_can_be_spelled_out(tmp_path):
    paths = grey_files(tmp_path, (0, 50, 100, 200))
    found = masks.detect(paths, meaning="50 = liver; 100 = tumour; ")
    assert np.unique(masks.read_labels(paths[0], found)[:, 0], return_counts=True)[1].tolist() == [20, 10, 10]


@pytest.mark.parametrize("meaning", ["bowel", "50 = bowel", "50, 60 = liver", "300 = liver", "255,0,0 = tumour", " ", ";"])
def test_a_meaning_that_says_nothing_of_these_masks_is_refused(tmp_path, meaning):
    with pytest.raises(DataError, match="meaning="):
        masks.detect(grey_files(tmp_path, (0, 50, 100)), meaning=meaning)


def test_a_meaning_of_two_levels_contradicts_masks_of_three(tmp_path):
    with pytest.raises(DataError, match="is for masks of 0 and one other level"):
        masks.detect(written(tmp_path, SLICES, "labels"), meaning="liver")


@pytest.mark.parametrize(("liver", "tumour"), [((255, 0, 0), (0, 0, 255)), ((0, 0, 255), (255, 255, 0))])
def test_the_colour_inside_the_other_is_tumour(tmp_path, liver, tumour):
    palette = np.array([(0, 0, 0), liver, tumour], np.uint8)
    for number, labels in enumerate(SLICES):
        write_image(tmp_path / f"{number}.png", palette[labels])
    found = masks.detect(sorted(tmp_path.iterdir()))
    assert found.mapping == {(0, 0, 0): 0, liver: 1, tumour: 2}


def test_a_palette_png_is_read_by_its_colours(tmp_path):
    import PIL.Image

    for number, labels in enumerate(SLICES):
        picture = PIL.Image.fromarray(labels, mode="P")
        picture.putpalette([0, 0, 0, 200, 30, 30, 20, 200, 200])
        picture.save(tmp_path / f"{number}.png")
    paths = sorted(tmp_path.iterdir())
    found = masks.detect(paths)
    assert (masks.read_labels(paths[2], found) == BOTH).all()


def test_two_colours_side_by_side_are_ambiguous_until_named(tmp_path):
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[5:35, 5:25], picture[5:35, 35:55] = (255, 0, 0), (0, 0, 255)
    write_image(tmp_path / "a.png", picture)
    with pytest.raises(DataError, match="do not tell which colour is tumour.*'0,0,255 = liver; 255,0,0 = tumour'"):
        masks.detect([tmp_path / "a.png"])
    found = masks.detect([tmp_path / "a.png"], meaning="0,0,255 = tumour; 255,0,0 = liver")
    assert np.bincount(masks.read_labels(tmp_path / "a.png", found).ravel()).tolist() == [1200, 600, 600]


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("coding", ["labels", "0/128/255", "0/255", "colours", "report-jpg"])
def test_a_file_of_another_coding_is_refused_by_name(tmp_path, coding, ending):
    if coding == "labels" and ending == ".jpg":
        ending = ".png"
    found = masks.detect(written(tmp_path / "set", SLICES, coding, ending), meaning=SETTLED[coding][0])
    for other in {"labels", "0/128/255", "colours", "report-jpg"} - {coding}:
        [stranger] = written(tmp_path / other.replace("/", "-"), [BOTH], other)
        with pytest.raises(DataError, match="slice_000_mask.png.*do not fit the coding"):
            masks.read_labels(stranger, found)


def test_a_mixed_sample_is_refused_with_a_file_of_each(tmp_path):
    reports = written(tmp_path / "a", SLICES, "report-jpg")
    labels = written(tmp_path / "b", SLICES, "labels")
    with pytest.raises(DataError, match="two codings in one data set.*report"):
        masks.detect(reports + labels)
    with pytest.raises(DataError, match="two codings in one data set"):
        masks.detect(labels + written(tmp_path / "c", SLICES, "0/128/255"))


@pytest.mark.parametrize("coding", ["labels", "0/127/255", "0/128/255"])
def test_one_odd_or_damaged_file_does_not_hide_the_coding_of_the_others(tmp_path, coding):
    paths = written(tmp_path, [LIVER, BOTH] * 15, coding)
    write_image(paths[4], np.full((96, 80), 200, np.uint8))
    paths[7].write_bytes(b"")
    found = masks.detect(paths)
    assert (found.name, found.files) == (coding, 28)
    with pytest.raises(DataError, match="slice_004_mask.png: levels 200 do not fit"):
        masks.read_labels(paths[4], found)


def test_the_proposal_is_printed_with_counts(tmp_path):
    lines = str(masks.detect(written(tmp_path, SLICES, "0/128/255"))).splitlines()
    assert lines[0].startswith("mask coding 0/128/255, from 4 file(s) such as ")
    # 60 * 48 pixels of liver in three slices; in one 400 of them are tumour, and so are 8 * 14 at
    # its edge, of which 6 * 10 lay in the liver.
    assert lines[2].split() == ["128", "->", "1", "liver", f"{3 * 2880 - 400 - 60:,}", "pixels"]
    assert lines[3].split() == ["255", "->", "2", "tumour", "512", "pixels"]


def test_the_proposal_says_which_tumours_it_cannot_tell(tmp_path):
    words = "tumours, or the small ones, cannot be told from liver"
    assert str(masks.detect(written(tmp_path, SLICES, "report-jpg", ".jpg"))).endswith(words)
    assert words not in str(masks.detect(written(tmp_path, SLICES, "labels")))


def test_labels_in_16_bits_are_labels(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), BOTH.astype(np.uint16))
    found = masks.detect([tmp_path / "a.png"])
    assert found.name == "labels" and np.array_equal(masks.read_labels(tmp_path / "a.png", found), BOTH)


def test_no_file_is_an_error_and_so_is_a_damaged_one(tmp_path):
    with pytest.raises(DataError, match="no mask files"):
        masks.detect([])
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="a.png: empty or cut short"):
        masks.detect([tmp_path / "a.png"])


# What the real slices gave: share of right diagnoses, pooled Dice of tumour and of liver, at least.
ON_REAL_SLICES = [
    (coding, quality, limits)
    for coding, limits in {"0/128/255": (1, 1, 1), "0/127/255": (1, 1, 1), "colours": (0.98, 0.998, 0.999)}.items()
    for quality in (None, 75, 90, 100)
    if coding != "0/127/255" or quality in (None, 75)
]


@pytest.mark.realdata
@pytest.mark.parametrize(("coding", "quality", "limits"), ON_REAL_SLICES)
def test_real_masks_come_back_from_each_coding(real_slices, tmp_path, coding, quality, limits):
    sources = sorted(real_slices.rglob("*_mask.png"))[::6]
    truths = [read_image(path, grey=True) for path in sources]
    files = written(tmp_path, truths, coding, ".png" if quality is None else ".jpg", quality or 100)
    found = masks.detect(files)
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(lambda path: masks.read_labels(path, found), files))
    right = np.mean([labels.max() == truth.max() for labels, truth in zip(decoded, truths, strict=True)])
    dice = {}
    for label in (1, 2):
        pairs = [(truth == label, labels == label) for labels, truth in zip(decoded, truths, strict=True)]
        dice[label] = 2 * sum((a & b).sum() for a, b in pairs) / sum(a.sum() + b.sum() for a, b in pairs)
    assert (right >= limits[0], dice[2] >= limits[1], dice[1] >= limits[2]) == (True,) * 3, (right, dice)


@pytest.mark.realdata
def test_real_labels_saved_as_jpeg_lose_most_diagnoses_at_any_quality(real_slices):
    def kept(path):
        truth = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED)
        file = cv2.imencode(".jpg", truth, [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
        return cv2.imdecode(file, cv2.IMREAD_GRAYSCALE).max() == truth.max()

    with ThreadPoolExecutor() as pool:
        assert np.mean(list(pool.map(kept, sorted(real_slices.rglob("*_mask.png"))[::4]))) < 0.5
