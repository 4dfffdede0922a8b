"""The metrics of one column of a table: their intervals, and what they leave out."""

import math

import numpy as np
import pytest

from scanfuse.metrics.classification import ranking
from scanfuse.stats.bootstrap import Estimate
from scanfuse.stats.calibration import logits_of, probabilities_of
from scanfuse.tasks.classify.classes import Classes, parse_target
from scanfuse.tasks.classify.column import metric_table, metrics
from scanfuse.tasks.classify.prediction import Prediction

ABNORMAL = Classes("binary", ("abnormal",))
SPECIES = Classes("multiclass", ("cat", "dog", "horse"))
FINDINGS = Classes("multilabel", ("Edema", "Fracture"))


def result(
    name: str, p: float | list[float], target: str, classes: Classes = ABNORMAL, *, study: str = "", group: str = ""
):
    probabilities = np.atleast_1d(np.asarray(p, float))
    logits = logits_of(probabilities[None], classes.kind)[0]
    values, mask = parse_target(target, classes)
    return Prediction(name, group or name, study or name, logits, probabilities, values, mask)


def _population(classes: Classes, seed: int = 0, patients: int = 60) -> list[Prediction]:
    rng = np.random.default_rng(seed)
    results = []
    for patient in range(patients):
        for study in range(rng.integers(1, 3)):
            if classes.kind == "multiclass":
                y = int(rng.integers(len(classes.labels)))
                z = rng.normal(size=len(classes.labels)) + 2 * np.eye(len(classes.labels))[y]
                text = classes.labels[y]
            else:
                y = rng.integers(0, 2, len(classes.labels))
                z = rng.normal(size=len(classes.labels)) + 2 * y - 1
                words = ["" if rng.random() < 0.2 else str(value) for value in y]
                text = words[0] if classes.kind == "binary" else f"Edema={words[0]};Fracture={words[1]}"
            p = probabilities_of(z[None], classes.kind)[0]
            results.append(result(f"{patient}-{study}", p, text, classes, group=str(patient)))
    return results


@pytest.mark.parametrize("classes", [ABNORMAL, SPECIES, FINDINGS])
def test_the_table_holds_every_metric_with_its_interval(classes):
    results = _population(classes)
    table = metric_table(results, classes, repeats=300)
    assert list(table.summary) == list(metrics(classes))
    for name, estimate in table.summary.items():
        assert estimate.low <= estimate.high, name
        if name not in ("ece", "brier"):  # resampling raises a calibration error
            assert estimate.low <= estimate.value <= estimate.high, name
    assert (table.results, table.groups) == (len(results), 60)
    assert set(table.per_label) == (set(classes.labels) if classes.kind == "multilabel" else set())


def test_the_table_leaves_out_what_is_not_known():
    results = _population(FINDINGS)
    table = metric_table(results, FINDINGS, [0.3, 0.6], repeats=50)
    each = []
    for label in range(2):
        known = [r for r in results if r.mask[label]]
        each.append(ranking.auroc([r.target[label] for r in known], [r.probabilities[label] for r in known]))
        assert table.per_label[FINDINGS.labels[label]]["auroc"].value == pytest.approx(each[-1])
    assert table.summary["auroc"].value == pytest.approx(np.mean(each))
    assert any("targets are not known" in note for note in table.notes)
    other = metric_table(results, FINDINGS, [0.9, 0.6], repeats=50)
    assert other.per_label["Edema"]["sensitivity"].value < table.per_label["Edema"]["sensitivity"].value
    assert other.per_label["Fracture"] == table.per_label["Fracture"]


@pytest.mark.parametrize("classes", [ABNORMAL, SPECIES, FINDINGS])
def test_a_table_of_one_class_or_of_nothing_known(classes):
    text = {"binary": "1", "multiclass": "dog", "multilabel": "Edema=1;Fracture=1"}[classes.kind]
    p = [0.2, 0.5, 0.3][: classes.num_outputs]
    one = metric_table([result(f"{i}", p, text, classes) for i in range(4)], classes, repeats=20)
    assert math.isnan(one.summary["auroc"].value) and math.isnan(one.summary["auroc"].low)
    assert math.isfinite(one.summary["brier"].value)
    assert any("without AUROC" in note for note in one.notes) and any("only 4 patient" in note for note in one.notes)
    none = metric_table([result(f"{i}", p, "", classes) for i in range(4)], classes, repeats=20)
    assert all(math.isnan(estimate.value) for estimate in none.summary.values())
    with pytest.raises(ValueError, match="no results"):
        metric_table([], classes)


def test_intervals_are_over_patients_not_studies():
    results = _population(ABNORMAL, patients=40)
    copies = [r for r in results for _ in range(5)]
    once, often = (metric_table(part, ABNORMAL, repeats=400).summary["auroc"] for part in (results, copies))
    assert isinstance(once, Estimate)
    np.testing.assert_allclose(often, once, rtol=1e-9)
