import numpy as np
import pytest

from lits_helpers.windows import three_channels, windowed


def test_a_window_maps_its_ends_to_0_and_1_and_cuts_beyond():
    values = windowed(np.array([-1000, -45, 30, 105, 3000]), width=150, level=30)
    assert values.tolist() == [0, 0, 0.5, 1, 1]
    assert values.dtype == np.float32


@pytest.mark.parametrize("width", [0, -10])
def test_a_window_without_width_is_refused(width):
    with pytest.raises(ValueError, match=str(width)):
        windowed(np.zeros(3), width=width, level=0)


def labelled(liver, tumour, shape=(512, 512)):
    """A label map with so many pixels of liver and of tumour."""
    flat = np.zeros(shape[0] * shape[1], np.uint8)
    flat[:liver], flat[liver : liver + tumour] = 1, 2
    return flat.reshape(shape)


# From the analysis of the report's mask files (design notes, section 4).
BACKGROUND = (76, 51, 0)


@pytest.mark.parametrize(
    ("liver", "tumour", "colours"),
    [
        (0, 0, {BACKGROUND}),
        (20_000, 0, {BACKGROUND, (78, 52, 255)}),
        (20_000, 262, {BACKGROUND, (78, 52, 255), (79, 53, 255)}),
        (20_000, 263, {BACKGROUND, (78, 52, 127), (79, 53, 255)}),
        (0, 263, {BACKGROUND, (79, 53, 255)}),
        (262, 0, {BACKGROUND, (78, 52, 0)}),
    ],
)
def test_labels_get_the_colours_of_the_reports_masks(liver, tumour, colours):
    coded = three_channels(labelled(liver, tumour))
    assert set(map(tuple, coded.reshape(-1, 3).tolist())) == colours
    assert coded.dtype == np.uint8 and coded.shape == (512, 512, 3)


@pytest.mark.parametrize(("shape", "least"), [((256, 256), 66), ((100, 333), 34), ((64, 65), 5)])
def test_the_least_coded_tumour_is_a_thousandth_of_any_slice(shape, least):
    assert (78, 52, 127) in map(tuple, three_channels(labelled(500, least, shape)).reshape(-1, 3).tolist())
    smaller = three_channels(labelled(500, least - 1, shape)).reshape(-1, 3).tolist()
    assert (78, 52, 127) not in map(tuple, smaller)


def test_red_and_green_of_a_ct_slice_are_its_two_windows():
    coded = three_channels(np.array([[-1000, -40, 30], [60, 105, 160]], np.int16))
    # 255 * (HU + 45) / 150 and 255 * (HU + 40) / 200, cut and truncated.
    assert coded[..., 0].tolist() == [[0, 8, 127], [178, 255, 255]]
    assert coded[..., 1].tolist() == [[0, 0, 89], [127, 184, 255]]


def test_blue_of_a_ct_slice_is_its_rank_among_a_hundred_quantiles():
    values = np.random.default_rng(5).normal(40, 60, (50, 41)).astype(np.int16)
    ordered = np.sort(values.ravel())
    places = [0.001] + [(i + 0.5) / 100 for i in range(100)] + [0.999]
    nodes = sorted({int(ordered[int(len(ordered) * place)]) for place in places})
    expected = np.interp(values, nodes, np.linspace(0, 255, len(nodes)))
    assert np.abs(three_channels(values)[..., 2] - np.floor(expected)).max() <= 1


def test_blue_rises_between_the_lowest_and_the_highest_thousandth():
    blue = three_channels(np.arange(1000).reshape(20, 50))[..., 2].ravel()
    # 102 nodes at 1, 5, 15, ... 985, 995, 999, each 255 / 101 = 2.52 above the one before.
    assert blue[[0, 1, 3, 5, 10]].tolist() == [0, 0, 1, 2, 3]
    assert blue[[995, 997, 999]].tolist() == [252, 253, 255]


def test_fractions_of_a_hounsfield_unit_are_refused():
    with pytest.raises(ValueError, match="float64"):
        three_channels(np.zeros((4, 4)))
