"""Figures and a page of what a folder of labels holds; the numbers come from :mod:`population`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from .drawing import LIVER_COLOUR, TRAINING_COLOUR, TUMOUR_COLOUR, panels, styled
from .html_report import Section, write_html
from .lesions import SIZE_EDGES_MM
from .population import FROM_REFERENCE, HEIGHTS, NO_LIVER, SIDES, Survey, summarised

DATA_SET = (
    "This page describes a data set, not a population. Nothing on it is a prevalence, an incidence or a usual "
    "tumour burden: who had a CT, whose scan was kept, and what was chosen for a benchmark come before every number. "
    "The intervals are over patients, 95 %: they tell how far other patients, found and chosen in the same way, "
    "would move a mean, and nothing of patients chosen otherwise."
)
# The abstract of the paper is what was read; that scans were chosen for their tumours is our inference from it.
SELECTION = (
    "LiTS, where the data is LiTS: 131 training and 70 test scans from different patients, put together with seven "
    "hospitals and research institutions, with primary and secondary tumours of varied size and contrast (Bilic et "
    "al., The Liver Tumor Segmentation Benchmark, Medical Image Analysis 84 (2023) 102680, abstract). A benchmark of "
    "tumours is made of scans that show tumours. So tumours are far more frequent here than among people, or "
    "among people who have a CT; livers without any are few; one hospital's share of the scans is not its share "
    "of the patients; and sizes and counts follow what was found worth outlining. Part of such data, a test split "
    "or some volumes of it, is chosen once more."
)
PREDICTED = (
    "The masks are a network's and carry its errors. A missed lesion lowers count and burden, an invented one raises "
    "them, one lesion found in three parts counts three times. The errors are not the same everywhere: small and faint "
    "lesions are missed more often. Read these numbers beside an evaluation against reference labels."
)
REFERENCE = (
    "The masks are reference labels: what annotators outlined on these scans, with their own misses and "
    "disagreements, and no histology."
)
SYNTHETIC = "The scans are the synthetic phantom: its tumours were drawn by a program, so these numbers describe that program."
THIRDS = (
    "The liver's voxels, tumours included, are lined up from the patient's right to the left and from the feet to "
    "the head, and each line is cut into three parts of equal volume; a lesion belongs to the part that its centre lies "
    "in. Lesions strewn evenly through the liver would put a third of themselves into each part (dashed line). These "
    "thirds are no Couinaud segments, which follow the vessels, and left and right are not the lobes. Slice files do "
    "not tell how they lie: they are taken to lie as on the screen, the patient's right on the viewer's left, slices "
    "from the feet upwards."
)


@styled
def burden_plot(cases: pd.DataFrame) -> Figure:
    """Tumour burden of each case, sorted, and how many cases have how many lesions.

    Parameters
    ----------
    cases : DataFrame
        Of :class:`lits_helpers.population.Survey`. Cases whose liver is not known, or not in the slices,
        have no burden and are counted in the title.
    """
    figure, axes = panels(1, 2, size=(9, 3.2))
    burdens, counts = axes[0]
    known = 100 * cases.burden.dropna().sort_values(ascending=False).to_numpy()
    burdens.bar(np.arange(1, len(known) + 1), known, width=0.8, color=TUMOUR_COLOUR)
    left_out = len(cases) - len(known)
    burdens.set(title=f"Tumour burden of {len(known)} cases" + (f" ({left_out} without a liver)" if left_out else ""))
    burdens.set(xlabel="cases, the highest burden first", ylabel="tumour (% of the liver)")
    highest = int(cases.lesions.max())
    counts.hist(cases.lesions, bins=np.arange(highest + 2) - 0.5, color=TRAINING_COLOUR, rwidth=0.85)
    counts.set(title=f"{int(cases.lesions.sum())} lesions in {len(cases)} cases", xlabel="lesions of a case", ylabel="cases")
    for axis in (burdens.xaxis, counts.xaxis, counts.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return figure


@styled
def lesion_sizes(lesions: pd.DataFrame) -> Figure:
    """How large the lesions are: diameters in mm where the spacing is known, else sections in pixels.

    Parameters
    ----------
    lesions : DataFrame
        Of :class:`lits_helpers.population.Survey`.
    """
    known = lesions.diameter_mm.dropna().to_numpy(float)
    unknown = lesions.section_pixels[lesions.diameter_mm.isna()].to_numpy(float)
    sides = [
        ("diameter of the ball of the same volume (mm)", known, SIZE_EDGES_MM),
        ("area in the largest slice (pixels), spacing not known", unknown, ()),
    ]
    sides = [side for side in sides if len(side[1])] or sides[:1]
    figure, axes = panels(1, len(sides), size=(4.8 * len(sides), 3.2))
    for panel, (words, sizes, edges) in zip(axes[0], sides, strict=True):
        if len(sizes):
            low, high = 0.9 * min([*sizes, *edges]), 1.1 * max([*sizes, *edges])
            wider = max(1.0, (10 * low / high) ** 0.5)  # a decade at least, which has ticks at 1, 2 and 5
            panel.hist(sizes, bins=np.geomspace(low / wider, high * wider, 16), color=TUMOUR_COLOUR, rwidth=0.9)
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter(NullFormatter())
            for edge in edges:
                panel.axvline(edge, color="black", lw=0.8, ls=":")
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_title(f"{len(sizes)} lesions")
        panel.set(xlabel=words, ylabel="lesions")
    return figure


@styled
def location_plot(lesions: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Where in the liver the lesions lie: each by its centre, counts in the ninths, shares of the thirds.

    Parameters
    ----------
    lesions : DataFrame
        Of :class:`lits_helpers.population.Survey`. Those outside the liver, or of a case without
        one, have no place and are counted in the title.
    summary : DataFrame
        Of :func:`lits_helpers.population.summarised`.
    """
    located = lesions[lesions.side != ""]
    figure, axes = panels(1, 3, size=(10.5, 3.5))
    places, across, upwards = axes[0]
    places.plot(located.right_to_left, located.low_to_high, "o", ms=4, alpha=0.5, color=TUMOUR_COLOUR, mew=0)
    for cut in (1 / 3, 2 / 3):
        places.axvline(cut, color=LIVER_COLOUR, lw=1)
        places.axhline(cut, color=LIVER_COLOUR, lw=1)
    for column, side in enumerate(SIDES):
        for line, height in enumerate(HEIGHTS):
            count = int(((located.side == side) & (located.height == height)).sum())
            places.text((column + 0.5) / 3, (line + 0.5) / 3, count, ha="center", va="center", fontsize=14, weight="bold")
    places.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=f"Centres of {len(located)} lesions")
    places.set(xlabel="R   share of the liver to the right   L", ylabel="share of the liver below")
    for panel, names, words in ((across, SIDES, "right to left"), (upwards, HEIGHTS, "low to high")):
        _draw_thirds(panel, summary.set_index("quantity"), names, words)
    left_out = len(lesions) - len(located)
    figure.suptitle("Where the lesions lie" + (f" ({left_out} outside the liver, or no liver known)" if left_out else ""))
    return figure


def _draw_thirds(panel: Axes, summary: pd.DataFrame, names: tuple[str, ...], words: str) -> None:
    for place, name in enumerate(names):
        row = summary.loc[f"lesions in the {name} third, {words}, share"]
        panel.vlines(place, row.low, row.high, color="black", lw=2)
        panel.plot(place, row.value, "D", color="black", ms=5)
    panel.axhline(1 / 3, color="#555555", lw=1, ls="--")
    panel.set_xticks(range(3), names)
    panel.set(xlim=(-0.5, 2.5), ylim=(-0.02, 1), title=f"Share of lesions by third, {words}\n95 % over patients")


def write_population(
    path: Path,
    found: Survey,
    *,
    title: str,
    predicted: bool,
    synthetic: bool = False,
    small_tumours_unknown: int = 0,
    facts: Mapping[str, object] | None = None,
) -> Path:
    """Write a survey as one self-contained HTML page that says what it is, and is not.

    Parameters
    ----------
    path : Path
        Of the ``.html`` file.
    found : Survey
    title : str
    predicted : bool
        Whether the tumours are a network's, or reference labels.
    synthetic : bool
        Whether the scans are the phantom.
    small_tumours_unknown : int
        Slices whose coding keeps tumours under 0.1 % of the slice as liver
        (:mod:`lits_helpers.codings`): said on the page.
    facts : mapping, optional
        Where the labels come from; listed at the end.

    Returns
    -------
    Path
        ``path``.
    """
    cases, lesions = found.cases, found.lesions
    about = [DATA_SET, SYNTHETIC if synthetic else SELECTION, PREDICTED if predicted else REFERENCE]
    caveats = _caveats(found, predicted, small_tumours_unknown)
    summary = summarised(found)
    shown = summary.round(3).rename(columns={"lower_quartile": "Q1", "upper_quartile": "Q3", "left_out": "left out"})
    figures = burden_plot(cases), lesion_sizes(lesions), location_plot(lesions, summary)
    sections = [
        Section("What this is, and what it is not", "\n\n".join([*about, *caveats])),
        Section(
            "All cases together", "Each row says what was averaged and who enters; the rest is counted as left out. Shares "
            "of thirds are of all located lesions together.", [shown],
        ),
        Section(
            "Burden and number of lesions", "Tumour volume over liver volume, tumours included. A lesion is a connected "
            "component of 26 neighbours.", figures=[(figures[0], "Burden of each case, and lesions by case.")],
        ),
        Section(
            "Size", "Dotted, where sizes are known in mm: 5, 10 and 20.", figures=[(figures[1], "Sizes of all lesions, on a logarithmic axis.")],
        ),
        Section("Place", THIRDS, figures=[(figures[2], "Lesions by their centre; the patient's right is on the left.")]),
        Section("Case by case", "", [_shown(cases)]),
    ]
    try:
        return write_html(path, title, {"cases": len(cases), "patients": cases.patient.nunique(), **(facts or {})}, sections)
    finally:
        for figure in figures:
            plt.close(figure)


def _caveats(found: Survey, predicted: bool, small_tumours_unknown: int) -> list[str]:
    """What holds for these cases in particular, a paragraph each."""
    cases = found.cases
    sources, some = cases.liver_source, []
    if count := int((sources == NO_LIVER).sum()):
        some.append(
            f"{count} of {len(cases)} cases have no known liver (the network draws tumours alone, and no reference labels "
            "were given for them): their burden and their lesions' places are left out."
        )
    if predicted and (count := int((sources == FROM_REFERENCE).sum())):
        some.append(
            f"In {count} cases the liver is that of the reference labels, which no patient comes with: an oracle. With a "
            "predicted liver burdens would be further off."
        )
    if count := int((~cases.spacing_known).sum()):
        some.append(
            f"In {count} cases the spacing is not known or slices are missing: sizes there are in voxels and pixels, "
            "which are not the same size in every scan."
        )
    if count := int((cases.missing_slices > 0).sum()):
        some.append(
            f"In {count} cases slices are missing between the first and the last. What touches across a gap counts as one "
            "lesion; burdens and thirds are those of the slices that are there."
        )
    if small_tumours_unknown:
        some.append(
            f"In {small_tumours_unknown} slices the masks' coding keeps tumours under 0.1 % of the slice as liver: small "
            "lesions are missing there."
        )
    return some


def _shown(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases, the highest burden first, with short headings."""
    columns = {
        "volume": "volume", "patient": "patient", "slices": "slices", "missing_slices": "missing", "liver_source": "liver from",
        "burden": "burden", "tumour_ml": "tumour (ml)", "liver_ml": "liver (ml)", "lesions": "lesions",
        "largest_lesion_diameter_mm": "largest (mm)", "largest_lesion_section_pixels": "largest section (pixels)",
    }  # fmt: skip
    ordered = cases.sort_values("burden", ascending=False, kind="stable")
    ordered = ordered.astype({"largest_lesion_section_pixels": "Int64"})
    return ordered[list(columns)].rename(columns=columns).round({"burden": 4, "tumour (ml)": 1, "liver (ml)": 0, "largest (mm)": 1})
