"""Subgroups of a classification: each is scored as its studies alone."""

import io
from dataclasses import astuple, replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.stats.calibration import probabilities_of
from scanfuse.tables import markdown, print_table
from scanfuse.tasks.classify.classes import Classes
from scanfuse.tasks.classify.column import Column, metric_table
from scanfuse.tasks.classify.prediction import Prediction
from scanfuse.tasks.classify.subgroups import grouped, subgroup_columns, subgroup_tables


def scored(task: Classes, count: int = 60, seed: int = 0) -> list[Prediction]:
    """Results of thirty patients with unknown targets among them."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        target = random.integers(0, 3 if task.kind == "multiclass" else 2, task.num_targets).astype(float)
        mask = random.random(task.num_targets) < 0.9
        z = random.normal(size=task.num_outputs)
        p = probabilities_of(z[None], task.kind)[0]
        name = f"s{number}"
        found.append(Prediction(name, f"p{number // 2}", name, z, p, np.where(mask, target, 0), mask))
    return found


@pytest.mark.parametrize(
    "task",
    [
        Classes("binary", ("abnormal",)),
        Classes("multilabel", ("edema", "fracture")),
        Classes("multiclass", ("a", "b", "c")),
    ],
    ids=lambda task: task.kind,
)
def test_a_group_has_the_metrics_of_its_studies_alone(task: Classes) -> None:
    results = scored(task)
    thresholds = [0.3, 0.6][: task.num_outputs] if task.kind != "multiclass" else []
    values = {result.id: ["f", "m", ""][number % 3] for number, result in enumerate(results)}
    found = subgroup_tables(Column.of(results, thresholds), None, task, "sex", values, "test")
    table = found["by sex"]
    assert list(table.better) == ["f", "m", "not given", "group mean", "all"]
    second = "balanced_accuracy" if task.kind == "multiclass" else "sensitivity"
    assert table.methods == [
        "n",
        *{"binary": ["abnormal"], "multilabel": ["positive"], "multiclass": []}[task.kind],
        "auroc",
        second,
        "specificity",
    ]
    aurocs = []
    for name, value in (("f", "f"), ("m", "m"), ("not given", "")):
        own = [result for result in results if values[result.id] == value]
        alone = metric_table(own, task, thresholds or None)
        assert table.cells["n"][name].mean == len(own)
        for metric in ("auroc", second, "specificity"):
            assert astuple(table.cells[metric][name]) == pytest.approx(tuple(alone.summary[metric]))
        if task.kind != "multiclass":
            positive = sum(any(t == 1 and known for t, known in zip(r.target, r.mask, strict=True)) for r in own)
            assert table.cells[table.methods[1]][name].mean == positive
        if task.kind == "multilabel":
            cells = found["AUROC by sex"].cells[name]
            assert {label: cell.mean for label, cell in cells.items()} == pytest.approx(
                {label: alone.per_label[label]["auroc"].value for label in task.labels}
            )
        aurocs.append(alone.summary["auroc"].value)
    mean = table.cells["auroc"]["group mean"]
    assert mean.mean == pytest.approx(np.mean(aurocs))
    assert mean.low < mean.mean < mean.high
    assert list(found) == ["by sex", *(["AUROC by sex"] if task.kind == "multilabel" else [])]


def test_groups_without_both_outcomes_show_dashes_and_counts_are_whole() -> None:
    task = Classes("binary", ("abnormal",))
    results = [
        replace(r, mask=np.array([True]), target=np.array([float(n < 12)])) for n, r in enumerate(scored(task))
    ]
    values = {result.id: "all sick" if number < 6 else "mixed" for number, result in enumerate(results)}
    table = subgroup_tables(Column.of(results, [0.5]), None, task, "ward", values, "test")["by ward"]
    lines = {line.split(" | ")[0].strip("| "): line for line in markdown(table, "by ward").splitlines()}
    assert lines["all sick"].startswith("| all sick | 6 | 6 | - | ") and lines["all sick"].endswith("| - |")
    assert lines["mixed"].startswith("| mixed | 54 | 6 | 0.")
    assert lines["group mean"].startswith("| group mean | - | - | 0.") and lines["group mean"].endswith("| - | - |")
    assert lines["all"].startswith("| all | 60 | 12 | 0.")
    assert markdown(table, "by ward").startswith("by ward: 60 test studies of 30 patients; ")
    console = Console(file=io.StringIO(), width=80)
    print_table(table, console, name="by ward")
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "specificity" in printed and "group mean" in printed and "not fit" not in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_values_become_groups() -> None:
    assert grouped(["b", "", "a", "b"], "ward") == ["b", "not given", "a", "b"]
    assert grouped(["4", "1", "4"], "density") == ["4", "1", "4"]
    ages = [str(age) for age in range(20, 60)]
    found = grouped([*ages, ""], "age")
    assert found[-1] == "not given"
    assert list(dict.fromkeys(found[:-1])) == ["20 to 29", "30 to 39", "40 to 49", "50 to 59"]
    assert [found[number] for number in (0, 9, 10, 39)] == ["20 to 29", "20 to 29", "30 to 39", "50 to 59"]
    with pytest.raises(UserError, match="'ward' has 21 different values"):
        grouped([f"ward {number}" for number in range(21)], "ward")


def test_results_may_have_thresholds_of_their_own() -> None:
    """Calls at a threshold per result are those of results moved onto a common one."""
    task = Classes("multilabel", ("edema", "fracture"))
    results = scored(task)
    parts = Column.of(results[:20], [0.2, 0.4]), Column.of(results[20:], [0.7, 0.5])
    table = Column.joined(parts).table(task)
    for number, label in enumerate(task.labels):
        cuts = [column.cuts[number][0] for column in parts for _ in column.results]
        known = [
            (r.target[number], r.probabilities[number] >= cut)
            for r, cut in zip(results, cuts, strict=True)
            if r.mask[number]
        ]
        sensitivity = np.mean([called for y, called in known if y == 1])
        specificity = np.mean([not called for y, called in known if y == 0])
        assert table.per_label[label]["sensitivity"].value == pytest.approx(sensitivity)
        assert table.per_label[label]["specificity"].value == pytest.approx(specificity)
    assert table.per_label == metric_table(results, task, Column.joined(parts).cuts).per_label
    half = Column.joined(parts).where([result.group < "p3" for result in results])
    assert [r.id for r in half.results] == [r.id for r in results if r.group < "p3"]
    assert [len(cut) for cut in half.cuts] == [len(half.results)] * 2


def test_the_columns_to_tabulate_by() -> None:
    columns = {"id": list("abc"), "group": list("abc"), "split": "test", "target": "1", "view": "x.png"}
    table = pd.DataFrame(columns | {"part": ["HAND", "HAND", "WRIST"], "side": "left"})
    manifest = Manifest(table, ("view",), (), ("part",))
    assert subgroup_columns(manifest, []) == ["part"]
    assert subgroup_columns(manifest, [], usual=False) == []
    assert subgroup_columns(manifest, ["side", "side"]) == ["side"]
    assert subgroup_columns(manifest.subset("test"), []) == ["part"]
    assert subgroup_columns(Manifest(table[:2], ("view",), (), ("part",)), []) == []  # one part is no subgroup
    for name in ("view", "group", "sex"):
        with pytest.raises(UserError, match=f"no column {name!r} for --by; there are: part, side"):
            subgroup_columns(manifest, [name])


def test_a_label_that_is_called_as_a_column_takes_no_column_away() -> None:
    for label, name in (("n", "positive"), ("auroc", "positive"), ("fracture", "fracture")):
        task = Classes("binary", (label,))
        results = scored(task)
        values = {result.id: "one" for result in results}
        table = subgroup_tables(Column.of(results, [0.5]), None, task, "ward", values, "test")["by ward"]
        assert table.methods == ["n", name, "auroc", "sensitivity", "specificity"]
        assert table.cells["n"]["one"].mean == 60 > table.cells[name]["one"].mean
        assert 0 < table.cells["auroc"]["one"].mean < 1
