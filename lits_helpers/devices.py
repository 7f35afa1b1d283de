"""What a machine trains on: its precision, its GPUs side by side, and batches that do not fit its memory.

Several machines are not supported, because nothing that works was found to build on (Keras 3.15,
TensorFlow 2.21, seen in their sources): ``fit`` under ``MultiWorkerMirroredStrategy`` fails, and
Keras's author confirms that it does not work with Keras 3 (keras issue 20585, open). The
``keras.distribution`` API is for Keras's JAX backend; its TensorFlow part is a prototype that begins
with "DO NOT USE" and lacks ``initialize``. This package's pipeline and training step are
TensorFlow's. Several runs (seeds, folds) can be dealt to several machines; one run stays on one.
"""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf


def precision_policy() -> tuple[str, str]:
    """The Keras dtype policy that this machine gains from, and why.

    Returns
    -------
    policy, reason : str
        ``mixed_bfloat16`` on GPUs from compute capability 8 and CPUs with bfloat16 arithmetic,
        ``mixed_float16`` on GPUs of capability 7 (a T4), else ``float32``.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        words = f"GPU of compute capability {capability[0]}.{capability[1]}"
        if capability >= (8, 0):
            return "mixed_bfloat16", f"{words} has bfloat16 units"
        if capability >= (7, 0):
            return "mixed_float16", f"{words} has float16 units; losses are scaled"
        return "float32", f"{words} has no 16-bit units"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        flags = ""
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return "mixed_bfloat16", "CPU with bfloat16 instructions"
    return "float32", "CPU without bfloat16 instructions"


def strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine side by side, where there are several.

    Each takes its part of every batch. A step is then that of one GPU whose batch
    :func:`train_in_parts` cuts into as many parts, and differs from one on the whole batch in the
    two ways described there: batch normalisation and Dice see a part. (The running averages
    follow the mean over the GPUs, so validation differs a little from that of parts as well.)
    Tried on two logical CPU devices, not on GPUs.
    """
    several = len(tf.config.list_physical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


def train_in_parts(model: keras.Model, parts: int) -> None:
    """Let a compiled network take each batch in parts, one after the other: less memory, same steps.

    Gradients are summed over the parts and applied once, so the batch, the number of steps and
    the learning rate at each stay what they were. Losses count by the part's share of slices,
    which leaves cross-entropy as it was. Two things change, so a run in parts ends near the other
    and not at it: batch normalisation takes each part's mean and variance, and updates its
    running averages once a part; Dice in the loss is the mean of the parts' Dice, not that of the
    batch, so a part without tumour counts as much as one full of it. Metrics and validation are of
    whole batches, as before.

    Keras's own ``gradient_accumulation_steps`` does not do here: it counts steps across the
    end of an epoch, so a checkpoint would hold half a batch; it weighs a short batch like a whole
    one; and it changes the optimizer's variables, so a run could not go on with another number.

    Parameters
    ----------
    model : keras.Model
        Compiled with a loss, changed in place; the change is not saved with it. XLA is switched
        off, because it may run the parts side by side.
    parts : int
        At least 1, which is the usual step in a longer way.
    """

    def cut(*tensors: tf.Tensor) -> list[tuple[tf.Tensor, ...]]:
        """Per part its slices, and its share of them. A part that would be empty gets a slice, and weight 0."""
        slices = tf.shape(tensors[0])[0]
        size = -(-slices // parts)
        bounds = [(tf.minimum(i * size, slices - 1), tf.minimum((i + 1) * size, slices)) for i in range(parts)]
        shares = [
            tf.cast(tf.maximum(stop - i * size, 0), tf.float32) / tf.cast(slices, tf.float32)
            for i, (_, stop) in enumerate(bounds)
        ]
        return [
            (share, *(tensor[start:stop] for tensor in tensors))
            for share, (start, stop) in zip(shares, bounds, strict=True)
        ]

    def results(x: tf.Tensor, y: tf.Tensor, predicted: tf.Tensor, loss: tf.Tensor) -> dict:
        replicas = tf.distribute.get_strategy().num_replicas_in_sync  # Keras divided the loss by it
        tracker = next(metric for metric in model.metrics if metric.name == "loss")
        tracker.update_state(loss * replicas, sample_weight=tf.shape(x)[0])
        return model.compute_metrics(x, y, predicted)

    def train_step(data: tuple) -> dict:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        sums, loss, predictions = None, 0.0, []
        for share, images, truth in cut(x, y):
            with tf.control_dependencies(sums or []):  # not before the part in front is done with
                images = tf.identity(images)
            with tf.GradientTape() as tape:
                predictions.append(model(images, training=True))
                part = share * model.compute_loss(images, truth, predictions[-1], training=True)
                scaled = model.optimizer.scale_loss(part)
            gradients = tape.gradient(scaled, model.trainable_weights)
            sums = gradients if sums is None else [a + b for a, b in zip(sums, gradients, strict=True)]
            loss += part
        model.optimizer.apply_gradients(zip(sums, model.trainable_weights, strict=True))
        return results(x, y, tf.concat(predictions, axis=0)[: tf.shape(x)[0]], loss)

    def test_step(data: tuple) -> dict:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        predictions = []
        for _, images in cut(x):
            with tf.control_dependencies(predictions[-1:]):
                predictions.append(model(tf.identity(images), training=False))
        predicted = tf.concat(predictions, axis=0)[: tf.shape(x)[0]]
        return results(x, y, predicted, model.compute_loss(x, y, predicted, training=False))

    model.jit_compile = False
    model.train_step, model.test_step = train_step, test_step
