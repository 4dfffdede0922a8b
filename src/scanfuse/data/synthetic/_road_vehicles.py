"""Cars, buses and trucks: an outline from the side, drawn out to the vehicle's width, painted face by face."""

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import numpy as np

from scanfuse.data.synthetic._road_brush import Brush, Camera, Paint, Place, Point

__all__ = ["BODIES", "Body", "paint_vehicle"]

Spot = Callable[[float, float, float], Place]
"""From u, v (to its right) and y of a vehicle to the street."""


@dataclass(frozen=True)
class Body:
    """A vehicle; lengths in metres, u from its middle to its front, y up.

    Attributes:
        outline: (u, y) from the rear sill over the roof to the front sill.
        width: over all.
        glass: faces of the outline (number of their first point) that are windows.
        windows: polygons (u, y) on the sides.
        wheels: u of the axles.
        radius: of the wheels.
        rear, front: faces that carry the lights.
        engine: faces that the engine warms.
        box: (u, y) of a load box on the sides, painted white; empty for none.
    """

    outline: tuple[Point, ...]
    width: float
    glass: tuple[int, ...]
    windows: tuple[tuple[Point, ...], ...]
    wheels: tuple[float, ...]
    radius: float
    rear: int
    front: int
    engine: tuple[int, ...]
    box: tuple[Point, ...] = ()


_SALOON = Body(
    ((-2.1, 0.28), (-2.14, 0.62), (-2.06, 0.94), (-1.55, 1.0), (-1.02, 1.42), (0.22, 1.45), (0.98, 1.0),
     (1.92, 0.84), (2.12, 0.60), (2.1, 0.28)),
    1.76, (3, 5), (((-1.36, 1.02), (-0.97, 1.36), (-0.38, 1.38), (-0.38, 1.0)),
                   ((-0.30, 1.0), (-0.30, 1.38), (0.17, 1.38), (0.78, 1.0))),
    (-1.3, 1.32), 0.33, 1, 7, (6, 7),
)  # fmt: skip
_ESTATE = Body(
    ((-2.05, 0.32), (-2.1, 0.78), (-2.05, 1.06), (-1.78, 1.58), (-1.5, 1.68), (0.3, 1.68), (1.02, 1.12),
     (1.92, 0.98), (2.1, 0.66), (2.08, 0.32)),
    1.84, (2, 5), (((-1.72, 1.12), (-1.5, 1.54), (-0.45, 1.56), (-0.45, 1.1)),
                   ((-0.36, 1.1), (-0.36, 1.56), (0.22, 1.56), (0.80, 1.1))),
    (-1.3, 1.32), 0.36, 1, 7, (6, 7),
)  # fmt: skip
_BUS = Body(
    ((-5.0, 0.4), (-5.05, 1.3), (-5.0, 2.5), (-4.9, 3.0), (4.85, 3.0), (5.0, 2.6), (5.1, 1.15), (5.1, 0.4)),
    2.5, (1, 5), tuple(((u, 1.45), (u, 2.55), (u + 1.35, 2.55), (u + 1.35, 1.45))
                       for u in (-4.6, -3.1, -1.6, -0.1, 1.4, 2.9)),
    (-3.0, 3.2), 0.5, 0, 6, (0,),
)  # fmt: skip
_TRUCK = Body(
    ((-3.8, 0.6), (-3.8, 3.2), (1.6, 3.2), (1.62, 2.5), (2.85, 2.5), (3.3, 1.55), (3.42, 1.05), (3.4, 0.45)),
    2.3, (4,), (((2.0, 1.55), (2.05, 2.3), (2.7, 2.3), (3.1, 1.55)),),
    (-2.6, 2.3), 0.48, 0, 6, (5, 6), ((-3.8, 0.75), (-3.8, 3.2), (1.6, 3.2), (1.6, 0.75)),
)  # fmt: skip
BODIES = {"car": (_SALOON, _ESTATE), "bus": (_BUS,), "truck": (_TRUCK,)}

_COLOURS = (
    (0.86, 0.86, 0.86), (0.62, 0.63, 0.66), (0.10, 0.10, 0.12), (0.62, 0.10, 0.10), (0.14, 0.24, 0.52),
    (0.30, 0.33, 0.36), (0.80, 0.72, 0.20), (0.14, 0.40, 0.28),
)  # fmt: skip
_SUN = np.array([-0.45, 0.75, -0.48])


def paint_vehicle(
    brush: Brush,
    camera: Camera,
    body: Body,
    *,
    x: float,
    z: float,
    yaw: float,
    look: np.random.Generator,
    night: bool,
    driving: bool,
    lights: bool,
) -> list[tuple[Point, bool]]:
    """Paints one vehicle that stands at (x, z) and heads `yaw` (0 away from the camera, pi towards it).

    Returns:
        Where its lights are seen, True for headlights and False for tail lights; empty if they are off.
    """
    sin, cos = math.sin(yaw), math.cos(yaw)

    def place(u: float, v: float, y: float) -> Place:
        return x + u * sin + v * cos, y, z + u * cos - v * sin

    colour = np.array(_COLOURS[int(look.integers(len(_COLOURS)))]) * look.uniform(0.85, 1.1)
    warm = look.uniform(0.85, 1.1)
    heat = {
        "body": (0.40 if night else 0.74) * warm,
        "glass": 0.24 if night else 0.34,
        "engine": (0.74 if night else 0.88) * warm,
        "wheel": (0.66 if driving else 0.46) if night else 0.84,
        "light": 0.85 if lights else 0.5,
    }
    half = body.width / 2
    glass = Paint(0.16, 0.19, 0.23, heat["glass"])
    tyre = Paint(0.07, 0.07, 0.08, heat["wheel"])
    ends = (body.outline[0][0] + 0.35, body.outline[-1][0] - 0.35)
    for end in ends:  # tyres seen from behind or in front
        for v in (-half + 0.14, half - 0.14):
            corners = [place(end, v + dv, y) for dv, y in ((-0.12, 0), (-0.12, 0.5), (0.12, 0.5), (0.12, 0))]
            brush.polygon(camera.pixels(corners), tyre)
    faces = []
    for number, ((u1, y1), (u2, y2)) in enumerate(zip(body.outline, body.outline[1:], strict=False)):
        normal = np.array([-(y2 - y1) * sin, u2 - u1, -(y2 - y1) * cos])
        normal /= np.linalg.norm(normal)
        corners = [place(u1, -half, y1), place(u2, -half, y2), place(u2, half, y2), place(u1, half, y1)]
        middle = np.mean(corners, axis=0)
        if normal @ (np.array([0, camera.eye, 0]) - middle) > 0:
            faces.append((-float(np.linalg.norm(middle - [0, camera.eye, 0])), number, corners, normal))
    for _, number, corners, normal in sorted(faces, key=lambda face: face[0]):
        paint = Paint.of(colour, heat["engine"] if number in body.engine else heat["body"])
        if number in body.glass:
            paint = glass
        brush.polygon(camera.pixels(corners), paint.tint(_shade(normal, night)))
    for side in (-1, 1):
        normal = np.array([side * cos, 0, -side * sin])
        if normal @ (np.array([0, camera.eye, 0]) - np.array(place(0, side * half, 0.8))) > 0:
            _side(brush, camera, body, place, side * half, colour, glass, tyre, heat, _shade(normal, night))
    return _lights(brush, camera, body, place, {face[1] for face in faces}, lights, heat["light"])


def _side(
    brush: Brush,
    camera: Camera,
    body: Body,
    place: Spot,
    v: float,
    colour: np.ndarray,
    glass: Paint,
    tyre: Paint,
    heat: Mapping[str, float],
    shade: float,
) -> None:
    def on_side(points: tuple[Point, ...], out: float = 0.0) -> list[Point]:
        return camera.pixels([place(u, v * (1 + out), y) for u, y in points])

    brush.polygon(on_side(body.outline), Paint.of(colour, heat["body"]).tint(shade))
    if body.box:
        brush.polygon(on_side(body.box), Paint(0.85, 0.85, 0.83, heat["body"] - 0.08).tint(shade))
    # The sill and the bonnet's side, cooler and warmer than the doors.
    low = (
        (body.outline[0][0], body.outline[0][1]),
        (body.outline[0][0], 0.45),
        (body.outline[-1][0], 0.45),
        body.outline[-1],
    )
    brush.polygon(on_side(low), Paint.of(colour * 0.5, heat["body"] + 0.06).tint(shade))
    for window in body.windows:
        brush.polygon(on_side(window), glass.tint(0.9 + 0.3 * shade))
    for axle in body.wheels:
        for radius, paint in ((body.radius, tyre), (0.55 * body.radius, Paint(0.5, 0.5, 0.52, heat["wheel"] - 0.08))):
            angles = np.linspace(0, 2 * math.pi, 14, endpoint=False)
            rim = tuple((axle + radius * math.cos(a), body.radius + radius * math.sin(a)) for a in angles)
            brush.polygon(on_side(rim, 0.01), paint)


def _lights(
    brush: Brush, camera: Camera, body: Body, place: Spot, seen: Container[int], lights: bool, heat: float
) -> list[tuple[Point, bool]]:
    found = []
    half = body.width / 2
    for number, is_front in ((body.rear, False), (body.front, True)):
        if number not in seen:
            continue
        (u1, y1), (u2, y2) = body.outline[number : number + 2]
        low, high = (0.25, 0.75) if y2 - y1 < 0.6 or y1 - y2 > 0.1 else (0.06, 0.16)
        for side in (-1, 1):
            corners = [
                place(u1 + (u2 - u1) * t, side * half * v, y1 + (y2 - y1) * t)
                for t, v in ((low, 0.58), (high, 0.58), (high, 0.96), (low, 0.96))
            ]
            if is_front:
                paint = Paint(1.0, 0.97, 0.88, heat, 1.0 if lights else 0.0)
            else:
                paint = Paint(0.95 if lights else 0.55, 0.08, 0.06, heat - 0.2, 0.8 if lights else 0.0)
            points = camera.pixels(corners)
            brush.polygon(points, paint)
            if lights:
                found.append(((sum(p[0] for p in points) / 4, sum(p[1] for p in points) / 4), is_front))
        t = 0.3 if y2 - y1 < 0.6 else 0.1
        plate = [
            place(u1 + (u2 - u1) * s, v, y1 + (y2 - y1) * s)
            for s, v in ((t - 0.1, -0.24), (t + 0.1, -0.24), (t + 0.1, 0.24), (t - 0.1, 0.24))
        ]
        brush.polygon(camera.pixels(plate), Paint(0.82, 0.82, 0.76, heat - 0.15))
    return found


def _shade(normal: np.ndarray, night: bool) -> float:
    return 0.75 + 0.25 * float(normal[1]) if night else 0.6 + 0.45 * max(0.0, float(normal @ _SUN))
