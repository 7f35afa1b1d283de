"""Rungs: choices that go together, one step each, and the networks that follow from them."""

from dataclasses import replace

import numpy as np
import pytest

from lits_helpers.cascade import AUGMENTATIONS
from lits_helpers.rungs import ALTERNATIVES, LADDER, Rung
from lits_helpers.settings import load_settings

REGION = Rung("region", "three classes", classes=3, loss="class", block="plain", region=True)


@pytest.fixture
def settings(tmp_path):
    return load_settings(output_root=tmp_path, image_size=32, filters=2, depth=1)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (dict(classes=3), "one class goes with the report's loss"),
        (dict(loss="dice", block="plain"), "one class goes with the report's loss"),
        (dict(loss="hinge", classes=3, block="plain"), "loss is 'hinge': choose from"),
        (dict(classes=3, loss="dice"), "the report's network has one class"),
        (dict(stem=2), "the report's network has one class and no stem"),
        (dict(region=True, block="plain"), "tells three classes apart"),
        (dict(neighbours=True), "are those of the liver's region"),
        (dict(lesions=True), "are those of the liver's region"),
        (dict(distractors=True), "are those of the liver's region"),
        (dict(windows=True), "are those of the liver's region"),
    ],
)
def test_a_rung_whose_choices_do_not_go_together_is_refused(choices, words):
    with pytest.raises(ValueError, match=words):
        Rung("wrong", "", **choices)


def test_the_first_rung_is_the_reports_network_with_its_parameters(settings):
    whole = replace(LADDER[0], filters=64, depth=4)
    assert whole.network(settings).count_params() == 31_043_521  # section 4.3 of the report
    assert LADDER[0].augmentation.noise == 0 and LADDER[0].augmentation.lesions == 0
    assert LADDER[0].threshold == 0.30


def test_each_rung_of_the_ladder_differs_from_the_one_before_in_one_step():
    steps = [
        {name for name, value in vars(rung).items() if value != vars(before)[name]} - {"name", "words"}
        for before, rung in zip(LADDER, LADDER[1:])
    ]
    # Three classes need a loss of their own.
    assert steps == [
        {"block"}, {"classes", "loss"}, {"stem"}, {"region"}, {"neighbours"}, {"by_volume"}, {"intensity"},
        {"lesions"}, {"distractors"}, {"windows"}, {"flips"},
    ]
    alternatives = [
        {name for name, value in vars(rung).items() if value != vars(LADDER[-2])[name]} - {"name", "words"}
        for rung in ALTERNATIVES
    ]
    assert all(len(changed) == 1 for changed in alternatives)


@pytest.mark.parametrize(("neighbours", "sees"), [(False, {1}), (True, {0, 1, 2})])
def test_a_region_network_without_neighbours_sees_the_slice_alone(settings, neighbours, sees):
    network = replace(REGION, neighbours=neighbours).network(settings)
    random = np.random.default_rng(0)
    picture = random.random((1, 32, 32, 3), np.float32)
    answer = network.predict_on_batch(picture)
    assert answer.shape == (1, 32, 32, 3)
    matters = set()
    for channel in range(3):
        other = picture.copy()
        other[..., channel] = random.random((1, 32, 32), np.float32)
        if not np.allclose(network.predict_on_batch(other), answer):
            matters.add(channel)
    assert matters == sees


def test_lesions_distractors_and_intensity_are_switched_apart():
    strong = AUGMENTATIONS["tumour"]
    for name in ("lesions", "distractors"):
        changed = {name: getattr(strong, name)}
        assert changed[name] > 0
        assert replace(REGION, **{name: True}).augmentation == replace(REGION.augmentation, **changed)
    intensity = replace(REGION, intensity=True).augmentation
    assert (intensity.lesions, intensity.distractors) == (0, 0) and intensity.noise > 0
    assert replace(REGION, intensity=True, lesions=True, distractors=True).augmentation == strong
