"""Batch normalisation in one operation: Keras's numbers and weights, in less time."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="lits_helpers")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalisation of (batch, rows, columns, channels), by TensorFlow's operation for it.

    Keras's own goes over the pixels once for each step of the formula. On a CPU that took a fifth of a
    training step of the strong recipe's second network, and a fifteenth of one of the report's U-Net.

    Raises
    ------
    ValueError
        If ``axis`` is not the last one of four.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 4 or self.axis not in (-1, 3):
            raise ValueError(f"channels come last of four axes: got shape {input_shape}, axis {self.axis}")
        super().build(input_shape)

    def call(self, inputs: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        training = bool(training and self.trainable)
        known = {} if training else dict(mean=self.moving_mean.value, variance=self.moving_variance.value)
        found, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma.value, self.beta.value, epsilon=self.epsilon, is_training=training, **known
        )
        if training:
            pixels = tf.cast(tf.size(inputs) / inputs.shape[-1], tf.float32)
            variance *= (pixels - 1) / pixels  # the operation's is of a sample, Keras's that of these pixels
            for remembered, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
                remembered.assign(self.momentum * remembered + (1 - self.momentum) * new)
        return found
