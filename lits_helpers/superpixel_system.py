"""The surveyed system of Bai et al. 2019, small: liver, superpixels, a verdict on each, their contours.

On slices of one size, stacked to volumes; trained by :mod:`lits_helpers.superpixel_training`. Stages:

1. a 3D U-Net outlines the liver, on shrunken slices (:func:`predict_liver`);
2. the liver is cut into superpixels of several sizes (:func:`lits_helpers.superpixels.candidates`);
3. a 3D fractal residual network says of a patch round each how probably it is tumour;
4. voxels whose superpixels are so on average are taken, and drawn to the edges of the picture.

What the paper reports: trained on 110 LiTS cases, Dice per case 0.67 on 3DIRCADb (its abstract), VOE
0.324 there (Ansari et al. 2022, table 3). What is simplified: networks and steps, by
:class:`SuperpixelOptions`; slices are taken as they come, every second one in some data sets, without
resampling to a common spacing. What could not be verified, as we could read the abstract alone: the
paper's sizes, superpixel method, rule of fusion and kind of active contour; those here are ours.

References
----------
Bai, Jiang, Li, Yao, "Liver Tumor Segmentation Based on Multi-Scale Candidate Generation and Fractal
Residual Network", IEEE Access 7 (2019) 82122-82133, doi 10.1109/ACCESS.2019.2923218. Ansari et al.,
"Practical utility of liver segmentation methods in clinical surgeries and interventions", BMC Medical
Imaging 22:97 (2022).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from .files import DataError, atomic_path, write_json
from .generators import resize_image, resize_labels
from .inference import enlarged
from .masks import LIVER, THRESHOLD, TUMOUR
from .postprocessing import filled, largest_component
from .superpixels import SCALES, candidates, painted, patches, refined
from .windows import GREEN


@dataclass(frozen=True)
class SuperpixelOptions:
    """Sizes of the system. The defaults are for two CPU cores, :data:`FULL` for a GPU.

    Attributes
    ----------
    liver_size, liver_slices : int
        Rows and columns that slices are shrunk to for the liver, and slices seen at once.
    liver_filters, liver_depth : int
        Of :func:`lits_helpers.networks3d.unet3d`.
    liver_batch, liver_steps : int
    scales : tuple of int
        Voxels of a superpixel, at the size of the cache.
    patch : (slices, rows, columns)
        What the classifier sees round a superpixel, at the size of the cache.
    filters, fractal_columns, blocks : int
        Of :func:`lits_helpers.networks3d.fractal_residual_classifier`.
    batch, steps : int
        Of the classifier; half of each batch is tumour.
    learning_rate : float
        Of Adam for both, falling to 0 as a cosine.
    threshold : float
        Voxels above it are tumour.
    reach : int
        How far a contour is moved, in voxels; 0 leaves it out.
    """

    liver_size: int = 48
    liver_slices: int = 16
    liver_filters: int = 8
    liver_depth: int = 3
    liver_batch: int = 2
    liver_steps: int = 120
    scales: tuple[int, ...] = SCALES
    patch: tuple[int, int, int] = (5, 16, 16)
    filters: int = 8
    fractal_columns: int = 2
    blocks: int = 3
    batch: int = 32
    steps: int = 200
    learning_rate: float = 2e-3
    threshold: float = THRESHOLD
    reach: int = 1


# For slices of 256x256: what a single GPU trains in hours, we expect; not run by us, nor the paper's.
FULL = SuperpixelOptions(
    liver_size=128, liver_slices=64, liver_filters=32, liver_steps=20_000, scales=(40, 160, 640),
    patch=(8, 32, 32), filters=32, fractal_columns=3, blocks=4, batch=64, steps=40_000,
    learning_rate=3e-4, reach=2,
)


@dataclass(frozen=True)
class SuperpixelSystem:
    """What :func:`lits_helpers.superpixel_training.train_superpixel_system` returns.

    Attributes
    ----------
    liver, classifier : keras.Model
    tumour_share : float
        Of the superpixels of the training patients, the share that is tumour: what the classifier,
        which saw as many of both kinds, has to be told.
    options : SuperpixelOptions
    """

    liver: keras.Model
    classifier: keras.Model
    tumour_share: float
    options: SuperpixelOptions


class SuperpixelSegmentation(NamedTuple):
    """One volume and how it was found, stage by stage; arrays (slices, size, size).

    Attributes
    ----------
    liver : bool array
    candidates : int32 array (scales, slices, size, size)
        Numbers of the superpixels; 0 outside the liver.
    probability : float32 array, in [0, 1]
        Of tumour, the mean over the superpixels of a voxel.
    coarse : bool array
        Tumour before the contours are moved.
    labels : uint8 array
        The result: 0 background, 1 liver, 2 tumour.
    """

    liver: np.ndarray
    candidates: np.ndarray
    probability: np.ndarray
    coarse: np.ndarray
    labels: np.ndarray


def segment_volume(system: SuperpixelSystem, images: np.ndarray) -> SuperpixelSegmentation:
    """Segment one volume, and keep what each stage found.

    Parameters
    ----------
    system : SuperpixelSystem
    images : uint8 array (slices, size, size, 3)
        In the report's coding, in slice order.

    Returns
    -------
    SuperpixelSegmentation
        All empty where no liver is found.
    """
    options = system.options
    liver = predict_liver(system.liver, images)
    picture = images[..., GREEN] / np.float32(255)
    numbers, table = candidates(picture, liver, scales=options.scales)
    chosen = patches(levelled(images, liver), numbers, table, options.patch)
    probability = painted(numbers, _classified(system, chosen))
    coarse = probability > options.threshold
    tumour = refined(picture, coarse, liver, reach=options.reach)
    labels = np.where(tumour, TUMOUR, liver * LIVER).astype(np.uint8)
    return SuperpixelSegmentation(liver, numbers, probability, coarse, labels)


def predict_liver(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Outline the liver of one volume, with its tumours: the largest part, holes filled.

    Parameters
    ----------
    network : keras.Model
        As :func:`lits_helpers.networks3d.unet3d` builds it. A volume of more slices than it takes is
        seen in pieces that overlap by half, averaged; in a shorter one the last slice is repeated.
    images : uint8 array (slices, size, size, 3)

    Returns
    -------
    bool array (slices, size, size)
    """
    depth, size = network.input_shape[1:3]
    slices = len(images)
    small = shrunken(images, size, depth)
    last = len(small) - depth
    starts = [*range(0, last, depth // 2 or 1), last]
    total, times = np.zeros(small.shape[:3], np.float32), np.zeros((len(small), 1, 1), np.float32)
    for start in starts:
        piece = small[None, start : start + depth] / np.float32(255)
        total[start : start + depth] += network.predict_on_batch(piece)[0, ..., 0]
        times[start : start + depth] += 1
    found = [enlarged(plane, images.shape[1:3]) > 0.5 for plane in (total / times)[:slices]]
    return filled(largest_component(np.stack(found)), within="volume")


def levelled(images: np.ndarray, liver: np.ndarray) -> np.ndarray:
    """Shift each channel for the liver to have a median of 128: contrast media brighten livers unequally.

    Parameters
    ----------
    images : uint8 array (slices, size, size, 3)
    liver : bool array (slices, size, size)

    Returns
    -------
    uint8 array, same shape
        Cut to 0 and 255; as it was where the liver is empty.
    """
    if not liver.any():
        return images
    shift = 128 - np.median(images[liver], axis=0)
    return np.clip(images + shift.astype(np.int16), 0, 255).astype(np.uint8)


def as_rare_as(probability: np.ndarray, share: float) -> np.ndarray:
    """Probabilities of a classifier that saw as many of both kinds, where one kind has this share.

    Odds times the odds of the share. 0.5 becomes ``share``; 0 and 1 stay.

    References
    ----------
    Elkan, "The Foundations of Cost-Sensitive Learning", IJCAI 2001, theorem 2.
    """
    return probability * share / (probability * share + (1 - probability) * (1 - share))


def save_superpixel_system(system: SuperpixelSystem, folder: Path) -> Path:
    """Write ``liver.keras``, ``classifier.keras`` and ``options.json`` into a folder; returns it."""
    folder = Path(folder)
    for name in ("liver", "classifier"):
        with atomic_path(folder / f"{name}.keras") as temporary:
            getattr(system, name).save(temporary)
    write_json(folder / "options.json", {"tumour_share": system.tumour_share, **asdict(system.options)})
    return folder


def load_superpixel_system(folder: Path) -> SuperpixelSystem:
    """Load what :func:`save_superpixel_system` wrote; code hidden in the files is not run.

    Raises
    ------
    DataError
        If a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        stored = json.loads((folder / "options.json").read_text(encoding="utf-8"))
        share = stored.pop("tumour_share")
        options = SuperpixelOptions(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()})
        networks = [
            keras.saving.load_model(folder / f"{name}.keras", compile=False, safe_mode=True)
            for name in ("liver", "classifier")
        ]
    except Exception as error:  # Keras raises many kinds, from h5py's, zipfile's and its own
        raise DataError(
            f"{folder}: holds no superpixel system that can be loaded ({error}): train one anew"
        ) from error
    return SuperpixelSystem(*networks, share, options)


def shrunken(planes: np.ndarray, size: int, depth: int) -> np.ndarray:
    """Slices at the size of the liver network, at least ``depth`` of them."""
    resize = resize_labels if planes.ndim == 3 else resize_image
    small = np.stack([resize(plane, size) for plane in planes])
    missing = max(0, depth - len(small))
    return np.concatenate([small, np.repeat(small[-1:], missing, axis=0)]) if missing else small


def _classified(system: SuperpixelSystem, found: np.ndarray, *, batch: int = 128) -> np.ndarray:
    """Probability of tumour of each patch, float32 (patches,), as rare as tumour is."""
    balanced = np.zeros(len(found), np.float32)
    filled_up = np.zeros((batch, *found.shape[1:]), np.float32)
    for start in range(0, len(found), batch):
        chosen = found[start : start + batch]
        np.divide(chosen, 255, out=filled_up[: len(chosen)], dtype=np.float32)
        balanced[start : start + batch] = system.classifier.predict_on_batch(filled_up)["candidate"][: len(chosen), 0]
    return as_rare_as(balanced, system.tumour_share)
