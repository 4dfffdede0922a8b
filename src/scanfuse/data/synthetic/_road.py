"""Made-up road scenes seen by an RGB and a thermal camera, with boxes; nobody and nothing in them exists.

A scene is a street by day or by night with people and vehicles that move from frame to frame. Which sensor can show
an object is drawn for the object, once for all frames, and then brought about:

    share  clear in   by day                                    by night
    0.4    both
    0.3    RGB only   people and dogs behind a pane of glass, the others no warmer than what is behind them
    0.3    IR only    behind steam, smoke or glare              in the dark

So a detector that sees RGB alone, or infrared alone, can find 70 % of the objects at best, and one that uses both
can find all. In the sensor that does not show it an object leaves at most 4 % of its contrast. Panes, veils and
pools of light are also where no object is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image

from scanfuse.data.boxes import Boxes
from scanfuse.data.synthetic import _road_people as people
from scanfuse.data.synthetic._road_brush import Brush, Camera, Paint
from scanfuse.data.synthetic._road_scene import (
    HIDDEN,
    KINDS,
    SHARES,
    Edges,
    Scene,
    Thing,
    covered,
    draw_scene,
    outline,
    veil_of,
)
from scanfuse.data.synthetic._road_sensors import (
    View,
    cover_glass,
    cover_mist,
    glare,
    lay,
    lit_street,
    see_heat,
    see_light,
)
from scanfuse.data.synthetic._road_street import Street, paint_street
from scanfuse.data.synthetic._road_vehicles import BODIES, paint_vehicle
from scanfuse.errors import UserError

__all__ = ["HIDDEN", "KINDS", "SHARES", "Frame", "draw_scene", "paint_frame", "render"]

MAX_SHIFT = 16.0
_SEEN = 0.45
"""An object of which less than this can be seen has gone from that frame."""
_PAINTERS = {
    "person": people.paint_person,
    "bicycle": people.paint_bicycle,
    "motorcycle": people.paint_motorcycle,
    "dog": people.paint_dog,
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One moment of a scene through both cameras.

    Attributes:
        rgb: uint8 (h, w, 3).
        ir: uint8 or uint16 (h, w).
        boxes: around the whole objects, hidden parts included, cut to the picture; whole pixels of `rgb`.
        shown: for each box "both", "rgb" or "ir".
        cause: for each box why it is not shown in both ("dark", "mist", "glass", "cold"), or "".
        night: night or day.
        shift: columns and rows by which the infrared picture is shifted against `rgb` (right and down positive).
    """

    rgb: np.ndarray
    ir: np.ndarray
    boxes: Boxes
    shown: tuple[str, ...]
    cause: tuple[str, ...]
    night: bool
    shift: tuple[float, float]


def render(
    number: int,
    *,
    frames: int = 1,
    size: tuple[int, int] = (128, 160),
    seed: int = 0,
    classes: Sequence[str] = ("person", "car", "bicycle"),
    night: bool | None = None,
    misalign: float = 0.0,
    bits: int = 8,
) -> list[Frame]:
    """The frames of scene `number`.

    Args:
        number: of the scene, which depends on it and on `seed`, `size`, `classes` and `night` alone.
        frames: 1 or more.
        size: height and width, 48 to 1280 each.
        seed: of everything.
        classes: of KINDS, in the order of the labels.
        night: None: half of the scenes, by chance.
        misalign: the infrared picture is shifted by up to so many pixels in each direction, the same in all frames.
        bits: 8, as a camera fits it to the scene, or 16: counts.

    Raises:
        UserError: a number out of range or an unknown class.
    """
    if (
        not all(48 <= side <= 1280 for side in size)
        or frames < 1
        or bits not in (8, 16)
        or not 0 <= misalign <= MAX_SHIFT
    ):
        raise UserError(
            "Road scenes need sides of 48 to 1280 pixels, one frame or more, 8 or 16 bits and a misalignment of 0 to "
            f"{MAX_SHIFT:g} pixels; got {size[1]} x {size[0]}, {frames}, {bits} and {misalign:g}."
        )
    unknown = [name for name in classes if name not in KINDS]
    if unknown or not classes or len(set(classes)) < len(classes):
        raise UserError(f"Name different classes of {', '.join(KINDS)}; got {', '.join(classes) or 'none'}.")
    scene = draw_scene(number, size=size, seed=seed, classes=classes, night=night)
    return [paint_frame(scene, frame, classes=classes, misalign=misalign, bits=bits) for frame in range(frames)]


def paint_frame(scene: Scene, frame: int, *, classes: Sequence[str], misalign: float = 0.0, bits: int = 8) -> Frame:
    """One frame. The street, the noise and every thing are painted from random streams of their own.

    So a scene without one of its things gives the same picture but for that thing (and its light).
    """
    margin = math.ceil(misalign) + 1 if misalign else 0
    width, height = scene.camera.width, scene.camera.height
    camera = replace(
        scene.camera,
        width=width + 2 * margin,
        height=height + 2 * margin,
        centre=scene.camera.centre + margin + frame * scene.drift * width,
        horizon=scene.camera.horizon + margin,
    )
    street = scene.street
    shared = np.random.default_rng([scene.seed, scene.number, 1])
    shot = np.random.default_rng([scene.seed, scene.number, 2, frame])
    fine = 3 if camera.width <= 210 else 2 if camera.width <= 720 else 1
    moved = [replace(thing, x=thing.x + frame * thing.speed[0], z=thing.z + frame * thing.speed[1])
             for thing in scene.things]  # fmt: skip
    moved.sort(key=lambda thing: -thing.z)
    view = lit_street(street, camera, paint_street(street, camera, fine), _pools(moved, street))
    picture = (margin, margin, margin + width, margin + height)
    nearer = [veil_of(thing, outline(thing, camera)) for thing in moved]
    found: list[tuple[str, Edges, Thing]] = []
    for place, thing in enumerate(moved):
        left, top, right, bottom = outline(thing, camera)
        # Of what lies in the picture: the rest is not seen anyway.
        inside = (max(left, picture[0]), max(top, picture[1]), min(right, picture[2]), min(bottom, picture[3]))
        if thing.kind in classes and covered(inside, nearer[place + 1 :]) > 1 - _SEEN:
            continue
        found += [(*entry, thing) for entry in _put(view, thing, camera, street, fine, frame, picture, classes)]
    rgb = see_light(view, street, shared, shot=shot)
    ir = see_heat(view, street, shared, shot=shot, bits=bits)
    right, down = (float(value) for value in shared.uniform(-misalign, misalign, 2))
    boxes = Boxes.of(
        [[edge - margin for edge in box] for _, box, _ in found],
        [list(classes).index(kind) for kind, _, _ in found],
        classes,
    )
    inner = (slice(margin, margin + height), slice(margin, margin + width))
    return Frame(
        np.ascontiguousarray(rgb[inner]),
        _shifted(ir, right, down, margin) if misalign else ir,
        boxes,
        tuple(thing.shown for _, _, thing in found),
        tuple(thing.cause for _, _, thing in found),
        street.night,
        (right, down),
    )


def _put(
    view: View,
    thing: Thing,
    camera: Camera,
    street: Street,
    fine: int,
    frame: int,
    picture: tuple[int, int, int, int],
    classes: Sequence[str],
) -> list[tuple[str, Edges]]:
    """Paints one thing with its shadow, its veil and its lights; returns its boxes (two with a rider)."""
    left, top, right, bottom = outline(thing, camera)
    across, down = 0.25 * (right - left) + 3, 0.2 * (bottom - top) + 3
    part = (
        max(0, math.floor(left - across)),
        max(0, math.floor(top - down)),
        min(camera.width, math.ceil(right + across)),
        min(camera.height, math.ceil(bottom + down)),
    )
    if part[2] - part[0] < 2 or part[3] - part[1] < 2 or thing.z - 0.5 < 1.2:
        return []
    if thing.kind == "decoy":
        _veil(view, thing, (left, top, right, bottom), street)
        return []
    night, look = street.night, np.random.default_rng(thing.seed)
    in_light = thing.trace if thing.cause == "dark" else 1.0
    in_heat = thing.trace if thing.cause == "cold" else 1.0
    if thing.kind != "lamp" and in_light == 1.0:
        _shadow(view, thing, camera, street, part, fine)
    brushes: list[tuple[str, Brush]] = [(thing.kind, Brush(part, fine))]
    brush = brushes[0][1]
    lights: list[tuple[tuple[float, float], bool]] = []
    place = {"x": thing.x, "z": thing.z}
    on = night and thing.shown != "ir"
    if thing.kind in BODIES:
        body = BODIES[thing.kind][int(look.integers(len(BODIES[thing.kind])))]
        lights = paint_vehicle(
            brush, camera, body, **place, yaw=thing.yaw, look=look, night=night, driving=thing.driving,
            lights=on and thing.driving,
        )  # fmt: skip
    elif thing.kind == "lamp":
        post = Brush((part[0], part[1], part[2], camera.height), fine)
        people.paint_post(post, camera, **place, night=night)
        lay(view, post.layer(), post.part, lit=thing.lit * 0.5, in_light=in_light, in_heat=in_heat)
        middle = people.paint_lamp(brush, camera, **place, look=look, night=night, lit=on)
        lights = [(middle, True)] if on else []
    elif thing.kind == "person":
        people.paint_person(brush, camera, **place, look=look, night=night, stride=1.1 * frame + thing.seed % 7)
    elif thing.kind == "dog":
        people.paint_dog(brush, camera, **place, look=look, night=night)
    elif thing.kind in ("bicycle", "motorcycle"):
        paint = people.paint_bicycle if thing.kind == "bicycle" else people.paint_motorcycle
        paint(brush, camera, **place, yaw=thing.yaw, look=look, night=night)
        if thing.ridden:
            rider = Brush(part, fine)
            people.paint_rider(rider, camera, **place, yaw=thing.yaw, look=look, night=night)
            brushes.append(("person", rider))
    else:
        _clutter(brush, camera, thing, look, night)
    found = []
    for kind, one in brushes:
        # Even black cloth shines a little in lamp light; without it, what RGB is to show at night could be invisible.
        sheen = 0.07 if night and thing.kind in KINDS else 0.0
        lay(view, one.layer(), part, lit=thing.lit, in_light=in_light, in_heat=in_heat, sheen=sheen)
        box = _cut(one.box(), picture)
        if kind in classes and box is not None:
            found.append((kind, box))
    if thing.cause in ("mist", "glass"):
        edges = np.array([box for _, box in found] or [(left, top, right, bottom)])
        low, high = edges[:, :2].min(axis=0), edges[:, 2:].max(axis=0)
        _veil(view, thing, (float(low[0]), float(low[1]), float(high[0]), float(high[1])), street)
    for middle, white in lights:
        size = 0.7 if thing.kind == "lamp" else 0.5 if white else 0.3
        colour = (1.0, 0.88, 0.66) if white else (1.0, 0.12, 0.08)
        glare(
            view,
            middle,
            radius=max(1.0, size * camera.focal / thing.z),
            strength=0.7 if white else 0.4,
            colour=colour,
        )
    return found


def _veil(view: View, thing: Thing, box: Edges, street: Street) -> None:
    random = np.random.default_rng([thing.seed, 2])
    if thing.cause == "mist":
        cover_mist(view, veil_of(thing, box), random)
    elif thing.cause == "glass":
        cover_glass(view, veil_of(thing, box), random, night=street.night)


def _shadow(
    view: View, thing: Thing, camera: Camera, street: Street, part: tuple[int, int, int, int], fine: int
) -> None:
    """Darkens the ground under a thing."""
    brush = Brush(part, fine)
    black = Paint(0.0, 0.0, 0.0, 0.0)
    if thing.kind in BODIES:
        wide, long = (1.9, 4.3) if thing.kind == "car" else (2.6, 8.5)
        sin, cos = math.sin(thing.yaw), math.cos(thing.yaw)
        corners = [
            (thing.x + u * sin + v * cos, 0.0, thing.z + u * cos - v * sin)
            for u, v in ((-long / 2, -wide / 2), (long / 2, -wide / 2), (long / 2, wide / 2), (-long / 2, wide / 2))
        ]
        brush.polygon(camera.pixels(corners), black)
    else:
        column, row = camera.pixel(thing.x, 0, thing.z)
        unit = camera.focal / thing.z
        across = (0.75 if thing.kind in ("bicycle", "motorcycle") else 0.34) * unit
        brush.disc(column, row, across, max(0.6, 0.12 * unit * camera.eye / 1.5 * 0.6), black)
    lay(view, brush.layer(), part, lit=1.0, in_light=0.35 if street.night else 0.5, in_heat=0.0)


def _clutter(brush: Brush, camera: Camera, thing: Thing, look: np.random.Generator, night: bool) -> None:
    """Bins, bollards, signs and cabinets: as warm as the street, a cabinet sometimes warmer."""
    column, row = camera.pixel(thing.x, 0, thing.z)
    unit = camera.focal / thing.z
    heat = float(look.uniform(0.22, 0.34) if night else look.uniform(0.44, 0.60))
    colour = look.uniform(0.15, 0.75, 3)
    if thing.kind == "sign":
        brush.rectangle(
            column - 0.03 * unit, row - 2.3 * unit, column + 0.03 * unit, row, Paint(0.5, 0.5, 0.52, heat)
        )
        brush.disc(column, row - 2.1 * unit, 0.32 * unit, 0.32 * unit, Paint(0.8, 0.15, 0.15, heat))
        brush.disc(column, row - 2.1 * unit, 0.22 * unit, 0.22 * unit, Paint(0.9, 0.9, 0.9, heat))
    elif thing.kind == "bollard":
        brush.limb(
            (column, row - 0.05 * unit), (column, row - 0.8 * unit), 0.08 * unit, 0.08 * unit, Paint.of(colour, heat)
        )
        band = Paint(0.9, 0.9, 0.88, heat)
        brush.rectangle(column - 0.08 * unit, row - 0.7 * unit, column + 0.08 * unit, row - 0.55 * unit, band)
    else:
        wide, tall = (0.28, 0.95) if thing.kind == "bin" else (0.48, 1.25)
        if thing.kind == "cabinet" and look.random() < 0.5:
            heat += 0.18
        brush.rectangle(column - wide * unit, row - tall * unit, column + wide * unit, row, Paint.of(colour, heat))
        lid = Paint.of(colour * 0.6, heat)
        brush.rectangle(
            column - (wide + 0.04) * unit,
            row - tall * unit,
            column + (wide + 0.04) * unit,
            row - (tall - 0.1) * unit,
            lid,
        )


def _pools(things: Sequence[Thing], street: Street) -> list[tuple[float, float, float]]:
    """X, Z and strength of the light on the ground at night: under lamps, around what is lit, and by itself."""
    if not street.night:
        return []
    pools = []
    for thing in things:
        if thing.kind == "lamp" and thing.shown != "ir":
            pools.append((thing.x, thing.z, 0.55))
        elif thing.kind == "decoy" and thing.cause == "dark":
            pools.append((thing.x, thing.z, 0.35))
        elif thing.kind in KINDS and thing.shown != "ir":
            pools.append((thing.x, thing.z, 0.3))
    return pools


def _cut(box: Edges | None, picture: tuple[int, int, int, int]) -> Edges | None:
    """A box in whole pixels inside the picture; None if less than 30 % of it, or hardly a pixel, is left there."""
    if box is None:
        return None
    left, top, right, bottom = (float(round(edge)) for edge in box)
    x1, y1, x2, y2 = max(left, picture[0]), max(top, picture[1]), min(right, picture[2]), min(bottom, picture[3])
    if x2 - x1 < 3 or y2 - y1 < 3 or (x2 - x1) * (y2 - y1) < 0.3 * (right - left) * (bottom - top):
        return None
    return x1, y1, x2, y2


def _shifted(ir: np.ndarray, right: float, down: float, margin: int) -> np.ndarray:
    """The picture inside a margin, its content moved right and down by fractions of a pixel."""
    height, width = ir.shape
    part = (margin - right, margin - down, width - margin - right, height - margin - down)
    image = PIL.Image.fromarray(ir.astype(np.float32))
    size = (width - 2 * margin, height - 2 * margin)
    moved = np.asarray(image.resize(size, PIL.Image.Resampling.BICUBIC, box=part))
    return np.asarray(np.rint(np.clip(moved, 0, np.iinfo(ir.dtype).max)), ir.dtype)
