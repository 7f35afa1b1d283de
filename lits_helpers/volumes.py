"""CT volumes with their geometry: NIfTI and DICOM to Hounsfield units, and labels back to files.

Arrays are ordered (slice, row, column) as seen on screen: slices from feet to head, rows from
front to back, columns from the patient's right to left, so that the liver is on the viewer's left.
Files store volumes in many orders; :class:`Geometry` knows the way from a file's order to this
one, and back without losing a voxel.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.orientations import aff2axcodes, apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError

from . import dicom, dicom_masks
from .files import DataError, atomic_path
from .parallel import usable_memory

SCREEN = ("L", "P", "S")  # where columns, rows and slices run to: left, posterior, superior
_SLAB_VOXELS = 2**23  # read at a time: 32 slices of 512x512
_MOST_PACKED = 1032  # bytes that one byte of a .gz file can hold (zlib's technical details)
_MOST_BEHIND = 2**20  # bytes after the voxels: some writers fill up their last block
_GEOMETRY_FIELDS = (
    "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)
_LIVER_HU = (-150, 400)  # below are fat and gas, above bone, clips and embolisation material
_MOST_STRANGE = 0.2  # share of labelled voxels outside that still passes
# The spine draws the mean place of bone behind the body's: by 5 to 8 % of the picture in 12 phantoms
# and a real CT, by -3 (contrast medium in front) to 15 % in 19 LiTS volumes, from 160 HU on there.
_BONE_HU, _BODY_HU, _IN_FRONT = 300, -50, 0.04


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the voxels of a file lie in the patient.

    Attributes
    ----------
    shape : (int, int, int)
        Of the array as the file stores it.
    affine : float64 array (4, 4)
        From the indices of that array to mm, axes to the patient's right, front and head, as in
        NIfTI (DICOM's points left and back: it was turned on reading).
    header : nibabel header or None
        Of a NIfTI file; :func:`write_labels` keeps its codes and units.
    series : dicom.Series or None
        The files of a DICOM series, which label slices are matched to.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    header: nibabel.Nifti1Header | None = None
    series: dicom.Series | None = None

    @property
    def orientation(self) -> str:
        """Where the stored axes run to, as three of R/L, A/P and S/I: nibabel's axis codes."""
        return "".join(aff2axcodes(self.affine))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between slices, rows and columns on screen, in mm."""
        stored = nibabel.affines.voxel_sizes(self.affine)
        column, row, between = (float(stored[axis]) for axis in np.argsort(self._way_to_screen()[:, 0]))
        return between, row, column

    @property
    def is_identity(self) -> bool:
        """Whether the affine says nothing: 1 mm voxels along the axes.

        Many LiTS volumes from 3D-IRCADb (28 to 47) have such a header: neither their spacing nor
        their orientation is known then, and nothing in mm may be believed.
        """
        return np.allclose(np.abs(self.affine[:3, :3]), np.eye(3), atol=1e-6)

    @property
    def screen_shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns on screen."""
        column, row, between = (self.shape[axis] for axis in np.argsort(self._way_to_screen()[:, 0]))
        return between, row, column

    def _way_to_screen(self) -> np.ndarray:
        """nibabel's transform of axes (which, and whether flipped) to columns, rows, slices."""
        return ornt_transform(io_orientation(self.affine), axcodes2ornt(SCREEN))

    def to_screen(self, stored: np.ndarray) -> np.ndarray:
        """A stored array as (slices, rows, columns) on screen: the same voxels, a view."""
        return apply_orientation(stored, self._way_to_screen()).transpose(2, 1, 0)

    def to_stored(self, on_screen: np.ndarray) -> np.ndarray:
        """The way back of :meth:`to_screen`, exactly: a view too."""
        way_back = ornt_transform(axcodes2ornt(SCREEN), io_orientation(self.affine))
        return apply_orientation(on_screen.transpose(2, 1, 0), way_back)


@dataclass(frozen=True, eq=False)
class Volume:
    """One CT scan.

    Attributes
    ----------
    hounsfield : int16 array (slices, rows, columns)
        In HU, in the order of the screen.
    geometry : Geometry
    """

    hounsfield: np.ndarray
    geometry: Geometry

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between slices, rows and columns, in mm."""
        return self.geometry.spacing


def _open_nifti(path: Path | str) -> nibabel.Nifti1Image:
    """A NIfTI file with its header read and checked, its voxels not yet read."""
    path = Path(path)
    if not path.is_file():  # opening a pipe would wait for ever
        raise DataError(f"{path}: no such file, or none to be read: give a NIfTI file")
    try:
        image = nibabel.load(path)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise DataError(f"{path}: not a NIfTI file ({error}): copy or unpack it again") from error
    if not isinstance(image, nibabel.Nifti1Image) or not path.name.lower().endswith((".nii", ".nii.gz")):
        raise DataError(f"{path}: {type(image).__name__}, expected NIfTI: .nii or .nii.gz")
    if len(image.shape) < 3 or max(image.shape[3:], default=1) > 1 or min(image.shape) < 1:
        raise DataError(f"{path}: {len(image.shape)}D data of shape {image.shape}, expected one 3D volume")
    if image.get_data_dtype().kind not in "iuf":
        raise DataError(f"{path}: voxels of type {image.get_data_dtype()}, expected numbers")
    if not np.isfinite(image.affine).all() or np.isnan(io_orientation(image.affine)).any():
        raise DataError(f"{path}: its affine has no inverse, so orientation is unknown: mend the header")
    _require_room(path, image)
    with ImageOpener(path) as file:
        stated = type(image.header).from_fileobj(file, check=False)  # nibabel makes 1 mm of 0 on loading
    if stated["sform_code"] == 0 and 0 in stated["pixdim"][1:4]:
        spacing = " x ".join(f"{part:g}" for part in stated["pixdim"][1:4])
        raise DataError(f"{path}: a spacing of {spacing} mm, so the size of voxels is unknown: mend the header")
    return image


def _require_room(path: Path, image: nibabel.Nifti1Image) -> None:
    """Raise DataError where the file cannot hold the voxels that its header promises, or memory cannot."""
    voxels = math.prod(image.shape)
    promised = image.dataobj.offset + voxels * image.get_data_dtype().itemsize
    held = path.stat().st_size * (_MOST_PACKED if path.name.lower().endswith(".gz") else 1)
    if not 0 < promised <= held:
        raise DataError(
            f"{path}: cut short, or damaged: its header promises {promised:,} bytes, which its {path.stat().st_size:,} "
            "cannot hold: copy it again"
        )
    if 2 * voxels > usable_memory():
        raise DataError(f"{path}: {2 * voxels / 1e9:,.0f} GB of memory are needed: take a machine with twice as much")


def read_geometry(path: Path | str) -> Geometry:
    """Shape and affine of a NIfTI file, from its header alone.

    Raises
    ------
    DataError
        If the file is missing, damaged, no NIfTI, not three-dimensional or without an orientation.
    """
    image = _open_nifti(path)
    return Geometry(tuple(map(int, image.shape[:3])), image.affine, image.header)


def _slabs(path: Path | str) -> Iterator[tuple[slice, np.ndarray]]:
    """Read a NIfTI file in order, a few slices at a time: their place, and their scaled values.

    The whole file is read once from front to back, so that a compressed one is unpacked once, and
    its check sum, which comes last, is tested.
    """
    image = _open_nifti(path)
    voxels = image.dataobj
    columns, rows, depth = image.shape[:3]
    scaled = (voxels.slope, voxels.inter) != (1, 0)
    step = max(1, _SLAB_VOXELS // (columns * rows))
    try:
        with ImageOpener(path) as file:
            file.seek(voxels.offset)
            for start in range(0, depth, step):
                count = min(step, depth - start)
                content = file.read(count * columns * rows * voxels.dtype.itemsize)
                if len(content) < count * columns * rows * voxels.dtype.itemsize:
                    raise DataError(f"{path}: cut short, {depth} slices are promised: copy it again")
                slab = np.frombuffer(content, voxels.dtype).reshape((columns, rows, count), order="F")
                yield slice(start, start + count), slab * voxels.slope + voxels.inter if scaled else slab
            # To the end, for the check sum; but a packed file can go on for terabytes.
            if len(file.read(_MOST_BEHIND + 1)) > _MOST_BEHIND:
                raise DataError(f"{path}: over a megabyte lies behind the voxels that are promised: export it again")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or cut short ({error}): copy it again") from error


def read_volume(path: Path | str, *, series: str = "") -> Volume:
    """Read a CT from a NIfTI file or a folder with a DICOM series.

    Parameters
    ----------
    path : path
        ``.nii`` or ``.nii.gz``, or a folder.
    series : str
        DICOM series UID; needed only where a folder holds several CT series.

    Returns
    -------
    Volume
        Rescale slope and intercept applied, rounded to whole HU and cut to 16 bits. About 2 bytes a
        voxel are held, whatever the type in the file.

    Raises
    ------
    DataError
        For whatever keeps the volume from being read; the message names the file. Also where a
        voxel is NaN or infinite: no scanner gives that, so what else went wrong is not known.
    """
    path = Path(path)
    if path.is_dir():
        found = dicom.choose_series(path, uid=series)
        stored, affine = dicom.read_series(found)
        geometry = Geometry(stored.shape, affine, series=found)
    else:
        geometry = read_geometry(path)
        stored = np.empty(geometry.shape, np.int16, order="F")
        for where, slab in _slabs(path):
            if slab.dtype != np.int16:
                slab = slab.astype(np.float64)
                if not np.isfinite(slab).all():
                    raise DataError(f"{path}: holds values that are no numbers, NaN or infinite: export it again")
                slab = np.clip(np.rint(slab), -32768, 32767)
            stored[..., where] = slab
    return Volume(geometry.to_screen(stored), geometry)


def read_label_volume(path: Path | str, geometry: Geometry, *, series: str = "") -> np.ndarray:
    """Read the labels that belong to a CT volume.

    Parameters
    ----------
    path : path
        A NIfTI file; a folder with a DICOM series of labels or a DICOM-SEG; or the folder of
        3D-IRCADb's masks that holds ``liver``.
    geometry : Geometry
        Of the CT.
    series : str
        DICOM series UID of the labels.

    Returns
    -------
    uint8 array (slices, rows, columns)
        0 background, 1 liver, 2 tumour, in the order of the screen. A NIfTI file of the CT's
        orientation belongs to it voxel by voxel, as it does where one of both has an identity
        affine, which says nothing.

    Raises
    ------
    DataError
        If the file cannot be read, has another shape than the CT, or another value than 0, 1, 2.
    """
    path = Path(path)
    if path.is_dir():
        if geometry.series is None:
            raise DataError(f"{path}: DICOM masks belong to a DICOM series, this CT is a NIfTI file")
        if any(dicom_masks.LIVER_FOLDER.fullmatch(inner.name) for inner in path.iterdir() if inner.is_dir()):
            stored = dicom_masks.read_ircadb_masks(path, geometry.series)
        else:
            stored = dicom_masks.read_mask_series(path, geometry.series, uid=series)
        return geometry.to_screen(stored)
    own = read_geometry(path)
    # A volume halfway between two orientations falls to another one by the rounding of its header.
    same_axes = np.allclose(own.affine[:3, :3], geometry.affine[:3, :3], rtol=0, atol=1e-3)
    if own.shape == geometry.shape and (same_axes or own.is_identity or geometry.is_identity):
        own = geometry
    if own.screen_shape != geometry.screen_shape:
        raise DataError(
            f"{path}: shape {own.shape}, its CT has {geometry.shape}: they are not of one volume"
        )
    stored = np.empty(own.shape, np.uint8, order="F")
    for where, slab in _slabs(path):
        known = (slab == 0) | (slab == 1) | (slab == 2)
        if not known.all():
            raise DataError(
                f"{path}: holds label {slab[~known][0]:g}, expected 0 background, 1 liver, 2 tumour"
            )
        stored[..., where] = slab
    return own.to_screen(stored)


def check_pair(volume: Volume, labels: np.ndarray, name: Path | str) -> list[str]:
    """Look whether labels fit their CT, and what in the volume is not to be trusted.

    Parameters
    ----------
    volume : Volume
    labels : uint8 array (slices, rows, columns)
        0 background, 1 liver, 2 tumour.
    name : path
        Of the label file, for the messages.

    Returns
    -------
    list of str
        Warnings: an identity affine; a liver on the left, or a spine in front.

    Raises
    ------
    DataError
        If more than a fifth of the labelled voxels are fat, gas or bone, below -150 or above
        400 HU: the labels are another patient's, or lie in another orientation.
    """
    warnings = []
    if volume.geometry.is_identity:
        warnings.append("identity affine: spacing and orientation are not known, nothing in mm counts")
    liver = volume.hounsfield[labels > 0]
    if not liver.size:
        return warnings
    strange = np.count_nonzero((liver < _LIVER_HU[0]) | (liver > _LIVER_HU[1])) / liver.size
    if strange > _MOST_STRANGE:
        raise DataError(
            f"{name}: {strange:.0%} of what it labels as liver is fat, gas or bone: labels of another "
            "volume, or of another orientation"
        )
    columns = np.count_nonzero(labels, axis=(0, 1))
    if np.average(np.arange(len(columns)), weights=columns) > (len(columns) - 1) / 2:
        warnings.append("the liver lies on the patient's left: the orientation in the header may be wrong")
    around = volume.hounsfield[labels.any(axis=(1, 2))]
    bone, body = (np.count_nonzero(around > limit, axis=(0, 2)) for limit in (_BONE_HU, _BODY_HU))
    if bone.any():
        places = np.arange(len(bone)) / len(bone)
        if np.average(places, weights=bone) < np.average(places, weights=body) - _IN_FRONT:
            warnings.append("most bone lies in front: the orientation in the header may be wrong")
    return warnings


def write_labels(path: Path | str, labels: np.ndarray, geometry: Geometry) -> None:
    """Write labels as NIfTI in the geometry of their CT, atomically.

    Parameters
    ----------
    path : path
        ``.nii`` or ``.nii.gz``.
    labels : uint8 array (slices, rows, columns)
        In the order of the screen.
    geometry : Geometry
        The file gets its shape, its order of voxels, and its affine with the codes of its header.
    """
    _save_nifti(path, labels, geometry)


def write_nifti(path: Path, array: np.ndarray, spacing: tuple[float, float, float]) -> None:
    """Write a volume that has no geometry yet as NIfTI, atomically.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``.
    array : array (slices, rows, columns)
        HU (int16) or labels (uint8), in the order of the screen.
    spacing : (slice, row, column)
        Distance between voxel centres, in mm.
    """
    between_slices, between_rows, between_columns = spacing
    affine = np.diag([-between_columns, -between_rows, between_slices, 1.0])
    _save_nifti(path, array, Geometry(array.shape[::-1], affine))


def _save_nifti(path: Path | str, array: np.ndarray, geometry: Geometry) -> None:
    header = None
    if geometry.header is not None:  # of the old one its geometry is kept, not its texts
        header = type(geometry.header)()
        for field in _GEOMETRY_FIELDS:
            header[field] = geometry.header[field]
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    image = kind(geometry.to_stored(array), geometry.affine, header, dtype=array.dtype)
    if header is None:
        image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)
