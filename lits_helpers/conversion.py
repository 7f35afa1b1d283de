"""CT volumes to the slice files of the report's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .pictures import write_image
from .windows import three_channels


def slice_paths(root: Path, volume: int, slice_number: int, ending: str = ".jpg") -> tuple[Path, Path]:
    """Where the report's layout keeps the image and the mask of one slice."""
    stem = f"volume-{volume}_slice_{slice_number}"
    return (
        Path(root) / "images" / "train_images" / f"{stem}{ending}",
        Path(root) / "masks" / "train_masks" / f"{stem}_mask{ending}",
    )


def write_slice_files(
    root: Path,
    volume: int,
    hounsfield: np.ndarray,
    labels: np.ndarray,
    *,
    ending: str = ".jpg",
    jpeg_quality: int = 100,
) -> None:
    """Write one volume as slice files in the report's layout, names and three-channel coding.

    Parameters
    ----------
    root : Path
        Gets ``images/train_images`` and ``masks/train_masks``.
    volume : int
        Number in the file names.
    hounsfield : integer array (slices, rows, columns)
        In HU.
    labels : uint8 array, same shape
        0 background, 1 liver, 2 tumour.
    ending : str
        ``".jpg"`` as in the report, or ``".png"`` (lossless).
    jpeg_quality : int
        The report's own rule for tumours works at 99 and above only (measured with libjpeg-turbo).
    """
    for number, (image, mask) in enumerate(zip(hounsfield, labels, strict=True)):
        image_path, mask_path = slice_paths(root, volume, number, ending)
        write_image(image_path, three_channels(image), jpeg_quality=jpeg_quality)
        write_image(mask_path, three_channels(mask), jpeg_quality=jpeg_quality)
