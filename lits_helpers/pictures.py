"""PNG and JPEG files: read whole, or not at all; written atomically."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import PIL.Image

from .files import DataError, atomic_path

MOST_PIXELS = 4096 * 4096  # of a slice, DICOM too: a few bytes of a file may claim, or unpack to, any size
_ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND\xaeB`\x82"}


def _require_end(content: bytes, path: Path) -> None:
    # OpenCV fills the missing part of a cut JPEG with grey and says nothing, so look for its end.
    if not content or not content.rstrip(b"\0").endswith(_ENDINGS.get(path.suffix.lower(), b"")):
        raise DataError(f"{path}: empty or cut short, copy it again")


def _require_ordinary(path: Path) -> None:
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise DataError(f"{path}: a folder, pipe or device, expected a picture: remove it")


def _plain_size(content: BinaryIO, path: Path) -> tuple[int, int]:
    """Rows and columns by the header, of a single picture whose colours and size a slice can have."""
    try:
        with PIL.Image.open(content, formats=("PNG", "JPEG")) as image:
            height, width, mode, pictures = image.height, image.width, image.mode, getattr(image, "n_frames", 1)
    except PIL.Image.DecompressionBombError as error:
        raise DataError(f"{path}: too large a picture, a slice has {MOST_PIXELS:,} pixels at most: copy it again") from error
    except (OSError, ValueError) as error:  # also PIL.UnidentifiedImageError, and of texts that unpack to gigabytes
        raise DataError(f"{path}: not a picture that can be read, PNG or JPEG: copy it again") from error
    if height * width > MOST_PIXELS:
        raise DataError(f"{path}: {height}x{width} pixels, a slice has {MOST_PIXELS:,} at most: copy it again")
    if pictures > 1:
        raise DataError(f"{path}: {pictures} pictures in one file: save each slice as a file of its own")
    if mode == "CMYK":
        raise DataError(f"{path}: in the colours of a printer (CMYK): save it as RGB or grey")
    return height, width


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
        If the file is missing, empty, cut short or no picture; holds several, or more than
        :data:`MOST_PIXELS`; or has CMYK or 16 bits in colour.
    """
    path = Path(path)
    _require_ordinary(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): copy it again") from error
    _require_end(content, path)
    _plain_size(io.BytesIO(content), path)
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
        raise DataError(f"{path}: not a picture that OpenCV can read: copy it again")
    if grey and image.ndim == 3:
        image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)
    if not grey and image.dtype != np.uint8:
        raise DataError(f"{path}: {image.dtype} picture, 8 bits a channel are expected: save it so")
    return image


def read_image_size(path: Path | str) -> tuple[int, int]:
    """Rows and columns of a PNG or JPEG, without decoding it.

    Raises
    ------
    DataError
        As :func:`read_image`, but for what only decoding shows.
    """
    path = Path(path)
    _require_ordinary(path)
    try:
        with path.open("rb") as file:
            file.seek(-min(64, path.stat().st_size), os.SEEK_END)
            _require_end(file.read(), path)
            return _plain_size(file, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): copy it again") from error


def write_image(path: Path, image: np.ndarray, *, jpeg_quality: int = 100) -> None:
    """Write a grey or RGB uint8 picture as PNG or JPEG, atomically.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in (".png", ".jpg", ".jpeg"):
        raise DataError(f"{path}: pictures are written as PNG or JPEG: use the ending .png or .jpg")
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    # Encoded in memory: a full disk then raises an OSError with its reason, which cv2.imwrite hides.
    # OpenCV 5 warns of a quality given for PNG, once a file.
    done, encoded = cv2.imencode(ending, image, [] if ending == ".png" else [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    if not done:
        raise DataError(f"{path}: JPEG ends at 65,500 rows and columns, {image.shape[:2]} are too many: use .png")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
