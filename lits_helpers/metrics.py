"""Losses and metrics for training: the report's formulas, and the pooled scores beside them.

Two kinds of Dice live here, and they answer different questions. :func:`dice_coef` is the
report's: probabilities, smoothed, over one batch. Keras averages it over batches, so its value
depends on the batch size. :class:`PooledDice` counts pixels of thresholded masks over all batches
and divides once, so it does not. For the scores of a finished model see :mod:`lits_helpers.scoring`.

Everything is registered under ``lits_helpers``, so that a ``.keras`` file saved with it loads
again after ``import lits_helpers.metrics``.
"""

from __future__ import annotations

import keras
from keras import ops

from .masks import THRESHOLD

# The report adds 1 to both sides of each quotient, so that an empty batch divides 1 by 1.
SMOOTH = 1.0

registered = keras.saving.register_keras_serializable(package="lits_helpers")


def _flattened(values: keras.KerasTensor) -> keras.KerasTensor:
    """All values of a batch in one row, as float32.

    A 256x256 slice has 65,536 pixels: float16 ends at 65,504, and bfloat16 has no odd number
    above 256. So sums are never left to the dtype that mixed precision hands over.
    """
    return ops.reshape(ops.cast(values, "float32"), (-1,))


@registered
def dice_coef(truth: keras.KerasTensor, predicted: keras.KerasTensor) -> keras.KerasTensor:
    """The report's Dice coefficient of one batch, smoothed and differentiable.

    ``(2 * sum(t * p) + 1) / (sum(t) + sum(p) + 1)``. The added 1 makes it 1 where truth and
    prediction are both empty, and lifts the score of small tumours.

    Parameters
    ----------
    truth : tensor, any shape
        0 or 1.
    predicted : tensor, as many values
        Probabilities in [0, 1].

    Returns
    -------
    float32 scalar
        In (0, 1]. A binary prediction equal to the truth scores 1. As a Keras metric it is the
        mean over batches: depends on the batch size, and is not the Dice of the data set.

    References
    ----------
    "Liver Tumor Segmentation using U-Net" (2023), section 4.3. Milletari, Navab, Ahmadi,
    "V-Net", 3DV 2016, for Dice as a loss.
    """
    truth, predicted = _flattened(truth), _flattened(predicted)
    intersection = ops.sum(truth * predicted)
    return (2 * intersection + SMOOTH) / (ops.sum(truth) + ops.sum(predicted) + SMOOTH)


@registered
def iou(truth: keras.KerasTensor, predicted: keras.KerasTensor) -> keras.KerasTensor:
    """The report's intersection over union of one batch, smoothed.

    ``(sum(t * p) + 1) / (sum(t) + sum(p) - sum(t * p) + 1)``; parameters, range and caution as in
    :func:`dice_coef`.
    """
    truth, predicted = _flattened(truth), _flattened(predicted)
    intersection = ops.sum(truth * predicted)
    union = ops.sum(truth) + ops.sum(predicted) - intersection
    return (intersection + SMOOTH) / (union + SMOOTH)


@registered
def dice_loss(truth: keras.KerasTensor, predicted: keras.KerasTensor) -> keras.KerasTensor:
    """``1 - dice_coef``: float32 scalar in [0, 1), 0 for a perfect binary prediction."""
    return 1 - dice_coef(truth, predicted)


@registered
def bce_dice_loss(truth: keras.KerasTensor, predicted: keras.KerasTensor) -> keras.KerasTensor:
    """The report's training loss: mean binary cross-entropy plus :func:`dice_loss`.

    Cross-entropy gives every pixel a gradient from the first step on; Dice counters that almost
    all pixels are background.

    Parameters
    ----------
    truth : tensor, any shape
        0 or 1.
    predicted : tensor, as many values
        Probabilities in [0, 1].

    Returns
    -------
    float32 tensor (1,)
        0 or larger, natural logarithm.
    """
    truth, predicted = _flattened(truth), _flattened(predicted)
    # The report passes from_logits=True, but its network ends in a sigmoid: that squeezes a
    # probability through a second sigmoid, into [0.5, 0.73], and background never costs less
    # than log 2. These are probabilities.
    cross_entropy = keras.losses.binary_crossentropy(truth, predicted, from_logits=False)
    # Not a scalar: Keras leaves scalars out when it divides losses among the devices of a
    # MirroredStrategy, so that two GPUs would report and follow twice the loss.
    return ops.reshape(cross_entropy + dice_loss(truth, predicted), (1,))


class _PooledOverlap(keras.metrics.Metric):
    """Pixel counts of truth, prediction and their intersection, over all batches since a reset.

    Parameters
    ----------
    threshold : float
        Probabilities strictly above it count as tumour; truth counts above 0.5.
    name : str
        Key in the training history.
    dtype : str or None
        Of the result; None is Keras's default, float32.
    """

    def __init__(self, threshold: float, name: str | None, dtype: str | None):
        super().__init__(name=name, dtype=dtype)
        self.threshold = threshold
        # Counts, so integers: a float32 sum ignores single pixels from 2**24 on (256 full slices of
        # 256x256), and int32 ends at 2**31, which is half of LiTS. int64 is exact, and TensorFlow
        # adds it on the GPU, where int32 would be sent back to the host.
        self.truth_pixels = self._counter("truth_pixels")
        self.predicted_pixels = self._counter("predicted_pixels")
        self.intersection = self._counter("intersection")

    def _counter(self, name: str) -> keras.Variable:
        return self.add_variable(shape=(), initializer="zeros", dtype="int64", name=name)

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Add one batch.

        Parameters
        ----------
        y_true, y_pred : tensor, any shape, as many values each
            0 or 1; probabilities in [0, 1].

        Raises
        ------
        ValueError
            If given weights: a weighted pixel is no count.
        """
        if sample_weight is not None:
            raise ValueError(f"{self.name} counts pixels: pass it in metrics, not weighted_metrics")
        truth = _flattened(y_true) > 0.5
        predicted = _flattened(y_pred) > self.threshold
        for counter, pixels in (
            (self.truth_pixels, truth),
            (self.predicted_pixels, predicted),
            (self.intersection, ops.logical_and(truth, predicted)),
        ):
            counter.assign_add(ops.sum(ops.cast(pixels, "int64")))

    def _quotient(self, numerator: keras.KerasTensor, denominator: keras.KerasTensor):
        return ops.divide_no_nan(ops.cast(numerator, self.dtype), ops.cast(denominator, self.dtype))

    def get_config(self) -> dict:
        return {**super().get_config(), "threshold": self.threshold}


@registered
class PooledDice(_PooledOverlap):
    """Dice of the thresholded masks, pooled over all pixels seen: independent of the batch size.

    ``2 * |T and P| / (|T| + |P|)``, without smoothing.

    Nothing in the truth and nothing predicted in any batch: Dice is undefined, and this shows 0.
    Not NaN, because ``ModelCheckpoint`` keeps a first NaN as its best for ever; not 1, because
    then predicting nothing on data without tumour would be kept as the best model.
    :mod:`lits_helpers.scoring` gives NaN there and counts it.

    Parameters are ``threshold`` (0.30, the report's), ``name`` and ``dtype``.
    """

    def __init__(
        self, threshold: float = THRESHOLD, *, name: str = "pooled_dice", dtype: str | None = None
    ):
        super().__init__(threshold, name, dtype)

    def result(self) -> keras.KerasTensor:
        """The score so far: scalar in [0, 1]."""
        return self._quotient(2 * self.intersection, self.truth_pixels + self.predicted_pixels)


@registered
class PooledIoU(_PooledOverlap):
    """Intersection over union of the thresholded masks, pooled over all pixels seen.

    ``|T and P| / |T or P|``, without smoothing; both empty and parameters as in
    :class:`PooledDice`.
    """

    def __init__(
        self, threshold: float = THRESHOLD, *, name: str = "pooled_iou", dtype: str | None = None
    ):
        super().__init__(threshold, name, dtype)

    def result(self) -> keras.KerasTensor:
        """The score so far: scalar in [0, 1]."""
        union = self.truth_pixels + self.predicted_pixels - self.intersection
        return self._quotient(self.intersection, union)


@registered
class TumourDice(PooledDice):
    """:class:`PooledDice` of the last channel, the tumour's, of several classes."""

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """As :class:`PooledDice` does; tensors (batch, rows, columns, classes)."""
        super().update_state(y_true[..., -1], y_pred[..., -1], sample_weight)
