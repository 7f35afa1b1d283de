"""Make the pictures of the README and of this folder anew, from the phantom.

    .venv/bin/python docs/make_pictures.py

Trains the tiny profile first (a minute or two), unless the network lies below the output root already
(``LITS_OUTPUT_ROOT``, default ``outputs/``), and writes the PNG files beside this script. No real data
is read, whatever ``LITS_DATA_ROOT`` says.
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from lits_helpers import audit, drawing, inference, load_settings, masks, plots, training, view3d
from lits_helpers.files import atomic_path
from lits_helpers.generators import decode_slices
from lits_helpers.pictures import read_image
from lits_helpers.settings import Settings

FOLDER = Path(__file__).resolve().parent
DPI = 100  # 1,000 pixels across: as wide as a README is shown


def save(figure: Figure, name: str) -> None:
    """As PNG without transparency, packed as tightly as PNG can be."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=DPI)
    plt.close(figure)
    with Image.open(picture) as image, atomic_path(FOLDER / name) as temporary:
        image.convert("RGB").save(temporary, optimize=True)
    print(f"{name}: {(FOLDER / name).stat().st_size / 1000:.0f} kB")


def phantom_settings() -> Settings:
    """The tiny profile on the phantom: of the environment only ``LITS_OUTPUT_ROOT`` counts."""
    for name in [name for name in os.environ if name.startswith("LITS_") and name != "LITS_OUTPUT_ROOT"]:
        del os.environ[name]
    settings = load_settings()
    return replace(settings, data_source="phantom", data_root=settings.output_root / "phantom")


def example_slices(table: pd.DataFrame) -> Figure:
    """A slice of each diagnosis: the one with most tumour, with most liver, and one without."""
    rows = table.loc[[table.tumour_pixels.idxmax(), table[table.diagnosis == masks.LIVER_ONLY].liver_pixels.idxmax(),
                      table[table.diagnosis == masks.EMPTY].index[0]]]
    cases = [
        (read_image(row.image_path), masks.read_labels(row.mask_path),
         f"{masks.DIAGNOSES[row.diagnosis]}\nvolume {row.volume}, slice {row.slice}")
        for row in rows.itertuples()
    ]  # fmt: skip
    return plots.example_slices(cases, marks=drawing.slice_marks(rows))


def predictions(test: pd.DataFrame, probabilities: np.ndarray) -> Figure:
    """The best, the median and the worst slice with tumour of the test patients."""
    slices = inference.evaluate_slices(test, probabilities)
    ordered = slices[slices.truth_pixels > 0].sort_values("dice", ascending=False)
    chosen = {"best": ordered.index[0], "median": ordered.index[len(ordered) // 2], "worst": ordered.index[-1]}
    cases = []
    for word, position in chosen.items():
        row = test.iloc[position]
        image, truth = read_image(row.image_path), masks.read_labels(row.mask_path) == masks.TUMOUR
        probability = inference.enlarged(probabilities[position], truth.shape)
        cases.append((image, truth, probability, f"{word}: volume {row.volume}, slice {row.slice}"))
    return plots.predictions(cases, marks=drawing.slice_marks(test.iloc[list(chosen.values())]))


def largest_burden(test: pd.DataFrame, probabilities: np.ndarray) -> Figure:
    """The test patient with most tumour, in three dimensions."""
    found = list(inference.volume_cases(test, probabilities))
    _, truth, predicted, spacing = max(found, key=lambda case: np.count_nonzero(case[1] == masks.TUMOUR))
    return view3d.rendering3d(
        truth >= masks.LIVER, truth == masks.TUMOUR, predicted == masks.TUMOUR, spacing=spacing
    )


def main() -> None:
    settings = phantom_settings()
    table = audit.load_patient_split(settings)
    model = training.load_checkpoint(training.train(settings, table) / "best.keras", settings.image_size)
    test = table[table.split == "test"]
    cache = decode_slices(table, settings.image_size, settings.output_root)
    probabilities = inference.predict_slices(model, cache, test)
    save(example_slices(table), "phantom_slices.png")
    save(predictions(test, probabilities), "phantom_predictions.png")
    save(largest_burden(test, probabilities), "phantom_3d.png")


if __name__ == "__main__":
    main()
