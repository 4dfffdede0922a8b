"""Which view shows what: the law behind the X-ray phantoms, and how well one view or both can do on it.

A made-up study has a *sign*, which in whichever view it shows proves the positive class, and a round *shadow*, which
means something only if both views show it (one alone is a superposition):

    share   of          sign in   shadow in
    0.3     positives   a         as negatives
    0.3     positives   b         as negatives
    0.4     positives   neither   a and b
    1.0     negatives   neither   a (0.4), b (0.4), neither (0.2)

So both views decide every study (area under the ROC curve 1.0). One view ranks: sign, then shadow, then none. With
s = P(shadow in a | positive, no sign in a) = (0.3 * 0.4 + 0.4) / 0.7 = 26/35, its best area is
0.3 + 0.7 (0.6 s + (0.4 s + 0.6 (1 - s)) / 2) = 0.77. For a finding of `draw_seen` or `draw_agreement` it is
0.6 + 0.4 / 2 = 0.8.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["LAW", "Evidence", "draw", "draw_agreement", "draw_seen"]


@dataclass(frozen=True)
class Evidence:
    """What the two views show."""

    sign: tuple[bool, bool]
    shadow: tuple[bool, bool]


_NONE, _A, _B, _AB = (False, False), (True, False), (False, True), (True, True)
_LOOSE = ((0.4, _A), (0.4, _B), (0.2, _NONE))
LAW: dict[bool, tuple[tuple[float, Evidence], ...]] = {
    True: (
        *((0.3 * share, Evidence(_A, shadow)) for share, shadow in _LOOSE),
        *((0.3 * share, Evidence(_B, shadow)) for share, shadow in _LOOSE),
        (0.4, Evidence(_NONE, _AB)),
    ),
    False: tuple((share, Evidence(_NONE, shadow)) for share, shadow in _LOOSE),
}
"""Class -> its outcomes with their probabilities."""


def draw(random: np.random.Generator, positive: bool, only: Literal["a", "b"] | None = None) -> Evidence:
    """One study of the law. With a single view, `only` says which: positives then show the sign in it."""
    law = LAW[positive]
    evidence = law[int(random.choice(len(law), p=[share for share, _ in law]))][1]
    if only is None:
        return evidence
    loose = bool(random.random() < 0.4)
    place = "ab".index(only)
    shadow = (loose and place == 0, loose and place == 1)
    return Evidence((positive and place == 0, positive and place == 1), shadow)


def draw_seen(random: np.random.Generator, positive: bool, has_b: bool = True) -> tuple[bool, bool]:
    """Where a finding shows: in a (0.4), in b (0.4) or in both (0.2) if positive, else nowhere; in a if alone."""
    seen = (_A, _B, _AB)[int(random.choice(3, p=[0.4, 0.4, 0.2]))]
    if not positive:
        return _NONE
    return seen if has_b else _A


def draw_agreement(random: np.random.Generator, positive: bool, has_b: bool = True) -> tuple[bool, bool]:
    """A finding that is one only if both views show it; negatives show it in a (0.4), b (0.4) or neither (0.2)."""
    loose = (_A, _B, _NONE)[int(random.choice(3, p=[0.4, 0.4, 0.2]))]
    if positive:
        return _AB if has_b else _A
    return loose if has_b else _NONE
