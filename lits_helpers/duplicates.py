"""What a slice table holds twice: one patient under two volume numbers, one slice, one file.

LiTS holds several scans of some patients under different volume numbers, and nothing in it says
which. Here they are found by their looks, in three steps:

1. *Describe* each slice, reduced to 128x128: fine structure alone (a band-pass, evened out so that
   a bone counts no more than a vessel), and of its Fourier transform the low frequencies'
   magnitudes, which stay when the body moves within the picture.
2. *Screen* all pairs of volumes by the best cosines between their slices, with the mean slice
   subtracted, because all abdomens look alike.
3. *Compare* the most alike: shift one slice onto the other by phase correlation, with one shift
   for the whole pair of volumes, and take the normalised cross-correlation of fine structure.

Two volumes are one patient when at least five pairs of slices, in the same order in both, exceed
:data:`SAME_PATIENT`. Found are scans that differ by a shift, by 2 % in magnification or by 2
degrees; not by 4 of either, nor mirror images, nor scans whose slices lie 10 mm from each other's.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .files import DataError, collected_error
from .pictures import read_image

SIDE = 128
# Correlation that every slice of a run reaches in two scans of one patient. Measured: 0.75 to 0.92
# for 102 re-scans of phantom patients (64 to 512 pixels), 0.84 to 0.94 for 11 LiTS volumes parted
# into odd and even slices, shifted and made noisy; the highest of different patients was 0.66 among
# 131 phantom patients and 0.43 among 20 volumes of LiTS.
SAME_PATIENT = 0.7
# For one pair of slices alone, which no run confirms: different patients reached 0.75 and 0.50.
SAME_SLICE = 0.8
RUN = 5  # slices that agree in order; in a volume of fewer all there are, but three at least
SHORTEST_RUN = 3
COMPARED_SLICES = 16  # pairs compared for two volumes, the most alike first
PARTNERS = 3  # volumes compared with each volume at least
SCREENED_ALIKE = 0.6  # cosine from which two volumes are compared whoever else is alike

_frequencies = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)) * SIDE
_LOW = (_frequencies >= 3) & (_frequencies <= 16)
_LOW[SIDE // 2:, 0] = False  # a real picture's transform repeats itself there
_TAPER = np.sqrt(np.outer(np.hanning(SIDE + 2), np.hanning(SIDE + 2))[1:-1, 1:-1]).astype(np.float32)

_VOLUME_COLUMNS = ("volume_a", "volume_b", "similarity", "same_patient", "down", "right")
_SLICE_COLUMNS = (
    "volume_a", "slice_a", "volume_b", "slice_b", "similarity", "down", "right",
    "image_path_a", "image_path_b",
)


@dataclass(frozen=True)
class Duplicates:
    """What is there twice in a slice table, most alike first.

    Attributes
    ----------
    volumes : DataFrame
        ``volume_a``, ``volume_b``, ``similarity`` (what every slice of the matching run exceeds,
        -1 to 1), ``same_patient``, and how far ``b`` is to be moved to lie on ``a``: ``down``,
        ``right``, as shares of the picture. Holds every pair that was compared, so that the next
        best can be seen too.
    slices : DataFrame
        Near-duplicates in different volumes: the same columns for ``volume_a``, ``slice_a``,
        ``volume_b``, ``slice_b``, with ``image_path_a`` and ``image_path_b``. Neighbours within
        a volume are alike by nature and are not listed.
    files : DataFrame
        Image files with identical bytes: ``group``, ``volume``, ``slice``, ``image_path``.
    """

    volumes: pd.DataFrame
    slices: pd.DataFrame
    files: pd.DataFrame

    @property
    def patients(self) -> list[tuple[int, int]]:
        """The pairs of volumes that are one patient."""
        found = self.volumes[self.volumes.same_patient]
        return list(zip(found.volume_a.tolist(), found.volume_b.tolist(), strict=True))


def _fine_structure(path: str) -> np.ndarray:
    """Band-passed picture of even contrast, float32 (SIDE, SIDE); zero where nothing is."""
    image = read_image(path, grey=True)
    # Area means keep noise down; of a smaller picture they would make blocks.
    way = cv2.INTER_AREA if min(image.shape) >= SIDE else cv2.INTER_LINEAR
    grey = cv2.resize(image, (SIDE, SIDE), interpolation=way).astype(np.float32)
    if image.dtype == np.uint16:
        grey /= 257
    band = cv2.GaussianBlur(grey, (0, 0), 1) - cv2.GaussianBlur(grey, (0, 0), 3)
    # The 6 grey levels keep the noise of air, which has no contrast, from being blown up.
    return band / (np.sqrt(cv2.GaussianBlur(band * band, (0, 0), 4.5)) + 6)


def _described(path: str) -> tuple[np.ndarray, bytes]:
    """Shift-invariant descriptor (float32, 1-D) and digest of one image file."""
    magnitudes = np.abs(np.fft.rfft2(_fine_structure(path) * _TAPER)[_LOW])
    digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
    return np.log1p(magnitudes).astype(np.float32), digest


def _described_slices(table: pd.DataFrame) -> tuple[np.ndarray, list[bytes]]:
    """Descriptors of unit length about the mean slice, float32 (slices, features); digests."""
    problems = []

    def described(path: str) -> tuple[np.ndarray, bytes]:
        try:
            return _described(path)
        except DataError as error:
            problems.append(str(error))
            return np.zeros(_LOW.sum(), np.float32), b""

    with ThreadPoolExecutor() as pool:
        jobs = pool.map(described, table.image_path)
        rows = list(tqdm(jobs, "describing slices", len(table), unit="slice", delay=2))
    if problems:
        raise collected_error(problems, advice="Mend or remove these files before the audit.")
    features = np.stack([row for row, _ in rows])
    blank = features.max(axis=1) < 1  # nothing to tell one from another: like no slice at all
    features -= features.mean(axis=0)
    features /= features.std(axis=0) + 1e-6
    features[blank] = 0
    features /= np.linalg.norm(features, axis=1, keepdims=True) + 1e-6
    return features, [digest for _, digest in rows]


def _candidates(features: dict[int, np.ndarray]) -> list[tuple[int, int]]:
    """Pairs of volumes worth a comparison, by the cosines of their slices."""
    numbers = list(features)
    partners: dict[int, list[tuple[float, int]]] = {number: [] for number in numbers}
    found = set()
    for place, a in enumerate(tqdm(numbers, "screening volumes", unit="volume", delay=2)):
        for b in numbers[place + 1:]:
            best = (features[a] @ features[b].T).max(axis=1)
            alike = float(np.sort(best)[-RUN:].mean())
            partners[a].append((alike, b))
            partners[b].append((alike, a))
            if best.max() >= SCREENED_ALIKE:
                found.add((a, b))
    for a, others in partners.items():
        found |= {(min(a, b), max(a, b)) for _, b in sorted(others)[-PARTNERS:]}
    return sorted(found)


def _correlation(a: np.ndarray, b: np.ndarray, down: int, right: int) -> float:
    """Normalised cross-correlation of two pictures where they overlap, ``b`` moved onto ``a``."""
    rows, columns = a.shape
    first = a[max(down, 0):rows + min(down, 0), max(right, 0):columns + min(right, 0)].ravel()
    second = b[max(-down, 0):rows - max(down, 0), max(-right, 0):columns - max(right, 0)].ravel()
    return float(first @ second / (np.sqrt((first @ first) * (second @ second)) + 1e-6))


def _ordered_run(matches: Sequence[tuple[int, int, float]], needed: int) -> float:
    """The highest correlation that ``needed`` matches exceed which have one order in both volumes.

    ``matches`` are (slice of a, slice of b, correlation). The order may be reversed in ``b``.
    Found by the longest strictly increasing subsequence; -1 where there are too few.
    """
    for limit in sorted({match[2] for match in matches}, reverse=True):
        for direction in (1, -1):
            above = [(a, direction * b) for a, b, value in matches if value >= limit]
            ends: list[int] = []
            for _, b in sorted(above, key=lambda match: (match[0], -match[1])):
                place = bisect_left(ends, b)
                ends[place:place + 1] = [b]
            if len(ends) >= needed:
                return limit
    return -1.0


def _most_alike(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of each slice's best partner in the other volume, the most alike first."""
    best = np.zeros(cosines.shape, bool)
    best[np.arange(len(cosines)), cosines.argmax(axis=1)] = True
    best[cosines.argmax(axis=0), np.arange(cosines.shape[1])] = True
    rows, columns = np.nonzero(best)
    order = np.argsort(-cosines[rows, columns], kind="stable")
    return rows[order], columns[order]


def _peak(surface: np.ndarray) -> tuple[int, int]:
    """Shift (down, right) at the peak of a cyclic correlation."""
    peak = np.unravel_index(surface.argmax(), surface.shape)
    return tuple((int(place) + SIDE // 2) % SIDE - SIDE // 2 for place in peak)


def _surface(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cyclic correlation of two pictures at every shift."""
    product = np.fft.rfft2(a * _TAPER) * np.conj(np.fft.rfft2(b * _TAPER))
    return np.fft.irfft2(product, s=a.shape)


def _matched(a: np.ndarray, b: np.ndarray, down: int, right: int) -> tuple[float, int, int]:
    """The best correlation within a pixel of a shift, and where."""
    around = [(down + y, right + x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return max((_correlation(a, b, *shift), *shift) for shift in around)


def _compare(a: pd.DataFrame, b: pd.DataFrame, cosines: np.ndarray) -> tuple[tuple, list[tuple]]:
    """Compare two volumes' slices: their row of the volumes' table, and of the slices' table."""
    rows, columns = _most_alike(cosines)
    pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    first, others = pairs[:COMPARED_SLICES], pairs[COMPARED_SLICES:]
    pictures_a = {row: _fine_structure(a.image_path.iloc[row]) for row in {row for row, _ in first}}
    pictures_b = {column: _fine_structure(b.image_path.iloc[column]) for column in {c for _, c in first}}
    surfaces = {pair: _surface(pictures_a[pair[0]], pictures_b[pair[1]]) for pair in first}
    # The body lies in one place in a whole scan, so one shift holds for all slices.
    shift = _peak(sum(surfaces.values()))
    found = {pair: _matched(pictures_a[pair[0]], pictures_b[pair[1]], *shift) for pair in first}
    numbers_a, numbers_b = a.slice.tolist(), b.slice.tolist()
    matches = [(numbers_a[row], numbers_b[column], value) for (row, column), (value, *_) in found.items()]
    needed = max(min(RUN, len(a), len(b)), SHORTEST_RUN)
    similarity = _ordered_run(matches, needed)
    same_patient = similarity >= SAME_PATIENT
    limit = SAME_PATIENT if same_patient else SAME_SLICE
    if same_patient:  # then list all slices that they share
        for row, column in others:
            pictures = (_fine_structure(a.image_path.iloc[row]), _fine_structure(b.image_path.iloc[column]))
            found[row, column] = _matched(*pictures, *shift)
    else:  # a slice that is there twice for itself has a shift of its own
        for (row, column), surface in surfaces.items():
            found[row, column] = _matched(pictures_a[row], pictures_b[column], *_peak(surface))
    volume_a, volume_b = int(a.volume.iloc[0]), int(b.volume.iloc[0])
    slices = [
        (
            volume_a, numbers_a[row], volume_b, numbers_b[column], value,
            down / SIDE, right / SIDE, a.image_path.iloc[row], b.image_path.iloc[column],
        )
        for (row, column), (value, down, right) in found.items() if value >= limit
    ]
    return (volume_a, volume_b, similarity, same_patient, shift[0] / SIDE, shift[1] / SIDE), slices


def find_duplicates(table: pd.DataFrame) -> Duplicates:
    """Find volumes of one patient, near-duplicate slices of different volumes, identical files.

    Reads each image twice, to describe it and for its digest, and the most alike again. A slice takes about 2 ms on one core and 1.6
    kB of memory; two volumes of 450 slices take 15 ms to screen, so LiTS takes some 5 minutes.

    Parameters
    ----------
    table : DataFrame
        Slice table with ``image_path``, ``volume`` and ``slice``, in any order; masks and other
        columns are not looked at.

    Returns
    -------
    Duplicates

    Raises
    ------
    DataError
        One report of all images that cannot be read.
    """
    table = table.sort_values(["volume", "slice"]).reset_index(drop=True)
    if table.empty:
        raise DataError("the slice table is empty: there is nothing to audit")
    features, digests = _described_slices(table)
    scans = dict(list(table.groupby("volume")))
    of_volume = {number: features[scan.index] for number, scan in scans.items()}
    pairs = _candidates(of_volume)

    def compared(pair: tuple[int, int]) -> tuple[tuple, list[tuple]]:
        a, b = pair
        return _compare(scans[a], scans[b], of_volume[a] @ of_volume[b].T)

    with ThreadPoolExecutor() as pool:
        jobs = pool.map(compared, pairs)
        results = list(tqdm(jobs, "comparing volumes", len(pairs), unit="pair", delay=2))
    volumes = pd.DataFrame([volume for volume, _ in results], columns=_VOLUME_COLUMNS)
    slices = pd.DataFrame([row for _, rows in results for row in rows], columns=_SLICE_COLUMNS)
    files = table[["volume", "slice", "image_path"]].assign(group=pd.factorize(np.array(digests))[0])
    return Duplicates(
        volumes.astype({"same_patient": bool}).sort_values("similarity", ascending=False, ignore_index=True),
        slices.sort_values("similarity", ascending=False, ignore_index=True),
        files[files.duplicated("group", keep=False)].sort_values("group", ignore_index=True),
    )


def matched_pictures(slices: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """Read near-duplicate slices, the second moved onto the first, to be looked at.

    Parameters
    ----------
    slices : DataFrame
        Some rows of :attr:`Duplicates.slices`.

    Returns
    -------
    list of (first, second, title)
        uint8 (rows, columns), grey, both of the first's size; black where nothing is known.
    """
    found = []
    for row in slices.itertuples():
        first, second = (read_image(path, grey=True) for path in (row.image_path_a, row.image_path_b))
        height, width = first.shape
        second = cv2.resize(second, (width, height), interpolation=cv2.INTER_AREA)
        right, down = row.right * width, row.down * height
        for _ in range(2):  # the second time by what the first left, which is part of a coarse pixel
            move = np.float32([[1, 0, right], [0, 1, down]])
            moved = cv2.warpAffine(second, move, (width, height))
            window = cv2.createHanningWindow((width, height), cv2.CV_32F)
            (x, y), _ = cv2.phaseCorrelate(moved.astype(np.float32), first.astype(np.float32), window)
            if max(abs(x) / width, abs(y) / height) < 2 / SIDE:
                right, down = right + x, down + y
        title = (
            f"volume {row.volume_a}, slice {row.slice_a}\n"
            f"volume {row.volume_b}, slice {row.slice_b}\nsimilarity {row.similarity:.2f}"
        )
        found.append((first, moved, title))
    return found
