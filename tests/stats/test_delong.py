"""DeLong against pROC, against its definition, and with patients that have several samples."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from scanfuse.stats.bootstrap import interval
from scanfuse.stats.delong import delong, delong_test

GOLDEN = Path(__file__).parents[1] / "golden"
VALUES = json.loads((GOLDEN / "classification.json").read_text(encoding="utf-8"))["values"]


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "classification.npz") as file:
        return {name: file[name] for name in file}


@pytest.mark.parametrize("scores", ["p1", "p2", "p3"])
def test_area_and_variance_equal_proc(arrays, scores):
    y, p = arrays["bin_y"], arrays[f"bin_{scores}"]
    found = delong(y, p)
    assert found.auroc[0] == pytest.approx(VALUES[f"auroc_{scores}.pROC"], abs=1e-12)
    assert found.covariance[0, 0] == pytest.approx(VALUES[f"delong_var_{scores}.pROC"], rel=1e-10)


@pytest.mark.parametrize("second", ["p2", "p3"])
def test_paired_test_equals_proc(arrays, second):
    y, a, b = arrays["bin_y"], arrays["bin_p1"], arrays[f"bin_{second}"]
    assert delong(y, [a, b]).covariance[0, 1] == pytest.approx(VALUES[f"delong_cov_p1{second}.pROC"], rel=1e-10)
    found = delong_test(y, a, b)
    assert found.statistic == pytest.approx(VALUES[f"delong_z_p1{second}.pROC"], rel=1e-9)
    assert found.p_value == pytest.approx(VALUES[f"delong_pvalue_p1{second}.pROC"], rel=1e-9)
    assert (found.low > 0) == (found.p_value < 0.05)


def _by_definition(y, scores):
    positive, negative = scores[:, y == 1], scores[:, y == 0]
    psi = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (positive[:, :, None] == negative[:, None, :])
    v10, v01 = psi.mean(axis=2), psi.mean(axis=1)
    return psi.mean(axis=(1, 2)), np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]


def test_mid_ranks_equal_the_definition():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 70)
    scores = np.round(rng.normal(size=(3, 70)) + y, 1)
    auroc, covariance = _by_definition(y, scores)
    found = delong(y, scores)
    np.testing.assert_allclose(found.auroc, auroc, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10)


def test_groups_of_one_change_nothing():
    rng = np.random.default_rng(4)
    y, scores = rng.integers(0, 2, 50), rng.normal(size=(2, 50))
    np.testing.assert_allclose(delong(y, scores, np.arange(50)).covariance, delong(y, scores).covariance, rtol=1e-12)


def test_copies_within_a_patient_add_no_evidence():
    rng = np.random.default_rng(5)
    y, scores = rng.integers(0, 2, 50), rng.normal(size=(2, 50))
    copied = delong(np.repeat(y, 4), np.repeat(scores, 4, axis=1), np.repeat(np.arange(50), 4))
    np.testing.assert_allclose(copied.covariance, delong(y, scores).covariance, rtol=1e-12)
    # and taken for independent samples they would
    assert (
        np.diag(delong(np.repeat(y, 4), np.repeat(scores, 4, axis=1)).covariance) < copied.covariance.max() / 3
    ).all()


def test_variance_over_patients_is_that_of_repeated_studies():
    """300 simulated studies of 60 patients with one to four images that resemble each other."""
    rng = np.random.default_rng(6)
    aurocs, expected, naive = [], [], []
    for _ in range(300):
        patients = np.repeat(np.arange(60), rng.integers(1, 5, 60))
        y = ((rng.normal(size=60)[patients] + rng.normal(size=patients.size)) > 0).astype(int)
        score = y + 1.5 * rng.normal(size=60)[patients] + 0.5 * rng.normal(size=patients.size)
        found = delong(y, score, patients)
        aurocs.append(found.auroc[0])
        expected.append(found.covariance[0, 0])
        naive.append(delong(y, score).covariance[0, 0])
    true, ends = np.var(aurocs), interval((np.array(aurocs) - np.mean(aurocs)) ** 2, np.arange(300), level=0.999)
    assert ends.low < np.mean(expected) < ends.high
    assert np.mean(naive) < true  # which is why the groups are needed


def test_alike_and_opposite_scores():
    y, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.5, 0.4, 0.9])
    assert delong_test(y, p, 2 * p + 1) == (0.0, 0.0, 0.0, 0.0, 1.0)
    opposite = delong_test(y, y, 1 - y)
    assert opposite.difference == 1 and math.isnan(opposite.p_value)


@pytest.mark.parametrize("y", [[1, 1, 1], [0, 0, 0], [0, 0, 1]])
def test_too_few_samples_give_nan(y):
    found = delong_test(y, [0.1, 0.2, 0.3], [0.3, 0.2, 0.1])
    assert math.isnan(found.p_value) and math.isnan(found.low)


def test_wrong_shapes():
    with pytest.raises(ValueError, match="2 groups for 3 samples"):
        delong([0, 1, 1], [0.1, 0.2, 0.3], ["a", "b"])
    with pytest.raises(ValueError, match="level is 95"):
        delong_test([0, 1], [0.1, 0.2], [0.2, 0.1], level=95.0)
