"""Cross-validation by patient: train each fold, test it on patients it has not seen, and go on after a stop.

Below the output root, ``crossvalidation/`` holds the folds, a CSV for each data root and number of
folds, and the slice scores of every finished fold. A fold with scores is not trained again, even
where its run folder has been removed to make room; a fold that was being trained goes on from its
last finished epoch, as :func:`lits_helpers.training.train` does.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd

from .files import fingerprint, read_table, write_table
from .generators import decode_slices
from .inference import evaluate_slices, predict_slices
from .scoring import patient_scores
from .settings import Settings
from .splits import fold_split, load_folds
from .training import is_finished, load_checkpoint, read_history, run_folder, train

FOLDS = {"tiny": 3, "full": 5}  # by profile
_COUNTS = ("volume", "slice", "truth_pixels", "predicted_pixels", "intersection", "pixels", "correct_pixels")
_SCORES = dict.fromkeys(_COUNTS, int) | {"dice": float, "iou": float}


def patients_of(slices: pd.DataFrame) -> pd.DataFrame:
    """Scores of every patient by a network that was trained without it, of :func:`score_folds`.

    Parameters
    ----------
    slices : DataFrame
        Of :func:`score_folds`.

    Returns
    -------
    DataFrame, one row a volume
        :func:`lits_helpers.scoring.patient_scores` with ``fold``, ordered by fold and volume; of
        the finished folds alone where the time did not suffice. A fold each is a run for
        :func:`lits_helpers.uncertainty.summarise_runs`:
        ``summarise_runs(dict(list(patients.groupby("fold"))))``.
    """
    if slices.empty:
        return slices
    patients = patient_scores(slices)
    patients["fold"] = patients.volume.map(slices.groupby("volume").fold.first())
    return patients.sort_values(["fold", "volume"], ignore_index=True)


def score_folds(
    settings: Settings, table: pd.DataFrame, *, folds: int | None = None, minutes: float | None = None
) -> pd.DataFrame:
    """Train and test fold after fold, or go on with it; finished folds are read, not trained again.

    Parameters
    ----------
    settings : Settings
        Of each fold's training. ``seed`` changes the training alone: the folds, and who validates
        within them, stay the same.
    table : DataFrame
        Slice table, with ``patient`` where several volumes are one patient's. Its column ``fold``
        is used where there is one; else folds are made once and stored
        (:func:`lits_helpers.splits.load_folds`).
    folds : int, optional
        3 in the tiny profile and 5 in the full one by default.
    minutes : float, optional
        Stop after about this time; the next call goes on.

    Returns
    -------
    DataFrame, one row a slice
        :func:`lits_helpers.scoring.slice_scores` of all test slices, at native resolution and the
        report's threshold, with ``fold``. Of the finished folds alone, which may be none, where
        the time did not suffice: then a line is printed.

    Raises
    ------
    DataError
        If stored folds are of another table, patients are too few, or training cannot go on.
    """
    deadline = np.inf if minutes is None else time.monotonic() + 60 * minutes
    if "fold" not in table:
        folds = FOLDS[settings.profile] if folds is None else folds
        table = load_folds(table, _folds_file(settings, folds), folds=folds)
    # All splits first: one that cannot be made is to be known before hours of training.
    splits = {fold: fold_split(table, fold) for fold in sorted(set(table.fold.tolist()))}
    found, has_trained = [], False
    for fold, split in splits.items():
        stored = _scores_file(settings, split, fold, len(splits))
        if not stored.exists():
            left = deadline - time.monotonic()
            out_of_time = has_trained and left <= 0  # each call brings one epoch at least
            has_trained = True
            budget = None if minutes is None else left / 60
            if out_of_time or not _score_fold(settings, split, stored, minutes=budget):
                print(f"time used up in fold {fold} of {len(splits)}: call again to go on")
                break
        found.append(read_table(stored, _SCORES).assign(fold=fold))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _folds_file(settings: Settings, folds: int) -> Path:
    key = fingerprint([], settings.data_root, settings.layout)[:8]
    return settings.output_root / "crossvalidation" / f"folds-{folds}-{key}.csv"


def _scores_file(settings: Settings, split: pd.DataFrame, fold: int, folds: int) -> Path:
    """Named after the run, and its epochs: with more of them the run folder stays, the scores do not."""
    run = run_folder(settings, split).name
    return settings.output_root / "crossvalidation" / f"{run}-epochs-{settings.epochs}-fold-{fold}-of-{folds}.csv"


def _score_fold(settings: Settings, split: pd.DataFrame, stored: Path, *, minutes: float | None) -> bool:
    """Train, test and store one fold's slice scores; False where the time did not suffice."""
    folder = train(settings, split, minutes=minutes)
    if not is_finished(read_history(folder), settings.epochs):
        return False
    model = load_checkpoint(folder / "best.keras", settings.image_size)
    tested = split[split.split == "test"]
    cache = decode_slices(split, settings.image_size, settings.output_root)
    write_table(stored, evaluate_slices(tested, predict_slices(model, cache, tested)))
    return True
