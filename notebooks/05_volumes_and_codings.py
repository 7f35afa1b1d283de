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
# # 05 · Go from CT volumes to slices, and see what is lost on the way
#
# **You will do:** read CT volumes with their geometry, look at them in Hounsfield units, write them as
# slices, recognise label codings, and search a data set for patients that are in it twice.
#
# **You will learn:** what a window shows and hides, why orientation and spacing must come from the file,
# what JPEG and a small picture do to labels, and how a split can leak although no volume is divided.
#
# **You need:** nothing. Without `LITS_DATA_ROOT` the notebook works on synthetic volumes (the *phantom*);
# with it, on your LiTS in whatever layout. About a minute on two CPU cores.
#
# *For study only: not a medical device.*

# %% [markdown]
# ## Set up

# %%
from dataclasses import replace

import cv2
import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pandas as pd
from scipy import ndimage

from lits_helpers import audit, conversion, data_plots, drawing, duplicates, generators, index, layouts, lesions
from lits_helpers import load_settings, masks, phantom, pictures, plots, scoring, splits, volumes, widgets, windows

drawing.compact_figures()
settings = load_settings()
print(settings)

# %% [markdown]
# ## What is here?
#
# People hold LiTS in many ways: NIfTI volumes from the challenge or from Kaggle, the same volumes in the
# Medical Segmentation Decathlon, slices as JPEG or PNG in several codings, DICOM. One function looks below
# a folder and says what it found. (The phantom comes both as volumes and as slices, so it has two rows.)

# %%
root = phantom.ensure_phantom(settings)
found = layouts.find_layouts(root)
layouts.what_is_here(found, root, mask_meaning=settings.mask_meaning)

# %% [markdown]
# The next steps want volumes. Where your data is slices only, the phantom's volumes stand in for them.

# %%
volume_layouts = [layout for layout in found if layout.kind == "volumes"]
of_phantom = settings.is_synthetic or not volume_layouts
if not volume_layouts:
    synthetic = replace(settings, data_source="phantom", data_root=settings.output_root / "phantom")
    volume_layouts = [one for one in layouts.find_layouts(phantom.ensure_phantom(synthetic)) if one.kind == "volumes"]
cases = volume_layouts[0].cases[volume_layouts[0].cases.mask_path != ""]
print(f"{len(cases)} labelled volumes, layout {volume_layouts[0].name}" + (", synthetic phantom" if of_phantom else ""))

# %% [markdown]
# ## Read one volume
#
# A volume is an array and its *geometry*: which way the axes run in the patient, and how far apart the
# voxels are. `read_case` gives the CT in Hounsfield units (HU), and the labels on the same voxels, both as
# seen on screen: slices from the feet to the head, rows from front to back, columns from the patient's
# right to left.

# %%
volume, labels, remarks = conversion.read_case(cases.iloc[0].to_dict())
print("shape (slices, rows, columns):", volume.hounsfield.shape, volume.hounsfield.dtype)
print("spacing in mm:", np.round(volume.spacing, 2), " stored axes run to:", volume.geometry.orientation)
print("remarks:", remarks or "none")

# %% [markdown]
# HU are a physical scale: air is -1000 and water 0 on every scanner. On the left all voxels, with the
# usual range of a few tissues; on the right those labelled liver and tumour. They overlap: no threshold in
# HU separates them, which is why a network is asked to.

# %%
data_plots.hounsfield_histogram(volume.hounsfield, labels)
plt.show()

# %% [markdown]
# ## Look through windows
#
# A screen shows 256 greys, a CT holds some 4,000 values. A *window* chooses which band of HU the greys
# are spent on. Same slice, four windows:

# %%
number = int((labels == masks.TUMOUR).sum(axis=(1, 2)).argmax())
plane, plane_labels = volume.hounsfield[number], labels[number]


def grey(hounsfield, window):
    """A slice as uint8 through a preset."""
    return (windows.windowed(hounsfield, **windows.WINDOWS[window]._asdict()) * 255).astype(np.uint8)


# %%
chosen = ("liver", "abdomen", "lungs", "bone")
titles = [f"{name}: {windows.WINDOWS[name].width:.0f} wide at {windows.WINDOWS[name].level:.0f} HU" for name in chosen]
shown = [(grey(plane, name), None, title) for name, title in zip(chosen, titles)]
marks = [drawing.volume_marks(volume.geometry)] * len(shown)
data_plots.gallery(shown, f"Slice {number} through four windows", marks=marks)
plt.show()

# %% [markdown]
# The narrow liver window makes a tumour stand out and turns everything else black or white. The report's
# slice files keep two windows and a histogram-equalised copy as red, green and blue.

# %%
coded = windows.three_channels(plane)
channels = ["red: liver window", "green: 200 wide at 60 HU", "blue: equalised"]
shown = [(coded[..., i], plane_labels, name) for i, name in enumerate(channels)]
data_plots.gallery(shown, "The report's three channels", marks=marks[: len(shown)])
plt.show()

# %% [markdown]
# Try it: narrow the width until the tumour disappears in white or black. (Stored widgets do not show on
# GitHub or Kaggle: run the notebook.)

# %%
widgets.slice_browser({"": (volume.hounsfield, None)}, number=number)

# %% [markdown]
# ## Orientation comes from the file
#
# Files store the same patient in different orders. Here the volume is stored anew in three of the 48
# possible ways. Taking `array[:, :, k]`, as many tutorials do, shows the pictures below.

# %%
column, row, between = (-volume.spacing[2], -volume.spacing[1], volume.spacing[0])
image = nibabel.Nifti1Image(volume.hounsfield.transpose(2, 1, 0), np.diag([column, row, between, 1]))
stored = {}
for axes in ("LPS", "RAS", "LAI"):
    way = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axes))
    stored[axes] = image.as_reoriented(way)
naive = [(grey(np.asarray(one.dataobj[:, :, number]), "abdomen"), None, f"stored as {axes}") for axes, one in stored.items()]
data_plots.gallery(naive, f"array[:, :, {number}] of one volume, stored three ways")
plt.show()

# %% [markdown]
# Lying on its side, mirrored, another slice altogether: a network trained on one and fed the other sees a
# patient with the liver on the wrong side. `read_volume` goes by the affine, so all three give one picture,
# voxel by voxel:

# %%
folder = settings.output_root / "orientation"
folder.mkdir(parents=True, exist_ok=True)
for axes, one in stored.items():
    nibabel.save(one, folder / f"{axes}.nii")
    same = (volumes.read_volume(folder / f"{axes}.nii").hounsfield == volume.hounsfield).all()
    print(f"stored as {axes}: same voxels on screen: {same}")

# %% [markdown]
# And back: labels are written into the order of voxels and the affine of the CT that they belong to, so
# that any viewer lays them on it.

# %%
geometry = volumes.read_geometry(folder / "LAI.nii")
volumes.write_labels(folder / "labels.nii.gz", labels, geometry)
written = nibabel.load(folder / "labels.nii.gz")
print("shape and affine as in the CT:", written.shape == geometry.shape, (written.affine == geometry.affine).all())
print("labels read back the same:", (volumes.read_label_volume(folder / "labels.nii.gz", geometry) == labels).all())

# %% [markdown]
# Not every header can be believed. In LiTS, many of the volumes 28 to 47 have an *identity* affine: 1 mm
# voxels, whatever the scanner did. What such a header would make of this patient's liver:

# %%
voxels = np.count_nonzero(labels)
nibabel.save(nibabel.Nifti1Image(volume.hounsfield.transpose(2, 1, 0), np.eye(4)), folder / "identity.nii")
for path in (folder / "LPS.nii", folder / "identity.nii"):
    header = volumes.read_geometry(path)
    print(f"{path.name:13} liver {voxels * np.prod(header.spacing) / 1000:6.0f} ml, header says nothing: {header.is_identity}")

# %% [markdown]
# `is_identity` marks such volumes; nothing in millimetres may be computed on them.

# %% [markdown]
# ## Convert volumes to slices
#
# Training reads slices. `convert_volumes` writes them in the report's names and three-channel coding, PNG
# unless told otherwise, on all cores; masks are PNG with labels 0, 1, 2, so nothing is lost in them. A
# volume that is done is not done again, and a broken one is reported without stopping the others.

# %%
converted = conversion.convert_volumes(cases[:3], settings.output_root / "converted")
converted[["volume", "slices", "height", "width", "spacing_mm", "orientation", "seconds"]]

# %% [markdown]
# Usually you need not call it: `index.load_slices` converts what it needs when it is pointed at volumes.

# %%
slices = [converted.slices.sum(), converted.seconds.sum()]
print(f"{slices[0]} slices in {slices[1]:.1f} s of one core: {1000 * slices[1] / slices[0]:.0f} ms a slice")

# %% [markdown]
# ## Recognise a label coding
#
# Masks come as 0/1/2, as 0/127/255, in colours, in the report's display coding, as JPEG of each. `detect`
# looks at a sample of files and proposes a mapping, with what it counted. Some masks of this data, written
# in three codings:

# %%
table = index.load_slices(settings)
sample = table[table.diagnosis > masks.EMPTY].iloc[::8][:24]
truths = [masks.read_labels(path) for path in sample.mask_path]
recognised = {}
for coding in ("0/127/255", "colours", "0/255"):
    place = settings.output_root / "codings" / coding.replace("/", "-")
    place.mkdir(parents=True, exist_ok=True)
    recognised[coding] = [place / f"{i}.png" for i in range(len(truths))]
    for path, truth in zip(recognised[coding], truths):
        pictures.write_image(path, masks.encode(truth, coding))

# %%
for coding in ("0/127/255", "colours"):
    print(masks.detect(recognised[coding]), "\n")

# %%
guess = masks.detect(recognised["colours"])
picture = pictures.read_image(guess.example)
plots.coding_example(guess, picture, guess.decode(picture, guess.example))
plt.show()

# %% [markdown]
# Two levels are another matter: 0 and 255 may outline the liver, the tumours, or both as one. A guess would
# train a network on the wrong organ, so it is refused, with the argument that settles it.

# %%
try:
    masks.detect(recognised["0/255"])
except masks.DataError as error:
    print(str(error).replace(str(settings.output_root), "..."))

# %%
print(masks.detect(recognised["0/255"], meaning="liver and tumour").mapping)

# %% [markdown]
# ## What JPEG does to labels
#
# JPEG is made for photographs: it moves grey levels a little, most at edges. How much of the labels comes
# back depends on how far apart the coding put them. Each coding is saved at falling quality and decoded:

# %%
def reopened(labels, coding, quality):
    """Labels after a coding, a file of some quality (101: PNG), and decoding."""
    picture = masks.encode(labels, coding)
    picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    ending, options = (".png", []) if quality > 100 else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])
    colour = cv2.IMREAD_COLOR_RGB if coding == "colours" else cv2.IMREAD_GRAYSCALE
    read = cv2.imdecode(cv2.imencode(ending, picture, options)[1], colour)
    if coding == "labels":
        return read.clip(0, 2)
    if coding == "report-jpg":
        return masks.decode(read, lossless=quality > 100).labels
    return masks.Coding(coding, dict(zip(masks.CODINGS[coding], range(3))), smeared=True).decode(read, "mask")


# %%
rows = []
for coding in ("0/127/255", "colours", "report-jpg", "labels"):
    for quality in (75, 90, 100, 101):
        pairs = [(truth, reopened(truth, coding, quality)) for truth in truths]
        true, decoded = (np.concatenate([one.ravel() for one in side]) == masks.TUMOUR for side in zip(*pairs))
        right = np.mean([masks.diagnose(truth) == masks.diagnose(read) for truth, read in pairs])
        rows.append((coding, quality, scoring.dice(true, decoded), right))
damage = pd.DataFrame(rows, columns=["coding", "quality", "tumour_dice", "right_diagnosis"])
damage.pivot(index="coding", columns="quality", values="right_diagnosis").round(3).rename(columns={101: "PNG"})

# %%
data_plots.coding_damage(damage)
plt.show()

# %% [markdown]
# Levels that lie far apart survive. Labels 0, 1, 2 do not: one level is what JPEG rounds away first, so
# single pixels of a healthy liver turn into tumour and slices change their diagnosis. `read_labels`
# refuses such files. The report's coding lies between: it loses tumours under 0.1 % of the slice.

# %% [markdown]
# ## What is lost at a small input size
#
# The report's network sees 256 x 256, the tiny profile here 96 x 96. Take a *perfect* answer, make it that
# small and enlarge it again: no network of that input size can score better. Lesion by lesion:

# %%
def after(plane, size):
    """Tumour of one slice, through an input of some size and back."""
    small = (generators.resize_labels(plane, size) == masks.TUMOUR).astype(np.float32)
    return cv2.resize(small, plane.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


def ceilings(labels, spacing, sizes):
    """Diameter (mm) and best possible Dice of each lesion."""
    numbered, count = lesions.components(labels == masks.TUMOUR)
    back = {size: np.stack([after(plane, size) for plane in labels]) for size in sizes}
    diameters = lesions.lesion_table(numbered, count, spacing).diameter_mm
    for lesion, (box, diameter) in enumerate(zip(ndimage.find_objects(numbered), diameters), start=1):
        truth = numbered[box] == lesion
        yield {"diameter_mm": diameter} | {f"dice_{size}": scoring.dice(truth, back[size][box]) for size in sizes}


# %%
sizes = (256, 128, settings.image_size)
best = []
for case in cases[:8].to_dict("records"):
    scan, truth, _ = conversion.read_case(case)
    best += ceilings(truth, scan.spacing, sizes)
best = pd.DataFrame(best)
data_plots.resolution_ceiling(best, sizes)
plt.show()

# %%
best.groupby(pd.cut(best.diameter_mm, [0, 10, 20, 40, 200]), observed=True).mean().round(3)

# %% [markdown]
# The smaller the lesion and the input, the lower the ceiling, before any network has seen anything. Small
# lesions are also the ones that are missed, and a score pooled over pixels hardly counts them.

# %% [markdown]
# ## Who is in the data twice?
#
# LiTS holds several scans of some patients under different volume numbers, and no list of them. A split by
# volume then trains on a patient and tests on the same one. So let us make a data set with that flaw: the
# phantom's patients 1 and 4 are scanned a second time, shifted, at other heights, with new noise, and
# numbered on as 6 and 7.

# %%
twice = phantom.write_phantom(settings.output_root / "rescanned", patients=6, size=256, rescans=(1, 4))
scans = index.build_index(twice, settings.output_root, layout="report-slices")
alike = duplicates.find_duplicates(scans)
alike.volumes.head(5).round(2)

# %% [markdown]
# Nobody told it: slices are compared by fine structure, whatever their shift. `similarity` is what every
# slice of a matching run exceeds; two scans of one patient stand far above two patients. Look at the best
# pair: what differs is noise, and edges where the second scan's slices lie at other heights.

# %%
examples = alike.slices[:1]
plots.duplicate_slices(duplicates.matched_pictures(examples))
plt.show()

# %% [markdown]
# A split that takes volumes for patients may leak, depending on luck; one that knows the patients cannot.
# The audit is stored beside the split.

# %%
leaking = next(
    split for seed in range(50)
    if audit.audit_split(split := splits.split_patients(scans, seed=seed), alike).leaks
)
print(audit.audit_split(leaking, alike))

# %%
by_patient = splits.split_patients(audit.with_patients(scans, alike), seed=settings.seed)
checked = audit.audit_split(by_patient, alike)
splits.save_split(by_patient, settings.output_root / "split_rescanned.csv", audit=checked)
print(checked)

# %% [markdown]
# The same question for the data of this run. Every alarm deserves a look at the pictures.

# %%
own = duplicates.find_duplicates(table)
print(audit.audit_split(splits.split_patients(audit.with_patients(table, own), seed=settings.seed), own))
own.volumes.head(3).round(2)

# %% [markdown]
# ## Recap
#
# - A CT volume is numbers in HU *and* a geometry. Go by the affine, and distrust an identity.
# - A window decides what can be seen; the report's slices keep three views of the same numbers.
# - A mask's coding is found out, not assumed; where files do not tell, somebody has to say.
# - JPEG spares levels that lie far apart. A small input size costs small lesions, before any network.
# - A patient can be in a data set twice. Search for it, and split by patient.
#
# ## Exercises
#
# 1. In the widget that narrows the window, find the narrowest window in which tumour and liver can still be told apart.
# 2. Save the masks in coding `0/127/255` at JPEG quality 30. Which labels go first, and where?
# 3. Scan a phantom patient again (`rescans=`) and shrink all its slices by a tenth. Is it still found? Why?
