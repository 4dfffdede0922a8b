"""What an evaluation or a comparison found, and how it is shown: on the console, as Markdown, as JSON and CSV.

A task makes these objects; verbs print and write them.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scanfuse.files import atomic_path, without_nan, write_text

__all__ = [
    "Cell",
    "Comparisons",
    "Evaluation",
    "Example",
    "Row",
    "markdown",
    "print_comparisons",
    "print_table",
    "write",
    "write_comparisons",
    "write_rows",
]


@dataclass(frozen=True)
class Cell:
    """Mean of one metric for one method and its 95 % interval over cases (nan with fewer than two cases)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Example:
    """A result worth showing in a report.

    Attributes:
        id: of the sample.
        right: whether the result is.
        text: what is said of it.
        subject: what there is to explain about it; only its task knows what that is.
    """

    id: str
    right: bool
    text: str
    subject: Any


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
        who: what groups are called.
        measure: what a cell is: a mean over samples, or a value of all of them together.
        main: the method that a report puts on top; "" for the first one.
        pictures: file name -> (h, w, 3) uint8, to be written beside the tables.
        examples: results of the first method worth explaining.
        records: file name -> plain values, to be written as JSON beside the tables.
        folder: where it was written.
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
    who: str = "cases"
    measure: str = "mean"
    main: str = ""
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    records: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Row:
    """One metric of one run against the reference: run - reference, 95 % interval, p-value and Holm's of it."""

    run: str
    metric: str
    test: str
    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float


@dataclass(frozen=True)
class Comparisons:
    """All rows of a comparison, and on what it was made; `who` is what groups are called."""

    reference: str
    split: str
    samples: int
    groups: int
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    who: str = "patients"


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
    _print_notes(evaluation.notes, console)


def markdown(evaluation: Evaluation, name: str = "") -> str:
    """The same table in Markdown; a cell is the mean and its interval."""
    best = _best(evaluation)
    rows = []
    for metric, direction in evaluation.better.items():
        cells = [metric + _ARROWS[direction]]
        for method in evaluation.methods:
            mean, ends = _texts(evaluation, method, metric)
            cells.append(f"{f'**{mean}**' if method in best[metric] else mean} {ends}".strip())
        rows.append(cells)
    head = [_corner(evaluation), *evaluation.methods]
    text = _markdown_table(_title(evaluation, name), head, rows, evaluation.notes)
    return "\n".join([text, *(markdown(part, title) for title, part in evaluation.parts.items())])


def write(evaluation: Evaluation, out: Path) -> None:
    """Writes table.md, evaluation.json, the pictures, and per_sample.csv, also of parts that have their own rows."""
    write_rows(evaluation.rows, out / "per_sample.csv")
    for name, part in evaluation.parts.items():
        if part.rows:
            write_rows(part.rows, out / f"per_sample_{name}.csv")
    write_text(out / "table.md", markdown(evaluation))
    content = asdict(replace(evaluation, rows=[], pictures={}, examples=[], records={}, folder=None))
    for table in (content, *content["parts"].values()):
        # What is empty says nothing; `parts` of a part always is. How a table is worded, its task knows.
        for name in ("rows", "parts", "counts", "thresholds", "main"):
            if not table[name]:
                del table[name]
        for name in ("rows", "who", "measure", "pictures", "examples", "records", "folder"):
            table.pop(name, None)
    write_text(out / "evaluation.json", json.dumps(without_nan(content), indent=2) + "\n")
    for name, record in evaluation.records.items():
        write_text(out / name, json.dumps(without_nan(record)) + "\n")
    for name, pixels in evaluation.pictures.items():
        with atomic_path(out / name) as temporary:
            PillowImage.fromarray(pixels).save(temporary)


def print_comparisons(found: Comparisons, console: Console | None = None) -> None:
    """One table per run on the console; bootstrap, unless a row says another test."""
    console = console or Console()
    console.print(f"{_compared(found)}; bootstrap where no other test is named", highlight=False, markup=False)
    runs = list(dict.fromkeys(row.run for row in found.rows))
    corrected = len(runs) > 1 or any(row.adjusted > row.p_value for row in found.rows)
    for run in runs:
        table = Table(title=f"{escape(run)} - {escape(found.reference)}", title_justify="left")
        table.add_column("metric", overflow="fold")  # the numbers stay whole on a narrow console
        for name in ("difference", "p", *(["p (Holm)"] if corrected else [])):
            table.add_column(name, justify="right", no_wrap=True)
        for row in found.rows:
            if row.run == run:
                metric = row.metric if row.test == "bootstrap" else f"{row.metric} ({row.test})"
                table.add_row(*map(escape, (metric, *_differences(row)[: 3 if corrected else 2])))
        console.print(table)
    _print_notes(found.notes, console)


def write_comparisons(found: Comparisons, out: Path) -> None:
    """Writes comparison.md and comparison.json."""
    content = {**vars(found), "rows": [without_nan(vars(row)) for row in found.rows]}
    del content["who"]  # as with tables: how they are worded, the task knows
    write_text(out / "comparison.json", json.dumps(content, indent=2) + "\n")
    rows = [[row.run, row.metric, row.test, *_differences(row)] for row in found.rows]
    head = ["run", "metric", "test", "difference", "p", "p (Holm)"]
    write_text(out / "comparison.md", _markdown_table(_compared(found), head, rows, found.notes))


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Dictionaries as a CSV file; the columns are the keys of all rows in order of appearance."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _print_notes(notes: Sequence[str], console: Console) -> None:
    for note in notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)


def _markdown_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    lines = [f"{title}.", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"Note: {note}." for note in notes)]).rstrip() + "\n"


def _compared(found: Comparisons) -> str:
    return (
        f"Difference to {found.reference} on {found.samples} {found.split} samples of {found.groups} {found.who}; "
        f"95 % interval and p over {found.who}"
    )


def _differences(row: Row) -> list[str]:
    if math.isnan(row.difference):
        return ["not defined", "", ""]
    interval = f" [{row.low:+.3f},{row.high:+.3f}]" if math.isfinite(row.low) else ""
    return [f"{row.difference:+.3f}{interval}", _p(row.p_value), _p(row.adjusted)]


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.0001" if value < 1e-4 else f"{value:.4f}"


_ARROWS = {"higher": " ↑", "lower": " ↓", "none": ""}


def _title(evaluation: Evaluation, name: str) -> str:
    who = evaluation.who
    return (
        (f"{name}: " if name and name not in evaluation.unit else "")
        + f"{evaluation.samples} {evaluation.split} {evaluation.unit} of {evaluation.groups} {who}; "
        + (f"{evaluation.measure} and 95 % interval over {who}")
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
