"""The pictures in docs/ are those that docs/make_pictures.py writes."""

import ast
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "docs" / "make_pictures.py"


def written() -> set[str]:
    """The names that the script passes to its ``save``."""
    calls = [node for node in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(node, ast.Call)]
    return {call.args[1].value for call in calls if isinstance(call.func, ast.Name) and call.func.id == "save"}


def test_every_picture_there_is_written_by_the_script_and_the_other_way_round():
    assert written() == {path.name for path in SCRIPT.parent.glob("*.png")}


@pytest.mark.parametrize("name", sorted(written()))
def test_a_picture_is_as_wide_as_a_readme_shows_it(name):
    assert 900 <= plt.imread(SCRIPT.parent / name).shape[1] <= 1100


def test_the_readme_shows_every_picture_and_none_that_is_not_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme) + re.findall(r'<img src="([^"]+)"', readme)
    assert {f"docs/{name}" for name in written()} <= set(shown)
    assert [path for path in shown if not (ROOT / path).exists()] == []
