"""Losses and metrics, on 3x3 masks whose scores are worked out by hand."""

import subprocess
import sys
from math import log

import keras
import numpy as np
import pytest

from lits_helpers import metrics
from lits_helpers.metrics import PooledDice, PooledIoU, bce_dice_loss, dice_coef, dice_loss, iou

EMPTY = np.zeros((3, 3), np.float32)
FULL = np.ones((3, 3), np.float32)
TRUTH = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0]], np.float32)
SHIFTED = np.array([[0, 1, 1], [0, 0, 0], [0, 0, 0]], np.float32)  # shares one of two pixels
UNSURE = np.array([[0.5, 0.5, 0], [0, 0, 0], [0, 0, 1]], np.float32)


@pytest.mark.parametrize(
    "truth, predicted, expected_dice, expected_iou",
    [
        (TRUTH, SHIFTED, 3 / 5, 2 / 4),  # (2*1+1)/(2+2+1), (1+1)/(2+2-1+1)
        (TRUTH, TRUTH, 5 / 5, 3 / 3),
        (TRUTH, UNSURE, 3 / 5, 2 / 4),  # intersection 0.5+0.5, sums 2 and 2
        (TRUTH, EMPTY, 1 / 3, 1 / 3),
        (EMPTY, FULL, 1 / 10, 1 / 10),
        (EMPTY, EMPTY, 1, 1),
        (FULL, FULL, 1, 1),
        (TRUTH, FULL, 5 / 12, 3 / 10),  # (2*2+1)/(2+9+1), (2+1)/(9+1)
    ],
)
def test_dice_and_iou_follow_the_reports_smoothed_formulas(
    truth, predicted, expected_dice, expected_iou
):
    assert float(dice_coef(truth, predicted)) == pytest.approx(expected_dice)
    assert float(iou(truth, predicted)) == pytest.approx(expected_iou)
    assert float(dice_loss(truth, predicted)) == pytest.approx(1 - expected_dice)


def test_the_batch_is_scored_as_one_mask_not_slice_by_slice():
    truth, predicted = np.stack([TRUTH, EMPTY]), np.stack([SHIFTED, FULL])
    assert float(dice_coef(truth, predicted)) == pytest.approx(3 / 14)  # (2*1+1)/(2+11+1)


def test_training_loss_is_mean_cross_entropy_of_probabilities_plus_dice_loss():
    # Nine probabilities of a half cost log 2 each, whatever the truth. Dice: (2*1+1)/(2+4.5+1).
    halves = np.full((3, 3), 0.5, np.float32)
    assert float(bce_dice_loss(TRUTH, halves)[0]) == pytest.approx(log(2) + 1 - 3 / 7.5)
    # Two tumour pixels at 0.9 and seven background pixels at 0.2; Dice (2*1.8+1)/(2+3.2+1).
    likely = np.where(TRUTH == 1, 0.9, 0.2).astype(np.float32)
    cross_entropy = -(2 * log(0.9) + 7 * log(0.8)) / 9
    assert float(bce_dice_loss(TRUTH, likely)[0]) == pytest.approx(cross_entropy + 1 - 4.6 / 6.2)


def test_training_loss_of_a_perfect_prediction_is_zero():
    # With the report's from_logits=True it could not fall below 0.6 here.
    assert float(bce_dice_loss(TRUTH, TRUTH)[0]) == pytest.approx(0, abs=1e-5)
    assert float(bce_dice_loss(EMPTY, EMPTY)[0]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("score", [dice_coef, iou])
def test_sums_over_16_bit_predictions_neither_overflow_nor_stall(score, dtype):
    # Two 256x256 slices, all tumour: the sum 131,072 is beyond float16 and bfloat16 alike.
    full = keras.ops.ones((2, 256, 256, 1), dtype)
    empty = keras.ops.zeros((2, 256, 256, 1), dtype)
    assert score(full, full).dtype == "float32"
    assert float(score(full, full)) == 1
    assert float(score(empty, full)) == pytest.approx(1 / 131_073)


@pytest.mark.parametrize("loss", [dice_loss, bce_dice_loss])
def test_losses_fall_along_their_gradient(loss):
    import tensorflow as tf

    probabilities = tf.Variable(np.full((3, 3), 0.4, np.float32))
    with tf.GradientTape() as tape:
        value = loss(TRUTH, probabilities)
    gradient = tape.gradient(value, probabilities).numpy()
    assert (gradient[TRUTH == 1] < 0).all() and (gradient[TRUTH == 0] > 0).all()


def pooled(truths, predictions):
    """Both pooled scores after one update a pair."""
    dice, union = PooledDice(), PooledIoU()
    for truth, predicted in zip(truths, predictions, strict=True):
        dice.update_state(truth, predicted)
        union.update_state(truth, predicted)
    return float(dice.result()), float(union.result())


@pytest.mark.parametrize(
    "truth, predicted, expected_dice, expected_iou",
    [
        (TRUTH, SHIFTED, 1 / 2, 1 / 3),
        (TRUTH, TRUTH, 1, 1),
        (TRUTH, UNSURE, 4 / 5, 2 / 3),  # the halves are above 0.30: both tumour pixels and one other
        (TRUTH, EMPTY, 0, 0),
        (EMPTY, FULL, 0, 0),
        (FULL, FULL, 1, 1),
        (TRUTH, FULL, 4 / 11, 2 / 9),
        (EMPTY, EMPTY, 0, 0),  # undefined, shown as 0
    ],
)
def test_pooled_scores_are_those_of_the_thresholded_masks_unsmoothed(
    truth, predicted, expected_dice, expected_iou
):
    assert pooled([truth], [predicted]) == pytest.approx((expected_dice, expected_iou))


def test_pooled_scores_count_over_all_batches_before_dividing():
    # Truth 2 + 9, predicted 2 + 9 + 0, shared 1 + 9: Dice 20/22, IoU 10/12.
    scores = pooled([TRUTH, FULL, EMPTY], [SHIFTED, FULL, EMPTY])
    assert scores == pytest.approx((20 / 22, 10 / 12))


def test_threshold_is_strict():
    at = np.full((3, 3), 0.30, np.float32)
    above = np.nextafter(at, np.float32(1))
    assert pooled([FULL], [at]) == (0, 0)
    assert pooled([FULL], [above]) == (1, 1)
    assert pooled([FULL / 2], [FULL]) == (0, 0)  # that of the truth is a half


def test_threshold_can_be_chosen():
    metric = PooledDice(threshold=0.6)
    metric.update_state(TRUTH, UNSURE)  # the halves no longer count
    assert float(metric.result()) == 0


@pytest.mark.parametrize("metric_class", [PooledDice, PooledIoU])
def test_the_result_has_the_dtype_that_was_asked_for(metric_class):
    assert (metric_class().result().dtype, metric_class(dtype="float64").result().dtype) == ("float32", "float64")


@pytest.mark.parametrize("metric_class", [PooledDice, PooledIoU])
def test_reset_forgets_what_was_counted(metric_class):
    metric = metric_class()
    metric.update_state(TRUTH, EMPTY)
    metric.reset_state()
    metric.update_state(TRUTH, TRUTH)
    assert float(metric.result()) == 1


def test_single_pixels_still_count_after_two_to_the_24():
    metric = PooledDice()
    metric.truth_pixels.assign(2**24)
    metric.update_state([1.0], [0.0])
    assert int(metric.truth_pixels.value) == 2**24 + 1  # a float32 sum stays at 2**24
    metric.truth_pixels.assign(2**31)
    metric.update_state([1.0], [0.0])
    assert int(metric.truth_pixels.value) == 2**31 + 1  # int32 ends below


def test_weights_are_refused_rather_than_ignored():
    with pytest.raises(ValueError, match="pooled_iou counts pixels"):
        PooledIoU().update_state(TRUTH, TRUTH, sample_weight=[1, 0, 1])


@pytest.fixture
def identity_model():
    """Gives back the 'probabilities' it is fed, so that evaluate() scores chosen masks."""
    inputs = keras.Input((3, 3, 1))
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    model.compile(
        loss=bce_dice_loss, metrics=[dice_coef, iou, PooledDice(), PooledIoU()], jit_compile=False
    )
    return model


def evaluated(model, batch_size):
    truth = np.stack([TRUTH, EMPTY, FULL, EMPTY])[..., None]
    predicted = np.stack([SHIFTED, EMPTY, FULL, TRUTH])[..., None]
    return model.evaluate(predicted, truth, batch_size=batch_size, verbose=0, return_dict=True)


def test_pooled_scores_do_not_depend_on_the_batch_size_and_the_reports_do(identity_model):
    by_size = {size: evaluated(identity_model, size) for size in (1, 2, 4)}
    # Truth 2+0+9+0, predicted 2+0+9+2, shared 1+0+9+0.
    for scores in by_size.values():
        assert scores["pooled_dice"] == pytest.approx(20 / 24)
        assert scores["pooled_iou"] == pytest.approx(10 / 14)
    # Smoothed, slice by slice: 3/5, 1, 1, 1/3. By pairs: 3/5 and 19/21. All at once: 21/25.
    assert by_size[1]["dice_coef"] == pytest.approx((3 / 5 + 1 + 1 + 1 / 3) / 4)
    assert by_size[2]["dice_coef"] == pytest.approx((3 / 5 + 19 / 21) / 2)
    assert by_size[4]["dice_coef"] == pytest.approx(21 / 25)


def test_a_saved_model_loads_with_its_loss_metrics_and_threshold(identity_model, tmp_path):
    before = evaluated(identity_model, 2)
    identity_model.compile(loss=bce_dice_loss, metrics=[dice_coef, iou, PooledDice(0.6), PooledIoU()])
    halved = np.stack([TRUTH])[..., None] / 2
    expected = identity_model.evaluate(halved, halved * 2, verbose=0, return_dict=True)
    assert expected["pooled_dice"] == 0 and before.keys() == expected.keys()
    identity_model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(halved, halved * 2, verbose=0, return_dict=True) == pytest.approx(expected)


def test_names_in_the_history_are_plain(identity_model):
    assert set(evaluated(identity_model, 4)) == {
        "loss", "dice_coef", "iou", "pooled_dice", "pooled_iou"
    }  # fmt: skip


def test_a_first_epoch_without_tumour_does_not_block_the_checkpoint_of_a_better_one(tmp_path):
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.weights.h5", monitor="pooled_dice", mode="max", save_best_only=True,
        save_weights_only=True,
    )  # fmt: skip
    checkpoint.set_model(keras.Sequential([keras.layers.Dense(1)]))
    checkpoint.model.build((None, 1))
    for epoch, (truth, predicted) in enumerate([(EMPTY, EMPTY), (TRUTH, SHIFTED)]):
        checkpoint.on_epoch_end(epoch, {"pooled_dice": pooled([truth], [predicted])[0]})
    assert checkpoint.best == 0.5


def test_importing_the_package_does_not_import_tensorflow():
    script = "import sys, lits_helpers; assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_public_function_and_metric_is_registered_under_the_package_name():
    for name in ("dice_coef", "iou", "dice_loss", "bce_dice_loss", "PooledDice", "PooledIoU"):
        assert keras.saving.get_registered_name(getattr(metrics, name)) == f"lits_helpers>{name}"


def test_two_devices_report_the_loss_of_one():
    # Splitting the CPU in two has to come before TensorFlow's first use: a process of its own.
    script = """
import keras, numpy as np, tensorflow as tf
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
from lits_helpers.metrics import PooledDice, bce_dice_loss
images = np.random.default_rng(0).random((8, 4, 4, 1), np.float32)
masks = np.repeat(np.eye(4, dtype=np.float32)[None, ..., None], 8, axis=0)
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        inputs = keras.Input((4, 4, 1))
        model = keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid",
            kernel_initializer="ones")(inputs))
        model.compile(loss=bce_dice_loss, metrics=[PooledDice()], jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((images, masks)).batch(8)
    print("SCORES", *model.evaluate(data, verbose=0))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    one, two = (
        [float(word) for word in line.split()[1:]]
        for line in done.stdout.splitlines()
        if line.startswith("SCORES")
    )
    # Dice of a batch is no mean over its halves, so the losses are near, not equal; counts are.
    assert two[0] == pytest.approx(one[0], rel=0.05)
    assert two[1] == pytest.approx(one[1], abs=1e-6)


def of_three(tumour):
    """(1, 3, 3, 3) classes: what is no tumour is liver in the first column, and background."""
    liver = (1 - tumour) * np.array([1, 0, 0], np.float32)
    return np.stack([1 - tumour - liver, liver, tumour], axis=-1)[None]


@pytest.mark.parametrize(
    ("truth", "predicted", "dice"),
    [
        (TRUTH, SHIFTED, 1 / 2), (TRUTH, UNSURE, 4 / 5), (TRUTH, EMPTY, 0), (EMPTY, FULL, 0), (EMPTY, EMPTY, 0),
        (FULL, FULL, 1),
    ],
)
def test_pooled_dice_of_three_classes_is_that_of_the_tumour_alone(truth, predicted, dice):
    metric = metrics.TumourDice()
    metric.update_state(of_three(truth), of_three(predicted))
    assert float(metric.result()) == pytest.approx(dice)


def test_the_tumours_dice_comes_back_with_a_network(tmp_path):
    model = keras.Sequential([keras.Input((3, 3, 3)), keras.layers.Softmax()])
    model.compile(loss="mse", metrics=[metrics.TumourDice(threshold=0.2)])
    logits, truth = 20 * of_three(SHIFTED), of_three(TRUTH)
    model.evaluate(logits, truth, verbose=0)  # else there is nothing compiled to be saved
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    found = loaded.evaluate(logits, truth, verbose=0, return_dict=True)
    assert found == pytest.approx({"loss": found["loss"], "pooled_dice": 1 / 2}, abs=1e-3)
