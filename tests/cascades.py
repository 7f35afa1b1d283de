"""Cascades whose answers follow from brightness alone, and patients to show them."""

import json

import keras
import numpy as np

from lits_helpers.blocks import NestedClasses
from lits_helpers.cascade import Cascade
from lits_helpers.conversion import write_slice_files

HOUNSFIELD = (200, 100, 38)  # around the liver, liver, lesion: 255, 178 and 99 in the green channel
# A region shows the liver at 128, so what is around it at 205 and lesions at 49.
LIVER_BELOW, CROP_LIVER_BELOW, CROP_TUMOUR_BELOW = (178 + 255) / 2, (128 + 205) / 2, (128 + 49) / 2


def by_brightness(size, liver_below, tumour_below):
    """A network that calls liver, and in it tumour, what is darker in the middle channel than a level."""
    inputs = keras.Input((size, size, 3))
    layer = keras.layers.Conv2D(2, 1)
    model = keras.Model(inputs, NestedClasses()(layer(inputs)))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 1] = -255
    layer.set_weights([kernel, np.array([liver_below, tumour_below], np.float32)])  # a logit a level
    return model


def cascade(liver_size=32, tumour_size=64):
    return Cascade(
        by_brightness(liver_size, LIVER_BELOW, -1000),
        by_brightness(tumour_size, CROP_LIVER_BELOW, CROP_TUMOUR_BELOW),
        threshold=0.5,
    )


def saved(folder, **sizes):
    """Folder of such a cascade, as training leaves one."""
    made = cascade(**sizes)
    folder.mkdir(parents=True)
    made.liver.save(folder / "liver.keras")
    made.tumour.save(folder / "tumour.keras")
    found = {"liver": made.liver.input_shape[1], "tumour": made.tumour.input_shape[1]}
    (folder / "cascade.json").write_text(json.dumps({"sizes": found, "threshold": 0.5, "minutes": 1}))
    return folder


def ellipse(shape, row, column, down, across):
    """Pixels of a slice in an ellipse, all in fractions of the slice."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return ((rows + 0.5) / shape[0] - row) ** 2 / down**2 + ((columns + 0.5) / shape[1] - column) ** 2 / across**2 < 1


def labelled(shape, *, lesion=(0.36, 0.66)):
    """Labels (5, rows, columns): liver in slices 1 to 4, a lesion in slices 2 and 3; HU to go with them."""
    labels = np.zeros((5, *shape), np.uint8)
    labels[1:, ellipse(shape, 0.45, 0.55, 0.28, 0.3)] = 1
    if lesion:
        labels[2:4, ellipse(shape, *lesion, 0.1, 0.09)] = 2
    return labels, np.choose(labels, HOUNSFIELD).astype(np.int16)


LESIONS = [(0.36, 0.66), (0.5, 0.45), (0.56, 0.6), None]


def write_patients(root, shape=(64, 64)):
    """Four patients as slice files, three with a lesion, each in another place."""
    for volume, lesion in enumerate(LESIONS):
        labels, hounsfield = labelled(shape, lesion=lesion)
        write_slice_files(root, volume, hounsfield, labels)
    return root
