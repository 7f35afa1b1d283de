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
# # 01 · Index and classify the slices
#
# **You will do:** turn a folder of CT slices and mask files into one tidy table, sort its slices into
# *empty*, *liver only* and *liver and tumour*, and split them for training and testing.
#
# **You will learn:** what the report's mask files really contain, why its rule for "tumour" works by
# accident and when it breaks, and why slices must be split by patient.
#
# **You need:** nothing. Without `LITS_DATA_ROOT` the notebook works on a synthetic abdomen (the
# *phantom*); with it, on your LiTS slices. About half a minute on two CPU cores.
#
# *For study only: not a medical device.*

# %% [markdown]
# ## Set up
#
# Environment variables decide everything (the README lists them); the settings that follow are printed first,
# so that no figure below leaves you guessing what it was made from.

# %%
import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lits_helpers import audit, drawing, duplicates, index, load_settings, masks, pictures, plots, splits, widgets, windows

drawing.compact_figures()
settings = load_settings()
print(settings)

# %% [markdown]
# ## Find the slices
#
# The report's data is a folder of pictures: `volume-V_slice_S.jpg`, and for each a
# `volume-V_slice_S_mask.jpg`. `load_slices` finds the pairs wherever they lie, reads volume and slice
# number from the names, classifies every mask, and keeps the table under the output root. It is made
# anew only when a file changes.

# %%
table = index.load_slices(settings)
table[["volume", "slice", "diagnosis", "liver_pixels", "tumour_pixels", "height", "width", "coding"]].head()

# %% [markdown]
# One row a slice. A *volume* is one patient's scan, and that makes it the unit that matters: slices of
# one patient look alike. Volumes differ in length, in how much liver they show, and in tumour.

# %%
table.groupby("volume").agg(
    slices=("slice", "size"),
    with_liver=("diagnosis", lambda d: (d >= masks.LIVER_ONLY).sum()),
    with_tumour=("diagnosis", lambda d: (d == masks.LIVER_AND_TUMOUR).sum()),
    largest_tumour=("tumour_pixels", "max"),
)

# %% [markdown]
# ## Look inside a mask file
#
# A label map would hold 0, 1 and 2. The report's mask files do not: somebody sent the label maps
# through the routine that makes *display pictures of CT slices*. Its red and green channels are two
# windows on Hounsfield units, and labels 0, 1, 2 are all close to 0 HU there; its blue channel is
# histogram-equalised, so a label's blue depends on what else is in the slice.
#
# So let us take one slice of each kind: the one with the most tumour, the one with the most liver but
# no tumour, and an empty one.

# %%
fullest = table.sort_values(["tumour_pixels", "liver_pixels"], ascending=False)
examples = [
    fullest[fullest.diagnosis == diagnosis].iloc[0]
    for diagnosis in (masks.LIVER_AND_TUMOUR, masks.LIVER_ONLY, masks.EMPTY)
]
names = [f"volume {row.volume}, slice {row.slice}" for row in examples]

# %% [markdown]
# To show the coding whatever your own files use, the labels are put through the same routine here.

# %%
example_labels = [masks.read_labels(row.mask_path) for row in examples]
coded = [windows.three_channels(labels) for labels in example_labels]
for name, picture in zip(names, coded):
    print(name, "has red, green, blue:", *map(tuple, np.unique(picture.reshape(-1, 3), axis=0).tolist()))

# %% [markdown]
# Read the blue values: the liver is 127 beside a large tumour, but 255 in a slice without one, where the
# tumour would be 255 too. The report trains on `grey / 255 > 0.30` (third column below). That is the
# tumour where the tumour is large, and **the whole liver in every other slice**.

# %%
plots.mask_conversion(list(zip(coded, example_labels, names)))
plt.show()

# %% [markdown]
# The last column is what `lits_helpers.masks` decodes: it looks at the slice as a whole before it
# decides what a grey level means.

# %% [markdown]
# ## Count the classes, twice
#
# The report calls a slice *empty* if its channels add up to 33,554,432 (which is 512 x 512 x 128, so
# only at that size), and *tumour* if some grey level lies between 55 and 75. That band does not hold the
# tumour. It holds **healthy liver beside a large tumour**.

# %%
index.count_diagnoses(table)

# %%
plots.class_counts(table)
plt.show()

# %% [markdown]
# Columns `decoded` and `report_rule` count these slices; `report` is what the report counted on its own
# data. If the first two agree, the masks were saved at a JPEG quality that keeps the accident alive. For
# masks that are label maps of 0, 1 and 2 already, the report's rule means nothing: it calls all of them liver.

# %% [markdown]
# ## Break the report's rule
#
# JPEG blurs edges. The edge of any liver then passes through the band 55 to 75, and the rule sees
# tumours. Here every liver-only mask is saved again at falling quality and judged by both rules.

# %%
def reopened(labels, quality):
    """The grey levels of a label map after coding and JPEG."""
    picture = cv2.cvtColor(windows.three_channels(labels), cv2.COLOR_RGB2BGR)
    file = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(file, cv2.IMREAD_GRAYSCALE)


# %%
liver_only = table[table.diagnosis == masks.LIVER_ONLY]
healthy = [masks.read_labels(path) for path in liver_only.mask_path[:100]]
called_tumour = []
for quality in (100, 99, 98, 95, 90, 75):
    greys = [reopened(labels, quality) for labels in healthy]
    by_report = sum(masks.report_diagnosis(grey) == masks.LIVER_AND_TUMOUR for grey in greys)
    by_decoder = sum(masks.diagnose(masks.decode(grey).labels) == masks.LIVER_AND_TUMOUR for grey in greys)
    called_tumour.append((quality, len(healthy), by_report, by_decoder))
pd.DataFrame(called_tumour, columns=["JPEG quality", "liver-only slices", "tumour by report's rule", "tumour by decoder"])

# %% [markdown]
# At quality 99 and 100 the rule holds. From 98 down, and 90 is an everyday choice, it finds a tumour in
# nearly every healthy liver. Nothing about the patients has changed.

# %% [markdown]
# ## What no decoder can know
#
# In this coding a tumour below 0.1 % of its slice gets no level of its own: one grey level above the
# liver, which JPEG wipes out. A disc of growing radius inside a liver shows where it appears.

# %%
rows, columns = np.ogrid[:512, :512]
distance = np.hypot(rows - 256, columns - 256)
found = []
for radius in (4, 6, 8, 9, 10, 15):
    labels = np.where(distance < radius, 2, distance < 120).astype(np.uint8)
    decoded = masks.decode(reopened(labels, 90)).labels
    found.append((radius, (labels == 2).sum(), (decoded == 2).sum()))
pd.DataFrame(found, columns=["radius (pixels)", "tumour pixels", "decoded as tumour"])

# %% [markdown]
# The coding's limit lies between the rows where that happens. The slice table says for each slice whether
# small tumours can be known in it:

# %%
print("smallest coded tumour in 512 x 512:", masks.smallest_coded_tumour(512 * 512), "pixels")
table.groupby(["coding", "small_tumours_known"]).size().rename("slices").reset_index()

# %% [markdown]
# ## See each class
#
# Grey shows the green channel of the files, -40 to 160 HU. Outlines are drawn on pixel edges, in the two
# colours that mean liver and tumour throughout the series. The liver is on the left: you look at the
# patient from the feet, so the patient's right (R) is on your left. Sides and scale are drawn where the files
# tell them, and left out where nobody knows.

# %%
cases = [
    (pictures.read_image(row.image_path), labels, f"{masks.DIAGNOSES[row.diagnosis]}\n{name}")
    for row, labels, name in zip(examples, example_labels, names)
]
plots.example_slices(cases, marks=drawing.slice_marks(pd.DataFrame(examples)))
plt.show()

# %% [markdown]
# The same for one volume, to leaf through. (Stored widgets do not show on GitHub or Kaggle: run the
# notebook.)

# %%
widgets.slice_browser(table[(table.volume == examples[0].volume) & (table.diagnosis > masks.EMPTY)])

# %% [markdown]
# ## Split by slice, as the report did
#
# The report shuffles its tumour slices and takes 2,000 for training, 431 for validation and 200 for
# testing; smaller sets are divided in the same proportion. Neighbouring slices of one tumour are
# nearly the same picture, and here they land on both sides.

# %%
by_slice = splits.split_slices(table, seed=settings.seed)
plots.split_overview(by_slice)
plt.show()

# %% [markdown]
# A network tested on this has nearly seen its exam. The package refuses to call it a patient split:

# %%
try:
    splits.check_patient_split(by_slice)
except splits.DataError as error:
    print(error)

# %% [markdown]
# ## Split by patient
#
# Whole volumes go to one side: 60 % train, 20 % validate, 20 % test, with tumour-free patients spread
# alike. All slices stay in, the empty ones too, because a real scan has them. Later notebooks use this
# split.

# %%
by_patient = splits.check_patient_split(splits.split_patients(table, seed=settings.seed))
plots.split_overview(by_patient)
plt.show()

# %%
by_patient.groupby("split").agg(
    volumes=("volume", "nunique"),
    slices=("slice", "size"),
    with_tumour=("diagnosis", lambda d: (d == masks.LIVER_AND_TUMOUR).sum()),
)

# %% [markdown]
# One doubt is left: LiTS holds several scans of some patients under different volume numbers, and nothing
# says which. So volumes that resemble each other are looked for, and kept on one side (notebook 05 shows
# how); the audit is stored with the split. Later notebooks do these steps by `audit.load_patient_split`.

# %%
found = duplicates.find_duplicates(table)
by_patient = splits.split_patients(audit.with_patients(table, found), seed=settings.seed)
checked = audit.audit_split(by_patient, found)
splits.save_split(by_patient, settings.output_root / "split_patients.csv", audit=checked)
print(checked)

# %% [markdown]
# ## Recap
#
# - A mask file is not a label map until you have checked. This one is a display picture, and its grey
#   levels mean different things in different slices.
# - The report's rule finds healthy liver beside a large tumour; its counts hold only for masks saved at
#   nearly full JPEG quality.
# - Tumours under 0.1 % of the slice are lost in this coding, whoever decodes it.
# - The report's split puts each patient on both sides. Ours cannot, and volumes that look alike are
#   taken for one patient.
#
# ## Exercises
#
# 1. Change `seed` in `split_patients`. How much does the number of tumour slices in the test part vary,
#    and what does that mean for a score measured on it?
# 2. The report's target is `masks.report_target(grey)`. Compute its Dice with the decoded tumour for
#    slices with and without a large tumour (`lits_helpers.scoring.dice`).
# 3. Save a mask at 256 x 256 and let the report's rule judge an empty one. Why does it fail?
