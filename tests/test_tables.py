"""Tables of evaluations and comparisons: what is marked, how numbers are shown, and what is written."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from scanfuse.tables import Cell, Comparisons, Evaluation, Row, markdown, print_table, write_comparisons


def table_of(cells: dict[str, dict[str, float]], better: dict[str, str], notes: tuple[str, ...] = ()) -> Evaluation:
    filled = {
        method: {metric: Cell(mean, mean - 1, mean + 1) for metric, mean in means.items()}
        for method, means in cells.items()
    }
    return Evaluation("test", 9, 6, list(cells), better, filled, [], list(notes))


def bold(line: str) -> list[int]:
    """Which columns of a line of the table are marked."""
    return [index for index, cell in enumerate(line.strip("| ").split(" | ")[1:]) if cell.startswith("**")]


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


def test_a_table_names_what_is_not_defined(tmp_path: Path) -> None:
    rows = [
        Row("b", "auroc", "DeLong", math.nan, math.nan, math.nan, math.nan, math.nan),
        Row("b", "f1", "bootstrap", 0.25, -0.125, 0.5, 0.00001, 0.5),
    ]
    write_comparisons(Comparisons("a", "test", 9, 6, rows, ["careful"]), tmp_path)
    lines = (tmp_path / "comparison.md").read_text().splitlines()
    assert lines[0].startswith("Difference to a on 9 test samples of 6 patients")
    assert lines[4] == "| b | auroc | DeLong | not defined |  |  |"
    assert lines[5] == "| b | f1 | bootstrap | +0.250 [-0.125,+0.500] | < 0.0001 | 0.5000 |"
    assert lines[-1] == "Note: careful."
