"""From slices to tumour probabilities, masks at native resolution, and files."""

from __future__ import annotations

import os
import time
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
from .files import DataError, temporary_folder
from .generators import SliceCache, resize_image
from .index import spacing_of
from .masks import THRESHOLD, TUMOUR, read_labels
from .pictures import read_image, write_image
from .scoring import slice_scores
from .uncertainty import quotient
from .volumes import read_volume, write_labels
from .windows import GREEN, three_channels


# What decides whether a slice is shown to the network: a rule on its picture, or an answer a slice.
Wanted = Callable[[np.ndarray], bool] | Sequence[bool] | np.ndarray
TUMOUR_CHANNEL = -1  # of an answer: alone, or the last of background, liver and tumour
BATCH = 16  # slices predicted at once
FLIPS = ((1,), (2,), (1, 2))  # axes of (batch, rows, columns, channels): up-down, left-right, both


def shows_body(picture: np.ndarray, *, share: float = 0.01) -> bool:
    """Whether a slice shows more than air: the cheapest reason to skip one.

    True where at least ``share`` of the pixels have tissue in them. It asks for no liver, so LiTS
    slices, which all show a body, pass; it spares the blank slices of padded scans.

    Parameters
    ----------
    picture : uint8 array (rows, columns, 3), red, green, blue
        In the report's coding, whose green channel is 0 up to -40 HU, in air and most fat.
    share : float
        From 0 to 1. A hundredth of a 400 mm field of view is 16 cm2, less than a neck.
    """
    return bool((picture[..., GREEN] > 0).mean() >= share)


def _checked(wanted: Wanted | None, slices: int) -> Wanted | None:
    """Answers as an array, one a slice: a pandas column would be read by label, not by place."""
    if wanted is None or callable(wanted):
        return wanted
    if len(wanted) != slices:
        raise ValueError(f"wanted has {len(wanted)} answers for {slices} slices: give one for each")
    return np.asarray(wanted, bool)


def _is_wanted(wanted: Wanted | None, position: int, picture: np.ndarray) -> bool:
    if wanted is None:
        return True
    return bool(wanted(picture) if callable(wanted) else wanted[position])


def predict_batch(model: keras.Model, images: np.ndarray, batch_size: int, flips: bool) -> np.ndarray:
    """Answers, float32 (n, size, size, classes), to up to ``batch_size`` uint8 images.

    Filled up to the batch size, so that one compiled function serves the last batch too;
    predict_on_batch, because predict builds a data set at every call.
    """
    filled = np.zeros((batch_size, *images.shape[1:]), np.float32)
    np.divide(images, 255, out=filled[: len(images)], dtype=np.float32)
    # OpenCV knows no 16-bit floats, which a network that was not made by unet() may give.
    found = model.predict_on_batch(filled).astype(np.float32)
    if flips:
        for axes in FLIPS:
            found += np.flip(model.predict_on_batch(np.ascontiguousarray(np.flip(filled, axes))), axes)
        found /= 1 + len(FLIPS)
    return found[: len(images)]


def predict_images(model: keras.Model, images: Sequence[np.ndarray], *, flips: bool = False) -> np.ndarray:
    """Answers, float32 (n, size, size, classes), to n uint8 images of the network's size; :data:`BATCH` at once."""
    parts = [
        predict_batch(model, np.stack(images[start : start + BATCH]), BATCH, flips)
        for start in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, *model.output_shape[1:]), np.float32)


def predict_slices(
    model: keras.Model,
    cache: SliceCache,
    table: pd.DataFrame,
    *,
    batch_size: int = BATCH,
    flips: bool = False,
    wanted: Wanted | None = None,
) -> np.ndarray:
    """Tumour probability of every pixel, at the network's resolution.

    Parameters
    ----------
    model : keras.Model
        Or what :func:`lits_helpers.export.load_exported` gives.
    cache : SliceCache
    table : DataFrame
        Rows to predict, of the table that the cache was made from.
    batch_size : int
    flips : bool
        Average over the slice as it is, mirrored left-right, up-down and both, each answer
        mirrored back: four times the work.
    wanted : rule or sequence of bool, optional
        Skip slices: where a rule on the uint8 picture such as :func:`shows_body`, or the answer
        for that slice (as a triage gives it, in the table's order), is False, all is 0. What that
        costs in Dice and saves in time, :func:`skipping_effect` tells.

    Returns
    -------
    float32 array (slices, size, size), in [0, 1], in the order of ``table``

    Raises
    ------
    ValueError
        If there are not as many answers as slices.
    """
    positions = cache.positions(table)
    wanted = _checked(wanted, len(positions))
    probabilities = np.zeros((len(positions), *cache.labels.shape[1:]), np.float32)
    bar = tqdm(total=len(positions), desc="predicting", unit="slice")
    rows = np.flatnonzero(
        [_is_wanted(wanted, row, cache.images[position]) for row, position in enumerate(positions)]
    )
    bar.update(len(positions) - len(rows))
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        images = cache.images[positions[chosen]]
        probabilities[chosen] = predict_batch(model, images, batch_size, flips)[..., TUMOUR_CHANNEL]
        bar.update(len(chosen))
    bar.close()
    return probabilities


def enlarged(probability: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """One probability map at the size of its slice: float32 (rows, columns), in [0, 1].

    Interpolated before it is cut, because a mask that is enlarged after the cut has steps.
    """
    return cv2.resize(probability.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)


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
        yield int(volume), truth, predicted, spacing_of(rows, rows.slice)


def evaluate_slices(
    table: pd.DataFrame, probabilities: np.ndarray, *, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """:func:`lits_helpers.scoring.slice_scores` of predictions, at native resolution."""
    pairs = mask_pairs(table, probabilities, threshold=threshold)
    pairs = tqdm(pairs, total=len(table), desc="scoring", unit="slice")
    return slice_scores(table, pairs)


def skipping_effect(
    model: keras.Model,
    cache: SliceCache,
    table: pd.DataFrame,
    wanted: Wanted,
    *,
    threshold: float = THRESHOLD,
    batch_size: int = BATCH,
) -> pd.DataFrame:
    """What skipping slices saves in time, and changes in the masks.

    Parameters
    ----------
    model, cache, table, wanted, batch_size
        As for :func:`predict_slices`. Answers that were read off the true masks make it an oracle.
    threshold : float

    Returns
    -------
    DataFrame, two rows, ``"all slices"`` and ``"with skipping"``
        ``slices_predicted``; ``seconds``; ``dice_pooled`` over all pixels of the table at native
        resolution, skipped slices too (NaN where truth and prediction are empty everywhere);
        ``false_positive_pixels``; ``tumour_slices_skipped``, slices with tumour in truth that the
        network never saw.
    """
    predict_slices(model, cache, table[:1], batch_size=batch_size)  # compiled before it is timed
    has_tumour = table.tumour_pixels.to_numpy() > 0
    wanted = _checked(wanted, len(table))
    pictures = (cache.images[position] for position in cache.positions(table))
    kept = np.array([_is_wanted(wanted, row, picture) for row, picture in enumerate(pictures)])
    rows = []
    for name, rule, seen in (("all slices", None, np.ones_like(kept)), ("with skipping", wanted, kept)):
        started = time.perf_counter()
        probabilities = predict_slices(model, cache, table, batch_size=batch_size, wanted=rule)
        seconds = time.perf_counter() - started
        sums = evaluate_slices(table, probabilities, threshold=threshold)[
            ["truth_pixels", "predicted_pixels", "intersection"]
        ].sum()
        rows.append(
            {
                "slices": name, "slices_predicted": int(seen.sum()), "seconds": seconds,
                "dice_pooled": float(
                    quotient(2 * sums.intersection, sums.truth_pixels + sums.predicted_pixels)
                ),
                "false_positive_pixels": int(sums.predicted_pixels - sums.intersection),
                "tumour_slices_skipped": int((has_tumour & ~seen).sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _native_masks(
    model: keras.Model,
    sources: Sequence,
    picture: Callable,
    *,
    threshold: float,
    batch_size: int,
    flips: bool,
    wanted: Wanted | None,
) -> Iterator[tuple[np.ndarray, float]]:
    """Tumour mask of each source at native resolution, and its highest probability, NaN if skipped.

    ``picture`` makes of a source its three-channel uint8 picture. A batch is made, predicted and
    let go at a time, so memory does not grow with the number of slices.
    """
    size = model.input_shape[1]
    wanted = _checked(wanted, len(sources))

    def prepared(position: int) -> tuple[tuple[int, int], np.ndarray | None]:
        image = picture(sources[position])
        resized = resize_image(image, size) if _is_wanted(wanted, position, image) else None
        return image.shape[:2], resized

    def masks(slices: list) -> Iterator[tuple[np.ndarray, float]]:
        images = [image for _, image in slices if image is not None]
        found = iter(predict_batch(model, np.stack(images), batch_size, flips)[..., TUMOUR_CHANNEL] if images else ())
        for shape, image in slices:
            if image is None:
                yield np.zeros(shape, bool), float("nan")
            else:
                probability = next(found)
                yield enlarged(probability, shape) > threshold, float(probability.max())

    waiting, filled = [], 0
    bar = tqdm(total=len(sources), desc="predicting", unit="slice")
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(sources), batch_size):
            for found in pool.map(prepared, range(start, min(start + batch_size, len(sources)))):
                waiting.append(found)
                filled += found[1] is not None
                if filled == batch_size:  # so that skipped slices do not leave batches half empty
                    yield from masks(waiting)
                    bar.update(len(waiting))
                    waiting, filled = [], 0
        yield from masks(waiting)
        bar.update(len(waiting))
    bar.close()


def predict_files(
    model: keras.Model,
    table: pd.DataFrame,
    folder: Path,
    *,
    threshold: float = THRESHOLD,
    batch_size: int = BATCH,
    flips: bool = False,
    wanted: Wanted | None = None,
) -> Path:
    """Predict slice files, which need no masks, and write a mask for each and a list of them.

    Parameters
    ----------
    model : keras.Model, or a cascade
        (:class:`lits_helpers.cascade.Cascade`), which has its own threshold and flips.
    table : DataFrame
        ``image_path``, ``volume`` and ``slice``: the cases of a layout of slices
        (:mod:`lits_helpers.layouts`), or any part of a slice table.
    folder : Path
        Gets ``masks/volume-V_slice_S_prediction.png`` (0 background, 255 tumour, at native
        resolution) and ``predictions.csv``.
    flips, wanted
        As for :func:`predict_slices`. The mask of a skipped slice is empty.

    Returns
    -------
    Path
        Of the CSV: volume, slice, file, tumour_pixels, highest_probability (none where the slice
        was skipped), threshold.

    Raises
    ------
    DataError
        If the table is empty, or a file cannot be read or written; the message names it.
    """
    if table.empty:
        raise DataError("there are no slices to predict: the table is empty")
    folder = Path(folder)
    if hasattr(model, "predict_masks"):
        threshold = model.threshold
        table = table.sort_values(["volume", "slice"])
        predicted = model.predict_masks(table)
    else:
        predicted = _native_masks(
            model, table.image_path.tolist(), read_image,
            threshold=threshold, batch_size=batch_size, flips=flips, wanted=wanted,
        )
    rows = []
    # Earlier predictions stay until these are complete, and no list ever tells of other masks than its own.
    with temporary_folder(folder) as new:
        for row, (mask, highest) in zip(table.itertuples(), predicted, strict=True):
            name = f"masks/volume-{row.volume}_slice_{row.slice}_prediction.png"
            write_image(new / name, mask.astype(np.uint8) * 255)
            rows.append(
                {
                    "volume": row.volume, "slice": row.slice, "file": name,
                    "tumour_pixels": int(mask.sum()), "highest_probability": highest, "threshold": threshold,
                }
            )
        pd.DataFrame(rows).to_csv(new / "predictions.csv", index=False)
        (folder / "predictions.csv").unlink(missing_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        for name in [row["file"] for row in rows] + ["predictions.csv"]:
            os.replace(new / name, folder / name)
    return folder / "predictions.csv"


def predict_volume(
    model: keras.Model,
    hounsfield: np.ndarray,
    *,
    threshold: float = THRESHOLD,
    batch_size: int = BATCH,
    flips: bool = False,
    wanted: Wanted | None = None,
) -> np.ndarray:
    """Predict a CT volume slice by slice, or whole by a cascade.

    Each slice goes through the report's three-channel coding first, as the slice files did that
    the network was trained on.

    Beside the volume and its labels, memory holds a batch, however many slices there are.

    Parameters
    ----------
    model : keras.Model, or a cascade
        (:class:`lits_helpers.cascade.Cascade`), which has its own threshold and flips and sees all slices.
    hounsfield : int16 array (slices, rows, columns)
        In HU, in the order of the screen: :class:`lits_helpers.volumes.Volume`.
    threshold : float
    flips, wanted
        As for :func:`predict_slices`. Skipped slices are 0.
    batch_size : int

    Returns
    -------
    uint8 array (slices, rows, columns)
        0, and 2 where the network sees tumour. Of a cascade alone: 1 where it sees liver.
    """
    if hasattr(model, "labels"):
        return model.labels(hounsfield)
    predicted = _native_masks(
        model, hounsfield, three_channels,
        threshold=threshold, batch_size=batch_size, flips=flips, wanted=wanted,
    )
    labels = np.zeros(hounsfield.shape, np.uint8)
    for plane, (mask, _) in zip(labels, predicted, strict=True):
        plane[mask] = TUMOUR
    return labels


def scan_names(paths: Sequence[Path]) -> list[str]:
    """What to call the results of scans that are predicted together, so that none overwrites another's.

    Each is called after its file or folder; where some are called alike, as 3D-IRCADb's
    ``PATIENT_DICOM`` are, after as many folders above as tell them apart; and series of one folder
    are numbered.
    """
    places = [Path(path).resolve().parts[1:] for path in paths]
    places = [(*above, name.removesuffix(".gz").removesuffix(".nii")) for *above, name in places]
    names: list[str] = []
    for depth in range(1, 1 + max(map(len, places), default=0)):
        names = ["_".join(place[-depth:]) for place in places]
        if len(set(names)) == len(set(places)):
            break
    return [name if names.count(name) == 1 else f"{name}_{names[:n].count(name) + 1}" for n, name in enumerate(names)]


def predict_scan(
    model: keras.Model,
    path: Path,
    folder: Path,
    *,
    series: str = "",
    dicom_seg: bool = False,
    keep_patient: bool = False,
    name: str = "",
    threshold: float = THRESHOLD,
    batch_size: int = BATCH,
    flips: bool = False,
    wanted: Wanted | None = None,
) -> Path:
    """Predict a CT from a NIfTI file or DICOM folder, and write labels that lie on it.

    Parameters
    ----------
    model : keras.Model, or a cascade
        (:class:`lits_helpers.cascade.Cascade`), which has its own threshold and flips.
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
    keep_patient : bool
        Of :func:`lits_helpers.dicom_masks.write_segmentation`: by default nothing that is written
        says whose the CT is, but by its name and its UIDs.
    name : str
        In place of that of the file or folder, where several are called alike.
    flips, wanted
        As for :func:`predict_slices`.

    Returns
    -------
    Path
        Of the file written: 0 background, 2 tumour; and 1 liver by a cascade.

    Raises
    ------
    DataError
        If the CT cannot be read, or a segmentation object is asked for a NIfTI file.
    """
    path, folder = Path(path), Path(folder)
    volume = read_volume(path, series=series)
    if dicom_seg and volume.geometry.series is None:
        raise DataError(f"{path}: a DICOM segmentation refers to DICOM slices, which a NIfTI file has not")
    labels = predict_volume(
        model, volume.hounsfield, threshold=threshold, batch_size=batch_size, flips=flips, wanted=wanted
    )
    name = name or scan_names([path])[0]
    if dicom_seg and not labels.any():
        warnings.warn(f"{path}: no tumour found; DICOM segmentations cannot be empty, so NIfTI is written", stacklevel=2)
    if dicom_seg and labels.any():
        written = folder / f"{name}_prediction.dcm"
        write_segmentation(
            written, volume.geometry.to_stored(labels), volume.geometry.series, keep_patient=keep_patient
        )
    else:
        written = folder / f"{name}_prediction.nii.gz"
        write_labels(written, labels, volume.geometry)
    return written
