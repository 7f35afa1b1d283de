"""Splits of a slice table: the report's, which leaks, by patient, and folds of patients for cross-validation."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pandas as pd

from . import masks
from .files import DataError, read_table, write_json, write_table

# Its text once says 200 for validation and 431 for test; its code, followed here, has them so:
REPORT_SPLIT = {"train": 2_000, "validation": 431, "test": 200}
SPLITS = tuple(REPORT_SPLIT)
PATIENT_FRACTIONS = (0.6, 0.2, 0.2)


def _proportional(total: int, shares: tuple[float, ...]) -> list[int]:
    """Whole numbers in the proportions of ``shares`` that add up to ``total``, all but the first >= 1 if it allows."""
    parts = [round(total * share / sum(shares)) for share in shares[1:]]
    parts = [max(part, int(total >= len(shares))) for part in parts]
    return [total - sum(parts), *parts]


def split_slices(table: pd.DataFrame, *, seed: int = 32) -> pd.DataFrame:
    """The report's split: tumour slices alone, shuffled as slices. It leaks.

    Neighbouring slices of one patient land in training and in test, so a network is tested on
    what it has nearly seen. Kept to reproduce the report: ``sample(frac=1, random_state=32)``,
    then 2,000 for training, 431 for validation and 200 for test, or these proportions of
    whatever there is.

    Returns
    -------
    DataFrame
        The tumour slices in shuffled order, with ``split``.
    """
    shuffled = table[table.diagnosis == masks.LIVER_AND_TUMOUR].sample(frac=1, random_state=seed)
    parts = _proportional(len(shuffled), tuple(REPORT_SPLIT.values()))
    return _checked(shuffled.assign(split=np.repeat(SPLITS, parts)))


def _patients(table: pd.DataFrame) -> pd.Series:
    """Whose each slice is: the column ``patient``, or else the volume's."""
    return table["patient" if "patient" in table else "volume"]


def _have_tumour(table: pd.DataFrame) -> pd.Series:
    """Whether each patient shows a tumour in some slice, by patient."""
    return table.groupby(_patients(table)).diagnosis.max() == masks.LIVER_AND_TUMOUR


def _assigned(
    has_tumour: pd.Series, sides_of: Callable[[int], Sequence], seed: int
) -> dict[int, object]:
    """A side for each patient: shuffled, those with a tumour first, ``sides_of`` their number."""
    random = np.random.default_rng(seed)
    assigned: dict[int, object] = {}
    for of_kind in (has_tumour[has_tumour].index, has_tumour[~has_tumour].index):
        patients = random.permutation(np.array(of_kind))
        assigned |= dict(zip(patients.tolist(), sides_of(len(patients)), strict=True))
    return assigned


def split_patients(table: pd.DataFrame, *, seed: int = 32) -> pd.DataFrame:
    """Whole patients to train, validation and test, 60 : 20 : 20, with and without tumour alike.

    A volume counts as a patient unless the table has a column ``patient``, from
    :func:`lits_helpers.audit.with_patients`: then all volumes of a patient go to one side. The
    order of the rows decides nothing.

    Returns
    -------
    DataFrame
        All slices in the table's order, with ``split``.

    Raises
    ------
    DataError
        If there are too few patients for three parts.

    Warns
    -----
    UserWarning
        If one or two patients have a tumour: they all train, and nothing measures tumours.
    """
    has_tumour = _have_tumour(table)
    assigned = _assigned(
        has_tumour, lambda number: np.repeat(SPLITS, _proportional(number, PATIENT_FRACTIONS)), seed
    )
    split = check_patient_split(_checked(table.assign(split=_patients(table).map(assigned))))
    if 0 < has_tumour.sum() < len(SPLITS):
        warnings.warn(
            f"{has_tumour.sum()} patient(s) with a tumour are too few for three sides: all are in "
            "train, so no score for tumours can be had from validation or test; add patients",
            stacklevel=2,
        )
    return split


def without_test(table: pd.DataFrame) -> pd.DataFrame:
    """A split whose test patients train as well: for a network that is to be tested on other data."""
    return table.assign(split=table.split.where(table.split == "validation", "train"))


def one_watched(table: pd.DataFrame) -> pd.DataFrame:
    """A split by which all patients train but one of the validation patients, with a tumour if one has.

    For a training that ends by the clock and chooses nothing by validation: to watch it, one patient
    will do, and with few patients every other one counts.
    """
    of_slice = _patients(table)
    has_tumour = _have_tumour(table[table.split == "validation"])
    watched = has_tumour.index[np.argmax(has_tumour)]  # the first with a tumour, or the first
    return table.assign(split=np.where(of_slice == watched, "validation", "train"))


def fold_patients(table: pd.DataFrame, *, folds: int = 5, seed: int = 32) -> pd.DataFrame:
    """Whole patients to folds of equal size, with and without tumour alike, for cross-validation.

    Patients are shuffled and dealt out like cards, those with a tumour first: folds differ by one
    patient at most, in all and of each kind. A ``patient`` of several volumes is one, as for
    :func:`split_patients`, and the order of the rows decides nothing.

    Returns
    -------
    DataFrame
        All slices in the table's order, with ``fold``, from 1: the one that tests the slice.

    Raises
    ------
    DataError
        If there are fewer than two folds, or fewer patients than folds.

    Warns
    -----
    UserWarning
        If there are patients with a tumour, but not for every fold.
    """
    has_tumour = _have_tumour(table)
    if not 2 <= folds <= len(has_tumour):
        raise DataError(f"{len(has_tumour)} patient(s) cannot make {folds} folds: ask for 2 to one for each patient")
    dealt = cycle(range(1, folds + 1))
    assigned = _assigned(has_tumour, lambda number: list(islice(dealt, number)), seed)
    if 0 < has_tumour.sum() < folds:
        warnings.warn(
            f"{has_tumour.sum()} patient(s) with a tumour are too few for {folds} folds: some fold tests "
            "none; take fewer folds",
            stacklevel=2,
        )
    return table.assign(fold=_patients(table).map(assigned))


def fold_split(table: pd.DataFrame, fold: int, *, seed: int = 32) -> pd.DataFrame:
    """One fold as a split: it tests; of the other patients a quarter validates, the rest trains.

    Training and validation are in the proportion of :func:`split_patients`, 3 : 1, and patients
    with and without tumour are spread alike.

    Parameters
    ----------
    table : DataFrame
        Slice table with ``fold``, from :func:`fold_patients` or :func:`load_folds`.
    fold : int
        From 1.
    seed : int
        Chooses who validates.

    Returns
    -------
    DataFrame
        All slices in the table's order, with ``split``.

    Raises
    ------
    DataError
        If there is no such fold, a patient is in two, or the other patients are too few.
    """
    if "fold" not in table:
        raise DataError("the slice table has no folds: use splits.fold_patients first")
    if fold not in set(table.fold):
        raise DataError(f"there is no fold {fold}: choose from {sorted(set(table.fold.tolist()))}")
    tested = table.fold == fold
    # Dealt as folds are; training comes first, which a single patient with a tumour is needed for.
    dealt = cycle(("train", "validation", "train", "train"))
    assigned = _assigned(_have_tumour(table[~tested]), lambda number: list(islice(dealt, number)), seed)
    split = _patients(table).map(assigned).where(~tested, "test")
    return check_patient_split(_checked(table.assign(split=split)))


def load_folds(table: pd.DataFrame, path: Path, *, folds: int = 5, seed: int = 32) -> pd.DataFrame:
    """The table with the folds stored at ``path``; the first call makes and stores them.

    So that every run, on whatever version of NumPy, tests the same patients together.

    Parameters
    ----------
    table : DataFrame
        Slice table.
    path : Path
        A CSV as :func:`save_split` writes it, with ``fold``.
    folds, seed : int
        Of :func:`fold_patients`, for the first call.

    Returns
    -------
    DataFrame
        All slices in the table's order, with ``fold``, from 1.

    Raises
    ------
    DataError
        If the file cannot be read, has another number of folds, or was made for other slices or
        patients than the table's; the message names the volumes.
    """
    path = Path(path)
    if not path.exists():
        made = fold_patients(table, folds=folds, seed=seed)
        save_split(made, path)
        return made
    stored = read_table(path, {"volume": int, "slice": int, "fold": int})
    folded = table.assign(fold=table.volume.map(stored.groupby("volume").fold.first()))
    if changes := _changes(folded, stored):
        raise DataError(
            f"{path}: these folds are of another table ({changes}): go back to its data, or remove the "
            "file to make new folds, with which nothing scored so far can be compared"
        )
    if (number := stored.fold.nunique()) != folds:
        raise DataError(f"{path}: holds {number} folds, {folds} are asked for: name another file, or remove it")
    return folded


def _changes(folded: pd.DataFrame, stored: pd.DataFrame) -> str:
    """What keeps stored folds from being this table's, in words; empty where nothing does."""
    now, then = (slices.groupby("volume").slice.agg(set) for slices in (folded, stored))
    both = now.index.intersection(then.index)
    torn = folded.groupby(_patients(folded)).fold.transform("nunique") > 1
    found = {
        "new volumes": now.index.difference(then.index),
        "missing volumes": then.index.difference(now.index),
        "other slices in volumes": both[[now[volume] != then[volume] for volume in both]],
        "one patient in several folds, volumes": folded.volume[torn].unique(),
    }
    return "; ".join(f"{words} {volumes.tolist()}" for words, volumes in found.items() if len(volumes))


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """The table, if each of the three splits has a slice."""
    missing = [split for split in SPLITS if not (table.split == split).any()]
    if missing:
        raise DataError(
            f"the split leaves nothing for {', '.join(missing)}: {_patients(table).nunique()} "
            f"patient(s) and {len(table)} slice(s) are too few, add more data"
        )
    return table


def check_patient_split(table: pd.DataFrame) -> pd.DataFrame:
    """The table unchanged, if no volume, and no ``patient`` it names, is on two sides of its split.

    Raises
    ------
    DataError
        Naming the volumes that do.
    """
    sides = table.groupby(_patients(table)).split.transform("nunique")
    leaking = sorted(set(table.volume[sides > 1].tolist()))
    if leaking:
        raise DataError(
            f"volumes {leaking} lie on more than one side of the split: a patient may be in one "
            "only, make the split or the folds anew from this table"
        )
    return table


def save_split(table: pd.DataFrame, path: Path, *, audit: object | None = None) -> Path:
    """Write a table with its split as CSV, atomically; file names stand for paths.

    ``audit``, what :func:`lits_helpers.audit.audit_split` found, goes beside it to
    ``<stem>_audit.json``. Without one an older audit there is removed: it was of another split.
    """
    path = Path(path)
    names = {column: table[column].map(os.path.basename) for column in ("image_path", "mask_path")}
    write_table(path, table.assign(**names))
    audited = path.with_name(f"{path.stem}_audit.json")
    if audit is None:
        audited.unlink(missing_ok=True)
    else:
        write_json(audited, audit.as_dict())
    return path
