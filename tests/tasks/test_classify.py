"""What classification systems share: targets, results, studies, ensembles, flips and the table."""

import math

import numpy as np
import pytest
import torch

from scanfuse.data.labels import Labels
from scanfuse.errors import UserError
from scanfuse.metrics.classification import ranking
from scanfuse.stats.cluster_bootstrap import Estimate
from scanfuse.tasks import classify
from scanfuse.tasks.classify import Scored, Task

ABNORMAL = Task("binary", ("abnormal",))
SPECIES = Task("multiclass", ("cat", "dog", "horse"))
FINDINGS = Task("multilabel", ("Edema", "Fracture"))


def result(
    name: str, p: float | list[float], target: str, task: Task = ABNORMAL, *, study: str = "", group: str = ""
):
    probabilities = np.atleast_1d(np.asarray(p, float))
    logits = classify.logits_of(probabilities[None], task.kind)[0]
    values, mask = classify.parse_target(target, task)
    return Scored(name, group or name, study or name, logits, probabilities, values, mask)


@pytest.mark.parametrize(
    ("task", "text", "values", "mask"),
    [
        (ABNORMAL, "1", [1], [True]),
        (ABNORMAL, "", [0], [False]),
        (SPECIES, "horse", [2], [True]),
        (FINDINGS, "Edema=1;Fracture=", [1, 0], [True, False]),
        (FINDINGS, "", [0, 0], [False, False]),
    ],
)
def test_targets(task, text, values, mask):
    found = classify.parse_target(text, task)
    assert (found[0].tolist(), found[1].tolist()) == (values, mask)
    assert found[0].shape == (task.num_targets,)


def test_a_task_from_the_labels_of_a_manifest():
    assert Task.of(Labels.of(["0", "1", ""]), "malignant") == Task("binary", ("malignant",))
    assert Task.of(Labels.of(["dog", "cat"])) == Task("multiclass", ("cat", "dog"))
    assert Task.of(Labels.of(["Edema=1;Fracture=0"])) == FINDINGS


def test_wrong_targets_and_tasks():
    with pytest.raises(UserError, match="target '2' is none of 0, 1"):
        classify.parse_target("2", ABNORMAL)
    with pytest.raises(UserError, match="cannot have 2 label"):
        Task("binary", ("normal", "abnormal"))
    with pytest.raises(UserError, match="twice"):
        Task("multilabel", ("a", "a"))


def test_two_outputs_of_a_binary_network_are_one_logit():
    two = torch.randn(5, 2, dtype=torch.float64)
    one = classify.one_logit(two, ABNORMAL)
    torch.testing.assert_close(one.sigmoid()[:, 0], two.softmax(1)[:, 1])
    with pytest.raises(ValueError, match="3 outputs, the task needs 1"):
        classify.one_logit(torch.zeros(1, 3), ABNORMAL)


def test_results_of_a_batch():
    metas = [{"id": "s1-1", "group": "p1", "target": "1", "study": "s1"}, {"id": "s2", "group": "p2", "target": ""}]
    first, second = classify.scored(torch.tensor([[0.0], [2.0]]), metas, ABNORMAL)
    assert (first.id, first.group, first.study, first.target[0]) == ("s1-1", "p1", "s1", 1)
    assert second.study == "s2" and not second.mask[0]
    assert first.probabilities[0] == 0.5 and second.probabilities[0] == pytest.approx(1 / (1 + math.exp(-2)))
    rows = classify.scored(torch.zeros(1, 3), [{"id": "x", "group": "x", "target": "dog"}], SPECIES)
    np.testing.assert_allclose(rows[0].probabilities, 1 / 3)


def test_pairs_are_gathered_into_studies():
    pairs = [
        result("a1", 0.2, "1", study="a", group="p"),
        result("b", 0.7, "0", study="b", group="q"),
        result("a2", 0.6, "1", study="a", group="p"),
        result("a3", 0.7, "1", study="a", group="p"),
    ]
    a, b = classify.by_study(pairs, ABNORMAL)
    assert (a.id, a.group, b.id) == ("a", "p", "b")
    assert a.probabilities[0] == pytest.approx(0.5) and b.probabilities[0] == 0.7
    np.testing.assert_allclose(classify.probabilities_of(a.logits[None], "binary")[0], a.probabilities)
    with pytest.raises(UserError, match="differ in patient or target"):
        classify.by_study([pairs[0], result("a9", 0.1, "0", study="a", group="p")], ABNORMAL)


def test_an_ensemble_averages_by_id():
    one = [result("a", [0.2, 0.3, 0.5], "cat", SPECIES), result("b", [1, 0, 0], "dog", SPECIES)]
    two = [result("b", [0, 1, 0], "dog", SPECIES), result("a", [0.4, 0.3, 0.3], "cat", SPECIES)]
    a, b = classify.ensemble([one, two], SPECIES)
    np.testing.assert_allclose(a.probabilities, [0.3, 0.3, 0.4])
    np.testing.assert_allclose(b.probabilities, [0.5, 0.5, 0])
    with pytest.raises(ValueError, match="same samples"):
        classify.ensemble([one, two[:1]], SPECIES)


@pytest.mark.parametrize("task", [ABNORMAL, SPECIES, FINDINGS])
def test_flip_average_is_the_mean_probability(task):
    torch.manual_seed(0)
    weights = 3 * torch.randn(2, 8 * 8, task.num_outputs, dtype=torch.float64)
    views = {"a": torch.randn(3, 1, 8, 8, dtype=torch.float64), "b": torch.randn(3, 1, 8, 8, dtype=torch.float64)}

    def forward(given: dict[str, torch.Tensor]) -> torch.Tensor:
        return given["a"].flatten(1) @ weights[0] + given["b"].flatten(1) @ weights[1]

    each = [
        classify.probabilities_of(forward(part).numpy(), task.kind)
        for part in (views, {name: view.flip(-1) for name, view in views.items()})
    ]
    averaged = classify.flip_average(forward, views, task)
    np.testing.assert_allclose(classify.probabilities_of(averaged.numpy(), task.kind), np.mean(each, axis=0))
    mirrored = classify.flip_average(forward, {name: view.flip(-1) for name, view in views.items()}, task)
    torch.testing.assert_close(averaged, mirrored)


def _population(task: Task, seed: int = 0, patients: int = 60) -> list[Scored]:
    rng = np.random.default_rng(seed)
    results = []
    for patient in range(patients):
        for study in range(rng.integers(1, 3)):
            if task.kind == "multiclass":
                y = int(rng.integers(len(task.labels)))
                z = rng.normal(size=len(task.labels)) + 2 * np.eye(len(task.labels))[y]
                text = task.labels[y]
            else:
                y = rng.integers(0, 2, len(task.labels))
                z = rng.normal(size=len(task.labels)) + 2 * y - 1
                words = ["" if rng.random() < 0.2 else str(value) for value in y]
                text = words[0] if task.kind == "binary" else f"Edema={words[0]};Fracture={words[1]}"
            p = classify.probabilities_of(z[None], task.kind)[0]
            results.append(result(f"{patient}-{study}", p, text, task, group=str(patient)))
    return results


@pytest.mark.parametrize("task", [ABNORMAL, SPECIES, FINDINGS])
def test_the_table_holds_every_metric_with_its_interval(task):
    results = _population(task)
    table = classify.metric_table(results, task, repeats=300)
    assert list(table.summary) == list(classify.metrics(task))
    for name, estimate in table.summary.items():
        assert estimate.low <= estimate.high, name
        if name not in ("ece", "brier"):  # resampling raises a calibration error
            assert estimate.low <= estimate.value <= estimate.high, name
    assert (table.results, table.groups) == (len(results), 60)
    assert set(table.per_label) == (set(task.labels) if task.kind == "multilabel" else set())


def test_the_table_leaves_out_what_is_not_known():
    results = _population(FINDINGS)
    table = classify.metric_table(results, FINDINGS, [0.3, 0.6], repeats=50)
    each = []
    for label in range(2):
        known = [r for r in results if r.mask[label]]
        each.append(ranking.auroc([r.target[label] for r in known], [r.probabilities[label] for r in known]))
        assert table.per_label[FINDINGS.labels[label]]["auroc"].value == pytest.approx(each[-1])
    assert table.summary["auroc"].value == pytest.approx(np.mean(each))
    assert any("targets are not known" in note for note in table.notes)
    other = classify.metric_table(results, FINDINGS, [0.9, 0.6], repeats=50)
    assert other.per_label["Edema"]["sensitivity"].value < table.per_label["Edema"]["sensitivity"].value
    assert other.per_label["Fracture"] == table.per_label["Fracture"]


@pytest.mark.parametrize("task", [ABNORMAL, SPECIES, FINDINGS])
def test_a_table_of_one_class_or_of_nothing_known(task):
    text = {"binary": "1", "multiclass": "dog", "multilabel": "Edema=1;Fracture=1"}[task.kind]
    p = [0.2, 0.5, 0.3][: task.num_outputs]
    one = classify.metric_table([result(f"{i}", p, text, task) for i in range(4)], task, repeats=20)
    assert math.isnan(one.summary["auroc"].value) and math.isnan(one.summary["auroc"].low)
    assert math.isfinite(one.summary["brier"].value)
    assert any("without AUROC" in note for note in one.notes) and any("only 4 patient" in note for note in one.notes)
    none = classify.metric_table([result(f"{i}", p, "", task) for i in range(4)], task, repeats=20)
    assert all(math.isnan(estimate.value) for estimate in none.summary.values())
    with pytest.raises(ValueError, match="no results"):
        classify.metric_table([], task)


def test_intervals_are_over_patients_not_studies():
    results = _population(ABNORMAL, patients=40)
    copies = [r for r in results for _ in range(5)]
    once, often = (classify.metric_table(part, ABNORMAL, repeats=400).summary["auroc"] for part in (results, copies))
    assert isinstance(once, Estimate)
    np.testing.assert_allclose(often, once, rtol=1e-9)


@pytest.mark.parametrize("task", [ABNORMAL, SPECIES, FINDINGS])
def test_predictions_survive_a_file(task, tmp_path):
    results = _population(task, patients=10)
    classify.write_predictions(tmp_path / "predictions.csv", results, task)
    read = classify.read_predictions(tmp_path / "predictions.csv", task)
    for before, after in zip(results, read, strict=True):
        assert (before.id, before.group, before.study) == (after.id, after.group, after.study)
        np.testing.assert_array_equal(before.probabilities, after.probabilities)
        np.testing.assert_array_equal(before.target * before.mask, after.target)
        np.testing.assert_array_equal(before.mask, after.mask)
    with pytest.raises(UserError, match="expected id, group"):
        classify.read_predictions(tmp_path / "predictions.csv", Task("multilabel", ("x",)))
