import html
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fitting import misfits

from lits_helpers import __main__ as command_line
from lits_helpers import population, population_plots
from lits_helpers.population import LabelledCase
from lits_helpers.volumes import write_nifti


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def case(volume, voxels, *, liver=True, spacing=(5.0, 1.0, 2.0), numbers=(0, 1, 2)):
    """A liver of 3x5x9 voxels, all of it, with some tumour voxels."""
    tumour = np.zeros((3, 5, 9), bool)
    for voxel in voxels:
        tumour[voxel] = True
    liver, source = (np.ones_like(tumour), "reference") if liver else (None, "none")
    return LabelledCase(volume, tumour, liver, source, spacing, np.array(numbers))


@pytest.fixture
def found():
    """Four cases: two lesions, one lesion, none, and one without a liver."""
    return population.survey([
        case(0, [(0, 0, 0), (2, 2, 8)]), case(1, [(1, 2, 4)]), case(2, []), case(3, [(0, 0, 0)], liver=False),
    ])


def test_burdens_are_bars_in_percent_the_highest_first(found):
    burdens, counts = population_plots.burden_plot(found.cases).axes
    assert [bar.get_height() for bar in burdens.patches] == pytest.approx([200 / 135, 100 / 135, 0])
    assert burdens.get_title() == "Tumour burden of 3 cases (1 without a liver)"
    assert [bar.get_height() for bar in counts.patches] == [1, 2, 1]  # no lesion, one, two
    assert counts.get_title() == "4 lesions in 4 cases"


def test_sizes_in_mm_and_in_pixels_are_not_mixed():
    found = population.survey([case(0, [(0, 0, 0)]), case(1, [(0, 0, 0), (0, 0, 1)], spacing=None)])
    known, unknown = population_plots.lesion_sizes(found.lesions).axes
    assert "(mm)" in known.get_xlabel() and known.get_title() == "1 lesions"
    assert "pixels" in unknown.get_xlabel() and unknown.get_title() == "1 lesions"
    assert known.get_xscale() == unknown.get_xscale() == "log"


def test_words_are_large_enough_inside_the_figures_and_apart(found):
    without_spacing = population.survey([case(1, [(0, 0, 0), (0, 0, 1)], spacing=None)]).lesions
    figures = [
        population_plots.burden_plot(found.cases), population_plots.location_plot(found.lesions, population.summarised(found)),
        *map(population_plots.lesion_sizes, (found.lesions, without_spacing, pd.concat([found.lesions, without_spacing]))),
    ]
    assert [misfits(figure) for figure in figures] == [[]] * 5


def test_without_lesions_the_figures_are_empty_and_no_error():
    found = population.survey([case(0, []), case(1, [])])
    [panel] = population_plots.lesion_sizes(found.lesions).axes
    assert panel.get_title() == "0 lesions"
    assert population_plots.location_plot(found.lesions, population.summarised(found)).axes[0].get_title() == "Centres of 0 lesions"


def test_each_located_lesion_is_a_point_and_each_ninth_is_counted(found):
    figure = population_plots.location_plot(found.lesions, population.summarised(found))
    places = figure.axes[0]
    points = places.lines[0].get_xydata()
    # The first and last of nine columns and of three slices, and the middle of both.
    assert points.tolist() == [pytest.approx(p) for p in ([1 / 18, 1 / 6], [17 / 18, 5 / 6], [1 / 2, 1 / 2])]
    counts = {text.get_position(): int(text.get_text()) for text in places.texts}
    corners = {key: counts[min(counts, key=lambda p: abs(p[0] - key[0]) + abs(p[1] - key[1]))] for key in [(0, 0), (0.5, 0.5), (1, 1), (1, 0)]}
    assert corners == {(0, 0): 1, (0.5, 0.5): 1, (1, 1): 1, (1, 0): 0}
    assert figure.get_suptitle() == "Where the lesions lie (1 outside the liver, or no liver known)"


def words_of(page):
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.read_text(encoding="utf-8"))))


def test_the_page_says_that_it_is_no_population_and_how_the_data_was_chosen(tmp_path, found):
    path = population_plots.write_population(tmp_path / "page.html", found, title="Here", predicted=False, facts={"labels": "masks"})
    text = words_of(path)
    for words in ("a data set, not a population", "seven hospitals", "no Couinaud segments", "reference labels", "masks"):
        assert words in text
    assert "1 of 4 cases have no known liver" in text and "carry its errors" not in text
    assert len(re.findall(r"data:image/png;base64,[A-Za-z0-9+/=]+", path.read_text())) == 3
    assert plt.get_fignums() == []


def test_predicted_masks_and_borrowed_livers_are_owned_up_to(tmp_path, found):
    text = words_of(population_plots.write_population(tmp_path / "page.html", found, title="Here", predicted=True))
    assert "carry its errors" in text and "In 3 cases the liver is that of the reference labels" in text and "an oracle" in text


def test_gaps_unknown_spacing_and_lost_small_tumours_are_said(tmp_path):
    found = population.survey([case(0, [(0, 0, 0)], spacing=None, numbers=(0, 2, 4)), case(1, [])])
    text = words_of(population_plots.write_population(
        tmp_path / "page.html", found, title="Here", predicted=False, synthetic=True, small_tumours_unknown=7,
    ))
    assert "In 1 cases the spacing is not known" in text and "In 1 cases slices are missing" in text
    assert "In 7 slices the masks' coding" in text
    assert "drawn by a program" in text and "seven hospitals" not in text


# Command line ---------------------------------------------------------------------------------


def test_the_command_writes_page_and_tables_of_reference_labels(slice_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert command_line.main(["population", "--data", str(slice_folder), "--output", str(out)]) == 0
    folder = out / "results" / "population"
    cases = pd.read_csv(folder / "cases.csv")
    assert cases.lesions.tolist() == [1, 1, 1, 0] and set(cases.liver_source) == {"reference"}
    assert len(pd.read_csv(folder / "lesions.csv")) == 3
    assert "seven hospitals" in words_of(folder / "population.html")
    assert "a data set, not a population" in capsys.readouterr().out


def test_predictions_without_data_get_no_liver_of_the_phantoms(tmp_path):
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[1, 2:4, 2:4] = 2
    write_nifti(tmp_path / "predictions" / "volume-0_prediction.nii.gz", labels, (5.0, 1.0, 1.0))
    out = tmp_path / "out"
    assert command_line.main(["population", "--predictions", str(tmp_path / "predictions"), "--output", str(out)]) == 0
    cases = pd.read_csv(out / "results" / "population" / "cases.csv")
    assert cases.liver_source.tolist() == ["none"]
    assert cases.tumour_ml.tolist() == [0.02] and cases.burden.isna().all()
    assert not (out / "phantom").exists()
    assert "carry its errors" in words_of(out / "results" / "population" / "population.html")


def test_a_folder_without_predictions_is_an_error_of_one_line(tmp_path, capsys):
    assert command_line.main(["population", "--predictions", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "no predictions" in capsys.readouterr().err
