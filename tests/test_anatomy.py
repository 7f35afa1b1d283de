"""Shapes of the phantom, checked where geometry tells what they must be."""

import numpy as np
import pytest

from lits_helpers.anatomy import Canvas, Ellipsoid, draw_anatomy


@pytest.fixture(scope="module")
def patient():
    return draw_anatomy(3, early=False)


@pytest.fixture(scope="module")
def middle(patient):
    """An unpainted slice half way up the liver, in 128x128."""
    return Canvas(patient, int(np.abs(patient.heights - 0.5).argmin()), 128)


def test_the_same_seed_draws_the_same_patient_and_another_a_different_one(patient):
    assert draw_anatomy(3, early=False).width == patient.width
    assert draw_anatomy(4, early=False).width != patient.width


@pytest.mark.parametrize("seed", range(6))
def test_an_early_scan_shows_a_darker_liver(seed):
    assert draw_anatomy(seed, early=True).liver < 77 < draw_anatomy(seed, early=False).liver


def test_slices_cover_the_liver_and_go_beyond_both_ends(patient):
    assert patient.heights[1] < 0 and patient.heights[-1] > 1
    assert np.diff(patient.heights) == pytest.approx(np.diff(patient.heights)[0])
    assert 5 < patient.between_slices < 8.1


def test_a_place_in_mm_and_its_pixel_agree(middle):
    column, row = middle.pixels(10.0, -20.0)
    nearest = np.rint([row, column]).astype(int)
    assert abs(middle.flat_x[tuple(nearest)] - 10) <= middle.pixel
    assert abs(middle.flat_y[tuple(nearest)] + 20) <= middle.pixel


def test_an_ellipsoid_is_cut_smaller_away_from_its_centre_and_not_beyond_its_end(patient):
    ball = Ellipsoid(0, 0, 0.5, 0.2, 0.2, 0.3)
    areas = []
    for t in (0.5, 0.7, 0.9):
        number = int(np.abs(patient.heights - t).argmin())
        areas.append((Canvas(patient, number, 128).distance(ball)[1] < 0).sum())
    assert areas[0] > areas[1] > 0 and areas[2] == 0


def test_paint_covers_the_inside_and_leaves_the_outside(middle):
    canvas = Canvas(middle.patient, 5, 64)
    before = canvas.hu.copy()
    distance = np.hypot(canvas.flat_x, canvas.flat_y) - 40
    canvas.paint(distance, 55)
    assert (canvas.hu[distance < -canvas.pixel] == 55).all()
    assert (canvas.hu[distance > canvas.pixel] == before[distance > canvas.pixel]).all()


def test_gas_lies_above_the_fluid(middle):
    canvas = Canvas(middle.patient, 5, 128)
    t = canvas.t
    canvas.ellipsoid(Ellipsoid(0, 0, t, 0.3, 0.3, 0.5, hu=10, grain=0, level=0.0))
    filled = canvas.hu > -1000
    rows = np.nonzero(canvas.hu[filled.any(1)].mean(1))[0]
    above = canvas.hu[(canvas.flat_y < -10) & (canvas.hu > -999)]
    below = canvas.hu[(canvas.flat_y > 10) & (canvas.hu > -999)]
    assert len(rows) and np.median(above) < -800 and np.median(below) > 0


def test_the_liver_stays_inside_the_wall_and_clear_of_the_gall_bladder(middle):
    liver = middle.liver() < 0
    assert liver.any() and (middle.cavity[liver] < 0).all()
    box, distance = middle.distance(middle.patient.gall_bladder)
    assert not (liver[box] & (distance < 0)).any()


def test_a_scan_is_whole_hounsfield_units_in_a_round_field(middle):
    scan = Canvas(middle.patient, 5, 64).scanned()
    assert scan.dtype == np.int16 and scan.shape == (64, 64)
    assert scan[0, 0] == scan[-1, -1] == -1024 and scan[32, 32] > -1024
