"""How far a network's answers to one question differ: mirrored slices, dropout in prediction.

For the networks of :mod:`lits_helpers.explanation`. What the differences are worth is a matter of
:mod:`lits_helpers.calibration`: an uncertainty is one only if errors lie where it is large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
from tqdm.auto import tqdm

from .calibration import Uncertainty, predictive_uncertainty
from .explanation import copied_network, scaled_images
from .files import DataError
from .inference import FLIPS, TUMOUR_CHANNEL

_DROPOUTS = (keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.AlphaDropout)  # spatial ones too


def flip_uncertainty(model: keras.Model, images: np.ndarray, *, batch_size: int = 16) -> Uncertainty:
    """How far a network's answers differ between a slice and its mirror images.

    Four answers: as it is, left-right, up-down and both, each mirrored back. A liver does not lie
    on the left, so part of what differs is that the network has never seen such a body; a network
    trained on flips differs less without being surer of anything.

    Parameters
    ----------
    model : keras.Model
    images : uint8 or float array (slices, rows, columns, channels)
    batch_size : int

    Returns
    -------
    lits_helpers.calibration.Uncertainty
        Of float32 arrays (slices, rows, columns).
    """
    def answers(batch):
        yield _answer(model, batch)
        for axes in FLIPS:
            mirrored = _answer(model, np.ascontiguousarray(np.flip(batch, axes)))
            yield np.flip(mirrored, axes)

    return _uncertainty(answers, images, batch_size, "flips")


def with_dropout(
    model: keras.Model, *, after: Sequence[str] = (), rate: float = 0.2, seed: int = 0
) -> keras.Model:
    """A copy of a network whose dropout works in prediction too: each answer is another one.

    Batch normalisation stays as in prediction.

    Parameters
    ----------
    model : keras.Model
    after : sequence of str
        Layers after which to put a spatial dropout (of whole feature maps), on top of those that the
        network has. A network that was trained without dropout, such as the report's U-Net, has to
        be given some: that is *injected* dropout, a perturbation whose size ``rate`` sets. Its
        variance is not the approximate Bayesian posterior that Monte-Carlo dropout is derived as.
    rate : float
        Share of maps dropped by those put in, in [0, 1); the network's own keep theirs.
    seed : int

    Raises
    ------
    DataError
        If the network has no dropout and none is put in.

    References
    ----------
    Gal, Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016. Ledda, Fumera, Roli, "Dropout
    Injection at Test Time for Post Hoc Uncertainty Quantification in Neural Networks", 2023.
    """
    if not after and not any(isinstance(layer, _DROPOUTS) for layer in model.layers):
        raise DataError(
            f"the network {model.name!r} has no dropout: name layers in `after`, explanation.stages(model) lists some, and "
            "call the result injected dropout, because it was not trained with any"
        )
    for name in after:
        model.get_layer(name)  # raises for one that is not there
    seeds = iter(range(seed, seed + 2 * len(model.layers)))

    def copied(layer):
        config = layer.get_config()
        return type(layer).from_config({**config, "seed": next(seeds)} if isinstance(layer, _DROPOUTS) else config)

    def call(layer, *inputs, **options):
        if isinstance(layer, _DROPOUTS):
            return _InPrediction(layer)(*inputs)
        answer = layer(*inputs, **options)
        if layer.name in after:
            answer = _InPrediction(keras.layers.SpatialDropout2D(rate, seed=next(seeds)))(answer)
        return answer

    return copied_network(model, clone_function=copied, call_function=call)


class _InPrediction(keras.layers.Layer):
    """A dropout layer that takes every call for one in training."""

    def __init__(self, dropout: keras.layers.Layer):
        super().__init__(dtype=dropout.dtype_policy)
        self.dropout = dropout

    def call(self, inputs):
        return self.dropout(inputs, training=True)


def dropout_uncertainty(
    model: keras.Model, images: np.ndarray, *, samples: int = 20, batch_size: int = 16
) -> Uncertainty:
    """How far the answers of a network from :func:`with_dropout` differ between ``samples`` passes.

    Parameters and result are otherwise those of :func:`flip_uncertainty`.
    """
    def answers(batch):
        for _ in range(samples):
            yield _answer(model, batch)

    return _uncertainty(answers, images, batch_size, "dropout")


def _answer(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    return model.predict_on_batch(batch)[..., TUMOUR_CHANNEL].astype(np.float32)


def _uncertainty(answers: Callable, images: np.ndarray, batch_size: int, name: str) -> Uncertainty:
    """Batch by batch, so that the answers of all slices are never in memory at once."""
    starts = range(0, len(images), batch_size)
    parts = []
    for start in tqdm(starts, desc=name, unit="batch", delay=2):
        batch = scaled_images(images[start : start + batch_size])
        parts.append(predictive_uncertainty(np.stack(list(answers(batch)))))
    names = Uncertainty.__dataclass_fields__
    return Uncertainty(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
