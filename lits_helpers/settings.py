"""Where data is read, where results go, and how large a run is.

The environment is read once, by :func:`load_settings`; everything else takes the resulting
:class:`Settings`, so that the same notebook cells do a minute on a laptop or a day on a GPU.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path

from .files import DataError, shown
from .recipes import RECIPES

KAGGLE_INPUT = Path("/kaggle/input")
KAGGLE_WORKING = Path("/kaggle/working")

# What numbers may be, from and to; seeds are those of Keras.
_LIMITS = {
    **dict.fromkeys(("image_size", "filters", "depth", "batch_size", "epochs"), (Integral, 1, 10**6)),
    "seed": (Integral, 0, 2**32 - 1), "learning_rate": (Real, 0, 10), "momentum": (Real, 0, 1),
    "prior": (Real, 1e-6, 1 - 1e-6),
}

# Names that only LiTS has: slices of the report and of lits-png, LiTS and Decathlon volumes.
_LITS_NAME = re.compile(
    r"volume-\d+(_slice)?_\d+(_mask)?\.(jpe?g|png)|(volume-|segmentation-|liver_)\d+\.nii(\.gz)?", re.IGNORECASE
)

# What a profile fixes. "full" is the report's (sections 4.3 and 4.4): 256x256x3 slices,
# 64..1024 filters, batch 32, 55 epochs, Adam at 1e-4. "tiny" is ours, for two CPU cores.
PROFILES = {
    "tiny": dict(
        image_size=96, filters=16, depth=3, momentum=0.9, prior=0.02,
        batch_size=8, epochs=30, learning_rate=2e-3, schedule="cosine",
    ),
    "full": dict(
        image_size=256, filters=64, depth=4, momentum=0.99, prior=0.5,
        batch_size=32, epochs=55, learning_rate=1e-4, schedule="plateau",
    ),
}


@dataclass(frozen=True)
class Settings:
    """One run's choices; made by :func:`load_settings`.

    Attributes
    ----------
    profile : str
        ``"tiny"`` or ``"full"``.
    data_root : Path
        Folder searched for slices; only ever read. For the phantom it lies in the output root.
    data_source : str
        ``"folder"`` (``LITS_DATA_ROOT``), ``"kaggle"`` (found below ``/kaggle/input``) or
        ``"phantom"`` (synthetic).
    output_root : Path
        Everything written goes below it: index, caches, checkpoints, figures, predictions.
    image_size : int
        Rows and columns the network sees, in pixels.
    filters, depth, momentum, prior
        Of :func:`lits_helpers.model.unet`.
    batch_size, epochs : int
    learning_rate : float
        Adam's highest.
    schedule : str
        How the learning rate moves from epoch to epoch; one of :data:`lits_helpers.training.SCHEDULES`.
    recipe : str
        Which network learns what (``LITS_RECIPE``): one of :data:`lits_helpers.recipes.RECIPES`.
    layout : str
        Which of several layouts below the data root is meant (``LITS_LAYOUT``): a name or a folder
        that :func:`lits_helpers.layouts.what_is_here` lists. Empty: there is only one.
    mask_meaning : str
        What masks of two levels outline (``LITS_MASK_MEANING``): ``"liver"``, ``"tumour"`` or
        ``"liver and tumour"``; or of each level: see :func:`lits_helpers.masks.detect`. Empty: the
        masks tell it themselves.
    seed : int
        For every shuffle; 32 is the report's ``random_state``.
    """

    profile: str
    data_root: Path
    data_source: str
    output_root: Path
    image_size: int
    filters: int
    depth: int
    momentum: float
    prior: float
    batch_size: int
    epochs: int
    learning_rate: float
    schedule: str
    recipe: str = "report"
    layout: str = ""
    mask_meaning: str = ""
    seed: int = 32

    @property
    def is_synthetic(self) -> bool:
        """Whether the data is the phantom, so that results are labelled so."""
        return self.data_source == "phantom"

    @property
    def data_label(self) -> str:
        """Words for titles and tables: what the numbers were obtained on."""
        return "synthetic phantom" if self.is_synthetic else f"slices of {self.data_root.name}"

    def __str__(self) -> str:
        width = max(len(field.name) for field in fields(self))
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return "\n".join(
            f"{name:<{width}}  {shown(value) if isinstance(value, Path) else value}".rstrip()
            for name, value in values.items()
        )


def find_kaggle_data(kaggle_input: Path) -> Path | None:
    """The folder below ``/kaggle/input`` that holds LiTS, at whatever depth, or None.

    A folder counts when it has a file named as LiTS volumes and slices are (see
    :mod:`lits_helpers.data_files`); the answer is the innermost folder that holds all such files.
    In the output of an earlier session, attached as input, labels and phantom do not count.
    """
    if not kaggle_input.is_dir():
        return None
    found: list[Path] = []
    for folder, inner, names in os.walk(kaggle_input):
        if "runs" in inner:
            inner[:] = [name for name in inner if name not in ("labels", "phantom")]
        if any(map(_LITS_NAME.fullmatch, names)):
            found.append(Path(folder))
    return Path(os.path.commonpath(found)) if found else None


def load_settings(**overrides: object) -> Settings:
    """Read the environment.

    The variables are ``LITS_PROFILE``, ``LITS_RECIPE``, ``LITS_DATA_ROOT``, ``LITS_OUTPUT_ROOT``,
    ``LITS_LAYOUT`` and ``LITS_MASK_MEANING``.

    Parameters
    ----------
    **overrides
        Any attribute of :class:`Settings`, in place of what the environment or the profile says:
        ``load_settings(profile="full", epochs=10)``.

    Returns
    -------
    Settings

    Raises
    ------
    DataError
        For an unknown profile or attribute, a number that cannot be, a data root that is not a folder,
        an output root inside the data root, or the full profile without data; the message names the
        variable.
    """
    unknown = set(overrides) - {field.name for field in fields(Settings)}
    if unknown:
        raise DataError(f"unknown settings {sorted(unknown)}: see help(lits_helpers.Settings)")
    profile = overrides.pop("profile", None) or os.environ.get("LITS_PROFILE") or "tiny"
    if profile not in PROFILES:
        raise DataError(f"LITS_PROFILE is {profile!r}: set it to 'tiny' or 'full'")

    recipe = overrides.pop("recipe", None) or os.environ.get("LITS_RECIPE") or "report"
    if recipe not in RECIPES:
        raise DataError(f"LITS_RECIPE is {recipe!r}: set it to one of {', '.join(RECIPES)}")

    # Jupyter's current folder is the notebook's: outputs belong beside notebooks/, not inside.
    here = Path.cwd().parent if Path.cwd().name == "notebooks" else Path.cwd()
    default_output = KAGGLE_WORKING if KAGGLE_WORKING.is_dir() else here / "outputs"
    output_root = _place(
        overrides.pop("output_root", None) or os.environ.get("LITS_OUTPUT_ROOT") or default_output, "LITS_OUTPUT_ROOT"
    )

    named = overrides.pop("data_root", None) or os.environ.get("LITS_DATA_ROOT")
    if named:
        data_root, data_source = _place(named, "LITS_DATA_ROOT"), "folder"
        if not data_root.is_dir():
            raise DataError(
                f"LITS_DATA_ROOT is {named!r}, which is not a folder: set it to the folder that "
                "holds the slices, or unset it to use the phantom"
            )
        if output_root.is_relative_to(data_root):
            raise DataError(
                f"the output root {output_root} is, or lies in, LITS_DATA_ROOT {data_root}: data is "
                "never written to, so give outputs a folder of their own with LITS_OUTPUT_ROOT"
            )
    elif kaggle := find_kaggle_data(KAGGLE_INPUT):
        data_root, data_source = kaggle, "kaggle"
    elif profile == "tiny":
        data_root, data_source = output_root / "phantom", "phantom"
    else:
        raise DataError(
            "the full profile needs real data: set LITS_DATA_ROOT to the folder that holds the "
            "LiTS slices (data/README.md says where to get them), or LITS_PROFILE=tiny"
        )
    about_data = {
        name: overrides.pop(name, None) or os.environ.get(f"LITS_{name.upper()}") or ""
        for name in ("layout", "mask_meaning")
    }
    if data_source == "phantom":  # it holds volumes as well, and its masks are known
        about_data = {"layout": "report-slices", "mask_meaning": ""}
    chosen = {
        **about_data, "data_source": data_source, "data_root": data_root, "output_root": output_root,
        **PROFILES[profile], **RECIPES[recipe].changes.get(profile, {}), **overrides,
    }
    settings = Settings(profile=profile, recipe=recipe, **chosen)
    for name, (kind, lowest, highest) in _LIMITS.items():
        value = getattr(settings, name)
        if not isinstance(value, kind) or not lowest <= value <= highest:
            what = "a whole number" if kind is Integral else "a number"
            raise DataError(f"{name} is {value!r}: give {what} from {lowest} to {highest}")
    return settings


def _place(named: object, variable: str) -> Path:
    """Where a folder is, or would be; links are followed."""
    try:
        place = Path(named).expanduser().resolve()
        place.exists()
        str(place).encode()
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # too long, a circle, nobody's home, no UTF-8...
        raise DataError(f"{variable} is {named!r}, which cannot be a folder ({error}): name another") from error
    return place
