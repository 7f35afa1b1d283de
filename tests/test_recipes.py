import dataclasses

import pytest

from lits_helpers.model_size import check_sizes
from lits_helpers.recipes import RECIPES
from lits_helpers.settings import PROFILES, Settings


def test_the_report_is_a_recipe_that_changes_nothing():
    report = RECIPES["report"]
    assert (report.classes, report.changes, report.cascade) == (1, {}, False)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_in_a_line_and_changes_only_what_there_is(name):
    recipe = RECIPES[name]
    assert recipe.words and "\n" not in recipe.words and len(recipe.words) < 120
    assert recipe.classes in (1, 3)
    assert set(recipe.changes) <= set(PROFILES)
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert all(set(changed) <= fields for changed in recipe.changes.values())


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_slices_can_be_halved_as_often_as_its_network_does(name, profile):
    chosen = {**PROFILES[profile], **RECIPES[name].changes.get(profile, {})}
    stem = RECIPES[name].classes > 1  # halves once more
    size = chosen["image_size"]
    check_sizes((size, size, 3), halvings=chosen["depth"] + stem, filters=chosen["filters"])


def test_only_the_strong_recipe_trains_two_networks():
    assert [name for name, recipe in RECIPES.items() if recipe.cascade] == ["strong"]


def test_a_recipe_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["report"].classes = 3
