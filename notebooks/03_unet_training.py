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
# # 03 · Train a U-Net
#
# **You will do:** build the report's U-Net, train it on the slices of the training patients, and read its
# learning curves.
#
# **You will learn:** how the network is put together and what its size costs, what loss and metrics say
# while it learns, and how a long run survives an interruption.
#
# **You need:** nothing; the ideas of notebooks 01 and 02. About two minutes on two CPU cores in the
# `tiny` profile; `LITS_PROFILE=full` trains the report's full network and wants a GPU.
#
# *For study only: not a medical device.*

# %% [markdown]
# ## Set up

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lits_helpers import audit, drawing, load_settings, metrics, model_widgets, plots, training, widgets
from lits_helpers.generators import batches, decode_slices
from lits_helpers.model import unet
from lits_helpers.model_size import unet_levels
from lits_helpers.recipes import RECIPES

drawing.compact_figures()
settings = load_settings()
keras.utils.set_random_seed(settings.seed)
print(settings)

# %% [markdown]
# ## Build the network
#
# A U-Net reads a slice twice over: on the way down it halves the picture and doubles the channels, to see
# *what* is there; on the way up it returns to full size, and *skip connections* bring back *where* it was.
# Here is a small one, level by level, as the report builds it.

# %%
small = unet((64, 64, 3), filters=4, depth=2)
pd.DataFrame(
    [(layer.name, "x".join(map(str, layer.output.shape[1:])), layer.count_params()) for layer in small.layers],
    columns=["layer", "output", "parameters"],
)

# %% [markdown]
# Two things are the report's own. Each block normalises once, after its second convolution; and the skip
# connection takes that convolution's output from *before* the normalisation. Find `concatenate` in the list
# and see what feeds it:

# %%
for layer in small.layers:
    if isinstance(layer, keras.layers.Concatenate):
        print(layer.name, "joins", " and ".join(tensor._keras_history.operation.name for tensor in layer.input))

# %% [markdown]
# ## Count what size costs
#
# Doubling the filters quadruples the parameters. The report's network, 64 filters and four poolings, has 31
# million. The one trained here is smaller; the code is the same. No network is built for these numbers: they follow
# from the sizes of its layers.

# %%
sizes = [(f, d) for d in (3, 4) for f in (8, 16, 32, 64)]
pd.DataFrame(
    [(f, d, unet_levels(256, filters=f, depth=d)[["encoder", "decoder"]].to_numpy().sum()) for f, d in sizes],
    columns=["filters", "depth", "parameters"],
).pivot(index="filters", columns="depth", values="parameters")

# %% [markdown]
# The report's, level by level: the lowest has the most parameters, the first one needs the most memory. Below it the
# same to play with. (Stored widgets do not show on GitHub or Kaggle: run the notebook.)

# %%
model_widgets.unet_overview(unet_levels(256, filters=64, depth=4))
plt.show()

# %%
widgets.model_playground()

# %% [markdown]
# ## Choose a loss
#
# Tumour is rare: a network that says "no" everywhere is right for about 99 pixels in 100. Cross-entropy
# alone is nearly content with that. Dice looks at the overlap only, so the report adds the two. Worked out
# for a 3 x 3 picture with three tumour pixels:

# %%
truth = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]], "float32")
guesses = {
    "perfect": truth,
    "nothing": np.zeros_like(truth),
    "everything": np.ones_like(truth),
    "one missed, one too many": np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0]], "float32"),
}
pd.DataFrame(
    {
        name: {
            "pixel accuracy": float((truth == guess).mean()),
            "dice_coef (smooth = 1)": float(metrics.dice_coef(truth, guess)),
            "iou (smooth = 1)": float(metrics.iou(truth, guess)),
        }
        for name, guess in guesses.items()
    }
).T.round(3)

# %% [markdown]
# By hand, the last row: two pixels shared, three and three marked, so Dice is (2 x 2 + 1) / (3 + 3 + 1) =
# 0.714. The added ones keep an empty slice from dividing by zero, and flatter small tumours.

# %% [markdown]
# ## Split by patient and decode
#
# Whole patients for training, validation and test, as notebook 01 showed. The test part is not touched here.

# %%
table = audit.load_patient_split(settings)
cache = decode_slices(table, settings.image_size, settings.output_root)
table.groupby("split").agg(volumes=("volume", "nunique"), slices=("slice", "size"))

# %% [markdown]
# ## Train
#
# The settings name a *recipe*. `report`, taken unless told otherwise, is the report's network, loss and
# augmentation; below it races another. The step size falls as the settings' `schedule` says: the report divides it
# by ten whenever the validation loss has not fallen for five epochs (`plateau`); a short run does better with a
# cosine, which rises at first and ends small without waiting.
#
# Every epoch is saved. Interrupt the kernel, run the cell again, and training goes on after the last finished
# epoch; run it once more when it is done, and it returns at once. On Kaggle, give `minutes=` a little less
# than the session has.
#
# To watch a long run from another notebook: `widgets.training_monitor(training.run_folder(settings, table))`, with the
# settings and the table of the run.

# %%
folder = training.train(settings, table)

# %% [markdown]
# ## Read the curves
#
# `loss` is what is minimised. `dice_coef` is the report's metric: of probabilities, smoothed, averaged over
# batches. `pooled_dice` counts pixels over all batches before it divides, at the report's threshold of 0.30;
# it is the one that means something. `accuracy` is the share of right pixels, and is near 1 from the start. A
# recipe of three classes, such as `fast`, has the pooled Dice alone.

# %%
history = training.read_history(folder)
columns = ["epoch", "loss", "val_loss", "val_accuracy", "val_dice_coef", "val_pooled_dice", "learning_rate"]
history.filter(columns).iloc[::5].round(4)

# %%
plots.training_curves(history)
plt.show()

# %% [markdown]
# Training and validation curves that part company mean that the network is learning its patients by heart.
# The validation patients are few: their curve jumps because each of them is a large share of it.

# %% [markdown] tags=["not-in-demo"]
# ## Race two recipes
#
# The same patients, the same machine, the same seconds at most: the recipe above, and `fast`. That one works at half
# resolution, a quarter of the arithmetic at each level; asks two nested questions (is this liver? is this liver
# tumour?), so that the many liver pixels teach too; and takes batches of four, twice as many steps for the same
# pictures.

# %% tags=["not-in-demo"]
minutes = history.seconds.sum() / 60
other = load_settings(recipe="fast")
other_folder = training.train(other, table, minutes=minutes)
plots.dice_against_seconds(
    {settings.recipe: history, other.recipe: training.read_history(other_folder)}, data=settings.data_label
)
plt.show()

# %% [markdown]
# On the phantom `fast` does not win: drawn tumours are large and dark, and full resolution finds them in a few
# epochs. Look at the order of the curves on your own data before you believe either.
#
# What makes the seconds themselves shorter than the report's way, whatever the recipe:
#
# - *Bytes, not files.* Every slice is decoded once, into a memory map. An epoch then costs one warp a slice, about
#   half a millisecond of a core, against 12 ms in the report's way. One core makes some 1,700 pairs of 256x256 a
#   second. The report's network takes 289 GFLOP a pair, forward and backward, so this CPU uses one pair a second; a
#   T4 at its nominal 65 TFLOP/s could at most use 225, an H100 at 989 some 3,400, and would want two cores. (Nominal
#   peaks by NVIDIA's data sheets, not measured; real training reaches a part of them.)
# - *Half the bits.* In `bfloat16` the same CPU does 1.7 times the steps. The last layer, and sums in losses and
#   scores, stay in 32 bits; Dice differs by less than 0.005.
# - *A schedule that ends.* A warm-up and a cosine bring a short run to a small step size without a plateau.

# %% [markdown]
# ## See why a batch average is no Dice
#
# The same network, the same validation slices, three batch sizes.

# %%
model = training.load_checkpoint(folder / "best.keras", settings.image_size)
validation = table[table.split == "validation"]
scores = {}
for batch_size in (4, 16, 64):
    data = batches(cache, validation, batch_size, classes=RECIPES[settings.recipe].classes)
    scores[batch_size] = model.evaluate(data, return_dict=True, verbose=0)
pd.DataFrame(scores).T.filter(["dice_coef", "pooled_dice"]).rename_axis("batch size").round(3)

# %% [markdown]
# `dice_coef` changes with the batch size, which is not a property of the network. `pooled_dice` does not.

# %% [markdown]
# ## Recap
#
# - A U-Net is blocks, poolings and skip connections; its parameters grow with the square of the filters.
# - Cross-entropy makes every pixel teach; Dice makes the rare ones count.
# - Believe the pooled score of whole patients that the network has not seen.
# - The run folder holds the best network, every epoch's weights, the history and the split.
#
# ## Exercises
#
# 1. Train with `splits.split_slices` instead, the report's split. How does the validation score change, and
#    why is that no progress?
# 2. `dataclasses.replace(settings, filters=8)` makes a network with a quarter of the parameters. Train it.
#    What does the validation score lose, and what is gained in seconds per epoch?
# 3. Interrupt training in the middle of an epoch, run the cell again, and find in `history.csv` where it went
#    on.
