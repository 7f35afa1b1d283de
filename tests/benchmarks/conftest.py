"""One phantom for all benchmarks, both ways timed in turn, and a closing table of ratios."""

import os
import resource
import statistics
import sys
import time
from dataclasses import dataclass

import cv2
import keras
import pytest
import tensorflow as tf

from lits_helpers.phantom import write_phantom
from lits_helpers.training import precision_policy


@dataclass(frozen=True)
class Comparison:
    """Medians in seconds a unit, and what was run."""

    title: str
    unit: str
    report: float
    ours: float
    report_ran: str
    ours_ran: str

    @property
    def ratio(self):
        return self.report / self.ours


COMPARISONS: list[Comparison] = []


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """Folder of two synthetic patients as the report's JPEG slice files, 512x512, quality 100."""
    return write_phantom(tmp_path_factory.mktemp("benchmark") / "phantom", patients=2)


@pytest.fixture
def compare(benchmark):
    """Time the report's way and ours in turn, so that a busy moment of the machine hits both.

    The caller has run each once before, to check the results: files are in the page cache by
    then, and networks are compiled.
    """

    def timed(title, *, report, ours, units, unit, rounds, report_ran, ours_ran):
        report_seconds = []

        def time_report():  # as the set-up of each round of ours, which is not counted in it
            started = time.perf_counter()
            report()
            report_seconds.append(time.perf_counter() - started)

        benchmark.pedantic(ours, setup=time_report, rounds=rounds)
        if benchmark.disabled:
            return
        comparison = Comparison(
            title, unit, statistics.median(report_seconds) / units,
            benchmark.stats.stats.median / units, report_ran, ours_ran,
        )
        COMPARISONS.append(comparison)
        benchmark.extra_info.update(vars(comparison), ratio=comparison.ratio)

    return timed


def _processor():
    try:
        lines = open("/proc/cpuinfo").read().splitlines()
    except OSError:
        return "unknown processor"
    return next((line.partition(": ")[2] for line in lines if "model name" in line), "unknown processor")


def pytest_terminal_summary(terminalreporter):
    if not COMPARISONS:
        return
    write = terminalreporter.write_line
    terminalreporter.section("the report's way and ours, same data, run in turn: medians")
    devices = [device.name for device in tf.config.list_physical_devices("GPU")] or ["no GPU"]
    write(
        f"{_processor()}, {os.cpu_count()} cores, {', '.join(devices)}; load average "
        + ", ".join(f"{load:.1f}" for load in os.getloadavg())
    )
    write(
        f"Python {sys.version.split()[0]}, TensorFlow {tf.__version__}, Keras {keras.__version__}, "
        f"OpenCV {cv2.__version__}; ours in {precision_policy()[0]}"
    )
    # Linux counts kilobytes.
    write(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")
    write("")
    for found in COMPARISONS:
        write(
            f"{found.title:<36} report {1000 * found.report:8.2f}   ours {1000 * found.ours:8.2f} "
            f"ms/{found.unit:<6} ({1 / found.report:8.1f} and {1 / found.ours:8.1f} /s)  "
            f"ratio {found.ratio:5.1f}"
        )
    write("")
    for found in COMPARISONS:
        write(f"{found.title}: the report's way is {found.report_ran}; ours is {found.ours_ran}")
