import contextlib
import json

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fitting import misfits
from matplotlib.colors import to_rgb, to_rgba

from lits_helpers import conversion, drawing
from lits_helpers.volumes import Geometry, write_nifti

BLANK = np.zeros((16, 16, 3), np.uint8)
LIVER_AND_TUMOUR = np.zeros((16, 16), np.uint8)
LIVER_AND_TUMOUR[2:12, 1:9], LIVER_AND_TUMOUR[4:7, 3:5] = 1, 2


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def test_the_outline_of_one_pixel_is_its_four_edges():
    mask = np.zeros((5, 7), bool)
    mask[3, 2] = True
    edges = {frozenset(map(tuple, edge)) for edge in drawing.outline(mask).tolist()}
    left, right, top, bottom = 1.5, 2.5, 2.5, 3.5
    assert edges == {
        frozenset({(left, top), (right, top)}),
        frozenset({(left, bottom), (right, bottom)}),
        frozenset({(left, top), (left, bottom)}),
        frozenset({(right, top), (right, bottom)}),
    }


def test_a_mask_that_fills_the_picture_is_outlined_along_its_border():
    edges = drawing.outline(np.ones((3, 5), bool))
    assert len(edges) == 2 * (3 + 5)
    assert edges.reshape(-1, 2).min(axis=0).tolist() == [-0.5, -0.5]
    assert edges.reshape(-1, 2).max(axis=0).tolist() == [4.5, 2.5]


def test_a_hole_in_a_mask_is_outlined_too():
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    assert len(drawing.outline(mask)) == 20 + 4


def test_an_empty_mask_has_no_outline():
    assert drawing.outline(np.zeros((4, 4), bool)).shape == (0, 2, 2)


def test_the_liver_outline_goes_around_liver_and_tumour_and_the_tumour_has_its_own():
    _, axes = plt.subplots()
    drawing.outlined(axes, BLANK, LIVER_AND_TUMOUR)
    liver, tumour = axes.collections
    assert len(liver.get_segments()) == 2 * (10 + 8)
    assert len(tumour.get_segments()) == 2 * (3 + 2)
    assert tuple(liver.get_edgecolor()[0]) == to_rgba(drawing.LIVER_COLOUR)
    assert tuple(tumour.get_edgecolor()[0]) == to_rgba(drawing.TUMOUR_COLOUR)


def test_an_outline_at_the_border_leaves_the_picture_its_size():
    _, axes = plt.subplots()
    drawing.outlined(axes, BLANK, np.ones((16, 16), np.uint8))
    assert axes.get_xlim() == (-0.5, 15.5)
    assert axes.get_ylim() == (15.5, -0.5)


def test_a_slice_is_drawn_in_grey_from_its_green_channel_with_equal_aspect():
    _, axes = plt.subplots()
    image = np.dstack([np.full((4, 6), level, np.uint8) for level in (10, 20, 30)])
    drawing.show_ct(axes, image)
    (shown,) = axes.images
    assert (shown.get_array() == 20).all()
    assert (shown.get_cmap().name, *shown.get_clim()) == ("gray", 0, 255)
    assert axes.get_aspect() == 1


def test_an_image_that_is_not_uint8_is_refused_by_its_type():
    _, axes = plt.subplots()
    with pytest.raises(ValueError, match="float32"):
        drawing.show_ct(axes, np.zeros((4, 4), np.float32))


def test_each_kind_of_error_has_its_colour_and_the_rest_is_transparent():
    truth = np.array([[True, True], [False, False]])
    predicted = np.array([[True, False], [True, False]])
    colours = drawing.error_map(truth, predicted)
    assert tuple(colours[0, 0]) == to_rgba(drawing.ERROR_COLOURS["found"])
    assert tuple(colours[0, 1]) == to_rgba(drawing.ERROR_COLOURS["missed"])
    assert tuple(colours[1, 0]) == to_rgba(drawing.ERROR_COLOURS["false positive"])
    assert colours[1, 1, 3] == 0


# Colour vision without one kind of cone: Machado, Oliveira and Fernandes (2009), severity 1.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def cielab(colour, vision):
    red_green_blue = np.array(to_rgb(colour))
    linear = np.where(
        red_green_blue <= 0.04045, red_green_blue / 12.92, ((red_green_blue + 0.055) / 1.055) ** 2.4
    )
    seen = np.clip(np.array(VISIONS[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.array(to_xyz) @ seen / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize(
    ("colours", "apart"),
    [(drawing.MASK_COLOURS, 80), (drawing.ERROR_COLOURS, 60), (drawing.DIAGNOSIS_COLOURS, 25)],
    ids=["masks", "errors", "diagnoses"],
)
def test_colours_stay_apart_for_the_colour_blind(colours, apart, vision):
    seen = [cielab(colour, vision) for colour in colours.values()]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > apart


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("name", drawing.MASK_COLOURS)
def test_an_outline_is_no_grey_of_a_ct_to_the_colour_blind(name, vision):
    seen = cielab(drawing.MASK_COLOURS[name], vision)
    greys = [cielab((level, level, level), vision) for level in np.linspace(0, 1, 52)]
    assert min(np.linalg.norm(seen - grey) for grey in greys) > 25


# --- theme ------------------------------------------------------------------------------------


def test_the_theme_holds_within_a_figure_function_and_nowhere_else():
    before = dict(plt.rcParams)
    seen = drawing.styled(lambda: {name: plt.rcParams[name] for name in drawing.THEME})()
    assert seen == drawing.THEME and seen != {name: before[name] for name in drawing.THEME}
    assert dict(plt.rcParams) == before


def test_words_that_touch_leave_the_figure_or_are_tiny_are_found():
    figure = plt.figure(figsize=(4, 2))
    figure.text(0.1, 0.5, "one word")
    figure.text(0.15, 0.5, "another")
    figure.text(0.9, 0.1, "over the edge", fontsize=5)
    assert misfits(figure) == [
        "'over the edge' has 5 points", "'over the edge' is cut off", "'one word' lies over 'another'",
    ]


# --- scale and sides --------------------------------------------------------------------------


def marked(marks, shape=(40, 100)):
    _, axes = plt.subplots()
    drawing.show_ct(axes, np.zeros(shape, np.uint8))
    drawing.draw_marks(axes, marks)
    return axes


def words_at(axes):
    return {text.get_text(): text.get_position()[0] for text in axes.texts}


@pytest.mark.parametrize(("width", "length"), [(350, 100), (100, 20), (160, 50), (3, 1), (2.9, 0.5), (0.4, 0.1)])
def test_a_bar_is_a_round_number_of_mm_within_a_third_of_the_width(width, length):
    assert drawing.bar_length(width) == pytest.approx(length)


def test_a_bar_of_10_mm_is_20_pixels_of_half_a_mm():
    axes = marked(drawing.Marks(0.5, 0.5))  # 100 columns: 50 mm, a third of which is 16.7
    (bar,) = axes.lines
    start, end = bar.get_xdata()
    assert end - start == pytest.approx(20)
    assert 50 < start < end < 99.5
    assert set(words_at(axes)) == {"10 mm"}


@pytest.mark.parametrize(("rows", "columns", "edges"), [
    (slice(4, 6), slice(7, 8), (2.5, 5.0)),  # middle 4.5 and 7: 2 above, 2 to the left
    (slice(0, 1), slice(11, 12), (-0.5, 7.5)),  # at a corner of 10 by 12 pixels
    (slice(0, 0), slice(0, 0), (2.5, 3.5)),  # empty: about the middle, 4.5 and 5.5
])
def test_a_window_lies_about_a_mask_and_within_the_picture(rows, columns, edges):
    mask = np.zeros((10, 12), bool)
    mask[rows, columns] = True
    assert drawing.window_about(mask, 4, 4) == edges


def test_a_bar_fits_what_the_axes_show_enlarged():
    _, axes = plt.subplots()
    drawing.show_ct(axes, np.zeros((100, 100), np.uint8))
    axes.set(xlim=(10, 30), ylim=(30, 10))
    drawing.draw_marks(axes, drawing.Marks(0.5, 0.5))  # 10 mm are seen
    start, end = axes.lines[0].get_xdata()
    assert end - start == pytest.approx(4) and 10 < start < end < 30  # 2 mm
    assert axes.get_xlim() == (10, 30)


def test_sides_are_marked_the_radiological_way_the_patients_right_on_the_left():
    assert words_at(marked(drawing.Marks(is_radiological=True))) == {"R": 0.02, "L": 0.98}


@pytest.mark.parametrize("spacing", [(np.nan, np.nan), (np.nan, 0.7), (0.7, np.nan)])
def test_what_is_not_known_is_not_drawn(spacing):
    axes = marked(drawing.Marks(*spacing))
    assert len(axes.texts) == len(axes.lines) == 0
    assert axes.get_aspect() == 1


def test_pixels_twice_as_high_as_wide_are_drawn_so():
    assert marked(drawing.Marks(row_mm=1.6, column_mm=0.8)).get_aspect() == pytest.approx(2)


def test_marks_leave_the_picture_its_limits():
    axes = marked(drawing.Marks(0.5, 0.5, True))
    assert axes.get_xlim() == (-0.5, 99.5) and axes.get_ylim() == (39.5, -0.5)


def test_a_volume_is_marked_by_its_geometry():
    geometry = Geometry((10, 20, 5), np.diag([-0.7, -0.8, 5, 1]))
    assert drawing.volume_marks(geometry) == drawing.Marks(pytest.approx(0.8), pytest.approx(0.7), True)


def test_a_volume_whose_header_says_nothing_is_not_marked():
    marks = drawing.volume_marks(Geometry((10, 20, 5), np.diag([-1.0, -1, 1, 1])))
    assert np.isnan([marks.row_mm, marks.column_mm]).all() and not marks.is_radiological


def converted_rows(tmp_path, affine_is_known=True):
    """The slice table's columns of a volume of two slices, converted by this package."""
    spacing = (5, 0.8, 0.7) if affine_is_known else (1, 1, 1)
    for name, dtype in (("volume-7.nii", np.int16), ("segmentation-7.nii", np.uint8)):
        write_nifti(tmp_path / name, np.zeros((2, 32, 32), dtype), spacing)
    case = {"volume": 7, "image_path": str(tmp_path / "volume-7.nii"), "image_series": "", "mask_series": ""}
    case["mask_path"] = str(tmp_path / "segmentation-7.nii")
    with pytest.warns(UserWarning) if not affine_is_known else contextlib.nullcontext():
        conversion.convert_volumes(pd.DataFrame([case]), tmp_path / "slices")
    image, _ = conversion.slice_paths(tmp_path / "slices", 7, 1, ".png")
    assert image.exists()
    known = {"row_mm": 0.8, "column_mm": 0.7} if affine_is_known else {"row_mm": np.nan, "column_mm": np.nan}
    return pd.DataFrame([{"image_path": str(image), "volume": 7, "slice": 1, **known}])


def test_slices_that_this_package_converted_have_scale_and_sides(tmp_path):
    assert drawing.slice_marks(converted_rows(tmp_path)) == [drawing.Marks(0.8, 0.7, True)]


def test_slices_converted_from_a_volume_without_orientation_have_no_sides(tmp_path):
    (marks,) = drawing.slice_marks(converted_rows(tmp_path, affine_is_known=False))
    assert not marks.is_radiological and np.isnan(marks.row_mm)


def test_other_peoples_slices_have_no_sides_and_no_scale_without_spacing(table):
    assert "row_mm" not in table or table.row_mm.isna().all()
    marks = drawing.slice_marks(table[:3])
    assert len(marks) == 3
    assert not any(one.is_radiological or np.isfinite(one.row_mm) for one in marks)


def test_other_peoples_slices_with_a_spacing_have_a_scale_and_no_sides(table):
    rows = table[:1].assign(row_mm=0.8, column_mm=0.7)
    assert drawing.slice_marks(rows) == [drawing.Marks(0.8, 0.7, False)]


def test_slices_of_the_phantom_have_sides(table, slice_folder):
    (slice_folder / "phantom.json").write_text(json.dumps({"about": "synthetic"}))
    assert drawing.slice_marks(table[:1])[0].is_radiological


def test_a_file_elsewhere_below_the_phantom_has_no_sides(table, slice_folder):
    (slice_folder / "phantom.json").write_text(json.dumps({"about": "synthetic"}))
    moved = table[:1].assign(image_path=str(slice_folder / "images" / "turned" / "volume-0_slice_0.jpg"))
    assert not drawing.slice_marks(moved)[0].is_radiological
