"""The bootstrap over cases: hand cases, an independent version, coverage, and what it does without enough data."""

import doctest
import itertools
import math

import numpy as np
import pytest

from scanfuse.stats import bootstrap
from scanfuse.stats.bootstrap import interval, paired_interval


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


def test_paired_interval_is_that_of_the_differences():
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 10, 60)
    hardness = 10 * rng.normal(size=10)[groups]
    model, baseline = hardness + 0.5 + 0.1 * rng.normal(size=60), hardness
    paired = paired_interval(model, baseline, groups)
    assert paired == interval(model - baseline, groups)
    assert paired.low > 0.4
    assert paired.high < 0.6
    # the intervals of the two methods alone overlap all the same
    assert interval(model, groups).low < interval(baseline, groups).high
    swapped = paired_interval(baseline, model, groups)
    assert swapped == pytest.approx((-paired.mean, -paired.high, -paired.low))


def test_paired_interval_leaves_out_undefined_differences():
    inf, nan = math.inf, math.nan
    values, baseline, groups = [1, nan, 3, inf, 5], [0, 0, nan, inf, 2], ["a", "b", "c", "d", "e"]
    assert paired_interval(values, baseline, groups) == interval([1, 3], ["a", "e"])
    with pytest.raises(ValueError, match="same samples"):
        paired_interval([1, 2], [1], ["a", "b"])


def test_the_example_runs():
    assert doctest.testmod(bootstrap) == (0, 2)
