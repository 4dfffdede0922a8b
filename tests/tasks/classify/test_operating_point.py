"""Calibration and thresholds of a run: fitted on validation, stored, and applied to other studies."""

import json

import numpy as np
import pytest

from scanfuse import config, options
from scanfuse.data.folds import FoldConfig
from scanfuse.errors import UserError
from scanfuse.stats.calibration import probabilities_of
from scanfuse.tasks.classify import SamplingSettings
from scanfuse.tasks.classify.classes import Classes
from scanfuse.tasks.classify.column import metric_table
from scanfuse.tasks.classify.loss import ClassificationLoss
from scanfuse.tasks.classify.operating_point import (
    OperatingPoint,
    OperatingPointSettings,
    combine,
    fit_operating_point,
    undecided,
)
from scanfuse.tasks.classify.prediction import Prediction

BINARY = Classes("binary", ("abnormal",))
SEVERAL = Classes("multiclass", ("a", "b", "c"))
LABELS = Classes("multilabel", ("x", "y"))
ALL = (BINARY, SEVERAL, LABELS)


def overconfident(classes: Classes, seed: int, n: int = 800) -> list[Prediction]:
    """Results whose logits are three times too large."""
    rng = np.random.default_rng(seed)
    results = []
    for number, z in enumerate(1.5 * rng.normal(size=(n, classes.num_outputs)) - 0.5):
        p = probabilities_of(z[None], classes.kind)[0]
        y = [rng.choice(3, p=p)] if classes.kind == "multiclass" else (rng.random(len(p)) < p)
        target = np.asarray(y, float)
        spoilt = probabilities_of(3 * z[None], classes.kind)[0]
        name = str(number)
        results.append(Prediction(name, name, name, 3 * z, spoilt, target, np.ones(len(target), bool)))
    return results


@pytest.mark.parametrize("classes", ALL, ids=lambda classes: classes.kind)
def test_fitted_on_validation_it_helps_on_test(classes):
    validation, test = overconfident(classes, 0), overconfident(classes, 1)
    point = fit_operating_point(validation, classes, OperatingPointSettings())
    assert point.temperature == pytest.approx(3, rel=0.2)
    before = metric_table(test, classes, repeats=20).summary
    after = metric_table(point.apply(test), classes, point.thresholds, repeats=20).summary
    assert after["ece"].value < before["ece"].value / 2
    assert after["nll"].value < before["nll"].value
    if classes.kind == "binary":
        assert after["auroc"].value == before["auroc"].value
        assert after["balanced_accuracy"].value > before["balanced_accuracy"].value


@pytest.mark.parametrize("classes", ALL, ids=lambda classes: classes.kind)
def test_the_record_survives_json(classes):
    point = fit_operating_point(overconfident(classes, 0, n=60), classes, OperatingPointSettings())
    again = OperatingPoint.from_dict(json.loads(json.dumps(point.as_dict(), allow_nan=False)))
    assert again == point
    one = overconfident(classes, 2, n=5)
    for a, b in zip(point.apply(one), again.apply(one), strict=True):
        np.testing.assert_array_equal(a.probabilities, b.probabilities)


def test_a_damaged_record_is_one_line():
    content = undecided(BINARY).as_dict()
    for damage in ({"temperature": 0}, {"thresholds": [0.1, 0.2]}, {"temperature": None}):
        with pytest.raises(UserError, match="damaged"):
            OperatingPoint.from_dict(content | damage)
    with pytest.raises(UserError, match="damaged"):
        OperatingPoint.from_dict({})


def test_rules_and_switches():
    validation = overconfident(BINARY, 0)
    fixed = fit_operating_point(
        validation, BINARY, OperatingPointSettings(threshold_rule="fixed", fixed_threshold=0.3, calibrate=False)
    )
    assert (fixed.temperature, fixed.thresholds) == (1.0, (0.3,))
    assert fixed.validation["nll_after"] == fixed.validation["nll_before"]
    sensitive = fit_operating_point(
        validation, BINARY, OperatingPointSettings(threshold_rule="sensitivity", wanted_sensitivity=0.95)
    )
    assert sensitive.validation["sensitivity"][0] >= 0.95
    seen = metric_table(sensitive.apply(validation), BINARY, sensitive.thresholds, repeats=2).summary
    assert seen["sensitivity"].value == pytest.approx(sensitive.validation["sensitivity"][0])
    assert seen["specificity"].value == pytest.approx(sensitive.validation["specificity"][0])


def test_what_cannot_be_fitted_is_said():
    healthy = [result for result in overconfident(BINARY, 0, n=50) if result.target[0] == 0]
    point = fit_operating_point(healthy, BINARY, OperatingPointSettings())
    assert (point.temperature, point.thresholds) == (1.0, (0.5,))
    assert len(point.notes) == 2 and "one class" in point.notes[0] and "positive" in point.notes[1]
    assert point.validation["sensitivity"] == [None]
    json.dumps(point.as_dict(), allow_nan=False)


def test_called_labels():
    result = Prediction("a", "a", "a", np.zeros(2), np.array([0.4, 0.4]), np.zeros(2), np.zeros(2, bool))
    point = OperatingPoint("multilabel", ("x", "y"), 1.0, (0.3, 0.5), "youden", {})
    assert point.called(result) == ("x",)
    several = OperatingPoint("multiclass", ("x", "y"), 1.0, (), "argmax", {})
    assert several.called(result) == ("x",)


def test_combined_for_an_ensemble():
    two = [
        OperatingPoint("binary", ("x",), t, (c,), "youden", {}, (f"note {t}",)) for t, c in ((2.0, 0.2), (3.0, 0.6))
    ]
    combined = combine(two)
    assert (combined.temperature, combined.thresholds) == (1.0, (0.4,))
    assert combined.notes == ("note 2.0", "note 3.0")
    with pytest.raises(ValueError, match="same labels"):
        combine([two[0], undecided(LABELS)])


def test_the_sections_go_into_one_configuration():
    class Whole(config.Section):
        loss: ClassificationLoss = ClassificationLoss()
        sampling: SamplingSettings = SamplingSettings()
        folds: FoldConfig = FoldConfig()
        decision: OperatingPointSettings = OperatingPointSettings()
        train: config.TrainConfig = config.TrainConfig()

    leaves = options.leaves(Whole)  # raises where two sections use one flag
    assert {"loss", "balanced-sampling", "folds", "fold", "threshold-rule"} <= {leaf.flag for leaf in leaves}
    assert all(leaf.field.description for leaf in leaves)
    built = config.build(Whole, {"loss": {"name": "focal"}, "folds": {"folds": "5"}})
    assert built.loss.name == "focal" and built.folds.folds == 5
