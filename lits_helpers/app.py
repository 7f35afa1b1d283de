"""A reviewer of predictions in the browser: choose a scan, predict, go through it slice by slice.

:func:`serve` runs Voila (extra ``view``) on 127.0.0.1 alone; each page gets a Python of its own,
which shows a :class:`Reviewer`. What may be read there is :mod:`lits_helpers.scan_access`'s matter.
As with Jupyter on one's own computer a random token stands in the address that is printed, and
nothing is answered without it, nor under another host's name. That keeps other users of the
computer and other web pages out; it is no login for a network, so do not forward the port.
"""

from __future__ import annotations

import html
import io
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .drawing import (
    ERROR_COLOURS, MASK_COLOURS, TUMOUR_COLOUR, Marks, dice_words, draw_legend, draw_marks, draw_outline,
    error_map, outlined, panels, show_ct, styled,
)
from .distances import bounding_box
from .files import DataError, shown, temporary_folder, write_json
from .masks import TUMOUR
from .pictures import read_image
from .scan_access import PICTURES, UPLOAD_MEGABYTES, VOLUMES, Scan, inside, keep_upload, list_scans, suggestions
from .settings import Settings

HOST, PORT = "127.0.0.1", 8866  # the port is Voila's own default
_IDLE_SECONDS = 600  # after which the Python of a page that was closed ends


# Figures --------------------------------------------------------------------------------------


@styled
def review_figure(
    picture: np.ndarray, predicted: np.ndarray | None, labels: np.ndarray | None, title: str, *, marks: Marks = Marks()
) -> Figure:
    """One slice: the CT, the predicted tumour, and the truth, as far as these are there.

    Parameters
    ----------
    picture : uint8 array (rows, columns, 3)
        In the report's coding.
    predicted : bool array (rows, columns), or None
    labels : uint8 array (rows, columns), or None
        0 background, 1 liver, 2 tumour.
    title : str
    marks : Marks
        Sides and scale of the slice, as far as these are known.
    """
    sides = 1 + (predicted is not None) + (labels is not None)
    with plt.rc_context({"figure.constrained_layout.use": False}):  # which takes as long as all the rest
        figure, axes = panels(1, sides, size=(3.6 * sides, 4.4), pictures=True)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.87, bottom=0.13, wspace=0.03)
    left, colours = list(axes[0]), {}
    show_ct(left[0], picture)
    left.pop(0).set_title("CT")
    if predicted is not None:
        panel = left.pop(0)
        show_ct(panel, picture)
        words = f"predicted tumour: {int(predicted.sum()):,} pixels"
        if labels is None:
            draw_outline(panel, predicted, TUMOUR_COLOUR)
            colours |= {"tumour": TUMOUR_COLOUR}
        else:
            _draw_errors(panel, labels == TUMOUR, predicted)
            words += f", {dice_words(labels == TUMOUR, predicted)}"
            colours |= ERROR_COLOURS
        panel.set_title(words)
    if labels is not None:
        outlined(left[0], picture, labels)
        left[0].set_title(f"true tumour: {int((labels == TUMOUR).sum()):,} pixels")
        colours |= MASK_COLOURS
    for panel in axes[0]:
        draw_marks(panel, marks)
    draw_legend(figure, colours, image=picture)
    figure.suptitle(title)
    return figure


def _draw_errors(panel: Axes, truth: np.ndarray, predicted: np.ndarray) -> None:
    """Found, missed and invented pixels over a slice: their box alone, which is drawn sooner."""
    if truth.any() or predicted.any():
        rows, columns = box = bounding_box(truth, predicted)
        edges = columns.start - 0.5, columns.stop - 0.5, rows.stop - 0.5, rows.start - 0.5
        colours = (255 * error_map(truth[box], predicted[box])).astype(np.uint8)
        panel.imshow(colours, alpha=0.75, interpolation="nearest", extent=edges)
        panel.set(xlim=(-0.5, truth.shape[1] - 0.5), ylim=(truth.shape[0] - 0.5, -0.5))


@styled
def review_profile(
    numbers: Sequence[int], predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray] | None
) -> Figure:
    """Tumour pixels by slice, predicted and true: where to look.

    Parameters
    ----------
    numbers : sequence of int
        Of the slices.
    predicted, truth : sequence of bool arrays (rows, columns), or None
    """
    figure, axes = panels(1, 1, size=(9, 1.9))
    panel = axes[0, 0]
    if truth is not None:
        panel.fill_between(numbers, [mask.sum() for mask in truth], step="mid", color="#BBBBBB", label="true")
    panel.step(numbers, [mask.sum() for mask in predicted], where="mid", color=TUMOUR_COLOUR, label="predicted")
    panel.set(xlabel="slice", ylabel="tumour (pixels)")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(fontsize=8)
    return figure


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100, pil_kwargs={"compress_level": 1})
    plt.close(figure)
    return content.getvalue()


# The page -------------------------------------------------------------------------------------


def predicted_masks(model: object, scan: Scan) -> list[np.ndarray]:
    """The network's tumour masks of a scan, bool (rows, columns) each, at native resolution."""
    from .inference import predict_files, predict_volume

    if isinstance(scan.source, np.ndarray):
        return list(predict_volume(model, scan.source) == TUMOUR)
    with tempfile.TemporaryDirectory() as folder:
        listed = predict_files(model, scan.source, Path(folder))
        return [read_image(Path(folder) / file, grey=True) > 127 for file in pd.read_csv(listed).file]


class Reviewer(ipywidgets.VBox):
    """Choose, predict, look: the widgets of the page; made by :func:`reviewer`."""

    def __init__(self, root: Path, load_model: Callable[[], object], uploads: Path, scan: str) -> None:
        self.root, self.uploads, self._load_model = Path(root).resolve(), uploads, load_model
        self.model: object = None
        self.scans: dict[str, Callable[[], Scan]] = {}
        self.scan: Scan | None = None
        self.predicted: list[np.ndarray] | None = None
        wide = {"description_width": "90px"}
        self.path = ipywidgets.Combobox(
            value=scan, options=suggestions(root), description="file or folder", placeholder="type or choose",
            continuous_update=False, style=wide, layout={"width": "560px"},
        )
        self.upload = ipywidgets.FileUpload(
            accept=",".join((*VOLUMES, ".gz", *PICTURES)), multiple=True, description=f"upload (up to {UPLOAD_MEGABYTES} MB)",
            layout={"width": "220px"},
        )
        self.choice = ipywidgets.Dropdown(options=[], description="scan", style=wide, layout={"width": "560px"})
        self.predict = ipywidgets.Button(description="Predict", button_style="primary", disabled=True)
        self.status = ipywidgets.HTML()
        self.progress = ipywidgets.Output()
        self.place = ipywidgets.IntSlider(0, 0, 0, description="slice", style=wide, layout={"width": "760px"})
        as_it_is = {"align_self": "flex-start", "max_width": "100%"}  # else it is stretched to the page
        self.picture, self.profile = (ipywidgets.Image(format="png", layout=as_it_is) for _ in range(2))
        self.shown = ipywidgets.VBox([self.place, self.picture, self.profile], layout={"display": "none"})
        self.path.observe(lambda change: self._guarded(self._list, self.root, change["new"]), "value")
        self.upload.observe(lambda change: self._guarded(self._take, change["new"]), "value")
        self.choice.observe(lambda change: self._guarded(self._open, change["new"]), "value")
        self.predict.on_click(lambda button: self._guarded(self._predict))
        self.place.observe(lambda change: self._guarded(self._draw), "value")
        about = ipywidgets.HTML(
            "<h2>Prediction reviewer</h2><p>For study and research only; not a medical device. Files are read below "
            f"<code>{html.escape(str(self.root))}</code> alone.</p>"
        )
        rows = [about, ipywidgets.HBox([self.path, self.upload]), ipywidgets.HBox([self.choice, self.predict])]
        super().__init__([*rows, self.status, self.progress, self.shown])
        self.add_class("reviewer")
        if scan:
            self._guarded(self._list, self.root, scan)

    def _guarded(self, action: Callable, *arguments: object) -> None:
        """Do it; what is wrong with the data is said in words."""
        try:
            action(*arguments)
        except DataError as error:
            self._say(f"error: {error}")

    def _say(self, *lines: str) -> None:
        self.status.value = "<br>".join(html.escape(line) for line in lines)

    def _list(self, root: Path, chosen: str) -> None:
        self.choice.options = ()
        self._forget()
        if chosen:
            self.scans = list_scans(root, chosen)
            self.choice.options = list(self.scans)
            self.choice.index = 0  # which opens it

    def _take(self, files: Sequence[dict]) -> None:
        if files:
            kept = keep_upload(files, self.uploads)
            self.upload.value = ()
            self._list(self.uploads, kept.name)

    def _forget(self) -> None:
        self.scan = self.predicted = None
        self.predict.disabled, self.shown.layout.display = True, "none"
        self._say("")

    def _open(self, name: str | None) -> None:
        self._forget()
        if name:
            self.scan = self.scans[name]()
            self.predict.disabled = False
            truth = "with" if self.scan.truth is not None else "without"
            self._say(f"{name}: {len(self.scan.numbers)} slices, {truth} reference labels", *self.scan.notes)
            self._show(len(self.scan.numbers) // 2)

    def _predict(self) -> None:
        self.predict.disabled = True
        self._say("loading the network ..." if self.model is None else "predicting ...")
        try:
            with self.progress:
                self.model = self.model or self._load_model()
                self.predicted = predicted_masks(self.model, self.scan)
        finally:
            self.progress.clear_output()
            self.predict.disabled = False
        sizes = [int(mask.sum()) for mask in self.predicted]
        self._say(f"tumour predicted in {sum(size > 0 for size in sizes)} of {len(sizes)} slices")
        tumours = None if self.scan.truth is None else [labels == TUMOUR for labels in self.scan.truth]
        self.profile.value = _png(review_profile(self.scan.numbers, self.predicted, tumours))
        self._show(int(np.argmax(sizes)))

    def _show(self, place: int) -> None:
        self.profile.layout.display = "none" if self.predicted is None else ""
        self.shown.layout.display = ""
        before = self.place.value
        with self.place.hold_trait_notifications():
            self.place.max, self.place.value = len(self.scan.numbers) - 1, place
        if self.place.value == before:  # else the slider has drawn it
            self._draw()

    def _draw(self) -> None:
        if self.scan is None:
            return
        place, picture = self.place.value, b""  # never the slice before, where this one cannot be read
        try:
            figure = review_figure(
                self.scan.picture(place), None if self.predicted is None else self.predicted[place],
                None if self.scan.truth is None else self.scan.truth[place], f"slice {self.scan.numbers[place]}",
                marks=self.scan.marks[place],
            )
            picture = _png(figure)
        finally:
            self.picture.value = picture


def reviewer(*, root: str, model: str, image_size: int, uploads: str, scan: str = "") -> Reviewer:
    """The page's widgets: what the notebook of :func:`serve` calls.

    Parameters
    ----------
    root : str
        What is read lies below.
    model : str
        What :func:`lits_helpers.export.load_network` takes; read when first asked to predict.
    image_size : int
        Rows and columns of a ``.keras`` file's input.
    uploads : str
        Folder for what is uploaded.
    scan : str
        File or folder shown at first.
    """
    def load_model() -> object:
        from .export import load_network

        return load_network(Path(model), image_size)

    return Reviewer(Path(root), load_model, Path(uploads), scan)


# The server -----------------------------------------------------------------------------------


def write_notebook(path: Path, **arguments: object) -> Path:
    """Write the notebook of one cell that Voila shows, atomically: a call of :func:`reviewer`."""
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    cell = {
        "cell_type": "code", "id": "reviewer", "execution_count": None, "metadata": {}, "outputs": [],
        "source": f"from lits_helpers.app import reviewer\n\nreviewer({given})",
    }
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": [cell], "metadata": {"kernelspec": kernel, "title": "Prediction reviewer"}, "nbformat": 4, "nbformat_minor": 5}
    write_json(path, notebook)
    return path


def newest_checkpoint(settings: Settings) -> Path:
    """The network, or the folder of the cascade, of the settings' profile that was trained last."""
    runs = settings.output_root / "runs"
    found = [*runs.glob(f"{settings.profile}-*/best.keras"), *runs.glob(f"{settings.profile}-strong-*/cascade.json")]
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise DataError(f"no network below {runs}: train first, or name one with --model")
    return newest.parent if newest.name == "cascade.json" else newest


def serve(settings: Settings, *, root: Path | str, model: Path | str, scan: str = "", port: int = PORT) -> None:
    """Serve the reviewer on this computer until interrupted (Ctrl-C, or SIGTERM).

    Parameters
    ----------
    settings : Settings
        The notebook and what is uploaded lie below its output root while the server runs.
    root : path
        Nothing outside is read, but for the network and the package itself.
    model : path
        What :func:`lits_helpers.export.load_network` takes.
    scan : str
        Shown at first: a path from ``root`` on.
    port : int
        On 127.0.0.1.

    Raises
    ------
    DataError
        If the extra ``view`` is missing, a path is not there or outside ``root``, or the port taken.
    """
    try:
        from voila.app import Voila
    except ImportError as error:
        raise DataError(f"{error}: pip install 'lits-helpers[view,notebooks]'") from error
    root, model = Path(root).expanduser().resolve(), Path(model).expanduser().resolve()
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: name the one with the scans with --root")
    if not model.exists():
        raise DataError(f"{model}: no such checkpoint, train first (notebook 03, or `train`)")
    if scan:
        scan = str(inside(root, scan).relative_to(root))
    _require_free(port)
    with temporary_folder(settings.output_root / "app") as session:
        uploads = session / "uploads"
        uploads.mkdir()
        notebook = write_notebook(
            session / "notebook" / "reviewer.ipynb",
            root=str(root), model=str(model), image_size=settings.image_size, uploads=str(uploads), scan=scan,
        )
        token = secrets.token_urlsafe(24)
        voila = Voila(
            ip=HOST, port=port, port_retries=0, token=token, open_browser=False, log_level="WARN",
            notebook_path=str(notebook), config_file_paths=[],  # no voila.json may open it to others
            tornado_settings={
                "allow_remote_access": False,  # Voila's own setting answers to any Host
                # A file comes as one message; what is a little over the limit is refused in words.
                "websocket_max_message_size": 2 * UPLOAD_MEGABYTES * 10**6,
            },
        )
        voila.config.VoilaConfiguration.file_allowlist = []
        # An extension of JupyterLab, which wants parts of it that a page of Voila has not, and says so.
        voila.config.VoilaConfiguration.extension_denylist = ["jupyterlab-jupytext"]
        voila.config.MappingKernelManager.cull_idle_timeout = _IDLE_SECONDS
        voila.config.MappingKernelManager.cull_interval = 60
        voila.initialize([])
        print(
            f"reviewer: http://{HOST}:{port}/?token={token}\nreads below {shown(root)}, predicts with {shown(model)}; "
            "on this computer only; Ctrl-C ends it", flush=True,
        )
        voila.start()


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        if os.name != "nt":  # there it would take a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise DataError(f"port {port} cannot be had ({error}): choose another with --port") from error
