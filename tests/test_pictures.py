import cv2
import numpy as np
import PIL.Image
import pytest

from lits_helpers import pictures
from lits_helpers.files import DataError
from lits_helpers.pictures import read_image, read_image_size, write_image

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


@pytest.mark.parametrize("ending", [".gif", ".picture", ""])
def test_an_ending_of_neither_png_nor_jpeg_is_refused(tmp_path, ending):
    with pytest.raises(DataError, match=f"a{ending}: .* use the ending .png or .jpg"):
        write_image(tmp_path / f"a{ending}", PICTURE)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_too_large_for_jpeg_is_refused_and_is_none_for_png(tmp_path):
    long = np.zeros((1, 65_501), np.uint8)
    with pytest.raises(DataError, match="a.jpg: .* use .png"):
        write_image(tmp_path / "a.jpg", long)
    write_image(tmp_path / "a.png", long)
    assert read_image(tmp_path / "a.png", grey=True).shape == long.shape


def test_a_picture_is_not_written_half(tmp_path, monkeypatch):
    def failing(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures.Path, "write_bytes", failing)
    with pytest.raises(DataError, match="a.png"):
        write_image(tmp_path / "a.png", PICTURE)
    assert list(tmp_path.iterdir()) == []
