"""The phantom's abdomen: how a patient is built, and how one CT slice of it is painted.

Works the way an anatomist sketches: body wall, bones, lungs and organs go one over the other, then
the liver, then the scanner's blur and noise. Positions are given in a frame that fits every
patient: ``u`` and ``v`` run from -1 to 1 from the patient's right to left and from front to back
between the outer faces of the muscle wall, ``t`` from 0 at the liver's lower tip to 1 at its dome.
Distances to a surface are in mm, negative inside. :mod:`lits_helpers.phantom` is the way in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

Box = tuple[slice, slice]
EVERYWHERE: Box = (slice(None), slice(None))
NOWHERE: Box = (slice(0), slice(0))


@dataclass(frozen=True)
class Ellipsoid:
    """Centre ``u, v, t``; radii ``ru, rv`` (of the half body width) and ``rt``; turn in degrees.

    ``grain`` is how coarse the texture is (HU); ``level`` is the ``v`` where the gas in a hollow
    organ ends and the fluid begins (minus infinity: no gas).
    """

    u: float
    v: float
    t: float
    ru: float
    rv: float
    rt: float
    turn: float = 0.0
    hu: float = 0.0
    grain: float = 3.0
    level: float = -np.inf

    def shrunk(self, scale: float, hu: float, **changes: float) -> Ellipsoid:
        """The same shape about the same centre, smaller and of another density."""
        radii = dict(ru=self.ru * scale, rv=self.rv * scale, rt=self.rt * scale)
        return replace(self, **{**radii, "hu": hu, **changes})

    def varied(self, rng: np.random.Generator, much: float = 1.0) -> Ellipsoid:
        """The same organ in another person: moved, grown and turned a little."""
        du, dv, dt = rng.normal(0, 0.02 * much, 3)
        gu, gv, gt = 1 + 0.08 * much * rng.uniform(-1, 1, 3)
        turn = self.turn + rng.normal(0, 8 * much)
        moved = dict(u=self.u + du, v=self.v + dv, t=self.t + dt, turn=turn)
        return replace(self, ru=self.ru * gu, rv=self.rv * gv, rt=self.rt * gt, **moved)


# Neighbours the liver leaves room for, with the gap (mm) and the rounding of the corner (mm).
VENA_CAVA = Ellipsoid(-0.15, 0.1, 0.3, 0.09, 0.07, 9, 20)
LIVER_NEIGHBOURS = (
    (Ellipsoid(-0.02, 0.36, 0.5, 0.3, 0.3, 9), 0, 10),  # spine and crura
    (VENA_CAVA.shrunk(1.12, 0), 0, 4),
    (Ellipsoid(-0.06, -0.38, 0.5, 0.025, 0.2, 0.22, 20), 0, 5),  # falciform fissure
    (Ellipsoid(-0.2, -0.05, 0.47, 0.13, 0.05, 0.12, 20), 0, 5),  # hilum
)
HEART = Ellipsoid(0.12, -0.42, 1.25, 0.46, 0.4, 0.32, 20, 120)
MEDIASTINUM = Ellipsoid(0.02, 0.2, 0.5, 0.2, 0.24, 9)
# The two vaults of the diaphragm: u of the middle, t of the top, how wide.
VAULTS = ((-0.36, 1.0, 0.95), (0.42, 0.98, 0.8))
# Heights t at which a patient's liver is described by how far (u) it reaches to the left.
REACH_AT = (-0.05, 0.15, 0.35, 0.55, 0.75, 1.05)


@dataclass(frozen=True)
class Anatomy:
    """What makes one patient differ from another: lengths in mm, densities in HU."""

    seed: int
    width: float  # half the width and depth between the outer faces of the muscle wall
    depth: float
    fat: float
    wall: float
    height: float  # of the liver, tip to dome
    heights: np.ndarray  # t of each slice
    pixel: float  # of a 512x512 slice
    offset: np.ndarray  # of the body from the middle of the picture
    table: float
    reach: np.ndarray
    tilt: float
    liver: float
    vessel: float
    bone: float
    noise: float
    kernel: float
    ribs: np.ndarray
    kidneys: tuple[Ellipsoid, ...]
    gall_bladder: Ellipsoid
    organs: tuple[Ellipsoid, ...]
    branches: np.ndarray  # of the liver's vessels: x, y, z, next x, y, z, radius
    bends: np.ndarray  # smooth random field that makes every outline irregular

    @property
    def between_slices(self) -> float:
        return float(self.heights[1] - self.heights[0]) * self.height


def draw_anatomy(seed: int, *, early: bool) -> Anatomy:
    """Draw one patient. ``early`` asks for the arterial phase, when the liver is still dark."""
    rng = np.random.default_rng(seed)
    width = rng.uniform(126, 152)
    depth = width * rng.uniform(0.66, 0.78)
    fat = rng.uniform(6, 30)
    covered, below, above = rng.integers(17, 22), rng.integers(2, 4), rng.integers(1, 4)
    height = float(np.clip(rng.uniform(118, 150), 5.2 * covered, 8 * covered))
    # 0 is arterial, 1 portal venous, which three of four patients are scanned in.
    if early:
        phase, liver = rng.uniform(0, 0.25), rng.uniform(68, 76)
    else:
        phase = rng.uniform(0.7, 1) if rng.random() < 0.75 else rng.uniform(0.1, 0.4)
        liver = rng.uniform(78, 92) + 24 * phase
    reach = np.array([-0.92, -0.62, -0.36, -0.08, 0.14, 0.26]) + rng.normal(0, 0.03, 6)
    reach += rng.normal(0, 0.05)
    tilt = rng.uniform(0.4, 0.75)
    kidneys = tuple(
        Ellipsoid(side * 0.44, 0.35, t, 0.17, 0.21, 0.42, -25 * side, 180 - 10 * phase).varied(rng)
        for side, t in ((-1, 0.18), (1, 0.3))
    )
    u = float(np.interp(0.3, REACH_AT, reach)) + tilt * 0.4 - 0.02
    gall_bladder = Ellipsoid(u, -0.42, 0.27, 0.11, 0.16, 0.17, rng.uniform(-30, 30), rng.uniform(5, 25))
    return Anatomy(
        seed=seed, width=width, depth=depth, fat=fat, wall=rng.uniform(11, 17),
        height=height, heights=(np.arange(-below, covered + above) + 0.5) / covered,
        pixel=float(np.clip(2 * (width + fat) * rng.uniform(1.08, 1.25), 310, 458)) / 512,
        offset=rng.uniform(-1, 1, 2) * (4, 16), table=rng.uniform(4, 24),
        reach=reach, tilt=tilt, liver=liver, vessel=liver + rng.uniform(14, 26) + 25 * phase,
        bone=rng.uniform(150, 230), noise=rng.uniform(9, 18), kernel=rng.uniform(0.65, 1.0),
        ribs=rng.uniform(0, 1, 2), kidneys=kidneys, gall_bladder=gall_bladder,
        organs=(
            *_retroperitoneum(rng, kidneys, phase), *_stomach_and_spleen(rng, phase),
            *_bowel(rng), *_great_vessels(rng, phase),
        ),
        branches=_liver_vessels(rng, width, depth, height),
        bends=rng.normal(0, 1, (2, 9, 9, 9)).astype(np.float32),
    )


def _retroperitoneum(
    rng: np.random.Generator, kidneys: Sequence[Ellipsoid], phase: float
) -> list[Ellipsoid]:
    """Kidneys with medulla, sinus and now and then a cyst of tumour-like density; pancreas."""
    painted = []
    for kidney, medial in zip(kidneys, (0.07, -0.07)):
        painted += [
            kidney,
            kidney.shrunk(0.72, 95 + 45 * phase, grain=22, u=kidney.u + medial * 0.3),
            kidney.shrunk(0.36, -60, grain=45, u=kidney.u + medial * 1.1, rt=kidney.rt * 0.6),
            kidney.shrunk(0.2, 15 + 50 * rng.random(), u=kidney.u + medial * 2, v=kidney.v - 0.03),
        ]
        if rng.random() < 0.5:
            cyst = Ellipsoid(kidney.u - medial * 2, kidney.v + 0.1, kidney.t, 0.07, 0.07, 0.1, hu=12)
            painted.append(cyst.varied(rng, 2))
    for k in range(5):
        u, v, t = -0.16 + 0.13 * k, -0.12 - 0.05 * (k % 3), 0.36 + 0.05 * k
        painted.append(Ellipsoid(u, v, t, 0.11, 0.08, 0.14, 20, 88 - 12 * phase, 14).varied(rng))
    return painted


def _stomach_and_spleen(rng: np.random.Generator, phase: float) -> list[Ellipsoid]:
    """Spleen, sometimes with a cyst; the stomach, a bag from under the left dome to the front."""
    spleen = Ellipsoid(0.7, 0.3, 0.68, 0.18, 0.38, 0.36, -18, 108 + 8 * phase).varied(rng, 1.5)
    cyst = [spleen.shrunk(0.2, 50, u=spleen.u + 0.04)] if rng.random() < 0.3 else []
    filling, grain = ((8, 3), (30, 20), (45, 12))[rng.integers(3)]
    level = rng.uniform(-0.6, -0.1)  # one level, since the parts are one room
    bag = [
        Ellipsoid(0.38, 0.0, 0.84, 0.24, 0.3, 0.24, -20, 75).varied(rng),
        Ellipsoid(0.34, -0.32, 0.62, 0.24, 0.26, 0.26, 10, 75).varied(rng),
        Ellipsoid(0.1, -0.5, 0.42, 0.28, 0.14, 0.14, 10, 75).varied(rng),
    ]
    return [spleen, *cyst, *bag, *(part.shrunk(0.88, filling, grain=grain, level=level) for part in bag)]


def _bowel(rng: np.random.Generator) -> list[Ellipsoid]:
    """Loops in front, the colon at both flanks and below the stomach, each with something in it."""
    loops = [
        Ellipsoid(*rng.uniform((-0.6, -0.75, -0.35), (0.7, -0.05, 0.3)), 0.13, 0.1, 0.12, turn, 70, 8)
        for turn in rng.uniform(-60, 60, 40)
    ]
    flanks = [(u, -0.1, t) for u in (-0.78, 0.78) for t in (-0.3, -0.12)]
    under_stomach = [(0.3 + 0.17 * k, -0.6 + 0.12 * k, 0.33 + 0.07 * k) for k in range(3)]
    loops += [Ellipsoid(*place, 0.13, 0.14, 0.15, 10, 60) for place in flanks + under_stomach]
    painted = []
    for loop in loops:
        loop = loop.varied(rng, 3)
        # Fluid, chyme, fluid below gas, faeces, contrast medium: HU, grain, share of gas.
        some = rng.uniform(0.3, 0.9)
        contents = ((18, 3, 0), (45, 15, 0), (15, 3, some), (-20, 70, 0.3), (180, 10, 0))
        hu, grain, gas = contents[rng.choice(5, p=[0.3, 0.3, 0.15, 0.2, 0.05])]
        level = loop.v + (2 * gas - 1) * loop.rv if gas else -np.inf
        painted += [loop, loop.shrunk(0.8, hu, grain=grain, level=level)]
    return painted


def _great_vessels(rng: np.random.Generator, phase: float) -> list[Ellipsoid]:
    """Aorta, vena cava, mesenteric artery and vein, oesophagus."""
    aorta = 310 - 150 * phase
    tubes = [
        Ellipsoid(0.06, 0.14, 0.5, 0.078, 0.078, 9, hu=aorta),
        replace(VENA_CAVA, hu=75 + 65 * phase),
        Ellipsoid(0.1, -0.02, 0.2, 0.035, 0.035, 0.3, hu=aorta),
        Ellipsoid(-0.02, -0.1, 0.15, 0.05, 0.045, 0.33, hu=80 + 75 * phase),
        Ellipsoid(0.1, 0.0, 0.95, 0.06, 0.05, 0.3, hu=45),
    ]
    return [tube.varied(rng, 0.3) for tube in tubes]


def _liver_vessels(rng: np.random.Generator, width: float, depth: float, height: float) -> np.ndarray:
    """Portal branches from the hilum and hepatic veins from the vena cava, grown as random trees."""
    hilum = np.array([-0.22 * width, -0.08 * depth, 0.5 * height])
    cava = np.array([-0.18 * width, 0.06 * depth, 0.86 * height])
    growing = [
        (hilum, (-1, 0.1, 0.1), 5.0), (hilum, (0.2, -1, 0.5), 3.6), (hilum, (-1, 0.3, -0.7), 3.8),
        (hilum, (-0.8, -0.6, 0.3), 3.4), (cava, (-1, 0.4, -0.35), 4.4), (cava, (-0.7, -0.8, -0.35), 4.2),
        (cava, (0.2, -1, -0.2), 3.6),
    ]
    rows = []
    while growing:
        place, heading, radius = growing.pop()
        for _ in range(rng.integers(3, 8)):
            heading = heading + rng.normal(0, 0.2, 3)
            heading /= np.linalg.norm(heading)
            after = place + 5.0 * heading
            rows.append((*place, *after, radius))
            place, radius = after, radius * 0.97
        if radius > 0.9:
            turn = rng.normal(0, 0.45, 3)
            growing.append((place, heading + turn, radius * 0.8))
            growing.append((place, heading - turn, radius * rng.uniform(0.55, 0.8)))
    return np.array(rows, np.float32)


def _smooth_max(a: np.ndarray, b: np.ndarray, rounding: float) -> np.ndarray:
    """Intersect two shapes given by their distances, the corner rounded off (mm)."""
    overlap = np.maximum(rounding - np.abs(a - b), 0)
    return np.maximum(a, b) + overlap * overlap * (0.25 / rounding)


class Canvas:
    """One slice being painted: ``hu``, and the mm coordinates of its pixels, straight and bent."""

    def __init__(self, patient: Anatomy, number: int, size: int) -> None:
        self.patient, self.size = patient, size
        self.t = float(patient.heights[number])
        self.z = self.t * patient.height
        self.pixel = patient.pixel * 512 / size
        self.rng = np.random.default_rng([patient.seed, number])
        self.hu = np.full((size, size), -1000, np.float32)
        axis = (np.arange(size) - (size - 1) / 2) * self.pixel
        self.flat_x, self.flat_y = np.meshgrid(*(axis - patient.offset[:, None]).astype(np.float32))
        layer = np.clip((self.t + 0.2) / 1.4, 0, 0.999) * (patient.bends.shape[1] - 1)
        low, part = int(layer), layer % 1
        between = patient.bends[:, low] * (1 - part) + patient.bends[:, low + 1] * part
        self.bend = [self._enlarged(grid) for grid in between]
        self.x, self.y = self.flat_x + 4.5 * self.bend[0], self.flat_y + 4.5 * self.bend[1]
        self.grain = self._enlarged(self.rng.normal(0, 1, (64, 64)))
        self.cavity = self._outline(-patient.wall)

    def _enlarged(self, grid: np.ndarray) -> np.ndarray:
        return cv2.resize(grid.astype(np.float32), (self.size, self.size), interpolation=cv2.INTER_CUBIC)

    def _outline(self, beyond: float) -> np.ndarray:
        """Distance to the body wall's rounded box, moved outwards by ``beyond`` mm."""
        along = self.patient.depth + 0.8 * beyond
        # The wall bends less than what lies in it.
        across = (self.flat_x + 1.6 * self.bend[0]) / (self.patient.width + beyond)
        deep = (self.flat_y + 1.6 * self.bend[1]) / along
        return (np.sqrt(across**2 + deep**2 - 0.3 * (across * deep) ** 2) - 1) * along

    def pixels(self, x: float, y: float) -> np.ndarray:
        """Column and row, with fractions, of a place in mm."""
        return (np.array([x, y]) + self.patient.offset) / self.pixel + (self.size - 1) / 2

    def around(self, x: float, y: float, reach: float) -> Box:
        """The part of the picture within ``reach`` mm of a point, and 12 mm for the bends."""
        column, row = self.pixels(x, y)
        far = (reach + 12) / self.pixel
        return tuple(slice(max(int(c - far), 0), max(int(c + far) + 2, 0)) for c in (row, column))

    def distance(self, shape: Ellipsoid) -> tuple[Box, np.ndarray]:
        """Box round an ellipsoid's cut and the distance to its outline there; empty if not cut."""
        left = 1 - ((self.t - shape.t) / shape.rt) ** 2
        if left <= 0.01:
            return NOWHERE, self.x[NOWHERE]
        rx, ry = (r * self.patient.width * left**0.5 for r in (shape.ru, shape.rv))
        x, y = shape.u * self.patient.width, shape.v * self.patient.depth
        box = self.around(x, y, max(rx, ry))
        dx, dy = self.x[box] - x, self.y[box] - y
        cos, sin = np.cos(np.radians(shape.turn)), np.sin(np.radians(shape.turn))
        along, across = dx * (cos / rx) + dy * (sin / rx), dy * (cos / ry) - dx * (sin / ry)
        return box, (np.sqrt(along * along + across * across) - 1) * min(rx, ry)

    def paint(
        self, distance: np.ndarray, hu: float | np.ndarray, box: Box = EVERYWHERE, *, soft: float = 0.0
    ) -> None:
        """Mix ``hu`` in where ``distance`` is negative, the edge ``soft`` mm (a pixel) wide."""
        part = self.hu[box]
        part += np.clip(0.5 - distance / max(soft, self.pixel), 0, 1) * (hu - part)

    def ellipsoid(self, shape: Ellipsoid, within: np.ndarray | None = None) -> None:
        """Paint an ellipsoid's cut, gas above its fluid level, kept inside the shape ``within``."""
        box, distance = self.distance(shape)
        if within is not None:
            distance = _smooth_max(distance, within[box] + 1, 14)
        self.paint(distance, shape.hu + shape.grain * self.grain[box], box)
        if np.isfinite(shape.level):
            gas = np.maximum(distance, self.flat_y[box] - shape.level * self.patient.depth)
            self.paint(gas, -900, box)

    def dome(self) -> np.ndarray:
        """Distance to the vaults of the diaphragm: negative below it, lung where positive."""
        across, deep = self.x / self.patient.width, (self.y / self.patient.depth + 0.12) / 0.95
        vaults = []
        for u, top, wide in VAULTS:
            radius = (max(top - self.t, 0) / 0.5) ** 0.42
            vaults.append((radius - np.hypot((across - u) / wide, deep)) * self.patient.depth)
        return -_smooth_max(*vaults, 18)

    def liver(self) -> np.ndarray:
        """Distance to the liver's surface: what fits under the dome, above a slanting underside."""
        patient = self.patient
        surface = np.full_like(self.cavity, 1e3)
        if not 0 < self.t < 1:
            return surface
        box = self.around(-0.25 * patient.width, 0, 0.8 * patient.width)
        reach = np.interp(self.t, REACH_AT, patient.reach)
        slope = patient.tilt * (0.35 + 0.65 * min(self.t / 0.6, 1))
        deep = self.y[box] / patient.depth
        bow = deep + 0.15 + 0.5 * np.maximum(deep, 0) ** 2
        under = self.x[box] / patient.width - reach + slope * bow
        upper = _smooth_max(self.cavity[box] + 2, self.dome()[box] + 0.5, 12)
        surface[box] = _smooth_max(upper, under * (patient.width / np.hypot(1, slope)), 22)
        own = (*((kidney, 3, 10) for kidney in patient.kidneys), (patient.gall_bladder, 1, 4))
        for shape, gap, rounding in (*LIVER_NEIGHBOURS, *own):
            box, distance = self.distance(shape)
            surface[box] = _smooth_max(surface[box], gap - distance, rounding)
        return surface

    def body(self) -> None:
        """Paint all but the liver, from the outside inwards."""
        self._wall()
        self._lungs()
        self._spine()
        self._ribs()
        for organ in self.patient.organs:
            self.ellipsoid(organ, self.cavity)
        self.ellipsoid(self.patient.gall_bladder.shrunk(1.08, 60))
        self.ellipsoid(self.patient.gall_bladder)

    def _wall(self) -> None:
        """Table, skin, fat, muscle, and the fat of the cavity with its small vessels."""
        patient = self.patient
        table = patient.depth + 0.8 * patient.fat + patient.table - self.flat_y
        table -= 14 * (self.flat_x / patient.width) ** 2
        beside = np.abs(self.flat_x) - 1.2 * patient.width
        for below, hu in ((0, 160), (18, 70)):
            self.paint(np.maximum(np.abs(table + below) - 1.1, beside), hu)
        skin = self._outline(patient.fat)
        self.paint(skin, 20)
        self.paint(skin + 2, -102 + 6 * self.grain)
        seam = np.abs(self.cavity - 0.45 * patient.wall + 1.5 * self.bend[0]) < 0.8
        self.paint(self._outline(0), 56 + 14 * self.grain - 100 * (seam & (self.grain > -0.6)))
        # The zero lines of a smooth field look like the vessels of the mesentery.
        self.paint(self.cavity, np.where(np.abs(self.grain) < 0.12, 15, -100 + 8 * self.grain))

    def _lungs(self) -> None:
        """Diaphragm, lungs beyond it with their vessels, and the heart between them."""
        if self.t < 0.3:
            return
        lung = _smooth_max(self.cavity + 1, -self.dome(), 6)
        self.paint(lung, 45)
        for shape in (HEART, MEDIASTINUM):
            box, distance = self.distance(shape)
            lung[box] = _smooth_max(lung[box], 4 - distance, 6)
        self.paint(lung + 1.8, np.where(self.grain > 1.9, -300, -860 + 25 * self.grain))
        self.ellipsoid(HEART, self.cavity)

    def _spine(self) -> None:
        """Vertebra or disc, arch and canal, and the muscles beside them."""
        for side in (-1, 1):
            self.ellipsoid(Ellipsoid(side * 0.24, 0.72, 0.5, 0.23, 0.13, 9, side * 12, 58, 12))
            self.ellipsoid(Ellipsoid(side * 0.2, 0.42, -0.1, 0.1, 0.13, 0.75, side * -20, 60, 8))
            self.ellipsoid(Ellipsoid(side * 0.15, 0.6, self.t, 0.13, 0.024, 1, side * 16, 330))
        disc = (self.z / 36 + self.patient.ribs[1]) % 1 < 0.22
        vertebra = Ellipsoid(0, 0.38, 0.5, 0.15, 0.12, 9, 0, 330)
        self.ellipsoid(vertebra)
        self.ellipsoid(vertebra.shrunk(0.92, 85 if disc else self.patient.bone, grain=8 if disc else 35))
        self.ellipsoid(Ellipsoid(0, 0.61, self.t, 0.085, 0.085, 1, 0, 330, 40))
        self.ellipsoid(Ellipsoid(0, 0.78, self.t, 0.022, 0.11, 1, 0, 330))
        self.ellipsoid(Ellipsoid(0, 0.59, self.t, 0.06, 0.05, 1, 0, 25))

    def _ribs(self) -> None:
        """Ribs slant downwards to the front: each meets a higher slice further back."""
        patient = self.patient
        for k in range(8):
            angle = 0.4 + 0.37 * (k + patient.ribs[0] + 1.2 * self.t)
            if angle > 2.5 or self.t < 0.13 * k - 0.35:
                break
            u = np.sin(angle) * (1 - 0.5 * patient.wall / patient.width)
            v = np.cos(angle) * (1 - 0.5 * patient.wall / patient.depth)
            for side in (-1, 1):
                rib = Ellipsoid(side * u, v, self.t, 0.07, 0.027, 1, -side * np.degrees(angle), 420, 30)
                self.ellipsoid(rib)
                self.ellipsoid(rib.shrunk(0.55, patient.bone))

    def vessels(self) -> np.ndarray:
        """How much of each pixel is a vessel of the liver, 0 to 1."""
        drawn = np.zeros((self.size, self.size), np.uint8)
        rows = self.patient.branches
        reach = np.maximum(rows[:, 6], 0.35 * self.patient.between_slices)
        cut = np.abs((rows[:, 2] + rows[:, 5]) / 2 - self.z) < reach
        for x0, y0, _, x1, y1, _, radius in rows[cut]:
            # OpenCV takes sixteenths of a pixel; what is thinner than a pixel is drawn fainter.
            start, end = (np.rint(16 * self.pixels(x, y)).astype(int) for x, y in ((x0, y0), (x1, y1)))
            thick = 2 * radius / self.pixel
            shade, line = int(255 * min(thick, 1)), max(1, round(thick))
            cv2.line(drawn, start.tolist(), end.tolist(), shade, line, cv2.LINE_AA, shift=4)
        return drawn.astype(np.float32) / 255

    def scanned(self) -> np.ndarray:
        """The painting as int16 HU as a scanner shows it: blur, coarse-grained noise, round field."""
        white = self.rng.standard_normal((self.size, self.size), np.float32)
        # Reconstruction kernels pass a band: neighbours correlate, far pixels do not.
        noise = cv2.GaussianBlur(white, (0, 0), self.patient.kernel)
        noise -= 0.6 * cv2.GaussianBlur(white, (0, 0), 2.4)
        radius = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, self.size, dtype=np.float32)] * 2))
        blurred = cv2.GaussianBlur(self.hu, (0, 0), max(0.75 * self.size / 512, 0.3))
        hu = blurred + noise * (self.patient.noise / noise.std()) * (1.15 - 0.4 * radius)
        return np.where(radius < 1, np.clip(hu, -1010, 1400), -1024).round().astype(np.int16)
