"""Pictures of fused images and volumes: sources and results beside each other."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from scanfuse.tasks.fuse.medium import Fused

__all__ = ["gallery", "side_by_side"]

_CAPTION_HEIGHT = 22
_READABLE = 160
"""Pixels of height about which a picture on a page can be read."""


def side_by_side(views: Mapping[str, np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures of one height in a row, each under its name."""
    columns = [_captioned(view, name) for name, view in views.items()]
    gap = np.full((columns[0].shape[0], 4, 3), 255, np.uint8)
    row = [part for column in columns for part in (column, gap)][:-1]
    return np.concatenate(row, axis=1)


def gallery(rows: Sequence[Mapping[str, Fused]]) -> UInt8[np.ndarray, "h w 3"]:
    """One row per pair: both sources, then the result of every method. A row maps a method's name to its result."""
    smallest = min(view.shape[0] for row in rows for result in row.values() for view in result.views.values())
    # Small pictures are shown larger, each pixel as a square of pixels.
    times = max(1, round(_READABLE / smallest))
    lines = []
    for row in rows:
        first = next(iter(row.values()))
        views = {name: view for name, view in first.views.items() if name != "fused"}
        views |= {method: result.views["fused"] for method, result in row.items()}
        lines.append(side_by_side({name: view.repeat(times, 0).repeat(times, 1) for name, view in views.items()}))
    width = max(line.shape[1] for line in lines)
    lines = [np.pad(line, ((0, 4), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    return np.concatenate(lines)


def _captioned(view: np.ndarray, name: str) -> np.ndarray:
    """The view under its name; one narrower than its name gets white borders, else the name would be cut."""
    font = ImageFont.load_default(size=13)
    missing = max(0, math.ceil(font.getlength(name)) + 2 - view.shape[1])
    view = np.pad(view, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)), constant_values=255)
    strip = PillowImage.new("RGB", (view.shape[1], _CAPTION_HEIGHT), "white")
    ImageDraw.Draw(strip).text((view.shape[1] / 2, _CAPTION_HEIGHT / 2), name, "black", font=font, anchor="mm")
    return np.concatenate([np.asarray(strip), view])
