"""Named ways to train: what each changes in a profile's settings, and why."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Recipe:
    """A way to train a network on slices.

    Attributes
    ----------
    words : str
        One line for lists.
    classes : int
        Channels of the network's answer: 1, the tumour's probability by a sigmoid, or 3, those of
        background, liver and tumour, which add up to 1.
    changes : dict of dict
        By profile, the attributes of :class:`lits_helpers.Settings` that differ from the profile's.
    cascade : bool
        Whether two networks are trained, one to find the liver and one for what is in it
        (:mod:`lits_helpers.cascade`).
    """

    words: str
    classes: int = 1
    changes: dict[str, dict[str, object]] = field(default_factory=dict)
    cascade: bool = False


RECIPES = {
    "report": Recipe("the report's: its U-Net, tumour against everything else, cross-entropy plus Dice"),
    "fast": Recipe(
        "a small network that learns liver and tumour at half resolution, in small batches (on the phantom not faster)",
        classes=3,
        changes={
            "tiny": dict(batch_size=4, epochs=24, learning_rate=3e-3),
            "full": dict(filters=32, batch_size=16, epochs=30, learning_rate=2e-3, schedule="cosine"),
        },
    ),
    "strong": Recipe(
        "two networks: the liver in the whole slice, then tumours in its region with its brightness taken out",
        classes=3, cascade=True,
    ),
}
