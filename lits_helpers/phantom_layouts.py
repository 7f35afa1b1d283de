"""The phantom in every layout that :mod:`lits_helpers.layouts` finds: to try and to test reading.

The trees are the published ones (data/README.md names the sources), 3D-IRCADb's after its page,
https://www.ircad.fr/research/data-sets/liver-segmentation-3d-ircadb-01/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage
from tqdm.auto import tqdm

from . import dicom, masks
from .conversion import write_slice_files
from .files import DataError, write_json, write_table
from .phantom import DESCRIPTION, PhantomPatient
from .pictures import write_image
from .volumes import write_nifti
from .windows import WINDOWS, three_channels, windowed

LITS_PNG_SIZE = 256  # of Kaggle's andrewmvd/lits-png
Patients = Mapping[int, PhantomPatient]


def write_layout(root: Path, name: str, patients: Patients, *, coding: str = "labels") -> Path:
    """Write synthetic patients in one of the layouts of :data:`WRITERS`.

    Parameters
    ----------
    root : path
        An empty folder, or none yet. Gets ``phantom.json`` too, which says that all is synthetic.
    name : str
        A layout, or a variant of one: a key of :data:`WRITERS`.
    patients : mapping of int to PhantomPatient
        By the volume number that files are named with.
    coding : str
        Of the masks of ``"paired-slices"``: a name in :data:`lits_helpers.masks.CODINGS`.

    Returns
    -------
    Path
        ``root``.

    Raises
    ------
    DataError
        If ``root`` holds something.
    ValueError
        For an unknown name.
    """
    if name not in WRITERS:
        raise ValueError(f"unknown layout {name!r}: choose from {', '.join(WRITERS)}")
    root = Path(root)
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise DataError(f"{root} holds something: give a new or an empty folder")
    about = {
        "about": "Synthetic CT volumes made by lits_helpers.phantom_layouts. No patient data.",
        "layout": name, "volumes": sorted(patients),
    }  # fmt: skip
    write_json(root / DESCRIPTION, about)
    if name == "paired-slices":
        _write_paired(root, patients, coding)
    else:
        WRITERS[name](root, patients)
    return root


def _each(patients: Patients) -> tqdm:
    return tqdm(sorted(patients.items()), "writing the phantom", unit="patient", delay=2)


# Volumes --------------------------------------------------------------------------------------


def _write_lits_nifti(root: Path, patients: Patients) -> None:
    """One folder, as the challenge has them in each of its two batches."""
    for number, patient in _each(patients):
        write_nifti(root / f"volume-{number}.nii", patient.hounsfield, patient.spacing)
        write_nifti(root / f"segmentation-{number}.nii", patient.labels, patient.spacing)


def _write_kaggle(root: Path, patients: Patients) -> None:
    """Kaggle's two parts: volumes in several folders, all segmentations in one of the first part."""
    first = root / "liver-tumor-segmentation"
    for place, (number, patient) in enumerate(_each(patients), start=1):
        part = first if place <= (len(patients) + 1) // 2 else root / "liver-tumor-segmentation-part-2"
        write_nifti(part / f"volume_pt{place}" / f"volume-{number}.nii", patient.hounsfield, patient.spacing)
        write_nifti(first / "segmentations" / f"segmentation-{number}.nii", patient.labels, patient.spacing)


def _write_decathlon(root: Path, patients: Patients) -> None:
    """Task03_Liver of the Medical Segmentation Decathlon, with the hidden files that macOS packed."""
    for number, patient in _each(patients):
        name = f"liver_{number}.nii.gz"
        write_nifti(root / "Task03_Liver" / "imagesTr" / name, patient.hounsfield, patient.spacing)
        write_nifti(root / "Task03_Liver" / "labelsTr" / name, patient.labels, patient.spacing)
        for folder in ("imagesTr", "labelsTr"):
            (root / "Task03_Liver" / folder / f"._{name}").write_bytes(b"\0\5\x16\7")  # AppleDouble


def _write_dicom(root: Path, patients: Patients) -> None:
    """The masks as a second series in the folder of the CT."""
    for number, patient in _each(patients):
        folder = root / f"patient-{number}"
        _write_series(folder, patient, patient.hounsfield, number, "CT", "abdomen", "ct_{:04d}.dcm")
        _write_series(folder, patient, patient.labels, number, "OT", "labels", "labels_{:04d}.dcm")


def _write_dicom_beside(root: Path, patients: Patients) -> None:
    """The masks in a folder beside the CT's, all files without an ending."""
    for number, patient in _each(patients):
        folder = root / f"patient-{number}"
        _write_series(folder / "CT", patient, patient.hounsfield, number, "CT", "abdomen", "IM{:04d}")
        _write_series(folder / "masks", patient, patient.labels, number, "OT", "", "IM{:04d}")


def _write_dicom_scans(root: Path, patients: Patients) -> None:
    """CT alone."""
    for number, patient in _each(patients):
        folder = root / f"patient-{number}"
        _write_series(folder, patient, patient.hounsfield, number, "CT", "abdomen", "ct_{:04d}.dcm")


def _write_ircadb(root: Path, patients: Patients) -> None:
    """3D-IRCADb: a folder for each organ, 255 inside, and for each tumour; tumours are liver too."""
    for number, patient in _each(patients):
        folder = root / f"3Dircadb1.{number}"
        lesions, count = ndimage.label(patient.labels == masks.TUMOUR, np.ones((3, 3, 3)))
        organs = {"bone": patient.hounsfield > 300, "liver": patient.labels > 0}
        organs |= {f"livertumor{lesion:02d}": lesions == lesion for lesion in range(1, count + 1)}
        _write_series(folder / "PATIENT_DICOM", patient, patient.hounsfield, number, "CT", "", "image_{}")
        for organ, inside in organs.items():
            mask = np.uint8(255) * inside
            _write_series(folder / "MASKS_DICOM" / organ, patient, mask, number, "OT", organ, "image_{}")


def _write_series(
    folder: Path, patient: PhantomPatient, array: np.ndarray, number: int,
    modality: str, description: str, names: str,
) -> None:  # fmt: skip
    between_slices, between_rows, between_columns = patient.spacing
    affine = np.diag([-between_columns, -between_rows, between_slices, 1.0])  # as write_nifti has it
    dicom.write_series(
        folder, array.transpose(2, 1, 0), affine,
        modality=modality, description=description, patient=number, file_name=names,
    )  # fmt: skip


# Slices ---------------------------------------------------------------------------------------


def _write_report_slices(root: Path, patients: Patients) -> None:
    for number, patient in _each(patients):
        write_slice_files(root, number, patient.hounsfield, patient.labels)


def _write_lits_png(root: Path, patients: Patients) -> None:
    """Kaggle's lits-png, with the errors of its table: see the facts in :func:`_table_row`."""
    rows = []
    size = (LITS_PNG_SIZE, LITS_PNG_SIZE)
    width, level = WINDOWS["liver"]
    for volume, patient in _each(patients):
        for number, (image, labels) in enumerate(zip(patient.hounsfield, patient.labels, strict=True)):
            grey = np.uint8(255 * windowed(image, width=width, level=level))
            small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
            folder = root / "dataset_6"
            image = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
            write_image(folder / f"volume-{volume}_{number}.png", image)
            for what, inside in (("livermask", small > 0), ("lesionmask", small == masks.TUMOUR)):
                write_image(folder / f"segmentation-{volume}_{what}_{number}.png", inside.astype(np.uint8))
            rows.append(_table_row(volume, number, small))
    write_table(root / "lits_df.csv", pd.DataFrame(rows))


def _table_row(volume: int, number: int, labels: np.ndarray) -> dict[str, object]:
    """As the published table has it: the slice number wraps after 255, "empty" says "not empty"."""
    folder = "../input/lits-png/dataset_6"
    return {
        "filepath": f"{folder}/volume-{volume}_{number}.png",
        "liver_maskpath": f"{folder}/segmentation-{volume}_livermask_{number}.png",
        "tumor_maskpath": f"{folder}/segmentation-{volume}_lesionmask_{number}.png",
        "study_number": volume,
        "instance_number": number % 256,
        "liver_mask_empty": bool((labels > 0).any()),
        "tumor_mask_empty": bool((labels == masks.TUMOUR).any()),
    }


def _write_paired(root: Path, patients: Patients, coding: str = "labels") -> None:
    """Equal names in two folders, masks as PNG in any coding."""
    for volume, patient in _each(patients):
        for number, (image, labels) in enumerate(zip(patient.hounsfield, patient.labels, strict=True)):
            name = f"{volume}_{number}.png"
            write_image(root / "train_images" / name, three_channels(image))
            write_image(root / "train_masks" / name, masks.encode(labels, coding))


WRITERS: dict[str, Callable[[Path, Patients], None]] = {
    "lits-nifti": _write_lits_nifti,
    "kaggle": _write_kaggle,
    "decathlon": _write_decathlon,
    "dicom": _write_dicom,
    "dicom-beside": _write_dicom_beside,
    "dicom-scans": _write_dicom_scans,
    "3d-ircadb": _write_ircadb,
    "report-slices": _write_report_slices,
    "lits-png": _write_lits_png,
    "paired-slices": _write_paired,
}
