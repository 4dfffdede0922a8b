"""The evaluation engine: runs and plain baselines on the same held-out samples, with intervals over cases.

A table's interval is a percentile bootstrap over groups (patients, cases), because the samples of one case are
not independent. Rows of several runs stand in one table when the runs were trained on the same split.

Fusion is scored image by image, and a table shows means. Classification is scored on all results together: each run
with the temperature and threshold of its own validation, per study and, as `parts`, per pair and per label.
"""

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from scanfuse import systems
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.explanation import write_examples
from scanfuse.files import write_text
from scanfuse.predict import Predictor
from scanfuse.stats.bootstrap import interval
from scanfuse.tasks.classify import MetricTable, Scored, Task, metric_table, metrics

__all__ = ["Cell", "Evaluation", "assign", "decided_results", "evaluate", "leakage", "markdown", "print_table"]

Split = Literal["test", "val", "train", "all"]


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
        parts: further tables of the same results, by title.
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


def evaluate(
    predictors: dict[str, Predictor],
    data: str | Path,
    *,
    split: Split = "test",
    out: str | Path | None = None,
    pictures: int = 6,
    quiet: bool = False,
) -> Evaluation:
    """Scores runs and the system's baselines on the same samples.

    Args:
        predictors: by the name that the table shows; all of one system and trained on the same split.
        data: folder or manifest with the data.
        split: which part; samples that the runs have never seen a case of count as test.
        out: folder for table.md, evaluation.json, per_sample.csv and gallery.png; None writes nothing.
        pictures: rows of the gallery, spread over the cases, or studies explained for the report; 0 = none.

    Raises:
        UserError: no samples, runs that do not belong together, or a leak.
    """
    manifest = assign(predictors, data, split)
    chosen = manifest if split == "all" else manifest.subset(split)
    notes = list(manifest.notes)
    if split in ("train", "all"):
        notes.append("the models were trained on some or all of these samples")
    first = next(iter(predictors.values()))
    if isinstance(first.system, systems.Classifier):
        evaluation, studies = _evaluate_together(predictors, chosen, split, notes, quiet)
        if out is not None:
            _write(evaluation, Path(out))
            write_examples(first, chosen, studies[next(iter(predictors))], Path(out), pictures)
        return evaluation
    loaders = [predictor.each(chosen) for predictor in predictors.values()]
    rows: list[dict[str, Any]] = []
    shown = _spread(chosen, pictures)
    gallery: list[dict[str, Any]] = []
    for index, outcomes in enumerate(
        track(zip(*loaders, strict=True), "evaluating", len(chosen), transient=True, disable=quiet)
    ):
        results = {name: outcome[1] for name, outcome in zip(predictors, outcomes, strict=True)}
        for name, found in first.system.baselines(outcomes[0][0]).items():
            if name in results:
                raise UserError(f"A run has the name of the plain method {name!r}: rename its folder.")
            results[name] = found[0]
        for name, result in results.items():
            scores = first.system.score(result)
            rows.append({"method": name, "id": result.id, "group": result.group, **scores})
        if index in shown:
            gallery.append(results)
    evaluation = _summarise(rows, first.system.metrics(), split, notes)
    if out is not None:
        _write(evaluation, Path(out))
        if gallery:
            first.system.gallery(gallery, Path(out) / "gallery.png")
    return evaluation


def decided_results(
    predictors: dict[str, Predictor], manifest: Manifest, *, quiet: bool = False
) -> tuple[dict[str, list[Scored]], dict[str, list[Scored]]]:
    """Calibrated results of classifying runs: name -> per study, and name -> per pair."""
    studies, pairs = {}, {}
    for name, predictor in predictors.items():
        job, raw = predictor.classifier.job, list(predictor.raw(manifest, quiet=quiet))
        studies[name], pairs[name] = job.decided(raw), job.decision.apply(raw)
    return studies, pairs


def _evaluate_together(
    predictors: dict[str, Predictor], manifest: Manifest, split: str, notes: list[str], quiet: bool
) -> tuple[Evaluation, dict[str, list[Scored]]]:
    jobs = {name: predictor.classifier.job for name, predictor in predictors.items()}
    task = next(iter(jobs.values())).task
    for name, job in jobs.items():
        if job.task != task:
            raise UserError(f"{name} predicts other labels than {next(iter(jobs))}: evaluate them one by one.")
    studies, pairs = decided_results(predictors, manifest, quiet=quiet)
    better = metrics(task)

    def tabulate(results: dict[str, list[Scored]], unit: str) -> tuple[Evaluation, dict[str, MetricTable]]:
        tables = {name: metric_table(found, task, jobs[name].decision.thresholds) for name, found in results.items()}
        cells = {name: {m: Cell(*table.summary[m]) for m in better} for name, table in tables.items()}
        rows = [_row(name, result, task) for name, found in results.items() for result in found]
        first = next(iter(tables.values()))
        return Evaluation(split, first.results, first.groups, list(results), better, cells, rows, unit=unit), tables

    evaluation, tables = tabulate(studies, "studies")
    first = next(iter(tables.values()))
    evaluation.notes = [*notes, *first.notes]
    for name, job in jobs.items():
        evaluation.notes += [f"{name}: {note}" for note in job.decision.notes]
    counts = [len(found) for found in (studies[next(iter(jobs))], pairs[next(iter(jobs))])]
    if counts[0] != counts[1]:
        evaluation.parts["pairs"], _ = tabulate(pairs, "pairs of views")
    if first.per_label:
        cells = {
            name: {label: Cell(*table.per_label[label]["auroc"]) for label in task.labels}
            for name, table in tables.items()
        }
        evaluation.parts["labels"] = replace(
            evaluation,
            better=dict.fromkeys(task.labels, "higher"),
            cells=cells,
            rows=[],
            notes=["each row is the AUROC of one label"],
            parts={},
        )
    return evaluation, studies


def _row(name: str, result: Scored, task: Task) -> dict[str, Any]:
    row: dict[str, Any] = {"method": name, "id": result.id, "group": result.group}
    for position in range(task.num_targets):
        label = f"target_{task.labels[position]}" if task.num_targets > 1 else "target"
        row[label] = int(result.target[position]) if result.mask[position] else ""
    return row | {f"p_{label}": float(p) for label, p in zip(task.labels, result.probabilities, strict=True)}


def leakage(samples: pd.DataFrame, trained_on: pd.DataFrame) -> list[str]:
    """Groups of which a run has seen some rows in training or validation, while others count as test.

    Args:
        samples, trained_on: the rows to evaluate and those of the run's split.csv; columns group and split.
    """
    seen = set(trained_on.loc[trained_on["split"].isin(["train", "val"]), "group"])
    tested = set(samples.loc[samples["split"] == "test", "group"])
    return sorted(seen & tested)


def print_table(evaluation: Evaluation, console: Console | None = None) -> None:
    """The table on the console: one row per metric, one column per method, the best mean of each row in bold."""
    table = Table(title=_title(evaluation), title_justify="left")
    table.add_column("metric", no_wrap=True)
    for method in evaluation.methods:
        table.add_column(method, justify="right", min_width=8, overflow="fold")
    best = _best(evaluation)
    for metric, direction in evaluation.better.items():
        cells = [evaluation.cells[method][metric] for method in evaluation.methods]
        texts = [
            f"[bold]{_number(cell.mean)}[/bold]" if method in best[metric] else _number(cell.mean)
            for method, cell in zip(evaluation.methods, cells, strict=True)
        ]
        ranges = [f" [dim]{escape(_range(cell))}[/dim]" if _range(cell) else "" for cell in cells]
        table.add_row(metric + _ARROWS[direction], *(t + r for t, r in zip(texts, ranges, strict=True)))
    console = console or Console()
    console.print(table)
    for part in evaluation.parts.values():
        print_table(part, console)
    for note in evaluation.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)


def markdown(evaluation: Evaluation) -> str:
    """The same table in Markdown; a cell is the mean and its interval."""
    best = _best(evaluation)
    lines = [f"{_title(evaluation)}.", "", "| metric | " + " | ".join(evaluation.methods) + " |"]
    lines.append("|---" * (len(evaluation.methods) + 1) + "|")
    for metric, direction in evaluation.better.items():
        cells = [metric + _ARROWS[direction]]
        for method in evaluation.methods:
            cell = evaluation.cells[method][metric]
            mean = f"**{_number(cell.mean)}**" if method in best[metric] else _number(cell.mean)
            cells.append(f"{mean} {_range(cell)}".strip())
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join([*lines, "", *(f"Note: {note}." for note in evaluation.notes)]).rstrip() + "\n"
    return "\n".join([text, *(markdown(part) for part in evaluation.parts.values())])


_ARROWS = {"higher": " ↑", "lower": " ↓", "none": ""}


def assign(predictors: dict[str, Predictor], data: str | Path, split: Split) -> Manifest:
    """The data with the split that the runs were trained on; unknown samples are test samples.

    Raises:
        UserError: runs that do not belong together, or a leak.
    """
    names = list(predictors)
    first = predictors[names[0]]
    manifest = first.system.open_data(Path(data), split=False)
    recorded = {name: predictors[name].run.split() for name in names}
    base = dict(zip(recorded[names[0]]["id"], recorded[names[0]]["split"], strict=True))
    for name in names[1:]:
        if predictors[name].system.config.system != first.system.config.system:
            raise UserError(f"{names[0]} and {name} are runs of different systems: evaluate them one by one.")
        if dict(zip(recorded[name]["id"], recorded[name]["split"], strict=True)) != base:
            raise UserError(f"{names[0]} and {name} were trained on different splits: a shared table would mislead.")
    known = manifest.table.assign(split=[base.get(sample, "test") for sample in manifest.table["id"]])
    shared = leakage(known, recorded[names[0]])
    notes = tuple(dict.fromkeys([*manifest.notes, *first.run.split_notes()]))
    if shared and not any(note.startswith("leaky") for note in notes):
        if split == "test":
            raise UserError(
                f"The cases {', '.join(shared[:5])} are in the training of {names[0]} and among the test samples: "
                "the result would be too good. Remove them, or use --on all to see it labelled as such."
            )
        notes = (*notes, f"leaky: of {len(shared)} case(s) some samples were in the training and others were not")
    return replace(manifest, table=known, notes=notes)


def _spread(manifest: Manifest, count: int) -> set[int]:
    """Positions of about `count` samples spread evenly, so that a gallery shows several cases."""
    total = len(manifest)
    count = min(count, total)
    return {round((index + 0.5) * total / count - 0.5) for index in range(count)} if count else set()


def _summarise(rows: list[dict[str, Any]], better: dict[str, str], split: str, notes: list[str]) -> Evaluation:
    table = pd.DataFrame(rows)
    methods = list(dict.fromkeys(table["method"]))
    cells = {
        method: {metric: Cell(*interval(part[metric].to_numpy(), part["group"].to_numpy())) for metric in better}
        for method in methods
        for part in [table[table["method"] == method]]
    }
    groups = table["group"].nunique()
    if groups < 5:
        notes = [*notes, f"only {groups} case(s): the intervals say little about other patients"]
    samples = len(table) // len(methods)
    return Evaluation(split, samples, groups, methods, better, cells, rows, notes)


def _write(evaluation: Evaluation, out: Path) -> None:
    _write_rows(evaluation.rows, out / "per_sample.csv")
    for name, part in evaluation.parts.items():
        if part.rows:
            _write_rows(part.rows, out / f"per_sample_{name}.csv")
    write_text(out / "table.md", markdown(evaluation))
    content = asdict(replace(evaluation, rows=[]))
    for table in (content, *content["parts"].values()):
        del table["rows"]
    if not evaluation.parts:
        del content["parts"]
    write_text(out / "evaluation.json", json.dumps(_without_nan(content), indent=2) + "\n")


def _write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _without_nan(value: Any) -> Any:
    """JSON has no nan and no infinity; both become null."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _title(evaluation: Evaluation) -> str:
    if evaluation.unit == "samples":
        who, what = "cases", "mean"
    else:
        who, what = "patients", "value"
    return (
        f"{evaluation.samples} {evaluation.split} {evaluation.unit} of {evaluation.groups} {who}; "
        f"{what} and 95 % interval over {who}"
    )


def _best(evaluation: Evaluation) -> dict[str, set[str]]:
    """Metric -> methods with the best mean as shown (three digits), so that ties are all marked."""
    found: dict[str, set[str]] = {}
    for metric, direction in evaluation.better.items():
        sign = {"higher": 1, "lower": -1, "none": 0}[direction]
        means = {m: round(evaluation.cells[m][metric].mean, 3) * sign for m in evaluation.methods}
        defined = [value for value in means.values() if not math.isnan(value)]
        found[metric] = {m for m, v in means.items() if sign and defined and v == max(defined)}
    return found


def _range(cell: Cell) -> str:
    return f"[{_number(cell.low)},{_number(cell.high)}]" if math.isfinite(cell.low) else ""


def _number(value: float) -> str:
    """Three decimals, two from 10 on, so that a column stays narrow; a dash for an undefined metric."""
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
