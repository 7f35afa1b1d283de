"""CT volumes to slice files in the report's layout, names and three-channel coding."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pandas as pd

from . import dicom
from .files import DataError, collected_error, fingerprint, refusals_named, require_free_space, write_json
from .parallel import run_jobs
from .pictures import write_image
from .volumes import Volume, check_pair, read_geometry, read_label_volume, read_volume
from .windows import three_channels

CONVERSION_VERSION = 1  # raise it when the files of a volume change
# Of 40 real slices of 512x512 in the three-channel coding: PNG 415 kB, JPEG at quality 95 103 kB,
# at 100 188 kB. The mask, a PNG of three levels, adds 1 or 2 kB.
_BYTES_PER_PIXEL = {".png": 1.6, ".jpg": 0.75}
_BYTES_PER_VOXEL = 5  # in memory: HU and labels, and a fifth of both in passing; seen on 1,000 slices
RECORDS = "volumes"


def slice_paths(
    root: Path, volume: int, slice_number: int, ending: str = ".jpg", mask_ending: str = ""
) -> tuple[Path, Path]:
    """Where the report's layout keeps the image and the mask of one slice."""
    stem = f"volume-{volume}_slice_{slice_number}"
    return (
        Path(root) / "images" / "train_images" / f"{stem}{ending}",
        Path(root) / "masks" / "train_masks" / f"{stem}_mask{mask_ending or ending}",
    )


def write_slice_files(
    root: Path, volume: int, hounsfield: np.ndarray, labels: np.ndarray, *, jpeg_quality: int = 100
) -> None:
    """Write one volume as the report has it: image *and* mask as JPEG in the three-channel coding.

    That coding of masks loses small tumours (:mod:`lits_helpers.masks`): it is written for the
    phantom alone, which stands in for the report's data. :func:`convert_volumes` keeps labels.

    Parameters
    ----------
    root : Path
        Gets ``images/train_images`` and ``masks/train_masks``.
    volume : int
        Number in the file names.
    hounsfield : integer array (slices, rows, columns)
        In HU.
    labels : uint8 array, same shape
        0 background, 1 liver, 2 tumour.
    jpeg_quality : int
        The report's own rule for tumours works at 99 and above only (measured with libjpeg-turbo).
    """
    for number, (image, mask) in enumerate(zip(hounsfield, labels, strict=True)):
        image_path, mask_path = slice_paths(root, volume, number)
        write_image(image_path, three_channels(image), jpeg_quality=jpeg_quality)
        write_image(mask_path, three_channels(mask), jpeg_quality=jpeg_quality)


def _source_files(case: dict[str, object]) -> list[Path]:
    """The files a case is read from."""
    files = []
    for name in (case["image_path"], case["mask_path"]):
        path = Path(name)
        if name and path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.is_file())
        elif name:
            files.append(path)
    return files


def read_case(case: dict[str, object]) -> tuple[Volume, np.ndarray | None, list[str]]:
    """Read one CT and the labels that belong to it.

    Parameters
    ----------
    case : mapping
        ``image_path``, ``mask_path`` (or ``""``), ``image_series`` and ``mask_series``: one row of
        :class:`lits_helpers.layouts.Layout`'s cases.

    Returns
    -------
    volume : Volume
    labels : uint8 array (slices, rows, columns), or None if the case has none
    warnings : list of str
        See :func:`lits_helpers.volumes.check_pair`.

    Raises
    ------
    DataError
        Naming the file.
    """
    volume = read_volume(case["image_path"], series=case["image_series"])
    if not case["mask_path"]:
        return volume, None, []
    labels = read_label_volume(case["mask_path"], volume.geometry, series=case["mask_series"])
    return volume, labels, check_pair(volume, labels, case["mask_path"])


def _convert(case: dict, root: Path, ending: str, jpeg_quality: int, key: str) -> dict:
    """Write one volume's slice files and, when all are there, its record."""
    started = time.perf_counter()
    record = {"volume": int(case["volume"]), "key": key, "problem": "", "notes": ""}
    try:
        volume, labels, notes = read_case(case)
    except DataError as error:
        return record | {"problem": str(error)}
    # An older record must not vouch for slices of which some are new.
    with refusals_named(root):
        _record_path(root, record["volume"]).unlink(missing_ok=True)
    written = set()
    for number, image in enumerate(volume.hounsfield):
        image_path, mask_path = slice_paths(root, record["volume"], number, ending, ".png")
        write_image(image_path, three_channels(image), jpeg_quality=jpeg_quality)
        written.add(image_path)
        if labels is not None:
            write_image(mask_path, labels[number])
            written.add(mask_path)
    with refusals_named(root):
        _remove_others(root, record["volume"], written)
    geometry = volume.geometry
    record |= {
        "image_path": str(case["image_path"]), "mask_path": str(case["mask_path"]),
        "slices": len(volume.hounsfield), "height": volume.hounsfield.shape[1],
        "width": volume.hounsfield.shape[2], "ending": ending,
        "spacing_mm": geometry.spacing, "spacing_known": not geometry.is_identity,
        "orientation": geometry.orientation, "affine": geometry.affine.tolist(),
        "notes": "; ".join(notes), "seconds": round(time.perf_counter() - started, 2),
    }
    write_json(_record_path(root, record["volume"]), record)
    return record


def _record_path(root: Path, volume: int) -> Path:
    return root / RECORDS / f"volume-{volume}.json"


def _remove_others(root: Path, volume: int, written: set[Path]) -> None:
    """Remove slices that an earlier, longer volume of this number left, or one without the same files."""
    for ending in _BYTES_PER_PIXEL:
        for kind in (0, 1):  # images, masks
            old = []
            while (path := slice_paths(root, volume, len(old), ending, ".png")[kind]).exists():
                old.append(path)
            for path in reversed(old):  # from the end, so that none is overlooked after a kill
                if path not in written:
                    path.unlink(missing_ok=True)


def _finished(root: Path, case: dict, ending: str, key: str) -> dict | None:
    """The record of a volume whose slice files are all there and were made from these files."""
    try:
        record = json.loads(_record_path(root, case["volume"]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("key") != key:
        return None
    there = [
        path.exists()
        for number in range(record["slices"])
        for path in slice_paths(root, record["volume"], number, ending, ".png")[: 1 + bool(case["mask_path"])]
    ]
    return record if all(there) else None


def _shape(case: dict) -> tuple[int, ...]:
    """Of a CT, by its headers; zeros where they cannot be read, which the conversion will report."""
    try:
        if Path(case["image_path"]).is_dir():
            series = dicom.choose_series(case["image_path"], uid=case["image_series"])
            return len(series.paths), series.rows, series.columns
        return read_geometry(case["image_path"]).screen_shape
    except DataError:
        return 0, 0, 0


def convert_volumes(
    cases: pd.DataFrame,
    root: Path,
    *,
    ending: str = ".png",
    jpeg_quality: int = 100,
    skip_problems: bool = False,
    problems: Sequence[str] = (),
    executor: Executor | None = None,
) -> pd.DataFrame:
    """Write volumes as slice files that :func:`lits_helpers.index.build_index` reads.

    Images are in the report's three-channel coding, so that a network trained on its JPEG slices
    takes them. Masks are PNG with the labels 0, 1, 2: unlike the report's they keep small tumours.
    Slices are numbered from the feet, 0 first.

    A volume that was converted before from the same files is left as it is, so a run that was
    stopped goes on where it was. One broken volume does not stop the others.

    Parameters
    ----------
    cases : DataFrame
        One row a volume; see :class:`lits_helpers.layouts.Layout`.
    root : Path
        Gets ``images/train_images``, ``masks/train_masks``, and ``volumes/volume-N.json`` with
        spacing, orientation and source of each.
    ending : str
        Of the images: ``".png"`` (lossless) or ``".jpg"`` (a quarter to half of the room).
    jpeg_quality : int
    skip_problems : bool
        Warn of volumes that could not be converted instead of raising at the end; one at least has to be.
    problems : sequence of str
        Of other volumes, to be told with these.
    executor : concurrent.futures.Executor, optional
        See :func:`lits_helpers.parallel.run_jobs`.

    Returns
    -------
    DataFrame
        One row a converted volume: volume, slices, height, width, ending, spacing_mm (slice, row, column),
        spacing_known, orientation, affine, notes, seconds, image_path, mask_path.

    Raises
    ------
    DataError
        If the disk has too little room (before anything is written), or naming each volume that
        could not be converted, after the others were.
    """
    if ending not in _BYTES_PER_PIXEL:
        raise ValueError(f"ending is {ending!r}: choose .png or .jpg")
    root = Path(root).absolute()
    records, waiting = [], []
    for case in cases.to_dict("records"):
        try:
            key = fingerprint(_source_files(case), CONVERSION_VERSION, ending, jpeg_quality)
        except DataError as error:
            records.append({"volume": case["volume"], "problem": str(error), "notes": ""})
            continue
        record = _finished(root, case, ending, key)
        if record:
            records.append(record)
        else:
            waiting.append((case, root, ending, jpeg_quality, key))
    shapes = [_shape(case) for case, *_ in waiting]
    if waiting:
        voxels = [math.prod(shape) for shape in shapes]
        require_free_space(root, int(sum(voxels) * _BYTES_PER_PIXEL[ending]))
        records += run_jobs(
            _convert, waiting, description="converting volumes", unit="slice",
            weights=[slices for slices, *_ in shapes],
            memory=_BYTES_PER_VOXEL * max(voxels), executor=executor,
        )
    records.sort(key=lambda record: record["volume"])
    problems = list(problems)
    problems += [f"volume {record['volume']}: {record['problem']}" for record in records if record["problem"]]
    good = pd.DataFrame([record for record in records if not record["problem"]])
    if problems:
        report = collected_error(
            problems, advice="Mend or remove these volumes, or leave them out with skip_problems=True; "
            "the others are converted.",
        )
        if not skip_problems or good.empty:
            raise report
        warnings.warn(f"left out: {report}", stacklevel=2)
    remarks = [f"volume {record['volume']}: {record['notes']}" for record in records if record["notes"]]
    if remarks:
        warnings.warn("\n".join(["converted, but look at these:", *remarks]), stacklevel=2)
    return good.drop(columns=["problem", "key"], errors="ignore")
