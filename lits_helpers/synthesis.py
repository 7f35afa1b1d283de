"""Synthetic lesions in real livers: more tumours, of more sizes, than a small data set has; and distractors.

A lesion is an ellipse with an uneven edge, darker than the liver around it (seldom brighter), with
soft borders and the liver's own noise and vessels showing through. Trained on such lesions alone,
networks came near those trained on real ones (Hu et al., "Label-Free Liver Tumor Segmentation", CVPR
2023); here they join the real ones, in training only.

Who learns from these alone that dark spots are tumours finds them in gallbladders too, and in whatever
else is dark and touches the liver. So distractors join them: darker, larger, across the liver's edge, and
labelled as no liver.
"""

from __future__ import annotations

import cv2
import numpy as np

from .masks import LIVER, TUMOUR

# Radii as fractions of the picture's width, drawn evenly on a logarithmic scale: in a region of 20 cm,
# lesions of 4 mm to 3.6 cm across.
RADII = (0.01, 0.09)
# Grey levels, of 0.78 HU: how much darker than the liver, evenly on a logarithmic scale: 9 to 78 HU. One
# in fifteen is brighter.
DARKER = (12, 100)
BRIGHTER = (15, 40)
SMALLEST_LIVER = 0.01  # of the picture: no lesion is put into less
DISTRACTOR_RADII = (0.03, 0.11)
# Grey levels: 4 to 74 HU where the liver has 100 HU, which lie at 128: as bile, bowel and muscle, and as lesions.
# Where bodies were darker than all lesions, networks took dark lesions for bodies.
DISTRACTOR_LEVELS = (5, 95)


def implant(
    image: np.ndarray, labels: np.ndarray, random: np.random.Generator, *, lesions: float, distractors: float
) -> None:
    """:func:`implant_distractor` and then :func:`implant_lesions`, in place, each with its probability."""
    if random.random() < distractors:
        implant_distractor(image, labels, random)
    if random.random() < lesions:
        implant_lesions(image, labels, random)


def implant_lesions(image: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> None:
    """Put one or more lesions into the liver of a slice, in place: image and labels alike.

    Parameters
    ----------
    image : uint8 array (size, size, 3)
        The three channels are neighbouring slices (:func:`lits_helpers.regions.liver_crops`): the
        middle one gets the lesion in full, the others 0.6 to 1 of it.
    labels : uint8 array (size, size)
        0 background, 1 liver, 2 tumour. Lesions stay inside liver and tumours. Nothing happens where the
        liver is less than a hundredth of the picture.
    random : Generator
    """
    size = labels.shape[0]
    liver = np.flatnonzero(labels == LIVER)
    if len(liver) < SMALLEST_LIVER * labels.size:
        return
    for place in liver[random.integers(len(liver), size=1 + random.poisson(1.0))]:
        row, column = divmod(int(place), size)
        radius = size * np.exp(random.uniform(*np.log(RADII)))
        reach = int(1.8 * radius) + 3
        window = np.s_[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        distance = _distances(window, labels.shape, row, column, radius, random)
        in_liver = labels[window] != 0
        inside = (distance < 1) & in_liver
        soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), random.uniform(0.5, np.clip(0.2 * radius, 0.8, 2.5)))
        if random.random() < 1 / 15:
            change = random.uniform(*BRIGHTER)
        else:
            change = -np.exp(random.uniform(*np.log(DARKER)))
        rim = random.choice([0.0, 0.0, -0.5, 0.5])  # even, or stronger in the middle, or at the edge
        change = change * (1 + rim * (np.clip(distance, 0, 1) - 0.5))
        shares = np.array([random.uniform(0.6, 1), 1, random.uniform(0.6, 1)])
        changed = image[window] + (soft * change)[..., None] * shares
        image[window] = changed.round().clip(0, 255).astype(np.uint8)
        labels[window][inside] = TUMOUR


def implant_distractor(image: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> None:
    """Put a dark body across the liver's edge, in place: it is neither liver nor tumour, as a gallbladder.

    Parameters
    ----------
    image : uint8 array (size, size, 3)
        As for :func:`implant_lesions`; all three slices show the same.
    labels : uint8 array (size, size)
        0 where the body lies, afterwards. Nothing happens where it would cover a tumour, or where there
        is hardly any liver.
    random : Generator
    """
    size = labels.shape[0]
    liver = (labels != 0).astype(np.uint8)
    if liver.sum() < SMALLEST_LIVER * labels.size:
        return
    edge = np.flatnonzero(liver > cv2.erode(liver, np.ones((3, 3), np.uint8)))
    row, column = divmod(int(random.choice(edge)), size)
    radius = size * np.exp(random.uniform(*np.log(DISTRACTOR_RADII)))
    reach = int(1.8 * radius) + 3
    window = np.s_[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
    inside = _distances(window, labels.shape, row, column, radius, random) < 1
    if (labels[window][inside] == TUMOUR).any():
        return
    soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), random.uniform(0.5, 1.5))[..., None]
    part = image[window].astype(np.float32)
    # As noisy as the liver is: the middle of what is left of it by a blur, edges and vessels apart.
    middle = image[..., 1].astype(np.float32)
    rest = np.abs(middle - cv2.GaussianBlur(middle, (0, 0), 1.5))[liver != 0]
    noise = 1.48 * np.median(rest) * random.standard_normal(part.shape, dtype=np.float32)
    body = random.uniform(*DISTRACTOR_LEVELS) + noise
    image[window] = (part + soft * (body - part)).round().clip(0, 255).astype(np.uint8)
    labels[window][inside] = 0


def _distances(
    window: tuple[slice, slice], shape: tuple[int, int], row: int, column: int, radius: float,
    random: np.random.Generator,
) -> np.ndarray:
    """Distance from the centre of an uneven ellipse, 1 at its edge: float32 array of the window's shape."""
    rows, columns = (
        np.arange(*part.indices(length), dtype=np.float32) for part, length in zip(window, shape, strict=True)
    )
    down, right = rows[:, None] - row, columns[None] - column
    angle, longer = random.uniform(0, np.pi), np.exp(random.uniform(-0.35, 0.35))
    along = (right * np.cos(angle) + down * np.sin(angle)) / (radius * longer)
    across = (down * np.cos(angle) - right * np.sin(angle)) * longer / radius
    points = random.standard_normal((6, 6), dtype=np.float32)
    uneven = cv2.resize(points, (len(columns), len(rows)), interpolation=cv2.INTER_CUBIC)
    return np.sqrt(along**2 + across**2) + random.uniform(0, 0.25) * uneven
