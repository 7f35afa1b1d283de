"""Damaged and hostile inputs at every entry point: an error in words, nothing hung, nothing changed, nothing run.

The functions have tests of their own; these go through the command line, so that a guard that is
missing between two functions shows. :mod:`damage` makes the inputs.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import damage
import keras
import nibabel
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from damage import (
    all_edited, animated, cut, edited, encoded, fifo, flipped, keras_file, linked, nifti, packed, picture, png,
    renamed, replaced, stored, with_value,
)
from packaging.version import Version

from lits_helpers import DataError, load_settings, settings
from lits_helpers import __main__ as command_line
from lits_helpers.blocks import segmenter
from lits_helpers.model import unet

SECONDS = 60  # in which a command has to end; all but a few take less than one
SMALL = dict(
    image_size=damage.SIZE, filters=2, depth=2, momentum=0.9, prior=0.1,
    batch_size=8, epochs=1, learning_rate=1e-3, schedule="cosine",
)
Change = Callable[[Path], object]


class Case(NamedTuple):
    """One bad input: the good data that lies there first, what is done then, the words of the error, the command.

    Data lies in ``given/data``; in commands ``{given}`` stands for ``given``, ``{network}`` for a good
    network. ``--data`` and ``--output`` are added where they are not said.
    """

    start: Callable[[Path], None]
    damage: Change
    words: str
    command: str


def on(start: Callable[[Path], None], place: str, named: str, usual: str) -> Callable[..., Case]:
    """For cases of one file or folder, which the error has to name."""

    def case(change: Change, words: str = "", command: str = usual, *, names: str = named) -> Case:
        return Case(start, lambda given: change(given / place), f"{names}.*{words}", command)

    return case


def content(new: object) -> Change:
    return lambda path: replaced(path, new)


def part(kept: float) -> Change:
    return lambda path: cut(path, kept)


def link(to: str) -> Change:
    return lambda path: linked(path, to)


def foldered(path: Path) -> None:
    """A folder in the place of a file."""
    path.unlink()
    path.mkdir()


def unchanged(path: Path) -> None:
    pass


AGAIN = "copy it again"
PREDICT, EVALUATE = "predict --model {network}", "evaluate --model {network}"

# Slices ---------------------------------------------------------------------------------------

IMAGE = "data/images/train_images/volume-1_slice_1.png"
image = on(damage.slices, IMAGE, r"volume-1_slice_1\.(png|jpg): ", "index")
mask = on(
    damage.slices, "data/masks/train_masks/volume-1_slice_1_mask.png", r"volume-1_slice_1_mask\.(png|jpg): ", "index"
)
folder, empty = (on(start, "data", "data", "index") for start in (damage.slices, damage.nothing))


def jpeg(new: bytes) -> Change:
    """A JPEG in the place of a PNG."""
    return lambda path: replaced(path, new).rename(path.with_suffix(".jpg"))


IMAGES = {
    "empty": image(content(b""), AGAIN),
    "cut short": image(cut, AGAIN),
    "text": image(content("no picture"), AGAIN),
    "a GIF by another name": image(content(encoded(picture("P"), "GIF")), AGAIN),
    "a TIFF that ends like a JPEG": image(jpeg(encoded(picture("RGB"), "TIFF") + b"\xff\xd9"), AGAIN),
    "CMYK": image(jpeg(encoded(picture("CMYK"), "JPEG")), "CMYK"),
    "animated": image(content(animated()), "3 pictures in one file"),
    "several pictures in a JPEG": image(jpeg(animated("MPO")), "3 pictures in one file"),
    "of another size than its mask": image(
        content(encoded(picture("RGB", 40), "PNG")), "40x40 pixels, its mask has 32x32"
    ),
    "a decompression bomb": image(content(png(8_000, 8_000, bits=1)), "8000x8000 pixels"),
    "a header that promises too much": image(content(png(60_000, 60_000, rows=bytes(99))), "too large a picture"),
    "damaged in the middle": image(flipped, AGAIN, "train"),
    "damaged in the middle, to be predicted": image(flipped, AGAIN, PREDICT),
    "damaged in the middle, to be evaluated": image(flipped, AGAIN, EVALUATE),
    "fewer rows than its header promises": image(content(png(32, 32, rows=bytes(99))), AGAIN, "train"),
    "16 bits a channel": image(content(png(32, 32, bits=16)), "uint16 picture, 8 bits", "train"),
    "a pipe": image(fifo, "neither a file nor a folder"),
    "a pipe, to be predicted": image(fifo, "neither a file nor a folder", PREDICT),
    "a link that leads nowhere": image(link("nothing"), "a link that leads nowhere"),
    "a link to itself": image(link("volume-1_slice_1.png"), "a link that leads nowhere"),
    "a folder of its name": image(foldered, "no image", names="volume-1_slice_1_mask.png: "),
    "without a mask": mask(Path.unlink, "no mask", names="volume-1_slice_1.png: "),
    "a second one of the same slice": image(lambda path: shutil.copy(path, path.parents[2]), "the same slice as"),
    "a name that is not UTF-8": image(
        lambda path: renamed(path, b"volume-1_slice_1\xff.png"), "rename", names=r"\\xff.png: "
    ),
}
if Version(PIL.__version__) < Version("11.3"):
    del IMAGES["several pictures in a JPEG"]  # 11.1 and older write such files so that no Pillow finds the others
MASKS = {
    "empty": mask(content(b""), AGAIN),
    "cut short": mask(cut, AGAIN),
    "damaged in the middle": mask(flipped, AGAIN),
    "label 3": mask(content(encoded(picture("L").point(lambda level: level % 4), "PNG")), "4 grey levels from 0 to 3"),
    "16 bits": mask(content(encoded(picture("I;16"), "PNG")), "unknown mask coding"),
    "CMYK": mask(jpeg(encoded(picture("CMYK"), "JPEG")), "CMYK"),
    "animated": mask(content(animated()), "3 pictures in one file"),
    "a decompression bomb": mask(content(png(8_000, 8_000, bits=1)), "8000x8000 pixels"),
    "a pipe": mask(fifo, "neither a file nor a folder"),
    "an endless device": mask(link("/dev/zero"), "neither a file nor a folder"),
    "without an image": image(Path.unlink, "no image", names="volume-1_slice_1_mask.png: "),
}
FOLDERS = {
    "nothing in it": empty(unchanged, names="no LiTS data below "),
    "nothing but a pipe": empty(lambda data: fifo(data / "IM0001"), "IM0001: neither a file nor a folder"),
    "a pipe beside the data": folder(lambda data: fifo(data / "IM0001"), "IM0001: neither a file nor a folder"),
    "a link in a circle": folder(lambda data: linked(data / "images" / "again", ".."), "again: a link in a circle"),
}

# Volumes --------------------------------------------------------------------------------------

CT, LONG = "{given}/data/volume-1.nii.gz", "{given}/data/" + "n" * 245 + ".nii.gz"
volume = on(damage.volumes, "data/volume-1.nii.gz", r"volume-1\.nii(\.gz)?: ", "convert")
labels = on(damage.volumes, "data/segmentation-1.nii.gz", r"segmentation-1\.nii\.gz: ", "convert")
HU, LABELS = stored()
TOO_LARGE = [3, *[32_767] * 3]  # 70 TB of 16 bits


def unpacked(change: Change) -> Change:
    """Change a volume that is not packed, in the place of the packed one."""

    def instead(path: Path) -> None:
        path.unlink()
        nifti(path.with_suffix(""), HU)
        change(path.with_suffix(""))

    return instead


def holding(array: np.ndarray, **fields: object) -> Change:
    return lambda path: nifti(path, array, **fields)


def longer(path: Path, megabytes: float = 8) -> None:
    """Some kilobytes more that unpack to megabytes: of a bomb these would be terabytes."""
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(int(1e6 * megabytes))))


def long_named(path: Path) -> None:
    path.rename(path.with_name("n" * 245 + ".nii.gz"))


VOLUMES = {
    "empty": volume(content(b""), "copy or unpack it again"),
    "text": volume(content("no volume"), "copy or unpack it again"),
    "cut short": volume(cut, AGAIN),
    "cut short, unpacked": volume(unpacked(cut), AGAIN),
    "cut short, unpacked, one of those to be predicted": volume(unpacked(cut), AGAIN, PREDICT),
    "cut within the header": volume(part(0.01), "again"),
    "damaged in the middle": volume(flipped, AGAIN),
    "NaN": volume(holding(with_value(np.nan)), "NaN or infinite"),
    "infinite": volume(holding(with_value(np.inf)), "NaN or infinite"),
    "minus infinite": volume(holding(with_value(-np.inf, np.float64)), "NaN or infinite"),
    "scaled to infinity": volume(holding(with_value(3e38), scl_slope=1e38), "NaN or infinite"),
    "of four dimensions": volume(holding(np.zeros((4, 4, 4, 2), np.int16)), "expected one 3D volume"),
    "complex": volume(holding(HU.astype(np.complex64)), "expected numbers"),
    "of an unknown type": volume(holding(HU, datatype=12_345), "again"),
    "megabytes behind the voxels": volume(longer, "over a megabyte lies behind"),
    "a header that promises 70 TB": volume(holding(HU, dim=TOO_LARGE), "its header promises 70,"),
    "a header that promises 70 TB, unpacked": volume(unpacked(holding(HU, dim=TOO_LARGE)), "its header promises 70,"),
    "a header that promises 70 TB, to be indexed": volume(
        holding(HU, dim=TOO_LARGE), "its header promises 70,", "index"
    ),
    "a negative size": volume(holding(HU, dim=[3, -32, 32, 6]), "expected one 3D volume"),
    "two negative sizes": volume(holding(HU, dim=[3, -32, -32, 6]), "expected one 3D volume"),
    "two axes along one line": volume(holding(HU, srow_x=[-0.8, 1e30, 0, 0]), "its affine has no inverse"),
    "a size of nought": volume(holding(HU, dim=[3, 0, 32, 6]), "expected one 3D volume"),
    "no dimension": volume(holding(HU, dim=[0] * 8), "expected one 3D volume"),
    "voxels far behind the file's end": volume(holding(HU, vox_offset=1e30), AGAIN),
    "voxels nowhere": volume(holding(HU, vox_offset=np.nan), "again"),
    "voxels before the header": volume(holding(HU, vox_offset=-400), "again"),
    "spacing of nought": volume(
        holding(HU, pixdim=[1, 0.8, 0.8, 0], sform_code=0, qform_code=1), "a spacing of .* x 0 mm"
    ),
    "spacing that is no number": volume(holding(HU, pixdim=[1, *[np.nan] * 3], sform_code=0), "affine"),
    "an affine that is no number": volume(holding(HU, srow_x=[np.nan] * 4), "its affine has no inverse"),
    "an affine of noughts": volume(holding(HU, srow_x=[0] * 4), "its affine has no inverse"),
    "an infinite affine": volume(holding(HU, srow_x=[np.inf] * 4), "its affine has no inverse"),
    "not packed, whatever its name says": volume(
        lambda path: replaced(path, gzip.decompress(path.read_bytes())), "again"
    ),
    "packed, whatever its name says": volume(lambda path: path.rename(path.with_suffix("")), "again"),
    "a pipe": volume(fifo, "neither a file nor a folder"),
    "a pipe, to be predicted": volume(fifo, "no such file", f"{PREDICT} {CT}"),
    "a folder of its name": volume(foldered, "no image", "index", names="segmentation-1.nii.gz: "),
    "a folder of its name, to be predicted": volume(foldered, "nii.gz", f"{PREDICT} {CT}", names="no DICOM images in "),
    "packed in another way": volume(
        lambda path: path.rename(path.with_suffix(".bz2")), "again", f"{PREDICT} {CT[:-2]}bz2", names="nii.bz2: "
    ),
    "not there": volume(Path.unlink, "no such file", f"{PREDICT} {CT}"),
    "too long a name": volume(
        long_named, "File name too long.*shorter", f"{PREDICT} {LONG}", names="n{245}_prediction"
    ),
    "no DICOM for DICOM masks to refer to": volume(
        unchanged, "which a NIfTI file has not", f"{PREDICT} --dicom-seg {CT}"
    ),
    "without labels": labels(Path.unlink, "no mask", "index", names="/volume-1.nii.gz: "),
    "under the labels of another one": volume(
        holding(HU - 900), "100% .*labels of another", names="segmentation-1.nii.gz: "
    ),
}
LABEL_VOLUMES = {
    "cut short": labels(cut, AGAIN),
    "label 3": labels(holding(LABELS + (LABELS == 2)), "holds label 3, expected"),
    "NaN": labels(holding(with_value(np.nan) * 0), "holds label nan, expected"),
    "of another size": labels(holding(LABELS[..., :5]), "not of one volume"),
    "without a volume": volume(Path.unlink, "no image", "index", names="segmentation-1.nii.gz: "),
    "a pipe": labels(fifo, "neither a file nor a folder"),
    "megabytes behind the voxels": labels(longer, "over a megabyte lies behind"),
}

# DICOM ----------------------------------------------------------------------------------------

AS_SCAN = PREDICT + " {given}/data/scan"
scan = on(damage.dicom, "data/scan", "scan", "convert")
one_slice = on(damage.dicom, "data/scan/slice_0002.dcm", "slice_0002.dcm ", "convert")


def everywhere(**attributes: object) -> Change:
    return lambda folder: all_edited(folder, **attributes)


def having(**attributes: object) -> Change:
    return lambda path: edited(path, **attributes)


def in_syntax(uid: str) -> Change:
    return lambda path: packed(path, uid)


def second_patient(folder: Path) -> None:
    """Slices of somebody else above those of this scan, in the same series: anonymised once too often."""
    for number in range(6):
        other = Path(shutil.copy(folder / f"slice_{number:04d}.dcm", folder / f"slice_{number + 6:04d}.dcm"))
        place = [0, 0, 5.0 * (number + 6)]
        edited(other, PatientID="phantom-9", InstanceNumber=number + 7, ImagePositionPatient=place)


def twice(path: Path) -> None:
    shutil.copy(path, path.with_name("copy.dcm"))


def second_series(folder: Path) -> None:
    for path in sorted(folder.iterdir())[3:]:
        edited(path, SeriesInstanceUID="1.2.3")


DICOM = {
    "a slice is missing": one_slice(
        Path.unlink, "copy the whole series again", names=r"1 slice\(s\) missing .*slice_0001"
    ),
    "a slice is missing, to be predicted": one_slice(
        Path.unlink, "slice_0001", AS_SCAN, names=r"1 slice\(s\) missing "
    ),
    "a slice twice": one_slice(twice, "copy.dcm and .*remove", names="two slices at one position"),
    "two patients in one series": scan(second_patient, "scan, in one series", names="2 patients are mixed in "),
    "two series": scan(second_series, "uid=", AS_SCAN, names="2 CT series in .*scan"),
    "an unknown series": scan(unchanged, "uid=", AS_SCAN + " --series 9.9", names="no series 9.9 in .*scan"),
    "pixels cut short": one_slice(part(0.9), "truncated pixels.*" + AGAIN),
    "cut within the header": one_slice(part(0.1), AGAIN),
    "cut within the header, to be indexed": one_slice(part(0.1), AGAIN, "index"),
    "no pixels": one_slice(having(PixelData=None), "has no pixels"),
    "spacing of nought": scan(everywhere(PixelSpacing=[0, 0]), "has a PixelSpacing of 0 and 0 mm"),
    "negative spacing": scan(everywhere(PixelSpacing=[-0.8, 0.8]), "has a PixelSpacing of -0.8 and 0.8 mm"),
    "huge rows": scan(everywhere(Rows=65535, Columns=65535), "slice_0000.dcm states a size of 65535x65535"),
    "huge rows, to be predicted": scan(everywhere(Rows=65535, Columns=65535), "states a size of 65535x65535", AS_SCAN),
    "more rows than pixels": scan(everywhere(Rows=4000), "slice_0000.dcm has damaged or truncated pixels"),
    "rows of two values": one_slice(having(Rows=[32, 32]), "states no image size"),
    "one slice of another size": one_slice(having(Rows=31), "keep the slices", names="Rows is .*slice_0002.dcm "),
    "a slope of nought": one_slice(having(RescaleSlope=0), "has a RescaleSlope of 0"),
    "no position": one_slice(having(ImagePositionPatient=None), "has no usable ImagePositionPatient"),
    "a colour picture": one_slice(having(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "is a colour picture"),
    "frames without end": one_slice(having(NumberOfFrames=2**31 - 1), "is an enhanced multi-frame image"),
    "seven bits allocated": one_slice(having(BitsAllocated=7), "has damaged or truncated pixels"),
    "the transfer syntax of a maker": one_slice(in_syntax("1.2.840.113619.5.2"), "in a way that is not read"),
    "a film": one_slice(in_syntax("1.2.840.10008.1.2.4.100"), "in a way that is not read"),
    "a JPEG that is none": one_slice(in_syntax("1.2.840.10008.1.2.4.50"), "has damaged or truncated pixels"),
    "a pipe among the slices": scan(lambda folder: fifo(folder / "pipe.dcm"), "pipe.dcm: neither a file nor a folder"),
    "nothing but a mark": empty(
        lambda data: replaced(data / "a.dcm", bytes(128) + b"DICM"), "a.dcm states no image size", "convert"
    ),
}

# Networks -------------------------------------------------------------------------------------

OF = " --model {given}/bad."
NOT_LOADED = "not a checkpoint that can be loaded .*train anew"
network = on(damage.slices, "bad.keras", "bad.keras: ", "predict" + OF + "keras")
onnx, xml = (on(damage.slices, f"bad.{end}", f"bad.{end}: ", "predict" + OF + end) for end in ("onnx", "xml"))
cascade = on(damage.slices, "cascade", "cascade", "predict --model {given}/cascade")


def with_lambda(path: Path) -> None:
    """A network with code in it, which leaves a file behind; it is known to run where it is let."""
    trace = path.with_name("trace")
    spy = keras.layers.Lambda(eval(f"lambda x: (open({str(trace)!r}, 'w'), x[..., :1])[1]"))
    keras.Sequential([keras.Input((damage.SIZE, damage.SIZE, 3)), spy]).save(path)
    trace.unlink()


def calling(path: Path) -> None:
    """A network whose description names functions of Python's to be called with the name of such a file."""
    trace = path.with_name("trace")
    touch = {"module": "os", "class_name": "system", "config": f"touch {trace}", "registered_name": None}
    layer = {
        "module": "builtins", "class_name": "eval", "config": {"source": f"open({str(trace)!r}, 'w')"},
        "registered_name": "eval", "build_config": touch, "compile_config": touch,
    }
    config = {"name": "s", "layers": [layer, touch]}
    keras_file(path, {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None})


def copied(change: Change) -> Change:
    """Damage a copy of a good network or cascade."""

    def instead(path: Path) -> None:
        source = path.parents[1] / "networks" / ("cascade" if path.suffix == "" else "good.keras")
        (shutil.copytree if source.is_dir() else shutil.copy)(source, path)
        change(path)

    return instead


def part_of(name: str, change: Change) -> Change:
    """Change one file of a copy of the good cascade."""
    return copied(lambda folder: change(folder / name))


def described(**facts: object) -> Change:
    return part_of("cascade.json", content(json.dumps(facts)))


def graph_cut_short(path: Path) -> None:
    replaced(path.with_suffix(".bin"), b"")
    replaced(path, '<?xml version="1.0"?><net name="a" version="11"><layers>')


SIZES = {"liver": damage.SIZE, "tumour": damage.SIZE}
NETWORKS = {
    "not there": network(unchanged, "no such checkpoint, train first"),
    "empty": network(content(b""), NOT_LOADED),
    "text": network(content("no network"), NOT_LOADED),
    "cut short": network(copied(cut), NOT_LOADED),
    "cut short, to be evaluated": network(copied(cut), NOT_LOADED, "evaluate" + OF + "keras"),
    "cut short, to be exported": network(copied(cut), NOT_LOADED, "export" + OF + "keras"),
    "damaged in the middle": network(copied(flipped), NOT_LOADED),
    "a pipe": network(fifo, "no such checkpoint"),
    "a list as description": network(lambda path: keras_file(path, []), NOT_LOADED),
    "of another size": network(lambda path: unet((16, 16, 3), filters=2, depth=1).save(path), "a network from .*anew"),
    "with a Lambda": network(with_lambda, NOT_LOADED),
    "with a Lambda, to be evaluated": network(with_lambda, NOT_LOADED, "evaluate" + OF + "keras"),
    "with a Lambda, to be exported": network(with_lambda, NOT_LOADED, "export" + OF + "keras"),
    "that names functions to call": network(calling, NOT_LOADED),
}
EXPORTED = {
    "garbage": onnx(content(b"no network"), "export it anew"),
    "empty": onnx(content(b""), "export it anew"),
    "a pipe": onnx(fifo, "no such file"),
    "without weights": xml(content("<net/>"), "no such file, export a network", names="bad.bin: "),
    "a graph cut short": xml(graph_cut_short, "export it anew"),
}
CASCADES = {
    "no description": cascade(part_of("cascade.json", Path.unlink), "no cascade.json"),
    "a description that is a list": cascade(part_of("cascade.json", content("[1, 2]")), "cascade.json: damaged"),
    "a description cut short": cascade(part_of("cascade.json", cut), "cascade.json: damaged"),
    "a description in no language": cascade(part_of("cascade.json", content(b"\xff\xfe{")), "cascade.json: damaged"),
    "networks outside": cascade(described(sizes={"../outside": 32, "/etc/passwd": 32}, threshold=0.5), "damaged"),
    "a threshold that is no number": cascade(described(sizes=SIZES, threshold=np.nan), "a threshold of nan"),
    "a threshold above all": cascade(described(sizes=SIZES, threshold=7), "a threshold of 7"),
    "an infinite size": cascade(described(sizes=SIZES | {"liver": np.inf}, threshold=0.5), "cascade.json: damaged"),
    "a negative size": cascade(described(sizes=SIZES | {"liver": -32}, threshold=0.5), "liver.keras: a network from"),
    "a network cut short": cascade(part_of("tumour.keras", cut), "tumour.keras: " + NOT_LOADED),
    "a network with a Lambda": cascade(part_of("liver.keras", with_lambda), "liver.keras: " + NOT_LOADED),
    "a network is missing": cascade(part_of("liver.keras", Path.unlink), "liver.keras: no such checkpoint"),
}

# Arguments and settings -----------------------------------------------------------------------


def said(command: str, words: str, change: Change = unchanged) -> Case:
    """A bad argument beside good slices."""
    return Case(damage.slices, change, words, command)


def at_a_file(command: str, start: Callable = damage.slices, *, below: str = "/out") -> Case:
    """An output root that is, or would lie below, a file."""
    words = f"cannot write .*/file{below}.*LITS_OUTPUT_ROOT"
    return Case(start, lambda given: replaced(given / "file", ""), words, command + " --output {given}/file" + below)


ARGUMENTS = {
    "none": said("", "COMMAND"),
    "an unknown command": said("segment", "invalid choice: 'segment'"),
    "an unknown option": said("index --fast", "unrecognized arguments: --fast"),
    "epochs that are no number": said("train --epochs nan", "--epochs: must be a whole number of at least 1, got nan"),
    "negative epochs": said("train --epochs -3", "--epochs: .*-3"),
    "too many epochs": said("train --epochs 1" + 20 * "0", "epochs is 10+: give a whole number from 1 to"),
    "minutes that are no number": said("train --minutes nan", "--minutes: must be a number of at least 0, got nan"),
    "infinite minutes": said("train --recipe strong --minutes inf", "--minutes: .*got inf"),
    "negative minutes": said("crossvalidate --minutes -1", "--minutes: .*got -1"),
    "minutes in words": said("train --minutes some", "--minutes: .*got some"),
    "no folds": said("crossvalidate --folds 0", "--folds: .*got 0"),
    "more folds than patients": said("crossvalidate --folds 99", "3 patient.* cannot make 99 folds"),
    "a port out of range": said("app --port 99999", "--port: .*got 99999"),
    "no network": said("predict", "--model"),
    "an empty name of a network": said("predict --model ''", "no cascade.json"),
    "an unknown profile": said("index --profile huge", "--profile: invalid choice"),
    "an unknown recipe": said("train --recipe slow", "--recipe: invalid choice"),
    "an unknown layout": said("index --layout ../..", r"0 layouts fit '\.\./\.\.'"),
    "an unknown meaning of masks": said("index --mask-meaning kidney", "meaning='kidney' .* is not understood"),
    "slices to be converted": said("convert", "data holds slices and no volumes"),
    "predictions that are not there": said("population --predictions {given}/nothing", "nothing: no predictions"),
}
ROOTS = {
    "data that is not there": said(
        "index --data {given}/nothing", "LITS_DATA_ROOT is .*/nothing', which is not a folder"
    ),
    "data that is a file": said("index --data {given}/" + IMAGE, "LITS_DATA_ROOT is .*png', which is not a folder"),
    "data with a null byte": said("index --data a\0b", "LITS_DATA_ROOT is .*cannot be a folder"),
    "data of too long a name": said("index --data " + "n" * 5000, "LITS_DATA_ROOT is .*cannot be a folder"),
    "data in nobody's home": said("index --data ~nobody_of_that_name/lits", "LITS_DATA_ROOT is .*cannot be a folder"),
    "data by a link to itself": said(
        "index --data {given}/ring", "LITS_DATA_ROOT is ", lambda given: linked(given / "ring", "ring")
    ),
    "output in the place of data": said(
        "index --output {given}/data", "output root .* is, or lies in, .*LITS_OUTPUT_ROOT"
    ),
    "output in the data": said(
        "convert --output {given}/data/new/out", "output root .* is, or lies in, .*LITS_OUTPUT_ROOT"
    ),
    "output in the data by a link": said(
        "index --output {given}/link/out", "output root .* is, or lies in, ",
        lambda given: linked(given / "link", "data")
    ),
    "output at a file": at_a_file("index", below=""),
    "output below a file": at_a_file("index"),
    "output of volumes below a file": at_a_file("convert", damage.volumes),
    "output of predictions below a file": at_a_file(PREDICT),
    "output of the phantom below a file": at_a_file("phantom --data ''", damage.nothing),
    "output of the app below a file": at_a_file("app --model {network} --port 48866"),
    "output where no folder can be made": said(
        "index --output /proc/lits", "cannot write /proc/lits.*LITS_OUTPUT_ROOT"
    ),
    "output of too long a name": said(
        "index --output {given}/" + "n" * 300, "LITS_OUTPUT_ROOT is .*cannot be a folder"
    ),
    "app below a root that is not there": said(
        "app --model {network} --root {given}/nothing", "nothing is not a folder"
    ),
    "app with a scan outside its root": said(
        "app --model {network} --root {given}/data --scan ../../networks", r"\.\./\.\./networks is not below .*--root"
    ),
    "app with a network that is not there": said(
        "app --model {given}/nothing.keras", "nothing.keras: no such checkpoint"
    ),
}

KINDS = {
    "image": IMAGES, "mask": MASKS, "folder": FOLDERS, "volume": VOLUMES, "labels": LABEL_VOLUMES, "dicom": DICOM,
    "network": NETWORKS, "exported": EXPORTED, "cascade": CASCADES, "argument": ARGUMENTS, "root": ROOTS,
}
CASES = {f"{kind}: {name}": case for kind, cases in KINDS.items() for name, case in cases.items()}

# How a command is run -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Each kind of good data once, to be copied; and a network and a cascade that fit it."""
    root = tmp_path_factory.mktemp("good")
    for start in (damage.slices, damage.volumes, damage.dicom, damage.nothing):
        start(root / start.__name__)
    size = (damage.SIZE, damage.SIZE, 3)
    (root / "networks" / "cascade").mkdir(parents=True)
    unet(size, filters=2, depth=2, momentum=0.9, prior=0.1).save(root / "networks" / "good.keras")
    for name in ("liver", "tumour"):
        segmenter(size, filters=2, depth=1).save(root / "networks" / "cascade" / f"{name}.keras")
    (root / "networks" / "cascade" / "cascade.json").write_text(json.dumps({"sizes": SIZES, "threshold": 0.5}))
    return root


@pytest.fixture(scope="module", autouse=True)
def small():
    """Networks that train in a moment, and volumes converted in threads: processes take seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(settings.PROFILES, "tiny", SMALL)
        patch.setattr(settings, "KAGGLE_INPUT", Path("no kaggle"))
        patch.setattr("lits_helpers.parallel.ProcessPoolExecutor", lambda workers, *_: ThreadPoolExecutor(workers))
        tf.config.run_functions_eagerly(True)  # a network this small trains faster than it is compiled
        yield
        tf.config.run_functions_eagerly(False)


def too_late(*_: object) -> None:
    raise TimeoutError(f"not done after {SECONDS} s")


@pytest.fixture(autouse=True)
def in_time():
    """End what hangs; again and again, because waiting for a thread that hangs would hang too."""
    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def called(command: str, here: Path, good: Path) -> int:
    """Call the command line on ``here/given/data``, unless told otherwise; its status."""
    places = {"given": here / "given", "out": here / "out", "network": good / "networks" / "good.keras"}
    words = ["" if word == "''" else word.format(**places) for word in command.split(" ") if word]
    for option, place in (("--data", "given/data"), ("--output", "out")):
        if words and option not in words:
            words += [option, str(here / place)]
    try:
        return command_line.main(words)
    except SystemExit as stopped:  # argparse
        return stopped.code


@pytest.fixture
def run(good, tmp_path, capsys):
    """Call the command line in ``tmp_path``: its status, and what it printed."""
    (tmp_path / "networks").symlink_to(good / "networks")

    def call(command: str) -> tuple[int, str, str]:
        status = called(command, tmp_path, good)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def prepared(case: Case, good: Path, here: Path) -> dict[str, tuple]:
    """Put the good data of a case below ``given`` and damage it; what lies there then."""
    (here / "given").mkdir()
    shutil.copytree(good / case.start.__name__, here / "given" / "data")
    case.damage(here / "given")
    return damage.state(here / "given")


def require_error(words: str, status: int, out: str, err: str) -> None:
    """It ended with an error on a line of its own that holds these words, and nothing else went wrong."""
    assert status == 2, out
    message = re.search(r"(?ms)^(python -m lits_helpers.*: )?error: (.*)", err.replace("\r", "\n"))
    assert message, err
    assert re.search(f"(?s){words}", message[2]), message[2]
    assert "Traceback" not in out + err


pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(os.name == "nt", reason="there are no pipes in folders and no alarms on Windows"),
]


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_named_in_words_and_left_as_it_was(name, good, run, tmp_path):
    before = prepared(CASES[name], good, tmp_path)
    require_error(CASES[name].words, *run(CASES[name].command))
    assert damage.state(tmp_path / "given") == before


def test_there_are_sixty_cases_at_least_and_some_of_each_kind():
    assert len(CASES) >= 60 and all(len(cases) >= 4 for cases in KINDS.values())


OF_SLICES = [name for name, case in CASES.items() if re.match("image|mask", name) and case.command == "index"]
OF_VOLUMES = [name for name, case in CASES.items() if re.match("volume|labels", name) and case.command == "convert"]


@pytest.mark.parametrize("name", OF_SLICES)
def test_one_bad_slice_among_good_ones_is_left_out_if_asked_for(name, good, run, tmp_path):
    before = prepared(CASES[name], good, tmp_path)
    with pytest.warns(UserWarning, match=f"(?s)left out: .*{CASES[name].words}"):
        status, out, _ = run("index --skip-problems")
    assert status == 0 and f"{6 if 'second' in name else 5} slices of 3 volumes" in out
    assert damage.state(tmp_path / "given") == before


@pytest.mark.parametrize("name", OF_VOLUMES)
def test_one_bad_volume_among_good_ones_is_left_out_if_asked_for(name, good, run, tmp_path):
    before = prepared(CASES[name], good, tmp_path)
    with pytest.warns(UserWarning, match=f"(?s)left out: .*{CASES[name].words}"):
        status, out, _ = run("convert --skip-problems")
    slices = 12 if name == "labels: a pipe" else 6  # a volume whose labels are no file is one without labels
    assert status == 0 and re.search(r"\n +0 +6 +32 +32 ", out) and f"\n{slices} slices: " in out
    assert damage.state(tmp_path / "given") == before


# What was stored below the output root ---------------------------------------------------------


@pytest.fixture(scope="module")
def finished(good, tmp_path_factory):
    """A folder with data and the results of all commands that store something they read again."""
    here = tmp_path_factory.mktemp("finished")
    shutil.copytree(good / "slices", here / "given" / "data")
    shutil.copytree(good / "volumes", here / "given" / "volumes")
    for command in (
        "train", "crossvalidate --minutes 0", "predict --model {network}", "audit",
        "convert --data {given}/volumes", "index --data {given}/volumes",
    ):
        assert called(command, here, good) == 0
    (here / "out" / "phantom").mkdir()
    (here / "out" / "phantom" / "phantom.json").write_text("{}")
    return here


class Stored(NamedTuple):
    """A file below the output root, what is done to it, the words of the error, the command."""

    file: str
    damage: Change
    words: str
    command: str


def instead_of(old: str, new: str) -> Change:
    """Replace text in a file, which has to be there."""

    def change(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


emptied, garbled, listed = content(b""), content(b"\x80\x00" * 200), content("[1, 2, 3]")


def shortened(path: Path) -> None:
    """A table without its last two rows."""
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))


def filed(path: Path) -> None:
    """Put a file in the place of a folder."""
    shutil.rmtree(path)
    path.write_text("")


def table(file: str, command: str) -> Callable[..., Stored]:
    """For cases of one file, which the error has to name; of a table or description it says to delete it."""
    named = re.escape(Path(file).name).replace(r"\*", "[^/]*") + ".*: .*"

    def case(change: Change, words: str = "delete this file") -> Stored:
        return Stored(file, change, named + words, command)

    return case


RUNS, DESCRIBE, GO_ON = "runs/tiny-patient-*/", "population --predictions {out}/predictions", "train --epochs 2"
of_index, of_patients = table("index/slices-*.csv", "index"), table("index/patients-*.csv", "train")
of_history, of_run = table(RUNS + "history.csv", "train"), table(RUNS + "run.json", GO_ON)
of_folds, of_scores = (table(f"crossvalidation/{name}.csv", "crossvalidate") for name in ("folds-3-*", "*-fold-1-of-3"))
of_state, of_best = table(RUNS + "last/epoch-001.keras", GO_ON), table(RUNS + "best.keras", "evaluate")
of_mask = table("predictions/masks/volume-1_slice_1_*.png", DESCRIBE)
of_list = table("predictions/predictions.csv", DESCRIBE)
of_images, of_labels = (partial(Stored, f"cache/*/{name}.npy") for name in ("images", "labels"))
of_slice = table("slices/*/masks/train_masks/volume-1_slice_3_mask.png", "index --data {given}/volumes")
CACHE = ("cache/.*delete this folder", GO_ON)
STORED = {
    "index: empty": of_index(emptied),
    "index: garbage": of_index(garbled),
    "index: cut in the middle of a line": of_index(part(0.55)),
    "index: of another version": of_index(instead_of("tumour_pixels", "lesion_pixels"), "has no tumour_pixels.*delete"),
    "index: words for numbers": of_index(instead_of(",32,32,", ",many,32,"), "many.*delete this file"),
    "index: a path that leaves the root": of_index(
        instead_of("images/train_images/", "../../../"), r"names \.\./\.\..*delete"
    ),
    "patients: garbage": of_patients(garbled),
    "patients: of another version": of_patients(content("one,two\n1,2\n"), "has no volume_a.*delete this file"),
    "history: empty": of_history(emptied),
    "history: cut in the middle of a line": of_history(part(0.9)),
    "history: of another version": of_history(instead_of("val_loss", "loss_of_validation"), "has no val_loss.*delete"),
    "history: no number": of_history(lambda path: replaced(path, path.read_text().rpartition(",")[0] + ",nan\n")),
    "run: a list": of_run(listed),
    "run: cut short": of_run(cut),
    "run: parts in words": of_run(instead_of('"parts_per_batch": 1', '"parts_per_batch": "some"')),
    "state: cut short": of_state(cut, NOT_LOADED),
    "best network: cut short": of_best(cut, NOT_LOADED),
    "cache: cut short": of_images(cut, *CACHE),
    "cache: garbage": of_labels(garbled, *CACHE),
    "cache: of another size": of_labels(lambda path: np.save(path, np.zeros((2, 32, 32), np.uint8)), *CACHE),
    "cache: objects, which are code": of_labels(
        lambda path: np.save(path, np.array([{}] * 6), allow_pickle=True), *CACHE
    ),
    "folds: garbage": of_folds(garbled),
    "folds: a list": of_folds(listed),
    "folds: a path for a number": of_folds(
        lambda path: replaced(path, re.sub("(?m),3$", ",../../3", path.read_text()))
    ),
    "folds: of other patients": of_folds(shortened, "these folds are of another table"),
    "scores: garbage": of_scores(garbled),
    "scores: of another version": of_scores(
        instead_of("intersection", "overlap"), "has no intersection.*delete this file"
    ),
    "predictions: garbage": of_list(garbled),
    "predictions: no masks named": of_list(instead_of("file", "name"), "has no file.*delete this file"),
    "predictions: masks outside": of_list(instead_of("masks/", "../../given/data/masks/"), r"names \.\./.*not below"),
    "predictions: a mask is missing": of_mask(Path.unlink, "No such file"),
    "predictions: a mask is a pipe": of_mask(fifo, "a folder, pipe or device"),
    "predictions: a mask of another size": Stored(
        of_mask(fifo).file, content(png(40, 40)), "masks of volume 1 differ", DESCRIBE
    ),
    "predictions: a file in their place": Stored("predictions", filed, "cannot write .*predictions", PREDICT),
    "slices of a volume: a mask cut short": of_slice(cut, "cut short"),
    "phantom: something else in its place": Stored(
        "phantom/*.json", listed, "phantom holds something that is no", "phantom --data ''"
    ),
    "runs: a file in their place": Stored("runs", filed, "cannot write .*runs", "train"),
    "split: a folder in its place": Stored("split_patient.csv", foldered, "cannot write .*split_patient.csv", "audit"),
}


@pytest.fixture
def again(finished, tmp_path, good, capsys):
    """Damage a copy of the finished folder's results, and call a command there: status and output."""

    def call(stored: Stored) -> tuple[int, str, str]:
        (tmp_path / "given").symlink_to(finished / "given")
        shutil.copytree(finished / "out", tmp_path / "out")
        found = list((tmp_path / "out").glob(stored.file))
        assert found, "nothing was stored under that name"
        for path in found:
            stored.damage(path)
        before = damage.state(finished / "given")
        status = called(stored.command, tmp_path, good)
        assert damage.state(finished / "given") == before
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


@pytest.mark.parametrize("name", STORED)
def test_a_stored_file_that_was_damaged_is_named(name, again):
    require_error(STORED[name].words, *again(STORED[name]))


# Odd, and good --------------------------------------------------------------------------------


def relabelled(path: Path) -> None:
    """A mask with the same labels in 16 bits."""
    PIL.Image.fromarray(np.asarray(PIL.Image.open(path)).astype(np.uint16)).save(path)


def into(name: str) -> Change:
    """Rename the folder with the images."""
    return lambda data: (data / "images" / "train_images").rename(data / "images" / name)


def elsewhere(data: Path) -> None:
    """The images in another place, and a link to them in theirs."""
    (data / "images").rename(data.parent / "images")
    linked(data / "images", data.parent / "images")


def littered(path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._volume-1_slice_1.png"):
        replaced(path.with_name(name), b"\0")


def shuffled(scan: Path) -> None:
    for number, path in enumerate(sorted(scan.iterdir())):
        path.rename(path.with_name(f"Schicht {17 * number % 7} ü"))


def reported(path: Path) -> None:
    """A DICOM report beside a slice."""
    report = Path(shutil.copy(path, path.with_name("report.dcm")))
    edited(report, Modality="SR", Rows=None, Columns=None, PixelData=None)


def moved(name: str) -> Change:
    return lambda path: path.rename(path.with_name(name))


GOOD = {
    "a grey JPEG": (image, jpeg(encoded(picture("L"), "JPEG"))),
    "a progressive JPEG": (image, jpeg(encoded(picture("RGB"), "JPEG", progressive=True))),
    "a grey PNG": (image, content(encoded(picture("L"), "PNG"))),
    "a PNG with a palette": (image, content(encoded(picture("P"), "PNG"))),
    "a PNG that lets the background through": (image, content(encoded(picture("RGBA"), "PNG"))),
    "a mask of 16 bits": (mask, relabelled),
    "an ending in capitals": (image, moved("VOLUME-1_SLICE_1.PNG")),
    "a folder that is not in English": (folder, into("Größe Ж 肝臓 🩻")),
    "a folder with spaces and signs": (folder, into(" a  folder; $(touch x) & 'more' %s {0} ")),
    "a folder with a line break in its name": (folder, into('two\nlines, "quoted"')),
    "a folder with as long a name as there can be": (folder, into("n" * 255)),
    "a folder and a link to it elsewhere": (folder, elsewhere),
    "what systems leave in folders": (image, littered),
    "whole numbers of 32 bits": (volume, holding(HU.astype(np.int32))),
    "fractions": (volume, holding(HU + 0.25)),
    "negative spacing beside an affine": (volume, holding(HU, pixdim=[1, -0.8, -0.8, 5])),
    "an axis that points the other way": (volume, lambda path: nifti(path, HU[::-1], np.diag([0.8, -0.8, 5, 1]))),
    "some bytes behind the voxels": (volume, partial(longer, megabytes=0.001)),
    "a volume without labels": (labels, Path.unlink),
    "DICOM without rescaling": (scan, everywhere(RescaleSlope=None, RescaleIntercept=None)),
    "DICOM without endings, in no order": (scan, shuffled),
    "DICOM beside a report": (one_slice, reported),
}
# By hand, of what damage.slices, volumes and dicom make; the last column there is the notes'.
EXPECTED = {
    "index": r"liver only +3 .*liver and tumour +3 .*\n6 slices of 3 volumes",
    "convert": r"\n +(0|1) +6 +32 +32 +\(5\.0, 0\.8\d*, 0\.8\d*\)",
}


@pytest.mark.parametrize("name", GOOD)
def test_an_odd_input_that_is_good_gives_what_it_should(name, good, run, tmp_path):
    of, change = GOOD[name]
    case = of(change)
    before = prepared(case, good, tmp_path)
    status, out, err = run(case.command)
    assert status == 0, err
    assert re.search(f"(?s){EXPECTED[case.command]}", out), out
    assert damage.state(tmp_path / "given") == before


@pytest.mark.parametrize("name", ["Größe Ж 肝臓", " a scan; $(touch x) (1)", "two\nlines", "n" * 200])
def test_a_scan_of_any_name_is_predicted_in_its_own_geometry(good, tmp_path, name):
    scan = good / "volumes" / "volume-1.nii.gz"
    shutil.copy(scan, tmp_path / f"{name}.nii.gz")
    arguments = ["--model", str(good / "networks" / "good.keras"), "--data", str(good / "volumes")]
    places = ["--output", str(tmp_path / "out"), str(tmp_path / f"{name}.nii.gz")]
    assert command_line.main(["predict", *arguments, *places]) == 0
    [written] = (tmp_path / "out" / "predictions").iterdir()
    assert written.name == f"{name}_prediction.nii.gz"
    assert nibabel.load(written).shape == (32, 32, 6)
    assert (nibabel.load(written).affine == nibabel.load(scan).affine).all()


@pytest.mark.parametrize(("file", "change", "command", "words"), [
    ("converted/volumes/volume-0.json", listed, "convert --data {given}/volumes", "\n12 slices: "),
    ("converted/volumes/volume-0.json", garbled, "convert --data {given}/volumes", "\n12 slices: "),
    ("split_patient.csv", garbled, "audit", "split and audit: "),
    ("split_patient_audit.json", garbled, "audit", "split and audit: "),
])
def test_a_stored_file_that_is_only_written_is_written_anew(again, finished, tmp_path, file, change, command, words):
    status, out, err = again(Stored(file, change, "", command))
    assert status == 0, err
    assert words in out
    if file.endswith(".csv"):
        pairs = zip(sorted((tmp_path / "out").glob(file)), sorted((finished / "out").glob(file)), strict=True)
        assert any(new.read_bytes() == old.read_bytes() for new, old in pairs)


# Settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variable", "value", "words"), [
    ("LITS_PROFILE", "huge", "LITS_PROFILE is 'huge': set it to"),
    ("LITS_RECIPE", "tiny", "LITS_RECIPE is 'tiny': set it to"),
    ("LITS_DATA_ROOT", "nothing/here", "LITS_DATA_ROOT is 'nothing/here', which is not a folder"),
    ("LITS_DATA_ROOT", "two\nlines", "LITS_DATA_ROOT is "),
    ("LITS_DATA_ROOT", os.fsdecode(b"\xff\xfe"), "LITS_DATA_ROOT is "),
    ("LITS_OUTPUT_ROOT", "~nobody_of_that_name/out", "LITS_OUTPUT_ROOT is .*cannot be a folder"),
    ("LITS_OUTPUT_ROOT", "n" * 300, "LITS_OUTPUT_ROOT is .*cannot be a folder"),
    ("LITS_LAYOUT", "elsewhere", "0 layouts fit 'elsewhere'.*LITS_LAYOUT"),
    ("LITS_MASK_MEANING", "kidney", "'kidney' .LITS_MASK_MEANING"),
])
def test_nonsense_in_a_variable_is_named(good, tmp_path, monkeypatch, capsys, variable, value, words):
    places = {"LITS_DATA_ROOT": str(good / "slices"), "LITS_OUTPUT_ROOT": str(tmp_path / "out")}
    for name, text in (places | {variable: value}).items():
        monkeypatch.setenv(name, text)
    status = command_line.main(["index"])
    require_error(words, status, *capsys.readouterr())


@pytest.mark.parametrize(("name", "value"), [
    ("seed", np.nan), ("seed", -1), ("seed", 2**32), ("seed", "thirty-two"), ("epochs", -3), ("epochs", np.nan),
    ("epochs", 2.5), ("batch_size", 0), ("image_size", "large"), ("filters", None), ("depth", -1), ("prior", 0),
    ("learning_rate", np.nan), ("learning_rate", -1e-3), ("learning_rate", np.inf), ("momentum", 2),
])
def test_a_number_that_cannot_be_is_named(tmp_path, name, value):
    with pytest.raises(DataError, match=rf"^{name} is .*: give a (whole )?number from "):
        load_settings(data_root=tmp_path, output_root=tmp_path.parent / "out", **{name: value})


def test_an_output_root_that_may_not_be_written_is_named(run, good, tmp_path):
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("the superuser may write everywhere: run as somebody else for this one")
    prepared(said("index", ""), good, tmp_path)
    (tmp_path / "out").mkdir(mode=0o500)
    require_error("cannot write .*Permission denied.*LITS_OUTPUT_ROOT", *run("index"))
