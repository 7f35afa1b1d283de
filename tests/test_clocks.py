"""Clocks whose time is set by hand: what each counts, and the learning rate that follows it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lits_helpers import clocks
from lits_helpers.clocks import StepClock


def test_the_learning_rate_rises_then_falls_with_the_clock_and_training_stops_at_the_end(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=lambda: clock.now))
    model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=None), stop_training=False)
    schedule = clocks.ClockSchedule(0.1, seconds=100, spent=20)
    schedule.set_model(model)
    schedule.on_train_begin()
    rates = []
    for now in (100, 130, 180):  # 20, 50 and 100 of 100 seconds
        clock.now = now
        schedule.on_train_batch_begin(0)
        rates.append(model.optimizer.learning_rate)
        assert not model.stop_training
        schedule.on_train_batch_end(0)
    assert rates == pytest.approx([0.1 * (1 + np.cos(0.2 * np.pi)) / 2, 0.05, 0], abs=1e-9)
    assert model.stop_training
    fresh = clocks.ClockSchedule(0.1, seconds=100, spent=0)
    fresh.set_model(model)
    fresh.on_train_begin()
    fresh.on_train_batch_begin(0)
    assert model.optimizer.learning_rate == pytest.approx(0.1 * 0.001 / clocks.WARM_UP)


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(now=100.0)
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=lambda: now.now))
    return now


def passed(callback, clock, step):
    callback.on_train_batch_begin(0)
    clock.now += step
    callback.on_train_batch_end(0)


def stepping(seconds, history):
    callback = StepClock(0.1, seconds, history)
    callback.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=None), stop_training=False))
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    return callback


def test_the_clock_stands_still_while_the_first_step_compiles_and_an_epoch_is_validated(clock):
    callback = stepping(10, pd.DataFrame())
    passed(callback, clock, 500)  # compiles
    passed(callback, clock, 2)
    clock.now += 1  # waits for slices
    passed(callback, clock, 2)
    clock.now += 300  # validates and stores
    logs = {"loss": 1.0}
    callback.on_epoch_end(0, logs)
    assert logs == {"loss": 1.0, "trained_seconds": 5.0, "trained_steps": 2}
    clock.now += 300
    callback.on_epoch_begin(1)
    passed(callback, clock, 4)
    assert not callback.model.stop_training
    passed(callback, clock, 1)
    assert callback.model.stop_training and callback.progress() == 1


def test_the_clock_goes_on_from_the_history(clock):
    callback = stepping(10, pd.DataFrame({"trained_seconds": [3.0, 8.0], "trained_steps": [4, 9]}))
    passed(callback, clock, 500)
    assert callback.progress() == 0.8 and not callback.model.stop_training
    passed(callback, clock, 2)
    logs = {}
    callback.on_epoch_end(0, logs)
    assert callback.model.stop_training and logs == {"trained_seconds": 10.0, "trained_steps": 10}


def test_the_rate_falls_down_a_cosine_by_that_clock(clock):
    callback = stepping(10, pd.DataFrame({"trained_seconds": [5.0], "trained_steps": [3]}))
    callback.on_train_batch_begin(0)
    assert callback.model.optimizer.learning_rate == pytest.approx(0.05)  # half of the time: half of the rate


@pytest.fixture
def processor(monkeypatch):
    """A clock of ten seconds after its first batch, at 60 s; wall and processor time are set by hand."""
    times = {"wall": 0.0, "own": 0.0}
    monkeypatch.setattr(clocks.time, "monotonic", lambda: times["wall"])
    monkeypatch.setattr(clocks.time, "process_time", lambda: times["own"])
    made = clocks.ProcessorClock(1e-3, 10.0, 0.0)
    made.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0), stop_training=False))
    made.on_train_begin()
    times.update(wall=60.0, own=60.0)  # tracing
    assert made.progress() == 0
    made.on_train_batch_end(0)
    return made, times


def test_the_processors_clock_starts_when_the_first_batch_is_over(processor):
    made, times = processor
    times.update(wall=65.0, own=70.0)  # two cores
    assert made.progress() == pytest.approx(0.5) and not made.model.stop_training
    times.update(wall=70.0, own=80.0)
    made.on_train_batch_end(1)
    assert made.model.stop_training


def test_the_processors_clock_waits_while_others_have_the_processor(processor):
    made, times = processor
    times.update(wall=160.0, own=62.0)
    assert made.progress() == pytest.approx(0.2)
