"""The bootstrap of whole-table statistics: against the bootstrap of means, a loop over rows, and exact cases."""

import doctest
import math

import numpy as np
import pytest

from scanfuse.metrics.classification import binary, ranking
from scanfuse.metrics.classification.calibration import ece
from scanfuse.stats import bootstrap, cluster_bootstrap
from scanfuse.stats.cluster_bootstrap import cluster_differences, cluster_intervals, of_rows


def _cases(seed: int = 0, groups: int = 40):
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(groups), rng.integers(1, 4, groups))
    y = rng.integers(0, 2, patient.size)
    p = 1 / (1 + np.exp(-(2 * y - 1 + rng.normal(size=groups)[patient] + rng.normal(size=patient.size))))
    return patient, y, p


def test_a_mean_gets_the_interval_of_the_other_bootstrap():
    patient, _, p = _cases()

    def mean(weights):
        return {"mean": weights @ p / weights.sum(axis=1)}

    expected = bootstrap.interval(p, patient, level=0.9, repeats=500, seed=3)
    found = cluster_intervals(mean, patient, level=0.9, repeats=500, seed=3)["mean"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_weights_give_what_rows_give():
    patient, y, p = _cases()
    fast = cluster_intervals(
        lambda weights: {"auroc": ranking.weighted_ranking(y, p, weights)[0]}, patient, repeats=200
    )
    slow = cluster_intervals(of_rows(lambda rows: {"auroc": ranking.auroc(y[rows], p[rows])}), patient, repeats=200)
    np.testing.assert_allclose(fast["auroc"], slow["auroc"], rtol=1e-12)


def test_blocks_change_nothing(monkeypatch):
    patient, y, p = _cases()
    whole = cluster_intervals(lambda weights: binary(y, p, weights=weights), patient, repeats=100)
    monkeypatch.setattr(cluster_bootstrap, "_BLOCK", 7 * len(y))
    monkeypatch.setattr(cluster_bootstrap, "_ROWS", 1)
    parts = cluster_intervals(lambda weights: binary(y, p, weights=weights), patient, repeats=100)
    for name, found in whole.items():
        np.testing.assert_allclose(parts[name], found, rtol=1e-12)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered, rng = 0, np.random.default_rng(9)
    truth = 0.760250  # Phi(1 / sqrt 2), the AUROC of two unit normals one apart
    for _ in range(200):
        y = np.repeat([0, 1], 60)
        score = y + rng.normal(size=120)
        low, high = cluster_intervals(
            lambda w, y=y, s=score: {"auroc": ranking.weighted_ranking(y, s, w)[0]}, np.arange(120), repeats=400
        )["auroc"][1:]
        covered += low <= truth <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_differences_are_paired():
    patient, y, p = _cases()
    rng = np.random.default_rng(1)
    worse = np.clip(p + 0.02 * rng.normal(size=p.size), 0, 1)

    def of(score):
        return lambda weights: {"auroc": ranking.weighted_ranking(y, score, weights)[0], "n": weights.sum(axis=1)}

    found = cluster_differences(of(p), of(worse), patient)["auroc"]
    assert found.value == ranking.auroc(y, p) - ranking.auroc(y, worse)
    alone = cluster_intervals(of(p), patient)["auroc"]
    assert found.high - found.low < (alone.high - alone.low) / 3
    same = cluster_differences(of(p), of(p), patient)
    assert same["auroc"] == (0, 0, 0, 1)
    reverse = cluster_differences(of(worse), of(p), patient)["auroc"]
    assert (reverse.value, reverse.p_value) == (-found.value, found.p_value)


def test_p_value_agrees_with_the_interval():
    patient, y, p = _cases(seed=2)
    rng = np.random.default_rng(2)
    for noise in (0.1, 0.3, 0.5, 1.0):
        other = p + noise * rng.normal(size=p.size)
        found = cluster_differences(
            lambda w: {"a": ranking.weighted_ranking(y, p, w)[0]},
            lambda w, o=other: {"a": ranking.weighted_ranking(y, o, w)[0]},
            patient,
        )["a"]
        if not 0.03 < found.p_value < 0.07:
            assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


def test_p_value_is_even_where_nothing_differs():
    rng, values = np.random.default_rng(3), []
    for _ in range(200):
        difference = rng.normal(size=50)
        values.append(
            cluster_differences(
                lambda w, d=difference: {"m": w @ d / w.sum(axis=1)},
                lambda w: {"m": np.zeros(len(w))},
                np.arange(50),
                repeats=300,
            )["m"].p_value
        )
    assert 0.02 <= np.mean(np.array(values) < 0.05) <= 0.10
    assert 0.40 <= np.mean(np.array(values) < 0.5) <= 0.60


def test_undefined_resamples_are_left_out_and_too_many_give_nan():
    y, p = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.8, 0.1, 0.2, 0.85])
    few = cluster_intervals(lambda w: {"auroc": ranking.weighted_ranking(y, p, w)[0]}, np.arange(5))["auroc"]
    assert few.value == pytest.approx(5 / 6) and few.low <= few.value <= few.high
    mostly = cluster_intervals(lambda w: {"x": np.where(np.arange(len(w)) % 3 == 0, 1.0, np.nan)}, np.arange(5))["x"]
    assert mostly.value == 1 and math.isnan(mostly.low) and math.isnan(mostly.high)


def test_one_patient_says_nothing_about_others():
    found = cluster_intervals(lambda w: {"m": w.sum(axis=1)}, ["a", "a"])["m"]
    assert found.value == 2 and math.isnan(found.low)
    assert math.isnan(
        cluster_differences(lambda w: {"m": w[:, 0]}, lambda w: {"m": w[:, 1]}, ["a", "a"])["m"].p_value
    )


@pytest.mark.parametrize(
    ("groups", "options", "match"),
    [([], {}, "no groups"), (["a"], {"level": 95.0}, "level is 95"), (["a"], {"repeats": 0}, "repeats is 0")],
)
def test_bad_input(groups, options, match):
    with pytest.raises(ValueError, match=match):
        cluster_intervals(lambda w: {"m": w.sum(axis=1)}, groups, **options)


def test_example():
    assert doctest.testmod(cluster_bootstrap).failed == 0


def test_the_interval_of_a_calibration_error_holds_its_value_and_covers_the_truth() -> None:
    """Probabilities 0.1 too high: the error is near 0.1, and the noise of resampling pushes its repeats above it."""
    random = np.random.default_rng(3)
    chance = random.choice([0.2, 0.4, 0.6, 0.8], 400)
    y, p = (random.random(400) < chance).astype(int), chance + 0.1
    patients = [str(number) for number in range(400)]

    def error(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"ece": ece(y, p, weights=weights)}

    plain = cluster_intervals(error, patients, repeats=400)["ece"]
    moved = cluster_intervals(error, patients, repeats=400, shifted={"ece"})["ece"]
    assert moved.value == plain.value and moved.high - moved.low == pytest.approx(plain.high - plain.low)
    assert moved.low < plain.low and moved.low < moved.value < moved.high and moved.low < 0.1 < moved.high
    perfect = cluster_intervals(lambda w: {"ece": ece(y, y.astype(float), weights=w)}, patients, shifted={"ece"})
    assert perfect["ece"] == (0, 0, 0)
