"""What the system of superpixels learns from, and whom it refuses to learn from."""

import numpy as np
import pytest
from test_superpixel_system import SMALL, cached, disc_volume, voxelwise

from lits_helpers import superpixel_training
from lits_helpers.files import DataError
from lits_helpers.superpixel_system import segment_volume
from lits_helpers.superpixel_training import even_chances, train_superpixel_system


@pytest.fixture(scope="module")
def examples():
    """Of two volumes with their true livers: a network that sees none adds nothing to them."""
    cache, table = cached([disc_volume(number) for number in range(2)])
    network = voxelwise((4, 16, 16, 3), (0, 0, 0), -5)
    return cache, superpixel_training._examples(cache, table, network, SMALL, np.random.default_rng(0))


def test_of_an_unseen_volume_the_liver_is_found_and_tumour_is_thought_likelier_where_it_is():
    cache, table = cached([disc_volume(number) for number in range(4)])
    system = train_superpixel_system(cache, table[table.volume < 3], options=SMALL)
    found, truth = segment_volume(system, cache.images[table.volume == 3]), cache.labels[table.volume == 3]
    liver = truth > 0
    assert 2 * (found.liver & liver).sum() / (found.liver.sum() + liver.sum()) > 0.7
    assert found.probability[truth == 2].mean() > 2 * found.probability[truth == 1].mean() > 0


def test_volumes_are_learnt_from_in_slice_order_however_the_table_lies():
    cache, table = cached([disc_volume(number) for number in range(3)])
    shuffled = table[table.volume != 1].sample(frac=1, random_state=0)
    found = [positions.tolist() for positions in superpixel_training._volumes(cache, shuffled)]
    assert found == [[0, 1, 2, 3, 4, 5], [12, 13, 14, 15, 16, 17]]


def test_the_share_of_tumour_is_that_of_all_superpixels(examples):
    cache, (*_, share) = examples
    assert share == pytest.approx((cache.labels == 2).sum() / (cache.labels > 0).sum(), rel=0.3)


def test_patches_of_tumour_are_dark_where_the_superpixel_is(examples):
    _, (patches, is_tumour, _, _) = examples
    meant = patches[..., 3] > 0
    mean = (patches[..., 1] * meant).sum(axis=(1, 2, 3)) / meant.sum(axis=(1, 2, 3))
    # Green spans 200 HU, so that 70 HU are 89 levels; healthy liver is brought to 128.
    assert np.median(mean[~is_tumour]) == pytest.approx(128, abs=5)
    assert np.median(mean[is_tumour]) == pytest.approx(128 - 89, abs=8)


def test_of_healthy_superpixels_a_number_a_volume_is_kept_and_of_tumour_all(examples, monkeypatch):
    cache, (_, is_tumour, _, _) = examples
    monkeypatch.setattr(superpixel_training, "NEGATIVES", 7)
    _, table = cached([disc_volume(number) for number in range(2)])
    network = voxelwise((4, 16, 16, 3), (0, 0, 0), -5)
    _, fewer, volumes, _ = superpixel_training._examples(cache, table, network, SMALL, np.random.default_rng(0))
    assert np.bincount(volumes[~fewer]).tolist() == [7, 7]
    assert fewer.sum() == is_tumour.sum() > 0


def test_a_turned_patch_is_one_of_its_sixteen_images():
    patch = np.arange(2 * 3 * 3 * 1).reshape(2, 3, 3, 1)
    random = np.random.default_rng(0)
    turned = [superpixel_training._turned(patch, random) for _ in range(300)]
    assert len({each.tobytes() for each in turned}) == 16
    assert {each.shape for each in turned} == {(2, 3, 3, 1)}
    assert all(each[:, 1, 1, 0].tolist() in ([4, 13], [13, 4]) for each in turned)


def test_training_patients_without_a_tumour_are_refused():
    hounsfield, labels = disc_volume(0)
    with pytest.raises(DataError, match="no slice of these patients shows a tumour"):
        train_superpixel_system(*cached([(hounsfield, np.minimum(labels, 1))]), options=SMALL)


def test_a_tumour_too_small_for_any_superpixel_is_refused():
    hounsfield, labels = disc_volume(0)
    labels = np.minimum(labels, 1)
    labels[3, 16, 12] = 2
    cache, table = cached([(hounsfield, labels)])
    network = voxelwise((4, 16, 16, 3), (0, 0, 0), -5)
    with pytest.raises(DataError, match="0 of .* superpixels are tumour, .* take smaller scales"):
        superpixel_training._examples(cache, table, network, SMALL, np.random.default_rng(0))


def test_a_volume_with_three_patches_is_drawn_as_often_as_one_with_one():
    assert even_chances(np.array([4, 4, 0, 4])) == pytest.approx([1 / 6, 1 / 6, 1 / 2, 1 / 6])
