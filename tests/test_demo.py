import re
import sys
from contextlib import contextmanager
from dataclasses import replace

import nbclient
import nbformat
import pandas as pd
import pytest

from lits_helpers import DataError, demo, load_settings

PICTURE = """
import matplotlib.pyplot as plt
plt.plot([0, 1])
plt.show()
"""


@pytest.fixture
def settings(tmp_path, slice_folder):
    return load_settings(data_root=slice_folder, output_root=tmp_path / "out")


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """Four small notebooks in place of the real ones: {name: source of its only cell}."""

    def write(sources):
        folder = tmp_path / "notebooks"
        folder.mkdir()
        for name, source in sources.items():
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
            nbformat.write(notebook, folder / f"{name}.ipynb")
        monkeypatch.setattr(demo, "NOTEBOOKS", folder)

    return write


def test_notebooks_run_in_order_with_the_settings_and_leave_pages_and_figures(settings, notebooks):
    log = settings.output_root / "log"
    settings.output_root.mkdir()
    note = f"import os; open({str(log)!r}, 'a').write('%s' + os.environ['LITS_OUTPUT_ROOT'] + '\\n')"
    notebooks({
        "02_second": note % "2 " + PICTURE, "01_first": note % "1 ",
        "03_third": note % "3 ",
        "04_fourth": "import os; print('GIVEN', os.environ['LITS_PROFILE'], os.environ['LITS_DATA_ROOT'])",
    })
    folder = demo.run_notebooks(settings)
    assert log.read_text().splitlines() == [f"{n} {settings.output_root}" for n in (1, 2, 3)]
    assert sorted(path.name for path in folder.glob("*.html")) == [
        "01_first.html", "02_second.html", "03_third.html", "04_fourth.html",
    ]
    assert f"GIVEN tiny {settings.data_root}" in (folder / "04_fourth.html").read_text()
    for page in folder.glob("*.html"):
        targets = re.findall(r'\b(?:src|href)\s*=\s*["\']?([^"\'>]*)', page.read_text())
        assert all(target.startswith(("data:", "#")) for target in targets) and "<script" not in page.read_text()
    (figure,) = (folder / "figures").iterdir()
    assert figure.name == "02_second_1.png" and figure.read_bytes().startswith(b"\x89PNG")


def test_notebooks_on_the_phantom_are_told_of_no_data(tmp_path, notebooks, monkeypatch):
    monkeypatch.setattr("lits_helpers.settings.KAGGLE_INPUT", tmp_path / "no kaggle")
    monkeypatch.delenv("LITS_DATA_ROOT", raising=False)
    roots = []

    class Recorder(nbclient.NotebookClient):
        @contextmanager
        def setup_kernel(self, env, **places):
            roots.append(env["LITS_DATA_ROOT"])
            yield

        def execute_cell(self, cell, position):
            pass

    monkeypatch.setattr(nbclient, "NotebookClient", Recorder)
    notebooks({"01_a": "1", "02_b": "1", "03_c": "1", "04_d": "1"})
    demo.run_notebooks(load_settings(output_root=tmp_path / "out"))
    assert roots == [""] * 4


def test_a_failing_notebook_stops_the_demo_and_earlier_pages_stay(settings, notebooks):
    notebooks({"01_a": "1", "02_b": "1 / 0", "03_c": "1", "04_d": "1"})
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="ZeroDivisionError"):
        demo.run_notebooks(settings)
    assert [path.name for path in (settings.output_root / "demo").iterdir()] == ["01_a.html"]


def test_a_recipe_of_two_networks_is_refused_before_any_notebook_runs(settings, notebooks):
    notebooks({"01_a": "1", "02_b": "1", "03_c": "1", "04_d": "1"})
    with pytest.raises(DataError, match="recipe 'strong' trains two networks, and notebooks 03 and 04 one"):
        demo.run_notebooks(replace(settings, recipe="strong"))
    assert not (settings.output_root / "demo").exists()


def test_missing_notebooks_are_an_error(settings, notebooks):
    notebooks({"01_a": "1"})
    with pytest.raises(DataError, match="notebooks 01 to 04"):
        demo.run_notebooks(settings)


def test_what_runs_notebooks_is_named_where_it_is_not_installed(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbclient", None)  # as if it were not there
    with pytest.raises(DataError, match=r"nbclient.*pip install 'lits-helpers\[notebooks\]'"):
        demo.run_notebooks(settings)


def test_the_results_are_printed_with_their_data_and_places(settings, monkeypatch, capsys):
    (settings.output_root / "results").mkdir(parents=True)
    rows = {"metric": ["Dice, pooled"], "value": [0.12345], "cases": [3]}
    pd.DataFrame(rows).to_csv(settings.output_root / "results" / "summary.csv", index=False)
    monkeypatch.setattr(demo, "run_notebooks", lambda chosen: chosen.output_root / "demo")
    demo.run_demo(settings)
    printed = capsys.readouterr().out
    assert "0.123" in printed and settings.data_label in printed and "demo/*.html" in printed
