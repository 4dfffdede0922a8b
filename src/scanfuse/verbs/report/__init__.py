"""`report.html` in a run folder: one page, no network, that says what was trained on what and how well it does.

It is made from the files of the run folder alone (see `scanfuse.run`), so it can be written again at any time. What
is not there yet (no evaluation, say) is named as missing, with the command that makes it.
"""

import base64
import importlib.resources
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from PIL import Image as PillowImage

from scanfuse import plots, systems
from scanfuse.data.manifest import SPLITS, read_csv
from scanfuse.errors import UserError
from scanfuse.files import write_text
from scanfuse.foreign import read_json
from scanfuse.pretrained import is_shipped, shipped
from scanfuse.run import Run
from scanfuse.tasks import Task, Words
from scanfuse.verbs import cross_validation

__all__ = ["write"]

_WIDEST = 1600
"""Pixels of an inlined picture; wider ones are shrunk."""


def write(path: Run | Path) -> Path:
    """Writes `report.html` into a run folder, or into that of a cross-validation, and returns its path.

    Raises:
        UserError: the run has no weights yet, or a file of it is damaged.
    """
    folder = path.path if isinstance(path, Run) else path
    if shipped(folder) or is_shipped(folder):
        raise UserError(f"{folder} is part of the installation: evaluate it with --out DIR, where the table then is.")
    is_of_folds = cross_validation.is_cross_validation(folder)
    about = _of_folds(folder) if is_of_folds else _of_run(Run(folder))
    task, words = systems.task_of(str(about.record.get("system"))), about.words
    data_notes = [note for note in about.notes if not note.startswith("leaky")]
    found = sorted(path.parent for path in (folder / "evaluation").glob("*/evaluation.json"))
    # What readers look for comes first: of one run its own test, of several what they are together.
    together = ["ensemble-test", "out-of-fold-test", "test"] if is_of_folds else ["test"]
    found.sort(key=lambda each: together.index(each.name) if each.name in together else len(together))
    evaluations = [_evaluation(each, about.fitted, data_notes, task) for each in found]
    page = _template().render(
        name=folder.resolve().name,
        record=about.record,
        words=words,
        facts=about.facts,
        settings=_settings(about.config),
        splits=about.splits,
        counts=_counts(about.split, about.splits, words) + task.counts(about.split, about.splits, about.config),
        checks=_checks(about.split, about.notes, words),
        notes=data_notes,
        curves=about.curves,
        decision=task.settled(about.fitted) if about.fitted else None,
        evaluations=evaluations,
        headline=evaluations[0] if evaluations else None,
        environment=[
            (key.removeprefix("packages.").replace("_", " "), value) for key, value in _flat(about.environment)
        ],
        repeat=about.repeat,
    )
    target = folder / "report.html"
    write_text(target, page)
    return target


@dataclass(frozen=True)
class _About:
    """What a page says before any result: of a run, or of all folds of a cross-validation."""

    record: dict[str, Any]
    config: dict[str, Any]
    words: Words
    facts: list[tuple[str, str]]
    notes: tuple[str, ...]
    split: pd.DataFrame
    splits: list[str]
    curves: list[plots.Plot]
    fitted: dict[str, Any] | None
    environment: dict[str, Any]
    repeat: str


def _of_run(run: Run) -> _About:
    record, config = run.record(), run.config()
    task = systems.task_of(str(record.get("system")))
    notes, split = read_csv(run.split_file)
    history = _history(run.path / "history.csv")
    return _About(
        record=record,
        config=config,
        words=task.words,
        facts=_facts(record, config, history, task),
        notes=notes,
        split=split,
        splits=[name for name in (*SPLITS, "") if (split["split"] == name).any()],
        curves=plots.curves(history, record.get("best_epoch")),
        fitted=run.fitted_on_validation(),
        environment=read_json(run.path / "environment.json"),
        repeat="scanfuse train --from config.yaml --data DIR --out RUN",
    )


def _of_folds(folder: Path) -> _About:
    """All folds as one: every sample stands under the fold that held it out."""
    runs = [Run(path) for path in cross_validation.members(folder)]
    first = _of_run(runs[0])
    split = first.split.copy()
    tested = [set(run.split().query("split == 'test'")["id"]) for run in runs]
    held_out = "val" if all(each == tested[0] for each in tested) else "test"
    for number, run in enumerate(runs):
        table = run.split()
        mine = set(table.loc[table["split"] == held_out, "id"])
        split.loc[split["id"].isin(mine), "split"] = f"fold {number}"
    names = [f"fold {number}" for number in range(len(runs))]
    records = [run.record() for run in runs]
    epochs = ", ".join(str(record.get("best_epoch")) for record in records)
    facts = [(title, text) for title, text in first.facts if title not in ("Training", "Split")]
    facts.append(("Training", f"{len(runs)} folds, weights of epochs {epochs}"))
    return _About(
        record={name: value for name, value in first.record.items() if name != "best_epoch"},
        # That of a fold: what the settings leave to the data, such as labels, is filled in.
        config=first.config | {"folds": cross_validation.settings(folder)["folds"]},
        words=first.words,
        facts=facts,
        notes=tuple(note for note in first.notes if not note.startswith("fold ")),
        split=split,
        splits=[*names, *(["test"] if (split["split"] == "test").any() else [])],
        curves=[],
        fitted=None,
        environment=first.environment,
        repeat=f"scanfuse train {first.record.get('system')} --folds {len(runs)} --data DIR --out CV",
    )


def _template() -> jinja2.Template:
    text = (importlib.resources.files(__name__) / "page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(
        text,
        globals={"number": _number, "zip": zip},
    )


def _facts(
    record: Mapping[str, Any], config: Mapping[str, Any], history: pd.DataFrame, task: type[Task]
) -> list[tuple[str, str]]:
    """What was trained, on what and how, in a few lines."""
    name, train = str(record.get("system")), config.get("train", {})
    about = f": {systems.summary(name).partition(': ')[2]}" if name in systems.available() else ""
    facts = systems.ability(systems.load(name), "facts") if name in systems.available() else None
    parameters = f"; {record['parameters']:,} parameters" if "parameters" in record else ""
    chosen = f", weights of epoch {record['best_epoch']}" if "best_epoch" in record else ""
    by = str(record.get("selected_by", ""))
    chosen += f", the best by validation {by}".replace("auroc", "AUROC") if by else ""
    found = [
        ("System", f"{name}{about}"),
        *(facts(config) if facts else []),
        *task.facts(config),
        ("Data", str(record.get("data", ""))),
        ("Start", str(record.get("started_from", ""))),
        ("Training", f"{len(history)} of {train.get('epochs')} epochs{chosen}; seed {train.get('seed')}{parameters}"),
        # Where nothing was trained in epochs, this stands in place of the line above.
        ("Fitted", str(record.get("fitted", ""))),
        ("Split", f"digest {str(record.get('split_digest', 'unknown'))[:16]}"),
    ]
    return [(title, text) for title, text in found if text and not (title == "Training" and record.get("fitted"))]


def _settings(config: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Section -> its settings as text, nested ones joined by a dot."""
    return [(name, _flat(value)) for name, value in config.items() if isinstance(value, dict)]


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((prefix + str(name), text))
    return rows


def _counts(split: pd.DataFrame, names: Sequence[str], words: Words) -> list[tuple[str, list[str]]]:
    """Rows: samples and groups of every split."""
    parts = [split[split["split"] == name] for name in names]
    return [
        (words.samples, [str(len(part)) for part in parts]),
        (words.groups, [str(part["group"].nunique()) for part in parts]),
    ]


def _checks(split: pd.DataFrame, notes: Sequence[str], words: Words) -> list[tuple[bool, str]]:
    """Whether each check is passed, and what it says."""
    placed = split[split["split"] != ""]
    spread = placed.groupby("group")["split"].nunique()
    shared = list(spread[spread > 1].index)
    some = f", such as {', '.join(map(str, shared[:3]))}" if shared else ""
    found = [(not shared, f"{len(shared)} of {len(spread)} {words.groups} in more than one split{some}")]
    columns = [c for c in placed.columns if placed[c].str.contains(r"[/\\].*\.[A-Za-z]+(?:\.gz)?$", regex=True).any()]
    files = placed.melt(id_vars=["split"], value_vars=columns)
    places = files[files["value"] != ""].groupby("value")["split"].nunique()
    twice = list(places[places > 1].index)
    found.append((not twice, f"{len(twice)} of {len(places)} files listed in more than one split"))
    return found + [(False, note) for note in notes if note.startswith("leaky")]


def _history(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    try:
        return read_csv(path)[1].replace("", "nan").astype(float)
    except ValueError as error:
        raise UserError(f"{path} holds a value that is no number: {error}") from None


def _evaluation(
    folder: Path, fitted: Mapping[str, Any] | None, said: Sequence[str], task: type[Task]
) -> dict[str, Any]:
    """What the page shows of one evaluation; notes of `said` stand elsewhere on it."""
    content = read_json(folder / "evaluation.json")
    metrics = content["better"]
    tables = [
        _table(title, part, metrics, task.words) for title, part in {"": content, **content.get("parts", {})}.items()
    ]
    main = content.get("main", content["methods"][0])
    cells = content["cells"][main]
    file = folder / "examples.json"
    examples = read_json(file)["examples"] if file.is_file() else []
    return {
        "name": folder.name,
        "method": main,
        "size": tables[0]["size"],
        "headline": [
            (plots.metric_name(name), _number(cells[name]["mean"]), _range(cells[name]))
            for name in [name for name in task.headline if name in cells][:4]
        ],
        "tables": tables,
        "comparison": _comparison(folder / "comparison.json"),
        "notes": [note for note in content["notes"] if note not in said] + _remarks(content),
        "figures": task.figures(folder, content, fitted),
        "gallery": _inlined(folder / "gallery.png") if (folder / "gallery.png").is_file() else "",
        "examples": {
            title: [
                {**e, "picture": _inlined(folder / e["file"], lossless=False)}
                for e in examples
                if e["right"] == right
            ]
            for title, right in (("Right", True), ("Wrong", False))
        },
    }


def _table(title: str, content: Mapping[str, Any], metrics: Collection[str], words: Words) -> dict[str, Any]:
    """Head and rows as text; a cell is (value, interval, whether it is the best). Rows are metrics, or groups."""
    of_metrics = set(content["better"]) <= set(metrics)
    methods, counts = content["methods"], content.get("counts", [])
    arrows = {"higher": " ↑", "lower": " ↓", "none": ""}
    rows = []
    for metric, direction in content["better"].items():
        cells = [content["cells"][method][metric] for method in content["methods"]]
        sign = {"higher": 1, "lower": -1, "none": 0}[direction]
        means = [None if cell["mean"] is None else round(cell["mean"], 3) * sign for cell in cells]
        defined = [mean for mean in means if mean is not None]
        best = max(defined) if defined and sign and len(cells) > 1 else math.inf
        name = plots.metric_name(metric) if of_metrics else metric
        rows.append(
            (
                name + arrows[direction],
                [
                    (
                        f"{c['mean']:.0f}" if t in counts and m is not None else _number(c["mean"]),
                        _range(c),
                        m == best,
                    )
                    for c, m, t in zip(cells, means, content["methods"], strict=True)
                ],
            )
        )
    unit = content.get("unit", "samples")
    who = words.groups
    titles = {
        "": f"Per {unit.removesuffix('ies')}y" if unit.endswith("ies") else f"Per {unit.removesuffix('s')}",
        "pairs": "Per pair of views, as published",
        "labels": "AUROC of each label",
    }
    return {
        "title": titles.get(title, title[:1].upper() + title[1:]),
        "size": f"{content['samples']} {unit} of {content['groups']} {who}",
        "who": who,
        "head": ["metric" if of_metrics else "", *(m if of_metrics else plots.metric_name(m) for m in methods)],
        "rows": rows,
    }


def _comparison(path: Path) -> dict[str, Any] | None:
    """Reference and rows as text, if `scanfuse compare` wrote into the folder of the evaluation."""
    if not path.is_file():
        return None
    content = read_json(path)
    rows = [
        (
            row["run"],
            plots.metric_name(row["metric"]),
            row["test"],
            "n/a" if row["difference"] is None else f"{row['difference']:+.3f}",
            "" if row["low"] is None else f"[{row['low']:+.3f}, {row['high']:+.3f}]",
            *("" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.4f}" for p in (row["p_value"], row["adjusted"])),
        )
        for row in content["rows"]
    ]
    return {"reference": content["reference"], "rows": rows}


def _remarks(content: Mapping[str, Any]) -> list[str]:
    """What a reader of the numbers may stumble over."""
    tables = [content, *content.get("parts", {}).values()]
    found = []
    if len(content["methods"]) > 1:
        found.append("bold: the best value of the row, which need not differ from the others by more than chance")
    cells = [cell for table in tables for row in table["cells"].values() for cell in row.values()]
    if any(cell["mean"] is None for cell in cells):
        found.append("n/a: not defined for these data")
    errors = [row["ece"] for table in tables for row in table["cells"].values() if "ece" in row]
    if any(None not in cell.values() and cell["low"] > cell["mean"] for cell in errors):
        found.append("ECE below its interval: resampling adds noise to every bin, so the interval lies too high")
    return found


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _range(cell: Mapping[str, float | None]) -> str:
    low, high = cell["low"], cell["high"]
    return "" if low is None or high is None or math.isnan(low) else f"[{low:.3f}, {high:.3f}]"


def _inlined(path: Path, *, lossless: bool = True) -> str:
    """A picture as a data address; results stay as they are, heat maps need not."""
    try:
        image = PillowImage.open(path).convert("RGB")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): evaluate the run again.") from None
    if image.width > _WIDEST:
        image = image.resize((_WIDEST, round(image.height * _WIDEST / image.width)), PillowImage.Resampling.LANCZOS)
    buffer = BytesIO()
    if lossless:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.save(buffer, format="JPEG", quality=88, subsampling=0)
    return f"data:image/{'png' if lossless else 'jpeg'};base64," + base64.b64encode(buffer.getvalue()).decode()
