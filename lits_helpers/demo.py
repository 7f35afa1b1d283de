"""Run the first four notebooks from top to bottom, and gather what they show."""

from __future__ import annotations

import base64
import os
import re
import time
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from .files import DataError, atomic_path, shown
from .recipes import RECIPES
from .settings import Settings

LEFT_OUT = "not-in-demo"  # tag of cells that train something to compare with
# Keeps what TensorFlow's C++ writes at its import, which no log level silences, out of the pages.
QUIET_KERNEL = ["--IPKernelApp.capture_fd_output=False"]
NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def run_notebooks(settings: Settings) -> Path:
    """Execute notebooks 01 to 04 in order; pages and figures go below the output root.

    Parameters
    ----------
    settings : Settings
        Handed to the notebooks through their environment variables.

    Returns
    -------
    Path
        ``demo/``: an HTML page for each notebook, and ``figures/`` with every picture as PNG or JPEG.

    Raises
    ------
    DataError
        If the notebooks or the packages that run them are missing, or the recipe is one of two networks,
        which they do not train.
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    if RECIPES[settings.recipe].cascade:
        raise DataError(
            f"recipe {settings.recipe!r} trains two networks, and notebooks 03 and 04 one: choose another, or run "
            f"`train --recipe {settings.recipe}`"
        )
    try:
        import nbclient
        import nbconvert
        import nbformat
    except ImportError as error:
        raise DataError(f"{error}: pip install 'lits-helpers[notebooks]'") from error
    sources = sorted(NOTEBOOKS.glob("0[1-4]_*.ipynb"))
    if len(sources) != 4:
        raise DataError(f"{NOTEBOOKS} does not hold notebooks 01 to 04: run this from a clone")
    environment = os.environ | {
        "LITS_PROFILE": settings.profile,
        "LITS_RECIPE": settings.recipe,
        "LITS_OUTPUT_ROOT": str(settings.output_root),
        "LITS_DATA_ROOT": "" if settings.is_synthetic else str(settings.data_root),
        "LITS_LAYOUT": "" if settings.is_synthetic else settings.layout,
        "LITS_MASK_MEANING": settings.mask_meaning,
    }
    folder = settings.output_root / "demo"
    for source in sources:
        notebook = nbformat.read(source, as_version=4)
        notebook.cells = [cell for cell in notebook.cells if LEFT_OUT not in cell.metadata.get("tags", ())]
        client = nbclient.NotebookClient(
            notebook, timeout=None, kernel_name="python3", extra_arguments=QUIET_KERNEL
        )
        started = time.monotonic()
        with client.setup_kernel(env=environment, cwd=str(NOTEBOOKS)):
            cells = tqdm(list(enumerate(notebook.cells)), desc=source.stem, unit="cell")
            for position, cell in cells:
                client.execute_cell(cell, position)
        print(f"{source.stem}: {time.monotonic() - started:.0f} s")
        page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
        # They would be fetched from the network, to set formulas and draw widgets: here are figures.
        page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
        with atomic_path(folder / f"{source.stem}.html") as temporary:
            temporary.write_text(page, encoding="utf-8")
        _save_figures(notebook, folder / "figures", source.stem)
    return folder


def _save_figures(notebook, folder: Path, stem: str) -> None:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    bundles = [output["data"] for output in outputs if "data" in output]
    pictures = [
        (ending, bundle[kind])
        for bundle in bundles
        for ending, kind in (("png", "image/png"), ("jpg", "image/jpeg"))
        if kind in bundle
    ]
    for number, (ending, picture) in enumerate(pictures, 1):
        with atomic_path(folder / f"{stem}_{number}.{ending}") as temporary:
            temporary.write_bytes(base64.b64decode(picture))


def results_table(folder: Path) -> str:
    """The table that notebook 04 wrote, as text with its label."""
    results = pd.read_csv(folder.parent / "results" / "summary.csv")
    return results.round(3).to_string(index=False, na_rep="-")


def run_demo(settings: Settings) -> None:
    """Notebooks, pages, figures, and the results table on screen."""
    folder = run_notebooks(settings)
    print(f"\nResults on the {settings.data_label}, held-out test patients:\n")
    print(results_table(folder))
    print(f"\nPages:   {shown(folder)}/*.html\nFigures: {shown(folder / 'figures')}/")
