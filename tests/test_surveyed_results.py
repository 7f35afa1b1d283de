"""Scores of systems whose predictions are known, and the page that shows them."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lits_helpers import surveyed_results
from lits_helpers.masks import read_labels
from lits_helpers.surveyed_results import evaluate_system, filtering_effect, page, side_by_side
from lits_helpers.surveyed_systems import System


class Knowing:
    """Predicts what the masks say, if they are told it, but finds no tumour in the volumes it misses."""

    def __init__(self, table, *, misses=()):
        ordered = table.sort_values(["volume", "slice"])
        self.volumes = [
            (volume, np.stack([read_labels(path) for path in rows.mask_path]))
            for volume, rows in ordered.groupby("volume")
        ]
        self.misses = misses

    def predict(self, pictures, numbers):
        volume, labels = self.volumes.pop(0)
        self.volumes.append((volume, labels))
        tumour = (labels == 2) & (volume not in self.misses)
        return tumour.astype(np.float16), labels > 0


@pytest.fixture
def systems(table):
    return {
        "right": System(Knowing(table), (), 0.5, 12.0),
        "half": System(Knowing(table, misses=(0,)), (), 0.5, 3.0, draws_liver=False),
    }


def test_right_labels_get_full_scores_and_missed_lesions_are_counted(table, systems):
    results = {name: evaluate_system(system, table) for name, system in systems.items()}
    found = side_by_side(systems, results)
    right, half = found.loc["right"], found.loc["half"]
    # Three of the four volumes have one lesion each; volume 0 is missed.
    assert (right.cases, right.tumour_dice_per_case, right.tumour_dice_pooled) == (3, 1, 1)
    assert (right.lesion_recall, right.lesion_precision, right.burden_rmse) == (1, 1, 0)
    assert half.tumour_dice_per_case == pytest.approx(2 / 3) and half.low <= 2 / 3 <= half.high
    assert half.lesion_recall == pytest.approx(2 / 3) and half.lesion_precision == 1
    assert np.isnan(half.burden_rmse)
    assert found.training_seconds.tolist() == [12, 3] and (found.seconds_per_volume > 0).all()


def test_a_missed_tumour_is_an_error_of_the_burden(table):
    system = System(Knowing(table, misses=(0,)), (), 0.5, 0.0)
    cases = evaluate_system(system, table).cases
    burdens = cases.tumour_truth_voxels / cases.liver_truth_voxels
    expected = np.sqrt((burdens[0] ** 2) / 4)  # of one of four volumes
    assert side_by_side({"": system}, {"": SimpleNamespace(cases=cases)}).burden_rmse.item() == pytest.approx(expected)


def test_labels_are_kept_of_the_slices_that_were_asked_for(table, systems):
    shown = table[(table.volume == 1) & (table.slice > 1)]
    labels = evaluate_system(systems["right"], table, shown=shown).labels
    assert sorted(labels) == sorted(shown.index)
    assert all((labels[row.Index] == read_labels(row.mask_path)).all() for row in shown.itertuples())
    assert evaluate_system(systems["right"], table).labels == {}


def test_patients_are_taken_from_the_table(table, systems):
    cases = evaluate_system(systems["right"], table.assign(patient=table.volume // 2)).cases
    assert cases.patient.tolist() == [0, 0, 1, 1]


def test_a_page_has_a_row_a_slice_and_a_column_a_system(table, systems):
    shown = table[(table.slice == 2) & (table.volume < 2)]
    results = {name: evaluate_system(system, table, shown=shown) for name, system in systems.items()}
    figure = page(shown, results)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels[:3]] == ["truth", "right", "half"] and len(panels) == 6
    words = [axes.get_xlabel() for axes in panels]
    assert words == ["", "Dice 1.00", "Dice 0.00", "", "Dice 1.00", "Dice 1.00"]
    plt.close(figure)


def test_what_the_filter_did_is_told_before_and_after(table):
    class Filtering:
        """A cascade that knows the masks; what it found in volume 0 is taken out again."""

        def __init__(self):
            self.cascade = Knowing(table)

        def filtered(self, images, probabilities, liver):
            volume = self.cascade.volumes[-1][0]
            return probabilities * (volume != 0)

    effect = filtering_effect(System(Filtering(), (), 0.3, 0.0), table).set_index("step")
    assert effect.lesions_found.to_dict() == {"before": 3, "after": 2}
    assert effect.recall.tolist() == pytest.approx([1, 2 / 3]) and effect.precision.tolist() == [1, 1]


def test_the_time_of_reading_files_is_not_that_of_predicting(table, systems, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(surveyed_results.time, "perf_counter", lambda: next(clock))
    assert evaluate_system(systems["right"], table).cases.seconds.tolist() == [1, 1, 1, 1]
