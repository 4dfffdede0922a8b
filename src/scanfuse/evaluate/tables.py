"""What an evaluation found, and how it is shown: on the console, as Markdown, as JSON and CSV."""

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scanfuse.files import without_nan, write_text

__all__ = ["Cell", "Evaluation", "markdown", "print_table", "write"]


@dataclass(frozen=True)
class Cell:
    """Mean of one metric for one method and its 95 % interval over cases (nan with fewer than two cases)."""

    mean: float
    low: float
    high: float


@dataclass
class Evaluation:
    """The outcome of `evaluate`.

    Attributes:
        split: which samples were used.
        samples, groups: how many samples and cases.
        methods: names in table order, runs first.
        better: metric -> higher, lower or none.
        cells: method -> metric -> Cell.
        rows: one dictionary per method and sample.
        notes: what a reader must know (leaky splits, few cases).
        unit: what a sample is.
        parts: further tables of the same results, by title. A table of subgroups has the groups in place of the
            metrics and the values in place of the methods.
        counts: those of the methods whose values are whole numbers.
        thresholds: method -> the thresholds of its decisions, one per label; empty where samples have their own.
    """

    split: str
    samples: int
    groups: int
    methods: list[str]
    better: dict[str, str]
    cells: dict[str, dict[str, Cell]]
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    unit: str = "samples"
    parts: dict[str, "Evaluation"] = field(default_factory=dict)
    counts: list[str] = field(default_factory=list)
    thresholds: dict[str, list[float]] = field(default_factory=dict)


def print_table(evaluation: Evaluation, console: Console | None = None, *, name: str = "") -> None:
    """The table on the console: one row per metric, one column per method, the best mean of each row in bold.

    Where the console is too narrow for the intervals they are left out, and a line says so.
    """
    console = console or Console()
    table = Table(title=_title(evaluation, name), title_justify="left")
    table.add_column(_corner(evaluation), no_wrap=True)
    texts = {
        (method, metric): _texts(evaluation, method, metric)
        for method in evaluation.methods
        for metric in evaluation.better
    }
    first = max(len(metric) + len(_ARROWS[direction]) for metric, direction in evaluation.better.items())
    # An interval may stand below its mean, but is not broken; three characters of each column are the frame.
    wide = {m: max(len(ends) for (method, _), (_, ends) in texts.items() if method == m) for m in evaluation.methods}
    least = {m: len(m) if m in evaluation.counts else 8 for m in evaluation.methods}
    fits = first + 4 + sum(max(wide[m], least[m]) + 3 for m in evaluation.methods) <= console.width
    for method in evaluation.methods:
        narrowest = max(wide[method], least[method]) if fits else least[method]
        table.add_column(escape(method), justify="right", min_width=narrowest, overflow="fold")
    best = _best(evaluation)
    for metric, direction in evaluation.better.items():
        cells = []
        for method in evaluation.methods:
            mean, ends = texts[method, metric]
            marked = f"[bold]{mean}[/bold]" if method in best[metric] else mean
            cells.append(f"{marked} [dim]{escape(ends)}[/dim]" if ends and fits else marked)
        table.add_row(escape(metric) + _ARROWS[direction], *cells)
    console.print(table)
    if not fits and any(wide.values()):
        console.print("The intervals do not fit in here; they are in table.md.", highlight=False)
    for title, part in evaluation.parts.items():
        print_table(part, console, name=title)
    for note in evaluation.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)


def markdown(evaluation: Evaluation, name: str = "") -> str:
    """The same table in Markdown; a cell is the mean and its interval."""
    best = _best(evaluation)
    lines = [
        f"{_title(evaluation, name)}.",
        "",
        f"| {_corner(evaluation)} | " + " | ".join(evaluation.methods) + " |",
    ]
    lines.append("|---" * (len(evaluation.methods) + 1) + "|")
    for metric, direction in evaluation.better.items():
        cells = [metric + _ARROWS[direction]]
        for method in evaluation.methods:
            mean, ends = _texts(evaluation, method, metric)
            cells.append(f"{f'**{mean}**' if method in best[metric] else mean} {ends}".strip())
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join([*lines, "", *(f"Note: {note}." for note in evaluation.notes)]).rstrip() + "\n"
    return "\n".join([text, *(markdown(part, title) for title, part in evaluation.parts.items())])


def write(evaluation: Evaluation, out: Path) -> None:
    """Writes table.md, evaluation.json and per_sample.csv, the last also of parts that have their own rows."""
    _write_rows(evaluation.rows, out / "per_sample.csv")
    for name, part in evaluation.parts.items():
        if part.rows:
            _write_rows(part.rows, out / f"per_sample_{name}.csv")
    write_text(out / "table.md", markdown(evaluation))
    content = asdict(replace(evaluation, rows=[]))
    for table in (content, *content["parts"].values()):
        # What is empty says nothing; `parts` of a part always is.
        for name in ("rows", "parts", "counts", "thresholds"):
            if not table[name]:
                del table[name]
        table.pop("rows", None)
    write_text(out / "evaluation.json", json.dumps(without_nan(content), indent=2) + "\n")


_ARROWS = {"higher": " ↑", "lower": " ↓", "none": ""}


def _write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _title(evaluation: Evaluation, name: str) -> str:
    if evaluation.unit == "samples":
        who, what = "cases", "mean"
    else:
        who, what = "patients", "value"
    return (
        (f"{name}: " if name and name not in evaluation.unit else "")
        + f"{evaluation.samples} {evaluation.split} {evaluation.unit} of {evaluation.groups} {who}; "
        + (f"{what} and 95 % interval over {who}")
    )


def _corner(evaluation: Evaluation) -> str:
    return "group" if evaluation.counts else "metric"


def _best(evaluation: Evaluation) -> dict[str, set[str]]:
    """Metric -> methods with the best mean as it is shown, so that what looks equal is all marked."""
    found: dict[str, set[str]] = {}
    for metric, direction in evaluation.better.items():
        sign = {"higher": 1, "lower": -1, "none": 0}[direction]
        shown = {m: _number(evaluation.cells[m][metric].mean) for m in evaluation.methods}
        values = {method: sign * float(text) for method, text in shown.items() if text != "-"}
        found[metric] = {m for m, v in values.items() if sign and v == max(values.values())}
    return found


def _texts(evaluation: Evaluation, method: str, metric: str) -> tuple[str, str]:
    """Mean and interval of a cell as they are shown."""
    cell = evaluation.cells[method][metric]
    if method in evaluation.counts:
        return ("-" if math.isnan(cell.mean) else f"{cell.mean:.0f}"), ""
    return _number(cell.mean), f"[{_number(cell.low)},{_number(cell.high)}]" if math.isfinite(cell.low) else ""


def _number(value: float) -> str:
    """Three decimals, two from 10 on, so that a column stays narrow; a dash for an undefined metric."""
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
