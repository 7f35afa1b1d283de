"""Learning rates that follow a clock, for trainings that end when their time is over.

The clocks differ in what they count: all time, the time of steps alone, or the processor's.
"""

from __future__ import annotations

import time

import keras
import numpy as np
import pandas as pd

WARM_UP = 0.04  # of a stage's time


class ClockSchedule(keras.callbacks.Callback):
    """Move the learning rate by the clock: up in the first moments, then down a cosine to 0 when the
    time is over, and stop there.

    Parameters
    ----------
    learning_rate : float
        The highest.
    seconds, spent : float
        All the time, and what earlier calls used of it.
    """

    def __init__(self, learning_rate: float, seconds: float, spent: float):
        super().__init__()
        self.highest, self.seconds, self.spent = learning_rate, seconds, spent

    def on_train_begin(self, logs=None):
        self.started = time.monotonic()

    def progress(self) -> float:
        """0 at the start, 1 when the time is over."""
        return min(1.0, (self.spent + time.monotonic() - self.started) / self.seconds)

    def on_train_batch_begin(self, batch, logs=None):
        done = self.progress()
        rising = min(1.0, (done + 1e-3) / WARM_UP)
        self.model.optimizer.learning_rate = self.highest * rising * (1 + np.cos(np.pi * done)) / 2

    def on_train_batch_end(self, batch, logs=None):
        if self.progress() >= 1:
            self.model.stop_training = True


class StepClock(ClockSchedule):
    """A :class:`ClockSchedule` by a clock that runs only while there is training.

    That is in steps, and while they wait for slices. The clock stands still in the first step of a call,
    which compiles the network, and while an epoch is validated and stored. Each epoch's row in the history
    gets ``trained_seconds`` and ``trained_steps``, both since the start.

    Parameters
    ----------
    learning_rate : float
        The highest.
    seconds : float
        All the time there is.
    history : DataFrame
        Of the epochs that were finished before.
    """

    def __init__(self, learning_rate: float, seconds: float, history: pd.DataFrame):
        last = history.iloc[-1] if len(history) else pd.Series({"trained_seconds": 0.0, "trained_steps": 0})
        super().__init__(learning_rate, seconds, float(last.trained_seconds))
        self.steps = int(last.trained_steps)
        self.since: float | None = None  # the clock stands still

    def on_train_begin(self, logs=None):
        self.since = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.since is not None:
            self.since = time.monotonic()

    def progress(self) -> float:
        """0 at the start, 1 when the time is over."""
        running = 0.0 if self.since is None else time.monotonic() - self.since
        return min(1.0, (self.spent + running) / self.seconds)

    def on_train_batch_end(self, batch, logs=None):
        now = time.monotonic()
        if self.since is not None:
            self.spent += now - self.since
            self.steps += 1
        self.since = now
        if self.spent >= self.seconds:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        logs |= {"trained_seconds": self.spent, "trained_steps": self.steps}


class ProcessorClock(ClockSchedule):
    """A clock for seconds of training: it starts with the second batch, as before the first TensorFlow traces
    the network for seconds, and waits where other programs have the processor."""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.ticking = False

    def on_train_batch_end(self, batch, logs=None):
        if not self.ticking:
            self.started, self.worked, self.ticking = time.monotonic(), time.process_time(), True
        super().on_train_batch_end(batch, logs)

    def progress(self) -> float:
        elapsed = min(time.monotonic() - self.started, time.process_time() - self.worked) if self.ticking else 0.0
        return min(1.0, (self.spent + elapsed) / self.seconds)
