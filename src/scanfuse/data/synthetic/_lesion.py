"""Made-up skin lesions, and what picture and table each know of them.

A case has two hidden numbers, u and v, each normal with mean 0 and deviation 1. It is malignant if u + v is above a
cut. The picture shows u alone, as how asymmetric, ragged and many-coloured the lesion is; the table knows v alone.
With a share q of malignant cases, c = the cut / sqrt(2) = the normal quantile of 1 - q: the best area under the ROC
curve from u alone is P(u_1 > u_0), from both it is 1. For q = 0.25 that of one is 0.85 (`one_input`).
"""

import numpy as np
from scipy import ndimage, stats

from scanfuse.data.synthetic._film import Array, grid, smooth_noise, soft_step

__all__ = ["draw_case", "draw_lesion", "one_input"]

_SKIN = np.array([0.86, 0.68, 0.57])
_BROWN = np.array([0.50, 0.30, 0.20])
_COLOURS = np.array([[0.16, 0.10, 0.09], [0.42, 0.45, 0.55], [0.70, 0.28, 0.27], [0.88, 0.80, 0.77]])
"""Black, blue-grey, red and white, in the order in which they come up."""


def draw_case(random: np.random.Generator, prevalence: float) -> tuple[bool, float, float]:
    """Whether a case is malignant, u and v."""
    u, v = (float(value) for value in random.normal(size=2))
    return bool(u + v > np.sqrt(2) * stats.norm.isf(prevalence)), u, v


def one_input(prevalence: float) -> float:
    """Best area under the ROC curve from one of u and v, by numerical integration."""
    u = np.linspace(-7, 7, 4001)
    density = stats.norm.pdf(u)
    chance = stats.norm.sf(np.sqrt(2) * stats.norm.isf(prevalence) - u)
    positive, negative = density * chance, density * (1 - chance)
    positive, negative = positive / positive.sum(), negative / negative.sum()
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum())


def draw_lesion(random: np.random.Generator, u: float, *, size: int, hair: bool = True) -> Array:
    """One picture, uint8 (size, size, 3): the larger u, the more asymmetric, ragged and many-coloured."""
    severity = float(stats.norm.cdf(u))
    x, y = grid(size, size)
    tone = 0.75 + 0.25 * random.random()
    skin = _SKIN * tone + 0.03 * random.normal(size=3)
    picture = skin + 0.02 * smooth_noise(random, x.shape, size / 8)[..., None]
    picture = picture + 0.012 * smooth_noise(random, x.shape, 1.2)[..., None]
    centre = random.normal(0, 0.06, 2)
    dx, dy = x - centre[0], y - centre[1]
    angle = np.arctan2(dy, dx)
    radius = random.uniform(0.42, 0.60)
    outline = np.ones_like(x)
    turn = random.uniform(0, 2 * np.pi)
    outline += 0.05 * np.cos(2 * (angle - turn))  # plain ovals, whatever the severity
    outline += 0.40 * severity * np.cos(angle - turn) * np.abs(np.cos(angle - turn))
    for wave in range(4, 11):
        outline += 0.075 * severity * np.cos(wave * angle + random.uniform(0, 2 * np.pi))
    distance = np.hypot(dx, dy) / (radius * outline)
    inside = soft_step(1 - distance, 0.10 - 0.05 * severity)
    brown = _BROWN * random.uniform(0.85, 1.2)
    texture = 0.05 * smooth_noise(random, x.shape, size / 28)
    lesion = brown + (0.10 * distance**2)[..., None] + texture[..., None]
    for number, colour in enumerate(_COLOURS):
        share = np.clip(severity * 5 - number - 0.5, 0, 1)
        where = random.normal(0, 0.20, 2)
        spot = np.exp(-(((dx - where[0]) ** 2 + (dy - where[1]) ** 2) / (0.20 + 0.06 * random.random()) ** 2))
        ragged = np.clip(spot * (1.2 + 0.5 * smooth_noise(random, x.shape, size / 16)), 0, 1)
        lesion = lesion + (share * ragged)[..., None] * (colour - lesion)
    picture = picture + inside[..., None] * (lesion - picture)
    if hair:
        for _ in range(int(random.integers(0, 5))):
            slope, start, bend = random.normal(), random.uniform(-1, 1), random.normal(0, 0.3)
            line = np.abs(dy - slope * dx - start - bend * dx**2) / np.hypot(1, slope)
            picture = picture * (1 - 0.6 * np.exp(-((line * size / 2 / 0.7) ** 2)))[..., None]
    light = 1 + 0.05 * (random.normal() * x + random.normal() * y)
    picture = ndimage.gaussian_filter(picture * light[..., None], (0.4, 0.4, 0))
    return np.rint(np.clip(picture + 0.01 * random.normal(size=picture.shape), 0, 1) * 255).astype(np.uint8)
