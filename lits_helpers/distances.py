"""Distances between the surfaces of two masks, in mm.

The surface of a mask is made of its voxels that have a neighbour outside it; beyond the volume's
border is outside. Distances run between voxel centres. A mask that is empty has no surface, and
two masks of which one is empty have no distance: NaN, to be left out and counted by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt, generate_binary_structure

from .files import DataError

# Neighbours in 3D, and the connectivity rank of SciPy's structure that says so: faces, edges, corners. In a
# slice these are 4, 8 and 8 neighbours.
NEIGHBOURS = {6: 1, 18: 2, 26: 3}


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Nearest distances between two surfaces; made by :func:`surface_distances`.

    Attributes
    ----------
    to_predicted : float64 array (surface voxels of the truth,)
        From each surface voxel of the truth to the surface of the prediction, in mm.
    to_truth : float64 array (surface voxels of the prediction,)
        The other way. Both are empty where one mask is.

    References
    ----------
    Heimann et al., "Comparison and evaluation of methods for liver segmentation from CT
    datasets", IEEE Transactions on Medical Imaging 28 (2009) 1251: ASSD, RMSD and MSD.
    """

    to_predicted: np.ndarray
    to_truth: np.ndarray

    @property
    def both(self) -> np.ndarray:
        """All distances of both directions, in mm."""
        return np.concatenate([self.to_predicted, self.to_truth])

    @property
    def assd(self) -> float:
        """Average symmetric surface distance, in mm: mean over the voxels of both surfaces.

        A large surface weighs more than a small one; the mean of both directed means, which some
        tools report under this name, is another number.
        """
        return float(self.both.mean()) if self.both.size else float("nan")

    @property
    def rmsd(self) -> float:
        """Root mean square symmetric surface distance, in mm, over the voxels of both surfaces."""
        return float(np.sqrt(np.square(self.both).mean())) if self.both.size else float("nan")

    @property
    def msd(self) -> float:
        """Maximum symmetric surface distance, in mm: the Hausdorff distance of the surfaces."""
        return float(self.both.max()) if self.both.size else float("nan")

    @property
    def hd95(self) -> float:
        """95 % Hausdorff distance, in mm: the larger of the two directed 95th percentiles.

        As in "Metrics reloaded" (Maier-Hein et al., Nature Methods 21 (2024) 195), DeepMind's
        surface-distance and MONAI. MedPy takes one percentile of both directions together, which
        is never larger and much smaller where one surface is small. Percentiles between two
        distances are interpolated.
        """
        if not self.both.size:
            return float("nan")
        return float(max(np.percentile(self.to_predicted, 95), np.percentile(self.to_truth, 95)))

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice, in [0, 1]: share of both surfaces within a tolerance.

        Parameters
        ----------
        tolerance_mm : float
            Distances up to it, itself included, are no error. A number without it says nothing.

        Notes
        -----
        Each surface voxel counts once. Nikolov et al. weigh by the area of the surface element,
        which differs where voxels are not cubes.

        References
        ----------
        Nikolov et al., arXiv:1809.04430 (2018).
        """
        if tolerance_mm < 0:
            raise ValueError(f"a tolerance is not negative, got {tolerance_mm} mm")
        # Sums of squares of a spacing such as 0.7 mm miss a tolerance of 2.1 mm by rounding.
        near = self.both <= tolerance_mm * (1 + 1e-9)
        return float(near.mean()) if near.size else float("nan")


def surface(mask: np.ndarray, *, neighbours: int = 6) -> np.ndarray:
    """The voxels of a mask that have a neighbour outside it, the volume's border being outside.

    Parameters
    ----------
    mask : bool array (slices, rows, columns), or (rows, columns)
    neighbours : {6, 18, 26}
        Which voxels are neighbours: those that share a face (MedPy's default), an edge too (the
        LiTS challenge's code), or a corner too. In a slice 6 means 4, and the others 8.

    Returns
    -------
    bool array, same shape
    """
    if neighbours not in NEIGHBOURS:
        raise ValueError(f"neighbours is 6, 18 or 26, got {neighbours}")
    structure = generate_binary_structure(mask.ndim, min(NEIGHBOURS[neighbours], mask.ndim))
    padded, inside = np.pad(mask, 1), mask.copy()
    for start in np.argwhere(structure):  # an and of shifted masks: several times as fast as an erosion
        inside &= padded[tuple(slice(first, first + size) for first, size in zip(start, mask.shape, strict=True))]
    return mask & ~inside


def surface_distances(
    truth: np.ndarray, predicted: np.ndarray, spacing: Sequence[float], *, neighbours: int = 6
) -> SurfaceDistances:
    """Measure from each surface voxel of either mask to the nearest of the other.

    Parameters
    ----------
    truth, predicted : bool array (slices, rows, columns), or (rows, columns)
    spacing : sequence of float
        Distance between slices, rows and columns, in mm; of a slice, between rows and columns.
    neighbours : {6, 18, 26}
        Of :func:`surface`.

    Returns
    -------
    SurfaceDistances

    Raises
    ------
    DataError
        If the spacing does not fit the masks or is not positive.
    ValueError
        If the masks are not boolean, differ in shape, or have not two or three dimensions.

    Notes
    -----
    Exact, and without an array of distances for the whole volume: each slice of one surface gives
    its plane distances, to which the way across slices is added for every voxel of the other
    surface. Memory is a few bytes a voxel of the masks' common bounding box, and the surfaces.
    """
    spacing = check_spacing(spacing, truth.ndim)
    if truth.shape != predicted.shape or truth.ndim not in (2, 3):
        raise ValueError(f"masks of one 2D or 3D shape are compared, got {truth.shape} and {predicted.shape}")
    if truth.dtype != bool or predicted.dtype != bool:
        raise ValueError(f"masks must be boolean, got {truth.dtype} and {predicted.dtype}: use labels == 2")
    if not truth.any() or not predicted.any():
        return SurfaceDistances(np.empty(0), np.empty(0))
    if truth.ndim == 2:  # a volume of one slice, whose surface is that of its pixels
        edges = [surface(mask, neighbours=neighbours)[None] for mask in (truth, predicted)]
        spacing = (1.0, *spacing)
    else:
        box = bounding_box(truth, predicted)
        edges = [surface(mask[box], neighbours=neighbours) for mask in (truth, predicted)]
    of_truth, of_prediction = edges
    return SurfaceDistances(
        to_predicted=_distances_to(of_prediction, of_truth, spacing),
        to_truth=_distances_to(of_truth, of_prediction, spacing),
    )


def check_spacing(spacing: Sequence[float], dimensions: int) -> tuple[float, ...]:
    """The spacing as floats, if it is one positive number of mm for each dimension.

    Raises
    ------
    DataError
    """
    values = tuple(float(value) for value in spacing)
    if len(values) != dimensions or not all(np.isfinite(value) and value > 0 for value in values):
        raise DataError(
            f"the spacing must be {dimensions} positive numbers of mm, got {values}: pass None if it is unknown"
        )
    return values


def bounding_box(*masks: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds all voxels of masks of one shape; empty where none has any."""
    box = []
    for axis in range(masks[0].ndim):
        others = tuple(other for other in range(masks[0].ndim) if other != axis)
        found = np.flatnonzero(np.any([mask.any(axis=others) for mask in masks], axis=0))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0))
    return tuple(box)


def _distances_to(target: np.ndarray, source: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """From each voxel of ``source``, in array order, to the nearest of ``target``; both have some."""
    numbers, rows, columns = np.nonzero(source)
    pixels = np.ravel_multi_index((rows, columns), source.shape[1:])
    nearest = np.full(len(pixels), np.inf)
    for number in np.flatnonzero(target.any(axis=(1, 2))):
        within = _plane_distances(target[number], spacing[1:]).ravel()[pixels]
        np.minimum(nearest, within + ((numbers - number) * spacing[0]) ** 2, out=nearest)
    return np.sqrt(nearest)


def _plane_distances(plane: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Squared distance, in mm2, of each pixel of a slice to the nearest of ``plane``."""
    row, column = spacing
    if row != column:  # OpenCV, over ten times as fast, knows square pixels only
        return np.square(distance_transform_edt(~plane, sampling=spacing))
    pixels = cv2.distanceTransform((~plane).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The square of a distance in pixels is a whole number, which a 32-bit float misses slightly.
    return np.rint(np.square(pixels, dtype=np.float64)) * row**2
