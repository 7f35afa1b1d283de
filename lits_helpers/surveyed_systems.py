"""What the surveyed systems are once they are trained: each looks at one volume, all in the same way.

:mod:`lits_helpers.surveyed` trains them and says after which papers; Han's needs no class of its own,
as it is a :class:`lits_helpers.cascade.Cascade`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from .candidate_filter import CandidateFilter, filter_candidates
from .candidates import candidate_features
from .cascade import Cascade, predict_table
from .generators import resize_image
from .inference import TUMOUR_CHANNEL, enlarged, predict_images
from .masks import TUMOUR
from .pictures import read_image
from .postprocessing import filled
from .regions import liver_crops, liver_region, put_back
from .sorting import predict_pictures, triage
from .superpixel_system import SuperpixelSystem, segment_volume
from .windows import GREEN

Found = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class System:
    """A trained system.

    Attributes
    ----------
    predictor : object
        Its ``predict(pictures, numbers)`` looks at one volume, whose slices in the report's coding,
        uint8 (rows, columns, 3), and rising slice numbers are given, and returns

        - probabilities of tumour, float16 (slices, rows, columns), in [0, 1],
        - the liver with its tumours, bool, same shape; all False where it draws none.
    networks : tuple of keras.Model
    threshold : float
        Of the probability.
    seconds : float
        Of wall time that its networks were trained, the shared one too.
    draws_liver : bool
        Whether it outlines the liver in all slices, so that a tumour burden can be told.
    """

    predictor: Cascade | Triaged | Filtered | Hierarchy | OfSuperpixels
    networks: tuple[keras.Model, ...]
    threshold: float
    seconds: float
    draws_liver: bool = True

    @property
    def parameters(self) -> int:
        """Numbers that its networks hold."""
        return sum(network.count_params() for network in self.networks)

    def predict_table(self, table: pd.DataFrame) -> np.ndarray:
        """Tumour probabilities of a slice table of whole volumes, at native resolution, in its order.

        float16 array (slices, rows, columns); slices must all have one size.
        """
        return predict_table(self.predictor.predict, table)


def volumes(table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, list[np.ndarray]]]:
    """Each volume's rows in slice order, and its pictures."""
    for _, rows in table.sort_values(["volume", "slice"]).groupby("volume"):
        yield rows, [read_image(path) for path in rows.image_path]


@dataclass(frozen=True, eq=False)
class Triaged:
    """A segmenter of whole slices that sees only what a sorter lets through."""

    network: keras.Model
    sorter: keras.Model
    threshold: float  # of the sorter's probability of tumour

    def predict(self, pictures: Sequence[np.ndarray], numbers: Sequence[int]) -> Found:
        """As :class:`System` says. The liver is left empty: skipped slices would lack theirs."""
        shape = pictures[0].shape[:2]
        probabilities = np.zeros((len(pictures), *shape), np.float16)
        wanted = np.flatnonzero(triage(predict_pictures(self.sorter, pictures), threshold=self.threshold))
        small = [resize_image(pictures[place], self.network.input_shape[1]) for place in wanted]
        for place, answer in zip(wanted, predict_images(self.network, small), strict=True):
            probabilities[place] = enlarged(answer[..., TUMOUR_CHANNEL], shape)
        return probabilities, np.zeros(probabilities.shape, bool)


@dataclass(frozen=True, eq=False)
class Filtered:
    """A cascade whose tumour candidates are looked at once more, by a random forest.

    Attributes
    ----------
    cascade : Cascade
    forest : CandidateFilter or None
        None where the validation patients had not both kinds of candidates: then all stay.
    least : float
        Probability by the forest that a candidate needs to stay.
    threshold : float
        Of the cascade's probability: a part above it is a candidate.
    """

    cascade: Cascade
    forest: CandidateFilter | None
    least: float
    threshold: float

    def predict(self, pictures: Sequence[np.ndarray], numbers: Sequence[int]) -> Found:
        """As :class:`System` says; probabilities of rejected candidates are 0."""
        probabilities, liver = self.cascade.predict(pictures, numbers)
        return self.filtered(np.stack(pictures), probabilities, liver), liver

    def filtered(self, images: np.ndarray, probabilities: np.ndarray, liver: np.ndarray) -> np.ndarray:
        """What is left of the cascade's probabilities, float16 (slices, rows, columns)."""
        tumour = probabilities > self.threshold
        if self.forest is None or not tumour.any():
            return probabilities
        features = candidate_features(images, tumour, liver, probability=probabilities)
        kept = filter_candidates(tumour, self.forest.probabilities(features), threshold=self.least)
        return np.where(tumour & ~kept, np.float16(0), probabilities)


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Coarse liver in whole slices, fine liver in its region, tumours with the fine liver as input."""

    coarse: keras.Model
    liver: keras.Model
    tumour: keras.Model

    def predict(self, pictures: Sequence[np.ndarray], numbers: Sequence[int]) -> Found:
        """As :class:`System` says."""
        shape, size = pictures[0].shape[:2], self.liver.input_shape[1]
        probabilities = np.zeros((len(pictures), *shape), np.float16)
        liver = np.zeros(probabilities.shape, bool)
        small = [resize_image(picture, self.coarse.input_shape[1]) for picture in pictures]
        coarse = predict_images(self.coarse, small)[..., 0] < 0.5
        region, coarse = liver_region(coarse, np.stack(small)[..., GREEN])
        if region is None:
            return probabilities, liver
        wanted = np.flatnonzero(coarse.any(axis=(1, 2)))
        crops = liver_crops([picture[..., GREEN] for picture in pictures], numbers, region, size, wanted=wanted)
        fine = filled(predict_images(self.liver, crops)[..., 0] < 0.5)
        tumour = predict_images(self.tumour, with_liver(crops, fine))[..., TUMOUR_CHANNEL]
        matrix = region.map(size, shape)
        for place, inside, answer in zip(wanted, fine, tumour, strict=True):
            liver[place] = put_back(inside, matrix, shape) > 0.5
            probabilities[place] = put_back(answer, matrix, shape) * liver[place]
        return probabilities, liver


def with_liver(crops: np.ndarray, liver: np.ndarray) -> np.ndarray:
    """A volume's crops with the liver, its histogram equalised, in place of the slice before.

    Parameters
    ----------
    crops : uint8 array (n, size, size, 3)
        Of :func:`lits_helpers.regions.liver_crops`.
    liver : bool array (n, size, size)

    Returns
    -------
    uint8 array (n, size, size, 3)
        First channel: 0 outside the liver; in it 1 to 255, by the share of the volume's liver that is
        as dark or darker. A liver that is empty leaves it 0.
    """
    grey = crops[..., 1]
    counts = np.bincount(grey[liver], minlength=256)
    share = counts.cumsum() / max(counts.sum(), 1)
    found = crops.copy()
    found[..., 0] = np.where(liver, 1 + (254 * share).round().astype(np.uint8)[grey], 0)
    return found


@dataclass(frozen=True, eq=False)
class OfSuperpixels:
    """:mod:`lits_helpers.superpixel_system`, looking at slices of any size."""

    system: SuperpixelSystem
    size: int  # of the slices that it was trained on

    def predict(self, pictures: Sequence[np.ndarray], numbers: Sequence[int]) -> Found:
        """As :class:`System` says. Contours are final: probabilities are 0 or 1, in between at their edges."""
        found = segment_volume(self.system, np.stack([resize_image(picture, self.size) for picture in pictures]))
        shape = pictures[0].shape[:2]
        tumour, liver = (
            np.stack([enlarged(plane.astype(np.float32), shape) for plane in part])
            for part in (found.labels == TUMOUR, found.liver)
        )
        return tumour.astype(np.float16), liver > 0.5
