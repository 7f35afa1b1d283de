import dataclasses

import pytest

from lits_helpers import DataError, load_settings, settings


@pytest.fixture(autouse=True)
def off_kaggle(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "KAGGLE_INPUT", tmp_path / "kaggle" / "input")
    monkeypatch.setattr(settings, "KAGGLE_WORKING", tmp_path / "kaggle" / "working")
    monkeypatch.chdir(tmp_path)


def test_without_variables_it_is_the_tiny_profile_on_the_phantom(tmp_path):
    found = load_settings()
    assert (found.profile, found.data_source) == ("tiny", "phantom")
    assert found.output_root == tmp_path / "outputs"
    assert found.data_root == tmp_path / "outputs" / "phantom"
    assert found.is_synthetic and "synthetic" in found.data_label


def test_variables_are_read(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for name, value in (("PROFILE", "full"), ("DATA_ROOT", "data"), ("OUTPUT_ROOT", "out")):
        monkeypatch.setenv(f"LITS_{name}", value)
    found = load_settings()
    assert (found.profile, found.data_source) == ("full", "folder")
    assert (found.data_root, found.output_root) == (tmp_path / "data", tmp_path / "out")
    assert not found.is_synthetic and "synthetic" not in found.data_label


def test_the_full_profile_is_the_reports(tmp_path):
    found = load_settings(profile="full", data_root=tmp_path, output_root=tmp_path.parent / "out")
    assert (found.image_size, found.filters, found.depth) == (256, 64, 4)
    assert (found.batch_size, found.epochs, found.learning_rate) == (32, 55, 1e-4)
    assert (found.schedule, found.seed) == ("plateau", 32)


def test_the_full_profile_never_falls_back_on_the_phantom():
    with pytest.raises(DataError, match="LITS_DATA_ROOT"):
        load_settings(profile="full")


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("LITS_DATA_ROOT", "")
    assert load_settings().is_synthetic


def test_given_attributes_win(tmp_path):
    assert load_settings(epochs=3, output_root=tmp_path / "x").epochs == 3


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"profile": "huge"}, "LITS_PROFILE is 'huge'"),
        ({"data_root": "nowhere"}, "LITS_DATA_ROOT is 'nowhere'"),
        ({"epoch": 3}, r"unknown settings \['epoch'\]"),
        ({"data_root": ".", "output_root": "."}, "a folder of their own"),
        ({"data_root": ".", "output_root": "outputs"}, "a folder of their own"),
    ],
)
def test_a_wrong_choice_is_named(choice, words):
    with pytest.raises(DataError, match=words):
        load_settings(**choice)


@pytest.mark.parametrize("mounted", ["lits", "datasets/someone/lits/versions/1/train"])
def test_kaggle_data_is_found_at_any_depth(tmp_path, mounted):
    folder = tmp_path / "kaggle" / "input" / mounted
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "images" / "volume-3_slice_7.jpg").touch()
    (folder / "masks" / "volume-3_slice_7_mask.jpg").touch()
    (tmp_path / "kaggle" / "input" / "other").mkdir()
    found = load_settings()
    assert (found.data_source, found.data_root) == ("kaggle", folder)


def test_the_found_kaggle_folder_holds_all_that_have_slices(tmp_path):
    for part in ("one", "two"):
        folder = tmp_path / "kaggle" / "input" / "lits" / part / "images"
        folder.mkdir(parents=True)
        (folder / "volume-0_slice_0.PNG").touch()
    assert load_settings().data_root == tmp_path / "kaggle" / "input" / "lits"


def test_what_an_earlier_session_made_of_the_data_is_not_taken_for_data(tmp_path):
    mounted = tmp_path / "kaggle" / "input"
    (mounted / "earlier" / "runs").mkdir(parents=True)
    for folder in ("lits/images", "earlier/labels/0123/masks", "earlier/phantom/images"):
        (mounted / folder).mkdir(parents=True)
        (mounted / folder / "volume-1_slice_1.png").touch()
    assert load_settings().data_root == mounted / "lits" / "images"


def test_a_kaggle_input_with_slices_that_are_no_pictures_is_not_taken(tmp_path):
    (tmp_path / "kaggle" / "input" / "arrays").mkdir(parents=True)
    (tmp_path / "kaggle" / "input" / "arrays" / "volume-1_slice_1.h5").touch()
    assert load_settings().is_synthetic


@pytest.mark.parametrize("name", ["volume-7.nii", "segmentation-7.nii.gz", "liver_7.nii.gz", "volume-7_12.png"])
def test_volumes_and_other_slices_on_kaggle_are_found_too(tmp_path, name):
    folder = tmp_path / "kaggle" / "input" / "somebody" / "lits"
    folder.mkdir(parents=True)
    (folder / name).touch()
    assert load_settings().data_root == folder


def test_layout_and_meaning_of_masks_are_read_with_real_data_only(tmp_path, monkeypatch):
    monkeypatch.setenv("LITS_LAYOUT", "decathlon")
    monkeypatch.setenv("LITS_MASK_MEANING", "tumour")
    (tmp_path / "data").mkdir()
    found = load_settings(data_root=tmp_path / "data", output_root=tmp_path / "out")
    assert (found.layout, found.mask_meaning) == ("decathlon", "tumour")
    assert load_settings(output_root=tmp_path / "out").layout == "report-slices"


def test_a_named_data_root_goes_before_kaggles(tmp_path):
    for folder in ("kaggle/input/lits", "mine"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "volume-0_slice_0.jpg").touch()
    found = load_settings(data_root="mine")
    assert (found.data_source, found.data_root) == ("folder", tmp_path / "mine")


def test_a_kaggle_session_without_lits_uses_the_phantom_in_the_working_folder(tmp_path):
    (tmp_path / "kaggle" / "input" / "titanic").mkdir(parents=True)
    (tmp_path / "kaggle" / "working").mkdir()
    found = load_settings()
    assert found.is_synthetic and found.output_root == tmp_path / "kaggle" / "working"


def test_outputs_lie_beside_the_notebooks_folder_not_inside(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert load_settings().output_root == tmp_path / "outputs"


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings().epochs = 1


def test_printed_settings_name_every_value():
    printed = str(load_settings(epochs=77))
    assert all(field.name in printed for field in dataclasses.fields(settings.Settings))
    assert "77" in printed


def test_a_recipe_changes_the_profile_and_an_override_the_recipe(monkeypatch):
    assert load_settings().recipe == "report"
    small = dict(changes={"tiny": dict(filters=5, epochs=7)}, classes=3)
    monkeypatch.setitem(settings.RECIPES, "small", settings.RECIPES["report"].__class__("a small one", **small))
    found = load_settings(recipe="small", epochs=9)
    assert (found.recipe, found.filters, found.epochs) == ("small", 5, 9)
    assert found.image_size == settings.PROFILES["tiny"]["image_size"]


def test_the_recipe_is_read_from_the_environment_and_unknown_ones_are_refused(monkeypatch):
    monkeypatch.setenv("LITS_RECIPE", "fast")
    assert load_settings().recipe == "fast"
    assert load_settings(recipe="report").recipe == "report"
    monkeypatch.setenv("LITS_RECIPE", "slow")
    with pytest.raises(DataError, match="LITS_RECIPE is 'slow': set it to one of report, fast, strong"):
        load_settings()
