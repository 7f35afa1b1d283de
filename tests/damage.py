"""Small good data sets, and ways to damage them: what tests/test_bad_inputs.py hands to the command line."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import nibabel
import numpy as np
from phantom_layouts import write_series
import PIL.Image
import pydicom

from lits_helpers.conversion import slice_paths
from lits_helpers.pictures import write_image
from lits_helpers.volumes import write_nifti
from lits_helpers.windows import three_channels

SIZE = 32
SPACING = (5.0, 0.8, 0.8)  # between slices, rows and columns, in mm
AFFINE = np.diag([-0.8, -0.8, 5.0, 1.0])


# Good data ------------------------------------------------------------------------------------


def patient(number: int, slices: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels (slices, rows, columns) of a square liver with a square tumour, its own place for each number."""
    labels = np.zeros((slices, SIZE, SIZE), np.uint8)
    labels[1:, 8:26, 4 : 14 + number] = 1
    labels[2:, 12:20, 6 : 12 + number] = 2
    noise = np.random.default_rng(number).normal(0, 8, labels.shape).round()
    return (np.choose(labels, (-80, 110, 40)) + noise).astype(np.int16), labels


def slices(data: Path) -> None:
    """Three volumes of two slices as PNG, in the report's layout, masks as labels."""
    for volume in range(3):
        for number, (plane, labels) in enumerate(zip(*patient(volume, slices=3))):
            if number:
                image, mask = slice_paths(data, volume, number, ".png")
                write_image(image, three_channels(plane))
                write_image(mask, labels)


def volumes(data: Path) -> None:
    """Two volumes of six slices as LiTS has them, packed."""
    for number in (0, 1):
        hounsfield, labels = patient(number)
        write_nifti(data / f"volume-{number}.nii.gz", hounsfield, SPACING)
        write_nifti(data / f"segmentation-{number}.nii.gz", labels, SPACING)


def dicom(data: Path) -> None:
    """One CT of six slices as DICOM."""
    write_series(data / "scan", patient(0)[0].transpose(2, 1, 0), AFFINE)


def nothing(data: Path) -> None:
    data.mkdir()


def state(folder: Path) -> dict[str, tuple]:
    """Name, kind, time and contents of everything below a folder; links are not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(about.st_mode) else ""
        target = os.readlink(path) if path.is_symlink() else ""
        found[str(path.relative_to(folder))] = (about.st_mode, about.st_size, about.st_mtime_ns, content, target)
    return found


# Any file -------------------------------------------------------------------------------------


def cut(path: Path, part: float = 0.5) -> None:
    """Keep the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])


def flipped(path: Path, place: float = 0.5) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 255
    path.write_bytes(content)


def replaced(path: Path, by: object) -> Path:
    """Put text, bytes, or what has the method ``save`` in the place of a file."""
    path.unlink(missing_ok=True)
    if isinstance(by, str):
        path.write_text(by)
    elif isinstance(by, bytes):
        path.write_bytes(by)
    else:
        by.save(path)
    return path


def fifo(path: Path) -> None:
    """A pipe that nobody writes to: whoever opens it waits for ever."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def linked(path: Path, to: str | Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(to)


def renamed(path: Path, name: bytes) -> None:
    """Another name, of bytes that need not be letters."""
    os.rename(path, os.path.join(os.fsencode(path.parent), name))


# Pictures -------------------------------------------------------------------------------------


def picture(mode: str, size: int = SIZE) -> PIL.Image.Image:
    """A picture of noise in one of Pillow's modes."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    return PIL.Image.fromarray(noise).convert(mode)


def encoded(image: PIL.Image.Image, format: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def animated(format: str = "PNG") -> bytes:
    """Three frames in one file."""
    return encoded(picture("L"), format, save_all=True, append_images=[picture("L").rotate(turn) for turn in (90, 180)])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *, bits: int = 8, rows: bytes = b"") -> bytes:
    """A grey PNG, black throughout; or one with these rows, whatever the header says."""
    rows = rows or bytes((1 + -(-width * bits // 8)) * height)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows, 9)), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# NIfTI ----------------------------------------------------------------------------------------


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, **fields: object) -> None:
    """Write an array (columns, rows, slices) and then change fields of the header as they lie in the file."""
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    packed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    for name, value in fields.items():
        dtype, place = nibabel.nifti1.header_dtype.fields[name][:2]
        content[place : place + dtype.itemsize] = np.asarray(value, dtype.base).tobytes().ljust(dtype.itemsize, b"\0")
    path.write_bytes(gzip.compress(content) if packed else bytes(content))


def stored(number: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels of a patient in the order of the file."""
    return tuple(array.transpose(2, 1, 0) for array in patient(number))


def with_value(value: float, dtype: type = np.float32) -> np.ndarray:
    """HU in the order of the file, one voxel of them with this value."""
    array = stored()[0].astype(dtype)
    array[3, 3, 3] = value
    return array


# DICOM ----------------------------------------------------------------------------------------


def edited(path: Path, **attributes: object) -> None:
    """Set attributes of a DICOM file; None removes one."""
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def all_edited(folder: Path, **attributes: object) -> None:
    for path in folder.iterdir():
        edited(path, **attributes)


def packed(path: Path, uid: str) -> None:
    """Keep the header, and say that the pixels are packed in this transfer syntax, which they are not."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = uid
    dataset.PixelData = pydicom.encaps.encapsulate([b"no picture"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, implicit_vr=False, little_endian=True)


# Networks -------------------------------------------------------------------------------------


def keras_file(path: Path, config: object) -> None:
    """A ``.keras`` archive that holds this description and nothing to go with it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.0", "date_saved": ""}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"")
