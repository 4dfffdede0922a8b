"""Which class is taken for which, with the background as one more class."""

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from scanfuse.metrics.classification.inputs import checked_weights
from scanfuse.metrics.detection.matching import IGNORED, Matches

__all__ = ["confusion"]


def confusion(
    matches: Matches, *, confidence: float = 0.25, weights: ArrayLike | None = None
) -> Float64[np.ndarray, "r c1 c1"]:
    """Counts of true class (rows) and predicted class (columns); the last of each is the background.

    Detections are matched to objects of any class at IoU 0.5, see `matching.AnyClassMatches`. An object without a
    detection is one of its class taken for background; a detection without an object is background taken for its
    class. Ignored objects and their detections do not occur, and background taken for background is 0.

    Args:
        matches: of `matching.match`.
        confidence: detections with a lower score are left out.
        weights: (r, n) or (n,), how often each image counts; None counts every image once.

    Returns:
        (r, c + 1, c + 1), one matrix per weighting.
    """
    found = matches.any_class
    w = checked_weights(weights, matches.num_images)
    num_images, num_classes = matches.num_images, len(matches.classes)
    side = num_classes + 1
    counted = (found.score >= confidence) & (found.true != IGNORED)
    place = (found.image * side + found.true) * side + found.predicted
    counts = np.bincount(place[counted], minlength=num_images * side * side).reshape(num_images, side, side)
    counts[:, :num_classes, num_classes] = found.num_true - counts[:, :num_classes].sum(axis=2)
    return np.tensordot(w, counts.astype(np.float64), axes=1)
