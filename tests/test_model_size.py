"""Arithmetic against networks that Keras has built."""

import math

import pytest

from lits_helpers.model import unet
from lits_helpers.model_size import unet_levels, unet_memory


def total(levels):
    return levels.encoder.sum() + levels.decoder.sum()


@pytest.mark.parametrize(("size", "filters", "depth", "channels"), [
    (32, 4, 1, 3), (48, 5, 2, 3), (96, 16, 3, 3), (32, 2, 4, 1), (24, 1, 3, 7),
])
def test_parameters_and_values_are_those_of_the_built_network(size, filters, depth, channels):
    model = unet((size, size, channels), filters=filters, depth=depth)
    levels = unet_levels(size, filters=filters, depth=depth, channels=channels)
    assert total(levels) == model.count_params()
    fixed = sum(math.prod(weight.shape) for weight in model.non_trainable_weights)
    assert levels.fixed.sum() == fixed
    values = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
    assert levels["values"].sum() == values


def test_each_level_counts_the_layers_of_its_size():
    model = unet((32, 32, 3), filters=4, depth=2)
    levels = unet_levels(32, filters=4, depth=2)
    for row in levels.itertuples():
        [size] = {32 // 2**row.level}
        here = [layer for layer in model.layers if layer.output.shape[1] == size]
        assert row.encoder + row.decoder == sum(layer.count_params() for layer in here)


def test_the_reports_network_has_31_million_parameters():
    levels = unet_levels()
    assert total(levels) == 31_043_521
    assert levels["size"].tolist() == [256, 128, 64, 32, 16]
    assert levels.filters.tolist() == [64, 128, 256, 512, 1024]


def test_weights_take_four_bytes_each_and_training_sixteen_and_the_values_of_a_batch():
    levels = unet_levels(32, filters=4, depth=1)
    # Down: 3->4: 112, 4->4: 148, 4 x 4. Bottom: 4->8: 296, 8->8: 584, 4 x 8. Up: 8->4 by 2x2: 132,
    # 8->4: 292, 4->4: 148, 4 x 4; last 5. Half of each normalisation is not trained: 8 + 16 + 8.
    parameters, fixed = 112 + 148 + 16 + 296 + 584 + 32 + 132 + 292 + 148 + 16 + 5, 8 + 16 + 8
    # Of 32x32: slice 3, down 5 x 4, up 4 + 8 + 5 x 4, out 1. Of 16x16: pooled 4, bottom 5 x 8.
    values = 32 * 32 * (3 + 20 + 32 + 1) + 16 * 16 * (4 + 40)
    memory = unet_memory(levels, batch_size=2)
    assert memory["weights"] == pytest.approx(4 * parameters / 1e6)
    assert memory["training"] == pytest.approx((4 * parameters + 12 * (parameters - fixed) + 8 * values) / 1e6)


def test_sizes_that_cannot_be_halved_are_refused_with_those_near():
    with pytest.raises(ValueError, match="496 or 512"):
        unet_levels(500, depth=4)
    with pytest.raises(ValueError, match="use 64"):
        unet_levels(63, depth=6)


@pytest.mark.parametrize(
    ("wrong", "named"), [("image_size", "rows"), ("filters", "filters"), ("depth", "depth"), ("channels", "channels")]
)
def test_a_size_of_zero_is_refused(wrong, named):
    with pytest.raises(ValueError, match=f"{named} must be a whole number of at least 1, got 0"):
        unet_levels(**{wrong: 0})
