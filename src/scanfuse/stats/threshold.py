"""Where to cut a probability; to be chosen on validation samples, never on the ones that are reported."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from scanfuse.metrics.classification.ranking import roc_curve

__all__ = ["Rule", "Threshold", "choose_threshold"]

Rule = Literal["youden", "sensitivity", "fixed"]


class Threshold(NamedTuple):
    """A cut (positive if probability >= value) and its rates on the samples that it was chosen on.

    Attributes:
        value: in the unit of the score.
        sensitivity, specificity: NaN without positives or negatives.
        note: why the rule could not be applied; "" where it was.
    """

    value: float
    sensitivity: float
    specificity: float
    note: str = ""


def choose_threshold(
    target: ArrayLike,
    score: ArrayLike,
    rule: Rule = "youden",
    *,
    sensitivity: float = 0.9,
    fixed: float = 0.5,
) -> Threshold:
    """The threshold that a rule asks for.

    youden: the largest sensitivity + specificity - 1; of equal ones the most sensitive.
    sensitivity: the largest specificity among the thresholds with at least the wanted sensitivity.
    fixed: `fixed`.

    The value lies halfway between the lowest score that is called positive and the next lower one, so that rounding
    does not turn a decision. Without both classes no rule can be applied: `fixed`, with a note.

    Args:
        target: (n,), 0 or 1.
        score: (n,), higher means positive.
        rule: see above.
        sensitivity: wanted by the rule of that name, in (0, 1].
        fixed: the fixed threshold.

    Raises:
        ValueError: see `metrics.classification.inputs.checked`; sensitivity out of range.

    Source: Youden 1950.
    """
    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity is {sensitivity}; it must be above 0 and at most 1")
    curve = roc_curve(target, score)
    y, p = np.asarray(target).astype(bool), np.asarray(score, np.float64)
    if rule == "fixed" or not curve.x.size:
        called = p >= fixed
        rates = [float(np.mean(part)) if part.size else float("nan") for part in (called[y], ~called[~y])]
        missing = "positive" if not y.any() else "negative"
        note = "" if rule == "fixed" else f"no validation sample is {missing}: threshold left at {fixed:g}"
        return Threshold(fixed, rates[0], rates[1], note)
    gain = curve.y - curve.x if rule == "youden" else np.where(curve.y >= sensitivity - 1e-12, 1 - curve.x, -np.inf)
    # Thresholds fall along the curve, so the last of equal gains is the most sensitive. It is never the first point,
    # which calls nothing positive: the last point has the same gain (youden) or the first is not sensitive enough.
    best = int(np.flatnonzero(gain >= gain.max() - 1e-12)[-1])
    lower = curve.thresholds[min(best + 1, curve.x.size - 1)]
    value = float((curve.thresholds[best] + lower) / 2)
    return Threshold(value, float(curve.y[best]), float(1 - curve.x[best]))
