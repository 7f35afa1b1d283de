"""What is done to a predicted mask before it is scored, step by step.

Masks are boolean, labels 0 background, 1 liver, 2 tumour; both (slices, rows, columns). The
report's network predicts tumours alone: where a step needs the liver, it is an argument. A liver
out of the true labels makes the result an oracle's, and the caller has to call it so.

Sizes are in mm, mm3 or voxels, as their names say. A spacing of None means that it is not known
(slice files, volumes with an identity affine): sizes in mm are refused then, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from .distances import bounding_box, check_spacing
from .files import DataError
from .lesions import components
from .masks import LIVER, TUMOUR

Spacing = tuple[float, float, float]
FILLING = ("none", "slices", "volume")


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask, such as a liver; of two equal ones the first.

    Parameters
    ----------
    mask : bool array (slices, rows, columns)
        Voxels are connected at faces, edges and corners.

    Returns
    -------
    bool array, same shape
        Empty where the mask is.
    """
    box = bounding_box(mask)
    parts, number = components(mask[box])
    kept = np.zeros_like(mask)
    if number:
        kept[box] = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return kept


def inside(
    tumour: np.ndarray, liver: np.ndarray, spacing: Spacing | None = None, *, margin_mm: float = 0.0
) -> np.ndarray:
    """The voxels of a tumour mask that lie in the liver, or near enough.

    Parameters
    ----------
    tumour, liver : bool array (slices, rows, columns)
        The liver with its tumours. If it is the true one, the result is an oracle's.
    spacing : (slice, row, column) in mm, optional
    margin_mm : float
        Kept outside the liver, measured between voxel centres, in mm.

    Returns
    -------
    bool array, same shape
        Empty where the liver is.

    Raises
    ------
    DataError
        If a margin is asked for and the spacing is not known.
    """
    _same_shape(tumour, liver, "liver")
    kept = tumour & liver
    if not margin_mm:
        return kept
    _needed(spacing, f"a margin of {margin_mm:g} mm", "leave margin_mm at 0")
    outside = tumour & ~liver
    # Liver further away than the margin decides nothing, so a box round the rest is enough. One voxel
    # more, as floats divide 0.3 by 0.1 only twice.
    reach = [int(margin_mm // step) + 1 for step in spacing]
    box = tuple(
        slice(max(side.start - more, 0), side.stop + more)
        for side, more in zip(bounding_box(outside), reach, strict=True)
    )
    if outside.any() and liver[box].any():
        away = ndimage.distance_transform_edt(~liver[box], sampling=spacing)
        kept[box] |= outside[box] & (away <= margin_mm)
    return kept


def without_small(
    mask: np.ndarray,
    spacing: Spacing | None = None,
    *,
    minimum_mm3: float = 0.0,
    minimum_voxels: int = 0,
) -> np.ndarray:
    """Leave out the components under a size; one of exactly that size stays.

    Parameters
    ----------
    mask : bool array (slices, rows, columns)
        Voxels are connected at faces, edges and corners.
    spacing : (slice, row, column) in mm, optional
    minimum_mm3 : float
        Least volume in mm3. A ball of 5 mm diameter has 65 mm3, one of 10 mm 524 mm3.
    minimum_voxels : int
        Least number of voxels: for data whose spacing is not known. Both limits hold.

    Returns
    -------
    bool array, same shape

    Raises
    ------
    DataError
        If a volume is given and the spacing is not known.
    """
    if minimum_mm3:
        _needed(spacing, f"a volume of {minimum_mm3:g} mm3", "use minimum_voxels")
        # Rounded, for 3 voxels of 0.7 mm3 to be the 2.1 mm3 that they are.
        minimum_voxels = max(minimum_voxels, int(np.ceil(round(minimum_mm3 / np.prod(spacing), 6))))
    if minimum_voxels <= 1:
        return mask.copy()
    box = bounding_box(mask)
    parts, _ = components(mask[box])  # at corners too: a crumb beside a tumour stays with it
    sizes = np.bincount(parts.ravel(), minlength=1)
    sizes[0] = 0
    kept = np.zeros_like(mask)
    kept[box] = (sizes >= minimum_voxels)[parts]
    return kept


def filled(mask: np.ndarray, *, within: str = "slices") -> np.ndarray:
    """Fill the holes of a mask: background whose faces lead to no way out.

    Parameters
    ----------
    mask : bool array (slices, rows, columns)
    within : {"slices", "volume", "none"}
        ``"slices"`` fills what is closed within a slice, such as a ring; ``"volume"`` only what
        is closed on all sides. The border of the array closes nothing.

    Returns
    -------
    bool array, same shape

    Raises
    ------
    ValueError
        For another word.
    """
    if within not in FILLING:
        raise ValueError(f"within is one of {FILLING}, got {within!r}")
    result, box = mask.copy(), bounding_box(mask)
    if within == "volume":
        result[box] = ndimage.binary_fill_holes(mask[box], ndimage.generate_binary_structure(3, 1))
    elif within == "slices":
        for plane in result[box]:
            plane[:] = ndimage.binary_fill_holes(plane, ndimage.generate_binary_structure(2, 1))
    return result


def hysteresis(probability: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """Cut probabilities low, but keep only components that are somewhere high.

    Keeps the whole of a lesion that the network is sure of, and drops faint findings.

    Parameters
    ----------
    probability : float array (slices, rows, columns), in [0, 1]
    low, high : float
        A voxel above ``low`` stays if its component (faces, edges and corners) has one above
        ``high``.

    Returns
    -------
    bool array, same shape

    Raises
    ------
    ValueError
        If ``low`` is above ``high``.

    References
    ----------
    Canny, "A computational approach to edge detection", IEEE TPAMI 8 (1986), section VIII.
    """
    if low > high:
        raise ValueError(f"low ({low}) must not be above high ({high})")
    mask = probability > low
    box = bounding_box(mask)
    parts, number = components(mask[box])
    sure = np.zeros(number + 1, bool)
    sure[parts[probability[box] > high]] = True
    sure[0] = False
    mask[box] = sure[parts]
    return mask


@dataclass(frozen=True)
class PostProcessing:
    """Options of :func:`clean`. Choose them on validation patients, never on those you report.

    Attributes
    ----------
    fill_tumour : {"slices", "volume", "none"}
        Of :func:`filled`.
    liver_margin_mm : float
        Of :func:`inside`: how far outside the liver a tumour may reach, in mm.
    minimum_mm3 : float
        Of :func:`without_small`, in mm3; 0 keeps all.
    minimum_voxels : int
        The same, for data whose spacing is not known.
    """

    fill_tumour: str = "slices"
    liver_margin_mm: float = 0.0
    minimum_mm3: float = 0.0
    minimum_voxels: int = 0


def clean(
    labels: np.ndarray,
    spacing: Spacing | None = None,
    *,
    liver: np.ndarray | None = None,
    options: PostProcessing = PostProcessing(),
) -> np.ndarray:
    """Post-process one predicted label volume.

    In this order: of a predicted liver the largest component, its holes filled; the holes of
    tumours; tumours cut to the liver; small components last, for what the cut leaves of one that
    lay mostly outside to go too.

    Parameters
    ----------
    labels : uint8 array (slices, rows, columns)
        Predicted: 0 background, 1 liver, 2 tumour. Without any 1 no liver was predicted, and the
        steps that need one are left out unless ``liver`` is given.
    spacing : (slice, row, column) in mm, or None where it is not known
    liver : bool array, optional
        The liver with its tumours, used as it is instead of a predicted one. The true one makes
        the result an oracle's.
    options : PostProcessing

    Returns
    -------
    uint8 array, same shape
        Labels again; liver (1) only where it was predicted.

    Raises
    ------
    DataError
        If the options say mm and the spacing is not known, or shapes differ.
    """
    predicted_liver = None
    if liver is None and (labels == LIVER).any():
        predicted_liver = liver = filled(largest_component(labels >= LIVER), within="volume")
    tumour = labels == TUMOUR
    for _, step in tumour_steps(spacing, liver=liver, options=options):
        tumour = step(tumour)
    cleaned = np.zeros_like(labels)
    if predicted_liver is not None:
        cleaned[predicted_liver] = LIVER
    cleaned[tumour] = TUMOUR
    return cleaned


def tumour_steps(
    spacing: Spacing | None, *, liver: np.ndarray | None, options: PostProcessing
) -> list[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """The steps of :func:`clean` on a tumour mask, as (name, function), in order.

    Steps that ``options`` switch off, or that need a liver which is not there, are left out.
    """
    steps: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = []
    if options.fill_tumour != "none":
        steps.append((f"holes filled ({options.fill_tumour})", partial(filled, within=options.fill_tumour)))
    if liver is not None:
        margin = options.liver_margin_mm
        name = f"inside the liver (margin {margin:g} mm)"
        steps.append((name, lambda mask: inside(mask, liver, spacing, margin_mm=margin)))
    limits = {"minimum_mm3": options.minimum_mm3, "minimum_voxels": options.minimum_voxels}
    if any(limits.values()):
        words = [f"{limits['minimum_mm3']:g} mm3"] * bool(limits["minimum_mm3"])
        words += [f"{limits['minimum_voxels']} voxels"] * bool(limits["minimum_voxels"])
        name = f"components under {' or '.join(words)} removed"
        steps.append((name, lambda mask: without_small(mask, spacing, **limits)))
    return steps


def _needed(spacing: Spacing | None, size: str, instead: str) -> None:
    """Refuse a size in mm where nobody knows how large a voxel is."""
    if spacing is None:
        raise DataError(f"{size} needs the spacing of the volume, which is not known: give it, or {instead}")
    check_spacing(spacing, 3)


def _same_shape(mask: np.ndarray, other: np.ndarray, name: str) -> None:
    if mask.shape != other.shape:
        raise DataError(f"the {name} has shape {other.shape}, the mask {mask.shape}: give that of the same volume")
