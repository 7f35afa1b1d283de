import base64
import re
from html.parser import HTMLParser

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lits_helpers import html_report
from lits_helpers.files import DataError
from lits_helpers.html_report import Section, versions, write_html


@pytest.fixture
def page(tmp_path):
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([0, 1])
    sections = [
        Section("Scores <all>", "First.\n\nSecond & last.", [pd.DataFrame({"Dice": [0.5, float("nan")]})]),
        Section("Pictures", figures=[(figure, 'A "quoted" caption')]),
    ]
    path = write_html(tmp_path / "out" / "run.html", "Run <1>", {"split": "abc123"}, sections)
    plt.close(figure)
    return path.read_text(encoding="utf-8")


class Balanced(HTMLParser):
    """Fails on tags that are not closed in order."""

    EMPTY = {"meta", "img", "br", "link"}

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page):
    parser = Balanced()
    parser.feed(page)
    return parser


def test_tags_are_closed_in_order(page):
    assert parsed(page).open == []


def test_nothing_is_fetched_from_anywhere(page):
    targets = [a.get("src") or a.get("href") for _, a in parsed(page).seen if "src" in a or "href" in a]
    assert targets and all(target.startswith(("data:", "#")) for target in targets)
    assert "url(" not in page and "@import" not in page and "<script" not in page


def test_figures_are_pictures_with_words_beside_them(page):
    [image] = [attributes for tag, attributes in parsed(page).seen if tag == "img"]
    assert image["alt"] == 'A "quoted" caption'
    assert base64.b64decode(image["src"].split(",", 1)[1]).startswith(b"\x89PNG")


def test_text_and_title_cannot_be_taken_for_tags(page):
    assert "<title>Run &lt;1&gt;</title>" in page and "Scores &lt;all&gt;" in page
    assert "<p>First.</p>" in page and "<p>Second &amp; last.</p>" in page


def test_a_missing_value_is_a_dash(page):
    assert re.search(r"<td>\N{EN DASH}</td>", page) and "NaN" not in page


def test_the_page_says_what_it_is_no_device_and_what_it_was_made_from(page):
    assert "not a medical device" in page
    assert "<dt>split</dt><dd>abc123</dd>" in page
    assert "UTC" in page and all(f"<dt>{name}</dt><dd>{number}</dd>" in page for name, number in versions().items())


def test_each_section_has_a_link(page):
    names = [attributes["id"] for tag, attributes in parsed(page).seen if tag == "section"]
    assert [a["href"] for tag, a in parsed(page).seen if tag == "a"] == [f"#{name}" for name in names]


def test_a_package_that_is_not_installed_is_named_as_such(monkeypatch):
    monkeypatch.setattr(html_report, "PACKAGES", ("pandas", "no-such-package"))
    found = versions()
    assert (found["pandas"], found["no-such-package"]) == (pd.__version__, "not installed")


def test_a_folder_that_is_a_file_is_an_error_with_its_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file"):
        write_html(tmp_path / "file" / "run.html", "t", {}, [])
