"""CT volumes.

Arrays are ordered (slice, row, column) as seen on screen: slices from feet to head, rows from
front to back, columns from the patient's right to left, so that the liver is on the viewer's left.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .files import atomic_path


def write_nifti(path: Path, array: np.ndarray, spacing: tuple[float, float, float]) -> None:
    """Write a volume as NIfTI (``.nii`` or ``.nii.gz``), atomically.

    Parameters
    ----------
    path : Path
    array : array (slices, rows, columns)
        HU (int16) or labels (uint8), in this module's order.
    spacing : (slice, row, column)
        Distance between voxel centres, in mm.
    """
    import nibabel

    between_slices, between_rows, between_columns = spacing
    # NIfTI's world axes point right, front and up (RAS): columns run to the left, rows to the back.
    affine = np.diag([-between_columns, -between_rows, between_slices, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)
