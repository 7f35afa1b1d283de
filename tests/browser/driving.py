"""What the browser tests share: the notebook's cells, and a page with what went wrong on it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "outputs" / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 300  # seconds; a busy machine takes its time to start a kernel

DATA = """
import numpy as np, cv2
from lits_helpers import widgets
from lits_helpers.phantom import phantom_volume
from lits_helpers.windows import three_channels

patient = phantom_volume(0, size=128)
number = int((patient.labels == 2).sum(axis=(1, 2)).argmax())
image, labels = three_channels(patient.hounsfield[number]), patient.labels[number]
truth = labels == 2
probability = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 3)
cases = [(image, truth, probability * share, f"share {share}") for share in (1, 0.4, 0.6)]
"""

# Every widget: how its cell makes it, and which slider is moved, by the words before it.
WIDGETS = {
    "slice_browser": ("{'a': (patient.hounsfield, patient.labels), 'b': (patient.hounsfield[:5], None)}", "slice"),
    "augmentation_playground": ("image, labels", "rotation"),
    "threshold_explorer": ("image, truth, probability", "threshold"),
    "training_monitor": ("'run', seconds=1", "from epoch"),
    "prediction_reviewer": ("cases", "case"),
    "model_playground": ("", "depth"),
}
HISTORY = "epoch,loss,val_loss,seconds\n1,0.9,1.0,3\n2,0.7,0.8,3\n3,0.6,0.7,3\n"


# Voila's own page links the icons of Font Awesome there, and offline, as it is made here, says so on the
# console. No widget of ours shows an icon.
HARMLESS = ("cdn.jsdelivr.net/npm/@fortawesome",)


@dataclass
class Visit:
    """A page, what went wrong on it, and what it wanted from elsewhere."""

    page: object
    name: str
    errors: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def faults(self):
        """Errors on the console that are not known to be harmless."""
        return [error for error in self.errors if not any(words in error for words in HARMLESS)]

    def widget(self, name):
        return self.page.locator(f".{name}")

    def picture(self, name):
        """The pixels that a widget shows."""
        script = """async image => {
            const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
            return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""));
        }"""
        encoded = base64.b64decode(self.widget(name).locator("img").evaluate(script))
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)

    def keep(self, name=None):
        """Write a screenshot of one widget, or of the page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{'-'.join(filter(None, [self.name, name]))}.png"
        if name:
            self.widget(name).screenshot(path=path)
        else:
            self.page.screenshot(path=path, full_page=True)
        return path
