"""The phantom in every layout that :mod:`lits_helpers.layouts` finds, and DICOM series: what tests read.

The trees are the published ones (data/README.md names the sources), 3D-IRCADb's after its page,
https://www.ircad.fr/research/data-sets/liver-segmentation-3d-ircadb-01/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds
from scipy import ndimage

from lits_helpers import masks
from lits_helpers.conversion import write_slice_files
from lits_helpers.dicom import IMPLEMENTATION, PADDING_HU
from lits_helpers.files import write_table
from lits_helpers.phantom import PhantomPatient
from lits_helpers.pictures import write_image
from lits_helpers.volumes import write_nifti
from lits_helpers.windows import WINDOWS, three_channels, windowed

LITS_PNG_SIZE = 256  # of Kaggle's andrewmvd/lits-png
Patients = Mapping[int, PhantomPatient]  # by the volume number that files are named with


def write_layout(root: Path, name: str, patients: Patients, *, coding: str = "labels") -> Path:
    """Write patients in a layout of :data:`WRITERS`; ``coding`` is of the masks of ``"paired-slices"``."""
    if name == "paired-slices":
        _write_paired(root, patients, coding)
    else:
        WRITERS[name](root, patients)
    return root


# DICOM ----------------------------------------------------------------------------------------


def write_series(
    folder: Path,
    stored: np.ndarray,
    affine: np.ndarray,
    *,
    modality: str = "CT",
    description: str = "",
    patient: int = 0,
    file_name: str = "slice_{:04d}.dcm",
) -> None:
    """Write a synthetic volume as a DICOM series, one file a slice.

    All UIDs follow from the patient, modality and description, so the same call writes the same
    files; series of one patient share study and frame of reference and open beside each other.

    Parameters
    ----------
    folder : Path
        Made when absent.
    stored : integer array (columns, rows, slices)
        HU of at least -1024 for ``modality`` ``"CT"`` (CT Image Storage); otherwise labels of at
        least 0 (Secondary Capture Image Storage).
    affine : array (4, 4)
        From voxel indices to mm in NIfTI's world; its axes at right angles.
    modality, description : str
        Of the series.
    patient : int
        Number of the phantom: PatientID ``phantom-N``, PatientName ``Synthetic^Phantom``.
    file_name : str
        Pattern for the slice's index from 0; 3D-IRCADb uses ``"image_{}"``.
    """
    lowest = PADDING_HU if modality == "CT" else 0
    assert lowest <= stored.min() and stored.max() - lowest <= 65535, "the values do not fit into 16 bits"
    dicom_affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(dicom_affine[:3, :3], axis=0)
    axes = dicom_affine[:3, :3] / spacing
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-4), "DICOM slices need axes at right angles"
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(stored.shape[2]):
        dataset = _synthetic_header(modality, description, patient, index)
        dataset.Rows, dataset.Columns = stored.shape[1], stored.shape[0]
        dataset.PixelSpacing = _decimal_strings([spacing[1], spacing[0]])
        dataset.SliceThickness = _decimal_strings(spacing[2:])[0]
        dataset.ImageOrientationPatient = _decimal_strings([*axes[:, 0], *axes[:, 1]])
        dataset.ImagePositionPatient = _decimal_strings((dicom_affine @ [0, 0, index, 1])[:3])
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", str(lowest)
        pixels = (stored[:, :, index].T.astype(np.int32) - lowest).astype("<u2")
        dataset.PixelData = pixels.tobytes()
        pydicom.dcmwrite(folder / file_name.format(index), dataset, enforce_file_format=True)


def _decimal_strings(values: np.ndarray | list[float]) -> list[str]:
    """Numbers as DICOM's decimal strings, of 16 characters at most."""
    return [format_number_as_ds(float(value)) for value in values]


def _synthetic_header(modality: str, description: str, patient: int, index: int) -> pydicom.Dataset:
    """All attributes of one synthetic slice except its size, place and pixels."""
    def uid(*parts: object) -> str:
        return generate_uid(entropy_srcs=[IMPLEMENTATION, str(patient), *map(str, parts)])

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage if modality == "CT" else SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = uid("image", modality, description, index)
    dataset.SeriesInstanceUID = uid("series", modality, description)
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = uid("study"), uid("frame of reference")
    dataset.Modality, dataset.SeriesDescription = modality, description
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if modality == "CT" else ["DERIVED", "SECONDARY"]
    dataset.PatientName, dataset.PatientID = "Synthetic^Phantom", f"phantom-{patient}"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.ReferringPhysicianName = ""
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = ""
    dataset.StudyID, dataset.BodyPartExamined = "1", "ABDOMEN"
    dataset.Manufacturer, dataset.SeriesNumber = IMPLEMENTATION, 1 if modality == "CT" else 2
    dataset.PatientPosition, dataset.PositionReferenceIndicator = "HFS", ""
    dataset.InstanceNumber, dataset.AcquisitionNumber = index + 1, 1
    if modality == "CT":
        dataset.KVP, dataset.RescaleType = None, "HU"
    else:
        dataset.ConversionType, dataset.RescaleType, dataset.PatientOrientation = "SYN", "US", ""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    return dataset


# Volumes --------------------------------------------------------------------------------------


def _write_lits_nifti(root: Path, patients: Patients) -> None:
    """One folder, as the challenge has them in each of its two batches."""
    for number, patient in sorted(patients.items()):
        write_nifti(root / f"volume-{number}.nii", patient.hounsfield, patient.spacing)
        write_nifti(root / f"segmentation-{number}.nii", patient.labels, patient.spacing)


def _write_kaggle(root: Path, patients: Patients) -> None:
    """Kaggle's two parts: volumes in several folders, all segmentations in one of the first part."""
    first = root / "liver-tumor-segmentation"
    for place, (number, patient) in enumerate(sorted(patients.items()), start=1):
        part = first if place <= (len(patients) + 1) // 2 else root / "liver-tumor-segmentation-part-2"
        write_nifti(part / f"volume_pt{place}" / f"volume-{number}.nii", patient.hounsfield, patient.spacing)
        write_nifti(first / "segmentations" / f"segmentation-{number}.nii", patient.labels, patient.spacing)


def _write_decathlon(root: Path, patients: Patients) -> None:
    """Task03_Liver of the Medical Segmentation Decathlon, with the hidden files that macOS packed."""
    for number, patient in sorted(patients.items()):
        name = f"liver_{number}.nii.gz"
        write_nifti(root / "Task03_Liver" / "imagesTr" / name, patient.hounsfield, patient.spacing)
        write_nifti(root / "Task03_Liver" / "labelsTr" / name, patient.labels, patient.spacing)
        for folder in ("imagesTr", "labelsTr"):
            (root / "Task03_Liver" / folder / f"._{name}").write_bytes(b"\0\5\x16\7")  # AppleDouble


def _write_dicom(root: Path, patients: Patients) -> None:
    """The masks as a second series in the folder of the CT."""
    for number, patient in sorted(patients.items()):
        folder = root / f"patient-{number}"
        _write_patient(folder, patient, patient.hounsfield, number, "CT", "abdomen", "ct_{:04d}.dcm")
        _write_patient(folder, patient, patient.labels, number, "OT", "labels", "labels_{:04d}.dcm")


def _write_dicom_beside(root: Path, patients: Patients) -> None:
    """The masks in a folder beside the CT's, all files without an ending."""
    for number, patient in sorted(patients.items()):
        folder = root / f"patient-{number}"
        _write_patient(folder / "CT", patient, patient.hounsfield, number, "CT", "abdomen", "IM{:04d}")
        _write_patient(folder / "masks", patient, patient.labels, number, "OT", "", "IM{:04d}")


def _write_dicom_scans(root: Path, patients: Patients) -> None:
    """CT alone."""
    for number, patient in sorted(patients.items()):
        folder = root / f"patient-{number}"
        _write_patient(folder, patient, patient.hounsfield, number, "CT", "abdomen", "ct_{:04d}.dcm")


def _write_ircadb(root: Path, patients: Patients) -> None:
    """3D-IRCADb: a folder for each organ, 255 inside, and for each tumour; tumours are liver too."""
    for number, patient in sorted(patients.items()):
        folder = root / f"3Dircadb1.{number}"
        lesions, count = ndimage.label(patient.labels == masks.TUMOUR, np.ones((3, 3, 3)))
        organs = {"bone": patient.hounsfield > 300, "liver": patient.labels > 0}
        organs |= {f"livertumor{lesion:02d}": lesions == lesion for lesion in range(1, count + 1)}
        _write_patient(folder / "PATIENT_DICOM", patient, patient.hounsfield, number, "CT", "", "image_{}")
        for organ, inside in organs.items():
            mask = np.uint8(255) * inside
            _write_patient(folder / "MASKS_DICOM" / organ, patient, mask, number, "OT", organ, "image_{}")


def _write_patient(
    folder: Path, patient: PhantomPatient, array: np.ndarray, number: int,
    modality: str, description: str, names: str,
) -> None:  # fmt: skip
    between_slices, between_rows, between_columns = patient.spacing
    affine = np.diag([-between_columns, -between_rows, between_slices, 1.0])  # as write_nifti has it
    write_series(
        folder, array.transpose(2, 1, 0), affine,
        modality=modality, description=description, patient=number, file_name=names,
    )  # fmt: skip


# Slices ---------------------------------------------------------------------------------------


def _write_report_slices(root: Path, patients: Patients) -> None:
    for number, patient in sorted(patients.items()):
        write_slice_files(root, number, patient.hounsfield, patient.labels)


def _write_lits_png(root: Path, patients: Patients) -> None:
    """Kaggle's lits-png, with the errors of its table: see the facts in :func:`_table_row`."""
    rows = []
    size = (LITS_PNG_SIZE, LITS_PNG_SIZE)
    width, level = WINDOWS["liver"]
    for volume, patient in sorted(patients.items()):
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
    for volume, patient in sorted(patients.items()):
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
