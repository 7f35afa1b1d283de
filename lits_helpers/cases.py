"""Scores of whole cases: a CT volume's true and predicted labels, in 3D and mm.

One case gives one row (:func:`case_scores`), cases give a table (:func:`score_cases`), and what is
pooled over cases comes from that table (:func:`pooled`, :func:`burden_errors`). The liver is label
1 and more, so tumours belong to it; the tumour is label 2.

Two conventions. ``"standard"``: what is undefined is NaN, to be left out and counted. Both masks
empty have no Dice; a prediction on an empty truth has Dice 0, and its volume is given beside it;
distances are those of all tumour, and NaN where one mask is empty. ``"lits2017"`` follows the
definitions of the LiTS challenge: see :func:`case_scores`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .distances import SurfaceDistances, bounding_box, check_spacing, surface_distances
from .files import DataError
from .lesions import LesionCounts, LesionMatch, match_lesions
from .masks import LIVER, TUMOUR
from .scoring import Overlap, overlap

# Connectivity of lesions and neighbours of a surface voxel. The challenge's code labels lesions
# with SciPy's default, faces, and takes surfaces by faces and edges (helpers/surface.py).
CONVENTIONS = {"standard": (26, 6), "lits2017": (6, 18)}
# No tolerance for liver tumours is agreed on: this is about three pixels, or one thin slice.
TOLERANCE_MM = 2.0
OVERLAPS = {"any": 0.0, "half": 0.5}  # suffix of a column, and the overlap to be exceeded
MM3_PER_ML = 1000
Case = tuple[int, np.ndarray, np.ndarray, Sequence[float] | None]


def case_scores(
    truth: np.ndarray,
    predicted: np.ndarray,
    spacing: Sequence[float] | None,
    *,
    tolerance_mm: float = TOLERANCE_MM,
    convention: str = "standard",
    predicts_liver: bool | None = None,
) -> dict[str, object]:
    """Score one case.

    Parameters
    ----------
    truth, predicted : int array (slices, rows, columns)
        Labels 0 background, 1 liver, 2 tumour, at native resolution, all slices.
    spacing : (slice, row, column), or None
        In mm; None where it is unknown (slice files; an identity affine): then everything in mm or
        ml is NaN, normalised surface Dice too, and ``spacing_known`` False.
    tolerance_mm : float
        Of the normalised surface Dice.
    convention : {"standard", "lits2017"}
        See below.
    predicts_liver : bool, optional
        Whether the predictor draws the liver, or tumour alone. By default it is taken to where
        label 1 occurs in this prediction. Say True for a network that does: else a case in which
        it finds no liver is left out, not counted as failed.

    Returns
    -------
    dict
        ``spacing_known``; ``convention``; ``tolerance_mm``; then for ``liver`` and ``tumour``:

        - ``..._truth_voxels``, ``..._predicted_voxels``, ``..._shared_voxels``
        - ``..._dice``, ``..._iou``, in [0, 1]; ``..._voe``, ``1 - IoU``
        - ``..._rvd``, ``(predicted - truth) / truth``: above 0 where too much is predicted
        - ``..._assd_mm``, ``..._rmsd_mm``, ``..._msd_mm``, ``..._hd95_mm``, ``..._nsd``:
          :class:`lits_helpers.distances.SurfaceDistances`

        for lesions, at ``any`` overlap and at IoU over ``half``
        (:func:`lits_helpers.lesions.match_lesions`):

        - ``lesions``, ``predicted_lesions``; ``lesions_found_...``, ``predicted_right_...``
        - ``recall_...``, ``precision_...``, ``f1_...``; NaN without lesions, without predictions,
          without both

        and for the whole case:

        - ``tumour_truth_mm3``, ``tumour_predicted_mm3``, ``liver_truth_mm3``
        - ``burden_truth``, ``burden_predicted``, tumour volume by liver volume, and
          ``burden_liver``, whose liver the prediction was divided by: ``"predicted"``, or
          ``"truth (oracle)"`` where none is predicted. With the true liver, which no patient comes
          with, errors are smaller than they would be; over 1 is possible, outside the liver
        - ``false_positive_ml``, predicted tumour of a case without tumour; NaN with tumour
        - ``tumour_free_slices``, ``clean_slices``, ``clean_share``: slices without tumour in the
          truth, those of them in which none is predicted, and their share (NaN without any)

        Where ``predicts_liver`` is False the scores of the liver are NaN.

    Raises
    ------
    DataError
        If the labels or the spacing cannot be used; the message says why.
    ValueError
        If there is no such convention.

    Notes
    -----
    ``convention="lits2017"``, the challenge of Bilic et al., Medical Image Analysis 84 (2023) 102680,
    arXiv:1901.04056, by the code published with it (PatrickChrist/lits-challenge-scoring):

    - lesions are connected by faces, and surfaces are by faces and edges (18 neighbours);
    - Dice and IoU are 1 where both masks are empty;
    - VOE, RVD and distances of the tumour are means over detected lesions, which are the groups of
      IoU over 0.5, ``detected_groups`` in number: NaN where there are none (9001 in the code);
    - a prediction without label 1 has no liver, and liver Dice 0.

    Where the code departs from its definitions, ours are right: its RVD is
    ``(truth - predicted) / predicted``, its largest error of the tumour burden keeps the sign, and
    its lesions are miscounted (:func:`lits_helpers.lesions.match_lesions`). HD95 and NSD are no
    scores of the challenge.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention is one of {list(CONVENTIONS)}, got {convention!r}")
    for labels, name in ((truth, "truth"), (predicted, "predicted")):
        _check_labels(labels, name)
    if truth.shape != predicted.shape:
        raise DataError(
            f"truth has shape {truth.shape}, predicted {predicted.shape}: bring the prediction back "
            "to the size of the truth first"
        )
    if spacing is not None:
        spacing = check_spacing(spacing, 3)
    connectivity, neighbours = CONVENTIONS[convention]
    lits = convention == "lits2017"
    slices = len(truth)
    box = bounding_box(truth, predicted)
    truth, predicted = truth[box], predicted[box]
    if predicts_liver is None:
        predicts_liver = bool((predicted == LIVER).any())
    options = {
        "spacing": spacing, "tolerance_mm": tolerance_mm, "neighbours": neighbours,
        "both_empty": 1.0 if lits else np.nan,
    }

    # Without label 1 in it a prediction has no liver: its tumours are none.
    liver = truth >= LIVER, (predicted >= LIVER) & predicts_liver
    liver_scores = _mask_scores(*liver, **options, skip=not predicts_liver and not lits)
    tumour = truth == TUMOUR, predicted == TUMOUR
    tumour_scores = _mask_scores(*tumour, **options, distances=not lits)
    match = match_lesions(*tumour, spacing, connectivity=connectivity)
    found = {}
    if lits:
        over_groups, number = _detected_scores(match, **options)
        tumour_scores |= over_groups
        found = {"detected_groups": number}

    return {
        "spacing_known": spacing is not None,
        "convention": convention,
        "tolerance_mm": tolerance_mm,
        **{f"liver_{name}": value for name, value in liver_scores.items()},
        **{f"tumour_{name}": value for name, value in tumour_scores.items()},
        **found,
        **_lesion_scores(match),
        **_burden(liver_scores, tumour_scores, spacing, predicts_liver),
        **_tumour_free(*tumour, slices, spacing),
    }


def _check_labels(labels: np.ndarray, name: str) -> None:
    if labels.ndim != 3 or 0 in labels.shape:
        raise DataError(f"{name} must be a volume (slices, rows, columns), got shape {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{name} must hold whole-number labels, got {labels.dtype}: a tumour mask becomes labels by "
            "mask.astype('uint8') * 2, probabilities by a threshold first"
        )
    if labels.min() < 0 or labels.max() > TUMOUR:
        raise DataError(
            f"{name} holds labels {labels.min()} to {labels.max()}, expected 0, 1 and 2: decode it first"
        )


def _distance_scores(distances: SurfaceDistances | None, tolerance_mm: float) -> dict[str, float]:
    """The five scores of a surface; all NaN for None."""
    if distances is None:
        return dict.fromkeys(("assd_mm", "rmsd_mm", "msd_mm", "hd95_mm", "nsd"), np.nan)
    return {
        "assd_mm": distances.assd, "rmsd_mm": distances.rmsd, "msd_mm": distances.msd,
        "hd95_mm": distances.hd95, "nsd": distances.nsd(tolerance_mm),
    }


def _relative_difference(counts: Overlap) -> float:
    if not counts.truth_pixels:
        return float("nan")
    return (counts.predicted_pixels - counts.truth_pixels) / counts.truth_pixels


def _mask_scores(
    truth: np.ndarray, predicted: np.ndarray, *, spacing: tuple[float, ...] | None, tolerance_mm: float,
    neighbours: int, both_empty: float, skip: bool = False, distances: bool = True,
) -> dict[str, float]:
    """Counts, overlap and distances of two masks.

    ``both_empty`` is Dice and IoU where both masks are; ``skip`` leaves all but the counts NaN.
    """
    counts = overlap(truth, predicted)
    dice, iou = counts.dice, counts.iou
    if not counts.truth_pixels and not counts.predicted_pixels:
        dice = iou = both_empty
    rvd, measured = _relative_difference(counts), None
    if skip:
        dice = iou = rvd = np.nan
    elif distances and spacing is not None:
        measured = surface_distances(truth, predicted, spacing, neighbours=neighbours)
    return {
        "truth_voxels": counts.truth_pixels, "predicted_voxels": counts.predicted_pixels,
        "shared_voxels": counts.intersection,
        "dice": dice, "iou": iou, "voe": 1 - iou, "rvd": rvd, **_distance_scores(measured, tolerance_mm),
    }


def _detected_scores(match: LesionMatch, **options: object) -> tuple[dict[str, float], int]:
    """VOE, RVD and distances as means over the groups of IoU over 0.5, and the number of groups."""
    rows = [_mask_scores(*masks, **options) for masks in match.groups(OVERLAPS["half"])]
    names = ("voe", "rvd", *_distance_scores(None, 0))
    return {name: float(np.mean([row[name] for row in rows])) if rows else np.nan for name in names}, len(rows)


def _lesion_scores(match: LesionMatch) -> dict[str, float]:
    scores: dict[str, float] = {"lesions": len(match.truth), "predicted_lesions": len(match.predicted)}
    for name, exceeded in OVERLAPS.items():
        counts = match.counts(exceeded)
        scores |= {f"lesions_found_{name}": counts.found, f"predicted_right_{name}": counts.right}
        scores |= _rates(counts, name)
    return scores


def _rates(counts: LesionCounts, name: str) -> dict[str, float]:
    return {f"recall_{name}": counts.recall, f"precision_{name}": counts.precision, f"f1_{name}": counts.f1}


def _burden(
    liver: dict[str, float], tumour: dict[str, float], spacing: tuple[float, ...] | None, predicts_liver: bool
) -> dict[str, object]:
    voxel = np.nan if spacing is None else float(np.prod(spacing))
    divisor = liver["predicted_voxels" if predicts_liver else "truth_voxels"]
    return {
        "tumour_truth_mm3": tumour["truth_voxels"] * voxel,
        "tumour_predicted_mm3": tumour["predicted_voxels"] * voxel,
        "liver_truth_mm3": liver["truth_voxels"] * voxel,
        "burden_truth": tumour["truth_voxels"] / liver["truth_voxels"] if liver["truth_voxels"] else np.nan,
        "burden_predicted": tumour["predicted_voxels"] / divisor if divisor else np.nan,
        "burden_liver": "predicted" if predicts_liver else "truth (oracle)",
    }


def _tumour_free(
    truth: np.ndarray, predicted: np.ndarray, slices: int, spacing: tuple[float, ...] | None
) -> dict[str, float]:
    """What is predicted where there is no tumour; ``slices`` of the whole case, not of its box."""
    in_truth, in_prediction = truth.any(axis=(1, 2)), predicted.any(axis=(1, 2))
    free = slices - int(in_truth.sum())
    clean = slices - int((in_truth | in_prediction).sum())
    millilitres = np.nan if spacing is None else np.prod(spacing) / MM3_PER_ML
    return {
        "false_positive_ml": np.nan if in_truth.any() else float(np.count_nonzero(predicted) * millilitres),
        "tumour_free_slices": free,
        "clean_slices": clean,
        "clean_share": clean / free if free else np.nan,
    }


def score_cases(
    cases: Iterable[Case],
    *,
    tolerance_mm: float = TOLERANCE_MM,
    convention: str = "standard",
    predicts_liver: bool | None = None,
) -> pd.DataFrame:
    """Score cases one after the other.

    Parameters
    ----------
    cases : iterable of (volume number, truth, predicted, spacing)
        As in :func:`case_scores`; a generator keeps one case in memory.
    tolerance_mm, convention, predicts_liver
        Of :func:`case_scores`.

    Returns
    -------
    DataFrame, one row a case, in the order given
        ``volume``, and what :func:`case_scores` gives.

    Raises
    ------
    DataError
        If there are no cases, one comes twice, or one cannot be scored; the message names it.

    Warns
    -----
    UserWarning
        If some predictions show a liver, others do not, and ``predicts_liver`` is not said: the
        scores of the liver leave out the latter.
    """
    rows: list[dict] = []
    for volume, truth, predicted, spacing in _named(cases, "scoring"):
        try:
            scores = case_scores(
                truth, predicted, spacing,
                tolerance_mm=tolerance_mm, convention=convention, predicts_liver=predicts_liver,
            )
        except DataError as error:
            raise DataError(f"volume {volume}: {error}") from error
        rows.append({"volume": volume, **scores})
    table = pd.DataFrame(rows)
    if table.burden_liver.nunique() > 1:
        without = table.volume[table.burden_liver != "predicted"].tolist()
        warnings.warn(
            f"no liver is predicted in volumes {without}, but in the others: say predicts_liver=True if "
            "the network draws the liver, so that these count as failed and are not left out",
            stacklevel=2,
        )
    return table


def lesion_rows(cases: Iterable[Case], *, connectivity: int = 26) -> pd.DataFrame:
    """The lesions of all cases, those of the truth and the predicted, one row each.

    For :func:`lits_helpers.lesions.recall_by_size` (of the rows whose ``side`` is ``"truth"``), and
    for looking at missed and false ones.

    Returns
    -------
    DataFrame
        ``volume``; ``side``, ``"truth"`` or ``"predicted"``; the columns of
        :attr:`lits_helpers.lesions.LesionMatch.truth`.
    """
    tables = []
    for volume, truth, predicted, spacing in _named(cases, "matching lesions"):
        match = match_lesions(truth == TUMOUR, predicted == TUMOUR, spacing, connectivity=connectivity)
        for side, table in (("truth", match.truth), ("predicted", match.predicted)):
            table.insert(0, "volume", volume)
            table.insert(1, "side", side)
            tables.append(table)
    filled = [table for table in tables if len(table)]
    return pd.concat(filled or tables[:1], ignore_index=True)


def _named(cases: Iterable[Case], doing: str) -> Iterator[Case]:
    """The cases with a progress bar, if there are some and none comes twice."""
    seen = set()
    for case in tqdm(cases, desc=doing, unit="case", delay=2):
        if case[0] in seen:
            raise DataError(f"volume {case[0]} comes more than once and would count more than once")
        seen.add(case[0])
        yield case
    if not seen:
        raise DataError("there are no cases to score: is this part of the split empty?")


def patients_of(table: pd.DataFrame) -> pd.Series:
    """Whose each row of :func:`score_cases` is: its ``patient``, or its volume where no table named one."""
    return table.get("patient", table.volume)


def pooled(table: pd.DataFrame) -> dict[str, float]:
    """Add up voxels and lesions of all cases, then divide: the challenge's global scores.

    Parameters
    ----------
    table : DataFrame
        From :func:`score_cases`.

    Returns
    -------
    dict
        ``tumour_dice``, ``liver_dice`` (of the cases whose liver is predicted; NaN without),
        ``lesions``, ``predicted_lesions``, ``recall_any``, ``precision_any``, ``f1_any`` and the
        same with ``_half``; ``cases``. A case without tumour adds nothing to a pooled Dice unless
        something is predicted there, and large tumours outweigh small ones.
    """
    scores: dict[str, float] = {"cases": len(table)}
    for name, rows in (("tumour", table), ("liver", table[table.liver_dice.notna()])):
        truth, predicted, shared = (
            int(rows[f"{name}_{kind}_voxels"].sum()) for kind in ("truth", "predicted", "shared")
        )
        scores[f"{name}_dice"] = Overlap(truth, predicted, shared).dice
    scores |= {name: int(table[name].sum()) for name in ("lesions", "predicted_lesions")}
    for name in OVERLAPS:
        found, right = (int(table[f"{kind}_{name}"].sum()) for kind in ("lesions_found", "predicted_right"))
        scores |= _rates(LesionCounts(scores["lesions"], found, scores["predicted_lesions"], right), name)
    return scores


def burden_errors(table: pd.DataFrame) -> dict[str, object]:
    """How far the predicted tumour burden is off.

    Parameters
    ----------
    table : DataFrame
        From :func:`score_cases`.

    Returns
    -------
    dict
        ``rmse``; ``largest_absolute_error``; ``bias``, the mean of predicted less true burden:
        above 0 where too much is predicted. Burdens are shares of the liver, so 0.01 is one
        percent of it. ``cases``; ``left_out``, those whose burden is undefined; ``liver``, as
        ``burden_liver`` of :func:`case_scores`: ``"truth (oracle)"`` if for any case.
    """
    error = (table.burden_predicted - table.burden_truth).dropna()
    oracle = table.burden_liver[error.index] != "predicted"
    return {
        "rmse": float(np.sqrt(np.square(error).mean())),
        "largest_absolute_error": float(error.abs().max()),
        "bias": float(error.mean()),
        "cases": len(error),
        "left_out": len(table) - len(error),
        "liver": "truth (oracle)" if oracle.any() else "predicted",
    }
