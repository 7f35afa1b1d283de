"""Each notebook is a pair of one content, executed in order, small, and in the house's form."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("*.py"))
HEADINGS = ["You will do", "You will learn", "You need", "Recap", "Exercises"]
LONGEST_CELL = 20
MAXIMUM_BYTES = 500_000

# With no notebooks the tests fail on a file that is not there, instead of passing over an empty list.
every_notebook = pytest.mark.parametrize("source", SOURCES or [NOTEBOOKS / "none.py"], ids=lambda path: path.stem)


def executed(source: Path) -> nbformat.NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def words(output: nbformat.NotebookNode) -> str:
    """Everything textual in one output."""
    texts = [output.get("text", ""), *output.get("traceback", [])]
    texts += [value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    return "\n".join(str(text) for text in texts)


def test_the_series_has_its_first_four_notebooks():
    assert [source.name[:2] for source in SOURCES][:4] == ["01", "02", "03", "04"]


def test_every_notebook_has_its_source_beside_it():
    assert sorted(path.with_suffix(".py") for path in NOTEBOOKS.glob("*.ipynb")) == SOURCES


@every_notebook
def test_both_files_of_a_pair_have_the_same_cells(source):
    def content(notebook):
        return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]

    for number, (written, stored) in enumerate(zip(content(jupytext.read(source)), content(executed(source)))):
        assert written == stored, f"cell {number} differs: run `make notebooks`"
    assert len(jupytext.read(source).cells) == len(executed(source).cells)


@every_notebook
def test_cells_were_executed_once_from_top_to_bottom(source):
    cells = [cell for cell in code_cells(executed(source)) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)


@every_notebook
def test_no_stored_output_is_an_error(source):
    outputs = [output for cell in code_cells(executed(source)) for output in cell.outputs]
    assert [output.ename for output in outputs if output.output_type == "error"] == []


@every_notebook
def test_the_first_output_says_tiny_profile_and_phantom(source):
    first = next(cell for cell in code_cells(executed(source)) if cell.outputs)
    shown = "\n".join(words(output) for output in first.outputs)
    assert re.search(r"^profile\s+tiny$", shown, flags=re.MULTILINE)
    assert re.search(r"^data_source\s+phantom$", shown, flags=re.MULTILINE)


@every_notebook
def test_stored_outputs_name_no_folder_of_one_machine(source):
    folder = re.compile(r"(?<![\w.:/])/(?:root|work|tmp|var|opt|home|Users)/[^\s'\"]*|[A-Z]:\\+Users\\+\S+")
    found = {
        match for cell in code_cells(executed(source)) for output in cell.outputs
        for match in folder.findall(words(output))
    }
    assert found == set()


@every_notebook
def test_a_notebook_file_is_under_500_kb(source):
    assert source.with_suffix(".ipynb").stat().st_size < MAXIMUM_BYTES


@every_notebook
def test_a_notebook_has_the_fixed_headings_in_order(source):
    prose = "\n".join(cell.source for cell in executed(source).cells if cell.cell_type == "markdown")
    assert prose.startswith("# ")
    headings = re.findall(r"^(?:#+\s*|\*\*)([^*\n:.]+)", prose, flags=re.MULTILINE)
    assert [heading.strip() for heading in headings if heading.strip() in HEADINGS] == HEADINGS


@every_notebook
def test_code_cells_have_at_most_twenty_lines(source):
    lengths = {number: len(cell.source.splitlines()) for number, cell in enumerate(code_cells(executed(source)))}
    assert {number: lines for number, lines in lengths.items() if lines > LONGEST_CELL} == {}
