"""Kills, full disks, two at once, clocks that jump, files that change, no network: nothing lost, nothing stale.

Work is killed at random moments, six times in the short form. `LITS_KILLS=60` gives the long one, of so many kills.
"""

import errno
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from lits_helpers import generators
from lits_helpers.conversion import convert_volumes
from lits_helpers.files import DataError
from lits_helpers.generators import decode_slices
from lits_helpers.index import build_index
from lits_helpers.layouts import find_layouts
from lits_helpers.settings import load_settings
from lits_helpers.splits import split_patients
from lits_helpers.volumes import write_nifti

KILLS = int(os.environ.get("LITS_KILLS") or 6)
TINY = dict(
    image_size=32, filters=2, depth=1, batch_size=4, epochs=3, learning_rate=0.02, momentum=0.5, prior=0.5,
    schedule="cosine",
)
YEAR = 365 * 86_400.0
SHAPE = (24, 128, 96)  # slices, rows, columns of a volume

# What is done in processes that are killed ----------------------------------------------------------------


def convert(data, output, executor=None):
    (layout,) = find_layouts(data / "volumes")
    return convert_volumes(layout.cases, output / "converted", executor=executor)


def convert_in_one_process(data, output):
    with ThreadPoolExecutor(2) as executor:
        convert(data, output, executor)


def index_and_decode(data, output):
    return decode_slices(build_index(data / "slices", output), 512, output)


def settings_and_table(data, output):
    settings = load_settings(data_root=data / "slices", output_root=output, **TINY)
    return settings, split_patients(build_index(settings.data_root, settings.output_root))


def train_network(data, output):
    import tensorflow as tf

    from lits_helpers.training import train

    tf.config.run_functions_eagerly(True)  # a network this small trains faster than it is compiled
    return train(*settings_and_table(data, output))


def predict(data, output):
    import tensorflow as tf

    from lits_helpers.inference import predict_files, predict_scan
    from lits_helpers.runs import load_checkpoint

    tf.config.run_functions_eagerly(True)
    model = load_checkpoint(data / "network.keras", 32)
    (layout,) = find_layouts(data / "slices")
    predict_files(model, layout.cases, output, batch_size=4)
    predict_scan(model, data / "volumes" / "volume-0.nii.gz", output)


def all_at_once(data, output, barrier):
    barrier.wait()
    index_and_decode(data, output)
    convert_in_one_process(data, output)


def train_slowly(data, output, started, go_on):
    from lits_helpers import training

    usual = training._RunFolder.on_train_batch_end

    def waits(self, batch, logs=None):
        started.set()
        go_on.wait()
        usual(self, batch, logs)

    training._RunFolder.on_train_batch_end = waits
    train_network(data, output)


# ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes():
    """Processes forked from one that has imported everything and started nothing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("Windows has neither forks nor SIGKILL: nothing was killed")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "lits_helpers.training", "lits_helpers.inference"])
    first = context.Process(target=os.getpid)  # until it is imported
    first.start()
    assert ended(first)
    return context


@pytest.fixture
def eager():
    """Train here without tracing, as the other processes do."""
    import tensorflow as tf

    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def data(slice_folder, tmp_path):
    """Slices, volumes of noise with liver and tumour, and a network to predict with."""
    folder = tmp_path / "data"
    folder.mkdir()
    slice_folder.rename(folder / "slices")
    for number in range(3):
        labels = np.zeros(SHAPE, np.uint8)
        labels[2:, 20:70, 20:60] = 1
        labels[4:7, 30:40, 30:40] = 2
        noise = np.random.default_rng(number).normal(0, 9, SHAPE)
        hounsfield = (np.choose(labels, (-90, 100, 50)) + noise).astype(np.int16)
        for name, array in (("volume", hounsfield), ("segmentation", labels)):
            write_nifti(folder / "volumes" / f"{name}-{number}.nii.gz", array, (5, 0.8, 0.8))
    return folder


def small_network(prior=0.5):
    from lits_helpers.model import unet

    return unet((32, 32, 3), filters=2, depth=1, prior=prior)


reading_network = cache(small_network)  # one to load weights into


def contents(folder):
    """Every file below a folder; of records without the seconds they took, of networks the weights."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.name == "history.csv":
            content = pd.read_csv(path).drop(columns="seconds").to_dict("list")
        elif path.suffix == ".json":
            content = {key: value for key, value in json.loads(content).items() if key not in ("seconds", "settings")}
        elif path.suffix in (".keras", ".h5"):
            content = weights(path)
        found[path.relative_to(folder).as_posix()] = content
    return found


def weights(path):
    """All numbers of a network in a file of Keras, by their place."""
    model = reading_network()
    model.load_weights(path)
    return dict(enumerate(model.get_weights()))


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, content in expected.items():
        if isinstance(content, bytes) or name.endswith(".json"):
            assert found[name] == content, name
        else:
            assert list(found[name]) == list(content), name
            for key, values in content.items():
                np.testing.assert_allclose(found[name][key], values, rtol=1e-5, atol=1e-6, err_msg=f"{name}, {key}")


def ended(process):
    """Wait for a process; whether it did its work, where it was not killed."""
    process.join(300)
    assert process.exitcode in (0, -signal.SIGKILL), f"ended with {process.exitcode}, see what it printed"
    return process.exitcode == 0


# Its part of the kills in the short form and in the long one.
SHARES = {
    convert_in_one_process: (1, 2), convert: (0, 2), index_and_decode: (2, 3), train_network: (2, 3), predict: (1, 3),
}
WORK = {work: short if KILLS == 6 else -(-KILLS * long // 13) for work, (short, long) in SHARES.items()}


@pytest.mark.parametrize(("work", "kills"), [item for item in WORK.items() if item[1]])
def test_work_killed_at_random_moments_ends_like_undisturbed_work(work, kills, processes, data, tmp_path):
    small_network().save(data / "network.keras")
    inputs = contents(data)

    def start(output):
        process = processes.Process(target=work, args=(data, output))
        process.start()
        return process

    began = time.monotonic()
    assert ended(start(tmp_path / "undisturbed"))
    seconds = time.monotonic() - began
    expected = contents(tmp_path / "undisturbed")
    assert len(expected) >= 3
    random = np.random.default_rng([32, list(WORK).index(work)])
    found, trials, late = [], 0, 0
    while len(found) < kills:
        output = tmp_path / f"trial {trials}"
        for attempt in range(min(random.integers(1, 4), kills - len(found))):  # the second meets what the first left
            began = time.monotonic()
            process = start(output)
            process.join(random.uniform(0, seconds))
            process.kill()
            if ended(process):
                late += 1
                if attempt == 0:  # the machine has got faster
                    seconds = min(seconds, time.monotonic() - began)
                break
            found.append(len([path for path in output.rglob("*") if path.is_file()]))
        assert ended(start(output))
        assert_same(contents(output), expected)
        shutil.rmtree(output)
        trials += 1
    assert_same(contents(data), inputs)
    print(
        f"{work.__name__}: {kills} kills in {trials} trials of {seconds:.1f} s, {late} more came late; "
        f"of {len(expected)} files there were {sorted(found)}"
    )


# Two at once ----------------------------------------------------------------------------------------------


def test_two_processes_on_one_output_root_end_with_the_result_of_one(processes, data, tmp_path):
    for output, number in (("alone", 1), ("shared", 2)):
        barrier = processes.Barrier(number)
        together = [
            processes.Process(target=all_at_once, args=(data, tmp_path / output, barrier)) for _ in range(number)
        ]
        for process in together:
            process.start()
        assert all(map(ended, together))
    expected = contents(tmp_path / "alone")
    assert sum(name.endswith(".png") for name in expected) == 2 * 3 * SHAPE[0]
    assert_same(contents(tmp_path / "shared"), expected)


def test_a_second_training_of_one_run_is_refused_until_the_first_ends_even_by_a_kill(processes, data, tmp_path, eager):
    started, go_on = processes.Event(), processes.Event()
    first = processes.Process(target=train_slowly, args=(data, tmp_path / "out", started, go_on))
    first.start()
    assert started.wait(120)
    with pytest.raises(DataError, match="tiny-patient-.*: another process trains this run now: wait"):
        train_network(data, tmp_path / "out")
    first.kill()
    assert not ended(first)
    folder = train_network(data, tmp_path / "out")
    assert pd.read_csv(folder / "history.csv").epoch.tolist() == [1, 2, 3]


# Clocks ---------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_by_years_changes_no_result_and_no_duration(data, tmp_path, monkeypatch, eager):
    from lits_helpers.training import train

    folder = train_network(data, tmp_path / "usual")
    settings, table = settings_and_table(data, tmp_path / "jumps")
    assert len(pd.read_csv(train(settings, table, minutes=0) / "history.csv")) == 1
    for path in (tmp_path / "jumps").rglob("*"):  # as if the clock had been a year ahead, and were right now
        os.utime(path, (time.time() + YEAR, time.time() + YEAR))
    usual, random, asked = time.time, np.random.default_rng(1), []
    monkeypatch.setattr(time, "time", lambda: asked.append(1) or usual() + random.uniform(-YEAR, YEAR))
    history = pd.read_csv(train(settings, table, minutes=30) / "history.csv")
    assert asked  # by Keras, for the times in its files
    assert len(history) == 3 and history.seconds.between(0, 300).all()
    assert_same(contents(tmp_path / "jumps" / "runs"), contents(folder.parent))
    assert len(list((tmp_path / "jumps" / "cache").iterdir())) == 1


@pytest.mark.parametrize("written", [0.0, 4e9], ids=["1970", "2096"])
def test_files_of_any_time_are_indexed_and_decoded_once(data, tmp_path, monkeypatch, written):
    usual = build_index(data / "slices", tmp_path / "usual")
    for path in (data / "slices").rglob("*.jpg"):
        os.utime(path, (written, written))
    table = build_index(data / "slices", tmp_path / "out")
    cache = decode_slices(table, 32, tmp_path / "out")
    pd.testing.assert_frame_equal(table, usual)
    monkeypatch.setattr("lits_helpers.index.classify", None)
    monkeypatch.setattr("lits_helpers.generators.build_cache", None)
    again = build_index(data / "slices", tmp_path / "out")
    assert (decode_slices(again, 32, tmp_path / "out").labels == cache.labels).all()
    os.utime(table.mask_path[0], (written + 1, written + 1))
    with pytest.raises(TypeError):  # it is read again
        build_index(data / "slices", tmp_path / "out")


# Files that change after they were indexed ----------------------------------------------------------------


def disguised(table, row, other):
    """Put another slice's mask under the name of a row, in a file of the same size."""
    old, new = (Path(path).read_bytes() for path in table.mask_path[[row, other]])
    assert len(new) <= len(old)
    Path(table.mask_path[row]).write_bytes(new.ljust(len(old), b"\0"))


def test_a_mask_of_another_content_is_noticed_even_where_others_have_decoded_it(data, tmp_path, eager):
    from lits_helpers.training import train

    settings, table = settings_and_table(data, tmp_path / "out")
    folder = train_network(data, tmp_path / "out")
    disguised(table, 2, 0)
    for _ in range(2):
        with pytest.raises(DataError, match="slice_2_mask.jpg, or its image, changed .* index the folder anew"):
            train(settings, table)
        anew = settings_and_table(data, tmp_path / "out")[1]
        assert (table.diagnosis[2], anew.diagnosis[2]) == (2, 0)
        decode_slices(anew, 32, tmp_path / "out")
    assert train_network(data, tmp_path / "out") != folder


def test_a_file_touched_or_an_image_replaced_makes_a_cache_and_a_run_of_its_own(data, tmp_path):
    from lits_helpers.runs import run_folder

    settings, table = settings_and_table(data, tmp_path / "out")
    caches, runs = [decode_slices(table, 32, tmp_path / "out")], {run_folder(settings, table)}
    os.utime(table.image_path[3], (1, 1))
    caches, runs = [*caches, decode_slices(table, 32, tmp_path / "out")], runs | {run_folder(settings, table)}
    os.replace(table.image_path[4], table.image_path[3])
    shutil.copy(table.image_path[3], table.image_path[4])
    caches, runs = [*caches, decode_slices(table, 32, tmp_path / "out")], runs | {run_folder(settings, table)}
    assert len(runs) == len(list((tmp_path / "out" / "cache").iterdir())) == 3
    assert (caches[1].images == caches[0].images).all()
    assert (caches[2].images[3] == caches[0].images[4]).all()


@pytest.mark.parametrize("column", ["image_path", "mask_path"])
def test_a_file_deleted_after_indexing_is_named(data, tmp_path, column):
    from lits_helpers.training import train

    settings, table = settings_and_table(data, tmp_path / "out")
    lost = Path(table[column][5])
    lost.unlink()
    for act in (lambda: decode_slices(table, 32, tmp_path / "out"), lambda: train(settings, table)):
        with pytest.raises(DataError, match=f"{lost.name}: No such file.*index it anew"):
            act()
    with pytest.raises(DataError, match="volume-1_slice_1.*(no mask|without an image|no image)"):
        build_index(data / "slices", tmp_path / "out")


# Full disks -----------------------------------------------------------------------------------------------


def full_at(number, write):
    """A function that writes, until the disk is full at its n-th call, in the middle of that."""
    calls = []

    def writes(file, content):
        calls.append(1)
        if len(calls) < number:
            return write(file, content)
        write(file, bytes(content)[:9])
        raise OSError(errno.ENOSPC, "No space left on device")

    return writes


def test_a_full_disk_stops_a_conversion_that_goes_on_when_there_is_room(data, tmp_path, monkeypatch):
    convert_in_one_process(data, tmp_path / "usual")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_at(40, Path.write_bytes))
        with pytest.raises(DataError, match="no space left while writing .*LITS_OUTPUT_ROOT"):
            convert_in_one_process(data, tmp_path / "out")
    assert not list((tmp_path / "out").rglob(".writing-*"))
    convert_in_one_process(data, tmp_path / "out")
    assert_same(contents(tmp_path / "out"), contents(tmp_path / "usual"))


class SmallDisk(io.FileIO):
    """A file on a disk with room for 20 kB."""

    def write(self, content):
        if self.tell() + np.asarray(memoryview(content)).nbytes > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


def test_a_full_disk_leaves_earlier_caches_and_nothing_of_the_one_it_stops(data, tmp_path, monkeypatch):
    table = build_index(data / "slices", tmp_path / "out")
    decode_slices(table, 16, tmp_path / "out")
    before = contents(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(generators, "open", SmallDisk, raising=False)
        with pytest.raises(DataError, match="no space left while writing .*cache.*LITS_OUTPUT_ROOT"):
            decode_slices(table, 32, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    assert not list((tmp_path / "out").rglob(".writing-*"))
    assert len(decode_slices(table, 32, tmp_path / "out").labels) == 16


@pytest.mark.parametrize("where", ["masks", "list", "scan"])
def test_a_full_disk_leaves_the_earlier_prediction_whole(data, tmp_path, monkeypatch, eager, where):
    small_network().save(data / "network.keras")
    predict(data, tmp_path / "out")
    before = contents(tmp_path / "out")
    assert len(before) == 18  # masks of 16 slices, their list, and a scan's labels
    small_network(0.1).save(data / "network.keras")  # which predicts otherwise
    with monkeypatch.context() as patch:
        if where == "masks":
            patch.setattr(Path, "write_bytes", full_at(7, Path.write_bytes))
        elif where == "list":
            patch.setattr(pd.DataFrame, "to_csv", lambda _, path, **__: full_at(1, Path.write_bytes)(path, b"volume,"))
        else:
            patch.setattr(nibabel, "save", lambda image, path: full_at(1, Path.write_bytes)(path, b"half a header"))
        with pytest.raises(DataError, match="no space left while writing .*LITS_OUTPUT_ROOT"):
            predict(data, tmp_path / "out")
    assert not list((tmp_path / "out").rglob(".writing-*"))
    after = contents(tmp_path / "out")
    (scan,) = (name for name in before if name.endswith(".nii.gz"))
    if where == "scan":
        assert after[scan] == before[scan] and after["predictions.csv"] != before["predictions.csv"]
    else:
        assert after == before


def test_a_prediction_killed_before_its_masks_are_in_place_leaves_no_list_of_others(data, tmp_path, monkeypatch, eager):
    small_network().save(data / "network.keras")
    predict(data, tmp_path / "out")
    usual, moved = os.replace, []

    def stops(old, new):
        if Path(new).parent == tmp_path / "out" / "masks":
            moved.append(new)
            if len(moved) == 5:
                raise KeyboardInterrupt
        usual(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stops)
        with pytest.raises(KeyboardInterrupt):
            predict(data, tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.csv").exists()
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 16


# No network -----------------------------------------------------------------------------------------------

ALONE = """
import os, socket, sys
from pathlib import Path

def refused(*words, **_):
    print("NETWORK ASKED FOR:", *words, file=sys.__stderr__, flush=True)
    os._exit(99)

for name in ("connect", "connect_ex", "sendto", "sendmsg"):
    setattr(socket.socket, name, refused)
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, refused)

import tensorflow as tf
from lits_helpers import settings
from lits_helpers.__main__ import main

tf.config.run_functions_eagerly(True)
settings.PROFILES["tiny"] = CHOICES
data, output = map(Path, sys.argv[1:])
places = ["--data", str(data), "--output", str(output)]
for words in (
    ["index"], ["train", "--epochs", "1"], ["evaluate", "--report"], ["predict", "--model", "best"], ["population"],
    ["population", "--predictions", str(output / "predictions")],
):
    if "best" in words:
        words[-1] = str(next(output.rglob("best.keras")))
    if main([*words, *places]):
        sys.exit(f"{words} failed")
"""


class Fetched(HTMLParser):
    """What a browser fetches by itself for a page: all addresses but those of links to click on."""

    NAMES = {"src", "srcset", "href", "xlink:href", "data", "poster", "background"}

    def __init__(self, page):
        super().__init__()
        self.addresses = re.findall(r"url\(\s*[\"']?(?!data:)([^)]*)", page) + re.findall("@import([^;]*)", page)
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        values = [value or "" for name, value in attributes if name in self.NAMES and tag != "a"]
        self.addresses += [value for value in values if not value.startswith(("data:", "#"))]


def test_what_a_browser_fetches_is_told_from_what_it_links_to():
    page = """<a href="https://a.example/"><svg xmlns="http://b.example/"><img src="data:image/png;base64,AA//AA==">
    <img src="//c.example/x.png"><link href="style.css"><script src="https://d.example/x.js"></script>
    <style>p { background: url(x.png) }"""
    assert Fetched(page).addresses == ["x.png", "//c.example/x.png", "style.css", "https://d.example/x.js"]


def test_the_main_path_asks_for_no_network_and_its_pages_fetch_nothing(data, tmp_path):
    # Where the system lets us, in a room without any network, loopback too: for what is not Python.
    room = ["unshare", "-rn"] if shutil.which("unshare") else []
    if room and subprocess.run([*room, "true"], capture_output=True).returncode:
        room = []
    done = subprocess.run(
        [*room, sys.executable, "-c", ALONE.replace("CHOICES", repr(TINY)), data / "slices", tmp_path / "out"],
        capture_output=True, text=True, timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path.name: Fetched(path.read_text(encoding="utf-8")).addresses for path in tmp_path.rglob("*.html")}
    assert pages == {"report.html": [], "population.html": []}
