"""Heat maps over pictures: one picture at its own size, and a panel of all views of a sample."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from scanfuse.files import atomic_path

__all__ = ["overlay", "panel", "to_picture", "write_overlay", "write_panel"]

_COLOURS = "turbo"
_HOTTEST = 0.88
"""Where the colours end: beyond it they darken, and the strongest heat would look like a hole."""
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
    picture = to_picture(pixels).copy()
    _check(heat, picture.shape[:2])
    step = np.rint(heat * 255).astype(np.uint8)
    alpha = strongest * heat.astype(np.float32)
    # Channel by channel: films have 20 million pixels.
    for channel, colours in enumerate(_palette().T):
        plain = picture[..., channel].astype(np.float32)
        picture[..., channel] = np.rint(plain + alpha * (colours[step] - plain))
    return picture


def _palette() -> Float32[np.ndarray, "256 3"]:
    """The colours of heat 0 to 1 in 256 steps, 0 to 255."""
    return np.asarray(matplotlib.colormaps[_COLOURS](np.linspace(0, _HOTTEST, 256))[:, :3] * 255, np.float32)


def panel(
    pictures: Mapping[str, np.ndarray],
    heats: Mapping[str, Mapping[str, np.ndarray]],
    *,
    captions: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
    height: int = 320,
) -> UInt8[np.ndarray, "rows columns 3"]:
    """One row per view: the picture, then each of its heat maps, in columns; under them the scale of the colours.

    Pictures keep their aspect. A map that is zero everywhere is said to be so: it looks like the picture.

    Args:
        pictures: view -> pixels, see `to_picture`.
        heats: view -> name of the map ("view", "fused") -> (H, W) in [0, 1].
        captions: view -> text over its picture, such as "frontal: -0.31 without"; the view's name if None.
        titles: name of a map -> text over it; the name if None.
        height: of every picture in the panel, in pixels.

    Raises:
        ValueError: no picture; see `overlay`.
    """
    if not pictures:
        raise ValueError("there is no picture to show")
    letters = max(12, round(0.07 * height))  # so that a panel can be shown at half its size
    rows = []
    for view, pixels in pictures.items():
        small = _resized(to_picture(pixels), height)
        row = [_captioned(small, (captions or {}).get(view, view), letters)]
        for name, heat in heats.get(view, {}).items():
            _check(heat, pixels.shape[:2])
            text = (titles or {}).get(name, name) + ("" if heat.any() else ": zero")
            row.append(_captioned(overlay(small, _shrunk(heat, small.shape[:2])), text, letters))
        rows.append(row)
    widths = [max(row[k].shape[1] for row in rows if k < len(row)) for k in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        cells = [_centred(cell, width) for cell, width in zip(row, widths, strict=False)]
        line = np.concatenate([part for cell in cells for part in (cell, _space(cell.shape[0], _GAP))][:-1], axis=1)
        lines += [line, _space(_GAP, line.shape[1])]
    total = max(line.shape[1] for line in lines)
    if any(heats.values()):
        scale = _scale(letters)
        total = max(total, scale.shape[1])
        lines.append(np.concatenate([_space(scale.shape[0], total - scale.shape[1]), scale], axis=1))
    else:
        lines.pop()
    return np.concatenate([np.pad(a, ((0, 0), (0, total - a.shape[1]), (0, 0)), constant_values=255) for a in lines])


def write_overlay(path: str | Path, pixels: np.ndarray, heat: Float[np.ndarray, "h w"]) -> None:
    """Writes `overlay` as PNG in the size of the picture."""
    _write(path, overlay(pixels, heat))


def write_panel(
    path: str | Path,
    pictures: Mapping[str, np.ndarray],
    heats: Mapping[str, Mapping[str, np.ndarray]],
    *,
    captions: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
    height: int = 320,
) -> None:
    """Writes `panel` as PNG."""
    _write(path, panel(pictures, heats, captions=captions, titles=titles, height=height))


def _check(heat: np.ndarray, shape: tuple[int, ...]) -> None:
    if heat.shape != shape:
        raise ValueError(f"the heat is {heat.shape}, the picture {shape}; place the map first")
    if not 0 <= float(heat.min()) <= float(heat.max()) <= 1 + 1e-6:
        raise ValueError(f"the heat runs from {heat.min()} to {heat.max()}; scale it to 0..1")


def _resized(picture: np.ndarray, height: int) -> np.ndarray:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return np.asarray(PillowImage.fromarray(picture).resize((width, height), PillowImage.Resampling.LANCZOS))


def _shrunk(heat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    image = PillowImage.fromarray(np.asarray(heat, np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), PillowImage.Resampling.BILINEAR)).clip(0, 1)


def _captioned(picture: np.ndarray, text: str, letters: int) -> np.ndarray:
    """The picture under its text; one narrower than its text gets white borders."""
    font = ImageFont.load_default(size=letters)
    width = max(picture.shape[1], int(font.getlength(text)) + 4)
    strip = PillowImage.new("RGB", (width, letters + 10), "white")
    ImageDraw.Draw(strip).text((width / 2, strip.height / 2), text, "black", font=font, anchor="mm")
    return np.concatenate([np.asarray(strip), _centred(picture, width)])


def _centred(picture: np.ndarray, width: int) -> np.ndarray:
    missing = width - picture.shape[1]
    return np.pad(picture, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)), constant_values=255)


def _scale(letters: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """The colours of heat 0 to 1 as they look over middle grey, between the words for both ends."""
    font = ImageFont.load_default(size=letters)
    heat = np.tile(np.linspace(0, 1, 12 * letters, dtype=np.float32), (round(0.8 * letters), 1))
    bar = overlay(np.full(heat.shape, 128, np.uint8), heat)
    ends = ("no evidence", "strongest")
    left, right = (int(font.getlength(text)) + 8 for text in ends)
    strip = PillowImage.new("RGB", (left + bar.shape[1] + right, letters + 10), "white")
    middle = strip.height / 2
    strip.paste(PillowImage.fromarray(bar), (left, (strip.height - bar.shape[0]) // 2))
    draw = ImageDraw.Draw(strip)
    draw.text((left - 5, middle), ends[0], "black", font=font, anchor="rm")
    draw.text((left + bar.shape[1] + 5, middle), ends[1], "black", font=font, anchor="lm")
    return np.asarray(strip)


def _space(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def _write(path: str | Path, picture: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        PillowImage.fromarray(picture).save(temporary, format="PNG")
