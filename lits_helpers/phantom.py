"""A synthetic abdomen: seeded CT volumes in Hounsfield units with liver and tumour labels.

Stands in for LiTS so that everything runs without data. A patient is drawn slice by slice, the way
an anatomist sketches: body wall, bones, lungs and organs painted one over the other, then the
liver with its vessels and tumours, then the scanner's blur and noise. Positions are given in a
frame that fits every patient: ``u`` and ``v`` run from -1 to 1 from the patient's right to left
and from front to back between the outer faces of the muscle wall, ``t`` from 0 at the liver's
lower tip to 1 at its dome. Distances to a surface are in mm, negative inside.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

from .files import DataError, require_free_space
from .settings import Settings
from .volumes import write_nifti, write_slice_files

PHANTOM_VERSION = 1
PHANTOM_SEED = 2023
DESCRIPTION = "phantom.json"

# Kinds of tumour: radius in pixels of a 512x512 slice, contrast to the liver in HU, and the share
# of the radius that lies below the liver's surface. A radius below 8 stays under the 263 pixels
# the report's mask coding needs to tell tumour from liver; 37 and more fill over 3,000.
TUMOURS = {
    "small": dict(radius=(5.0, 7.5), contrast=(-60, -40), depth=1.2),
    "medium": dict(radius=(12, 22), contrast=(-60, -32), depth=1.0),
    "large": dict(radius=(38, 45), contrast=(-55, -35), depth=1.0),
    "faint": dict(radius=(12, 18), contrast=(-26, -20), depth=1.0),
    "bright": dict(radius=(10, 18), contrast=(32, 50), depth=1.0),
    "edge": dict(radius=(14, 22), contrast=(-60, -35), depth=0.4),
}
# One row a patient, repeated when there are more: what the tiny set holds is decided here.
PLAN: tuple[tuple[str, ...], ...] = (
    ("large", "medium", "small"),
    ("small", "small"),
    ("edge", "medium", "medium"),
    (),
    ("bright", "bright", "medium"),
    ("medium", "medium", "faint", "small", "small"),
    ("large", "edge"),
    ("small",),
    ("medium", "edge", "bright"),
    (),
    ("large", "medium", "faint", "small"),
    ("edge", "medium", "faint", "medium", "small"),
)


@dataclass(frozen=True)
class PhantomPatient:
    """One synthetic patient.

    Attributes
    ----------
    hounsfield : int16 array (slices, rows, columns)
        HU, -1024 outside the scanner's circular field. Axes as in :mod:`lits_helpers.volumes`.
    labels : uint8 array, same shape
        0 background, 1 liver (its vessels included), 2 tumour.
    spacing : (slice, row, column)
        Distance between voxel centres, in mm.
    """

    hounsfield: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class _Ellipsoid:
    """Centre ``u, v, t``; radii ``ru, rv`` (of the half body width) and ``rt``; turn in degrees.

    ``level`` is where the gas in it ends and the fluid begins, -1 (no gas) to 1 (gas only).
    """

    u: float
    v: float
    t: float
    ru: float
    rv: float
    rt: float
    turn: float = 0.0
    hu: float = 0.0
    level: float = -1.0

    def shrunk(self, scale: float, hu: float, **changes: float) -> _Ellipsoid:
        """The same shape about the same centre, smaller and of another density."""
        radii = dict(ru=self.ru * scale, rv=self.rv * scale, rt=self.rt * scale)
        return replace(self, **{**radii, "hu": hu, **changes})


@dataclass(frozen=True)
class _Tumour:
    """Centre (x, y, z) and radius in mm; HU; irregularity of the outline; share of dead core."""

    centre: np.ndarray
    radius: float
    hu: float
    waves: np.ndarray
    core: float


@dataclass(frozen=True)
class _Anatomy:
    """What makes one patient differ from another: lengths in mm, densities in HU."""

    width: float  # half the width and depth between the outer faces of the muscle wall
    depth: float
    fat: float
    wall: float
    height: float
    pixel: float  # of a 512x512 slice
    heights: np.ndarray  # t of each slice
    reach: np.ndarray  # u the liver extends to at the heights REACH_AT
    tilt: float
    liver: float
    vessel: float
    bone: float
    noise: float
    ribs: np.ndarray
    kidneys: tuple[_Ellipsoid, ...]
    gall_bladder: _Ellipsoid
    organs: tuple[_Ellipsoid, ...]
    vessels: np.ndarray
    bends: np.ndarray  # smooth random field that makes every outline irregular
    seed: int

    @property
    def between_slices(self) -> float:
        return float(self.heights[1] - self.heights[0]) * self.height


REACH_AT = (-0.05, 0.15, 0.35, 0.55, 0.75, 1.05)


def _smooth_max(a: np.ndarray, b: np.ndarray, rounding: float) -> np.ndarray:
    """Intersect two shapes given by their distances, the corner rounded off (mm)."""
    overlap = np.maximum(rounding - np.abs(a - b), 0)
    return np.maximum(a, b) + overlap * overlap * (0.25 / rounding)


def _organs(rng: np.random.Generator, phase: float) -> tuple[tuple, tuple, tuple]:
    """Kidneys, organs painted before the liver, in order, and vessels; ``phase`` 0 is arterial."""
    def organ(u, v, t, ru, rv, rt, turn=0.0, hu=0.0, level=-1.0, loose=1.0):
        du, dv, dt = rng.normal(0, 0.02 * loose, 3)
        grow = 1 + 0.08 * loose * rng.uniform(-1, 1, 3)
        turned = turn + rng.normal(0, 8 * loose)
        return _Ellipsoid(u + du, v + dv, t + dt, ru * grow[0], rv * grow[1], rt * grow[2], turned, hu, level)

    painted: list[_Ellipsoid] = []
    kidneys = (organ(-0.44, 0.36, 0.18, 0.17, 0.21, 0.42, 25), organ(0.44, 0.34, 0.3, 0.17, 0.21, 0.42, -25))
    cortex = 205 - 35 * phase
    for kidney, medial in zip(kidneys, (0.07, -0.07)):
        painted += [
            kidney.shrunk(1, cortex),
            kidney.shrunk(0.74, 95 + 75 * phase, u=kidney.u + medial * 0.3),
            kidney.shrunk(0.42, -80, u=kidney.u + medial * 1.3, rt=kidney.rt * 0.6),
            kidney.shrunk(0.2, 15 + 50 * rng.random(), u=kidney.u + medial * 1.5),
        ]
        if rng.random() < 0.5:  # a simple cyst: tumour-like density outside the liver
            painted.append(organ(kidney.u - medial * 2, kidney.v + 0.1, kidney.t, 0.07, 0.07, 0.1, hu=12, loose=2))
    spleen = organ(0.68, 0.3, 0.68, 0.2, 0.38, 0.36, -18, 112 + 8 * phase, loose=1.5)
    painted.append(spleen)
    if rng.random() < 0.3:
        painted.append(spleen.shrunk(0.2, 50, u=spleen.u + 0.04))
    # Stomach: a bag that hangs from under the left dome to the front of the middle.
    filling, level = rng.choice([8.0, 30.0, 45.0]), rng.uniform(-0.7, 0.4)
    bag = [(0.38, 0.0, 0.85, 0.25, 0.3, 0.26, -20), (0.34, -0.32, 0.62, 0.24, 0.26, 0.26, 10), (0.1, -0.5, 0.42, 0.28, 0.14, 0.14, 10)]
    bag = [organ(*part) for part in bag]
    painted += [part.shrunk(1, 75) for part in bag]
    painted += [part.shrunk(0.87, filling, level=level) for part in bag]
    # Pancreas and duodenum, then bowel: loops in front, the colon at both flanks.
    for k in range(5):
        painted.append(organ(-0.16 + 0.13 * k, -0.12 - 0.05 * (k % 3), 0.36 + 0.05 * k, 0.11, 0.08, 0.14, 20, 88 - 12 * phase))
    loops = [organ(rng.uniform(-0.6, 0.7), rng.uniform(-0.7, -0.1), rng.uniform(-0.35, 0.3), 0.12, 0.09, 0.12, rng.uniform(-60, 60), 70, loose=3) for _ in range(26)]
    loops += [organ(side * 0.78, -0.1 + rng.normal(0, 0.05), t, 0.13, 0.15, 0.16, 0, 60) for side in (-1, 1) for t in (-0.3, -0.12)]
    loops += [organ(0.3 + 0.17 * k, -0.6 + 0.12 * k, 0.33 + 0.07 * k, 0.14, 0.11, 0.14, 30, 60) for k in range(3)]
    for loop in loops:
        content, gas = ((18, -1), (45, -1), (15, rng.uniform(-0.3, 0.9)), (-40, 0.3), (180, -1))[rng.choice(5, p=[0.3, 0.25, 0.25, 0.15, 0.05])]
        painted += [loop, loop.shrunk(0.78, content, level=gas)]
    aorta = 310 - 150 * phase
    tube = dict(loose=0.3)
    vessels = (
        organ(0.06, 0.14, 0.5, 0.078, 0.078, 9, hu=aorta, **tube),
        organ(-0.15, 0.1, 0.3, 0.09, 0.07, 9, 20, 75 + 65 * phase, **tube),
        organ(0.1, -0.02, 0.2, 0.035, 0.035, 0.3, hu=aorta, **tube),
        organ(-0.02, -0.1, 0.15, 0.05, 0.045, 0.33, hu=80 + 75 * phase, **tube),
        organ(0.1, 0.0, 0.95, 0.06, 0.05, 0.3, hu=45, **tube),
    )
    return kidneys, tuple(painted), vessels


def _branches(rng: np.random.Generator, start: Sequence[float], heading: Sequence[float], radius: float) -> list[tuple]:
    """Grow a vessel tree: rows (x, y, z, next x, y, z, radius), all in mm."""
    rows, growing = [], [(np.array(start, float), np.array(heading, float), radius)]
    while growing:
        place, heading, radius = growing.pop()
        for _ in range(rng.integers(4, 8)):
            heading = heading + rng.normal(0, 0.22, 3)
            heading /= np.linalg.norm(heading)
            after = place + 5.0 * heading
            rows.append((*place, *after, radius))
            place, radius = after, radius * 0.97
        if radius > 1.1:
            turn = rng.normal(0, 0.55, 3)
            growing += [(place, heading + turn, radius * 0.78), (place, heading - turn, radius * rng.uniform(0.6, 0.8))]
    return rows


def _anatomy(seed: int, bright: bool) -> _Anatomy:
    """Draw one patient's anatomy. Bright tumours need an early phase, when liver is still dark."""
    rng = np.random.default_rng(seed)
    width = rng.uniform(126, 152)
    depth = width * rng.uniform(0.66, 0.78)
    fat = rng.uniform(8, 34)
    covered, below, above = rng.integers(17, 22), rng.integers(2, 4), rng.integers(1, 4)
    height = float(np.clip(rng.uniform(118, 150), 5.2 * covered, 8 * covered))
    phase = rng.uniform(0, 0.25) if bright else rng.choice([rng.uniform(0.1, 0.4), rng.uniform(0.7, 1)], p=[0.25, 0.75])
    liver = rng.uniform(68, 76) if bright else rng.uniform(78, 92) + 24 * phase
    kidneys, organs, vessels = _organs(rng, phase)
    reach = np.array([-0.92, -0.62, -0.36, -0.08, 0.14, 0.26]) + rng.normal(0, 0.03, 6) + rng.normal(0, 0.03)
    tilt = rng.uniform(0.4, 0.75)
    hilum, cava = (-0.2 * width, -0.05 * depth, 0.5 * height), (-0.17 * width, 0.08 * depth, 0.86 * height)
    branches = [
        *_branches(rng, hilum, (-1, 0.1, 0.1), 5.0), *_branches(rng, hilum, (0.2, -1, 0.5), 3.6),
        *_branches(rng, hilum, (-1, 0.3, -0.7), 3.6), *_branches(rng, cava, (-1, 0.4, -0.35), 4.4),
        *_branches(rng, cava, (-0.7, -0.8, -0.35), 4.2), *_branches(rng, cava, (0.2, -1, -0.2), 3.6),
    ]
    return _Anatomy(
        width=width, depth=depth, fat=fat, wall=rng.uniform(11, 17), height=height,
        pixel=float(np.clip(2 * (width + fat) * rng.uniform(1.06, 1.25), 310, 458)) / 512,
        heights=(np.arange(-below, covered + above) + 0.5) / covered,
        reach=reach, tilt=tilt, liver=liver, vessel=liver + rng.uniform(12, 25) + 25 * phase,
        bone=rng.uniform(150, 230), noise=rng.uniform(9, 18),
        ribs=rng.uniform(0, 1, 2), kidneys=kidneys,
        gall_bladder=_Ellipsoid(float(np.interp(0.3, REACH_AT, reach)) + tilt * 0.4 - 0.02, -0.42, 0.27, 0.12, 0.17, 0.17, rng.uniform(-30, 30), rng.uniform(5, 25)),
        organs=organs + vessels, vessels=np.array(branches, np.float32),
        bends=rng.normal(0, 1, (2, 9, 9, 9)).astype(np.float32), seed=seed,
    )


class _Slice:
    """One slice being painted: ``hu``, and the bent mm coordinates ``x, y`` of its pixels."""

    def __init__(self, patient: _Anatomy, number: int, size: int) -> None:
        self.patient, self.size = patient, size
        self.t = float(patient.heights[number])
        self.pixel = patient.pixel * 512 / size
        self.rng = np.random.default_rng([patient.seed, number])
        self.hu = np.full((size, size), -1000, np.float32)
        axis = ((np.arange(size) - (size - 1) / 2) * self.pixel).astype(np.float32)
        self.flat_x, self.flat_y = np.broadcast_to(axis, (size, size)), np.broadcast_to(axis[:, None], (size, size))
        layer = np.clip((self.t + 0.2) / 1.4, 0, 0.999) * (len(patient.bends[0]) - 1)
        low, part = int(layer), layer - int(layer)
        between = patient.bends[:, low] * (1 - part) + patient.bends[:, low + 1] * part
        self.x, self.y = (
            flat + 4.5 * self._enlarged(grid) for flat, grid in zip((self.flat_x, self.flat_y), between)
        )
        self.grain = self._enlarged(self.rng.normal(0, 1, (56, 56)))
        self.cavity = self._oval(-patient.wall)

    def _enlarged(self, grid: np.ndarray) -> np.ndarray:
        return cv2.resize(grid.astype(np.float32), (self.size, self.size), interpolation=cv2.INTER_CUBIC)

    def _oval(self, beyond: float) -> np.ndarray:
        """Distance to the body's rounded-box outline, moved outwards by ``beyond`` mm."""
        across, along = self.patient.width + beyond, self.patient.depth + 0.8 * beyond
        # Flatter at the back, where people lie.
        squared = (self.x / across) ** 2 + (self.y / along) ** 2
        corner = (self.x / across * self.y / along) ** 2
        return (np.sqrt(squared - 0.28 * corner) - 1) * along

    def around(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """The part of the picture within ``reach`` mm of a point, and 12 mm for the bends."""
        middle = (self.size - 1) / 2
        return tuple(
            slice(max(int(middle + (c - reach - 12) / self.pixel), 0), max(int(middle + (c + reach + 12) / self.pixel) + 2, 0))
            for c in (y, x)
        )

    def distance(self, shape: _Ellipsoid, box: tuple[slice, slice] | None = None) -> tuple[tuple, np.ndarray | None]:
        """Box round an ellipsoid's cut and the distance to its outline there, None where it is not cut."""
        left = 1 - ((self.t - shape.t) / shape.rt) ** 2
        if left <= 0.01:
            return (), None
        rx, ry = (r * self.patient.width * np.sqrt(left) for r in (shape.ru, shape.rv))
        x, y = shape.u * self.patient.width, shape.v * self.patient.depth
        box = box or self.around(x, y, max(rx, ry))
        dx, dy = self.x[box] - x, self.y[box] - y
        cos, sin = np.cos(np.radians(shape.turn)), np.sin(np.radians(shape.turn))
        along, across = (dx * cos + dy * sin) / rx, (dy * cos - dx * sin) / ry
        return box, (np.sqrt(along * along + across * across) - 1) * min(rx, ry)

    def paint(self, distance: np.ndarray, hu: float | np.ndarray, box: tuple = (), soft: float = 0.0) -> None:
        """Mix ``hu`` in where ``distance`` is negative, the edge ``soft`` mm (a pixel) wide."""
        cover = np.clip(0.5 - distance / max(soft, self.pixel), 0, 1)
        part = self.hu[box]
        part += cover * (hu - part)

    def ellipse(self, shape: _Ellipsoid, within: np.ndarray | None = None) -> None:
        """Paint an ellipsoid's cut, gas above its fluid level."""
        box, distance = self.distance(shape)
        if distance is None:
            return
        if within is not None:
            distance = np.maximum(distance, within[box])
        self.paint(distance, shape.hu, box)
        if shape.level > -1:
            level = shape.v * self.patient.depth + shape.level * shape.rv * self.patient.width
            self.paint(np.maximum(distance, self.flat_y[box] - level), -900, box)

    def dome(self) -> np.ndarray:
        """Distance to the two vaults of the diaphragm; lung lies beyond."""
        across, along = self.x / self.patient.width, self.y / self.patient.depth
        vaults = []
        for u, top, narrow in ((-0.36, 1.0, 0.95), (0.42, 0.98, 0.8)):
            reached = np.sqrt(max(top - self.t, 0) / 0.5)
            radius = np.sqrt(((across - u) / narrow) ** 2 + ((along + 0.12) / 0.95) ** 2)
            vaults.append((radius - reached) * self.patient.depth if self.t < top else radius * 200)
        return vaults

    def liver(self) -> np.ndarray:
        """Distance to the liver's surface: what fits under the dome, above a slanting underside."""
        patient = self.patient
        right, left = self.dome()
        reach = np.interp(self.t, REACH_AT, patient.reach)
        slope = patient.tilt * (0.35 + 0.65 * np.clip(self.t / 0.6, 0, 1))
        v = self.y / patient.depth
        under = (self.x / patient.width - reach + slope * (v + 0.15 + 0.5 * np.maximum(v, 0) ** 2)) * patient.width
        surface = _smooth_max(self.cavity + 2.5, under / np.sqrt(1 + slope * slope), 22)
        surface = _smooth_max(surface, np.minimum(right, left) + 2, 14)
        spine = _Ellipsoid(-0.02, 0.36, 0.5, 0.3, 0.3, 9)
        fissure = _Ellipsoid(-0.06, -0.38, 0.5, 0.025, 0.2, 0.22, 20)
        hilum = _Ellipsoid(-0.2, -0.05, 0.47, 0.13, 0.05, 0.12, 20)
        cava = _Ellipsoid(-0.15, 0.1, 0.3, 0.1, 0.08, 9, 20)
        for shape, gap, rounding in [
            *((kidney, 3, 10) for kidney in patient.kidneys),
            (spine, 0, 10), (cava, 0, 4), (fissure, 0, 5), (hilum, 0, 5), (patient.gall_bladder, 1, 4),
        ]:
            box, distance = self.distance(shape)
            if distance is not None:
                surface[box] = _smooth_max(surface[box], gap - distance, rounding)
        return surface + (1e3 if not 0 < self.t < 1 else 0)

    def body(self) -> None:
        """Table, skin, fat, muscle wall, lungs, spine, ribs."""
        patient, width, depth = self.patient, self.patient.width, self.patient.depth
        bottom = depth + 0.8 * patient.fat
        table = bottom + 16 - (self.flat_x / width) ** 2 * 14 - self.flat_y
        for offset in (0, 14):
            self.paint(np.maximum(np.abs(table + offset) - 1.1, np.abs(self.flat_x) - 1.25 * width), 160 - 6 * offset)
        skin = self._oval(patient.fat)
        self.paint(skin, 20)
        self.paint(skin + 2, -102 + 6 * self.grain)
        outer = self._oval(0)
        self.paint(outer, 58 + 9 * self.grain - 110 * (np.abs(self.cavity - 5 - self.grain) < 0.7))
        # Fat of the cavity; the zero lines of a smooth field look like the vessels in it.
        self.paint(self.cavity, np.where(np.abs(self.grain) < 0.09, 20, -100 + 6 * self.grain))
        right, left = self.dome()
        lung = _smooth_max(self.cavity + 1, 3 - np.minimum(right, left), 6)
        self.paint(lung - 3, 45)
        for heart in (_Ellipsoid(0.12, -0.42, 1.25, 0.48, 0.42, 0.32, 20, 120), _Ellipsoid(0.02, 0.2, 0.5, 0.2, 0.24, 9)):
            _, distance = self.distance(heart, (slice(None), slice(None)))
            if distance is not None:
                lung = _smooth_max(lung, -distance, 6)
        self.paint(lung, -860 + 25 * self.grain + 500 * (self.grain > 2.0))
        self.ellipse(_Ellipsoid(0.12, -0.42, 1.25, 0.46, 0.4, 0.32, 20, 120), self.cavity)
        self.spine()
        turn = 2 * np.pi / 13
        for side in (-1, 1):
            for k in range(10):
                angle = (k + patient.ribs[0] + 1.5 * self.t) * turn / 1.6 + 0.35
                if angle > 2.5 + 0.5 * self.t or self.t < 0.12 * k - 0.35:
                    continue
                x, y = side * np.sin(angle) * (width - 6) * 0.97, np.cos(angle) * (depth - 6) * 0.97
                rib = _Ellipsoid(x / width, y / depth, self.t, 0.075, 0.032, 1, -side * np.degrees(angle), 420)
                self.ellipse(rib)
                self.ellipse(rib.shrunk(0.6, patient.bone))

    def spine(self) -> None:
        """Vertebra or disc, canal, arch, and the muscles beside them."""
        patient, z = self.patient, self.t * self.patient.height
        for side in (-1, 1):
            self.ellipse(_Ellipsoid(side * 0.25, 0.74, 0.5, 0.24, 0.13, 9, side * 12, 60))
            self.ellipse(_Ellipsoid(side * 0.2, 0.42, -0.1, 0.1, 0.13, 0.75, side * -20, 62))
            self.ellipse(_Ellipsoid(side * 0.2, 0.56, self.t, 0.16, 0.028, 1, side * 14, 330))
        disc = (z / 36 + patient.ribs[1]) % 1 < 0.22
        vertebra = _Ellipsoid(0, 0.38, 0.5, 0.155, 0.125, 9, 0, 330)
        self.ellipse(vertebra)
        box, distance = self.distance(vertebra.shrunk(0.9, 0))
        self.paint(distance, 85.0 if disc else patient.bone + 30 * self.grain[box], box)
        self.ellipse(_Ellipsoid(0, 0.63, self.t, 0.1, 0.1, 1, 0, 380))
        self.ellipse(_Ellipsoid(0, 0.79, self.t, 0.025, 0.12, 1, 0, 380))
        self.ellipse(_Ellipsoid(0, 0.6, self.t, 0.062, 0.06, 1, 0, 25))

    def vessels(self) -> np.ndarray:
        """How much of each pixel is a vessel of the liver, 0 to 1."""
        drawn = np.zeros((self.size, self.size), np.uint8)
        rows, middle, z = self.patient.vessels, (self.size - 1) / 2, self.t * self.patient.height
        near = np.abs((rows[:, 2] + rows[:, 5]) / 2 - z) < np.maximum(rows[:, 6], 0.35 * self.patient.between_slices)
        for x0, y0, _, x1, y1, _, radius in rows[near]:
            points = np.round((np.array([[x0, y0], [x1, y1]]) / self.pixel + middle) * 16).astype(int).tolist()
            thick = 2 * radius / self.pixel
            cv2.line(drawn, *points, int(255 * min(thick, 1)), max(1, round(thick)), cv2.LINE_AA, shift=4)
        return drawn.astype(np.float32) / 255

    def tumour(self, tumour: _Tumour) -> tuple[tuple, np.ndarray | None]:
        """Box and distance to one tumour's wavy outline, None where the slice misses it."""
        x, y, z = tumour.centre
        away = (self.t * self.patient.height - z) / tumour.radius
        if abs(away) >= 0.98:
            return (), None
        box = self.around(x, y, tumour.radius * 1.3)
        dx, dy = self.flat_x[box] - x, self.flat_y[box] - y
        angle = np.arctan2(dy, dx)
        radius = np.full_like(angle, np.sqrt(1 - away * away))
        for order, (size, start, drift) in enumerate(tumour.waves, start=2):
            radius += size * np.sin(order * angle + start + drift * away) * radius
        return box, np.sqrt(dx * dx + dy * dy) - tumour.radius * radius

    def scanned(self) -> np.ndarray:
        """The painting as the scanner would show it: blur, coarse-grained noise, round field."""
        sharp = self.rng.standard_normal((self.size, self.size), np.float32)
        # Reconstruction kernels pass a band: neighbours correlate, far pixels do not.
        noise = cv2.GaussianBlur(sharp, (0, 0), 0.75) - 0.6 * cv2.GaussianBlur(sharp, (0, 0), 2.2)
        noise *= self.patient.noise / noise.std()
        radius = np.sqrt(self.flat_x**2 + self.flat_y**2) / (self.pixel * self.size / 2)
        hu = cv2.GaussianBlur(self.hu, (0, 0), max(0.65 * self.size / 512, 0.3)) + noise * (1.15 - 0.4 * radius)
        return np.where(radius < 1, np.clip(hu, -1010, 1400), -1024).round().astype(np.int16)


def _placed(rng: np.random.Generator, patient: _Anatomy, kinds: Sequence[str]) -> list[_Tumour]:
    """Find room for each tumour, largest first, on a coarse picture of the liver.

    The picture has one size whatever the volume's, so that a patient's tumours do not depend on it.
    """
    size = 96
    liver = np.stack([_Slice(patient, k, size).liver() < 0 for k in range(len(patient.heights))])
    pixel = patient.pixel * 512 / size
    below_surface = distance_transform_edt(liver, sampling=(patient.between_slices, pixel, pixel))
    # In the plane of the slice it is what decides the area; the liver's flat ends count less.
    in_plane = np.stack([distance_transform_edt(plane) * pixel for plane in liver])
    k, rows, columns = np.nonzero(liver)
    middle = (size - 1) / 2
    points = np.stack([(columns - middle) * pixel, (rows - middle) * pixel, patient.heights[k] * patient.height], 1)
    room = np.minimum(in_plane, below_surface * 1.5)[liver]
    found: list[_Tumour] = []
    for kind in sorted(kinds, key=lambda kind: -TUMOURS[kind]["radius"][1]):
        about = TUMOURS[kind]
        radius = rng.uniform(*about["radius"]) * patient.pixel
        misfit = np.abs(room - radius * about["depth"]) if kind == "edge" else np.maximum(radius * about["depth"] - room, 0)
        for other in found:
            gap = np.linalg.norm(points - other.centre, axis=1) - 1.25 * (radius + other.radius)
            misfit = misfit + 2 * np.maximum(-gap, 0)
        best = np.flatnonzero(misfit <= misfit.min() + 0.5)
        centre = points[rng.choice(best)]
        strength = 0.05 if kind == "small" else 0.09
        waves = np.stack([rng.uniform(0.2, 1, 4) * strength, *rng.uniform(0, 6.3, (2, 4)) * [[1], [0.3]]], 1)
        contrast = rng.uniform(*about["contrast"])
        core = rng.uniform(0.45, 0.65) if radius > 9 and contrast < -30 and rng.random() < 0.4 else 0.0
        found.append(_Tumour(centre, radius, patient.liver + contrast, waves, core))
    return found


def _painted_slice(patient: _Anatomy, tumours: Sequence[_Tumour], number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One slice: int16 HU and uint8 labels, both (size, size)."""
    canvas = _Slice(patient, number, size)
    canvas.body()
    for shape in patient.organs:
        canvas.ellipse(shape, canvas.cavity)
    liver = canvas.liver()
    canvas.paint(liver, patient.liver + 2.5 * canvas.grain)
    inside = np.clip(0.5 - (liver + 2) / canvas.pixel, 0, 1)
    canvas.hu += canvas.vessels() * inside * (patient.vessel - canvas.hu)
    labels = (liver < 0).astype(np.uint8)
    for tumour in tumours:
        box, outline = canvas.tumour(tumour)
        if outline is None:
            continue
        distance = np.maximum(outline, liver[box])
        canvas.paint(distance, tumour.hu + 3 * canvas.grain[box], box, soft=2.5)
        if tumour.core:
            canvas.paint(outline + tumour.radius * (1 - tumour.core), 18, box, soft=5)
        labels[box][distance < 0] = 2
    canvas.ellipse(patient.gall_bladder.shrunk(1, 60))
    canvas.ellipse(patient.gall_bladder.shrunk(0.93, patient.gall_bladder.hu))
    return canvas.scanned(), labels


def phantom_volume(seed: int, *, size: int = 512, tumours: Sequence[str] | None = None) -> PhantomPatient:
    """Draw one synthetic patient.

    Parameters
    ----------
    seed : int
        The same seed gives the same patient, at another ``size`` with coarser or finer pixels.
    size : int
        Rows and columns, at least 32.
    tumours : sequence of str, optional
        Kinds out of :data:`TUMOURS`, one entry a tumour; ``()`` for a healthy liver. By default
        the seed picks a row of :data:`PLAN`.

    Returns
    -------
    PhantomPatient

    Raises
    ------
    ValueError
        For an unknown kind of tumour or too small a size.
    """
    if size < 32:
        raise ValueError(f"a phantom needs a size of at least 32 pixels, got {size}")
    rng = np.random.default_rng([seed, 1])
    if tumours is None:
        tumours = PLAN[rng.integers(len(PLAN))]
    unknown = set(tumours) - set(TUMOURS)
    if unknown:
        raise ValueError(f"unknown kinds of tumour {sorted(unknown)}: choose from {sorted(TUMOURS)}")
    patient = _anatomy(seed, bright="bright" in tumours)
    placed = _placed(rng, patient, tumours)
    slices = [_painted_slice(patient, placed, k, size) for k in range(len(patient.heights))]
    hounsfield, labels = (np.stack(arrays) for arrays in zip(*slices))
    pixel = patient.pixel * 512 / size
    return PhantomPatient(hounsfield, labels, (patient.between_slices, pixel, pixel))


def _described(seed: int, patients: int, size: int, jpeg_quality: int) -> dict[str, object]:
    """What the description file of a phantom says."""
    return {
        "about": "Synthetic CT volumes made by lits_helpers.phantom. No patient data.",
        "version": PHANTOM_VERSION, "seed": seed, "patients": patients, "size": size, "jpeg_quality": jpeg_quality,
    }


def _description(root: Path) -> dict[str, object] | None:
    """The description in ``root``, None where there is no phantom."""
    try:
        return json.loads((root / DESCRIPTION).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_patient(root: Path, number: int, seed: int, size: int, jpeg_quality: int) -> None:
    patient = phantom_volume(1000 * seed + number, size=size, tumours=PLAN[number % len(PLAN)])
    write_nifti(root / "volumes" / f"volume-{number}.nii.gz", patient.hounsfield, patient.spacing)
    write_nifti(root / "volumes" / f"segmentation-{number}.nii.gz", patient.labels, patient.spacing)
    write_slice_files(root, number, patient.hounsfield, patient.labels, jpeg_quality=jpeg_quality)


def _put_in_place(written: Path, root: Path, discarded: Path) -> None:
    """Rename a finished phantom to its final name, unless another process was first."""
    if root.exists() and any(root.iterdir()):
        there = _description(root)
        if there is None:
            raise DataError(f"{root} holds files that are no phantom: choose another folder")
        if there == _description(written):
            return
        os.rename(root, discarded)
    try:
        os.rename(written, root)
    except OSError:
        if _description(root) != _description(written):
            raise


def write_phantom(
    root: str | os.PathLike, *, patients: int = 12, size: int = 512, seed: int = PHANTOM_SEED, jpeg_quality: int = 100
) -> Path:
    """Write a set of synthetic patients as NIfTI volumes and as the report's slice files.

    Everything is written beside ``root`` and renamed into place when complete, so a folder under
    the final name is always whole. An older phantom there is replaced.

    Parameters
    ----------
    root : path
        Gets ``volumes/volume-N.nii.gz`` and ``segmentation-N.nii.gz``, ``images/train_images``,
        ``masks/train_masks`` and ``phantom.json``, which says that the data is synthetic.
    patients : int
        Patient ``N`` has the tumours of row ``N`` of :data:`PLAN`.
    size : int
        Rows and columns. The report's test for empty masks works at 512 only.
    seed : int
    jpeg_quality : int
        Of the slice files; the report's rule for tumours needs 98 or more.

    Returns
    -------
    Path
        ``root``.

    Raises
    ------
    DataError
        If ``root`` holds something else, the disk is full or the folder cannot be written.
    """
    from tqdm.auto import tqdm

    root = Path(root)
    require_free_space(root.parent, patients * 26 * size * size * 2)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".writing-{root.name}-", dir=root.parent) as temporary:
            written = Path(temporary) / "new"
            # Threads, not processes: NumPy and OpenCV let go of Python's lock while they compute.
            pool = ThreadPoolExecutor(os.cpu_count())
            try:
                jobs = [pool.submit(_write_patient, written, n, seed, size, jpeg_quality) for n in range(patients)]
                for job in tqdm(as_completed(jobs), total=patients, desc="writing the phantom", unit="patient"):
                    job.result()
            finally:
                pool.shutdown(cancel_futures=True)
            (written / DESCRIPTION).write_text(json.dumps(_described(seed, patients, size, jpeg_quality), indent=1))
            _put_in_place(written, root, Path(temporary) / "old")
    except OSError as error:
        raise DataError(
            f"cannot write the phantom to {root} ({error}): set LITS_OUTPUT_ROOT to a writable folder"
        ) from error
    return root


def ensure_phantom(settings: Settings) -> Path:
    """The data root, with the phantom written there first when it is what the settings ask for.

    A phantom of this version that is there already is left as it is; real data is never touched.
    """
    root, asked = settings.data_root, _described(PHANTOM_SEED, patients=12, size=512, jpeg_quality=100)
    if settings.is_synthetic and _description(root) != asked:
        write_phantom(root)
    return root
