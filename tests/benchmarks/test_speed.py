"""Speed against the report's own code. `make bench`; measures, and passes or fails on results only."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import keras
import numpy as np
import report_way

from lits_helpers import load_settings, metrics, training
from lits_helpers.augmentation import Augmentation
from lits_helpers.generators import batches, decode_slices
from lits_helpers.index import classify
from lits_helpers.inference import predict_slices
from lits_helpers.model import unet

BATCH, SIZE = 32, 256


def timed(work, times):
    """Seconds of each of several calls, after one that is not counted."""
    seconds = []
    for _ in range(times + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def test_classification_of_masks(benchmark, compared, phantom):
    table, _ = phantom

    def ours():
        with ThreadPoolExecutor() as pool:
            return list(pool.map(classify, table.image_path, table.mask_path))

    found = benchmark.pedantic(ours, rounds=5, warmup_rounds=1)
    # The phantom's masks are JPEG at quality 100, where the report's rule works.
    assert [row["diagnosis"] for row in found] == report_way.classify(table.mask_path)
    theirs = timed(lambda: report_way.classify(table.mask_path), 5)
    each = len(table)
    compared(
        benchmark, "mask", [t / each for t in theirs], [t / each for t in benchmark.stats.stats.data]
    )


def test_augmented_pairs_into_fit(benchmark, compared, phantom):
    table, output_root = phantom
    cache = decode_slices(table, SIZE, output_root)
    data = batches(cache, table, BATCH, augmentation=Augmentation(), seed=1)

    def ours():
        for images, masks in data:
            pass
        return images, masks

    images, masks = benchmark.pedantic(ours, rounds=15, warmup_rounds=1)
    generator = report_way.train_generator(table, BATCH, SIZE)
    steps = int(data.cardinality())
    theirs_images, theirs_masks = next(generator)
    assert images.shape[1:] == theirs_images.shape[1:] and masks.shape[1:] == theirs_masks.shape[1:]
    assert 0 <= float(images.numpy().min()) and float(images.numpy().max()) <= 1
    assert set(np.unique(masks)) <= {0, 1}
    theirs = timed(lambda: list(islice(generator, steps)), 2)
    each = len(table)
    compared(
        benchmark, "pair", [t / each for t in theirs], [t / each for t in benchmark.stats.stats.data]
    )


def full_network(tmp_path, **compile_options):
    """The report's network, compiled as ours or with the options given."""
    settings = load_settings(profile="full", data_root=tmp_path, output_root=tmp_path / "out")
    if not compile_options:
        return training.compiled_unet(settings)
    keras.config.set_dtype_policy("float32")
    model = unet((SIZE, SIZE, 3))
    model.compile(keras.optimizers.Adam(1e-4), loss=metrics.bce_dice_loss, **compile_options)
    return model


def test_training_step_of_31_million_parameters(benchmark, compared, phantom, tmp_path):
    table, output_root = phantom
    cache = decode_slices(table, SIZE, output_root)
    images = cache.images[:4] / np.float32(255)
    masks = (cache.labels[:4, ..., None] == 2).astype(np.float32)
    keras.utils.set_random_seed(1)
    ours = full_network(tmp_path)
    benchmark.pedantic(ours.train_on_batch, args=(images, masks), rounds=4, warmup_rounds=1)
    mine = [t / 4 for t in benchmark.stats.stats.data]
    assert np.isfinite(ours.predict_on_batch(images)).all()
    del ours
    keras.utils.set_random_seed(1)
    theirs = full_network(tmp_path, jit_compile=False)
    assert theirs.count_params() == 31_043_521
    compared(benchmark, "image", [t / 4 for t in timed(lambda: theirs.train_on_batch(images, masks), 4)], mine)


def test_inference_of_31_million_parameters(benchmark, compared, phantom, tmp_path):
    table, output_root = phantom
    cache, part = decode_slices(table, SIZE, output_root), table[8:24]
    keras.utils.set_random_seed(1)
    ours = full_network(tmp_path)
    found = benchmark.pedantic(predict_slices, args=(ours, cache, part), rounds=3, warmup_rounds=1)
    theirs = full_network(tmp_path, jit_compile=False)
    theirs.set_weights(ours.get_weights())
    images = cache.images[cache.positions(part)].astype(np.float32)
    expected = np.stack(report_way.predict(theirs, images))
    assert np.abs(found - expected).max() < 0.05  # bfloat16 beside float32
    seconds = timed(lambda: report_way.predict(theirs, images), 2)
    each = len(part)
    compared(
        benchmark, "slice", [t / each for t in seconds], [t / each for t in benchmark.stats.stats.data]
    )
