"""Published results on LiTS, each with what was measured and how, and which of them compare with yours.

Two Dice values may be set side by side when they come from the same data, a split of the same
kind, the same target, metric and unit, the same slices and the same rule for empty masks. Most
pairs fail one of these; :func:`comparable_rows` says which, in words. The numbers were read in
their sources in November 2026, in an abstract or table as noted; what the part that was read does
not say is ``"not stated"`` here, and a row with such a gap is comparable with nothing.
"""

from __future__ import annotations

import pandas as pd

NOT_STATED = "not stated"
DATASETS = {
    "LiTS test": "the 70 volumes of the challenge's server, whose masks are not public",
    "LiTS training": "volumes out of the 131 with public masks, as volumes or as slice files",
    "phantom": "this project's synthetic volumes",
}
SPLITS = {
    "challenge": "trained on the 131 training volumes, tested on the server",
    "by patient": "own split or folds, no patient on two sides",
    "by slice": "slices drawn at random, so that a patient's slices train and test: leaks",
}
METRICS = {
    "Dice": "2 |T and P| / (|T| + |P|)",
    "IoU": "|T and P| / |T or P|",
    "recall at overlap > 0": "share of the true lesions that share a voxel with the prediction",
    "recall at overlap > 0.5": "share of the true lesions that are matched by more than half",
    "slice accuracy": "share of slices called right, tumour or none",
    "tumour burden RMSE": "root mean square error of tumour volume over liver volume",
}
UNITS = {
    "patient": "a score for each volume, then their mean",
    "voxel": "all voxels pooled (global)",
    "slice": "a score for each slice, then their mean",
    "lesion": "a score for each lesion, then their mean",
}
TARGETS = ("tumour", "liver", "liver and tumour")
TESTED_ON = ("all slices", "tumour slices", "detected lesions")
# What both-empty cases count as; a pooled score and one of lesions never meet the question.
BOTH_EMPTY = ("1", "left out", "0", "does not occur")

_FIELDS = {
    "dataset": DATASETS, "split": SPLITS, "metric": METRICS, "unit": UNITS, "target": TARGETS,
    "tested_on": TESTED_ON, "both_empty": BOTH_EMPTY,
}  # fmt: skip
_BENCHMARK = "10.1016/j.media.2022.102680"
_SERVER = {
    "dataset": "LiTS test", "split": "challenge", "target": "tumour", "metric": "Dice", "unit": "patient",
    "tested_on": "all slices", "both_empty": "1",
}  # fmt: skip
_UNSTATED = dict.fromkeys(_FIELDS, NOT_STATED) | {"target": "tumour", "metric": "Dice"}
_REPORT = _UNSTATED | {
    "dataset": "LiTS training", "split": "by slice", "unit": "voxel", "tested_on": "tumour slices",
    "both_empty": "does not occur", "authors": "student report", "year": 2023,
    "reference": "Liver Tumor Segmentation using U-Net", "source": "its results on 200 test slices",
}  # fmt: skip
# nnU-Net's folds are of cases. The table does not say whether its Dice is of tumours, livers or both.
_FOLDS = _UNSTATED | {
    "dataset": "LiTS training", "split": "by patient", "tested_on": "all slices", "target": NOT_STATED,
    "authors": "Isensee et al.", "year": 2024, "reference": "arXiv:2404.09556",
    "source": "its table as in nnU-Net's documentation/resenc_presets.md",
}  # fmt: skip


def _benchmark(method: str, value: float, event: str, source: str = "Table 7", **differing: str) -> dict:
    """A row of the benchmark paper, whose teams were scored by the server."""
    return _SERVER | {
        "method": f"{method}, {event}", "authors": "Bilic et al.", "year": 2023, "reference": _BENCHMARK,
        "printed_as": "Dice", "value": value, "source": source,
    } | differing  # fmt: skip


# The server's convention for empty masks is that of the challenge's evaluation code (lits-challenge,
# both empty = 1); that the table's Dice is the mean per case is said by Han (1704.07239) of his row.
_ROWS = (
    _benchmark("Han, 2.5D residual U-Net", 0.674, "ISBI 2017"),
    _benchmark("Chlebus et al., 2D U-Net and object filter", 0.652, "ISBI 2017"),
    _benchmark("Vorontsov et al., tandem FCN", 0.645, "ISBI 2017"),
    _benchmark("Bi and Kim, cascaded ResNet", 0.645, "ISBI 2017"),
    _benchmark("Wang, 2D U-Nets in three planes", 0.576, "ISBI 2017"),
    _benchmark("Christ et al., cascaded U-Net and 3D CRF", 0.529, "ISBI 2017"),
    _benchmark("Bellver et al.", 0.411, "ISBI 2017"),
    _benchmark("best of tumour segmentation", 0.702, "MICCAI 2017", "abstract"),
    _benchmark("best of tumour segmentation", 0.739, "MICCAI 2018", "abstract"),
    _benchmark("best of liver segmentation", 0.963, "all events", "abstract", target="liver"),
    *(
        _benchmark(
            "best of lesion detection", value, event, "abstract", metric="recall (overlap not stated)", unit="lesion",
            both_empty="does not occur", printed_as="lesion-wise recall",
        )
        for event, value in (("ISBI 2017", 0.458), ("MICCAI 2017", 0.515), ("MICCAI 2018", 0.554))
    ),
    _SERVER | {
        "method": "2D and 3D cascade", "authors": "Dey, Hong", "year": 2020,
        "reference": "10.1109/ISBI45749.2020.9098656", "printed_as": "Dice score per case", "value": 0.681,
        "source": "abstract (arXiv:1909.04797)",
    },
    _SERVER | {
        "method": "cascaded 2D DenseNets", "authors": "Kaluva et al.", "year": 2018,
        "reference": "arXiv:1802.02182", "printed_as": "global dice score", "unit": "voxel", "value": 0.625,
        "both_empty": "does not occur", "source": "abstract",
    },
    _SERVER | {
        "method": "cascaded 2D DenseNets", "authors": "Kaluva et al.", "year": 2018, "target": "liver",
        "reference": "arXiv:1802.02182", "printed_as": "global dice score", "unit": "voxel", "value": 0.923,
        "both_empty": "does not occur", "source": "abstract",
    },
    _SERVER | {
        "method": "cascaded 2D DenseNets", "authors": "Kaluva et al.", "year": 2018,
        "reference": "arXiv:1802.02182", "printed_as": "tumor burden rmse", "metric": "tumour burden RMSE",
        "value": 0.044, "both_empty": "does not occur", "source": "abstract",
    },
    _UNSTATED | {
        "method": "2D U-Net and object filter", "authors": "Chlebus et al.", "year": 2018,
        "reference": "10.1038/s41598-018-33860-7", "dataset": "LiTS training", "unit": "lesion",
        "tested_on": "detected lesions", "both_empty": "does not occur", "printed_as": "mean Dice", "value": 0.69,
        "source": "abstract",
    },
    _UNSTATED | {
        "method": "a human reader", "authors": "Chlebus et al.", "year": 2018,
        "reference": "10.1038/s41598-018-33860-7", "dataset": "LiTS training", "unit": "lesion",
        "tested_on": "detected lesions", "both_empty": "does not occur", "printed_as": "mean Dice", "value": 0.72,
        "source": "abstract",
    },
    *(
        _FOLDS | {"method": method, "printed_as": "Dice over 5-fold cross-validation", "value": value}
        for method, value in (("nnU-Net", 0.8009), ("nnU-Net, ResEnc L", 0.8160), ("SwinUNETR", 0.7650))
    ),
    *(
        _FOLDS | {
            "method": f"{method}, 100 epochs", "authors": "TriALS organisers", "reference": "xmed-lab/TriALS on GitHub",
            "target": "tumour", "unit": "lesion", "both_empty": "does not occur", "value": value,
            "tested_on": NOT_STATED,  # whether missed lesions count
            "printed_as": "Lesion Dice, an average across all lesions", "source": "README.md, benchmark on LiTS",
        }
        for method, value in (("nnU-Net 2D", 0.7714), ("nnU-Net 3D", 0.7629))
    ),
    _UNSTATED | {
        "method": "two-stage CNN with attention", "authors": "Meng, Zhang, Bu", "year": 2021,
        "reference": "10.3390/diagnostics11101806", "printed_as": "Dice coefficient", "value": 0.725,
        "source": "abstract",
    },
    _UNSTATED | {
        "method": "slim U-Net on whole CT slices", "authors": "Ayalew, Fante, Mohammed", "year": 2021,
        "reference": "10.1186/s42490-021-00050-y", "printed_as": "dice score", "value": 0.63, "source": "abstract",
    },
    _UNSTATED | {
        "method": "slim U-Net inside the liver", "authors": "Ayalew, Fante, Mohammed", "year": 2021,
        "reference": "10.1186/s42490-021-00050-y", "printed_as": "dice score", "value": 0.74, "source": "abstract",
    },
    _REPORT | {"method": "U-Net on slices", "printed_as": "Dice", "value": 0.85},
    _REPORT | {"method": "U-Net on slices", "printed_as": "IoU", "metric": "IoU", "value": 0.74},
    _REPORT | {
        "method": "U-Net on slices", "printed_as": "pixel-level accuracy, 173 of 200", "metric": "slice accuracy",
        "unit": "slice", "value": 0.865,
    },
)  # fmt: skip
_COLUMNS = ("method", "authors", "year", "reference", *_FIELDS, "printed_as", "value", "source")


def published() -> pd.DataFrame:
    """The card: one row a published number.

    Returns
    -------
    DataFrame
        ``method``, ``authors``, ``year``, ``reference`` (DOI, arXiv number or title); ``dataset``,
        ``split``, ``metric``, ``unit`` (what is averaged), ``target``, ``tested_on`` and
        ``both_empty``, in the words of :data:`DATASETS` and its neighbours or ``"not stated"``, and of
        three rows the metric is ``"recall (overlap not stated)"``;
        ``printed_as`` (the metric in the source's words), ``value`` (in [0, 1]) and ``source``
        (where in the reference it stands).
    """
    return pd.DataFrame(list(_ROWS), columns=list(_COLUMNS))


def comparable_rows(
    *,
    dataset: str,
    split: str,
    metric: str,
    unit: str,
    target: str = "tumour",
    tested_on: str = "all slices",
    both_empty: str = "left out",
    card: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Which published numbers a figure of yours may be set beside.

    Parameters
    ----------
    dataset, split, metric, unit : str
        Of your figure: keys of :data:`DATASETS`, :data:`SPLITS`, :data:`METRICS`, :data:`UNITS`.
    target : {"tumour", "liver", "liver and tumour"}
    tested_on : {"all slices", "tumour slices", "detected lesions"}
        Testing tumour slices alone is an oracle: it takes the truth to choose them.
    both_empty : {"left out", "1", "0", "does not occur"}
        What cases count as in which truth and prediction are both empty. ``"does not occur"``
        (pooled scores, or tumours in all cases) goes with every rule.
    card : DataFrame, optional
        Like :func:`published`, which it is by default.

    Returns
    -------
    DataFrame
        The card with ``comparable`` (bool) and ``reason``: all that stands against it, in words,
        or what to mind where nothing does. Comparable rows first.

    Raises
    ------
    ValueError
        For a word that the card does not know; the message lists those it does.
    """
    yours = {
        "dataset": dataset, "split": split, "metric": metric, "unit": unit, "target": target,
        "tested_on": tested_on, "both_empty": both_empty,
    }  # fmt: skip
    for field, value in yours.items():
        if value not in _FIELDS[field]:
            raise ValueError(f"{field} is one of {list(_FIELDS[field])}, got {value!r}")
    card = published() if card is None else card
    against = [_objections(row, yours) for row in card.to_dict("records")]
    return card.assign(
        comparable=[not reasons for reasons in against],
        reason=["; ".join(reasons) or _to_mind(dataset) for reasons in against],
    ).sort_values("comparable", ascending=False, kind="stable", ignore_index=True)


_NAMES = {"dataset": "data", "tested_on": "tested on", "both_empty": "both-empty cases"}


def _objections(row: dict[str, object], yours: dict[str, str]) -> list[str]:
    """Why a row of the card cannot stand beside your figure, in words; empty if it can."""
    reasons, gaps = [], []
    for field, value in yours.items():
        name, theirs = _NAMES.get(field, field), row[field]
        if theirs == NOT_STATED:
            gaps.append(name)
        elif field == "both_empty" and "does not occur" in (theirs, value):
            continue
        elif theirs != value:
            leak = " (leaks)" if field == "split" and "by slice" in (theirs, value) else ""
            reasons.append(f"{name}: {theirs}, not {value}{leak}")
    if gaps:
        reasons.append(f"{NOT_STATED} in what was read: {', '.join(gaps)}")
    return reasons


def _to_mind(dataset: str) -> str:
    """What remains to be said of a row to which there is no objection."""
    if dataset == "LiTS test":
        return "same test volumes"
    return "same kind of test, other patients: set intervals beside both"
