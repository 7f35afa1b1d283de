"""Splits of a slice table into train, validation and test: the report's, which leaks, and by patient."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from . import masks
from .files import DataError, atomic_path

# Its text once says 200 for validation and 431 for test; its code, followed here, has them so:
REPORT_SPLIT = {"train": 2_000, "validation": 431, "test": 200}
SPLITS = tuple(REPORT_SPLIT)
PATIENT_FRACTIONS = (0.6, 0.2, 0.2)


def _proportional(total: int, shares: tuple[float, ...]) -> list[int]:
    """Whole numbers in the proportions of ``shares`` that add up to ``total``, the last >= 1."""
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


def split_patients(table: pd.DataFrame, *, seed: int = 32) -> pd.DataFrame:
    """Whole patients to train, validation and test, 60 : 20 : 20, with and without tumour alike.

    A volume counts as a patient unless the table has a column ``patient``, from
    :func:`lits_helpers.audit.with_patients`: then all volumes of a patient go to one side.

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
    random = np.random.default_rng(seed)
    has_tumour = table.groupby(_patients(table)).diagnosis.max() == masks.LIVER_AND_TUMOUR
    assigned: dict[int, str] = {}
    for of_kind in (has_tumour[has_tumour].index, has_tumour[~has_tumour].index):
        patients = random.permutation(np.array(of_kind))
        parts = _proportional(len(patients), PATIENT_FRACTIONS)
        assigned |= dict(zip(patients.tolist(), np.repeat(SPLITS, parts), strict=True))
    split = check_patient_split(_checked(table.assign(split=_patients(table).map(assigned))))
    if 0 < has_tumour.sum() < len(SPLITS):
        warnings.warn(
            f"{has_tumour.sum()} patient(s) with a tumour are too few for three sides: all are in "
            "train, so no score for tumours can be had from validation or test; add patients",
            stacklevel=2,
        )
    return split


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
            "only, use split_patients"
        )
    return table


def save_split(table: pd.DataFrame, path: Path, *, audit: object | None = None) -> Path:
    """Write a table with its split as CSV, atomically; file names stand for paths.

    ``audit``, what :func:`lits_helpers.audit.audit_split` found, goes beside it to
    ``<stem>_audit.json``. Without one an older audit there is removed: it was of another split.
    """
    path = Path(path)
    names = {column: table[column].map(os.path.basename) for column in ("image_path", "mask_path")}
    with atomic_path(path) as temporary:
        table.assign(**names).to_csv(temporary, index=False)
    audited = path.with_name(f"{path.stem}_audit.json")
    if audit is None:
        audited.unlink(missing_ok=True)
    else:
        with atomic_path(audited) as temporary:
            temporary.write_text(json.dumps(audit.as_dict(), indent=1) + "\n")
    return path
