"""A camera over a flat street, and a brush that paints colour and temperature in one stroke.

Places in the street are metres: X to the right, Y up from the road, Z ahead of the camera. Heat 0 is the coldest and
1 the warmest thing a street has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw
from scipy import ndimage

__all__ = ["Brush", "Camera", "Layer", "Paint", "Place", "Point", "smooth"]

NEAR = 0.6
"""Metres; nothing is painted nearer."""

Point = tuple[float, float]
"""Column and row in pixels of the picture."""
Place = tuple[float, float, float]
"""X, Y, Z in metres."""


class Paint(NamedTuple):
    """Colour in full light, heat, and the light that it gives itself; all 0 to 1."""

    red: float
    green: float
    blue: float
    heat: float
    glow: float = 0.0

    @classmethod
    def of(cls, colour: Iterable[float], heat: float, glow: float = 0.0) -> "Paint":
        """From three numbers as one."""
        red, green, blue = colour
        return cls(red, green, blue, heat, glow)

    def tint(self, light: float, heat: float | None = None) -> "Paint":
        """The same colour in other light, and if given with another heat."""
        warmth = self.heat if heat is None else heat
        return Paint(self.red * light, self.green * light, self.blue * light, warmth, self.glow)


@dataclass(frozen=True)
class Layer:
    """What a brush painted, averaged over pixels: colour (h, w, 3), the others (h, w); 0 where there is nothing."""

    colour: np.ndarray
    heat: np.ndarray
    glow: np.ndarray
    cover: np.ndarray


@dataclass(frozen=True)
class Camera:
    """A pinhole at height `eye` (metres) whose horizon is at row `horizon`; all other lengths in pixels."""

    width: int
    height: int
    focal: float
    centre: float
    horizon: float
    eye: float

    def pixel(self, x: float, y: float, z: float) -> Point:
        """Column and row of a place in the street."""
        z = max(z, NEAR)
        return self.centre + self.focal * x / z, self.horizon + self.focal * (self.eye - y) / z

    def pixels(self, places: Sequence[Place]) -> list[Point]:
        """The same for several."""
        return [self.pixel(*place) for place in places]


class Brush:
    """Paints on a part of the picture, several times finer than its pixels, and gives the part back averaged.

    Args:
        part: left, top, right, bottom in whole pixels of the picture.
        fine: fine pixels per pixel and direction.
    """

    def __init__(self, part: tuple[int, int, int, int], fine: int) -> None:
        self.part = part
        self._fine = fine
        size = ((part[2] - part[0]) * fine, (part[3] - part[1]) * fine)
        # CMYK only because it is four plain channels: PIL would treat the fourth of RGBA as opacity.
        self._images = [PIL.Image.new(mode, size) for mode in ("CMYK", "L", "L")]
        self._pens = [PIL.ImageDraw.Draw(image) for image in self._images]

    def polygon(self, points: Sequence[Point], paint: Paint) -> None:
        """A filled polygon."""
        places = [self._place(x, y) for x, y in points]
        for pen, fill in zip(self._pens, _fills(paint), strict=True):
            pen.polygon(places, fill=fill)

    def rectangle(self, left: float, top: float, right: float, bottom: float, paint: Paint) -> None:
        """A filled upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], paint)

    def disc(self, x: float, y: float, across: float, down: float, paint: Paint) -> None:
        """A filled ellipse of two radii."""
        left, top = self._place(x - across, y - down)
        right, bottom = self._place(x + across, y + down)
        for pen, fill in zip(self._pens, _fills(paint), strict=True):
            pen.ellipse((left, top, max(left, right), max(top, bottom)), fill=fill)

    def line(self, points: Sequence[Point], width: float, paint: Paint) -> None:
        """A polyline at least one fine pixel wide."""
        places = [self._place(x, y) for x, y in points]
        thick = max(1, round(width * self._fine))
        for pen, fill in zip(self._pens, _fills(paint), strict=True):
            pen.line(places, fill=fill, width=thick)

    def limb(self, start: Point, stop: Point, first: float, last: float, paint: Paint) -> None:
        """A stretch with round ends of two radii: an arm, a leg, a trunk."""
        dx, dy = stop[0] - start[0], stop[1] - start[1]
        length = max((dx * dx + dy * dy) ** 0.5, 1e-6)
        nx, ny = -dy / length, dx / length
        self.polygon(
            [
                (start[0] + nx * first, start[1] + ny * first),
                (stop[0] + nx * last, stop[1] + ny * last),
                (stop[0] - nx * last, stop[1] - ny * last),
                (start[0] - nx * first, start[1] - ny * first),
            ],
            paint,
        )
        self.disc(*start, first, first, paint)
        self.disc(*stop, last, last, paint)

    def layer(self) -> Layer:
        """What was painted."""
        planes, glow, cover = (
            np.asarray(image.reduce(self._fine), np.float32) / np.float32(255) for image in self._images
        )
        return Layer(planes[..., :3], planes[..., 3], glow, cover)

    def box(self) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom around what was painted, in pixels of the picture; None if nothing was."""
        found = self._images[2].getbbox()
        if found is None:
            return None
        left, top = self.part[:2]
        x1, y1, x2, y2 = (edge / self._fine for edge in found)
        return left + x1, top + y1, left + x2, top + y2

    def _place(self, x: float, y: float) -> Point:
        # Far points are pulled in: PIL's polygons are slow and wrong with very large numbers.
        return (
            min(max((x - self.part[0]) * self._fine, -9000.0), 9000.0),
            min(max((y - self.part[1]) * self._fine, -9000.0), 9000.0),
        )


def smooth(random: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Noise of mean 0 and deviation 1 that varies over about `scale` pixels; made coarse and enlarged."""
    step = max(1, int(scale))
    coarse = random.standard_normal((shape[0] // step + 3, shape[1] // step + 3), np.float32)
    if step > 1:
        size = (coarse.shape[1] * step, coarse.shape[0] * step)
        coarse = np.asarray(PIL.Image.fromarray(coarse).resize(size, PIL.Image.Resampling.BICUBIC))
    else:
        coarse = ndimage.gaussian_filter(coarse, 0.6)
    part = coarse[step : step + shape[0], step : step + shape[1]]
    return np.asarray((part - part.mean()) / max(float(part.std()), 1e-6))


def _fills(paint: Paint) -> tuple[tuple[int, ...] | int, ...]:
    red, green, blue, heat, glow = (min(255, max(0, round(255 * value))) for value in paint)
    return (red, green, blue, heat), glow, 255
