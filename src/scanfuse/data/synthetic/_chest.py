"""A made-up chest in Hounsfield units: body, ribs, spine, heart, lungs with vessels and airways, and emphysema.

Axes in mm from the middle of the chest: x to the patient's left, y to the back, z to the head. Emphysema is what
severity changes, and nothing else: clusters of low attenuation, more of them in the upper lobes. How dense the rest
of the lung is differs between chests (breath), so that the mean alone tells little.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

__all__ = ["LUNG_MM", "Chest", "draw_chest", "render"]

Array = np.ndarray
LUNG_MM = (-92.0, 104.0)
"""Heights between which every chest shows lung."""

_AIR, _FAT, _MUSCLE, _BONE, _BLOOD = -1000.0, -95.0, 45.0, 320.0, 40.0
_MOST_VOXELS = 2_000_000
_HOLE = -985.0
"""Of emphysema."""


@dataclass(frozen=True)
class Chest:
    """What is drawn once for a patient.

    Attributes:
        half: half width and half depth of the body in mm.
        density: of the healthy lung in HU.
        vessels, bronchi: (n, 8): start, end, radius at either, in mm.
        holes: (n, 4): centre and radius of the holes of emphysema in mm.
        texture: (24, 24, 24) white noise that the smooth fields interpolate.
    """

    half: tuple[float, float]
    density: float
    vessels: Array
    bronchi: Array
    holes: Array
    texture: Array


def draw_chest(random: np.random.Generator, severity: float) -> Chest:
    """Draws a chest; `severity` in [0, 1] is how much of the lung emphysema may take."""
    half = (float(random.uniform(150, 168)), float(random.uniform(102, 118)))
    density = float(random.uniform(-855, -825))
    vessels, bronchi = [], []
    for side in (-1.0, 1.0):
        hilum = np.array([side * 32.0, 5.0, 5.0])
        bronchi.append([0, 2, 42, *hilum, 8.0, 6.5])
        for up in (-1.1, -0.6, -0.1, 0.4, 0.8, 1.3):
            way = np.array([side, random.normal(0, 0.5), up + random.normal(0, 0.15)])
            vessels += _tree(random, hilum, way, 36.0, 5.0, 5)
            bronchi += _tree(random, hilum, way + random.normal(0, 0.2, 3), 26.0, 4.5, 2)
    bronchi.append([0, 4, 150, 0, 2, 42, 9.0, 8.5])
    centres = []
    clusters = 1 + int(random.poisson(3 + 8 * severity))
    for _ in range(clusters):
        side = float(random.choice([-1.0, 1.0]))
        z = float(np.clip(random.normal(35, 45), -85, 88))
        middle = np.array([side * random.uniform(55, 95), random.uniform(-45, 50), z])
        for _ in range(int(random.poisson(30 * severity))):
            centres.append([*(middle + random.normal(0, 19, 3)), random.uniform(5, 6 + 11 * severity)])
    holes = np.array(centres, float).reshape(-1, 4)
    return Chest(half, density, np.array(vessels), np.array(bronchi), holes, random.normal(size=(24, 24, 24)))


def render(
    random: np.random.Generator, chest: Chest, *, z_mm: Array, size: int, field_mm: float, noise: float = 14.0
) -> tuple[Array, Array]:
    """Slices at the heights `z_mm`: (D, size, size) HU int16, and where the lungs are; row 0 is anterior, column 0
    the patient's right."""
    if len(z_mm) > 1 and len(z_mm) * size**2 > _MOST_VOXELS:  # a dozen fields of this size lie in memory
        half = len(z_mm) // 2
        parts = [
            render(random, chest, z_mm=each, size=size, field_mm=field_mm, noise=noise)
            for each in (z_mm[:half], z_mm[half:])
        ]
        return np.concatenate([hu for hu, _ in parts]), np.concatenate([lung for _, lung in parts])
    pixel = field_mm / size
    place = (np.arange(size) - (size - 1) / 2) * pixel
    z, y, x = np.meshgrid(z_mm, place, place, indexing="ij")
    paint = _Paint(x, y, z, pixel)
    wobble = _smooth(chest.texture, z / 26, y / 26, x / 26)
    body = _body(chest, x, y) + 1.5 * wobble
    paint.inside(_FAT, body)
    paint.inside(_MUSCLE, body - 9 - 2 * wobble)
    ribs = _ribs(chest, x, y, z)
    paint.inside(_BONE, ribs)
    spine = np.minimum(16 - np.hypot(x, (y - 66) * 0.95), 60.0)
    disc = 0.5 + 0.5 * np.cos(2 * np.pi * z / 28)
    paint.inside(_BONE - 180 * (disc > 0.93), spine)
    paint.inside(20.0, 7 - np.hypot(x, y - 92))
    lung = _lung(chest, x, y, z) + 2.0 * wobble
    paint.inside(_BLOOD, _heart(x, y, z))
    paint.inside(_BLOOD, 13 - np.hypot(x - 22, y - 48) - np.maximum(z - 62, 0))
    fine = _smooth(chest.texture[::-1], z / 11, y / 11, x / 11)
    tissue = chest.density + 0.45 * y + 22 * fine
    paint.inside(tissue, lung)
    paint.capsules(_BLOOD, chest.vessels, within=lung)
    holes = np.full(x.shape, -50.0)
    for cx, cy, cz, radius in chest.holes:
        box = paint.box((cx, cy, cz), radius + 3)
        distance = radius - np.sqrt((x[box] - cx) ** 2 + (y[box] - cy) ** 2 + (z[box] - cz) ** 2)
        holes[box] = np.maximum(holes[box], distance)
    paint.inside(_HOLE, np.minimum(holes, lung - 2))
    paint.capsules(-250.0, chest.bronchi + np.array([0, 0, 0, 0, 0, 0, 1.6, 1.6]))
    paint.capsules(_AIR, chest.bronchi)
    hu = paint.hu + noise * ndimage.gaussian_filter(random.normal(size=x.shape), (0, 0.5, 0.5)) * 1.7
    return np.rint(np.clip(hu, -1024, 1500)).astype(np.int16), (lung > 0) & (body > 0)


class _Paint:
    """Values of a volume, each new tissue laid over the earlier ones; edges are a pixel wide."""

    def __init__(self, x: Array, y: Array, z: Array, pixel: float) -> None:
        self.x, self.y, self.z, self.pixel = x, y, z, pixel
        self.hu = np.full(x.shape, _AIR)

    def inside(self, value: float | Array, distance: Array) -> None:
        share = np.clip(distance / self.pixel + 0.5, 0, 1)
        self.hu += share * (value - self.hu)

    def box(self, centre: tuple[float, float, float], reach: float) -> tuple[slice, slice, slice]:
        """The part of the volume within `reach` of a place, along each axis."""
        found = []
        axes = (self.z[:, 0, 0], self.y[0, :, 0], self.x[0, 0, :])
        for places, middle in zip(axes, reversed(centre), strict=True):
            low, high = np.searchsorted(places, (middle - reach, middle + reach))
            found.append(slice(int(low), int(high)))
        return found[0], found[1], found[2]

    def capsules(self, value: float, segments: Array, *, within: Array | None = None) -> None:
        """Stretches with a radius at either end, thinner than a pixel as a share of it."""
        reach = segments[:, 6:8].max(axis=1) + self.pixel
        heights, places = segments[:, [2, 5]], self.z[:, 0, 0]
        first = np.searchsorted(places, heights.min(axis=1) - reach)
        last = np.searchsorted(places, heights.max(axis=1) + reach)
        for row in segments[last > first]:  # most lie between slices
            start, end, first, last = row[:3], row[3:6], row[6], row[7]
            middle, reach = (start + end) / 2, float(np.abs(end - start).max()) / 2 + max(first, last) + self.pixel
            box = self.box((middle[0], middle[1], middle[2]), reach)
            if any(part.stop <= part.start for part in box):
                continue
            x, y, z = (axis[box] for axis in (self.x, self.y, self.z))
            way = end - start
            along = np.clip(
                ((x - start[0]) * way[0] + (y - start[1]) * way[1] + (z - start[2]) * way[2]) / (way @ way), 0, 1
            )
            away = np.sqrt(
                (x - start[0] - along * way[0]) ** 2
                + (y - start[1] - along * way[1]) ** 2
                + (z - start[2] - along * way[2]) ** 2
            )
            radius = first + (last - first) * along
            share = np.clip((radius - away) / self.pixel + 0.5, 0, 1) * np.minimum(2 * radius / self.pixel, 1)
            if within is not None:
                share = share * (within[box] > 0)
            self.hu[box] += share * (value - self.hu[box])


def _tree(random: np.random.Generator, start: Array, way: Array, length: float, radius: float, depth: int) -> list:
    """A branching vessel as rows of `Chest.vessels`."""
    way = way / np.linalg.norm(way)
    end = start + length * way
    found = [[*start, *end, radius, 0.75 * radius]]
    if depth > 1:
        for _ in range(2):
            turned = way + random.normal(0, 0.5, 3)
            found += _tree(random, end, turned, length * random.uniform(0.6, 0.85), 0.72 * radius, depth - 1)
    return found


def _body(chest: Chest, x: Array, y: Array) -> Array:
    """Distance to the skin: a superellipse."""
    radius = np.hypot(x, y) + 1e-6
    shape = (np.abs(x) / chest.half[0]) ** 2.6 + (np.abs(y) / chest.half[1]) ** 2.6
    return radius / np.maximum(shape, 1e-9) ** (1 / 2.6) - radius


def _ribs(chest: Chest, x: Array, y: Array, z: Array) -> Array:
    """Ribs as rings in the wall that fall to the front, and the breastbone."""
    radius = np.hypot(x / (chest.half[0] - 27), y / (chest.half[1] - 19))
    wall = 4.5 - np.abs(radius - 1) * (chest.half[1] - 19)
    height = z - 0.35 * y
    ring = 5 - np.abs((height % 27) - 13.5)
    bone = np.minimum(np.minimum(wall, ring), np.where(np.abs(x) > 18, 9.0, -9.0))
    plate = np.minimum(5 - np.abs(y + chest.half[1] - 18), 17 - np.abs(x)) - np.maximum(-60 - z, 0)
    return np.maximum(bone, plate)


def _lung(chest: Chest, x: Array, y: Array, z: Array) -> Array:
    """Distance into either lung: a blunt cone, cut by the midriff's dome below and by the mediastinum between."""
    height = np.clip((z - 20) / 100, -1.4, 1)
    narrow = np.sqrt(np.clip(1 - np.where(height > 0, height, 0) ** 2.2, 0, 1))
    width, depth = (chest.half[0] - 42) / 2 * narrow + 1e-3, (chest.half[1] - 27) * (0.35 + 0.65 * narrow)
    side = np.abs(x) - 20 - width
    shape = np.sqrt((side / width) ** 2 + (y / depth) ** 2)
    cone = (1 - shape) * np.minimum(width, depth)
    dome = z + 92 + 38 * ((np.abs(x) - 75) / 75) ** 2 - 24 * (1 - ((y + 10) / 90) ** 2)
    return np.minimum.reduce([cone, dome, 114 - z, -_heart(x, y, z), np.abs(x) - 16.0])


def _heart(x: Array, y: Array, z: Array) -> Array:
    away = np.sqrt(((x - 24) / 52) ** 2 + ((y + 30) / 42) ** 2 + ((z + 52) / 58) ** 2)
    return (1 - away) * 42


def _smooth(lattice: Array, z: Array, y: Array, x: Array) -> Array:
    """Smooth periodic noise of about unit variance."""
    return ndimage.map_coordinates(lattice, [z, y, x], order=1, mode="grid-wrap") * 1.5
