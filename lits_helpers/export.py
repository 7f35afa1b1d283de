"""A trained network as a file for OpenVINO or ONNX, and such a file as a network that predicts.

What is exported is the forward pass in float32, whatever precision the network was trained in.
Both kinds of file run in OpenVINO, which computes in bfloat16 where the processor does. The
packages are the optional extra ``export``.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import keras
import numpy as np

from .cascade import Cascade, load_cascade
from .files import DataError, atomic_path, temporary_folder
from .inference import TUMOUR_CHANNEL
from .masks import THRESHOLD
from .runs import load_checkpoint

FORMATS = {"openvino": ".xml", "onnx": ".onnx"}


def export_model(model: keras.Model, path: Path, *, format: str = "openvino") -> Path:
    """Write a network as a file that needs neither Keras nor TensorFlow.

    Parameters
    ----------
    model : keras.Model
        Such as from :func:`lits_helpers.training.load_checkpoint`. It is not changed.
    path : Path
        With the ending of the format: ``.xml`` for OpenVINO, which gets its weights in a ``.bin``
        file beside it, or ``.onnx``. Four bytes a parameter.
    format : str
        ``"openvino"`` or ``"onnx"``.

    Returns
    -------
    Path
        ``path``. A file there is complete: it is moved to its place last.

    Raises
    ------
    ValueError
        If the format is unknown, or the ending is another's.
    DataError
        If a package of the extra is missing, or the file cannot be written.
    """
    path = Path(path)
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if path.suffix != FORMATS[format]:
        raise ValueError(f"{path}: a file for {format} ends in {FORMATS[format]}")
    plain = _in_float32(model)
    with warnings.catch_warnings():
        # Keras calls a model of one input with a list of one, and says so; tf2onnx probes NumPy.
        warnings.filterwarnings("ignore", "The structure of `inputs`", UserWarning)
        warnings.filterwarnings("ignore", ".*np.object", FutureWarning)
        if format == "openvino":
            _write_openvino(plain, path)
        else:
            _write_onnx(plain, path)
    return path


def _in_float32(model: keras.Model) -> keras.Model:
    """The same network in float32: the exporters want it, and 16 bits are the runtime's choice."""

    def plain(layer: keras.Layer) -> keras.Layer:
        return layer.__class__.from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=plain)
    copy.set_weights(model.get_weights())
    return copy


def _openvino():
    # It reports each import to its makers, unless that package is missing. Patients' data are not far.
    sys.modules.setdefault("openvino_telemetry", None)
    try:
        import openvino
    except ImportError as error:
        raise _missing("openvino") from error
    return openvino


def _missing(package: str) -> DataError:
    return DataError(f"{package} is not installed: pip install 'lits-helpers[export]', or train and predict in Keras")


def _write_openvino(model: keras.Model, path: Path) -> None:
    openvino = _openvino()
    # By way of a folder: given the network itself, OpenVINO (2026.4) fails on Python 3.13, for which its
    # exec("import tensorflow") leaves no name to delete.
    with temporary_folder(path.parent) as saved:
        model.export(str(saved), verbose=False)
        converted = openvino.convert_model(saved)
        path.unlink(missing_ok=True)  # never an old graph beside new weights: these are moved first
        with atomic_path(path) as graph, atomic_path(path.with_suffix(".bin")) as weights:
            openvino.serialize(converted, graph, weights)
        del converted  # which keeps files open that Windows would not remove


def _write_onnx(model: keras.Model, path: Path) -> None:
    try:
        import tf2onnx  # noqa: F401 (Keras imports it, and then names no extra)
    except ImportError as error:
        raise _missing("tf2onnx") from error
    model(np.zeros((1, *model.input_shape[1:]), np.float32))  # Keras exports what has been called
    with atomic_path(path) as temporary:
        model.export(str(temporary), format="onnx", verbose=False)


class ExportedModel:
    """An exported network, to be used in the place of a Keras model by :mod:`lits_helpers.inference`.

    Attributes
    ----------
    input_shape, output_shape : tuple
        ``(None, size, size, 3)``, and ``(None, size, size, 1)`` or, of three classes, the same as it.
    precision : str
        What it computes in: ``"bf16"``, ``"f16"`` or ``"f32"``. Answers are float32.
    """

    def __init__(self, network, *, float32: bool):
        hint = {"INFERENCE_PRECISION_HINT": "f32"} if float32 else {}
        self._openvino = _openvino()
        self._compiled = self._openvino.Core().compile_model(network, "CPU", hint)
        self.precision = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.input_shape, self.output_shape = (
            tuple(None if side.is_dynamic else side.get_length() for side in port.get_partial_shape())
            for port in (network.input(), network.output())
        )

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 (n, size, size, 1 or 3), of float32 images (n, size, size, 3) in [0, 1]."""
        return self._compiled(np.ascontiguousarray(images, np.float32))[0]


def load_exported(path: Path, *, float32: bool = False) -> ExportedModel:
    """Load what :func:`export_model` wrote, to predict with on the CPU.

    Parameters
    ----------
    path : Path
        A ``.xml`` (with its ``.bin`` beside it) or ``.onnx`` file.
    float32 : bool
        Compute in float32 where the processor has 16-bit arithmetic too: slower, and the same as
        Keras in float32 to the last digits.

    Returns
    -------
    ExportedModel

    Raises
    ------
    DataError
        If the file or its weights are missing or damaged, the network is none for slices, or
        OpenVINO is not installed.
    """
    path = Path(path)
    for part in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        if not part.is_file():
            raise DataError(f"{part}: no such file, export a network first (`export --model best.keras`)")
    openvino = _openvino()
    try:
        network = openvino.Core().read_model(path)
        model = ExportedModel(network, float32=float32)
    except RuntimeError as error:
        raise DataError(f"{path}: not a network that OpenVINO can load, export it anew ({error})") from error
    size = model.input_shape[1]
    expected = (None, size, size, 3), ((None, size, size, 1), (None, size, size, 3))
    if size is None or model.input_shape != expected[0] or model.output_shape not in expected[1]:
        raise DataError(
            f"{path}: a network from {model.input_shape} to {model.output_shape}, expected (None, size, size, 3) to "
            "(None, size, size, 1), or 3 channels at the end: export one of this package"
        )
    return model


def load_network(path: Path, image_size: int) -> keras.Model | ExportedModel | Cascade:
    """Load what predicts: a cascade's folder, an exported network, or a ``.keras`` file.

    Parameters
    ----------
    path : Path
    image_size : int
        Rows and columns that the input of a ``.keras`` file must have.

    Raises
    ------
    DataError
        As :func:`lits_helpers.cascade.load_cascade`, :func:`load_exported` and
        :func:`lits_helpers.runs.load_checkpoint`.
    """
    path = Path(path)
    if path.is_dir():
        return load_cascade(path)
    if path.suffix in FORMATS.values():
        return load_exported(path)
    return load_checkpoint(path, image_size)


def agreement(
    model: keras.Model, exported: ExportedModel, images: np.ndarray, *, threshold: float = THRESHOLD
) -> dict[str, float]:
    """Compare an exported network with the one it was made from.

    Parameters
    ----------
    model : keras.Model
    exported : ExportedModel
    images : uint8 array (slices, size, size, 3)
        Pictures of the kind that it is for; a batch of them.
    threshold : float

    Returns
    -------
    dict
        ``largest_difference`` of the tumour's probabilities, in [0, 1]; ``pixels``, their number; and
        ``pixels_that_differ``, those above the threshold in one answer and not in the other.
    """
    scaled = images / np.float32(255)
    ours, theirs = (
        np.asarray(one.predict_on_batch(scaled), np.float32)[..., TUMOUR_CHANNEL] for one in (model, exported)
    )
    return {
        "largest_difference": float(np.abs(ours - theirs).max()),
        "pixels": ours.size,
        "pixels_that_differ": int(((ours > threshold) != (theirs > threshold)).sum()),
    }
