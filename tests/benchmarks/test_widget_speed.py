"""Time of a step of every widget on a slice of 512x512, and of the same picture by ``interactive``: `make bench`."""

import io
import statistics
import time

import cv2
import numpy as np
import pandas as pd
import pytest

from lits_helpers import drawing, widgets
from lits_helpers.explorer import empty_panels
from lits_helpers.phantom import phantom_volume
from lits_helpers.windows import three_channels

STEPS = 15


def clocks():
    return time.perf_counter(), time.process_time()


def timed(step):
    """Medians of a step in milliseconds: of the wall clock, and of the processor, which a busy machine leaves alone."""
    step(0)
    taken = []
    for number in range(STEPS):
        started = clocks()
        step(number + 1)
        taken.append([end - start for start, end in zip(started, clocks(), strict=True)])
    return [1e3 * statistics.median(values) for values in zip(*taken, strict=True)]


def moved(explorer, name):
    """A step of a slider, onwards and from its end to its start."""
    control = explorer.controls[name]

    def step(number):
        if hasattr(control, "options"):
            control.index = (control.index + 1) % len(control.options)
        else:
            further = control.value + control.step
            control.value = further if further <= control.max else control.min

    return step


def shown_by_interactive(image, labels):
    """What a notebook does with a figure that `interactive` shows: drawn twice, to find its edges, and laid out anew."""
    figure, [axes] = empty_panels(1, size=(4.2, 4.7), colours=drawing.MASK_COLOURS)

    def step(number):
        axes.clear()
        drawing.outlined(axes, image, labels)
        axes.set_axis_off()
        figure.savefig(io.BytesIO(), format="png", bbox_inches="tight")

    return step


@pytest.fixture(scope="module")
def slices():
    patient = phantom_volume(0)
    number = int((patient.labels == 2).sum(axis=(1, 2)).argmax())
    return patient, three_channels(patient.hounsfield[number]), patient.labels[number]


def test_time_of_a_step(benchmark, slices, tmp_path):
    patient, image, labels = slices
    truth = labels == 2
    probability = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 5)
    losses = np.linspace(1, 0.2, 55)
    history = pd.DataFrame({"epoch": range(1, 56), "loss": losses, "val_loss": losses + 0.1})
    history.to_csv(tmp_path / "history.csv", index=False)
    browser = widgets.slice_browser({"phantom": (patient.hounsfield, patient.labels)})
    playground = widgets.augmentation_playground(image, labels)
    cases = [(image, truth, probability * share, "") for share in (1, 0.5, 0.4)]
    steps = {
        "the same picture by interactive": shown_by_interactive(image, labels),
        "slice browser, slice": moved(browser, "number"),
        "slice browser, window": moved(browser, "width"),
        "slice browser, filled": moved(browser, "opacity"),
        "augmentation playground, rotation": moved(playground, "rotation"),
        "augmentation playground, elastic": moved(playground, "elastic"),
        "augmentation playground, noise too": moved(playground, "noise"),
        "threshold explorer": moved(widgets.threshold_explorer(image, truth, probability), "threshold"),
        "prediction reviewer": moved(widgets.prediction_reviewer(cases), "rank"),
        "training monitor, one curve": moved(widgets.training_monitor(tmp_path), "first"),
        "model playground": moved(widgets.model_playground(), "filters"),
    }
    found = {}

    def run():
        found.update({name: timed(step) for name, step in steps.items()})

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["milliseconds_a_step"] = found
    print(f"\n{'':<38} {'wall':>8} {'processor':>10}")
    for name, (wall, processor) in found.items():
        print(f"{name:<38} {wall:>5.0f} ms {processor:>7.0f} ms")
