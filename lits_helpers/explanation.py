"""What a network's answer hangs on: gradients, feature maps, ablations, and how far to trust them.

For any functional Keras network with one input (rows, columns, channels) in [0, 1] and one answer,
sigmoid (rows, columns, 1) or softmax (rows, columns, classes): :func:`lits_helpers.model.unet`, and
others. The tumour is the last channel of both. Images are uint8, as a
:class:`lits_helpers.generators.SliceCache` holds them, or float in [0, 1].

A map always looks convincing. Whether it says something of what was learnt,
:func:`randomisation_check` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from scipy import ndimage, stats
from tqdm.auto import tqdm

from .files import DataError
from .inference import TUMOUR_CHANNEL


# Gradients ------------------------------------------------------------------------------------


def input_gradient(
    model: keras.Model,
    image: np.ndarray,
    region: np.ndarray,
    *,
    noise: float = 0,
    samples: int = 50,
    seed: int = 0,
) -> np.ndarray:
    """How the score of a region would change with each value of the image.

    The score is the sum over the region of what enters the last sigmoid or softmax: after it, a
    network that is sure has no gradient left.

    Parameters
    ----------
    model : keras.Model
    image : uint8 or float array (rows, columns, channels)
    region : bool array (rows, columns)
        Pixels whose score is explained: a lesion, true or predicted.
    noise : float
        0 gives the plain gradient. Above, SmoothGrad: the mean gradient of ``samples`` copies with
        Gaussian noise of this standard deviation, as a share of the image's range; its authors
        use 0.1 to 0.2.
    samples, seed : int
        Of SmoothGrad.

    Returns
    -------
    float32 array (rows, columns, channels), any sign
        Score for a change from 0 to 1.

    Raises
    ------
    DataError
        If the region is empty.

    References
    ----------
    Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", ICLR workshop 2014. Smilkov et
    al., "SmoothGrad: removing noise by adding noise", 2017.
    """
    image = scaled_images(image)
    network = _with_scores(model)
    if not noise:
        return _gradients(network, image[None], region)[1][0]
    random = np.random.default_rng(seed)
    deviation, total = noise * np.ptp(image), np.zeros(image.shape)
    for start in range(0, samples, 10):
        number = min(10, samples - start)
        noisy = image + random.normal(0, deviation, (number, *image.shape)).astype(np.float32)
        total += _gradients(network, noisy, region)[1].sum(axis=0)
    return (total / samples).astype(np.float32)


def saliency(model: keras.Model, image: np.ndarray, region: np.ndarray, **options: float) -> np.ndarray:
    """:func:`input_gradient` as a picture: the largest size over the image's channels.

    Returns
    -------
    float32 array (rows, columns), 0 or larger
    """
    return np.abs(input_gradient(model, image, region, **options)).max(axis=-1)


def grad_cam(
    model: keras.Model, image: np.ndarray, region: np.ndarray, *, layer: str | None = None
) -> np.ndarray:
    """Seg-Grad-CAM: where a layer holds the features that speak for a region.

    Each of the layer's feature maps is weighted by its mean gradient of the region's score; the
    sum's positive part is enlarged to the size of the image.

    Parameters
    ----------
    model, image, region
        As for :func:`input_gradient`.
    layer : str, optional
        One of :func:`stages`, or any other layer with maps. By default the bottleneck, which its
        authors found to say most; a late layer repeats the prediction.

    Returns
    -------
    float32 array (rows, columns)
        In [0, 1], the largest value 1; 0 throughout where nothing speaks for the region.

    References
    ----------
    Vinogradova, Dibrov, Myers, "Towards Interpretable Semantic Segmentation via Gradient-Weighted Class
    Activation Mapping", AAAI 2020. Selvaraju et al., "Grad-CAM", ICCV 2017.
    """
    image = scaled_images(image)
    network = _with_scores(model, layer or bottleneck(model))
    features, gradient = _gradients(network, image[None], region)
    found = np.maximum((features[0] * gradient[0].mean(axis=(0, 1))).sum(axis=-1), 0)
    found = cv2.resize(found, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return found / found.max() if found.max() > 0 else found


def stages(model: keras.Model) -> list[str]:
    """The last layer of each resolution, down to the bottleneck and up again: names for :func:`grad_cam`.

    Of the report's U-Net: the output of each block. The network needs a fixed input size.
    """
    names, size = [], None
    for layer in model.layers:
        shape = getattr(layer.output, "shape", ())
        if len(shape) != 4 or isinstance(layer, keras.layers.InputLayer) or layer is _last_layer(model):
            continue
        if shape[1:3] == size:
            names.pop()
        names.append(layer.name)
        size = shape[1:3]
    return names


def bottleneck(model: keras.Model) -> str:
    """The one of :func:`stages` with the fewest rows."""
    return min(stages(model), key=lambda name: model.get_layer(name).output.shape[1])


def scaled_images(images: np.ndarray) -> np.ndarray:
    """Images as a network takes them: uint8 is divided by 255, float becomes float32."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images / np.float32(255)
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"images are uint8, or float in [0, 1], got {images.dtype}")
    return images.astype(np.float32)


def _last_layer(model: keras.Model) -> keras.layers.Layer:
    return model.outputs[0]._keras_history.operation


def _with_scores(model: keras.Model, layer: str | None = None) -> keras.Model:
    """A network that gives a layer's features (the image itself if none) and the scores of all pixels."""
    if len(getattr(model, "inputs", None) or ()) != 1 or len(model.outputs) != 1 or len(model.output.shape) != 4:
        raise ValueError("an explanation needs a functional network with one input and one answer (rows, columns, classes)")
    last = _last_layer(model)
    if isinstance(last, keras.layers.Softmax):
        scores = last.input
    elif getattr(getattr(last, "activation", None), "__name__", None) in ("sigmoid", "softmax"):
        # A copy, because to change the layer would change the network.
        head = type(last).from_config({**last.get_config(), "activation": "linear", "name": f"{last.name}_scores"})
        scores = head(last.input)
        head.set_weights(last.get_weights())
    else:
        raise ValueError(f"the last layer {last.name!r} has no sigmoid or softmax: give a network that ends in one")
    return keras.Model(model.inputs[0], [model.get_layer(layer).output if layer else model.inputs[0], scores])


def _gradients(network: keras.Model, images: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features, and the gradient of the region's score by them, float32 (images, rows, columns, maps)."""
    region = np.asarray(region, bool)
    if not region.any():
        raise DataError("the region is empty: choose a slice with a lesion, or one that the network predicts")
    images = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        features, scores = network(images, training=False)
        if scores.shape[1:3] != region.shape:
            raise ValueError(f"the region has shape {region.shape}, the answer {tuple(scores.shape[1:3])}: resize it first")
        total = tf.reduce_sum(tf.cast(tf.boolean_mask(scores[..., TUMOUR_CHANNEL], region, axis=1), tf.float32))
    target = images if network.outputs[0] is network.inputs[0] else features  # a copy of the image is not watched
    gradient = tape.gradient(total, target, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.cast(features, tf.float32).numpy(), tf.cast(gradient, tf.float32).numpy()


# Sanity ---------------------------------------------------------------------------------------


def copied_network(model: keras.Model, **functions: Callable) -> keras.Model:
    """A copy with the same weights, changed by the functions of :func:`keras.models.clone_model`."""
    copy = keras.models.clone_model(model, **functions)
    for layer in model.layers:
        if layer.weights:  # one without them may have been replaced
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def cascading_randomisation(model: keras.Model, *, seed: int = 0) -> Iterator[tuple[str, keras.Model]]:
    """Unlearn a network layer by layer, from the answer down to the image.

    Weights become those of an untrained layer: Glorot's for kernels, 0 for biases and running means,
    1 for scales and running variances.

    Yields
    ------
    name : str
        Of the layer with a kernel that was randomised last, and with it what follows it.
    network : keras.Model
        One and the same copy every time: use it before asking for the next.

    References
    ----------
    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: cascading randomisation.
    """
    copy, random = copied_network(model), np.random.default_rng(seed)
    for layer in reversed(copy.layers):
        for weight in layer.weights:
            if len(weight.shape) > 1:
                weight.assign(keras.initializers.GlorotUniform(seed=int(random.integers(2**31)))(weight.shape))
            elif weight.name in ("gamma", "moving_variance"):
                weight.assign(np.ones(weight.shape))
            else:
                weight.assign(np.zeros(weight.shape))
        if _has_kernel(layer):
            yield layer.name, copy


def _has_kernel(layer: keras.layers.Layer) -> bool:
    return any(len(weight.shape) > 1 for weight in layer.weights)


class Similarity(NamedTuple):
    """Of two maps; made by :func:`map_similarity`. Both are 1 for equal maps.

    Attributes
    ----------
    spearman : float
        Rank correlation of the pixels, in [-1, 1]; NaN where a map is constant.
    ssim : float
        Mean structural similarity, in [-1, 1]; that two maps are both dark in most places counts.
    """

    spearman: float
    ssim: float


def map_similarity(first: np.ndarray, second: np.ndarray, *, inside: np.ndarray | None = None) -> Similarity:
    """How alike two maps are.

    Parameters
    ----------
    first, second : float array (rows, columns), 0 or larger
        Each is divided by its largest value.
    inside : bool array (rows, columns), optional
        Pixels that count. A segmentation network looks near the region only, whatever its weights:
        over a whole slice two maps are alike because both are dark far away.

    References
    ----------
    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 13
    (2004) 600; Gaussian weights of 1.5 pixels, its constants.
    """
    first, second = (map_ / max(float(map_.max()), 1e-30) for map_ in (np.float64(first), np.float64(second)))
    inside = np.ones(first.shape, bool) if inside is None else inside
    blurred = lambda map_: ndimage.gaussian_filter(map_, 1.5, truncate=3.5)
    mean_1, mean_2 = blurred(first), blurred(second)
    covariance = blurred(first * second) - mean_1 * mean_2
    spread = blurred(first**2) - mean_1**2 + blurred(second**2) - mean_2**2
    alike = (2 * mean_1 * mean_2 + 0.01**2) * (2 * covariance + 0.03**2)
    alike /= (mean_1**2 + mean_2**2 + 0.01**2) * (spread + 0.03**2)
    a, b = first[inside], second[inside]
    constant = np.ptp(a) == 0 or np.ptp(b) == 0
    return Similarity(np.nan if constant else float(stats.spearmanr(a, b).statistic), float(alike[inside].mean()))


def randomisation_check(
    model: keras.Model,
    explain: Callable[[keras.Model], np.ndarray],
    *,
    inside: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Whether a map changes when the network forgets what it has learnt. If not, it means nothing.

    Parameters
    ----------
    model : keras.Model
    explain : callable
        Gives the map of a network: ``lambda model: saliency(model, image, region)``.
    inside : bool array (rows, columns), optional
        Of :func:`map_similarity`.
    seed : int
        Of :func:`cascading_randomisation`.

    Returns
    -------
    table : DataFrame, a row a step, the trained network first
        ``randomised``, the number of layers with kernels that were; ``layer``, the last of them;
        ``spearman`` and ``ssim`` of the map to the trained network's.
    maps : float32 array (steps, rows, columns)
    """
    maps, names = [explain(model)], [""]
    steps = tqdm(
        cascading_randomisation(model, seed=seed), "randomising", unit="layer", delay=2,
        total=sum(_has_kernel(layer) for layer in model.layers),
    )
    for name, network in steps:
        maps.append(explain(network))
        names.append(name)
    alike = [map_similarity(maps[0], map_, inside=inside)._asdict() for map_ in maps]
    table = pd.DataFrame(alike)
    table.insert(0, "randomised", range(len(names)))
    table.insert(1, "layer", names)
    return table, np.stack(maps).astype(np.float32)
