"""Training of the system of superpixels: first the liver, then the superpixels in it.

See :mod:`lits_helpers.superpixel_system` for what is trained, after Bai et al. 2019, and what was
simplified. How the paper trained, beyond its 110 LiTS cases, we could not verify.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm.auto import tqdm

from .files import DataError
from .generators import SliceCache
from .masks import LIVER, LIVER_AND_TUMOUR, TUMOUR
from .metrics import bce_dice_loss
from .networks3d import fractal_residual_classifier, unet3d
from .superpixel_system import (
    SuperpixelOptions, SuperpixelSystem, levelled, predict_liver, shrunken,
)
from .superpixels import candidates, patches, share_inside
from .windows import GREEN

LIVER_PRIOR = 0.1  # about the share of an abdomen's slices that is liver
# Of an auxiliary answer in the loss: Szegedy et al., "Going Deeper with Convolutions", section 5.
AUXILIARY_WEIGHT = 0.3
# Patches a volume without tumour in them that training keeps, of thousands that resemble each other.
NEGATIVES = 400


def train_superpixel_system(
    cache: SliceCache, table: pd.DataFrame, *, options: SuperpixelOptions = SuperpixelOptions(), seed: int = 32
) -> SuperpixelSystem:
    """Train both networks, one after the other.

    Parameters
    ----------
    cache : SliceCache
    table : DataFrame
        Slices of the training patients, whole volumes, of the table that the cache was made from.
    options : SuperpixelOptions
    seed : int

    Returns
    -------
    SuperpixelSystem

    Raises
    ------
    DataError
        If no slice shows a tumour, or none is large enough to be half of a superpixel.
    """
    if not (table.diagnosis == LIVER_AND_TUMOUR).any():
        raise DataError("no slice of these patients shows a tumour, so there is none to learn from: give others")
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    liver = _train_liver(cache, table, options, random)
    chosen, is_tumour, volumes, share = _examples(cache, table, liver, options, random)
    classifier = _train_classifier(chosen, is_tumour, volumes, options, random)
    return SuperpixelSystem(liver, classifier, share, options)


def even_chances(volumes: np.ndarray) -> np.ndarray:
    """Chances for each row to be drawn, for each volume to be as often, however large its tumours.

    Parameters
    ----------
    volumes : int array (rows,)

    Returns
    -------
    float array (rows,), of sum 1
    """
    chances = 1 / np.bincount(volumes)[volumes]
    return chances / chances.sum()


def _compiled(network: keras.Model, options: SuperpixelOptions, steps: int, **losses: object) -> keras.Model:
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    jit_compile = bool(tf.config.list_physical_devices("GPU"))  # XLA makes the CPU slower
    network.compile(keras.optimizers.Adam(rate), jit_compile=jit_compile, **losses)
    return network


def _volumes(cache: SliceCache, table: pd.DataFrame) -> Iterator[np.ndarray]:
    """Positions in the cache of each volume's slices, in their order."""
    for _, rows in table.sort_values(["volume", "slice"]).groupby("volume"):
        yield cache.positions(rows)


def _train_liver(
    cache: SliceCache, table: pd.DataFrame, options: SuperpixelOptions, random: np.random.Generator
) -> keras.Model:
    size, depth = options.liver_size, options.liver_slices
    stacks = []
    for positions in _volumes(cache, table):
        labels = shrunken(cache.labels[positions], size, depth)
        stacks.append((shrunken(cache.images[positions], size, depth), labels >= LIVER))
    network = unet3d(
        (depth, size, size, 3), filters=options.liver_filters, depth=options.liver_depth, prior=LIVER_PRIOR
    )
    _compiled(network, options, options.liver_steps, loss=bce_dice_loss)
    bar = tqdm(range(options.liver_steps), desc="liver network", unit="step", delay=2)
    for _ in bar:
        batch = []
        for number in random.integers(len(stacks), size=options.liver_batch):
            start = random.integers(len(stacks[number][0]) - depth + 1)
            batch.append([side[start : start + depth] for side in stacks[number]])
        pictures, livers = (np.stack(side) for side in zip(*batch, strict=True))
        loss = network.train_on_batch(pictures / np.float32(255), livers[..., None].astype(np.float32))
        bar.set_postfix(loss=f"{float(loss):.3f}")
    return network


def _examples(
    cache: SliceCache, table: pd.DataFrame, network: keras.Model, options: SuperpixelOptions,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Patches to learn from, whether each is tumour, its volume's number, and the share of tumour in all.

    Superpixels are those of the true liver and of the one that the network sees, which is what there
    is in prediction. One counts as tumour if half of it is.
    """
    found, truths, numbers, total, hits = [], [], [], 0, 0
    bar = tqdm(total=len(table), desc="candidates", unit="slice", delay=2)
    for volume, positions in enumerate(_volumes(cache, table)):
        bar.update(len(positions))
        images, labels = cache.images[positions], cache.labels[positions]
        liver = (labels >= LIVER) | predict_liver(network, images)
        superpixels, rows = candidates(images[..., GREEN] / np.float32(255), liver, scales=options.scales)
        is_tumour = share_inside(superpixels, labels == TUMOUR) >= 0.5
        total, hits = total + len(rows), hits + int(is_tumour.sum())
        others = np.flatnonzero(~is_tumour)
        kept = np.concatenate(
            [np.flatnonzero(is_tumour), random.choice(others, min(NEGATIVES, len(others)), replace=False)]
        )
        found.append(patches(levelled(images, liver), superpixels, rows.iloc[kept], options.patch))
        truths.append(is_tumour[kept])
        numbers.append(np.full(len(kept), volume))
    bar.close()
    if not 0 < hits < total:
        raise DataError(
            f"{hits} of {total} superpixels are tumour, both kinds are needed: take smaller scales, or more patients"
        )
    return np.concatenate(found), np.concatenate(truths), np.concatenate(numbers), hits / total


def _train_classifier(
    found: np.ndarray, is_tumour: np.ndarray, volumes: np.ndarray, options: SuperpixelOptions,
    random: np.random.Generator,
) -> keras.Model:
    network = fractal_residual_classifier(
        found.shape[1:], filters=options.filters, fractal_columns=options.fractal_columns, blocks=options.blocks
    )
    names = network.output_names
    weights = {name: 1.0 if name == "candidate" else AUXILIARY_WEIGHT for name in names}
    _compiled(
        network, options, options.steps,
        loss=dict.fromkeys(names, "binary_crossentropy"), loss_weights=weights,
    )
    kinds = [(rows, even_chances(volumes[rows])) for rows in map(np.flatnonzero, (is_tumour, ~is_tumour))]
    bar = tqdm(range(options.steps), desc="classifier", unit="step", delay=2)
    for _ in bar:
        half = options.batch // 2
        rows = np.concatenate([random.choice(of, half, p=share) for of, share in kinds])
        batch = np.stack([_turned(found[row], random) for row in rows]) / np.float32(255)
        truth = is_tumour[rows, None].astype(np.float32)
        loss = network.train_on_batch(batch, dict.fromkeys(names, truth))
        bar.set_postfix(loss=f"{float(np.ravel(loss)[0]):.3f}")
    return network


def _turned(patch: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A patch mirrored at random, in each direction and at the diagonal of square slices."""
    if patch.shape[1] == patch.shape[2] and random.random() < 0.5:
        patch = patch.swapaxes(1, 2)
    return patch[tuple(slice(None, None, step) for step in random.choice((1, -1), 3))]
