"""The label detective: how a data set codes its masks, from a sample of its files.

It says what it saw and refuses to guess: a file of 0 and 255 does not tell whether it outlines the
liver, the tumours or both.
"""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from .codings import (
    BACKGROUND, CODINGS, LIVER, NEAR, REPORT_LEVELS, TUMOUR, Level, decode, decode_exact, decode_smeared,
    distance_to, flat_pixels, recognise,
)
from .files import DataError, shown
from .pictures import read_image

# What a mask of two levels may outline, and its label. Liver and tumour in one leave tumours unknown.
MEANINGS = {"liver": LIVER, "tumour": TUMOUR, "liver and tumour": LIVER}

_SAMPLE = 64  # files; a quarter of the slices of LiTS that show a liver show a tumour too
_NAMES = ("background", "liver", "tumour")
LABELS_AS_JPEG = (
    "levels 0, 1 and 2 do not survive JPEG (even at quality 100 a third of real slices keep their "
    "diagnosis): get these masks as PNG"
)


@dataclass(frozen=True)
class Coding:
    """How the masks of one data set are coded.

    Attributes
    ----------
    name : str
        ``"labels"``, ``"0/127/255"``, ``"0/255"``, ``"colours"``, ``"report-jpg"`` and so on.
    mapping : dict
        Level, or colour (red, green, blue), to label. In the report's coding liver has several.
    smeared : bool
        Whether levels lie around those of the mapping, as JPEG leaves them.
    tumours_known : bool
        False where some or all tumours cannot be told from liver.
    counts : dict
        Pixels of each level (or near it) in the files looked at.
    files : int
        How many were looked at.
    example : str
        Path of one of them that shows all that was seen, or most of it.
    """

    name: str
    mapping: dict[Level, int]
    smeared: bool = False
    tumours_known: bool = True
    counts: dict[Level, int] = field(default_factory=dict)
    files: int = 0
    example: str = ""

    def __str__(self) -> str:
        how = ", smeared by JPEG or resizing" if self.smeared else ""
        lines = [f"mask coding {self.name}{how}, from {self.files} file(s) such as {shown(self.example)}"]
        lines += [
            f"  {_shown(level):>11} -> {label} {_NAMES[label]:<10} {self.counts.get(level, 0):>14,} pixels"
            for level, label in self.mapping.items()
        ]
        if not self.tumours_known:
            lines.append("  tumours, or the small ones, cannot be told from liver")
        return "\n".join(lines)

    def decode(self, picture: np.ndarray, path: Path | str) -> np.ndarray:
        """Labels of one picture of this coding, uint8 (rows, columns).

        Parameters
        ----------
        picture : array (rows, columns), or (rows, columns, 3) where the mapping has colours
        path : Path
            Where it is from.

        Raises
        ------
        DataError
            If it does not fit the coding; the message names the file.
        """
        labels = None
        if self.name == "report-jpg":
            if _is_reports(picture):
                labels = decode(picture, lossless=Path(path).suffix.lower() == ".png").labels
        else:
            labels = decode_exact(picture, self.mapping)
            if labels is None and self.smeared and picture.dtype == np.uint8:
                labels = decode_smeared(picture, self.mapping)
        if labels is None:
            expected = ", ".join(map(_shown, self.mapping))
            raise DataError(
                f"{path}: levels {_levels_in_words(_counted(picture))} do not fit the coding {self.name} "
                f"({expected}) of the other masks: convert or remove this file"
            )
        return labels


def _is_reports(grey: np.ndarray) -> bool:
    try:
        return recognise(grey) == "report-jpg"
    except DataError:
        return False


def _shown(level: Level) -> str:
    return ",".join(map(str, level)) if isinstance(level, tuple) else str(level)


def _levels_in_words(counts: dict[Level, int]) -> str:
    words = [_shown(level) for level in sorted(counts, key=lambda level: np.atleast_1d(level).tolist())]
    return ", ".join(words) if len(words) <= 8 else f"{', '.join(words[:4])} ... {words[-1]} ({len(words)} in all)"


def _read(path: str) -> np.ndarray:
    """Grey (rows, columns) where a mask has no colours, else red, green, blue."""
    grey = read_image(path, grey=True)
    if grey.dtype != np.uint8:
        return grey
    colours = read_image(path)
    # JPEG moves the channels of a grey picture apart by a little.
    spread = max(cv2.absdiff(colours[..., i], colours[..., i - 1]).max() for i in range(3))
    return grey if spread <= 24 else colours


def _counted(picture: np.ndarray, where: np.ndarray | None = None) -> Counter:
    """Pixels of each level or colour, of all or of some pixels."""
    pixels = picture.reshape(-1, *picture.shape[2:]) if where is None else picture[where]
    if pixels.ndim == 1:
        counts = np.bincount(pixels)
        return Counter({int(level): int(counts[level]) for level in np.flatnonzero(counts)})
    packed, counts = np.unique(pixels @ np.array([1 << 16, 1 << 8, 1]), return_counts=True)
    return Counter({
        (int(p) >> 16, int(p) >> 8 & 255, int(p) & 255): int(n) for p, n in zip(packed, counts, strict=True)
    })


@dataclass(frozen=True)
class _Seen:
    """One file of the sample: its pixels by level, all of them and those far from edges."""

    path: str
    report: bool
    levels: Counter
    flat: Counter


def _looked_at(path: str) -> _Seen:
    picture = _read(path)
    highest = int(picture.max())
    if Path(path).suffix.lower() != ".png" and 0 < highest <= 8:
        raise DataError(f"{path}: {LABELS_AS_JPEG}")
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    report = _is_reports(grey)
    # Few levels need no second look, and a mask in the report's coding gets none.
    levels = _counted(grey if report else picture)
    exact = report or picture.dtype != np.uint8 or len(levels) <= 3
    return _Seen(path, report, levels, levels if exact else _counted(picture, flat_pixels(picture)))


def _survey(paths: list[str]) -> list[_Seen]:
    """What the files hold, without the few that cannot be read or are of a coding of their own.

    Whoever reads those names them. More than a tenth of them are no exception, but the data.
    """

    def look(path: str) -> _Seen | DataError:
        try:
            return _looked_at(path)
        except DataError as error:
            return error

    with ThreadPoolExecutor() as pool:
        looks = pool.map(look, paths)
        looks = list(tqdm(looks, total=len(paths), desc="looking at masks", unit="file", disable=len(paths) <= _SAMPLE))
    seen = [found for found in looks if isinstance(found, _Seen)]
    if len(seen) < 0.9 * len(looks):
        raise next(found for found in looks if isinstance(found, DataError))
    for name in ("labels", "0/127/255", "0/128/255"):
        fitting = [file for file in seen if file.levels.keys() <= set(CODINGS[name])]
        if len(fitting) >= 0.9 * len(seen) and any(CODINGS[name][1] in file.levels for file in fitting):
            return fitting
    return seen


def _centres(flat: Counter) -> dict[Level, int]:
    """The levels around which those of a smeared data set lie, with pixels, most frequent first."""
    colours = np.array([np.broadcast_to(level, 3) for level in flat])
    pixels = np.array(list(flat.values()))
    found: dict[Level, int] = {}
    foreground = pixels.sum() - pixels.max()
    while len(pixels):
        top = colours[pixels.argmax()]
        near = np.abs(colours - top).max(axis=1) <= NEAR
        mean = np.average(colours[near], axis=0, weights=pixels[near]).round().astype(int)
        mean = np.where(mean <= 8, 0, np.where(mean >= 247, 255, mean))
        level = int(mean[1]) if np.ptp(mean) <= 24 else tuple(mean.tolist())
        if pixels[near].sum() >= 0.001 * foreground:
            found[level] = found.get(level, 0) + int(pixels[near].sum())
        colours, pixels = colours[~near], pixels[~near]
    if any(isinstance(level, tuple) for level in found):
        found = {level if isinstance(level, tuple) else (level,) * 3: n for level, n in found.items()}
    return found


def _pooled(seen: list[_Seen]) -> tuple[dict[Level, int], bool]:
    """Levels of all files together, and whether they are smeared."""
    levels = sum((file.levels for file in seen), Counter())
    coloured = any(isinstance(level, tuple) for level in levels)
    if coloured:  # an empty mask among colours has no colour itself
        levels = Counter({k if isinstance(k, tuple) else (k,) * 3: 0 for k in levels})
        for file in seen:
            for level, count in file.levels.items():
                levels[level if isinstance(level, tuple) else (level,) * 3] += count
    if len(levels) <= 3:
        return dict(sorted(levels.items())), False
    if max(np.max(level) for level in levels) < 64 or not all(np.max(level) <= 255 for level in levels):
        return dict(sorted(levels.items())), False
    for file in seen:
        if 0 < max(np.max(level) for level in file.levels) <= 8:
            raise DataError(
                f"{file.path}: levels {_levels_in_words(file.levels)}, where other masks of the set reach 255: "
                "two codings in one data set; convert these files or keep them apart"
            )
    return dict(sorted(_centres(sum((file.flat for file in seen), Counter())).items())), True


def _spread(paths: list[str]) -> list[str]:
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, _SAMPLE).astype(int))]


def detect(paths: list[Path | str], *, meaning: str | None = None) -> Coding:
    """Recognise how a data set codes its masks, from up to 64 files spread over the list.

    A set is judged as a whole: most label files hold 0 and 1 alone, and one with a 2 settles what
    the 1 means. If the sample shows fewer than three levels and ``meaning`` does not settle them,
    all files are looked at before anything is concluded.

    Parameters
    ----------
    paths : list of Path
        The mask files of one data set.
    meaning : str, optional
        What masks of two levels outline: ``"liver"``, ``"tumour"``, or ``"liver and tumour"``
        (merged: they become label 1, and tumours are unknown). Or the meaning of each level or
        colour: ``"255,0,0 = liver; 0,0,255 = tumour"``; what is not named is background.

    Returns
    -------
    Coding

    Raises
    ------
    DataError
        If the levels are of no known coding, of more than one, or ambiguous; the message says
        what was seen and which argument settles it.
    """
    paths = [str(path) for path in paths]
    if not paths:
        raise DataError("no mask files to recognise a coding from")
    seen = _survey(_spread(paths))
    counts, smeared = _pooled([file for file in seen if not file.report] or seen)
    if len(counts) < 3 and not meaning and not any(file.report for file in seen) and len(paths) > len(seen):
        seen = _survey(paths)
        counts, smeared = _pooled([file for file in seen if not file.report] or seen)
    of_report = [file.path for file in seen if file.report]
    example = max(seen, key=lambda file: (len(file.flat), min(file.flat.values(), default=0))).path
    if of_report:
        if len(of_report) < len(seen):
            other = next(file.path for file in seen if not file.report)
            raise DataError(f"two codings in one data set: {of_report[0]} is in the report's, {other} is not")
        counts = dict(sum((file.levels for file in seen), Counter()))
        smeared = not counts.keys() <= REPORT_LEVELS.keys()
        return Coding("report-jpg", REPORT_LEVELS, smeared, not smeared, counts, len(seen), example)
    smeared |= any(Path(file.path).suffix.lower() != ".png" for file in seen)

    def coding(name: str, mapping: dict[Level, int], tumours_known: bool = True) -> Coding:
        return Coding(name, mapping, smeared, tumours_known, counts, len(seen), example)

    looked = f"{len(seen)} masks such as {example} hold levels {_levels_in_words(counts)}"
    if meaning and meaning not in MEANINGS:
        return coding("given", _given(meaning, counts, looked), "tumour" in meaning)
    levels = list(counts)
    if meaning:
        if len(levels) > 2 or np.max(levels[0]) > 0:
            raise DataError(f"{looked}: meaning={meaning!r} (LITS_MASK_MEANING) is for masks of 0 and one other level")
        mapping = {level: MEANINGS[meaning] if np.max(level) else BACKGROUND for level in levels}
        return coding("/".join(map(_shown, levels)), mapping, meaning == "tumour")
    if set(levels) == {0} or {2} <= set(levels) <= {0, 1, 2}:
        return coding("labels", dict(enumerate(range(3))))
    if levels[0] == 0 and len(levels) <= 3:
        middle = [level for level in levels if not isinstance(level, tuple) and 0 < level < 255]
        if len(middle) == 1 and abs(middle[0] - 127.5) <= (8 if smeared else 1) and set(levels) <= {0, middle[0], 255}:
            name = "0/127/255" if middle[0] <= 127 else "0/128/255"
            return coding(name, dict(zip(CODINGS[name], range(3), strict=True)))
    if levels[0] == (0, 0, 0) and len(levels) == 3:
        return coding("colours", _by_geometry(seen, levels, looked))
    if len(levels) == 2 and np.max(levels[0]) == 0:
        raise DataError(
            f"{looked} alone: do they outline the liver, tumours, or both as one? Say which with "
            f"meaning= (LITS_MASK_MEANING): {', '.join(MEANINGS)}"
        )
    raise DataError(
        f"{looked}: no known coding (labels 0/1/2, 0/127/255, 0/255, a black background with two colours, "
        "the report's). If you know what the levels mean, say it with meaning= (LITS_MASK_MEANING), "
        "for example '50 = liver; 100 = tumour'"
    )


def _given(meaning: str, counts: dict[Level, int], looked: str) -> dict[Level, int]:
    """The mapping that a user spelled out, completed by the background."""
    mapping: dict[Level, int] = {}
    for part in meaning.rstrip("; ").split(";"):
        match = re.fullmatch(r"\s*\(?([\d,\s]+?)\)?\s*=\s*(background|liver|tumour)\s*", part)
        level = tuple(map(int, re.findall(r"\d+", match[1]))) if match else ()
        if len(level) not in (1, 3) or max(level) > 255:
            raise DataError(
                f"meaning={meaning!r} (LITS_MASK_MEANING) is not understood: use {', '.join(MEANINGS)}, or "
                "levels as in '50 = liver; 100 = tumour' or '255,0,0 = liver; 0,0,255 = tumour'"
            )
        mapping[level if len(level) == 3 else level[0]] = _NAMES.index(match[2])
    for level in counts:
        if isinstance(level, tuple) != isinstance(next(iter(mapping)), tuple):
            raise DataError(f"{looked}: name them so in meaning= (LITS_MASK_MEANING), not as in {meaning!r}")
        if all(np.abs(np.subtract(level, known)).max() > 8 for known in mapping):
            mapping[level] = BACKGROUND
    return mapping


def _by_geometry(seen: list[_Seen], levels: list[Level], looked: str) -> dict[Level, int]:
    """Which of two colours is tumour: the smaller one, which lies in or at the other."""
    square = np.ones((5, 5), np.uint8)
    pixels, rings, shared = np.zeros(2), np.zeros(2), np.zeros(2)
    for file in seen:
        if not any(map(np.max, file.levels)):
            continue
        picture = read_image(file.path)
        nearest = np.argmin([distance_to(picture, level) for level in levels], axis=0)
        areas = [(nearest == number).astype(np.uint8) for number in (1, 2)]
        for number, (area, other) in enumerate((areas, areas[::-1])):
            ring = (cv2.dilate(area, square) > 0) & (area == 0)
            pixels[number] += area.sum()
            rings[number] += ring.sum()
            shared[number] += (ring & (other > 0)).sum()
    inside = shared / np.maximum(rings, 1)
    tumour = int(pixels.argmin())
    if inside[tumour] < 0.5 or inside[1 - tumour] > 0.5 or pixels[tumour] > 0.5 * pixels[1 - tumour]:
        example = f"'{_shown(levels[1])} = liver; {_shown(levels[2])} = tumour'"
        raise DataError(
            f"{looked}: their shapes do not tell which colour is tumour. Say it with meaning= "
            f"(LITS_MASK_MEANING), for example {example}"
        )
    return {levels[0]: BACKGROUND, levels[2 - tumour]: LIVER, levels[1 + tumour]: TUMOUR}
