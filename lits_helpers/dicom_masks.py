"""Liver and tumour labels in DICOM: 3D-IRCADb's folders, label series and segmentation objects.

Labels are uint8 arrays (columns, rows, slices) in the stored order of their CT series
(:mod:`lits_helpers.dicom`): 0 background, 1 liver, 2 tumour. A tumour wins over the liver.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from .codings import LIVER, TUMOUR
from .dicom import (
    IMPLEMENTATION,
    Series,
    choose_series,
    class_name,
    described,
    find_series,
    import_pydicom,
    instance_number,
    listing,
    numbers,
    ordered_slices,
    read_header,
    read_pixels,
    rescaled,
)
from .files import DataError, atomic_path, shown

if TYPE_CHECKING:
    from pydicom import Dataset

# 3D-IRCADb writes livertumor, livertumors, livertumor01... and in one patient plain "tumor".
LIVER_FOLDER = re.compile(r"liver", re.IGNORECASE)
TUMOUR_FOLDER = re.compile(r"(liver)?[ _-]?tumou?rs?[ _-]?\d*", re.IGNORECASE)
TUMOUR_WORDS = re.compile(r"tumou?r|lesion|\bmass(es)?\b|neoplas|metasta|carcinoma|cancer|\bhcc\b", re.IGNORECASE)
LIVER_WORDS = re.compile(r"(whole )?liver( parenchyma| structure)?", re.IGNORECASE)
LIVER_CODES = {"10200004", "T-62000"}  # SNOMED CT and the older SNOMED RT, DICOM PS3.16 CID 7192
# The house's mask colours of drawing.py (#56B4E9, #D55E00) as CIE L*, a*, b*, which DICOM asks for.
DISPLAY_COLOURS = {LIVER: (69.83, -12.02, -34.77), TUMOUR: (54.19, 43.28, 63.28)}
SAME_PLACE = 0.2  # in voxels: how far a mask's slice may lie from the CT's
# What a segmentation takes from the headers of its CT: which images it is of, and where they lie.
LINKING_KEYWORDS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "Modality", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient",
    "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices",
]  # fmt: skip
# And whose they are, only if asked for. A segmentation has to have these, but they may be empty (PS3.3, C.7.1.1
# and C.7.2.1).
PATIENT_KEYWORDS = [
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
]  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a CT series lie.

    Attributes
    ----------
    headers : list of Dataset
        One a slice, in stored order.
    affine : float64 array (4, 4)
        From voxel indices to mm in NIfTI's world.
    """

    headers: list[Dataset]
    affine: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """(columns, rows, slices)"""
        return int(self.headers[0].Columns), int(self.headers[0].Rows), len(self.headers)

    def require_same_plane(self, plane: Dataset, rows: int, columns: int, name: str) -> None:
        """Raise DataError if an image differs in size, orientation or pixel spacing, as far as it states them."""
        if (columns, rows) != self.shape[:2]:
            raise DataError(f"{name} has {columns} x {rows} pixels, its CT {self.shape[0]} x {self.shape[1]}: "
                            "give the masks of this CT, at its size")
        spacing = np.linalg.norm(self.affine[:3, :2], axis=0)
        axes = (self.affine[:3, :2] / spacing).T * [-1, -1, 1]
        for keyword, expected in (("ImageOrientationPatient", axes.ravel()), ("PixelSpacing", spacing[::-1])):
            stated = numbers(plane, keyword, len(expected))
            if stated is not None and np.abs(stated - expected).max() > 1e-3:
                raise DataError(f"{name} has the {keyword} {stated.tolist()}, its CT {expected.round(4).tolist()}: "
                                "give the masks of this CT, on its grid")

    def slice_at(self, position: np.ndarray, name: str) -> int:
        """Index of the CT slice at an ImagePositionPatient.

        Raises
        ------
        DataError
            If no slice lies there within ``SAME_PLACE`` of a voxel.
        """
        voxel = np.linalg.solve(self.affine, [*(position * [-1, -1, 1]), 1])[:3]
        index = round(voxel[2])
        if np.abs(voxel - [0, 0, index]).max() > SAME_PLACE or not 0 <= index < self.shape[2]:
            raise DataError(f"{name} lies at {position.tolist()} mm, where its CT has no slice: "
                            "give the masks of this CT, on its grid")
        return index


def ct_grid(ct: str | os.PathLike | Series) -> Grid:
    """The grid of a CT series, or of the only CT in a folder."""
    return Grid(*ordered_slices(ct if isinstance(ct, Series) else choose_series(ct)))


# 3D-IRCADb ------------------------------------------------------------------------------------


def read_ircadb_masks(masks_folder: str | os.PathLike, ct: str | os.PathLike | Series) -> np.ndarray:
    """Labels of a 3D-IRCADb patient from the folders of single organs in ``MASKS_DICOM``.

    Each folder holds one image a CT slice, with values above 0 inside the organ. ``liver`` and all
    of ``livertumor``, ``livertumors``, ``livertumor01``... (and plain ``tumor``) are read, in any
    case and one folder deeper where unpacking repeated the name; cysts and other organs are ignored.
    No tumour folder means no tumour; without a liver folder the copy is incomplete and refused.

    Slices are matched to the CT by position, where masks have none by instance number, and where
    they have none of these either, by the number at the end of the file names.

    Returns
    -------
    uint8 array (columns, rows, slices)
        0 background, 1 liver, 2 tumour, in the stored order of the CT.

    Raises
    ------
    DataError
        If the liver is missing, or an organ does not have exactly one image for each CT slice.
    """
    grid = ct_grid(ct)
    masks_folder = without_repeated_name(Path(masks_folder))
    if not masks_folder.is_dir():
        raise DataError(f"{shown(masks_folder)} is not a folder: give 3D-IRCADb's MASKS_DICOM")
    folders = sorted(path for path in masks_folder.iterdir() if path.is_dir())
    livers = [path for path in folders if LIVER_FOLDER.fullmatch(path.name)]
    tumours = [path for path in folders if TUMOUR_FOLDER.fullmatch(path.name)]
    if not livers:
        names = ", ".join(path.name for path in folders) or "no folders"
        raise DataError(f"no folder 'liver' in {shown(masks_folder)}, only {names}: unpack MASKS_DICOM again")
    labels = np.zeros(grid.shape, np.uint8)
    for folder, label in [(path, LIVER) for path in livers] + [(path, TUMOUR) for path in tumours]:
        for index, inside in organ_slices(without_repeated_name(folder), grid):
            labels[:, :, index][inside.T] = label
    return labels


def without_repeated_name(folder: Path) -> Path:
    """The folder of the same name inside, where unpacking has made one, else the folder itself."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def organ_slices(folder: Path, grid: Grid) -> Iterator[tuple[int, np.ndarray]]:
    """CT slice index and bool mask (rows, columns) of each image of an organ."""
    paths = [path for series in find_series(folder) for path in series.paths]
    if len(paths) != grid.shape[2]:
        raise DataError(f"{shown(folder)} has {len(paths)} masks for {grid.shape[2]} CT slices: "
                        "unpack the masks of this CT again")
    headers = [read_header(path) for path in paths]
    indices = matching_slices(headers, grid)
    if len(set(indices)) != len(indices):
        raise DataError(f"two masks for one CT slice in {shown(folder)}: unpack the masks of this CT again")
    for header, index in zip(headers, indices, strict=True):
        grid.require_same_plane(header, int(header.Rows), int(header.Columns), shown(header.filename))
        yield index, read_pixels(header.filename)[1] > 0


def matching_slices(headers: list[Dataset], grid: Grid) -> list[int]:
    """For each mask the index of its CT slice, by position, instance number or number in the file name."""
    positions = [numbers(header, "ImagePositionPatient", 3) for header in headers]
    if all(position is not None for position in positions):
        return [grid.slice_at(position, shown(header.filename))
                for position, header in zip(positions, headers, strict=True)]
    for what, key in (("instance number", instance_number), ("number in the file name", number_in_name)):
        wanted, present = [key(header) for header in headers], [key(header) for header in grid.headers]
        if None in wanted or None in present or len(set(present)) != len(present):
            continue
        lost = [header for header, number in zip(headers, wanted, strict=True) if number not in present]
        if lost:
            raise DataError(f"{shown(lost[0].filename)}: no CT slice has its {what}; unpack the masks of this CT again")
        return [present.index(number) for number in wanted]
    raise DataError(f"the masks in {shown(Path(headers[0].filename).parent)} have neither positions, instance numbers "
                    "nor numbers in their names: which CT slices they belong to is unknown")


def number_in_name(header: Dataset) -> int | None:
    found = re.search(r"(\d+)(\.[A-Za-z]\w*)?$", Path(header.filename).name)
    return int(found[1]) if found else None


# Label series and segmentation objects --------------------------------------------------------


def read_mask_series(
    masks: str | os.PathLike | Series, ct: str | os.PathLike | Series, *, uid: str = ""
) -> np.ndarray:
    """Labels from a second DICOM series: label images, or segmentation objects (DICOM-SEG).

    Label images hold 0, 1 and 2, after rescaling or, where a header copied from the CT rescales
    them to something else, as stored. Of a segmentation object (BINARY or LABELMAP) the segments
    that are labelled or coded as liver, and as tumour, lesion, mass or neoplasm, are read and the
    others ignored; every tumour is taken to be of the liver. Slices are matched by position; CT
    slices without a mask stay 0.

    Parameters
    ----------
    masks : path or Series
        A folder, one file, or a series of :func:`lits_helpers.dicom.find_series`.
    ct : path or Series
        The CT, or the folder with only this CT.
    uid : str
        Series to read where a folder holds several; by default the only segmentation, or the only
        series besides the CT.

    Returns
    -------
    uint8 array (columns, rows, slices)
        0 background, 1 liver, 2 tumour, in the stored order of the CT.

    Raises
    ------
    DataError
        If there is no such series or a choice of several, the masks are not on the CT's grid, or
        what their values or segments mean is unknown.
    """
    if not isinstance(ct, Series):
        ct = choose_series(ct)
    series = masks if isinstance(masks, Series) else choose_masks(Path(masks), ct, uid)
    grid = ct_grid(ct)
    labels = np.zeros(grid.shape, np.uint8)
    filled: set[int] = set()
    for path in tqdm(series.paths, desc="reading masks", unit="file", delay=2):
        name = shown(path)
        dataset, pixels = read_pixels(path)
        if series.modality == "SEG":
            add_segmentation(labels, dataset, pixels, grid, name)
            continue
        position = numbers(dataset, "ImagePositionPatient", 3)
        if position is None:
            raise DataError(f"{name} has no ImagePositionPatient: which CT slice it belongs to is unknown")
        grid.require_same_plane(dataset, int(dataset.Rows), int(dataset.Columns), name)
        index = grid.slice_at(position, name)
        if index in filled:
            raise DataError(f"{name} is the second mask for slice {index} of its CT: keep one mask series in a folder")
        filled.add(index)
        labels[:, :, index] = label_values(dataset, pixels, name).T
    return labels


def choose_masks(masks: Path, ct: Series, uid: str) -> Series:
    """The series of masks in a folder or file, which is not the CT's own."""
    if masks.is_file():
        header = read_header(masks)
        if not header.get("Rows"):
            raise DataError(f"{shown(masks)} is no image but {class_name(header) or 'of unknown kind'}: convert it to "
                            "a DICOM-SEG or NIfTI of labels first")
        return described(str(header.get("SeriesInstanceUID", "")), [header])
    others = [one for one in find_series(masks) if one.uid != ct.uid and not one.localizer]
    found = [one for one in others if one.uid == uid] if uid else [one for one in others if one.modality == "SEG"]
    found = found or ([] if uid else others)
    if len(found) != 1:
        listed = f" choose one of these with uid=...\n{listing(others)}" if others else " give the folder of the masks"
        raise DataError(f"{len(found)} series of masks in {shown(masks)}:{listed}")
    return found[0]


def label_values(dataset: Dataset, pixels: np.ndarray, name: str) -> np.ndarray:
    """Labels 0, 1, 2 (rows, columns) of an ordinary image, rescaled or as stored."""
    for values in (rescaled(dataset, pixels), pixels):
        if values.min() >= 0 and values.max() <= TUMOUR:
            return values.astype(np.uint8)
    found = np.unique(pixels)
    some = ", ".join(map(str, found[:6])) + (", ..." if len(found) > 6 else "")
    raise DataError(f"{name} holds the values {some}, not labels 0, 1, 2: give the label series, or recode it")


def segment_label(segment: Dataset) -> int:
    """1 for a segment named or coded as liver, 2 for a tumour, 0 for anything else."""
    kinds = segment.get("SegmentedPropertyTypeCodeSequence") or []
    texts = [str(segment.get("SegmentLabel", ""))] + [str(kind.get("CodeMeaning", "")) for kind in kinds]
    if any(TUMOUR_WORDS.search(text) for text in texts):
        return TUMOUR
    coded = any(kind.get("CodeValue") in LIVER_CODES for kind in kinds)
    return LIVER if coded or any(LIVER_WORDS.fullmatch(text.strip()) for text in texts) else 0


def functional_group(dataset: Dataset, frame: Dataset, group: str) -> Dataset | None:
    """One item of a multi-frame image's attributes, of this frame or shared by all (PS3.3 C.7.6.16)."""
    for holder in (frame, *dataset.get("SharedFunctionalGroupsSequence", [])):
        if holder.get(group):
            return holder[group][0]
    return None


def add_segmentation(labels: np.ndarray, dataset: Dataset, pixels: np.ndarray, grid: Grid, name: str) -> None:
    """Enter the liver and tumour of one segmentation object, frame by frame, into ``labels``."""
    kind = dataset.get("SegmentationType", "")
    if kind not in ("BINARY", "LABELMAP"):
        raise DataError(f"{name} is a segmentation of type {kind or 'unknown'}: save it as BINARY or LABELMAP")
    segments = {int(one.get("SegmentNumber", 0)): segment_label(one) for one in dataset.get("SegmentSequence", [])}
    wanted = {number: label for number, label in segments.items() if label}
    if not wanted:
        names = ", ".join(str(one.get("SegmentLabel", "")) for one in dataset.get("SegmentSequence", [])) or "none"
        raise DataError(f"{name} has no segment named or coded as liver or tumour (its segments: {names}): rename them")

    frames = dataset.get("PerFrameFunctionalGroupsSequence", [])
    pictures = pixels.reshape(-1, dataset.Rows, dataset.Columns)  # a single frame comes without its axis
    if len(frames) != len(pictures):
        raise DataError(f"{name} describes {len(frames)} frames and holds {len(pictures)}: it is damaged, copy it again")
    for number, (frame, picture) in enumerate(zip(frames, pictures, strict=True)):
        place = functional_group(dataset, frame, "PlanePositionSequence")
        position = None if place is None else numbers(place, "ImagePositionPatient", 3)
        if position is None:
            raise DataError(f"frame {number} of {name} has no ImagePositionPatient: its CT slice is unknown")
        for group in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            plane = functional_group(dataset, frame, group)
            if plane is not None:
                grid.require_same_plane(plane, *picture.shape, name)
        target = labels[:, :, grid.slice_at(position, f"frame {number} of {name}")]
        if kind == "LABELMAP":
            found = [(picture == segment, label) for segment, label in wanted.items()]
        else:
            identity = functional_group(dataset, frame, "SegmentIdentificationSequence")
            segment = None if identity is None else numbers(identity, "ReferencedSegmentNumber", 1)
            if segment is None:
                raise DataError(f"frame {number} of {name} does not say which segment it is: save it again")
            found = [(picture > 0, wanted.get(int(segment[0]), 0))]
        for inside, label in found:
            target[inside.T & (target < label)] = label


def write_segmentation(
    path: str | os.PathLike, labels: np.ndarray, ct: str | os.PathLike | Series, *, keep_patient: bool = False
) -> None:
    """Write labels as a DICOM segmentation object (BINARY) that opens beside its CT, atomically.

    The segments are "Liver", without its tumours, and "Liver tumour", each only where it has
    voxels; frames without any are left out. Of the CT it holds the UIDs of its images, series,
    study and frame of reference, by which a viewer finds them, and their place. Whoever has the CT
    can tell by the UIDs whose it is; nobody else can.

    Parameters
    ----------
    path : path
        File to write, usually ``.dcm``.
    labels : integer array (columns, rows, slices)
        0 background, 1 liver, 2 tumour, in the stored order of the CT.
    ct : path or Series
        The CT, or the folder with only this CT.
    keep_patient : bool
        Copy :data:`PATIENT_KEYWORDS` from the CT, for an archive that files by patient. Else they
        are there, as the standard asks for, and empty.

    Raises
    ------
    ValueError
        If the labels do not fit the CT, or hold another value.
    DataError
        If all labels are 0: a segmentation object needs a segment, so an empty prediction can be
        written as NIfTI only; or if the CT lacks what a segmentation has to refer to.
    """
    pydicom = import_pydicom()
    try:
        from highdicom.seg import Segmentation, SegmentationTypeValues
        from highdicom.uid import UID
    except ImportError as error:
        raise DataError("writing DICOM-SEG needs highdicom: pip install 'lits-helpers[dicom]'") from error
    from . import __version__

    grid = ct_grid(ct)
    if labels.shape != grid.shape:
        raise ValueError(f"labels of shape {labels.shape} do not fit a CT of {grid.shape} (columns, rows, slices)")
    present = [int(label) for label in np.unique(labels) if label != 0]
    if not set(present) <= {LIVER, TUMOUR}:
        raise ValueError(f"labels are 0, 1 (liver) and 2 (tumour), got {present}")
    if not present:
        raise DataError(f"nothing to write to {shown(path)}: no liver and no tumour was predicted, and a DICOM "
                        "segmentation needs a segment; write the prediction as NIfTI")
    numbered = np.zeros(TUMOUR + 1, np.uint8)  # segments are numbered from 1 without gaps
    numbered[present] = np.arange(1, len(present) + 1)
    wanted = LINKING_KEYWORDS + PATIENT_KEYWORDS * keep_patient
    sources = [pydicom.dcmread(header.filename, stop_before_pixels=True, specific_tags=wanted) for header in grid.headers]
    for source in sources:
        for keyword in PATIENT_KEYWORDS:
            if keyword not in source:
                setattr(source, keyword, "")
    try:
        segmentation = Segmentation(
            source_images=sources,
            pixel_array=numbered[labels.transpose(2, 1, 0).astype(np.uint8)],
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[segment_description(label, n) for n, label in enumerate(present, 1)],
            series_instance_uid=UID(), series_number=1000, sop_instance_uid=UID(), instance_number=1,
            manufacturer=IMPLEMENTATION, manufacturer_model_name=IMPLEMENTATION,
            software_versions=__version__, device_serial_number="0",
            series_description="Liver and tumours, predicted",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"no segmentation can refer to the CT of {shown(grid.headers[0].filename)} ({error}): "
                        "give the series as the scanner wrote it, or write NIfTI") from error
    if "ContentCreatorName" not in segmentation:
        segmentation.ContentCreatorName = ""  # required, may be empty (PS3.3, table 10-12); a program, no person
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)


def segment_description(label: int, number: int):  # noqa: ANN201 (highdicom's SegmentDescription)
    """Name, codes (PS3.16, CID 7150 and 7151), colour and origin of one segment."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    from . import __version__

    structure, kind, name = {
        LIVER: (codes.SCT.AnatomicalStructure, codes.SCT.Liver, "Liver"),
        TUMOUR: (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm, "Liver tumour"),
    }[label]
    description = SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=structure,
        segmented_property_type=kind,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=IMPLEMENTATION, family=codes.DCM.ArtificialIntelligence, version=__version__
        ),
        anatomic_regions=[codes.SCT.Liver] if label == TUMOUR else None,
    )
    description.RecommendedDisplayCIELabValue = list(CIELabColor(*DISPLAY_COLOURS[label]).value)
    return description
