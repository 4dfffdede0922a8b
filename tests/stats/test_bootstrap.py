"""The bootstrap over groups: hand cases, independent versions, coverage, and what it does without enough data."""

import doctest
import itertools
import math

import numpy as np
import pytest

from scanfuse.metrics.classification import binary, ranking
from scanfuse.metrics.classification.calibration import ece
from scanfuse.stats import bootstrap
from scanfuse.stats.bootstrap import cluster_differences, cluster_intervals, interval, mean_of


def test_two_groups_by_hand():
    # The drawn pairs of cases are (1, 1), (1, 2), (2, 1), (2, 2): means 1, 4, 4, 5 with weights by slices.
    values, groups = [1, 5, 5, 5], ["x", "y", "y", "y"]
    mean, low, high = interval(values, groups)
    assert mean == 4
    assert (low, high) == (1, 5)  # each end has a quarter of the draws, more than 2.5 %
    assert interval(values, groups, level=0.4) == (4, 4, 4)  # 30 % outside at either end


def test_three_groups_equal_the_exact_distribution():
    values, groups = np.array([0.0, 3.0, 9.0, 4.0, 7.0]), np.array([0, 1, 1, 2, 2])
    exact = sorted(
        np.mean(np.concatenate([values[groups == g] for g in draw])) for draw in itertools.product(range(3), repeat=3)
    )
    mean, low, high = interval(values, groups, level=0.8, repeats=20_000)
    assert mean == pytest.approx(4.6)
    assert low == pytest.approx(exact[2], abs=1e-12)  # the 10 % and 90 % points of 27 equally likely draws
    assert high == pytest.approx(exact[24], abs=1e-12)


def test_resampling_equals_a_loop_that_draws_cases():
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 12, 80)
    values = rng.normal(size=12)[groups] + rng.normal(size=80) / 2
    cases = [values[groups == case] for case in np.unique(groups)]
    means = [
        np.concatenate([cases[i] for i in rng.integers(0, len(cases), len(cases))]).mean() for _ in range(20_000)
    ]
    _, low, high = interval(values, groups, repeats=20_000)
    # an end of either version has a Monte-Carlo error of sqrt(.025 * .975 / 20000) / .058 = 0.019 deviations
    np.testing.assert_allclose([low, high], np.quantile(means, [0.025, 0.975]), rtol=0, atol=0.11 * np.std(means))


def test_coverage_over_cases():
    rng = np.random.default_rng(0)
    covered = covered_by_slices = 0
    runs = 300
    for run in range(runs):
        groups = np.repeat(np.arange(20), rng.integers(3, 9, 20))
        values = rng.normal(size=20)[groups] + rng.normal(size=len(groups)) / 2
        _, low, high = interval(values, groups, repeats=400, seed=run)
        covered += low <= 0 <= high
        _, low, high = interval(values, np.arange(len(values)), repeats=400, seed=run)
        covered_by_slices += low <= 0 <= high
    assert 0.88 < covered / runs < 0.98
    assert covered_by_slices / runs < 0.7  # why the cases are resampled


def test_same_seed_same_interval_and_order_does_not_matter():
    rng = np.random.default_rng(1)
    values, groups = rng.normal(size=50), np.array([f"case{i:02d}" for i in rng.integers(0, 9, 50)])
    first = interval(values, groups)
    assert interval(values, groups) == first
    shuffled = rng.permutation(50)
    assert interval(values[shuffled], list(groups[shuffled])) == pytest.approx(first, abs=1e-12)
    assert interval(values, groups, seed=1)[1:] != first[1:]
    assert interval(values, groups, level=0.5).low > first.low


def test_metrics_of_one_table_share_their_resamples():
    rng = np.random.default_rng(2)
    values, groups = rng.normal(size=40), rng.integers(0, 8, 40)
    mean, low, high = interval(values, groups)
    assert interval(3 + 10 * values, groups) == pytest.approx((3 + 10 * mean, 3 + 10 * low, 3 + 10 * high))
    assert interval(-values, groups) == pytest.approx((-mean, -high, -low))


def test_undefined_samples_are_left_out_with_their_empty_groups():
    nan = math.nan
    values, groups = [1, nan, 5, 5, 5, nan], ["x", "x", "y", "y", "y", "z"]
    assert interval(values, groups) == interval([1, 5, 5, 5], ["x", "y", "y", "y"])
    for result in (interval([nan, nan], ["x", "y"]), interval([], [])):
        assert all(math.isnan(number) for number in result)


def test_one_case_has_a_mean_but_no_interval():
    for values, groups in (([1, 2, 6], ["x", "x", "x"]), ([1, 2, 6, math.nan], ["x", "x", "x", "y"])):
        mean, low, high = interval(values, groups)
        assert mean == 3
        assert math.isnan(low)
        assert math.isnan(high)


def test_equal_values_have_an_interval_of_no_width():
    assert interval([2.0, 2.0, 2.0], ["x", "y", "z"]) == (2, 2, 2)


def test_infinite_values():
    groups = [f"{i}" for i in range(10)]
    mean, low, high = interval([math.inf, *range(9)], groups)
    assert mean == high == math.inf
    assert 0 < low < 9  # a third of the draws leave the infinite case out
    assert interval([-math.inf, *range(9)], groups)[:2] == (-math.inf, -math.inf)
    assert all(math.isnan(number) for number in interval([math.inf, -math.inf, *range(8)], groups))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": [1.0, 2.0], "groups": ["x"]}, "one group per value"),
        ({"values": [[1.0, 2.0]], "groups": ["x"]}, "one group per value"),
        ({"values": [1.0], "groups": ["x"], "level": 95}, "level is 95"),
        ({"values": [1.0], "groups": ["x"], "level": 0}, "level is 0"),
        ({"values": [1.0], "groups": ["x"], "repeats": 0}, "repeats is 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        interval(**arguments)


def _cases(seed: int = 0, groups: int = 40):
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(groups), rng.integers(1, 4, groups))
    y = rng.integers(0, 2, patient.size)
    p = 1 / (1 + np.exp(-(2 * y - 1 + rng.normal(size=groups)[patient] + rng.normal(size=patient.size))))
    return patient, y, p


def test_an_interval_is_that_of_the_mean_as_a_statistic():
    patient, _, p = _cases()

    def mean(weights):
        return {"mean": weights @ p / weights.sum(axis=1)}

    expected = interval(p, patient, level=0.9, repeats=500, seed=3)
    found = cluster_intervals(mean, patient, level=0.9, repeats=500, seed=3)["mean"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.filterwarnings("error")
def test_means_leave_out_what_is_not_defined():
    weights = np.array([[1.0, 1, 1, 1], [0, 2, 0, 2], [2, 0, 2, 0], [0, 0, 0, 4]])
    means = mean_of([1.0, np.nan, 4.0, np.nan])(weights)["mean"]
    np.testing.assert_array_equal(means, [2.5, np.nan, 2.5, np.nan])
    means = mean_of([1.0, np.nan, 4.0, np.inf])(weights)["mean"]
    np.testing.assert_array_equal(means, [np.inf, np.inf, 2.5, np.inf])


def test_weights_give_what_rows_give():
    """The metric of the drawn rows themselves, one resample after the other."""
    patient, y, p = _cases()

    def of_rows(weights):
        drawn = [np.repeat(np.arange(y.size), row.astype(int)) for row in weights]
        return {"auroc": np.array([ranking.auroc(y[rows], p[rows]) for rows in drawn])}

    fast = cluster_intervals(
        lambda weights: {"auroc": ranking.weighted_ranking(y, p, weights)[0]}, patient, repeats=200
    )
    slow = cluster_intervals(of_rows, patient, repeats=200)
    np.testing.assert_allclose(fast["auroc"], slow["auroc"], rtol=1e-12)


def test_blocks_change_nothing(monkeypatch):
    patient, y, p = _cases()
    whole = cluster_intervals(lambda weights: binary(y, p, weights=weights), patient, repeats=100)
    monkeypatch.setattr(bootstrap, "_BLOCK", 7 * len(y))
    monkeypatch.setattr(bootstrap, "_ROWS", 1)
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


def test_a_difference_of_means_is_the_mean_of_differences():
    """What makes a case hard for both cancels, though the intervals of the two alone overlap."""
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 10, 60)
    hardness = 10 * rng.normal(size=10)[groups]
    model, baseline = hardness + 0.5 + 0.1 * rng.normal(size=60), hardness
    paired = cluster_differences(mean_of(model), mean_of(baseline), groups)["mean"]
    np.testing.assert_allclose(paired[:3], interval(model - baseline, groups), rtol=1e-9)
    assert 0.4 < paired.low < paired.high < 0.6
    assert interval(model, groups).low < interval(baseline, groups).high
    swapped = cluster_differences(mean_of(baseline), mean_of(model), groups)["mean"]
    assert swapped == pytest.approx((-paired.value, -paired.high, -paired.low, paired.p_value))


def _draws(values):
    """A statistic whose resamples are these numbers; of all samples it is their mean."""
    position = 0

    def statistic(weights):
        nonlocal position
        if (weights == 1).all():
            return {"d": np.array([np.nanmean(values)])}
        part = values[position : position + len(weights)]
        position += len(weights)
        return {"d": part}

    return statistic


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", ["beyond", "at zero", "undefined"])
@pytest.mark.parametrize(
    ("repeats", "level", "outside"), [(2000, 0.95, 50), (40, 0.9, 2), (399, 0.95, 9), (1000, 0.99, 5)]
)
def test_p_value_and_interval_agree_at_every_count(repeats, level, outside, kind, sign):
    """The interval leaves out 0 where p <= 2 (1 + k) / (1 + repeats); but for b = k this is p <= 1 - level."""
    bound = 2 * (1 + outside) / (1 + repeats)
    both = 0
    for beyond in range(0, 2 * outside + 3):
        values = np.linspace(1, 2, repeats)
        values[:beyond] = 0 if kind == "at zero" else np.linspace(-2, -1, beyond)
        values = sign * np.random.default_rng(0).permutation(values)
        if kind == "undefined":  # they count nowhere
            values = np.concatenate([np.full(repeats // 3, np.nan), values])
        zero = lambda weights: {"d": np.zeros(len(weights))}  # noqa: E731
        found = cluster_differences(_draws(values), zero, np.arange(9), level, len(values))["d"]
        assert found.p_value == 2 * (1 + beyond) / (1 + repeats)
        leaves_out_zero = found.low > 0 or found.high < 0
        assert leaves_out_zero == (found.p_value <= bound) == (beyond <= outside)
        if beyond != outside:
            assert leaves_out_zero == (found.p_value <= 1 - level)
        both += leaves_out_zero
    assert both == outside + 1
    assert abs(bound - (1 - level)) < 2 / (1 + repeats)


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


def test_the_examples_run():
    assert doctest.testmod(bootstrap) == (0, 8)
