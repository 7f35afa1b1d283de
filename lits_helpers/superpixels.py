"""Tumour candidates by superpixels in the liver, and masks drawn to the edges of the picture.

A superpixel here is a small connected part of the liver of even brightness, over several slices.
Pictures are single-channel volumes in [0, 1] or grey levels, (slices, rows, columns); sizes are in
voxels, as slice files know no millimetres. Needs the extra ``survey`` (scikit-image).

References
----------
Bai, Jiang, Li, Yao, "Liver Tumor Segmentation Based on Multi-Scale Candidate Generation and Fractal
Residual Network", IEEE Access 7 (2019), doi 10.1109/ACCESS.2019.2923218.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import ndimage

from .distances import bounding_box
from .files import DataError
from .lesions import components

# Voxels of a superpixel. Of 16 real patients with a tumour at 128x128, every second slice, choosing
# superpixels of 16 voxels by the truth gave Dices of 0.45 to 0.99, of 128 voxels 0.00 to 0.98.
SCALES = (20, 80)


def _segmentation():
    try:
        from skimage import segmentation
    except ImportError as error:
        raise DataError(f"{error}: pip install 'lits-helpers[survey]'") from error
    return segmentation


def superpixels(
    picture: np.ndarray, liver: np.ndarray, *, voxels: int, compactness: float = 0.1
) -> np.ndarray:
    """Cut the liver into superpixels of about one size.

    Parameters
    ----------
    picture : array (slices, rows, columns), in [0, 1]
    liver : bool array, same shape
        With its tumours. Voxels outside belong to no superpixel, and are not looked at.
    voxels : int
        Mean size aimed at.
    compactness : float
        Higher makes superpixels rounder: the step in brightness that counts like one as long as a
        superpixel in space. 0.1 is 20 HU of the green channel, whose window is 200 HU wide; ours.

    Returns
    -------
    int32 array, same shape
        0 outside the liver; superpixels from 1 on, without gaps. All 0 for an empty liver.

    Raises
    ------
    DataError
        If shapes differ or scikit-image is not installed.
    ValueError
        If ``voxels`` is under 1.

    References
    ----------
    Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", IEEE TPAMI 34
    (2012). Within a mask: Irving, "maskSLIC", arXiv 1606.09518 (2016). As scikit-image does it.
    """
    _same_shape(picture, liver)
    if voxels < 1:
        raise ValueError(f"a superpixel has at least 1 voxel, got voxels={voxels}")
    labels = np.zeros(liver.shape, np.int32)
    if not liver.any():
        return labels
    box = bounding_box(liver)
    inside = liver[box]
    wanted = max(1, round(np.count_nonzero(inside) / voxels))
    if wanted == 1:
        found = inside.astype(np.int32)
    else:
        seen = np.where(inside, picture[box], 0).astype(np.float32)
        # scikit-image stretches the brightness of the liver to [0, 1]: undone here, as noise would be too.
        stretched = float(np.ptp(seen[inside])) or 1.0
        found = _segmentation().slic(
            seen, n_segments=wanted, compactness=compactness / stretched, mask=inside, channel_axis=None, start_label=1
        )
    # What scikit-image finds too small to stand alone, and beside nothing to be joined with, it leaves out.
    islands, _ = components(inside & (found == 0))
    found = np.where(islands > 0, islands + found.max(), found)
    labels[box][inside] = np.unique(found[inside], return_inverse=True)[1] + 1
    return labels


def candidates(
    picture: np.ndarray, liver: np.ndarray, *, scales: Sequence[int] = SCALES
) -> tuple[np.ndarray, pd.DataFrame]:
    """Superpixels of several sizes, and what can be said of each.

    Parameters
    ----------
    picture, liver : as for :func:`superpixels`
    scales : sequence of int
        Voxels of a superpixel, one number a scale.

    Returns
    -------
    labels : int32 array (scales, slices, rows, columns)
        Numbers of the candidates, from 1, through all scales; 0 outside the liver. Every voxel of the
        liver lies in one candidate of each scale.
    table : DataFrame, one row a candidate, indexed by its number
        ``scale`` (voxels aimed at), ``voxels``, ``slice``, ``row``, ``column`` (the voxel nearest to
        its centre), ``mean`` and ``deviation`` of the picture in it, and ``contrast``: mean less the
        median of the liver, negative where it is darker. No rows for an empty liver.
    """
    columns = ["scale", "voxels", "slice", "row", "column", "mean", "deviation", "contrast"]
    labels, rows, total = np.zeros((len(scales), *liver.shape), np.int32), [], 0
    if not liver.any():
        return labels, pd.DataFrame(columns=columns)
    median = np.median(picture[liver])
    for plane, voxels in zip(labels, scales, strict=True):
        plane[:] = superpixels(picture, liver, voxels=voxels)
        numbers = np.arange(1, plane.max() + 1)
        centres = np.array(ndimage.center_of_mass(liver, plane, numbers)).round().astype(int)
        mean = ndimage.mean(picture, plane, numbers)
        values = [
            voxels, np.bincount(plane.ravel())[1:], *centres.T,
            mean, ndimage.standard_deviation(picture, plane, numbers), mean - median,
        ]
        rows.append(pd.DataFrame(dict(zip(columns, values, strict=True)), index=numbers + total))
        plane[liver] += total
        total += len(numbers)
    return labels, pd.concat(rows)


def share_inside(labels: np.ndarray, tumour: np.ndarray) -> np.ndarray:
    """The share of each candidate's voxels that is tumour.

    Parameters
    ----------
    labels : int32 array (scales, slices, rows, columns)
        From :func:`candidates`.
    tumour : bool array (slices, rows, columns)

    Returns
    -------
    float array (candidates,), in [0, 1], in the order of the table
    """
    sizes, hits = np.bincount(labels.ravel()), np.bincount(labels[:, tumour].ravel(), minlength=labels.max() + 1)
    return hits[1:] / np.maximum(sizes[1:], 1)


def patches(
    pictures: np.ndarray, labels: np.ndarray, table: pd.DataFrame, size: tuple[int, int, int]
) -> np.ndarray:
    """A patch round each candidate: the picture, and which voxels are meant.

    Parameters
    ----------
    pictures : uint8 array (slices, rows, columns, channels)
    labels : int32 array (scales, slices, rows, columns)
    table : DataFrame
        Rows of :func:`candidates`, all or some.
    size : (slices, rows, columns)

    Returns
    -------
    uint8 array (candidates, slices, rows, columns, channels + 1)
        Beyond the volume its border is repeated. The last channel is 255 in the candidate.
    """
    before = [side // 2 for side in size]
    margins = [(half, side - half) for half, side in zip(before, size, strict=True)]
    seen = np.pad(pictures, [*margins, (0, 0)], mode="edge")
    meant = np.pad(labels, [(0, 0), *margins])
    last = labels.reshape(len(labels), -1).max(axis=1)  # numbers go on from scale to scale
    planes = np.searchsorted(last, table.index.to_numpy())
    found = np.empty((len(table), *size, pictures.shape[-1] + 1), np.uint8)
    corners = table[["slice", "row", "column"]].to_numpy()
    for patch, number, plane, corner in zip(found, table.index, planes, corners, strict=True):
        box = tuple(slice(start, start + side) for start, side in zip(corner, size, strict=True))
        patch[..., :-1] = seen[box]
        patch[..., -1] = (meant[plane][box] == number) * np.uint8(255)
    return found


def painted(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give each voxel the mean value of the candidates it lies in, one a scale.

    Parameters
    ----------
    labels : int32 array (scales, slices, rows, columns)
    values : float array (candidates,)
        In the table's order, such as probabilities.

    Returns
    -------
    float32 array (slices, rows, columns)
        0 outside the liver.
    """
    return np.concatenate([[0], values]).astype(np.float32)[labels].mean(axis=0)


def refined(picture: np.ndarray, mask: np.ndarray, liver: np.ndarray, *, reach: int = 2) -> np.ndarray:
    """Draw each part of a mask to the edges of the picture near by, by an active contour without edges.

    The contour parts two even brightnesses, found anew for each part in the box round it, and moves a
    voxel an iteration. It is kept in the liver, and within ``reach`` voxels of where it was: what
    lies deeper in the mask stays, what lies further away is never reached. A part that vanishes is left
    as it was. The contour is not smoothed: that shrinks small tumours, and scikit-image alternates
    between two ways of it from call to call, so that results would depend on what ran before.

    It is no sure gain: on two real patients the Dice went from 0.54 to 0.59 and from 0.74 to 0.68.
    Choose ``reach`` on validation patients.

    Parameters
    ----------
    picture : array (slices, rows, columns), in [0, 1]
    mask, liver : bool array, same shape
    reach : int
        Voxels, and iterations. Of 0 the mask comes back, cut to the liver.

    Returns
    -------
    bool array, same shape
        Empty where the mask or the liver is.

    References
    ----------
    Chan and Vese, "Active Contours Without Edges", IEEE TIP 10 (2001). Marquez-Neila, Baumela,
    Alvarez, "A Morphological Approach to Curvature-Based Evolution of Curves and Surfaces", IEEE
    TPAMI 36 (2014). Which active contour Bai used, we could not verify.
    """
    _same_shape(picture, liver)
    _same_shape(picture, mask)
    coarse = mask & liver
    if not reach or not coarse.any():
        return coarse
    result = np.zeros_like(coarse)
    evolve = _segmentation().morphological_chan_vese
    median = float(np.median(picture[liver]))
    parts, _ = components(coarse)
    for number, found in enumerate(ndimage.find_objects(parts), 1):
        # Twice the reach, for enough healthy liver to compare with.
        box = tuple(slice(max(side.start - 2 * reach, 0), side.stop + 2 * reach) for side in found)
        # The border repeated, for the end of the volume to be no end of the tumour.
        start, inside = (np.pad(each, reach, mode="edge") for each in (parts[box] == number, liver[box]))
        # Bone and air are no business of the contour: outside the liver all is as healthy liver.
        seen = np.where(inside, np.pad(picture[box], reach, mode="edge"), median)
        moved = evolve(seen, num_iter=reach, init_level_set=start, smoothing=0).astype(bool)
        moved &= ndimage.binary_dilation(start, iterations=reach) & inside
        moved |= ndimage.binary_erosion(start, iterations=reach, border_value=1)
        moved = (moved if moved.any() else start)[(slice(reach, -reach),) * 3]
        result[box] |= moved
    return result


def _same_shape(picture: np.ndarray, other: np.ndarray) -> None:
    if picture.shape != other.shape or picture.ndim != 3:
        raise DataError(
            f"picture and mask have shapes {picture.shape} and {other.shape}: give both of one volume, "
            "(slices, rows, columns)"
        )
