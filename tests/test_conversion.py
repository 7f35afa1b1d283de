import numpy as np
import pytest

from lits_helpers.conversion import slice_paths, write_slice_files


def test_slice_files_have_the_reports_names(tmp_path):
    hounsfield = np.full((2, 32, 32), 50, np.int16)
    write_slice_files(tmp_path, 17, hounsfield, np.zeros((2, 32, 32), np.uint8))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")) == [
        "images/train_images/volume-17_slice_0.jpg",
        "images/train_images/volume-17_slice_1.jpg",
        "masks/train_masks/volume-17_slice_0_mask.jpg",
        "masks/train_masks/volume-17_slice_1_mask.jpg",
    ]
    assert slice_paths(tmp_path, 17, 1, ".png")[1].name == "volume-17_slice_1_mask.png"


def test_slices_and_labels_must_be_as_many(tmp_path):
    with pytest.raises(ValueError, match="shorter|longer"):
        write_slice_files(tmp_path, 0, np.zeros((2, 8, 8), np.int16), np.zeros((1, 8, 8), np.uint8))
