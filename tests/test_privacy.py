"""Nothing that is written or printed says whose a scan is, unless asked for: searched, not assumed."""

from __future__ import annotations

import gzip
import io
import shutil
import warnings
import zipfile
from pathlib import Path

import keras
import nibabel
import numpy as np
from phantom_layouts import write_layout
import pydicom
import pytest
import tensorflow as tf

from lits_helpers import __main__ as command_line
from lits_helpers import settings
from lits_helpers.dicom_masks import PATIENT_KEYWORDS
from lits_helpers.phantom import phantom_volume
from lits_helpers.volumes import write_nifti

# Every text holds a word, or digits, that occur nowhere by themselves. Of its attribute only some are well formed.
PATIENT = {
    "PatientName": "Quillfeather^Ottoline", "PatientID": "PID-7741-QX", "PatientBirthDate": "19470203",
    "AccessionNumber": "ACC-5520-QX", "ReferringPhysicianName": "Thistlewood^Basil", "StudyDate": "20190708",
    "StudyTime": "091011.4321", "StudyID": "STUDY-QX", "PatientSex": "F",
}
OTHERS = {
    "InstitutionName": "Mercyvale Infirmary", "InstitutionAddress": "Mercyvale Lane 3", "StationName": "MERCYVALE9",
    "PerformingPhysicianName": "Hawksworth^Enid", "OperatorsName": "Pemberton^Ada", "PatientAddress": "Larkspur Row 8",
    "PatientComments": "Larkspur patient", "OtherPatientIDs": "PID-OTHER-QX", "StudyDescription": "Larkspur study",
    "SeriesDescription": "Larkspur series", "ImageComments": "Larkspur image", "DeviceSerialNumber": "SERIAL-QX",
    "PatientAge": "072Y", "RequestingPhysician": "Fotheringay^Lionel",
}
TELLING = sorted(
    {part.encode() for text in (*PATIENT.values(), *OTHERS.values()) for part in text.split("^") if len(part) > 4}
    | {b"Mercyvale", b"Larkspur", b"PID-NESTED-QX", b"QX private", b"Featherstone"}
)
NUMBERS = (6, 7, 8)  # of phantoms with tumours
FIRST = f"patient-{NUMBERS[0]}/CT"
SMALL = dict(
    image_size=32, filters=2, depth=2, momentum=0.9, prior=0.1,
    batch_size=8, epochs=1, learning_rate=1e-3, schedule="cosine",
)


def identify(path: Path, **changes: str) -> None:
    """Write a patient into all places of a DICOM file that are usual, a sequence and a private one among them."""
    dataset = pydicom.dcmread(path)
    for keyword, value in {**PATIENT, **OTHERS, **changes}.items():
        setattr(dataset, keyword, value)
    other = pydicom.Dataset()
    other.PatientID = "PID-NESTED-QX"
    dataset.OtherPatientIDsSequence = [other]
    dataset.private_block(0x0011, "QX private", create=True).add_new(1, "LO", "Larkspur private")
    dataset.save_as(path)


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Three scans and their masks as DICOM; in one of them some values are against the standard."""
    root = tmp_path_factory.mktemp("patients") / "data"
    write_layout(root, "dicom-beside", {number: phantom_volume(number, size=48) for number in NUMBERS})
    with warnings.catch_warnings(action="ignore"):
        for path in root.rglob("IM*"):
            number = int(path.relative_to(root).parts[0].removeprefix("patient-"))
            malformed = {"PatientBirthDate": "born 19470203", "PatientName": "Quillfeather"}
            identify(path, PatientID=f"PID-7741-QX-{number}", **(malformed if number == NUMBERS[-1] else {}))
    return root


@pytest.fixture
def run(tmp_path, monkeypatch, capfd, caplog):
    """Call the command line; gives all that it printed, warned and logged, of C++ too."""
    monkeypatch.setitem(settings.PROFILES, "tiny", SMALL)
    tf.config.run_functions_eagerly(True)

    def call(*words):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            status = command_line.main([*map(str, words), "--output", str(tmp_path / "out")])
        printed = [*capfd.readouterr(), caplog.text, *(str(warning.message) for warning in warned)]
        caplog.clear()
        return status, "\n".join(printed)

    yield call
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """File of a network that takes what is bright for tumour, so that something is found."""
    path = tmp_path_factory.mktemp("network") / "bright.keras"
    inputs = keras.Input((32, 32, 3))
    layer = keras.layers.Conv2D(1, 1, use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.array([0, 1, 0], np.float32).reshape(1, 1, 3, 1)])
    model.save(path)
    return path


def unpacked(path: Path) -> bytes:
    """A file's bytes, and those packed in it."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content += gzip.decompress(content)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content += b"".join(archive.read(name) for name in archive.namelist())
    return content


def telling(content: bytes | str) -> list[bytes]:
    """Which of the patient's texts a content holds."""
    content = content.encode() if isinstance(content, str) else content
    return [word for word in TELLING if word in content]


def found_below(folder: Path) -> dict[str, list[bytes]]:
    """File to the texts found in it, for those that hold any."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert paths, f"nothing was written to {folder}"
    found = {str(path.relative_to(folder)): telling(unpacked(path)) for path in paths}
    return {name: words for name, words in found.items() if words}


def test_the_search_finds_what_is_there(patients):
    found = found_below(patients / FIRST)
    assert set(TELLING) - set(found["IM0000"]) == {b"Featherstone"}  # of the header of NIfTI


def test_no_command_writes_or_prints_whose_the_scans_are(run, patients, bright, tmp_path):
    data = ("--data", patients)
    commands = [
        ("data", *data), ("index", *data), ("audit", *data), ("train", *data),  # the index converts
        ("evaluate", *data, "--model", bright, "--report"), ("population", *data),
        ("predict", *data, "--model", bright),
    ]
    for words in commands:
        status, printed = run(*words)
        assert status == 0, printed
        assert telling(printed) == [], words[0]
    assert found_below(tmp_path / "out") == {}
    assert len(list((tmp_path / "out" / "predictions").iterdir())) == 3, "a scan's labels stand in for another's"


def test_no_element_of_a_segmentation_object_says_whose_it_is(run, patients, bright, tmp_path):
    scans = sorted(patients.rglob("CT"))
    status, printed = run("predict", "--model", bright, "--dicom-seg", *scans)
    assert status == 0 and telling(printed) == []
    assert found_below(tmp_path / "out") == {}
    written = sorted((tmp_path / "out").rglob("*.dcm"))
    assert [path.name for path in written] == [f"patient-{n}_CT_prediction.dcm" for n in NUMBERS]
    for path, scan in zip(written, scans, strict=True):
        dataset, source = pydicom.dcmread(path), pydicom.dcmread(scan / "IM0000")
        elements = [*dataset.file_meta, *dataset.iterall()]  # of sequences too
        assert len(elements) > 200
        for element in elements:
            assert telling(str(element.value)) == [], element
            assert element.VR != "PN" or str(element.value) == "", element
            assert not element.tag.is_private, element
        assert all(dataset[keyword].value in ("", None) for keyword in PATIENT_KEYWORDS)
        # By these a viewer finds the scan, and whoever has the scan the patient.
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert dataset.FrameOfReferenceUID == source.FrameOfReferenceUID


def test_a_segmentation_object_names_the_patient_if_asked_to_and_nothing_else(run, patients, bright, tmp_path):
    status, _ = run("predict", "--model", bright, "--dicom-seg", "--keep-patient", patients / FIRST)
    [written] = (tmp_path / "out").rglob("*.dcm")
    dataset = pydicom.dcmread(written)
    assert status == 0
    kept = {keyword: str(dataset[keyword].value) for keyword in PATIENT_KEYWORDS}
    assert kept == PATIENT | {"PatientID": f"PID-7741-QX-{NUMBERS[0]}"}
    asked_for = {part.encode() for text in PATIENT.values() for part in text.split("^")}
    assert set(telling(written.read_bytes())) <= asked_for


def test_a_patient_is_kept_in_segmentation_objects_alone(run, patients, bright):
    status, printed = run("predict", "--model", bright, "--keep-patient", patients / FIRST)
    assert status == 2 and "add --dicom-seg, or leave out --keep-patient" in printed


def test_texts_in_the_header_of_a_nifti_scan_go_nowhere(run, bright, tmp_path):
    patient = phantom_volume(4, size=48)
    write_nifti(tmp_path / "plain.nii.gz", patient.hounsfield, patient.spacing)
    image = nibabel.load(tmp_path / "plain.nii.gz")
    texts = {"descrip": "Featherstone", "aux_file": "Larkspur", "db_name": "PID-7741-QX", "intent_name": "ACC-5520-QX"}
    for field, text in texts.items():
        image.header[field] = text
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Mercyvale Infirmary"))
    nibabel.save(image, tmp_path / "scan.nii.gz")
    assert set(telling(unpacked(tmp_path / "scan.nii.gz"))) >= {b"Featherstone", b"Larkspur", b"Mercyvale"}
    status, printed = run("predict", "--model", bright, tmp_path / "scan.nii.gz")
    assert status == 0 and telling(printed) == []
    assert found_below(tmp_path / "out") == {}


@pytest.mark.parametrize("damage", ["cut in the header", "cut in the pixels", "two patients", "no position"])
def test_a_message_about_a_bad_file_names_the_file_and_not_the_patient(run, patients, bright, damage, tmp_path):
    scan = tmp_path / "odd-scan"
    shutil.copytree(patients / f"patient-{NUMBERS[-1]}" / "CT", scan)
    path = scan / "IM0003"
    if damage == "two patients":
        with warnings.catch_warnings(action="ignore"):
            identify(path, PatientID="PID-OTHER-QX")
    elif damage == "no position":
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient
        dataset.save_as(path)
    else:
        content = path.read_bytes()
        path.write_bytes(content[:1200] if damage == "cut in the header" else content[:-500])
    status, printed = run("predict", "--model", bright, scan)
    assert status == 2 and "odd-scan" in printed
    assert telling(printed) == []
