"""Lesions one by one: connected components, which of them were found, and at what price.

A lesion is a connected component of a mask: 26 neighbours in 3D by default, so that voxels that
share a corner belong together; the LiTS challenge takes 6, faces alone. Recall counts lesions of
the truth and precision counts predicted components, so that neither a prediction over three
lesions nor a lesion predicted in three parts is counted wrongly (:func:`match_lesions`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.ndimage import find_objects, generate_binary_structure, label
from tqdm.auto import tqdm

from .distances import NEIGHBOURS, bounding_box, check_spacing
from .files import DataError

# Upper ends of the size classes, in mm. 10 mm is the shortest target lesion that RECIST 1.1 lets
# one measure (Eisenhauer et al., European Journal of Cancer 45 (2009) 228); 20 mm is where staging
# of primary liver tumours divides (LI-RADS, BCLC).
SIZE_EDGES_MM = (5.0, 10.0, 20.0)


@dataclass(frozen=True)
class LesionCounts:
    """How many lesions were found; counts of several cases add up.

    Attributes
    ----------
    lesions, found : int
        Lesions of the truth, and those of them that were detected.
    predictions, right : int
        Predicted components, and those of them that are no false positives.
    """

    lesions: int
    found: int
    predictions: int
    right: int

    def __add__(self, other: LesionCounts) -> LesionCounts:
        return LesionCounts(
            self.lesions + other.lesions, self.found + other.found,
            self.predictions + other.predictions, self.right + other.right,
        )

    @property
    def recall(self) -> float:
        """Found lesions of all lesions, in [0, 1]; NaN without lesions."""
        return self.found / self.lesions if self.lesions else float("nan")

    @property
    def precision(self) -> float:
        """Right predictions of all predictions, in [0, 1]; NaN without predictions."""
        return self.right / self.predictions if self.predictions else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in [0, 1].

        NaN with neither lesions nor predictions; 0 where there is only one of both, or none right.
        """
        if not self.lesions and not self.predictions:
            return float("nan")
        if not self.found or not self.right:
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


@dataclass(frozen=True, eq=False)
class LesionMatch:
    """Lesions of the truth and predicted ones, and which belong together; by :func:`match_lesions`.

    Attributes
    ----------
    truth, predicted : DataFrame, one row a component, ordered by number
        As :func:`lesion_table` makes them, and: ``touched``, whether a component of the other
        table shares a voxel; ``group``, the number of the group it belongs to, 0 for none;
        ``iou``, intersection over union of the two sides of that group, 0 without one.
    truth_labels, predicted_labels : int32 array
        Volumes of component numbers, within ``box``.
    box : tuple of slice
        Where these lie in the volume given; outside there is nothing.
    """

    truth: pd.DataFrame
    predicted: pd.DataFrame
    truth_labels: np.ndarray
    predicted_labels: np.ndarray
    box: tuple[slice, ...]

    def counts(self, overlap: float = 0) -> LesionCounts:
        """Detection at an overlap: 0, where one shared voxel is enough, or an IoU to be exceeded."""
        found, right = (detected(table, overlap) for table in (self.truth, self.predicted))
        return LesionCounts(len(found), int(found.sum()), len(right), int(right.sum()))

    def groups(self, overlap: float = 0.5) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Truth and prediction of each group found at an overlap: two masks, in their own box."""
        wanted = np.unique(self.truth.group[detected(self.truth, overlap) & (self.truth.group > 0)])
        if not wanted.size:
            return
        sides = (self.truth_labels, self.truth.group), (self.predicted_labels, self.predicted.group)
        boxes = [find_objects(labels) for labels, _ in sides]
        for group in wanted:
            own = [boxes[side][row] for side in (0, 1) for row in np.flatnonzero(sides[side][1] == group)]
            box = tuple(
                slice(min(part.start for part in parts), max(part.stop for part in parts))
                for parts in zip(*own, strict=True)
            )
            truth, predicted = (
                np.concatenate([[False], of_component == group])[labels[box]] for labels, of_component in sides
            )
            yield truth, predicted


_AXES = ("slice", "row", "column")


def detected(table: pd.DataFrame, overlap: float = 0) -> pd.Series:
    """Which rows of one side of a :class:`LesionMatch` count as detected (or as right).

    Parameters
    ----------
    table : DataFrame
        ``touched`` and ``iou``; lesions of several cases may be put below each other.
    overlap : float
        In [0, 1). At 0 one shared voxel is enough; above, the IoU of the group must exceed it.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"the overlap lies in [0, 1), got {overlap}")
    return table.touched if overlap == 0 else table.iou > overlap


def components(mask: np.ndarray, *, connectivity: int = 26) -> tuple[np.ndarray, int]:
    """Number the connected components of a mask.

    Parameters
    ----------
    mask : bool array (slices, rows, columns), or (rows, columns)
    connectivity : {26, 18, 6}
        Voxels that belong together: those that share a corner, an edge, or a face (the LiTS
        challenge). In a slice 8, 8 and 4.

    Returns
    -------
    int32 array, same shape
        0 outside, 1, 2, ... in array order of each component's first voxel.
    int
        Number of components.
    """
    if connectivity not in NEIGHBOURS:
        raise ValueError(f"connectivity is 6, 18 or 26, got {connectivity}")
    structure = generate_binary_structure(mask.ndim, min(NEIGHBOURS[connectivity], mask.ndim))
    return label(mask, structure, output=np.int32)


def lesion_table(labels: np.ndarray, count: int, spacing: Sequence[float] | None) -> pd.DataFrame:
    """Size and place of each numbered component.

    Parameters
    ----------
    labels : int array (slices, rows, columns), or (rows, columns)
        Of :func:`components`.
    count : int
        The highest number.
    spacing : sequence of float, or None
        In mm, one for each dimension; None where unknown: then sizes in mm are NaN.

    Returns
    -------
    DataFrame, one row a component
        ``lesion``, its number; ``voxels``; ``volume_mm3`` (of a slice ``area_mm2`` instead);
        ``diameter_mm``, of the ball (disc) of that volume (area); ``centre_slice``,
        ``centre_row``, ``centre_column``, the mean of its voxels' indices.
    """
    spacing = None if spacing is None else check_spacing(spacing, labels.ndim)
    axes = _AXES[-labels.ndim :]
    planes = labels if labels.ndim == 3 else labels[None]
    voxels = np.zeros(count + 1, np.int64)
    sums = {axis: np.zeros(count + 1) for axis in _AXES}
    for number, plane in enumerate(planes):  # a slice at a time: indices take more room than voxels
        rows, columns = np.nonzero(plane)
        lesion = plane[rows, columns]
        voxels += np.bincount(lesion, minlength=count + 1)
        for axis, index in zip(_AXES, (np.full(len(rows), number), rows, columns), strict=True):
            sums[axis] += np.bincount(lesion, index, minlength=count + 1)
    size = voxels[1:] * (np.nan if spacing is None else np.prod(spacing))
    ball = labels.ndim == 3
    return pd.DataFrame(
        {
            "lesion": np.arange(1, count + 1),
            "voxels": voxels[1:],
            "volume_mm3" if ball else "area_mm2": size,
            "diameter_mm": np.cbrt(6 * size / np.pi) if ball else 2 * np.sqrt(size / np.pi),
            **{f"centre_{axis}": sums[axis][1:] / np.maximum(voxels[1:], 1) for axis in axes},
        }
    )


def match_lesions(
    truth: np.ndarray,
    predicted: np.ndarray,
    spacing: Sequence[float] | None = None,
    *,
    connectivity: int = 26,
) -> LesionMatch:
    """Find the lesions of two masks, and which predicted ones belong to which of the truth.

    At overlap 0 a lesion is found if a predicted voxel touches it, and a predicted component is
    right if it touches a lesion. At a higher overlap components are grouped first, as the LiTS
    challenge does:

    1. each lesion goes to the component that shares most voxels with it, and lesions with the
       same component form one group;
    2. each component goes to the group with which it shares most voxels;
    3. the IoU of a group, all its lesions against all its components, has to exceed the overlap:
       then all its lesions are found and all its components are right.

    Of equal shares the lower number wins.

    Parameters
    ----------
    truth, predicted : bool array (slices, rows, columns), or (rows, columns)
    spacing : sequence of float, optional
        In mm, one for each dimension; without it sizes in mm are NaN.
    connectivity : {26, 18, 6}
        Of :func:`components`.

    Raises
    ------
    ValueError
        If the masks are not boolean or differ in shape.

    Notes
    -----
    One prediction over three lesions is recall 3/3 and precision 1/1 here, one lesion in three
    parts recall 1/1 and precision 3/3. The challenge's code (PatrickChrist/lits-challenge-scoring,
    ``program/helpers/calc_metric.py`` at 0cbafa5, ``detect_lesions``) counts one hit for a whole
    group and takes that from the ungrouped numbers of components:

    - one prediction over three lesions: 1 hit, 2 missed (recall 1/3); where the IoU fails it
      takes the three merged lesions from the one hit: -2 hits, 5 missed, 3 false positives;
    - one lesion in three parts: 1 hit, 2 false positives (precision 1/3);
    - a reference without tumour: it returns five values, and three elsewhere, so that a caller
      stops with an error;
    - its union is taken with the prediction's number in an array that holds the reference's, so
      that it is no union where these differ.

    References
    ----------
    Bilic et al., "The Liver Tumor Segmentation Benchmark (LiTS)", Medical Image Analysis 84 (2023)
    102680, arXiv:1901.04056. What is said of the challenge's rules was read in its code, not there.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"masks of one shape are compared, got {truth.shape} and {predicted.shape}")
    if truth.dtype != bool or predicted.dtype != bool:
        raise ValueError(f"masks must be boolean, got {truth.dtype} and {predicted.dtype}: use labels == 2")
    box = bounding_box(truth, predicted)
    tables, labels = [], []
    for mask in (truth, predicted):
        numbered, count = components(mask[box], connectivity=connectivity)
        table = lesion_table(numbered, count, spacing)
        for axis, whole in zip(_AXES[-mask.ndim :], box, strict=True):
            table[f"centre_{axis}"] += whole.start
        tables.append(table)
        labels.append(numbered)
    shared = _shared_voxels(*labels)
    found, right = tables
    for table, side in zip(tables, ("lesion", "component"), strict=True):
        table["touched"] = table.lesion.isin(shared[side])
    found["group"], right["group"] = _groups(shared, len(found), len(right))
    iou = _group_iou(shared, found, right)
    for table in tables:
        table["iou"] = table.group.map(iou).fillna(0.0).astype(np.float64)
    return LesionMatch(found, right, *labels, box)


def _shared_voxels(truth: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """``lesion``, ``component`` and shared ``voxels`` of each pair of components that overlaps."""
    parts = []
    for lesion, component in zip(truth, predicted, strict=True):  # slices, or rows of a slice
        both = (lesion > 0) & (component > 0)
        pairs, voxels = np.unique(np.stack([lesion[both], component[both]]), axis=1, return_counts=True)
        parts.append(np.vstack([pairs, voxels]))
    pairs = np.concatenate(parts, axis=1) if parts else np.empty((3, 0), int)
    table = pd.DataFrame(pairs.T, columns=["lesion", "component", "voxels"])
    return table.groupby(["lesion", "component"], as_index=False).voxels.sum()


def _most_shared(shared: pd.DataFrame, of: str, to: str) -> pd.Series:
    """For each ``of`` the ``to`` with most shared voxels, the lower number where equal."""
    ordered = shared.sort_values(["voxels", to], ascending=[False, True])
    return ordered.drop_duplicates(of).set_index(of)[to]


def _groups(shared: pd.DataFrame, lesions: int, components: int) -> tuple[np.ndarray, np.ndarray]:
    """The group of each lesion and of each component, 0 for none: steps 1 and 2 of the match.

    A group bears the number of the component that its lesions share most voxels with.
    """
    lesion_group, component_group = np.zeros(lesions, np.int64), np.zeros(components, np.int64)
    best = _most_shared(shared, "lesion", "component")
    lesion_group[best.index.to_numpy() - 1] = best.to_numpy()
    by_group = shared.assign(group=shared.lesion.map(best))
    by_group = by_group.groupby(["component", "group"], as_index=False).voxels.sum()
    best = _most_shared(by_group, "component", "group")
    component_group[best.index.to_numpy() - 1] = best.to_numpy()
    return lesion_group, component_group


def _group_iou(shared: pd.DataFrame, found: pd.DataFrame, right: pd.DataFrame) -> pd.Series:
    """Intersection over union of all lesions and all components of each group, by its number."""
    of_lesion, of_component = found.set_index("lesion").group, right.set_index("lesion").group
    group = shared.lesion.map(of_lesion)
    inside = shared.voxels[group == shared.component.map(of_component)].groupby(group).sum()
    truth, predicted = (table[table.group > 0].groupby("group").voxels.sum() for table in (found, right))
    total = truth.add(predicted, fill_value=0)
    inside = inside.reindex(total.index, fill_value=0)
    return inside / (total - inside)


def recall_by_size(
    lesions: pd.DataFrame, *, overlap: float = 0, edges_mm: Sequence[float] = SIZE_EDGES_MM
) -> pd.DataFrame:
    """Recall of lesions by their equivalent diameter.

    Parameters
    ----------
    lesions : DataFrame
        ``diameter_mm``, ``touched`` and ``iou``: :attr:`LesionMatch.truth` of one case, or of
        several below each other.
    overlap : float
        Of :func:`detected`.
    edges_mm : sequence of float
        Where a class ends and the next one begins, rising; a lesion of exactly this size belongs
        to the upper one.

    Returns
    -------
    DataFrame, one row a size class, those without lesions too
        ``size``, in words; ``from_mm``, ``to_mm`` (infinite for the last); ``lesions``, ``found``,
        ``recall`` (NaN without lesions). Lesions of unknown size are left out: what ``lesions``
        adds up to tells.
    """
    edges = [0.0, *edges_mm, np.inf]
    size, found = lesions.diameter_mm, detected(lesions, overlap)
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        here = (size >= low) & (size < high)
        words = f"{low:g} to {high:g} mm" if low else f"under {high:g} mm"
        words = words if np.isfinite(high) else f"{low:g} mm and more"
        counts = LesionCounts(int(here.sum()), int(found[here].sum()), 0, 0)
        rows.append((words, low, high, counts.lesions, counts.found, counts.recall))
    return pd.DataFrame(rows, columns=["size", "from_mm", "to_mm", "lesions", "found", "recall"])


def froc(
    cases: Iterable[tuple[np.ndarray, np.ndarray]],
    thresholds: Sequence[float],
    *,
    overlap: float = 0,
    connectivity: int = 26,
) -> pd.DataFrame:
    """Points of the free-response ROC curve: recall against false positives per case.

    Parameters
    ----------
    cases : iterable of (truth, probability)
        Bool mask and probabilities of one case, of one shape; each is looked at once, at all
        thresholds, so a generator keeps one in memory.
    thresholds : sequence of float
        A voxel is predicted where its probability exceeds the threshold, as everywhere here.
    overlap, connectivity
        Of :func:`match_lesions`.

    Returns
    -------
    DataFrame, one row a threshold, in the order given
        ``threshold``; ``recall``, over the lesions of all cases together (NaN without any);
        ``false_positives_per_case``, predicted components that are not right, cases without
        tumour included; ``lesions``, ``found``, ``predictions``, ``right``, ``cases``.

        The curve is not monotone: a lower threshold joins components, and two become one.

    Raises
    ------
    DataError
        If there are no cases.

    References
    ----------
    Bunch et al., "A free response approach to the measurement and characterization of
    radiographic observer performance", Proceedings of SPIE 127 (1977) 124.
    """
    totals = [LesionCounts(0, 0, 0, 0) for _ in thresholds]
    number = 0
    for truth, probability in tqdm(cases, desc="FROC", unit="case", delay=2):
        number += 1
        for place, threshold in enumerate(thresholds):
            match = match_lesions(truth, probability > threshold, connectivity=connectivity)
            totals[place] += match.counts(overlap)
    if not number:
        raise DataError("there are no cases to look for lesions in: is this part of the split empty?")
    return pd.DataFrame(
        [
            {
                "threshold": threshold,
                "recall": counts.recall,
                "false_positives_per_case": (counts.predictions - counts.right) / number,
                **vars(counts),
                "cases": number,
            }
            for threshold, counts in zip(thresholds, totals, strict=True)
        ]
    )
