"""What the unit tests and the notebook tests share: a clean environment, and real data on request."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SETTINGS = ("LITS_PROFILE", "LITS_DATA_ROOT", "LITS_OUTPUT_ROOT", "LITS_LAYOUT", "LITS_MASK_MEANING", "LITS_RECIPE")


def pytest_collection_modifyitems(items):
    """Skip tests marked realdata, aloud, unless LITS_DATA_ROOT names a folder."""
    named = os.environ.get("LITS_DATA_ROOT")
    if named and not Path(named).is_dir():
        raise pytest.UsageError(f"LITS_DATA_ROOT is {named!r}, which is not a folder")
    if not named:
        skip = pytest.mark.skip(reason="LITS_DATA_ROOT is not set: no real slices to test on")
        for item in items:
            if item.get_closest_marker("realdata"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def own_settings(request, monkeypatch):
    """Hide the caller's LITS_* variables, except the data root from tests marked realdata."""
    for name in SETTINGS:
        if not (name == "LITS_DATA_ROOT" and request.node.get_closest_marker("realdata")):
            monkeypatch.delenv(name, raising=False)
