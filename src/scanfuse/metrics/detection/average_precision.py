"""COCO's average precision and recall from matches, for thousands of weightings of the images at once.

With weights 1 the numbers are those of the published evaluation (`coco.library_scores` gives them too); whole weights
give those of the data set with images repeated. The bootstrap over scenes needs nothing else.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy import sparse

from scanfuse.metrics.classification.inputs import checked_weights, mean_of_defined, ratio
from scanfuse.metrics.detection.matching import IGNORED, ClassMatches, Matches

__all__ = ["MAX_DETECTIONS", "RECALLS", "AveragePrecision", "average_precision", "summary"]

RECALLS: Float64[np.ndarray, " 101"] = np.linspace(0.0, 1.0, 101)
"""Where the precision is read."""

MAX_DETECTIONS = (1, 10, 100)
"""Detections per image and class, for the average recall."""

_BLOCK = 500_000
"""Numbers in one block of curves: 4 MB."""


class AveragePrecision(NamedTuple):
    """Of every weighting (r), class (c), area range (a) and IoU threshold (t); NaN where there is no object.

    Attributes:
        precision: average precision. recall: the largest recall, for 1, 10 and 100 detections per image (m).
    """

    precision: Float64[np.ndarray, "r c a t"]
    recall: Float64[np.ndarray, "r c a m t"]


def average_precision(matches: Matches, weights: ArrayLike | None = None) -> AveragePrecision:
    """The average precision of each class:

        TP_k, FP_k   summed weights of the right and wrong detections among the k of the highest scores
        P_k = TP_k / (TP_k + FP_k),   R_k = TP_k / summed weight of the objects
        AP = mean over r = 0, 0.01, ..., 1 of the largest P_k with R_k >= r  (0 where there is none)

    Exact for whole weights and different scores. Where detections of one class and image have equal scores, a
    repeated image counts as one block of detections, while a real copy would bring them in turn.

    Args:
        matches: of `matching.match`.
        weights: (r, n) or (n,), how often each image counts, not negative; None counts every image once.

    Raises:
        ValueError: see `metrics.classification.inputs.checked_weights`.

    Source: Lin et al., "Microsoft COCO", ECCV 2014, and its published evaluation.
    """
    w = checked_weights(weights, matches.num_images)
    shape = (len(w), len(matches.classes), len(matches.areas))
    precision = np.empty((*shape, len(matches.thresholds)))
    recall = np.empty((*shape, len(MAX_DETECTIONS), len(matches.thresholds)))
    for number, of_class in enumerate(matches.classes):
        precision[:, number], recall[:, number] = _of_class(of_class, w)
    return AveragePrecision(precision, recall)


def summary(
    matches: Matches, weights: ArrayLike | None = None
) -> tuple[dict[str, Float64[np.ndarray, " r"]], list[dict[str, Float64[np.ndarray, " r"]]]]:
    """COCO's table, over all classes and of each class.

    Names: map, map50, map75 (where those thresholds were matched), map_<area> for the further area ranges; ar1, ar10,
    ar100, ar_<area> (of 100). A class without an object is left out of the means; without any, they are NaN.

    Args:
        matches: of `matching.match`. weights: see `average_precision`.

    Returns:
        name -> (r,) over all classes, and the same for each class.
    """
    found = average_precision(matches, weights)
    columns = {"map": np.arange(len(matches.thresholds))}
    for name, level in (("map50", 0.5), ("map75", 0.75)):
        at = np.flatnonzero(np.isclose(matches.thresholds, level))
        if at.size:
            columns[name] = at
    each: list[dict[str, np.ndarray]] = []
    for c in range(len(matches.classes)):
        row = {name: found.precision[:, c, 0, at].mean(axis=-1) for name, at in columns.items()}
        for a, area in enumerate(matches.areas[1:], start=1):
            row[f"map_{area}"] = found.precision[:, c, a].mean(axis=-1)
        for m, most in enumerate(MAX_DETECTIONS):
            row[f"ar{most}"] = found.recall[:, c, 0, m].mean(axis=-1)
        for a, area in enumerate(matches.areas[1:], start=1):
            row[f"ar_{area}"] = found.recall[:, c, a, -1].mean(axis=-1)
        each.append(row)
    names = each[0] if each else ()
    return {name: mean_of_defined([row[name] for row in each]) for name in names}, each


def _of_class(matches: ClassMatches, w: Float64[np.ndarray, "r n"]) -> tuple[np.ndarray, np.ndarray]:
    num_areas, num_levels, _ = matches.state.shape
    columns = np.ascontiguousarray(w.T)
    precision = np.empty((len(w), num_areas, num_levels))
    recall = np.empty((len(w), num_areas, len(MAX_DETECTIONS), num_levels))
    for area in range(num_areas):
        objects = matches.num_true[area].astype(np.float64) @ columns
        for level in range(num_levels):
            state = matches.state[area, level]
            right = np.flatnonzero(state == 1)
            precision[:, area, level] = _precision(matches.image, state, right, columns, objects)
            for m, most in enumerate(MAX_DETECTIONS):
                per_image = np.bincount(matches.image[right[matches.rank[right] < most]], minlength=len(columns))
                recall[:, area, m, level] = ratio(per_image.astype(np.float64) @ columns, objects)
    return precision, recall


def _precision(
    image: np.ndarray, state: np.ndarray, right: np.ndarray, columns: np.ndarray, objects: np.ndarray
) -> Float64[np.ndarray, " r"]:
    """The average precision. Wrong detections lower the precision and leave the recall, so that its maxima and the
    steps of the recall lie at right ones; those between two right ones are summed at once, by image."""
    defined = np.where(objects > 0, 0.0, np.nan)
    if not right.size:
        return defined
    counted = np.flatnonzero(state[: right[-1] + 1] != IGNORED)
    until = np.searchsorted(right, counted)
    entries = (np.ones(len(counted)), (until, image[counted]))
    between = sparse.csr_array(entries, shape=(len(right), len(columns)))
    found = np.empty_like(defined)
    block = max(1, _BLOCK // len(right))
    for start in range(0, len(objects), block):
        w, goal = columns[:, start : start + block], objects[start : start + block]
        called = np.cumsum(between @ w, axis=0)
        hits = np.cumsum(w[image[right]], axis=0)
        precise = hits / (called + np.spacing(1))
        best = np.maximum.accumulate(precise[::-1], axis=0)[::-1]
        reached = np.searchsorted(RECALLS, ratio(hits, goal), side="right")
        steps = np.diff(reached, axis=0, prepend=0)
        found[start : start + block] = (best * steps).sum(axis=0) / len(RECALLS)
    return defined + found
