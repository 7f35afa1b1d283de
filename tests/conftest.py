"""A small folder of slices whose contents are known, and the folder of real ones."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from lits_helpers.generators import decode_slices
from lits_helpers.index import build_index
from lits_helpers.conversion import write_slice_files

SIZE = 64


def disc(radius, row=32, column=28):
    """Pixels of a 64x64 slice nearer to a point than ``radius``."""
    rows, columns = np.ogrid[:SIZE, :SIZE]
    return np.hypot(rows - row, columns - column) < radius


@pytest.fixture
def slice_folder(tmp_path):
    """Four volumes of four slices, 64x64, JPEG, in the report's layout.

    In each volume slice 0 is empty, slice 1 shows a liver, slices 2 and 3 a liver with a dark
    tumour of some hundred pixels; volume 3 has no tumour. So 4 empty, 6 liver only, 6 with tumour.
    """
    root = tmp_path / "slices"
    for volume in range(4):
        labels = np.zeros((4, SIZE, SIZE), np.uint8)
        labels[1:, disc(20, column=26 + volume)] = 1
        if volume < 3:
            labels[2:, disc(8 + volume, column=28 + volume)] = 2
        noise = np.random.default_rng(volume).normal(0, 8, labels.shape)
        hounsfield = np.choose(labels, (-80, 110, 40)) + noise.round()
        write_slice_files(root, volume, hounsfield.astype(np.int16), labels)
    return root


@pytest.fixture(scope="session")
def real_slices():
    """The folder of real slices; a test that asks for it is marked realdata."""
    if not os.environ.get("LITS_DATA_ROOT"):
        pytest.skip("LITS_DATA_ROOT is not set: no real slices to test on")
    return Path(os.environ["LITS_DATA_ROOT"])


@pytest.fixture(scope="session")
def real_volume(real_slices):
    """A real CT volume, beside the folder of real slices."""
    path = real_slices.parent / "ct_volume" / "example_ct.nii.gz"
    if not path.exists():
        pytest.skip("there is no ct_volume/example_ct.nii.gz beside the real slices")
    return path


@pytest.fixture
def table(slice_folder, tmp_path):
    """The slice table of that folder: 16 rows."""
    return build_index(slice_folder, tmp_path / "out")


@pytest.fixture
def cache(table, tmp_path):
    """Its slices decoded to 32x32."""
    return decode_slices(table, 32, tmp_path / "out")


@pytest.fixture(autouse=True)
def usual_precision():
    """Training chooses a dtype policy for all of Keras: put it back after each test."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")
