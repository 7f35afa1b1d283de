"""What is here? The layouts in which people hold LiTS, found below any folder.

==============  =======  ==========================================================================
layout          kind     files
==============  =======  ==========================================================================
lits-nifti      volumes  ``volume-N.nii[.gz]`` and ``segmentation-N.nii[.gz]``, in one folder or in
                         several (Kaggle); ``test-volume-N`` is the volume 131 + N, without a mask
decathlon       volumes  ``imagesTr/liver_N.nii.gz``, ``labelsTr/liver_N.nii.gz``; ``imagesTs``
dicom           volumes  folders of DICOM series: a CT, and its mask as a second series or none
3d-ircadb       volumes  ``3Dircadb1.N`` with ``PATIENT_DICOM`` and ``MASKS_DICOM/liver``
report-slices   slices   ``volume-V_slice_S.jpg`` (or PNG) and ``volume-V_slice_S_mask.jpg``
lits-png        slices   ``volume-V_S.png`` with ``segmentation-V_livermask_S.png`` and
                         ``segmentation-V_lesionmask_S.png``
paired-slices   slices   equal numbers in the names of ``train_images`` and of ``train_masks``, or
                         of other folders whose paths differ by image/img and
                         mask/label/seg/segmentation only
==============  =======  ==========================================================================

:mod:`lits_helpers.data_files` says how files are recognised. A DICOM case has the number in its
folder's name where these tell all cases apart; otherwise cases are counted from 0 in the order of
their folders.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from . import masks
from .data_files import NIFTI_FILE, PICTURE_FILE, SLICES, Found, recognised, walk
from .files import DataError
from .volumes import read_geometry

LAYOUTS = ("lits-nifti", "decathlon", "dicom", "3d-ircadb", *SLICES)
VOLUME_COLUMNS = ["volume", "image_path", "image_series", "mask_path", "mask_series", "slices"]
SLICE_COLUMNS = ["volume", "slice", "image_path", "mask_path", "tumour_mask_path"]

EXPECTED = """\
  report-slices  images/train_images/volume-0_slice_0.jpg, masks/train_masks/volume-0_slice_0_mask.jpg
  lits-nifti     volume-0.nii, segmentation-0.nii (or .nii.gz), in any folders
  decathlon      imagesTr/liver_0.nii.gz, labelsTr/liver_0.nii.gz
  lits-png       volume-0_0.png, segmentation-0_livermask_0.png, segmentation-0_lesionmask_0.png
  paired-slices  train_images/0_0.png, train_masks/0_0.png: equal names with a volume and a slice
  dicom          any folders of DICOM files
  3d-ircadb      3Dircadb1.1/PATIENT_DICOM, 3Dircadb1.1/MASKS_DICOM/liver"""


@dataclass(frozen=True, eq=False)
class Layout:
    """One copy of the data in one layout.

    Attributes
    ----------
    name : str
        One of :data:`LAYOUTS`.
    kind : str
        ``"volumes"`` or ``"slices"``.
    folder : Path
        The innermost folder that holds all its files.
    cases : DataFrame
        One row a volume or slice, sorted by number, paths absolute. Volumes:
        :data:`VOLUME_COLUMNS`; a path is a file or a folder, a series its DICOM UID, and
        ``slices`` counts what the header or the series says. Slices: :data:`SLICE_COLUMNS`.
        ``""`` stands for what there is not: ``mask_path`` where a mask is missing,
        ``tumour_mask_path`` outside lits-png, series outside DICOM. Volumes whose header is
        unreadable, or unlike its mask's, are left out.
    problems : list of str
        One line each, beginning with the file or folder.
    left_out : list of str
        Those of them by which something is not among the cases; the others are files without a partner.
    """

    name: str
    kind: str
    folder: Path
    cases: pd.DataFrame
    problems: list[str]
    left_out: list[str]


def find_layouts(root: str | os.PathLike) -> list[Layout]:
    """Every layout, and every copy of one, below a folder.

    Goes by the names of files and folders; NIfTI and DICOM headers are read once. Hidden files
    are left out. Links to folders are followed, each folder once. Files of one layout are one
    copy wherever they lie, unless two folders each hold pairs of image and mask and over half of
    the numbers in the smaller are in the other too.

    Parameters
    ----------
    root : path
        Only read.

    Returns
    -------
    list of Layout
        In the order of :data:`LAYOUTS`, then of folders. At least one.

    Raises
    ------
    DataError
        If ``root`` is no folder or holds nothing of the kind; the message shows what is expected.
    """
    root = os.path.abspath(root)
    if not os.path.isdir(root):
        raise DataError(f"{root} is not a folder: set LITS_DATA_ROOT to the one with the data")
    folders, astray = walk(root)
    by_layout: dict[str, list[Found]] = defaultdict(list)
    for one in recognised(root, folders):
        by_layout[one.layout].append(one)
    layouts = [
        _assembled(name, copy) for name in LAYOUTS if name in by_layout for copy in _copies(by_layout[name])
    ]
    if not layouts:
        counts = [sum(bool(kind.fullmatch(name)) for names in folders.values() for name in names)
                  for kind in (NIFTI_FILE, PICTURE_FILE)]  # fmt: skip
        raise DataError(
            f"no LiTS data below {root}: its {counts[0]} NIfTI files and {counts[1]} pictures are in none "
            "of these layouts (data/README.md):\n" + "\n".join([EXPECTED, *map(": ".join, astray)])
        )
    for path, text in astray:
        concerned = [layout for layout in layouts if Path(path).is_relative_to(layout.folder)]
        for layout in concerned or layouts:
            layout.problems.append(f"{path}: {text}")
            layout.left_out.append(f"{path}: {text}")
    return layouts


def choose(layouts: Sequence[Layout], name: str | None = None) -> Layout:
    """The only layout, or the one that is asked for.

    Parameters
    ----------
    layouts : sequence of Layout
        Of :func:`find_layouts`.
    name : str, optional
        A layout's name, or the folder (its last parts are enough) where two share the name.

    Raises
    ------
    DataError
        If none or several are meant; the message lists all and names the setting that chooses.
    """
    parts = Path(name).parts if name else ()
    meant = [
        layout for layout in layouts
        if not name or name == layout.name or (parts and layout.folder.parts[-len(parts):] == parts)
    ]  # fmt: skip
    if len(meant) == 1:
        return meant[0]
    asked = f"{len(meant)} layouts fit {name!r}" if name else f"{len(meant)} layouts are here"
    lines = [f"  - {layout.name} in {layout.folder}, {len(layout.cases)} {layout.kind}" for layout in layouts]
    advice = "Choose with LITS_LAYOUT (Settings.layout): a name, or a folder."
    raise DataError("\n".join([f"{asked}:", *lines, advice]))


def what_is_here(layouts: Sequence[Layout], root: str | os.PathLike, *, mask_meaning: str = "") -> pd.DataFrame:
    """A table of the layouts below a folder.

    Parameters
    ----------
    layouts : sequence of Layout
        Of :func:`find_layouts`.
    root : path
        Folders are shown from here.
    mask_meaning : str
        What masks of two levels outline: see :func:`lits_helpers.masks.detect`.

    Returns
    -------
    DataFrame
        One row a layout: ``layout``, ``folder`` (relative to ``root``), ``volumes``, ``slices``,
        ``coding`` of the masks (those of volumes are checked on reading; for others it begins with
        "ambiguous" or "unreadable" where it is not known) and ``problems``, their number.
    """
    rows = [
        {
            "layout": layout.name,
            "folder": os.path.relpath(layout.folder, root),
            "volumes": layout.cases.volume.nunique(),
            "slices": int(layout.cases.slices.sum()) if layout.kind == "volumes" else len(layout.cases),
            "coding": _coding(layout, mask_meaning),
            "problems": len(layout.problems),
        }
        for layout in layouts
    ]
    return pd.DataFrame(rows)


# Copies ---------------------------------------------------------------------------------------


def _copies(found: list[Found]) -> list[list[Found]]:
    """The files of one layout, apart by the copy of the data that they belong to."""
    below: dict[str, list[list[Found]]] = defaultdict(list)
    directly: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        directly[_held_in(one)].append(one)
    common = os.path.commonpath(directly)
    to_do = set(directly)
    for folder in directly:
        while folder != common:
            folder = os.path.dirname(folder)
            to_do.add(folder)
    for folder in sorted(to_do, key=lambda folder: (-len(Path(folder).parts), folder)):
        groups = _joined([directly[folder], *below[folder]] if folder in directly else below[folder])
        below[os.path.dirname(folder)] += groups
    return groups  # of the common folder, which comes last


def _joined(groups: list[list[Found]]) -> list[list[Found]]:
    """Groups as one, except those that hold the same cases once more."""
    whole = [group for group in groups if _pairs(group)]
    loose = [one for group in groups if not _pairs(group) for one in group]
    if _pairs(loose):
        whole, loose = [loose, *whole], []
    apart: list[tuple[list[Found], set[Hashable]]] = []  # each with its numbers
    for group in whole:
        numbers = _keys(group, "image")
        for other, known in apart:
            if 2 * len(numbers & known) <= min(len(numbers), len(known)):
                other += group
                known |= numbers
                break
        else:
            apart.append((list(group), numbers))
    copies = [group for group, _ in apart]
    if not loose:
        return copies
    return [copies[0] + loose, *copies[1:]] if copies else [loose]


def _keys(group: Iterable[Found], role: str) -> set[Hashable]:
    return {one.key for one in group if one.role == role}


def _pairs(group: list[Found]) -> set[Hashable]:
    return _keys(group, "image") & _keys(group, "mask")


# Tables ---------------------------------------------------------------------------------------


def _assembled(name: str, copy: list[Found]) -> Layout:
    """The table and the problems of one copy."""
    first: dict[str, dict[Hashable, Found]] = defaultdict(dict)
    left_out = []
    for one in sorted(copy, key=lambda one: one.path):
        role = "image" if one.role == "test image" else one.role
        if role == "problem":
            text = str(one.key)
            left_out.append(text if text.startswith(one.path) else f"{one.path}: {text}")
        elif (kept := first[role].setdefault(one.key, one)) is not one:
            what = "slice" if name in SLICES else "volume"
            left_out.append(f"{one.path}: the same {what} as {kept.path}")
    images, mask_files, tumours = first["image"], first["mask"], first["tumour mask"]
    folder = os.path.commonpath([_held_in(one) for one in copy])
    unpaired = _unpaired(folder, images, mask_files, tumours if name == "lits-png" else None)
    nothing = Found(name, "mask", (), "")
    if name in SLICES:
        rows = [
            (*key, image.path, mask_files.get(key, nothing).path, tumours.get(key, nothing).path)
            for key, image in images.items()
        ]
        cases = pd.DataFrame(rows, columns=SLICE_COLUMNS).sort_values(["volume", "slice"], ignore_index=True)
        return Layout(name, "slices", Path(folder), cases, left_out + unpaired, left_out)
    keys = sorted(images, key=lambda key: images[key].path)
    numbers = _volume_numbers(keys, [images[key].path for key in keys], folder)
    rows = []
    for number, key in tqdm(list(zip(numbers, keys, strict=True)), "reading headers", unit="volume", delay=2):
        image, mask = images[key], mask_files.get(key, nothing)
        slices = image.slices
        if name in ("lits-nifti", "decathlon"):
            try:
                slices = _slices_in_header(image.path, mask.path)
            except DataError as error:
                left_out.append(str(error))
                continue
        rows.append((number, image.path, image.series, mask.path, mask.series, slices))
    cases = pd.DataFrame(rows, columns=VOLUME_COLUMNS).sort_values("volume", ignore_index=True)
    return Layout(name, "volumes", Path(folder), cases, left_out + unpaired, left_out)


def _held_in(one: Found) -> str:
    """The folder of a file; of DICOM it is the find itself."""
    return one.path if one.layout in ("dicom", "3d-ircadb") else os.path.dirname(one.path)


def _unpaired(folder: str, images: dict, mask_files: dict, tumours: dict | None) -> list[str]:
    """Images without masks, in one line where there is no mask at all, and masks without images."""
    masked = [key for key in images if images[key].role == "image"]  # or should be
    problems = []
    for what, found in (("mask", mask_files), ("tumour mask", tumours)):
        if found is None:
            continue
        missing = [images[key].path for key in masked if key not in found]
        if missing and not found:
            text = f"{len(missing)} images without any {what}: they serve for prediction only"
            problems.append(f"{folder}: {text}")
        else:
            problems += [f"{path}: no {what}" for path in missing]
        problems += [f"{found[key].path}: no image" for key in found if key not in images]
    return problems


def _volume_numbers(keys: list[Hashable], paths: list[str], folder: str) -> list[int]:
    """Of the files' names; of DICOM those in the folders' names, if they tell all cases apart."""
    if all(isinstance(key[0], int) for key in keys):
        return [key[0] for key in keys]
    parts = [Path(path).relative_to(Path(folder).parent).parts for path in paths]
    for depth in range(min(map(len, parts))):
        # UIDs in names have numbers too, which are too long for a volume's.
        found = [re.findall(r"(?<![\d.])\d{1,6}(?![\d.])", part[depth])[-1:] for part in parts]
        if all(found) and len({number for [number] in found}) == len(found):
            return [int(number) for [number] in found]
    return list(range(len(keys)))


def _slices_in_header(image: str, mask: str) -> int:
    """Slices of a NIfTI volume whose header, and its mask's, can be read and fit."""
    shape = read_geometry(image).screen_shape
    if mask and (other := read_geometry(mask)).screen_shape != shape:
        raise DataError(
            f"{mask}: {other.screen_shape} slices, rows and columns, but {shape} in {image}: they are not "
            "of one volume"
        )
    return shape[0]


def _coding(layout: Layout, meaning: str) -> str:
    """How masks code liver and tumour, or why that is not known."""
    mask_files = [path for path in layout.cases.mask_path if path]
    if not mask_files:
        return "no masks"
    if layout.kind == "volumes":
        return "labels (checked on reading)"
    if layout.name == "lits-png":
        return masks.TWO_FILES.name
    try:
        return masks.detect(mask_files, meaning=meaning or None).name
    except DataError as error:
        # What a user can settle names the setting that does.
        return f"{'ambiguous' if 'LITS_MASK_MEANING' in str(error) else 'unreadable'}: {error}"
