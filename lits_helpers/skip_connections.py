"""What the skip connections of a U-Net carry, and what they are worth to it.

For the networks of :mod:`lits_helpers.explanation`, of a fixed input size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from .effects import stage_scores, step_summary
from .explanation import copied_network, scaled_images
from .files import DataError
from .generators import SliceCache
from .inference import predict_slices, volume_cases
from .masks import TUMOUR


class Skip(NamedTuple):
    """A skip connection; found by :func:`skips`.

    Attributes
    ----------
    joint, source : str
        The layer that joins it to the way up, and the layer whose maps it carries.
    position : int
        Among the joint's inputs.
    rows, columns, channels : int
        Of what it carries.
    """

    joint: str
    source: str
    position: int
    rows: int
    columns: int
    channels: int


def skips(model: keras.Model) -> list[Skip]:
    """The skip connections of an encoder-decoder, the finest first.

    One is an input of a concatenation or sum that has come from the image at no lower resolution
    than its own, beside an input that has: that comes from below. So a residual block's shortcut
    is none. The network needs a fixed input size.
    """
    finest: dict[str, int] = {}  # rows at the narrowest place of the widest way from the image
    found = []
    for layer in model.layers:
        rows = _rows(layer.output)
        if isinstance(layer, keras.layers.InputLayer):
            finest[layer.name] = rows
            continue
        sources = [tensor._keras_history.operation for tensor in keras.tree.flatten(layer.input)]
        finest[layer.name] = min(rows, max(finest.get(source.name, 0) for source in sources))
        if isinstance(layer, keras.layers.Concatenate | keras.layers.Add):
            straight = [finest.get(source.name, 0) >= rows for source in sources]
            if any(straight) and not all(straight):
                found += [
                    Skip(layer.name, source.name, position, *source.output.shape[1:])
                    for position, (source, is_skip) in enumerate(zip(sources, straight, strict=True)) if is_skip
                ]
    return sorted(found, key=lambda skip: -skip.rows)


def _rows(output: object) -> int:
    """Rows of a layer's maps, 0 of what is no map."""
    shape = getattr(output, "shape", ())
    return (shape[1] or 0) if len(shape) == 4 else 0


def feature_maps(model: keras.Model, image: np.ndarray, layers: Sequence[str]) -> list[np.ndarray]:
    """What layers make of an image: a float32 array (rows, columns, maps) for each."""
    network = keras.Model(model.inputs[0], [model.get_layer(name).output for name in layers])
    found = network(scaled_images(image)[None], training=False)
    return [tf.cast(maps[0], tf.float32).numpy() for maps in keras.tree.flatten(found)]


def without_skips(model: keras.Model, removed: Iterable[Skip], *, fill: str = "zero") -> keras.Model:
    """A copy of a network in which skip connections carry nothing.

    Parameters
    ----------
    model : keras.Model
    removed : iterable of Skip
    fill : {"zero", "mean"}
        What they carry instead: 0, or each map's mean over the slice, which keeps how much there is
        of a feature and loses where it is.

    The copy was not trained to work so. That it fails shows what *this* network relies on, not what
    one without the skip could learn.
    """
    if fill not in ("zero", "mean"):
        raise ValueError(f'fill is "zero" or "mean", got {fill!r}')
    places = {(skip.joint, skip.position) for skip in removed}

    def call(layer, inputs, **options):
        if isinstance(inputs, list | tuple):
            inputs = [
                _filled(tensor, fill) if (layer.name, position) in places else tensor
                for position, tensor in enumerate(inputs)
            ]
        return layer(inputs, **options)

    return copied_network(model, call_function=call)


def _filled(maps: keras.KerasTensor, fill: str) -> keras.KerasTensor:
    nothing = keras.ops.zeros_like(maps)
    return nothing if fill == "zero" else nothing + keras.ops.mean(maps, axis=(1, 2), keepdims=True)


def skip_ablation(
    model: keras.Model, cache: SliceCache, table: pd.DataFrame, *, fill: str = "zero"
) -> pd.DataFrame:
    """Tumour Dice at the report's threshold with all skip connections, without each, and without any.

    Parameters
    ----------
    model : keras.Model
    cache, table
        As for :func:`lits_helpers.inference.predict_slices`; rows of whole volumes.
    fill : str
        Of :func:`without_skips`.

    Returns
    -------
    DataFrame
        Rows of :func:`lits_helpers.effects.step_summary`: ``step`` is ``"all skips"``, ``"without 96 x
        96"`` and so on, ``"without any"``; changes are against all skips, with patient-level intervals.
    """
    found = skips(model)
    if not found:
        raise DataError(f"the network {model.name!r} has no skip connection to remove")
    sizes = dict.fromkeys((skip.rows, skip.columns) for skip in found)
    networks = {"all skips": []}
    networks |= {f"without {r} x {c}": [s for s in found if (s.rows, s.columns) == (r, c)] for r, c in sizes}
    networks["without any"] = found
    predicted = {
        name: predict_slices(without_skips(model, removed, fill=fill), cache, table) for name, removed in networks.items()
    }
    streams = [volume_cases(table, probabilities) for probabilities in predicted.values()]
    scores = []
    for versions in zip(*streams, strict=True):
        volume, truth, _, spacing = versions[0]
        masks = {name: version[2] == TUMOUR for name, version in zip(predicted, versions, strict=True)}
        scores.append(stage_scores(volume, truth == TUMOUR, masks, spacing))
    return step_summary(pd.concat(scores, ignore_index=True))
