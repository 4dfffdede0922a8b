"""People, bicycles, motorcycles, dogs and lamps: flat figures of limbs and discs that face the camera."""

import math
from collections.abc import Callable

import numpy as np

from scanfuse.data.synthetic._road_brush import Brush, Camera, Paint, Point

__all__ = [
    "paint_bicycle",
    "paint_dog",
    "paint_lamp",
    "paint_motorcycle",
    "paint_person",
    "paint_post",
    "paint_rider",
]

_SKIN = ((0.90, 0.72, 0.60), (0.78, 0.58, 0.44), (0.52, 0.36, 0.26), (0.36, 0.24, 0.18))
_CLOTHES = (
    (0.10, 0.10, 0.13), (0.82, 0.80, 0.76), (0.70, 0.14, 0.14), (0.14, 0.26, 0.56), (0.22, 0.42, 0.26),
    (0.82, 0.64, 0.18), (0.44, 0.30, 0.46), (0.40, 0.42, 0.46), (0.88, 0.48, 0.22),
)  # fmt: skip
_TROUSERS = ((0.10, 0.11, 0.16), (0.20, 0.26, 0.42), (0.36, 0.32, 0.28), (0.58, 0.56, 0.52), (0.16, 0.16, 0.17))

Grid = Callable[[float, float], Point]
"""From metres right of and above a spot to pixels."""


def paint_person(
    brush: Brush, camera: Camera, *, x: float, z: float, look: np.random.Generator, night: bool, stride: float
) -> None:
    """One walker; `stride` is the phase of the step in radians."""
    tall = look.uniform(1.50, 1.88)
    facing = str(look.choice(["front", "back", "left", "right"]))
    at = _grid(camera, x, z)
    skin, top, legs, warm = _wear(look, night)
    hair = Paint.of(look.uniform(0.05, 0.4) * np.array([1.0, 0.8, 0.6]), warm * 0.84)
    aside = facing in ("left", "right")
    turn = -1.0 if facing == "left" else 1.0
    swing = math.sin(stride) * (0.155 if aside else 0.035) * tall
    hip, knee, shoulder = 0.50 * tall, 0.27 * tall, 0.805 * tall
    gap = (0.0 if aside else 0.052) * tall
    skirt = look.random() < 0.2
    unit = camera.focal / z * tall
    for side in (-1, 1):  # the far leg and arm first
        foot = at(side * gap + side * swing, 0.03 * tall)
        bend = at(side * gap + side * 0.45 * swing + (0.02 * tall * turn if aside else 0), knee)
        limb = Paint.of(skin[:3], warm * 0.95) if skirt else legs
        brush.limb(at(side * gap, hip), bend, 0.060 * unit, 0.043 * unit, legs if not skirt else limb)
        brush.limb(bend, foot, 0.043 * unit, 0.030 * unit, limb)
        toe = turn * 0.055 * tall if aside else side * 0.012 * tall
        brush.limb(foot, (at(toe, 0)[0] - at(0, 0)[0] + foot[0], foot[1]), 0.026 * unit, 0.022 * unit,
                   Paint(0.10, 0.09, 0.09, legs.heat - 0.08))  # fmt: skip
        if side == -1:
            _arm(brush, at, side, aside, swing, tall, unit, top, skin, shoulder)
    wide, waist = (0.078, 0.070) if aside else (0.118, 0.088)
    low = 0.30 * tall if skirt else 0.455 * tall
    hem = 0.13 if skirt else waist
    brush.polygon(
        [at(-wide * tall, 0.80 * tall), at(-0.05 * tall, 0.86 * tall), at(0.05 * tall, 0.86 * tall),
         at(wide * tall, 0.80 * tall), at(hem * tall, low), at(-hem * tall, low)],
        top,
    )  # fmt: skip
    if facing == "back" and look.random() < 0.4:
        brush.limb(at(0, 0.76 * tall), at(0, 0.60 * tall), 0.075 * unit, 0.08 * unit,
                   Paint.of(look.uniform(0.1, 0.8, 3), top.heat - 0.22))  # fmt: skip
    _arm(brush, at, 1, aside, swing, tall, unit, top, skin, shoulder)
    _head(brush, at, tall, unit, facing, skin, hair)


def paint_bicycle(
    brush: Brush, camera: Camera, *, x: float, z: float, yaw: float, look: np.random.Generator, night: bool
) -> None:
    """A bicycle seen from the side, shortened by the cosine of `yaw`."""
    at = _grid(camera, x, z, math.cos(yaw))
    unit = camera.focal / z
    heat = 0.56 if night else 0.86
    colour = Paint.of(_CLOTHES[int(look.integers(len(_CLOTHES)))], heat)
    dark = Paint(0.06, 0.06, 0.07, heat + 0.08)
    rear, front, crank, seat, bar = (-0.53, 0.34), (0.53, 0.34), (-0.08, 0.28), (-0.24, 0.86), (0.40, 0.92)
    for u, y in (rear, front):
        _ring(brush, at, u, y, 0.34, 0.065 * unit, dark)
        for angle in np.arange(3) * math.pi / 3 + look.uniform(0, 1):
            ends = [at(u + s * 0.32 * math.cos(angle), y + s * 0.32 * math.sin(angle)) for s in (-1, 1)]
            brush.line(ends, 0.012 * unit, Paint(0.55, 0.55, 0.56, heat - 0.04))
    thick = 0.055 * unit
    for start, stop in ((rear, crank), (crank, seat), (crank, (0.36, 0.72)), (seat, (0.36, 0.74)), (rear, seat),
                        (front, bar)):  # fmt: skip
        brush.line([at(*start), at(*stop)], thick, colour)
    brush.line([at(-0.36, 0.93), at(-0.10, 0.93)], 0.08 * unit, dark)
    brush.line([at(0.30, 1.0), at(0.48, 1.02)], 0.05 * unit, dark)
    brush.disc(*at(*crank), 0.10 * unit, 0.10 * unit, Paint(0.3, 0.3, 0.3, heat + 0.06))
    if look.random() < 0.4:  # a basket
        brush.polygon([at(0.42, 0.95), at(0.72, 0.95), at(0.68, 0.68), at(0.46, 0.68)], Paint(0.35, 0.33, 0.3, heat))


def paint_motorcycle(
    brush: Brush, camera: Camera, *, x: float, z: float, yaw: float, look: np.random.Generator, night: bool
) -> None:
    """A motorcycle or scooter seen from the side, its engine hot."""
    at = _grid(camera, x, z, math.cos(yaw))
    unit = camera.focal / z
    warm = look.uniform(0.9, 1.1)
    body = Paint.of(_CLOTHES[int(look.integers(len(_CLOTHES)))], (0.50 if night else 0.76) * warm)
    dark = Paint(0.07, 0.07, 0.08, (0.60 if night else 0.86) * warm)
    hot = Paint(0.38, 0.37, 0.36, 0.90 if night else 0.97)
    for u in (-0.68, 0.68):
        _ring(brush, at, u, 0.31, 0.30, 0.13 * unit, dark)
    brush.limb(at(0.68, 0.31), at(0.46, 0.98), 0.05 * unit, 0.05 * unit, Paint(0.5, 0.5, 0.52, body.heat))
    brush.polygon([at(-0.95, 0.74), at(-0.85, 0.60), at(-0.2, 0.52), at(0.5, 0.55), at(0.55, 0.84), at(0.2, 0.94),
                   at(-0.05, 0.78)], body)  # fmt: skip
    brush.polygon([at(-0.28, 0.62), at(0.34, 0.62), at(0.28, 0.22), at(-0.22, 0.22)], hot)
    brush.limb(at(-0.2, 0.24), at(-0.85, 0.34), 0.05 * unit, 0.06 * unit, hot)
    brush.limb(at(-0.75, 0.80), at(-0.05, 0.84), 0.06 * unit, 0.07 * unit, dark)
    brush.limb(at(0.36, 1.05), at(0.56, 0.98), 0.035 * unit, 0.03 * unit, dark)
    brush.disc(*at(0.62, 0.88), 0.09 * unit, 0.10 * unit, Paint(0.9, 0.9, 0.85, body.heat))


def paint_rider(
    brush: Brush, camera: Camera, *, x: float, z: float, yaw: float, look: np.random.Generator, night: bool
) -> None:
    """A person on a bicycle or motorcycle that stands at the same place."""
    at = _grid(camera, x, z, math.cos(yaw))
    unit = camera.focal / z * 1.7
    skin, top, legs, warm = _wear(look, night)
    hip, neck, hand = (-0.22, 0.98), (0.06, 1.46), (0.36, 1.02)
    for foot, knee in (((-0.02, 0.12), (0.20, 0.68)), ((-0.10, 0.40), (0.26, 0.82))):
        brush.limb(at(*hip), at(*knee), 0.062 * unit, 0.046 * unit, legs)
        brush.limb(at(*knee), at(*foot), 0.046 * unit, 0.030 * unit, legs)
    brush.limb(at(*hip), at(*neck), 0.085 * unit, 0.095 * unit, top)
    brush.limb(at(*neck), at(0.24, 1.18), 0.042 * unit, 0.036 * unit, top)
    brush.limb(at(0.24, 1.18), at(*hand), 0.034 * unit, 0.026 * unit, skin)
    brush.disc(*at(0.12, 1.66), 0.064 * unit, 0.075 * unit, skin)
    helmet = Paint.of(look.uniform(0.05, 0.9, 3), warm * 0.75)
    brush.disc(*at(0.11, 1.70), 0.068 * unit, 0.052 * unit, helmet)


def paint_dog(brush: Brush, camera: Camera, *, x: float, z: float, look: np.random.Generator, night: bool) -> None:
    """A dog from the side."""
    turn = float(look.choice([-1.0, 1.0]))
    at = _grid(camera, x, z, turn)
    unit = camera.focal / z
    fur = Paint.of(look.uniform(0.2, 0.8) * np.array([1.0, 0.85, 0.65]), 0.72 if night else 0.80)
    for u in (-0.30, -0.22, 0.24, 0.32):
        brush.limb(at(u, 0.32), at(u + look.normal(0, 0.04), 0.02), 0.05 * unit, 0.03 * unit, fur.tint(0.85))
    brush.limb(at(-0.30, 0.42), at(0.30, 0.46), 0.13 * unit, 0.14 * unit, fur)
    brush.limb(at(0.34, 0.52), at(0.46, 0.66), 0.08 * unit, 0.08 * unit, fur)
    brush.limb(at(0.46, 0.67), at(0.62, 0.62), 0.075 * unit, 0.04 * unit, fur.tint(1.0, fur.heat + 0.1))
    brush.line([at(-0.40, 0.48), at(-0.58, 0.66)], 0.05 * unit, fur)


def paint_post(brush: Brush, camera: Camera, *, x: float, z: float, night: bool) -> None:
    """The post of a lamp."""
    at, unit = _grid(camera, x, z), camera.focal / z
    metal = Paint(0.30, 0.31, 0.33, 0.22 if night else 0.46)
    brush.limb(at(0, 0), at(0, 4.3), 0.07 * unit, 0.05 * unit, metal)
    brush.limb(at(0, 0), at(0, 0.5), 0.12 * unit, 0.10 * unit, metal)


def paint_lamp(
    brush: Brush, camera: Camera, *, x: float, z: float, look: np.random.Generator, night: bool, lit: bool
) -> Point:
    """The lantern on a post; returns its middle in pixels."""
    at, unit = _grid(camera, x, z), camera.focal / z
    heat = 0.82 if night else 0.84
    shell = Paint(0.16, 0.17, 0.18, heat)
    pane = Paint(1.0, 0.90, 0.66, heat + 0.08, 0.9 if lit else 0.0) if night else Paint(0.92, 0.92, 0.88, heat)
    if look.random() < 0.5:
        brush.disc(*at(0, 4.62), 0.36 * unit, 0.36 * unit, pane)
        brush.polygon([at(-0.16, 4.34), at(0.16, 4.34), at(0.10, 4.22), at(-0.10, 4.22)], shell)
    else:
        brush.polygon([at(-0.22, 4.25), at(0.22, 4.25), at(0.34, 4.85), at(-0.34, 4.85)], pane)
        brush.polygon([at(-0.42, 4.83), at(0.42, 4.83), at(0.0, 5.12)], shell)
    return at(0, 4.6)


def _grid(camera: Camera, x: float, z: float, squeeze: float = 1.0) -> Grid:
    left, foot = camera.pixel(x, 0, z)
    unit = camera.focal / z
    if 0 <= squeeze < 0.3 or -0.3 < squeeze < 0:
        squeeze = math.copysign(0.3, squeeze)
    return lambda right, up: (left + squeeze * right * unit, foot - up * unit)


def _wear(look: np.random.Generator, night: bool) -> tuple[Paint, Paint, Paint, float]:
    """Skin, jacket, trousers, and the heat of bare skin."""
    warm = float(look.uniform(0.86, 0.98)) if night else float(look.uniform(0.88, 0.98))
    coat = float(look.uniform(0.80, 0.92))
    skin = Paint.of(_SKIN[int(look.integers(len(_SKIN)))], warm)
    top = Paint.of(_CLOTHES[int(look.integers(len(_CLOTHES)))], warm * coat)
    legs = Paint.of(_TROUSERS[int(look.integers(len(_TROUSERS)))], warm * coat * 0.95)
    return skin, top, legs, warm


def _arm(
    brush: Brush, at: Grid, side: int, aside: bool, swing: float, tall: float, unit: float, top: Paint, skin: Paint,
    shoulder: float,
) -> None:  # fmt: skip
    out = 0.0 if aside else side * 0.125 * tall
    elbow = at(out - side * 0.5 * swing + (0 if aside else side * 0.02 * tall), 0.62 * tall)
    hand = at(out - side * 0.9 * swing + (0 if aside else side * 0.015 * tall), 0.47 * tall)
    brush.limb(at(out, shoulder), elbow, 0.034 * unit, 0.029 * unit, top.tint(0.88))
    brush.limb(elbow, hand, 0.028 * unit, 0.022 * unit, top.tint(0.88))
    brush.disc(*hand, 0.024 * unit, 0.024 * unit, skin)


def _head(brush: Brush, at: Grid, tall: float, unit: float, facing: str, skin: Paint, hair: Paint) -> None:
    brush.limb(at(0, 0.84 * tall), at(0, 0.90 * tall), 0.026 * unit, 0.026 * unit, skin)
    middle = at(0, 0.932 * tall)
    brush.disc(*middle, 0.054 * unit, 0.066 * unit, hair if facing == "back" else skin)
    brush.disc(middle[0], middle[1] - 0.030 * unit, 0.056 * unit, 0.040 * unit, hair)


def _ring(brush: Brush, at: Grid, u: float, y: float, radius: float, width: float, paint: Paint) -> None:
    angles = np.linspace(0, 2 * math.pi, 19)
    brush.line([at(u + radius * math.cos(a), y + radius * math.sin(a)) for a in angles], width, paint)
