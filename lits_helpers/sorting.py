"""Sort slices into empty, liver only, liver and tumour, and skip those that a segmentation need not see.

After Kaur, Chauhan, Aggarwal, "An automated slice sorting technique for multi-slice computed
tomography liver cancer images using convolutional network", 2021. Of it only the abstract could be
read, in the British Library's catalogue: a CNN sorts 63,503 CT images of liver-cancer patients (The
Cancer Imaging Archive) into three categories "based on the likelihood of the spread of cancer", so
that a therapist looks at few of them. Validation accuracy is 99.1 % with augmented slices and
98.7 % without, test accuracy with them 93.1 %. Of its augmentation, Gaussian filtering and
histogram equalisation, the report names the kinds; their parameters are ours.

What differs here: the three categories are the slice table's diagnoses; the network is a small one
of our own; a slice is filtered, equalised or left alone by chance, where the paper enlarges its
data set; slices are also moved a little; and classes and patients are drawn equally often. The
abstract does not say whether a patient's slices were kept together, so its accuracies are no bar.

How well it sorts, :mod:`lits_helpers.sorting_scores` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers
from tqdm.auto import tqdm

from .augmentation import Augmentation, warp_in_place
from .devices import precision_policy
from .files import DataError, atomic_path, fingerprint, shown
from .generators import SliceCache, resize_image
from .masks import DIAGNOSES, LIVER_AND_TUMOUR
from .normalisation import BatchNormalization
from .settings import Settings

# Ours. No flips: where the liver lies is part of what a slice is recognised by.
MOVED = Augmentation(rotation=8, shift=0.05, shear=0, zoom=0.1, horizontal_flip=False, vertical_flip=False)
HIGHEST_SIGMA = 1.5  # ours, in pixels of the network's input; the abstract names none
WARM_UP = 0.1  # share of the steps in which the learning rate rises


def classifier(
    input_size: tuple[int, int, int] = (96, 96, 3), *, filters: int = 8, depth: int = 4, momentum: float = 0.9
) -> keras.Model:
    """A small network that sorts slices into three classes.

    Each of ``depth`` levels is a 3x3 convolution, batch normalisation, ReLU and pooling. Averages
    and highest values of the last level's maps are joined: a liver fills the slice, a tumour may
    show in one place.

    Parameters
    ----------
    input_size : (rows, columns, channels)
    filters : int
        Channels of the first level; each level after it has twice as many.
    depth : int
        Number of levels, each of which halves rows and columns.
    momentum : float
        Of batch normalisation's running averages, as in :func:`lits_helpers.model.unet`.

    Returns
    -------
    keras.Model
        Named ``"sorter"``, not compiled. Takes float (batch, rows, columns, channels) in [0, 1];
        gives float32 (batch, 3), probabilities in the order of ``masks.DIAGNOSES`` that add up to 1.

    Raises
    ------
    ValueError
        If rows or columns are too few to be halved ``depth`` times.
    """
    if min(input_size[:2]) < 2**depth:
        raise ValueError(f"{input_size[:2]} pixels cannot be halved {depth} times: take more, or a smaller depth")
    inputs = x = keras.Input(input_size)
    for level in range(depth):
        x = layers.Conv2D(filters * 2**level, 3, padding="same", use_bias=False)(x)
        x = BatchNormalization(momentum=momentum)(x)
        x = layers.Activation("relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)])
    x = layers.Dropout(0.3)(x)
    outputs = layers.Dense(len(DIAGNOSES), activation="softmax", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="sorter")


def equalised(image: np.ndarray) -> np.ndarray:
    """Histogram equalisation of each channel: uint8 (rows, columns, channels), 0 to 255.

    A channel of one level stays as it is.
    """
    return np.stack([cv2.equalizeHist(np.ascontiguousarray(channel)) for channel in np.moveaxis(image, 2, 0)], axis=2)


def kaur_augmented(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Of each slice one of three, equally often: itself, a Gaussian-filtered or an equalised one.

    Parameters
    ----------
    images : uint8 array (n, rows, columns, 3)
    random : Generator
        Draws the kind, and the Gaussian's standard deviation: 0.5 to 1.5 pixels.

    Returns
    -------
    uint8 array, same shape
    """
    kinds, sigmas = random.integers(3, size=len(images)), random.uniform(0.5, HIGHEST_SIGMA, len(images))
    changed = images.copy()
    for image, kind, sigma in zip(changed, kinds, sigmas, strict=True):
        if kind == 1:
            image[:] = cv2.GaussianBlur(image, (0, 0), sigma)
        elif kind == 2:
            image[:] = equalised(image)
    return changed


def sampling_weights(table: pd.DataFrame) -> np.ndarray:
    """With which probability to draw each slice: float64 (slices,), adds up to 1.

    Each diagnosis is drawn equally often; within it, each volume that has it; within that, each
    slice. Else long scans and healthy livers would be most of what a network learns from.

    Parameters
    ----------
    table : DataFrame
        With ``diagnosis`` and ``volume``.
    """
    slices = table.groupby(["diagnosis", "volume"]).diagnosis.transform("size")
    volumes = table.groupby("diagnosis").volume.transform("nunique")
    return (1 / (slices * volumes * table.diagnosis.nunique())).to_numpy(float)


def train_sorter(
    settings: Settings,
    table: pd.DataFrame,
    cache: SliceCache,
    *,
    size: int = 96,
    epochs: int | None = None,
    augmented: bool = True,
) -> keras.Model:
    """Train the sorter, or load the one that these settings and slices gave before.

    Adam on cross-entropy; the learning rate rises over the first tenth of the steps and falls
    along a cosine. Kept are the weights of the epoch with the lowest validation cross-entropy,
    each class counted alike. Computes in :func:`lits_helpers.devices.precision_policy`.

    Parameters
    ----------
    settings : Settings
        ``batch_size``, ``learning_rate``, ``epochs`` and ``seed`` are used; the network goes to
        ``sorting/sorter-<fingerprint>.keras`` below the output root.
    table : DataFrame
        Slice table with ``split``: ``train`` and ``validation`` are used.
    cache : SliceCache
        Of the table, at any size.
    size : int
        Rows and columns that the network sees.
    epochs : int, optional
        In place of the settings'. An epoch draws as many slices as there are for training.
    augmented : bool
        Kaur's two kinds of augmentation; False leaves them out, to see what they bring.

    Returns
    -------
    keras.Model
        As :func:`classifier` makes it, not compiled.

    Raises
    ------
    DataError
        If the table has no ``split``, one of the two is empty, or all training slices have one
        diagnosis.
    """
    epochs = settings.epochs if epochs is None else epochs
    if "split" not in table:
        raise DataError("the slice table has no split: use splits.split_patients first")
    sides = {side: table[table.split == side] for side in ("train", "validation")}
    if missing := [side for side, rows in sides.items() if rows.empty]:
        raise DataError(f"no slices for {' and '.join(missing)}: split the table with splits.split_patients")
    if sides["train"].diagnosis.nunique() < 2:
        only = DIAGNOSES[sides["train"].diagnosis.iloc[0]]
        raise DataError(f"all training slices are {only!r}, there is nothing to sort: add other slices")
    path = _sorter_path(settings, table, cache, size, epochs, augmented)
    if path.exists():
        return load_sorter(path)
    print(f"{precision_policy()[0]}: {precision_policy()[1]}. Sorter: {shown(path)}")
    keras.utils.set_random_seed(settings.seed)
    model = _compiled(size)
    _fit(model, settings, sides, cache, epochs, augmented)
    uncompiled = keras.Model(model.input, model.output, name=model.name)  # else Adam's state is saved as well
    with atomic_path(path) as temporary:
        uncompiled.save(temporary)
    return uncompiled


def load_sorter(path: Path) -> keras.Model:
    """Load a network that :func:`train_sorter` saved; code hidden in the file is not run.

    Raises
    ------
    DataError
        If the file is missing, damaged, or another network's.
    """
    path = Path(path)
    try:
        model = keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # Keras raises many kinds, from h5py's, zipfile's and its own
        raise DataError(f"{path}: not a sorter that can be loaded ({error}): remove it and train anew") from error
    if model.output_shape != (None, len(DIAGNOSES)):
        raise DataError(f"{path}: gives {model.output_shape}, a sorter gives {(None, len(DIAGNOSES))}: name another file")
    return model


def _sorter_path(
    settings: Settings, table: pd.DataFrame, cache: SliceCache, size: int, epochs: int, augmented: bool
) -> Path:
    rows = table[["image_path", "split"]].to_csv(index=False)
    choices = (settings.batch_size, settings.learning_rate, settings.seed, cache.images.shape[1], size, epochs, augmented)
    key = fingerprint([*table.image_path, *table.mask_path], __name__, rows, choices, MOVED, 1)
    return settings.output_root / "sorting" / f"sorter-{key}.keras"


def _compiled(size: int) -> keras.Model:
    """A sorter with optimizer and loss, in this machine's precision; Keras's own policy stays as it was."""
    policy, usual = precision_policy()[0], keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = classifier((size, size, 3))
    finally:
        keras.config.set_dtype_policy(usual)
    on_gpu = bool(tf.config.list_physical_devices("GPU"))  # XLA makes the CPU slower
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy", jit_compile=on_gpu)
    return model


def _fit(
    model: keras.Model, settings: Settings, sides: dict[str, pd.DataFrame], cache: SliceCache, epochs: int,
    augmented: bool,
) -> None:
    """Train a compiled sorter; it ends with the weights of its best epoch."""
    training, validation = sides["train"], sides["validation"]
    random = np.random.default_rng(settings.seed)
    size, batch_size = model.input_shape[1], settings.batch_size
    positions, truth = cache.positions(training), training.diagnosis.to_numpy()
    weights, steps = sampling_weights(training), -(-len(training) // batch_size)
    best, best_weights = np.inf, model.get_weights()
    bar = tqdm(total=epochs * steps, desc="training the sorter", unit="step", delay=2)
    for epoch in range(epochs):
        for step in range(steps):
            drawn = random.choice(len(positions), batch_size, p=weights)
            images = np.stack([resize_image(cache.images[position], size) for position in positions[drawn]])
            if augmented:
                images = kaur_augmented(images, random)
            maps = MOVED.matrices(random, batch_size, size)
            warp_in_place(images, np.zeros(images.shape[:3], np.uint8), [(matrix, None) for matrix in maps])
            done = (epoch * steps + step) / (epochs * steps)
            model.optimizer.learning_rate = settings.learning_rate * min(
                1, (done + 1 / (epochs * steps)) / WARM_UP, (1 + np.cos(np.pi * done)) / 2
            )
            model.train_on_batch(images.astype(np.float32) / 255, truth[drawn])
            bar.update()
        loss = _balanced_loss(validation.diagnosis.to_numpy(), predict_classes(model, cache, validation))
        bar.set_postfix(epoch=epoch + 1, val_loss=loss)
        if loss < best:
            best, best_weights = loss, model.get_weights()
    bar.close()
    model.set_weights(best_weights)


def _balanced_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over the classes there are of their slices' mean cross-entropy, in nats."""
    losses = -np.log(np.clip(probabilities[np.arange(len(truth)), truth], 1e-7, 1))
    return float(np.mean([losses[truth == number].mean() for number in np.unique(truth)]))


def predict_pictures(model: keras.Model, pictures: Sequence[np.ndarray], *, batch_size: int = 32) -> np.ndarray:
    """Probabilities of the three diagnoses: float32 (n, 3), each row adds up to 1.

    Parameters
    ----------
    model : keras.Model
        From :func:`train_sorter`.
    pictures : sequence of uint8 arrays (rows, columns, 3), red, green, blue
        Of any size, in the report's three-channel coding.
    batch_size : int
    """
    size = model.input_shape[1]
    probabilities = np.zeros((len(pictures), len(DIAGNOSES)), np.float32)
    batch = np.zeros((batch_size, size, size, 3), np.float32)  # always full, so that one function is compiled
    for start in tqdm(range(0, len(pictures), batch_size), desc="sorting", unit="batch", delay=2):
        chosen = range(start, min(start + batch_size, len(pictures)))
        for row, number in enumerate(chosen):
            batch[row] = resize_image(pictures[number], size)
        probabilities[chosen] = np.asarray(model.predict_on_batch(batch / 255))[: len(chosen)]
    return probabilities


def predict_classes(model: keras.Model, cache: SliceCache, table: pd.DataFrame) -> np.ndarray:
    """:func:`predict_pictures` of a table's slices, in its order: float32 (slices, 3).

    Parameters
    ----------
    model : keras.Model
    cache : SliceCache
    table : DataFrame
        Rows of the table that the cache was made from.
    """
    images = cache.images
    return predict_pictures(model, [images[position] for position in cache.positions(table)])


def choose_triage_threshold(truth: np.ndarray, probabilities: np.ndarray, *, keep: float = 0.99) -> float:
    """The highest threshold at which :func:`triage` keeps enough of the tumour slices.

    Parameters
    ----------
    truth : int array (slices,)
        Diagnoses of validation patients: chosen on the test patients it would promise what it
        cannot keep.
    probabilities : float array (slices, 3)
        From :func:`predict_classes`.
    keep : float
        Share of the slices with tumour to keep, above 0 and up to 1. The share kept of other
        patients' is not this one; measure it.

    Returns
    -------
    float

    Raises
    ------
    DataError
        If no slice has a tumour.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep is a share above 0 and up to 1, got {keep}")
    tumour = np.sort(probabilities[np.asarray(truth) == LIVER_AND_TUMOUR, LIVER_AND_TUMOUR])[::-1]
    if not len(tumour):
        raise DataError("no slice has a tumour to choose the threshold by: take validation patients with tumours")
    return float(tumour[int(np.ceil(round(keep * len(tumour), 9))) - 1])


def triage(probabilities: np.ndarray, *, threshold: float) -> np.ndarray:
    """Which slices are worth segmenting: ``wanted=`` of :func:`lits_helpers.inference.predict_slices`.

    Parameters
    ----------
    probabilities : float array (slices, 3)
        From :func:`predict_classes`.
    threshold : float
        From :func:`choose_triage_threshold`; 0 keeps all.

    Returns
    -------
    bool array (slices,)
        True where the probability of tumour is at least the threshold.
    """
    return np.asarray(probabilities)[:, LIVER_AND_TUMOUR] >= threshold
