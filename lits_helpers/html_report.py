"""One self-contained HTML page for a run: tables and figures in one file that needs no network."""

from __future__ import annotations

import base64
import html
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from .files import atomic_path

PACKAGES = ("lits-helpers", "tensorflow", "keras", "numpy", "pandas", "scipy", "opencv-python")
WARNING = (
    "For study and research only. This software is not a medical device, and nothing on this page may be "
    "used on patients."
)

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
p { max-width: 46rem; } .warning { border-left: 4px solid #D55E00; padding: .3rem .8rem; background: #fdf3ec; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; margin: .6rem 0; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th { background: #f4f4f4; } td:first-child, th:first-child { text-align: left; min-width: 5rem; max-width: 24rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } figcaption { font-size: .88rem; color: #555; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .88rem; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
nav a { margin-right: 1rem; font-size: .9rem; }
@media print { body { margin: 0; max-width: none; } nav { display: none; } h2, figure, table { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    heading : str
    text : str
        What is to be seen, in plain words; a blank line starts a new paragraph.
    tables : sequence of DataFrame
        Shown as they are, without their index: round them before.
    figures : sequence of (Figure, str)
        With the caption of each, which also stands in for the picture where it is not seen.
    """

    heading: str
    text: str = ""
    tables: Sequence[pd.DataFrame] = ()
    figures: Sequence[tuple[Figure, str]] = ()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, as they are installed."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_html(path: Path, title: str, facts: Mapping[str, object], sections: Sequence[Section]) -> Path:
    """Write a page, atomically.

    Parameters
    ----------
    path : Path
        Of the ``.html`` file.
    title : str
    facts : mapping
        What the run was, put under the title; versions and the time are added.
    sections : sequence of Section

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    names = [f"part-{number}" for number in range(1, len(sections) + 1)]
    links = "".join(
        f'<a href="#{name}">{html.escape(section.heading)}</a>' for name, section in zip(names, sections)
    )
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="warning">{WARNING}</p>',
        f"<nav>{links}</nav>",
        *(_part(name, section) for name, section in zip(names, sections)),
        "<h2>What this was made from</h2>",
        _listed({**facts, "page written": now, **versions()}),
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts) + "\n</body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _part(name: str, section: Section) -> str:
    lines = [f'<section id="{name}"><h2>{html.escape(section.heading)}</h2>']
    lines += [f"<p>{html.escape(text)}</p>" for text in section.text.split("\n\n") if text]
    for table in section.tables:
        rows = table.to_html(index=False, border=0, na_rep="\N{EN DASH}", escape=True)
        lines.append(f'<div class="scroll">{rows}</div>')
    for figure, caption in section.figures:
        words = html.escape(caption)
        lines.append(
            f'<figure><img alt="{words}" src="data:image/png;base64,{_png(figure)}">'
            f"<figcaption>{words}</figcaption></figure>"
        )
    return "\n".join([*lines, "</section>"])


def _listed(facts: Mapping[str, object]) -> str:
    rows = [f"<dt>{html.escape(str(k))}</dt><dd>{html.escape(str(v))}</dd>" for k, v in facts.items()]
    return f"<dl>{''.join(rows)}</dl>"


def _png(figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return base64.b64encode(content.getvalue()).decode("ascii")
