"""Classification metrics against scikit-learn, hand cases, repeated rows, and samples that leave them undefined."""

import doctest
import math

import numpy as np
import pytest
from sklearn import metrics as oracle

from scanfuse.metrics import classification
from scanfuse.metrics.classification import BETTER, binary, calibration, decision, multiclass, multilabel, ranking

Y = np.array([0, 0, 1, 1, 1, 0, 1, 0, 0, 1])
P = np.array([0.1, 0.4, 0.35, 0.8, 0.4, 0.6, 0.9, 0.4, 0.2, 0.6])


def test_decisions_equal_scikit_learn():
    c = decision.counts(Y, P, 0.4)
    called = P >= 0.4
    assert [[c.tn[0], c.fp[0]], [c.fn[0], c.tp[0]]] == oracle.confusion_matrix(Y, called).tolist()
    assert decision.accuracy(c)[0] == pytest.approx(oracle.accuracy_score(Y, called))
    assert decision.balanced_accuracy(c)[0] == pytest.approx(oracle.balanced_accuracy_score(Y, called))
    assert decision.sensitivity(c)[0] == pytest.approx(oracle.recall_score(Y, called))
    assert decision.specificity(c)[0] == pytest.approx(oracle.recall_score(Y, called, pos_label=0))
    assert decision.precision(c)[0] == pytest.approx(oracle.precision_score(Y, called))
    assert decision.f1(c)[0] == pytest.approx(oracle.f1_score(Y, called))


def test_several_classes_equal_scikit_learn():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), 200)
    values = {name: float(value[0]) for name, value in multiclass(y, p).items()}
    called = p.argmax(axis=1)
    assert decision.confusion_matrix(y, called, 4)[0].tolist() == oracle.confusion_matrix(y, called).tolist()
    assert values["accuracy"] == pytest.approx(oracle.accuracy_score(y, called))
    assert values["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(y, called))
    assert values["precision"] == pytest.approx(oracle.precision_score(y, called, average="macro"))
    assert values["f1"] == pytest.approx(oracle.f1_score(y, called, average="macro"))
    assert values["auprc"] == pytest.approx(oracle.average_precision_score(np.eye(4)[y], p, average="macro"))
    assert values["nll"] == pytest.approx(oracle.log_loss(y, p))
    of_classes = [oracle.recall_score(y != c, called != c) for c in range(4)]
    assert values["specificity"] == pytest.approx(np.mean(of_classes))


def test_two_classes_agree_with_one_label():
    two = {name: float(value[0]) for name, value in multiclass(Y, np.stack([1 - P, P], axis=1)).items()}
    one = {name: float(value[0]) for name, value in binary(Y, P, threshold=0.5 + 1e-12).items()}
    for name in ("auroc", "accuracy", "balanced_accuracy", "nll"):
        assert two[name] == pytest.approx(one[name])
    assert two["brier"] == pytest.approx(2 * one["brier"])


@pytest.mark.parametrize("table", ["binary", "multiclass", "multilabel"])
def test_whole_weights_are_repetitions_and_zeros_are_absent(table):
    rng = np.random.default_rng(1)
    n = 60
    weights = rng.integers(0, 4, (5, n))
    p = np.round(rng.random((n, 3)), 1) * 0.98 + 0.01  # ties
    y, known = rng.integers(0, 2, (n, 3)), rng.random((n, 3)) < 0.8
    several = rng.integers(0, 3, n)

    def values(rows, w=None):
        if table == "binary":
            return binary(y[rows, 0], p[rows, 0], 0.4, w)
        if table == "multiclass":
            return multiclass(several[rows], p[rows] / p[rows].sum(axis=1, keepdims=True), w)
        return multilabel(y[rows], known[rows], p[rows], [0.3, 0.5, 0.7], w)[0]

    weighted = values(np.arange(n), weights)
    for draw, row in enumerate(weights):
        repeated = values(np.repeat(np.arange(n), row))
        for name, value in weighted.items():
            assert value[draw] == pytest.approx(repeated[name][0], abs=1e-12), name


def test_ranking_by_hand():
    # One of the four pairs is ranked wrongly, one is equal: 2.5 / 4.
    assert ranking.auroc([0, 1, 0, 1], [0.1, 0.1, 0.5, 0.9]) == 2.5 / 4
    # Thresholds 0.9 (1 of 1 right), 0.5 (1 of 2), 0.1 (2 of 4): recall rises by 1/2 at the first and the last.
    assert ranking.average_precision([0, 1, 0, 1], [0.1, 0.1, 0.5, 0.9]) == 0.5 * 1 + 0.5 * 0.5


def test_curves_meet_the_areas():
    roc, pr = ranking.roc_curve(Y, P), ranking.precision_recall_curve(Y, P)
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(ranking.auroc(Y, P))
    assert -np.sum(np.diff(pr.x) * pr.y[:-1]) == pytest.approx(ranking.average_precision(Y, P))
    assert len(pr.x) == len(pr.y) == len(pr.thresholds)
    for x, y, threshold in zip(*roc, strict=True):
        c = decision.counts(Y, P, threshold)
        assert (c.fp[0] / 5, c.tp[0] / 5) == (x, y)


def test_reliability_by_hand():
    curve = calibration.reliability([0, 1, 1, 1], [0.2, 0.3, 0.9, 1.0], bins=2)
    assert curve.counts.tolist() == [2, 2]
    assert curve.confidence.tolist() == [0.25, 0.95]
    assert curve.frequency.tolist() == [0.5, 1.0]
    assert calibration.ece([0, 1, 1, 1], [0.2, 0.3, 0.9, 1.0], bins=2)[0] == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)
    empty = calibration.reliability([1], [0.9], bins=3)
    assert np.isnan(empty.confidence[:2]).all() and np.isnan(empty.frequency[:2]).all()


def test_perfect_calibration_has_no_error():
    p = np.repeat([0.2, 0.6], 10)
    y = np.concatenate([np.repeat([1, 0], [2, 8]), np.repeat([1, 0], [6, 4])])
    assert calibration.ece(y, p)[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("y", "p", "defined"),
    [
        # One class only: what needs both is undefined, what does not is there.
        ([1, 1], [0.2, 0.9], {"auprc", "accuracy", "sensitivity", "precision", "f1", "brier", "ece", "nll"}),
        ([0, 0], [0.2, 0.9], {"accuracy", "specificity", "precision", "brier", "ece", "nll"}),
        ([0, 0], [0.2, 0.3], {"accuracy", "specificity", "brier", "ece", "nll"}),  # and nothing called positive
        ([], [], set()),
    ],
)
def test_undefined_metrics_are_nan(y, p, defined):
    values = binary(np.array(y, int), np.array(p))
    assert {name for name, value in values.items() if not np.isnan(value[0])} == defined
    assert math.isnan(ranking.auroc(y, p))
    assert ranking.roc_curve(y, p).x.size == 0


def area_above(y, p, min_tpr):
    """By scikit-learn's curve: the strip between the curve and the line at min_tpr, right of where they meet."""
    fpr, tpr, _ = oracle.roc_curve(y, p, drop_intermediate=False)
    above = int(np.argmax(tpr > min_tpr))
    share = (min_tpr - tpr[above - 1]) / (tpr[above] - tpr[above - 1])
    at = fpr[above - 1] + share * (fpr[above] - fpr[above - 1])
    x = np.concatenate([[at], fpr[tpr > min_tpr], [1.0]])
    height = np.concatenate([[min_tpr], tpr[tpr > min_tpr], [1.0]]) - min_tpr
    return np.trapezoid(height, x)


@pytest.mark.parametrize("min_tpr", [0.0, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("decimals", [1, 9])
def test_the_area_above_a_sensitivity_of_weighted_samples_is_that_of_repeated_ones(min_tpr, decimals):
    """Against the plain function on repeated rows, with ties and without; weights 0 leave samples out."""
    rng = np.random.default_rng(5)
    y, p = rng.random(60) < 0.4, rng.random(60).round(decimals)
    weights = rng.integers(0, 4, (9, 60))
    found = ranking.weighted_partial_auroc(y, p, weights, min_tpr=min_tpr)
    for row, value in zip(weights, found, strict=True):
        assert value == pytest.approx(area_above(y.repeat(row), p.repeat(row), min_tpr), abs=1e-12)
    only_negatives = np.where(y, 0, 1)
    assert np.isnan(ranking.weighted_partial_auroc(y, p, only_negatives)[0])
    if min_tpr == 0:
        assert np.allclose(found, ranking.weighted_ranking(y, p, weights)[0])


def test_the_area_above_a_sensitivity_stands_where_it_is_asked_for():
    assert "pauc" not in binary(Y, P)
    assert binary(Y, P, pauc_above=0.8)["pauc"][0] == pytest.approx(area_above(Y, P, 0.8))
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        ranking.weighted_partial_auroc(Y, P, min_tpr=1.0)


def test_a_label_that_nobody_has_is_not_averaged_in():
    y = np.stack([Y, np.zeros_like(Y)], axis=1)
    averages, each = multilabel(y, np.ones_like(y, bool), np.stack([P, P], axis=1))
    for name in ("auroc", "auprc", "sensitivity", "f1", "balanced_accuracy"):
        assert np.isnan(each[1][name][0])
        assert averages[name][0] == each[0][name][0]


def test_an_empty_mask_leaves_everything_undefined():
    averages, each = multilabel(np.zeros((4, 2)), np.zeros((4, 2), bool), np.full((4, 2), 0.5))
    assert len(each) == 2
    assert list(averages) == [name for name in BETTER if name not in ("pauc", "retrieval")]  # which are of one label
    assert all(np.isnan(value).all() for value in averages.values())


def test_absent_and_never_called_classes():
    p = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    values = {name: float(value[0]) for name, value in multiclass(np.array([0, 0, 1]), p).items()}
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert values["balanced_accuracy"] == 0.5  # classes 0 and 1 occur
    assert values["precision"] == pytest.approx(2 / 3)  # only class 0 is called
    assert values["f1"] == pytest.approx((0.8 + 0) / 2)
    assert values["auroc"] == 1.0  # class 2 does not occur; 0 and 1 are ranked rightly
    empty = multiclass(np.zeros(0, int), np.zeros((0, 3)))
    assert all(np.isnan(value).all() for value in empty.values())


@pytest.mark.parametrize(
    ("y", "p", "match"),
    [
        ([0, 1], [0.5], "shape"),
        ([0, 2], [0.5, 0.5], "0 or 1"),
        ([0, 1], [0.5, math.nan], "not finite"),
        ([0, 1], [0.5, 1.5], "between 0 and 1"),
    ],
)
def test_bad_input(y, p, match):
    with pytest.raises(ValueError, match=match):
        calibration.brier(y, p)


def test_bad_weights_and_classes():
    with pytest.raises(ValueError, match="number of samples, 2"):
        ranking.weighted_ranking([0, 1], [0.1, 0.2], [[1.0, 1.0, 1.0]])[0]
    with pytest.raises(ValueError, match="negative"):
        ranking.weighted_ranking([0, 1], [0.1, 0.2], [[1.0, -1.0]])[0]
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        decision.confusion_matrix(np.array([0, 2]), np.array([0, 1]), 2)


def test_example():
    assert doctest.testmod(classification).failed == 0
