"""Columns of a clinical table that would give the target away, and why: by their name, or by what they do alone.

What a name says is a list of rules: identifiers (of a patient, a lesion or a picture), what defines the target, what
is known only after the diagnosis, and what names the hospital or the camera. Values tell the rest: a column that
alone predicts the target almost perfectly is no finding of medicine but a leak, until somebody says otherwise.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int

__all__ = ["ALMOST_PERFECT", "classes_of", "leak_of", "separation"]

ALMOST_PERFECT = 0.99
"""From this separation on a single column is suspect."""
_FEWEST = 5
"""Rows of either outcome below which a separation says nothing."""

_IDENTIFIER = "an identifier: it tells patients apart, not diseases"
_AFTER = "known only once the diagnosis is"
_COPD = "COPD is defined by it (FEV1/FVC below 0.70)"
_TRAIN_ONLY = "not in the published test table: known only once the diagnosis is"
_SOURCE = "it names the hospital or the camera, a short cut that no other clinic shares"
_RULES: tuple[tuple[str, str], ...] = (
    (r"id|.*_id|(patient|subject|study|case|image|lesion)id|uuid|mrn|accession(_?number)?", _IDENTIFIER),
    (r"(patient|subject|case|study)(_?(no|nr|number|name))?", _IDENTIFIER),
    (r"(img|image|file|path)(_?(id|name|path))?", _IDENTIFIER),
    (r"(pre_|post_)?fev_?1.*|(pre_|post_)?fvc.*|.*fev1.?fvc.*|gold(_?(grade|stage))?", _COPD),
    (r"lesion_id|iddx_(full|[1-5])|mel_mitotic_index|mel_thick_mm|tbp_lv_dnn_lesion_confidence", _TRAIN_ONLY),
    (r"target|label|class|diagnos(is|tic|es)|dx|malignant|benign_malignant|outcome", "the target itself"),
    (r"dx_type|diagnosis_confirm_type|biops(y|ed)|histo(logy|patholog.*)?|concomitant_biopsy", _AFTER),
    (r"attribution|tbp_tile_type|copyright(_license)?|licen[sc]e|institution|hospital|scanner|camera", _SOURCE),
)


def leak_of(name: str) -> str | None:
    """Why a column of that name would leak; None if no rule says so. The last rule that fits decides.

    >>> leak_of("FEV1/FVC")
    'COPD is defined by it (FEV1/FVC below 0.70)'
    >>> leak_of("age_approx") is None
    True
    """
    plain = re.sub(r"[\s/%.-]+", "_", name.strip().lower()).strip("_")
    found = [reason for pattern, reason in _RULES if re.fullmatch(pattern, plain)]
    return found[-1] if found else None


def separation(
    values: Float64[np.ndarray, " n"],
    known: Bool[np.ndarray, " n"],
    classes: Int[np.ndarray, " n"],
    *,
    is_ordered: bool,
) -> float:
    """How well one column alone tells one class from the rest, in [0.5, 1]; the best over all classes.

    ordered      AUROC of the value, or of its opposite
    categories   balanced accuracy when every category is called what most of its rows are (in shares of the classes)

    0.5 where fewer than five known rows are of the class, or of the rest.

    Args:
        values: numbers, or category numbers.
        known: False where the value is missing; these rows do not count.
        classes: class number of each row, -1 where not known.
        is_ordered: whether the size of a value means anything.
    """
    rows = known & (classes >= 0)
    x, y = values[rows], classes[rows]
    best = 0.5
    ordered = np.sort(x) if is_ordered else x
    for number in np.unique(y):
        of_class = y == number
        if min(of_class.sum(), (~of_class).sum()) < _FEWEST:
            continue
        if is_ordered:
            # Of the smaller part the mean rank: half of those below or equal, half of those below. All are halves of
            # whole numbers, so the sum is exact.
            part = of_class if 2 * of_class.sum() <= len(x) else ~of_class
            places = [np.searchsorted(ordered, x[part], side) for side in ("left", "right")]
            below = (places[0].sum() + places[1].sum() + part.sum()) / 2 - part.sum() * (part.sum() + 1) / 2
            area = float(below / (part.sum() * (~part).sum()))
            best = max(best, area, 1 - area)
        else:
            _, code = np.unique(x, return_inverse=True)
            inside = np.bincount(code, of_class) / of_class.sum()
            outside = np.bincount(code, ~of_class) / (~of_class).sum()
            best = max(best, float(np.maximum(inside, outside).sum() / 2))
    return best


def classes_of(target: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Target texts as numbers in sorted order, -1 for ""."""
    names = {text: number for number, text in enumerate(sorted({text for text in target if text}))}
    return np.array([names.get(text, -1) for text in target], int)
