"""The empty street: sky, houses or trees on both sides, road, pavements and markings."""

from dataclasses import dataclass

import numpy as np

from scanfuse.data.synthetic._road_brush import Brush, Camera, Layer, Paint, smooth

__all__ = ["Street", "draw_street", "paint_street"]

FAR = 90.0
NEAREST = 2.0
"""Metres to where the street and to where its houses end."""

_WALLS = (
    (0.62, 0.50, 0.42), (0.72, 0.68, 0.60), (0.55, 0.56, 0.58), (0.66, 0.42, 0.34), (0.80, 0.76, 0.70),
    (0.46, 0.50, 0.55), (0.70, 0.60, 0.44), (0.52, 0.44, 0.40),
)  # fmt: skip
_LEAVES = ((0.20, 0.34, 0.16), (0.26, 0.40, 0.18), (0.16, 0.28, 0.14), (0.38, 0.36, 0.16))


@dataclass(frozen=True)
class Street:
    """What stays the same in all frames of a scene.

    Attributes:
        night: dark sky, lamps.
        seed: of everything painted here.
        road: half the width of the carriageway in metres.
        walls: distance of the houses or trees from the middle, left and right.
        kinds: "houses" or "trees", left and right.
        posts: lamp posts, (X, Z) each.
        light: daylight, or at night the light that is everywhere; 0 to 1.
    """

    night: bool
    seed: int
    road: float
    walls: tuple[float, float]
    kinds: tuple[str, str]
    posts: tuple[tuple[float, float], ...]
    light: float


def draw_street(random: np.random.Generator, night: bool) -> Street:
    """One street."""
    road = float(random.uniform(3.2, 4.6))
    kinds = [str(random.choice(["houses", "trees"], p=[0.6, 0.4])) for _ in range(2)]
    walls = (road + float(random.uniform(2.2, 5.0)), road + float(random.uniform(2.2, 5.0)))
    side = float(random.choice([-1, 1]))
    first, step = float(random.uniform(7, 13)), float(random.uniform(9, 14))
    posts = tuple((side * (road + 0.7), first + step * number) for number in range(4))
    light = float(random.uniform(0.05, 0.15)) if night else float(random.uniform(0.75, 1.05))
    return Street(night, int(random.integers(2**31)), road, walls, (kinds[0], kinds[1]), posts, light)


def paint_street(street: Street, camera: Camera, fine: int) -> Layer:
    """The street without people and vehicles, colours as in full light."""
    random = np.random.default_rng(street.seed)
    brush = Brush((0, 0, camera.width, camera.height), fine)
    _sky(brush, camera, street, random)
    _skyline(brush, camera, street, random)
    _ground(brush, camera, street, random)
    for side, wall, kind in zip((-1, 1), street.walls, street.kinds, strict=True):
        (_houses if kind == "houses" else _trees)(brush, camera, street, random, side, wall)
    return _weathered(brush.layer(), camera, street, random)


def _sky(brush: Brush, camera: Camera, street: Street, random: np.random.Generator) -> None:
    low = np.array([(0.74, 0.82, 0.92), (0.78, 0.80, 0.82), (0.88, 0.80, 0.70)][int(random.integers(3))])
    high = np.array([(0.36, 0.55, 0.86), (0.62, 0.66, 0.70), (0.50, 0.60, 0.80)][int(random.integers(3))])
    bands = 14
    for band in range(bands):
        share = (band + 0.5) / bands
        colour = high + (low - high) * share
        heat = (0.03 + 0.05 * share) if street.night else (0.14 + 0.10 * share)
        top, bottom = camera.horizon * band / bands, camera.horizon * (band + 1) / bands + 1
        brush.rectangle(0, top, camera.width, bottom, Paint.of(colour, heat))
    if not street.night:
        for _ in range(int(random.integers(0, 5))):
            x, y = random.uniform(0, camera.width), random.uniform(0, 0.6) * camera.horizon
            for _ in range(5):
                across, down = random.uniform(0.03, 0.10) * camera.width, random.uniform(0.015, 0.04) * camera.height
                shift = random.uniform(-0.1, 0.1) * camera.width
                brush.disc(x + shift, y + random.normal(0, 0.4) * down, across, down, Paint(0.92, 0.93, 0.95, 0.24))


def _skyline(brush: Brush, camera: Camera, street: Street, random: np.random.Generator) -> None:
    """Far houses and tree tops above the horizon."""
    x = -0.02 * camera.width
    while x < camera.width:
        wide = random.uniform(0.03, 0.10) * camera.width
        tall = random.uniform(0.02, 0.16) * camera.height
        grey = random.uniform(0.45, 0.62)
        heat = 0.20 if street.night else 0.36
        if random.random() < 0.6:
            brush.rectangle(
                x, camera.horizon - tall, x + wide, camera.horizon + 1, Paint(grey, grey, grey * 1.05, heat)
            )
        else:
            tops = Paint(grey * 0.6, grey * 0.72, grey * 0.6, heat)
            brush.disc(x + wide / 2, camera.horizon, wide * 0.7, tall * 0.6, tops)
        x += wide * random.uniform(0.6, 1.1)


def _ground(brush: Brush, camera: Camera, street: Street, random: np.random.Generator) -> None:
    night, road = street.night, street.road
    grass = Paint(0.34, 0.40, 0.22, 0.24 if night else 0.46)
    pavement = Paint.of((random.uniform(0.46, 0.62) * np.array([1.0, 0.97, 0.92])), 0.30 if night else 0.54)
    tar = random.uniform(0.26, 0.40)
    asphalt = Paint(tar, tar, tar * 1.03, 0.26 if night else 0.60)
    brush.rectangle(0, camera.horizon, camera.width, camera.height, grass)
    for side, wall in zip((-1, 1), street.walls, strict=True):
        _strip(brush, camera, side * road, side * (wall + 2), pavement)
    _strip(brush, camera, -road, road, asphalt)
    for side in (-1, 1):
        _strip(brush, camera, side * road, side * (road + 0.22), Paint(0.70, 0.70, 0.68, pavement.heat + 0.03))
    for _ in range(int(random.integers(1, 5))):  # mended tar
        x, z = random.uniform(-road, road), random.uniform(3, 25)
        half, long = random.uniform(0.3, 1.0), random.uniform(1, 5)
        low = max(-road, x - half)
        _quad(brush, camera, low, min(road, x + half), z, z + long, asphalt.tint(random.uniform(0.75, 1.2)))
    white = Paint(0.85, 0.85, 0.82, asphalt.heat - 0.04)
    for z in np.arange(1.0, FAR, 5.0):
        _quad(brush, camera, -0.07, 0.07, z, z + 2.5, white)
    for side in (-1, 1):
        _quad(brush, camera, side * (road - 0.35), side * (road - 0.22), 0.8, FAR, white)
    if random.random() < 0.4:
        z = random.uniform(5, 14)
        for x in np.arange(-road + 0.5, road - 0.3, 1.0):
            _quad(brush, camera, x, x + 0.5, z, z + 2.6, white)
    for _ in range(int(random.integers(0, 3))):  # a manhole, warm at night
        x, z = random.uniform(-road, road) * 0.8, random.uniform(4, 18)
        place = camera.pixel(x, 0, z)
        across = camera.focal * 0.35 / z
        cover = Paint(0.22, 0.21, 0.20, 0.48 if night else 0.66)
        brush.disc(*place, across, across * camera.eye / z, cover)


def _houses(
    brush: Brush, camera: Camera, street: Street, random: np.random.Generator, side: int, wall: float
) -> None:
    z = FAR
    while z > 1.0:  # far ones first, near ones cover them
        deep = random.uniform(7, 16)
        near = max(z - deep, NEAREST)
        floors = int(random.integers(2, 6))
        tall = 3.1 * floors + random.uniform(0.3, 1.6)
        colour = np.array(_WALLS[int(random.integers(len(_WALLS)))]) * random.uniform(0.8, 1.1)
        heat = random.uniform(0.28, 0.38) if street.night else random.uniform(0.40, 0.58)
        paint = Paint.of(colour, heat)
        x = side * wall
        brush.polygon(camera.pixels([(x, 0, near), (x, tall, near), (x, tall, z), (x, 0, z)]), paint)
        brush.polygon(  # the end wall, which faces the camera
            camera.pixels([(x, 0, near), (x, tall, near), (x + side * 9, tall, near), (x + side * 9, 0, near)]),
            paint.tint(0.82, heat - 0.03),
        )
        brush.polygon(  # cornice
            camera.pixels([(x, tall, near), (x, tall + 0.35, near), (x, tall + 0.35, z), (x, tall, z)]),
            paint.tint(0.6, heat - 0.06),
        )
        _windows(brush, camera, street, random, x, near, z, floors)
        z = near if near > NEAREST else 0.0


def _windows(
    brush: Brush, camera: Camera, street: Street, random: np.random.Generator, x: float, near: float, far: float,
    floors: int,
) -> None:  # fmt: skip
    step = random.uniform(2.2, 3.2)
    shop = random.random() < 0.4
    for floor in range(floors):
        low = 0.9 + 3.1 * floor
        high = low + random.uniform(1.3, 1.7)
        if floor == 0 and shop:
            low, high = 0.4, 2.7
        for z in np.arange(far - 0.6, near + 1.2, -step):
            if camera.focal * 1.0 * abs(x) / z**2 < 0.5:
                continue  # less than half a pixel wide
            lit = street.night and random.random() < (0.8 if floor == 0 and shop else 0.22)
            if lit:
                glass = Paint(1.0, 0.86, 0.58, 0.44, random.uniform(0.5, 0.95))
            else:
                grey = random.uniform(0.16, 0.34)
                glass = Paint(grey * 0.9, grey, grey * 1.15, 0.25 if street.night else 0.33)
            end = max(z - step * (0.8 if floor == 0 and shop else 0.5), near)
            brush.polygon(camera.pixels([(x, low, z), (x, high, z), (x, high, end), (x, low, end)]), glass)


def _trees(brush: Brush, camera: Camera, street: Street, random: np.random.Generator, side: int, wall: float) -> None:
    colour = np.array(_LEAVES[int(random.integers(len(_LEAVES)))])
    heat = random.uniform(0.27, 0.33) if street.night else random.uniform(0.34, 0.42)
    hedge = bool(random.random() < 0.6)
    for z in np.geomspace(FAR, 3.0, 16) * random.uniform(0.92, 1.08, 16):
        x = side * (wall + random.uniform(0.0, 2.5))
        tall = random.uniform(5, 10)
        foot, crown = camera.pixel(x, 0, z), camera.pixel(x, tall, z)
        scale = camera.focal / z
        bark = Paint(0.28, 0.22, 0.16, heat + 0.03)
        brush.limb(foot, (foot[0], (foot[1] + crown[1]) / 2), 0.18 * scale, 0.12 * scale, bark)
        for _ in range(14 if z < 30 else 6):
            shade = random.uniform(0.6, 1.35)
            dx, dy = random.normal(0, 0.17, 2) * tall * scale
            radius = random.uniform(0.10, 0.22) * tall * scale
            middle = crown[1] + 0.28 * tall * scale
            leaf = Paint.of((colour * shade), heat + random.normal(0, 0.012))
            brush.disc(foot[0] + dx, middle + 0.8 * dy, radius, 0.8 * radius, leaf)
        if hedge:
            for _ in range(6):
                dx, up = random.normal(0, 0.9) * scale, random.uniform(0.2, 1.0) * scale
                radius = random.uniform(0.35, 0.6) * scale
                leaf = Paint.of((colour * random.uniform(0.5, 1.2)), heat + random.normal(0, 0.012))
                brush.disc(foot[0] + dx, foot[1] - up, radius, 0.8 * radius, leaf)


def _weathered(layer: Layer, camera: Camera, street: Street, random: np.random.Generator) -> Layer:
    """Patches, grain and grime, and haze at the horizon."""
    shape = layer.heat.shape
    rows = np.arange(shape[0], dtype=np.float32)[:, None]
    below = np.clip((rows - camera.horizon) / shape[0] * 6, 0, 1)
    grain = 0.05 * smooth(random, shape, 0.04 * shape[1]) + 0.035 * smooth(random, shape, 1)
    colour = layer.colour * (1 + grain * (0.25 + 0.75 * below))[..., None]
    haze = np.exp(-np.abs(rows - camera.horizon) / (0.03 * shape[0])) * (0.05 if street.night else 0.3)
    colour += haze[..., None] * (0.75 - colour)
    heat = layer.heat + 0.012 * smooth(random, shape, 0.08 * shape[1]) + 0.010 * below * smooth(random, shape, 2)
    # Near ground is seen less slanted and so gives away more of its heat.
    heat += 0.05 * below * np.clip((rows - camera.horizon) / (shape[0] - camera.horizon), 0, 1)
    return Layer(colour, heat, layer.glow, layer.cover)


def _strip(brush: Brush, camera: Camera, left: float, right: float, paint: Paint) -> None:
    _quad(brush, camera, left, right, 0.7, FAR, paint)


def _quad(brush: Brush, camera: Camera, left: float, right: float, near: float, far: float, paint: Paint) -> None:
    brush.polygon(camera.pixels([(left, 0, near), (left, 0, far), (right, 0, far), (right, 0, near)]), paint)
