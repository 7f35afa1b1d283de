"""Parts that segmentation networks are built from, in two dimensions: blocks, norms, gates, stems, heads.

:func:`segmenter` puts them together. The report's own U-Net stays whole in :mod:`lits_helpers.model`;
what is here goes past it, and the surveyed systems are choices among these parts.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from .metrics import registered
from .model import prior_bias
from .model_size import check_sizes
from .normalisation import BatchNormalization

NORMS = ("batch", "group", "instance", "none")
BLOCKS = ("plain", "residual")


def normalised(x: keras.KerasTensor, norm: str) -> keras.KerasTensor:
    """Normalise: over the ``"batch"``, in ``"group"``s of channels of one slice, each channel of one
    slice by itself (``"instance"``), or ``"none"``.

    Batch normalisation's running averages remember about ten steps (momentum 0.9), for runs of
    hundreds of steps. There are eight groups, or as many as divide both eight and the channels.
    """
    if norm == "batch":
        return BatchNormalization(momentum=0.9)(x)
    if norm == "group":
        return layers.GroupNormalization(int(np.gcd(8, x.shape[-1])))(x)
    if norm == "instance":
        return layers.GroupNormalization(-1)(x)
    if norm == "none":
        return x
    raise ValueError(f"norm is {norm!r}: choose from {NORMS}")


def convolved(x: keras.KerasTensor, filters: int, *, norm: str, activate: bool = True) -> keras.KerasTensor:
    """A 3x3 convolution, normalised, and a leaky ReLU unless told not to.

    Leaky (0.01, as nnU-Net has it), because in short runs at high rates ReLUs died until tumours were
    whatever the last layer had no feature for.
    """
    x = layers.Conv2D(filters, 3, padding="same", use_bias=norm == "none", kernel_initializer="he_normal")(x)
    x = normalised(x, norm)
    return layers.LeakyReLU(0.01)(x) if activate else x


def block(x: keras.KerasTensor, filters: int, *, kind: str, norm: str) -> keras.KerasTensor:
    """Two convolutions; ``"residual"`` adds what came in before the last activation (He et al. 2016).

    Where the channels differ, a 1x1 convolution brings what came in to ``filters``.
    """
    if kind not in BLOCKS:
        raise ValueError(f"block is {kind!r}: choose from {BLOCKS}")
    found = convolved(convolved(x, filters, norm=norm), filters, norm=norm, activate=False)
    if kind == "residual":
        if x.shape[-1] != filters:
            x = layers.Conv2D(filters, 1)(x)
        found = layers.Add()([found, x])
    return layers.LeakyReLU(0.01)(found)


def attended(skip: keras.KerasTensor, gate: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """A skip connection weighed pixel by pixel by what the level below makes of it, in [0, 1].

    The additive gate of Oktay et al., "Attention U-Net", MIDL 2018, with the gate already at the
    skip's resolution, so that nothing is resampled.

    Parameters
    ----------
    skip, gate : tensors (batch, rows, columns, any channels)
    filters : int
        Channels in which the two are compared.
    """
    compared = layers.Add()([layers.Conv2D(filters, 1)(skip), layers.Conv2D(filters, 1)(gate)])
    weight = layers.Conv2D(1, 1, activation="sigmoid")(layers.Activation("relu")(compared))
    return layers.Multiply()([skip, weight])


@registered
class NestedClasses(layers.Layer):
    """Two logits, of liver (tumours included) and of tumour where there is liver, as three classes.

    ``P(background) = 1 - P(liver)``, ``P(tumour) = P(liver) P(tumour | liver)``, and healthy liver the
    rest. Cross-entropy then asks for tumour or not inside livers alone, as in a cascade. A softmax
    would let the three compete, and a lesion, as dark as much outside the liver, went to background:
    on real slices the network cut most lesions out of the liver without calling them tumour.
    """

    def call(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        """(batch, rows, columns, 2), any range, to (batch, rows, columns, 3), adding up to 1."""
        liver, tumour = ops.split(ops.sigmoid(logits), 2, axis=-1)
        return ops.concatenate([1 - liver, liver * (1 - tumour), liver * tumour], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], 3)


def segmenter(
    input_size: tuple[int, int, int],
    *,
    classes: int = 3,
    filters: int = 32,
    depth: int = 3,
    stem: int = 2,
    block_kind: str = "plain",
    norm: str = "batch",
    attention: bool = False,
    deep_supervision: bool = False,
    prior: float | None = None,
) -> keras.Model:
    """A U-Net of chosen parts.

    Parameters
    ----------
    input_size : (rows, columns, channels)
    classes : int
        3: background, liver, tumour (:class:`NestedClasses`). 1: one by a sigmoid. The last channel is
        the one looked for.
    filters, depth : int
        Channels of the first level, twice as many at each below; poolings.
    stem : int
        2: the first convolution halves rows and columns and the last layer doubles them, so that all
        levels work on a quarter of the pixels: the same time buys twice the filters. 1: at full size.
    block_kind, norm
        Of :func:`block`.
    attention : bool
        Gate the skip connections (:func:`attended`).
    deep_supervision : bool
        Each decoder level has a head, enlarged to the slice, and the last function takes their mean,
        so that coarse levels learn from the loss directly (Lee et al., "Deeply-supervised nets",
        AISTATS 2015). Lee gives each level a loss of its own; one output out of several levels is
        from Kayalibay et al., arXiv:1701.03056, who add where this averages.
    prior : float, optional
        Probability that an untrained network gives every pixel if ``classes`` is 1, as in
        :func:`lits_helpers.model.unet`. Without effect on several classes.

    Returns
    -------
    keras.Model
        Takes float (batch, rows, columns, channels); gives float32 probabilities
        (batch, rows, columns, classes), in float32 under mixed precision too.

    Raises
    ------
    ValueError
        If a size cannot be halved as often as it has to be, a choice is unknown, or ``prior`` not
        between 0 and 1.
    """
    if classes not in (1, 3):
        raise ValueError(f"classes is {classes}: 1 or 3")
    if stem not in (1, 2):
        raise ValueError(f"stem is {stem}: 1 keeps the resolution, 2 halves it")
    check_sizes(input_size, halvings=depth + stem - 1, filters=filters, depth=depth)
    parts = dict(kind=block_kind, norm=norm)
    bias = 0.0 if prior is None or classes > 1 else prior_bias(prior)
    head = dict(bias_initializer=keras.initializers.Constant(bias), dtype="float32")

    x = inputs = keras.Input(input_size)
    if stem == 2:
        x = layers.Conv2D(filters, 4, strides=2, padding="same", use_bias=norm == "none")(x)
        x = layers.LeakyReLU(0.01)(normalised(x, norm))
    logits = 2 if classes == 3 else classes
    skips = []
    for level in range(depth):
        x = block(x, filters * 2**level, **parts)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = block(x, filters * 2**depth, **parts)
    found = []
    for level in reversed(range(depth)):
        x = layers.Conv2DTranspose(filters * 2**level, 2, strides=2)(x)
        skip = attended(skips[level], x, filters * 2**level) if attention else skips[level]
        x = block(layers.Concatenate()([x, skip]), filters * 2**level, **parts)
        if deep_supervision and level:
            coarse = layers.Conv2D(logits, 1, **head)(x)
            found.append(layers.UpSampling2D(2**level * stem, interpolation="bilinear", dtype="float32")(coarse))
    if stem == 2:
        x = layers.Conv2DTranspose(logits, 2, strides=2, **head)(x)
    else:
        x = layers.Conv2D(logits, 1, **head)(x)
    if found:
        x = layers.Average(dtype="float32")([x, *found])
    outputs = NestedClasses(dtype="float32")(x) if classes == 3 else layers.Activation("sigmoid", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="segmenter")
