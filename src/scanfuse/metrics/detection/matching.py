"""Which detections are right: the matches of every image, from which all detection metrics follow.

A match depends on its own image only. So a data set is matched once, and average precision, recall, curves and the
confusion matrix of any part of it, or of a resample, follow from these records and from how often each image counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64

from scanfuse.metrics.detection.inputs import ImageBoxes, check_classes, iou_matrix, with_sides

__all__ = ["AREAS", "IGNORED", "IOU_THRESHOLDS", "AnyClassMatches", "ClassMatches", "Matches", "match"]

IOU_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""COCO's: 0.50, 0.55, ..., 0.95."""

AREAS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
)
"""COCO's ranges of box area in pixels, both ends inside."""

IGNORED = -1
"""State of a detection that counts neither as right (1) nor as wrong (0)."""


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class, over all images by falling score (equal scores in the order of the images).

    Attributes:
        image, score: of each detection. rank: its place among those of its image, from 0.
        state: 1 right, 0 wrong, -1 ignored, for each area range and IoU threshold.
        num_true: objects that must be found, for each area range and image.
    """

    image: Int64[np.ndarray, " d"]
    score: Float64[np.ndarray, " d"]
    rank: Int64[np.ndarray, " d"]
    state: Int8[np.ndarray, "a t d"]
    num_true: Int64[np.ndarray, "a n"]


@dataclass(frozen=True)
class AnyClassMatches:
    """Detections matched to objects of whatever class at IoU 0.5, over all images by falling score.

    Attributes:
        image, score, predicted: of each detection.
        true: class of its object; the number of classes for background, -1 for a detection that is ignored.
        num_true: objects of each class in each image, without ignored ones.
    """

    image: Int64[np.ndarray, " d"]
    score: Float64[np.ndarray, " d"]
    predicted: Int64[np.ndarray, " d"]
    true: Int64[np.ndarray, " d"]
    num_true: Int64[np.ndarray, "n c"]


@dataclass(frozen=True)
class Matches:
    """All matches of a data set. See `match`."""

    num_images: int
    thresholds: tuple[float, ...]
    areas: tuple[str, ...]
    classes: tuple[ClassMatches, ...]
    any_class: AnyClassMatches


def match(
    images: Sequence[ImageBoxes],
    num_classes: int,
    *,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    areas: Mapping[str, tuple[float, float]] = AREAS,
    max_detections: int = 100,
) -> Matches:
    """Matches detections and objects as COCO does.

    Image by image and class by class, the `max_detections` best detections in the order of their scores each take the
    free object with the largest IoU, if that is at least the threshold, and are right. Objects that are ignored, or
    outside of the area range, are taken only where no other can be; their detections are ignored. A crowd is never
    used up, and the overlap with it is the share of the detection that it covers. A detection without an object is
    wrong, or ignored if its own area is outside of the range.

    Args:
        images: all images of the data set, in a fixed order.
        num_classes: classes are 0 .. num_classes - 1.
        thresholds: of IoU, ascending.
        areas: name -> smallest and largest area in pixels; the first is the one that tables are about.
        max_detections: per image and class.

    Raises:
        ValueError: a class beyond the last.

    Source: Lin et al., "Microsoft COCO", ECCV 2014, and its published evaluation.
    """
    check_classes(images, num_classes)
    ranges = np.array(list(areas.values()), np.float64).reshape(-1, 2)
    levels = np.array(thresholds, np.float64)
    classes = tuple(_of_class(images, label, levels, ranges, max_detections) for label in range(num_classes))
    return Matches(len(images), tuple(levels.tolist()), tuple(areas), classes, _any_class(images, num_classes))


def _of_class(
    images: Sequence[ImageBoxes], label: int, levels: np.ndarray, ranges: np.ndarray, most: int
) -> ClassMatches:
    num_true = np.zeros((len(ranges), len(images)), np.int64)
    found: list[tuple[np.ndarray, ...]] = []
    for number, image in enumerate(images):
        mine = np.flatnonzero(image.classes == label)
        mine = mine[np.argsort(-image.scores[mine], kind="stable")][:most]
        objects = image.true_classes == label
        detections, truth = with_sides(image.boxes[mine]), with_sides(image.true_boxes[objects])
        is_crowd = image.ignored[objects]
        area = truth[:, 2] * truth[:, 3]
        outside = (area < ranges[:, :1]) | (area > ranges[:, 1:])
        num_true[:, number] = (~(outside | is_crowd)).sum(axis=1)
        state = _states(detections, truth, is_crowd, outside, levels, ranges)
        found.append((np.full(len(mine), number), image.scores[mine], np.arange(len(mine)), state))
    if not found:
        empty = np.zeros(0, np.int64)
        return ClassMatches(empty, np.zeros(0), empty, np.zeros((len(ranges), len(levels), 0), np.int8), num_true)
    image_of, score, rank, state = (np.concatenate(part, axis=-1) for part in zip(*found, strict=True))
    order = np.argsort(-score, kind="stable")
    return ClassMatches(image_of[order], score[order], rank[order], state[..., order], num_true)


def _states(
    detections: Float64[np.ndarray, "d 4"],
    truth: Float64[np.ndarray, "m 4"],
    is_crowd: Bool[np.ndarray, " m"],
    outside: Bool[np.ndarray, "a m"],
    levels: Float64[np.ndarray, " t"],
    ranges: Float64[np.ndarray, "a 2"],
) -> Int8[np.ndarray, "a t d"]:
    """The states of the detections of one image and class; all area ranges and thresholds at once."""
    area = detections[:, 2] * detections[:, 3]
    is_odd = (area < ranges[:, :1]) | (area > ranges[:, 1:])
    state = np.repeat(np.where(is_odd, IGNORED, 0)[:, None].astype(np.int8), len(levels), axis=1)
    if not len(detections) or not len(truth):
        return state
    fit = iou_matrix(detections, truth, is_crowd)
    is_ignored = (outside | is_crowd)[:, None, :]
    is_free = np.ones((len(ranges), len(levels), len(truth)), bool)
    # An IoU of 1 must pass a threshold of 1 in spite of rounding, as in the published program.
    needed = np.minimum(levels, 1 - 1e-10)[None, :, None]
    for detection in np.flatnonzero(fit.max(axis=1) >= needed.min()):
        fits = fit[detection]
        can = is_free & (fits >= needed)
        counts = can & ~is_ignored
        has_object = counts.any(axis=-1)
        may = np.where(has_object[..., None], counts, can)
        takes = may.any(axis=-1)
        # Of equals the last object is taken, as in the published program.
        best = len(truth) - 1 - np.argmax(np.where(may, fits, -1.0)[..., ::-1], axis=-1)
        state[..., detection] = np.where(takes, np.where(has_object, 1, IGNORED), state[..., detection])
        rows, columns = np.nonzero(takes & ~is_crowd[best])
        is_free[rows, columns, best[rows, columns]] = False
    return state


def _any_class(images: Sequence[ImageBoxes], num_classes: int, level: float = 0.5) -> AnyClassMatches:
    """By falling score, a detection takes the free object of any class that overlaps most; of equals, its own class.

    Which detections an object has above some score therefore does not depend on those below: the records serve every
    confidence. A detection without an object that an ignored one covers by half is ignored.
    """
    num_true = np.zeros((len(images), num_classes), np.int64)
    found: list[tuple[np.ndarray, ...]] = []
    for number, image in enumerate(images):
        order = np.argsort(-image.scores, kind="stable")
        predicted = image.classes[order]
        detections = with_sides(image.boxes[order])
        truth, crowds = (with_sides(image.true_boxes[part]) for part in (~image.ignored, image.ignored))
        labels = image.true_classes[~image.ignored]
        num_true[number] = np.bincount(labels, minlength=num_classes)
        true = np.full(len(order), num_classes)
        if len(crowds):
            covered = iou_matrix(detections, crowds, np.ones(len(crowds), bool)).max(axis=1, initial=0)
            true[covered >= level] = IGNORED
        if len(truth):
            fit = iou_matrix(detections, truth)
            for detection in np.flatnonzero(fit.max(axis=1) >= level):
                fits = np.where(fit[detection] >= level, fit[detection], -1.0)
                best = np.lexsort((labels == predicted[detection], fits))[-1]
                if fits[best] >= level:
                    true[detection] = labels[best]
                    fit[:, best] = -1.0
        found.append((np.full(len(order), number), image.scores[order], predicted, true))
    if not found:
        empty = np.zeros(0, np.int64)
        return AnyClassMatches(empty, np.zeros(0), empty, empty, num_true)
    image_of, score, predicted, true = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(-score, kind="stable")
    return AnyClassMatches(image_of[order], score[order], predicted[order], true[order], num_true)
