"""Two runs on the same studies."""

import numpy as np
import pytest

from scanfuse.errors import UserError
from scanfuse.stats.bootstrap import cluster_intervals
from scanfuse.stats.delong import delong_test
from scanfuse.stats.holm import holm
from scanfuse.tasks.classify.classes import Classes
from scanfuse.tasks.classify.column import statistic
from scanfuse.tasks.classify.compare import compare
from scanfuse.tasks.classify.prediction import Prediction, Predictions

BINARY = Classes("binary", ("abnormal",))
SEVERAL = Classes("multiclass", ("a", "b", "c"))


def runs(classes: Classes, strengths: dict[str, float], n: int = 300) -> dict[str, list[Prediction]]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3 if classes.kind == "multiclass" else 2, n)
    made: dict[str, list[Prediction]] = {}
    for name, strength in strengths.items():
        if classes.kind == "multiclass":
            z = rng.normal(size=(n, 3)) + strength * np.eye(3)[y]
            p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        else:
            z = (rng.normal(size=n) + strength * (2 * y - 1))[:, None]
            p = 1 / (1 + np.exp(-z))
        made[name] = [
            Prediction(f"s{i}", f"p{i // 2}", f"s{i}", z[i], p[i], np.array([float(y[i])]), np.array([True]))
            for i in range(n)
        ]
    return made


def test_a_better_run_is_found_better_and_an_equal_one_is_not():
    made = runs(BINARY, {"plain": 0.4, "better": 1.2, "equal": 0.4})
    better, equal = compare(made, BINARY, repeats=500)
    assert (better.run, better.reference, better.results, better.patients) == ("better", "plain", 300, 150)
    assert better.differences["auroc"].low > 0 and better.adjusted["auroc"] < 0.05
    assert better.delong_adjusted["abnormal"] < 0.001
    assert better.differences["brier"].high < 0
    assert equal.adjusted["auroc"] > 0.05 and equal.delong_adjusted["abnormal"] > 0.05
    raw = [c.differences["auroc"].p_value for c in (better, equal)]
    assert [better.adjusted["auroc"], equal.adjusted["auroc"]] == pytest.approx(list(holm(raw)))


def test_numbers_are_those_of_the_parts():
    made = runs(BINARY, {"a": 0.4, "b": 0.8})
    (found,) = compare(made, BINARY, {"a": [0.5], "b": [0.3]}, reference="a", repeats=300)
    a, b = (Predictions.of(made[name]) for name in "ab")
    y = a.target[:, 0]
    expected = delong_test(y, b.probabilities[:, 0], a.probabilities[:, 0], a.groups)
    assert found.delong["abnormal"] == expected
    values = [
        cluster_intervals(statistic(scores, BINARY, [cut]), scores.groups, repeats=2)["sensitivity"].value
        for scores, cut in ((b, 0.3), (a, 0.5))
    ]
    assert found.differences["sensitivity"].value == pytest.approx(values[0] - values[1])


def test_order_of_the_results_does_not_matter():
    made = runs(BINARY, {"a": 0.4, "b": 0.8})
    shuffled = made | {"b": made["b"][::-1]}
    assert compare(made, BINARY, repeats=50) == compare(shuffled, BINARY, repeats=50)


def test_several_classes_have_no_delong():
    (found,) = compare(runs(SEVERAL, {"a": 0.5, "b": 2.0}), SEVERAL, repeats=200)
    assert found.delong == {} and found.differences["accuracy"].low > 0


def test_runs_that_cannot_be_compared():
    made = runs(BINARY, {"a": 0.4, "b": 0.8})
    with pytest.raises(UserError, match="needs two runs"):
        compare({"a": made["a"]}, BINARY)
    with pytest.raises(UserError, match=r"same samples \(s299"):
        compare(made | {"b": made["b"][:-1]}, BINARY)
    other = [Prediction(r.id, r.group, r.study, r.logits, r.probabilities, 1 - r.target, r.mask) for r in made["b"]]
    with pytest.raises(UserError, match="different targets"):
        compare(made | {"b": other}, BINARY)
