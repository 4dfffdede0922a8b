"""Which features of a table matter: a random forest on training rows, and the best by its importances."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int
from sklearn.ensemble import RandomForestClassifier

from scanfuse.errors import UserError

__all__ = ["Forest", "fit_forest"]

_TREES = 300
_MOST_ROWS = 20_000
"""Rows of one class that are looked at: all of a rare class stay, of a frequent one a random part."""


@dataclass(frozen=True)
class Forest:
    """What a forest has found.

    Attributes:
        kept: names of the kept features, best first.
        importances: of all features, summing to 1, best first.
        rows: training rows that it saw.
    """

    kept: tuple[str, ...]
    importances: Mapping[str, float]
    rows: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"kept": list(self.kept), "importances": dict(self.importances), "rows": self.rows}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Forest":
        """The inverse of `as_dict`."""
        return cls(tuple(content["kept"]), dict(content["importances"]), int(content["rows"]))


def fit_forest(
    values: Float64[np.ndarray, "n f"],
    classes: Int[np.ndarray, " n"],
    names: Sequence[str],
    *,
    keep: int,
    seed: int = 0,
) -> Forest:
    """The `keep` features with the largest decrease of impurity over 300 trees whose classes weigh alike.

    Args:
        values: one column a feature, nan where missing (a tree sends these to the better side).
        classes: class numbers, -1 where not known; such rows are left out.
        names: of the features.
        keep: how many.
        seed: of the trees and of the drawn rows.

    Raises:
        UserError: fewer than two classes are known.

    Source: Breiman, "Random Forests", 2001; scikit-learn's implementation.
    """
    rows = np.flatnonzero(classes >= 0)
    present = np.unique(classes[rows])
    if len(present) < 2:
        raise UserError("Features cannot be selected: the training rows show one class only. Set --keep-features 0.")
    random = np.random.default_rng(seed)
    parts = [rows[classes[rows] == number] for number in present]
    drawn = [part if len(part) <= _MOST_ROWS else random.choice(part, _MOST_ROWS, replace=False) for part in parts]
    chosen = np.sort(np.concatenate(drawn))
    forest = RandomForestClassifier(_TREES, class_weight="balanced", random_state=seed, min_samples_leaf=2)
    forest.fit(values[chosen], classes[chosen])
    order = np.argsort(-forest.feature_importances_, kind="stable")
    importances = {names[place]: float(forest.feature_importances_[place]) for place in order}
    return Forest(tuple(importances)[:keep], importances, len(chosen))
