"""Random geometry, the same for RGB, infrared and boxes: scale, shift, mirror, and if wanted rotation and shear.

A movement is a matrix A (2, 3) from places in the picture to places in the result, in pixel edges (a picture covers 0
to its width and height): with c the centre of the picture, o the centre of the result and t the shift,

    q = F K R s (p - c) + o + t        F mirror, K shear, R rotation, s scale

A box follows as the box around its four moved corners. That is exact without rotation and shear; with them it grows
beyond the object, by up to a factor of two in area at 45 degrees for a square, which is why both are 0 by default.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
from jaxtyping import Float64

from scanfuse.data.transforms.pair import FILL, MIN_SHARE, MIN_SIDE, Pair, canvases, kept, paste, resized
from scanfuse.errors import UserError

__all__ = ["PairMovement", "move_boxes", "move_pair"]

Matrix = Float64[np.ndarray, "2 3"]


@dataclass(frozen=True)
class PairMovement:
    """Ranges of the random movement, each drawn evenly.

    The defaults are those of the YOLOv8 recipes (Ultralytics, 2023): scale 0.5, translate 0.1, fliplr 0.5.

    Attributes:
        scale: size from 1 - s to 1 + s.
        shift: of the sides of the result, from -s to s, in each direction.
        flip: chance of mirroring left and right.
        rotate_degrees: angle from -r to r.
        shear_degrees: slant of the upright and of the level lines, from -r to r each.
    """

    scale: float = 0.5
    shift: float = 0.1
    flip: float = 0.5
    rotate_degrees: float = 0.0
    shear_degrees: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.scale < 1 or not 0 <= self.flip <= 1 or not 0 <= self.shift < 1:
            raise UserError(f"Scale and shift must be 0 or more and below 1, and flip is a chance: {self}.")
        if not 0 <= self.rotate_degrees <= 180 or not 0 <= self.shear_degrees < 45:
            raise UserError(f"Rotation must be 0 to 180 degrees and shear 0 to below 45: {self}.")

    def draw(self, random: np.random.Generator, *, source: tuple[int, int], size: tuple[int, int]) -> Matrix:
        """One movement from pictures of height and width `source` to results of `size`.

        Always uses the same number of random values, so that an option changes no other draw.
        """
        draws = random.uniform(-1, 1, 6)
        mirror = -1.0 if random.random() < self.flip else 1.0
        factor = 1 + self.scale * draws[0]
        angle = math.radians(self.rotate_degrees * draws[3])
        cos, sin = math.cos(angle), math.sin(angle)
        across, down = (math.tan(math.radians(self.shear_degrees * draw)) for draw in draws[4:])
        turn = np.array([[cos, -sin], [sin, cos]])
        linear = np.diag([mirror, 1.0]) @ np.array([[1, across], [down, 1]]) @ turn * factor
        centre = np.array([source[1], source[0]]) / 2
        target = np.array([size[1] * (0.5 + self.shift * draws[1]), size[0] * (0.5 + self.shift * draws[2])])
        return np.concatenate([linear, (target - linear @ centre)[:, None]], axis=1)


def move_pair(
    pair: Pair, matrix: Matrix, size: tuple[int, int], *, min_share: float = MIN_SHARE, min_side: float = MIN_SIDE
) -> Pair:
    """The pair under one movement, grey where there was nothing; boxes by the rule of `pair.kept`.

    Bilinear, averaging where it shrinks, so that thin limbs do not vanish by chance.

    Args:
        pair: any size.
        matrix: from `PairMovement.draw`, or made by hand.
        size: height and width of the result.
        min_share: a box is dropped if less of it is left in the result.
        min_side: a box is dropped if what is left is narrower or lower, in pixels.
    """
    if matrix[0, 1] == 0 == matrix[1, 0]:
        rgb, ir = _straight(pair, matrix, size)
    else:
        rgb, ir = _slanted(pair, matrix, size)
    moved = move_boxes(pair.boxes.xyxy, matrix)
    cut, stays = kept(moved, (0, 0, size[1], size[0]), min_share=min_share, min_side=min_side)
    return replace(pair, rgb=rgb, ir=ir, boxes=pair.boxes.at(stays).moved(cut[stays]))


def move_boxes(xyxy: Float64[np.ndarray, "n 4"], matrix: Matrix) -> Float64[np.ndarray, "n 4"]:
    """The boxes around the moved corners, not cut."""
    corners = xyxy[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]  # (n, 4, 2)
    moved = corners @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)


def _straight(pair: Pair, matrix: Matrix, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Scale, shift and mirror only: one resize of the part that shows."""
    onto = canvases(size)
    spans, flips = [], []
    for axis, (side, out) in enumerate(((pair.size[1], size[1]), (pair.size[0], size[0]))):
        factor, shift = float(matrix[axis, axis]), float(matrix[axis, 2])
        flips.append(factor < 0)
        if factor < 0:  # mirror the picture instead
            factor, shift = -factor, shift + factor * side
        # The pixels of the result that lie wholly on the picture, and the part of the picture under them. A rounding
        # error must not take the last of them.
        first, last = max(0, math.ceil(shift - 1e-6)), min(out, math.floor(shift + factor * side + 1e-6))
        start, stop = ((edge - shift) / factor for edge in (first, last))
        spans.append((first, last, min(max(start, 0.0), float(side)), min(max(stop, 0.0), float(side))))
    (left, right, x1, x2), (top, bottom, y1, y2) = spans
    if right > left and bottom > top and x2 > x1 and y2 > y1:
        across, down = (slice(None, None, -1) if flip else slice(None) for flip in flips)
        turned = replace(pair, rgb=pair.rgb[down, across], ir=pair.ir[down, across])
        paste(turned, (x1, y1, x2, y2), onto, (left, top, right, bottom))
    return onto


def _slanted(pair: Pair, matrix: Matrix, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Any movement: shrink first where it shrinks, for the sampling itself takes four pixels and no more."""
    factor = min(1.0, math.sqrt(abs(float(np.linalg.det(matrix[:, :2])))))
    height, width = (max(1, round(side * factor)) for side in pair.size)
    whole = np.vstack([matrix, [0, 0, 1]])
    shrink = np.diag([width / pair.size[1], height / pair.size[0], 1.0])
    back = np.linalg.inv(whole @ np.linalg.inv(shrink))[:2].ravel().tolist()
    results = []
    for array, fill in ((pair.rgb, (FILL,) * 3), (pair.ir, FILL / 255)):
        small = resized(array, (height, width), (0, 0, pair.size[1], pair.size[0]))
        image = PIL.Image.fromarray(np.ascontiguousarray(small)).transform(
            size[::-1], PIL.Image.Transform.AFFINE, back, PIL.Image.Resampling.BILINEAR, fillcolor=fill
        )
        results.append(np.array(image))
    return results[0], results[1]
