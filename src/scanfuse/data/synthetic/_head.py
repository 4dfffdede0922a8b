"""The anatomy of a made-up head: which tissue fills each pixel of an axial slice, in millimetres, without contrast.

Axes: x to the right of the picture, y to the front of the head (up), both in mm from the centre; level is the height
of the slice, 0 at the skull base and 1 at the vertex. A case is drawn once; its slices cut the same three-dimensional
fields, so neighbouring slices belong together. Signed distances are positive inside.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

__all__ = ["FIELD_OF_VIEW_MM", "Case", "Lesion", "draw_case", "tissue_fractions"]

FIELD_OF_VIEW_MM = 240.0

Array = np.ndarray

Kind = Literal["tumour", "haemorrhage", "calcification", "infarct", "plaque", "none"]

_GREY_MM = 2.8
"""Thickness of the cortex."""


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid: centre (x, y) and half-axes in mm, level and half-height in levels."""

    kind: Kind
    centre: tuple[float, float]
    radius: tuple[float, float]
    level: float
    half_height: float


@dataclass(frozen=True)
class Case:
    """What stays the same over the slices of one head."""

    levels: tuple[float, ...]
    half_width: float
    half_length: float
    harmonics: Array  # (4, 2): amplitude and phase of the outline's 2nd to 5th harmonic
    turn: float  # radians
    shift: tuple[float, float]
    scalp_mm: float
    skull_mm: float
    csf_gap_mm: float
    sulcus_mm: float
    ventricles: float  # scale of the ventricles' width
    has_frontal_sinus: bool
    lesions: tuple[Lesion, ...]
    calcified_plexus: bool
    lattices: dict[str, Array]  # white noise that the smooth fields interpolate


def draw_case(random: np.random.Generator, slices: int) -> Case:
    """Draws one head and the levels of its slices, between the basal nuclei (0.4) and the vertex (0.9)."""
    step = min(0.045, 0.45 / max(slices, 1))
    first = random.uniform(0.41, 0.88 - step * (slices - 1))
    levels = tuple(first + step * index for index in range(slices))
    age = random.uniform(0, 1)
    amplitude = random.normal(0, [0.008, 0.007, 0.005, 0.004])
    return Case(
        levels=levels,
        half_width=random.uniform(69, 77),
        half_length=random.uniform(86, 97),
        harmonics=np.stack([amplitude, random.uniform(0, 2 * np.pi, 4)], axis=1),
        turn=random.normal(0, np.radians(3.5)),
        shift=(random.normal(0, 3), random.normal(0, 4)),
        scalp_mm=random.uniform(3.4, 5.8),
        skull_mm=random.uniform(5.0, 7.5),
        csf_gap_mm=0.8 + 1.6 * age + random.uniform(0, 0.5),
        sulcus_mm=0.25 + 0.7 * age,
        ventricles=random.uniform(0.75, 1.05) + 0.55 * age,
        has_frontal_sinus=bool(random.random() < 0.6),
        lesions=_draw_lesions(random, levels),
        calcified_plexus=bool(random.random() < 0.3 + 0.5 * age),
        lattices={
            # (level, around, depth) and (level, y, depth) for the sulci; (level, y, x) for the others
            "sulci": random.normal(size=(14, 56, 9)),
            "medial": random.normal(size=(14, 36, 6)),
            "warp_x": random.normal(size=(10, 20, 20)),
            "warp_y": random.normal(size=(10, 20, 20)),
            "depth": random.normal(size=(10, 26, 26)),
            "wobble": random.normal(size=(14, 34, 34)),
            "texture": random.normal(size=(24, 90, 90)),
        },
    )


def _draw_lesions(random: np.random.Generator, levels: tuple[float, ...]) -> tuple[Lesion, ...]:
    kinds: tuple[Kind, ...] = get_args(Kind)
    kind = kinds[random.choice(len(kinds), p=[0.26, 0.2, 0.14, 0.16, 0.12, 0.12])]
    spread = levels[-1] - levels[0] + 0.05
    middle = random.uniform(levels[0], levels[-1]) if len(levels) > 1 else levels[0]

    def one(size: tuple[float, float], across: tuple[float, float]) -> Lesion:
        side = random.choice([-1.0, 1.0])
        shrink = 1.0 if middle < 0.7 else 0.75
        centre = (side * random.uniform(*across) * shrink, random.uniform(-46, 40) * shrink)
        radius = random.uniform(*size)
        half = max(0.55 * spread, 0.06) * random.uniform(0.7, 1.2)
        return Lesion(kind, centre, (radius, radius * random.uniform(0.7, 1.3)), middle, half)

    if kind == "none":
        return ()
    if kind == "tumour":
        return (one((8, 14), (22, 40)),)
    if kind == "haemorrhage":
        return (one((6, 13), (18, 42)),)
    if kind == "infarct":
        return (one((13, 20), (36, 50)),)
    if kind == "calcification":
        return tuple(one((2.0, 4.5), (12, 45)) for _ in range(int(random.integers(1, 4))))
    return tuple(one((2.0, 4.0), (14, 28)) for _ in range(int(random.integers(4, 9))))


def tissue_fractions(case: Case, level: float, size: int) -> dict[str, Array]:
    """Tissue -> share of each pixel, (size, size) float64 in [0, 1]; the shares of a pixel sum to 1."""
    pixel = FIELD_OF_VIEW_MM / size
    x, y = _head_axes(case, size, pixel)
    outside = _outline(case, level, x, y)
    angle = np.arctan2(y, x)
    wobble = _field(case, "wobble", level, y / 8.0, x / 8.0)
    scalp, skull = _thickness(case, level, angle, wobble)
    inner = outside - scalp - skull
    paint = _Paint(size, pixel)
    _paint_shell(paint, case, level, x, y, angle, outside, scalp, skull, wobble)
    paint.inside("csf", inner)
    # The brain is drawn in axes that a mass pushes aside; the skull does not give way.
    x, y = _displaced(case, level, x, y)
    _paint_brain(paint, case, level, x, y, inner, angle, wobble)
    return paint.fractions


class _Paint:
    """Tissue shares, each new tissue laid over the earlier ones."""

    def __init__(self, size: int, pixel: float) -> None:
        self.pixel = pixel
        self.fractions = {"air": np.ones((size, size))}

    def cover(self, tissue: str, share: Array) -> None:
        for name in self.fractions:
            self.fractions[name] = self.fractions[name] * (1 - share)
        self.fractions[tissue] = self.fractions.get(tissue, 0) + share

    def inside(self, tissue: str, distance: Array, strength: float | Array = 1.0, softness: float = 1.0) -> None:
        """Where the signed distance is positive; the edge is one pixel wide, or `softness` pixels."""
        self.cover(tissue, np.clip(distance / (self.pixel * softness) + 0.5, 0, 1) * strength)

    def line(self, tissue: str, distance: Array, half_width: float | Array) -> None:
        """A sheet seen edge on: the share of a pixel that lies within `half_width` of distance 0."""
        half = self.pixel / 2
        share = np.minimum(half_width, distance + half) - np.maximum(-half_width, distance - half)
        self.cover(tissue, np.clip(share / self.pixel, 0, 1))


def _head_axes(case: Case, size: int, pixel: float) -> tuple[Array, Array]:
    place = (np.arange(size) - (size - 1) / 2) * pixel
    x, y = np.meshgrid(place - case.shift[0], -place - case.shift[1])
    cos, sin = np.cos(case.turn), np.sin(case.turn)
    return cos * x + sin * y, -sin * x + cos * y


def _outline(case: Case, level: float, x: Array, y: Array) -> Array:
    """Signed distance to the skin: a superellipse, narrower in front, smaller towards the vertex."""
    shrink = np.sqrt(1 - (max(level - 0.47, 0) / 0.6) ** 2)
    width, length = case.half_width * shrink, case.half_length * (0.25 + 0.75 * shrink)
    narrowed = x / (1 - 0.10 * np.clip(y / length, -1, 1))
    power = 2.25
    distance = np.hypot(x, y) + 1e-6
    radius = distance / ((np.abs(narrowed) / width) ** power + (np.abs(y) / length) ** power + 1e-12) ** (1 / power)
    angle = np.arctan2(y, x)
    for order, (amplitude, phase) in enumerate(case.harmonics, start=2):
        radius = radius * (1 + amplitude * np.cos(order * angle + phase))
    return radius - distance


def _thickness(case: Case, level: float, angle: Array, wobble: Array) -> tuple[Array, Array]:
    """Scalp and skull in mm: muscle over the temples, bone thick in front and behind and at the midline crests."""
    lateral = _temple(angle)
    temple = 5.0 * np.clip((0.62 - level) / 0.15, 0, 1) * lateral
    scalp = case.scalp_mm * (1 + 0.10 * np.sin(angle - 0.6)) + temple + 0.25 * wobble
    skull = case.skull_mm * (1 + 0.16 * np.cos(2 * (angle - np.pi / 2)) - 0.15 * lateral)
    front, back = angle - np.pi / 2, np.abs(angle + np.pi / 2)
    crest = 3.0 * np.exp(-((front / 0.05) ** 2)) * (level < 0.6) + 4.5 * np.exp(-((back / 0.09) ** 2)) * (
        level < 0.55
    )
    if case.has_frontal_sinus:
        crest = crest + 5.0 * np.exp(-((front / 0.3) ** 2)) * np.clip((0.5 - level) / 0.06, 0, 1)
    oblique = 1 + 1.1 * max(level - 0.72, 0) / 0.2  # near the vertex the bone is cut at a slant
    return scalp, np.maximum(skull * oblique + crest + 0.45 * wobble, 3.4)


def _temple(angle: Array) -> Array:
    """1 over the temples, falling off to the front and back."""
    from_front = np.abs((angle - np.pi / 2 + np.pi) % (2 * np.pi) - np.pi)
    return np.exp(-(((from_front - np.radians(62)) / 0.35) ** 2))


def _paint_shell(
    paint: _Paint,
    case: Case,
    level: float,
    x: Array,
    y: Array,
    angle: Array,
    outside: Array,
    scalp: Array,
    skull: Array,
    wobble: Array,
) -> None:
    paint.inside("skin", outside)
    paint.inside("fat", outside - 1.7)
    if level < 0.62:
        paint.inside("muscle", np.minimum(outside - 3.0, 9 * (_temple(angle) - 0.3)))
    paint.inside("bone", outside - scalp)
    depth = outside - scalp
    spongy = np.minimum(depth - 0.27 * skull, 0.73 * skull - depth)
    paint.inside("diploe", spongy, strength=np.clip(0.75 + 0.2 * wobble, 0, 1), softness=1.5)
    if case.has_frontal_sinus and level < 0.5:
        middle = 0.5 * skull
        bulge = np.clip((0.5 - level) / 0.06, 0, 1) * (0.25 * skull)
        sinus = bulge - np.abs(depth - middle) - np.maximum(np.abs(x) - 17, 0) * 0.7
        paint.inside("air", np.where((y > 0) & (np.abs(x) > 1.2), sinus, -9))


def _paint_brain(
    paint: _Paint, case: Case, level: float, x: Array, y: Array, inner: Array, angle: Array, wobble: Array
) -> None:
    depth = inner - case.csf_gap_mm * (1 + 0.5 * np.clip(wobble, -1, 1.5))
    sulcus, width = _sulci(case, level, x, y, depth, angle, paint.pixel)
    midline, fissure, closed = _midline(case, level, x, y, wobble)
    medial = _medial_sulci(case, level, x, y, midline, closed, paint.pixel)
    sylvian = _sylvian(case, level, x, y, wobble)
    pial = np.minimum.reduce([depth, sulcus, fissure - 0.6, medial, sylvian])
    paint.inside("white", depth)
    paint.inside("grey", np.minimum(depth, _GREY_MM + 0.35 * wobble - pial), softness=1.3)
    inside = np.clip(depth / paint.pixel + 0.5, 0, 1)
    _paint_nuclei(paint, case, level, x, y)
    paint.line("csf", np.where(depth > -2, sulcus, 99), width)
    paint.line("csf", np.where(depth > 0, medial, 99), 0.6 * case.sulcus_mm)
    paint.inside("csf", np.minimum(depth, 0.5 + 1.1 * case.sulcus_mm - sylvian))
    paint.inside("csf", np.minimum(inner, 0.5 + 0.9 * case.sulcus_mm - fissure))
    _paint_ventricles(paint, case, level, x, y, wobble)
    _paint_lesions(paint, case, level, x, y, wobble, inside)
    falx = np.where((inner > 0) & (np.abs(y) > 8), fissure, 99)
    paint.line("dura", falx, 0.45)
    paint.line("dura", inner, 0.5)
    sinus = np.minimum(4.2 - np.abs(x) * 1.1 - np.maximum(inner - 1, 0) * 0.6, inner + 1)
    paint.inside("blood vessel", np.where(y < 0, sinus, -9))


def _sulci(
    case: Case, level: float, x: Array, y: Array, depth: Array, angle: Array, pixel: float
) -> tuple[Array, Array]:
    """Distance in mm to the nearest sulcus of the convexity, and its half-width.

    A sulcus is the zero contour of noise in (angle, depth), stretched in depth, so that contours run inwards;
    |noise| / |gradient| is the distance to it, to first order. Each ends at a depth that varies over the brain.
    """
    bent = angle + 0.10 * _field(case, "warp_x", level, y / 16, x / 16)
    around = (bent / (2 * np.pi)) * case.lattices["sulci"].shape[1]
    inwards = (np.maximum(depth, 0) + 4 * _field(case, "warp_y", level, y / 16, x / 16)) / 11
    noise = _sample(case.lattices["sulci"], level * 14 * 1.1, around, inwards)
    slope = np.hypot(*np.gradient(noise, pixel)) + 0.02
    ends = 16 + 6 * _field(case, "depth", level, y / 11, x / 11)
    distance = np.hypot(np.abs(noise) / slope, np.maximum(depth - ends, 0))
    taper = np.clip(1 - depth / np.maximum(ends, 4), 0, 1)
    return distance, case.sulcus_mm * (0.55 + 1.1 * taper)


def _midline(case: Case, level: float, x: Array, y: Array, wobble: Array) -> tuple[Array, Array, Array]:
    """Distance to the midline sheet, to the open fissure, and how far inside the callosum that interrupts it."""
    sheet = np.abs(x - 0.5 * wobble)
    front = np.interp(level, [0.4, 0.55, 0.64, 0.7], [33, 37, 24, -60])
    back = np.interp(level, [0.4, 0.55, 0.64, 0.7], [-40, -44, -30, 60])
    closed = np.maximum(np.minimum(front - y, y - back), 0)
    return sheet, np.hypot(sheet, closed), closed


def _medial_sulci(case: Case, level: float, x: Array, y: Array, midline: Array, closed: Array, pixel: float) -> Array:
    """Distance to the sulci of the inner faces, at most 8 mm deep; the two hemispheres differ."""
    noise = _sample(case.lattices["medial"], level * 14, y / 7.5, midline / 12 + 3.0 * (x > 0))
    slope = np.hypot(*np.gradient(noise, pixel)) + 0.02
    return np.hypot(np.abs(noise) / slope, np.maximum(midline - 8, 0) + 1.5 * closed)


def _sylvian(case: Case, level: float, x: Array, y: Array, wobble: Array) -> Array:
    """Distance to the lateral fissure with the insula at its floor; far away above level 0.62."""
    if level > 0.64:
        return np.full(x.shape, 99.0)
    away = 30 * max(level - 0.58, 0) / 0.06
    bent_x = np.abs(x) + 1.2 * wobble + 3.0 * _field(case, "warp_x", level, y / 9, x / 9)
    bent_y = y + 4.0 * _field(case, "warp_y", level, y / 12, x / 12)
    stem = _segment(bent_x, bent_y, (68, 2), (44, 8))
    floor = np.minimum(_segment(bent_x, bent_y, (37, 24), (44, 8)), _segment(bent_x, bent_y, (44, 8), (41, -10)))
    return np.minimum(stem, floor) + away


def _paint_nuclei(paint: _Paint, case: Case, level: float, x: Array, y: Array) -> None:
    shown = float(np.clip((0.66 - level) / 0.06, 0, 1))
    if shown == 0:
        return
    side = np.abs(x)
    grow = 0.6 + 0.4 * shown
    caudate = _ellipse(side, y, (13, 21), (5.0 * grow, 10 * grow), 0.25)
    putamen = _ellipse(side, y, (28, 6), (5.5 * grow, 15 * grow), 0.22)
    pallidum = _ellipse(side, y, (21.5, 3), (4.2 * grow, 8.5 * grow), 0.35)
    thalamus = _ellipse(side, y, (10.5, -13), (8.5 * grow, 14 * grow), 0.30)
    low = shown * float(np.clip((0.60 - level) / 0.06, 0, 1))
    for shape, name, strength in (
        (caudate, "nuclei", shown),
        (putamen, "nuclei", low),
        (pallidum, "pallidum", low),
        (thalamus, "nuclei", 0.85 * low),
    ):
        paint.inside(name, shape, strength=strength, softness=1.6)


def _paint_ventricles(paint: _Paint, case: Case, level: float, x: Array, y: Array, wobble: Array) -> None:
    """Frontal horns, bodies and trigones as chains of discs whose places and radii follow the level."""
    side = np.abs(x)
    at = [0.40, 0.52, 0.58, 0.68, 0.74]
    horn = np.interp(level, at, [4.0, 4.6, 4.8, 3.2, -3.0]) * case.ventricles
    trigone = np.interp(level, at, [3.4, 5.2, 5.5, 3.4, -3.0]) * case.ventricles
    body = np.interp(level, at, [-6.0, -2.0, 4.6, 4.4, -3.0]) * case.ventricles
    shape = np.full(x.shape, -99.0)
    along = [0, 0.3, 0.5, 0.75, 1]
    for step in np.linspace(0, 1, 24):
        # from the tip of the frontal horn (0) past the foramen (0.45) to the trigone (1)
        place_x = np.interp(step, [0, 0.15, 0.4, 0.7, 1], [13.5, 9, 6.5, 11.5, 25])
        place_y = np.interp(step, [0, 0.15, 0.4, 0.7, 1], [33, 27, 14, -14, -42])
        radius = np.interp(step, along, [horn * 0.7, horn * 0.9, body, body, trigone])
        radius = radius - 4 * max(2.0 - radius, 0)  # a vanishing horn closes as a whole, not disc by disc
        shape = np.maximum(shape, radius - np.hypot(side - place_x, y - place_y))
    paint.inside("csf", shape + 0.4 * wobble - 0.6 * (side < 1.0))
    if level < 0.52:
        slit = _segment(side, y, (0, 3), (0, -16))
        paint.inside("csf", 1.6 * case.ventricles * float(np.clip((0.53 - level) / 0.03, 0, 1)) - slit)
    if case.calcified_plexus and trigone > 2 and level < 0.62:
        paint.inside("calcium", _ellipse(side, y, (23.5, -41), (1.7, 3.2), 0.4))
        if level < 0.5:
            paint.inside("calcium", 1.9 - np.hypot(x, y + 24))


def _paint_lesions(paint: _Paint, case: Case, level: float, x: Array, y: Array, wobble: Array, inside: Array) -> None:
    white = paint.fractions["white"] + 0.25 * paint.fractions["grey"]
    for lesion in case.lesions:
        height = 1 - ((level - lesion.level) / lesion.half_height) ** 2
        if height <= 0:
            continue
        scale = float(np.sqrt(height))
        radius = (lesion.radius[0] * scale, lesion.radius[1] * scale)
        rough = _ellipse(x, y, lesion.centre, radius, 0.4) + 0.12 * radius[0] * wobble
        if lesion.kind == "tumour":
            # Oedema spreads along the white matter, in fingers.
            paint.inside(
                "oedema", rough + 0.75 * radius[0], strength=np.clip(white * 1.15, 0, 1) * inside, softness=3
            )
            paint.inside("tumour rim", rough, strength=inside)
            paint.inside("tumour", rough - 2.4, strength=inside)
            paint.inside("necrosis", rough - 0.55 * radius[0], strength=inside)
        elif lesion.kind == "haemorrhage":
            paint.inside("oedema", rough + 4.0, strength=0.8 * inside, softness=2.5)
            paint.inside("blood rim", rough, strength=inside)
            paint.inside("blood", rough - 1.5, strength=inside, softness=1.5)
        elif lesion.kind == "infarct":
            paint.inside("infarct", rough, strength=0.85 * inside, softness=3)
        elif lesion.kind == "calcification":
            paint.inside("calcium", rough, strength=inside)
        else:
            paint.inside("oedema", rough, strength=0.9 * np.clip(white, 0, 1) * inside, softness=1.5)


def _displaced(case: Case, level: float, x: Array, y: Array) -> tuple[Array, Array]:
    for lesion in case.lesions:
        if lesion.kind not in ("tumour", "haemorrhage"):
            continue
        height = max(0.0, 1 - ((level - lesion.level) / lesion.half_height) ** 2)
        push = 0.28 * min(lesion.radius) * height
        away_x, away_y = x - lesion.centre[0], y - lesion.centre[1]
        distance = np.hypot(away_x, away_y) + 1e-6
        reach = 2.2 * max(lesion.radius)
        # zero at the centre and far away, so the lesion itself keeps its place
        amount = push * (distance / reach) * np.exp(1 - distance / reach)
        x, y = x - amount * away_x / distance, y - amount * away_y / distance
    return x, y


def _segment(x: Array, y: Array, start: tuple[float, float], stop: tuple[float, float]) -> Array:
    """Distance to a straight stretch."""
    run = (stop[0] - start[0], stop[1] - start[1])
    along = ((x - start[0]) * run[0] + (y - start[1]) * run[1]) / (run[0] ** 2 + run[1] ** 2)
    along = np.clip(along, 0, 1)
    return np.hypot(x - start[0] - along * run[0], y - start[1] - along * run[1])


def _ellipse(x: Array, y: Array, centre: tuple[float, float], radius: tuple[float, float], turn: float) -> Array:
    """Signed distance to an ellipse, to first order near its edge."""
    cos, sin = np.cos(turn), np.sin(turn)
    u = (cos * (x - centre[0]) + sin * (y - centre[1])) / radius[0]
    v = (-sin * (x - centre[0]) + cos * (y - centre[1])) / radius[1]
    return (1 - np.hypot(u, v)) * min(radius)


def _field(case: Case, name: str, level: float, row: Array, column: Array) -> Array:
    return _sample(case.lattices[name], level * case.lattices[name].shape[0], row, column)


def _sample(lattice: Array, level: float, row: Array, column: Array) -> Array:
    """Smooth periodic noise, of unit variance at the lattice's points; cubic in a slice, linear between levels."""
    low = int(np.floor(level))
    share = level - low
    count = lattice.shape[0]
    # Mixing two independent layers lowers the variance; the root restores it.
    plane = (1 - share) * lattice[low % count] + share * lattice[(low + 1) % count]
    plane = plane / np.sqrt((1 - share) ** 2 + share**2)
    return ndimage.map_coordinates(plane, [row, column], order=3, mode="grid-wrap")
