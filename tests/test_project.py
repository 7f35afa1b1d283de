"""The project's files agree with each other and with what they promise."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = dict(PROJECT["optional-dependencies"])
del EXTRAS["peer"]  # of tests/benchmarks/monai_peer.py, a comparison by hand: nothing else needs its gigabytes
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + sum(EXTRAS.values(), [])]
MAXIMUM_BYTES = 500_000
DEMO = ("__main__.py", "demo.py")  # these execute notebooks, which the extra of that name is for


def constraint_lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pins() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in constraint_lines())}


def environment() -> tuple[list[str], list[str]]:
    """Conda's requirements and pip's, from environment.yml."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [pip_section] = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    return [entry for entry in entries if isinstance(entry, str)], pip_section


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout, so nothing is known about tracked files")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).exists()]


# Requirements ---------------------------------------------------------------------------------


def test_constraints_are_exact_versions_and_nothing_else():
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][A-Za-z0-9.]*", line) for line in constraint_lines())
    assert len(pins()) == len(constraint_lines()), "a package is pinned twice"


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_every_direct_requirement_has_a_pin_that_satisfies_it(requirement):
    pinned = pins().get(canonicalize_name(requirement.name))
    assert pinned is not None, f"add {requirement.name} to constraints.txt"
    assert requirement.specifier.contains(pinned)
    assert requirement.url is None


def test_no_requirement_is_named_twice():
    names = [canonicalize_name(requirement.name) for requirement in DIRECT]
    assert len(names) == len(set(names))


def test_the_lowest_versions_are_the_bounds_of_every_requirement(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(["make", "build/lowest.txt"], cwd=tmp_path, capture_output=True, check=True)
    lowest = (tmp_path / "build" / "lowest.txt").read_text().splitlines()
    peer = map(Requirement, PROJECT["optional-dependencies"]["peer"])
    assert sorted(lowest) == sorted(str(requirement).replace(">=", "==") for requirement in [*DIRECT, *peer])


def test_environment_brings_a_supported_python_and_pip_alone():
    conda, _ = environment()
    assert [re.split("[=<>]", entry)[0] for entry in conda] == ["python", "pip"]
    python = conda[0].removeprefix("python=")
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)


def test_environment_installs_all_extras_under_the_constraints():
    _, pip_section = environment()
    assert pip_section == ["-c constraints.txt", f"-e .[{','.join(EXTRAS)}]"]


def test_the_makefile_installs_what_the_environment_does():
    assert f"EXTRAS := .[{','.join(EXTRAS)}]" in (ROOT / "Makefile").read_text().splitlines()


def test_pip_section_of_the_environment_resolves_to_the_pinned_versions(tmp_path):
    """As conda runs it: pip with a requirements file in the folder of environment.yml."""
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "lits_helpers"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "requirements.txt").write_text("\n".join(environment()[1]) + "\n")
    dry_run = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [*dry_run, "--retries=1", "--report", report, "-r", "requirements.txt"],
        cwd=tmp_path, capture_output=True, text=True,
    )
    if done.returncode != 0 and re.search("NewConnectionError|NameResolution|Timeout|Network is unreachable", done.stderr + done.stdout):
        pytest.skip("no package registry can be reached: the pip section was not resolved")
    assert done.returncode == 0, done.stderr
    found = {
        canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"]
        for item in json.loads(report.read_text())["install"]
    }
    assert found.pop("lits-helpers")
    assert {canonicalize_name(requirement.name) for requirement in DIRECT} <= set(found)
    assert found == {name: pins().get(name) for name in found}, "constraints.txt is not complete"


def test_the_list_of_licences_holds_every_pin_with_its_version():
    text = (ROOT / "docs" / "licences.md").read_text()
    listed = re.findall(r"^\| ([a-z0-9-]+) \| ([0-9]\S*) \| \S.* \|$", text, re.MULTILINE)
    assert dict(listed) == pins(), "run docs/list_licences.py"
    assert len(listed) == len(pins())


def test_the_workflow_tests_the_supported_pythons_with_commands_that_exist():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    supported = [f"3.{minor}" for minor in range(100) if f"3.{minor}" in SpecifierSet(PROJECT["requires-python"])]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == supported
    others = jobs["other-systems"]
    assert others["strategy"]["matrix"]["system"] == ["windows-latest", "macos-latest"] and others["continue-on-error"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    run = "\n".join(step["run"] for step in steps if "run" in step)
    named = set(re.findall(r"^make ([a-z]+)", run, re.MULTILINE))
    assert named == {"test", "lowest", "browser"} and named <= make_targets()
    assert f"pip install -c constraints.txt -e .[{','.join(EXTRAS)}]" in run
    pythons = {step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")}
    assert pythons <= {*supported, "${{ matrix.python }}"}


# Imports --------------------------------------------------------------------------------------


def imported(path: Path) -> set[str]:
    """Top-level names that a Python file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"lits_helpers"}


def undeclared(paths: list[Path], declared: list[str]) -> dict[str, str]:
    """Imported names that no declared requirement provides, with a file that imports them."""
    known = {canonicalize_name(Requirement(line).name) for line in declared}
    providers = packages_distributions()
    return {
        name: str(path.relative_to(ROOT))
        for path in paths
        for name in imported(path)
        if not known & {canonicalize_name(p) for p in providers.get(name, [])}
        and not (path.parent / f"{name}.py").exists()
    }


def test_the_package_imports_only_what_it_requires_or_an_optional_extra_brings():
    paths = [p for p in (ROOT / "lits_helpers").glob("*.py") if p.name not in DEMO]
    optional = [line for name in ("dicom", "cluster", "export", "survey", "view") for line in EXTRAS[name]]
    assert undeclared(paths, PROJECT["dependencies"] + optional) == {}


@pytest.mark.parametrize("path", sorted((ROOT / "lits_helpers").glob("*.py")), ids=lambda path: path.name)
def test_packages_of_an_optional_extra_are_imported_inside_functions_only(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in at_import if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in at_import if isinstance(node, ast.ImportFrom) and node.level == 0}
    assert {name.split(".")[0] for name in names} & {"pydicom", "highdicom", "dask", "distributed", "openvino", "tf2onnx", "k3d", "voila", "skimage", "sklearn"} == set()


SCRIPTS = [path for folder in ("lits_helpers", "notebooks", "docs", ".ci") for path in sorted((ROOT / folder).glob("*.py"))]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_text_files_are_utf_8_on_systems_with_another_usual_encoding(path):
    """Windows, before Python 3.15: each call says so, or is of bytes."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    opening = [ast.unparse(call) for call in calls if re.search(r"\b(open|read_text|write_text)$", ast.unparse(call.func))]
    without = [call for call in opening if not re.search(r"encoding=|, '[arw]b'\)|\.open\('rb'\)|Image\.open", call)]
    assert without == []


def test_notebooks_and_the_demo_import_only_what_the_notebooks_extra_brings():
    paths = [*(ROOT / "notebooks").glob("*.py"), *(p for name in DEMO for p in (ROOT / "lits_helpers").glob(name))]
    assert undeclared(paths, PROJECT["dependencies"] + EXTRAS["notebooks"]) == {}


def test_tests_import_only_what_the_extras_bring():
    paths = [ROOT / "conftest.py", *(ROOT / "tests").rglob("*.py")]
    paths = [path for path in paths if path.name != "monai_peer.py"]
    assert undeclared(paths, [str(requirement) for requirement in DIRECT]) == {}


def test_importing_the_package_imports_no_tensorflow(record_property):
    code = (
        "import sys, time; start = time.perf_counter(); import lits_helpers\n"
        "print(time.perf_counter() - start, *{'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()
    record_property("import_seconds", seconds)
    print(f"import lits_helpers took {float(seconds):.2f} s")
    assert heavy == []


@pytest.mark.parametrize("path", sorted((ROOT / "lits_helpers").glob("[!_]*.py")), ids=lambda path: path.name)
def test_every_module_has_a_test_file(path):
    assert (ROOT / "tests" / f"test_{path.name}").exists()


# Files ----------------------------------------------------------------------------------------


def test_no_tracked_file_is_over_500_kb():
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked_files()}
    assert {name: size for name, size in sizes.items() if size > MAXIMUM_BYTES} == {}


def test_no_tracked_file_names_a_folder_of_one_machine():
    personal = re.compile(r"(?<![\w.])/(?:root|work|home/\w+|Users/\w+)/|[A-Z]:\\+Users\\+\w|" + re.escape(str(ROOT)))
    found = []
    for path in tracked_files():
        if path.suffix not in {".png", ".jpg", ".gz"}:
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(lines, 1) if personal.search(line)]
    assert found == []


@pytest.mark.parametrize(
    "name", ["constraints.txt", "environment.yml", "pyproject.toml", "Makefile", ".ci/run", ".github/workflows/ci.yml"]
)
def test_project_files_hold_no_address(name):
    assert "://" not in (ROOT / name).read_text()


def test_git_ignores_data_and_outputs_but_not_their_readme():
    tracked_files()
    wanted = ["data/lits/volume-0.nii", "data/a.png", "outputs/x", ".venv/x", "data/README.md", "notebooks/a.py"]
    done = subprocess.run(["git", "check-ignore", *wanted], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == wanted[:4]


def commands_in(markdown: str) -> str:
    """The fenced and the indented code of a page."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}\S.*$", markdown, flags=re.MULTILINE)
    return "\n".join(fenced + indented)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_that_a_page_names_exist(page):
    text = (ROOT / page).read_text()
    named = set(re.findall(r"^\s*(?:\$ )?make ([a-z]+)", commands_in(text), flags=re.MULTILINE))
    named |= set(re.findall(r"`make ([a-z]+)", text))
    assert named, f"{page} names no make target"
    assert named <= make_targets()


def test_the_readme_shows_both_commands_and_the_conda_way():
    commands = commands_in((ROOT / "README.md").read_text())
    assert [line for line in ("make demo", "make test", "conda env create -f environment.yml") if line not in commands] == []


# The order in which data flows: CONTRIBUTING.md draws it.
ORDER = (
    "files", "parallel", "recipes", "settings", "windows", "codings", "pictures", "dicom", "dicom_masks", "volumes", "conversion", "anatomy", "phantom", "detective", "masks", "data_files",
    "layouts", "index", "splits", "duplicates", "audit", "augmentation", "synthesis",
    "generators", "normalisation", "model_size", "model", "networks3d", "metrics", "losses", "blocks", "devices", "runs", "clocks", "training", "sorting", "uncertainty", "calibration", "scoring", "sorting_scores", "distances", "lesions", "cases", "population", "failures", "postprocessing", "regions", "superpixels", "crf", "effects", "candidates", "candidate_filter", "baselines", "comparability", "inference", "superpixel_system", "superpixel_training", "explanation", "skip_connections", "repeated_predictions", "cascade", "rungs", "ladder", "surveyed_systems", "surveyed", "export", "crossvalidation", "drawing", "plots", "data_plots", "result_plots", "ladder_plots", "explanation_plots", "view3d", "html_report", "population_plots", "evaluation", "surveyed_results",
    "explorer", "model_widgets", "widgets", "scan_access", "app", "demo", "__main__",
)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_from_modules_before_it(module):
    tree = ast.parse((ROOT / "lits_helpers" / f"{module}.py").read_text(encoding="utf-8"))
    ours = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    used = {node.module or alias.name for node in ours for alias in node.names}
    later = [name for name in used & set(ORDER) if ORDER.index(name) >= ORDER.index(module)]
    assert later == []


def test_every_module_has_its_place_in_the_order():
    assert {path.stem for path in (ROOT / "lits_helpers").glob("*.py")} == {*ORDER, "__init__"}
