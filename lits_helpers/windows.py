"""Hounsfield units to display: windows, and the three-channel coding of the report's slice files."""

from __future__ import annotations

import numpy as np

# Width and level in HU: the red and green channel of the report's slice files.
WINDOWS = {"liver": (150.0, 30.0), "abdomen": (200.0, 60.0)}


def windowed(hounsfield: np.ndarray, *, width: float, level: float) -> np.ndarray:
    """Map a band of Hounsfield units to display range.

    Parameters
    ----------
    hounsfield : array, any shape
        CT numbers in HU.
    width, level : float
        Size and centre of the band, in HU. :data:`WINDOWS` holds presets.

    Returns
    -------
    array of float32, same shape
        0 at ``level - width / 2`` and below, 1 at ``level + width / 2`` and above.

    Raises
    ------
    ValueError
        If ``width`` is not positive.
    """
    if width <= 0:
        raise ValueError(f"window width must be positive, got {width}")
    lowest = level - width / 2
    return np.clip((np.asarray(hounsfield, np.float32) - lowest) / width, 0, 1)


def equalisation_breaks(values: np.ndarray, bins: int = 100) -> np.ndarray:
    """Sorted distinct quantiles of one slice, the nodes of its histogram equalisation.

    Quantiles are elements of the sorted slice (no interpolation) at 0.001, the middles of
    ``bins`` equal parts, and 0.999. So on a label map a label that fills less than 0.1 % of the
    slice (fewer than 263 pixels of 512x512) is no node: that is why the report's coding loses
    small tumours.

    Parameters
    ----------
    values : integer array
        One slice: HU, or labels.

    Returns
    -------
    1-D integer array, strictly increasing, 1 to ``bins + 2`` long
    """
    lowest = int(values.min())
    at_most = np.cumsum(np.bincount((values - lowest).ravel()))
    quantiles = np.concatenate([[0.001], (np.arange(bins) + 0.5) / bins, [0.999]])
    ranks = (values.size * quantiles).astype(np.int64)
    return np.unique(np.searchsorted(at_most, ranks, side="right") + lowest)


def three_channels(values: np.ndarray) -> np.ndarray:
    """Display coding of one slice, as the report's image *and* mask files were made.

    Parameters
    ----------
    values : integer array (rows, columns)
        HU, or a label map, since the report's masks went through the same routine.

    Returns
    -------
    uint8 array (rows, columns, 3), red, green, blue
        Red: window 150 wide at level 30. Green: 200 wide at 60. Blue: histogram-equalised. Each
        scaled to 0..255 and truncated.
    """
    if not np.issubdtype(np.asarray(values).dtype, np.integer):
        raise ValueError(f"three_channels needs whole Hounsfield units, got {values.dtype}")
    values = values.astype(np.int32)
    lowest = int(values.min())
    levels = np.arange(lowest, int(values.max()) + 1)
    breaks = equalisation_breaks(values)
    table = np.stack(
        [
            windowed(levels, width=WINDOWS["liver"][0], level=WINDOWS["liver"][1]),
            windowed(levels, width=WINDOWS["abdomen"][0], level=WINDOWS["abdomen"][1]),
            np.interp(levels, breaks, np.linspace(0, 1, len(breaks))),
        ],
        axis=1,
    )
    return (table * 255).astype(np.uint8)[values - lowest]
