"""What the files below a folder are, by their names, their folders' names and DICOM's headers.

In paired slices, two numbers in a name are the volume and the slice. One number is the slice; its
volume is then the only number in the names of the folders round it (``patient-3/images/17.png``),
or else 0, so that slices of unknown patients count as one volume. A name with no number, or with
more than two, is a problem: what it means would be guessed.

Of DICOM series, those are masks that are segmentations (SEG), or whose description or folder has a
word for mask; all other CT series are scans. A mask belongs to the nearest scan: in the same
folder, or alone in the smallest folder round it, or at the same place beside it (``CT/7`` for
``masks/7``).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from . import dicom
from .files import DataError

SLICES = ("report-slices", "lits-png", "paired-slices")
# LiTS numbers its test volumes from 0 again; behind its 131 training volumes they are unique.
FIRST_TEST_VOLUME = 131

_NIFTI, _PICTURE = r"\.nii(?:\.gz)?", r"\.(?:jpe?g|png)"
_NAMES = {  # by the name of the file alone
    ("lits-nifti", "image"): rf"volume-(\d+){_NIFTI}",
    ("lits-nifti", "test image"): rf"test-volume-(\d+){_NIFTI}",
    ("lits-nifti", "mask"): rf"segmentation-(\d+){_NIFTI}",
    ("report-slices", "image"): rf"volume-(\d+)_slice_(\d+){_PICTURE}",
    ("report-slices", "mask"): rf"volume-(\d+)_slice_(\d+)_mask{_PICTURE}",
    ("lits-png", "image"): r"volume-(\d+)_(\d+)\.png",
    ("lits-png", "mask"): r"segmentation-(\d+)_livermask_(\d+)\.png",
    ("lits-png", "tumour mask"): r"segmentation-(\d+)_lesionmask_(\d+)\.png",
}
_NAMES = {what: re.compile(pattern, re.IGNORECASE) for what, pattern in _NAMES.items()}
_DECATHLON_NAME = re.compile(rf"liver_(\d+){_NIFTI}", re.IGNORECASE)
_DECATHLON_FOLDERS = {"imagestr": "image", "imagests": "test image", "labelstr": "mask"}
_NAMED_LIKE = {
    "lits-nifti": "volume-0.nii or segmentation-0.nii", "decathlon": "liver_0.nii.gz",
    "report-slices": "volume-0_slice_0.jpg", "lits-png": "volume-0_0.png",
    "paired-slices": "12_7.png, with a volume and a slice number",
}  # fmt: skip
PICTURE_FILE = re.compile(rf".+{_PICTURE}", re.IGNORECASE)
NIFTI_FILE = re.compile(rf".+{_NIFTI}", re.IGNORECASE)
# A word of a folder's name: train_images, Image, img-2; not "imagery".
_IMAGE_WORD = re.compile(r"(?<![a-z])(?:images?|imgs?)(?![a-z])", re.IGNORECASE)
_MASK_WORD = re.compile(
    r"(?<![a-z])(?:masks?|labels?|seg|segmentations?)(?![a-z])", re.IGNORECASE
)
_DICOM_ENDING = re.compile(r".+\.(?:dcm|dicom|ima)", re.IGNORECASE)
_TELLING_ENDING = re.compile(r".*\.[a-z]\w{0,4}", re.IGNORECASE)
_OTHER_FILES_TRIED = 5  # of a folder, for DICOM's mark, when no name tells
_IRCADB_FOLDER = re.compile(r"3Dircadb\d+\.(\d+)", re.IGNORECASE)


class Found(NamedTuple):
    """A file, or a folder of DICOM files, and what it is in its layout.

    Attributes
    ----------
    layout : str
    role : str
        ``"image"``, ``"test image"`` (for which no mask was published), ``"mask"``, ``"tumour mask"``
        or ``"problem"``.
    key : tuple
        Numbers of the volume and slice, by which an image finds its mask; of DICOM the series UID
        of the CT, or the patient's folder where it has no number; of a problem its text.
    path, series : str
        The series UID is ``""`` outside DICOM.
    slices : int
        Of a DICOM series.
    """

    layout: str
    role: str
    key: Hashable
    path: str
    series: str = ""
    slices: int = 0


def recognised(root: str, folders: dict[str, list[str]]) -> list[Found]:
    """What the files that :func:`walk` has listed are; files of no layout are left out."""
    return [*_by_names(root, folders), *_by_dicom(root, folders)]


# Walking --------------------------------------------------------------------------------------


def walk(root: str) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Files by folder, hidden ones left out; and (path, problem) of links, closed folders and what is no file."""
    astray: list[tuple[str, str]] = []
    folders: dict[str, list[str]] = {}
    seen = {_identity(root): root}

    def closed(error: OSError) -> None:
        astray.append((str(error.filename), f"cannot be searched ({error.strerror})"))

    for folder, inner, names in os.walk(root, onerror=closed, followlinks=True):
        new = []
        for path in (os.path.join(folder, name) for name in (*inner, *names) if not _is_text(name)):
            astray.append((os.fsencode(path).decode(errors="backslashreplace"), "its name is not UTF-8: rename it"))
        # Real folders first, so that of a folder and a link to it the link is the second.
        visible = (os.path.join(folder, name) for name in inner if _is_text(name) and not name.startswith("."))
        for path in sorted(visible, key=lambda path: (os.path.islink(path), path)):
            try:
                first = seen.setdefault(_identity(path), path)
            except OSError as error:
                closed(error)
                continue
            if first == path:
                new.append(os.path.basename(path))
            elif folder == first or folder.startswith(os.path.join(first, "")):
                astray.append((path, f"a link in a circle, back to {first}: not followed"))
            else:
                astray.append((path, f"the same folder as {first}: searched once"))
        inner[:] = sorted(new)
        folders[folder] = []
        for name in sorted(name for name in names if _is_text(name) and not name.startswith(".")):
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                folders[folder].append(name)
            elif os.path.exists(path):  # opening a pipe would wait for ever
                astray.append((path, "neither a file nor a folder, but a pipe or device: remove it"))
            else:
                folders[folder].append(name)
                astray.append((path, "a link that leads nowhere"))
    return folders, astray


def _is_text(name: str) -> bool:
    """Whether a name can be printed and stored. Of bytes that are no UTF-8 Python makes halves of pairs."""
    return not re.search("[\ud800-\udfff]", name)


def _identity(folder: str) -> tuple[int, int]:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


# Recognising names ----------------------------------------------------------------------------


def _by_names(root: str, folders: dict[str, list[str]]) -> Iterator[Found]:
    """What NIfTI files and pictures are."""
    paired = _paired_folders(root, folders)
    for folder, names in folders.items():
        if folder in paired:
            yield from _paired_slices(folder, names, paired[folder], os.path.relpath(folder, root))
            continue
        found = {name: one for name in names if (one := _named(folder, name))}
        yield from found.values()
        for layout in sorted({one.layout for one in found.values()}):
            like = PICTURE_FILE if layout in SLICES else NIFTI_FILE
            for name in names:
                if name not in found and like.fullmatch(name):
                    text = f"name is not like {_NAMED_LIKE[layout]}"
                    yield Found(layout, "problem", text, os.path.join(folder, name))


def _named(folder: str, name: str) -> Found | None:
    path = os.path.join(folder, name)
    role = _DECATHLON_FOLDERS.get(os.path.basename(folder).lower())
    if role and (match := _DECATHLON_NAME.fullmatch(name)):
        return Found("decathlon", role, (int(match[1]),), path)
    for (layout, role), pattern in _NAMES.items():
        if match := pattern.fullmatch(name):
            key = tuple(map(int, match.groups()))
            if (layout, role) == ("lits-nifti", "test image"):
                key = (FIRST_TEST_VOLUME + key[0],)
            return Found(layout, role, key, path)
    return None


def _paired_folders(root: str, folders: dict[str, list[str]]) -> dict[str, str]:
    """Folders of images and masks with equal names, each with its role.

    Two belong together when their paths differ by the words for image and mask alone, as in
    ``images/train_images`` and ``masks/train_masks``. Masks that a name of another layout tells
    are that layout's.
    """
    at: dict[tuple[str, str], str] = {}
    for folder, names in folders.items():
        below, last = os.path.relpath(folder, root), os.path.basename(folder)
        pictures = [name for name in names if PICTURE_FILE.fullmatch(name)]
        role = "image" if _IMAGE_WORD.search(last) else "mask" if _MASK_WORD.search(last) else ""
        if not pictures or not role:
            continue
        told = (one for name in pictures if (one := _named(folder, name)))
        if role == "mask" and any("mask" in one.role for one in told):
            continue
        at[_MASK_WORD.sub("*", _IMAGE_WORD.sub("*", below)), role] = folder
    return {
        folder: role for (place, role), folder in at.items()
        if {(place, "image"), (place, "mask")} <= at.keys()
    }  # fmt: skip


def _paired_slices(folder: str, names: list[str], role: str, below: str) -> Iterator[Found]:
    """Pictures of one folder, which lies at ``below`` in the root."""
    around = [int(digits) for digits in re.findall(r"\d+", below)]
    volume = around[0] if len(around) == 1 else 0
    for name in names:
        if not PICTURE_FILE.fullmatch(name):
            continue
        numbers = [int(digits) for digits in re.findall(r"\d+", os.path.splitext(name)[0])]
        path = os.path.join(folder, name)
        if len(numbers) in (1, 2):
            yield Found("paired-slices", role, (volume, *numbers)[-2:], path)
        else:
            yield Found("paired-slices", "problem", f"name is not like {_NAMED_LIKE['paired-slices']}", path)


# Recognising DICOM ----------------------------------------------------------------------------


def _by_dicom(root: str, folders: dict[str, list[str]]) -> Iterator[Found]:
    """What folders of DICOM files are."""
    holding = [folder for folder, names in folders.items() if _holds_dicom(folder, names)]
    ircadb = [folder for folder in holding if _ircadb_parts(folder)]
    others = [folder for folder in holding if not _ircadb_parts(folder)]
    yield from _ircadb(ircadb)
    yield from _dicom_cases(root, others)


def _holds_dicom(folder: str, names: list[str]) -> bool:
    if any(_DICOM_ENDING.fullmatch(name) for name in names):
        return True
    untold = [name for name in names if not _TELLING_ENDING.fullmatch(name) and name.upper() != "DICOMDIR"]
    return any(dicom.is_dicom(Path(folder, name)) for name in untold[:_OTHER_FILES_TRIED])


def _series(layout: str, folders: list[str]) -> Iterator[tuple[str, dicom.Series | Found]]:
    """The series in each folder, or the problem of a folder in their place."""
    for folder in tqdm(folders, "reading DICOM headers", unit="folder", delay=2):
        try:
            series = dicom.find_series(folder)
            if not series:
                raise DataError("no DICOM images in it")
        except DataError as error:
            yield folder, Found(layout, "problem", str(error), folder)
        else:
            yield from ((folder, one) for one in series)


def _ircadb_parts(folder: str) -> tuple[str, str, list[str]] | None:
    """Of a folder in 3D-IRCADb: the patient's, the kind (``PATIENT_DICOM``...) and what is below."""
    parts = Path(folder).parts
    kinds = [part.upper() in ("PATIENT_DICOM", "MASKS_DICOM", "LABELLED_DICOM") for part in parts]
    if not any(kinds):
        return None
    first, last = kinds.index(True), len(kinds) - 1 - kinds[::-1].index(True)
    return str(Path(*parts[:first])), parts[last].upper(), list(parts[last + 1 :])


def _ircadb(folders: list[str]) -> Iterator[Found]:
    """Image and masks of each patient; other organs, and ``LABELLED_DICOM``, are left out."""
    images = []
    for folder in folders:
        patient, kind, below = _ircadb_parts(folder)
        if kind == "PATIENT_DICOM":
            images.append(folder)
        elif kind == "MASKS_DICOM" and {part.lower() for part in below} == {"liver"}:
            # Unpacking may have made a second folder of the same name inside.
            masks_folder = Path(folder).parents[len(below) - 1]
            yield Found("3d-ircadb", "mask", _ircadb_key(patient), str(masks_folder))
    for folder, series in _series("3d-ircadb", images):
        if isinstance(series, Found):
            yield series
        elif series.modality == "CT" and not series.localizer:
            key = _ircadb_key(_ircadb_parts(folder)[0])
            yield Found("3d-ircadb", "image", key, folder, series.uid, len(series.paths))


def _ircadb_key(patient: str) -> tuple[int | str]:
    """The number of a patient, or its folder where no folder above is named ``3Dircadb1.N``."""
    numbers = [match[1] for part in Path(patient).parts if (match := _IRCADB_FOLDER.fullmatch(part))]
    return (int(numbers[-1]) if numbers else patient,)


def _dicom_cases(root: str, folders: list[str]) -> Iterator[Found]:
    """Each CT series, and the masks under the key of the CT that they belong to."""
    scans: list[Found] = []
    masks: list[tuple[str, dicom.Series]] = []
    common = os.path.commonpath(folders) if folders else root
    for folder, series in _series("dicom", folders):
        if isinstance(series, Found):
            yield series
        elif series.localizer:
            continue
        elif _is_mask(os.path.relpath(folder, common), series):
            masks.append((folder, series))
        elif series.modality == "CT":
            scans.append(Found("dicom", "image", (series.uid or folder,), folder, series.uid, len(series.paths)))
        else:
            text = f"series {series.uid} is {series.modality or 'of no modality'}, neither CT nor a mask"
            yield Found("dicom", "problem", text, folder)
    yield from scans
    masked: dict[Found, list[Found]] = defaultdict(list)
    for folder, series in masks:
        near = _nearest(root, folder, scans)
        if len(near) == 1:
            masked[near[0]].append(Found("dicom", "mask", near[0].key, folder, series.uid))
        else:
            text = f"mask series {series.uid}: {len(near)} CT series are as near, which is masked is not known"
            yield Found("dicom", "problem", text, folder)
    for of_scan in masked.values():
        if len(of_scan) == 1:
            yield of_scan[0]
        else:  # each may hold the liver, the tumours, or both
            uids = ", ".join(one.series for one in of_scan)
            text = f"{len(of_scan)} mask series of one CT ({uids}): keep the one that holds liver and tumours"
            yield Found("dicom", "problem", text, of_scan[0].path)


def _is_mask(place: str, series: dicom.Series) -> bool:
    return series.modality == "SEG" or bool(_MASK_WORD.search(series.description) or _MASK_WORD.search(place))


def _nearest(root: str, folder: str, scans: list[Found]) -> list[Found]:
    """The scans in this folder, else in the smallest folder round it that holds any.

    Of several, the one at the same place in its part of the tree: ``CT/7`` for ``masks/7``.
    """
    around = folder
    while True:
        near = [one for one in scans if one.path == around or one.path.startswith(os.path.join(around, ""))]
        if near or around == root:
            break
        around = os.path.dirname(around)
    if len(near) > 1 and around != folder:
        place = Path(folder).relative_to(around).parts[1:]
        same = [one for one in near if Path(one.path).relative_to(around).parts[1:] == place != ()]
        near = same or near
    return near


