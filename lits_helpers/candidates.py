"""Tumour candidates of a prediction, described by numbers that tell true ones from false.

A candidate is a connected component of a predicted tumour mask, 26 neighbours in 3D; the slices of
an array are neighbours. Each has features of its shape, place, intensity, probability and texture
(:func:`candidate_features`) and, where the truth is known, a label (:func:`label_candidates`).
:mod:`lits_helpers.candidate_filter` learns from them which candidates to reject, after Chlebus et
al., arXiv:1706.00842.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from scipy.ndimage import find_objects
from tqdm.auto import tqdm

from .cases import MM3_PER_ML
from .distances import bounding_box, check_spacing
from .files import DataError
from .lesions import components, match_lesions
from .uncertainty import quotient
from .windows import WINDOWS, windowed

RING_PIXELS = 10  # how far around a candidate its neighbourhood reaches, within the slice
GREY_LEVELS = 16  # of the co-occurrence matrices
TEXTURES = ("contrast", "homogeneity", "energy", "correlation")
# Columns of a table of candidates that a forest must not see.
NO_FEATURES = ("volume", "patient", "candidate", "true")
_SHAPES = ("voxels", "volume_ml", "slices", "extent", "elongation", "flatness", "sphericity")
_PLACES = ("liver_share", "border_mean_pixels", "border_least_pixels")
_INTENSITIES = ("mean", "deviation", "low", "median", "high", "contrast", "z_score")


class CandidateCase(NamedTuple):
    """One volume of :func:`candidate_table`; arrays as in :func:`candidate_features`.

    Attributes
    ----------
    volume : int or str
        Its name in the table.
    image : integer array
    tumour, liver : bool array (slices, rows, columns)
    truth : bool array, same shape, optional
        True tumour, where the candidates are to be labelled.
    probability : float array, same shape, optional
    spacing : (slice, row, column) in mm, or None where it is not known
    """

    volume: int | str
    image: np.ndarray
    tumour: np.ndarray
    liver: np.ndarray
    truth: np.ndarray | None = None
    probability: np.ndarray | None = None
    spacing: Sequence[float] | None = None


def candidate_table(cases: Iterable[CandidateCase]) -> pd.DataFrame:
    """Features, and labels where the truth is given, of the candidates of all cases.

    Returns
    -------
    DataFrame, one row a candidate
        ``volume``, and the columns of :func:`candidate_features` and :func:`label_candidates`. A
        case without candidates has no row.
    """
    tables = []
    for case in tqdm(cases, "describing candidates", unit="case", delay=2):
        table = candidate_features(
            case.image, case.tumour, case.liver, probability=case.probability, spacing=case.spacing
        )
        if case.truth is not None:
            table = table.merge(label_candidates(case.tumour, case.truth), on="candidate")
        table.insert(0, "volume", case.volume)
        tables.append(table)
    if not tables:
        raise DataError("there are no cases to look for candidates in: is this part of the split empty?")
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


# Features --------------------------------------------------------------------------------------


def candidate_features(
    image: np.ndarray,
    tumour: np.ndarray,
    liver: np.ndarray,
    *,
    probability: np.ndarray | None = None,
    spacing: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Describe every candidate of one volume.

    Parameters
    ----------
    image : integer array (slices, rows, columns), or (slices, rows, columns, 3)
        HU; a grey uint8 channel; or the three uint8 channels of slice files, red, green, blue.
    tumour : bool array (slices, rows, columns)
        Predicted.
    liver : bool array, same shape
        With its tumours. The true one makes the result an oracle's.
    probability : float array, same shape, optional
        Predicted, in [0, 1].
    spacing : (slice, row, column) in mm, or None where it is not known
        Ratios of shape are taken in voxels then: train and apply a filter on volumes of one kind.

    Returns
    -------
    DataFrame, one row a candidate, in the order of :func:`lits_helpers.lesions.components`
        ``candidate``, its number, and the features; NaN where one is undefined, which forests here
        take as it is.

        - ``voxels``; ``volume_ml`` (NaN without spacing); ``slices``, how many it spans;
          ``extent``, its share of its bounding box
        - ``elongation``, ``flatness``: second and third principal axis by the first, from second
          moments of the voxels as boxes, in (0, 1]; ``sphericity``, surface of the ball of its
          volume by its own, of voxel faces: 0.81 for a cube, less for anything thin
        - ``liver_share`` inside the liver; ``border_mean_pixels`` and ``border_least_pixels``, from
          its voxels to the nearest pixel of the slice outside the liver, 0 for those outside
        - for each channel (``hounsfield``, ``grey``, or ``red``, ``green``, ``blue``): ``..._mean``,
          ``..._deviation``, ``..._low``, ``..._median``, ``..._high`` (10, 50 and 90 %);
          ``..._contrast``, its median less that of the liver without candidates in its bounding
          box widened by 10 pixels (of the whole liver where there is none);
          ``..._z_score``, its mean less the liver's, by the liver's standard deviation
        - ``probability_mean``, ``probability_max`` (NaN without probabilities)
        - ``texture_contrast``, ``..._homogeneity``, ``..._energy``, ``..._correlation``: of the
          co-occurrence of 16 grey levels (green channel, or -40 to 160 HU) one pixel apart in four
          directions, over all its slices; NaN for a candidate without two such pixels

    Raises
    ------
    DataError
        If shapes or spacing do not fit, or scikit-image is not installed.

    References
    ----------
    Haralick et al., "Textural features for image classification", IEEE Transactions on Systems,
    Man, and Cybernetics 3 (1973) 610. Elongation and flatness as in pyradiomics (van Griethuysen
    et al., Cancer Research 77 (2017) e104).
    """
    _check(image, tumour, liver, probability)
    spacing = None if spacing is None else check_spacing(spacing, 3)
    names = _channel_names(image)
    columns = ["candidate", *_SHAPES, *_PLACES, *(f"{name}_{kind}" for name in names for kind in _INTENSITIES)]
    columns += ["probability_mean", "probability_max", *(f"texture_{kind}" for kind in TEXTURES)]
    box = bounding_box(tumour, liver)
    image, tumour, liver = image[box], tumour[box], liver[box]
    probability = None if probability is None else probability[box]
    numbered, count = components(tumour)
    healthy = liver & ~tumour
    channels = dict(zip(names, np.moveaxis(image, -1, 0) if image.ndim == 4 else [image], strict=True))
    usual = {name: _moments(values[healthy]) for name, values in channels.items()}
    grey = channels.get("green", image if image.ndim == 3 else None)
    border = _border_distance(liver)
    rows = []
    for number, place in enumerate(find_objects(numbered) if count else (), 1):
        inside = numbered[place] == number
        row = {"candidate": number, **_shape(inside, spacing), **_place(liver[place], border[place], inside)}
        around = tuple(
            slice(max(side.start - reach, 0), side.stop + reach)
            for side, reach in zip(place, (0, RING_PIXELS, RING_PIXELS), strict=True)
        )
        for name, values in channels.items():
            ring = values[around][healthy[around]]
            found = _intensity(values[place][inside], ring, usual[name])
            row |= {f"{name}_{kind}": value for kind, value in found.items()}
        seen = np.full(1, np.nan) if probability is None else probability[place][inside]
        row |= {"probability_mean": float(seen.mean()), "probability_max": float(seen.max())}
        row |= {f"texture_{kind}": value for kind, value in _texture(grey[place], inside).items()}
        rows.append(row)
    return pd.DataFrame(rows, columns=columns).astype({"candidate": int, "voxels": int, "slices": int})


def _check(image: np.ndarray, tumour: np.ndarray, liver: np.ndarray, probability: np.ndarray | None) -> None:
    if tumour.ndim != 3 or tumour.dtype != bool or liver.dtype != bool:
        raise DataError(
            f"candidates are those of bool volumes (slices, rows, columns), got {tumour.dtype} {tumour.shape} "
            f"and a liver of {liver.dtype}: use labels == 2 and labels >= 1"
        )
    if image.dtype.kind not in "iu" or image.shape[3:] not in ((), (3,)):
        raise DataError(
            f"the image must be whole numbers in one or three channels, got {image.dtype} {image.shape}"
        )
    others = {"image": image, "liver": liver, "probability": probability}
    for name, array in others.items():
        if array is not None and array.shape[:3] != tumour.shape:
            raise DataError(
                f"the {name} has shape {array.shape}, the mask {tumour.shape}: give that of the same volume"
            )


def _channel_names(image: np.ndarray) -> tuple[str, ...]:
    if image.ndim == 4:
        return "red", "green", "blue"
    return ("grey",) if image.dtype == np.uint8 else ("hounsfield",)


def _shape(inside: np.ndarray, spacing: tuple[float, ...] | None) -> dict[str, float]:
    step = np.array(spacing or (1.0, 1.0, 1.0))
    voxels, voxel = int(inside.sum()), float(np.prod(step))
    places = np.argwhere(inside) * step
    # A voxel is a box, whose own second moment is added: so one voxel has axes too.
    covariance = np.cov(places.T, bias=True) if voxels > 1 else np.zeros((3, 3))
    axes = np.sqrt(np.linalg.eigvalsh(covariance + np.diag(step**2 / 12)))
    padded = np.pad(inside, 1)
    faces = [np.count_nonzero(np.diff(padded, axis=axis)) for axis in range(3)]
    surface = float(np.dot(faces, voxel / step))
    return {
        "voxels": voxels, "volume_ml": voxels * voxel / MM3_PER_ML if spacing else np.nan, "slices": len(inside),
        "extent": voxels / inside.size, "elongation": axes[1] / axes[2], "flatness": axes[0] / axes[2],
        "sphericity": np.cbrt(np.pi) * np.cbrt(6 * voxels * voxel) ** 2 / surface,
    }  # fmt: skip


def _border_distance(liver: np.ndarray) -> np.ndarray:
    """Of each voxel to the nearest pixel of its slice outside the liver, in pixels; float32."""
    distance = np.zeros(liver.shape, np.float32)
    for plane, target in zip(liver, distance, strict=True):
        padded = np.pad(plane, 1).view(np.uint8)  # beyond the liver's box is outside
        target[:] = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return distance


def _place(liver: np.ndarray, border: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    away = border[inside]
    found = liver[inside].mean(), away.mean(dtype=np.float64), away.min()
    return dict(zip(_PLACES, map(float, found), strict=True))


def _moments(values: np.ndarray) -> tuple[float, float, float]:
    """Median, mean and standard deviation; NaN of nothing."""
    return (float(np.median(values)), float(values.mean()), float(values.std())) if values.size else (np.nan,) * 3


def _intensity(values: np.ndarray, ring: np.ndarray, usual: tuple[float, float, float]) -> dict[str, float]:
    low, median, high = np.percentile(values, (10, 50, 90))
    near = np.median(ring) if ring.size else usual[0]
    mean = values.mean()
    z_score = quotient(mean - usual[1], usual[2])
    found = mean, values.std(), low, median, high, median - near, z_score
    return dict(zip(_INTENSITIES, map(float, found), strict=True))


def _texture(grey: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    try:
        from skimage.feature import graycomatrix, graycoprops
    except ImportError as error:
        raise DataError("texture needs scikit-image: pip install 'lits-helpers[survey]'") from error
    if grey.dtype != np.uint8:
        grey = windowed(grey, **WINDOWS["custom"]._asdict()) * 255
    levels = (grey.astype(np.uint8) // (256 // GREY_LEVELS) + 1) * inside  # 0 is outside, left out below
    pairs = np.zeros((GREY_LEVELS + 1, GREY_LEVELS + 1), np.float64)
    for plane in levels:
        directions = np.arange(4) * np.pi / 4
        pairs += graycomatrix(plane, [1], directions, GREY_LEVELS + 1, symmetric=True).sum(axis=(2, 3))
    pairs = pairs[1:, 1:, None, None]
    if not pairs.any():
        return dict.fromkeys(TEXTURES, np.nan)
    return {kind: float(graycoprops(pairs, kind)[0, 0]) for kind in TEXTURES}


def label_candidates(tumour: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Which candidates are true: those that share a voxel with true tumour.

    Parameters
    ----------
    tumour, truth : bool array (slices, rows, columns)
        Predicted and true tumour.

    Returns
    -------
    DataFrame, one row a candidate, as of :func:`candidate_features`
        ``candidate`` and ``true``, as ``touched`` of :func:`lits_helpers.lesions.match_lesions`.
    """
    found = match_lesions(truth, tumour).predicted
    return pd.DataFrame({"candidate": found.lesion, "true": found.touched})
