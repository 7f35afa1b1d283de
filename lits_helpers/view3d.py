"""Liver and tumours in three dimensions: to be turned by hand in a notebook, and as a still picture.

Masks are in the order of the screen (:mod:`lits_helpers.volumes`): slices from the feet to the head,
rows from front to back, columns from the patient's right to left. Distances to a mask's edge are
interpolated between slices, so thick ones do not become steps; what lies in one slice alone is drawn
flatter than the slice. Volumes are made smaller first, to steps of about a hundredth of what is shown:
a block of voxels counts where any of them does, so a lesion of one voxel is still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import ndimage

from .cases import MM3_PER_ML
from .distances import bounding_box
from .drawing import LIVER_COLOUR, MASK_COLOURS, SMALL, TUMOUR_COLOUR, draw_legend, draw_scale_bar, panels, styled
from .files import DataError

if TYPE_CHECKING:
    import k3d

Spacing = tuple[float, float, float]
PREDICTED_COLOUR = "#222222"  # around the truth, which has the tumour's own

# From where a picture is seen: the way of slices, rows and columns to its depth, its rows (downwards)
# and its columns, as axes and signs; and what lies at its left, right, top and bottom. Slices of a CT
# are seen from the feet, and from the side the patient looks to the left, as radiologists have it.
VIEWS = {
    "From the front": ((1, 0, 2), (1, -1, 1), "RLHF"),
    "From the left": ((2, 0, 1), (-1, -1, 1), "APHF"),
    "From the feet": ((0, 1, 2), (1, 1, 1), "RLAP"),
}
_STEPS = 110  # along the longest side of what is drawn
_LIGHT = np.array([-0.75, -0.5, -0.45])  # from the viewer's upper left: depth, downwards, to the right
_FAINT, _RIM, _OVER_TUMOUR = 0.16, 0.5, 0.16  # how opaque the liver is: in front, at its rim, before a tumour


def _checked(masks: Sequence[np.ndarray | None], spacing: Spacing) -> list[np.ndarray | None]:
    """The masks as bool, all of one shape of three axes.

    Raises
    ------
    ValueError
        If they are not.
    DataError
        If the spacing is not known: there are no proportions then.
    """
    shapes = {np.shape(mask) for mask in masks if mask is not None}
    if len(shapes) != 1 or any(len(shape) != 3 for shape in shapes):
        raise ValueError(f"masks must have one shape (slices, rows, columns), got {sorted(shapes)}")
    if spacing is None or len(spacing) != 3 or not np.isfinite(spacing).all() or min(spacing) <= 0:
        raise DataError(
            f"spacing is {spacing}: a view in three dimensions needs (slice, row, column) in mm, each above 0. Use a "
            "volume whose header says it"
        )
    return [None if mask is None else np.asarray(mask, bool) for mask in masks]


def _box(masks: Sequence[np.ndarray]) -> tuple[slice, ...]:
    """The smallest box that holds all masks; the whole volume where all are empty."""
    box = bounding_box(*masks)
    return box if masks[0][box].size else tuple(slice(0, length) for length in masks[0].shape)


def _pooled(mask: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """True for each block of voxels in which any is."""
    mask = np.pad(mask, [(0, -length % factor) for length, factor in zip(mask.shape, factors, strict=True)])
    blocks = [part for length, factor in zip(mask.shape, factors, strict=True) for part in (length // factor, factor)]
    return mask.reshape(blocks).any(axis=(1, 3, 5))


class _Grid:
    """A grid of nearly cubic steps over a box of a volume, on which masks become distances.

    ``origin`` is the place of its first point and ``step`` the distance of its points (slices, rows,
    columns), in mm from the centre of the volume's first voxel.
    """

    def __init__(self, box: tuple[slice, ...], spacing: Spacing) -> None:
        lengths = np.array([part.stop - part.start for part in box])
        goal = (lengths * spacing).max() / _STEPS
        self.box = box
        self.factors = [max(1, round(goal / one)) for one in spacing]
        block = np.multiply(self.factors, spacing)
        self.finer = [max(1, round(one / goal)) for one in block]  # points for each block, of thick slices
        self.step = block / self.finer
        first = [part.start + (factor - 1) / 2 for part, factor in zip(box, self.factors, strict=True)]
        self.origin = np.multiply(first, spacing) - block  # one empty block around all
        self.block = block

    def distance(self, mask: np.ndarray) -> np.ndarray:
        """Distance to a mask's surface in mm at each point, inside above 0 (an empty mask: -1); float32."""
        blocks = np.pad(_pooled(mask[self.box], self.factors), 1)
        if not blocks.any():
            shape = [(length - 1) * finer + 1 for length, finer in zip(blocks.shape, self.finer, strict=True)]
            return np.full(shape, -1, np.float32)
        inside = ndimage.distance_transform_edt(blocks, sampling=self.block)
        outside = ndimage.distance_transform_edt(~blocks, sampling=self.block)
        distance = (inside - outside).astype(np.float32)
        for axis, finer in enumerate(self.finer):
            distance = _between(distance, axis, finer)
        return distance


def _between(values: np.ndarray, axis: int, finer: int) -> np.ndarray:
    """Linear interpolation along an axis: ``finer`` steps for each, the old points among the new."""
    if finer == 1:
        return values
    values = np.moveaxis(values, axis, 0)
    shares = (np.arange(finer, dtype=np.float32) / finer).reshape(1, -1, 1, 1)
    steps = values[:-1, None] * (1 - shares) + values[1:, None] * shares
    return np.moveaxis(np.concatenate([steps.reshape(-1, *values.shape[1:]), values[-1:]]), 0, axis)


# To be turned by hand --------------------------------------------------------------------------


def surface(mask: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Surface of a mask as triangles.

    Parameters
    ----------
    mask : bool array (slices, rows, columns)
    spacing : (slice, row, column)
        In mm.

    Returns
    -------
    vertices : float32 array (n, 3)
        In mm from the centre of the first voxel, towards the patient's left, back and head.
    triangles : uint32 array (m, 3)
        Numbers of vertices, anticlockwise as seen from outside. Both are empty for an empty mask.

    Raises
    ------
    DataError
        If scikit-image is not installed, or the spacing is not known.

    References
    ----------
    Lewiner et al., "Efficient implementation of Marching Cubes' cases with topological guarantees",
    Journal of Graphics Tools 8 (2003) 1: scikit-image's method.
    """
    (mask,) = _checked([mask], spacing)
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise DataError("surfaces need scikit-image: pip install 'lits-helpers[survey]'") from error
    if not mask.any():
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint32)
    grid = _Grid(_box([mask]), spacing)
    places, triangles, _, _ = marching_cubes(grid.distance(mask), 0, spacing=tuple(grid.step))
    # From (slice, row, column) to (x, y, z), which mirrors, and so turns the triangles outwards.
    return (places + grid.origin)[:, ::-1].astype(np.float32), triangles.astype(np.uint32)


def view3d(
    liver: np.ndarray, truth: np.ndarray | None = None, predicted: np.ndarray | None = None, *, spacing: Spacing
) -> k3d.Plot:
    """Liver, true and predicted tumour, to be turned by hand, the last line of a cell.

    The liver is translucent, the truth in the tumour's colour, the prediction a dark veil. Each can be
    hidden in the panel at the upper right. Axes are in mm, towards the patient's left, back and head.
    A saved notebook keeps nothing of it: :func:`rendering3d` shows the same as a figure.

    Parameters
    ----------
    liver : bool array (slices, rows, columns)
        With its tumours.
    truth, predicted : bool array, same shape, or None
    spacing : (slice, row, column)
        In mm.

    Raises
    ------
    DataError
        If k3d or scikit-image is not installed, or the spacing is not known.
    """
    masks = _checked([liver, truth, predicted], spacing)
    try:
        import k3d
    except ImportError as error:
        raise DataError("the view needs k3d and scikit-image: pip install 'lits-helpers[survey,view]'") from error
    axes = [rf"\text{{{words} (mm)}}" for words in ("R to L", "A to P", "F to H")]
    plot = k3d.plot(camera_auto_fit=False, axes=axes, axes_helper=0, background_color=0xFFFFFF)
    looks = {"truth": (TUMOUR_COLOUR, 1.0), "prediction": (PREDICTED_COLOUR, 0.35), "liver": (LIVER_COLOUR, 0.25)}
    for (name, (colour, opacity)), mask in zip(looks.items(), [*masks[1:], masks[0]], strict=True):
        vertices, triangles = surface(mask, spacing) if mask is not None else ((), ())
        if len(vertices):
            plot += k3d.mesh(
                vertices, triangles, color=int(colour[1:], 16), opacity=opacity, name=name, flat_shading=False, side="double"
            )
    box = _box([mask for mask in masks if mask is not None])
    middle = [float((part.start + part.stop - 1) / 2 * one) for part, one in zip(box, spacing, strict=True)][::-1]
    away = 1.6 * max((part.stop - part.start) * one for part, one in zip(box, spacing, strict=True))
    # From the front, a little from the right and above, the head up.
    plot.camera = [middle[0] - 0.4 * away, middle[1] - 0.85 * away, middle[2] + 0.35 * away, *middle, 0, 0, 1]
    return plot


# A still picture -------------------------------------------------------------------------------


def _seen(field: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first point inside along each ray, and which way the surface faces there.

    Parameters
    ----------
    field : float32 array (depth, rows, columns)
        Distance to the surface, inside above 0.
    steps : (depth, row, column), in mm

    Returns
    -------
    first : int array (rows, columns)
        Its depth; ``len(field)`` where there is none.
    facing : float array (3, rows, columns)
        Unit vectors outwards: depth, downwards, to the right.
    """
    is_inside = field > 0
    first = np.where(is_inside.any(axis=0), is_inside.argmax(axis=0), len(field))
    smooth = np.pad(ndimage.gaussian_filter(field, 1.2), 1, mode="edge")
    rows, columns = np.indices(first.shape) + 1
    depth = np.minimum(first, len(field) - 1) + 1
    slopes = [
        smooth[depth - d, rows - r, columns - c] - smooth[depth + d, rows + r, columns + c]
        for d, r, c in np.eye(3, dtype=int)
    ]
    facing = np.stack(slopes) / np.reshape(steps, (3, 1, 1))
    return first, facing / np.maximum(np.linalg.norm(facing, axis=0), 1e-9)


def _lit(colour: str, facing: np.ndarray) -> np.ndarray:
    """A matt surface with a little gloss in the light from the upper left: (rows, columns, 3), 0..1."""
    light = _LIGHT / np.linalg.norm(_LIGHT)
    half = light + (-1, 0, 0)  # between the light and the viewer
    matt = np.clip(np.tensordot(light, facing, 1), 0, 1)[..., None]
    gloss = np.clip(np.tensordot(half / np.linalg.norm(half), facing, 1), 0, 1)[..., None] ** 30
    return np.clip(np.array(to_rgb(colour)) * (0.45 + 0.6 * matt) + 0.25 * gloss, 0, 1)


def _rendered(liver: np.ndarray, tumour: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """A solid tumour in a liver of glass on white: float array (rows, columns, 3), 0..1."""
    liver_depth, liver_facing = _seen(liver, steps)
    tumour_depth, tumour_facing = _seen(tumour, steps)
    has_tumour = tumour_depth < len(tumour)
    picture = np.ones((*liver_depth.shape, 3))
    picture[has_tumour] = _lit(TUMOUR_COLOUR, tumour_facing)[has_tumour]
    # Glass is seen at the rim, where it is looked at from the side.
    opaque = _FAINT + _RIM * (1 - np.abs(liver_facing[0])) ** 2
    opaque = np.where(has_tumour, np.minimum(opaque, _OVER_TUMOUR), opaque)
    opaque = np.where((liver_depth < len(liver)) & (liver_depth <= tumour_depth), opaque, 0)[..., None]
    return picture * (1 - opaque) + _lit(LIVER_COLOUR, liver_facing) * opaque


def _words(name: str, mask: np.ndarray, spacing: Spacing) -> str:
    """What a row shows, and how much of it there is."""
    voxels = np.count_nonzero(mask)
    return f"{name}: {voxels * np.prod(spacing) / MM3_PER_ML:.1f} ml" if voxels else f"{name}: no tumour"


def _draw_view(panel: Axes, liver: np.ndarray, tumour: np.ndarray, steps: np.ndarray, view: str, sides: bool) -> None:
    """One picture, in mm, in the middle of its panel."""
    axes, signs, letters = VIEWS[view]
    turned = [field.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)] for field in (liver, tumour)]
    picture = _rendered(*turned, steps[list(axes)])
    height, width = np.multiply(picture.shape[:2], steps[list(axes)][1:])
    panel.imshow(picture, extent=(-width / 2, width / 2, height / 2, -height / 2), interpolation="bilinear")
    if sides:
        places = ((0.01, 0.5), (0.99, 0.5), (0.5, 0.99), (0.5, 0.01))
        towards = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
        for letter, place, (ha, va) in zip(letters, places, towards, strict=True):
            panel.text(*place, letter, transform=panel.transAxes, ha=ha, va=va, fontsize=SMALL, color="#444444")


@styled
def rendering3d(
    liver: np.ndarray, truth: np.ndarray | None = None, predicted: np.ndarray | None = None, *,
    spacing: Spacing, is_oriented: bool = True,
) -> Figure:
    """The content of :func:`view3d` as a figure: from the front, the left and the feet, a row a mask.

    Needs no extra. The tumours stand in the liver as in glass, with their volume.

    Parameters
    ----------
    liver : bool array (slices, rows, columns)
        With its tumours. Empty ones are drawn too.
    truth, predicted : bool array, same shape, or None
        A row each; with neither the liver alone.
    spacing : (slice, row, column)
        In mm.
    is_oriented : bool
        False where the order of the axes is not known, as with other people's slice files: then no
        side is named, and the views are not either.

    Raises
    ------
    DataError
        If the spacing is not known.
    ValueError
        If the masks differ in shape.
    """
    masks = _checked([liver, truth, predicted], spacing)
    named = {name: mask for name, mask in zip(("Truth", "Prediction"), masks[1:], strict=True) if mask is not None}
    grid = _Grid(_box([mask for mask in masks if mask is not None]), spacing)
    glass = grid.distance(masks[0])
    rows = named or {"Liver": np.zeros_like(masks[0])}
    slices, lines, columns = np.multiply(glass.shape, grid.step)
    down, across = 0.56 * max(slices, lines), 0.56 * max(lines, columns)
    height = min(3.2 * down / across, 5) + 0.1
    figure, axes = panels(len(rows), len(VIEWS), size=(10, height * len(rows) + 1), pictures=True)
    for line, (name, mask) in zip(axes, rows.items(), strict=True):
        tumour = grid.distance(mask)
        for panel, view in zip(line, VIEWS, strict=True):
            _draw_view(panel, glass, tumour, grid.step, view, is_oriented)
            panel.set(xlim=(-across, across), ylim=(down, -down))
        line[0].set_ylabel(_words(name, mask, spacing) if named else _words(name, masks[0], spacing))
    draw_scale_bar(axes[0, -1], 1, colour="black")
    for panel, (number, view) in zip(axes[0], enumerate(VIEWS, start=1), strict=True):
        panel.set_title(view if is_oriented else f"View {number}")
    draw_legend(figure, MASK_COLOURS if named else {"liver": LIVER_COLOUR})
    figure.suptitle("Liver and tumours" if named else "Liver")
    return figure
