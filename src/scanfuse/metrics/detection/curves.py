"""Precision and recall of one class as its detections are taken by falling score."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from scanfuse.metrics.classification.inputs import ratio
from scanfuse.metrics.detection.average_precision import RECALLS
from scanfuse.metrics.detection.matching import IGNORED, Matches

__all__ = ["PrecisionRecall", "precision_recall"]


class PrecisionRecall(NamedTuple):
    """A point per detection that is not ignored; empty without an object.

    Attributes:
        recall, precision, score: after the detections down to that score, one by one.
        at_recalls: the largest precision at a recall of at least 0, 0.01, ..., 1; 0 where none reaches it. Its mean
            is the average precision.
    """

    recall: Float64[np.ndarray, " k"]
    precision: Float64[np.ndarray, " k"]
    score: Float64[np.ndarray, " k"]
    at_recalls: Float64[np.ndarray, " p"]

    def best_f1(self) -> tuple[float, float]:
        """The largest 2 P R / (P + R) and the score that gives it; NaN for an empty curve."""
        if not self.score.size:
            return float("nan"), float("nan")
        f1 = np.nan_to_num(ratio(2 * self.precision * self.recall, self.precision + self.recall))
        best = int(np.argmax(f1))
        return float(f1[best]), float(self.score[best])


def precision_recall(matches: Matches, label: int, *, iou: float = 0.5, area: str = "all") -> PrecisionRecall:
    """The curve of a class at one IoU threshold and area range.

    Args:
        matches: of `matching.match`. label: number of the class. iou, area: of those that were matched.

    Raises:
        ValueError: that threshold, area or class was not matched.
    """
    at = np.flatnonzero(np.isclose(matches.thresholds, iou))
    if not at.size or area not in matches.areas or not 0 <= label < len(matches.classes):
        raise ValueError(f"class {label}, IoU {iou} and area {area!r} were not matched; see Matches")
    mine, row = matches.classes[label], matches.areas.index(area)
    num_true = mine.num_true[row].sum()
    if not num_true:
        return PrecisionRecall(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0))
    state = mine.state[row, at[0]]
    counted = state != IGNORED
    hits = np.cumsum(state[counted] == 1)
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / num_true
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    at_recalls = best[np.searchsorted(recall, RECALLS, side="left")]
    return PrecisionRecall(recall, precision, mine.score[counted], at_recalls)
