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
# # 09 · See what the network looks at
#
# **You will do:** draw maps of what a tumour's score hangs on, put them to a test that many such maps fail,
# cut the network's skip connections, and ask whether it knows when it is wrong.
#
# **You will learn:** what gradients and Grad-CAM show of a segmentation network and what they only seem to
# show, what the skip connections are worth, and how to check a probability and an uncertainty against errors.
#
# **You need:** the ideas of notebooks 03 and 04. If notebook 03 has not been run, its training is done here
# first; about a minute after that.
#
# *For study only: not a medical device.*

# %% [markdown]
# ## Set up

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import ndimage

from lits_helpers import audit, calibration, drawing, explanation, explanation_plots, inference, lesions
from lits_helpers import load_settings, masks, repeated_predictions, skip_connections, training, uncertainty
from lits_helpers.generators import decode_slices

drawing.compact_figures()
settings = load_settings()
keras.utils.set_random_seed(settings.seed)
print(settings)

# %% [markdown]
# ## Choose a lesion
#
# The network with the lowest validation loss, as in notebook 04, and the test patients: it has not seen them.
# All maps below are about one lesion, the one with the largest section.

# %%
table = audit.load_patient_split(settings)
model = training.load_checkpoint(training.train(settings, table) / "best.keras", settings.image_size)
cache = decode_slices(table, settings.image_size, settings.output_root)
test = table[table.split == "test"]
images, labels = cache.images[cache.positions(test)], cache.labels[cache.positions(test)]

# %%
place = int((labels == masks.TUMOUR).sum(axis=(1, 2)).argmax())
image, truth = images[place], labels[place]
numbered, count = lesions.components(truth == masks.TUMOUR)
lesion = numbered == np.bincount(numbered[numbered > 0]).argmax()
row = test.iloc[place]
print(f"{settings.data_label}: volume {row.volume}, slice {row.slice}, {count} lesions, the largest {lesion.sum()} pixels")

# %% [markdown]
# ## Ask the gradient
#
# Add up the scores of the lesion's pixels (what enters the last sigmoid), and ask for each pixel of the input:
# if it changed a little, how much would that sum change? The size of the answer is a *saliency map*. *SmoothGrad*
# averages the gradients of noisy copies, because a single one is ragged.

# %%
maps = {
    "Gradient": explanation.saliency(model, image, lesion),
    "SmoothGrad": explanation.saliency(model, image, lesion, noise=0.15, samples=30),
    "Grad-CAM, bottleneck": explanation.grad_cam(model, image, lesion),
}
explanation_plots.explanation_maps(image, truth, lesion, maps)
plt.show()

# %% [markdown]
# *Grad-CAM* asks another question: where does a layer of the network hold features that speak for the lesion?
# Each feature map is weighted by its mean gradient; what remains above zero is drawn. The bottleneck is the
# coarsest layer, here of few pixels, so its map is a blur, and it need not be brightest at the lesion: look
# outside the body, too.
#
# The bright pixels of the gradients in and around the lesion look like an explanation. Keep that thought until
# the test below.

# %% [markdown]
# ## Look at other layers
#
# One layer for each resolution, on the way down and up again.

# %%
names = explanation.stages(model)
sizes = [model.get_layer(name).output.shape[1] for name in names]
down = sizes.index(min(sizes))
stages = {
    f"{'down' if number < down else 'up' if number > down else 'bottleneck'}, {size} x {size}": explanation.grad_cam(model, image, lesion, layer=name)
    for number, (name, size) in enumerate(zip(names, sizes))
}
explanation_plots.explanation_maps(image, truth, lesion, stages)
plt.show()

# %% [markdown]
# As many answers as layers. On the way down a map marks edges, or tissue of one brightness wherever it is, for a
# feature that speaks for this lesion also occurs elsewhere. The last layers all but repeat the prediction, which
# needs no explaining. Whichever layer is shown, somebody has chosen it.

# %% [markdown]
# ## Put the maps to the test
#
# A map that explains what was *learnt* must change when the network forgets. So its weights are replaced by
# random ones, layer by layer from the answer down to the input, and the map is drawn again each time
# (Adebayo et al. 2018).

# %%
methods = {
    "Gradient": lambda network: explanation.saliency(network, image, lesion),
    "Grad-CAM": lambda network: explanation.grad_cam(network, image, lesion),
}
checks = {name: explanation.randomisation_check(model, explain, seed=settings.seed) for name, explain in methods.items()}
explanation_plots.randomisation_maps(checks, lesion)
plt.show()

# %% [markdown]
# Look at the gradient's row: the last picture is of a network that has learnt *nothing*, and it still lights up
# the lesion. Convolutions look near by; whatever their weights, the score of a pixel hangs on its neighbours. A
# map that knows no network at all, only how far each pixel is from the lesion, does as well:

# %%
distance = ndimage.distance_transform_edt(~lesion)
edges = np.hypot(*np.gradient(image[..., 1].astype(float)))
references = {
    "nearness to the lesion": explanation.map_similarity(maps["Gradient"], 1 / (1 + distance)).spearman,
    "edges of the CT": explanation.map_similarity(maps["Gradient"], edges).spearman,
}
explanation_plots.randomisation_curves(checks, references=references)
plt.show()

# %% [markdown]
# The lines across are those two maps' rank correlation with the trained network's gradient. So compare only what
# lies within a few pixels of the lesion, where nearness explains less:

# %%
near = distance <= 6
rows = []
for name, (_, found) in checks.items():
    for words, inside in (("whole slice", None), ("within 6 pixels", near)):
        alike = explanation.map_similarity(found[0], found[-1], inside=inside)
        rows.append({"map": name, "compared": words, **alike._asdict()})
pd.DataFrame(rows).style.hide(axis="index").format(precision=2, na_rep="-")

# %% [markdown]
# Each row compares the trained network's map with that of the wholly random one (a dash: one of them is 0
# throughout, so there is no order to compare). Near the lesion the gradient does change, but much of it stays: the
# lesion's shape, which was put in as the question. Grad-CAM at the bottleneck hangs on the weights, and that is
# all this test can say for it: it passes, so it *may* mean something. Note also that its curve is not monotone:
# one random layer can turn the sign of a map, and the next turn it back.
#
# What this leaves of a single saliency map in a paper: ask for the same map of an untrained network beside it.

# %% [markdown]
# ## See what the skip connections carry
#
# The way down sends its maps across to the way up, at every level but the lowest. In the report's network these
# are convolutions *before* normalisation.

# %%
skips = skip_connections.skips(model)
features = skip_connections.feature_maps(model, image, [skip.source for skip in skips])
titles = [f"{skip.rows} x {skip.columns}\nof {skip.channels} maps" for skip in skips]
explanation_plots.skip_maps(image, features, titles)
plt.show()

# %% [markdown]
# The upper row is little more than the CT, inverted, smoothed or sharpened; further down there are fewer pixels,
# and what a map stands for is anybody's guess. Which of it is used? Let each skip carry zeros, and score all
# slices of the test patients again.

# %%
ablation = skip_connections.skip_ablation(model, cache, test)
explanation_plots.skip_ablation(ablation)
plt.show()

# %%
ablation[["step", "dice_pooled", "lesions", "lesions_found", "false_components", "false_positive_voxels"]].round(3)

# %% [markdown]
# Two cautions. This network was trained with its skips and is cut without warning: the loss says what *it*
# relies on, not what a network without skips could learn (exercise 2). And there are few test patients: an
# interval that holds 0 is no proof of uselessness, nor one of a gain.

# %% [markdown]
# ## Ask how sure it is
#
# A probability is one kind of doubt. Another: does the answer stay the same when the question is put
# differently? Here the slice is mirrored, and the answers are mirrored back (*test-time flips*). Or parts of the
# network are switched off at random (*dropout*), again and again.
#
# Monte-Carlo dropout wants a network that was trained with dropout; the report's U-Net has none. So dropout is
# *injected* after the bottleneck: a perturbation whose size we choose, no Bayesian posterior.

# %%
with_liver = test.diagnosis.to_numpy() > masks.EMPTY
shown, truths, volumes = images[with_liver], labels[with_liver], test.volume[with_liver].to_numpy()
once = calibration.predictive_uncertainty(inference.predict_slices(model, cache, test[with_liver])[None])
flips = repeated_predictions.flip_uncertainty(model, shown)
dropping = repeated_predictions.with_dropout(model, after=[explanation.bottleneck(model)], rate=0.2, seed=settings.seed)
dropout = repeated_predictions.dropout_uncertainty(dropping, shown, samples=8)

# %%
wrong = (once.mean > masks.THRESHOLD) != (truths == masks.TUMOUR)
worst = int(wrong.sum(axis=(1, 2)).argmax())
cases = [
    (shown[worst], truths[worst], calibration.Uncertainty(*(part[worst] for part in vars(answers).values())), name)
    for name, answers in (("flips", flips), ("injected dropout", dropout))
]
explanation_plots.uncertainty_maps(cases)
plt.show()

# %% [markdown]
# The slice with most wrong pixels. *Entropy* of the mean is all doubt together; the *standard deviation* is how
# far the answers differ. Both mark the rim of what was *predicted*. Compare them with the errors: where a whole
# part of a tumour is missed, is there any doubt inside it? A liver in a mirrored body lies on the wrong side, so
# flips also ask for something the network has met only if its training was flipped (that of notebook 03 is).

# %% [markdown]
# ## Check the probabilities
#
# Of the pixels that got a probability of about 0.7, are 70 % tumour? That is *calibration*. Counted are pixels at
# the network's resolution, within slices that show liver, chosen by the truth.

# %%
tumour = truths == masks.TUMOUR
counts = {
    name: calibration.calibration_counts(answers.mean, tumour, volumes)
    for name, answers in (("one pass", once), ("flips, mean", flips), ("injected dropout, mean", dropout))
}
explanation_plots.reliability_diagram(counts)
plt.show()

# %% [markdown]
# Read the right panel first: nearly every pixel is surely background. They make the calibration error tiny,
# whatever happens to the few pixels between 0.1 and 0.9, on which a threshold decides. In the left panel points
# above the diagonal are probabilities that were too low, and intervals from top to bottom say that so few patients
# cannot tell. Within the liver, the same predictions have another error:

# %%
choices = {"slices with liver": None, "pixels of liver and tumour": truths >= masks.LIVER}
found = {
    words: calibration.expected_calibration_error(calibration.calibration_counts(once.mean, tumour, volumes, inside=inside))
    for words, inside in choices.items()
}
pd.DataFrame([{"counted": words, **one._asdict()} for words, one in found.items()]).round(4)

# %% [markdown]
# One network, two calibration errors, and both depend on the number of bins. The intervals draw *patients*: one
# patient whose tumour is misjudged moves a whole bin, and half a million pixels of a few patients are a few
# patients.

# %% [markdown]
# ## Link uncertainty to error
#
# Is it wrong where it is unsure? Imagine a reader who checks pixels, the least sure first, and corrects them. The
# faster the errors go, the better the uncertainty. *Gain* is 1 where all errors come first and 0 for chance.

# %%
measures = {
    "one pass, entropy": (once.mean, once.entropy),
    "flips, entropy": (flips.mean, flips.entropy),
    "flips, variance": (flips.mean, flips.variance),
    "injected dropout, variance": (dropout.mean, dropout.variance),
}
errors = {name: (mean > masks.THRESHOLD) != tumour for name, (mean, _) in measures.items()}
rejections = {name: calibration.error_rejection(doubt, errors[name]) for name, (_, doubt) in measures.items()}
rates = {name: calibration.error_by_uncertainty(doubt, errors[name]) for name, (_, doubt) in measures.items()}
explanation_plots.rejection_curves(rejections, rates)
plt.show()

# %%
rows = []
for name, (_, doubt) in measures.items():
    gains = [calibration.error_rejection(doubt[volumes == v], errors[name][volumes == v]).gain for v in np.unique(volumes)]
    rows.append({"uncertainty": name, "wrong_pixels": int(errors[name].sum()), **vars(uncertainty.describe(gains))})
pd.DataFrame(rows)[["uncertainty", "wrong_pixels", "value", "low", "high", "cases", "left_out"]].round(3)

# %% [markdown]
# `value` is the mean gain of a patient, with its interval. High gains are cheap here: rims are unsure, and rims
# are where most errors lie. Look at the left end of the right panel instead. If the surest group holds errors,
# those are pixels that nobody would check: a tumour taken for liver without a doubt, say. Uncertainty cannot find
# what the network does not see.

# %%
surest = rates["one pass, entropy"].iloc[0]
lost = errors["one pass, entropy"] & tumour & (once.entropy <= surest.highest)
print(f"wrong pixels in the surest group of one pass: {surest.wrong_pixels:.0f} of {errors['one pass, entropy'].sum()},")
print(f"{lost.sum()} of them tumour, in {len(np.unique(volumes[lost.any(axis=(1, 2))]))} patients")

# %% [markdown]
# ## What the phantom can and cannot show
#
# The mechanics are the same on real slices: gradients are local, skips are relied on, calibration depends on what
# is counted. The findings are not. The phantom's tumours differ from liver by brightness and a smooth rim; nothing
# else looks like them, there are no vessels with thrombus, no artefacts, no other scanner, and its truth has no
# rater. A network that is well calibrated here, or whose flips find its errors, has shown nothing about patients.

# %% [markdown]
# ## Recap
#
# - A saliency map of a region lights up that region, trained or not. Draw it for a random network too.
# - Grad-CAM depends on the layer, and the layer on whoever drew it.
# - An ablation says what this network relies on.
# - Calibration needs the pixels, the bins and the patients that it was counted from.
# - An uncertainty is worth what it finds among the errors; sure errors stay hidden.
#
# ## Exercises
#
# 1. Explain a *false positive* instead of a lesion: take the prediction's components that share no pixel with the
#    truth. Do its maps look any different?
# 2. Repeat the ablation with `fill="mean"`, which keeps how much there is of a feature and loses where. Which
#    skips carry *where*?
# 3. Inject dropout with rates from 0.05 to 0.5. How do variance, Dice of the mean, and gain change, and which rate
#    would you report?
