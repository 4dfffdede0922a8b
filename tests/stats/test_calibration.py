"""Temperature scaling and thresholds: known temperatures, an independent optimiser, ranking, and hopeless samples."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scanfuse.metrics.classification import decision, ranking
from scanfuse.stats.calibration import fit_temperature, logits_of, probabilities_of
from scanfuse.stats.threshold import choose_threshold

N = 4000


def _calibrated(kind: str, seed: int = 0):
    """Logits whose probabilities are right, and outcomes drawn from them."""
    rng = np.random.default_rng(seed)
    if kind == "multiclass":
        z = 2 * rng.normal(size=(N, 4))
        y = (rng.random((N, 1)) > np.cumsum(probabilities_of(z, kind), axis=1)).sum(axis=1)[:, None].clip(max=3)
        return z, y, np.ones((N, 1), bool)
    z = 2 * rng.normal(size=(N, 1 if kind == "binary" else 3))
    return z, (rng.random(z.shape) < probabilities_of(z, kind)).astype(int), rng.random(z.shape) < 0.8


KINDS = ("binary", "multiclass", "multilabel")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_finds_the_temperature_that_spoilt_the_logits(kind, temperature):
    z, y, known = _calibrated(kind)
    found = fit_temperature(z * temperature, y, known, kind)
    assert found.value == pytest.approx(temperature, rel=0.08)
    assert found.nll_after <= found.nll_before
    assert found.ece_after < 0.04 and found.note == ""
    if temperature != 1.0:
        assert found.ece_after < found.ece_before / 2 and found.nll_after < found.nll_before - 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_gradient_method(kind):
    z, y, known = (part[:300] for part in _calibrated(kind, seed=1))
    tensor, target, mask = torch.from_numpy(2 * z), torch.from_numpy(y), torch.from_numpy(known)
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [log_t], max_iter=100, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        scaled = tensor / log_t.exp()
        if kind == "multiclass":
            return F.cross_entropy(scaled[mask[:, 0]], target[mask[:, 0], 0])
        return F.binary_cross_entropy_with_logits(scaled[mask], target[mask].double())

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    before = float(loss().detach())
    optimiser.step(step)
    found = fit_temperature(2 * z, y, known, kind)
    assert found.value == pytest.approx(float(log_t.detach().exp()), rel=1e-5)
    assert found.nll_before == pytest.approx(before, rel=1e-12)
    assert found.nll_after == pytest.approx(float(loss().detach()), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_never_changes_the_ranking(kind):
    z, y, known = _calibrated(kind)
    value = fit_temperature(3 * z, y, known, kind).value
    before, after = probabilities_of(3 * z, kind), probabilities_of(3 * z, kind, value)
    if kind == "multiclass":
        np.testing.assert_array_equal(np.argsort(before, axis=1), np.argsort(after, axis=1))
    else:
        np.testing.assert_array_equal(np.argsort(before, axis=0), np.argsort(after, axis=0))
        assert ranking.auroc(y[:, 0], before[:, 0]) == ranking.auroc(y[:, 0], after[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_probabilities_are_inverse(kind):
    z = np.random.default_rng(0).normal(size=(5, 3))
    p = probabilities_of(z, kind)
    np.testing.assert_allclose(probabilities_of(logits_of(p, kind), kind), p, rtol=1e-12)
    assert np.isfinite(logits_of(np.array([[0.0, 1.0]]), kind)).all()


@pytest.mark.parametrize(
    ("z", "y", "known", "note"),
    [
        ([-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1], True, "perfectly"),
        ([-2.0, -1.0, 1.0, 2.0], [1, 1, 0, 0], True, "say nothing"),
        ([-2.0, 1.0], [1, 1], True, "one class"),
        ([-2.0, 1.0], [0, 1], False, "known target"),
    ],
)
def test_where_nothing_can_be_fitted_the_temperature_stays_one(z, y, known, note):
    z, y = np.array(z)[:, None], np.array(y)[:, None]
    found = fit_temperature(z, y, np.full(y.shape, known), "binary")
    assert found.value == 1 and note in found.note
    assert found.nll_before == found.nll_after or math.isnan(found.nll_before)


def test_temperature_of_bad_input():
    with pytest.raises(ValueError, match="shapes"):
        fit_temperature(np.zeros((3, 2)), np.zeros((3, 1)), np.ones((3, 1), bool), "multilabel")
    with pytest.raises(ValueError, match="1 logits are not finite"):
        fit_temperature(np.array([[np.inf], [0]]), np.zeros((2, 1)), np.ones((2, 1), bool), "binary")


def _rates(y, p, threshold):
    c = decision.counts(y, p, threshold)
    return float(decision.sensitivity(c)[0]), float(decision.specificity(c)[0])


@pytest.mark.parametrize("seed", range(10))
def test_rules_are_best_among_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    y = np.concatenate([[0, 1], rng.integers(0, 2, 38)])
    p = np.round(1 / (1 + np.exp(-(y + rng.normal(size=40)))), 2)
    every = [_rates(y, p, t) for t in [-1.0, *np.unique(p).tolist(), 2.0]]
    youden = choose_threshold(y, p)
    assert _rates(y, p, youden.value) == pytest.approx((youden.sensitivity, youden.specificity))
    assert youden.sensitivity + youden.specificity == pytest.approx(max(a + b for a, b in every))
    wanted = choose_threshold(y, p, "sensitivity", sensitivity=0.8)
    assert _rates(y, p, wanted.value) == pytest.approx((wanted.sensitivity, wanted.specificity))
    assert wanted.sensitivity >= 0.8
    assert wanted.specificity == pytest.approx(max(b for a, b in every if a >= 0.8))


def test_the_threshold_lies_between_scores():
    assert choose_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.7]).value == pytest.approx(0.4)


def test_threshold_without_both_classes_stays_and_says_so():
    found = choose_threshold([0, 0], [0.1, 0.7])
    assert found.value == 0.5 and math.isnan(found.sensitivity) and found.specificity == 0.5
    assert "no validation sample is positive" in found.note
    fixed = choose_threshold([0, 1], [0.1, 0.7], "fixed", fixed=0.6)
    assert fixed == (0.6, 1.0, 1.0, "")
    with pytest.raises(ValueError, match="sensitivity is 0"):
        choose_threshold([0, 1], [0.1, 0.7], "sensitivity", sensitivity=0.0)
