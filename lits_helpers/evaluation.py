"""A run's predictions scored in every way that this package knows, and written up as one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .cases import burden_errors, patients_of, score_cases
from .comparability import comparable_rows
from .data_plots import comparability_card
from .drawing import slice_marks
from .failures import counted_reasons, explained
from .files import fingerprint, shown
from .html_report import Section, write_html
from .inference import enlarged, evaluate_slices, volume_cases
from .lesions import match_lesions, recall_by_size
from .masks import THRESHOLD, TUMOUR, read_labels
from .pictures import read_image
from .plots import dice_distribution, predictions
from .result_plots import bland_altman
from .scoring import patient_scores, summary
from .settings import Settings
from .uncertainty import describe

GALLERY = 4  # lesions of each kind in the gallery

_CASE_COLUMNS = {
    "volume": "volume", "tumour_dice": "Dice", "tumour_voe": "VOE", "tumour_rvd": "RVD", "tumour_assd_mm": "ASSD (mm)",
    "tumour_hd95_mm": "HD95 (mm)", "tumour_nsd": "surface Dice", "lesions": "lesions", "lesions_found_any": "found",
    "predicted_lesions": "predicted", "predicted_right_any": "right", "false_positive_ml": "false (ml)",
    "clean_share": "clean slices",
}  # fmt: skip
_LESION_COLUMNS = ["kind", "volume", "slice", "diameter_mm", "contrast_hu", "place", "reason"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one set of predictions is worth.

    Attributes
    ----------
    slices : DataFrame
        Of :func:`lits_helpers.scoring.slice_scores`.
    cases : DataFrame
        Of :func:`lits_helpers.cases.score_cases`; and ``patient`` where the slice table has it.
    lesions : DataFrame
        Of :func:`lits_helpers.failures.explained`, with ``volume``; ``slice`` as in the slice table.
    threshold : float
    """

    slices: pd.DataFrame
    cases: pd.DataFrame
    lesions: pd.DataFrame
    threshold: float


def evaluate(table: pd.DataFrame, probabilities: np.ndarray, *, threshold: float = THRESHOLD) -> Evaluation:
    """Score predictions by slice, by case in 3D, and lesion by lesion, at native resolution.

    Parameters
    ----------
    table : DataFrame
        Slice table of whole volumes, those that were predicted.
    probabilities : float32 array (slices, size, size)
        In the table's order.
    threshold : float
        Chosen on validation patients, never on those evaluated here.
    """
    lesions: list[pd.DataFrame] = []

    def cases() -> Iterator[tuple]:
        for volume, truth, predicted, spacing in volume_cases(table, probabilities, threshold=threshold):
            rows = table[table.volume == volume].sort_values("slice")
            green = np.stack([read_image(path)[..., 1] for path in rows.image_path])
            match = match_lesions(truth == TUMOUR, predicted == TUMOUR, spacing)
            described = explained(match, truth, green)
            number = rows.slice.to_numpy()[described.slice.to_numpy(int)]  # slices may be missing in between
            lesions.append(described.assign(volume=volume, slice=number))
            yield volume, truth, predicted, spacing

    scored = score_cases(cases(), predicts_liver=False)
    if "patient" in table:
        scored = scored.assign(patient=scored.volume.map(table.groupby("volume").patient.first()))
    slices = evaluate_slices(table, probabilities, threshold=threshold)
    some = [rows for rows in lesions if len(rows)] or lesions[:1]
    return Evaluation(slices, scored, pd.concat(some, ignore_index=True), threshold)


def case_summary(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean, median and quartiles of each score over cases, with patient-level 95 % intervals.

    Parameters
    ----------
    cases : DataFrame
        Of :func:`lits_helpers.cases.score_cases`.

    Returns
    -------
    DataFrame
        One row a score, its name saying unit and rule for empty masks.
    """
    patients = patients_of(cases)
    rows = [
        {"score": words, **vars(describe(cases[column], patients=patients))}
        for column, words in {
            "tumour_dice": "tumour Dice per case (both empty left out)",
            "tumour_nsd": "tumour surface Dice per case at 2 mm (one side empty: left out)",
            "tumour_assd_mm": "tumour ASSD per case, mm (one side empty: left out)",
            "tumour_hd95_mm": "tumour HD95 per case, mm (one side empty: left out)",
            "recall_any": "lesion recall per case, one shared voxel (cases with lesions)",
            "precision_any": "lesion precision per case, one shared voxel (cases with predictions)",
            "false_positive_ml": "false-positive volume of tumour-free cases, ml",
            "clean_share": "share of tumour-free slices without prediction",
        }.items()
    ]
    return pd.DataFrame(rows)


def pooled_summary(cases: pd.DataFrame) -> pd.DataFrame:
    """Scores of all cases together, with patient-level 95 % intervals.

    Parameters
    ----------
    cases : DataFrame
        Of :func:`lits_helpers.cases.score_cases`.

    Returns
    -------
    DataFrame
        ``score``, ``value``, ``low``, ``high``, ``patients``: sums over cases, then divided, so that
        large tumours rule the Dice, and patients with many lesions the others.
    """
    patients = patients_of(cases)
    parts = {
        "tumour Dice, voxels pooled": (
            2 * cases.tumour_shared_voxels, cases.tumour_truth_voxels + cases.tumour_predicted_voxels
        )
    }
    for name, words in (("any", "one shared voxel"), ("half", "IoU over 0.5")):
        parts[f"lesion recall, {words}"] = (cases[f"lesions_found_{name}"], cases.lesions)
        parts[f"lesion precision, {words}"] = (cases[f"predicted_right_{name}"], cases.predicted_lesions)
    found = {score: describe(np.stack(sums, axis=1), patients=patients) for score, sums in parts.items()}
    return pd.DataFrame(
        [
            {"score": score, "value": one.value, "low": one.low, "high": one.high, "patients": one.patients}
            for score, one in found.items()
        ]
    )


def write_report(
    path: Path,
    settings: Settings,
    table: pd.DataFrame,
    probabilities: np.ndarray,
    found: Evaluation,
    *,
    tested: str,
    split: str = "by patient",
    times: Mapping[str, str] | None = None,
) -> Path:
    """Write an evaluation as one self-contained HTML page.

    Parameters
    ----------
    path : Path
        Of the ``.html`` file.
    settings : Settings
        Of the run; printed on the page.
    table, probabilities
        As given to :func:`evaluate`.
    found : Evaluation
    tested : str
        What was tested, for the title: "test slices of the patient split".
    split : str
        How patients were kept apart, for the card of published numbers: a key of
        :data:`lits_helpers.comparability.SPLITS`.
    times : mapping, optional
        How long what took, in words: "training", "prediction".

    Returns
    -------
    Path
        ``path``.
    """
    errors, patients = burden_errors(found.cases), patients_of(found.cases)
    bias = describe(found.cases.burden_predicted - found.cases.burden_truth, patients=patients)
    dice = describe(found.cases.tumour_dice, patients=patients)
    card = comparable_rows(
        dataset="phantom" if settings.is_synthetic else "LiTS training",
        split=split, metric="Dice", unit="patient",
    )
    sections = [
        Section(
            "Scores", "Each row says what was averaged and what empty masks count as. Intervals are bootstrapped "
            "over patients, 95 %.",
            [
                summary(found.slices).round(3),
                case_summary(found.cases).rename(columns={"lower_quartile": "Q1", "upper_quartile": "Q3"}).round(3),
            ],
            [(dice_distribution(found.slices, patient_scores(found.slices)), "Distribution of Dice over slices and patients.")],
        ),
        Section(
            "Cases", "The tumour of each case, in 3D at native resolution. Surface Dice is that at 2 mm; lesions are found, and "
            "predictions right, at one shared voxel; false millilitres are those of tumour-free cases. Distances are "
            "left out where the spacing is not known or one side is empty.",
            [found.cases[list(_CASE_COLUMNS)].rename(columns=_CASE_COLUMNS).round(3)],
        ),
        Section(
            "Lesions", "A lesion counts as found if one of its voxels is predicted. Below: all cases together, recall "
            "by size, and what the lesions have in common.",
            [
                pooled_summary(found.cases).round(3),
                recall_by_size(_of_truth(found.lesions)).round(3),
                counted_reasons(found.lesions),
            ],
        ),
        Section(
            "Where it fails", "The largest missed lesions and the largest false ones, then some that were found. "
            "The reason names size, contrast and place; it explains nothing by itself.",
            [_gallery_rows(found.lesions)[_LESION_COLUMNS].round(1)],
            _gallery(table, probabilities, found),
        ),
        Section(
            "Tumour burden", f"Tumour volume over liver volume; the liver is {errors['liver']}. RMSE {errors['rmse']:.4f}, "
            f"largest error {errors['largest_absolute_error']:.4f}, bias {bias.value:+.4f} (95 % interval {bias.low:+.4f} to {bias.high:+.4f}), {errors['cases']} cases.",
            figures=[(bland_altman(found.cases), "Predicted less true burden, against the mean of both.")],
        ),
        Section(
            "What this may be set beside", "Published numbers were obtained on other data, by other splits and metrics. "
            "Each row says what stands against a comparison.",
            [card[["method", "value", "metric", "unit", "dataset", "comparable", "reason"]]],
            [(comparability_card(card, dice.value, low=dice.low, high=dice.high), "Published numbers and this run's Dice per case.")],
        ),
    ]
    keys = table[["volume", "slice"]].astype(str).agg("-".join, axis=1)
    facts = {
        "data": settings.data_label, "tested": f"{tested}: {len(table)} slices of {table.volume.nunique()} volumes",
        "threshold": found.threshold, "tested slices, hash": fingerprint([], *keys), **(times or {}),
        **{field.name: _plain(getattr(settings, field.name)) for field in fields(settings)},
    }
    title = f"Liver tumour segmentation: {tested}" + (" (synthetic phantom)" if settings.is_synthetic else "")
    try:
        return write_html(path, title, facts, sections)
    finally:
        for section in sections:
            for figure, _ in section.figures:
                plt.close(figure)


def _plain(value: object) -> object:
    return shown(value) if isinstance(value, Path) else value


def _of_truth(lesions: pd.DataFrame) -> pd.DataFrame:
    """The lesions of the truth, with what recall wants to know."""
    rows = lesions[lesions.kind != "false positive"]
    return rows.assign(touched=rows.kind == "found")


def _gallery_rows(lesions: pd.DataFrame) -> pd.DataFrame:
    """The largest lesions of each kind, missed ones first."""
    kinds = ("missed", "false positive", "found")
    largest = lesions.sort_values("voxels", ascending=False, kind="stable")
    parts = [largest[largest.kind == kind].head(GALLERY) for kind in kinds]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _gallery(table: pd.DataFrame, probabilities: np.ndarray, found: Evaluation) -> list[tuple]:
    """Pictures of these, in one figure for each kind."""
    places = {key: place for place, key in enumerate(zip(table.volume, table.slice, strict=True))}
    figures = []
    for kind, lesions in _gallery_rows(found.lesions).groupby("kind", sort=False):
        rows = table.iloc[[places[key] for key in zip(lesions.volume, lesions.slice, strict=True)]]
        cases = []
        for lesion, row in zip(lesions.itertuples(), rows.itertuples(), strict=True):
            truth = read_labels(row.mask_path) == TUMOUR
            probability = enlarged(probabilities[places[lesion.volume, lesion.slice]], truth.shape)
            title = f"volume {lesion.volume}, slice {lesion.slice}\n{lesion.reason}"
            cases.append((read_image(row.image_path), truth, probability, title))
        figure = predictions(cases, threshold=found.threshold, marks=slice_marks(rows))
        figures.append((figure, f"{kind.capitalize()} lesions, the largest first."))
    return figures
