"""The evaluation engine: which samples are scored, what the table marks, and what is written."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from rich.console import Console

from scanfuse import config, systems
from scanfuse.errors import UserError
from scanfuse.evaluate import Cell, Evaluation, _spread, _summarise, evaluate, leakage, markdown, print_table
from scanfuse.evaluate.tables import write
from scanfuse.predict import Predictor, load
from scanfuse.run import Run, create_run

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
    assert evaluation.notes[0].startswith("leaky")
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
