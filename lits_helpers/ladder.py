"""Ladders: what each step from the report's recipe to the strong one gains, and what filters cost.

Every rung gets equally many seconds of training (:class:`lits_helpers.clocks.StepClock`), and is scored at native resolution on
the validation patients. Patients of the test side are not looked at. What was trained and scored is stored
below the output root in ``ladder/``, and is not done again.

A rung in the liver's region pays for the network that finds the liver: that one gets a fifth of the
seconds, once for all rungs, and the network of the rung gets the rest. It learns in the region of the true
liver, and is scored in the one that was found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm.auto import tqdm

from .augmentation import Augmentation
from .cascade import AUGMENTATIONS, LIVER_SHARE, PASSES, STAGES, WINDOWS, Cascade, region_cache
from .clocks import StepClock
from .files import DataError, fingerprint, read_table, write_table
from .generators import SliceCache, batches, decode_slices, resize_image
from .inference import BATCH, TUMOUR_CHANNEL, enlarged, predict_images
from .losses import LOSSES
from .masks import TUMOUR, read_labels
from .metrics import PooledDice, TumourDice, bce_dice_loss
from .pictures import read_image
from .rungs import FINDER, LADDER, Rung
from .runs import load_checkpoint, read_history, run_folder, state_path
from .scoring import overlap
from .settings import Settings
from .training import Task, compiled, passes, run, shared_by
from .uncertainty import describe, paired_difference

# Ours, the same for all rungs. On the phantom small enough for a lesson; on slices, in the tiny profile, as
# the strong recipe has them; "full" is not tried.
SIZES = {
    "phantom": {
        "rung": dict(image_size=64, filters=8, depth=2, batch_size=8, learning_rate=4e-3),
        "liver": dict(image_size=64, filters=8, depth=2, batch_size=8, learning_rate=4e-3),
    },
    **{
        profile: {"rung": stages["tumour"], "liver": stages["liver"]} for profile, stages in STAGES.items()
    },
}
PARTS = {"phantom": 48, **WINDOWS}  # rows and columns that a rung with windows learns from at once
SECONDS = {"phantom": 4.0, "tiny": 300.0, "full": 4 * 3600.0}  # of training a rung, unless told otherwise
COST_DEPTH = 4  # poolings of the report's network, which with 64 filters has 31 million parameters
LARGEST = {"phantom": 16, "tiny": 64, "full": 64}  # filters that the cost ladder trains; more are timed
_REACHED = ["tumour_dice_per_case", "low", "high", "cases", "left_out", "false_positive_voxels"]
_TIMED = {"parameters": int, "seconds_per_training_image": float, "seconds_per_100_slices": float}
_COSTS = ["parameters", "training_seconds", "training_images", "seconds_per_training_image", "seconds_per_100_slices"]
_SCORED = {
    "volume": int, "dice": float, "truth_voxels": int, "predicted_voxels": int, "shared_voxels": int,
    "training_seconds": float, "training_images": int, **_TIMED,
}


@dataclass(frozen=True, eq=False)
class WholeSlices:
    """A network of whole slices, predicting as a :class:`lits_helpers.cascade.Cascade` does."""

    network: keras.Model

    def predict(
        self, pictures: Sequence[np.ndarray], numbers: Sequence[int], *, flips: bool = False
    ) -> tuple[np.ndarray, None]:
        """Look at one volume.

        Returns
        -------
        probabilities : float16 array (slices, rows, columns)
            Of tumour, in [0, 1], at the pictures' size.
        None
            It is not asked for the liver.
        """
        shape, size = pictures[0].shape[:2], self.network.input_shape[1]
        probabilities = np.zeros((len(pictures), *shape), np.float16)
        for start in range(0, len(pictures), BATCH):
            images = [resize_image(picture, size) for picture in pictures[start : start + BATCH]]
            for place, answer in enumerate(predict_images(self.network, images, flips=flips), start):
                probabilities[place] = enlarged(answer[..., TUMOUR_CHANNEL], shape)
        return probabilities, None


class _Climb:
    """What all rungs share: settings, patients, time, and the networks that are trained."""

    def __init__(self, settings: Settings, table: pd.DataFrame, seconds: float):
        if "split" not in table or not {"train", "validation"} <= set(table.split):
            raise DataError("the slice table needs train and validation patients: use splits.split_patients")
        if seconds <= 0:
            raise ValueError(f"seconds must be above 0, got {seconds}")
        self.table = table[table.split.isin(["train", "validation"])].sort_values(["volume", "slice"])
        sizes = SIZES[kind(settings)]
        self.settings = replace(settings, **sizes["rung"], recipe="fast")
        self.liver_settings = replace(settings, **sizes["liver"], recipe="fast")
        self.seconds = seconds
        self.latest: tuple[Path, keras.Model, pd.Series] | None = None
        name = run_folder(self.settings, self.table).name
        key = fingerprint([], name, sorted(sizes["liver"].items()), AUGMENTATIONS, seconds)[:8]
        self.folder = settings.output_root / "ladder" / f"{kind(settings)}-{key}"

    @cached_property
    def slices(self) -> SliceCache:
        return decode_slices(self.table, self.settings.image_size, self.settings.output_root)

    @cached_property
    def regions(self) -> tuple[SliceCache, pd.DataFrame]:
        cache, rows = region_cache(self.table, self.slices, self.settings.image_size, self.settings.output_root)
        if set(rows.split) != {"train", "validation"}:
            raise DataError("no slice shows a liver on one side of the split: there is no region to learn from")
        return cache, rows

    @cached_property
    def finder(self) -> tuple[keras.Model, pd.Series]:
        """The network that finds the liver, and the last row of its history."""
        cache = decode_slices(self.table, self.liver_settings.image_size, self.settings.output_root)
        seconds = LIVER_SHARE * self.seconds
        task = _task(FINDER, self.liver_settings, self.table, cache, AUGMENTATIONS["liver"], seconds, self.folder / "liver")
        return _trained(task, seconds)

    def of_rung(self, rung: Rung) -> tuple[keras.Model, pd.Series]:
        """Its network, and the last row of its history. The latest is kept, for a rung that trains nothing."""
        folder = self.folder / _key(replace(rung, flips=False))
        if self.latest is None or self.latest[0] != folder:
            (cache, rows), seconds = (self.slices, self.table), self.seconds
            if rung.region:
                (cache, rows), seconds = self.regions, (1 - LIVER_SHARE) * self.seconds
            window = PARTS[kind(self.settings)] if rung.windows else None
            task = _task(rung, self.settings, rows, cache, rung.augmentation, seconds, folder, window)
            network, last = _trained(task, seconds)
            if window:
                whole = rung.network(self.settings)
                whole.set_weights(network.get_weights())
                network = whole
            self.latest = folder, network, last
        return self.latest[1:]

    def scored(self, rung: Rung) -> pd.DataFrame:
        """Rows of :func:`climb`, of one rung."""
        network, last = self.of_rung(rung)
        networks, spent, predictor = [network], last.trained_seconds, WholeSlices(network)
        if rung.region:
            finder, of_finder = self.finder
            networks, spent = [finder, network], spent + of_finder.trained_seconds
            predictor = Cascade(finder, network)
        rows, predicting = [], 0.0
        for made in networks:  # compiled before anything is timed
            predict_images(made, np.zeros((1, *made.input_shape[1:]), np.uint8))
        validation = self.table[self.table.split == "validation"]
        groups = validation.groupby("volume")
        for volume, of_volume in tqdm(groups, desc="validation patients", unit="volume", delay=2):
            pictures = [read_image(path) for path in of_volume.image_path]
            started = time.perf_counter()
            probabilities, _ = predictor.predict(pictures, of_volume.slice.tolist(), flips=rung.flips)
            predicting += time.perf_counter() - started
            truth = np.stack([read_labels(path) for path in of_volume.mask_path]) == TUMOUR
            counts = overlap(truth, probabilities > rung.threshold)
            rows.append({
                "volume": volume,
                "patient": of_volume.patient.iloc[0] if "patient" in of_volume else volume,
                "dice": counts.dice, "truth_voxels": counts.truth_pixels,
                "predicted_voxels": counts.predicted_pixels, "shared_voxels": counts.intersection,
            })
        return pd.DataFrame(rows).assign(
            parameters=sum(made.count_params() for made in networks), training_seconds=spent,
            training_images=int(last.trained_steps * self.settings.batch_size),
            seconds_per_training_image=last.trained_seconds / (max(1, last.trained_steps) * self.settings.batch_size),
            seconds_per_100_slices=100 * predicting / len(validation),
        )


    def timed(self, rung: Rung) -> dict[str, float]:
        """Size and times of a rung of whole slices that is not trained, after a step and a batch that compile it."""
        task = _task(rung, self.settings, self.table, self.slices, rung.augmentation, self.seconds, self.folder)
        network = task.network()
        images, truth = next(iter(task.training(0, 1)))
        pictures = np.zeros((BATCH, *network.input_shape[1:]), np.uint8)
        took = {}
        for name, number, work in (
            ("seconds_per_training_image", len(images), lambda: network.train_on_batch(images, truth)),
            ("seconds_per_100_slices", BATCH / 100, lambda: predict_images(network, pictures)),
        ):
            work()
            started = time.perf_counter()
            work()
            took[name] = (time.perf_counter() - started) / number
        return {"parameters": network.count_params(), **took}


def climb(
    settings: Settings, table: pd.DataFrame, rungs: Sequence[Rung] = LADDER, *, seconds: float | None = None
) -> pd.DataFrame:
    """Train every rung for equally many seconds, and score it on the validation patients.

    Parameters
    ----------
    settings : Settings
        Sizes are those of :data:`SIZES`, by the data and the profile.
    table : DataFrame
        Slice table of whole volumes with ``split``. Test patients are left out.
    rungs : sequence of Rung
    seconds : float, optional
        Of training, as :class:`StepClock` counts them; :data:`SECONDS` unless told.

    Returns
    -------
    DataFrame, a row for each rung and validation volume
        - ``rung``, its name; ``volume``; ``patient``
        - ``dice`` of tumour over all slices at native resolution: NaN where truth and prediction are empty, 0
          where one is; ``truth_voxels``, ``predicted_voxels``, ``shared_voxels``
        - the same in all rows of a rung: ``parameters`` and ``training_seconds``, both with the network that
          finds the liver; ``training_images`` seen and ``seconds_per_training_image``, both without it;
          ``seconds_per_100_slices`` of prediction, without reading files

    Raises
    ------
    DataError
        If a side of the split is missing, or shows no liver.
    """
    names = [rung.name for rung in rungs]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"rungs need names of their own, got {names}")
    climbing = _Climb(settings, table, SECONDS[kind(settings)] if seconds is None else seconds)
    found = []
    for rung in tqdm(rungs, desc="rungs", unit="rung", delay=2):
        path = climbing.folder / f"{_key(rung)}.csv"
        if not path.exists():
            rows = climbing.scored(rung)
            write_table(path, rows)
        found.append(read_table(path, _SCORED).assign(rung=rung.name))
    found = pd.concat(found, ignore_index=True)
    return found[["rung", *found.columns.drop("rung")]]


def ladder_table(results: pd.DataFrame, *, against: str | None = None) -> pd.DataFrame:
    """What each rung reaches, gains and costs.

    Parameters
    ----------
    results : DataFrame
        Of :func:`climb`; of several splits put together, if no volume comes twice in a rung.
    against : str, optional
        The rung that all are compared to; by default the one before.

    Returns
    -------
    DataFrame, indexed by the rung's name, in the order of ``results``
        - ``tumour_dice_per_case``, mean (both empty left out, one empty 0), ``low`` and ``high``, its
          patient-level bootstrap 95 % interval; ``cases``, and those ``left_out``
        - ``gain``, mean paired difference, ``gain_low`` and ``gain_high``, its interval, and the cases that are
          ``better`` or ``worse``: of the cases that have a Dice in both. NaN and 0 where there is nothing to
          compare to
        - ``false_positive_voxels``, predicted in the cases without tumour, all together
        - ``parameters``, ``training_seconds``, ``training_images``, ``seconds_per_training_image``,
          ``seconds_per_100_slices``

    Raises
    ------
    ValueError
        If there is no rung ``against``.
    """
    rungs = dict(list(results.groupby("rung", sort=False)))
    if against is not None and against not in rungs:
        raise ValueError(f"there is no rung {against!r}: choose from {list(rungs)}")
    rows, before = {}, None
    for name, rung in rungs.items():
        found = describe(rung.dice, patients=rung.patient)
        row = {
            "tumour_dice_per_case": found.value, "low": found.low, "high": found.high,
            "cases": found.cases, "left_out": found.left_out,
        }
        first = before if against is None else against
        gain = None if first in (None, name) else paired_difference(rungs[first], rung)
        row |= {
            "gain": np.nan if gain is None else gain.mean,
            "gain_low": np.nan if gain is None else gain.low,
            "gain_high": np.nan if gain is None else gain.high,
            "better": 0 if gain is None else gain.better,
            "worse": 0 if gain is None else gain.worse,
            "false_positive_voxels": int(rung.predicted_voxels[rung.truth_voxels == 0].sum()),
        }
        row |= rung[_COSTS].mean()
        rows[name], before = row, name
    counts = dict.fromkeys(("cases", "left_out", "better", "worse", "false_positive_voxels", "parameters", "training_images"), int)
    return pd.DataFrame.from_dict(rows, "index").rename_axis("rung").astype(counts)


def cost_ladder(
    settings: Settings,
    table: pd.DataFrame,
    *,
    filters: Sequence[int] = (8, 16, 32, 64),
    seconds: float | None = None,
    largest: int | None = None,
) -> pd.DataFrame:
    """The report's U-Net with more and more filters: size, time, and Dice after equally many seconds.

    Parameters
    ----------
    settings, table, seconds
        Of :func:`climb`.
    filters : sequence of int
        Of the first level. With the report's 64 it has 31 million parameters.
    largest : int, optional
        Networks with more filters are not trained: one step and one batch of predictions are timed, after one
        that compiles. By default 16 on the phantom, where there is no time for more, and 64 on slices.

    Returns
    -------
    DataFrame, indexed by the number of filters
        The columns of :func:`ladder_table` but those of ``gain``, and ``trained``; where that is False, all but
        ``parameters`` and the two times of an image and of slices is NaN.
    """
    if list(filters) != sorted(set(filters)):
        raise ValueError(f"filters must rise, got {list(filters)}")
    largest = LARGEST[kind(settings)] if largest is None else largest
    rungs = [
        Rung(f"{number} filters", f"the report's U-Net with {number} filters", filters=number, depth=COST_DEPTH)
        for number in filters
    ]
    trained = [rung for rung in rungs if rung.filters <= largest]
    found = pd.DataFrame()
    if trained:
        found = ladder_table(climb(settings, table, trained, seconds=seconds))
    climbing = _Climb(settings, table, SECONDS[kind(settings)] if seconds is None else seconds)
    for rung in rungs[len(trained) :]:
        path = climbing.folder / f"{_key(rung)}-timed.csv"
        if not path.exists():
            write_table(path, pd.DataFrame([climbing.timed(rung)]))
        found = pd.concat([found, read_table(path, _TIMED)])
    found = found.reindex(columns=[*_REACHED, *_COSTS])
    found["trained"] = [rung.filters <= largest for rung in rungs]
    return found.set_axis(pd.Index([rung.filters for rung in rungs], name="filters"))


def kind(settings: Settings) -> str:
    """Which of :data:`SIZES` and :data:`SECONDS` apply: ``"phantom"``, or the profile."""
    return "phantom" if settings.is_synthetic else settings.profile


def _key(rung: Rung) -> str:
    choices = asdict(rung)
    del choices["name"], choices["words"]
    return fingerprint([], sorted(choices.items()))[:12]


def _task(
    rung: Rung, settings: Settings, table: pd.DataFrame, cache: SliceCache, augmentation: Augmentation,
    seconds: float, folder: Path, window: int | None = None,
) -> Task:
    seen = replace(settings, image_size=window or settings.image_size)
    sides = {side: table[table.split == side] for side in ("train", "validation")}
    loss = bce_dice_loss if rung.loss == "report" else LOSSES[rung.loss]
    metric = PooledDice if rung.classes == 1 else TumourDice

    training = passes(
        cache, sides["train"], settings, PASSES, augmentation=augmentation, by_volume=rung.by_volume,
        classes=rung.classes, window=window,
    )

    def validation(replicas: int) -> tf.data.Dataset:
        # To watch by: the last network is taken, not the best. Some of all patients' slices will do.
        step = -(-len(sides["validation"]) // 64)
        rows = shared_by(sides["validation"].iloc[::step], replicas)
        return batches(cache, rows, settings.batch_size, classes=rung.classes, window=window)

    return Task(
        folder=folder, settings=settings, table=table, size=seen.image_size, batch_size=settings.batch_size,
        epochs=10_000, training=training, validation=validation,
        network=lambda: compiled(
            lambda: rung.network(seen), learning_rate=settings.learning_rate, loss=loss,
            metric_list=[metric(name="pooled_dice")],
        ),
        adapting=lambda spent: [StepClock(settings.learning_rate, seconds, read_history(folder))],
        seconds=np.inf,  # StepClock ends it: seconds of epochs are not those that are counted here
    )


def _trained(task: Task, seconds: float) -> tuple[keras.Model, pd.Series]:
    """Do a task, or what is left of it: its network, and the last row of its history."""
    history = read_history(task.folder)
    if not len(history) or history.trained_seconds.iloc[-1] < seconds:
        run(task)
        history = read_history(task.folder)
    return load_checkpoint(state_path(task.folder, len(history)), task.size), history.iloc[-1]
