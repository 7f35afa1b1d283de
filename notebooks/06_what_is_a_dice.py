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
# # 06 · Find out what a Dice of 0.85 is
#
# **You will do:** measure how much a leaking split flatters, give one set of predictions six Dice scores,
# choose a threshold where it may be chosen, count lesions, and write a page that a reviewer can read.
#
# **You will learn:** which questions to ask of any published number, and how to answer them for your own.
#
# **You need:** nothing. Without `LITS_DATA_ROOT` the notebook works on a synthetic abdomen (the *phantom*);
# with it, on your LiTS. It trains two small networks, and that of notebook 03 if it is not there yet: two to
# three minutes on two CPU cores.
#
# *For study only: not a medical device.*

# %% [markdown]
# ## Set up

# %%
from dataclasses import replace

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lits_helpers import audit, baselines, cases, comparability, crf, data_plots, drawing, effects, evaluation, generators
from lits_helpers import inference, lesions, load_settings, masks, metrics, pictures, postprocessing, result_plots
from lits_helpers import scoring, splits, training, uncertainty, view3d

drawing.compact_figures()
settings = load_settings()
keras.utils.set_random_seed(settings.seed)
print(settings)

# %% [markdown]
# ## The leak meter
#
# The report splits *slices* at random. A slice's neighbours, millimetres away and nearly the same picture,
# are then in training. How much is that worth? Two small networks are tested on the *same* slices and
# trained on equally many: for one, the other slices of the test patients are in training, for the other
# they are not.

# %%
folds = splits.fold_patients(audit.load_patients(settings), folds=3, seed=settings.seed)
apart = splits.fold_split(folds, 1, seed=settings.seed)
every_other = apart.groupby("volume").cumcount() % 2 == 0
tested = (apart.split == "test") & every_other
neighbours = (apart.split == "test") & ~tested
apart = apart.assign(split=np.where(neighbours, "left out", apart.split))
apart.groupby("split").agg(slices=("slice", "size"), patients=("volume", "nunique"))

# %% [markdown]
# For the leaking split the neighbours join the training slices, and as many others leave it.

# %%
random = np.random.default_rng(settings.seed)
train_rows = np.flatnonzero(apart.split == "train")
dropped = random.choice(train_rows, min(neighbours.sum(), len(train_rows) // 2), replace=False)
joined = random.choice(np.flatnonzero(neighbours), len(dropped), replace=False)
leaking = apart.split.to_numpy(copy=True)
leaking[dropped], leaking[joined] = "left out", "train"
designs = {"patients apart": apart, "neighbours in training": apart.assign(split=leaking)}
designs = {name: design[design.split != "left out"] for name, design in designs.items()}
print({name: int((design.split == "train").sum()) for name, design in designs.items()}, "slices to train on")

# %% [markdown]
# On the phantom a third of the epochs is enough to show it; real slices need them all before the tiny network
# learns anything.

# %%
short = replace(settings, epochs=settings.epochs // 3) if settings.is_synthetic else settings
cache = generators.decode_slices(folds, settings.image_size, settings.output_root)
by_design = {}
for name, design in designs.items():
    folder = training.train(short, design)
    model = training.load_checkpoint(folder / "best.keras", settings.image_size)
    rows = design[design.split == "test"]
    by_design[name] = scoring.patient_scores(inference.evaluate_slices(rows, inference.predict_slices(model, cache, rows)))

# %%
result_plots.uncertainty_plot(by_design)
plt.show()
uncertainty.uncertainty_table(by_design).round(3)

# %%
gap = uncertainty.paired_difference(by_design["patients apart"], by_design["neighbours in training"])
print(f"{settings.data_label}: the leak is worth {gap.mean:+.3f} Dice per patient ({gap.low:.3f} to {gap.high:.3f}),")
print(f"{gap.patients} patients with tumour, better in {gap.better}, worse in {gap.worse}")

# %% [markdown]
# The difference is taken patient by patient, over those that both runs score (one without tumour counts only where
# something is predicted). Few patients make a wide interval: when it holds 0, this run alone proves nothing. That
# is the other half of the lesson, since a single split of a small data set is what most reports have. And a network
# that predicts nothing for anybody has not learnt: then the gap says nothing about leaks.

# %% [markdown]
# ## One prediction, six Dices
#
# Now the network of notebook 03 (trained here if it is not there), the patient split, and all slices of the
# test patients.

# %%
table = audit.load_patient_split(settings)
model = training.load_checkpoint(training.train(settings, table) / "best.keras", settings.image_size)
test = table[table.split == "test"]
test_probabilities = inference.predict_slices(model, cache, test)
found = evaluation.evaluate(test, test_probabilities)

# %%
truth_small = (cache.labels[cache.positions(test)] == masks.TUMOUR).astype(np.float32)[..., None]
batches = [slice(start, start + settings.batch_size) for start in range(0, len(test), settings.batch_size)]
keras_average = np.mean([float(metrics.dice_coef(truth_small[b], test_probabilities[b, ..., None])) for b in batches])
of_lesions = cases.lesion_rows(inference.volume_cases(test, test_probabilities))
true_lesions = of_lesions[of_lesions.side == "truth"]
lesion_dice = 2 * true_lesions.iou / (1 + true_lesions.iou)
dice, scored_cases = found.slices.dice, found.cases
parts = np.stack([2 * scored_cases.tumour_shared_voxels, scored_cases.tumour_truth_voxels + scored_cases.tumour_predicted_voxels], 1)

# %%
six = {
    "per slice, both empty left out": uncertainty.describe(dice, patients=found.slices.volume),
    "per slice, both empty = 1": uncertainty.describe(dice.fillna(1), patients=found.slices.volume),
    "per slice, both empty = 0": uncertainty.describe(dice.fillna(0), patients=found.slices.volume),
    "per case, both empty left out": uncertainty.describe(scored_cases.tumour_dice, patients=scored_cases.volume),
    "pooled over all voxels": uncertainty.describe(parts, patients=scored_cases.volume),
    "per lesion, missed = 0": uncertainty.describe(lesion_dice, patients=true_lesions.volume),
}
rows = [{"Dice": name, "value": one.value, "low": one.low, "high": one.high, "n": one.cases, "patients": one.patients} for name, one in six.items()]
rows.append({"Dice": "Keras: mean over batches, smoothed", "value": keras_average, "n": len(batches)})
pd.DataFrame(rows).round(3)

# %% [markdown]
# One network, one set of slices, one threshold (the Keras value uses probabilities at the network's
# resolution, and has no patients to draw intervals from). Whoever reports "the" Dice has chosen a row. *Per case* and *per lesion* speak of patients;
# *pooled* is ruled by the largest tumours; *both empty = 1* rewards slices without anything in them.

# %% [markdown]
# ## The report's slice accuracy
#
# The report calls a slice correct when truth and prediction are both empty, or both not:
# `pred.any() == truth.any()`. Here is a prediction that is badly wrong: in each slice with a tumour a single
# pixel, in a corner of the picture.

# %%
wrong = []
for path in test.mask_path:
    truth = masks.read_labels(path) == masks.TUMOUR
    corner = np.zeros_like(truth)
    corner[0, 0] = truth.any()
    wrong.append((truth, corner))
corners = scoring.slice_scores(test, wrong)
print(f"slices 'correct': {scoring.report_detection(corners).correct / len(test):.0%}")
print(f"Dice, pooled: {2 * corners.intersection.sum() / (corners.truth_pixels.sum() + corners.predicted_pixels.sum()):.4f}")

# %% [markdown]
# ## Cases and lesions
#
# A radiologist counts lesions. Each row says what is averaged and what is left out; intervals are over
# patients.

# %%
evaluation.case_summary(found.cases).round(2)

# %%
evaluation.pooled_summary(found.cases).round(2)

# %%
lesions.recall_by_size(true_lesions).round(2)

# %% [markdown]
# On the phantom no lesion is small, although small ones were drawn: its masks are in the report's coding, which
# has swallowed them (notebook 01). What the truth does not hold, no score can miss. Label masks and volumes keep
# them.
#
# And what kind of lesions are missed or invented?

# %%
found.lesions.groupby(["kind", "reason"]).size().rename("lesions").reset_index()

# %% [markdown]
# The patient with most tumour, in three dimensions: what was found, and what was not. (To turn it by hand, end a cell
# with `view3d.view3d` and the same arguments; it needs the extra `view`.)

# %%
largest = test.volume == found.cases.volume[found.cases.tumour_truth_voxels.idxmax()]
[(_, truth, predicted, spacing)] = inference.volume_cases(test[largest], test_probabilities[largest.to_numpy()])
if spacing:
    is_oriented = drawing.slice_marks(test[largest])[0].is_radiological
    tumour_masks = truth == masks.TUMOUR, predicted == masks.TUMOUR
    view3d.rendering3d(truth >= masks.LIVER, *tumour_masks, spacing=spacing, is_oriented=is_oriented)
    plt.show()
else:
    print("no picture: these files do not say how far apart their voxels are")

# %% [markdown]
# ## Choose the threshold where it may be chosen
#
# The threshold of 0.30 is the report's. Another may be better, but a threshold chosen on test patients makes
# their score a training score. So: sweep on the *validation* patients, choose, then look at the test
# patients once.

# %%
validation = table[table.split == "validation"]
validation_probabilities = inference.predict_slices(model, cache, validation)
thresholds = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
sweep = [
    cases.pooled(cases.score_cases(inference.volume_cases(validation, validation_probabilities, threshold=t), predicts_liver=False))
    for t in thresholds
]
sweep = pd.DataFrame(sweep).assign(threshold=thresholds)
chosen = sweep.threshold[sweep.tumour_dice.idxmax()]
print("chosen on validation patients:", chosen)

# %% [markdown]
# The free-response curve looks at lesions: how many are found, and at the price of how many false ones per
# case.

# %%
def with_probability(rows, probabilities):
    """Tumour and its probability of each case, at the network's resolution."""
    for _, places in rows.reset_index(drop=True).groupby("volume").groups.items():
        truth = cache.labels[cache.positions(rows.iloc[places])] == masks.TUMOUR
        yield truth, probabilities[places]


curve = lesions.froc(with_probability(validation, validation_probabilities), thresholds)
result_plots.threshold_sweep(sweep, curve, chosen=chosen)
plt.show()

# %%
at = {
    threshold: cases.score_cases(inference.volume_cases(test, test_probabilities, threshold=threshold), predicts_liver=False)
    for threshold in (masks.THRESHOLD, chosen)
}
pd.concat([evaluation.pooled_summary(scored)[:1].assign(threshold=threshold) for threshold, scored in at.items()]).round(3)

# %% [markdown]
# ## Post-processing, step by step
#
# Small components are often false, but small lesions are small too. Options are chosen on validation patients;
# the table shows what each step gains and which true lesions it costs.

# %%
options = postprocessing.PostProcessing(minimum_voxels=60)


def tumours(rows, probabilities):
    """Truth and prediction of the tumour, and the true liver, as the steps want them."""
    for volume, truth, predicted, spacing in inference.volume_cases(rows, probabilities, threshold=chosen):
        yield effects.Prediction(volume, truth == masks.TUMOUR, predicted == masks.TUMOUR, spacing, truth >= masks.LIVER)


steps = effects.step_summary(effects.step_scores(tumours(validation, validation_probabilities), options=options))
steps[["step", "dice_pooled", "dice_pooled_change", "dice_pooled_change_low", "dice_pooled_change_high", "lesions_found", "true_lesions_lost", "false_components"]].round(3)

# %% [markdown]
# "Inside the liver" uses the *true* liver here, which no patient comes with: an oracle. Its gain is an upper
# bound of what a predicted liver could give.

# %% [markdown]
# The report names a fully connected conditional random field (CRF) as future work: pixels that lie near each
# other and look alike are to get the same label. On slices where the network sees anything at all:

# %%
def with_crf(rows, probabilities):
    """Truth and prediction of each case, before and after a CRF on its slices."""
    for volume, truth, predicted, spacing in inference.volume_cases(rows, probabilities, threshold=chosen):
        places = np.flatnonzero((rows.volume == volume).to_numpy())
        refined = (predicted == masks.TUMOUR).copy()
        for number, place in enumerate(places):
            if refined[number].any():
                image = pictures.read_image(rows.image_path.iloc[place])[..., 1]
                probability = inference.enlarged(probabilities[place], image.shape)
                refined[number] = crf.crf(probability, image, threshold=chosen) > chosen
        stages = {"before": predicted == masks.TUMOUR, "CRF": refined}
        yield effects.stage_scores(volume, truth == masks.TUMOUR, stages, spacing)


refined = effects.step_summary(pd.concat(with_crf(validation, validation_probabilities)))
refined[["step", "dice_pooled", "dice_pooled_change", "dice_pooled_change_low", "dice_pooled_change_high", "lesions_found", "false_components"]].round(3)

# %% [markdown]
# A CRF sharpens edges where the picture has them. It cannot find what the network has not seen, and it may
# outvote a small lesion.

# %% [markdown]
# ## Tumour burden
#
# Tumour volume over liver volume is what a clinician may want from a segmentation. A Dice can be fair and the
# burden still be biased, or the other way round.

# %%
print({name: round(value, 4) if isinstance(value, float) else value for name, value in cases.burden_errors(found.cases).items()})
bias = uncertainty.describe(found.cases.burden_predicted - found.cases.burden_truth, patients=found.cases.volume)
print(f"bias {bias.value:+.4f}, 95 % interval {bias.low:+.4f} to {bias.high:+.4f}, {bias.patients} patients")
result_plots.bland_altman(found.cases)
plt.show()

# %% [markdown]
# ## What it has to beat
#
# A number means little without its floor. Three predictions without any network: nothing, the whole liver, and
# what is darker than the patient's own liver, by a contrast learnt on training patients. The last two are given
# the true liver (oracle).

# %%
def with_contrast(rows):
    """Contrast to the liver (levels of the green channel), labels and spacing of each case."""
    for volume, truth, _, spacing in inference.volume_cases(rows, np.zeros((len(rows), 2, 2), np.float32)):
        paths = rows[rows.volume == volume].sort_values("slice").image_path
        green = np.stack([pictures.read_image(path)[..., 1] for path in paths])
        yield volume, baselines.contrast_to_liver(green, truth >= masks.LIVER), truth, spacing


learnt = baselines.learnt_threshold(
    (contrast, truth >= masks.LIVER, truth == masks.TUMOUR)
    for _, contrast, truth, _ in with_contrast(table[table.split == "train"])
)
print(f"{-learnt.threshold / 255 * 200:.0f} HU darker than the liver, learnt on {learnt.cases} training patients")

# %%
simple = {
    "nothing": lambda contrast, liver: baselines.nothing(liver),
    "whole liver (oracle)": lambda contrast, liver: baselines.everything(liver),
    "dark liver (oracle)": lambda contrast, liver: baselines.dark_liver(contrast, liver, learnt.threshold),
}
scored = {
    name: cases.score_cases(
        ((volume, truth, masks.TUMOUR * predict(contrast, truth >= masks.LIVER).astype(np.uint8), spacing)
         for volume, contrast, truth, spacing in with_contrast(test)), predicts_liver=False,
    )
    for name, predict in simple.items()
}
scored["small U-Net"] = found.cases
rows = [{"prediction": name, **vars(uncertainty.describe(s.tumour_dice, patients=s.volume))} for name, s in scored.items()]
pd.DataFrame(rows)[["prediction", "value", "low", "high", "median", "cases"]].assign(
    pooled=[cases.pooled(s)["tumour_dice"] for s in scored.values()],
    lesion_precision=[cases.pooled(s)["precision_any"] for s in scored.values()],
).round(3)

# %% [markdown]
# `value` is the mean tumour Dice per case, with its interval.

# %% [markdown]
# ## What may it be set beside?
#
# Published numbers carry a data set, a split, a metric and a unit, or should. `comparable_rows` says for each row
# of a small card what stands against setting your number beside it.

# %%
mine = dict(dataset="phantom" if settings.is_synthetic else "LiTS training", split="by patient", metric="Dice", unit="patient")
card = comparability.comparable_rows(**mine)
card[["method", "value", "metric", "unit", "dataset", "comparable", "reason"]].head(12)

# %% [markdown]
# The report's own row asks for a random slice split, tumour slices only, and pooled voxels: no other row does.

# %%
own = uncertainty.describe(found.cases.tumour_dice, patients=found.cases.volume)
data_plots.comparability_card(card, own.value, low=own.low, high=own.high)
plt.show()

# %% [markdown]
# ## Write it up
#
# One call puts all of this on a page that needs no network: scores with intervals, cases, lesions, the worst
# failures as pictures, the card, settings, versions. On the command line: `evaluate --report`.

# %%
page = evaluation.write_report(
    settings.output_root / "results" / "report.html", settings, test, test_probabilities, found,
    tested="test patients of the patient split",
)
print(f"{page.name}: {page.stat().st_size / 1e6:.1f} MB, one file")

# %% [markdown]
# ## Recap
#
# - A Dice needs a split, a unit, a rule for empty masks, a resolution and a threshold before it means anything.
# - Slices of one patient on two sides flatter. So does a threshold chosen on the test patients.
# - Detection of slices is not overlap, and overlap is not detection of lesions.
# - Few patients, wide intervals. An interval that holds 0 is an answer too.
#
# ## Exercises
#
# 1. Run the leak meter with `folds=4` and another fold. How far do the gaps differ, and what does that say about
#    the interval?
# 2. Predict the whole liver and compute the six Dices. Which of them looks good?
# 3. Choose `minimum_voxels` on the validation patients. Does it help the test patients?
