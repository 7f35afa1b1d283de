"""Losses for networks that tell three classes apart, beside the report's in :mod:`lits_helpers.metrics`.

Each takes truth one-hot and probabilities, both (batch, rows, columns, classes), and returns a float32
tensor (1,): sums over all pixels of the batch, as the report's Dice takes them, because a slice
without a tumour has no Dice of its own. Class 0 is background and never counts in an overlap: it is
nearly everywhere, and right by itself. (Not a scalar: see :func:`lits_helpers.metrics.bce_dice_loss`.)
"""

from __future__ import annotations

import keras
from keras import ops

from .metrics import SMOOTH, registered

SMALLEST = 1e-6  # probability whose logarithm is still taken


def _sums(
    truth: keras.KerasTensor, predicted: keras.KerasTensor
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """Per class but background: true positives, false positives and false negatives, as sums of
    probabilities in float32."""
    truth, predicted = (ops.reshape(ops.cast(values, "float32"), (-1, values.shape[-1])) for values in (truth, predicted))
    # The background is left out of the sums, not of the pixels: cutting those out costs more than adding them up.
    shared, found, there = (ops.sum(values, axis=0)[1:] for values in (truth * predicted, predicted, truth))
    return shared, found - shared, there - shared


@registered
def cross_entropy(truth: keras.KerasTensor, predicted: keras.KerasTensor) -> keras.KerasTensor:
    """Mean over pixels of ``-log`` of the true class's probability, natural logarithm."""
    truth, predicted = (ops.cast(values, "float32") for values in (truth, predicted))
    taken = truth * ops.log(ops.maximum(predicted, SMALLEST))
    return ops.reshape(-truth.shape[-1] * ops.mean(taken), (1,))


def _tversky(
    truth: keras.KerasTensor, predicted: keras.KerasTensor, missed: float, false: float
) -> keras.KerasTensor:
    """Smoothed Tversky index per class but background, float32; with weights of 1 it is Jaccard's."""
    shared, false_positive, false_negative = _sums(truth, predicted)
    return (shared + SMOOTH) / (shared + false * false_positive + missed * false_negative + SMOOTH)


@registered
def class_dice_loss(truth: keras.KerasTensor, predicted: keras.KerasTensor) -> keras.KerasTensor:
    """Sum over liver and tumour of 1 minus the smoothed soft Dice; in [0, classes - 1).

    Smoothed as :func:`lits_helpers.metrics.dice_coef` is, so that a class that is nowhere, and is not
    predicted, costs nothing.
    """
    shared, false_positive, false_negative = _sums(truth, predicted)
    dice = (2 * shared + SMOOTH) / (2 * shared + false_positive + false_negative + SMOOTH)
    return ops.reshape(ops.sum(1 - dice), (1,))


@registered
def class_loss(truth: keras.KerasTensor, predicted: keras.KerasTensor) -> keras.KerasTensor:
    """:func:`cross_entropy` plus :func:`class_dice_loss`: what the recipes train with."""
    return cross_entropy(truth, predicted) + class_dice_loss(truth, predicted)


@registered
def jaccard_loss(truth: keras.KerasTensor, predicted: keras.KerasTensor) -> keras.KerasTensor:
    """Sum over liver and tumour of 1 minus the smoothed soft Jaccard index (after Yuan 2017).

    ``shared / (shared + false positive + false negative)`` with sums of probabilities. Yuan's union is
    ``sum(t**2) + sum(p**2) - sum(t * p)``; with the sums of probabilities, as here, an undecided 0.5
    costs more.

    References
    ----------
    Y. Yuan, "Hierarchical Convolutional-Deconvolutional Neural Networks for Automatic Liver and Tumor
    Segmentation", arXiv:1710.04540.
    """
    return ops.reshape(ops.sum(1 - _tversky(truth, predicted, 1.0, 1.0)), (1,))


@registered
def focal_tversky_loss(truth: keras.KerasTensor, predicted: keras.KerasTensor) -> keras.KerasTensor:
    """Sum over liver and tumour of ``(1 - TI) ** (3/4)``, TI weighing misses 0.7 and false pixels 0.3.

    Misses weigh more than false pixels; and the slope of the power rises as a class gets better, so
    that one that is nearly right still counts. ``keras.losses.Tversky`` is not used: until
    Keras's pull request 23333 it swapped the two weights against its own documentation.

    References
    ----------
    Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional deep
    networks", MLMI 2017, for the index; Abraham and Khan, "A novel focal Tversky loss function with
    improved attention U-Net for lesion segmentation", ISBI 2019, for 0.7 and the exponent 1 / gamma, gamma
    4/3, outside the bracket as in their code (github.com/nabsabraham/focal-tversky-unet).
    """
    # The slope of x ** 0.75 is endless at 0, which a perfect class would reach.
    rest = ops.maximum(1 - _tversky(truth, predicted, 0.7, 0.3), SMALLEST)
    return ops.reshape(ops.sum(rest**0.75), (1,))


LOSSES = {
    "class": class_loss, "cross-entropy": cross_entropy, "dice": class_dice_loss,
    "jaccard": jaccard_loss, "focal-tversky": focal_tversky_loss,
}
