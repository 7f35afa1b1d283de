"""CT volumes, display windows, and the three-channel slice files of the report.

Arrays are ordered (slice, row, column) as seen on screen: slices from feet to head, rows from
front to back, columns from the patient's right to left, so that the liver is on the viewer's left.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from .files import DataError, atomic_path

# Width and level in HU: the red and green channel of the report's slice files.
WINDOWS = {"liver": (150.0, 30.0), "abdomen": (200.0, 60.0)}


def windowed(hounsfield: np.ndarray, *, width: float, level: float) -> np.ndarray:
    """Map a band of Hounsfield units to display range.

    Parameters
    ----------
    hounsfield : array, any shape
        CT numbers in HU.
    width, level : float
        Size and centre of the band, in HU. :data:`WINDOWS` holds presets.

    Returns
    -------
    array of float32, same shape
        0 at ``level - width / 2`` and below, 1 at ``level + width / 2`` and above.

    Raises
    ------
    ValueError
        If ``width`` is not positive.
    """
    if width <= 0:
        raise ValueError(f"window width must be positive, got {width}")
    lowest = level - width / 2
    return np.clip((np.asarray(hounsfield, np.float32) - lowest) / width, 0, 1)


def equalisation_breaks(values: np.ndarray, bins: int = 100) -> np.ndarray:
    """Sorted distinct quantiles of one slice, the nodes of its histogram equalisation.

    Quantiles are elements of the sorted slice (no interpolation) at 0.001, the middles of
    ``bins`` equal parts, and 0.999. So on a label map a label that fills less than 0.1 % of the
    slice (fewer than 263 pixels of 512x512) is no node: that is why the report's coding loses
    small tumours.

    Parameters
    ----------
    values : integer array
        One slice: HU, or labels.

    Returns
    -------
    1-D integer array, strictly increasing, 1 to ``bins + 2`` long
    """
    lowest = int(values.min())
    at_most = np.cumsum(np.bincount((values - lowest).ravel()))
    quantiles = np.concatenate([[0.001], (np.arange(bins) + 0.5) / bins, [0.999]])
    ranks = (values.size * quantiles).astype(np.int64)
    return np.unique(np.searchsorted(at_most, ranks, side="right") + lowest)


def three_channels(values: np.ndarray) -> np.ndarray:
    """Display coding of one slice, as the report's image *and* mask files were made.

    Parameters
    ----------
    values : integer array (rows, columns)
        HU, or a label map, since the report's masks went through the same routine.

    Returns
    -------
    uint8 array (rows, columns, 3), red, green, blue
        Red: window 150 wide at level 30. Green: 200 wide at 60. Blue: histogram-equalised. Each
        scaled to 0..255 and truncated.
    """
    if not np.issubdtype(np.asarray(values).dtype, np.integer):
        raise ValueError(f"three_channels needs whole Hounsfield units, got {values.dtype}")
    values = values.astype(np.int32)
    lowest = int(values.min())
    levels = np.arange(lowest, int(values.max()) + 1)
    breaks = equalisation_breaks(values)
    table = np.stack(
        [
            windowed(levels, width=WINDOWS["liver"][0], level=WINDOWS["liver"][1]),
            windowed(levels, width=WINDOWS["abdomen"][0], level=WINDOWS["abdomen"][1]),
            np.interp(levels, breaks, np.linspace(0, 1, len(breaks))),
        ],
        axis=1,
    )
    return (table * 255).astype(np.uint8)[values - lowest]


def slice_paths(root: Path, volume: int, slice_number: int, ending: str = ".jpg") -> tuple[Path, Path]:
    """Where the report's layout keeps the image and the mask of one slice."""
    stem = f"volume-{volume}_slice_{slice_number}"
    return (
        Path(root) / "images" / "train_images" / f"{stem}{ending}",
        Path(root) / "masks" / "train_masks" / f"{stem}_mask{ending}",
    )


_ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND\xaeB`\x82"}


def _require_end(content: bytes, path: Path) -> None:
    # OpenCV fills the missing part of a cut JPEG with grey and says nothing, so look for its end.
    if not content or not content.rstrip(b"\0").endswith(_ENDINGS.get(path.suffix.lower(), b"")):
        raise DataError(f"{path}: empty or cut short, copy it again")


def read_image(path: Path | str, *, grey: bool = False) -> np.ndarray:
    """Read a whole PNG or JPEG.

    Parameters
    ----------
    path : Path
    grey : bool
        Return one channel: the luminance (BT.601) of a colour file, the stored value of a grey one.

    Returns
    -------
    array (rows, columns, 3), red, green, blue; or (rows, columns) if ``grey``
        uint8 (uint16 only where a grey 16-bit file was read with ``grey``).

    Raises
    ------
    DataError
        If the file is missing, empty, cut short or no picture, or has 16 bits in colour.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    _require_end(content, path)
    # Of a JPEG the luminance alone is decoded, three times as fast. Of a colour PNG OpenCV would
    # truncate it, one level too low, so that one is converted after reading.
    luminance = grey and path.suffix.lower() != ".png"
    flags = cv2.IMREAD_GRAYSCALE if luminance else cv2.IMREAD_UNCHANGED if grey else cv2.IMREAD_COLOR_RGB
    flags |= cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # more pixels than OpenCV takes, as a damaged header may claim
        image = None
    if image is None:
        raise DataError(f"{path}: not a picture that OpenCV can read")
    if grey and image.ndim == 3:
        image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)
    if not grey and image.dtype != np.uint8:
        raise DataError(f"{path}: {image.dtype} picture, 8 bits a channel are expected")
    return image


def read_image_size(path: Path | str) -> tuple[int, int]:
    """Rows and columns of a PNG or JPEG, without decoding it.

    Raises
    ------
    DataError
        If the file is missing, cut short or no picture.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            file.seek(-min(64, path.stat().st_size), os.SEEK_END)
            _require_end(file.read(), path)
            with PIL.Image.open(file) as image:
                return image.height, image.width
    except (OSError, PIL.Image.DecompressionBombError) as error:  # also PIL.UnidentifiedImageError
        raise DataError(f"{path}: not a picture that can be read ({error})") from error


def write_image(path: Path, image: np.ndarray, *, jpeg_quality: int = 100) -> None:
    """Write a grey or RGB uint8 picture as PNG or JPEG, atomically.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    # Encoded in memory: a full disk then raises an OSError with its reason, which cv2.imwrite hides.
    # OpenCV 5 warns of a quality given for PNG, once a file.
    options = [] if path.suffix.lower() == ".png" else [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
    done, encoded = cv2.imencode(path.suffix, image, options)
    if not done:
        raise DataError(f"OpenCV could not encode {path}: use the ending .png or .jpg")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)


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
