"""Which scans a page may read: below one folder and nowhere else, or uploaded and small enough.

Every path is followed to where it really is first; one that leads outside is refused, and so is a
folder that holds a link to outside.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .conversion import read_case
from .drawing import Marks, slice_marks, volume_marks
from .files import DataError, atomic_path
from .layouts import SLICE_COLUMNS, Layout, find_layouts
from .masks import read_labels, read_two_files
from .pictures import read_image, read_image_size
from .volumes import read_geometry
from .windows import three_channels

UPLOAD_MEGABYTES = 64  # of all files of one upload together
MOST_VOXELS = 512 * 512 * 2000  # a packed file may claim to be any size: these are 1 GB of HU
VOLUMES, PICTURES = (".nii", ".nii.gz"), (".png", ".jpg", ".jpeg")
_SUGGESTIONS = 500
_MASK_NAME = re.compile("mask|segmentation|label|prediction", re.IGNORECASE)


# What may be read -----------------------------------------------------------------------------


def inside(root: Path | str, chosen: Path | str) -> Path:
    """The real place of a path below ``root``, links followed.

    Parameters
    ----------
    root : path
    chosen : path
        From ``root`` on, or absolute.

    Raises
    ------
    DataError
        If there is nothing, or it lies outside: then nothing tells whether it is there.
    """
    root = Path(root).resolve()
    try:
        path = (root / chosen).resolve()
        if not path.is_relative_to(root):
            raise DataError(f"{chosen} is not below {root}: start the app with --root FOLDER for another one")
        if not path.exists():
            raise DataError(f"{chosen}: nothing of that name below {root}")
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, too long a name, a circle of links
        if isinstance(error, DataError):
            raise
        raise DataError(f"{str(chosen)!r} is not a path: choose one from the list") from error
    return path


def refuse_links_outside(root: Path | str, folder: Path) -> None:
    """Raise DataError if any link below ``folder`` leads outside ``root``."""
    root = Path(root).resolve()
    for parent, folders, names in os.walk(folder):  # real folders alone: those behind links are below root
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            if os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(root):
                raise DataError(f"{path} is a link that leads outside {root}: copy the files, or name another --root")


def suggestions(root: Path | str) -> list[str]:
    """Volumes below ``root``, and folders with files, relative to it; links are not followed."""
    root, found = Path(root).resolve(), []
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = sorted(name for name in names if not name.startswith("."))
        where = Path(parent).relative_to(root)
        volumes = [name for name in visible if name.lower().endswith(VOLUMES)]
        found += [str(where / name) for name in volumes if not _MASK_NAME.search(name)]
        if volumes != visible:
            found.append(str(where))
        if len(found) >= _SUGGESTIONS:
            break
    return found[:_SUGGESTIONS]


# Scans ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan, ready to be looked at.

    Attributes
    ----------
    numbers : list of int
        Of its slices, as files or the volume count them.
    picture : callable
        From the place of a slice to its uint8 picture (rows, columns, 3).
    truth : sequence of uint8 arrays (rows, columns), or None
        Labels 0, 1, 2 of each slice; None without a reference.
    source : int16 array (slices, rows, columns) in HU, or DataFrame of slice files
        What the network is given.
    marks : sequence of Marks
        Sides and scale of each slice, as far as these are known.
    notes : list of str
        What is wrong with it, in words.
    """

    numbers: list[int]
    picture: Callable[[int], np.ndarray]
    truth: Sequence[np.ndarray] | None
    source: np.ndarray | pd.DataFrame
    marks: Sequence[Marks]
    notes: list[str]


def list_scans(root: Path | str, chosen: str) -> dict[str, Callable[[], Scan]]:
    """The scans in a file or folder below ``root``, by name; each is read when called.

    Parameters
    ----------
    root : path
    chosen : str
        A NIfTI file; a slice as PNG or JPEG; or a folder in any layout of
        :mod:`lits_helpers.layouts`, with NIfTI files, or with slices of one scan.

    Raises
    ------
    DataError
        If it lies outside ``root``, a link in it does, or there is no scan.
    """
    path = inside(root, chosen)
    if path.is_file():
        if path.name.lower().endswith(VOLUMES):
            return {path.name: lambda: _volume_scan(root, _nifti_case(root, path))}
        if path.suffix.lower() in PICTURES:
            return {path.name: lambda: _slice_scan(root, _loose_slices([path]))}
        raise DataError(f"{chosen}: neither NIfTI ({', '.join(VOLUMES)}) nor a picture ({', '.join(PICTURES)})")
    refuse_links_outside(root, path)
    try:
        layouts = find_layouts(path)
    except DataError:
        return _loose_scans(root, path)
    scans: dict[str, Callable[[], Scan]] = {}
    for layout in layouts:
        scans |= _scans_of(root, layout)
    return scans


def _scans_of(root: Path | str, layout: Layout) -> dict[str, Callable[[], Scan]]:
    if layout.kind == "slices":
        groups = layout.cases.groupby("volume")
        return {f"{layout.name}: volume {volume}": lambda rows=rows: _slice_scan(root, rows) for volume, rows in groups}
    rows = layout.cases.to_dict("records")
    return {f"{layout.name}: volume {row['volume']}": lambda row=row: _volume_scan(root, row) for row in rows}


def _loose_scans(root: Path | str, folder: Path) -> dict[str, Callable[[], Scan]]:
    """Files in a folder that has no layout: each NIfTI file, and all pictures as one scan."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if not _MASK_NAME.search(path.name)]
    volumes = [path for path in files if path.name.lower().endswith(VOLUMES)]
    pictures = [path for path in files if path.suffix.lower() in PICTURES]
    scans = {path.name: lambda path=path: _volume_scan(root, _nifti_case(root, path)) for path in volumes}
    if pictures:
        scans[f"{len(pictures)} slices of {folder.name}"] = lambda: _slice_scan(root, _loose_slices(pictures))
    if not scans:
        raise DataError(f"{folder}: no CT in it: NIfTI, DICOM, or slices as PNG or JPEG")
    return scans


def _nifti_case(root: Path | str, path: Path) -> dict[str, str]:
    """A NIfTI file with the labels that lie beside it under the name LiTS or the Decathlon gives them."""
    beside = path.with_name(path.name.replace("volume", "segmentation"))
    if path.parent.name == "imagesTr":
        beside = path.parent.with_name("labelsTr") / path.name
    mask = str(inside(root, beside)) if beside != path and beside.exists() else ""
    return {"image_path": str(path), "image_series": "", "mask_path": mask, "mask_series": ""}


def _loose_slices(paths: Iterable[Path]) -> pd.DataFrame:
    """Slice files without masks, in the order of the numbers in their names."""
    ordered = sorted(paths, key=lambda path: [int(number) for number in re.findall(r"\d+", path.stem)])
    rows = [(0, place, str(path), "", "") for place, path in enumerate(ordered)]
    return pd.DataFrame(rows, columns=SLICE_COLUMNS)


def _volume_scan(root: Path | str, case: dict[str, str]) -> Scan:
    for path in filter(None, (case["image_path"], case["mask_path"])):
        place = inside(root, path)  # once more: a link may have been changed since it was listed
        if place.is_dir():
            refuse_links_outside(root, place)
        elif (voxels := np.prod(read_geometry(path).shape, dtype=float)) > MOST_VOXELS:
            raise DataError(f"{path}: {voxels:,.0f} voxels, at most {MOST_VOXELS:,} are read here")
    volume, labels, notes = read_case(case)
    hounsfield = volume.hounsfield
    marks = [volume_marks(volume.geometry)] * len(hounsfield)
    return Scan(list(range(len(hounsfield))), lambda place: three_channels(hounsfield[place]), labels, hounsfield, marks, notes)


def _slice_scan(root: Path | str, rows: pd.DataFrame) -> Scan:
    rows = rows.sort_values("slice")
    for path in filter(None, (*rows.image_path, *rows.mask_path, *rows.tumour_mask_path)):
        read_image_size(inside(root, path))  # which refuses one that claims to be huge
    paths, truth, notes = rows.image_path.tolist(), None, []
    two_files = rows.tumour_mask_path != ""
    if (rows.mask_path != "").all() and two_files.nunique() == 1:  # a liver without its tumours' mask is no reference
        try:
            masks = zip(rows.mask_path, rows.tumour_mask_path, strict=True)
            truth = [read_two_files(path, tumours) if tumours else read_labels(path) for path, tumours in masks]
        except DataError as error:
            notes.append(f"masks left out: {error}")
    return Scan(rows.slice.tolist(), lambda place: read_image(paths[place]), truth, rows, slice_marks(rows), notes)


# Upload ---------------------------------------------------------------------------------------


def keep_upload(files: Iterable[dict], folder: Path) -> Path:
    """Write what was uploaded into a fresh folder, if it is small enough and of a kind that is read.

    Parameters
    ----------
    files : iterable of dict
        ``name`` and ``content`` of each, as ``ipywidgets.FileUpload`` gives them: one NIfTI file,
        or slices as PNG or JPEG. DICOM comes as a folder, which cannot be uploaded.
    folder : Path
        Gets a folder of its own for each upload; of the names only harmless letters are kept.

    Returns
    -------
    Path
        That folder.

    Raises
    ------
    DataError
        Over :data:`UPLOAD_MEGABYTES`, or of another kind.
    """
    files = list(files)
    megabytes = sum(len(file["content"]) for file in files) / 1e6
    if megabytes > UPLOAD_MEGABYTES:
        raise DataError(f"{megabytes:.0f} MB, at most {UPLOAD_MEGABYTES} can be uploaded: put the file below the root folder")
    names = [_harmless(file["name"]) for file in files]
    for name in names:
        if not name.lower().endswith((*VOLUMES, *PICTURES)):
            raise DataError(f"{name}: upload one NIfTI file, or slices as PNG or JPEG; DICOM is read from a folder")
    kept = Path(tempfile.mkdtemp(prefix="upload-", dir=folder))
    for name, file in zip(names, files, strict=True):
        with atomic_path(kept / name) as temporary:
            temporary.write_bytes(file["content"])
    return kept


def _harmless(name: str) -> str:
    """A file's name without folders, and of other than plain letters ``_``."""
    return re.sub(r"[^\w.-]", "_", name.replace("\\", "/").rpartition("/")[2], flags=re.ASCII).lstrip(".")
