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
# # 08 · Run the surveyed systems side by side
#
# **You will do:** train five systems of the report's literature chapter, small, on the same patients, look inside
# each, and score all of them alike.
#
# **You will learn:** what each adds to a plain network, what that costs, and why a table of papers ranks little.
#
# **You need:** scikit-learn and scikit-image (`pip install 'lits-helpers[survey]'`), and nothing else. Without
# `LITS_DATA_ROOT` the patients are a synthetic abdomen (the *phantom*). Two to three minutes on two
# busy CPU cores.
#
# *For study only: not a medical device.*

# %% [markdown]
# ## Set up

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lits_helpers import audit, data_plots, drawing, inference, load_settings, masks, result_plots
from lits_helpers import sorting, sorting_scores, superpixel_system, surveyed, surveyed_results
from lits_helpers.generators import decode_slices, resize_image
from lits_helpers.pictures import read_image

drawing.compact_figures()
settings = load_settings()
print(settings)

# %% [markdown]
# ## The five
#
# What the papers report is of their own data and years of work; it is no bar for what is trained here in seconds.

# %%
table = audit.load_patient_split(settings)
test = table[table.split == "test"]
known = {name: (each.words, each.reported, each.here) for name, each in surveyed.SYSTEMS.items()}
pd.DataFrame(known, index=["what it is", "reported", "what differs here"]).T.style.set_properties(**{"text-align": "left"})

# %% [markdown]
# Of each paper we could read the abstract. The slices to look at below are those of the test patients with the
# largest tumour area, one a patient.

# %%
largest = test.sort_values("tumour_pixels", ascending=False).drop_duplicates("volume")
shown = largest[largest.tumour_pixels > 0][:4]
systems, results = {}, {}
print(f"{settings.data_label}: {len(test)} slices of {test.volume.nunique()} test patients")


# %%
def train_and_test(name):
    """Train a system, or load it, and let it look at the test patients."""
    systems[name] = surveyed.train_system(name, settings, table)
    results[name] = surveyed_results.evaluate_system(systems[name], test, shown=shown)
    return systems[name].predictor


# %% [markdown]
# ## Kaur 2021: sort slices first
#
# A small network sorts slices into empty, liver, and liver with tumour. Here it is used for more than the paper's
# aim: slices that it takes for free of tumour are not shown to the segmenter.

# %%
kaur = train_and_test("Kaur 2021")
cache = decode_slices(table, kaur.network.input_shape[1], settings.output_root)
classes = sorting.predict_classes(kaur.sorter, cache, test)
sorting_scores.sorting_scores(test.diagnosis, classes).round(3)

# %% [markdown]
# What skipping does to Dice and time. The threshold was chosen on the validation patients, to keep 99 % of *their*
# slices with tumour; the last column says how many were lost here. The sorter's own time is not in `seconds`.

# %%
wanted = sorting.triage(classes, threshold=kaur.threshold)
inference.skipping_effect(kaur.network, cache, test, wanted, threshold=surveyed.CLASS_THRESHOLD).round(3)

# %%
by_chance = [np.flatnonzero(wanted == kept)[:1] for kept in (True, False)]
pictures = [
    (read_image(row.image_path), masks.read_labels(row.mask_path), f"{words}: volume {row.volume}, slice {row.slice}")
    for words, places in zip(("segmented", "skipped"), by_chance) for row in test.iloc[places].itertuples()
]
data_plots.gallery(pictures, "What the sorter lets through, with the true outlines")
plt.show()

# %% [markdown]
# ## Han 2017: neighbours and residual blocks
#
# First the liver, coarsely; then a network that sees the slice, the one before and the one after, in the liver's
# region only.

# %%
han = train_and_test("Han 2017")
volume = table[table.volume == shown.volume.iloc[0]].sort_values("slice")
place = int(np.flatnonzero(volume.slice == shown.slice.iloc[0])[0])
images = [read_image(path) for path in volume.image_path]
truth = np.stack([masks.read_labels(path) for path in volume.mask_path])


# %%
def labels_of(name):
    """Labels of the volume that is looked at, by a trained system."""
    probabilities, liver = systems[name].predictor.predict(images, volume.slice.tolist())
    return np.where(probabilities > systems[name].threshold, 2, liver).astype(np.uint8)


# %%
def shown_around(*labelled):
    """The slice that is looked at, by each of the labels, with its tumour's Dice."""
    cases = []
    for words, labels in labelled:
        dice = drawing.dice_words(truth[place] == 2, labels[place] == 2)
        cases.append((images[place], labels[place], words if labels is truth else f"{words}, {dice}"))
    data_plots.gallery(cases, f"Volume {volume.volume.iloc[0]}, slice {volume.slice.iloc[place]}")
    plt.show()


# %%
shown_around(("truth", truth), ("Han 2017", labels_of("Han 2017")))

# %% [markdown]
# ## Chlebus 2017: filter candidates
#
# A network of single slices proposes tumours, boldly (probability above 0.30); a random forest, grown on the
# candidates of the *validation* patients, looks at shape, place, brightness and texture of each, and rejects.

# %%
chlebus = train_and_test("Chlebus 2017")
effect = surveyed_results.filtering_effect(systems["Chlebus 2017"], test)
columns = ["step", "lesions", "lesions_found", "recall", "components", "false_components", "precision", "dice_per_case"]
effect[columns].round(3)

# %% [markdown]
# A forest can only reject. Precision may rise, recall cannot; where the network's candidates are all right, or
# the validation patients had too few to learn from, nothing is gained.

# %%
probabilities, _ = chlebus.cascade.predict(images, volume.slice.tolist())
before = (2 * (probabilities > surveyed.CANDIDATE_THRESHOLD)).astype(np.uint8)
shown_around(("truth", truth), ("candidates", before), ("after the forest", labels_of("Chlebus 2017")))

# %% [markdown]
# ## Yuan 2017: three networks in a row
#
# Coarse liver, fine liver in its region, and tumours with the fine liver, its histogram equalised, as an
# additional input; Jaccard's loss. The challenge also asked for the tumour *burden*: tumour by liver volume.

# %%
yuan = train_and_test("Yuan 2017")
burdens = results["Yuan 2017"].cases[["volume", "liver_dice", "burden_truth", "burden_predicted", "seconds"]]
burdens.round(4)

# %%
result_plots.bland_altman(results["Yuan 2017"].cases)
plt.show()

# %% [markdown]
# The report gives the paper's time as 33 s a volume (we could not verify it); `seconds` above is ours, on two CPU
# cores, of smaller volumes and networks. The two are not comparable, and neither holds reading the files.

# %% [markdown]
# ## Bai 2019: superpixels
#
# The liver by a 3D U-Net, cut into superpixels of several sizes; a 3D network gives each its verdict, and an
# active contour draws what is left to the edges of the picture.

# %%
bai = train_and_test("Bai 2019")
small = np.stack([resize_image(image, bai.size) for image in images])
stages = superpixel_system.segment_volume(bai.system, small)
liver, coarse = stages.liver, np.where(stages.coarse, 2, stages.liver).astype(np.uint8)
numbers = stages.candidates[0].astype(np.int64)
shades = np.where(numbers, 60 + numbers * 73 % 196, 0).astype(np.uint8)  # a shade of its own for each

# %%
cases = [
    (small[place], liver[place].astype(np.uint8), "liver"), (shades[place], None, "superpixels, smallest"),
    ((255 * stages.probability[place]).astype(np.uint8), None, "probability, white is 1"),
    (small[place], coarse[place], "above the threshold"), (small[place], stages.labels[place], "contours moved"),
]
data_plots.gallery(cases, f"Volume {volume.volume.iloc[0]}, slice {volume.slice.iloc[place]}, stage by stage")
plt.show()

# %% [markdown]
# ## One table
#
# The same test patients and the same scorer: 3D, native resolution, all slices. *Low* and *high* are the interval
# over patients.

# %%
scores = surveyed_results.side_by_side(systems, results)
scores.style.format(precision=3, na_rep="-").format("{:,.0f}", subset=["parameters", "training_seconds"])

# %% [markdown]
# Read it with care.
#
# - The patients are few (and synthetic, without `LITS_DATA_ROOT`), training lasts seconds, and sizes are ours. A
#   ranking here is **not** a ranking of the papers.
# - The shared network's training is in the seconds of four rows. Kaur's sorter draws no liver, so it has no burden.
# - The intervals hold what other patients would change, not what another run of the training would.

# %% [markdown]
# ## One page of pictures

# %%
surveyed_results.page(shown, results)
plt.show()

# %% [markdown]
# ## Recap
#
# - Five systems are five orders of the same few parts: a sorter, a liver, a region, a network, a verdict on
#   candidates, a contour.
# - Each paper's number is of its own patients, rules and years. Only the same scorer on the same patients compares.
# - What a stage gains can be measured by leaving it out: before and after the forest, with and without triage.
#
# ## Exercises
#
# 1. Train each system six times longer (`seconds=` of `surveyed.train_system`). Does the order of the table stay?
# 2. Give Han's system a single slice (add `middle_slice_only=True` in `surveyed._han`). What are neighbours worth here?
# 3. Lower the threshold of Chlebus's candidates to 0.1 (`surveyed.CANDIDATE_THRESHOLD`). What does the forest win back?
