"""A synthetic abdomen: seeded CT volumes in Hounsfield units with liver and tumour labels.

Stands in for LiTS so that everything runs without data. :mod:`lits_helpers.anatomy` paints the
body; here the tumours are planned and placed, and volumes made and written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt
from tqdm.auto import tqdm

from .anatomy import NOWHERE, Anatomy, Box, Canvas, draw_anatomy
from .conversion import write_slice_files
from .files import DataError, require_free_space, temporary_folder
from .settings import Settings
from .volumes import write_nifti

PHANTOM_VERSION = 2  # raise it when a change to the drawing changes the files
PHANTOM_SEED = 2023
TINY_SET = {"patients": 12, "size": 512, "seed": PHANTOM_SEED, "jpeg_quality": 100}
DESCRIPTION = "phantom.json"
NECROSIS_HU = 18


@dataclass(frozen=True)
class TumourKind:
    """Radius in pixels of a 512x512 slice; contrast to the liver in HU; depth below its surface.

    ``depth`` is in radii. A radius below 8 stays under the 263 pixels that the report's mask
    coding needs to tell tumour from liver; one of 38 fills over 3,000.
    """

    radius: tuple[float, float]
    contrast: tuple[float, float]
    depth: float = 1.0


TUMOURS = {
    "small": TumourKind((5.0, 7.5), (-60, -40), 1.2),
    "medium": TumourKind((12, 22), (-60, -32)),
    "large": TumourKind((38, 45), (-55, -35)),
    "faint": TumourKind((12, 18), (-26, -20)),
    "bright": TumourKind((10, 18), (32, 50)),
    "edge": TumourKind((14, 22), (-60, -35), 0.4),
}
# One row a patient, repeated when there are more: what the tiny set holds is decided here.
PLAN: tuple[tuple[str, ...], ...] = (
    ("large", "medium", "small"),
    ("small", "small"),
    ("edge", "medium", "medium"),
    (),
    ("bright", "bright", "medium"),
    ("medium", "medium", "faint", "small", "small"),
    ("large", "edge"),
    ("small",),
    ("medium", "edge", "bright"),
    (),
    ("large", "medium", "faint", "small"),
    ("edge", "medium", "faint", "medium", "small"),
)


@dataclass(frozen=True)
class PhantomPatient:
    """One synthetic patient.

    Attributes
    ----------
    hounsfield : int16 array (slices, rows, columns)
        HU, -1024 outside the scanner's circular field. Axes as in :mod:`lits_helpers.volumes`.
    labels : uint8 array, same shape
        0 background, 1 liver (its vessels included), 2 tumour.
    spacing : (slice, row, column)
        Distance between voxel centres, in mm.
    """

    hounsfield: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class _Tumour:
    """Centre (x, y, z) and radius in mm; HU; irregularity of the outline; share of dead core."""

    centre: np.ndarray
    radius: float
    hu: float
    waves: np.ndarray
    core: float


def _distance(canvas: Canvas, tumour: _Tumour) -> tuple[Box, np.ndarray]:
    """Box round a tumour's cut, and the distance (mm) to its wavy outline there; empty if not cut."""
    x, y, z = tumour.centre
    away = (canvas.z - z) / tumour.radius
    box = canvas.around(x, y, 1.3 * tumour.radius) if abs(away) < 0.98 else NOWHERE
    dx, dy = canvas.flat_x[box] - x, canvas.flat_y[box] - y
    angle = np.arctan2(dy, dx)
    outline = np.ones_like(angle)
    for order, (size, start, drift) in enumerate(tumour.waves, start=2):
        outline += size * np.sin(order * angle + start + drift * away)
    return box, np.hypot(dx, dy) - tumour.radius * max(1 - away * away, 0) ** 0.5 * outline


def _placed(rng: np.random.Generator, patient: Anatomy, kinds: Sequence[str]) -> list[_Tumour]:
    """Find room in the liver for each tumour, largest first.

    Looks at a coarse picture of the liver, of one size whatever the volume's, so that a patient's
    tumours do not depend on it.
    """
    canvases = [Canvas(patient, k, 96) for k in range(len(patient.heights))]
    liver = np.stack([canvas.liver() < 0 for canvas in canvases])
    pixel = canvases[0].pixel
    # How far the surface is decides a tumour's area within the slice; the liver's ends count less.
    within = np.stack([distance_transform_edt(plane) * pixel for plane in liver])
    overall = distance_transform_edt(liver, sampling=(patient.between_slices, pixel, pixel))
    room = np.minimum(within, 1.5 * overall)[liver]
    k, row, column = np.nonzero(liver)
    x, y = canvases[0].flat_x[row, column], canvases[0].flat_y[row, column]
    places = np.stack([x, y, patient.heights[k] * patient.height], 1)
    found: list[_Tumour] = []
    for kind in sorted(kinds, key=lambda kind: -TUMOURS[kind].radius[1]):
        about = TUMOURS[kind]
        radius = rng.uniform(*about.radius) * patient.pixel
        missing = radius * about.depth - room
        misfit = np.abs(missing) if kind == "edge" else np.maximum(missing, 0)
        for other in found:
            apart = np.linalg.norm(places - other.centre, axis=1)
            misfit = misfit + 2 * np.maximum(1.25 * (radius + other.radius) - apart, 0)
        centre = places[rng.choice(np.flatnonzero(misfit <= misfit.min() + 0.5))]
        sizes = rng.uniform(0.2, 1, 4) * (0.06 if kind == "small" else 0.11) / (1, 1.5, 2, 2.5)
        waves = np.stack([sizes, rng.uniform(0, 6.3, 4), rng.uniform(0, 2, 4)], 1)
        contrast = rng.uniform(*about.contrast)
        dead = kind in ("medium", "large", "edge") and rng.random() < 0.4
        core = rng.uniform(0.4, 0.65) if dead else 0.0
        found.append(_Tumour(centre, radius, patient.liver + contrast, waves, core))
    return found


def _painted_slice(
    patient: Anatomy, tumours: Sequence[_Tumour], number: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """One slice: int16 HU and uint8 labels, both (size, size)."""
    canvas = Canvas(patient, number, size)
    canvas.body()
    liver = canvas.liver()
    canvas.paint(liver, patient.liver + 2.5 * canvas.grain)
    inside = np.clip(0.5 - (liver + 2) / canvas.pixel, 0, 1)
    canvas.hu += canvas.vessels() * inside * (patient.vessel - canvas.hu)
    labels = (liver < 0).astype(np.uint8)
    for tumour in tumours:
        box, outline = _distance(canvas, tumour)
        clipped = np.maximum(outline, liver[box])
        canvas.paint(clipped, tumour.hu + 3 * canvas.grain[box], box, soft=2.5)
        if tumour.core:
            canvas.paint(outline + tumour.radius * (1 - tumour.core), NECROSIS_HU, box, soft=5)
        labels[box][clipped < 0] = 2
    return canvas.scanned(), labels


def _lying_anew(patient: Anatomy, rescan: int) -> tuple[Anatomy, int]:
    """The same body on another day: how it lies in the scanner, and how far (HU) the scanner drifted.

    Moves by 4 to 10 mm to the side and from front to back, and by 0.25 to 0.75 of a slice, with or
    without a whole one, along the body. Another seed means another noise and finest texture.
    """
    rng = np.random.default_rng([patient.seed, 2, rescan])
    between = patient.heights[1] - patient.heights[0]
    heights = patient.heights + between * (rng.uniform(0.25, 0.75) + rng.integers(-1, 2))
    offset = patient.offset + rng.choice((-1, 1), 2) * rng.uniform(4, 10, 2)
    drift = int(rng.choice((-1, 1)) * rng.integers(2, 7))
    seed = int(rng.integers(2**32, 2**62))  # above every seed of a first scan
    return replace(patient, heights=heights, offset=offset, seed=seed), drift


def phantom_volume(
    seed: int, *, size: int = 512, tumours: Sequence[str] | None = None, rescan: int = 0
) -> PhantomPatient:
    """Draw one synthetic patient.

    Parameters
    ----------
    seed : int
        The same seed gives the same patient, at another ``size`` with coarser or finer pixels.
    size : int
        Rows and columns, at least 32.
    tumours : sequence of str, optional
        Kinds out of :data:`TUMOURS`, one entry a tumour; ``()`` for a healthy liver. By default
        the seed picks a row of :data:`PLAN`.
    rescan : int
        0 is the first scan. Another number is another scan of the same body and tumours: shifted
        in the slice and along the body, with other noise and a slightly different calibration.

    Returns
    -------
    PhantomPatient

    Raises
    ------
    ValueError
        For an unknown kind of tumour or too small a size.
    """
    if size < 32:
        raise ValueError(f"a phantom needs a size of at least 32 pixels, got {size}")
    rng = np.random.default_rng([seed, 1])
    if tumours is None:
        tumours = PLAN[rng.integers(len(PLAN))]
    unknown = set(tumours) - set(TUMOURS)
    if unknown:
        raise ValueError(f"unknown kinds of tumour {sorted(unknown)}: choose from {sorted(TUMOURS)}")
    patient = draw_anatomy(seed, early="bright" in tumours)
    placed = _placed(rng, patient, tumours)
    drift = 0
    if rescan:
        patient, drift = _lying_anew(patient, rescan)
    slices = [_painted_slice(patient, placed, k, size) for k in range(len(patient.heights))]
    hounsfield, labels = (np.stack(arrays) for arrays in zip(*slices))
    hounsfield[hounsfield > -1024] += drift
    pixel = patient.pixel * 512 / size
    return PhantomPatient(hounsfield, labels, (patient.between_slices, pixel, pixel))


def _described(
    *, patients: int, size: int, seed: int, jpeg_quality: int, rescans: Sequence[int] = ()
) -> dict[str, object]:
    """What the description file of a phantom says; of re-scans only where there are some."""
    about = {
        "about": "Synthetic CT volumes made by lits_helpers.phantom. No patient data.",
        "version": PHANTOM_VERSION,
        "seed": seed,
        "patients": patients,
        "size": size,
        "jpeg_quality": jpeg_quality,
    }
    return about | ({"rescans": list(rescans)} if rescans else {})


def _description(root: Path) -> dict[str, object] | None:
    """The description in ``root``, None where there is no phantom."""
    try:
        about = json.loads((root / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def _write_patient(
    root: Path, number: int, patient: int, rescan: int, seed: int, size: int, jpeg_quality: int
) -> None:
    """Write one scan of a patient under a volume number."""
    kinds = PLAN[patient % len(PLAN)]
    patient = phantom_volume(1000 * seed + patient, size=size, tumours=kinds, rescan=rescan)
    write_nifti(root / "volumes" / f"volume-{number}.nii.gz", patient.hounsfield, patient.spacing)
    write_nifti(root / "volumes" / f"segmentation-{number}.nii.gz", patient.labels, patient.spacing)
    write_slice_files(root, number, patient.hounsfield, patient.labels, jpeg_quality=jpeg_quality)


def _put_in_place(written: Path, root: Path, discarded: Path) -> None:
    """Rename a finished phantom to its final name, unless another process was first."""
    if _description(root) == _description(written):
        return
    try:
        if root.exists():
            os.rename(root, discarded)
        os.rename(written, root)
    except OSError:
        if _description(root) != _description(written):
            raise


def write_phantom(
    root: str | os.PathLike,
    *,
    patients: int = 12,
    size: int = 512,
    seed: int = PHANTOM_SEED,
    jpeg_quality: int = 100,
    rescans: Sequence[int] = (),
) -> Path:
    """Write a set of synthetic patients as NIfTI volumes and as the report's slice files.

    Everything is written beside ``root`` and renamed into place when complete, so a folder under
    the final name is always whole. An older phantom there is replaced.

    Parameters
    ----------
    root : path
        Gets ``volumes/volume-N.nii.gz`` and ``segmentation-N.nii.gz``, ``images/train_images``,
        ``masks/train_masks`` and ``phantom.json``, which says that the data is synthetic.
    patients : int
        Patient ``N`` has the tumours of row ``N`` of :data:`PLAN`.
    size : int
        Rows and columns. The report's test for empty masks works at 512 only.
    seed : int
    jpeg_quality : int
        Of the slice files; the report's rule for tumours needs 99 or more.
    rescans : sequence of int
        Patients scanned once more, as LiTS holds them: under the next volume numbers and without
        a word, except in ``phantom.json``.

    Returns
    -------
    Path
        ``root``.

    Raises
    ------
    DataError
        If ``root`` holds something else, the disk is full or the folder cannot be written.
    ValueError
        If ``rescans`` names a patient that there is not.
    """
    if unknown := set(rescans) - set(range(patients)):
        raise ValueError(f"rescans names patients {sorted(unknown)}: they go from 0 to {patients - 1}")
    root = Path(root)
    vacant = not root.exists() or (root.is_dir() and not any(root.iterdir()))
    if not vacant and _description(root) is None:
        raise DataError(f"{root} holds something that is no phantom: choose another folder")
    scans = [(patient, 0) for patient in range(patients)]
    scans += [(patient, k) for k, patient in enumerate(rescans, start=1)]
    require_free_space(root.parent, len(scans) * 26 * size * size * 2)
    try:
        with temporary_folder(root.parent) as beside:
            written = beside / "new"
            # Threads, not processes: NumPy and OpenCV let go of Python's lock while they compute.
            pool = ThreadPoolExecutor(os.cpu_count())
            try:
                jobs = [
                    pool.submit(_write_patient, written, number, *scan, seed, size, jpeg_quality)
                    for number, scan in enumerate(scans)
                ]
                for job in tqdm(as_completed(jobs), "writing the phantom", len(scans), unit="scan"):
                    job.result()
            finally:
                pool.shutdown(cancel_futures=True)
            about = _described(
                patients=patients, size=size, seed=seed, jpeg_quality=jpeg_quality, rescans=rescans
            )
            (written / DESCRIPTION).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            _put_in_place(written, root, beside / "old")
    except OSError as error:
        raise DataError(
            f"cannot write the phantom to {root} ({error}): set LITS_OUTPUT_ROOT to a writable folder"
        ) from error
    return root


def ensure_phantom(settings: Settings) -> Path:
    """The data root, with the phantom written there first when it is what the settings ask for.

    A phantom of this version that is there already is left as it is; real data is never touched.
    """
    root = settings.data_root
    if settings.is_synthetic and _description(root) != _described(**TINY_SET):
        write_phantom(root, **TINY_SET)
    return root
