"""From DICOM image series to stored volumes in Hounsfield units with their affine.

A stored volume is ordered (columns, rows, slices) and comes with the affine that nibabel would
give for a NIfTI file made from the series, so that both formats are treated alike afterwards.
Attributes and their numbers: DICOM PS3.3 2024, C.7.6.2 (image plane), C.8.2 (CT image).
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from .files import DataError, shown
from .pictures import MOST_PIXELS

if TYPE_CHECKING:
    from pydicom import Dataset

PADDING_HU = -1024  # what scanners and LiTS use outside the circular field of view
# Neighbouring gaps may differ by this part of their median: some writers round positions to 0.1 mm.
GAP_TOLERANCE = 0.2
SAME_POSITION_MM = 0.01
IMPLEMENTATION = "lits_helpers"

HEADER_KEYWORDS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "SeriesDescription", "ImageType",
    "InstanceNumber", "NumberOfFrames", "SamplesPerPixel", "Rows", "Columns", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices",
    "PatientID",  # compared, never shown
]  # fmt: skip
PIXEL_KEYWORDS = ["RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit"]


@dataclass(frozen=True)
class Series:
    """The images of one DICOM series in one folder.

    Attributes
    ----------
    uid, modality, description : str
        Series Instance UID, Modality (``"CT"``, ``"SEG"``...) and Series Description; ``""`` where absent.
    paths : tuple of Path
        One file a slice, in slice order where all positions are known, else by instance number.
    rows, columns : int
        Of the first image.
    localizer : bool
        True where all images are localizers (scouts, topograms).
    """

    uid: str
    modality: str
    description: str
    paths: tuple[Path, ...]
    rows: int
    columns: int
    localizer: bool = False


def import_pydicom() -> ModuleType:
    """pydicom, or a DataError that names the extra to install."""
    try:
        import pydicom
    except ImportError as error:
        raise DataError("reading and writing DICOM needs pydicom: pip install 'lits-helpers[dicom]'") from error
    return pydicom


# Finding --------------------------------------------------------------------------------------


def is_dicom(path: Path) -> bool:
    """Whether a file can be read and carries DICOM's mark: ``DICM`` after 128 bytes (PS3.10, 7.1)."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: Path) -> Dataset:
    """The header attributes that say what an image's pixels are and where they lie, without the pixels.

    Raises
    ------
    DataError
        If the file ends within its header or cannot be parsed.
    """
    pydicom = import_pydicom()
    try:
        return parsed(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER_KEYWORDS))
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise DataError(f"{shown(path)} is a damaged DICOM file ({error}): copy it again") from error


def parsed(dataset: Dataset) -> Dataset:
    """The dataset, once it is known that what is asked of it can be parsed: pydicom does so when it is asked."""
    for keyword in (*HEADER_KEYWORDS, *PIXEL_KEYWORDS):
        dataset.get(keyword)
    return dataset


def numbers(header: Dataset, keyword: str, count: int) -> np.ndarray | None:
    """``count`` float64 values of an attribute, None where they are absent, malformed or not as many."""
    try:
        values = np.atleast_1d(np.asarray(header.get(keyword), dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and np.isfinite(values).all() else None


def instance_number(header: Dataset) -> int | None:
    number = numbers(header, "InstanceNumber", 1)
    return None if number is None else int(number[0])


def class_name(header: Dataset) -> str:
    """What kind of object it is, as in ``"CT Image Storage"``; ``""`` where the header does not say."""
    return getattr(header.get("SOPClassUID"), "name", "")  # absent, or several in a damaged file


def is_localizer(header: Dataset) -> bool:
    return "LOCALIZER" in (header.get("ImageType") or ())


def slice_normal(orientation: np.ndarray) -> np.ndarray:
    """Unit vector along which slices are ordered, from the six numbers of ImageOrientationPatient."""
    normal = np.cross(orientation[:3], orientation[3:])
    length = np.linalg.norm(normal)
    return normal / length if length > 0 else normal


def in_slice_order(headers: list[Dataset]) -> list[Dataset]:
    """By position along the first image's normal; where a position is missing, by instance number and name."""
    orientation = numbers(headers[0], "ImageOrientationPatient", 6)
    positions = [numbers(header, "ImagePositionPatient", 3) for header in headers]
    if orientation is None or any(position is None for position in positions):
        return sorted(headers, key=lambda header: (instance_number(header) or 0, header.filename))
    distances = np.array(positions) @ slice_normal(orientation)
    return [headers[index] for index in np.argsort(distances, kind="stable")]


def find_series(folder: str | os.PathLike) -> list[Series]:
    """All image series among the files directly in a folder, whatever their ending.

    Headers only are read. Hidden files, DICOMDIR, files that are not DICOM and DICOM objects that
    are no images (reports, plans) are left out. A file without DICOM's mark after 128 bytes counts
    as not DICOM.

    Returns
    -------
    list of Series
        In the order of their first files' names; empty where the folder holds no DICOM image.

    Raises
    ------
    DataError
        If ``folder`` is no folder, a file in it cannot be read, or a DICOM file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{shown(folder)} is not a folder: give the folder that holds the DICOM files")
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    wanted = [folder / name for name in names if not name.startswith(".") and name.upper() != "DICOMDIR"]
    for path in wanted:
        if not os.access(path, os.R_OK):
            raise DataError(f"{shown(path)} cannot be read and may be a slice: see to its permissions")
    groups: dict[str, list[Dataset]] = defaultdict(list)
    for path in tqdm([path for path in wanted if is_dicom(path)], desc="reading headers", unit="file", delay=2):
        header = read_header(path)
        rows, columns = (numbers(header, keyword, 1) for keyword in ("Rows", "Columns"))
        if rows and columns:
            if rows[0] * columns[0] > MOST_PIXELS:
                raise DataError(f"{shown(path)} states a size of {rows[0]:.0f}x{columns[0]:.0f}, a slice has at most "
                                f"{MOST_PIXELS:,} pixels: the file is damaged, copy it again")
            groups[str(header.get("SeriesInstanceUID", ""))].append(header)
        elif header.get("Modality", "CT") == "CT":
            raise DataError(f"{shown(path)} states no image size: the file is truncated or damaged, copy it again")
    return [described(uid, in_slice_order(headers)) for uid, headers in groups.items()]


def described(uid: str, headers: list[Dataset]) -> Series:
    """The series that these headers, in slice order, belong to."""
    first = headers[0]
    return Series(
        uid=uid,
        modality=str(first.get("Modality") or ""),
        description=str(first.get("SeriesDescription") or ""),
        paths=tuple(Path(header.filename) for header in headers),
        rows=int(first.Rows),
        columns=int(first.Columns),
        localizer=all(is_localizer(header) for header in headers),
    )


def listing(series: list[Series]) -> str:
    """One line a series, for messages."""
    lines = [
        f"  - uid {one.uid}: {one.modality or 'no modality'}, '{one.description}', {len(one.paths)} slices"
        for one in series
    ]
    return "\n".join(lines)


def choose_series(folder: str | os.PathLike, *, uid: str = "") -> Series:
    """The series with this UID; without one, the only CT series that is no localizer.

    Raises
    ------
    DataError
        If there is no DICOM, no such series, or more than one CT to choose from.
    """
    found = find_series(folder)
    if not found:
        raise DataError(f"no DICOM images in {shown(folder)}: give the folder that directly holds the slices")
    matching = [one for one in found if (one.uid == uid if uid else one.modality == "CT" and not one.localizer)]
    if len(matching) == 1:
        return matching[0]
    wanted = f"series {uid}" if uid else "CT series"
    problem = f"no {wanted}" if not matching else f"{len(matching)} {wanted}"
    raise DataError(f"{problem} in {shown(folder)}: choose one of these with uid=...\n{listing(found)}")


# Geometry -------------------------------------------------------------------------------------


def require_same(headers: list[Dataset], keyword: str, count: int, tolerance: float) -> np.ndarray:
    """The values of an attribute that all images of a series share.

    Raises
    ------
    DataError
        If an image lacks the attribute, or differs by more than ``tolerance`` in any value.
    """
    values = [numbers(header, keyword, count) for header in headers]
    for header, value in zip(headers, values, strict=True):
        if value is None:
            raise DataError(f"{shown(header.filename)} has no usable {keyword}: its place in the body is unknown, "
                            "export the series again as original CT images")
    odd = [index for index, value in enumerate(values) if np.abs(value - values[0]).max() > tolerance]
    if odd:
        raise DataError(
            f"mixed series: {keyword} is {values[0].tolist()} in {shown(headers[0].filename)} but "
            f"{values[odd[0]].tolist()} in {shown(headers[odd[0]].filename)} ({len(odd)} of {len(headers)} images "
            "differ): keep the slices of one acquisition in a folder"
        )
    return values[0]


def require_plain_images(headers: list[Dataset]) -> None:
    """Raise DataError for enhanced multi-frame, colour and localizer images."""
    for header in headers:
        name = shown(header.filename)
        if (header.get("NumberOfFrames") or 1) != 1 or "Enhanced" in class_name(header):
            raise DataError(f"{name} is an enhanced multi-frame image: convert it to one file a slice "
                            "(dcm4che's emf2sf) or to NIfTI (dcm2niix)")
        if (header.get("SamplesPerPixel") or 1) != 1:
            raise DataError(f"{name} is a colour picture, not CT numbers: give the original series")
    scouts = [header for header in headers if is_localizer(header)]
    if scouts:
        raise DataError(f"{len(scouts)} of {len(headers)} images are localizers, {shown(scouts[0].filename)} the "
                        "first: move them out of the folder")


def require_each_once(headers: list[Dataset], distances: np.ndarray) -> None:
    """Raise DataError where two images share a position or an instance number."""
    for index in np.flatnonzero(np.diff(distances) < SAME_POSITION_MM):
        one, other = headers[index], headers[index + 1]
        raise DataError(
            f"two slices at one position, {distances[index]:.2f} mm along the normal: {shown(one.filename)} and "
            f"{shown(other.filename)}: remove the copy, or keep one reconstruction in a folder"
        )
    owners: dict[int, str] = {}
    for header in headers:
        number = instance_number(header)
        if number is None:
            continue
        if number in owners:
            raise DataError(
                f"instance number {number} twice: {shown(owners[number])} and {shown(header.filename)}: "
                "keep the slices of one reconstruction in a folder"
            )
        owners[number] = header.filename


def slice_spacing(headers: list[Dataset], distances: np.ndarray) -> float:
    """Distance between neighbouring slices in mm, once it is known to be the same everywhere.

    Raises
    ------
    DataError
        If a gap differs from the median gap by more than ``GAP_TOLERANCE`` of it, or the stack
        departs from even spacing by half a slice anywhere. Slices missing at either end leave no gap.
    """
    if len(distances) == 1:
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            stated = numbers(headers[0], keyword, 1)
            if stated is not None and stated[0] > 0:
                return float(stated[0])
        raise DataError(f"{shown(headers[0].filename)} is a single slice without SliceThickness: "
                        "a volume needs it, or more slices")
    gaps = np.diff(distances)
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # the median; of an even number, the lower middle one
    for index in np.flatnonzero(np.abs(gaps - usual) > GAP_TOLERANCE * usual):
        between = (
            f"between slices {index} and {index + 1} of {len(distances)} ({distances[index]:.2f} and "
            f"{distances[index + 1]:.2f} mm along the normal; {shown(headers[index].filename)}, "
            f"{shown(headers[index + 1].filename)})"
        )
        missing = round(gaps[index] / usual) - 1
        if missing > 0:
            raise DataError(f"{missing} slice(s) missing {between}: copy the whole series again")
        raise DataError(f"uneven slice spacing {between}: {gaps[index]:.3f} mm instead of {usual:.3f}; "
                        "resample the series to even spacing first")
    spacing = float((distances[-1] - distances[0]) / (len(distances) - 1))
    drift = np.abs(distances - distances[0] - spacing * np.arange(len(distances))).max()
    if drift > spacing / 2:
        raise DataError(f"uneven slice spacing in {shown(Path(headers[0].filename).parent)}: slices lie up to "
                        f"{drift:.2f} mm off their even places; resample the series first")
    return spacing


def ordered_slices(series: Series) -> tuple[list[Dataset], np.ndarray]:
    """Headers of a series in stored order, and its affine.

    Returns
    -------
    headers : list of Dataset
        Slices along the normal: for an ordinary axial CT from the feet to the head. A header's
        ``filename`` is where it was read.
    affine : float64 array (4, 4)
        From voxel (column, row, slice) to mm in NIfTI's world, which points right, front and up.

    Raises
    ------
    DataError
        If the images are not one evenly spaced, rectangular stack; the message names the first
        image or gap that is at fault.
    """
    headers = [read_header(path) for path in tqdm(series.paths, desc="reading headers", unit="file", delay=2)]
    require_plain_images(headers)
    for keyword in ("Rows", "Columns"):
        require_same(headers, keyword, 1, 0)
    patients = {str(header.get("PatientID") or "") for header in headers} - {""}
    if len(patients) > 1:
        raise DataError(f"{len(patients)} patients are mixed in {shown(Path(headers[0].filename).parent)}, in one "
                        "series: keep the slices of one patient in a folder")
    between_rows, between_columns = require_same(headers, "PixelSpacing", 2, 1e-3)
    if not min(between_rows, between_columns) > 0:
        raise DataError(f"{shown(headers[0].filename)} has a PixelSpacing of {between_rows:g} and {between_columns:g} "
                        "mm, which cannot be: export the series again as original CT images")
    orientation = require_same(headers, "ImageOrientationPatient", 6, 1e-3)
    require_same(headers, "ImagePositionPatient", 3, np.inf)
    along_row, along_column = (unit / np.linalg.norm(unit) for unit in (orientation[:3], orientation[3:]))
    if not abs(along_row @ along_column) < 1e-3:  # not a number where one is all zeros
        raise DataError(f"{shown(headers[0].filename)} has rows and columns that are not at right angles "
                        f"({orientation.tolist()}): its geometry is not usable")

    headers = in_slice_order(headers)
    normal = slice_normal(orientation)
    positions = np.array([numbers(header, "ImagePositionPatient", 3) for header in headers])
    distances = positions @ normal
    require_each_once(headers, distances)
    shifts = positions - positions[0]
    shift = np.linalg.norm(shifts - np.outer(shifts @ normal, normal), axis=1).max()
    if shift > min(between_rows, between_columns) / 2:
        raise DataError(
            f"the slices in {shown(Path(headers[0].filename).parent)} are shifted sideways by up to {shift:.2f} mm: the "
            "gantry was tilted; resample the series to a rectangular grid first (dcm2niix does)"
        )
    affine = np.eye(4)
    affine[:3, 0] = along_row * between_columns
    affine[:3, 1] = along_column * between_rows
    affine[:3, 2] = normal * slice_spacing(headers, distances)
    affine[:3, 3] = positions[0]
    return headers, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's world points left, back and up


# Pixels ---------------------------------------------------------------------------------------


def read_pixels(path: str | os.PathLike) -> tuple[Dataset, np.ndarray]:
    """One image's dataset and its pixels as stored, before any rescaling.

    Raises
    ------
    DataError
        If the file has no pixels, fewer than its size asks for, or is compressed in a way that no
        installed package decodes.
    """
    pydicom = import_pydicom()
    from pydicom.pixels import get_decoder

    try:
        dataset = parsed(pydicom.dcmread(path))
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise DataError(f"{shown(path)} is a damaged DICOM file ({error}): copy it again") from error
    if "PixelData" not in dataset:
        raise DataError(f"{shown(path)} has no pixels: the file is truncated or only a header, copy it again")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        lacking = syntax is not None and syntax.is_compressed and not get_decoder(syntax).is_available
    except (AttributeError, NotImplementedError, ValueError) as error:  # two, a film's, say, or one of a maker's own
        raise DataError(f"{shown(path)} is stored in a way that is not read ({error}): save it uncompressed") from error
    if lacking:
        package = "pylibjpeg-openjpeg" if "2000" in syntax.name else "pylibjpeg-libjpeg"
        raise DataError(f"{shown(path)} is compressed as {syntax.name}, which nothing installed decodes: "
                        f"pip install pylibjpeg {package}")
    try:
        return dataset, dataset.pixel_array
    except Exception as error:  # decoders raise many kinds on damaged pixels
        raise DataError(f"{shown(path)} has damaged or truncated pixels ({error}): copy it again") from error


def rescaled(dataset: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Stored pixels as int16 HU: slope and intercept applied, rounded, clipped; padding of a CT at -1024."""
    slope, intercept = numbers(dataset, "RescaleSlope", 1), numbers(dataset, "RescaleIntercept", 1)
    for keyword, value in (("RescaleSlope", slope), ("RescaleIntercept", intercept)):
        stated = dataset.get(keyword)
        if (value is None and stated not in (None, "")) or (value == 0 and value is slope):
            raise DataError(f"{shown(dataset.filename)} has a {keyword} of {stated}, by which pixels are no CT numbers: "
                            "export the series again as original CT images")
    values = pixels * (1.0 if slope is None else slope) + (0.0 if intercept is None else intercept)
    limits = np.iinfo(np.int16)
    hounsfield = np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)
    padding = numbers(dataset, "PixelPaddingValue", 1)
    if padding is not None and dataset.get("Modality") == "CT":
        limit = numbers(dataset, "PixelPaddingRangeLimit", 1)
        # The value may be declared signed where pixels are unsigned or the reverse: the bits count.
        ends = np.array([padding, padding if limit is None else limit], np.int64).astype(pixels.dtype)
        hounsfield[(pixels >= ends.min()) & (pixels <= ends.max())] = PADDING_HU
    return hounsfield


def read_series(folder_or_series: str | os.PathLike | Series, *, uid: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Read an image series as a stored volume.

    Parameters
    ----------
    folder_or_series : path or Series
        A folder that directly holds the slices, or one of :func:`find_series`.
    uid : str
        Series to read where a folder holds several; by default the only CT.

    Returns
    -------
    stored : int16 array (columns, rows, slices)
        HU; filled slice by slice, so that little more memory than this array is used.
    affine : float64 array (4, 4)
        From voxel indices to mm in NIfTI's world (right, front, up).

    Raises
    ------
    DataError
        If the files are not one complete, evenly spaced, rectangular stack of readable images; see
        :func:`ordered_slices` and :func:`read_pixels`.
    """
    series = folder_or_series if isinstance(folder_or_series, Series) else choose_series(folder_or_series, uid=uid)
    headers, affine = ordered_slices(series)
    stored = np.empty((series.columns, series.rows, len(headers)), np.int16, order="F")
    for index, header in enumerate(tqdm(headers, desc="reading slices", unit="slice", delay=2)):
        stored[:, :, index] = rescaled(*read_pixels(header.filename)).T
    return stored, affine
