"""Size of a U-Net by arithmetic, without building it: sizes, parameters and memory, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import pandas as pd

_FLOAT = 4  # bytes of a float32


def check_sizes(
    input_size: Sequence[int], *, halvings: int = 0, axes: Sequence[str] = ("rows", "columns"), **numbers: int
) -> None:
    """Refuse what a network cannot be built for, before Keras fails deep inside.

    Parameters
    ----------
    input_size : sequence of int
        One size for each of ``axes``, and the channels.
    halvings : int
        How often each axis is halved.
    axes : sequence of str
    **numbers : int
        Of filters, levels and the like.

    Raises
    ------
    ValueError
        If there are fewer or more sizes, anything is no whole number of at least 1, or a size cannot be halved
        so often; the message names sizes near it that can.
    """
    names = (*axes, "channels")
    if len(input_size) != len(names):
        raise ValueError(f"input_size must be ({', '.join(names)}), got {input_size}")
    sizes = dict(zip(names, input_size))
    for name, value in {**sizes, **numbers}.items():
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    step = 2**halvings
    for name in axes:
        if sizes[name] % step:
            below = sizes[name] // step * step
            near = f"{below} or {below + step}" if below else f"{step}"
            raise ValueError(
                f"{sizes[name]} {name} cannot be halved {halvings} times: use {near}, or a smaller depth"
            )


def unet_levels(image_size: int = 256, *, filters: int = 64, depth: int = 4, channels: int = 3) -> pd.DataFrame:
    """What :func:`lits_helpers.model.unet` holds at each level, for one slice.

    Parameters
    ----------
    image_size : int
        Rows and columns of the slice, divisible by ``2**depth``.
    filters, depth, channels : int
        As for ``unet``.

    Returns
    -------
    DataFrame, one row a level, from the slice's size down to the bottom
        ``level`` (0 is the slice's own), ``size`` (rows and columns), ``filters``, ``encoder`` and
        ``decoder`` (parameters on the way down and up; the bottom has no decoder; running averages of
        batch normalisation are counted, as Keras does, and the last 1x1 convolution belongs to the
        decoder of level 0), ``fixed`` (those of them that are not trained), ``values`` (numbers in the
        results of all layers, the slice included, for one slice).

    Raises
    ------
    ValueError
        As :func:`check_sizes`.
    """
    check_sizes((image_size, image_size, channels), halvings=depth, filters=filters, depth=depth)
    rows = []
    for level in range(depth + 1):
        size, width = image_size // 2**level, filters * 2**level
        before = channels if level == 0 else width // 2
        encoder, decoder, layers = _block(before, width), 0, 5 * width
        if level < depth:
            # Up: 2x2 transposed convolution from twice the channels, and a block that reads both halves.
            decoder = 2 * 2 * (2 * width) * width + width + _block(2 * width, width)
            layers += width + 2 * width + 5 * width
        if level == 0:
            decoder += width + 1
            layers += channels + 1
        if level > 0:
            layers += width // 2  # what max pooling hands down
        rows.append({
            "level": level, "size": size, "filters": width, "encoder": encoder, "decoder": decoder,
            "fixed": 2 * width * (2 if level < depth else 1), "values": layers * size**2,
        })
    return pd.DataFrame(rows)


def _block(before: int, width: int) -> int:
    """Parameters of two 3x3 convolutions with bias, and of one batch normalisation (four a channel)."""
    return (9 * before + 1) * width + (9 * width + 1) * width + 4 * width


def unet_memory(levels: pd.DataFrame, *, batch_size: int) -> dict[str, float]:
    """Memory of a U-Net in float32, in MB of 10**6 bytes; an estimate for training.

    Parameters
    ----------
    levels : DataFrame
        Of :func:`unet_levels`.
    batch_size : int

    Returns
    -------
    dict
        ``weights``: the parameters, which is also about the size of a file of weights. ``training``:
        weights, gradients and Adam's two averages, and the results of all layers for a batch, which
        are kept for the way back. Frameworks hold fewer results (an activation in place) or more
        (room to work in), and half of it in 16 bits.
    """
    parameters = int(levels.encoder.sum() + levels.decoder.sum())
    trained = parameters - int(levels.fixed.sum())
    weights = parameters * _FLOAT
    training = weights + 3 * trained * _FLOAT + batch_size * int(levels["values"].sum()) * _FLOAT
    return {"weights": weights / 1e6, "training": training / 1e6}
