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
# # 07 · Climb from the report's recipe to a strong one
#
# **You will do:** change one thing at a time, train every change for equally many seconds, and see what it gains
# on validation patients and what it costs. Then see what more filters buy.
#
# **You will learn:** how an ablation is read: at equal cost, patient by patient, with an interval.
#
# **You need:** nothing. Without `LITS_DATA_ROOT` the notebook works on the synthetic *phantom*, with networks so
# small that each gets a few seconds: one to two minutes on two CPU cores. With it, five minutes a rung in the
# `tiny` profile, about two hours in all; `LITS_PROFILE=full` wants a GPU and days. What was trained is kept.
#
# *For study only: not a medical device.*

# %% [markdown]
# ## Set up

# %%
import keras
import matplotlib.pyplot as plt
import pandas as pd

from lits_helpers import audit, drawing, ladder, ladder_plots, load_settings, rungs

drawing.compact_figures()
settings = load_settings()
keras.utils.set_random_seed(settings.seed)
print(settings)

# %% [markdown]
# ## Say what is equal
#
# A longer training beats most clever ideas. So each rung gets the same number of seconds, by a clock that
# stands still while TensorFlow compiles the network and while it is validated and stored. A rung that works
# in the liver's region pays for the network that finds the liver: a fifth of its time.
#
# Scores are those of the *validation* patients, since choices are made by them. The test patients stay aside.

# %%
kind = ladder.kind(settings)
table = audit.load_patient_split(settings)
print(f"{settings.data_label}: {ladder.SECONDS[kind]:g} seconds a rung, {ladder.SIZES[kind]['rung']}")
sides = table[table.split != "test"].groupby(["split", "volume"]).tumour_pixels.sum() > 0
sides.groupby("split").agg(patients="size", with_tumour="sum")

# %% [markdown]
# ## The rungs
#
# Each keeps all choices of the one before, and changes one.

# %%
pd.DataFrame([(rung.name, rung.words) for rung in rungs.LADDER], columns=["rung", "what changes"]).style.hide(axis="index")

# %% [markdown]
# Why each may help:
#
# - *Own blocks* normalise after every convolution; gradients keep their size.
# - *Three classes*: the liver is large and easy, and whoever knows where it is looks for tumours there.
# - *Coarse stem*: half the rows and columns make a quarter of the work, so the clock allows more steps.
# - *Liver region*: all pixels are spent on the liver, and contrast medium no longer matters.
# - *Neighbours*: a vessel goes on in the next slice, a lesion is round.
# - *By patient*: the score counts patients, not slices; so does training now.
# - *Intensity* and *lesions*: scanners and tumours that the training patients do not have.
# - *Distractors*: what is dark and touches the liver need not be a tumour. Without them, gallbladders were marked in
#   real slices.
# - *Windows*: parts of the region, about a pixel of liver, cost less than half of it.
# - *Flips*: four answers to one slice err differently. It costs four predictions, and no training.

# %% [markdown]
# On the phantom there is time for some of them; each then takes several steps at once.

# %%
few = ("report", "three classes", "coarse stem", "windows", "flips")
chosen = [rung for rung in rungs.LADDER if not settings.is_synthetic or rung.name in few]
results = ladder.climb(settings, table, chosen)

# %%
steps = ladder.ladder_table(results)
steps[["tumour_dice_per_case", "low", "high", "cases", "left_out", "gain", "gain_low", "gain_high", "better", "worse"]].round(3)

# %% [markdown]
# `tumour_dice_per_case` is a mean over patients, both masks empty left out, one empty 0. `gain` is taken patient by
# patient, against the rung before. What it costs:

# %%
steps[["parameters", "training_seconds", "training_images", "seconds_per_training_image", "seconds_per_100_slices", "false_positive_voxels"]].round(4)

# %%
ladder_plots.ladder_figure(steps, data=settings.data_label)
plt.show()

# %% [markdown]
# **What the phantom can say:** that each rung trains, predicts and is scored alike, and how long a prediction takes
# beside the others. **What it cannot:** which step pays. Two of its validation patients have a tumour, and an interval
# over so few is hardly one. A run of seconds ends before most steps could matter: three classes, a region that must be
# found and augmentation ask for more images than fit in, so that later rungs may well score *less* here. Lesions of
# the phantom are easier than real ones, too. Other work on the machine slows some rungs and not others: climb on a
# quiet one.

# %% [markdown]
# ## Side steps
#
# Other blocks, norms and losses, each in place of one choice of the last rung that trains, and compared to that one.
# They are climbed on slices only: on the phantom they would double the time and say as little.

# %%
aside = () if settings.is_synthetic else rungs.ALTERNATIVES
top = rungs.LADDER[-2]
beside = ladder.ladder_table(ladder.climb(settings, table, [top, *aside]), against=top.name)
beside[["tumour_dice_per_case", "low", "high", "gain", "gain_low", "gain_high", "parameters", "seconds_per_training_image"]].round(3)

# %%
pd.DataFrame([(rung.name, rung.words) for rung in rungs.ALTERNATIVES], columns=["side step", "what changes"]).style.hide(axis="index")

# %% [markdown]
# ## What do 31 million parameters buy?
#
# The report's U-Net has 64 filters at its first level. Here it is with fewer, for equally many seconds. On the phantom
# networks of more than 16 filters are not trained: one step and one batch of predictions are timed.

# %%
filters = (8, 16, 64) if settings.is_synthetic else (8, 16, 32, 64)
costs = ladder.cost_ladder(settings, table, filters=filters)
costs[["parameters", "trained", "tumour_dice_per_case", "low", "high", "training_images", "seconds_per_training_image", "seconds_per_100_slices"]].round(4)

# %%
ladder_plots.cost_figure(costs, data=settings.data_label)
plt.show()

# %% [markdown]
# Eight times the filters are sixty-four times the parameters; how many times the seconds, the table says. In a given
# time a large network sees fewer slices. Whether its size is worth that depends on the time there is.

# %%
first, last = costs.iloc[0], costs.iloc[-1]
print(f"{last.parameters / first.parameters:.0f} times the parameters of {costs.index[0]} filters,")
print(f"{last.seconds_per_training_image / first.seconds_per_training_image:.1f} times the seconds a training image")

# %% [markdown]
# ## On real slices
#
# No rung of this ladder has been climbed on real slices yet. The strong recipe was, on 20 LiTS volumes (every second
# slice) in four folds by patient: tumour Dice per case 0.46 (0.33 to 0.59, 16 patients with tumour; by fold 0.39, 0.38,
# 0.48, 0.60). These are figures from development, by networks trained for 6 to 7 minutes, with thresholds chosen on the
# same folds, so they flatter; the README says what else differed. Without distractors and windows, and with other
# synthetic lesions, it was 0.41. The liver of one patient without contrast medium was not found, and a bright,
# exophytic lesion was missed. No number of this notebook's figures says anything about patients.

# %% [markdown]
# ## Recap
#
# - A step is compared at equal cost, or the comparison is between costs.
# - Gains are taken patient by patient; an interval that holds 0 may be chance.
# - Choices are made on validation patients; who chose among many rungs was also lucky. Test patients tell.
# - Size is a cost like any other.
#
# ## Exercises
#
# 1. `ladder.climb(settings, table, chosen, seconds=8)`: which gains stay when everything gets twice the time?
# 2. Make a rung of your own with `dataclasses.replace(rungs.LADDER[-2], name="mine", words="...", norm="none")`, and
#    compare it with `against="windows"`.
# 3. Put the results of several splits together (`splits.fold_split`) before `ladder_table`. How much narrower do the
#    intervals become?
