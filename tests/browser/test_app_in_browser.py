"""The reviewer of `python -m lits_helpers app`, driven by a real browser; conftest.py says what that needs."""

from __future__ import annotations

import re
import socket
import subprocess
import sys

import numpy as np
import pytest
from driving import ROOT

from lits_helpers.settings import PROFILES
from lits_helpers.volumes import write_nifti

pytestmark = pytest.mark.browser


@pytest.fixture
def address(tmp_path):
    """The app over one small volume, with a network that was not trained: its prior calls all tumour."""
    pytest.importorskip("voila", reason="Voila is not installed: pip install -e '.[view]'")
    from lits_helpers.model import unet

    size = PROFILES["tiny"]["image_size"]
    unet((size, size, 3), filters=2, depth=2, prior=0.5).save(tmp_path / "best.keras")
    labels = np.zeros((5, 64, 64), np.uint8)
    labels[1:, 10:50, 5:30], labels[2:4, 20:30, 10:20] = 1, 2
    hounsfield = np.choose(labels, (-50, 110, 40)) + np.random.default_rng(0).normal(0, 10, labels.shape).round()
    root = tmp_path / "root"
    write_nifti(root / "volume-3.nii.gz", hounsfield.astype(np.int16), (5.0, 1.0, 1.0))
    write_nifti(root / "segmentation-3.nii.gz", labels, (5.0, 1.0, 1.0))
    options = ["--data", root, "--output", tmp_path / "out", "--model", tmp_path / "best.keras", "--port", _free_port()]
    command = [sys.executable, "-m", "lits_helpers", "app", *map(str, options)]
    with open(tmp_path / "log.txt", "w") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield next(found[0] for line in server.stdout if (found := re.search(r"http://127\S+", line)))
    finally:
        server.terminate()
        server.wait(60)


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_choose_predict_move_and_be_refused(address, visit):
    found = visit(address, "app")
    page = found.page
    path = page.get_by_placeholder("type or choose")
    path.fill("volume-3.nii.gz")
    path.press("Enter")
    page.get_by_text("volume-3.nii.gz: 5 slices, with reference labels").wait_for()
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("tumour predicted in 5 of 5 slices").wait_for()
    picture = page.locator(".reviewer img").first
    before = picture.get_attribute("src")
    page.locator(".reviewer .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("before => document.querySelector('.reviewer img').src !== before", arg=before)
    assert found.keep().stat().st_size > 20_000
    path.fill("../best.keras")
    path.press("Enter")
    page.get_by_text("is not below").wait_for()
    assert not picture.is_visible()
    assert found.faults() == []
