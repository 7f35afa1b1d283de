"""How far a score can be trusted: intervals over patients, paired runs, several seeds or folds.

The patient is what is drawn at random: slices of one patient resemble each other, and so do the
scores that several networks give to one patient. All intervals here are percentile bootstrap 95 %
intervals that draw whole patients with replacement, with all that belongs to each (Davison,
Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8: resample the highest level
of hierarchical data). They say how the figure would vary with other patients; they do not hold how
it varies with other training runs, which the range over seeds or folds shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from .files import DataError

Scores = pd.DataFrame | pd.Series | np.ndarray | Sequence[float]


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    *,
    repeats: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval, by drawing whole patients with replacement.

    Parameters
    ----------
    values : array (patients,) or (patients, columns)
        One score for each patient, or the counts a pooled score is made of. Undefined scores are
        to be left out before.
    statistic : callable (array, axis) -> array
        Reduces the patients' axis: ``numpy.mean``, ``numpy.median``, :func:`ratio_of_sums`. Called
        once, with all draws, (repeats, patients) or (repeats, patients, columns), and axis 1.
    repeats : int
        Number of draws.
    seed : int
        Equal seeds give equal draws.
    level : float
        Share of the draws inside the interval, in (0, 1).

    Returns
    -------
    low, high : float
        NaN with fewer than two patients, who say nothing about how patients differ. Draws for
        which the statistic is undefined are left out.

    References
    ----------
    Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    values = np.asarray(values)
    patients = len(values)
    if patients < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(patients, size=(repeats, patients))
    results = statistic(values[drawn], axis=1)
    results = results[~np.isnan(results)]
    if not results.size:
        return float("nan"), float("nan")
    low, high = np.quantile(results, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ratio_of_sums(parts: np.ndarray, axis: int) -> np.ndarray:
    """Add up numerators and denominators over patients, then divide: a pooled score.

    Parameters
    ----------
    parts : array (..., patients, 2)
        Numerator and denominator of each patient.
    axis : int
        The patients' axis.

    Returns
    -------
    float64 array (...)
        NaN where the denominators add up to 0.
    """
    sums = parts.sum(axis=axis)
    return quotient(sums[..., 0], sums[..., 1])


def quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Division that is NaN, without a warning, where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    undefined = np.full(denominator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


@dataclass(frozen=True)
class Description:
    """One score over many cases; made by :func:`describe`. ``pandas.DataFrame([...])`` of some is a table.

    Attributes
    ----------
    value : float
        Mean of the cases' scores, or their pooled score.
    low, high : float
        Patient-level bootstrap 95 % interval of ``value``; NaN with fewer than two patients.
    cases, patients, left_out : int
        Cases with a score, patients they come from, and cases without one (NaN).
    median, lower_quartile, upper_quartile : float
        Of the cases' scores.
    """

    value: float
    low: float
    high: float
    cases: int
    patients: int
    left_out: int
    median: float
    lower_quartile: float
    upper_quartile: float


def describe(
    values: np.ndarray | Sequence[float],
    *,
    patients: np.ndarray | Sequence | None = None,
    repeats: int = 2000,
    seed: int = 0,
) -> Description:
    """Mean of scores with its interval, median and quartiles, and how many cases enter.

    Parameters
    ----------
    values : array (cases,) or (cases, 2)
        One score a case, of any unit. Or numerator and denominator of each case's score: then
        the value is the pooled score, :func:`ratio_of_sums`, and the quartiles are those of the
        cases' own ratios. NaN (both masks empty, say) is left out and counted; so is 0 / 0.
    patients : array (cases,), optional
        Whose each case is. By default each case is a patient of its own.
    repeats, seed : int
        Of :func:`bootstrap_interval`.

    Returns
    -------
    Description
        NaN in all scores where no case has one.
    """
    values = np.asarray(values, np.float64)
    if values.ndim == 1:
        values = np.stack([values, np.ones_like(values)], axis=1)
    if values.ndim != 2 or values.shape[1] != 2:
        raise ValueError(f"values must be (cases,) or (cases, 2), got shape {values.shape}")
    patients = np.arange(len(values)) if patients is None else np.asarray(patients)
    if len(patients) != len(values):
        raise ValueError(f"{len(values)} values, but {len(patients)} patients: name one for each value")
    ratios = quotient(values[:, 0], values[:, 1])
    # A case of denominator 0 has no ratio but may hold a numerator, which a pooled score counts.
    kept = ~np.isnan(values).any(axis=1) & (values != 0).any(axis=1)
    parts = pd.DataFrame(values[kept]).groupby(patients[kept]).sum().to_numpy()
    low, high = bootstrap_interval(parts, ratio_of_sums, repeats=repeats, seed=seed)
    ratios = ratios[~np.isnan(ratios)]
    quartiles = np.quantile(ratios, [0.25, 0.5, 0.75]) if ratios.size else np.full(3, np.nan)
    return Description(
        value=float(ratio_of_sums(parts, axis=0)),
        low=low,
        high=high,
        cases=int(kept.sum()),
        patients=len(parts),
        left_out=int((~kept).sum()),
        median=float(quartiles[1]),
        lower_quartile=float(quartiles[0]),
        upper_quartile=float(quartiles[2]),
    )


def _by_volume(scores: Scores, score: str) -> pd.DataFrame:
    """``score`` and ``patient`` of each case, indexed by volume, or by place for an array."""
    if isinstance(scores, pd.DataFrame):
        table = scores.set_index("volume") if "volume" in scores else scores
        if score not in table:
            raise ValueError(f"the table has no column {score!r}: choose one of {list(table)}")
        values, patients = table[score], table.get("patient", table.index)
    else:
        values = pd.Series(scores)
        patients = values.index
    found = pd.DataFrame({"score": np.asarray(values, float), "patient": np.asarray(patients)}, values.index)
    if found.index.has_duplicates:
        twice = sorted(set(found.index[found.index.duplicated()]))
        raise DataError(f"volumes {twice} have more than one row: give one score for each, as patient_scores does")
    return found


def _refuse_other_patients(first: pd.DataFrame, second: pd.DataFrame, names: tuple[object, object]) -> None:
    alone = first.index.difference(second.index).tolist(), second.index.difference(first.index).tolist()
    found = [f"{volumes} only in {name}" for volumes, name in zip(alone, names, strict=True) if volumes]
    if found:
        raise DataError(
            f"the runs were scored on different patients, volumes {' and '.join(found)}: score both on the same"
        )


@dataclass(frozen=True)
class Difference:
    """Two runs on the same patients; made by :func:`paired_difference`.

    Attributes
    ----------
    mean : float
        Of second less first, over the cases that both score.
    low, high : float
        Its patient-level bootstrap 95 % interval. A difference whose interval holds 0 may be
        chance.
    better, worse, equal : int
        Cases where the second run is better than the first, worse, or exactly equal.
    cases, patients : int
        That enter.
    left_out, undefined_in_one : int
        Cases without a score in some run, and how many of those have one in the other.
    """

    mean: float
    low: float
    high: float
    better: int
    worse: int
    equal: int
    cases: int
    patients: int
    left_out: int
    undefined_in_one: int


def paired_difference(
    first: Scores,
    second: Scores,
    *,
    score: str = "dice",
    higher_is_better: bool = True,
    repeats: int = 2000,
    seed: int = 0,
) -> Difference:
    """What the second run gains over the first, patient by patient.

    Pairs are formed before anything is averaged: patients differ far more than runs do, and in
    the difference of a patient's two scores that cancels. Two intervals side by side cannot show
    this: they may overlap although the second run is better for every patient.

    Parameters
    ----------
    first, second : DataFrame, Series or array (cases,)
        Scores of the same cases. Tables as :func:`lits_helpers.scoring.patient_scores` gives them
        or indexed by volume, in any order; their column ``patient``, where there is one, says
        which volumes are drawn together. Series are indexed by volume; arrays are in equal order.
    score : str
        The tables' column.
    higher_is_better : bool
        False for distances and errors.
    repeats, seed : int
        Of :func:`bootstrap_interval`.

    Returns
    -------
    Difference
        NaN scores (both masks empty) leave out their pair. Where only one run has none, the other
        predicted something in a patient without tumour, which this difference does not hold:
        look at ``undefined_in_one`` and at the false positives beside it.

    Raises
    ------
    DataError
        If a volume is in one run only, or twice in one; the message names it.

    References
    ----------
    Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    first, second = _by_volume(first, score), _by_volume(second, score)
    _refuse_other_patients(first, second, ("the first", "the second"))
    pairs = first.assign(second=second.score)
    gains = pairs.second - pairs.score
    found = describe(gains, patients=pairs.patient, repeats=repeats, seed=seed)
    better, worse = (gains > 0).sum(), (gains < 0).sum()
    if not higher_is_better:
        better, worse = worse, better
    return Difference(
        mean=found.value,
        low=found.low,
        high=found.high,
        better=int(better),
        worse=int(worse),
        equal=int((gains == 0).sum()),
        cases=found.cases,
        patients=found.patients,
        left_out=found.left_out,
        undefined_in_one=int((pairs.score.isna() != pairs.second.isna()).sum()),
    )


def _named(runs: Mapping[object, Scores] | Sequence[Scores]) -> dict[object, Scores]:
    """Runs under their names, or numbered from 1."""
    named = dict(runs) if isinstance(runs, Mapping) else dict(enumerate(runs, 1))
    if not named:
        raise DataError("there are no runs to summarise: give at least one table of scores")
    return named


@dataclass(frozen=True)
class RunSummary:
    """Several runs of one method; made by :func:`summarise_runs`.

    Attributes
    ----------
    kind : str
        ``"seeds"``: all runs score the same patients. ``"folds"``: each patient is in one run.
    runs : Series
        Mean score of each run, by its name.
    mean, lowest, highest : float
        Of ``runs``, those without a score left out: how far training runs (and, of folds, their
        patients) differ.
    patients : Description
        Over patients: ``value`` with its interval, and the rest.
    """

    kind: str
    runs: pd.Series
    patients: Description

    @property
    def mean(self) -> float:
        return float(self.runs.mean())

    @property
    def lowest(self) -> float:
        return float(self.runs.min())

    @property
    def highest(self) -> float:
        return float(self.runs.max())

    def __str__(self) -> str:
        runs = ", ".join(f"{name}: {value:.3f}" for name, value in self.runs.items())
        found = self.patients
        return (
            f"{self.runs.name}, mean by {self.kind.removesuffix('s')}: {runs} "
            f"(mean {self.mean:.3f}, {self.lowest:.3f} to {self.highest:.3f})\n"
            f"{self.runs.name}, mean over {found.cases} cases of {found.patients} patients: {found.value:.3f} "
            f"(95 % interval {found.low:.3f} to {found.high:.3f}; {found.left_out} left out)"
        )


def summarise_runs(
    runs: Mapping[object, Scores] | Sequence[Scores],
    *,
    score: str = "dice",
    repeats: int = 2000,
    seed: int = 0,
) -> RunSummary:
    """Several seeds or folds as one result, with the patient as the unit.

    Folds: every patient is tested once, by a network that has not seen it, so the patients of all
    folds are put together and drawn. The spread of the folds' means gives no valid interval: the
    folds share training patients, and no unbiased estimate of their variance exists (Bengio,
    Grandvalet, JMLR 5 (2004) 1089). For the same reason the interval over patients is somewhat
    too narrow (Bates, Hastie, Tibshirani, JASA 119 (2024) 1434).

    Seeds: a patient's scores are averaged over the seeds first, then patients are drawn. Scores
    of one patient by several networks are repeated measurements; five seeds on 20 patients are 20
    cases, not 100 (Hurlbert, "Pseudoreplication", Ecological Monographs 54 (1984) 187).

    Parameters
    ----------
    runs : mapping of name to scores, or sequence of scores
        Of each run as for :func:`paired_difference`. Whether they are seeds or folds is seen from
        the volumes: all the same, or none in two runs.
    score : str
        The tables' column.
    repeats, seed : int
        Of :func:`bootstrap_interval`.

    Returns
    -------
    RunSummary
        A case is averaged over the seeds that have a score for it; one that none has is left out.

    Raises
    ------
    DataError
        If the runs share some volumes and not others, or a patient is in two folds; the message
        names them.
    """
    tables = {name: _by_volume(scores, score) for name, scores in _named(runs).items()}
    means = pd.Series({name: table.score.mean() for name, table in tables.items()}, name=score)
    together = pd.concat(tables.values())
    if together.index.has_duplicates:
        (first_name, first), *others = tables.items()
        for name, table in others:
            _refuse_other_patients(first, table, (f"run {first_name}", f"run {name}"))
        together = together.groupby(level=0).agg({"score": "mean", "patient": "first"})
        kind = "seeds"
    else:
        folds = together.assign(fold=np.repeat(np.arange(len(tables)), [len(t) for t in tables.values()]))
        torn = folds.groupby("patient").fold.nunique()
        if (torn > 1).any():
            raise DataError(
                f"patients {torn.index[torn > 1].tolist()} are in more than one fold: a network was "
                "tested on whom it was trained on, make folds with splits.fold_patients"
            )
        kind = "folds"
    found = describe(together.score, patients=together.patient, repeats=repeats, seed=seed)
    return RunSummary(kind, means, found)


def scores_with_gain(
    runs: Mapping[object, Scores] | Sequence[Scores], *, score: str = "dice"
) -> dict[object, pd.DataFrame]:
    """Each run's ``score`` and ``patient``, a row a case, indexed by volume; and the gain, of a pair.

    The gain, second less first under the name ``"second - first"`` with the runs' own names, comes
    last; only exactly two runs on the same volumes have one.
    """
    tables = {name: _by_volume(scores, score) for name, scores in _named(runs).items()}
    if len(tables) == 2:
        first, second = tables.values()
        if first.index.symmetric_difference(second.index).empty:
            tables["{1} - {0}".format(*tables)] = first.assign(score=second.score - first.score)
    return tables


def uncertainty_table(
    runs: Mapping[object, Scores] | Sequence[Scores], *, scores: Sequence[str] = ("dice",)
) -> pd.DataFrame:
    """A row for each score and run: ``score``, ``run``, and what :class:`Description` holds.

    Of exactly two runs on the same volumes the paired difference is a row too, as in
    :func:`scores_with_gain`. :func:`lits_helpers.result_plots.uncertainty_plot` draws it.
    """
    return pd.DataFrame(
        [
            {"score": score, "run": name, **asdict(describe(table.score, patients=table.patient))}
            for score in scores
            for name, table in scores_with_gain(runs, score=score).items()
        ]
    )
