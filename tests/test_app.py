import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from cascades import labelled, saved

from lits_helpers import app, scan_access
from lits_helpers.drawing import Marks
from lits_helpers.files import DataError
from lits_helpers.pictures import write_image
from lits_helpers.settings import load_settings
from lits_helpers.volumes import write_nifti

PICTURE = np.full((32, 40, 3), 120, np.uint8)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def some_labels():
    labels = np.zeros((32, 40), np.uint8)
    labels[10:30, 2:12] = 1
    labels[12:16, 4:8] = 2
    return labels


@pytest.fixture
def root(tmp_path):
    """One volume: three slices, in the last a liver with a bright tumour of 16 pixels."""
    labels = np.zeros((3, 32, 40), np.uint8)
    labels[2] = some_labels()
    root = tmp_path / "root"
    write_nifti(root / "volume-7.nii.gz", np.choose(labels, (0, 100, 200)).astype(np.int16), (5.0, 1.0, 1.0))
    write_nifti(root / "segmentation-7.nii.gz", labels, (5.0, 1.0, 1.0))
    return root


class Bright:
    """Stands in for a network: tumour is what is brighter than 0.9 of the green window, 140 HU."""

    input_shape = (None, 40, 40, 3)

    def predict_on_batch(self, images):
        return (images[..., 1:2] > 0.9).astype(np.float32)


# Figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_predicted, is_labelled, panels", [(False, False, 1), (True, False, 2), (False, True, 2), (True, True, 3)])
def test_a_slice_is_shown_with_what_is_there(is_predicted, is_labelled, panels):
    labels = some_labels()
    figure = app.review_figure(PICTURE, labels == 2 if is_predicted else None, labels if is_labelled else None, "slice 4")
    assert len(figure.axes) == panels and figure.get_suptitle() == "slice 4"
    titles = " | ".join(panel.get_title() for panel in figure.axes)
    assert ("predicted tumour: 16 pixels" in titles) == is_predicted
    assert ("true tumour: 16 pixels" in titles) == is_labelled
    assert ("Dice 1.00" in titles) == (is_predicted and is_labelled)


def test_errors_lie_where_they_are_in_the_slice():
    predicted = np.zeros((32, 40), bool)
    predicted[12:16, 6:10] = True  # columns 4 to 9 with the truth
    figure = app.review_figure(PICTURE, predicted, some_labels(), "")
    errors = figure.axes[1].images[1]
    assert errors.get_extent() == [3.5, 9.5, 15.5, 11.5] and errors.get_array().shape[:2] == (4, 6)
    assert figure.axes[1].get_xlim() == (-0.5, 39.5) and figure.axes[1].get_ylim() == (31.5, -0.5)
    assert figure.axes[1].get_title() == "predicted tumour: 16 pixels, Dice 0.50"


def test_sides_and_scale_are_marked_in_each_panel_where_they_are_known():
    known = app.review_figure(PICTURE, None, some_labels(), "", marks=Marks(1.0, 1.0, True))
    for panel in known.axes:
        assert {"R", "L"} <= {text.get_text() for text in panel.texts}
    assert not any(panel.texts for panel in app.review_figure(PICTURE, None, None, "").axes)


def test_empty_masks_and_full_ones_are_drawn():
    for labels in (np.zeros((32, 40), np.uint8), np.full((32, 40), 2, np.uint8)):
        for predicted in (np.zeros((32, 40), bool), np.ones((32, 40), bool)):
            assert app._png(app.review_figure(PICTURE, predicted, labels, "")).startswith(b"\x89PNG")


def test_the_profile_shows_pixels_by_slice():
    masks = [np.zeros((4, 4), bool), np.ones((4, 4), bool)]
    [panel] = app.review_profile([10, 12], masks, masks[::-1]).axes
    [line] = panel.lines
    assert line.get_xdata().tolist() == [10, 12] and line.get_ydata().tolist() == [0, 16]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["true", "predicted"]


# Prediction -----------------------------------------------------------------------------------


def test_a_volume_is_predicted_slice_by_slice(root):
    [scan] = scan_access.list_scans(root, "volume-7.nii.gz").values()
    masks = app.predicted_masks(Bright(), scan())
    assert [int(mask.sum()) > 0 for mask in masks] == [False, False, True] and masks[2].shape == (32, 40)
    assert masks[2][13:15, 5:7].all() and not masks[2][:, 20:].any()


def test_slices_are_predicted_in_their_order(root):
    for number, level in ((2, 255), (10, 0)):
        write_image(root / "pictures" / f"slice{number}.png", np.full((40, 40), level, np.uint8))
    [scan] = scan_access.list_scans(root, "pictures").values()
    assert [mask.mean() for mask in app.predicted_masks(Bright(), scan())] == [1, 0]


# The page -------------------------------------------------------------------------------------


def test_a_cascade_is_loaded_from_its_folder_and_predicts(root, tmp_path):
    labels, hounsfield = labelled((64, 64))
    write_nifti(root / "volume-8.nii.gz", hounsfield, (5.0, 1.0, 1.0))
    page = app.reviewer(
        root=str(root), model=str(saved(tmp_path / "strong")), image_size=32, uploads=str(tmp_path), scan="volume-8.nii.gz"
    )
    page.predict.click()
    assert page.status.value == "tumour predicted in 2 of 5 slices"
    found = np.stack(page.predicted)
    assert 2 * (found & (labels == 2)).sum() / (found.sum() + (labels == 2).sum()) > 0.9


@pytest.fixture
def page(root, tmp_path):
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    return app.Reviewer(root, Bright, uploads, "")


def test_choosing_predicting_and_moving_the_slider_change_the_picture(page):
    assert page.predict.disabled and page.shown.layout.display == "none"
    page.path.value = "volume-7.nii.gz"
    assert "3 slices, with reference labels" in page.status.value
    assert page.place.max == 2 and page.place.value == 1 and not page.predict.disabled
    seen = [bytes(page.picture.value)]
    page.predict.click()
    assert page.status.value == "tumour predicted in 1 of 3 slices"
    assert page.place.value == 2  # the one with most
    seen.append(bytes(page.picture.value))
    page.place.value = 0
    seen.append(bytes(page.picture.value))
    assert len(set(seen)) == 3 and bytes(page.profile.value).startswith(b"\x89PNG")


def test_a_slice_that_has_gone_is_said_when_the_slider_comes_to_it(page, root):
    for number in range(3):
        write_image(root / "pictures" / f"slice{number}.png", np.full((40, 40), 80 * number, np.uint8))
    page.path.value = "pictures"
    assert page.place.value == 1 and page.picture.value
    (root / "pictures" / "slice2.png").unlink()
    page.place.value = 2
    assert page.status.value.startswith("error: ") and "slice2.png" in page.status.value
    assert page.picture.value == b""
    page.place.value = 0
    assert bytes(page.picture.value).startswith(b"\x89PNG")


def test_each_slice_is_drawn_once(page, monkeypatch):
    drawn, figure = [], app.review_figure
    monkeypatch.setattr(app, "review_figure", lambda *given, **more: (drawn.append(given[3]), figure(*given, **more))[1])
    page.path.value = "volume-7.nii.gz"  # three slices, the middle one first
    assert drawn == ["slice 1"]
    page.predict.click()
    assert drawn == ["slice 1", "slice 2"]
    page.predict.click()
    page.place.value = 1
    assert drawn == ["slice 1", "slice 2", "slice 2", "slice 1"]


def test_another_scan_forgets_the_prediction(page):
    page.path.value = "volume-7.nii.gz"
    page.predict.click()
    page.path.value = "."
    assert page.predicted is None and page.profile.layout.display == "none" and not page.predict.disabled


def test_a_path_outside_is_refused_in_words_and_nothing_is_shown(page):
    page.path.value = "volume-7.nii.gz"
    page.path.value = "../<b>"
    assert page.status.value.startswith("error: ../&lt;b&gt; is not below")
    assert page.shown.layout.display == "none" and page.predict.disabled and page.choice.options == ()


def uploaded(page, name, content):
    page.upload.value = ({"name": name, "content": memoryview(content), "type": "", "size": len(content), "last_modified": datetime.now(timezone.utc)},)


def test_an_upload_is_shown_like_a_file(page, root):
    uploaded(page, "mine.nii.gz", (root / "volume-7.nii.gz").read_bytes())
    assert "mine.nii.gz: 3 slices, without reference labels" in page.status.value
    assert page.upload.value == ()


def test_an_upload_that_is_too_large_is_refused_in_words(page, monkeypatch):
    monkeypatch.setattr(scan_access, "UPLOAD_MEGABYTES", 1)
    uploaded(page, "mine.nii", bytes(1_100_000))
    assert "1 MB, at most 1 can be uploaded" in page.status.value and list(page.uploads.iterdir()) == []


def test_a_network_that_cannot_be_loaded_is_said(page, monkeypatch):
    def fail():
        raise DataError("no such checkpoint")

    page.path.value = "volume-7.nii.gz"
    page._load_model = fail
    page.predict.click()
    assert page.status.value == "error: no such checkpoint" and not page.predict.disabled


# The server -----------------------------------------------------------------------------------


def test_the_notebook_calls_the_reviewer_with_any_path(tmp_path):
    path = app.write_notebook(tmp_path / "a.ipynb", root="it's \"here\"\\n", image_size=96)
    [cell] = json.loads(path.read_text())["cells"]
    given = {}
    exec(cell["source"].replace("from lits_helpers.app import reviewer", ""), {"reviewer": lambda **words: given.update(words)})
    assert given == {"root": "it's \"here\"\\n", "image_size": 96}


@pytest.fixture
def settings(root, tmp_path):
    return load_settings(output_root=tmp_path / "out", data_root=root)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_what_is_not_there_is_named_before_anything_starts(root, settings, tmp_path):
    model = tmp_path / "best.keras"
    with pytest.raises(DataError, match="no such checkpoint"):
        app.serve(settings, root=root, model=model)
    model.touch()
    with pytest.raises(DataError, match="not a folder"):
        app.serve(settings, root=root / "nothing", model=model)
    with pytest.raises(DataError, match="is not below"):
        app.serve(settings, root=root, model=model, scan="../best.keras")


def test_a_port_that_is_taken_is_named(root, settings, tmp_path):
    (tmp_path / "best.keras").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(DataError, match="choose another with --port"):
            app.serve(settings, root=root, model=tmp_path / "best.keras", port=taken.getsockname()[1])


def test_without_voila_the_extra_is_named(root, settings, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "voila.app", None)
    with pytest.raises(DataError, match="pip install 'lits-helpers"):
        app.serve(settings, root=root, model=tmp_path / "best.keras")


def test_the_newest_checkpoint_of_the_profile_is_taken(settings):
    with pytest.raises(DataError, match="train first"):
        app.newest_checkpoint(settings)
    for age, name in ((10, "tiny-patient-a"), (5, "tiny-slice-b"), (1, "full-patient-c")):
        path = settings.output_root / "runs" / name / "best.keras"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert app.newest_checkpoint(settings).parent.name == "tiny-slice-b"
    finished, begun = (settings.output_root / "runs" / f"tiny-strong-{letter}" for letter in "de")
    finished.mkdir()
    (finished / "cascade.json").touch()
    begun.mkdir()
    assert app.newest_checkpoint(settings) == finished


class Server:
    """The command, in a process of its own."""

    def __init__(self, root: Path, out: Path, model: Path):
        self.port = free_port()
        words = ["--root", root, "--output", out, "--model", model, "--port", str(self.port), "--scan", "volume-7.nii.gz"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lits_helpers", "app", "--data", root, *words],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self.token = next(re.search(r"\?token=(\S+)", line)[1] for line in self.process.stdout if "token" in line)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("voila", reason="the view extra is not installed: the app was not started")
    folder = tmp_path_factory.mktemp("app")
    root = folder / "root"
    write_nifti(root / "volume-7.nii.gz", np.zeros((2, 32, 32), np.int16), (5.0, 1.0, 1.0))
    write_image(root / "picture.png", np.zeros((8, 8), np.uint8))
    (folder / "best.keras").touch()
    server = Server(root, folder / "out", folder / "best.keras")
    # Voila listens a moment after the address is printed.
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", server.port)) == 0:
                break
        assert server.process.poll() is None, "the server ended"
        time.sleep(0.1)
    yield server
    server.process.kill()
    server.process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def test_the_server_listens_on_this_computer_alone(server):
    with socket.socket(socket.AF_INET) as probe:
        others = "127.0.0.2"  # another address of this computer; where all were listened to, it would answer
        assert probe.connect_ex((others, server.port)) != 0


@pytest.mark.parametrize("path", ["/", "/voila/files/picture.png", "/api/kernels/0-0-0-0-0", "/?token=wrong"])
def test_without_the_token_nothing_is_shown(server, path):
    status, body = server.get(path)
    assert status in (302, 403) and "reviewer(" not in body


def test_a_request_under_another_hosts_name_is_refused(server):
    assert server.get(f"/?token={server.token}", Host=f"evil.example:{server.port}")[0] == 403


@pytest.mark.parametrize(
    "path",
    ["reviewer.ipynb", "picture.png", "../uploads/x.png", "..%2f..%2f..%2f..%2froot%2fpicture.png", "../../../../root/picture.png"],
)
def test_no_file_is_served_within_the_root_or_out_of_it(server, path):
    assert server.get(f"/voila/files/{path}?token={server.token}")[0] in (403, 404)


def test_the_page_is_served_and_the_server_ends_cleanly(server):
    status, body = server.get(f"/?token={server.token}")
    assert status == 200 and "Prediction reviewer" in body
    assert "application/vnd.jupyter.widget-view+json" in body, "the cell showed no widgets"
    out = Path(server.process.args[server.process.args.index("--output") + 1])
    assert len(list((out / "app").iterdir())) == 1
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=60) == 0
    assert list((out / "app").iterdir()) == []
