"""The card is complete and in its own words, and rows are refused for the right reasons."""

import pandas as pd
import pytest

from lits_helpers import comparability
from lits_helpers.comparability import NOT_STATED, comparable_rows, published

SERVER = {"dataset": "LiTS test", "split": "challenge", "metric": "Dice", "unit": "patient", "both_empty": "1"}
OWN = {"dataset": "LiTS training", "split": "by patient", "metric": "Dice", "unit": "patient"}


def row_of(rows, method):
    [row] = rows[rows.method == method].to_dict("records")
    return row


def test_the_card_has_at_least_ten_rows_each_with_reference_source_and_value():
    card = published()
    assert len(card) >= 10
    assert not card.isna().any(axis=None)
    assert card.value.between(0, 1).all()
    words = card.select_dtypes(exclude="number")
    assert (words.map(str.strip) == words).all(axis=None) and (words != "").all(axis=None)


@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("dataset", comparability.DATASETS), ("split", comparability.SPLITS), ("unit", comparability.UNITS),
        ("metric", [*comparability.METRICS, "recall (overlap not stated)"]), ("target", comparability.TARGETS),
        ("tested_on", comparability.TESTED_ON), ("both_empty", comparability.BOTH_EMPTY),
    ],
)
def test_the_card_uses_the_words_that_it_defines(field, known):
    assert set(published()[field]) <= {*known, NOT_STATED}


def test_a_number_stands_once_in_the_card():
    assert not published().duplicated(["method", "reference", "target", "metric", "unit"]).any()


@pytest.mark.parametrize(
    ("metric", "value"), [("Dice", 0.85), ("IoU", 0.74), ("slice accuracy", 173 / 200)]
)
def test_the_reports_numbers_are_there_with_what_they_are_of(metric, value):
    report = published().query("authors == 'student report'").set_index("metric").loc[metric]
    assert report.value == pytest.approx(value)
    assert (report.split, report.tested_on, report.dataset) == ("by slice", "tumour slices", "LiTS training")


def test_the_reports_dice_and_iou_fit_one_pooled_score():
    """Dice = 2 IoU / (1 + IoU) holds for a pooled score, and not for means."""
    report = published().query("authors == 'student report'").set_index("metric")
    assert 2 * report.value.IoU / (1 + report.value.IoU) == pytest.approx(report.value.Dice, abs=0.005)
    assert report.unit.IoU == report.unit.Dice == "voxel"


def test_a_score_of_the_server_stands_beside_the_challenge_and_not_beside_its_livers_or_pooled_scores():
    rows = comparable_rows(**SERVER)
    assert set(rows[rows.comparable].reference) == {"10.1016/j.media.2022.102680", "10.1109/ISBI45749.2020.9098656"}
    assert (rows[rows.comparable].metric == "Dice").all() and (rows[rows.comparable].target == "tumour").all()
    pooled = rows.query("reference == 'arXiv:1802.02182' and target == 'tumour' and metric == 'Dice'").iloc[0]
    assert pooled.reason == "unit: voxel, not patient"
    assert row_of(rows, "best of liver segmentation, all events")["reason"] == "target: liver, not tumour"


def test_a_score_by_patients_of_the_training_volumes_stands_beside_neither_report_nor_server():
    rows = comparable_rows(**OWN)
    report = rows.query("authors == 'student report' and metric == 'Dice'").iloc[0]
    assert not report.comparable
    assert report.reason == (
        "split: by slice, not by patient (leaks); unit: voxel, not patient; tested on: tumour slices, not all slices"
    )
    server = row_of(rows, "Han, 2.5D residual U-Net, ISBI 2017")
    assert server["reason"] == (
        "data: LiTS test, not LiTS training; split: challenge, not by patient; both-empty cases: 1, not left out"
    )


def test_the_report_reproduced_stands_beside_the_report_alone():
    rows = comparable_rows(
        dataset="LiTS training", split="by slice", metric="Dice", unit="voxel", tested_on="tumour slices"
    )
    assert rows[rows.comparable].authors.tolist() == ["student report"]
    assert rows.comparable.tolist()[0] is True and "intervals" in rows.reason[0]


def test_a_split_by_slices_is_said_to_leak_on_your_side_too():
    row = comparable_rows(**(OWN | {"split": "by slice"}), card=one_row()).iloc[0]
    assert row.reason == "split: by patient, not by slice (leaks)"


def test_the_phantom_compares_with_nothing():
    assert not comparable_rows(**{**OWN, "dataset": "phantom"}).comparable.any()


def one_row(**differing):
    return pd.DataFrame([{**OWN, "target": "tumour", "tested_on": "all slices", "both_empty": "left out", **differing}])


@pytest.mark.parametrize(
    ("differing", "reason"),
    [
        ({"dataset": "LiTS test"}, "data: LiTS test, not LiTS training"),
        ({"split": "by slice"}, "split: by slice, not by patient (leaks)"),
        ({"metric": "IoU"}, "metric: IoU, not Dice"),
        ({"unit": "slice"}, "unit: slice, not patient"),
        ({"target": "liver"}, "target: liver, not tumour"),
        ({"tested_on": "tumour slices"}, "tested on: tumour slices, not all slices"),
        ({"both_empty": "1"}, "both-empty cases: 1, not left out"),
        ({"unit": NOT_STATED, "split": NOT_STATED}, "not stated in what was read: split, unit"),
        ({"metric": "IoU", "unit": NOT_STATED}, "metric: IoU, not Dice; not stated in what was read: unit"),
    ],
)
def test_every_difference_and_every_gap_refuses_a_row_and_is_named(differing, reason):
    row = comparable_rows(**OWN, card=one_row(**differing)).iloc[0]
    assert not row.comparable and row.reason == reason


@pytest.mark.parametrize(("theirs", "yours"), [("left out", "left out"), ("does not occur", "1"), ("1", "does not occur")])
def test_the_rule_for_empty_masks_matters_only_where_they_occur(theirs, yours):
    assert comparable_rows(**OWN, both_empty=yours, card=one_row(both_empty=theirs)).comparable.all()


def test_comparable_rows_come_first_and_the_card_is_not_changed():
    card = pd.concat([one_row(metric="IoU"), one_row()], ignore_index=True)
    rows = comparable_rows(**OWN, card=card)
    assert rows.comparable.tolist() == [True, False] and rows.metric.tolist() == ["Dice", "IoU"]
    assert "comparable" not in card


@pytest.mark.parametrize(
    "wrong", [{"dataset": "LiTS"}, {"split": "random"}, {"metric": "dice"}, {"unit": "case"}, {"target": "tumor"},
              {"tested_on": "tumours"}, {"both_empty": "NaN"}],
)
def test_an_unknown_word_is_refused_with_those_that_are_known(wrong):
    [(field, word)] = wrong.items()
    with pytest.raises(ValueError, match=f"{field} is one of .*got '{word}'"):
        comparable_rows(**(OWN | wrong))


def test_a_recall_whose_overlap_is_not_known_compares_with_no_recall():
    for metric in ("recall at overlap > 0", "recall at overlap > 0.5"):
        rows = comparable_rows(**(SERVER | {"metric": metric, "unit": "lesion"}))
        assert not rows.comparable.any()
