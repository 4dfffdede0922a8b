"""Holm's correction against its stepwise definition and a case worked by hand."""

import doctest
import itertools

import numpy as np
import pytest

from scanfuse.stats import holm as module
from scanfuse.stats.holm import holm


def test_by_hand():
    # 4 * 0.005, 3 * 0.01, 2 * 0.03, 1 * 0.04; the last is raised to the one before it.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.5]), [1, 1])
    assert holm([]).size == 0


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_rejects_what_the_stepwise_rule_rejects(level):
    grid = [0.0, 0.004, 0.0125, 0.02, 0.04, 0.05, 0.3]
    for p in itertools.product(grid, repeat=3):
        order, rejected = np.argsort(p, kind="stable"), np.zeros(3, bool)
        for step, index in enumerate(order):
            if p[index] > level / (3 - step):
                break
            rejected[index] = True
        assert ((holm(list(p)) <= level + 1e-15) == rejected).all(), p


def test_comparisons_that_could_not_be_made_do_not_count():
    np.testing.assert_array_equal(holm([0.02, np.nan, 0.03]), [0.04, np.nan, 0.04])


def test_bad_input():
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])
    with pytest.raises(ValueError, match="one row"):
        holm([[0.5]])


def test_example():
    assert doctest.testmod(module).failed == 0
