"""Surface distances of shapes whose distances are known, and MedPy's of shapes whose are not."""

import numpy as np
import pytest
import SimpleITK
from medpy.metric import binary
from scipy.ndimage import gaussian_filter

from lits_helpers.distances import SurfaceDistances, bounding_box, surface, surface_distances
from lits_helpers.files import DataError

SPACING = (5.0, 0.7, 0.8)
SHAPES = [(7, 9, 11), (20, 31, 33), (1, 9, 9), (9, 1, 7), (9, 7, 1)]


def volume(*filled, shape=(12, 12, 12)):
    """A mask that is True in one box."""
    mask = np.zeros(shape, bool)
    mask[filled] = True
    return mask


def blobs(shape, seed):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1)
    return noise > np.quantile(noise, 0.7)


def ball(radius, centre, spacing, shape):
    """Voxels whose centres lie in a ball; all in mm."""
    axes = [np.arange(size) * step - middle for size, step, middle in zip(shape, spacing, centre, strict=True)]
    return sum(axis**2 for axis in np.ix_(*axes)) <= radius**2


@pytest.mark.parametrize(("axis", "expected"), [(0, 4 * 5.0), (1, 4 * 0.7), (2, 4 * 0.8)])
def test_two_parallel_plates_are_as_far_apart_as_they_stand(axis, expected):
    plate = np.zeros((12, 12, 12), bool)
    plate[(slice(None),) * axis + (3,)] = True
    other = np.roll(plate, 4, axis)
    distances = surface_distances(plate, other, SPACING)
    for value in (distances.assd, distances.rmsd, distances.msd, distances.hd95):
        assert value == pytest.approx(expected)
