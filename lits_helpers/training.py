"""Compile, fit, save, resume: from the slice table to a trained network in a run folder.

A run folder belongs to one choice of settings, data and split, and holds

- ``best.keras``: the network of the epoch with the lowest validation loss,
- ``history.csv``: a row an epoch,
- ``weights/epoch-001.weights.h5`` ...: every epoch's weights,
- ``last/epoch-001.keras``: network and optimizer after the last finished epoch, to go on from,
- ``split.csv`` and ``run.json``: which slices were used, and how.

Each file is written under another name and moved, so that a run killed at any moment goes on from
its last finished epoch.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm.auto import tqdm

from . import __version__, metrics
from .augmentation import Augmentation
from .files import DataError, atomic_path, fingerprint, shown
from .generators import batches, decode_slices
from .model import unet
from .settings import Settings
from .splits import check_patient_split, save_split

MONITORED = "val_loss"
# Ours: twice the plateau's patience, so that a lowered rate gets its chance first.
EARLY_STOPPING_PATIENCE = 10
REPORT_AUGMENTATION = Augmentation()
# "plateau" is what the report used, "step" what it defined besides (its section 4.4); "cosine" is
# ours: a short run ends at a small learning rate without waiting for a plateau, and starts at one,
# because at full rate the first steps on real slices drove the network to predict nothing at all.
WARM_UP_EPOCHS = 4
SCHEDULES = {
    "plateau": lambda settings: keras.callbacks.ReduceLROnPlateau(
        MONITORED, factor=0.1, patience=5, min_lr=1e-11
    ),
    "step": lambda settings: keras.callbacks.LearningRateScheduler(
        lambda epoch: 1e-4 if epoch < 30 else 1e-5
    ),
    "cosine": lambda settings: keras.callbacks.LearningRateScheduler(
        lambda epoch: settings.learning_rate
        * min(1.0, (epoch + 1) / WARM_UP_EPOCHS)
        * (1 + np.cos(np.pi * epoch / settings.epochs)) / 2
    ),
}


def precision_policy() -> tuple[str, str]:
    """The Keras dtype policy that this machine gains from, and why.

    Returns
    -------
    policy, reason : str
        ``mixed_bfloat16`` on GPUs from compute capability 8 and CPUs with bfloat16 arithmetic,
        ``mixed_float16`` on GPUs of capability 7 (a T4), else ``float32``.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        words = f"GPU of compute capability {capability[0]}.{capability[1]}"
        if capability >= (8, 0):
            return "mixed_bfloat16", f"{words} has bfloat16 units"
        if capability >= (7, 0):
            return "mixed_float16", f"{words} has float16 units; losses are scaled"
        return "float32", f"{words} has no 16-bit units"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        flags = ""
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return "mixed_bfloat16", "CPU with bfloat16 instructions"
    return "float32", "CPU without bfloat16 instructions"


def _strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine side by side, where there are several."""
    several = len(tf.config.list_physical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


def compiled_unet(settings: Settings) -> keras.Model:
    """The report's network, loss and optimizer, ready to be trained.

    Adam; binary cross-entropy plus Dice; the report's metrics, and pooled Dice and IoU at its
    threshold of 0.30. Computes in :func:`precision_policy`; Keras's own policy stays as it was.
    """
    size = settings.image_size
    policy, usual = precision_policy()[0], keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = unet(
            (size, size, 3),
            filters=settings.filters, depth=settings.depth,
            momentum=settings.momentum, prior=settings.prior,
        )
    finally:
        keras.config.set_dtype_policy(usual)
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    if policy == "mixed_float16":
        # Keras would do so by itself, but leave it out of the checkpoint: a run that went on in
        # another process would start with an empty optimizer, and without scaled losses.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer=optimizer,
        loss=metrics.bce_dice_loss,
        metrics=[
            keras.metrics.BinaryAccuracy(name="accuracy"),
            metrics.dice_coef,
            metrics.iou,
            metrics.PooledDice(name="pooled_dice"),
            metrics.PooledIoU(name="pooled_iou"),
        ],
        jit_compile=bool(tf.config.list_physical_devices("GPU")),  # XLA makes the CPU slower
    )
    return model


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


def train(
    settings: Settings,
    table: pd.DataFrame,
    *,
    augmentation: Augmentation = REPORT_AUGMENTATION,
    minutes: float | None = None,
) -> Path:
    """Train the report's U-Net, or go on training it; skipped where that is already done.

    Parameters
    ----------
    settings : Settings
    table : DataFrame
        Slice table with ``split``; ``train`` and ``validation`` are used.
    augmentation : Augmentation
        Of the training slices.
    minutes : float, optional
        Stop before the epoch that would pass this time; the next call goes on.

    Returns
    -------
    Path
        The run folder, described at the top of this module.

    Raises
    ------
    DataError
        If a split is missing, a file cannot be read or written, or the validation loss is no
        number any more; the epochs before stay.
    """
    if settings.schedule not in SCHEDULES:
        raise DataError(f"schedule is {settings.schedule!r}: choose from {sorted(SCHEDULES)}")
    folder = run_folder(settings, table, augmentation)
    history = read_history(folder)
    if is_finished(history, settings.epochs):
        return folder
    keras.utils.set_random_seed(settings.seed)
    policy, reason = precision_policy()
    print(f"{policy}: {reason}. Run folder: {shown(folder)}")
    save_split(table, folder / "split.csv")
    _write_description(folder, settings, table, policy)

    cache = decode_slices(table, settings.image_size, settings.output_root)
    sides = {side: table[table.split == side] for side in ("train", "validation")}
    training = batches(
        cache, sides["train"], settings.batch_size,
        augmentation=augmentation, balanced=True, seed=settings.seed, first_epoch=len(history),
    )
    with _strategy().scope():
        if len(history):
            model = load_checkpoint(_last(folder, len(history)), settings.image_size)
        else:
            model = compiled_unet(settings)
    stopping = keras.callbacks.EarlyStopping(MONITORED, patience=EARLY_STOPPING_PATIENCE)
    adapting = [stopping, SCHEDULES[settings.schedule](settings)]
    model.fit(
        training,
        validation_data=batches(cache, sides["validation"], settings.batch_size),
        initial_epoch=len(history),
        epochs=settings.epochs,
        callbacks=[*adapting, _RunFolder(folder, history, adapting, minutes)],
        shuffle=False,  # the batches are shuffled already; else Keras warns
        verbose=0,
    )
    return folder


class _RunFolder(keras.callbacks.Callback):
    """Saves every epoch into the run folder, shows progress, and keeps to the time budget.

    Parameters
    ----------
    folder : Path
    history : DataFrame
        Rows of the epochs that were finished before.
    adapting : list of Callback
        Whose state follows from the history alone, so it is rebuilt by showing that to them.
    minutes : float or None
    """

    def __init__(self, folder, history, adapting, minutes):
        super().__init__()
        self.folder, self.adapting = folder, adapting
        self.rows = history.to_dict("records")
        self.deadline = np.inf if minutes is None else time.monotonic() + 60 * minutes

    def on_train_begin(self, logs=None):
        rate = self.model.optimizer.learning_rate.numpy()
        for row in self.rows:
            # Else the plateau's lower bound, met too early from today's rate, spoils its count.
            self.model.optimizer.learning_rate = row["learning_rate"]
            for callback in self.adapting:
                callback.on_epoch_end(row["epoch"] - 1, dict(row))  # they write into it
        self.model.optimizer.learning_rate = rate
        # A compiled model's weight file holds the optimizer too: three times the size.
        self.weights_only = keras.Model(self.model.inputs, self.model.outputs)
        steps, epochs = self.params["steps"], self.params["epochs"]
        self.bar = tqdm(
            total=steps * epochs, initial=steps * len(self.rows), desc="training", unit="step"
        )

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic()
        # The plateau lowers the rate before this callback's on_epoch_end: for the next epoch.
        self.rate = float(self.model.optimizer.learning_rate.numpy())

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        now = time.monotonic()
        number = epoch + 1
        row = {"epoch": number, **logs, "learning_rate": self.rate, "seconds": now - self.started}
        if not np.isfinite(row[MONITORED]):  # no epoch would ever be better than it, nor worse
            raise DataError(
                f"{self.folder}: {MONITORED} is {row[MONITORED]} after epoch {number}, the network "
                f"diverged: take a smaller learning_rate than {self.rate:g}"
            )
        is_best = all(row[MONITORED] < earlier[MONITORED] for earlier in self.rows)
        self.rows.append(row)
        self.bar.set_postfix(epoch=number, val_loss=row[MONITORED], val_dice=row["val_pooled_dice"])

        with atomic_path(self.folder / "weights" / f"epoch-{number:03d}.weights.h5") as temporary:
            self.weights_only.save_weights(temporary)
        if is_best:
            with atomic_path(self.folder / "best.keras") as temporary:
                self.model.save(temporary)
        with atomic_path(self.folder / "history.csv") as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)
        # Last of all: an epoch counts as finished when its state is there to go on from.
        with atomic_path(_last(self.folder, number)) as temporary:
            self.model.save(temporary)
        _last(self.folder, number - 1).unlink(missing_ok=True)

        if number < self.params["epochs"] and now + (now - self.started) > self.deadline:
            self.model.stop_training = True
            print(f"time budget used up after epoch {number}: call train again to go on")

    def on_train_end(self, logs=None):
        self.bar.close()


def _last(folder: Path, epoch: int) -> Path:
    return folder / "last" / f"epoch-{epoch:03d}.keras"


def is_finished(history: pd.DataFrame, epochs: int) -> bool:
    """Whether a run with this history (:func:`read_history`) did all its epochs, or stopped early for good."""
    if not len(history):
        return False
    since_best = len(history) - 1 - int(np.argmin(history[MONITORED]))
    return len(history) >= epochs or since_best >= EARLY_STOPPING_PATIENCE


def read_history(folder: Path) -> pd.DataFrame:
    """The finished epochs of a run folder, a row each; no rows where there are none.

    Columns: epoch (from 1), loss, val_loss, accuracy, dice_coef, iou, pooled_dice, pooled_iou,
    each with its ``val_`` twin, learning_rate, seconds. The metrics are those of
    :mod:`lits_helpers.metrics`; accuracy is the share of pixels on the right side of 0.5.
    """
    path = Path(folder) / "history.csv"
    history = pd.read_csv(path) if path.exists() else pd.DataFrame()
    # A run killed between writing the history and the state has one row too many.
    finished = [n for n in range(len(history), 0, -1) if _last(Path(folder), n).exists()]
    return history[: finished[0] if finished else 0]


def load_checkpoint(path: Path, image_size: int) -> keras.Model:
    """Load a network that :func:`train` saved; code hidden in the file is not run.

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
    expected = (None, image_size, image_size, 3), (None, image_size, image_size, 1)
    if (found := (model.input_shape, model.output_shape)) != expected:
        raise DataError(
            f"{path}: a network from {found[0]} to {found[1]}, expected {expected[0]} to "
            f"{expected[1]}: it is of another profile or architecture, train anew"
        )
    return model


def _write_description(
    folder: Path, settings: Settings, table: pd.DataFrame, policy: str
) -> None:
    slices = table.groupby("split").size()
    volumes = table.groupby("split").volume.nunique()
    description = {
        "data": settings.data_label,
        "split": split_name(table),
        "slices": slices.to_dict(),
        "volumes": volumes.to_dict(),
        "dtype_policy": policy,
        "versions": {
            "lits_helpers": __version__, "tensorflow": tf.__version__, "keras": keras.__version__,
        },
        "settings": {name: str(value) for name, value in dataclasses.asdict(settings).items()},
    }
    with atomic_path(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(description, indent=2))
