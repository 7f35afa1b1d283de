"""The report's U-Net, whole and in one place.

The shape comments at the line ends are those of the defaults: a 256x256x3 slice, 64 filters,
depth 4. Read them downwards to follow a slice through the network.
"""

from __future__ import annotations

import math

import keras
from keras import layers

from .model_size import check_sizes
from .normalisation import BatchNormalization


def convolution_block(
    x: keras.KerasTensor, filters: int, momentum: float
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Two 3x3 convolutions, the second one normalised.

    Parameters
    ----------
    x : tensor (batch, rows, columns, channels)
    filters : int
        Channels of both results.
    momentum : float
        Of the running averages that batch normalisation uses in prediction.

    Returns
    -------
    output : tensor (batch, rows, columns, filters)
        After batch normalisation and ReLU: what the next level reads. 0 or larger.
    skip : tensor (batch, rows, columns, filters)
        The second convolution's result before normalisation: what the decoder reads. Any sign.
    """
    x = layers.Conv2D(filters, 3, padding="same")(x)
    x = layers.Activation("relu")(x)
    skip = layers.Conv2D(filters, 3, padding="same")(x)
    # Gamma, beta and the two running averages are per channel: axis 3 of (batch, row, column, channel).
    output = BatchNormalization(axis=3, momentum=momentum)(skip)
    output = layers.Activation("relu")(output)
    return output, skip


def unet(
    input_size: tuple[int, int, int] = (256, 256, 3),
    *,
    filters: int = 64,
    depth: int = 4,
    momentum: float = 0.99,
    prior: float = 0.5,
) -> keras.Model:
    """Build the report's U-Net; the defaults give its graph exactly.

    It departs from Ronneberger's network in three ways, all kept here: convolutions are padded,
    so the mask has the size of the slice; each block normalises once, after its second
    convolution; and a skip connection carries that convolution's result from *before*
    normalisation and ReLU. The report's text speaks of five up-sampling blocks; there are four.

    Parameters
    ----------
    input_size : (rows, columns, channels)
        Of one slice. Rows and columns need not be equal, but each must divide by ``2**depth``,
        because every level halves them and the decoder must meet the same sizes on the way up.
    filters : int
        Channels of the first level; each level below has twice as many.
    depth : int
        Number of poolings, and of up-samplings.
    momentum : float
        Of batch normalisation's running averages: they remember about ``1 / (1 - momentum)``
        steps. Keras's 0.99 suits the report's thousands of steps; a run of a few hundred ends
        before such averages have caught up with the weights, so it wants 0.9.
    prior : float
        Probability that the untrained network gives every pixel, by the bias of its last layer.
        0.5 is Keras's start; one near the share of tumour saves the steps in which a network
        only learns that most pixels are background (Lin et al. 2017, section 3.3).

    Returns
    -------
    keras.Model
        Named ``"unet"``, not compiled. Takes float (batch, rows, columns, channels), scaled to
        [0, 1]; gives float32 (batch, rows, columns, 1), the probability of tumour in [0, 1],
        in float32 under mixed precision too. 31,043,521 parameters with the defaults.

    Raises
    ------
    ValueError
        If a size does not divide by ``2**depth`` (the message says which sizes near it do), or
        if channels, ``filters`` or ``depth`` is not a whole number of at least 1, or ``prior`` not
        between 0 and 1.

    References
    ----------
    Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image
    Segmentation", MICCAI 2015. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. "Liver Tumor Segmentation using U-Net" (2023), section 4.3.
    """
    check_sizes(input_size, halvings=depth, filters=filters, depth=depth)
    inputs = keras.Input(input_size)  # (256, 256, 3)

    x, skips = inputs, []
    for level in range(depth):
        x, skip = convolution_block(x, filters * 2**level, momentum)
        # (256, 256, 64), (128, 128, 128), (64, 64, 256), (32, 32, 512)
        skips.append(skip)  # The report's quirk: not x, which is normalised and cut at 0.
        x = layers.MaxPooling2D(2)(x)
        # (128, 128, 64), (64, 64, 128), (32, 32, 256), (16, 16, 512)

    x, _ = convolution_block(x, filters * 2**depth, momentum)  # (16, 16, 1024)

    for level in reversed(range(depth)):
        x = layers.Conv2DTranspose(filters * 2**level, 2, strides=2, padding="same")(x)
        # (32, 32, 512), (64, 64, 256), (128, 128, 128), (256, 256, 64)
        x = layers.Concatenate(axis=3)([x, skips[level]])  # twice as many channels
        x, _ = convolution_block(x, filters * 2**level, momentum)  # half as many again

    # Probabilities near 0 and 1, and the sums in Dice, need more digits than 16 bits hold.
    outputs = layers.Conv2D(
        1, 1, activation="sigmoid", dtype="float32",
        bias_initializer=keras.initializers.Constant(prior_bias(prior)),
    )(x)  # (256, 256, 1)
    return keras.Model(inputs, outputs, name="unet")


def prior_bias(prior: float) -> float:
    """The bias with which a sigmoid of nothing gives ``prior``; ValueError unless that is between 0 and 1."""
    if not 0 < prior < 1:
        raise ValueError(f"prior is a probability between 0 and 1, got {prior}")
    return math.log(prior / (1 - prior))
