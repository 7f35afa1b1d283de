import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import onnx.reference
import pytest

from lits_helpers import export, inference
from lits_helpers.blocks import segmenter
from lits_helpers.files import DataError
from lits_helpers.model import unet
from lits_helpers.phantom import phantom_volume

FORMATS = tuple(export.FORMATS)


@pytest.fixture(scope="module")
def network():
    """A small U-Net in bfloat16 with weights of chance, whose probabilities fill the range as trained ones do."""
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = unet((32, 32, 3), filters=4, depth=2, prior=0.4)
    keras.config.set_dtype_policy("float32")
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([20 * kernel, bias])
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def expected(network, images):
    """What the network says in float32, by Keras."""
    plain = unet((32, 32, 3), filters=4, depth=2)
    plain.set_weights(network.get_weights())
    found = plain.predict_on_batch(images / np.float32(255))
    assert 0.2 < (found > 0.30).mean() < 0.8 and found.max() > 0.9 and found.min() < 0.1
    return found


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """The network in each format."""
    folder = tmp_path_factory.mktemp("exported")
    return {
        format: export.export_model(network, folder / f"network{export.FORMATS[format]}", format=format)
        for format in FORMATS
    }


@pytest.mark.parametrize("format", FORMATS)
def test_in_float32_an_exported_network_says_what_keras_says(files, images, expected, format):
    exported = export.load_exported(files[format], float32=True)
    assert exported.precision == "f32"
    found = exported.predict_on_batch(images / np.float32(255))
    assert found.dtype == np.float32 and found.shape == (5, 32, 32, 1)
    assert found == pytest.approx(expected, abs=1e-5)
    assert ((found > 0.30) != (expected > 0.30)).sum() <= 2  # pixels within a rounding of the threshold


@pytest.mark.parametrize("format", FORMATS)
def test_in_the_processors_precision_it_says_nearly_the_same(files, images, expected, format):
    found = export.load_exported(files[format]).predict_on_batch(images / np.float32(255))
    assert found == pytest.approx(expected, abs=0.03)
    assert ((found > 0.30) != (expected > 0.30)).mean() < 0.02


@pytest.mark.parametrize("format", FORMATS)
def test_it_computes_in_bfloat16_where_the_processor_does(files, format):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx512_bf16" not in flags:
        pytest.skip("this processor has no bfloat16 instructions")
    assert export.load_exported(files[format]).precision == "bf16"


def test_an_onnx_file_is_valid_and_says_the_same_in_an_independent_runtime(files, images, expected):
    content = onnx.load(files["onnx"])
    onnx.checker.check_model(content, full_check=True)
    (name,) = (port.name for port in content.graph.input)
    (found,) = onnx.reference.ReferenceEvaluator(content).run(None, {name: images / np.float32(255)})
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_exporting_leaves_the_network_and_the_policy_as_they_were(network, tmp_path, format):
    weights = [weight.copy() for weight in network.get_weights()]
    export.export_model(network, tmp_path / f"a{export.FORMATS[format]}", format=format)
    assert all((old == new).all() for old, new in zip(weights, network.get_weights(), strict=True))
    assert network.layers[1].compute_dtype == "bfloat16" and keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("format", FORMATS)
def test_slices_volumes_and_files_are_predicted_as_with_keras(files, table, cache, network, tmp_path, format):
    exported = export.load_exported(files[format])
    part = table[:5]
    theirs = inference.predict_slices(network, cache, part, batch_size=2)
    ours = inference.predict_slices(exported, cache, part, batch_size=2, flips=False)
    assert ours == pytest.approx(theirs, abs=0.02)
    flipped = inference.predict_slices(exported, cache, part, flips=True)
    assert flipped == pytest.approx(inference.predict_slices(network, cache, part, flips=True), abs=0.02)
    hounsfield = phantom_volume(2, size=64).hounsfield[:6]
    labels = inference.predict_volume(exported, hounsfield)
    assert ((labels == 2) == (inference.predict_volume(network, hounsfield) == 2)).mean() > 0.97
    assert inference.predict_files(exported, part, tmp_path / "p").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_network_of_three_classes_says_the_same_when_it_is_exported(images, tmp_path, format):
    keras.utils.set_random_seed(5)
    model = segmenter((32, 32, 3), filters=2, depth=1)
    exported = export.load_exported(
        export.export_model(model, tmp_path / f"network{export.FORMATS[format]}", format=format), float32=True
    )
    assert exported.output_shape == (None, 32, 32, 3)
    scaled = images / np.float32(255)
    assert exported.predict_on_batch(scaled) == pytest.approx(model.predict_on_batch(scaled), abs=1e-5)
    assert export.agreement(model, exported, images)["pixels"] == 5 * 32 * 32  # the tumour's alone


def test_agreement_counts_pixels_on_different_sides_of_the_threshold(images):
    class Answers:
        def __init__(self, *values):
            self.values = values

        def predict_on_batch(self, scaled):
            assert scaled.max() <= 1
            found = np.zeros((*scaled.shape[:3], 3), np.float32)
            found[..., 0] = self.values[0]  # of another class: not counted
            found.reshape(-1, 3)[: len(self.values), -1] = self.values
            return found

    found = export.agreement(Answers(0.30, 0.31, 0.9, 0.2), Answers(0.31, 0.32, 0.5, 0.2), images)
    assert found == {"largest_difference": pytest.approx(0.4), "pixels": 5 * 32 * 32, "pixels_that_differ": 1}


def test_another_ending_or_format_is_a_mistake(network, tmp_path):
    with pytest.raises(ValueError, match="a.onnx: a file for openvino ends in .xml"):
        export.export_model(network, tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="openvino, onnx, got 'tflite'"):
        export.export_model(network, tmp_path / "a.tflite", format="tflite")
    assert not list(tmp_path.iterdir())


def test_a_missing_file_a_missing_weight_file_and_a_damaged_one_are_named(files, tmp_path):
    with pytest.raises(DataError, match="none.onnx: no such file"):
        export.load_exported(tmp_path / "none.onnx")
    (tmp_path / "a.xml").write_bytes(files["openvino"].read_bytes())
    with pytest.raises(DataError, match="a.bin: no such file"):
        export.load_exported(tmp_path / "a.xml")
    (tmp_path / "cut.onnx").write_bytes(files["onnx"].read_bytes()[:1000])
    with pytest.raises(DataError, match="cut.onnx: not a network"):
        export.load_exported(tmp_path / "cut.onnx")


def test_cut_weights_are_found_at_loading(files, tmp_path):
    (tmp_path / "a.xml").write_bytes(files["openvino"].read_bytes())
    (tmp_path / "a.bin").write_bytes(files["openvino"].with_suffix(".bin").read_bytes()[:500])
    with pytest.raises(DataError, match="a.xml: not a network"):
        export.load_exported(tmp_path / "a.xml")


def test_a_network_for_something_else_is_refused(tmp_path):
    inputs = keras.Input((8, 8, 1))
    path = export.export_model(keras.Model(inputs, keras.layers.Conv2D(1, 1)(inputs)), tmp_path / "a.xml")
    with pytest.raises(DataError, match=r"a.xml: a network from \(None, 8, 8, 1\)"):
        export.load_exported(path)


def test_a_failed_export_leaves_no_half_file(network, tmp_path, monkeypatch):
    import openvino

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(openvino, "serialize", full)
    with pytest.raises(DataError, match="no space left"):
        export.export_model(network, tmp_path / "a.xml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("package", "format"), [("openvino", "openvino"), ("tf2onnx", "onnx")])
def test_a_missing_package_names_the_extra(network, tmp_path, monkeypatch, package, format):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf"{package} is not installed: pip install 'lits-helpers\[export\]'"):
        export.export_model(network, tmp_path / f"a{export.FORMATS[format]}", format=format)
    assert not list(tmp_path.iterdir())


def test_openvino_is_kept_from_reporting_its_use(files):
    code = (
        "import sys; from lits_helpers import export\n"
        f"export.load_exported({str(files['openvino'])!r})\n"
        "print('LOADED', sys.modules['openvino_telemetry'], [n for n in sys.modules if n.startswith('openvino_telemetry.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED None []" in done.stdout
