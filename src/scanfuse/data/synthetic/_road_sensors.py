"""From what a street is to what two cameras see of it: light, glare, mist and glass, blur and noise."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from scanfuse.data.synthetic._road_brush import Camera, Layer, Point, smooth
from scanfuse.data.synthetic._road_street import Street

Edges = tuple[float, float, float, float]

__all__ = ["View", "cover_glass", "cover_mist", "glare", "lay", "lit_street", "see_heat", "see_light"]


@dataclass(frozen=True)
class View:
    """What reaches the cameras: `light` (h, w, 3) and `heat` (h, w); both are painted over in place."""

    light: np.ndarray
    heat: np.ndarray


def lit_street(street: Street, camera: Camera, layer: Layer, pools: list[tuple[float, float, float]]) -> View:
    """The empty street in its light: day, or darkness with pools (X, Z, strength) of lamp light."""
    rows, columns = np.mgrid[: camera.height, : camera.width].astype(np.float32)
    lamps = np.zeros(rows.shape, np.float32)
    for x, z, strength in pools:
        column, row = camera.pixel(x, 0, z)
        across = camera.focal * 2.4 / z
        down = max(across * 0.45 * camera.eye / 1.6, 0.02 * camera.height)
        lamps += strength * np.exp(-(((columns - column) / across) ** 2) - ((rows - row) / down) ** 2)
        # The same lamp on walls and leaves above.
        apart = (columns - column) ** 2 + (rows - row + across) ** 2
        lamps += 0.35 * strength * np.exp(-apart / (1.3 * across) ** 2)
    # The camera's exposure lets many lamps together become no brighter than day.
    light = street.light + (0.75 * (1 - np.exp(-lamps / 0.75)) if street.night else 0.0)
    colour = layer.colour * (light + layer.glow)[..., None]
    if street.night:
        colour *= np.array([0.92, 0.96, 1.08], np.float32)
    return View(colour.astype(np.float32), layer.heat.astype(np.float32))


def lay(
    view: View,
    layer: Layer,
    part: tuple[int, int, int, int],
    *,
    lit: float,
    in_light: float,
    in_heat: float,
    sheen: float = 0.0,
) -> None:
    """Puts one thing in front of the view: its colour times `lit`, plus `sheen`; 0 in a sensor: no trace there."""
    left, top, right, bottom = part
    cover = layer.cover
    light = view.light[top:bottom, left:right]
    own = layer.colour * (lit + layer.glow)[..., None] + sheen * cover[..., None]
    light += in_light * (own - cover[..., None] * light)
    heat = view.heat[top:bottom, left:right]
    heat += in_heat * (layer.heat - cover * heat)


def cover_mist(view: View, veil: Edges, random: np.random.Generator) -> None:
    """Steam, smoke or glare over what lies behind, soft at its edges; infrared passes."""
    part, x, y = _inside(view, veil, 1.7)
    if not x.size:
        return
    kind = str(random.choice(["steam", "smoke", "glare"]))
    power = 2 if kind == "glare" else 4
    ragged = np.zeros(x.shape) if kind == "glare" else 0.16 * smooth(random, x.shape, max(2, 0.16 * x.shape[1]))
    # Full up to 0.85 of the veil's box, and thinning out from there: an edge would look like an object.
    share = np.clip((1.6 + ragged - (np.abs(x) ** power + np.abs(y) ** power) ** (1 / power)) / 0.7, 0, 1)
    share = (share * share * (3 - 2 * share))[..., None]
    colour = np.array({"steam": (0.84, 0.86, 0.88), "smoke": (0.25, 0.24, 0.24), "glare": (1.2, 1.12, 0.95)}[kind])
    billow = 0.04 * smooth(random, x.shape, max(2, 0.2 * x.shape[1])) if kind != "glare" else np.zeros(x.shape)
    light = view.light[part]
    light += float(random.uniform(0.96, 1.0)) * share * (colour * (1 + billow[..., None]) - light)


def cover_glass(view: View, veil: Edges, random: np.random.Generator, *, night: bool) -> None:
    """A pane in front of what lies behind: clear for light but for its frame, opaque for heat, whose own it shows."""
    part, x, y = _inside(view, veil, 1.05)
    if not x.size:
        return
    heat = float(random.uniform(0.26, 0.36) if night else random.uniform(0.36, 0.52))
    bar = max(0.03, 1.2 / x.shape[1])
    inside = (np.abs(x) <= 1) & (np.abs(y) <= 1)
    frame = inside & ((np.abs(x) > 1 - 2 * bar) | (np.abs(y) > 1 - bar))
    view.heat[part] = np.where(inside, heat + 0.012 * y - 0.05 * frame, view.heat[part])
    light = view.light[part]
    light += (0.05 * inside)[..., None] * (np.array([0.62, 0.70, 0.74]) * (0.15 if night else 1.0) - light)
    light *= np.where(frame, 0.6, 1.0)[..., None]


def glare(view: View, place: Point, *, radius: float, strength: float, colour: tuple[float, float, float]) -> None:
    """The halo of a lamp, added to the light."""
    x, y = place
    reach = int(3.5 * radius) + 2
    top, left = max(0, int(y) - reach), max(0, int(x) - reach)
    light = view.light[top : max(0, int(y) + reach + 1), left : max(0, int(x) + reach + 1)]
    if not light.size:
        return
    rows, columns = np.mgrid[top : top + light.shape[0], left : left + light.shape[1]]
    far = ((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2) / radius**2
    light += (strength * (0.75 * np.exp(-2.5 * far) + 0.25 * np.exp(-0.5 * far)))[..., None] * np.array(colour)


def see_light(view: View, street: Street, random: np.random.Generator, *, shot: np.random.Generator) -> np.ndarray:
    """The RGB picture, uint8 (h, w, 3): vignetting, exposure, blur, and noise that is strong at night.

    Args:
        view: what reaches the camera.
        street: day or night.
        random: of what stays the same in all frames (exposure, white balance).
        shot: of the noise of this frame.
    """
    light = view.light
    height, width = light.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = light * (1 - 0.16 * (x * x + y * y) / 2).astype(np.float32)[..., None]
    light *= random.uniform(0.94, 1.06, 3).astype(np.float32)
    sigma = 0.35 + 0.25 * width / 640
    light = ndimage.gaussian_filter(light, (sigma, sigma, 0))
    noise = float(random.uniform(0.018, 0.035)) if street.night else float(random.uniform(0.006, 0.016))
    if street.night:
        light = light * float(random.uniform(0.9, 1.15))
    grain = shot.standard_normal(light.shape, np.float32)
    level = noise * np.sqrt(0.5 + 1.5 * np.clip(light, 0, 1))
    light = light + level * (0.6 * grain + 0.7 * grain.mean(axis=2, keepdims=True) * 1.7)
    return np.asarray(np.rint(np.clip(light, 0, 1) * 255), np.uint8)


def see_heat(
    view: View, street: Street, random: np.random.Generator, *, shot: np.random.Generator, bits: int
) -> np.ndarray:
    """The infrared picture, white is hot: uint8 (h, w) as a camera fits it to the scene, or 14-bit counts in uint16.

    Thermal lenses are softer, columns of the sensor differ a little, and the picture drifts slowly.
    """
    heat = view.heat
    width = heat.shape[1]
    gamma, gain, offset = random.uniform(1.0, 1.35), random.uniform(0.85, 1.05), random.uniform(-0.03, 0.05)
    drift = 0.010 * smooth(random, heat.shape, 0.3 * width)
    columns = 0.006 * random.standard_normal((1, width)).astype(np.float32)
    noise = float(random.uniform(0.006, 0.014))
    sigma = 0.5 + 0.35 * width / 640
    heat = ndimage.gaussian_filter(heat, sigma) + drift + columns
    heat = heat + noise * shot.standard_normal(heat.shape, np.float32)
    if bits == 16:
        counts = 7200 + float(random.uniform(-200, 200)) + float(random.uniform(1500, 2300)) * heat
        return np.asarray(np.rint(np.clip(counts, 0, 16383)), np.uint16)
    fitted = offset + gain * np.clip(heat, 0, None) ** gamma
    return np.asarray(np.rint(np.clip(fitted, 0, 1) * 255), np.uint8)


def _inside(view: View, box: Edges, reach: float) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The part of the view around a box, and x and y there, from -1 to 1 over the box."""
    left, top, right, bottom = box
    x, y, across, down = (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
    height, width = view.heat.shape
    rows = slice(max(0, int(y - reach * down)), max(0, min(height, int(y + reach * down) + 2)))
    columns = slice(max(0, int(x - reach * across)), max(0, min(width, int(x + reach * across) + 2)))
    grid_y, grid_x = np.mgrid[rows, columns].astype(np.float32)
    return (rows, columns), (grid_x + 0.5 - x) / across, (grid_y + 0.5 - y) / down
