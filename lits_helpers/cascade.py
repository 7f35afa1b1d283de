"""Two networks in a row: the liver in the whole slice, then tumours in the liver's region.

The first works at low resolution and only has to say where the liver is. The second sees the region
of :mod:`lits_helpers.regions`: finer pixels, three neighbouring slices, and the liver at the same
brightness in every patient. It learns with the true liver's region, and predicts with the found one.

A trained cascade is a folder: ``liver.keras``, ``tumour.keras`` and ``cascade.json``; the run folders
``liver/`` and ``tumour/`` that training goes on from lie inside it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm.auto import tqdm

from .augmentation import Augmentation
from .clocks import ClockSchedule
from .files import DataError, atomic_path, fingerprint, shown, write_json
from .generators import SliceCache, batches, build_cache, decode_slices, resize_image
from .inference import BATCH, TUMOUR_CHANNEL, predict_images
from .masks import LIVER, TUMOUR, read_labels
from .pictures import read_image
from .postprocessing import filled, hysteresis
from .regions import Region, liver_crops, liver_region, put_back, through
from .runs import load_checkpoint, read_history, run_folder, state_path
from .settings import Settings
from .training import Task, class_network, passes, run, shared_by
from .windows import GREEN, three_channels

# Chosen by a handful of runs on folds of 20 LiTS volumes, by hand; sizes of "full" are not tried.
STAGES = {
    "tiny": {
        "liver": dict(image_size=128, filters=32, depth=3, batch_size=16, learning_rate=3e-3),
        "tumour": dict(image_size=192, filters=16, depth=4, batch_size=12, learning_rate=2e-3),
    },
    "full": {
        "liver": dict(image_size=128, filters=32, depth=4, batch_size=32, learning_rate=3e-3),
        "tumour": dict(image_size=320, filters=48, depth=4, batch_size=16, learning_rate=1.5e-3),
    },
}
WINDOWS = {"tiny": 128, "full": 224}  # of its crops, what the second network learns from at once
MINUTES = {"tiny": 10.0, "full": 720.0}  # of the whole training, unless told otherwise
LIVER_SHARE = 0.2  # of the minutes
PASSES = 4  # over the training slices in an epoch: each is validated and stored, which takes time
# No flips for the liver: it has its side, and slices of one source lie one way. Contrast medium, or none,
# changes brightness by up to half.
AUGMENTATIONS = {
    "liver": Augmentation(
        rotation=10, shift=0.08, shear=0.05, zoom=0.2, horizontal_flip=False, vertical_flip=False,
        brightness=0.5, contrast=0.3, intensity_probability=0.5,
    ),
    "tumour": Augmentation(
        rotation=20, shift=0.1, shear=0.05, zoom=0.2,
        brightness=0.05, contrast=0.25, noise=0.05, blur=1.0, intensity_probability=0.3,
        lesions=0.4, distractors=0.5,
    ),
}
# A lesion is what passes the lower probability and, somewhere, the higher: chosen on held-out patients of
# 20 LiTS volumes.
THRESHOLD, SURE = 0.5, 0.95
REACH = 0.03  # of a slice's width: how far the second network's liver may pass the first one's
BORDER = 9  # pixels across the disc by which a tumour may pass the liver
# Livers without contrast medium can be half as bright as any in training, and the first network is then unsure, of
# what it finds too: 0.7 on average, and 0.94 to 0.97 on 14 other volumes. It looks again at brighter slices.
SURE_OF_LIVER = 0.9
GAINS = (1.0, 1.5, 2.0, 2.5)
STARTING = 10.0  # seconds of the minutes for what comes before and after: imports, saving


def train_cascade(settings: Settings, table: pd.DataFrame, *, minutes: float | None = None) -> Path:
    """Train both networks, or go on with it.

    Parameters
    ----------
    settings : Settings
        Its recipe's sizes are those of :data:`STAGES`, not the profile's.
    table : DataFrame
        Slice table with ``split``; ``train`` and ``validation`` are used.
    minutes : float, optional
        Wall time of the whole training, decoding too; learning rates fall to 0 at its end. A call that
        was interrupted goes on with what is left. 10 in the tiny profile, 12 hours in the full one.

    Returns
    -------
    Path
        The cascade's folder, for :func:`load_cascade`.

    Raises
    ------
    DataError
        As :func:`lits_helpers.training.train`; and where no training slice shows a liver.
    """
    minutes = MINUTES[settings.profile] if minutes is None else minutes
    started = time.monotonic() - STARTING
    folder = cascade_folder(settings, table)
    if _had(folder, minutes):
        return folder
    spent = sum(_spent(folder / name) for name in STAGES[settings.profile])
    seconds = 60 * minutes - spent

    def left() -> float:
        return max(1.0, seconds - (time.monotonic() - started))

    stage = _stage_settings(settings, "liver")
    cache = decode_slices(table, stage.image_size, settings.output_root)
    if not cache.labels.any():
        raise DataError("no slice shows a liver: a cascade has nothing to learn from")
    run(_task(stage, "liver", table, cache, folder, seconds=max(1.0, LIVER_SHARE * (seconds + spent))))
    stage = _stage_settings(settings, "tumour")
    crops, rows = region_cache(table, cache, stage.image_size, settings.output_root)
    run(_task(stage, "tumour", rows, crops, folder, seconds=_spent(folder / "tumour") + left()))

    for name in STAGES[settings.profile]:
        last = state_path(folder / name, len(read_history(folder / name)))
        stage = _stage_settings(settings, name)
        network = class_network(stage)  # for whole crops, where it learned from parts of them
        network.set_weights(load_checkpoint(last, _seen(stage, name)).get_weights())
        with atomic_path(folder / f"{name}.keras") as temporary:
            keras.Model(network.inputs, network.outputs).save(temporary)  # without what only training needs
    sizes = {name: _stage_settings(settings, name).image_size for name in STAGES[settings.profile]}
    write_json(folder / "cascade.json", {"sizes": sizes, "threshold": THRESHOLD, "minutes": minutes})
    return folder


def cascade_folder(settings: Settings, table: pd.DataFrame) -> Path:
    """Where the cascade of these settings and this split lies, below the output root."""
    key = run_folder(settings, table, AUGMENTATIONS["tumour"]).name.rpartition("-")[2]
    # Networks of other sizes cannot be gone on from.
    key = fingerprint([], key, STAGES[settings.profile], WINDOWS[settings.profile])[:8]
    return settings.output_root / "runs" / f"{settings.profile}-strong-{key}"


def _had(folder: Path, minutes: float) -> bool:
    """Whether a cascade is finished and had that time: seconds of epochs leave out what decoding took."""
    try:
        return json.loads((folder / "cascade.json").read_text(encoding="utf-8"))["minutes"] >= minutes
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _spent(folder: Path) -> float:
    history = read_history(folder)
    return float(history.seconds.sum()) if len(history) else 0.0


def _stage_settings(settings: Settings, name: str) -> Settings:
    return replace(settings, **STAGES[settings.profile][name], recipe="strong")


def _seen(settings: Settings, name: str) -> int:
    """Rows and columns that a stage's network learns from at once."""
    return WINDOWS[settings.profile] if name == "tumour" else settings.image_size


def _task(
    settings: Settings, name: str, table: pd.DataFrame, cache: SliceCache, folder: Path, *, seconds: float
) -> Task:
    sides = {side: table[table.split == side] for side in ("train", "validation")}
    for side, rows in sides.items():
        if rows.empty:
            raise DataError(f"no {side} slice shows a liver: a cascade needs patients with livers on both sides")
    seen = _seen(settings, name)
    window = None if seen == settings.image_size else seen

    training = passes(
        cache, sides["train"], settings, PASSES, augmentation=AUGMENTATIONS[name], by_volume=True, classes=3, window=window
    )

    def validation(replicas: int) -> tf.data.Dataset:
        step = 2 if len(sides["validation"]) > 50 else 1  # every second slice will do to watch by
        rows = shared_by(sides["validation"].iloc[::step], replicas)
        return batches(cache, rows, settings.batch_size, classes=3, window=window)

    return Task(
        folder=folder / name, settings=settings, table=table, size=seen,
        batch_size=settings.batch_size, epochs=10_000,
        network=lambda: class_network(replace(settings, image_size=seen)), training=training, validation=validation,
        adapting=lambda spent: [ClockSchedule(settings.learning_rate, seconds, spent)], seconds=seconds,
    )


def region_cache(
    table: pd.DataFrame, cache: SliceCache, size: int, output_root: Path
) -> tuple[SliceCache, pd.DataFrame]:
    """Slices with liver through the regions of their volumes' true livers, decoded once.

    Parameters
    ----------
    table : DataFrame
        Slice table of whole volumes.
    cache : SliceCache
        Of that table, at any size: where the livers are.
    size : int
        Rows and columns of a crop.
    output_root : Path
        Gets ``cache/<fingerprint>/``.

    Returns
    -------
    cache : SliceCache
        Of the rows; images as :func:`lits_helpers.regions.liver_crops` makes them.
    rows : DataFrame
        The rows of ``table`` that show liver, by volume and slice.
    """
    has_liver = pd.Series(cache.labels.any(axis=(1, 2))[cache.positions(table)], index=table.index)
    rows = table[has_liver].sort_values(["volume", "slice"])
    # Slices without liver are neighbours, and where the livers are is known to a pixel of ``cache``.
    key = fingerprint([*table.image_path, *table.mask_path], __name__, size, cache.labels.shape[1], 1)

    def crops() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _, volume in table.sort_values(["volume", "slice"]).groupby("volume"):
            positions = cache.positions(volume)
            region, _ = liver_region(cache.labels[positions] > 0, cache.images[positions, ..., GREEN])
            if region is None:
                continue
            green = [read_image(path)[..., GREEN].copy() for path in volume.image_path]  # not a view of all channels
            wanted = np.flatnonzero(has_liver[volume.index])
            images = liver_crops(green, volume.slice.tolist(), region, size, wanted=wanted)
            for image, position in zip(images, wanted, strict=True):
                labels = read_labels(volume.mask_path.iloc[position])
                yield image, through(labels, region.map(size, labels.shape), size, nearest=True)

    folder = Path(output_root) / "cache" / key
    if not folder.exists():
        build_cache(crops(), len(rows), size, folder)
    return SliceCache.load(folder, rows), rows


@dataclass(frozen=True, eq=False)
class Cascade:
    """A trained cascade, ready to predict.

    Attributes
    ----------
    liver, tumour : keras.Model
        Both take (batch, size, size, 3) in 0..1 and give background, liver and tumour.
    threshold : float
        Of the tumour's probability.
    sure : float
        What a part above the threshold has to exceed somewhere.
    """

    liver: keras.Model
    tumour: keras.Model
    threshold: float = THRESHOLD
    sure: float = SURE

    def predict(
        self, pictures: Sequence[np.ndarray], numbers: Sequence[int], *, flips: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Look at one volume.

        Parameters
        ----------
        pictures : sequence of uint8 arrays (rows, columns, 3), red, green, blue
            All its slices in the report's coding, in order.
        numbers : sequence of int, rising
            Slice numbers: neighbours in the sequence may not be so in the body.
        flips : bool
            Average over mirrored regions as well: four times the work of the second network. On, because it
            gained 0.03 Dice per case on validation patients.

        Returns
        -------
        probabilities : float16 array (slices, rows, columns)
            Of tumour, in [0, 1]; 0 away from the liver, and where it is above the threshold in a part that is
            nowhere sure.
        liver : bool array (slices, rows, columns)
            The liver with its tumours, as the first network found it; its largest part.
        """
        size, shape = self.liver.input_shape[1], pictures[0].shape[:2]
        small = np.stack([resize_image(picture, size) for picture in pictures])
        somewhere, region, found = self._find_liver(small)
        probabilities = np.zeros((len(pictures), *shape), np.float16)
        liver = np.zeros(probabilities.shape, bool)
        if region is None:
            return probabilities, liver
        # Of the coarse answer the part that counts, and what it could have missed at its edge.
        coarse = somewhere * _grown(found, 3)
        wanted = np.flatnonzero(found.any(axis=(1, 2)))
        green = [picture[..., GREEN] for picture in pictures]
        crop_size = self.tumour.input_shape[1]
        matrix = region.map(crop_size, shape)
        reach = 2 * round(REACH * shape[1]) + 1
        for start in range(0, len(wanted), BATCH):
            chosen = wanted[start : start + BATCH]
            crops = liver_crops(green, numbers, region, crop_size, wanted=chosen)
            answer = predict_images(self.tumour, crops, flips=flips)
            # Where the second network sees no liver, in a large lesion, the first may still see one.
            tumour = answer[..., TUMOUR_CHANNEL] / np.maximum(1 - answer[..., 0], 1e-3)
            fine = np.stack([put_back(crop, matrix, shape) for crop in 1 - answer[..., 0]]) > 0.5
            rough = filled(np.stack([cv2.resize(coarse[place], shape[::-1]) for place in chosen]) > 0.5)
            liver[chosen] = filled(rough | (fine & _grown(rough, reach)))
            allowed = _grown(liver[chosen], BORDER)
            for place, crop, inside in zip(chosen, tumour, allowed, strict=True):
                probabilities[place] = put_back(crop, matrix, shape) * inside
        sure = hysteresis(probabilities.astype(np.float32), low=self.threshold, high=self.sure)
        probabilities[(probabilities > self.threshold) & ~sure] = 0
        return probabilities, liver

    def _find_liver(self, small: np.ndarray) -> tuple[np.ndarray, Region | None, np.ndarray]:
        """The first network's probabilities of liver, its region, and its largest part, as
        :func:`lits_helpers.regions.liver_region` gives them; of the brightness at which it is surest."""
        surest, best = -1.0, None
        for gain in GAINS:
            brighter = (np.arange(256) * gain).clip(0, 255).astype(np.uint8)[small]
            probabilities = 1 - predict_images(self.liver, brighter)[..., 0]
            region, found = liver_region(probabilities > 0.5, small[..., GREEN])
            sure = float(probabilities[found].mean()) if found.any() else 0.0
            if sure > surest:
                surest, best = sure, (probabilities, region, found)
            if sure >= SURE_OF_LIVER:
                break
        return best

    def labels(self, hounsfield: np.ndarray) -> np.ndarray:
        """Labels of a CT volume in HU: uint8, same shape, 0 background, 1 liver, 2 tumour."""
        pictures = [three_channels(plane) for plane in tqdm(hounsfield, desc="windowing", unit="slice", delay=2)]
        probabilities, liver = self.predict(pictures, range(len(pictures)))
        found = liver.astype(np.uint8) * np.uint8(LIVER)
        found[probabilities > self.threshold] = TUMOUR
        return found

    def predict_masks(self, table: pd.DataFrame) -> Iterator[tuple[np.ndarray, float]]:
        """Tumour mask and highest probability of each slice of a table that is in order of volume and slice."""
        for _, rows in table.groupby("volume", sort=False):
            pictures = [read_image(path) for path in rows.image_path]
            for probability in self.predict(pictures, rows.slice.tolist())[0]:
                yield probability > self.threshold, float(probability.max())

    def predict_table(self, table: pd.DataFrame) -> np.ndarray:
        """:func:`predict_table` by this cascade."""
        return predict_table(self.predict, table)


def predict_table(predict: Callable, table: pd.DataFrame) -> np.ndarray:
    """Tumour probabilities of a slice table of whole volumes, at native resolution, in its order.

    Parameters
    ----------
    predict : function of (pictures, numbers)
        As :meth:`Cascade.predict`.
    table : DataFrame

    Returns
    -------
    float16 array (slices, rows, columns)

    Raises
    ------
    DataError
        If slices have several sizes.
    """
    sizes = table[["height", "width"]].drop_duplicates()
    if len(sizes) != 1:
        raise DataError(f"slices of {len(sizes)} sizes: predict them volume by volume, with `predict`")
    found = np.zeros((len(table), *sizes.iloc[0]), np.float16)
    place = pd.Series(np.arange(len(table)), index=table.index)
    bar = tqdm(total=len(table), desc="predicting", unit="slice", delay=2)
    for _, rows in table.sort_values(["volume", "slice"]).groupby("volume"):
        pictures = [read_image(path) for path in rows.image_path]
        found[place[rows.index]] = predict(pictures, rows.slice.tolist())[0]
        bar.update(len(rows))
    bar.close()
    return found


def _grown(masks: np.ndarray, width: int) -> np.ndarray:
    """Masks (slices, rows, columns) dilated within their slices by a disc ``width`` pixels across."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return np.stack([cv2.dilate(mask.astype(np.uint8), disc) for mask in masks]).astype(bool)


def load_cascade(folder: Path) -> Cascade:
    """Load what :func:`train_cascade` made; code hidden in the files is not run.

    Raises
    ------
    DataError
        If the folder is no cascade, or damaged.
    """
    folder = Path(folder)
    described = folder / "cascade.json"
    if not described.is_file():
        raise DataError(
            f"{shown(folder)}: no cascade.json, so no finished cascade: run `train --recipe strong` (again)"
        )
    try:
        facts = json.loads(described.read_text(encoding="utf-8"))
        sizes, threshold = facts["sizes"], float(facts["threshold"])
        sizes = {name: int(sizes[name]) for name in ("liver", "tumour")}
        if not 0 < threshold < 1:
            raise ValueError(f"a threshold of {threshold}")
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"{described}: damaged ({error}): train anew") from error
    return Cascade(
        **{name: load_checkpoint(folder / f"{name}.keras", size) for name, size in sizes.items()}, threshold=threshold
    )
