"""The report's five surveyed systems, small, on the same data and with one interface.

``train_system("Han 2017", settings, table)`` gives a :class:`System`, whose ``predict`` looks at one
volume and finds tumours and liver; :mod:`lits_helpers.surveyed_results` scores all of them alike. Each
is a composition of the package's parts in the order of its paper, not a copy of it: networks are small,
training is short, and slices are taken as they come. What each paper has is said in :data:`SYSTEMS`, from
the abstracts, which is what we could read; what differs here, in :attr:`Survey.here`.

One network on whole slices is trained for all: it is what Kaur's sorter is put before, and where Han's,
Chlebus's and Yuan's coarse liver comes from. Networks in the liver's region learn with the true liver's
region and predict in the one that was found. Bai's system trains a liver network of its own.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from .augmentation import Augmentation
from .blocks import segmenter
from .candidate_filter import CandidateFilter, choose_filter_threshold, out_of_fold, train_filter
from .candidates import CandidateCase, candidate_table
from .cascade import AUGMENTATIONS, Cascade, region_cache
from .clocks import ProcessorClock
from .files import DataError, fingerprint, write_json
from .generators import SliceCache, batches, build_cache, decode_slices
from .losses import LOSSES
from .masks import THRESHOLD, TUMOUR, read_labels
from .metrics import TumourDice
from .rungs import CLASS_THRESHOLD
from .runs import load_checkpoint, read_history, run_folder, state_path
from .settings import Settings
from .sorting import choose_triage_threshold, predict_classes, train_sorter
from .superpixel_system import FULL, SuperpixelOptions, load_superpixel_system, save_superpixel_system
from .superpixel_training import train_superpixel_system
from .surveyed_systems import Filtered, Hierarchy, OfSuperpixels, System, Triaged, volumes, with_liver
from .training import Task, compiled, passes, run, shared_by

# Ours. "tiny" is for two CPU cores, "full" for a GPU, not tried.
SIZES = {
    "tiny": {
        "slices": dict(image_size=96, filters=8, depth=3, batch_size=8, learning_rate=6e-3),
        "region": dict(image_size=64, filters=8, depth=3, batch_size=8, learning_rate=6e-3),
    },
    "full": {
        "slices": dict(image_size=256, filters=32, depth=4, batch_size=16, learning_rate=2e-3),
        "region": dict(image_size=320, filters=32, depth=4, batch_size=16, learning_rate=1.5e-3),
    },
}
SECONDS = {"tiny": 6.0, "full": 4 * 3600.0}  # of each network, unless told otherwise
SORTER = {"tiny": dict(size=64, epochs=6), "full": dict(size=128, epochs=30)}
BAI = {"tiny": SuperpixelOptions(liver_steps=60, steps=120), "full": FULL}
SHARED = 2.5  # times as long for the network that four systems share, which sees most and the largest slices
# Passes over the training slices in an epoch: validating and storing one takes most of a few seconds.
PASSES = {"tiny": 20, "full": 1}
CANDIDATE_THRESHOLD = THRESHOLD  # of Chlebus's candidates: low, as a forest can only reject
KEEP = 0.99  # of the validation patients' tumour slices, by Kaur's triage
ON_SLICES = replace(AUGMENTATIONS["liver"], brightness=0.2)
# Synthetic lesions are left out: what each paper's parts bring is looked at, not what augmentation does.
IN_REGION = replace(AUGMENTATIONS["tumour"], lesions=0.0, distractors=0.0)

# Kaur 2021 -------------------------------------------------------------------------------------


def _kaur(settings: Settings, table: pd.DataFrame, folder: Path, seconds: float) -> System:
    network, spent = _slice_network(settings, table, folder, seconds)
    cache = _slice_cache(settings, table)
    options = SORTER[settings.profile]
    more = _timed(folder / "sorter.json", lambda: train_sorter(settings, table, cache, **options))
    sorter = train_sorter(settings, table, cache, **options)  # loads it
    validation = table[table.split == "validation"]
    threshold = choose_triage_threshold(
        validation.diagnosis.to_numpy(), predict_classes(sorter, cache, validation), keep=KEEP
    )
    made = Triaged(network, sorter, threshold)
    return System(made, (network, sorter), CLASS_THRESHOLD, spent + more, draws_liver=False)


# Han 2017 --------------------------------------------------------------------------------------


def _han(settings: Settings, table: pd.DataFrame, folder: Path, seconds: float) -> System:
    return _cascade(settings, table, folder, seconds, "han", block_kind="residual")


def _cascade(
    settings: Settings, table: pd.DataFrame, folder: Path, seconds: float, name: str, **parts: object
) -> System:
    """The shared network's liver, and in its region a network of these parts, which its folder names."""
    coarse, spent = _slice_network(settings, table, folder, seconds)
    stage = _stage(settings, "region")
    cache, rows = _region(settings, table)
    tumour, more = _trained(stage, rows, cache, folder / _named(name, parts), IN_REGION, seconds, **parts)
    # A cascade of its own drops what it is unsure of; these do not, and Chlebus's forest is to see it all.
    cascade = Cascade(coarse, tumour, CLASS_THRESHOLD, sure=CLASS_THRESHOLD)
    return System(cascade, (coarse, tumour), CLASS_THRESHOLD, spent + more)


def _named(name: str, parts: Mapping[str, object]) -> str:
    return "-".join([name, *(f"{key}-{value}" for key, value in parts.items())])


# Chlebus 2017 ----------------------------------------------------------------------------------


def _chlebus(settings: Settings, table: pd.DataFrame, folder: Path, seconds: float) -> System:
    parts = {"middle_slice_only": True}
    made = _cascade(settings, table, folder, seconds, "chlebus", **parts)
    # Another threshold, or a network that was trained further, makes other candidates.
    epochs = [len(read_history(folder / name)) for name in ("slices", _named("chlebus", parts))]
    name = "chlebus-forest-{:g}-{}-{}".format(CANDIDATE_THRESHOLD, *epochs)
    path, chosen = folder / f"{name}.npz", folder / f"{name}-threshold.json"
    more = _timed(folder / f"{name}.json", lambda: _grow(settings, table, made.predictor, path, chosen))
    forest, least = None, 0.0
    if path.exists():
        forest, least = CandidateFilter.load(path), float(json.loads(chosen.read_text(encoding="utf-8")))
    made = replace(made, threshold=CANDIDATE_THRESHOLD, seconds=made.seconds + more)
    return replace(made, predictor=Filtered(made.predictor, forest, least, CANDIDATE_THRESHOLD))


def _grow(settings: Settings, table: pd.DataFrame, cascade: Cascade, path: Path, chosen: Path) -> None:
    """Train the forest on the validation patients, whom the networks have not learnt from; store it."""
    def cases() -> Iterator[CandidateCase]:
        for rows, pictures in volumes(table[table.split == "validation"]):
            probabilities, liver = cascade.predict(pictures, rows.slice.tolist())
            truth = np.stack([read_labels(file) for file in rows.mask_path]) == TUMOUR
            tumour = probabilities > CANDIDATE_THRESHOLD
            yield CandidateCase(rows.volume.iloc[0], np.stack(pictures), tumour, liver, truth, probabilities)

    found = candidate_table(cases())
    if found.empty or found.true.nunique() < 2:
        warnings.warn("validation patients have not both true and false candidates: none are filtered", stacklevel=2)
        return
    # Every patient left out in turn must leave both kinds behind, else there is nothing to choose by.
    kinds = found.groupby("true").volume.nunique()
    least = 0.5
    if (kinds > 1).all():
        outside = out_of_fold(found, found.true, found.volume, seed=settings.seed, folds=found.volume.nunique())
        least = choose_filter_threshold(found.true, outside)
    write_json(chosen, least)
    train_filter(found, found.true, seed=settings.seed).save(path)


# Yuan 2017 -------------------------------------------------------------------------------------


def _yuan(settings: Settings, table: pd.DataFrame, folder: Path, seconds: float) -> System:
    coarse, spent = _slice_network(settings, table, folder, seconds)
    stage = _stage(settings, "region")
    cache, rows = _region(settings, table)
    liver, of_liver = _trained(stage, rows, cache, folder / "yuan-liver", IN_REGION, seconds, loss="jaccard")
    cache = _liver_cache(settings, rows, cache)
    tumour, of_tumour = _trained(stage, rows, cache, folder / "yuan-tumour", IN_REGION, seconds, loss="jaccard")
    networks = coarse, liver, tumour
    return System(Hierarchy(*networks), networks, CLASS_THRESHOLD, spent + of_liver + of_tumour)


def _liver_cache(settings: Settings, rows: pd.DataFrame, cache: SliceCache) -> SliceCache:
    """The crops with the true liver, once for all, on disk."""
    def crops() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _, volume in rows.groupby("volume"):
            positions = cache.positions(volume)
            labels = cache.labels[positions]
            yield from zip(with_liver(cache.images[positions], labels > 0), labels, strict=True)

    size = cache.labels.shape[1]
    folder = settings.output_root / "cache" / fingerprint([*rows.image_path, *rows.mask_path], __name__, size, 1)
    if not folder.exists():
        build_cache(crops(), len(rows), size, folder)
    return SliceCache.load(folder, rows)


# Bai 2019 --------------------------------------------------------------------------------------


def _bai(settings: Settings, table: pd.DataFrame, folder: Path, seconds: float) -> System:
    options = BAI[settings.profile]
    folder = folder / f"bai-{options.liver_steps}-{options.steps}"
    cache = _slice_cache(settings, table)

    def work() -> None:
        training = table[table.split == "train"]
        save_superpixel_system(train_superpixel_system(cache, training, options=options, seed=settings.seed), folder)

    spent = _timed(folder / "seconds.json", work)
    system = load_superpixel_system(folder)
    return System(OfSuperpixels(system, cache.labels.shape[1]), (system.liver, system.classifier), 0.5, spent)


# All -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Survey:
    """One of the surveyed systems.

    Attributes
    ----------
    words : str
        What it is.
    paper : str
    reported : str
        What the paper reports, on its own data: no bar for what is here.
    here : str
        What differs here.
    train : function of (settings, table, folder, seconds)
    """

    words: str
    paper: str
    reported: str
    here: str
    train: Callable[[Settings, pd.DataFrame, Path, float], System]


SYSTEMS = {
    "Kaur 2021": Survey(
        "a network sorts slices, and only those with tumour are segmented",
        "Kaur, Chauhan, Aggarwal, An automated slice sorting technique for multi-slice computed tomography liver "
        "cancer images using convolutional network, 2021 (abstract)",
        "test accuracy of sorting 93.1 %",
        "the paper sorts and does not segment: the segmenter behind it is ours; the liver is not outlined",
        _kaur,
    ),
    "Han 2017": Survey(
        "2.5D: neighbouring slices as input, a U-Net with residual blocks, in the liver's region",
        "Han, Automatic liver lesion segmentation using a deep convolutional neural network method, "
        "arXiv:1704.07239 (abstract)",
        "average Dice 0.67 on LiTS's 70 test scans",
        "three slices; eight filters and seven blocks of two layers, where the paper has 32 layers; the coarse liver "
        "sees single slices; regions are seen mirrored as well",
        _han,
    ),
    "Chlebus 2017": Survey(
        "liver, then 2D tumour candidates in it, then a random forest that rejects false ones",
        "Chlebus et al., Neural network-based automatic liver tumor segmentation with random forest-based candidate "
        "filtering, arXiv:1706.00842 (abstract)",
        "mean Dice 0.65 on LiTS's 70 test scans",
        "one liver network where the paper has an ensemble, trained on 179 other scans; regions are seen "
        "mirrored as well; features of our own, learnt on the validation patients' candidates",
        _chlebus,
    ),
    "Yuan 2017": Survey(
        "coarse liver, fine liver in its region, tumours with the equalised fine liver as an additional input",
        "Yuan, Hierarchical convolutional-deconvolutional neural networks for automatic liver and tumor "
        "segmentation, arXiv:1710.04540 (abstract)",
        "mean Dice 0.657 of tumours, 0.963 of livers, burden RMSE 0.017 on LiTS's 70 test scans",
        "U-Nets; all three see three classes, and the first has not Jaccard's loss but the shared one; the "
        "tumour network learns with the true liver",
        _yuan,
    ),
    "Bai 2019": Survey(
        "3D U-Net for the liver, superpixels of several sizes, a 3D fractal residual network, active contours",
        "Bai, Jiang, Li, Yao, Liver tumor segmentation based on multi-scale candidate generation and fractal "
        "residual network, IEEE Access 7 (2019) (abstract)",
        "Dice per case 0.67 on 3DIRCADb",
        "said in lits_helpers.superpixel_system; steps are counted, not seconds",
        _bai,
    ),
}


def train_system(name: str, settings: Settings, table: pd.DataFrame, *, seconds: float | None = None) -> System:
    """Train one of :data:`SYSTEMS`, or load what was trained before.

    Parameters
    ----------
    name : str
    settings : Settings
        Sizes are those of :data:`SIZES` for its profile.
    table : DataFrame
        Slice table with ``split``; ``train`` and ``validation`` are used.
    seconds : float, optional
        Of training for each network, tracing and waiting left out; 6 in the tiny profile, 4 hours in the
        full one, and 2.5 times as many of the one that is shared. Not of Kaur's sorter, whose epochs are
        counted, nor of Bai's networks, whose steps are.

    Raises
    ------
    DataError
        If there is no such system, or it cannot be trained on these patients.
    """
    if name not in SYSTEMS:
        raise DataError(f"{name!r} is none of the surveyed systems: choose from {', '.join(SYSTEMS)}")
    if "split" not in table or missing_sides(table):
        raise DataError("the slice table needs train and validation patients: use splits.split_patients")
    seconds = SECONDS[settings.profile] if seconds is None else seconds
    return SYSTEMS[name].train(settings, table, survey_folder(settings, table), seconds)


def missing_sides(table: pd.DataFrame) -> list[str]:
    """Which of train and validation have no slices."""
    return [side for side in ("train", "validation") if not (table.split == side).any()]


def survey_folder(settings: Settings, table: pd.DataFrame) -> Path:
    """Where the systems of these settings and this split lie, below the output root."""
    # By the sizes here and not the profile's, which do not matter.
    key = run_folder(_stage(settings, "slices"), table, IN_REGION).name.rpartition("-")[2]
    key = fingerprint([], key, SIZES[settings.profile], ON_SLICES)[:8]
    return settings.output_root / "surveyed" / f"{settings.profile}-{key}"


def _stage(settings: Settings, name: str) -> Settings:
    return replace(settings, **SIZES[settings.profile][name], recipe="fast")


def _slice_cache(settings: Settings, table: pd.DataFrame) -> SliceCache:
    return decode_slices(table, SIZES[settings.profile]["slices"]["image_size"], settings.output_root)


def _region(settings: Settings, table: pd.DataFrame) -> tuple[SliceCache, pd.DataFrame]:
    """Crops of the slices with liver of the patients that are learnt from."""
    used = table[table.split.isin(["train", "validation"])]
    size = SIZES[settings.profile]["region"]["image_size"]
    cache, rows = region_cache(used, _slice_cache(settings, table), size, settings.output_root)
    if rows.empty or missing_sides(rows):
        raise DataError("no slice shows a liver on one side of the split: there is no region to learn from")
    return cache, rows


def _slice_network(settings: Settings, table: pd.DataFrame, folder: Path, seconds: float) -> tuple[keras.Model, float]:
    """The network that all but Bai's share: background, liver and tumour in whole slices."""
    return _trained(
        _stage(settings, "slices"), table, _slice_cache(settings, table), folder / "slices", ON_SLICES,
        SHARED * seconds,
    )


def _trained(
    settings: Settings, table: pd.DataFrame, cache: SliceCache, folder: Path, augmentation: Augmentation,
    seconds: float, *, loss: str = "class", block_kind: str = "plain", middle_slice_only: bool = False,
) -> tuple[keras.Model, float]:
    """A network trained against the clock, or gone on with; and the seconds it took."""
    sides = {side: table[table.split == side] for side in ("train", "validation")}
    training = passes(
        cache, sides["train"], settings, PASSES[settings.profile], augmentation=augmentation, by_volume=True, classes=3
    )

    def network() -> keras.Model:
        return _network(settings, block_kind, middle_slice_only)

    def validation(replicas: int) -> tf.data.Dataset:
        return batches(cache, shared_by(sides["validation"].iloc[::2], replicas), settings.batch_size, classes=3)

    run(
        Task(
            folder=folder, settings=settings, table=table, size=settings.image_size,
            batch_size=settings.batch_size, epochs=10_000, training=training, validation=validation,
            network=lambda: compiled(
                network, learning_rate=settings.learning_rate, loss=LOSSES[loss],
                metric_list=[TumourDice(name="pooled_dice")],
            ),
            adapting=lambda spent: [ProcessorClock(settings.learning_rate, seconds, spent)], seconds=seconds,
        )
    )
    history = read_history(folder)
    model = load_checkpoint(state_path(folder, len(history)), settings.image_size)
    return model, float(history.seconds.sum())


def _network(settings: Settings, block_kind: str, middle_slice_only: bool) -> keras.Model:
    size, options = settings.image_size, dict(filters=settings.filters, depth=settings.depth, block_kind=block_kind)
    if not middle_slice_only:
        return segmenter((size, size, 3), **options)
    inputs = keras.Input((size, size, 3))  # three slices, as the crops have them
    return keras.Model(inputs, segmenter((size, size, 1), **options)(inputs[..., 1:2]))


def _timed(path: Path, work: Callable[[], object]) -> float:
    """Do work that stores what it makes, unless ``path`` says that it was done; seconds that it took."""
    if not path.exists():
        started = time.monotonic()
        work()
        write_json(path, time.monotonic() - started)
    return float(json.loads(path.read_text(encoding="utf-8")))
