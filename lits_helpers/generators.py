"""From the slice table to shuffled, augmented, batched training data.

Every file is decoded once, into a cache on disk that is mapped into memory: bytes, not floats.
An epoch after the first costs one affine warp a sample, about half of its time, and the change to
floats; the machine's threads share that.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .augmentation import Augmentation, change_intensity, warp_in_place
from .files import DataError, fingerprint, require_free_space, temporary_folder
from .masks import LIVER, LIVER_AND_TUMOUR, TUMOUR, read_labels
from .pictures import read_image
from .synthesis import implant

if TYPE_CHECKING:
    import tensorflow as tf

# Each holds a batch, 8 MB of 32 slices at 256x256; more than a GPU's host needs to keep it busy.
MOST_THREADS = 16


@dataclass(frozen=True)
class SliceCache:
    """Decoded, resized slices of a table, in its order.

    Attributes
    ----------
    images : uint8 array (slices, size, size, 3), red, green, blue
    labels : uint8 array (slices, size, size)
        0 background, 1 liver, 2 tumour.
    image_paths : Index
        The table's, to find the slices of a part of it by, however its rows are numbered.
    """

    images: np.ndarray
    labels: np.ndarray
    image_paths: pd.Index

    @classmethod
    def load(cls, folder: Path, table: pd.DataFrame) -> SliceCache:
        """Map what :func:`build_cache` wrote, a slice each for the table's rows, into memory.

        Raises
        ------
        DataError
            If it is damaged, or of another table.
        """
        try:
            images, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels"))
            fitting = images.shape == (*labels.shape, 3) and len(labels) == len(table)
            if not (fitting and images.dtype == labels.dtype == np.uint8):
                raise ValueError(f"images {images.shape}, labels {labels.shape}, for {len(table)} slices")
        except (EOFError, OSError, ValueError) as error:
            raise DataError(f"{folder}: damaged ({error}): delete this folder, and slices are decoded anew") from error
        return cls(images, labels, pd.Index(table.image_path))

    def positions(self, table: pd.DataFrame) -> np.ndarray:
        """Where in the cache the rows of (a part of) its table lie.

        Raises
        ------
        DataError
            If the table is empty or has rows that the cache was not made from.
        """
        positions = self.image_paths.get_indexer(table.image_path)
        if not len(positions) or (positions < 0).any():
            raise DataError(
                f"{int((positions < 0).sum())} of {len(positions)} rows are not in the cache: pass "
                "a part of the table that it was made from, with at least one row"
            )
        return positions


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Bring a picture to ``size`` x ``size``: areas averaged to shrink, bilinear to grow."""
    if image.shape[:2] == (size, size):
        return image
    shrinks = size < min(image.shape[:2])
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=method)


def resize_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """Bring labels to ``size`` x ``size``, in step with :func:`resize_image`.

    A pixel becomes liver or tumour where that covers at least half of it. (Nearest neighbour in
    OpenCV takes a corner of the area, which moves a mask against its image, by one and a half
    pixels from 512 to 128.)

    Parameters
    ----------
    labels : uint8 array (rows, columns)
        0 background, 1 liver, 2 tumour.
    size : int

    Returns
    -------
    uint8 array (size, size)
    """
    foreground, tumour = (
        resize_image(region.astype(np.uint8) * 255, size) >= 128
        for region in (labels >= LIVER, labels == TUMOUR)
    )
    return np.where(tumour, TUMOUR, foreground * LIVER).astype(np.uint8)


def decode_slices(table: pd.DataFrame, size: int, output_root: Path) -> SliceCache:
    """Decode all slices of a table once; later calls map the result into memory.

    Parameters
    ----------
    table : DataFrame
        Slice table (:mod:`lits_helpers.index`), or part of one.
    size : int
        Rows and columns to resize to.
    output_root : Path
        Gets ``cache/<fingerprint>/``, 4 bytes a pixel. The fingerprint changes with the files, with
        what the table says of them, and the size. A folder is complete or absent: it is built
        under another name, then moved.

    Returns
    -------
    SliceCache

    Raises
    ------
    DataError
        If a file is unreadable or another than the table tells of, or the disk too full.
    """
    if not len(table):
        raise DataError("there are no slices to decode: the table is empty")
    told = table[["liver_pixels", "tumour_pixels"]].to_numpy().tolist()
    key = fingerprint([*table.image_path, *table.mask_path], __name__, size, told, 1)
    folder = Path(output_root) / "cache" / key
    if not folder.exists():
        with ThreadPoolExecutor() as pool:
            build_cache(pool.map(lambda row: _decoded(row, size), table.itertuples()), len(table), size, folder)
    return SliceCache.load(folder, table)


def _decoded(row: object, size: int) -> tuple[np.ndarray, np.ndarray]:
    image, labels = read_image(row.image_path), read_labels(row.mask_path)
    pixels = (np.count_nonzero(labels == LIVER), np.count_nonzero(labels == TUMOUR))
    if pixels != (row.liver_pixels, row.tumour_pixels) or image.shape[:2] != labels.shape:
        raise DataError(f"{row.mask_path}, or its image, changed since the table was made: index the folder anew")
    return resize_image(image, size), resize_labels(labels, size)


def build_cache(slices: Iterable[tuple[np.ndarray, np.ndarray]], number: int, size: int, folder: Path) -> None:
    """Write a cache: a folder that is complete or absent, whoever else builds it at the same time.

    Parameters
    ----------
    slices : iterable of (uint8 (size, size, 3), uint8 (size, size))
        Images and labels, in order.
    number, size : int
        How many there will be; rows and columns.
    folder : Path

    Raises
    ------
    DataError
        If the disk is too full; and whatever ``slices`` raises, which leaves nothing behind.
    """
    needed = 4 * size * size * number
    require_free_space(folder, needed)
    with temporary_folder(folder.parent) as temporary:
        building = temporary / folder.name
        building.mkdir()
        slices = tqdm(slices, total=number, desc=f"decoding to {needed / 1e6:,.0f} MB", unit="slice")
        # Written, not mapped: a disk that is full after all then gives an error, and does not end the process.
        with open(building / "images.npy", "wb") as images, open(building / "labels.npy", "wb") as labels:
            for file, of_shape in ((images, (number, size, size, 3)), (labels, (number, size, size))):
                header = {"descr": "|u1", "fortran_order": False, "shape": of_shape}
                np.lib.format.write_array_header_1_0(file, header)
            for _, (image, mask) in zip(range(number), slices, strict=True):
                images.write(np.ascontiguousarray(image, np.uint8).reshape(size, size, 3))
                labels.write(np.ascontiguousarray(mask, np.uint8).reshape(size, size))
            for file in (images, labels):
                file.flush()
                os.fsync(file.fileno())
        try:
            os.replace(building, folder)
        except OSError:
            if not folder.exists():  # else another process was first, with the same contents
                raise


def _keep_freed_memory() -> None:
    """Let glibc use the memory of past batches for coming ones, as it does by itself.

    TensorFlow (2.21, generator_dataset_op.cc) sets M_TRIM_THRESHOLD to 128 kB for the whole process
    when it first meets a generator. That also stops glibc from raising M_MMAP_THRESHOLD (mallopt's
    manual page), so that from then on every array of 128 kB and more is mapped afresh, faulted in page
    by page, and given back: about 0.1 ms of system time a pair of 256x256x3 on a virtual machine, in
    some epochs 0.4, beside 0.5 ms of work. The values here are the highest that glibc would have
    adjusted itself to.
    """
    with suppress(AttributeError, OSError, TypeError):  # macOS, Windows: another allocator
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
        mallopt(-1, 64 << 20)  # M_TRIM_THRESHOLD


def iterate_batches(
    cache: SliceCache,
    positions: np.ndarray,
    batch_size: int,
    *,
    augmentation: Augmentation | None,
    random: np.random.Generator | None,
    window: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One epoch as uint8 batches: images (n, size, size, 3) and labels (n, size, size).

    Shuffled if ``random`` is given, which ``augmentation`` needs too. The last batch may be short.
    ``window`` as for :func:`batches`.
    """
    size = cache.labels.shape[1]
    if random is not None:
        positions = random.permutation(positions)

    def changed(chosen: np.ndarray, maps: list, intensities: list, seeds: list) -> tuple[np.ndarray, np.ndarray]:
        images, labels = cache.images[chosen], cache.labels[chosen]
        if maps:
            warp_in_place(images, labels, maps)
        drawing = [np.random.default_rng(seed) for seed in seeds]  # none, or one an image
        for image, mask, draws in zip(images, labels, drawing):
            implant(image, mask, draws, lesions=augmentation.lesions, distractors=augmentation.distractors)
        if window:
            parts = [_window(mask, window, draws) for mask, draws in itertools.zip_longest(labels, drawing)]
            images, labels = (np.stack([whole[part] for whole, part in zip(of, parts)]) for of in (images, labels))
        for image, change in zip(images, intensities):  # no change at all, or one an image
            image[:] = change_intensity(image, change)
        return images, labels

    # OpenCV releases Python's lock while it warps, so plain threads share the work: a batch each,
    # and only so many ahead that memory does not grow with the slices. All random choices are made
    # here, in order, so that they do not depend on the threads.
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    ahead: deque[Future] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(positions), batch_size):
            chosen = positions[start : start + batch_size]
            maps, intensities, seeds = [], [], []
            if augmentation is not None:
                matrices = augmentation.matrices(random, len(chosen), size)
                maps = [(matrix, augmentation.displacement(random, size)) for matrix in matrices]
                intensities = augmentation.intensities(random, len(chosen))
                if augmentation.lesions or augmentation.distractors or window:
                    seeds = random.integers(2**63, size=len(chosen)).tolist()
            ahead.append(pool.submit(changed, chosen, maps, intensities, seeds))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _window(labels: np.ndarray, window: int, random: np.random.Generator | None) -> tuple[slice, slice]:
    """Where a window lies: about a random pixel of liver or tumour, or about the middle one."""
    size = labels.shape[0]
    places = np.flatnonzero(labels)
    if not len(places):
        centre = (size // 2, size // 2)
    elif random is None:
        centre = np.median(np.unravel_index(places, labels.shape), axis=1)
    else:
        centre = divmod(int(random.choice(places)), size)
    starts = [min(max(0, int(middle) - window // 2), size - window) for middle in centre]
    return tuple(slice(start, start + window) for start in starts)


def batches(
    cache: SliceCache,
    table: pd.DataFrame,
    batch_size: int,
    *,
    augmentation: Augmentation | None = None,
    balanced: bool = False,
    by_volume: bool = False,
    seed: int | None = None,
    first_epoch: int = 0,
    classes: int = 1,
    window: int | None = None,
) -> tf.data.Dataset:
    """Batches for ``fit``: what the report's ``train_generator`` gives, from the cache.

    Parameters
    ----------
    cache : SliceCache
    table : DataFrame
        The rows to use, of the table that the cache was made from.
    batch_size : int
        The last batch of an epoch may be smaller.
    augmentation : Augmentation, optional
        None leaves slices as they are. Needs ``seed``.
    balanced : bool
        An epoch is as long as the table, but half of it are tumour slices, each drawn as often as
        it takes, every time augmented anew. Nine of ten LiTS slices have no tumour, and a network
        learns little from the hundredth of them. Without effect where all slices are of one kind.
        Needs ``seed``.
    by_volume : bool
        In each half of a balanced epoch every volume with such slices has an equal part, however few
        they are: scores are by patient, and a patient with one small tumour counts as much as another.
    seed : int, optional
        Shuffle, anew in every epoch. The order and every change depend on the seed and the number
        of the epoch alone, so that a resumed run sees what an uninterrupted one would have.
    first_epoch : int
        Number of the epoch that the first pass over the data set is.
    classes : int
        1: the truth is the tumour. 3: one channel each for background, liver and tumour.
    window : int, optional
        Rows and columns of a part that is cut out of each slice, and all that is given: about a random
        pixel of liver or tumour where slices are augmented, else about their middle. A network spends
        its time there, and takes whole slices afterwards.

    Returns
    -------
    tf.data.Dataset
        Of images, float32 (n, size, size, 3) in 0..1, and tumour masks, float32
        (n, size, size, classes), 0 or 1.
    """
    import tensorflow as tf

    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if seed is None and (balanced or augmentation is not None):
        raise ValueError("random choices need a seed: give one, or leave out what draws them")
    positions = cache.positions(table)
    has_tumour = (table.diagnosis == LIVER_AND_TUMOUR).to_numpy()
    kinds = [positions[has_tumour], positions[~has_tumour]]
    volumes = [table.volume.to_numpy()[of_kind] for of_kind in (has_tumour, ~has_tumour)]
    size = cache.labels.shape[1]
    epochs = itertools.count(first_epoch)

    def one_epoch() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        _keep_freed_memory()  # TensorFlow has changed the setting by now
        random = None if seed is None else np.random.default_rng([seed, next(epochs)])
        chosen = positions
        if balanced and all(map(len, kinds)):
            halves = (-(-len(positions) // 2), len(positions) // 2)
            if by_volume:
                chosen = [_drawn(random, *of_kind) for of_kind in zip(kinds, volumes, halves, strict=True)]
            else:
                chosen = [np.resize(random.permutation(k), half) for k, half in zip(kinds, halves, strict=True)]
            chosen = np.concatenate(chosen)
        return iterate_batches(cache, chosen, batch_size, augmentation=augmentation, random=random, window=window)

    def prepared(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        truth = tf.one_hot(labels, 3) if classes == 3 else tf.cast(labels[..., None] == TUMOUR, tf.float32)
        # Bytes over 255, in one pass: a cast and a division would cost a pair a tenth of its time more.
        return tf.quantization.dequantize(tf.bitcast(images, tf.quint8), 0, 1, mode="MIN_FIRST"), truth

    size = window or size
    signature = (
        tf.TensorSpec((None, size, size, 3), tf.uint8),
        tf.TensorSpec((None, size, size), tf.uint8),
    )
    steps = -(-len(positions) // batch_size)
    return (
        tf.data.Dataset.from_generator(one_epoch, output_signature=signature)
        .apply(tf.data.experimental.assert_cardinality(steps))
        .map(prepared, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def _drawn(random: np.random.Generator, positions: np.ndarray, volumes: np.ndarray, number: int) -> np.ndarray:
    """Positions drawn so that each volume comes equally often, on average."""
    _, of_row, counts = np.unique(volumes, return_inverse=True, return_counts=True)
    weights = 1 / counts[of_row]
    return random.choice(positions, number, p=weights / weights.sum())
