"""One trained network's scores in float32 and in 16 bits: `python tests/benchmarks/precision.py RUN_FOLDER`.

The same weights predict the run's validation and test slices under each policy. Pooled Dice of all
their pixels, at the report's threshold; 0.005 is the most by which they may differ.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from lits_helpers.generators import resize_image, resize_labels
from lits_helpers.masks import THRESHOLD, TUMOUR, read_labels
from lits_helpers.pictures import read_image
from lits_helpers.training import load_checkpoint

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
MOST = 0.005


def in_policy(model, policy):
    """The same network, all but its last layer, which stays float32, in another policy."""

    def changed(layer):
        config = layer.get_config()
        if layer is not model.layers[-1] and not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = policy
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=changed)
    copy.set_weights(model.get_weights())
    assert copy.layers[-1].compute_dtype == "float32"
    return copy


def main(folder):
    split = pd.read_csv(folder / "split.csv")
    held_out = split[split.split != "train"]
    settings = json.loads((folder / "run.json").read_text())["settings"]
    size, root = int(settings["image_size"]), Path(settings["data_root"])
    paths = {path.name: path for path in root.rglob("*_slice_*")}
    images = [resize_image(read_image(paths[Path(name).name]), size) for name in held_out.image_path]
    images = np.stack(images) / np.float32(255)
    masks = [read_labels(paths[Path(name).name]) for name in held_out.mask_path]
    truth = np.stack([resize_labels(mask, size) for mask in masks]) == TUMOUR
    model = load_checkpoint(folder / "best.keras", size)
    scores = {}
    for policy in POLICIES:
        predicted = in_policy(model, policy).predict(images, batch_size=8, verbose=0)[..., 0] > THRESHOLD
        scores[policy] = 2 * np.sum(truth & predicted) / (truth.sum() + predicted.sum())
        print(f"{policy:<15} pooled Dice of {len(truth)} slices {scores[policy]:.5f}")
    difference = max(scores.values()) - min(scores.values())
    print(f"largest difference {difference:.5f}, {MOST} allowed")
    return difference > MOST


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
