import numpy as np
import pandas as pd
import pytest

from lits_helpers.failures import counted_reasons, explained
from lits_helpers.lesions import match_lesions

SHAPE = (9, 60, 60)


def labelled(*lesions):
    """A liver in slices 1 to 7, rows and columns 5 to 49, and lesions (slice, row, column, size)."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[1:8, 5:50, 5:50] = 1
    for number, row, column, size in lesions:
        truth[number, row : row + size, column : column + size] = 2
    return truth


def drawn(truth, darker=51):
    """Green channel: liver at level 153, which is 80 HU; tumours 51 levels darker, which is 40 HU."""
    return np.choose(truth, (0, 153, 153 - darker)).astype(np.uint8)


def explain(truth, predicted, spacing=(5, 1, 1), green=None):
    match = match_lesions(truth == 2, predicted == 2, spacing)
    return explained(match, truth, drawn(truth) if green is None else green)


def test_found_missed_and_false_lesions_are_told_apart():
    truth = labelled((3, 20, 20, 6), (6, 35, 35, 6))
    predicted = labelled((3, 22, 22, 6), (5, 10, 40, 3))
    lesions = explain(truth, predicted)
    assert lesions.kind.tolist() == ["found", "missed", "false positive"]
    assert lesions.slice.tolist() == [3, 6, 5]
    assert lesions.voxels.tolist() == [36, 36, 9]
    assert lesions.volume_mm3.tolist() == [180, 180, 45]
    assert lesions.row.tolist() == [22, 38, 11] and lesions.column.tolist() == [22, 38, 41]


def test_contrast_is_that_to_the_liver_around_in_hounsfield_units():
    truth = labelled((3, 20, 20, 6))
    assert explain(truth, truth).contrast_hu[0] == pytest.approx(-40, abs=0.01)
    assert explain(truth, truth, green=drawn(truth, darker=-12)).contrast_hu[0] == pytest.approx(12 * 200 / 255)


def test_another_tumour_beside_it_is_not_taken_for_liver():
    truth = labelled((3, 20, 20, 6), (3, 20, 27, 6))
    green = drawn(truth)
    green[3, 20:26, 27:33] = 255
    assert explain(truth, truth, green=green).contrast_hu[0] == pytest.approx(-40, abs=0.01)


@pytest.mark.parametrize(
    ("lesion", "place"),
    [
        ((1, 20, 8, 4), "lower third, right half"), ((4, 20, 8, 4), "middle third, right half"),
        ((7, 20, 40, 4), "upper third, left half"),
    ],
)
def test_the_place_is_told_from_the_feet_and_as_the_patient_has_it(lesion, place):
    truth = labelled(lesion)
    assert explain(truth, truth).place.tolist() == [place]


@pytest.mark.parametrize(
    ("lesion", "darker", "reason"),
    [
        ((4, 20, 20, 12), 51, "none of these"),  # 720 mm3: 11.1 mm
        ((4, 20, 20, 8), 51, "small"),  # 320 mm3: 8.5 mm
        ((4, 20, 20, 12), 18, "faint"),  # 14.1 HU
        ((4, 5, 20, 12), 51, "at the liver's edge"),
        ((4, 5, 20, 8), 18, "small, faint, at the liver's edge"),
    ],
)
def test_size_contrast_and_the_edge_are_reasons(lesion, darker, reason):
    truth = labelled(lesion)
    assert explain(truth, truth * 0, green=drawn(truth, darker)).reason.tolist() == [reason]


def test_a_false_lesion_outside_the_liver_is_said_to_be_there():
    truth, predicted = labelled(), labelled()
    predicted[4, 56:60, 56:60] = 2
    [lesion] = explain(truth, predicted).itertuples()
    assert (lesion.kind, lesion.place) == ("false positive", "outside the liver")
    assert "outside the liver" in lesion.reason and np.isnan(lesion.contrast_hu)


def test_a_lesion_in_the_corner_of_the_volume_is_described():
    truth = np.full(SHAPE, 1, np.uint8)
    truth[0, :3, :3] = 2
    [lesion] = explain(truth, truth).itertuples()
    assert lesion.contrast_hu == pytest.approx(-40, abs=0.01) and lesion.place == "lower third, right half"


def test_without_spacing_sizes_are_unknown_and_small_goes_by_pixels():
    truth = labelled((4, 20, 20, 9), (6, 20, 20, 10))
    lesions = explain(truth, truth, spacing=None)
    assert lesions.diameter_mm.isna().all()
    assert lesions.reason.tolist() == ["small", "none of these"]


def test_nothing_to_describe_gives_an_empty_table():
    lesions = explain(labelled(), labelled())
    assert len(lesions) == 0 and counted_reasons(lesions).lesions.tolist() == [0, 0, 0]


def test_traits_are_counted_by_kind():
    lesions = pd.DataFrame({
        "kind": ["missed", "missed", "found", "false positive"],
        "reason": ["small, faint", "small", "none of these", "outside the liver"],
    })
    counted = counted_reasons(lesions).set_index("kind")
    assert counted.loc["missed"].tolist() == [2, 2, 1, 0, 0]
    assert counted.loc["false positive"].tolist() == [1, 0, 0, 0, 1]
