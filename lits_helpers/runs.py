"""A run folder: which run it belongs to, what it holds, and how it is read after a kill at any moment.

Each file is written under another name and moved. A row of ``history.csv`` makes an epoch a
finished one: the state to go on from is written before it, and ``best.keras`` is copied from that
state after it, so that :func:`settle` can always make up for what a kill left out.
"""

from __future__ import annotations

import dataclasses
import errno
import filecmp
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from . import __version__
from . import blocks as _blocks, losses as _losses, metrics as _metrics  # noqa: F401  saved networks name what is in them
from .augmentation import Augmentation
from .files import DataError, atomic_path, fingerprint, read_table, write_json
from .settings import Settings
from .splits import check_patient_split

MONITORED = "val_loss"
_HISTORY = {"epoch": int, MONITORED: float, "learning_rate": float, "seconds": float}
REPORT_AUGMENTATION = Augmentation()


def run_folder(
    settings: Settings, table: pd.DataFrame, augmentation: Augmentation = REPORT_AUGMENTATION
) -> Path:
    """Where the run with these settings, split and augmentation lies, below the output root."""
    choices = dataclasses.asdict(settings)
    del choices["output_root"], choices["data_root"], choices["epochs"]
    rows = table[["image_path", "split"]].to_csv(index=False)
    key = fingerprint([*table.image_path, *table.mask_path], sorted(choices.items()), augmentation, rows)
    kind = split_name(table).partition(" ")[0]
    return settings.output_root / "runs" / f"{settings.profile}-{kind}-{key[:8]}"


def split_name(table: pd.DataFrame) -> str:
    """``"patient split"`` or, where a volume lies on two sides, ``"slice split: leaks"``."""
    try:
        check_patient_split(table)
    except DataError:
        return "slice split: leaks"
    return "patient split"


def state_path(folder: Path, epoch: int) -> Path:
    """Where network and optimizer after an epoch (from 1) lie."""
    return folder / "last" / f"epoch-{epoch:03d}.keras"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Let no other process train in a run folder meanwhile. The system lets go of it however ours ends.

    Raises
    ------
    DataError
        If another process keeps it, for longer than a look at a finished run takes.
    """
    with ExitStack() as stack:
        # Where nothing can be written, or locked, nobody is kept out.
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(folder / ".claimed", "ab"))
            patience = time.monotonic() + 2
            while not _locked(file):
                if time.monotonic() > patience:
                    raise DataError(
                        f"{folder}: another process trains this run now: wait for its end and call again, or end it"
                    )
                time.sleep(0.1)
        yield


def _locked(file: IO) -> bool:
    """Lock an open file for as long as it is open, unless another process did."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def settle(folder: Path) -> None:
    """Finish what a kill left unfinished: the best network, older states."""
    history = read_history(folder)
    if finished := len(history):
        last, best = state_path(folder, finished), folder / "best.keras"
        if np.argmin(history[MONITORED]) == finished - 1 and not (best.exists() and filecmp.cmp(last, best)):
            with atomic_path(best) as temporary:
                shutil.copy2(last, temporary)  # its time as well: the same file at a glance
        for epoch in range(1, finished):
            state_path(folder, epoch).unlink(missing_ok=True)


def read_history(folder: Path) -> pd.DataFrame:
    """The finished epochs of a run folder, a row each; no rows where there are none.

    Columns: epoch (from 1), loss, val_loss, accuracy, dice_coef, iou, pooled_dice, pooled_iou,
    each with its ``val_`` twin, learning_rate, seconds. The metrics are those of
    :mod:`lits_helpers.metrics`; accuracy is the share of pixels on the right side of 0.5. Networks of
    three classes have pooled_dice alone, the tumour's.
    """
    path = Path(folder) / "history.csv"
    history = read_table(path, _HISTORY) if path.exists() else pd.DataFrame()
    if len(history) and not np.isfinite(history[list(_HISTORY)]).all(axis=None):
        raise DataError(f"{path}: cut short, or damaged: delete this file, and the run begins again")
    # Without their state, epochs cannot be gone on from.
    finished = [n for n in range(len(history), 0, -1) if state_path(Path(folder), n).exists()]
    return history[: finished[0] if finished else 0]


def load_checkpoint(path: Path, image_size: int) -> keras.Model:
    """Load a network that :func:`lits_helpers.training.train` saved; code hidden in the file is not run.

    Parameters
    ----------
    path : Path
        A ``.keras`` file.
    image_size : int
        Rows and columns that its input must have.

    Raises
    ------
    DataError
        If the file is missing, damaged, or holds another architecture.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint, train first (notebook 03, or `train`)")
    try:
        model = keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # Keras raises many kinds, from h5py's, zipfile's and its own
        raise DataError(
            f"{path}: not a checkpoint that can be loaded ({error}): train anew, or name another file"
        ) from error
    expected, other = ((None, image_size, image_size, channels) for channels in (3, 1))
    if model.input_shape != expected or model.output_shape not in (expected, other):
        raise DataError(
            f"{path}: a network from {model.input_shape} to {model.output_shape}, expected {expected} to "
            f"{other}, or 3 channels at the end: it is of another profile or architecture, train anew"
        )
    return model


def parts_per_batch(folder: Path) -> int:
    """In how many parts this run takes each batch, since it ran out of memory; 1 is whole."""
    path = folder / "run.json"
    if not path.exists():
        return 1
    try:
        return max(1, int(json.loads(path.read_text(encoding="utf-8")).get("parts_per_batch", 1)))
    except (AttributeError, OSError, OverflowError, TypeError, ValueError) as error:  # no object, no number, no JSON
        raise DataError(f"{path}: damaged ({error}): delete this file, it is written anew") from error


def write_description(
    folder: Path, settings: Settings, table: pd.DataFrame, *, policy: str, parts: int
) -> None:
    """Write ``run.json``: data, split, versions, settings, and how they were computed with."""
    slices = table.groupby("split").size()
    volumes = table.groupby("split").volume.nunique()
    description = {
        "data": settings.data_label,
        "split": split_name(table),
        "slices": slices.to_dict(),
        "volumes": volumes.to_dict(),
        "dtype_policy": policy,
        "parts_per_batch": parts,
        "versions": {
            "lits_helpers": __version__, "tensorflow": tf.__version__, "keras": keras.__version__,
        },
        "settings": {name: str(value) for name, value in dataclasses.asdict(settings).items()},
    }
    write_json(folder / "run.json", description)
