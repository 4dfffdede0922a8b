"""X-ray film: lengths of paths through simple bodies, and how they darken a detector.

Places are x to the right and y down, both from -1 to 1 over the shorter side of the picture. Bodies add optical
depth; `expose` turns it into brightness, bone bright on dark air.
"""

import io
import os
from pathlib import Path

import numpy as np
import PIL.Image
from scipy import ndimage

from scanfuse.errors import UserError

__all__ = [
    "Array",
    "blob",
    "capsule",
    "ellipse_depth",
    "encoded",
    "expose",
    "grid",
    "save",
    "smooth_noise",
    "soft_step",
]

Array = np.ndarray


def grid(height: int, width: int) -> tuple[Array, Array]:
    """x and y of the pixel centres, (height, width) each."""
    half = min(height, width) / 2
    y, x = np.mgrid[:height, :width]
    return (x + 0.5 - width / 2) / half, (y + 0.5 - height / 2) / half


def capsule(
    x: Array, y: Array, start: tuple[float, float], stop: tuple[float, float], radii: tuple[float, float]
) -> tuple[Array, Array]:
    """Along (0 at start, 1 at stop, clipped) and distance / radius, for a stretch between two radii."""
    dx, dy = stop[0] - start[0], stop[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    distance = np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)
    return along, distance / (radii[0] + (radii[1] - radii[0]) * along)


def ellipse_depth(
    x: Array, y: Array, centre: tuple[float, float], radius: tuple[float, float], turn: float = 0.0
) -> Array:
    """Path through an ellipsoid as a share of its longest path: sqrt(1 - r^2), 0 outside."""
    cos, sin = np.cos(turn), np.sin(turn)
    u = (cos * (x - centre[0]) + sin * (y - centre[1])) / radius[0]
    v = (-sin * (x - centre[0]) + cos * (y - centre[1])) / radius[1]
    return np.sqrt(np.clip(1 - u * u - v * v, 0, None))


def blob(x: Array, y: Array, centre: tuple[float, float], radius: float, edge: float = 0.25) -> Array:
    """A round shadow, 1 inside and 0 outside, its edge `edge` times the radius wide."""
    return soft_step(radius - np.hypot(x - centre[0], y - centre[1]), edge * radius)


def soft_step(value: Array, width: float) -> Array:
    """0 for value far below 0, 1 far above, a smooth ramp of about 2 `width` between."""
    t = np.clip(value / (2 * width) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def smooth_noise(random: np.random.Generator, shape: tuple[int, int], scale: float) -> Array:
    """Noise of mean 0 and standard deviation 1 that varies over about `scale` pixels."""
    noise = ndimage.gaussian_filter(random.normal(size=shape), scale, mode="reflect")
    return (noise - noise.mean()) / max(float(noise.std()), 1e-9)


def expose(random: np.random.Generator, depth: Array, *, gain: float = 1.0, noise: float = 0.012) -> Array:
    """Brightness 1 - exp(-gain * depth) with a slight blur, quantum noise and a fog gradient; in [0, 1]."""
    bright = 1 - np.exp(-gain * np.clip(depth, 0, None))
    bright = ndimage.gaussian_filter(bright, 0.35 * min(depth.shape) / 128)
    x, y = grid(*depth.shape)
    bright = bright + 0.02 + 0.015 * (random.normal() * x + random.normal() * y)
    return np.clip(bright + noise * random.normal(size=depth.shape), 0, 1)


def encoded(pixels: Array, form: str) -> bytes:
    """An 8-bit picture as the bytes of a "PNG" or "JPEG" file."""
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, format=form, **({"quality": 92} if form == "JPEG" else {}))
    return stream.getvalue()


def save(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, but without waiting for the disk.

    A phantom has a thousand small files and can be made again after a power cut; waiting for each takes longer than
    making them (24 ms a file against 2 ms, measured on a shared disk).

    Raises:
        UserError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}; choose another folder.") from error
