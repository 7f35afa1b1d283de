"""What a folder of labels holds, patient by patient: tumour burden, lesions, their size and place.

It describes a data set. Who came to be scanned, and which scans were chosen, shapes every number
here, so none of them is that of a population.

Where in the liver: the liver's voxels (tumours included) are lined up from the patient's right to
the left, and from the feet to the head, and each line is cut into three parts of equal volume. A
lesion belongs to the part that its centre lies in, so one third of randomly placed lesions would
be expected in each. These thirds are no Couinaud segments, which follow the vessels and are not
to be had from such masks; nor are "left" and "right" the lobes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import find_objects
from tqdm.auto import tqdm

from .cases import MM3_PER_ML
from .files import DataError, read_table, write_table
from .index import spacing_of
from .lesions import components, lesion_table
from .masks import LIVER, TUMOUR, read_labels
from .pictures import read_image
from .uncertainty import describe
from .volumes import read_geometry, read_label_volume

SIDES = ("right", "middle", "left")  # of the patient, in the order of columns on screen
HEIGHTS = ("lower", "middle", "upper")  # in the order of slices, from the feet on
NO_LIVER, FROM_REFERENCE, FROM_PREDICTION = "none", "reference", "predicted"


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """One scan's masks, with what is known of them.

    Attributes
    ----------
    volume : int
    tumour : bool array (slices, rows, columns)
        In the order of the screen: slices from the feet to the head, columns from the patient's
        right to the left.
    liver : bool array, same shape, or None
        Tumours included; None where it is not known.
    liver_source : str
        ``"reference"``, ``"predicted"`` or ``"none"``.
    spacing : (slice, row, column) in mm, or None
        None where it is not to be trusted.
    numbers : int array (slices,)
        Of the slices, rising. Those that are missing in between are taken as not there: what
        touches across a gap is one lesion, and burden is that of the slices that are there.
    """

    volume: int
    tumour: np.ndarray
    liver: np.ndarray | None
    liver_source: str
    spacing: tuple[float, float, float] | None
    numbers: np.ndarray


@dataclass(frozen=True, eq=False)
class Survey:
    """Cases and their lesions; made by :func:`survey`.

    Attributes
    ----------
    cases : DataFrame, one row a case
        ``volume``, ``patient``; ``slices``, ``missing_slices`` (between the first and the last);
        ``spacing_known``; ``liver_source``; ``liver_voxels``, ``tumour_voxels``; ``liver_ml``,
        ``tumour_ml``; ``burden``, tumour voxels by liver voxels (NaN without a liver; over 1 is
        possible where tumour is predicted outside); ``lesions``; ``largest_lesion_ml``,
        ``largest_lesion_diameter_mm``, ``largest_lesion_section_pixels`` (NaN without lesions).
        Everything in ml or mm is NaN where the spacing is not known.
    lesions : DataFrame, one row a lesion (26-connected)
        ``volume``, ``patient``, ``lesion``, ``slice`` (that of its centre); ``size_voxels``,
        ``size_ml``; ``diameter_mm``, of the ball of that volume; ``section_pixels``, its area in
        the slice where that is largest; ``in_liver``, the share of its voxels inside the liver;
        ``right_to_left`` and ``low_to_high``, the share of the liver on that side of its centre
        (:func:`share_before`); ``side`` and ``height``, the thirds, ``""`` where the liver is not
        known or the lesion lies outside.
    """

    cases: pd.DataFrame
    lesions: pd.DataFrame


def share_before(voxels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which share of the liver lies before some places along an axis.

    Parameters
    ----------
    voxels : integer array (n,)
        Liver voxels in each column (or slice).
    places : float array
        Indices along that axis; a whole number is the middle of a column.

    Returns
    -------
    float array, in [0, 1]
        Linear within a column; 0 before and 1 after the liver; NaN for an empty liver.
    """
    total = int(voxels.sum())
    if not total:
        return np.full(np.shape(places), np.nan)
    return np.interp(places, np.arange(len(voxels) + 1) - 0.5, np.concatenate([[0], np.cumsum(voxels)]) / total)


def third(shares: np.ndarray, names: tuple[str, str, str]) -> list[str]:
    """The part of each share in [0, 1]: under 1/3, under 2/3, or the rest; ``""`` for NaN."""
    return ["" if np.isnan(share) else names[min(int(3 * share), 2)] for share in shares]


def survey_case(case: LabelledCase) -> tuple[dict[str, object], pd.DataFrame]:
    """One row of :attr:`Survey.cases` and its rows of :attr:`Survey.lesions`, both without ``patient``."""
    labels, count = components(case.tumour)
    lesions = _lesions(case, labels, count)
    liver_voxels = np.nan if case.liver is None else int(np.count_nonzero(case.liver))
    tumour_voxels = int(lesions.size_voxels.sum())
    voxel_ml = np.nan if case.spacing is None else float(np.prod(case.spacing)) / MM3_PER_ML
    row = {
        "volume": case.volume,
        "slices": len(case.numbers),
        "missing_slices": int(case.numbers[-1] - case.numbers[0] + 1 - len(case.numbers)),
        "spacing_known": case.spacing is not None,
        "liver_source": case.liver_source,
        "liver_voxels": liver_voxels,
        "tumour_voxels": tumour_voxels,
        "liver_ml": liver_voxels * voxel_ml,
        "tumour_ml": tumour_voxels * voxel_ml,
        "burden": tumour_voxels / liver_voxels if liver_voxels > 0 else np.nan,
        "lesions": count,
        "largest_lesion_ml": lesions.size_ml.max(),
        "largest_lesion_diameter_mm": lesions.diameter_mm.max(),
        "largest_lesion_section_pixels": lesions.section_pixels.max(),
    }
    return row, lesions


def _lesions(case: LabelledCase, labels: np.ndarray, count: int) -> pd.DataFrame:
    table = lesion_table(labels, count, case.spacing)
    inside, low_to_high, right_to_left = np.full((3, count), np.nan)
    if case.liver is not None:
        counts = np.bincount(labels[case.liver], minlength=count + 1)[1:]
        inside = counts / table.voxels.to_numpy()
        low_to_high = share_before(np.count_nonzero(case.liver, axis=(1, 2)), table.centre_slice.to_numpy())
        right_to_left = share_before(np.count_nonzero(case.liver, axis=(0, 1)), table.centre_column.to_numpy())
        for shares in (low_to_high, right_to_left):
            shares[inside == 0] = np.nan
    section = [
        int(np.count_nonzero(labels[box] == number, axis=(1, 2)).max())
        for number, box in enumerate(find_objects(labels), start=1)
    ]
    return pd.DataFrame(
        {
            "volume": case.volume,
            "lesion": table.lesion,
            "slice": case.numbers[np.rint(table.centre_slice).astype(int)],
            "size_voxels": table.voxels,
            "size_ml": table.volume_mm3 / MM3_PER_ML,
            "diameter_mm": table.diameter_mm,
            "section_pixels": section,
            "in_liver": inside,
            "right_to_left": right_to_left,
            "low_to_high": low_to_high,
            "side": third(right_to_left, SIDES),
            "height": third(low_to_high, HEIGHTS),
        }
    )


def survey(cases: Iterable[LabelledCase], *, patients: Mapping[int, int] | None = None) -> Survey:
    """Describe cases one after the other.

    Parameters
    ----------
    cases : iterable of LabelledCase
        Of :func:`reference_cases` or :func:`predicted_cases`; a generator keeps one in memory.
    patients : mapping of volume to patient, optional
        By default each volume is a patient of its own.

    Raises
    ------
    DataError
        If there are no cases, or a volume comes twice.
    """
    rows: list[dict[str, object]] = []
    tables: list[pd.DataFrame] = []
    for case in tqdm(cases, desc="describing", unit="case", delay=2):
        if any(row["volume"] == case.volume for row in rows):
            raise DataError(f"volume {case.volume} comes more than once and would count more than once")
        row, lesions = survey_case(case)
        rows.append(row)
        tables.append(lesions)
    if not rows:
        raise DataError("there are no cases to describe: is the folder or the part of the split empty?")
    filled = [table for table in tables if len(table)] or tables[:1]
    found = pd.DataFrame(rows), pd.concat(filled, ignore_index=True)
    for table in found:
        table.insert(1, "patient", table.volume.map(lambda volume: (patients or {}).get(volume, volume)).astype(int))
    return Survey(*found)


def reference_cases(table: pd.DataFrame) -> Iterator[LabelledCase]:
    """The reference labels of each volume of a slice table.

    Parameters
    ----------
    table : DataFrame
        Slice table (:mod:`lits_helpers.index`). Of slice files it is assumed that they lie as on
        the screen: this package writes them so, and files tell nothing.
    """
    for volume, rows in table.sort_values(["volume", "slice"]).groupby("volume"):
        labels = np.stack([read_labels(path) for path in rows.mask_path])
        numbers = rows.slice.to_numpy()
        yield LabelledCase(
            int(volume), labels == TUMOUR, labels >= LIVER, FROM_REFERENCE, spacing_of(rows, numbers), numbers
        )


def predicted_cases(folder: Path | str, reference: pd.DataFrame | None = None) -> Iterator[LabelledCase]:
    """The predictions in a folder, as :mod:`lits_helpers.inference` writes them.

    Parameters
    ----------
    folder : path
        Holds ``<name>_prediction.nii.gz`` of ``predict_scan``, whose volume is the last number in
        the name, or ``predictions.csv`` with the masks of ``predict_files``; or both. Where the
        numbers in the names do not tell all apart, volumes are counted from 0 and have no reference.
    reference : DataFrame, optional
        Slice table of the same scans. A prediction without label 1 knows no liver: it is taken
        from the reference labels of the volume of the same number, slices and size, else there is
        none. Slice masks take their spacing from there too.

    Raises
    ------
    DataError
        If there is no prediction, or one cannot be read or is not of its reference's scan.
    """
    folder = Path(folder)
    niftis = sorted(path for path in folder.glob("*_prediction.nii*") if not path.name.startswith("."))
    listed = folder / "predictions.csv"
    if not niftis and not listed.is_file():
        raise DataError(
            f"{folder}: no predictions: neither *_prediction.nii.gz nor predictions.csv: write some with "
            "`predict` (DICOM segmentations are not read here)"
        )
    if left_out := len(list(folder.glob("*_prediction.dcm"))):
        warnings.warn(f"{folder}: {left_out} DICOM segmentations are left out: predict without --dicom-seg", stacklevel=2)
    known = {} if reference is None else dict(list(reference.sort_values("slice").groupby("volume")))
    named = _volume_numbers(niftis)
    for place, path in enumerate(niftis):
        geometry = read_geometry(path)
        labels = read_label_volume(path, geometry)
        spacing = None if geometry.is_identity else geometry.spacing
        own = known.get(named[place]) if named else None
        yield _with_liver(named[place] if named else place, labels, np.arange(len(labels)), spacing, own)
    if listed.is_file():
        table = read_table(listed, {"volume": int, "slice": int, "file": str})
        for file in table.file:
            if not (folder / file).resolve().is_relative_to(folder.resolve()):
                raise DataError(f"{listed}: names {file}, which is not below {folder}: predict it again")
        for volume, rows in table.sort_values("slice").groupby("volume"):
            masks = [read_image(folder / file, grey=True) > 127 for file in rows.file]
            if len({mask.shape for mask in masks}) > 1:
                raise DataError(f"{listed}: masks of volume {volume} differ in size: predict it again")
            labels, numbers = np.stack(masks).astype(np.uint8) * TUMOUR, rows.slice.to_numpy()
            own = known.get(volume)
            yield _with_liver(int(volume), labels, numbers, None if own is None else spacing_of(own, numbers), own)


def _volume_numbers(paths: list[Path]) -> list[int]:
    """The last number in each name; nothing where these do not tell all apart."""
    found = [re.findall(r"\d{1,6}", path.name.split("_prediction")[0])[-1:] for path in paths]
    numbers = [int(number) for [number] in filter(None, found)]
    if len(set(numbers)) == len(paths):
        return numbers
    warnings.warn("names of predictions hold no number each of its own: volumes are counted from 0", stacklevel=3)
    return []


def _with_liver(
    volume: int, labels: np.ndarray, numbers: np.ndarray, spacing: tuple | None, own: pd.DataFrame | None
) -> LabelledCase:
    """A prediction with its own liver, or that of the reference, or none."""
    liver, source = None, NO_LIVER
    if (labels == LIVER).any():
        liver, source = labels >= LIVER, FROM_PREDICTION
    elif own is not None:
        rows = own.set_index("slice").reindex(numbers)
        sizes = set(zip(rows.height, rows.width, strict=True))
        if sizes != {labels.shape[1:]}:  # also where a slice is not there
            raise DataError(
                f"volume {volume}: the prediction has {len(labels)} slices of {labels.shape[1:]} pixels, the reference "
                f"{len(own)} of {own.height.iloc[0], own.width.iloc[0]}: they are not of one scan"
            )
        liver, source = np.stack([read_labels(path) for path in rows.mask_path]) >= LIVER, FROM_REFERENCE
    return LabelledCase(volume, labels == TUMOUR, liver, source, spacing, numbers)


def summarised(found: Survey) -> pd.DataFrame:
    """Each quantity over the cases, with its patient-level bootstrap 95 % interval.

    The interval tells how far other patients, come by and chosen in the same way, might move the
    mean. It tells nothing of patients chosen otherwise.

    Returns
    -------
    DataFrame
        ``quantity``, with unit and who enters, and the attributes of
        :class:`lits_helpers.uncertainty.Description`. Shares of thirds are over all located
        lesions together, so patients with many weigh more.
    """
    cases, some = found.cases, found.cases[found.cases.lesions > 0]
    parts = {
        "cases with tumour, share": (cases, (cases.lesions > 0).astype(float)),
        "tumour burden, share of the liver (cases with a known liver)": (cases, cases.burden),
        "tumour burden, share of the liver (of these, cases with tumour)": (some, some.burden),
        "tumour, ml (cases with tumour and known spacing)": (some, some.tumour_ml),
        "lesions per case": (cases, cases.lesions),
        "largest lesion's diameter, mm (cases with tumour and known spacing)": (some, some.largest_lesion_diameter_mm),
        "largest lesion's section, pixels (cases with tumour)": (some, some.largest_lesion_section_pixels),
    }
    located = found.lesions[found.lesions.side != ""]
    totals = cases.volume.map(located.volume.value_counts()).fillna(0)
    for column, names in (("side", SIDES), ("height", HEIGHTS)):
        for name in names:
            counts = cases.volume.map(located.volume[located[column] == name].value_counts()).fillna(0)
            words = f"lesions in the {name} third, {'right to left' if column == 'side' else 'low to high'}, share"
            parts[words] = cases, np.stack([counts, totals], axis=1)
    rows = [
        {"quantity": words, **vars(describe(values, patients=rows.patient))} for words, (rows, values) in parts.items()
    ]
    return pd.DataFrame(rows)


def write_tables(found: Survey, folder: Path | str) -> tuple[Path, Path]:
    """Write ``cases.csv`` and ``lesions.csv`` into a folder, each atomically."""
    paths = Path(folder) / "cases.csv", Path(folder) / "lesions.csv"
    for path, table in zip(paths, (found.cases, found.lesions), strict=True):
        write_table(path, table)
    return paths
