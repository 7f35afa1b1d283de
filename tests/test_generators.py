import os
import platform
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lits_helpers import generators
from lits_helpers.augmentation import Augmentation
from lits_helpers.files import DataError
from lits_helpers.generators import SliceCache, batches, decode_slices, resize_image, resize_labels
from lits_helpers.index import build_index
from lits_helpers.masks import read_labels


def test_every_slice_is_decoded_in_the_tables_order(table, tmp_path):
    cache = decode_slices(table, 64, tmp_path / "out")
    assert cache.images.shape == (16, 64, 64, 3) and cache.images.dtype == np.uint8
    for row, labels in zip(table.itertuples(), cache.labels, strict=True):
        assert (labels == read_labels(row.mask_path)).all()
        picture = cv2.imread(row.image_path)[..., ::-1]
        assert (cache.images[row.Index] == picture).all()


def test_the_second_call_decodes_nothing(table, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(generators, "read_image", None)
    again = decode_slices(table, 32, tmp_path / "out")
    assert isinstance(again.images, np.memmap)
    assert (again.images == cache.images).all()


def test_tables_of_the_same_files_share_one_cache(table, cache, tmp_path):
    decode_slices(table.assign(split="train").set_index("slice"), 32, tmp_path / "out")
    assert len(list((tmp_path / "out" / "cache").iterdir())) == 1


def test_nothing_is_written_beside_the_data(slice_folder, table, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in [slice_folder, *slice_folder.rglob("*")]}
    decode_slices(table, 32, tmp_path / "out")
    assert {p: p.stat().st_mtime_ns for p in [slice_folder, *slice_folder.rglob("*")]} == before


def test_a_changed_file_or_size_is_decoded_again(slice_folder, table, cache, tmp_path):
    assert decode_slices(table, 16, tmp_path / "out").labels.shape == (16, 16, 16)
    os.replace(table.mask_path[2], table.mask_path[1])
    os.link(table.mask_path[1], table.mask_path[2])
    changed = decode_slices(build_index(slice_folder, tmp_path / "out"), 32, tmp_path / "out")
    assert (changed.labels[1] == cache.labels[2]).all() and not (cache.labels[1] == cache.labels[2]).all()


def test_a_failed_decoding_leaves_no_folder_and_names_the_file(table, tmp_path):
    with open(table.image_path[9], "wb") as file:
        file.write(b"broken")
    with pytest.raises(DataError, match=os.path.basename(table.image_path[9])):
        decode_slices(table, 32, tmp_path / "out")
    assert list((tmp_path / "out" / "cache").iterdir()) == []


def test_a_cache_that_another_process_finished_first_is_taken(table, cache, tmp_path):
    (folder,) = (tmp_path / "out" / "cache").iterdir()
    before = (folder / "images.npy").stat().st_ino
    generators.build_cache(zip(cache.images, cache.labels, strict=True), 16, 32, folder)
    assert list((tmp_path / "out" / "cache").iterdir()) == [folder]
    assert (folder / "images.npy").stat().st_ino == before


DECODE_AND_SHOW = """
import os, sys
from pathlib import Path
import pandas as pd
from lits_helpers import files, generators

class SlowPool(generators.ThreadPoolExecutor):  # so that both processes are sure to be at it
    def map(self, *arguments):
        print("started", flush=True)
        sys.stdin.readline()
        return super().map(*arguments)

generators.ThreadPoolExecutor = SlowPool
os.getpid = lambda: 7  # as in two containers with one output folder
files._MACHINE = sys.argv[3]
cache = generators.decode_slices(pd.read_pickle(sys.argv[1]), 32, Path(sys.argv[2]))
print(int(cache.images.sum()), int(cache.labels.sum()), flush=True)
sys.stdin.readline()
"""


def test_two_processes_that_decode_at_once_share_one_whole_cache(table, tmp_path):
    table.to_pickle(tmp_path / "table.pkl")
    command = [sys.executable, "-c", DECODE_AND_SHOW, tmp_path / "table.pkl", tmp_path / "two"]
    both = [
        subprocess.Popen([*command, machine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for machine in ("one", "other")
    ]
    try:
        assert [process.stdout.readline() for process in both] == ["started\n"] * 2
        for process in both:
            print(file=process.stdin, flush=True)
        shown = [process.stdout.readline() for process in both]
        alone = decode_slices(table, 32, tmp_path / "alone")
        assert shown == [f"{alone.images.sum()} {alone.labels.sum()}\n"] * 2
        (folder,) = (tmp_path / "two" / "cache").iterdir()  # nothing half written beside it
        if Path("/proc/self/maps").exists():
            for process in both:  # the same file is mapped by both, so the memory is shared
                assert str(folder / "images.npy") in Path(f"/proc/{process.pid}/maps").read_text()
    finally:
        for process in both:
            process.communicate("\n", timeout=30)
    assert [process.returncode for process in both] == [0, 0]


def test_the_size_of_the_cache_is_announced(table, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(generators, "tqdm", lambda work, desc, **_: titles.append(desc) or work)
    decode_slices(table, 512, tmp_path / "out")
    assert titles == ["decoding to 17 MB"]  # 16 slices of 512x512 pixels, three bytes and one each


def test_a_full_disk_is_told_before_decoding(table, tmp_path, monkeypatch):
    def refuse(folder, needed):
        raise DataError(f"{needed} bytes")

    monkeypatch.setattr(generators, "require_free_space", refuse)
    with pytest.raises(DataError, match=str(4 * 16 * 32 * 32)):
        decode_slices(table, 32, tmp_path / "out")


def test_parts_of_the_table_are_found(table, cache):
    part = table[table.volume == 2].sample(frac=1, random_state=0)
    assert cache.positions(part).tolist() == part.index.tolist()


def test_a_part_whose_rows_were_numbered_anew_is_found_too(table, cache):
    part = table[table.volume == 2].reset_index(drop=True)  # rows 8 to 11 of the whole
    assert cache.positions(part).tolist() == [8, 9, 10, 11]


def test_rows_that_are_not_in_the_cache_are_refused(table, cache):
    with pytest.raises(DataError, match="1 of 2 rows"):
        cache.positions(table[2:4].replace({"image_path": {table.image_path[3]: "elsewhere.jpg"}}))
    with pytest.raises(DataError, match="at least one row"):
        cache.positions(table[:0])


def test_an_empty_table_has_nothing_to_decode(table, tmp_path):
    with pytest.raises(DataError, match="empty"):
        decode_slices(table[:0], 32, tmp_path / "out")


def disc(size, radius, row, column):
    rows, columns = np.ogrid[:size, :size]
    return np.hypot(rows - row, columns - column) < radius


def centre(weights):
    """Centre of mass, as a part of the picture."""
    rows, columns = np.indices(weights.shape)
    return np.array([(rows + 0.5).ravel() @ weights.ravel(), (columns + 0.5).ravel() @ weights.ravel()]) / (
        weights.sum() * weights.shape[0]
    )


@pytest.mark.parametrize(("size", "new"), [(512, 128), (512, 96), (333, 100), (64, 200), (101, 101)])
def test_labels_keep_their_place_in_the_picture(size, new):
    tumour = disc(size, size / 10, 0.4 * size, 0.63 * size)
    labels = np.where(tumour, 2, disc(size, size / 4, 0.45 * size, 0.6 * size)).astype(np.uint8)
    image = np.repeat((tumour * 200).astype(np.uint8)[..., None], 3, axis=2)
    small, small_image = resize_labels(labels, new), resize_image(image, new)
    assert set(np.unique(small)) <= {0, 1, 2}
    assert np.abs(centre((small == 2) * 1.0) - centre(small_image[..., 0] * 1.0)).max() * new < 0.15
    assert (small == 2).mean() == pytest.approx((labels == 2).mean(), rel=0.1)


def test_a_smaller_picture_holds_the_mean_of_what_it_covers():
    image = np.zeros((8, 8, 3), np.uint8)
    image[::4, ::4] = 160  # one of the 16 pixels that become one, in its corner
    assert (resize_image(image, 2) == 10).all()


def test_half_a_pixel_of_tumour_is_tumour_and_less_is_not():
    labels = np.zeros((4, 4), np.uint8)
    labels[:2, 0] = 2  # 2 of the first pixel's 4
    labels[0, 2] = 2  # 1 of the second's
    labels[2:, 0], labels[2, 1] = 1, 2  # 3 of liver and tumour, 1 of them tumour
    assert resize_labels(labels, 2).tolist() == [[2, 0], [1, 0]]


@pytest.mark.parametrize("value", [0, 1, 2])
def test_a_mask_of_one_label_keeps_it(value):
    for size in (17, 50, 81):
        assert (resize_labels(np.full((50, 50), value, np.uint8), size) == value).all()


def test_a_single_pixel_is_lost_when_it_covers_too_little():
    labels = np.zeros((64, 64), np.uint8)
    labels[10, 10] = 2
    assert not resize_labels(labels, 16).any()
    assert (resize_labels(labels, 64) == labels).all()


def collected(data):
    """All images and masks of one pass."""
    images, masks = zip(*data.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(masks)


def test_a_batch_is_images_from_0_to_1_and_binary_tumour_masks(table, cache):
    data = batches(cache, table, 6)
    assert [len(images) for images, _ in data.as_numpy_iterator()] == [6, 6, 4]
    assert int(data.cardinality()) == 3
    images, masks = collected(data)
    assert images.dtype == masks.dtype == np.float32
    assert images == pytest.approx(cache.images / np.float32(255))
    assert (masks[..., 0] == (cache.labels == 2)).all()


def test_an_epoch_follows_from_seed_and_number_alone(table, cache):
    options = dict(augmentation=Augmentation(), seed=5)
    running = batches(cache, table, 4, **options)
    passes = [collected(running) for _ in range(3)]
    assert not (passes[0][0] == passes[1][0]).all()
    resumed = collected(batches(cache, table, 4, **options, first_epoch=2))
    assert (resumed[0] == passes[2][0]).all() and (resumed[1] == passes[2][1]).all()
    other = collected(batches(cache, table, 4, augmentation=Augmentation(), seed=6))
    assert not (other[0] == passes[0][0]).all()


def test_a_shuffled_pass_holds_every_slice_once(table, cache):
    images, _ = collected(batches(cache, table, 5, seed=1))
    plain, _ = collected(batches(cache, table, 5))
    assert sorted(images.sum((1, 2, 3)).round(3)) == sorted(plain.sum((1, 2, 3)).round(3))
    assert not (images == plain).all()


def test_half_of_a_balanced_epoch_are_tumour_slices(table, cache):
    few = table[(table.diagnosis < 2) | (table.index == 2)]  # ten without tumour, one with
    data = batches(cache, few, 4, balanced=True, seed=3)
    assert int(data.cardinality()) == 3
    _, masks = collected(data)
    assert len(masks) == 11 and masks.any((1, 2, 3)).sum() == 6


def test_balanced_epochs_draw_from_all_slices_in_time(table, cache):
    many = table[(table.diagnosis == 2) | (table.index == 0)]  # one without tumour, six with
    data = batches(cache, many, 7, balanced=True, seed=3)
    tumours = [images[masks.any((1, 2, 3))] for images, masks in (collected(data) for _ in range(8))]
    assert {len(images) for images in tumours} == {4}
    assert len(np.unique(np.concatenate(tumours).round(4), axis=0)) == 6


def test_memory_does_not_grow_with_the_slices(table, cache, monkeypatch):
    warped = []
    monkeypatch.setattr(generators, "MOST_THREADS", 1)
    monkeypatch.setattr(generators, "warp_in_place", lambda *arrays: warped.append(1))
    passing = generators.iterate_batches(
        cache, np.arange(16), 1, augmentation=Augmentation(), random=np.random.default_rng(0)
    )
    next(passing)
    passing.close()
    assert len(warped) <= 2


def test_balance_changes_nothing_where_all_slices_are_of_one_kind(table, cache):
    tumours = table[table.diagnosis == 2]
    balanced = collected(batches(cache, tumours, 4, balanced=True, seed=3))
    plain = collected(batches(cache, tumours, 4, seed=3))
    assert (balanced[0] == plain[0]).all()


@pytest.mark.parametrize("choice", [{"balanced": True}, {"augmentation": Augmentation()}])
def test_random_choices_need_a_seed(table, cache, choice):
    with pytest.raises(ValueError, match="seed"):
        batches(cache, table, 4, **choice)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(table, cache, batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        batches(cache, table, batch_size)


def test_augmented_masks_stay_binary_and_follow_the_image(table, cache):
    augmentation = Augmentation(rotation=15, shift=0.1, shear=5, zoom=0.1, elastic=0.01)
    tumours = np.stack([disc(64, 9, 12 + 2 * n, 50 - 2 * n) for n in range(16)])  # no two alike
    painted = np.repeat(tumours[..., None], 3, axis=3).astype(np.uint8) * 255
    marked = SliceCache(painted, tumours.astype(np.uint8) * 2, cache.image_paths)
    data = batches(marked, table, 5, augmentation=augmentation, balanced=True, seed=0)
    images, masks = collected(data)
    assert set(np.unique(masks)) == {0, 1}
    in_image, in_mask = images[..., 0] > 0.5, masks[..., 0] == 1
    overlap = (in_image & in_mask).sum((1, 2)) / (in_image | in_mask).sum((1, 2))
    assert overlap.min() > 0.9


LOUD = Augmentation(brightness=0.3, noise=0.1, blur=1.5, intensity_probability=1)


def test_intensities_change_the_images_and_no_mask(table, cache):
    plain, changed = (
        collected(batches(cache, table, 16, augmentation=augmentation, seed=2))
        for augmentation in (Augmentation(), LOUD)
    )
    assert (plain[1] == changed[1]).all() and plain[1].any()
    assert (plain[0] != changed[0]).any((1, 2, 3)).all()


def test_intensities_do_not_depend_on_the_threads(table, cache, monkeypatch):
    passes = []
    for threads in (1, 4):
        monkeypatch.setattr(generators, "MOST_THREADS", threads)
        monkeypatch.setattr(os, "cpu_count", lambda: 4)
        passes.append(collected(batches(cache, table, 3, augmentation=LOUD, seed=2)))
    assert (passes[0][0] == passes[1][0]).all()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_later_batches_are_made_in_the_memory_of_earlier_ones(table):
    import resource

    cache = SliceCache(np.zeros((16, 128, 128, 3), np.uint8), np.zeros((16, 128, 128), np.uint8),
                       pd.Index(table.image_path))
    data = batches(cache, pd.concat([table] * 8), 16, augmentation=Augmentation(), seed=1)
    faults = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in data:
            pass
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    # The images alone of its eight batches, 3 MB each as floats, are 6,144 pages of 4 kB.
    assert min(faults) < 1000


@pytest.fixture
def uneven():
    """Forty slices: volume 0 has one with a tumour, volume 1 nineteen; 2 has one without, 3 nineteen."""
    volumes = np.repeat([0, 1, 2, 3], [1, 19, 1, 19])
    table = pd.DataFrame(
        {"volume": volumes, "image_path": [f"{n}.png" for n in range(40)], "diagnosis": np.where(volumes < 2, 2, 1)}
    )
    images = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 2, 2, 3))
    return table, SliceCache(images, np.zeros((40, 2, 2), np.uint8), pd.Index(table.image_path))


def test_by_volume_each_patient_has_an_equal_part_of_its_half(uneven):
    table, cache = uneven
    data = batches(cache, table, 40, balanced=True, by_volume=True, seed=0)
    drawn = np.concatenate([collected(data)[0][:, 0, 0, 0] for _ in range(8)]) * 255  # an epoch each
    counts = np.bincount(table.volume.to_numpy()[drawn.round().astype(int)], minlength=4)
    assert counts[:2].sum() == counts[2:].sum() == 160
    # Of 160 draws 80 each, and 25 is four standard deviations; by slices it would be 8 and 152.
    assert np.abs(counts - 80).max() < 25


def test_without_by_volume_each_slice_has(uneven):
    table, cache = uneven
    data = batches(cache, table, 40, balanced=True, seed=0)
    drawn = (collected(data)[0][:, 0, 0, 0] * 255).round().astype(int)
    assert np.bincount(table.volume.to_numpy()[drawn]).tolist() == [1, 19, 1, 19]


def test_draws_by_volume_follow_from_the_seed_and_the_epoch(uneven):
    table, cache = uneven
    options = dict(balanced=True, by_volume=True, seed=5)
    running = batches(cache, table, 40, **options)
    first, second = collected(running)[0], collected(running)[0]
    assert (first != second).any()
    assert (collected(batches(cache, table, 40, first_epoch=1, **options))[0] == second).all()


def test_three_classes_are_a_channel_each(table, cache):
    images, truth = collected(batches(cache, table, 16, classes=3))
    plain, tumour = collected(batches(cache, table, 16))
    assert truth.shape == (16, 32, 32, 3) and truth.dtype == np.float32
    assert (truth.sum(-1) == 1).all() and (truth.argmax(-1) == cache.labels).all()
    assert (truth[..., 2:] == tumour).all() and (images == plain).all()


# Windows

@pytest.fixture
def placed():
    """Three slices whose pixels tell their own row and column; liver in a corner, in the middle, nowhere."""
    rows, columns = np.mgrid[:32, :32].astype(np.uint8)
    images = np.stack([np.stack([rows, columns, 0 * rows], axis=-1)] * 3)
    labels = np.zeros((3, 32, 32), np.uint8)
    labels[0, :3, 29:] = 1
    labels[1, 10:23, 12:17] = 1
    table = pd.DataFrame({"image_path": list("abc"), "volume": 1, "diagnosis": [1, 1, 0]})
    return SliceCache(images, labels, pd.Index(table.image_path)), table


def corners(data):
    """First row and column of each window, after a check that it is one piece of image and mask alike."""
    found = []
    for images, _ in data:
        for window in (images.numpy() * 255).round().astype(int):
            rows, columns = window[..., 0], window[..., 1]
            assert window.shape == (8, 8, 3)
            assert (rows == rows[:1, :1] + np.arange(8)[:, None]).all() and (columns == columns[:1, :1] + np.arange(8)).all()
            found.append((rows[0, 0], columns[0, 0]))
    return found


def test_without_a_seed_windows_lie_about_the_middle_of_the_liver(placed):
    # Middles (1, 30), moved into the slice; (16, 14); and of the slice.
    assert corners(batches(*placed, 3, window=8)) == [(0, 24), (12, 10), (12, 12)]


def test_augmented_windows_lie_about_pixels_of_the_liver_each_time_others(placed):
    cache, table = placed
    still = Augmentation(0, 0, 0, 0, False, False)
    data = batches(cache, table[1:2], 1, augmentation=still, seed=0, window=8).repeat(40)
    found = corners(data)
    assert len(set(found)) > 20
    assert {row for row, _ in found} <= set(range(6, 19)) and {column for _, column in found} <= set(range(8, 13))
    assert corners(batches(cache, table[1:2], 1, augmentation=still, seed=0, window=8).repeat(40)) == found


def test_a_windows_mask_is_cut_where_its_image_is(placed):
    cache, table = placed
    still = Augmentation(0, 0, 0, 0, False, False)
    for images, truth in batches(cache, table[:2], 2, augmentation=still, seed=1, window=8, classes=3).repeat(5):
        for window, classes in zip((images.numpy() * 255).round().astype(int), truth.numpy()):
            first = [(cache.labels[place][window[..., 0], window[..., 1]] == classes.argmax(axis=-1)).all() for place in (0, 1)]
            assert any(first) and classes[..., 1].any()


def made(number, size=4):
    for value in range(number):
        yield np.full((size, size, 3), value, np.uint8), np.full((size, size), value % 3, np.uint8)


def test_a_cache_holds_what_it_was_given_in_order(table, tmp_path):
    generators.build_cache(made(16), 16, 4, tmp_path / "new" / "cache")
    found = SliceCache.load(tmp_path / "new" / "cache", table)
    assert (found.images == np.arange(16)[:, None, None, None]).all() and found.images.dtype == np.uint8
    assert (found.labels == (np.arange(16) % 3)[:, None, None]).all()
    assert found.positions(table[3:5]).tolist() == [3, 4]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cache"]


def test_a_cache_that_fails_half_way_leaves_nothing(tmp_path):
    def failing():
        yield from made(2)
        raise DataError("slice 2 is no picture")

    with pytest.raises(DataError, match="slice 2 is no picture"):
        generators.build_cache(failing(), 3, 4, tmp_path / "new" / "cache")
    assert not list((tmp_path / "new").iterdir())
