"""From a folder of slices to one tidy table, and from the table to splits.

The slice table has one row a slice, sorted by volume and slice:

=====================  =======  ================================================================
column                 type     meaning
=====================  =======  ================================================================
image_path, mask_path  str      absolute paths
volume, slice          int      from the file name; a LiTS volume is one patient's scan
diagnosis              int      0 empty, 1 liver only, 2 liver and tumour, by the decoded labels
report_diagnosis       int      the same coding by the report's own rule
liver_pixels           int      label 1 at native resolution
tumour_pixels          int      label 2
height, width          int      pixels
coding                 str      of the mask file: see :mod:`lits_helpers.masks`
small_tumours_known    bool     False where tumours under 0.1 % of the slice read as liver
split                  str      after splitting: train, validation or test
=====================  =======  ================================================================
"""

from __future__ import annotations

import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from . import masks
from .files import DataError, atomic_path, collected_error, fingerprint
from .phantom import ensure_phantom
from .pictures import read_image, read_image_size
from .settings import Settings

# Slices by diagnosis that the report counted (its figure 6), and its split of the tumour slices.
REPORT_COUNTS = {masks.EMPTY: 19_777, masks.LIVER_ONLY: 6_948, masks.LIVER_AND_TUMOUR: 2_631}
# Its text once says 200 for validation and 431 for test; its code, followed here, has them so:
REPORT_SPLIT = {"train": 2_000, "validation": 431, "test": 200}
SPLITS = tuple(REPORT_SPLIT)
PATIENT_FRACTIONS = (0.6, 0.2, 0.2)

_SLICE_NAME = re.compile(r"volume-(\d+)_slice_(\d+)(_mask)?\.(?:jpe?g|png)", re.IGNORECASE)
_PICTURE_ENDINGS = (".jpg", ".jpeg", ".png")


def _find_slices(root: Path) -> tuple[dict, dict, list[str]]:
    """Images and masks of the report's names below a folder, by (volume, slice); problems."""
    root = Path(root).absolute()
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: set LITS_DATA_ROOT to the one with the slices")
    images: dict[tuple[int, int], str] = {}
    mask_files: dict[tuple[int, int], str] = {}
    problems = []
    for folder, _, names in sorted(os.walk(root)):
        # Hidden files are not data: half-written ones, and what macOS puts into archives.
        names = [name for name in names if not name.startswith(".")]
        parsed = {name: match for name in names if (match := _SLICE_NAME.fullmatch(name))}
        for name, match in sorted(parsed.items()):
            found = mask_files if match[3] else images
            path = os.path.join(folder, name)
            if (first := found.setdefault((int(match[1]), int(match[2])), path)) != path:
                problems.append(f"{path}: the same slice as {first}")
        if parsed:
            problems += [
                f"{os.path.join(folder, name)}: name is not like volume-0_slice_0.jpg"
                for name in sorted(set(names) - set(parsed))
                if name.lower().endswith(_PICTURE_ENDINGS)
            ]
    return images, mask_files, problems


def _by_number(**paths: dict[tuple[int, int], str]) -> pd.DataFrame:
    """One row for each slice that has all the paths, sorted by volume and slice."""
    keys = sorted(set.intersection(*(set(found) for found in paths.values())))
    columns = {name: [found[key] for key in keys] for name, found in paths.items()}
    return pd.DataFrame(columns | {"volume": [v for v, _ in keys], "slice": [s for _, s in keys]})


def find_images(root: Path) -> pd.DataFrame:
    """Slices below a folder, with or without masks: image_path, volume, slice.

    Raises
    ------
    DataError
        If the folder is missing or holds no slice.
    """
    images, _, _ = _find_slices(root)
    if not images:
        raise DataError(f"no file named like volume-0_slice_0.jpg (or .png) below {root}")
    return _by_number(image_path=images)


def find_pairs(root: Path) -> tuple[pd.DataFrame, list[str]]:
    """Match images and masks of the report's names anywhere below a folder.

    Images are ``volume-V_slice_S.jpg`` (or ``.png``), masks the same with ``_mask`` before the
    ending; the folders they lie in do not matter.

    Parameters
    ----------
    root : Path

    Returns
    -------
    pairs : DataFrame
        image_path, mask_path, volume, slice; sorted by the numbers.
    problems : list of str
        Unpaired and doubled files, and pictures among the slices whose name does not parse.

    Raises
    ------
    DataError
        If the folder is missing or holds no pair.
    """
    images, mask_files, problems = _find_slices(root)
    problems += [f"{images[key]}: no mask" for key in sorted(images.keys() - mask_files.keys())]
    problems += [f"{mask_files[key]}: no image" for key in sorted(mask_files.keys() - images.keys())]
    pairs = _by_number(image_path=images, mask_path=mask_files)
    if pairs.empty:
        raise DataError(
            f"no pair of slice and mask below {root} ({len(images)} images, {len(mask_files)} "
            "masks): expected images/train_images/volume-0_slice_0.jpg and "
            "masks/train_masks/volume-0_slice_0_mask.jpg (or .png); see data/README.md"
        )
    return pairs, problems


def classify(image_path: str, mask_path: str) -> dict[str, object]:
    """One pair's entries in the slice table; a bad file's message comes back as ``problem``."""
    row = dict(
        diagnosis=masks.EMPTY, report_diagnosis=masks.EMPTY, liver_pixels=0, tumour_pixels=0,
        height=0, width=0, coding="", small_tumours_known=False, problem="",
    )
    try:
        grey = read_image(mask_path, grey=True)
        mask = masks.decode_file(grey, mask_path)
        height, width = read_image_size(image_path)
        if grey.shape != (height, width):
            raise DataError(
                f"{image_path}: {height}x{width} pixels, its mask has {grey.shape[0]}x"
                f"{grey.shape[1]}: they are not of one slice, or one was resized"
            )
    except DataError as error:
        return row | {"problem": str(error)}
    pixels = np.bincount(mask.labels.ravel(), minlength=3)
    return dict(
        diagnosis=masks.diagnose(mask.labels), report_diagnosis=masks.report_diagnosis(grey),
        liver_pixels=int(pixels[masks.LIVER]), tumour_pixels=int(pixels[masks.TUMOUR]),
        height=height, width=width, coding=mask.coding,
        small_tumours_known=mask.small_tumours_known, problem="",
    )


def build_index(root: Path, output_root: Path, *, skip_problems: bool = False) -> pd.DataFrame:
    """The slice table of a folder: read from the cache, or made and cached.

    Parameters
    ----------
    root : Path
        Searched recursively; only read.
    output_root : Path
        Gets ``index/slices-<fingerprint>.csv``, with paths relative to ``root``. A file added,
        removed or changed below ``root`` gives another fingerprint, hence a new table.
    skip_problems : bool
        Leave out files that are unpaired, unreadable, of different sizes or of unknown coding,
        with a warning that lists them, instead of stopping.

    Returns
    -------
    DataFrame
        As described at the top of this module, without ``split``.

    Raises
    ------
    DataError
        If the folder holds no pair, or one report of all problems unless ``skip_problems``.
    """
    root = Path(root).absolute()
    pairs, problems = find_pairs(root)
    key = fingerprint([*pairs.image_path, *pairs.mask_path], __name__, 1)
    cached = Path(output_root) / "index" / f"slices-{key}.csv"
    if cached.exists():
        table = pd.read_csv(cached, keep_default_na=False)
        for column in ("image_path", "mask_path"):
            table[column] = [str(root / path) for path in table[column]]
        # A disk that answers again or a mended permission changes no fingerprint.
        for row in table.index[table.problem != ""]:
            for column, value in classify(table.image_path[row], table.mask_path[row]).items():
                table.loc[row, column] = value
    else:
        with ThreadPoolExecutor() as pool:
            rows = pool.map(classify, pairs.image_path, pairs.mask_path)
            rows = list(tqdm(rows, total=len(pairs), desc="classifying masks", unit="slice"))
        table = pd.concat([pairs, pd.DataFrame(rows)], axis=1)
        relative = {
            column: [Path(path).relative_to(root).as_posix() for path in table[column]]
            for column in ("image_path", "mask_path")
        }
        with atomic_path(cached) as temporary:
            table.assign(**relative).to_csv(temporary, index=False)
    bad = table.problem != ""
    problems += list(table.problem[bad])
    if problems:
        report = collected_error(
            problems, advice="Mend or remove these files, or leave them out with skip_problems=True."
        )
        if not skip_problems:
            raise report
        warnings.warn(f"left out: {report}", stacklevel=2)
    if bad.all():
        raise DataError(f"not one usable pair below {root}: {problems[0]}")
    return table[~bad].drop(columns="problem").reset_index(drop=True)


def load_slices(settings: Settings, *, skip_problems: bool = False) -> pd.DataFrame:
    """The slice table for a run's settings; makes the phantom first where that is the data."""
    return build_index(
        ensure_phantom(settings), settings.output_root, skip_problems=skip_problems
    )


def count_diagnoses(table: pd.DataFrame) -> pd.DataFrame:
    """Slices of each diagnosis: decoded, by the report's rule, and the report's own count.

    Returns
    -------
    DataFrame
        Index: the names of the diagnoses. Columns: ``decoded``, ``report_rule`` (both of this
        table), ``report`` (what the report counted on its data).
    """
    return pd.DataFrame(
        {
            "decoded": [int((table.diagnosis == d).sum()) for d in REPORT_COUNTS],
            "report_rule": [int((table.report_diagnosis == d).sum()) for d in REPORT_COUNTS],
            "report": list(REPORT_COUNTS.values()),
        },
        index=pd.Index(masks.DIAGNOSES, name="diagnosis"),
    )


def _proportional(total: int, shares: tuple[float, ...]) -> list[int]:
    """Whole numbers in the proportions of ``shares`` that add up to ``total``, the last >= 1."""
    parts = [round(total * share / sum(shares)) for share in shares[1:]]
    parts = [max(part, int(total >= len(shares))) for part in parts]
    return [total - sum(parts), *parts]


def split_slices(table: pd.DataFrame, *, seed: int = 32) -> pd.DataFrame:
    """The report's split: tumour slices alone, shuffled as slices. It leaks.

    Neighbouring slices of one patient land in training and in test, so a network is tested on
    what it has nearly seen. Kept to reproduce the report: ``sample(frac=1, random_state=32)``,
    then 2,000 for training, 431 for validation and 200 for test, or these proportions of
    whatever there is.

    Returns
    -------
    DataFrame
        The tumour slices in shuffled order, with ``split``.
    """
    shuffled = table[table.diagnosis == masks.LIVER_AND_TUMOUR].sample(frac=1, random_state=seed)
    parts = _proportional(len(shuffled), tuple(REPORT_SPLIT.values()))
    return _checked(shuffled.assign(split=np.repeat(SPLITS, parts)))


def split_patients(table: pd.DataFrame, *, seed: int = 32) -> pd.DataFrame:
    """Whole volumes to train, validation and test, 60 : 20 : 20, with and without tumour alike.

    Returns
    -------
    DataFrame
        All slices in the table's order, with ``split``.

    Raises
    ------
    DataError
        If there are too few volumes for three parts.
    """
    random = np.random.default_rng(seed)
    has_tumour = table.groupby("volume").diagnosis.max() == masks.LIVER_AND_TUMOUR
    assigned: dict[int, str] = {}
    for of_kind in (has_tumour[has_tumour].index, has_tumour[~has_tumour].index):
        volumes = random.permutation(np.array(of_kind))
        parts = _proportional(len(volumes), PATIENT_FRACTIONS)
        assigned |= dict(zip(volumes.tolist(), np.repeat(SPLITS, parts), strict=True))
    return check_patient_split(_checked(table.assign(split=table.volume.map(assigned))))


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """The table, if each of the three splits has a slice."""
    missing = [split for split in SPLITS if not (table.split == split).any()]
    if missing:
        raise DataError(
            f"the split leaves nothing for {', '.join(missing)}: {table.volume.nunique()} "
            f"volume(s) and {len(table)} slice(s) are too few, add more data"
        )
    return table


def check_patient_split(table: pd.DataFrame) -> pd.DataFrame:
    """The table unchanged, if no volume lies on two sides of its split.

    Raises
    ------
    DataError
        Naming the volumes that do.
    """
    sides = table.groupby("volume").split.nunique()
    leaking = sides[sides > 1].index.tolist()
    if leaking:
        raise DataError(
            f"volumes {leaking} lie on more than one side of the split: a patient may be in one "
            "only, use split_patients"
        )
    return table


def save_split(table: pd.DataFrame, path: Path) -> Path:
    """Write a table with its split as CSV, atomically; file names stand for paths."""
    names = {column: table[column].map(os.path.basename) for column in ("image_path", "mask_path")}
    with atomic_path(path) as temporary:
        table.assign(**names).to_csv(temporary, index=False)
    return Path(path)
