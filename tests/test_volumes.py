import nibabel
import numpy as np
import pytest

from lits_helpers.volumes import write_nifti


def test_a_nifti_volume_keeps_values_spacing_and_directions(tmp_path):
    array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    write_nifti(tmp_path / "volume-0.nii.gz", array, (5.0, 0.7, 0.8))
    read = nibabel.load(tmp_path / "volume-0.nii.gz")
    assert read.shape == (4, 3, 2)  # columns, rows, slices
    assert read.header.get_zooms() == pytest.approx((0.8, 0.7, 5.0))
    # Columns run to the patient's left, rows to the back (posterior), slices to the head (superior).
    assert nibabel.aff2axcodes(read.affine) == ("L", "P", "S")
    assert np.asarray(read.dataobj)[3, 1, 1] == array[1, 1, 3]
    assert read.get_data_dtype() == np.int16
