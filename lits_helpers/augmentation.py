"""Random changes of a sample: one map shared by image and mask, and grey levels of the image alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from statistics import NormalDist

import cv2
import numpy as np


GEOMETRIC_CHANGES = 7  # the first attributes of an Augmentation


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
class IntensityChange:
    """What :func:`change_intensity` does to one slice; as it stands, nothing.

    Attributes
    ----------
    blur : float
        Standard deviation of the Gaussian, in pixels.
    low_resolution : float
        Factor, at least 1, by which rows and columns are thinned out before they are filled up.
    noise : float
        Standard deviation, as a fraction of the display range (of 255).
    brightness, contrast, gamma : float
        Factor of the values, factor of their distance from their mean, and exponent of the values
        in 0..1: above 1, brighter, harder and darker.
    seed : int
        Of the noise.
    """

    blur: float = 0.0
    low_resolution: float = 1.0
    noise: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Augmentation:
    """Ranges of random changes; the defaults are the report's, as coded: geometric ones alone.

    Each sample draws every geometric change anew, uniformly within plus and minus its range, and
    all of them are composed into one map that image and mask share. Pixels from outside the slice
    repeat the nearest one inside.

    The changes of intensity are off unless asked for, leave the mask alone, and treat the three
    channels of a slice alike. Their costs are in parts of the affine map's on one core of a Zen 4
    CPU (256x256x3, `make bench`), for a slice that is changed; only some are.

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
        code it, so the default is 0. Cost 0.5 to 0.7 on top.
    brightness : float
        The values are multiplied by 1 plus or minus up to this. 0.25 in nnU-Net's code
        [1]_. Brightness, contrast and gamma together are one look-up: cost 0.6.
    contrast : float
        The same for the distance of the values from their mean. 0.25 in nnU-Net's code.
    gamma : float
        The values, in 0..1, are raised to a power between 1 / (1 + this) and 1 + this, either way
        equally often. nnU-Net's powers from 0.7 to 1.5 are 0.5.
    noise : float
        Highest standard deviation of Gaussian noise, as a fraction of the display range. nnU-Net's
        variance of up to 0.1, in units of an image whose own is 1, is about 0.1 of the range where
        a slice's standard deviation is a third of it. The three channels, windows on one CT, get the
        same noise. Cost 0.7.
    blur : float
        Highest standard deviation, in pixels, of a Gaussian. 1 in nnU-Net's code. Cost 0.6.
    low_resolution : float
        Highest factor by which the slice is made coarser, and interpolated back; 1 is off. 2 in
        nnU-Net. Cost 0.6.
    intensity_probability : float
        With which each change of intensity that is on befalls a slice, whatever the others do.
        nnU-Net has 0.15, for blur 0.2, for low resolution 0.25.
    lesions : float
        Probability that a slice with liver gets synthetic lesions, in image and mask
        (:func:`lits_helpers.synthesis.implant_lesions`). Made for the liver crops of
        :mod:`lits_helpers.regions`.
    distractors : float
        Probability that such a slice gets a dark body across the liver's edge that is no liver
        (:func:`lits_helpers.synthesis.implant_distractor`), before its lesions.

    References
    ----------
    .. [1] github.com/MIC-DKFZ/nnUNet, nnUNetTrainer.get_training_transforms, version 2; the method
       is Isensee et al. 2021, "nnU-Net: a self-configuring method for deep learning-based biomedical
       image segmentation", Nature Methods 18. Its values are of normalised CT, ours of windows in 8
       bits, clipped at 0 and 255.
    """

    rotation: float = 0.1
    shift: float = 0.05
    shear: float = 0.05
    zoom: float = 0.05
    horizontal_flip: bool = True
    vertical_flip: bool = True
    elastic: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    low_resolution: float = 1.0
    intensity_probability: float = 0.2
    lesions: float = 0.0
    distractors: float = 0.0

    def __post_init__(self):
        for name in ("brightness", "contrast", "intensity_probability", "lesions", "distractors"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        for name, least in (("gamma", 0), ("noise", 0), ("blur", 0), ("low_resolution", 1)):
            if not getattr(self, name) >= least:  # catches NaN too
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def __repr__(self) -> str:
        """Leaves out the changes of intensity that are off: run folders, named by it, keep their names."""
        shown = [
            field.name for number, field in enumerate(fields(self))
            if number < GEOMETRIC_CHANGES or getattr(self, field.name) != field.default
        ]
        return f"Augmentation({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

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


    def intensities(self, random: np.random.Generator, count: int) -> list[IntensityChange]:
        """Draw changes of intensity, one a sample; none at all, and nothing drawn, where all are off."""
        reaches = (self.brightness, self.contrast, self.gamma, self.noise, self.blur)
        if not any(reaches) and self.low_resolution == 1:
            return []

        def drawn(lowest: float, highest: float, off: float) -> np.ndarray:
            values = random.uniform(lowest, highest, count)
            return np.where(random.random(count) < self.intensity_probability, values, off)

        columns = dict(
            blur=drawn(0, self.blur, 0),
            low_resolution=drawn(1, self.low_resolution, 1),
            noise=drawn(0, self.noise, 0),
            brightness=drawn(1 - self.brightness, 1 + self.brightness, 1),
            contrast=drawn(1 - self.contrast, 1 + self.contrast, 1),
            gamma=(1 + self.gamma) ** drawn(-1, 1, 0),
            seed=random.integers(2**63, size=count),
        )
        return [
            IntensityChange(**dict(zip(columns, row, strict=True)))
            for row in zip(*(column.tolist() for column in columns.values()), strict=True)
        ]


# A normal distribution in 256 equally likely steps, for bytes to look up: random bytes cost a tenth
# of random normal numbers. It ends at 2.9 standard deviations.
_NORMAL = np.array([NormalDist().inv_cdf((step + 0.5) / 256) for step in range(256)])


def change_intensity(image: np.ndarray, change: IntensityChange) -> np.ndarray:
    """Change the grey levels of a slice: blur, low resolution, noise, then brightness, contrast, gamma.

    Parameters
    ----------
    image : uint8 array (rows, columns, 3)
        Is left as it is.
    change : IntensityChange

    Returns
    -------
    uint8 array, same shape
        Clipped to 0..255; the image itself where nothing changes.
    """
    rows, columns = image.shape[:2]
    if change.blur:
        image = cv2.GaussianBlur(image, (0, 0), change.blur)
    if change.low_resolution > 1:
        coarse = [max(1, round(length / change.low_resolution)) for length in (columns, rows)]
        image = cv2.resize(cv2.resize(image, coarse), (columns, rows))
    if change.noise:
        lookup = (255 * change.noise * _NORMAL).round().clip(-255, 255)
        drawn = np.random.default_rng(change.seed).integers(0, 256, (rows, columns), np.uint8)
        up, down = (
            cv2.cvtColor(cv2.LUT(drawn, side.clip(0).astype(np.uint8)), cv2.COLOR_GRAY2RGB)
            for side in (lookup, -lookup)
        )
        image = cv2.subtract(cv2.add(image, up), down)
    if (change.brightness, change.contrast, change.gamma) != (1, 1, 1):
        mean = np.array(cv2.mean(image)[:3]) * change.brightness
        levels = np.arange(256)[:, None] * change.brightness
        lookup = ((mean + (levels - mean) * change.contrast) / 255).clip(0, 1) ** change.gamma
        image = cv2.LUT(image, (255 * lookup).round().astype(np.uint8)[None])
    return image


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
