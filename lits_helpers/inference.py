"""From slices to tumour probabilities, masks at native resolution, and files."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .files import DataError, atomic_path
from .generators import SliceCache, resize_image
from .masks import THRESHOLD, TUMOUR, read_labels
from .pictures import read_image, write_image
from .scoring import slice_scores


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


def evaluate_slices(
    table: pd.DataFrame, probabilities: np.ndarray, *, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """:func:`lits_helpers.scoring.slice_scores` of predictions, at native resolution."""
    pairs = mask_pairs(table, probabilities, threshold=threshold)
    pairs = tqdm(pairs, total=len(table), desc="scoring", unit="slice")
    return slice_scores(table, pairs)


def predict_files(
    model: keras.Model,
    table: pd.DataFrame,
    folder: Path,
    *,
    threshold: float = THRESHOLD,
    batch_size: int = 16,
) -> Path:
    """Predict slice files, which need no masks, and write a mask for each and a list of them.

    Reads, predicts and writes a batch at a time, so memory does not grow with the slices.

    Parameters
    ----------
    model : keras.Model
    table : DataFrame
        ``image_path``, ``volume`` and ``slice``: from :func:`lits_helpers.index.find_images`, or
        any part of a slice table.
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
    size = model.input_shape[1]
    rows = []
    bar = tqdm(total=len(table), desc="predicting", unit="slice")
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(table), batch_size):
            part = table.iloc[start : start + batch_size]
            images = list(pool.map(read_image, part.image_path))
            resized = np.stack([resize_image(image, size) for image in images])
            probabilities = _predict_batch(model, resized, batch_size)
            for row, image, probability in zip(part.itertuples(), images, probabilities, strict=True):
                mask = enlarged(probability, image.shape[:2]) > threshold
                name = f"masks/volume-{row.volume}_slice_{row.slice}_prediction.png"
                write_image(folder / name, mask.astype(np.uint8) * 255)
                rows.append(
                    {
                        "volume": row.volume, "slice": row.slice, "file": name,
                        "tumour_pixels": int(mask.sum()),
                        "highest_probability": float(probability.max()), "threshold": threshold,
                    }
                )
            bar.update(len(part))
    bar.close()
    with atomic_path(folder / "predictions.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    return folder / "predictions.csv"
