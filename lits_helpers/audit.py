"""Leaks between the sides of a split, and what keeps a patient's volumes on one side."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .duplicates import Duplicates, find_duplicates
from .files import DataError, fingerprint, read_table, write_table
from .index import load_slices
from .settings import Settings
from .splits import SPLITS, split_patients

# Source: LiTS, Bilic et al., Medical Image Analysis 84 (2023) 102680: these 20 are 3D-IRCADb's.
STRASBOURG = range(28, 48)


def with_patients(table: pd.DataFrame, duplicates: Duplicates | Iterable[tuple[int, int]]) -> pd.DataFrame:
    """The table with ``patient``: the lowest volume number of all that are the same patient.

    :func:`lits_helpers.splits.split_patients` keeps such volumes on one side.

    Parameters
    ----------
    table : DataFrame
        Slice table with ``volume``.
    duplicates : Duplicates, or pairs of volume numbers
        What :func:`lits_helpers.duplicates.find_duplicates` found, or what is known otherwise.
    """
    pairs = duplicates.patients if isinstance(duplicates, Duplicates) else duplicates
    patient = {number: number for number in table.volume.unique().tolist()}
    for pair in pairs:
        merged = {patient.setdefault(number, number) for number in pair}
        patient = {number: min(merged) if old in merged else old for number, old in patient.items()}
    return table.assign(patient=table.volume.map(patient))


def sites(volumes: pd.Series) -> pd.Series:
    """Where a LiTS volume comes from, by its number: 28 to 47 are 3D-IRCADb's, the rest unknown."""
    return volumes.isin(STRASBOURG).map({True: "3D-IRCADb, Strasbourg", False: "unknown"}).rename("site")


@dataclass(frozen=True)
class SplitAudit:
    """What lies on more than one side of a split, and which sites the sides come from.

    Attributes
    ----------
    volumes : list of int
        Volumes with slices on several sides.
    duplicate_volumes, near_duplicate_slices, identical_files : DataFrame
        The rows of :class:`Duplicates` that cross sides, with the sides.
    identical_anywhere : int
        Image files that have a twin with identical bytes, on any side.
    sites : DataFrame
        Slices of each site (rows) and side (columns); by LiTS's numbers, wrong for other data.
    """

    volumes: list[int]
    duplicate_volumes: pd.DataFrame
    near_duplicate_slices: pd.DataFrame
    identical_files: pd.DataFrame
    identical_anywhere: int
    sites: pd.DataFrame

    @property
    def leaks(self) -> bool:
        """Whether anything lies on two sides."""
        tables = (self.duplicate_volumes, self.near_duplicate_slices, self.identical_files)
        return bool(self.volumes) or any(len(table) for table in tables)

    def as_dict(self) -> dict[str, object]:
        """For JSON: lists and numbers only, and file names for paths."""
        def records(table: pd.DataFrame) -> list[dict]:
            paths = [name for name in table if name.startswith("image_path")]
            names = {name: table[name].map(os.path.basename) for name in paths}
            return table.assign(**names).to_dict("records")

        return {
            "leaks": self.leaks,
            "volumes_on_several_sides": self.volumes,
            "duplicate_volumes": records(self.duplicate_volumes),
            "near_duplicate_slices": records(self.near_duplicate_slices),
            "identical_files": records(self.identical_files),
            "identical_files_anywhere": self.identical_anywhere,
            "slices_by_site": self.sites.to_dict("index"),
        }

    def __str__(self) -> str:
        pairs = self.duplicate_volumes
        columns = (pairs.volume_a, pairs.volume_b, pairs.similarity)
        named = [f"{a} and {b} ({value:.2f})" for a, b, value in zip(*columns, strict=True)]
        lines = [
            "The split leaks:" if self.leaks else "The split is clean:",
            _counted("volume", self.volumes) + " on several sides" + _listed(self.volumes),
            _counted("pair", pairs) + " of volumes of one patient across sides" + _listed(named),
            _counted("pair", self.near_duplicate_slices) + " of near-duplicate slices across sides",
            _counted("identical image file", self.identical_files) + " across sides, "
            f"{self.identical_anywhere:,} anywhere",
        ]
        heading = "Slices by site (volumes 28 to 47 by LiTS's numbering; means nothing for other data):"
        return "\n  ".join(lines) + f"\n{heading}\n{self.sites.to_string()}"


def _counted(noun: str, things: Sequence | pd.DataFrame) -> str:
    return f"{len(things) or 'no'} {noun}{'' if len(things) == 1 else 's'}"


def _listed(things: Sequence[object], shown: int = 10) -> str:
    """A colon and the first things; nothing where there are none."""
    more = ", ..." if len(things) > shown else ""
    return ": " + ", ".join(map(str, things[:shown])) + more if things else ""


def audit_split(table: pd.DataFrame, duplicates: Duplicates | None = None) -> SplitAudit:
    """Look for leaks in a split.

    Parameters
    ----------
    table : DataFrame
        Slice table with ``split``, from :func:`lits_helpers.splits.split_patients` or another.
    duplicates : Duplicates, optional
        Of this table or a larger one; found here by default, which reads all images.

    Raises
    ------
    DataError
        If the table has no ``split``, or an image cannot be read.
    """
    if "split" not in table:
        raise DataError("the slice table has no split: use splits.split_patients first")
    if duplicates is None:
        duplicates = find_duplicates(table)
    sides = table.groupby("volume").split.agg(lambda found: sorted(set(found)))
    volumes = duplicates.volumes[duplicates.volumes.same_patient].drop(columns="same_patient")
    for end in ("a", "b"):
        volumes = volumes[volumes[f"volume_{end}"].isin(sides.index)]
        volumes = volumes.assign(**{f"sides_{end}": volumes[f"volume_{end}"].map(sides)})
    crossing = [len(set(a) | set(b)) > 1 for a, b in zip(volumes.sides_a, volumes.sides_b, strict=True)]
    side = table[["volume", "slice", "split"]]
    slices = duplicates.slices
    for end in ("a", "b"):
        slices = slices.merge(side.add_suffix(f"_{end}"), on=[f"volume_{end}", f"slice_{end}"])
    files = duplicates.files.merge(side, on=["volume", "slice"])
    several = files.groupby("group").split.transform("nunique") > 1
    counts = pd.crosstab(sites(table.volume), table.split)
    return SplitAudit(
        volumes=sides.index[sides.map(len) > 1].tolist(),
        duplicate_volumes=volumes[np.array(crossing, bool)].reset_index(drop=True),
        near_duplicate_slices=slices[slices.split_a != slices.split_b].reset_index(drop=True),
        identical_files=files[several.astype(bool)].reset_index(drop=True),
        identical_anywhere=int(files.duplicated("group", keep=False).sum()),
        sites=counts[sorted(counts, key=SPLITS.index)],
    )


def load_patients(settings: Settings, *, skip_problems: bool = False) -> pd.DataFrame:
    """A run's slice table with ``patient``: volumes that look like one patient have the same.

    Looking takes minutes on a large data set, so what was found is kept below the output root, in
    ``index/patients-<fingerprint>.csv``, until an image changes.

    Returns
    -------
    DataFrame
        :func:`lits_helpers.index.load_slices` with ``patient``.

    Warns
    -----
    UserWarning
        Naming volumes that look like one patient.
    """
    table = load_slices(settings, skip_problems=skip_problems)
    found = settings.output_root / "index" / f"patients-{fingerprint(table.image_path, __name__, 1)}.csv"
    if not found.exists():
        write_table(found, pd.DataFrame(find_duplicates(table).patients, columns=["volume_a", "volume_b"]))
    stored = read_table(found, {"volume_a": int, "volume_b": int})
    pairs = list(stored[["volume_a", "volume_b"]].itertuples(index=False, name=None))
    if pairs:
        named = ", ".join(f"{a} and {b}" for a, b in pairs)
        warnings.warn(f"volumes that look like one patient, kept on one side of the split: {named}", stacklevel=3)
    return with_patients(table, pairs)


def load_patient_split(settings: Settings, *, skip_problems: bool = False) -> pd.DataFrame:
    """A run's slice table, split by patient: :func:`load_patients` with ``split``.

    Volumes that look like one patient, of which a warning names the pairs, go to one side.
    """
    return split_patients(load_patients(settings, skip_problems=skip_problems), seed=settings.seed)
