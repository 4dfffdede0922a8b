"""What every detection metric reads: the predicted and the true boxes of one image."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import ArrayLike

__all__ = ["ImageBoxes", "checked", "iou_matrix", "with_sides"]


class ImageBoxes(NamedTuple):
    """The boxes of one image; x1, y1, x2, y2 in pixels. Build it with `checked`.

    Attributes:
        boxes, scores, classes: n predictions; scores in any range, higher is surer.
        true_boxes, true_classes: m objects.
        ignored: objects that need not be found and whose detections do not count (COCO: crowds).
    """

    boxes: Float64[np.ndarray, "n 4"]
    scores: Float64[np.ndarray, " n"]
    classes: Int64[np.ndarray, " n"]
    true_boxes: Float64[np.ndarray, "m 4"]
    true_classes: Int64[np.ndarray, " m"]
    ignored: Bool[np.ndarray, " m"]


def checked(
    boxes: ArrayLike,
    scores: ArrayLike,
    classes: ArrayLike,
    true_boxes: ArrayLike,
    true_classes: ArrayLike,
    ignored: ArrayLike | None = None,
) -> ImageBoxes:
    """The arrays as `ImageBoxes`; `ignored` None means that no object is.

    Raises:
        ValueError: lengths differ, a number is not finite, a box is turned inside out, a class is negative.
    """
    labels = np.asarray(true_classes, np.int64).reshape(-1)
    parts = ImageBoxes(
        np.asarray(boxes, np.float64).reshape(-1, 4),
        np.asarray(scores, np.float64).reshape(-1),
        np.asarray(classes, np.int64).reshape(-1),
        np.asarray(true_boxes, np.float64).reshape(-1, 4),
        labels,
        np.zeros(len(labels), bool) if ignored is None else np.asarray(ignored, bool).reshape(-1),
    )
    if not len(parts.boxes) == len(parts.scores) == len(parts.classes):
        raise ValueError(
            f"there are {len(parts.boxes)} boxes, {len(parts.scores)} scores and {len(parts.classes)} classes"
        )
    if not len(parts.true_boxes) == len(parts.true_classes) == len(parts.ignored):
        raise ValueError(
            f"there are {len(parts.true_boxes)} true boxes, {len(parts.true_classes)} classes and "
            f"{len(parts.ignored)} flags of what is ignored"
        )
    for name, array in (("boxes", parts.boxes), ("true_boxes", parts.true_boxes)):
        if not np.isfinite(array).all() or (array[:, 2:] < array[:, :2]).any():
            raise ValueError(f"{name} hold a box that is not finite or whose second corner lies before its first")
    if not np.isfinite(parts.scores).all():
        raise ValueError("a score is not finite")
    if min(parts.classes.min(initial=0), parts.true_classes.min(initial=0)) < 0:
        raise ValueError("a class is negative; classes are counted from 0")
    return parts


def check_classes(images: Sequence[ImageBoxes], num_classes: int) -> None:
    """Refuses a class beyond the last (ValueError)."""
    largest = max((int(part.max(initial=-1)) for i in images for part in (i.classes, i.true_classes)), default=-1)
    if largest >= num_classes:
        raise ValueError(f"class {largest} occurs, but there are {num_classes} classes, counted from 0")


def with_sides(boxes: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 4"]:
    """x1, y1, x2, y2 -> x, y, width, height, the form of COCO."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def iou_matrix(
    first: Float64[np.ndarray, "n 4"],
    second: Float64[np.ndarray, "m 4"],
    covered: Bool[np.ndarray, " m"] | None = None,
) -> Float64[np.ndarray, "n m"]:
    """Intersection over union of all pairs of boxes given as x, y, width, height; 0 where there is no area.

    Where `covered`, the denominator is the area of the first box alone: the share of it that the second covers.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, :2] + first[:, None, 2:], second[None, :, :2] + second[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    common = sides[..., 0] * sides[..., 1]
    areas_first, areas_second = first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]
    whole = areas_first[:, None] + areas_second[None] - common
    if covered is not None:
        whole = np.where(covered[None], areas_first[:, None], whole)
    return np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
