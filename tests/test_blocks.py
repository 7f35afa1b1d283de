"""Parts of networks, with weights set by hand where a value is claimed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lits_helpers.blocks import BLOCKS, NORMS, NestedClasses, attended, block, convolved, normalised, segmenter
from lits_helpers.losses import class_loss, cross_entropy
from lits_helpers.metrics import bce_dice_loss

RANDOM = np.random.default_rng(0)


def built(part, *shapes, **options):
    """A model of one part, for inputs of these shapes."""
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], part(*inputs, **options))


def set_all(model, value):
    """All kernels and biases at one value; norms stay."""
    for weight in model.trainable_weights:
        if weight.name in ("kernel", "bias"):
            weight.assign(np.full(weight.shape, value))


@pytest.mark.parametrize(
    ("norm", "axes"),
    [
        ("batch", (0, 1, 2)),  # each channel over all slices
        ("instance", (1, 2)),  # each channel of each slice
        ("group", (1, 2, 4)),  # each pair of 16 channels, as there are 8 groups
    ],
)
def test_a_norm_leaves_mean_0_and_spread_1_where_it_says(norm, axes):
    x = RANDOM.normal(5, 3, (3, 8, 8, 16)) * np.arange(1, 17)
    x[1] *= 4
    found = built(normalised, (8, 8, 16), norm=norm)(x, training=True).numpy()
    if norm == "group":
        found = found.reshape(3, 8, 8, 8, 2)
    assert found.mean(axes) == pytest.approx(0, abs=1e-3)
    assert found.std(axes) == pytest.approx(1, abs=1e-2)
    smaller = {"batch": (1, 2), "instance": (1,), "group": (1, 2)}[norm]
    assert np.abs(found.mean(smaller)).max() > 0.1  # and nowhere finer


def test_groups_are_as_many_as_divide_eight_and_the_channels():
    groups = [built(normalised, (4, 4, channels), norm="group").layers[-1].groups for channels in (8, 12, 16, 3)]
    assert groups == [8, 4, 8, 1]


def test_no_norm_leaves_everything_as_it_is():
    x = RANDOM.normal(5, 3, (1, 4, 4, 3)).astype(np.float32)
    assert (normalised(tf.constant(x), "none").numpy() == x).all()


def test_a_batch_norm_remembers_about_ten_steps():
    model = built(normalised, (2, 2, 1), norm="batch")
    model(np.ones((4, 2, 2, 1)), training=True)
    assert model.layers[-1].moving_mean.numpy() == pytest.approx([0.1])


def test_what_is_below_zero_leaks_through_a_convolution_at_a_hundredth():
    kernel = np.zeros((3, 3, 1, 1))
    kernel[1, 1] = -2
    for activate, expected in ((True, [-0.06, 10]), (False, [-6, 10])):
        model = built(convolved, (1, 2, 1), filters=1, norm="none", activate=activate)
        model.set_weights([kernel, np.zeros(1)])
        assert model(np.array([[[[3.0], [-5.0]]]])).numpy().ravel() == pytest.approx(expected)


def test_a_residual_block_that_adds_nothing_passes_on_what_came_in():
    x = np.array([[[[4.0], [-1.0]]]])
    for kind, expected in (("residual", [4, -0.01]), ("plain", [0, 0])):
        model = built(block, (1, 2, 1), filters=1, kind=kind, norm="none")
        set_all(model, 0)
        assert model(x).numpy().ravel() == pytest.approx(expected)


def test_a_residual_block_brings_other_channels_to_its_own():
    model = built(block, (4, 4, 3), filters=2, kind="residual", norm="none")
    set_all(model, 0)
    (bridge,) = (layer for layer in model.layers if getattr(layer, "kernel_size", None) == (1, 1))
    bridge.set_weights([np.array([[[[1, 0], [2, 0], [0, 5]]]]), np.zeros(2)])
    found = model(np.broadcast_to([1.0, 2.0, 3.0], (1, 4, 4, 3))).numpy()
    assert found[0, 2, 2] == pytest.approx([5, 15])


def test_a_gate_weighs_each_pixel_of_the_skip_connection_by_both():
    model = built(attended, (1, 3, 2), (1, 3, 1), filters=1)
    set_all(model, 0)
    of_skip, of_gate, weight = (layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    skip = np.array([[[[2.0, -4.0], [2.0, -4.0], [2.0, -4.0]]]])
    assert model([skip, np.zeros((1, 1, 3, 1))]).numpy() == pytest.approx(skip / 2)  # sigmoid of 0
    of_skip.set_weights([np.array([[[[0.5], [0.0]]]]), np.zeros(1)])
    of_gate.set_weights([np.array([[[[1.0]]]]), np.zeros(1)])
    weight.set_weights([np.array([[[[np.log(3)]]]]), np.zeros(1)])
    # ReLU of 1 - 1, 1 + 0, 1 - 5; sigmoid of 0, log 3, 0.
    found = model([skip, np.array([[[[-1.0], [0.0], [-5.0]]]])]).numpy()
    assert found == pytest.approx(skip * np.reshape([0.5, 0.75, 0.5], (1, 1, 3, 1)))


def test_two_logits_nest_into_three_classes():
    logits = np.array([[0, 0], [np.log(3), np.log(2)], [np.log(3), -np.log(3)], [-200, 200], [200, 200]], np.float32)
    # Liver 1/2, 3/4, 3/4, 0, 1; tumour where there is liver 1/2, 2/3, 1/4, 1, 1.
    expected = [[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2], [1 / 4, 9 / 16, 3 / 16], [1, 0, 0], [0, 0, 1]]
    assert NestedClasses()(logits.reshape(1, 1, 5, 2)).numpy()[0, 0] == pytest.approx(np.array(expected), abs=1e-6)


def test_whether_tumour_or_not_is_learned_inside_livers_alone():
    logits = tf.Variable(np.zeros((1, 1, 3, 2), np.float32))
    truth = np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3)  # background, liver, tumour
    with tf.GradientTape() as tape:
        value = cross_entropy(truth, NestedClasses()(logits))
    # A third of the mean each, of the slope of -log sigmoid(+-x) at 0, which is -+1/2.
    expected = [[1 / 6, 0], [-1 / 6, 1 / 6], [-1 / 6, -1 / 6]]
    assert tape.gradient(value, logits).numpy()[0, 0] == pytest.approx(np.array(expected), abs=1e-6)


EVERY_PART = [
    dict(),
    dict(stem=1, block_kind="residual", norm="none"),
    dict(norm="instance", attention=True, deep_supervision=True),
    dict(stem=1, block_kind="residual", norm="group", attention=True, deep_supervision=True, classes=1, prior=0.1),
]


@pytest.mark.parametrize("parts", EVERY_PART)
def test_every_weight_learns_and_the_answer_has_the_size_of_the_slice(parts):
    model = segmenter((16, 24, 3), filters=4, depth=2, **parts)
    classes = parts.get("classes", 3)
    assert model.output_shape == (None, 16, 24, classes)
    labels = RANDOM.integers(0, 3, (2, 16, 24))
    truth = np.eye(3, dtype=np.float32)[labels][..., -classes:]
    with tf.GradientTape() as tape:
        found = model(RANDOM.random((2, 16, 24, 3)), training=True)
        value = (class_loss if classes == 3 else bce_dice_loss)(truth, found)
    slopes = tape.gradient(value, model.trainable_weights)
    still = [weight.path for weight, slope in zip(model.trainable_weights, slopes) if slope is None or not np.any(slope)]
    assert not still and all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("stem", [1, 2])
def test_probabilities_add_up_to_1_in_float32_whatever_the_policy(policy, stem):
    keras.config.set_dtype_policy(policy)
    model = segmenter((16, 16, 3), filters=4, depth=2, stem=stem, norm="group", attention=True, deep_supervision=True)
    found = model(RANDOM.random((2, 16, 16, 3)))
    assert found.dtype == "float32"
    assert np.abs(found.numpy().sum(-1) - 1).max() < 1e-6 and found.numpy().min() >= 0


def test_a_stem_of_2_works_on_half_the_rows_and_columns():
    for stem, rows in ((1, 16), (2, 8)):
        model = segmenter((16, 16, 3), filters=4, depth=2, stem=stem)
        blocks = [layer.output.shape for layer in model.layers if isinstance(layer, keras.layers.LeakyReLU)]
        assert max(shape[1] for shape in blocks) == rows


def test_under_deep_supervision_the_answer_is_made_of_the_mean_of_all_heads():
    model = segmenter((8, 8, 3), filters=2, depth=2, stem=1, norm="none", deep_supervision=True)
    set_all(model, 0)
    heads = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and layer.dtype_policy.name == "float32" and layer.kernel_size == (1, 1)]
    assert [head.output.shape[1] for head in heads] == [4, 8]  # both decoder levels
    heads[0].bias.assign([2 * np.log(3), 2 * np.log(2)])
    # With a head of zeros the means are log 3 and log 2: 3/4 liver, and of that 2/3 tumour.
    assert model(np.zeros((1, 8, 8, 3))).numpy() == pytest.approx(np.broadcast_to([1 / 4, 1 / 4, 1 / 2], (1, 8, 8, 3)))


@pytest.mark.parametrize("parts", [dict(), dict(stem=1), dict(deep_supervision=True)])
def test_an_untrained_network_that_sees_nothing_gives_the_prior(parts):
    model = segmenter((16, 16, 3), classes=1, filters=2, depth=2, prior=0.02, **parts)
    for weight in model.trainable_weights:
        if weight.name == "kernel":
            weight.assign(np.zeros(weight.shape))
    assert model(np.ones((1, 16, 16, 3))).numpy() == pytest.approx(0.02, rel=1e-5)


def test_several_classes_have_no_prior():
    model = segmenter((8, 8, 3), filters=2, depth=1, prior=0.02)
    for weight in model.trainable_weights:
        if weight.name == "kernel":
            weight.assign(np.zeros(weight.shape))
    # Two logits of nothing: half liver, and of that half tumour.
    expected = np.broadcast_to([1 / 2, 1 / 4, 1 / 4], (1, 8, 8, 3))
    assert model(np.ones((1, 8, 8, 3))).numpy() == pytest.approx(expected)


def test_a_segmenter_loads_again_in_safe_mode_and_answers_the_same(tmp_path):
    model = segmenter((16, 16, 3), filters=2, depth=2, block_kind="residual", norm="group", attention=True,
                      deep_supervision=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = RANDOM.random((1, 16, 16, 3)).astype(np.float32)
    assert loaded(x).numpy() == pytest.approx(model(x).numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(input_size=(24, 20, 3), depth=2), "20 columns cannot be halved 3 times"),  # and the stem
        (dict(stem=4), "stem is 4: 1 keeps the resolution, 2 halves it"),
        (dict(classes=2), "classes is 2: 1 or 3"),
        (dict(norm="layer"), f"norm is 'layer': choose from {NORMS}"),
        (dict(block_kind="dense"), f"block is 'dense': choose from {BLOCKS}"),
        (dict(filters=0), "filters must be a whole number of at least 1"),
        (dict(prior=1.0, classes=1), "prior is a probability between 0 and 1, got 1.0"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(options, words):
    with pytest.raises(ValueError) as refused:
        segmenter(**{"input_size": (16, 16, 3), "filters": 2, "depth": 1, **options})
    assert words in str(refused.value)
