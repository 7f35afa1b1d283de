import cv2
import nibabel
import numpy as np
import PIL.Image
import pytest

from lits_helpers import volumes
from lits_helpers.files import DataError
from lits_helpers.volumes import (
    read_image, read_image_size, slice_paths, three_channels, windowed, write_image, write_nifti,
    write_slice_files,
)


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


PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_a_png_is_read_as_it_was_written_red_first(tmp_path):
    write_image(tmp_path / "a.png", PICTURE)
    assert (read_image(tmp_path / "a.png") == PICTURE).all()
    assert (cv2.imread(str(tmp_path / "a.png"))[..., ::-1] == PICTURE).all()
    assert read_image_size(tmp_path / "a.png") == (20, 30)


def test_a_jpeg_of_one_colour_keeps_it(tmp_path):
    write_image(tmp_path / "a.jpg", np.full((16, 16, 3), (200, 100, 50), np.uint8))
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (200, 100, 50)).max() <= 2
    assert read_image_size(tmp_path / "a.jpg") == (16, 16)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_grey_of_a_colour_file_is_its_luminance(tmp_path, ending):
    write_image(tmp_path / f"a{ending}", np.full((16, 16, 3), (79, 53, 255), np.uint8))
    # 0.299 * 79 + 0.587 * 53 + 0.114 * 255 = 83.8
    assert (read_image(tmp_path / f"a{ending}", grey=True) == 84).all()


def test_grey_of_a_16_bit_file_keeps_its_values(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4), 2, np.uint16))
    assert (read_image(tmp_path / "a.png", grey=True) == 2).all()


UNUSABLE = ("missing", "cut jpeg", "cut png", "empty", "text", "scrambled jpeg", "scrambled png")


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_grey_with_alpha_or_a_grey_palette_keeps_its_values(tmp_path, mode):
    values = np.arange(16, dtype=np.uint8).reshape(4, 4)
    picture = PIL.Image.fromarray(values)
    if mode == "LA":
        picture.putalpha(200)
    else:
        picture.putpalette([level for level in range(256) for _ in "RGB"])
    picture.save(tmp_path / "a.png")
    assert PIL.Image.open(tmp_path / "a.png").mode == mode
    assert (read_image(tmp_path / "a.png", grey=True) == values).all()


def test_a_colour_palette_is_read_as_its_colours(tmp_path):
    picture = PIL.Image.fromarray(np.array([[0, 1]], np.uint8))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_the_ending_may_be_in_capitals(tmp_path):
    write_image(tmp_path / "a.PNG", PICTURE)
    assert (read_image(tmp_path / "a.PNG") == PICTURE).all()


def test_a_png_is_written_without_a_word_on_stderr(tmp_path, capfd):
    write_image(tmp_path / "a.png", PICTURE)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("reader", [read_image, read_image_size])
def test_a_header_that_claims_a_huge_picture_is_an_error_with_the_name(tmp_path, reader):
    write_image(tmp_path / "a.jpg", PICTURE)
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    size = content.index(b"\xff\xc0") + 5  # of the frame header, after marker, length and depth
    content[size : size + 4] = b"\xff\xdc\xff\xdc"  # 65,500 x 65,500
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match="a.jpg"):
        reader(tmp_path / "a.jpg")


def broken(folder, kind):
    """A file that cannot be used, of one kind."""
    path = folder / f"volume-0_slice_0.{'png' if 'png' in kind else 'jpg'}"
    if kind != "missing":
        write_image(path, PICTURE)
    content = path.read_bytes() if path.exists() else b""
    if kind in ("cut jpeg", "cut png"):
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no picture")
    elif kind in ("scrambled jpeg", "scrambled png"):
        path.write_bytes(b"no picture" + content[-12:])
    elif kind == "16 bit png":
        cv2.imwrite(str(path), PICTURE.astype(np.uint16) * 256)
    return path


@pytest.mark.parametrize("kind", [*UNUSABLE, "16 bit png"])
def test_an_unusable_picture_is_named(tmp_path, kind):
    with pytest.raises(DataError, match="volume-0_slice_0"):
        read_image(broken(tmp_path, kind))


@pytest.mark.parametrize("kind", UNUSABLE)
def test_the_size_of_an_unusable_picture_is_not_told(tmp_path, kind):
    with pytest.raises(DataError, match="volume-0_slice_0"):
        read_image_size(broken(tmp_path, kind))


def test_a_picture_is_not_written_half(tmp_path, monkeypatch):
    def failing(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(volumes.Path, "write_bytes", failing)
    with pytest.raises(DataError, match="a.png"):
        write_image(tmp_path / "a.png", PICTURE)
    assert list(tmp_path.iterdir()) == []


def test_slice_files_have_the_reports_names(tmp_path):
    hounsfield = np.full((2, 32, 32), 50, np.int16)
    write_slice_files(tmp_path, 17, hounsfield, np.zeros((2, 32, 32), np.uint8))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")) == [
        "images/train_images/volume-17_slice_0.jpg",
        "images/train_images/volume-17_slice_1.jpg",
        "masks/train_masks/volume-17_slice_0_mask.jpg",
        "masks/train_masks/volume-17_slice_1_mask.jpg",
    ]
    assert slice_paths(tmp_path, 17, 1, ".png")[1].name == "volume-17_slice_1_mask.png"


def test_slices_and_labels_must_be_as_many(tmp_path):
    with pytest.raises(ValueError, match="shorter|longer"):
        write_slice_files(tmp_path, 0, np.zeros((2, 8, 8), np.int16), np.zeros((1, 8, 8), np.uint8))


def test_a_nifti_volume_keeps_values_spacing_and_directions(tmp_path):
    array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    write_nifti(tmp_path / "volume-0.nii.gz", array, (5.0, 0.7, 0.8))
    read = nibabel.load(tmp_path / "volume-0.nii.gz")
    assert read.shape == (4, 3, 2)  # columns, rows, slices
    assert read.header.get_zooms() == pytest.approx((0.8, 0.7, 5.0))
    # Columns run to the patient's left, rows to the back (posterior), slices to the head (superior).
    assert nibabel.aff2axcodes(read.affine) == ("L", "P", "S")
    assert np.asarray(read.dataobj)[3, 1, 1] == array[1, 1, 3]
    assert read.get_data_dtype() == np.int16
