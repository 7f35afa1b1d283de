# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Preview the augmentation
#
# **You will do:** apply each random change of the report's augmentation to a slice and its mask, alone and
# together, then build the batches that training will read.
#
# **You will learn:** which of the report's changes do anything, why image and mask must share one map, and
# what it costs to feed a network.
#
# **You need:** nothing (notebook 01 helps). About 20 seconds on two CPU cores.
#
# *For study only: not a medical device.*

# %% [markdown]
# ## Set up

# %%
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lits_helpers import audit, drawing, load_settings, masks, plots, scoring, widgets
from lits_helpers.augmentation import Augmentation, warp_pair
from lits_helpers.generators import batches, decode_slices, iterate_batches
from lits_helpers.pictures import read_image

drawing.compact_figures()
settings = load_settings()
print(settings)

# %% [markdown]
# ## Decode once
#
# Opening a JPEG, decoding its mask and resizing both takes far longer than bending a picture. So it is done
# once: every slice goes into a cache of bytes on disk, mapped into memory. Run the cell twice and see.

# %%
table = audit.load_patient_split(settings)
size = settings.image_size
started = time.perf_counter()
cache = decode_slices(table, size, settings.output_root)
print(f"{len(table)} slices at {size} x {size} in {time.perf_counter() - started:.2f} s")

# %% [markdown]
# For looking, one slice at its native size is better: the one with the largest tumour.

# %%
row = table.loc[table.tumour_pixels.idxmax()]
image, labels = read_image(row.image_path), masks.read_labels(row.mask_path)
name = f"volume {row.volume}, slice {row.slice}"

# %% [markdown]
# ## Set the parameters
#
# These are the report's, as coded. Change them and run on from here.

# %%
report = Augmentation(
    rotation=0.1,  # degrees
    shift=0.05,  # fraction of the width and the height
    shear=0.05,  # degrees
    zoom=0.05,  # fraction, for width and height apart
    horizontal_flip=True,
    vertical_flip=True,
)
still = Augmentation(0, 0, 0, 0, horizontal_flip=False, vertical_flip=False)
random = np.random.default_rng(settings.seed)

# %% [markdown]
# `transformed` draws one map and applies it to image and mask. The map is inverse: for each pixel of the
# result it says where in the source to look. The image is interpolated there; the mask takes the nearest
# label, so it never gains a value that was not in it.

# %%
def transformed(augmentation, title):
    """One random result of an augmentation, with its title."""
    matrix = augmentation.matrices(random, 1, len(labels))[0]
    bent = augmentation.displacement(random, len(labels))
    return (*warp_pair(image, labels, matrix, bent), title)


# %% [markdown]
# ## Each change alone
#
# First at the report's strength.

# %%
alone = [
    transformed(replace(still, rotation=report.rotation), "rotation 0.1 degrees"),
    transformed(replace(still, shift=report.shift), "shift 5 %"),
    transformed(replace(still, shear=report.shear), "shear 0.05 degrees"),
    transformed(replace(still, zoom=report.zoom), "zoom 5 %"),
]
plots.augmentation_preview([[(image, labels, name), *alone]])
plt.show()

# %% [markdown]
# Rotation and shear cannot be seen. How far do they move the pixel that they move most, the corner?

# %%
def farthest(augmentation):
    """The largest distance, in pixels, that any of 1,000 drawn maps moves a corner."""
    drawn = augmentation.matrices(np.random.default_rng(0), 1000, size)
    corner = np.array([0, 0, 1])
    return np.hypot(*(drawn @ corner).T).max()


# %%
changes = {name: replace(still, **{name: getattr(report, name)}) for name in ("rotation", "shift", "shear", "zoom")}
pd.Series({name: farthest(change) for name, change in changes.items()}, name=f"pixels of {size}").round(2)

# %% [markdown]
# The report's 0.1 and 0.05 look like fractions, but the library it used reads degrees. Two of its
# changes do nothing. Here are strengths that do something, and the elastic deformation that the report
# claims but does not code.

# %%
stronger = [
    transformed(replace(still, rotation=15), "rotation 15 degrees"),
    transformed(replace(still, shear=15), "shear 15 degrees"),
    transformed(replace(still, elastic=0.03), "elastic 3 %"),
    transformed(replace(still, horizontal_flip=True, vertical_flip=True), "flips (perhaps)"),
]
plots.augmentation_preview([[(image, labels, name), *stronger]])
plt.show()

# %% [markdown]
# Flips are strong medicine: a patient whose liver is on the left exists (*situs inversus*), but is one in
# some ten thousand. They are kept because the report has them.

# %% [markdown]
# ## All together
#
# Each sample draws every change anew; all are composed into one map before a single pixel is touched, so
# nothing is blurred twice.

# %%
together = [transformed(report, f"report, draw {number}") for number in (1, 2)]
mixed = Augmentation(rotation=15, shift=0.1, shear=10, zoom=0.15, elastic=0.02)
mixed_draws = [transformed(mixed, f"stronger, draw {number}") for number in (1, 2)]
plots.augmentation_preview([[(image, labels, name), *together], [(image, labels, name), *mixed_draws]])
plt.show()

# %% [markdown]
# ## Check the alignment
#
# Looking is not proof. So paint the mask into the image, transform both, and compare: threshold the painted
# image and it must give the transformed mask, up to interpolation at its edge.

# %%
painted = np.repeat((labels == masks.TUMOUR)[..., None], 3, axis=2).astype(np.uint8) * 255
agreement = []
for number in range(20):
    matrix = mixed.matrices(random, 1, len(labels))[0]
    picture, mask = warp_pair(painted, labels, matrix, mixed.displacement(random, len(labels)))
    from_picture, from_mask = picture[..., 0] > 127, mask == masks.TUMOUR
    agreement.append((scoring.dice(from_mask, from_picture), sorted(np.unique(mask).tolist())))
print(f"Dice of mask in picture and mask: {min(a for a, _ in agreement):.4f} or more in 20 draws")
print("labels in the masks:", sorted({tuple(values) for _, values in agreement}))

# %% [markdown]
# How much would an error show? The same Dice for a mask that slipped by one pixel, and by three:

# %%
tumour = labels == masks.TUMOUR
for pixels in (1, 3):
    print(f"slipped by {pixels}: Dice {scoring.dice(tumour, np.roll(tumour, pixels, axis=1)):.4f}")

# %% [markdown]
# ## Build the batches
#
# `batches` gives what the report's `train_generator` gave: images from 0 to 1 and tumour masks of 0 or 1.
# Order and changes follow from the seed and the number of the epoch, so an interrupted run can go on
# exactly where it was. Half of each epoch are tumour slices (`balanced`).

# %%
train = table[table.split == "train"]
data = batches(cache, train, settings.batch_size, augmentation=report, balanced=True, seed=settings.seed)
images, tumours = next(iter(data))
print("images", images.shape, images.dtype.name, f"{images.numpy().min():.2f} to {images.numpy().max():.2f}")
print("masks ", tumours.shape, tumours.dtype.name, "values", np.unique(tumours))

# %%
shown = [
    ((picture * 255).astype(np.uint8), (mask[..., 0] * masks.TUMOUR).astype(np.uint8), f"sample {number}")
    for number, (picture, mask) in enumerate(zip(images.numpy(), tumours.numpy()))
]
plots.augmentation_preview([shown[:4], shown[4:8]])
plt.show()

# %% [markdown]
# ## Measure the speed
#
# A network waits for nobody. One epoch of augmented pairs from the cache, without and with elastic
# deformation, on this machine:

# %%
rates = {}
for words, augmentation in (("report's changes", report), ("with elastic", replace(report, elastic=0.02))):
    started = time.perf_counter()
    positions = np.resize(cache.positions(table), 1000)
    for _ in iterate_batches(cache, positions, 32, augmentation=augmentation, random=random):
        pass
    rates[words] = round(len(positions) / (time.perf_counter() - started))
pd.Series(rates, name=f"pairs per second at {size} x {size}").to_frame()

# %% [markdown]
# ## Play
#
# Every parameter a slider, image and mask together. (Run the notebook: stored widgets do not show.)

# %%
widgets.augmentation_playground(image, labels)

# %% [markdown]
# ## Recap
#
# - One map for image and mask, drawn once, applied once; labels by nearest neighbour.
# - Two of the report's six changes do nothing at the strength it coded, and the elastic one was never
#   coded.
# - Decoding once and keeping bytes makes the augmentation cheap enough to never be waited for.
#
# ## Exercises
#
# 1. Find the rotation at which the corner of a slice moves as far as a 5 % shift moves it.
# 2. Replace the nearest neighbour by linear interpolation for the labels. Which values appear, and what
#    would a network learn from them?
# 3. Turn off `balanced` and count the tumour slices among 10 batches. What would a network learn first?
