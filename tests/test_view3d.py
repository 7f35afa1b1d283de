import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from fitting import misfits

from lits_helpers import drawing, view3d
from lits_helpers.files import DataError

SPACING = (3.0, 1.0, 1.0)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def block(shape, *ranges):
    """True in a box: ``(first, last + 1)`` for slices, rows and columns."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*ends) for ends in ranges)] = True
    return mask


def ball(shape, spacing, radius):
    places = [(np.arange(length) - length // 2) * step for length, step in zip(shape, spacing)]
    s, r, c = np.meshgrid(*places, indexing="ij")
    return s**2 + r**2 + c**2 < radius**2


def enclosed(vertices, triangles):
    """Volume inside a closed surface, above 0 where its triangles turn anticlockwise from outside."""
    a, b, c = vertices[triangles].astype(np.float64).transpose(1, 0, 2)
    return np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6


# --- surfaces ---------------------------------------------------------------------------------


def test_an_empty_mask_has_no_surface():
    vertices, triangles = view3d.surface(np.zeros((4, 5, 6), bool), SPACING)
    assert vertices.shape == triangles.shape == (0, 3)


def test_the_surface_of_one_voxel_lies_half_a_voxel_around_it():
    vertices, _ = view3d.surface(block((5, 6, 7), (1, 2), (2, 3), (4, 5)), (2.0, 2.0, 2.0))
    assert vertices.min(axis=0) == pytest.approx([7, 3, 1])  # 2 mm times column 4, row 2, slice 1, less 1
    assert vertices.max(axis=0) == pytest.approx([9, 5, 3])


def test_the_surface_of_a_full_mask_goes_around_all_of_it():
    vertices, triangles = view3d.surface(np.ones((5, 7, 9), bool), (2.0, 2.0, 2.0))
    assert vertices.min(axis=0) == pytest.approx([-1, -1, -1])
    assert vertices.max(axis=0) == pytest.approx([17, 13, 9])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 0.9, 0.9)])
def test_a_ball_of_20_mm_keeps_its_volume_and_its_place_and_faces_outwards(spacing):
    shape = tuple(int(46 / step) | 1 for step in spacing)  # odd: the middle is a voxel
    vertices, triangles = view3d.surface(ball(shape, spacing, 20), spacing)
    assert enclosed(vertices, triangles) == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.06)
    middle = [length // 2 * step for length, step in zip(shape, spacing)][::-1]
    assert (vertices.min(axis=0) + vertices.max(axis=0)) / 2 == pytest.approx(middle, abs=0.5)


def test_a_large_volume_is_made_smaller_and_stays_where_it_is():
    mask = block((4, 480, 500), (1, 3), (31, 451), (40, 460))
    vertices, _ = view3d.surface(mask, (5.0, 0.5, 0.5))
    assert len(vertices) < 100_000
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    assert low[:2] == pytest.approx([19.75, 15.25], abs=1) and high[:2] == pytest.approx([229.75, 225.25], abs=1)


def test_one_voxel_far_from_a_large_liver_is_not_lost_when_the_volume_is_made_smaller():
    liver, lesion = block((40, 400, 400), (0, 30), (0, 300), (0, 300)), block((40, 400, 400), (37, 38), (391, 392), (377, 378))
    grid = view3d._Grid(view3d._box([liver, lesion]), (1.0, 1.0, 1.0))
    assert max(grid.factors) > 1
    distance = grid.distance(lesion)
    assert np.count_nonzero(distance > 0) >= 1
    place = np.argwhere(distance > 0).mean(axis=0) * grid.step + grid.origin
    assert place == pytest.approx([37, 391, 377], abs=max(grid.factors))


@pytest.mark.parametrize("spacing", [None, (np.nan, 1, 1), (5, 0, 1), (1, 1)])
def test_without_a_spacing_there_is_no_view(spacing):
    with pytest.raises(DataError, match="spacing"):
        view3d.rendering3d(np.ones((3, 4, 5), bool), spacing=spacing)


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="3, 4, 5"):
        view3d.rendering3d(np.ones((3, 4, 5), bool), np.ones((3, 4, 6), bool), spacing=SPACING)


# --- to be turned by hand ---------------------------------------------------------------------


def small_case():
    liver = block((12, 30, 40), (2, 10), (5, 25), (4, 36))
    return liver, block(liver.shape, (4, 7), (8, 14), (8, 16)), block(liver.shape, (4, 6), (9, 14), (8, 15))


def test_the_view_holds_truth_prediction_and_liver_in_their_colours():
    plot = view3d.view3d(*small_case(), spacing=SPACING)
    looks = {mesh.name: (f"#{mesh.color:06X}", mesh.opacity) for mesh in plot.objects}
    assert list(looks) == ["truth", "prediction", "liver"]
    assert looks["truth"] == (drawing.TUMOUR_COLOUR, 1) and looks["liver"][0] == drawing.LIVER_COLOUR
    assert looks["liver"][1] < 0.5
    truth = plot.objects[0].vertices
    assert truth.min(axis=0) == pytest.approx([7.5, 7.5, 10.5], abs=1)  # columns 8.., rows 8.., slices 4.. of 3 mm
    assert truth.max(axis=0) == pytest.approx([15.5, 13.5, 19.5], abs=1)


def test_what_is_empty_or_not_given_is_left_out_of_the_view():
    liver, truth, _ = small_case()
    assert [mesh.name for mesh in view3d.view3d(liver, truth & False, spacing=SPACING).objects] == ["liver"]


def test_the_view_is_seen_from_the_front_with_the_head_up():
    camera = view3d.view3d(*small_case(), spacing=SPACING).camera
    place, target, up = np.reshape(camera, (3, 3))
    assert target == pytest.approx([19.5, 14.5, 16.5])  # the liver's middle: columns, rows, slices of 3 mm
    assert place[1] < 0 and up.tolist() == [0, 0, 1]


@pytest.mark.parametrize("package", ["k3d", "skimage.measure"])
def test_a_missing_extra_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=r"lits-helpers\[survey"):
        view3d.view3d(*small_case(), spacing=SPACING)


# --- still picture ----------------------------------------------------------------------------


def places(panel):
    """Mean place of liver-coloured and of tumour-coloured pixels: (right, down) in mm from the middle."""
    picture = panel.images[0].get_array()
    left, right, bottom, top = panel.images[0].get_extent()
    red, blue = picture[..., 0], picture[..., 2]
    found = {}
    for name, pixels in (("tumour", red > blue + 0.1), ("liver", blue > red + 0.02)):
        rows, columns = np.nonzero(pixels)
        height, width = picture.shape[:2]
        found[name] = (
            left + (columns.mean() + 0.5) / width * (right - left) if len(columns) else np.nan,
            top + (rows.mean() + 0.5) / height * (bottom - top) if len(rows) else np.nan,
        )
    return found


@pytest.mark.parametrize(
    ("ranges", "front", "left", "feet"),
    [  # slices from the feet, rows from the front, columns from the right; (right, down) in each picture
        (((4, 8), (18, 22), (4, 8)), (-1, 0), (0, 0), (-1, 0)),  # the patient's right: left, but from the left
        (((4, 8), (4, 8), (18, 22)), (0, 0), (-1, 0), (0, -1)),  # in front
        (((9, 12), (18, 22), (18, 22)), (0, -1), (0, -1), (0, 0)),  # towards the head
    ],
    ids=["right", "front", "head"],
)
def test_a_tumour_is_shown_on_the_side_where_it_lies(ranges, front, left, feet):
    shape = (12, 40, 40)
    figure = view3d.rendering3d(block(shape, (0, 12), (0, 40), (0, 40)), block(shape, *ranges), spacing=SPACING)
    for panel, expected in zip(figure.axes, (front, left, feet), strict=True):
        right, down = places(panel)["tumour"]
        assert (round(right / 12), round(down / 12)) == expected


def test_sides_are_named_and_the_first_row_has_titles_and_a_scale():
    figure = view3d.rendering3d(*small_case(), spacing=SPACING)
    words = [[text.get_text() for text in panel.texts] for panel in figure.axes]
    assert words == [list("RLHF"), list("APHF"), [*"RLAP", "10 mm"], list("RLHF"), list("APHF"), list("RLAP")]
    assert [panel.get_title() for panel in figure.axes[:3]] == ["From the front", "From the left", "From the feet"]


def test_no_side_is_named_where_none_is_known():
    figure = view3d.rendering3d(*small_case(), spacing=SPACING, is_oriented=False)
    assert [[text.get_text() for text in panel.texts] for panel in figure.axes[:3]] == [[], [], ["10 mm"]]
    assert [panel.get_title() for panel in figure.axes[:3]] == ["View 1", "View 2", "View 3"]


def test_each_row_says_how_much_tumour_it_shows():
    liver, truth, _ = small_case()
    figure = view3d.rendering3d(liver, truth, truth & False, spacing=SPACING)
    # 3 x 6 x 8 voxels of 3 mm3.
    assert [panel.get_ylabel() for panel in figure.axes[::3]] == ["Truth: 0.4 ml", "Prediction: no tumour"]
    assert np.isnan(places(figure.axes[3])["tumour"]).all()


def test_a_liver_alone_has_one_row_and_its_own_volume():
    figure = view3d.rendering3d(np.ones((10, 20, 50), bool), spacing=(1.0, 1.0, 1.0))
    assert [panel.get_ylabel() for panel in figure.axes] == ["Liver: 10.0 ml", "", ""]


def test_thick_slices_are_shown_in_their_true_proportion():
    figure = view3d.rendering3d(np.ones((10, 20, 50), bool), spacing=(5.0, 1.0, 1.0))  # 50 x 20 x 50 mm
    extents = [panel.images[0].get_extent() for panel in figure.axes]
    sizes = [(right - left, bottom - top) for left, right, bottom, top in extents]
    between_slices, others = 55.5, 1.5  # with half an empty block at either end, of 5 and of 1 mm
    assert sizes[0] == pytest.approx((50 + others, between_slices), abs=1)
    assert sizes[1] == pytest.approx((20 + others, between_slices), abs=1)
    assert sizes[2] == pytest.approx((50 + others, 20 + others), abs=1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5), (3, 5, 7)])
@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks_of_odd_sizes_are_drawn(shape, value):
    mask = np.full(shape, value)
    figure = view3d.rendering3d(mask, mask, mask, spacing=SPACING)
    assert np.isnan(places(figure.axes[0])["tumour"]).all() != value


def test_one_voxel_of_tumour_is_seen_in_every_view_of_a_large_liver():
    liver = block((30, 300, 300), (0, 30), (0, 300), (0, 300))
    lesion = block(liver.shape, (14, 15), (151, 152), (143, 144))
    figure = view3d.rendering3d(liver, lesion, spacing=(5.0, 0.8, 0.8))
    assert np.isfinite([places(panel)["tumour"] for panel in figure.axes]).all()


def test_words_are_large_enough_inside_the_figure_and_apart():
    assert misfits(view3d.rendering3d(*small_case(), spacing=SPACING)) == []
