"""A Chromium without a window, JupyterLab and Voila on loopback, and a notebook that holds every widget.

Set-up: Chromium or Chrome on the PATH (Debian and Ubuntu: ``apt-get install chromium``), and Playwright
(``pip install playwright``, of the test extra; ``playwright install`` is not needed, as its own browsers
are not used). Where one is missing the tests are skipped and say so.

``make browser`` runs them; ``make test`` does not.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import nbformat
import pytest
from driving import BROWSERS, DATA, HISTORY, PATIENCE, ROOT, SCREENSHOTS, WIDGETS, Visit


@pytest.fixture(scope="session")
def notebook(tmp_path_factory):
    """A notebook with a cell for each widget, in a folder of its own with the history of a run."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "run").mkdir()
    (folder / "run" / "history.csv").write_text(HISTORY)
    cells = [nbformat.v4.new_code_cell(DATA.strip())]
    for name, (arguments, _) in WIDGETS.items():
        lines = f"shown = widgets.{name}({arguments})\nshown.add_class('{name}')\nshown"
        cells.append(nbformat.v4.new_code_cell(lines))
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, folder / "widgets.ipynb")
    return folder / "widgets.ipynb"


@contextmanager
def served(arguments, folder, *, path="/"):
    """A server in a process of its own, with settings of its own; its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = folder.with_name(f"{folder.name}-server-{port}")
    environment = os.environ | {
        name: str(home / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
        )
    } | {"PYTHONPATH": str(ROOT)}
    settings = {
        "notebook-extension/tracker": '{"windowingMode": "none"}',  # or cells out of sight are not in the page
        "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    }
    for name, text in settings.items():
        file = home / "jupyterlab_settings_dir" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    log = home / "log.txt"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", *arguments, f"--port={port}", "--no-browser"],
            cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address + path, server, log)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_for(address, server, log):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=PATIENCE)
            return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"{address} does not answer; the server's log ends:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def lab(notebook):
    """Address of the notebook in JupyterLab."""
    token = secrets.token_hex(16)
    arguments = ["jupyterlab", "--ip=127.0.0.1", f"--IdentityProvider.token={token}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--allow-root")  # containers, among them those of CI
    with served(arguments, notebook.parent, path="/api") as address:
        yield f"{address}/lab/tree/{notebook.name}?token={token}"


@pytest.fixture(scope="session")
def voila(notebook):
    """Address of the notebook as a page of Voila."""
    pytest.importorskip("voila", reason="Voila is not installed: pip install -e '.[view]'")
    # An extension of JupyterLab, which wants parts of it that a page of Voila has not, and says so.
    without = "--VoilaConfiguration.extension_denylist=['jupyterlab-jupytext']"
    arguments = ["voila", notebook.name, "--Voila.ip=127.0.0.1", without]
    # Its first answer is the whole notebook, run: so it is asked for a page that it has not.
    with served(arguments, notebook.parent, path="/none") as address:
        yield address


@pytest.fixture(scope="session")
def chromium():
    """A browser without a window."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
    )
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium or Chrome was found on the PATH: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, which containers do not allow; it only sees our own page.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, request):
    """A function that opens an address; nothing but the machine itself can be reached from there."""
    contexts = []

    def opened(address, name, *, width=1280):
        context = chromium.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        context.set_default_timeout(1000 * PATIENCE)
        page = context.new_page()
        found = Visit(page, name)
        page.on("console", lambda message: found.errors.append(f"{message.text} ({message.location.get('url')})")
                if message.type == "error" else None)
        page.on("pageerror", lambda error: found.errors.append(str(error)))

        def only_here(route):
            if route.request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
                route.continue_()
            else:
                found.refused.append(route.request.url)
                route.abort()

        context.route("**/*", only_here)
        page.goto(address, wait_until="domcontentloaded")
        return found

    yield opened
    for context in contexts:
        for page in context.pages:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SCREENSHOTS / f"{request.node.name}-end.png")  # also of a test that failed
        context.close()
