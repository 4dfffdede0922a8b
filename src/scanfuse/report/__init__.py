"""`report.html` in a run folder: one page, no network, that says what was trained on what and how well it does.

It is made from the files of the run folder alone (see `scanfuse.run`), so it can be written again at any time. What
is not there yet (no evaluation, say) is named as missing, with the command that makes it.
"""

import base64
import csv
import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from PIL import Image as PillowImage

from scanfuse.data.manifest import SPLITS, read_csv
from scanfuse.errors import UserError
from scanfuse.files import write_text
from scanfuse.report import plots
from scanfuse.run import Run

__all__ = ["write"]

_WIDEST = 1600
"""Pixels of an inlined picture; wider ones are shrunk."""


def write(run: Run) -> Path:
    """Writes `report.html` into the run folder and returns its path.

    Raises:
        UserError: the run has no weights yet, or a file of it is damaged.
    """
    record = run.record()
    config = run.config()
    notes, split = read_csv(run.split_file)
    page = _template().render(
        name=run.path.resolve().name,
        record=record,
        settings=_settings(config),
        counts=_counts(split),
        targets=_targets(split),
        checks=_checks(split, notes),
        curves=plots.curves(_history(run.path / "history.csv")),
        decision=_decision(run.path / "decision.json"),
        evaluations=[
            _evaluation(folder) for folder in sorted((run.path / "evaluation").glob("*/")) if _is_whole(folder)
        ],
        environment=_flat(_json(run.path / "environment.json")),
    )
    path = run.path / "report.html"
    write_text(path, page)
    return path


def _template() -> jinja2.Template:
    text = (importlib.resources.files(__name__) / "page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(
        text,
        globals={
            "number": _number,
            "labels_and_cuts": lambda decision: zip(decision["labels"], decision["thresholds"], strict=True),
        },
    )


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


def _counts(split: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Split, samples, patients or cases."""
    parts = [(name, split[split["split"] == name]) for name in (*SPLITS, "")]
    return [(name or "none", len(part), part["group"].nunique()) for name, part in parts if len(part)]


def _targets(split: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Outcome -> its number in each split (findings: positives of those known); nothing without targets."""
    present = [name for name in SPLITS if (split["split"] == name).any()]
    texts = split.loc[split["target"] != "", "target"]
    if not len(texts):
        return []
    if "=" not in texts.iloc[0]:
        table = pd.crosstab(split["target"].replace("", "unknown"), split["split"])
        return [(str(target), [str(row.get(name, 0)) for name in present]) for target, row in table.iterrows()]
    found: dict[str, dict[str, list[int]]] = {}
    for name, text in zip(split["split"], split["target"], strict=True):
        for part in filter(None, text.split(";")):
            label, _, value = part.rpartition("=")
            tally = found.setdefault(label, {}).setdefault(name, [0, 0])
            tally[0] += value == "1"
            tally[1] += value != ""
    return [
        (label, ["{} of {}".format(*tallies.get(name, [0, 0])) for name in present])
        for label, tallies in found.items()
    ]


def _checks(split: pd.DataFrame, notes: Sequence[str]) -> list[tuple[bool, str]]:
    """Whether each check is passed, and what it says."""
    placed = split[split["split"] != ""]
    spread = placed.groupby("group")["split"].nunique()
    shared = list(spread[spread > 1].index)
    found = [
        (
            not shared,
            f"{len(shared)} patients or cases in more than one split"
            + (f", such as {', '.join(map(str, shared[:3]))}" if shared else ""),
        )
    ]
    columns = [c for c in placed.columns if placed[c].str.contains(r"[/\\].*\.[A-Za-z]+(?:\.gz)?$", regex=True).any()]
    files = placed.melt(id_vars=["split"], value_vars=columns)
    places = files[files["value"] != ""].groupby("value")["split"].nunique()
    twice = list(places[places > 1].index)
    found.append((not twice, f"{len(twice)} of {len(places)} files listed in more than one split"))
    found += [(not note.startswith("leaky"), note) for note in notes]
    return found


def _history(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def _decision(path: Path) -> dict[str, Any] | None:
    return _json(path) if path.is_file() else None


def _is_whole(folder: Path) -> bool:
    return (folder / "evaluation.json").is_file()


def _evaluation(folder: Path) -> dict[str, Any]:
    content = _json(folder / "evaluation.json")
    parts = {"": content, **content.get("parts", {})}
    examples = folder / "examples.json"
    figures = _figures(folder, content) if content.get("unit", "samples") != "samples" else []
    return {
        "name": folder.name,
        "tables": [_table(title, part) for title, part in parts.items()],
        "notes": content["notes"],
        "figures": figures,
        "gallery": _inlined(folder / "gallery.png") if (folder / "gallery.png").is_file() else "",
        "examples": [
            {**example, "picture": _inlined(folder / example["file"])} for example in _json(examples)["examples"]
        ]
        if examples.is_file()
        else [],
    }


def _table(title: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Head and rows as text; a cell is (value, interval, whether it is the best)."""
    arrows = {"higher": " ↑", "lower": " ↓", "none": ""}
    rows = []
    for metric, direction in content["better"].items():
        cells = [content["cells"][method][metric] for method in content["methods"]]
        sign = {"higher": 1, "lower": -1, "none": 0}[direction]
        means = [None if cell["mean"] is None else round(cell["mean"], 3) * sign for cell in cells]
        defined = [mean for mean in means if mean is not None]
        best = max(defined) if defined and sign and len(cells) > 1 else None
        rows.append(
            (
                metric + arrows[direction],
                [
                    (_number(c["mean"]), _range(c), m is not None and m == best)
                    for c, m in zip(cells, means, strict=True)
                ],
            )
        )
    unit = content.get("unit", "samples")
    who = "cases" if unit == "samples" else "patients"
    caption = f"{content['samples']} {unit} of {content['groups']} {who}; 95 % intervals over {who}"
    titles = {"": "All metrics", "pairs": "Per pair of views, as the publication scores", "labels": "AUROC per label"}
    return {"title": titles.get(title, title), "caption": caption, "methods": content["methods"], "rows": rows}


def _figures(folder: Path, content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Title and SVG of the plots of a classification."""
    with (folder / "per_sample.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    decision = _decision(folder.parent.parent / "decision.json")
    return plots.classification(rows, list(content["methods"]), decision)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _range(cell: Mapping[str, float | None]) -> str:
    low, high = cell["low"], cell["high"]
    return "" if low is None or high is None or math.isnan(low) else f"[{low:.3f}, {high:.3f}]"


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _inlined(path: Path) -> str:
    """A picture as a data address."""
    image = PillowImage.open(path).convert("RGB")
    if image.width > _WIDEST:
        image = image.resize((_WIDEST, round(image.height * _WIDEST / image.width)), PillowImage.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
