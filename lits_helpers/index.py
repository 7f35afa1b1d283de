"""From a folder of LiTS in any layout to one tidy table of slices.

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
slice_mm, row_mm,      float    spacing in mm, of the volume itself or of one of the same number and
column_mm                       length below the same root; NaN where none is known
coding                 str      of the mask file: see :mod:`lits_helpers.masks`
small_tumours_known    bool     False where tumours under 0.1 % of the slice read as liver
patient                int      after audit.with_patients: of a patient's volumes the lowest number
split                  str      after :mod:`lits_helpers.splits`: train, validation or test
=====================  =======  ================================================================
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pandas as pd

from . import masks
from .conversion import convert_volumes, slice_paths
from .files import DataError, collected_error, fingerprint, read_table, write_table
from .layouts import SLICE_COLUMNS, Layout, choose, find_layouts
from .parallel import run_jobs
from .phantom import ensure_phantom
from .pictures import read_image, read_image_size, write_image
from .settings import Settings
from .volumes import read_geometry

# Slices by diagnosis that the report counted (its figure 6).
REPORT_COUNTS = {masks.EMPTY: 19_777, masks.LIVER_ONLY: 6_948, masks.LIVER_AND_TUMOUR: 2_631}
SPACING = ["slice_mm", "row_mm", "column_mm"]
_STORED = {
    "image_path": str, "mask_path": str, "tumour_mask_path": str, "diagnosis": int, "report_diagnosis": int,
    "liver_pixels": int, "tumour_pixels": int, "height": int, "width": int, "coding": str, "small_tumours_known": bool,
    "problem": str,
}
_ROWS_PER_JOB = 64
_WORTH_PROCESSES = 4_000  # masks; below, starting processes takes longer than they save


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
    # Ten times faster than counting all levels.
    tumour_pixels = np.count_nonzero(mask.labels == masks.TUMOUR)
    return dict(
        diagnosis=masks.diagnose(mask.labels), report_diagnosis=masks.report_diagnosis(grey),
        liver_pixels=np.count_nonzero(mask.labels) - tumour_pixels, tumour_pixels=tumour_pixels,
        height=height, width=width, coding=mask.coding,
        small_tumours_known=mask.small_tumours_known, problem="",
    )


def build_index(
    root: Path,
    output_root: Path,
    *,
    layout: str = "",
    mask_meaning: str = "",
    skip_problems: bool = False,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """The slice table of a folder: read from the cache, or made and cached.

    Volumes are converted to slices first, and masks in a coding that a single file does not tell
    are written anew as labels. Both are done once, and kept below the output root.

    Parameters
    ----------
    root : Path
        Searched recursively; only read.
    output_root : Path
        Gets ``index/slices-<fingerprint>.csv``. A file added, removed or changed below ``root``
        gives another fingerprint, hence a new table. Where needed also ``slices/`` and ``labels/``.
    layout : str
        A name or folder that :func:`lits_helpers.layouts.what_is_here` lists, if it lists several.
    mask_meaning : str
        What masks of two levels outline: see :func:`lits_helpers.masks.detect`.
    skip_problems : bool
        Leave out files that are unpaired, unreadable, of different sizes or of unknown coding,
        with a warning that lists them, instead of stopping.
    executor : concurrent.futures.Executor, optional
        See :func:`lits_helpers.parallel.run_jobs`; by default threads for slices and processes for
        volumes.

    Returns
    -------
    DataFrame
        As described at the top of this module, without ``split``.

    Raises
    ------
    DataError
        If the folder holds no pair, or one report of all problems unless ``skip_problems``.
    """
    output_root = Path(output_root).absolute()
    layouts = find_layouts(root)
    found = choose(layouts, layout)
    pairs = found.cases[found.cases.mask_path != ""]
    if found.name == "lits-png":  # a liver without its tumours' mask would pass for healthy
        pairs = pairs[pairs.tumour_mask_path != ""]
    problems = list(found.problems)
    if pairs.empty:
        words = f"no masks in {found.folder}: its {len(found.cases)} {found.kind} serve for prediction only"
        raise DataError("\n  - ".join([words, *found.left_out[:20]]))
    if found.kind == "volumes":
        pairs, spacing = _slices_of_volumes(found, output_root, skip_problems, executor)
    coding = _coding(found, pairs, mask_meaning)
    if coding is not None:
        pairs, unreadable = _relabelled(pairs, coding, output_root, executor)
        problems += unreadable
        if pairs.empty:
            raise collected_error(problems, advice="No mask could be read: mend these files.")
    key = fingerprint([*pairs.image_path, *pairs.mask_path], __name__, 2)
    cached = output_root / "index" / f"slices-{key}.csv"
    table = _classified(pairs, (found.folder, output_root), cached, executor)
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
    table = table[~bad].drop(columns="problem").reset_index(drop=True)
    if found.kind == "slices":
        spacing = _spacing_beside(table, layouts)
    table = table.join(spacing, on="volume")
    if coding is not None:
        return table.assign(coding=coding.name, small_tumours_known=coding.tumours_known)
    ambiguous = (table.coding == "labels").all() and table.liver_pixels.any() and not table.tumour_pixels.any()
    if ambiguous and found.kind == "slices" and not mask_meaning:
        raise DataError(
            f"all masks below {root} hold 0 and 1 alone: liver without any tumour, tumours, or both as "
            f"one? Say which with LITS_MASK_MEANING (mask_meaning): {', '.join(masks.MEANINGS)}"
        )
    return table


def _spacing_beside(table: pd.DataFrame, layouts: list[Layout]) -> pd.DataFrame:
    """Spacing of those volumes of the table that lie as NIfTI below the same root, in the same size."""
    slices = table.groupby("volume").slice.max() + 1
    sizes = table.groupby("volume")[["height", "width"]].agg(["min", "max"])
    rows = {}
    for volumes in layouts:
        if volumes.name in ("lits-nifti", "decathlon"):
            for case in volumes.cases.itertuples():
                if slices.get(case.volume) == case.slices:
                    geometry = read_geometry(case.image_path)
                    _, height, width = geometry.screen_shape  # slices may have been made smaller
                    if not geometry.is_identity and sizes.loc[case.volume].tolist() == [height, height, width, width]:
                        rows[case.volume] = geometry.spacing
    return pd.DataFrame.from_dict(rows, "index", columns=SPACING)


def spacing_of(rows: pd.DataFrame, numbers: Sequence[int]) -> tuple[float, float, float] | None:
    """Spacing of a volume's slices as (slice, row, column) in mm, where sizes in mm can be told.

    Parameters
    ----------
    rows : DataFrame
        Of a slice table, of one volume.
    numbers : sequence of int
        The slices that are looked at, rising.

    Returns
    -------
    tuple of float, or None
        None where the spacing is not known, or where slices are missing in between.
    """
    spacing = rows.reindex(columns=SPACING).iloc[0]
    known = spacing.notna().all() and (np.diff(numbers) == 1).all()
    return tuple(map(float, spacing)) if known else None


def _slices_of_volumes(
    found: Layout, output_root: Path, skip_problems: bool, executor: Executor | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs of slice files of volumes, converted where they are not yet; and their spacing."""
    masked = found.cases[found.cases.mask_path != ""]
    name = f"{found.folder.name}-{hashlib.sha256(str(found.folder).encode()).hexdigest()[:8]}"
    folder = output_root / "slices" / name
    converted = convert_volumes(masked, folder, skip_problems=skip_problems, executor=executor)
    rows = [
        (row.volume, number, *map(str, slice_paths(folder, row.volume, number, ".png")), "")
        for row in converted.itertuples() for number in range(row.slices)
    ]
    known = converted[converted.spacing_known]
    spacing = pd.DataFrame(known.spacing_mm.tolist(), index=known.volume.tolist(), columns=SPACING)
    return pd.DataFrame(rows, columns=SLICE_COLUMNS), spacing


def _coding(found: Layout, pairs: pd.DataFrame, mask_meaning: str) -> masks.Coding | None:
    """The coding of masks that do not tell it one by one, or None where each does."""
    if found.kind == "volumes":
        return None
    if found.name == "lits-png":
        return masks.TWO_FILES
    sample = pairs.mask_path[:: max(1, len(pairs) // 16)]
    if not mask_meaning and 2 * sum(map(_tells_itself, sample)) > len(sample):
        return None  # a few others are problems, each to be named
    return masks.detect(pairs.mask_path.tolist(), meaning=mask_meaning or None)


def _tells_itself(mask_path: str) -> bool:
    """Whether one mask can be read without the others; so can one that cannot be read at all."""
    try:
        grey = read_image(mask_path, grey=True)
    except DataError:
        return True
    try:
        masks.recognise(grey)
    except DataError:
        return False
    return True


def _relabelled(
    pairs: pd.DataFrame, coding: masks.Coding, output_root: Path, executor: Executor | None
) -> tuple[pd.DataFrame, list[str]]:
    """Pairs whose masks are label files below the output root, and problems of those left out."""
    sources = [path for path in (*pairs.mask_path, *pairs.tumour_mask_path) if path]
    folder = output_root / "labels" / fingerprint(sources, coding, 1)
    targets = [str(slice_paths(folder, v, s, ".png")[1]) for v, s in zip(pairs.volume, pairs.slice)]
    pairs = pairs.assign(target=targets)
    waiting = pairs[[not os.path.exists(target) for target in targets]]
    problems = _for_each(
        _write_labels, waiting.mask_path, waiting.tumour_mask_path, waiting.target, [coding] * len(waiting),
        description="writing labels", executor=executor,
    )
    written = pairs[[os.path.exists(target) for target in targets]]
    return written.drop(columns="mask_path").rename(columns={"target": "mask_path"}), list(filter(None, problems))


def _write_labels(mask_path: str, tumour_mask_path: str, target: str, coding: masks.Coding) -> str:
    """Write one mask's labels; what kept it from being read, or nothing."""
    try:
        if tumour_mask_path:
            labels = masks.read_two_files(mask_path, tumour_mask_path)
        else:
            labels = masks.read_labels(mask_path, coding)
        write_image(Path(target), labels)
    except DataError as error:
        return str(error)
    return ""


def _classified(pairs: pd.DataFrame, bases: tuple[Path, ...], cached: Path, executor: Executor | None) -> pd.DataFrame:
    """The pairs with what :func:`classify` says of each, from the cache or put there."""
    relative = {
        column: [_relative(path, bases) for path in pairs[column]] for column in ("image_path", "mask_path")
    }
    if cached.exists():
        table = read_table(cached, _STORED)
        for column, expected in relative.items():
            strange = sorted(set(table[column]) - set(expected))
            if strange or table[column].tolist() != expected:
                named = strange[0] if strange else "other rows"
                raise DataError(f"{cached}: names {named}, not what lies below {bases[0]}: delete this file")
            table[column] = pairs[column].to_numpy()
        table = table.assign(volume=pairs.volume.to_numpy(), slice=pairs.slice.to_numpy())
        # A disk that answers again or a mended permission changes no fingerprint.
        for row in table.index[table.problem != ""]:
            for column, value in classify(table.image_path[row], table.mask_path[row]).items():
                table.loc[row, column] = value
        return table
    rows = _for_each(classify, pairs.image_path, pairs.mask_path, description="classifying masks", executor=executor)
    table = pd.concat([pairs.reset_index(drop=True), pd.DataFrame(rows)], axis=1)
    write_table(cached, table.assign(**relative))
    return table


def _relative(path: str, bases: tuple[Path, ...]) -> str:
    """A path from the first of the folders that holds it."""
    base = next(base for base in bases if Path(path).is_relative_to(base))
    return Path(path).relative_to(base).as_posix()


def _for_each(
    function: Callable, *columns: Sequence, description: str, executor: Executor | None
) -> list:
    """Call a function with each row of some columns, many rows a job."""
    rows = list(zip(*columns, strict=True))
    parts = [rows[start : start + _ROWS_PER_JOB] for start in range(0, len(rows), _ROWS_PER_JOB)]
    done = run_jobs(
        _call_with_each, [(function, part) for part in parts], description=description, unit="slice",
        weights=[len(part) for part in parts], executor=executor, threads=len(rows) < _WORTH_PROCESSES,
    )
    return [result for part in done for result in part]


def _call_with_each(function: Callable, rows: list[tuple]) -> list:
    return [function(*row) for row in rows]


def load_slices(
    settings: Settings, *, skip_problems: bool = False, executor: Executor | None = None
) -> pd.DataFrame:
    """The slice table for a run's settings; makes the phantom first where that is the data."""
    return build_index(
        ensure_phantom(settings), settings.output_root, layout=settings.layout,
        mask_meaning=settings.mask_meaning, skip_problems=skip_problems, executor=executor,
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
