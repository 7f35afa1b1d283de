"""From slices to tumour probabilities, masks at native resolution, and files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .dicom_masks import write_segmentation
from .files import DataError, atomic_path
from .generators import SliceCache, resize_image
from .index import SPACING
from .masks import THRESHOLD, TUMOUR, read_labels
from .pictures import read_image, write_image
from .scoring import slice_scores
from .volumes import read_volume, write_labels
from .windows import three_channels


def _predict_batch(model: keras.Model, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Probabilities, float32 (n, size, size), of up to ``batch_size`` uint8 images.

    Filled up to the batch size, so that one compiled function serves the last batch too;
    predict_on_batch, because predict builds a data set at every call.
    """
    filled = np.zeros((batch_size, *images.shape[1:]), np.float32)
    np.divide(images, 255, out=filled[: len(images)], dtype=np.float32)
    # OpenCV knows no 16-bit floats, which a network that was not made by unet() may give.
    return model.predict_on_batch(filled)[: len(images), ..., 0].astype(np.float32)


def predict_slices(
    model: keras.Model, cache: SliceCache, table: pd.DataFrame, *, batch_size: int = 16
) -> np.ndarray:
    """Tumour probability of every pixel, at the network's resolution.

    Parameters
    ----------
    model : keras.Model
    cache : SliceCache
    table : DataFrame
        Rows to predict, of the table that the cache was made from.
    batch_size : int

    Returns
    -------
    float32 array (slices, size, size), in [0, 1], in the order of ``table``
    """
    positions = cache.positions(table)
    probabilities = np.empty((len(positions), *cache.labels.shape[1:]), np.float32)
    bar = tqdm(total=len(positions), desc="predicting", unit="slice")
    for start in range(0, len(positions), batch_size):
        images = cache.images[positions[start : start + batch_size]]
        probabilities[start : start + batch_size] = _predict_batch(model, images, batch_size)
        bar.update(len(images))
    bar.close()
    return probabilities


def enlarged(probability: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """One probability map at the size of its slice: float32 (rows, columns), in [0, 1].

    Interpolated before it is cut, because a mask that is enlarged after the cut has steps.
    """
    return cv2.resize(probability, shape[::-1], interpolation=cv2.INTER_LINEAR)


def mask_pairs(
    table: pd.DataFrame, probabilities: np.ndarray, *, threshold: float = THRESHOLD
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Truth and prediction of each row, boolean at native resolution, one at a time."""
    for row, probability in zip(table.itertuples(), probabilities, strict=True):
        truth = read_labels(row.mask_path) == TUMOUR
        yield truth, enlarged(probability, truth.shape) > threshold


def volume_cases(
    table: pd.DataFrame, probabilities: np.ndarray, *, threshold: float = THRESHOLD
) -> Iterator[tuple[int, np.ndarray, np.ndarray, tuple[float, float, float] | None]]:
    """Truth and prediction of each volume, stacked from its slices at native resolution.

    Parameters
    ----------
    table : DataFrame
        Slice table, of whole volumes.
    probabilities : float32 array (slices, size, size)
        From :func:`predict_slices`, in the table's order.
    threshold : float

    Yields
    ------
    volume : int
    truth : uint8 array (slices, rows, columns)
        0 background, 1 liver, 2 tumour.
    predicted : uint8 array, same shape
        0, and 2 where the network sees tumour.
    spacing : (slice, row, column) in mm, or None
        None where it is not known or slices are missing in between, so that nothing in mm counts.
    """
    for volume, rows in table.reset_index(drop=True).sort_values(["volume", "slice"]).groupby("volume"):
        truth = np.stack([read_labels(path) for path in rows.mask_path])
        predicted = np.zeros_like(truth)
        for plane, probability in zip(predicted, probabilities[rows.index], strict=True):
            plane[enlarged(probability, plane.shape) > threshold] = TUMOUR
        spacing = rows[SPACING].iloc[0]
        known = spacing.notna().all() and (np.diff(rows.slice) == 1).all()
        yield int(volume), truth, predicted, tuple(spacing.tolist()) if known else None


def evaluate_slices(
    table: pd.DataFrame, probabilities: np.ndarray, *, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """:func:`lits_helpers.scoring.slice_scores` of predictions, at native resolution."""
    pairs = mask_pairs(table, probabilities, threshold=threshold)
    pairs = tqdm(pairs, total=len(table), desc="scoring", unit="slice")
    return slice_scores(table, pairs)


def _native_masks(
    model: keras.Model, sources: Sequence, picture: Callable, *, threshold: float, batch_size: int
) -> Iterator[tuple[np.ndarray, float]]:
    """Tumour mask of each source at native resolution, and its highest probability.

    ``picture`` makes of a source its three-channel uint8 picture. A batch is made, predicted and
    let go at a time, so memory does not grow with the number of slices.
    """
    size = model.input_shape[1]
    bar = tqdm(total=len(sources), desc="predicting", unit="slice")
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(sources), batch_size):
            pictures = list(pool.map(picture, sources[start : start + batch_size]))
            resized = np.stack(list(pool.map(lambda image: resize_image(image, size), pictures)))
            for image, probability in zip(pictures, _predict_batch(model, resized, batch_size), strict=True):
                yield enlarged(probability, image.shape[:2]) > threshold, float(probability.max())
            bar.update(len(pictures))
    bar.close()


def predict_files(
    model: keras.Model,
    table: pd.DataFrame,
    folder: Path,
    *,
    threshold: float = THRESHOLD,
    batch_size: int = 16,
) -> Path:
    """Predict slice files, which need no masks, and write a mask for each and a list of them.

    Parameters
    ----------
    model : keras.Model
    table : DataFrame
        ``image_path``, ``volume`` and ``slice``: the cases of a layout of slices
        (:mod:`lits_helpers.layouts`), or any part of a slice table.
    folder : Path
        Gets ``masks/volume-V_slice_S_prediction.png`` (0 background, 255 tumour, at native
        resolution) and ``predictions.csv``.

    Returns
    -------
    Path
        Of the CSV: volume, slice, file, tumour_pixels, highest_probability, threshold.

    Raises
    ------
    DataError
        If the table is empty, or a file cannot be read or written; the message names it.
    """
    if table.empty:
        raise DataError("there are no slices to predict: the table is empty")
    folder = Path(folder)
    predicted = _native_masks(
        model, table.image_path.tolist(), read_image, threshold=threshold, batch_size=batch_size
    )
    rows = []
    for row, (mask, highest) in zip(table.itertuples(), predicted, strict=True):
        name = f"masks/volume-{row.volume}_slice_{row.slice}_prediction.png"
        write_image(folder / name, mask.astype(np.uint8) * 255)
        rows.append(
            {
                "volume": row.volume, "slice": row.slice, "file": name,
                "tumour_pixels": int(mask.sum()), "highest_probability": highest, "threshold": threshold,
            }
        )
    with atomic_path(folder / "predictions.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    return folder / "predictions.csv"


def predict_volume(
    model: keras.Model, hounsfield: np.ndarray, *, threshold: float = THRESHOLD, batch_size: int = 16
) -> np.ndarray:
    """Predict a CT volume slice by slice.

    Each slice goes through the report's three-channel coding first, as the slice files did that
    the network was trained on.

    Parameters
    ----------
    model : keras.Model
    hounsfield : int16 array (slices, rows, columns)
        In HU, in the order of the screen: :class:`lits_helpers.volumes.Volume`.
    threshold : float
    batch_size : int

    Returns
    -------
    uint8 array (slices, rows, columns)
        0, and 2 where the network sees tumour. It does not look for the liver.
    """
    predicted = _native_masks(
        model, hounsfield, three_channels, threshold=threshold, batch_size=batch_size
    )
    labels = np.zeros(hounsfield.shape, np.uint8)
    for plane, (mask, _) in zip(labels, predicted, strict=True):
        plane[mask] = TUMOUR
    return labels


def predict_scan(
    model: keras.Model,
    path: Path,
    folder: Path,
    *,
    series: str = "",
    dicom_seg: bool = False,
    threshold: float = THRESHOLD,
    batch_size: int = 16,
) -> Path:
    """Predict a CT from a NIfTI file or DICOM folder, and write labels that lie on it.

    Parameters
    ----------
    model : keras.Model
    path : Path
        ``.nii``, ``.nii.gz`` or a folder with a DICOM series.
    folder : Path
        Gets ``<name>_prediction.nii.gz`` with shape, affine and orientation of the CT; or
        ``<name>_prediction.dcm``.
    series : str
        DICOM series UID, where the folder holds several CT series.
    dicom_seg : bool
        Write a DICOM segmentation object that refers to its CT; for DICOM only. It cannot be
        empty: where no tumour is found, NIfTI is written, with a warning.

    Returns
    -------
    Path
        Of the file written: 0 background, 2 tumour.

    Raises
    ------
    DataError
        If the CT cannot be read, or a segmentation object is asked for a NIfTI file.
    """
    path, folder = Path(path), Path(folder)
    volume = read_volume(path, series=series)
    if dicom_seg and volume.geometry.series is None:
        raise DataError(f"{path}: a DICOM segmentation refers to DICOM slices, which a NIfTI file has not")
    labels = predict_volume(model, volume.hounsfield, threshold=threshold, batch_size=batch_size)
    name = path.resolve().name.removesuffix(".gz").removesuffix(".nii")
    if dicom_seg and not labels.any():
        warnings.warn(f"{path}: no tumour found; DICOM segmentations cannot be empty, so NIfTI is written", stacklevel=2)
    if dicom_seg and labels.any():
        written = folder / f"{name}_prediction.dcm"
        write_segmentation(written, volume.geometry.to_stored(labels), volume.geometry.series)
    else:
        written = folder / f"{name}_prediction.nii.gz"
        write_labels(written, labels, volume.geometry)
    return written
