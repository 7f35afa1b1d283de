"""Losses of three classes, on four pixels whose loss is worked out by hand."""

import subprocess
import sys
from math import log

import keras
import numpy as np
import pytest
import tensorflow as tf

from lits_helpers.blocks import segmenter
from lits_helpers.losses import LOSSES, class_dice_loss, cross_entropy, focal_tversky_loss, jaccard_loss


def one_hot(labels):
    """(1, 2, 2, 3) of four labels: 0 background, 1 liver, 2 tumour."""
    return np.eye(3, dtype=np.float32)[labels].reshape(1, 2, 2, 3)


TRUTH = one_hot([1, 2, 0, 1])
# Liver: shared 0.8 + 0.6, false 0.5, missed 0.2 + 0.4. Tumour: shared 0.5, false 0, missed 0.5.
LIKELY = np.array(
    [[0.2, 0.8, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0], [0.4, 0.6, 0.0]], np.float32
).reshape(1, 2, 2, 3)
NOTHING, ALL_TUMOUR = one_hot([0] * 4), one_hot([2] * 4)

CROSS_ENTROPY = -(log(0.8) + log(0.5) + log(1.0) + log(0.6)) / 4
DICE = (1 - 3.8 / 4.9) + (1 - 2 / 2.5)  # (2*1.4+1)/(2*1.4+0.5+0.6+1), (2*0.5+1)/(2*0.5+0+0.5+1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cross-entropy", CROSS_ENTROPY),
        ("dice", DICE),
        ("class", CROSS_ENTROPY + DICE),
        ("jaccard", (1 - 2.4 / 3.5) + (1 - 1.5 / 2)),  # (1.4+1)/(1.4+0.5+0.6+1), (0.5+1)/(0.5+0+0.5+1)
        # (1.4+1)/(1.4+0.3*0.5+0.7*0.6+1), (0.5+1)/(0.5+0+0.7*0.5+1)
        ("focal-tversky", (1 - 2.4 / 2.97) ** 0.75 + (1 - 1.5 / 1.85) ** 0.75),
    ],
)
def test_a_loss_is_what_it_is_by_hand(name, expected):
    found = LOSSES[name](TRUTH, LIKELY)
    assert tuple(found.shape) == (1,) and found.dtype == "float32"
    assert float(found[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("truth", [TRUTH, NOTHING, ALL_TUMOUR], ids=["mixed", "empty", "full"])
def test_a_perfect_answer_costs_nothing(loss, truth):
    # Focal Tversky keeps 1e-6 of each class, for the slope: 2 * 1e-6 ** 0.75.
    assert float(loss(truth, truth)[0]) == pytest.approx(0, abs=7e-5)


@pytest.mark.parametrize(
    ("loss", "missed", "invented"),
    [
        # Four pixels of tumour missed, or invented: 1/(4+1), and the liver, which is nowhere, is right.
        (class_dice_loss, 0.8, 0.8),
        (jaccard_loss, 0.8, 0.8),
        (focal_tversky_loss, (1 - 1 / 3.8) ** 0.75, (1 - 1 / 2.2) ** 0.75),  # 0.7 * 4 + 1, 0.3 * 4 + 1
        (cross_entropy, -log(1e-6), -log(1e-6)),
    ],
)
def test_a_mask_missed_and_one_invented_cost_what_they_do_by_hand(loss, missed, invented):
    assert float(loss(ALL_TUMOUR, NOTHING)[0]) == pytest.approx(missed, rel=1e-4)
    assert float(loss(NOTHING, ALL_TUMOUR)[0]) == pytest.approx(invented, rel=1e-4)


def test_background_is_no_class_of_the_overlaps():
    # The one tumour pixel missed of 10,000: with background's own overlap it would be nearly 0.5 or less.
    truth = np.zeros((1, 100, 100, 3), np.float32)
    truth[..., 0] = 1
    truth[0, 50, 50] = (0, 0, 1)
    blind = np.zeros_like(truth)
    blind[..., 0] = 1
    assert float(class_dice_loss(truth, blind)[0]) == pytest.approx(1 / 2)  # 1 - 1/(1+1)
    assert float(jaccard_loss(truth, blind)[0]) == pytest.approx(1 / 2)
    assert float(focal_tversky_loss(truth, blind)[0]) == pytest.approx((0.7 / 1.7) ** 0.75, abs=7e-5)


@pytest.mark.parametrize("loss", [class_dice_loss, jaccard_loss, focal_tversky_loss])
def test_overlaps_are_taken_over_the_batch_not_slice_by_slice(loss):
    truth, predicted = (np.concatenate(pair) for pair in ((TRUTH, NOTHING), (LIKELY, ALL_TUMOUR)))
    side_by_side = (values.transpose(1, 0, 2, 3).reshape(1, 2, 4, 3) for values in (truth, predicted))
    assert float(loss(truth, predicted)[0]) == pytest.approx(float(loss(*side_by_side)[0]))


def slopes(loss, truth, logits):
    logits = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss(truth, tf.nn.softmax(logits))
    return float(value[0]), tape.gradient(value, logits).numpy()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_step_down_the_slope_raises_each_pixels_true_class_and_lowers_the_loss(loss):
    undecided = np.zeros((1, 2, 2, 3), np.float32)
    before, slope = slopes(loss, TRUTH, undecided)
    assert (slope[TRUTH == 1] < 0).all()
    assert slopes(loss, TRUTH, undecided - slope)[0] < before


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_slopes_stay_finite_where_an_answer_is_certain_right_or_wrong(loss):
    for truth in (TRUTH, NOTHING, ALL_TUMOUR):
        for certain in (truth, ALL_TUMOUR, NOTHING):
            assert np.isfinite(slopes(loss, truth, certain * 200)[1]).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["dice", "jaccard", "focal-tversky", "cross-entropy"])
def test_sums_over_16_bit_answers_neither_overflow_nor_stall(name, dtype):
    # Two slices of 256x256, all tumour: the sum 131,072 is beyond float16 and bfloat16 alike.
    full, empty = (np.zeros((2, 256, 256, 3), np.float32) for _ in range(2))
    full[..., 2] = empty[..., 0] = 1
    full, empty = (keras.ops.cast(mask, dtype) for mask in (full, empty))
    right, wrong = LOSSES[name](full, full), LOSSES[name](empty, full)
    assert right.dtype == "float32" and float(right[0]) == pytest.approx(0, abs=7e-5)
    expected = {
        "dice": 1 - 1 / 131_073, "jaccard": 1 - 1 / 131_073,
        "focal-tversky": (1 - 1 / (0.3 * 131_072 + 1)) ** 0.75, "cross-entropy": -log(1e-6),
    }
    assert float(wrong[0]) == pytest.approx(expected[name], abs=7e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_network_saved_with_a_loss_loads_with_it_in_safe_mode(loss, tmp_path):
    model = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Softmax()])
    model.compile(loss=loss)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.loss is loss
    # The softmax of nothing is a third each.
    thirds = np.full((1, 2, 2, 3), 1 / 3, np.float32)
    found = loaded.evaluate(np.zeros((1, 2, 2, 3)), TRUTH, verbose=0)
    assert found == pytest.approx(float(loss(TRUTH, thirds)[0]), rel=1e-5)


def test_a_process_that_only_loads_networks_knows_the_layers_losses_and_metrics_they_name(tmp_path):
    model = segmenter((8, 8, 3), filters=2, depth=1)
    model.compile(loss=LOSSES["class"])
    model.save(tmp_path / "model.keras")
    script = (
        "import sys; from lits_helpers.runs import load_checkpoint\n"
        "print(load_checkpoint(sys.argv[1], 8).loss.__name__)"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "model.keras")]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1] == "class_loss"
