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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm.auto import tqdm

from . import metrics
from .blocks import segmenter
from .losses import class_loss
from .augmentation import Augmentation
from .devices import precision_policy, strategy, train_in_parts
from .files import DataError, atomic_path, require_free_space, shown, write_table
from .generators import SliceCache, batches, decode_slices
from .model import unet
from .recipes import RECIPES
from .runs import (
    MONITORED,
    REPORT_AUGMENTATION,
    claimed,
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
    """The recipe's network, loss and optimizer, ready to be trained.

    ``"report"``: the report's U-Net, Adam, binary cross-entropy plus Dice; the report's metrics, and
    pooled Dice and IoU at its threshold of 0.30. ``"fast"``: a segmenter of three classes at half
    resolution (:func:`lits_helpers.blocks.segmenter`), :func:`lits_helpers.losses.class_loss`, and the
    tumour's pooled Dice alone.
    """
    size = settings.image_size
    if RECIPES[settings.recipe].classes == 1:
        return compiled(
            lambda: unet(
                (size, size, 3),
                filters=settings.filters, depth=settings.depth, momentum=settings.momentum, prior=settings.prior,
            ),
            learning_rate=settings.learning_rate, loss=metrics.bce_dice_loss, metric_list=[
                keras.metrics.BinaryAccuracy(name="accuracy"),
                metrics.dice_coef,
                metrics.iou,
                metrics.PooledDice(name="pooled_dice"),
                metrics.PooledIoU(name="pooled_iou"),
            ],
        )
    return class_network(settings)


def class_network(settings: Settings) -> keras.Model:
    """A segmenter of background, liver and tumour, compiled with :func:`lits_helpers.losses.class_loss`.

    Of metrics it has the tumour's pooled Dice alone: the report's five, of three classes, took a tenth of the
    time of a small network's step.
    """
    size = settings.image_size
    return compiled(
        lambda: segmenter((size, size, 3), filters=settings.filters, depth=settings.depth),
        learning_rate=settings.learning_rate, loss=class_loss, metric_list=[metrics.TumourDice()],
    )


def compiled(
    network: Callable[[], keras.Model], *, learning_rate: float, loss: Callable, metric_list: list
) -> keras.Model:
    """Build a network in :func:`precision_policy` (Keras's own stays as it was) and compile it with Adam."""
    policy, usual = precision_policy()[0], keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy(usual)
    optimizer = keras.optimizers.Adam(learning_rate)
    if policy == "mixed_float16":
        # Keras would do so by itself, but leave it out of the checkpoint: a run that went on in
        # another process would start with an empty optimizer, and without scaled losses.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer=optimizer, loss=loss, metrics=metric_list,
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
    """Train the recipe's network, or go on training it; skipped where that is already done.

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
        If the recipe trains two networks, a split is missing, a file cannot be read or written, the
        disk too full for another epoch, the memory too small for a single slice, another process
        trains this run, or the validation loss is no number any more; the epochs before stay.
    """
    return run(slice_task(settings, table, augmentation=augmentation), minutes=minutes)


@dataclass(frozen=True, eq=False)
class Task:
    """A network to be trained, and what with; :func:`run` does it.

    Attributes
    ----------
    folder : Path
        The run folder.
    settings : Settings
    table : DataFrame
        With ``split``; stored in the run folder.
    size, batch_size, epochs : int
        Rows and columns the network sees; slices a step; passes over ``training``.
    network : function
        Builds the network, compiled.
    training : function of (first_epoch, replicas)
        Its batches from an epoch on, which ``replicas`` devices share.
    validation : function of (replicas)
        Batches of the validation slices.
    adapting : function of (seconds)
        Callbacks that move the learning rate or stop the training, given the seconds that
        the epochs before took. Their state follows from the history alone.
    seconds : float or None
        All the time the run gets, where its schedule goes by the clock; then it is finished when that
        is used up.
    """

    folder: Path
    settings: Settings
    table: pd.DataFrame
    size: int
    batch_size: int
    epochs: int
    network: Callable[[], keras.Model]
    training: Callable[[int, int], tf.data.Dataset]
    validation: Callable[[int], tf.data.Dataset]
    adapting: Callable[[float], list[keras.callbacks.Callback]]
    seconds: float | None = None


def slice_task(settings: Settings, table: pd.DataFrame, *, augmentation: Augmentation) -> Task:
    """Training on whole slices, as the settings say; DataError for a recipe of two networks."""
    if RECIPES[settings.recipe].cascade:
        raise DataError(
            f"recipe {settings.recipe!r} trains two networks: call cascade.train_cascade, or run "
            f"`train --recipe {settings.recipe}`"
        )
    if settings.schedule not in SCHEDULES:
        raise DataError(f"schedule is {settings.schedule!r}: choose from {sorted(SCHEDULES)}")
    sides = {side: table[table.split == side] for side in ("train", "validation")}
    classes = RECIPES[settings.recipe].classes

    def cache() -> SliceCache:
        return decode_slices(table, settings.image_size, settings.output_root)

    def training(first_epoch: int, replicas: int) -> tf.data.Dataset:
        found = batches(
            cache(), sides["train"], settings.batch_size,
            augmentation=augmentation, balanced=True, seed=settings.seed, first_epoch=first_epoch, classes=classes,
        )
        # TensorFlow wants equal parts, none empty: short batches are left out. (Keras also looks at a
        # first batch ahead of time here, so draws are those of one epoch later than on one GPU, in a
        # resumed run as in an undisturbed one.)
        return found if replicas == 1 else found.take(max(1, len(sides["train"]) // settings.batch_size))

    def validation(replicas: int) -> tf.data.Dataset:
        return batches(cache(), shared_by(sides["validation"], replicas), settings.batch_size, classes=classes)

    def adapting(seconds: float) -> list[keras.callbacks.Callback]:
        stopping = keras.callbacks.EarlyStopping(MONITORED, patience=EARLY_STOPPING_PATIENCE)
        return [stopping, SCHEDULES[settings.schedule](settings)]

    return Task(
        folder=run_folder(settings, table, augmentation), settings=settings, table=table,
        size=settings.image_size, batch_size=settings.batch_size, epochs=settings.epochs,
        network=lambda: compiled_unet(settings), training=training, validation=validation, adapting=adapting,
    )


def passes(
    cache: SliceCache, rows: pd.DataFrame, settings: Settings, number: int, **choices: object
) -> Callable[[int, int], tf.data.Dataset]:
    """:attr:`Task.training` whose epoch is ``number`` passes over the rows.

    Half of the slices show tumour. Batches are whole, as devices share them; ``choices`` are those of
    :func:`lits_helpers.generators.batches`.
    """
    def training(first_epoch: int, replicas: int) -> tf.data.Dataset:
        one_pass = batches(
            cache, rows, settings.batch_size, balanced=True, seed=settings.seed, first_epoch=number * first_epoch, **choices
        )
        return one_pass.take(max(1, len(rows) // settings.batch_size)).repeat(number)

    return training


def shared_by(rows: pd.DataFrame, replicas: int) -> pd.DataFrame:
    """Rows that make equal parts for so many devices, none of them empty: the last is repeated."""
    whole = -(-len(rows) // replicas) * replicas
    return rows.iloc[np.minimum(np.arange(whole), len(rows) - 1)]


def run(task: Task, *, minutes: float | None = None) -> Path:
    """Do a task, or go on with it; returns its run folder. Errors and ``minutes`` are those of :func:`train`."""
    deadline = np.inf if minutes is None else time.monotonic() + 60 * minutes
    settings, folder = task.settings, task.folder
    with claimed(folder):
        settle(folder)
        if _is_done(task, read_history(folder)):
            return folder
        policy, reason = precision_policy()
        print(f"{policy}: {reason}. Run folder: {shown(folder)}")
        save_split(task.table, folder / "split.csv")
        parts, devices = parts_per_batch(folder), strategy()
        if task.batch_size % devices.num_replicas_in_sync:
            raise DataError(
                f"batch_size {task.batch_size} does not divide among {devices.num_replicas_in_sync} GPUs: take a "
                "multiple, or show TensorFlow fewer with CUDA_VISIBLE_DEVICES"
            )
        most_parts = -(-task.batch_size // devices.num_replicas_in_sync)
        while True:
            write_description(folder, settings, task.table, policy=policy, parts=parts)
            try:
                _fit(task, devices, parts=parts, deadline=deadline)
                return folder
            except tf.errors.ResourceExhaustedError as error:
                if parts >= most_parts:
                    raise DataError(
                        f"out of memory with one slice at a time, {task.size} x {task.size} "
                        f"and {settings.filters} filters: take fewer of either, or end what else uses the GPU"
                    ) from error
            # Out of the except block: the error keeps the network that did not fit in memory.
            gc.collect()
            parts = min(2 * parts, most_parts)
            print(
                f"out of memory: batches of {task.batch_size} are taken in {parts} parts from here on. Steps and "
                "schedule stay; batch normalisation and Dice in the loss see a part, so scores can differ a little"
            )


def _fit(task: Task, devices: tf.distribute.Strategy, *, parts: int, deadline: float) -> None:
    """Train from the last finished epoch on, until the last, the deadline or early stopping."""
    history = read_history(task.folder)
    keras.utils.set_random_seed(task.settings.seed)
    replicas = devices.num_replicas_in_sync
    with devices.scope():
        if len(history):
            model = load_checkpoint(state_path(task.folder, len(history)), task.size)
        else:
            model = task.network()
    if parts > 1:
        train_in_parts(model, parts)
    adapting = task.adapting(history.seconds.sum() if len(history) else 0.0)
    model.fit(
        task.training(len(history), replicas),
        validation_data=task.validation(replicas),
        initial_epoch=len(history),
        epochs=task.epochs,
        callbacks=[*adapting, _RunFolder(task.folder, history, adapting, deadline, by_clock=task.seconds is not None)],
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
    by_clock : bool
        Whether time ends the run, so that nobody knows how many steps there will be.
    """

    def __init__(self, folder, history, adapting, deadline, by_clock=False):
        super().__init__()
        self.folder, self.adapting, self.deadline, self.by_clock = folder, adapting, deadline, by_clock
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
            total=None if self.by_clock else steps * epochs, initial=steps * len(self.rows),
            desc="training", unit="step",
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
        write_table(self.folder / "history.csv", pd.DataFrame(self.rows))
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


def _is_done(task: Task, history: pd.DataFrame) -> bool:
    if task.seconds is None:
        return is_finished(history, task.epochs)
    # What is left is less than another epoch takes.
    return len(history) > 0 and history.seconds.sum() + history.seconds.iloc[-1] / 2 > task.seconds
