"""Write licences.md beside this script: what the packages in constraints.txt say about their licences.

    .venv/bin/python docs/list_licences.py

Reads the metadata of the installed packages, so make .venv first. A licence that it does not know stops
it: read that one, and add it to a kind below or do without the package.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# Of other systems alone, read in the metadata of their wheels; and what says it in its licence file only.
ELSEWHERE = {
    "appnope": "BSD-2-Clause", "colorama": "BSD License", "pywinpty": "MIT License",
    "namex": "Apache-2.0", "medpy": "GPL-3.0",
}
KINDS = {
    "GPL": re.compile("GPL"),
    "MPL": re.compile("MPL|Mozilla"),
    "permissive": re.compile("MIT|BSD|Apache|ISC|PSF|Python Software Foundation"),
}

INTRODUCTION = """# Licences of the packages that lits_helpers uses

Made by `docs/list_licences.py` from the metadata of the packages in `constraints.txt`. No lawyer has read it.

Our source is under the MIT licence and holds no code of these packages: pip fetches them from their authors. Whoever
passes on an environment or an image with all of them in it passes them on under their own licences.

- **{permissive} packages are under permissive licences** (MIT, BSD, Apache 2.0, ISC, PSF and the like), which source under
  MIT may use.
- **{MPL} are under the MPL 2.0**, alone or with others ({mpl_names}): it asks for the source of changed
  files of these packages, and we change none.
- **{GPL} is under the GPL** ({gpl_names}). It comes with the extra `test` and is imported by tests only, which compare
  distances with it; the package runs without. MIT-licensed source may be combined with it; the combination would be
  under the GPL, and we distribute none.
- Wheels bundle libraries of further licences, which lie in them as files: FFmpeg and Qt in OpenCV's (LGPL), GCC's
  runtime in NumPy's, SciPy's and scikit-learn's (GPL with the exception for programs that use it).

PyTorch and MONAI, of the extra `peer`, are not pinned and not listed.

| package | version | licence |
|---|---|---|
"""


def stated_licence(name: str, version: str) -> str:
    """The licence that a package states: as an expression, in a few words, or by its classifiers.

    Raises
    ------
    SystemExit
        If another version is installed, or nothing is stated.
    """
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    try:
        stated = metadata(name)
    except PackageNotFoundError:
        raise SystemExit(f"{name} is not installed: run make, or add what its wheel states to ELSEWHERE") from None
    if stated["Version"] != version:
        raise SystemExit(f"{name} {stated['Version']} is installed, constraints.txt has {version}: run make")
    classifiers = [line.split(" :: ")[-1] for line in stated.get_all("Classifier", []) if line.startswith("License")]
    words = (stated["License"] or "").strip()
    short = words if "\n" not in words and words.isprintable() and words != "UNKNOWN" else ""
    found = stated["License-Expression"] or short or ", ".join(classifiers)
    if not found:
        raise SystemExit(f"{name} states no licence: read its licence file and add it to ELSEWHERE")
    return found


def kind(name: str, licence: str) -> str:
    for found, words in KINDS.items():
        if words.search(licence):
            return found
    raise SystemExit(f"{name} is under {licence!r}, which is of no known kind: read it first")


def main() -> None:
    lines = (FOLDER.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    licences = {name: stated_licence(name, version) for name, version in pins}
    kinds = {name: kind(name, licence) for name, licence in licences.items()}
    of_kind = {found: [name for name in kinds if kinds[name] == found] for found in KINDS}
    numbers = {found: len(names) for found, names in of_kind.items()}
    text = INTRODUCTION.format(**numbers, mpl_names=", ".join(of_kind["MPL"]), gpl_names=", ".join(of_kind["GPL"]))
    text += "".join(f"| {name} | {version} | {licences[name]} |\n" for name, version in pins)
    (FOLDER / "licences.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
