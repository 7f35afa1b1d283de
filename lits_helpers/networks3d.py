"""Networks on volumes: a 3D U-Net, and a fractal residual classifier of 3D patches.

Both are of built-in layers alone, so that their ``.keras`` files load without running code. The U-Net
normalises groups of channels (Wu and He, "Group Normalization", ECCV 2018), as a batch is a volume or
two; the classifier normalises batches, as it sees many patches at once, and what tells one from
another may be its brightness alone.

The shape comments at the line ends are those of the defaults. Read them downwards.
"""

from __future__ import annotations

import math

import keras
from keras import layers

from .model import prior_bias
from .model_size import check_sizes

AXES = ("slices", "rows", "columns")
# Of batch normalisation's running averages: Keras's 0.99 is still far off after a few hundred steps.
MOMENTUM = 0.9


def unet3d(
    input_size: tuple[int, int, int, int] = (32, 64, 64, 3),
    *,
    filters: int = 8,
    depth: int = 3,
    prior: float = 0.5,
) -> keras.Model:
    """Build a 3D U-Net for one structure, such as the liver.

    The defaults are small, for two CPU cores: 351,241 parameters. Çiçek's network has three poolings
    too, but starts with 32 filters: ``unet3d((64, 128, 128, 3), filters=32)``, 5.6 million parameters,
    is about what a GPU of 16 GB trains in batches of one or two (our estimate, not measured). It
    departs from Çiçek's in that convolutions are padded, both of a block have equally many filters,
    up-sampling keeps no more channels than the level has, and groups are normalised, not batches.

    Parameters
    ----------
    input_size : (slices, rows, columns, channels)
        The first three must divide by ``2**depth``.
    filters : int
        Channels of the first level; each level below has twice as many.
    depth : int
        Number of poolings, and of up-samplings, each by 2 in all three directions.
    prior : float
        Probability that the untrained network gives every voxel, as :func:`lits_helpers.model.unet`.

    Returns
    -------
    keras.Model
        Named ``"unet3d"``, not compiled. Takes float (batch, slices, rows, columns, channels) in
        [0, 1]; gives float32 (batch, slices, rows, columns, 1), probabilities in [0, 1].

    Raises
    ------
    ValueError
        If a size does not divide, or a number is not a whole one of at least 1.

    References
    ----------
    Çiçek et al., "3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation", MICCAI 2016.
    """
    check_sizes(input_size, halvings=depth, axes=AXES, filters=filters, depth=depth)

    def block(x: keras.KerasTensor, level: int) -> keras.KerasTensor:
        width = filters * 2**level
        for _ in range(2):
            x = layers.Conv3D(width, 3, padding="same", use_bias=False)(x)
            x = layers.GroupNormalization(groups=math.gcd(width, 8))(x)
            x = layers.Activation("relu")(x)
        return x

    inputs = keras.Input(input_size)  # (32, 64, 64, 3)
    x, skips = inputs, []
    for level in range(depth):
        x = block(x, level)  # (32, 64, 64, 8), (16, 32, 32, 16), (8, 16, 16, 32)
        skips.append(x)
        x = layers.MaxPooling3D(2)(x)  # (16, 32, 32, 8), (8, 16, 16, 16), (4, 8, 8, 32)
    x = block(x, depth)  # (4, 8, 8, 64)
    for level in reversed(range(depth)):
        x = layers.Conv3DTranspose(filters * 2**level, 2, strides=2)(x)  # (8, 16, 16, 32) ...
        x = layers.Concatenate()([x, skips[level]])  # twice as many channels
        x = block(x, level)  # (8, 16, 16, 32), (16, 32, 32, 16), (32, 64, 64, 8)
    outputs = layers.Conv3D(
        1, 1, activation="sigmoid", dtype="float32",
        bias_initializer=keras.initializers.Constant(prior_bias(prior)),
    )(x)  # (32, 64, 64, 1)
    return keras.Model(inputs, outputs, name="unet3d")


def fractal(x: keras.KerasTensor, filters: int, columns: int) -> keras.KerasTensor:
    """A fractal of convolutions: one column is a convolution, ``c + 1`` two fractals of ``c`` in a row
    beside a convolution, joined by their mean.

    The longest path has ``2**(columns - 1)`` convolutions, the shortest one; all together there are
    ``2**columns - 1``.

    References
    ----------
    Larsson, Maire, Shakhnarovich, "FractalNet: Ultra-Deep Neural Networks without Residuals",
    ICLR 2017, section 3. Its drop-path is left out.
    """
    short = layers.Conv3D(filters, 3, padding="same", use_bias=False)(x)
    short = layers.BatchNormalization(momentum=MOMENTUM)(short)
    short = layers.Activation("relu")(short)
    if columns == 1:
        return short
    deep = fractal(fractal(x, filters, columns - 1), filters, columns - 1)
    return layers.Average()([deep, short])


def fractal_residual_classifier(
    input_size: tuple[int, int, int, int] = (8, 24, 24, 4),
    *,
    filters: int = 8,
    fractal_columns: int = 2,
    blocks: int = 3,
) -> keras.Model:
    """Build a classifier of patches: fractal blocks with shortcuts, and an answer after each of them.

    After every block but the last an auxiliary output answers from what was found so far, which takes
    gradients to the first blocks by a short way; it is for training alone.

    After the idea of Bai's 3D fractal residual network, not its plan: of the paper we could read the
    abstract alone, so blocks, widths and places of the outputs are ours. With ``filters=32,
    fractal_columns=3, blocks=4`` it has 13.0 million parameters and wants a GPU; the defaults have 74,091.

    Parameters
    ----------
    input_size : (slices, rows, columns, channels)
        Of a patch. Halved between blocks, rounded up.
    filters : int
        Channels of the first block; each block after it has twice as many.
    fractal_columns : int
        Of each :func:`fractal`.
    blocks : int

    Returns
    -------
    keras.Model
        Named ``"fractal_residual_classifier"``, not compiled. Takes float (batch, slices, rows,
        columns, channels) in [0, 1]; gives a dict of float32 (batch, 1), probabilities in [0, 1]:
        ``"candidate"``, and ``"auxiliary_1"`` up to the number of blocks less one.

    Raises
    ------
    ValueError
        If a number is not a whole one of at least 1.

    References
    ----------
    Bai, Jiang, Li, Yao, "Liver Tumor Segmentation Based on Multi-Scale Candidate Generation and
    Fractal Residual Network", IEEE Access 7 (2019), doi 10.1109/ACCESS.2019.2923218. He et al., "Deep
    Residual Learning for Image Recognition", CVPR 2016. Auxiliary outputs: Szegedy et al., "Going
    Deeper with Convolutions", CVPR 2015.
    """
    check_sizes(input_size, axes=AXES, filters=filters, fractal_columns=fractal_columns, blocks=blocks)
    inputs = keras.Input(input_size)  # (8, 24, 24, 4)
    x, outputs = inputs, {}
    for number in range(1, blocks + 1):
        if number > 1:
            x = layers.MaxPooling3D(2, padding="same")(x)  # (4, 12, 12, 8), (2, 6, 6, 16)
        width = filters * 2 ** (number - 1)
        shortcut = layers.Conv3D(width, 1)(x)  # x itself has fewer channels
        x = layers.Add()([fractal(x, width, fractal_columns), shortcut])
        # (8, 24, 24, 8), (4, 12, 12, 16), (2, 6, 6, 32)
        name = "candidate" if number == blocks else f"auxiliary_{number}"
        # How much of a feature there is in the patch, and whether it is anywhere.
        pooled = layers.Concatenate()([layers.GlobalAveragePooling3D()(x), layers.GlobalMaxPooling3D()(x)])
        # (16), (32), (64)
        outputs[name] = layers.Dense(1, activation="sigmoid", dtype="float32", name=name)(pooled)  # (1)
    return keras.Model(inputs, outputs, name="fractal_residual_classifier")
