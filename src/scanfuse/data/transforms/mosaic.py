"""Four pairs around one point: a training picture with four contexts and smaller objects.

    +-----+--------+      the canvas is 2 size x 2 size; each pair is resized so that its longer side is `size`
    |  0  |   1    |      and touches the point with one corner; what reaches out of the canvas is cut off
    +-----x--------+
    |  2  |   3    |      x is drawn from the middle half of the canvas in both directions
    +-----+--------+

Source: A. Bochkovskiy et al.: YOLOv4, 2020, section 3.3. Crop it to the network's input with `paired_affine`, whose
shift and scale then move the point about.
"""

from collections.abc import Sequence

import numpy as np

from scanfuse.data.boxes import joined
from scanfuse.data.transforms.pair import MIN_SHARE, MIN_SIDE, Pair, canvases, kept, paste

__all__ = ["mosaic"]


def mosaic(
    pairs: Sequence[Pair],
    *,
    size: int,
    random: np.random.Generator,
    min_share: float = MIN_SHARE,
    min_side: float = MIN_SIDE,
) -> Pair:
    """Four pairs as one of 2 size x 2 size pixels, RGB and infrared cut alike; boxes by the rule of `pair.kept`.

    Args:
        pairs: four, of any sizes, with the same classes.
        size: the longer side of each, in pixels.
        random: draws where they meet.
        min_share: a box is dropped if less of it is left.
        min_side: a box is dropped if what is left is narrower or lower, in pixels.

    Raises:
        ValueError: not four pairs, or unequal classes.
    """
    if len(pairs) != 4:
        raise ValueError(f"a mosaic takes four pairs, not {len(pairs)}")
    x, y = (int(place) for place in random.integers(size // 2, size + size // 2 + 1, 2))
    onto = canvases((2 * size, 2 * size))
    found = []
    for number, pair in enumerate(pairs):
        factor = size / max(pair.size)
        height, width = (max(1, round(side * factor)) for side in pair.size)
        left = x if number % 2 else x - width
        top = y if number // 2 else y - height
        # The part on the canvas, there and in the picture.
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, 2 * size), min(top + height, 2 * size)
        scale = np.array([width / pair.size[1], height / pair.size[0]] * 2)
        shift = np.array([left, top] * 2)
        part = (np.array([x1, y1, x2, y2]) - shift) / scale
        limits = [pair.size[1], pair.size[0]] * 2
        edges = np.clip(part, 0, limits).tolist()
        paste(pair, (edges[0], edges[1], edges[2], edges[3]), onto, (x1, y1, x2, y2))
        moved = pair.boxes.xyxy * scale + shift
        cut, stays = kept(moved, (x1, y1, x2, y2), min_share=min_share, min_side=min_side)
        found.append(pair.boxes.at(stays).moved(cut[stays]))
    return Pair(onto[0], onto[1], joined(found))
