"""The rungs of the ablation ladder: ways to train that differ in one choice each, from the report's to the strong recipe's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import keras

from .augmentation import Augmentation
from .blocks import segmenter
from .cascade import AUGMENTATIONS, THRESHOLD as CLASS_THRESHOLD
from .losses import LOSSES
from .masks import THRESHOLD
from .model import unet
from .runs import REPORT_AUGMENTATION
from .settings import Settings


@dataclass(frozen=True)
class Rung:
    """A way to train: what differs from rung to rung.

    Attributes
    ----------
    name, words : str
        Short, for figures; and what it is, for tables.
    classes : int
        1: tumour against all else. 3: background, liver, tumour, one within the other.
    loss : str
        ``"report"``, cross-entropy plus Dice of one class; of three, one of :data:`lits_helpers.losses.LOSSES`.
    block : str
        ``"report"`` is the report's U-Net; ``"plain"`` and ``"residual"`` are those of
        :func:`lits_helpers.blocks.segmenter`, whose choices the next four are.
    norm : str
    attention, deep_supervision : bool
    stem : int
    filters, depth : int, optional
        Channels of the first level, and poolings; by default those of :data:`SIZES`.
    region : bool
        The liver's region with its brightness taken out (:mod:`lits_helpers.regions`), not whole slices.
    neighbours : bool
        The slices before and after as well; in the region.
    by_volume : bool
        Every patient comes equally often in training. Half of the slices show tumour in any case.
    intensity : bool
        Turned by up to 20 degrees, brighter or darker, noisy, blurred: the strong recipe's augmentation. Else
        the report's.
    lesions : bool
        Synthetic lesions in training; in the region.
    distractors : bool
        Dark bodies across the liver's edge that are no liver, in training; in the region.
    windows : bool
        Learns from parts of the region about a pixel of liver, and predicts whole ones.
    flips : bool
        Average over mirrored slices in prediction. Trains nothing: a rung that differs in this alone shares
        its network.
    """

    name: str
    words: str
    classes: int = 1
    loss: str = "report"
    block: str = "report"
    norm: str = "batch"
    attention: bool = False
    deep_supervision: bool = False
    stem: int = 1
    filters: int | None = None
    depth: int | None = None
    region: bool = False
    neighbours: bool = False
    by_volume: bool = False
    intensity: bool = False
    lesions: bool = False
    distractors: bool = False
    windows: bool = False
    flips: bool = False

    def __post_init__(self):
        if (self.classes == 1) != (self.loss == "report"):
            raise ValueError(f"{self.name}: one class goes with the report's loss, three with one of {list(LOSSES)}")
        if self.loss not in ("report", *LOSSES):
            raise ValueError(f"{self.name}: loss is {self.loss!r}: choose from {['report', *LOSSES]}")
        if self.block == "report" and (self.classes, self.stem) != (1, 1):
            raise ValueError(f"{self.name}: the report's network has one class and no stem: take block 'plain'")
        if self.region and self.classes == 1:
            raise ValueError(f"{self.name}: a network in the liver's region tells three classes apart")
        if (self.neighbours or self.lesions or self.distractors or self.windows) and not self.region:
            raise ValueError(f"{self.name}: neighbours, synthetic lesions, distractors and windows are those of the liver's region")

    @property
    def threshold(self) -> float:
        """Of the tumour's probability: the report's for one class, the cascade's for three."""
        return THRESHOLD if self.classes == 1 else CLASS_THRESHOLD

    @property
    def augmentation(self) -> Augmentation:
        """Of the training slices."""
        chosen = AUGMENTATIONS["tumour"] if self.intensity else REPORT_AUGMENTATION
        strong = AUGMENTATIONS["tumour"]
        return replace(
            chosen, lesions=strong.lesions * self.lesions, distractors=strong.distractors * self.distractors
        )

    def network(self, settings: Settings) -> keras.Model:
        """Its network, not compiled; of the settings' size, and their filters and depth unless it has its own."""
        size, parts = settings.image_size, dict(filters=self.filters or settings.filters, depth=self.depth or settings.depth)
        if self.block == "report":
            return unet((size, size, 3), momentum=settings.momentum, prior=settings.prior, **parts)
        inputs = keras.Input((size, size, 3))
        middle_only = self.region and not self.neighbours
        seen = inputs[..., 1:2] if middle_only else inputs
        made = segmenter(
            tuple(seen.shape[1:]), classes=self.classes, stem=self.stem, block_kind=self.block, norm=self.norm,
            attention=self.attention, deep_supervision=self.deep_supervision,
            prior=settings.prior, **parts,
        )
        return keras.Model(inputs, made(seen)) if middle_only else made


def _steps(first: Rung, *steps: tuple[str, str, dict[str, object]]) -> tuple[Rung, ...]:
    """Rungs that keep all choices of the one before but those given."""
    rungs = [first]
    for name, words, choices in steps:
        rungs.append(replace(rungs[-1], name=name, words=words, **choices))
    return tuple(rungs)


LADDER = _steps(
    Rung("report", "the report's U-Net, loss and augmentation: whole slices, tumour against all else"),
    ("own blocks", "each convolution normalised, leaky ReLU", dict(block="plain")),
    ("three classes", "background, liver and tumour, one within the other", dict(classes=3, loss="class")),
    ("coarse stem", "the first convolution halves rows and columns: more steps in the same time", dict(stem=2)),
    ("liver region", "the liver's region as a first network finds it, its brightness taken out", dict(region=True)),
    ("neighbours", "the slices before and after as two more channels", dict(neighbours=True)),
    ("by patient", "every patient equally often, however few its tumour slices", dict(by_volume=True)),
    ("intensity", "turned by up to 20 degrees, brightness, contrast, noise, blur", dict(intensity=True)),
    ("lesions", "synthetic lesions put into livers", dict(lesions=True)),
    ("distractors", "dark bodies across the liver's edge that are no liver", dict(distractors=True)),
    ("windows", "learn from parts about the liver: more of them in the same time", dict(windows=True)),
    ("flips", "mean over mirrored slices in prediction", dict(flips=True)),
)
# Each differs in one choice from the last rung that trains.
_TOP = LADDER[-2]
ALTERNATIVES = tuple(
    replace(_TOP, name=name, words=words, **choices)
    for name, words, choices in (
        ("residual", "what comes into a block is added to what leaves it", dict(block="residual")),
        ("group norm", "normalised in groups of channels of one slice", dict(norm="group")),
        ("instance norm", "normalised channel by channel of one slice", dict(norm="instance")),
        ("attention", "skip connections weighed pixel by pixel", dict(attention=True)),
        ("deep supervision", "an answer from each level of the decoder", dict(deep_supervision=True)),
        ("Jaccard", "Jaccard loss alone", dict(loss="jaccard")),
        ("focal Tversky", "focal Tversky loss, which weighs misses more", dict(loss="focal-tversky")),
    )
)
# As the cascade's first network learns, but with as many filters as SIZES says.
FINDER = Rung("liver", "finds the liver", classes=3, loss="class", block="plain", stem=2, by_volume=True)
