"""The evaluation engine: which samples are scored, what the table marks, and what is written."""

import csv
import io
import json
import math
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from rich.console import Console

from scanfuse import config, systems
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.verbs.evaluate import Cell, Evaluation, _spread, _summarise, evaluate, leakage, markdown, print_table
from scanfuse.tasks.classify.column import Column
from scanfuse.tasks.classify.subgroups import grouped, subgroup_columns, subgroup_tables
from scanfuse.tables import write
from scanfuse.verbs.predict import Predictor, load
from scanfuse.run import Run, create_run
from scanfuse.stats.calibration import probabilities_of
from scanfuse.tasks.classify import Scored, Task, metric_table

SYSTEM = "clinicalfmamba"


def untrained(path: Path, data: Path) -> Predictor:
    """A run of the tiny network as it was drawn, with the split of `data`."""
    system_type = systems.load(SYSTEM)
    settings = config.build(system_type.Config, config.preset(SYSTEM, "tiny"))
    system = system_type(settings)
    run = create_run(path)
    run.save_config(settings)
    run.save_split(system.open_data(data))
    run.save_weights(system.model.state_dict(), {"system": SYSTEM})
    return load(path, device="cpu")


@pytest.fixture
def ours(head_phantoms: Path, tmp_path: Path) -> Predictor:
    return untrained(tmp_path / "run", head_phantoms)


@pytest.fixture
def quick_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two metrics in place of fifteen, for tests of what surrounds them: mean grey levels, one of them worse high."""
    system_type = systems.load(SYSTEM)
    monkeypatch.setattr(
        system_type,
        "score",
        lambda self, result: {"grey": float(result.luminance.mean()), "dark": float(255 - result.luminance.mean())},
    )
    monkeypatch.setattr(system_type, "metrics", lambda self: {"grey": "higher", "dark": "lower"})


def edit_split(run: Run, change: Any) -> pd.DataFrame:
    """Rewrites split.csv with the changed table and gives the table from before the change."""
    before = run.split()
    change(before.copy()).to_csv(run.split_file, index=False)
    return before


def table_of(cells: dict[str, dict[str, float]], better: dict[str, str], notes: tuple[str, ...] = ()) -> Evaluation:
    filled = {
        method: {metric: Cell(mean, mean - 1, mean + 1) for metric, mean in means.items()}
        for method, means in cells.items()
    }
    return Evaluation("test", 9, 6, list(cells), better, filled, [], list(notes))


def bold(line: str) -> list[int]:
    """Which columns of a line of the table are marked."""
    return [index for index, cell in enumerate(line.strip("| ").split(" | ")[1:]) if cell.startswith("**")]


# ---- the table


@pytest.mark.parametrize(
    ("direction", "means", "marked"),
    [
        ("higher", [0.2, 0.9, 0.5], [1]),
        ("lower", [0.2, 0.9, 0.5], [0]),
        ("none", [0.2, 0.9, 0.5], []),
        ("higher", [0.70041, 0.7, 0.6996], [0, 1, 2]),  # equal as shown
        ("higher", [math.nan, 0.1, -0.3], [1]),
        ("lower", [math.nan, 0.1, -0.3], [2]),
        ("higher", [math.nan] * 3, []),
        ("higher", [30.0, math.inf, 20.0], [1]),
        ("lower", [30.0, math.inf, 20.0], [2]),
        ("higher", [-math.inf, -2.0, math.nan], [1]),
        ("higher", [30.0042, 30.0, 29.99], [0, 1]),  # from 10 on two decimals are shown
        ("lower", [9.9991, 9.9993, 10.0], [0, 1]),
    ],
)
def test_the_best_mean_of_each_row_is_marked(direction: str, means: list[float], marked: list[int]) -> None:
    names = ["run", "other", "average"]
    cells = {name: {"m": mean, "plain": 1.0} for name, mean in zip(names, means, strict=True)}
    lines = markdown(table_of(cells, {"m": direction, "plain": "none"})).splitlines()
    assert lines[2] == "| metric | run | other | average |"
    assert lines[3].count("---") == 4
    arrow = {"higher": "↑", "lower": "↓"}.get(direction, "")
    assert lines[4].startswith(f"| m {arrow}".rstrip() + " |")
    assert bold(lines[4]) == marked
    assert bold(lines[5]) == []


def test_cells_show_mean_and_interval_and_notes_follow() -> None:
    evaluation = table_of({"run": {"m": 0.25}, "average": {"m": 0.125}}, {"m": "higher"}, ("first", "second"))
    evaluation.cells["average"]["m"] = Cell(0.125, math.nan, math.nan)
    text = markdown(evaluation)
    assert text.startswith("9 test samples of 6 cases; mean and 95 % interval over cases.\n")
    assert "| **0.250** [-0.750,1.250] | 0.125 |" in text
    assert text.endswith("\n\nNote: first.\nNote: second.\n")
    console = Console(file=io.StringIO(), width=100)
    print_table(evaluation, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0.250 [-0.750,1.250]" in printed
    assert "note: first\nnote: second\n" in printed


def test_intervals_are_whole_on_the_console_or_not_there() -> None:
    names = [f"fold-{number}" for number in range(5)]
    evaluation = table_of({name: {"balanced_accuracy": 0.25} for name in names}, {"balanced_accuracy": "higher"})
    for width, shown in ((130, True), (108, True), (107, False), (80, False)):
        console = Console(file=io.StringIO(), width=width)
        print_table(evaluation, console)
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        assert printed.count("0.250") == 5
        assert printed.count("[-0.750,1.250]") == (5 if shown else 0)
        assert ("intervals do not fit" in printed) != shown
        assert all(name in printed for name in names)


def test_intervals_are_over_cases() -> None:
    """Draws of two cases: xx, xy or yx, yy; means 1, 2, 3. Draws of four samples would reach 0.5 and 3.5."""
    rows = [
        {"method": "run", "id": str(index), "group": group, "m": value}
        for index, (group, value) in enumerate([("x", 0.0), ("x", 2.0), ("y", 2.0), ("y", 4.0)])
    ]
    evaluation = _summarise(rows, {"m": "higher"}, "test", ["leaky: yes"])
    cell = evaluation.cells["run"]["m"]
    assert (cell.mean, cell.low, cell.high) == (2.0, 1.0, 3.0)
    assert (evaluation.samples, evaluation.groups) == (4, 2)
    assert evaluation.notes[0] == "leaky: yes"
    assert evaluation.notes[1].startswith("only 2 case(s)")
    alone = _summarise(rows[:2], {"m": "higher"}, "test", [])
    assert alone.cells["run"]["m"].mean == 1
    assert math.isnan(alone.cells["run"]["m"].low)


def test_enough_cases_need_no_warning_and_undefined_values_are_left_out() -> None:
    values = [1.0, 2.0, math.nan, 4.0, 5.0]
    rows = [{"method": "run", "id": str(k), "group": str(k), "m": value} for k, value in enumerate(values)]
    evaluation = _summarise(rows, {"m": "higher"}, "test", [])
    assert evaluation.notes == []
    assert evaluation.cells["run"]["m"].mean == 3


def test_files_hold_every_value_and_json_is_strict(tmp_path: Path) -> None:
    rows = [
        {"method": method, "id": f"s{k}", "group": f"g{k}", "m": value, "p": math.inf}
        for method, values in (("run", [1.25, math.nan]), ("average", [0.1, 3.0]))
        for k, value in enumerate(values)
    ]
    write(_summarise(rows, {"m": "higher", "p": "higher"}, "test", ["careful"]), tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "evaluation.json",
        "per_sample.csv",
        "table.md",
    ]

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "new" / "evaluation.json").read_text()
    content = json.loads(text, parse_constant=refuse)
    assert content["cells"]["run"] == {
        "m": {"mean": 1.25, "low": None, "high": None},
        "p": {"mean": None, "low": None, "high": None},
    }
    assert content["notes"][0] == "careful"
    assert "rows" not in content
    with (tmp_path / "new" / "per_sample.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [(row["method"], row["id"], row["group"]) for row in read] == [
        ("run", "s0", "g0"),
        ("run", "s1", "g1"),
        ("average", "s0", "g0"),
        ("average", "s1", "g1"),
    ]
    np.testing.assert_array_equal([float(row["m"]) for row in read], [1.25, math.nan, 0.1, 3.0])


# ---- which samples


def test_leakage_by_hand() -> None:
    trained = pd.DataFrame({"group": ["a", "b", "c", "c"], "split": ["train", "val", "test", "test"]})
    tested = pd.DataFrame(
        {"group": ["c", "b", "a", "d", "a", "e"], "split": ["test", "test", "train", "test", "test", "val"]}
    )
    assert leakage(tested, trained) == ["a", "b"]
    assert leakage(tested[tested["group"] == "c"], trained) == []


def test_gallery_positions_are_distinct_and_spread() -> None:
    class Rows:
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

    for total in range(1, 40):
        for count in range(15):
            found = sorted(_spread(Rows(total), count))  # type: ignore[arg-type]
            assert len(found) == min(count, total)
            assert all(0 <= position < total for position in found)
            if len(found) > 1:
                steps = np.diff(found)
                assert steps.max() - steps.min() <= 1
    assert _spread(Rows(9), 3) == {1, 4, 7}  # type: ignore[arg-type]


def test_the_test_split_of_the_run_is_scored(
    ours: Predictor, head_phantoms: Path, tmp_path: Path, quick_scores: None
) -> None:
    split = ours.run.split()
    expected = split[split["split"] == "test"]
    evaluation = evaluate({"run": ours}, head_phantoms, out=tmp_path / "e", pictures=1, quiet=True)
    assert evaluation.methods == ["run", "average", "maximum", "laplacian"]
    assert (evaluation.samples, evaluation.groups) == (len(expected), expected["group"].nunique())
    for method in evaluation.methods:
        rows = [row for row in evaluation.rows if row["method"] == method]
        assert [row["id"] for row in rows] == list(expected["id"])
        assert [row["group"] for row in rows] == list(expected["group"])
        mean = np.mean([row["grey"] for row in rows])
        assert evaluation.cells[method]["grey"].mean == pytest.approx(mean, abs=1e-12)
    # The values are those of the pictures that a prediction writes.
    first = next(row for row in evaluation.rows if row["method"] == "run")
    paths = ours.system.open_data(head_phantoms).table.set_index("id").loc[first["id"]]
    predicted = ours.predict(ct=paths["ct"], mri=paths["mri"])
    assert first["grey"] == predicted.luminance.mean()
    with PIL.Image.open(tmp_path / "e" / "gallery.png") as picture:
        assert picture.size[1] == 48 + 22 + 4
    with (tmp_path / "e" / "per_sample.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4 * len(expected)


def test_the_other_splits_and_their_note(ours: Predictor, head_phantoms: Path, quick_scores: None) -> None:
    counts = ours.run.split()["split"].value_counts()
    for split, count in (("val", counts["val"]), ("train", counts["train"]), ("all", counts.sum())):
        evaluation = evaluate({"run": ours}, head_phantoms, split=split, pictures=0, quiet=True)  # type: ignore[arg-type]
        assert evaluation.samples == count
        warned = any("were trained on" in note for note in evaluation.notes)
        assert warned == (split != "val")


def test_samples_that_the_run_does_not_know_are_test_samples(
    ours: Predictor, head_phantoms: Path, quick_scores: None
) -> None:
    """A whole case that was in the data's own training split, but not in this run's."""
    split = ours.run.split()
    case = split[split["split"] == "train"]["group"].iloc[0]
    edit_split(ours.run, lambda table: table[table["group"] != case])
    evaluation = evaluate({"run": ours}, head_phantoms, pictures=0, quiet=True)
    wanted = split[(split["split"] == "test") | (split["group"] == case)]
    assert [row["id"] for row in evaluation.rows if row["method"] == "run"] == list(wanted["id"])


def test_unknown_slices_of_a_training_case_are_refused_or_labelled(
    ours: Predictor, head_phantoms: Path, quick_scores: None
) -> None:
    split = ours.run.split()
    row = split[split["split"] == "train"].iloc[0]
    edit_split(ours.run, lambda table: table[table["id"] != row["id"]])
    with pytest.raises(UserError, match=f"The cases {row['group']} are in the training of run .*--on all"):
        evaluate({"run": ours}, head_phantoms, pictures=0, quiet=True)
    evaluation = evaluate({"run": ours}, head_phantoms, split="all", pictures=0, quiet=True)
    assert evaluation.samples == len(split)
    assert any(note.startswith("leaky: of 1 case") for note in evaluation.notes)
    assert "Note: leaky" in markdown(evaluation)


def test_the_notes_of_a_leaky_split_are_shown(head_phantoms: Path, tmp_path: Path, quick_scores: None) -> None:
    system_type = systems.load(SYSTEM)
    settings = config.build(system_type.Config, config.preset(SYSTEM, "tiny"), {"data": {"split": "published"}})
    system = system_type(settings)
    run = create_run(tmp_path / "run")
    run.save_config(settings)
    run.save_split(system.open_data(head_phantoms))
    run.save_weights(system.model.state_dict(), {"system": SYSTEM})
    evaluation = evaluate({"run": load(run.path, device="cpu")}, head_phantoms, pictures=0, quiet=True)
    assert sum(note.startswith("leaky") for note in evaluation.notes) == 1
    assert "Note: leaky" in markdown(evaluation)


def test_runs_of_other_splits_and_names_of_baselines_are_refused(
    ours: Predictor, head_phantoms: Path, tmp_path: Path, quick_scores: None
) -> None:
    other = untrained(tmp_path / "other", head_phantoms)
    both = evaluate({"a": ours, "b": other}, head_phantoms, pictures=0, quiet=True)
    assert both.methods[:2] == ["a", "b"]

    def swap(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(split=table["split"].replace({"val": "test", "test": "val"}))

    edit_split(other.run, swap)
    with pytest.raises(UserError, match="a and b were trained on different splits"):
        evaluate({"a": ours, "b": other}, head_phantoms, pictures=0, quiet=True)
    with pytest.raises(UserError, match="name of the plain method 'average'"):
        evaluate({"average": ours}, head_phantoms, pictures=0, quiet=True)


# ---- subgroups of a classification


def scored(task: Task, count: int = 60, seed: int = 0) -> list[Scored]:
    """Results of thirty patients with unknown targets among them."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        target = random.integers(0, 3 if task.kind == "multiclass" else 2, task.num_targets).astype(float)
        mask = random.random(task.num_targets) < 0.9
        z = random.normal(size=task.num_outputs)
        p = probabilities_of(z[None], task.kind)[0]
        name = f"s{number}"
        found.append(Scored(name, f"p{number // 2}", name, z, p, np.where(mask, target, 0), mask))
    return found


@pytest.mark.parametrize(
    "task",
    [
        Task("binary", ("abnormal",)),
        Task("multilabel", ("edema", "fracture")),
        Task("multiclass", ("a", "b", "c")),
    ],
    ids=lambda task: task.kind,
)
def test_a_group_has_the_metrics_of_its_studies_alone(task: Task) -> None:
    results = scored(task)
    thresholds = [0.3, 0.6][: task.num_outputs] if task.kind != "multiclass" else []
    values = {result.id: ["f", "m", ""][number % 3] for number, result in enumerate(results)}
    found = subgroup_tables(Column.of(results, thresholds), None, task, "sex", values, "test")
    table = found["by sex"]
    assert list(table.better) == ["f", "m", "not given", "group mean", "all"]
    second = "balanced_accuracy" if task.kind == "multiclass" else "sensitivity"
    assert table.methods == [
        "n",
        *(["positive"] if task.kind != "multiclass" else []),
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
            assert table.cells["positive"][name].mean == positive
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
    task = Task("binary", ("abnormal",))
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
    task = Task("multilabel", ("edema", "fracture"))
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
