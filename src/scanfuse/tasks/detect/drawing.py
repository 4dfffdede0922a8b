"""Pictures of detections: boxes on each image of a pair, side by side, with a legend."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from scanfuse.explain.overlay import to_picture
from scanfuse.files import atomic_path
from scanfuse.tasks.detect.detections import Detections

__all__ = ["COLOURS", "draw", "draw_pair", "write_picture"]

Colour = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (240, 228, 66),  # yellow
    (0, 158, 115),  # bluish green
    (213, 94, 0),  # vermilion
    (204, 121, 167),  # reddish purple
    (0, 114, 178),  # blue
    (221, 221, 221),  # light grey
)
"""Of the classes by number, repeated after the last: told apart with any kind of colour vision (Okabe and Ito)."""

_DARK: Colour = (0, 0, 0)
_IGNORED: Colour = (130, 130, 130)
_GAP = 6
_MARGIN = 4
_MOST_PIXELS = 1600  # a long, narrow image is not enlarged further


class _Scale(NamedTuple):
    """What follows from the size of the picture: its enlargement, and the pixels of a line and of a letter."""

    factor: float
    line: int
    letters: int


def draw(
    pixels: np.ndarray, detections: Detections, *, min_score: float = 0.25, min_side: int = 448
) -> UInt8[np.ndarray, "h w 3"]:
    """One image with its boxes: detections solid with class and score in per cent, truth dashed, ignored truth grey.

    Every line has a dark rim, so that it shows on bright and on dark ground. A small image is enlarged, so that there
    is room for the words.

    Args:
        pixels: (H, W), (H, W, 1) or (H, W, 3) of the size that the detections name; types other than uint8 are
            stretched from their smallest to their largest value.
        detections: what to draw, and the truth if it is known.
        min_score: detections with a lower score are left out.
        min_side: the shorter side of the result in pixels, at least, unless the longer would exceed 1600.

    Raises:
        ValueError: the image has another size than the detections say.
    """
    picture = to_picture(pixels)
    if picture.shape[:2] != tuple(detections.size):
        raise ValueError(f"the image is {picture.shape[:2]}, the detections are of one of {tuple(detections.size)}")
    height, width = picture.shape[:2]
    factor = max(1.0, min(min_side / min(height, width), _MOST_PIXELS / max(height, width)))
    canvas = PillowImage.fromarray(picture)
    if factor > 1:
        canvas = canvas.resize((round(width * factor), round(height * factor)), PillowImage.Resampling.BICUBIC)
    scale = _Scale(factor, max(2, round(canvas.height / 300)), max(11, min(22, round(canvas.height / 36))))
    pen = ImageDraw.Draw(canvas)
    truth = detections.truth
    if truth is not None:
        for box, label, ignored in zip(truth.boxes, truth.classes, truth.ignored, strict=True):
            colour = _IGNORED if ignored else _colour(label)
            _dashed(pen, _placed(box, scale, canvas.size, around=scale.line + 2), colour, scale)
    shown = detections.above(min_score)
    order = np.argsort(shown.scores, kind="stable")
    for row in order:
        _solid(pen, _placed(shown.boxes[row], scale, canvas.size), _colour(shown.classes[row]), scale)
    taken: list[tuple[float, float, float, float]] = []
    for row in order[::-1]:  # the surest detection gets the best place for its words
        text = f"{shown.class_names[shown.classes[row]]} {100 * shown.scores[row]:.0f}"
        place = _placed(shown.boxes[row], scale, canvas.size)
        _label(pen, text, place, _colour(shown.classes[row]), scale, canvas.size, taken)
    return np.asarray(canvas)


def draw_pair(
    pictures: Mapping[str, np.ndarray],
    detections: Detections,
    *,
    min_score: float = 0.25,
    title: str | None = None,
    min_side: int = 448,
) -> UInt8[np.ndarray, "rows columns 3"]:
    """All images of a sample side by side, each under its name, with the legend of what occurs below.

    Args:
        pictures: name ("RGB", "infrared") -> pixels; see `draw`. All of the size that the detections name.
        detections, min_score, min_side: see `draw`.
        title: text above the images; the id of the sample if None, nothing if "".

    Raises:
        ValueError: no picture; see `draw`.
    """
    if not pictures:
        raise ValueError("there is no picture to draw on")
    drawn = {name: draw(p, detections, min_score=min_score, min_side=min_side) for name, p in pictures.items()}
    height = max(picture.shape[0] for picture in drawn.values())
    letters = max(12, min(20, round(height / 30)))
    blocks = [
        np.concatenate([_strip(picture.shape[1], [(name, None)], letters), picture])
        for name, picture in drawn.items()
    ]
    space = np.full((blocks[0].shape[0], _GAP, 3), 255, np.uint8)
    row = np.concatenate([part for block in blocks for part in (block, space)][:-1], axis=1)
    text = detections.id if title is None else title
    above = [_strip(row.shape[1], [(text, None)], letters)] if text else []
    return np.concatenate([*above, row, _legend(row.shape[1], detections, min_score, letters)])


def write_picture(path: str | Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes a picture in the format of the path's suffix (.png, .jpg), whole or not at all."""
    with atomic_path(path) as temporary:
        PillowImage.fromarray(picture).save(temporary)


def _colour(label: int | np.integer) -> Colour:
    return COLOURS[int(label) % len(COLOURS)]


def _placed(
    box: np.ndarray, scale: _Scale, size: tuple[int, int], around: int = 0
) -> tuple[float, float, float, float]:
    """A box in the pixels of the canvas: what lies outside is drawn at its edge, and a point can still be seen.

    The truth is drawn a little around its box, so that a detection that fits exactly does not hide it.
    """
    x1, y1, x2, y2 = (float(side) * scale.factor for side in box)
    right, bottom, least = size[0] - 1.0, size[1] - 1.0, 2.0 * scale.line
    x1, y1 = (max(0.0, min(low - around, end - least)) for low, end in ((x1, right), (y1, bottom)))
    x2, y2 = (min(end, max(high + around, low + least)) for high, low, end in ((x2, x1, right), (y2, y1, bottom)))
    return x1, y1, x2, y2


def _solid(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: Colour, scale: _Scale) -> None:
    x1, y1, x2, y2 = box
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_DARK, width=scale.line + 2)
    pen.rectangle(box, outline=colour, width=scale.line)


def _dashed(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: Colour, scale: _Scale) -> None:
    """Dashes of the colour with dark gaps, so that the line shows on any ground."""
    x1, y1, x2, y2 = box
    length = 4.0 + 3 * scale.line
    for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        pen.line((*start, *end), fill=_DARK, width=scale.line + 1)
        whole = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
        count = max(1, round(whole / length / 2))
        for number in range(count):
            a, b = (2 * number + 0.5) / (2 * count), (2 * number + 1.5) / (2 * count)
            part = [start[k] + at * (end[k] - start[k]) for at in (a, b) for k in (0, 1)]
            pen.line(part, fill=colour, width=scale.line + 1)


def _label(
    pen: ImageDraw.ImageDraw,
    text: str,
    box: tuple[float, float, float, float],
    colour: Colour,
    scale: _Scale,
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """The words on a patch of the colour: above the box, below it, or inside, where they hide no others."""
    font = ImageFont.load_default(size=scale.letters)
    width, height = font.getlength(text) + 2 * _MARGIN, float(scale.letters + _MARGIN)
    x1, y1, x2, y2 = box
    places = [(x1, y1 - height), (x1, y2), (x1, y1), (x2 - width, y1 - height), (x2 - width, y2), (x2, y1)]
    patches = [_moved_inside(x, y, width, height, size) for x, y in places]
    patch = next((p for p in patches if not any(_touch(p, other) for other in taken)), patches[0])
    taken.append(patch)
    pen.rectangle(patch, fill=colour, outline=_DARK)
    pen.text(((patch[0] + patch[2]) / 2, (patch[1] + patch[3]) / 2), text, _ink(colour), font=font, anchor="mm")


def _moved_inside(
    x: float, y: float, width: float, height: float, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    x = max(0.0, min(x, size[0] - 1 - width))
    y = max(0.0, min(y, size[1] - 1 - height))
    return x, y, x + width, y + height


def _touch(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ink(colour: Colour) -> Colour:
    """Black or white, whichever is easier to read on the colour."""
    brightness = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return _DARK if brightness > 120 else (255, 255, 255)


def _legend(width: int, detections: Detections, min_score: float, letters: int) -> UInt8[np.ndarray, "h w 3"]:
    shown = detections.above(min_score)
    truth = detections.truth
    true_labels = [] if truth is None else truth.classes[~truth.ignored].tolist()
    labels = sorted(set(shown.classes.tolist()) | set(true_labels))
    words: list[tuple[str, Colour | None]] = [(detections.class_names[label], _colour(label)) for label in labels]
    if truth is not None and len(truth.boxes):
        words.append(("dashed: truth", None))
        if truth.ignored.any():
            words.append(("ignored", _IGNORED))
    hidden = len(detections) - len(shown)
    words.append((f"{len(shown)} shown" + (f", {hidden} below {min_score:.2g}" if hidden else ""), None))
    return _strip(width, words, letters)


def _strip(width: int, words: Sequence[tuple[str, Colour | None]], letters: int) -> UInt8[np.ndarray, "h w 3"]:
    """White lines of words, each behind a patch of its colour if it has one; as many lines as it takes."""
    font = ImageFont.load_default(size=letters)
    step = letters + 2 * _MARGIN
    lines: list[list[tuple[float, str, Colour | None]]] = [[]]
    x = float(_MARGIN)
    for text, colour in words:
        needed = font.getlength(text) + 3 * _MARGIN + (0 if colour is None else letters)
        if lines[-1] and x + needed > width:
            lines.append([])
            x = float(_MARGIN)
        lines[-1].append((x, text, colour))
        x += needed + _MARGIN
    strip = PillowImage.new("RGB", (width, step * len(lines)), "white")
    pen = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        middle = (number + 0.5) * step
        for start, text, colour in line:
            if colour is not None:
                patch = (start, middle - letters / 2, start + letters, middle + letters / 2)
                pen.rectangle(patch, fill=colour, outline=_DARK)
                start += letters + _MARGIN
            pen.text((start, middle), text, "black", font=font, anchor="lm")
    return np.asarray(strip)
