"""Log-average miss rate of one class, the measure of pedestrian benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64
from numpy.typing import ArrayLike

from scanfuse.metrics.classification.inputs import checked_weights, ratio
from scanfuse.metrics.detection.inputs import ImageBoxes, iou_matrix, with_sides

__all__ = [
    "REFERENCES",
    "Convention",
    "MissCurve",
    "MissMatches",
    "log_average_miss_rate",
    "match_misses",
    "miss_curve",
    "reasonable",
]

Convention = Literal["caltech", "lowest_fppi", "wrap", "kaist_python"]
"""What the miss rate is at a reference point below the lowest false positives per image that the curve reaches:

    caltech       1; of the Caltech and KAIST Matlab toolboxes, the standard
    lowest_fppi   the miss rate at the lowest false positives per image reached
    wrap          that of the end of the curve, an accident of Python ports; always flattering
    kaist_python  as wrap, with reference points rounded to four decimals, no floor of the miss rate, and without the
                  objects of images that have no detection; only to compare with numbers that were made so
"""

REFERENCES: Float64[np.ndarray, " 9"] = 10.0 ** np.linspace(-2, 0, 9)
"""False positives per image at which the miss rate is read."""

_FLOOR = 1e-10


@dataclass(frozen=True)
class MissMatches:
    """The detections of one class, over all images by falling score.

    Attributes:
        image, score: of each detection.
        state: 1 right, 0 wrong, -1 ignored.
        num_true: objects of each image that must be found. has_detections: images with a detection of the class.
    """

    image: Int64[np.ndarray, " d"]
    score: Float64[np.ndarray, " d"]
    state: Int8[np.ndarray, " d"]
    num_true: Int64[np.ndarray, " n"]
    has_detections: Bool[np.ndarray, " n"]


class MissCurve(NamedTuple):
    """Points by falling score: false positives per image, miss rate, and the score that is reached."""

    fppi: Float64[np.ndarray, " k"]
    miss: Float64[np.ndarray, " k"]
    score: Float64[np.ndarray, " k"]


def reasonable(
    image: ImageBoxes,
    occluded: ArrayLike | None = None,
    *,
    min_height: float = 55.0,
    expanded: float | None = None,
) -> ImageBoxes:
    """The "reasonable" setting of pedestrian benchmarks: small and heavily occluded people are ignored.

    Args:
        image: its boxes.
        occluded: (m,), true for objects that are heavily occluded; None for none.
        min_height: in pixels; lower objects are ignored.
        expanded: factor, 1.25 in the Caltech benchmark: detections lower than min_height / expanded are removed, so
            that what was found of ignored small people is no false positive. None keeps all.
    """
    low = image.true_boxes[:, 3] - image.true_boxes[:, 1] < min_height
    heavy = np.zeros(len(low), bool) if occluded is None else np.asarray(occluded, bool)
    kept = np.ones(len(image.boxes), bool)
    if expanded is not None:
        kept = image.boxes[:, 3] - image.boxes[:, 1] >= min_height / expanded
    return image._replace(
        boxes=image.boxes[kept],
        scores=image.scores[kept],
        classes=image.classes[kept],
        ignored=image.ignored | low | heavy,
    )


def match_misses(
    images: Sequence[ImageBoxes],
    label: int = 0,
    *,
    min_iou: float = 0.5,
    ignored_by: Literal["coverage", "iou"] = "coverage",
) -> MissMatches:
    """Matches the detections of a class.

    Image by image and by falling score, a detection takes the free object with the largest IoU if that is at least
    `min_iou`, and is right. Else, where an ignored object overlaps with it by at least as much, it is ignored; an
    ignored object does this any number of times. Else it is wrong.

    Args:
        images: all images, with or without boxes; all of them count for the false positives per image.
        label: number of the class.
        min_iou: smallest overlap.
        ignored_by: how the overlap with ignored objects is measured: the share of the detection that they cover, as
            the Caltech benchmark does, or IoU.

    Source: Dollar et al., "Pedestrian Detection: An Evaluation of the State of the Art", TPAMI 2012.
    """
    found: list[tuple[np.ndarray, ...]] = []
    num_true = np.zeros(len(images), np.int64)
    for number, image in enumerate(images):
        mine = np.flatnonzero(image.classes == label)
        mine = mine[np.argsort(-image.scores[mine], kind="stable")]
        detections = with_sides(image.boxes[mine])
        objects = image.true_classes == label
        truth, others = (with_sides(image.true_boxes[objects & part]) for part in (~image.ignored, image.ignored))
        num_true[number] = len(truth)
        state = np.zeros(len(mine), np.int8)
        covered = np.full(len(others), ignored_by == "coverage")
        state[iou_matrix(detections, others, covered).max(axis=1, initial=-1.0) >= min_iou] = -1
        fit = iou_matrix(detections, truth)
        for detection in np.flatnonzero(fit.max(axis=1, initial=-1.0) >= min_iou):
            best = int(np.argmax(fit[detection]))
            if fit[detection, best] >= min_iou:
                state[detection] = 1
                fit[:, best] = -1.0
        found.append((np.full(len(mine), number), image.scores[mine], state))
    if not found:
        empty = np.zeros(0, np.int64)
        return MissMatches(empty, np.zeros(0), np.zeros(0, np.int8), num_true, np.zeros(0, bool))
    image_of, score, states = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(-score, kind="stable")
    has_detections = np.bincount(image_of, minlength=len(images)) > 0
    return MissMatches(image_of[order], score[order], states[order], num_true, has_detections)


def miss_curve(matches: MissMatches) -> MissCurve:
    """False positives per image and miss rate after each detection that is not ignored.

    Empty without an image, an object or a detection that counts.
    """
    counted = matches.state >= 0
    right = matches.state[counted] == 1
    num_true = matches.num_true.sum()
    if not len(matches.num_true) or not num_true:
        return MissCurve(np.zeros(0), np.zeros(0), np.zeros(0))
    fppi = np.cumsum(~right) / len(matches.num_true)
    return MissCurve(fppi, 1 - np.cumsum(right) / num_true, matches.score[counted])


def log_average_miss_rate(
    matches: MissMatches, weights: ArrayLike | None = None, *, convention: Convention = "caltech"
) -> Float64[np.ndarray, " r"]:
    """exp(mean of ln(miss rate) at nine points, 10^-2 to 10^0 false positives per image); lower is better.

    Read at the last point of the curve whose false positives per image do not exceed the reference; a curve that ends
    early keeps its last miss rate, and every miss rate is at least 1e-10. NaN without an object, 1 without a
    detection. Under `caltech`, whole weights give what repeated images give; under the other conventions they need
    not, since a repeated image brings the curve's first point nearer to 0 than its weight does.

    Args:
        matches: of `match_misses`.
        weights: (r, n) or (n,), how often each image counts, not negative; None counts every image once.
        convention: see `Convention`.

    Returns:
        (r,), one per weighting.

    Source: Dollar et al., TPAMI 2012, section 3.1, and the conventions of its published ports.
    """
    w = checked_weights(weights, len(matches.num_true))
    counted = matches.state >= 0
    image, right = matches.image[counted], matches.state[counted] == 1
    is_port = convention == "kaist_python"
    num_true = matches.num_true * matches.has_detections if is_port else matches.num_true
    references = np.round(REFERENCES, 4) if is_port else REFERENCES
    rates = np.empty(len(w))
    rows = max(1, 1_000_000 // max(1, len(image)))
    for start in range(0, len(w), rows):
        part = w[start : start + rows]
        objects = part @ num_true.astype(np.float64)
        each = part[:, image]
        seen = np.cumsum(each, axis=1)
        hits = np.cumsum(each * right, axis=1)
        fppi = ratio(np.cumsum(each * ~right, axis=1), part.sum(axis=1, keepdims=True))
        miss = 1 - ratio(hits, objects[:, None])
        at = _read(fppi, miss, seen, references, convention)
        with np.errstate(divide="ignore"):  # a miss rate of 0 gives 0 in the port, which has no floor
            logs = np.log(at if is_port else np.maximum(at, _FLOOR))
        rates[start : start + rows] = np.where(objects > 0, np.exp(logs.mean(axis=1)), np.nan)
    return rates


def _read(
    fppi: np.ndarray, miss: np.ndarray, seen: np.ndarray, references: np.ndarray, convention: Convention
) -> Float64[np.ndarray, "r 9"]:
    """The miss rates at the reference points; points before the first detection of any weight do not exist."""
    at = np.ones((len(fppi), len(references)))
    if not fppi.shape[1]:
        return at
    exists = seen[:, -1] > 0
    row = np.arange(len(fppi))
    lowest = fppi[row, np.argmax(seen > 0, axis=1)][:, None]
    for column, reference in enumerate(references):
        last = (fppi <= reference).sum(axis=1) - 1
        reached = (last >= 0) & (seen[row, last] > 0)
        if convention == "caltech":
            otherwise = np.ones(len(fppi))
        elif convention == "lowest_fppi":
            otherwise = miss[row, (fppi <= lowest).sum(axis=1) - 1]
        else:
            otherwise = miss[:, -1]
        at[:, column] = np.where(exists, np.where(reached, miss[row, last], otherwise), 1.0)
    return at
