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
# # 04 · Evaluate and visualise
#
# **You will do:** let the trained network segment the test patients, score it slice by slice and patient by
# patient, and look at its best and worst work.
#
# **You will learn:** what the report's "accuracy" counts, why one set of predictions has many Dice scores, and
# how to read an interval over patients.
#
# **You need:** nothing; if notebook 03 has not been run, its training is done here first. About half a minute
# after that.
#
# *For study only: not a medical device.*

# %% [markdown]
# ## Set up

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lits_helpers import audit, drawing, inference, load_settings, masks, plots, scoring, training, widgets
from lits_helpers.files import atomic_path
from lits_helpers.generators import batches, decode_slices
from lits_helpers.pictures import read_image
from lits_helpers.recipes import RECIPES

drawing.compact_figures()
settings = load_settings()
print(settings)

# %% [markdown]
# ## Load the best network
#
# The one with the lowest validation loss. `train` returns its folder, and trains only if it has to.

# %%
table = audit.load_patient_split(settings)
folder = training.train(settings, table)
model = training.load_checkpoint(folder / "best.keras", settings.image_size)
history = training.read_history(folder)
plots.training_curves(history)
plt.show()

# %% [markdown]
# ## Reproduce the report's metrics
#
# Loss, accuracy, Dice and IoU as Keras computes them on the test slices: of probabilities, smoothed, averaged
# over batches, at the network's resolution. All slices of the test patients are in, those without tumour too.

# %%
test = table[table.split == "test"]
cache = decode_slices(table, settings.image_size, settings.output_root)
data = batches(cache, test, settings.batch_size, classes=RECIPES[settings.recipe].classes)
reported = model.evaluate(data, return_dict=True, verbose=0)
print(f"{settings.data_label}, {training.split_name(table)}, {len(test)} test slices of {test.volume.nunique()} patients")
pd.Series(reported, name="value").round(4).to_frame()

# %% [markdown]
# Accuracy is high because nearly all pixels are background. It says nothing about tumours.

# %% [markdown]
# ## Predict at native resolution
#
# The network sees small slices; a tumour is measured on the real ones. So probabilities are enlarged to the
# size of each file and then cut at 0.30, the report's threshold.

# %%
probabilities = inference.predict_slices(model, cache, test)
slices = inference.evaluate_slices(test, probabilities)
slices.sort_values("truth_pixels", ascending=False).head()

# %% [markdown]
# One row a slice: pixels of truth, of prediction, and of both. Every score below is computed from this table.

# %% [markdown]
# ## Count as the report counts
#
# Its headline "accuracy" is this: a slice is *correct* if truth and prediction both hold some tumour, or both
# hold none.

# %%
detection = scoring.report_detection(slices)
print(f"{detection.correct} of {detection.correct + detection.incorrect} slices correct ({detection.percentage:.1f} %)")
detection.confusion

# %%
plots.confusion_matrix(detection.confusion)
plt.show()

# %% [markdown]
# That is *detection*. A prediction in the wrong corner of the slice counts as correct, and so does one with a
# single pixel. The report's text calls it overlap.

# %% [markdown]
# ## Score properly
#
# One set of predictions, many figures. Each line says what is averaged and what happens to empty masks; the
# interval comes from drawing whole patients with replacement, and *cases* says how many there are.

# %%
summary = scoring.summary(slices)
with atomic_path(settings.output_root / "results" / "summary.csv") as temporary:
    summary.to_csv(temporary, index=False)
summary.style.hide(axis="index").format(precision=3, na_rep="-")

# %% [markdown]
# Two Dices of one network can lie far apart, and both are true. *Pooled* is ruled by the large tumours; the
# *mean per patient* gives a patient with one small tumour the same weight; and the LiTS convention for slices
# counts every empty slice that was left alone as a perfect 1. With so few patients the intervals are wide:
# **no** conclusion about another network should be drawn from a difference that fits inside them.

# %% [markdown]
# A check for whoever changes the code: on the phantom, this little network finds most of the tumour in
# patients it has not seen. If it does not, something is broken.

# %%
pooled_dice = summary.value.iloc[0]
print(f"pooled tumour Dice on the {settings.data_label}, {test.volume.nunique()} test patients: {pooled_dice:.2f}")
assert pooled_dice >= 0.70 or not settings.is_synthetic

# %%
patients = scoring.patient_scores(slices)
patients.round(3)

# %%
plots.dice_distribution(slices, patients)
plt.show()

# %% [markdown]
# ## Look at the best, the median and the worst
#
# Of the slices with tumour, ordered by Dice. Where the files tell, R and L are the patient's right and left, and a bar
# gives the scale: a tumour's size in mm is what a radiologist asks for first.

# %%
ordered = slices[slices.truth_pixels > 0].sort_values("dice", ascending=False)
chosen = {"best": ordered.index[0], "median": ordered.index[len(ordered) // 2], "worst": ordered.index[-1]}


def case(position, words=""):
    """CT, truth and probability of a test slice, and which it is."""
    row = test.iloc[position]
    image, truth = read_image(row.image_path), masks.read_labels(row.mask_path) == masks.TUMOUR
    return image, truth, inference.enlarged(probabilities[position], truth.shape), f"{words}volume {row.volume}, slice {row.slice}"


# %%
cases = [case(position, f"{word}: ") for word, position in chosen.items()]
plots.predictions(cases, marks=drawing.slice_marks(test.iloc[list(chosen.values())]))
plt.show()

# %% [markdown]
# Look at where the errors lie: a rim around a tumour that was found costs little; a tumour that was missed, or
# a stomach taken for one, is another kind of mistake. Dice gives both a number and tells you nothing about
# which it was.
#
# The same for the twenty worst slices, the worst first by Dice, by pixels missed or by pixels added. (Stored widgets do
# not show on GitHub or Kaggle: run the notebook.)

# %%
widgets.prediction_reviewer([case(position) for position in ordered.index[-20:]])

# %% [markdown]
# ## Move the threshold
#
# 0.30 is the report's choice, not a law. On the median slice, from cautious to bold:

# %%
_, truth, large, title = cases[1]
pd.DataFrame(
    [(t, (large > t).sum(), scoring.dice(truth, large > t)) for t in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)],
    columns=["threshold", "predicted pixels", "Dice"],
).round(3)

# %%
widgets.threshold_explorer(cases[1][0], truth, large)

# %% [markdown]
# Do not choose the threshold that scores best here: this is the test part. Use the validation patients.

# %% [markdown]
# ## Save the predictions
#
# A mask for each slice, at its native size, and a list of them.

# %%
saved = inference.predict_files(model, test, settings.output_root / "predictions")
pd.read_csv(saved).head()

# %% [markdown]
# ## Recap
#
# - The report's 173 of 200 is detection by slice, on tumour slices that share patients with training.
# - A Dice without its aggregation, its unit, its rule for empty masks and its number of patients is not a
#   result.
# - Predictions lie below the output root as PNG, with a CSV.
#
# ## Exercises
#
# 1. Set every prediction to a single pixel in a corner. What does the report's count say, and what does Dice?
# 2. Choose the threshold with the best pooled Dice on the *validation* patients, then apply it to the test
#    patients. How much of the gain is left?
# 3. Leave the slices without tumour out of `test`. Which lines of the summary change, and why is that an
#    unfair test?
