"""One phantom for all benchmarks, and a closing table of ratios."""

import statistics

import pytest

from lits_helpers.index import build_index
from lits_helpers.phantom import write_phantom

RATIOS = []


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """Slice table of three synthetic patients, 512x512, and an output root."""
    root = tmp_path_factory.mktemp("benchmark")
    write_phantom(root / "phantom", patients=3)
    return build_index(root / "phantom", root / "out"), root / "out"


@pytest.fixture
def compared(request):
    """Note medians of both ways, in seconds a unit, for the closing table."""

    def note(benchmark, unit, theirs, ours):
        theirs, ours = statistics.median(theirs), statistics.median(ours)
        benchmark.extra_info.update(unit=unit, report_s=theirs, ours_s=ours, ratio=theirs / ours)
        RATIOS.append((request.node.name, unit, theirs, ours))

    return note


def pytest_terminal_summary(terminalreporter):
    if not RATIOS:
        return
    terminalreporter.section("the report's way beside ours, same data, one run (medians)")
    for name, unit, theirs, ours in RATIOS:
        terminalreporter.write_line(
            f"{name[5:]:<45} report {1000 * theirs:9.2f}  ours {1000 * ours:9.2f} ms/{unit}"
            f"  ratio {theirs / ours:6.1f}"
        )
