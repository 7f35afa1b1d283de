"""Compile, fit, save, resume: from the slice table to a trained network in a run folder.

A run folder belongs to one choice of settings, data and split, and holds

- ``best.keras``: the network of the epoch with the lowest validation loss,
- ``history.csv``: a row an epoch,
- ``weights/epoch-001.weights.h5`` ...: every epoch's weights,
- ``last/epoch-001.keras``: network and optimizer after the last finished epoch, to go on from,
- ``split.csv`` and ``run.json``: which slices were used, and how.

A run killed at any moment goes on from its last finished epoch (:mod:`lits_helpers.runs`) and ends
as if it had not been: optimizer and loss scale are in the state, the schedule follows from the
history, and batches from the seed and the number of the epoch. Nothing else is random.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm.auto import tqdm

from . import metrics
from .augmentation import Augmentation
from .devices import precision_policy, strategy, train_in_parts
from .files import DataError, atomic_path, require_free_space, shown
from .generators import SliceCache, batches, decode_slices
from .model import unet
from .runs import (
    MONITORED,
    REPORT_AUGMENTATION,
    load_checkpoint,
    parts_per_batch,
    read_history,
    run_folder,
    settle,
    split_name,
    state_path,
    write_description,
)
from .settings import Settings
from .splits import save_split

__all__ = [
    "SCHEDULES", "compiled_unet", "is_finished", "load_checkpoint", "precision_policy", "read_history",
    "run_folder", "split_name", "train",
]

# Ours: twice the plateau's patience, so that a lowered rate gets its chance first.
EARLY_STOPPING_PATIENCE = 10
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

    Where the batch does not fit the memory of a GPU, it is halved, said aloud and remembered in
    the run folder: gradients of its parts are added up, and steps and schedule stay what they were
    (:func:`lits_helpers.devices.train_in_parts` says what does not).

    Returns
    -------
    Path
        The run folder, described at the top of this module.

    Raises
    ------
    DataError
        If a split is missing, a file cannot be read or written, the disk too full for another
        epoch, the memory too small for a single slice, or the validation loss no number any
        more; the epochs before stay.
    """
    if settings.schedule not in SCHEDULES:
        raise DataError(f"schedule is {settings.schedule!r}: choose from {sorted(SCHEDULES)}")
    deadline = np.inf if minutes is None else time.monotonic() + 60 * minutes
    folder = run_folder(settings, table, augmentation)
    settle(folder)
    if is_finished(read_history(folder), settings.epochs):
        return folder
    policy, reason = precision_policy()
    print(f"{policy}: {reason}. Run folder: {shown(folder)}")
    save_split(table, folder / "split.csv")
    cache = decode_slices(table, settings.image_size, settings.output_root)
    parts, devices = parts_per_batch(folder), strategy()
    if settings.batch_size % devices.num_replicas_in_sync:
        raise DataError(
            f"batch_size {settings.batch_size} does not divide among {devices.num_replicas_in_sync} GPUs: take a "
            "multiple, or show TensorFlow fewer with CUDA_VISIBLE_DEVICES"
        )
    most_parts = -(-settings.batch_size // devices.num_replicas_in_sync)
    while True:
        write_description(folder, settings, table, policy=policy, parts=parts)
        try:
            _fit(settings, table, cache, folder, devices, augmentation=augmentation, parts=parts, deadline=deadline)
            return folder
        except tf.errors.ResourceExhaustedError as error:
            if parts >= most_parts:
                raise DataError(
                    f"out of memory with one slice at a time, {settings.image_size} x {settings.image_size} "
                    f"and {settings.filters} filters: take fewer of either, or end what else uses the GPU"
                ) from error
        # Out of the except block: the error keeps the network that did not fit in memory.
        gc.collect()
        parts = min(2 * parts, most_parts)
        print(
            f"out of memory: batches of {settings.batch_size} are taken in {parts} parts from here on. Steps and "
            "schedule stay; batch normalisation and Dice in the loss see a part, so scores can differ a little"
        )


def _fit(
    settings: Settings, table: pd.DataFrame, cache: SliceCache, folder: Path, devices: tf.distribute.Strategy,
    *, augmentation: Augmentation, parts: int, deadline: float,
) -> None:
    """Train from the last finished epoch on, until the last, the deadline or early stopping."""
    history = read_history(folder)
    keras.utils.set_random_seed(settings.seed)
    sides = {side: table[table.split == side] for side in ("train", "validation")}
    training = batches(
        cache, sides["train"], settings.batch_size,
        augmentation=augmentation, balanced=True, seed=settings.seed, first_epoch=len(history),
    )
    replicas, validation = devices.num_replicas_in_sync, sides["validation"]
    if replicas > 1:
        # TensorFlow wants equal parts, none empty: short training batches are left out, and the last
        # validation slice is repeated. (Keras also looks at a first batch ahead of time here, so draws
        # are those of one epoch later than on one GPU, in a resumed run as in an undisturbed one.)
        training = training.take(max(1, len(sides["train"]) // settings.batch_size))
        whole = -(-len(validation) // replicas) * replicas
        validation = validation.iloc[np.minimum(np.arange(whole), len(validation) - 1)]
    with devices.scope():
        if len(history):
            model = load_checkpoint(state_path(folder, len(history)), settings.image_size)
        else:
            model = compiled_unet(settings)
    if parts > 1:
        train_in_parts(model, parts)
    stopping = keras.callbacks.EarlyStopping(MONITORED, patience=EARLY_STOPPING_PATIENCE)
    adapting = [stopping, SCHEDULES[settings.schedule](settings)]
    model.fit(
        training,
        validation_data=batches(cache, validation, settings.batch_size),
        initial_epoch=len(history),
        epochs=settings.epochs,
        callbacks=[*adapting, _RunFolder(folder, history, adapting, deadline)],
        shuffle=False,  # the batches are shuffled already; else Keras warns
        verbose=0,
    )


class _RunFolder(keras.callbacks.Callback):
    """Saves every epoch into the run folder, shows progress, and keeps to the time budget.

    Parameters
    ----------
    folder : Path
    history : DataFrame
        Rows of the epochs that were finished before.
    adapting : list of Callback
        Whose state follows from the history alone, so it is rebuilt by showing that to them.
    deadline : float
        Of ``time.monotonic``, in seconds.
    """

    def __init__(self, folder, history, adapting, deadline):
        super().__init__()
        self.folder, self.adapting, self.deadline = folder, adapting, deadline
        self.rows = history.to_dict("records")

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
        self._require_space()
        steps, epochs = self.params["steps"], self.params["epochs"]
        self.bar = tqdm(
            total=steps * epochs, initial=steps * len(self.rows), desc="training", unit="step"
        )

    def _require_space(self):
        """For the files of an epoch. HDF5 on a full disk can crash the process instead of failing."""
        # Bytes a parameter: 4 in the weights, 12 with Adam's two moments in state and best network.
        require_free_space(self.folder, 28 * self.model.count_params() + 1_000_000)

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
        self.rows.append(row)
        self.bar.set_postfix(epoch=number, val_loss=row[MONITORED], val_dice=row["val_pooled_dice"])

        self._require_space()
        with atomic_path(self.folder / "weights" / f"epoch-{number:03d}.weights.h5") as temporary:
            self.weights_only.save_weights(temporary)
        with atomic_path(state_path(self.folder, number)) as temporary:
            self.model.save(temporary)
        # The epoch is finished with its row, whose state is there; what follows from both, settle does.
        with atomic_path(self.folder / "history.csv") as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)
        settle(self.folder)

        if number < self.params["epochs"] and now + (now - self.started) > self.deadline:
            self.model.stop_training = True
            print(f"time budget used up after epoch {number}: call train again to go on")

    def on_train_end(self, logs=None):
        self.bar.close()


def is_finished(history: pd.DataFrame, epochs: int) -> bool:
    """Whether a run with this history (:func:`read_history`) did all its epochs, or stopped early for good."""
    if not len(history):
        return False
    since_best = len(history) - 1 - int(np.argmin(history[MONITORED]))
    return len(history) >= epochs or since_best >= EARLY_STOPPING_PATIENCE


