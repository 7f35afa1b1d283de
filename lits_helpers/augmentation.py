"""Random geometric changes: one map a sample, shared by image and mask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np


def affine_matrices(
    size: int, *, rotation: np.ndarray, shear: np.ndarray, shift: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Compose affine maps from the pixels of a result to those of its source.

    Parameters
    ----------
    size : int
        Rows and columns of the slice, about whose centre everything turns.
    rotation, shear : array (...)
        Degrees.
    shift, scale : array (..., 2)
        For x (columns) and y (rows). The shift is a fraction of the size; the scale a factor,
        above 1 to show more of the source, negative to flip it.

    Returns
    -------
    float64 array (..., 2, 3)
        To be multiplied with (x, y, 1), whole numbers at pixel centres, as OpenCV wants it with
        ``cv2.WARP_INVERSE_MAP``.
    """
    angle, slant = np.deg2rad(rotation), np.deg2rad(shear)
    along_x = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    along_y = np.stack([-np.sin(angle + slant), np.cos(angle + slant)], axis=-1)
    linear = np.stack([along_x * scale[..., :1], along_y * scale[..., 1:]], axis=-1)
    centre = np.full(2, (size - 1) / 2)
    offset = centre - linear @ centre + np.multiply(shift, size)
    return np.concatenate([linear, offset[..., None]], axis=-1)


@dataclass(frozen=True)
class Augmentation:
    """Ranges of random geometric changes; the defaults are the report's, as coded.

    Each sample draws every change anew, uniformly within plus and minus its range, and all of
    them are composed into one map that image and mask share. Pixels from outside the slice
    repeat the nearest one inside.

    Attributes
    ----------
    rotation : float
        Degrees. The report's 0.1 moves the corner of a 256-pixel slice by a third of a pixel:
        it read as a fraction, and does nothing.
    shift : float
        Fraction of the width and of the height.
    shear : float
        Degrees; 0.05 of the report again does nothing.
    zoom : float
        Fraction, for width and height apart.
    horizontal_flip, vertical_flip : bool
        With probability one half. A flipped abdomen has its liver on the wrong side; the report
        flips all the same.
    elastic : float
        Standard deviation of the displacement on a coarse grid of 3 by 3 points, as a fraction
        of the slice, smoothly interpolated between them (Ronneberger et al. 2015, section 3.1,
        used 10 pixels of 512, which is 0.02). The report claims elastic deformation but does not
        code it, so the default is 0.
    """

    rotation: float = 0.1
    shift: float = 0.05
    shear: float = 0.05
    zoom: float = 0.05
    horizontal_flip: bool = True
    vertical_flip: bool = True
    elastic: float = 0.0

    def matrices(self, random: np.random.Generator, count: int, size: int) -> np.ndarray:
        """Draw affine maps from the pixels of the result to those of the source.

        Parameters
        ----------
        random : Generator
        count, size : int
            Number of maps, and rows and columns of a slice.

        Returns
        -------
        float64 array (count, 2, 3)
            As :func:`affine_matrices` gives them.
        """

        def drawn(reach: float) -> np.ndarray:
            return random.uniform(-reach, reach, count)

        def flipped(flip: bool) -> np.ndarray:
            return np.where(flip & (random.random(count) < 0.5), -1, 1)

        return affine_matrices(
            size,
            rotation=drawn(self.rotation),
            shear=drawn(self.shear),
            shift=np.stack([drawn(self.shift), drawn(self.shift)], axis=-1),
            scale=np.stack(
                [
                    (1 + drawn(self.zoom)) * flipped(self.horizontal_flip),
                    (1 + drawn(self.zoom)) * flipped(self.vertical_flip),
                ],
                axis=-1,
            ),
        )

    def displacement(self, random: np.random.Generator, size: int) -> np.ndarray | None:
        """Draw one elastic displacement, in pixels: float32 array (size, size, 2), x and y.

        None where ``elastic`` is 0.
        """
        if not self.elastic:
            return None
        coarse = random.normal(0, self.elastic * size, (3, 3, 2)).astype(np.float32)
        return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


@lru_cache(maxsize=1)
def _pixel_grid(rows: int, columns: int) -> np.ndarray:
    """x and y of every pixel: float32 array (rows, columns, 2)."""
    x, y = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
    return np.stack([x, y], axis=2)


def warp_pair(
    image: np.ndarray,
    labels: np.ndarray,
    matrix: np.ndarray,
    displacement: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply one map to a slice and to its labels.

    Parameters
    ----------
    image : uint8 array (rows, columns, 3)
        Interpolated linearly.
    labels : uint8 array (rows, columns)
        Takes the nearest label, so that no value arises that was not there.
    matrix : array (2, 3)
        As :meth:`Augmentation.matrices` draws it.
    displacement : float32 array (rows, columns, 2), optional
        As :meth:`Augmentation.displacement` draws it; added before the matrix is applied.

    Returns
    -------
    image, labels : uint8 arrays, same shapes
    """
    image, labels = image.copy(), labels.copy()
    warp_in_place(image[None], labels[None], [(matrix, displacement)])
    return image, labels


def warp_in_place(
    images: np.ndarray,
    labels: np.ndarray,
    changes: Iterable[tuple[np.ndarray, np.ndarray | None]],
) -> None:
    """:func:`warp_pair` of a batch, written over it.

    Parameters
    ----------
    images : uint8 array (n, rows, columns, 3)
    labels : uint8 array (n, rows, columns)
    changes : n pairs of matrix and displacement
    """
    rows, columns = labels.shape[1:]
    edge = dict(borderMode=cv2.BORDER_REPLICATE)
    affine = dict(dsize=(columns, rows), **edge)
    # OpenCV 5.0 warps four channels to the same values as three, in half the time. Its results go
    # into the same memory for every sample: fresh memory costs about as much as the warp.
    padded, warped = np.empty((2, rows, columns, 4), np.uint8)
    nearest = np.empty((rows, columns), np.uint8)
    for image, mask, (matrix, displacement) in zip(images, labels, changes, strict=True):
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA, dst=padded)
        if displacement is None:
            inverse = cv2.WARP_INVERSE_MAP
            cv2.warpAffine(padded, matrix, dst=warped, flags=cv2.INTER_LINEAR | inverse, **affine)
            cv2.warpAffine(mask, matrix, dst=nearest, flags=cv2.INTER_NEAREST | inverse, **affine)
        else:
            source = cv2.transform(_pixel_grid(rows, columns) + displacement, matrix)
            cv2.remap(padded, source, None, cv2.INTER_LINEAR, dst=warped, **edge)
            cv2.remap(mask, source, None, cv2.INTER_NEAREST, dst=nearest, **edge)
        cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=image)
        mask[:] = nearest
