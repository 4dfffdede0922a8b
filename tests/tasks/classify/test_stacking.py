"""Weights of a stack: against scikit-learn's logistic regression, and cases whose answer is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from scanfuse.tasks.classify.stacking import fit_stack


def drawn(count: int, weights: tuple[float, ...], bias: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of members, and targets that a weighted sum of them has made."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 1.5, (len(weights), count, 1))
    chance = 1 / (1 + np.exp(-(np.tensordot(weights, z, axes=1) + bias)))
    return z, (random.random((count, 1)) < chance).astype(float)


def test_without_a_ridge_it_is_logistic_regression() -> None:
    z, y = drawn(800, (0.8, 1.3), -0.4)
    found = fit_stack(z, y, np.ones(y.shape, bool), "binary", ridge=0.0)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(z[:, :, 0].T, y[:, 0])
    np.testing.assert_allclose(found.weights[:, 0], model.coef_[0], atol=1e-4)
    np.testing.assert_allclose(found.bias, model.intercept_, atol=1e-4)
    np.testing.assert_allclose(found.weights[:, 0], (0.8, 1.3), atol=0.3)
    assert found.nll < min(found.nll_members)


def test_a_member_that_says_the_opposite_gets_no_weight() -> None:
    z, y = drawn(500, (1.0, 0.0), 0.0)
    z[1] = -z[0] + 0.1 * z[1]
    found = fit_stack(z, y, np.ones(y.shape, bool), "binary")
    assert found.weights[1, 0] == 0 and found.weights[0, 0] > 0.5


def test_few_samples_stay_near_the_mean() -> None:
    z, y = drawn(6, (3.0, 0.0), 0.0)
    known = np.ones(y.shape, bool)
    weights = [fit_stack(z, y, known, "binary", ridge=ridge).weights[:, 0] for ridge in (1.0, 1e6)]
    assert np.abs(weights[0] - 0.5).max() < 1.0
    np.testing.assert_allclose(weights[1], 0.5, atol=1e-4)


def test_labels_are_weighed_apart_and_unknown_targets_do_not_count() -> None:
    one, other = drawn(400, (1.0, 0.0), 0.0), drawn(400, (0.0, 1.0), 0.0, seed=1)
    z, y = np.concatenate([one[0], other[0]], axis=2), np.concatenate([one[1], other[1]], axis=1)
    known = np.ones(y.shape, bool)
    known[:100, 1] = False
    found = fit_stack(z, y, known, "multilabel")
    assert found.weights[0, 0] > 2 * found.weights[1, 0] and found.weights[1, 1] > 2 * found.weights[0, 1]
    y[:100, 1] = 1 - y[:100, 1]
    again = fit_stack(z, y, known, "multilabel")
    np.testing.assert_array_equal(found.weights, again.weights)
    alone = fit_stack(other[0][:, 100:], other[1][100:], known[100:, 1:], "binary")
    np.testing.assert_allclose(found.weights[:, 1], alone.weights[:, 0], atol=1e-5)


def test_two_classes_as_a_choice_have_the_weights_of_a_label() -> None:
    """softmax(-z/2, z/2) is sigmoid(z); the ridge is on two biases instead of one, so it is left out."""
    z, y = drawn(500, (0.6, 0.9), 0.0)
    known = np.ones(y.shape, bool)
    binary = fit_stack(z, y, known, "binary", ridge=1e-9)
    both = fit_stack(np.concatenate([-z / 2, z / 2], axis=2), y, known, "multiclass", ridge=1e-9)
    np.testing.assert_allclose(both.weights[:, 1], binary.weights[:, 0], atol=1e-3)
    np.testing.assert_array_equal(both.weights[:, 0], both.weights[:, 1])
    assert both.bias[1] - both.bias[0] == pytest.approx(binary.bias[0], abs=1e-3)
    assert both.nll == pytest.approx(binary.nll, abs=1e-8)


def test_nothing_to_fit_on() -> None:
    z, y = drawn(5, (1.0, 1.0), 0.0)
    with pytest.raises(ValueError, match="known target"):
        fit_stack(z, y, np.zeros(y.shape, bool), "binary")
