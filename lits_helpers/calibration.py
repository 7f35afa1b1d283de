"""Do probabilities keep their word, and do errors lie where a network is unsure? In NumPy.

Everything here is counted by pixel, and pixels are no independent cases: thousands of neighbours in
one slice err together. So tables keep the patient, and intervals draw whole patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from .files import DataError
from .uncertainty import bootstrap_interval, quotient, ratio_of_sums


@dataclass(frozen=True)
class Uncertainty:
    """Several answers to the same question, put together; made by :func:`predictive_uncertainty`.

    Attributes
    ----------
    mean : float32 array (...)
        Probability of tumour, in [0, 1].
    entropy : float32 array, same shape
        Of ``mean``, in bits: 0 where it is 0 or 1, 1 where it is 0.5. All uncertainty.
    variance : float32 array, same shape
        Of the answers, in [0, 0.25]: how far they differ.
    mutual_information : float32 array, same shape
        Entropy of the mean less mean of the entropies, in bits, in [0, 1]: the part of ``entropy``
        that is disagreement between the answers; the rest is doubt that each of them has.
    """

    mean: np.ndarray
    entropy: np.ndarray
    variance: np.ndarray
    mutual_information: np.ndarray


def binary_entropy(probability: np.ndarray) -> np.ndarray:
    """``-p log2 p - (1 - p) log2 (1 - p)`` in bits, float64 in [0, 1]; 0 at 0 and at 1."""
    p = np.asarray(probability, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"probabilities lie in [0, 1], got {p.min():g} to {p.max():g}")
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    return np.where((p == 0) | (p == 1), 0, bits)


def predictive_uncertainty(answers: np.ndarray) -> Uncertainty:
    """Mean, entropy, variance and mutual information of several answers.

    Parameters
    ----------
    answers : float array (answers, ...)
        Probabilities of tumour, of the same pixels: flips flipped back, passes with dropout,
        networks of an ensemble. One answer is allowed: variance and mutual information are 0.

    References
    ----------
    Gal, "Uncertainty in Deep Learning", thesis, Cambridge 2016, section 3.3.1.
    """
    answers = np.asarray(answers, np.float64)
    mean = answers.mean(axis=0)
    entropy = binary_entropy(mean)
    # Rounding can take a difference of equal entropies below 0.
    shared = np.maximum(entropy - binary_entropy(answers).mean(axis=0), 0)
    parts = mean, entropy, answers.var(axis=0), shared
    return Uncertainty(*(part.astype(np.float32) for part in parts))


def calibration_counts(
    probabilities: np.ndarray,
    truth: np.ndarray,
    patients: Sequence,
    *,
    inside: np.ndarray | None = None,
    bins: int = 10,
) -> pd.DataFrame:
    """Sort pixels into bins of equal width by their probability, patient by patient.

    Parameters
    ----------
    probabilities : float array (slices, rows, columns)
        Of tumour, in [0, 1].
    truth : bool array, same shape
    patients : sequence (slices,)
        Whose each slice is.
    inside : bool array (slices,) or (slices, rows, columns), optional
        Slices, or pixels, that count. Nearly all pixels of a CT are easily known background: over
        whole slices they drown the rest, so count slices with liver, or pixels of it, and say so.
    bins : int
        ``[0, 1 / bins)`` and so on; the last bin holds 1.

    Returns
    -------
    DataFrame, one row a patient and bin, empty bins too
        ``patient``, ``bin``, ``low``, ``high``, ``pixels``, ``probability_sum``, ``tumour_pixels``.

    Raises
    ------
    DataError
        If no pixel is inside.
    """
    probabilities, truth = np.asarray(probabilities), np.asarray(truth, bool)
    if probabilities.shape != truth.shape or len(patients) != len(truth):
        raise ValueError(
            f"probabilities {probabilities.shape}, truth {truth.shape} and {len(patients)} patients do not belong "
            "together: give one mask and one patient for each slice"
        )
    inside = np.ones(len(truth), bool) if inside is None else np.asarray(inside, bool)
    inside = np.broadcast_to(inside if inside.ndim > 1 else inside[:, None, None], truth.shape)
    if not inside.any():
        raise DataError("no pixel is inside: calibration needs slices with liver, or other pixels to count")
    kept = probabilities[inside].astype(np.float64)
    if not ((kept >= 0) & (kept <= 1)).all():
        raise ValueError(f"probabilities lie in [0, 1], got {kept.min():g} to {kept.max():g}")
    places = np.minimum((kept * bins).astype(int), bins - 1)
    numbers, names = pd.factorize(np.asarray(patients), sort=True)
    owners = np.broadcast_to(numbers[:, None, None], truth.shape)[inside]
    places += bins * owners
    size = bins * len(names)
    return pd.DataFrame(
        {
            "patient": np.repeat(names, bins), "bin": np.tile(np.arange(bins), len(names)),
            "low": np.tile(np.arange(bins) / bins, len(names)),
            "high": np.tile(np.arange(1, bins + 1) / bins, len(names)),
            "pixels": np.bincount(places, minlength=size),
            "probability_sum": np.bincount(places, weights=kept, minlength=size),
            "tumour_pixels": np.bincount(places, weights=truth[inside], minlength=size).astype(int),
        }
    )  # fmt: skip


def _by_patient(counts: pd.DataFrame) -> np.ndarray:
    """Pixels, sum of probabilities and tumour pixels, float (patients, bins, 3), of patients with pixels."""
    columns = counts[["pixels", "probability_sum", "tumour_pixels"]].to_numpy(np.float64)
    parts = columns.reshape(counts.patient.nunique(), -1, 3)
    return parts[parts[..., 0].sum(axis=1) > 0]


def reliability(counts: pd.DataFrame, *, repeats: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The reliability diagram as a table: what was said, and what was so.

    Parameters
    ----------
    counts : DataFrame
        Of :func:`calibration_counts`.
    repeats, seed : int
        Of :func:`lits_helpers.uncertainty.bootstrap_interval`.

    Returns
    -------
    DataFrame, one row a bin
        ``low``, ``high``; ``pixels``; ``patients`` with a pixel in it; ``probability``, the mean said;
        ``tumour_share``, of the pixels that are tumour, with ``tumour_share_low`` and ``_high``, its
        patient-level bootstrap 95 % interval. NaN in an empty bin.

    References
    ----------
    Niculescu-Mizil, Caruana, "Predicting Good Probabilities with Supervised Learning", ICML 2005.
    """
    parts = _by_patient(counts)
    rows = []
    for number, edges in enumerate(counts.groupby("bin")[["low", "high"]].first().itertuples()):
        here = parts[:, number]
        pixels, said, so = here.sum(axis=0)
        low, high = bootstrap_interval(here[:, [2, 0]], ratio_of_sums, repeats=repeats, seed=seed)
        rows.append(
            {
                "low": edges.low, "high": edges.high, "pixels": int(pixels),
                "patients": int((here[:, 0] > 0).sum()), "probability": float(quotient(said, pixels)),
                "tumour_share": float(quotient(so, pixels)), "tumour_share_low": low, "tumour_share_high": high,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


class CalibrationError(NamedTuple):
    """Made by :func:`expected_calibration_error`.

    Attributes
    ----------
    value, low, high : float
        In [0, 1], with its patient-level bootstrap 95 % interval (NaN with one patient).
    bins, pixels, patients : int
        That it was computed from. It depends on the bins and on which pixels count.
    """

    value: float
    low: float
    high: float
    bins: int
    pixels: int
    patients: int


def expected_calibration_error(counts: pd.DataFrame, *, repeats: int = 2000, seed: int = 0) -> CalibrationError:
    """Mean gap between probability and share of tumour, weighted by the pixels of each bin.

    ``sum over bins of pixels / all pixels * |tumour share - mean probability|``. Of the tumour's
    probability, not of the winning class's: bins run from 0 to 1. Over many sure background pixels
    it is small for any network; compare it only between equal choices of pixels and bins.

    Parameters
    ----------
    counts : DataFrame
        Of :func:`calibration_counts`.
    repeats, seed : int
        Of :func:`lits_helpers.uncertainty.bootstrap_interval`.

    References
    ----------
    Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI
    2015. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    parts = _by_patient(counts)
    low, high = bootstrap_interval(parts, _error_of_sums, repeats=repeats, seed=seed)
    return CalibrationError(
        float(_error_of_sums(parts, axis=0)), low, high,
        bins=parts.shape[1], pixels=int(parts[..., 0].sum()), patients=len(parts),
    )  # fmt: skip


def _error_of_sums(parts: np.ndarray, axis: int) -> np.ndarray:
    """Calibration error of patients put together: (..., patients, bins, 3) to (...)."""
    pixels, said, so = np.moveaxis(parts.sum(axis=axis), -1, 0)
    return np.abs(so - said).sum(axis=-1) / pixels.sum(axis=-1)


def error_by_uncertainty(uncertainty: np.ndarray, wrong: np.ndarray, *, groups: int = 10) -> pd.DataFrame:
    """Share of wrong pixels, from the surest tenth of all pixels to the least sure.

    Parameters
    ----------
    uncertainty : float array, any shape
    wrong : bool array, same shape
        Where the mask that was cut from the probabilities differs from the truth.
    groups : int
        Of equally many pixels. Equal uncertainties stay together, so there may be fewer groups, of
        unequal size: most pixels of a sure network are equally sure.

    Returns
    -------
    DataFrame, one row a group, the surest first
        ``lowest`` and ``highest`` uncertainty, ``pixels``, ``wrong_pixels``, ``error_rate`` in [0, 1].
    """
    values, wrong = _flat(uncertainty, wrong)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, groups + 1)[1:], method="inverted_cdf"))
    table = pd.DataFrame({"group": np.searchsorted(edges, values), "value": values, "wrong": wrong})
    found = table.groupby("group").agg(
        lowest=("value", "min"), highest=("value", "max"), pixels=("wrong", "size"), wrong_pixels=("wrong", "sum")
    )
    return found.assign(error_rate=found.wrong_pixels / found.pixels).reset_index(drop=True)


@dataclass(frozen=True)
class Rejection:
    """What is gained by checking the least sure pixels first; made by :func:`error_rejection`.

    Attributes
    ----------
    curve : DataFrame
        ``checked``, the share of all pixels, least sure first, that somebody checks and corrects;
        ``errors_left``, the share of all errors that is left then. Both in [0, 1].
    area : float
        Under that curve. 0.5 for an uncertainty that knows nothing, as for chance.
    best_area : float
        Of an uncertainty that puts every error first: half the share of wrong pixels.
    gain : float
        ``(0.5 - area) / (0.5 - best_area)``: 1 at best, 0 for chance, below 0 where the network is
        surest of its errors. NaN where all is right or all is wrong. The same as 2 AUROC - 1 of the
        uncertainty as a detector of errors.
    """

    curve: pd.DataFrame
    area: float
    best_area: float
    gain: float


def error_rejection(uncertainty: np.ndarray, wrong: np.ndarray, *, points: int = 201) -> Rejection:
    """Errors left, as pixels are checked in the order of their uncertainty.

    Parameters
    ----------
    uncertainty : float array, any shape
        Only its order counts; equal values are checked in random order (the mean over all orders).
    wrong : bool array, same shape
    points : int
        Of ``curve``, which is for drawing, closer where less is checked; the areas are exact.

    References
    ----------
    Malinin et al., "Incorporating Uncertainty into Deep Learning for Spoken Language Assessment", ACL 2017:
    there ``gain`` is the ratio of the areas between curve and chance.
    """
    values, wrong = _flat(uncertainty, wrong)
    levels, numbers = np.unique(-values, return_inverse=True)
    checked = np.cumsum(np.bincount(numbers, minlength=len(levels)), dtype=np.float64) / len(values)
    found = np.cumsum(np.bincount(numbers, weights=wrong, minlength=len(levels)))
    checked = np.concatenate([[0], checked])
    left = 1 - quotient(np.concatenate([[0], found]), np.full(len(levels) + 1, wrong.sum()))
    area = float(np.trapezoid(left, checked))
    best = float(wrong.mean() / 2)
    share = np.concatenate([[0], np.geomspace(1 / len(values), 1, points)])
    curve = pd.DataFrame({"checked": share, "errors_left": np.interp(share, checked, left)})
    return Rejection(curve, area, best, float(quotient(0.5 - area, 0.5 - best)))


def _flat(uncertainty: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as one row of pixels."""
    uncertainty, wrong = np.asarray(uncertainty), np.asarray(wrong, bool)
    if uncertainty.shape != wrong.shape:
        raise ValueError(f"uncertainty has shape {uncertainty.shape}, errors {wrong.shape}: give the same pixels")
    if not uncertainty.size:
        raise DataError("there are no pixels: give those of at least one slice")
    return uncertainty.ravel(), wrong.ravel()
