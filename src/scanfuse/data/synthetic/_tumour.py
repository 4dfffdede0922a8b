"""A made-up brain with a glioma in three dimensions: tissue shares of every voxel, without contrast.

The brain is that of `_head`, cut at every level and closed below; the tumour is an ellipsoid with a rough surface:
necrosis inside, an enhancing rim around it, oedema along the white matter. Axes: z upwards, y to the back, x to the
patient's left, as (D, H, W) volumes are shown; lengths in mm.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from scanfuse.data.synthetic._head import FIELD_OF_VIEW_MM, Case, draw_case, tissue_fractions

__all__ = ["BRAIN", "TUMOUR", "Glioma", "draw_glioma", "level_at", "tissues"]

BRAIN = ("white", "grey", "csf", "nuclei", "pallidum", "dura", "blood vessel")
TUMOUR = ("oedema", "core", "rim", "necrosis")

_MIDDLE_LEVEL, _HEIGHT_MM = 0.55, 150.0
"""The level at the middle of the volume, and how many millimetres a level of 1 is."""


@dataclass(frozen=True)
class Glioma:
    """A tumour.

    Attributes:
        centre: (x, y, z) in mm from the middle of the volume.
        radius: half-axes in mm.
        oedema_mm: how far oedema reaches beyond the tumour.
        rim_mm: thickness of the enhancing rim; 0 = none.
        necrosis: radius of the necrosis over that of the tumour.
        waves: (6, 5) wave vectors, phases and amplitudes of the rough surface.
    """

    centre: tuple[float, float, float]
    radius: tuple[float, float, float]
    oedema_mm: float
    rim_mm: float
    necrosis: float
    waves: np.ndarray


def draw_glioma(random: np.random.Generator, *, rim: bool, wide_oedema: bool) -> Glioma:
    """Draws a tumour of either hemisphere with or without the two signs of high grade."""
    size = random.uniform(13, 19)
    radius = size * random.uniform(0.8, 1.25, 3)
    side = random.choice([-1.0, 1.0])
    return Glioma(
        centre=(side * random.uniform(24, 38), random.uniform(-35, 35), random.uniform(-8, 28)),
        radius=(float(radius[0]), float(radius[1]), float(radius[2])),
        oedema_mm=random.uniform(13, 18) if wide_oedema else random.uniform(2, 4),
        rim_mm=random.uniform(4.5, 6.5) if rim else 0.0,
        necrosis=random.uniform(0.4, 0.55),
        waves=np.concatenate(
            [random.normal(0, 0.09, (6, 3)), random.uniform(0, 2 * np.pi, (6, 1)), random.normal(0, 1, (6, 1))],
            axis=1,
        ),
    )


def level_at(z_mm: float) -> float:
    """The level of `_head` at a height."""
    return _MIDDLE_LEVEL + z_mm / _HEIGHT_MM


def tissues(random: np.random.Generator, glioma: Glioma, *, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Tissue -> share of each voxel, (D, H, W) float32; what is not brain is left out.

    Args:
        random: draws the head.
        glioma: its tumour.
        shape: D, H, W with H = W; voxels are cubes of 240 / W mm.
    """
    depth, height, width = shape
    voxel = FIELD_OF_VIEW_MM / width
    case = replace(draw_case(random, 4), lesions=(), calcified_plexus=False)
    found = {name: np.zeros(shape, np.float32) for name in (*BRAIN, *TUMOUR)}
    z_mm = (np.arange(depth) - (depth - 1) / 2) * voxel
    for index, z in enumerate(z_mm):
        level = level_at(float(z))
        if not 0.1 < level < 1.0:
            continue
        shares = tissue_fractions(case, level, width)
        closed = _closed(case, level, height, voxel)
        for name in BRAIN:
            if name in shares:
                found[name][index] = shares[name] * closed
    _paint(found, glioma, z_mm, voxel)
    return found


def _closed(case: Case, level: float, size: int, voxel: float) -> np.ndarray:
    """The brain rounds off below the middle, where the sections of `_head` would be a cylinder."""
    place = (np.arange(size) - (size - 1) / 2) * voxel
    x, y = np.meshgrid(place - case.shift[0], -place - case.shift[1])
    below = max(0.5 - level, 0) / 0.4
    reach = 1 - (x / case.half_width) ** 2 - (y / case.half_length) ** 2 - below**2
    return np.asarray(np.clip(reach * case.half_width / voxel + 0.5, 0, 1) if below else 1.0)


def _paint(found: dict[str, np.ndarray], glioma: Glioma, z_mm: np.ndarray, voxel: float) -> None:
    """Lays the tumour over the brain, from the outermost part inwards."""
    place = (np.arange(found["white"].shape[2]) - (found["white"].shape[2] - 1) / 2) * voxel
    z, y, x = np.meshgrid(z_mm, place, place, indexing="ij")
    away = np.stack([x, y, z], axis=-1) - glioma.centre
    rough = sum(a * np.cos(away @ k + phase) for *k, phase, a in glioma.waves) / np.sqrt(3)
    distance = (1 - np.linalg.norm(away / glioma.radius, axis=-1)) * min(glioma.radius) + 1.2 * rough
    brain = np.sum([found[name] for name in BRAIN], axis=0)
    white = ndimage.gaussian_filter(found["white"], 4.0 / voxel) / np.maximum(
        ndimage.gaussian_filter(brain, 4.0 / voxel), 1e-3
    )
    parts = {
        "oedema": (distance + glioma.oedema_mm, np.clip(1.4 * white, 0, 1)),
        "core": (distance, 1.0),
        "rim": (distance if glioma.rim_mm else np.full_like(distance, -99.0), 1.0),
        "necrosis": (distance - max(glioma.rim_mm, (1 - glioma.necrosis) * min(glioma.radius)), 1.0),
    }
    if glioma.rim_mm:
        parts["core "] = (distance - glioma.rim_mm, 1.0)
    for name in ("oedema", "core", "rim", "core ", "necrosis"):
        if name not in parts:
            continue
        depth, strength = parts[name]
        share = np.clip(depth / voxel + 0.5, 0, 1) * strength
        inside = sum(found.values())
        for other in found:
            found[other] *= (1 - share).astype(np.float32)
        found[name.strip()] += (share * np.minimum(inside, 1)).astype(np.float32)
