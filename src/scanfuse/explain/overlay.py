"""Heat maps over pictures: one picture at its own size, and a panel of all views of a sample."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from scanfuse.files import atomic_path

__all__ = ["overlay", "panel", "to_picture", "write_overlay", "write_panel"]

_COLOURS = "turbo"
_HOTTEST = 0.88
"""Where the colours end: beyond it they darken, and the strongest heat would look like a hole."""
_CAPTION = 22
_GAP = 6


def to_picture(pixels: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """A picture to look at: uint8 as it is; anything else stretched from its smallest to its largest finite value.

    X-rays of 12 bits stored in 16 would be black otherwise. A constant picture of another type is black.

    Args:
        pixels: (H, W), (H, W, 1) or (H, W, 3).

    Raises:
        ValueError: another shape.
    """
    array = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or not array.size:
        raise ValueError(f"the picture has shape {pixels.shape}; expected (H, W) or (H, W, 3)")
    if array.dtype != np.uint8:
        values = array.astype(np.float64)
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        unit = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / ((high - low) or 1.0)
        array = np.rint(unit * 255).astype(np.uint8)
    return array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)


def overlay(
    pixels: np.ndarray, heat: Float[np.ndarray, "h w"], *, strongest: float = 0.6
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture under its heat: as transparent as the heat is weak, so that the anatomy stays to be seen.

    colour = (1 - a) picture + a turbo(0.88 heat),   a = strongest * heat;   heat 0 leaves the picture as it is.

    Args:
        pixels: see `to_picture`.
        heat: (H, W) in [0, 1], of the size of the picture; see `placement.place`.
        strongest: opacity of heat 1, in [0, 1].

    Raises:
        ValueError: the sizes differ, or the heat leaves [0, 1].
    """
    picture = to_picture(pixels)
    if heat.shape != picture.shape[:2]:
        raise ValueError(f"the heat is {heat.shape}, the picture {picture.shape[:2]}; place the map first")
    if not 0 <= float(heat.min()) <= float(heat.max()) <= 1 + 1e-6:
        raise ValueError(f"the heat runs from {heat.min()} to {heat.max()}; scale it to 0..1")
    colour = matplotlib.colormaps[_COLOURS](_HOTTEST * heat)[..., :3] * 255
    alpha = strongest * heat[..., None]
    return np.rint((1 - alpha) * picture + alpha * colour).astype(np.uint8)


def panel(
    pictures: Mapping[str, np.ndarray],
    heats: Mapping[str, Mapping[str, np.ndarray]],
    *,
    captions: Mapping[str, str] | None = None,
    height: int = 320,
) -> UInt8[np.ndarray, "rows columns 3"]:
    """One row per view: the picture, then each of its heat maps; pictures keep their aspect.

    Args:
        pictures: view -> pixels, see `to_picture`.
        heats: view -> name of the map ("view", "fused") -> (H, W) in [0, 1].
        captions: view -> text over its picture, such as "frontal: -0.31 without"; the view's name if None.
        height: of every picture in the panel, in pixels.

    Raises:
        ValueError: no picture; see `overlay`.
    """
    if not pictures:
        raise ValueError("there is no picture to show")
    rows = []
    for view, pixels in pictures.items():
        cells = [_cell(to_picture(pixels), (captions or {}).get(view, view), height)]
        cells += [_cell(overlay(pixels, heat), name, height) for name, heat in heats.get(view, {}).items()]
        rows.append(np.concatenate([part for cell in cells for part in (cell, _space(cell.shape[0]))][:-1], axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, _GAP), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded)[:-_GAP]


def write_overlay(path: str | Path, pixels: np.ndarray, heat: Float[np.ndarray, "h w"]) -> None:
    """Writes `overlay` as PNG in the size of the picture."""
    _write(path, overlay(pixels, heat))


def write_panel(
    path: str | Path,
    pictures: Mapping[str, np.ndarray],
    heats: Mapping[str, Mapping[str, np.ndarray]],
    *,
    captions: Mapping[str, str] | None = None,
    height: int = 320,
) -> None:
    """Writes `panel` as PNG."""
    _write(path, panel(pictures, heats, captions=captions, height=height))


def _cell(picture: np.ndarray, text: str, height: int) -> np.ndarray:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    image = PillowImage.fromarray(picture).resize((width, height), PillowImage.Resampling.LANCZOS)
    font = ImageFont.load_default(size=13)
    needed = max(width, int(font.getlength(text)) + 4)
    cell = PillowImage.new("RGB", (needed, height + _CAPTION), "white")
    cell.paste(image, ((needed - width) // 2, _CAPTION))
    ImageDraw.Draw(cell).text((needed / 2, _CAPTION / 2), text, "black", font=font, anchor="mm")
    return np.asarray(cell)


def _space(height: int) -> np.ndarray:
    return np.full((height, _GAP, 3), 255, np.uint8)


def _write(path: str | Path, picture: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        PillowImage.fromarray(picture).save(temporary, format="PNG")
