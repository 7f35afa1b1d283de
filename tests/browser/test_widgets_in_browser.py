"""Every widget, driven in JupyterLab and in Voila by a real browser; conftest.py says what that needs."""

from __future__ import annotations

import time

import numpy as np
import pytest
from driving import HISTORY, WIDGETS

pytestmark = pytest.mark.browser


def wait_for_pictures(visit):
    for name in WIDGETS:
        visit.widget(name).locator("img").wait_for()


def slider(visit, name):
    """The handle of the slider that is moved."""
    row = visit.widget(name).locator(".widget-hslider", has_text=WIDGETS[name][1]).first
    return row.locator(".noUi-handle")


def moved_by_key(visit, name, key="ArrowRight"):
    """Pictures before and after a key on the slider, and the seconds it took to be seen."""
    before, source = visit.picture(name), visit.widget(name).locator("img").get_attribute("src")
    slider(visit, name).focus()
    started = time.perf_counter()
    visit.page.keyboard.press(key)
    visit.page.wait_for_function(
        "([name, source]) => document.querySelector(`.${name} img`).src != source", arg=[name, source]
    )
    return before, visit.picture(name), time.perf_counter() - started


@pytest.fixture
def in_lab(visit, lab):
    """The notebook in JupyterLab, run from top to bottom by its menu."""
    found = visit(lab, "lab")
    found.page.locator(".jp-Notebook .jp-CodeCell").nth(len(WIDGETS)).wait_for()
    found.page.get_by_role("menuitem", name="Run", exact=True).click()
    found.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    wait_for_pictures(found)
    return found


def test_every_widget_moves_in_jupyterlab(in_lab, capsys):
    drive_all(in_lab, capsys)


def test_every_widget_moves_in_voila(visit, voila, capsys):
    found = visit(voila, "voila")
    wait_for_pictures(found)
    drive_all(found, capsys)


def drive_all(visit, capsys):
    unchanged = []
    for name in WIDGETS:
        before, after, seconds = moved_by_key(visit, name)
        with capsys.disabled():
            print(f"\n{visit.name}: {name} shows the next step after {1000 * seconds:.0f} ms", end="")
        if before.shape == after.shape and np.array_equal(before, after):
            unchanged.append(name)
        visit.keep(name)
    visit.keep()
    assert unchanged == []
    assert visit.faults() == []


def test_the_monitor_sees_new_epochs_by_itself(visit, voila, notebook):
    found = visit(voila, "voila-monitor")
    monitor = found.widget("training_monitor")
    monitor.locator("img").wait_for()
    history = notebook.parent / "run" / "history.csv"
    try:
        monitor.get_by_role("checkbox").check()
        history.write_text(HISTORY + "4,0.5,0.6,3\n")
        monitor.get_by_text("4 epochs finished").wait_for()
    finally:
        history.write_text(HISTORY)
    assert found.faults() == []


def test_on_a_phone_nothing_is_wider_than_the_page(visit, voila):
    found = visit(voila, "voila-phone", width=390)
    wait_for_pictures(found)
    found.keep()
    for name in WIDGETS:
        box = found.widget(name).locator("img").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390, name
