"""Retrieval per patient: a hand case, a plain loop over patients, ties in every order, and resampled patients."""

import itertools

import numpy as np
import pytest

from scanfuse.metrics.classification import binary
from scanfuse.metrics.classification.ranking import weighted_retrieval


def by_loop(y: np.ndarray, p: np.ndarray, groups: list[str], top: int) -> float:
    """Share of all positives that a reader of `top` samples per group finds; no equal scores."""
    found = 0
    for name in set(groups):
        rows = [place for place, group in enumerate(groups) if group == name]
        found += sum(y[place] for place in sorted(rows, key=lambda place: -p[place])[:top])
    return found / y.sum()


def test_by_hand() -> None:
    """Of patient a two of three are looked at, and one of them is positive; of b all."""
    y, p = np.array([1, 0, 1, 1, 0]), np.array([0.9, 0.8, 0.2, 0.1, 0.3])
    groups = ["a", "a", "a", "b", "b"]
    assert weighted_retrieval(y, p, groups, top=2)[0] == pytest.approx(2 / 3)
    assert weighted_retrieval(y, p, groups, top=1)[0] == pytest.approx(1 / 3)
    assert weighted_retrieval(y, p, groups, top=3)[0] == 1
    assert np.isnan(weighted_retrieval(0 * y, p, groups, top=2)[0])
    # The patient's own lesions compete, not those of others: a patient with higher scores throughout takes no place.
    assert weighted_retrieval(y, p + np.array([0, 0, 0, 9, 9]), groups, top=2)[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize("top", [1, 3, 15])
def test_it_is_what_a_loop_over_patients_finds(top: int) -> None:
    random = np.random.default_rng(0)
    groups = [f"p{number}" for number in random.integers(0, 12, 300)]
    y, p = (random.random(300) < 0.1).astype(int), random.random(300)
    assert weighted_retrieval(y, p, groups, top=top)[0] == pytest.approx(by_loop(y, p, groups, top))


def test_of_equal_scores_every_order_is_as_likely() -> None:
    y, p = np.array([1, 0, 1, 0, 0]), np.array([0.5, 0.5, 0.5, 0.7, 0.1])
    for top in range(1, 6):
        orders = [np.array(order) * 1e-9 for order in itertools.permutations(range(5))]
        mean = np.mean([by_loop(y, p + order, ["a"] * 5, top) for order in orders])
        assert weighted_retrieval(y, p, ["a"] * 5, top=top)[0] == pytest.approx(mean)


def test_weights_of_patients_are_copies_of_them() -> None:
    random = np.random.default_rng(1)
    groups = np.array([f"p{number}" for number in random.integers(0, 6, 60)])
    y, p = (random.random(60) < 0.3).astype(int), random.random(60)
    times = dict(zip(sorted(set(groups)), (2, 0, 1, 3, 1, 0), strict=True))
    weights = np.array([times[group] for group in groups], float)
    copies = [(place, number) for place in range(60) for number in range(times[groups[place]])]
    again = weighted_retrieval(
        y[[place for place, _ in copies]],
        p[[place for place, _ in copies]],
        [f"{groups[place]}-{number}" for place, number in copies],
        top=3,
    )
    found = weighted_retrieval(y, p, list(groups), np.stack([weights, np.ones(60)]), top=3)
    assert found[0] == pytest.approx(again[0])
    assert found[1] == pytest.approx(by_loop(y, p, list(groups), 3))


def test_it_stands_where_it_is_asked_for() -> None:
    y, p = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.2, 0.1])
    assert "retrieval" not in binary(y, p)
    assert binary(y, p, groups=list("aabb"), top=1)["retrieval"][0] == 1
    assert binary(y, p, groups=list("aaaa"), top=1)["retrieval"][0] == 0.5
    with pytest.raises(ValueError, match="groups for 4 samples"):
        binary(y, p, top=2)
    with pytest.raises(ValueError, match="top is 0"):
        weighted_retrieval(y, p, list("aabb"), top=0)
