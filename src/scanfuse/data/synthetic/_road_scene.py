"""What is in a made-up street: people, vehicles and clutter, where they stand, and which sensor can show them.

Everything is drawn once for a scene; `_road` moves and paints it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scanfuse.data.synthetic._road_brush import Camera
from scanfuse.data.synthetic._road_street import Street, draw_street

__all__ = ["HIDDEN", "KINDS", "SHARES", "Edges", "Scene", "Thing", "covered", "draw_scene", "outline", "veil_of"]

Edges = tuple[float, float, float, float]

SHARES = {"both": 0.4, "rgb": 0.3, "ir": 0.3}
"""Which sensors show an object, and how often."""
HIDDEN = 0.04
"""Largest share of its contrast that an object keeps in the sensor that does not show it."""
MIN_HEIGHT = 0.085
MIN_PIXELS = 6.0
"""Height of an object's box: as a share of the picture's, and in pixels; smaller ones are not put into the street."""

_WEIGHTS = {"person": 5.0, "car": 3.5, "bicycle": 2.5, "bus": 1.2, "truck": 1.2, "motorcycle": 1.6, "dog": 0.4}
KINDS = (*_WEIGHTS, "lamp")
_CLUTTER = ("bin", "bollard", "sign", "cabinet")
_METRES = {  # width, length, height
    "person": (0.62, 0.4, 1.75), "bicycle": (1.8, 0.4, 1.1), "motorcycle": (2.0, 0.5, 1.15), "dog": (1.2, 0.3, 0.75),
    "car": (1.8, 4.25, 1.6), "bus": (2.5, 10.1, 3.0), "truck": (2.3, 7.2, 3.2), "lamp": (0.85, 0.5, 0.9),
    "bin": (0.6, 0.6, 1.0), "bollard": (0.3, 0.3, 0.9), "sign": (0.7, 0.1, 2.4), "cabinet": (1.0, 0.5, 1.3),
    "decoy": (0.9, 0.4, 1.75),
}  # fmt: skip
_SHARES_OF_HEIGHT = {  # of the picture's height, smallest and largest
    "person": (0.15, 0.60), "bicycle": (0.12, 0.38), "motorcycle": (0.13, 0.40), "dog": (0.10, 0.25),
    "car": (0.13, 0.42), "bus": (0.24, 0.62), "truck": (0.24, 0.62), "decoy": (0.15, 0.45),
}  # fmt: skip
_LAMP_FOOT = 4.25
_TRIES = 40
_VEHICLES = ("car", "bus", "truck")
_GRID = (np.arange(8) + 0.5) / 8


@dataclass(frozen=True)
class Thing:
    """One thing in the street, at the first frame.

    Attributes:
        kind: of KINDS, or clutter without a box ("bin", "decoy", ...).
        shown: "both", "rgb" or "ir".
        cause: why not both: "", "dark", "mist", "glass", "cold".
        x, z: metres right of and ahead of the camera.
        speed: metres per frame in X and Z.
        yaw: heading, 0 away from the camera; for two-wheelers the angle by which they are seen shortened.
        ridden: a two-wheeler with a rider, who is a person with a box of their own and shown alike.
        driving: warm wheels, and lights at night.
        trace: share of its contrast in the sensor that does not show it.
        lit: light that falls on it, where RGB shows it.
        seed: of its looks.
    """

    kind: str
    x: float
    z: float
    shown: str = "both"
    cause: str = ""
    speed: tuple[float, float] = (0.0, 0.0)
    yaw: float = 0.0
    ridden: bool = False
    driving: bool = False
    trace: float = 0.0
    lit: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """A street, a camera, and what is in front of it.

    Attributes:
        drift: turn of the camera from frame to frame, as a share of the picture's width.
        seed, number: of the scene; all noise comes from them.
    """

    street: Street
    camera: Camera
    seed: int
    number: int
    drift: float = 0.0
    things: tuple[Thing, ...] = ()


def draw_scene(number: int, *, size: tuple[int, int], seed: int, classes: Sequence[str], night: bool | None) -> Scene:
    """A street and things that can all be seen in its first frame."""
    random = np.random.default_rng([seed, number])
    by_chance = bool(random.random() < 0.5)
    street = draw_street(random, by_chance if night is None else night)
    height, width = size
    raised = random.random() < 0.25  # a camera on a wall, as in LLVIP, instead of on a car
    camera = Camera(
        width,
        height,
        focal=0.95 * math.sqrt(width * height),
        centre=width * float(random.uniform(0.42, 0.58)),
        horizon=height * float(random.uniform(0.24, 0.34) if raised else random.uniform(0.36, 0.48)),
        eye=float(random.uniform(2.6, 4.0) if raised else random.uniform(1.4, 2.0)),
    )
    things = _Things(camera)
    for x, z in street.posts:
        lamp = Thing("lamp", x, z, lit=_light(street, random), seed=int(random.integers(2**31)))
        if "lamp" in classes:
            things.add([_shown(lamp, street, random)])
        else:
            things.add([lamp], small=True)
    kinds = [name for name in classes if name in _WEIGHTS]
    weights = np.array([_WEIGHTS[name] for name in kinds])
    states = []
    for _ in range(int(random.integers(3, 8)) if kinds else 0):
        kind = str(random.choice(kinds, p=weights / weights.sum()))
        ridden = kind in ("bicycle", "motorcycle") and random.random() < 0.45
        states.append(_shown(Thing(kind, 0, 0, ridden=ridden, driving=ridden), street, random))
    # What shows a thing is drawn before its place, and what needs most room comes first, or the shares would suffer.
    for state in sorted(states, key=lambda one: ("mist", "glass", "dark", "cold", "").index(one.cause)):
        things.add(_placed(state, street, camera, random) for _ in range(_TRIES))
    for _ in range(int(random.integers(0, 3))):  # veils, panes and pools of light where nobody is
        cause = str(random.choice(["dark" if street.night else "mist", "glass"]))
        decoy = Thing("decoy", 0, 0, cause=cause, seed=int(random.integers(2**31)))
        things.add(_placed(decoy, street, camera, random) for _ in range(_TRIES // 4))
    for _ in range(int(random.integers(1, 5))):
        side = float(random.choice([-1, 1]))
        x, z = side * (street.road + float(random.uniform(0.3, 2.0))), float(random.uniform(5, 25))
        kind = str(random.choice(_CLUTTER))
        things.add([Thing(kind, x, z, lit=_light(street, random), seed=int(random.integers(2**31)))], small=True)
    return Scene(street, camera, seed, number, float(random.normal(0, 0.006)), tuple(things.found))


def outline(thing: Thing, camera: Camera) -> Edges:
    """About where a thing is seen: left, top, right, bottom in pixels, not cut."""
    wide, long, tall = _METRES[thing.kind]
    foot = _LAMP_FOOT if thing.kind == "lamp" else 0.0
    if thing.ridden:
        tall = 1.75
    if thing.kind not in _VEHICLES:
        half = wide / 2 * (abs(math.cos(thing.yaw)) if thing.yaw else 1.0)
        left, top = camera.pixel(thing.x - half, foot + tall, thing.z)
        right, bottom = camera.pixel(thing.x + half, foot, thing.z)
        return left, top, right, bottom
    sin, cos = math.sin(thing.yaw), math.cos(thing.yaw)
    corners = [
        camera.pixel(thing.x + u * sin + v * cos, y, thing.z + u * cos - v * sin)
        for u in (-long / 2, long / 2)
        for v in (-wide / 2, wide / 2)
        for y in (0.0, tall)
    ]
    columns, rows = [corner[0] for corner in corners], [corner[1] for corner in corners]
    return min(columns), min(rows), max(columns), max(rows)


def veil_of(thing: Thing, box: Edges) -> Edges:
    """The steam, shade or pane that hides a thing: larger and not centred, so that it does not give the box away."""
    if thing.cause not in ("mist", "glass"):
        return box
    draws = np.random.default_rng([thing.seed, 1]).random(4)
    left, top, right, bottom = box
    wide, tall = right - left, bottom - top
    if thing.cause == "glass":  # from the ground up, as wide as a bus shelter
        more = max(0.25 * wide, 0.55 * tall)
        return (
            left - more * (0.2 + draws[0]),
            top - tall * (0.06 + 0.25 * draws[1]),
            right + more * (0.2 + draws[2]),
            bottom + 1,
        )
    across, down = max(0.3 * wide, 0.2 * tall), 0.22 * tall
    return (
        left - across * (1 + 1.5 * draws[0]) - 2,
        top - down * (1 + draws[1]) - 2,
        right + across * (1 + 1.5 * draws[2]) + 2,
        bottom + down * (0.7 + 0.5 * draws[3]) + 2,
    )


def covered(box: Edges, others: Iterable[Edges]) -> float:
    """Share of a box that is covered by others, counted on a grid of 8 x 8 places."""
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return 0.0
    hit = None
    for other in others:
        if other[2] <= left or other[0] >= right or other[3] <= top or other[1] >= bottom:
            continue
        if hit is None:
            x, y = left + _GRID * (right - left), top + _GRID * (bottom - top)
            hit = np.zeros((8, 8), bool)
        hit |= ((y > other[1]) & (y < other[3]))[:, None] & ((x > other[0]) & (x < other[2]))[None, :]
    return 0.0 if hit is None else float(hit.mean())


class _Things:
    """What is in the street so far; a new thing must be seen and leave the others visible."""

    def __init__(self, camera: Camera) -> None:
        self.found: list[Thing] = []
        self._camera = camera
        self._boxes: list[Edges] = []
        self._veils: list[Edges] = []

    def add(self, tries: Iterable[Thing], *, small: bool = False) -> None:
        """Adds the first that fits; `small` allows things that are too small, or too far aside, for a box."""
        for thing in tries:
            box = outline(thing, self._camera)
            veil = veil_of(thing, box)
            if self._can_be_seen(thing, box, small) and self._leaves_visible(thing, box, veil):
                self.found.append(thing)
                self._boxes.append(box)
                self._veils.append(veil)
                return

    def _can_be_seen(self, thing: Thing, box: Edges, small: bool) -> bool:
        left, top, right, bottom = box
        width, height = self._camera.width, self._camera.height
        wide, tall = right - left, bottom - top
        if thing.z - _METRES[thing.kind][1] / 2 < 2.0 or tall > 0.85 * height or wide > 0.75 * width:
            return False
        if not small and tall < max(MIN_HEIGHT * height, MIN_PIXELS):
            return False
        inside = max(0.0, min(right, width) - max(left, 0)) * max(0.0, min(bottom, height) - max(top, 0))
        return inside >= (0.01 if small else 0.7) * wide * tall

    def _leaves_visible(self, thing: Thing, box: Edges, veil: Edges) -> bool:
        others = list(zip(self.found, self._boxes, self._veils, strict=True))
        if covered(box, (other[2] for other in others if other[0].z < thing.z)) > _allowed(thing):
            return False
        for one, its_box, _ in others:
            if one.z > thing.z and covered(its_box, [veil]) > 0:
                before = [other[2] for other in others if other[0].z < one.z]
                if covered(its_box, [*before, veil]) > _allowed(one):
                    return False
        return True


def _allowed(thing: Thing) -> float:
    """Which share of a thing others may cover: little where only one sensor shows it."""
    if thing.kind in _CLUTTER or thing.kind == "decoy":
        return 1.0
    return 0.45 if thing.shown == "both" else 0.12


def _placed(thing: Thing, street: Street, camera: Camera, random: np.random.Generator) -> Thing:
    """The thing with a place and a movement, anywhere in view."""
    low, high = _SHARES_OF_HEIGHT[thing.kind]
    share = math.exp(random.uniform(math.log(low), math.log(high)))
    _, long, tall = _METRES[thing.kind]
    z = camera.focal * tall / (share * camera.height)
    x = (float(random.uniform(0.05, 0.95)) * camera.width - camera.centre) * z / camera.focal
    if thing.kind in ("person", "dog"):
        angle, pace = float(random.uniform(0, 2 * math.pi)), float(random.uniform(0.0, 0.5))
        return replace(thing, x=x, z=z, speed=(pace * math.cos(angle), pace * math.sin(angle)))
    if thing.kind in ("bicycle", "motorcycle"):
        yaw = float(random.choice([0.0, math.pi])) + float(random.uniform(-1.0, 1.0))
        speed = (0.5 * math.cos(yaw), 0.5 * math.sin(yaw)) if thing.ridden else (0.0, 0.0)
        return replace(thing, x=x, z=z, yaw=yaw, speed=speed)
    if thing.kind not in _VEHICLES:
        return replace(thing, x=x, z=z)
    z += long / 2
    where, lane = float(random.random()), 0.5 * street.road + float(random.normal(0, 0.3))
    step, side = float(random.uniform(0.5, 1.5)), float(random.choice([-1, 1]))
    turn = float(random.normal(0, 0.05))
    if where < 0.3:
        return replace(thing, x=lane, z=z, yaw=turn, speed=(0.0, step), driving=True)
    if where < 0.6:
        return replace(thing, x=-lane, z=z, yaw=math.pi + turn, speed=(0.0, -step), driving=True)
    if where < 0.72:  # across the street
        return replace(
            thing, x=x, z=z + 3.0, yaw=side * (math.pi / 2 + 2 * turn), speed=(side * step, 0.0), driving=True
        )
    parked = side * (street.road - 0.6)
    return replace(thing, x=parked, z=z, yaw=float(random.choice([0.0, math.pi])) + turn)


def _shown(thing: Thing, street: Street, random: np.random.Generator) -> Thing:
    """The thing with what shows it, by SHARES, and how that comes about."""
    shown = str(random.choice(list(SHARES), p=list(SHARES.values())))
    cause = ""
    if shown == "ir":
        cause = "dark" if street.night else "mist"
    elif shown == "rgb":
        cause = "glass" if thing.kind in ("person", "dog") or thing.ridden else "cold"
    return replace(
        thing,
        shown=shown,
        cause=cause,
        trace=float(random.uniform(0, HIDDEN)),
        lit=_light(street, random),
        seed=int(random.integers(2**31)),
    )


def _light(street: Street, random: np.random.Generator) -> float:
    return float(random.uniform(0.6, 0.95)) if street.night else street.light * float(random.uniform(0.85, 1.05))
