"""How well slices were sorted into the three diagnoses, each against the rest.

The scores that Kaur, Chauhan, Aggarwal 2021 (:mod:`lits_helpers.sorting`) give: accuracy,
precision, sensitivity, specificity and F1; and the area under the curve. The unit is the slice. A
quotient whose denominator is 0 is NaN and left out of means.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .files import DataError
from .masks import DIAGNOSES
from .uncertainty import quotient


def confusion(truth: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Slices by diagnosis (rows) and by the class they were sorted into (columns), the likeliest.

    Parameters
    ----------
    truth : int array (slices,)
        The table's ``diagnosis``.
    probabilities : float array (slices, 3)
        From :func:`lits_helpers.sorting.predict_classes`.

    Raises
    ------
    DataError
        If there are no slices, not as many of each, or other diagnoses.
    """
    truth, probabilities = _checked(truth, probabilities)
    counts = np.zeros((len(DIAGNOSES), len(DIAGNOSES)), int)
    np.add.at(counts, (truth, probabilities.argmax(axis=1)), 1)
    names = list(DIAGNOSES)
    return pd.DataFrame(counts, pd.Index(names, name="diagnosis"), pd.Index(names, name="sorted as"))


def roc_curves(truth: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """One-vs-rest receiver operating characteristic of each class, as points to draw.

    Parameters
    ----------
    truth, probabilities
        As for :func:`confusion`.

    Returns
    -------
    DataFrame
        ``diagnosis`` (its name), ``threshold``, ``false_positive_rate``, ``sensitivity``; a point
        for each probability that occurs, from (0, 0) at infinity to (1, 1). A class that all
        slices have, or none, has no curve.
    """
    truth, probabilities = _checked(truth, probabilities)
    curves = []
    for number, name in enumerate(DIAGNOSES):
        positive = truth == number
        if positive.all() or not positive.any():
            continue
        order = np.argsort(-probabilities[:, number], kind="stable")
        ranked, positive = probabilities[order, number], positive[order]
        last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # equal ones pass together
        found, wrong = positive.cumsum()[last], (~positive).cumsum()[last]
        curves.append(pd.DataFrame({
            "diagnosis": name, "threshold": np.append(np.inf, ranked[last]),
            "false_positive_rate": np.append(0, wrong) / wrong[-1], "sensitivity": np.append(0, found) / found[-1],
        }))
    columns = ["diagnosis", "threshold", "false_positive_rate", "sensitivity"]
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=columns)


def sorting_scores(truth: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """How well slices were sorted, each class against the rest; the unit is the slice.

    Parameters
    ----------
    truth, probabilities
        As for :func:`confusion`. A slice goes to its likeliest class.

    Returns
    -------
    DataFrame
        A row a class, ``"macro"`` (mean of the classes' defined scores) and ``"all classes"``,
        which has only ``accuracy``: the share of slices in their own class. One-vs-rest accuracies
        are higher: each counts the slices that are rightly not in the class. Columns: ``slices``,
        ``accuracy``, ``precision`` (NaN where no slice was sorted into the class), ``sensitivity``
        (NaN where none is of it), ``specificity`` (NaN where all are), ``f1`` (NaN where none was
        and none is), ``auc`` (area under the one-vs-rest curve, NaN where all or none are).
    """
    counts = confusion(truth, probabilities).to_numpy()
    areas = {
        name: np.trapezoid(curve.sensitivity, curve.false_positive_rate)
        for name, curve in roc_curves(truth, probabilities).groupby("diagnosis")
    }
    slices, hits = counts.sum(), counts.diagonal()
    of_class, into_class = counts.sum(axis=1), counts.sum(axis=0)
    rest = slices - of_class
    scores = pd.DataFrame({
        "slices": of_class.astype(float),
        "accuracy": (slices - of_class - into_class + 2 * hits) / slices,
        "precision": quotient(hits, into_class),
        "sensitivity": quotient(hits, of_class),
        "specificity": quotient(rest - into_class + hits, rest),
        "f1": quotient(2 * hits, of_class + into_class),
        "auc": [areas.get(name, np.nan) for name in DIAGNOSES],
    }, index=pd.Index(DIAGNOSES, name="diagnosis"))
    scores.loc["macro"] = scores.mean()
    scores.loc["all classes", "accuracy"] = hits.sum() / slices
    scores.loc[["macro", "all classes"], "slices"] = slices
    return scores.astype({"slices": int})


def _checked(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, probabilities = np.asarray(truth), np.asarray(probabilities)
    if not len(truth):
        raise DataError("there are no slices to score: is this part of the split empty?")
    if probabilities.shape != (len(truth), len(DIAGNOSES)):
        raise DataError(f"{len(truth)} slices, but probabilities of shape {probabilities.shape}: give 3 for each")
    if strange := sorted(set(truth.tolist()) - set(range(len(DIAGNOSES)))):
        raise DataError(f"diagnoses {strange} are none of 0, 1, 2: pass the slice table's column")
    return truth, probabilities
