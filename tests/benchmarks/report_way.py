"""What the report does, written out: the yardstick of the benchmarks.

From its text (sections 4.1 to 4.4): OpenCV loops over files, Keras's ImageDataGenerator for image
and mask with one seed, a float32 U-Net, and ``predict`` slice by slice.
"""

import cv2
import keras
import nibabel
import numpy as np
import PIL.Image
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from lits_helpers import metrics
from lits_helpers.model import unet

AUGMENTATION = dict(
    rotation_range=0.1, width_shift_range=0.05, height_shift_range=0.05, shear_range=0.05,
    zoom_range=0.05, horizontal_flip=True, vertical_flip=True, fill_mode="nearest",
)


def classify(mask_paths):
    """Diagnosis of each mask: by checksum empty, by a band of grey levels tumour, else liver."""
    diagnoses = []
    for path in mask_paths:
        mask = cv2.imread(path)
        if mask.sum() == 33554432:
            diagnoses.append(0)
            continue
        grey = cv2.cvtColor(mask, cv2.COLOR_BGR2GRAY)
        diagnoses.append(2 if ((grey > 55) & (grey < 75)).any() else 1)
    return diagnoses


def equalised(values):
    """Histogram equalisation as its slice files had it: sort the slice, interpolate every pixel."""
    ordered = np.sort(values, axis=None)
    places = np.concatenate([[0.001], (np.arange(100) + 0.5) / 100, [0.999]])
    nodes = np.unique(ordered[(len(ordered) * places).astype(int)])
    return np.interp(values, nodes, np.linspace(0, 1, len(nodes)))


def convert(volume_paths, mask_paths, folder):
    """Volumes to JPEG slice files, whole in float64, one slice after the other.

    The data set of the report was made so, by a notebook of many copies (search for
    "lits-image-extract"), with fastai's windows and its quality 90.
    """
    for kind, paths in (("image", volume_paths), ("mask", mask_paths)):
        for number, path in enumerate(paths):
            whole = nibabel.load(path).get_fdata()
            for place in range(whole.shape[2]):
                values = whole[..., place].T.astype(np.float32)
                windows = [np.clip((values - low) / width, 0, 1) for low, width in ((-45, 150), (-40, 200))]
                coded = (np.stack([*windows, equalised(values)], axis=-1) * 255).astype(np.uint8)
                PIL.Image.fromarray(coded).save(folder / f"volume-{number}_slice_{place}_{kind}.jpg", quality=90)


def train_generator(table, batch_size, size):
    """Endless batches of augmented images and masks, read from the files in every epoch."""
    flows = [
        ImageDataGenerator(**AUGMENTATION).flow_from_dataframe(
            table, x_col=column, class_mode=None, color_mode=colours, target_size=(size, size),
            batch_size=batch_size, seed=1,
        )
        for column, colours in (("image_path", "rgb"), ("mask_path", "grayscale"))
    ]
    for images, masks in zip(*flows, strict=True):
        yield images / 255, (masks / 255 > 0.30).astype("float32")


def compiled_unet():
    """The report's network in float32.

    Without XLA, which Keras 2 left off by default. Keras 3 chooses it by itself
    (``jit_compile="auto"``), and on a CPU that is slower still, so this is the kinder yardstick.
    """
    keras.config.set_dtype_policy("float32")
    model = unet()
    model.compile(
        keras.optimizers.Adam(1e-4),
        loss=metrics.bce_dice_loss,
        metrics=["accuracy", metrics.iou, metrics.dice_coef],
        jit_compile=False,
    )
    return model


def predict(model, images):
    """Probabilities of one slice after the other; images are uint8 (n, size, size, 3)."""
    return [model.predict(image[None] / 255, verbose=0)[0, ..., 0] for image in images]
