"""The plots of a classification for its report: ROC, precision-recall, reliability, confusion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from scanfuse.data.manifest import read_csv
from scanfuse.errors import UserError
from scanfuse.metrics.classification import calibration, ranking
from scanfuse.plots import COLOURS, Plot, as_svg, count_grid, empty_axes
from scanfuse.stats.calibration import Kind, logits_of, probabilities_of

__all__ = ["classification", "of_evaluation", "outcome_counts"]

_CHANCE: dict[str, Any] = {"color": "#999999", "linewidth": 1, "linestyle": "--"}
_MOST_LABELS = 6
"""Curves in one plot; of more labels those with the most positives are drawn."""


@dataclass(frozen=True)
class _Curve:
    """One outcome of one method: y (n,) 0 or 1, p (n,), the cut of the run, and the intervals of its areas."""

    name: str
    y: Int[np.ndarray, " n"]
    p: Float[np.ndarray, " n"]
    cut: float | None
    areas: Mapping[str, Mapping[str, float | None]]


def classification(
    rows: Sequence[Mapping[str, str]], content: Mapping[str, Any], point: Mapping[str, Any] | None
) -> list[Plot]:
    """Plots of a classification; of a binary task for all methods, of others for the first one.

    Args:
        rows: of per_sample.csv.
        content: of evaluation.json; its values and intervals stand in the legends, its main method comes first.
        point: of decision.json; it belongs to the first method of the content. Where rows have a column run, each was
            decided by that one, and no threshold is shown.
    """
    if not rows:
        return []
    first = str(content.get("main", content["methods"][0]))
    methods = [first, *(name for name in content["methods"] if name != first)]
    each_its_own = "run" in rows[0]
    if each_its_own or first != content["methods"][0]:
        point = None
    labels = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    kind: Kind = "multilabel" if "target" not in rows[0] else "binary" if len(labels) == 1 else "multiclass"
    main = [row for row in rows if row["method"] == first]
    used = content.get("thresholds", {}).get(first) or (point or {}).get("thresholds")
    cuts = [] if each_its_own else list(used or ([0.5] if kind == "binary" else []))
    if kind == "binary":
        found = [
            _curve(
                [row for row in rows if row["method"] == method],
                method,
                "target",
                labels[0],
                cuts[0] if cuts and method == first else None,
                content["cells"][method],
            )
            for method in methods
        ]
    else:
        cells = content.get("parts", {}).get("labels", {}).get("cells", {}).get(first, {})
        found = [
            _curve(
                main,
                label,
                number if kind == "multiclass" else f"target_{label}",
                label,
                cuts[number] if kind == "multilabel" and cuts else None,
                {"auroc": cells[label]} if label in cells else {},
            )
            for number, label in enumerate(labels)
        ]
    defined = [curve for curve in found if curve.y.any() and not curve.y.all()]
    drawn = sorted(defined, key=lambda curve: -int(curve.y.sum()))[:_MOST_LABELS] if kind != "binary" else defined
    left_out = f", the {len(drawn)} labels with most positives" if len(drawn) < len(defined) else ""
    figures = [_roc(drawn, left_out), _precision_recall(drawn, left_out)] if drawn else []
    figures += _reliability(kind, found, main, labels, point)
    if kind == "multilabel":
        figures += _calls(found)
    else:
        figures += _confusion(main, labels, methods, found[0].cut, point)
    return figures


def _curve(
    rows: Sequence[Mapping[str, str]],
    name: str,
    target: str | int,
    label: str,
    cut: float | None,
    areas: Mapping[str, Any],
) -> _Curve:
    """Where `target` is a number, the outcome is that the class has it."""
    column = target if isinstance(target, str) else "target"
    known = [row for row in rows if row[column] != ""]
    y = np.array([int(row[column]) for row in known], int)
    p = np.array([float(row[f"p_{label}"]) for row in known])
    return _Curve(name, y if isinstance(target, str) else (y == target).astype(int), p, cut, areas)


def _roc(drawn: Sequence[_Curve], left_out: str) -> Plot:
    figure, axes = empty_axes("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], label="chance", **_CHANCE)
    for curve, colour in zip(drawn, COLOURS, strict=False):
        points = ranking.roc_curve(curve.y, curve.p)
        area = _area("AUROC", curve.areas.get("auroc"), ranking.auroc(curve.y, curve.p))
        axes.plot(points.x, points.y, color=colour, label=f"{curve.name}: {area}")
        if curve.cut is not None:
            called = curve.p >= curve.cut
            place = (called[curve.y == 0].mean(), called[curve.y == 1].mean())
            axes.plot(*place, color=colour, marker="o", markersize=6, markeredgecolor="white", clip_on=False)
    marked = "; dots: the thresholds from validation" if any(curve.cut is not None for curve in drawn) else ""
    return f"ROC{left_out}{marked}", as_svg(figure, "ROC")


def _precision_recall(drawn: Sequence[_Curve], left_out: str) -> Plot:
    figure, axes = empty_axes("sensitivity (recall)", "precision")
    for curve, colour in zip(drawn, COLOURS, strict=False):
        points = ranking.precision_recall_curve(curve.y, curve.p)
        area = _area("AUPRC", curve.areas.get("auprc"), ranking.average_precision(curve.y, curve.p))
        axes.step(points.x, points.y, where="post", color=colour, label=f"{curve.name}: {area}")
        axes.axhline(float(curve.y.mean()), color=colour, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1.02)
    return f"Precision and recall{left_out}; dotted: prevalence", as_svg(figure, "Precision and recall")


def _area(title: str, cell: Mapping[str, float | None] | None, value: float) -> str:
    if cell is None or cell["mean"] is None:
        return f"{title} {value:.3f}"
    return f"{title} {cell['mean']:.3f}" + (
        "" if cell["low"] is None else f" [{cell['low']:.3f}, {cell['high']:.3f}]"
    )


def _reliability(
    kind: Kind,
    found: Sequence[_Curve],
    main: Sequence[Mapping[str, str]],
    labels: Sequence[str],
    point: Mapping[str, Any] | None,
) -> list[Plot]:
    """Of all labels pooled where there are several; of the top label where there are classes."""
    temperature = float((point or {}).get("temperature", 1.0))
    if kind == "multiclass":
        y, p = _known(main, labels)
        after, before = (calibration.top_label(y, q) for q in (p, _raw(p, kind, temperature)))
        title = "Reliability of the most probable class"
    else:
        shown = found[:1] if kind == "binary" else found
        y, p = (np.concatenate([getattr(curve, name) for curve in shown]) for name in ("y", "p"))
        after, before = (y, p), (y, _raw(p[:, None], kind, temperature)[:, 0])
        title = "Reliability" if kind == "binary" else "Reliability, all labels pooled"
    if not len(after[0]):
        return []
    whose = f"{found[0].name} " if kind == "binary" and len(found) > 1 else ""
    drawn = {f"{whose}calibrated": after}
    if temperature != 1:
        drawn[f"{whose}before calibration"] = before
    if kind == "binary":
        drawn |= {curve.name: (curve.y, curve.p) for curve in found[1:] if len(curve.y)}
    pooled = "pooled " if kind == "multilabel" else ""
    figure, axes = empty_axes("predicted probability", "observed frequency")
    axes.plot([0, 1], [0, 1], label="perfect", **_CHANCE)
    for (name, (y, p)), colour in zip(drawn.items(), (COLOURS[0], "#9aa5b1", *COLOURS[1:]), strict=False):
        bins = calibration.reliability(y, p)
        seen = bins.counts > 0
        x, height, share = bins.confidence[seen], bins.frequency[seen], bins.counts[seen] / bins.counts.sum()
        axes.plot(
            x, height, color=colour, linewidth=1, label=f"{name}: {pooled}ECE {float(calibration.ece(y, p)[0]):.3f}"
        )
        axes.scatter(x, height, s=12 + 240 * share, color=colour, alpha=0.6, linewidths=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.05))
    return [(f"{title}; dots grow with the number of samples", as_svg(figure, title))]


def _raw(p: Float[np.ndarray, "n c"], kind: Kind, temperature: float) -> Float[np.ndarray, "n c"]:
    """Calibrated probabilities as they were before: the logits of a study had been divided by the temperature."""
    return probabilities_of(logits_of(p, kind), kind, 1 / temperature)


def _known(rows: Sequence[Mapping[str, str]], labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    known = [row for row in rows if row["target"] != ""]
    p = np.array([[float(row[f"p_{label}"]) for label in labels] for row in known]).reshape(-1, len(labels))
    return np.array([int(row["target"]) for row in known], int), p


def _confusion(
    main: Sequence[Mapping[str, str]],
    labels: Sequence[str],
    methods: Sequence[str],
    cut: float | None,
    point: Mapping[str, Any] | None,
) -> list[Plot]:
    y, p = _known(main, labels)
    if not len(y) or (cut is None and len(labels) == 1):
        return []
    title = f"Confusion of {methods[0]}" if len(methods) > 1 else "Confusion"
    if cut is None:
        called, names, title = p.argmax(axis=1), list(labels), f"{title}; called the most probable class"
    else:
        called, names = (p[:, 0] >= cut).astype(int), [f"not {labels[0]}", labels[0]]
        title += f" at the threshold {cut:.3f}{' from validation' if point else ''}"
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (y, called), 1)
    return [(title, count_grid(counts, names, names, "called", "true", title))]


def _calls(found: Sequence[_Curve]) -> list[Plot]:
    """Right and wrong calls of every label at its threshold."""
    if any(curve.cut is None for curve in found):
        return []
    counts = []
    for curve in found:
        called = curve.p >= (curve.cut or 0.0)
        counts.append(
            [int((called == call)[curve.y == true].sum()) for true, call in ((1, 1), (1, 0), (0, 1), (0, 0))]
        )
    title = "Calls of each label at its threshold from validation"
    columns = ["found", "missed", "false alarm", "rightly not"]
    return [(title, count_grid(np.array(counts), [curve.name for curve in found], columns, "", "", title))]


def of_evaluation(folder: Path, content: Mapping[str, Any], point: Mapping[str, Any] | None) -> list[Plot]:
    """The plots of an evaluation that lies in `folder`; see `classification`."""
    path = folder / "per_sample.csv"
    _, table = read_csv(path)
    if "method" not in table:
        raise UserError(f"{path} has no column 'method': evaluate the run again.")
    rows = [dict(zip(map(str, table), row, strict=True)) for row in table.itertuples(index=False, name=None)]
    return classification(rows, content, point)


def outcome_counts(split: pd.DataFrame, present: Sequence[str], labels: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Rows: an outcome and its number in each split (findings: positives of those known); none without targets."""
    texts = split.loc[split["target"] != "", "target"]
    if not len(texts):
        return []
    if "=" not in texts.iloc[0]:
        names = {"0": f"not {labels[0]}", "1": labels[0]} if len(labels) == 1 else {}
        table = pd.crosstab(split["target"].replace("", "unknown"), split["split"])
        return [
            (names.get(str(target), str(target)), [str(row.get(name, 0)) for name in present])
            for target, row in table.iterrows()
        ]
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
