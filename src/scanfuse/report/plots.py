"""The plots of a report as SVG text: training curves, ROC, precision-recall, reliability, confusion."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scanfuse.metrics.classification import calibration, ranking

__all__ = ["classification", "curves"]

_COLOURS = ("#2563a8", "#c2571a", "#3a7d44", "#8b3a8b", "#7a6a1f", "#444444")
_MOST_LABELS = 6
"""Curves in one plot; of more labels those with the most positives are drawn."""


def curves(history: pd.DataFrame) -> list[tuple[str, str]]:
    """Losses and other validation values by epoch; nothing without a history."""
    if not len(history):
        return []
    figures = [_by_epoch(history, [name for name in ("train_loss", "val_loss") if name in history], "loss")]
    others = [name for name in map(str, history) if name.startswith("val_") and name != "val_loss"]
    shown = [name for name in others if history[name].notna().any()]
    if shown:
        figures.append(_by_epoch(history, shown[:_MOST_LABELS], "validation"))
    return figures


def classification(
    rows: Sequence[Mapping[str, str]], methods: Sequence[str], decision: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    """Plots from the rows of per_sample.csv; of a binary task for all methods, of others for the first one."""
    if not rows:
        return []
    labels = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    if "target" not in rows[0]:
        tables = _several_labels(rows, methods[0], labels)
    elif len(labels) == 1:
        tables = {method: _column(rows, method, "target", f"p_{labels[0]}") for method in methods}
    else:
        tables = _classes(rows, methods[0], labels)
    tables = {name: (y, p) for name, (y, p) in tables.items() if y.any() and not y.all()}
    if not tables:
        return []
    drawn = dict(sorted(tables.items(), key=lambda item: -int(item[1][0].sum()))[:_MOST_LABELS])
    figures = [_roc(drawn), _precision_recall(drawn), _reliability(drawn)]
    if "target" in rows[0]:
        threshold = (decision or {}).get("thresholds") or [0.5]
        figures.append(_confusion(rows, methods[0], labels, float(threshold[0])))
    return figures


Tables = dict[str, tuple[np.ndarray, np.ndarray]]


def _column(rows: Sequence[Mapping[str, str]], method: str, target: str, probability: str) -> tuple[Any, Any]:
    known = [row for row in rows if row["method"] == method and row[target] != ""]
    return np.array([int(row[target]) for row in known]), np.array([float(row[probability]) for row in known])


def _several_labels(rows: Sequence[Mapping[str, str]], method: str, labels: Sequence[str]) -> Tables:
    return {label: _column(rows, method, f"target_{label}", f"p_{label}") for label in labels}


def _classes(rows: Sequence[Mapping[str, str]], method: str, labels: Sequence[str]) -> Tables:
    found = {}
    for number, label in enumerate(labels):
        y, p = _column(rows, method, "target", f"p_{label}")
        found[label] = ((y == number).astype(int), p)
    return found


def _by_epoch(history: pd.DataFrame, names: Sequence[str], title: str) -> tuple[str, str]:
    figure, axes = _axes("epoch", "")
    for name, colour in zip(names, _COLOURS, strict=False):
        axes.plot(
            history["epoch"], history[name], color=colour, label=name.replace("_", " "), marker="o", markersize=2.5
        )
    axes.legend(frameon=False)
    return title.capitalize(), _svg(figure)


def _roc(tables: Tables) -> tuple[str, str]:
    figure, axes = _axes("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    for (name, (y, p)), colour in zip(tables.items(), _COLOURS, strict=False):
        curve = ranking.roc_curve(y, p)
        axes.plot(curve.x, curve.y, color=colour, label=f"{name} {ranking.auroc(y, p):.3f}")
    axes.legend(frameon=False, loc="lower right")
    return "ROC (area in the legend)", _svg(figure)


def _precision_recall(tables: Tables) -> tuple[str, str]:
    figure, axes = _axes("sensitivity (recall)", "precision")
    for (name, (y, p)), colour in zip(tables.items(), _COLOURS, strict=False):
        curve = ranking.precision_recall_curve(y, p)
        axes.step(curve.x, curve.y, where="post", color=colour, label=f"{name} {ranking.average_precision(y, p):.3f}")
        axes.axhline(float(y.mean()), color=colour, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, loc="lower left")
    return "Precision and recall (dotted: prevalence)", _svg(figure)


def _reliability(tables: Tables) -> tuple[str, str]:
    figure, axes = _axes("predicted probability", "observed frequency")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    for (name, (y, p)), colour in zip(tables.items(), _COLOURS, strict=False):
        curve = calibration.reliability(y, p, bins=10)
        seen = curve.counts > 0
        share = curve.counts[seen] / curve.counts.sum()
        label = f"{name}, ECE {float(calibration.ece(y, p)[0]):.3f}"
        axes.plot(curve.confidence[seen], curve.frequency[seen], color=colour, linewidth=1, label=label)
        axes.scatter(
            curve.confidence[seen],
            curve.frequency[seen],
            s=20 + 300 * share,
            color=colour,
            alpha=0.6,
        )
    axes.legend(frameon=False, loc="upper left")
    return "Reliability (dots grow with the number of samples)", _svg(figure)


def _confusion(
    rows: Sequence[Mapping[str, str]], method: str, labels: Sequence[str], threshold: float
) -> tuple[str, str]:
    known = [row for row in rows if row["method"] == method and row["target"] != ""]
    y = np.array([int(row["target"]) for row in known])
    p = np.array([[float(row[f"p_{label}"]) for label in labels] for row in known])
    if len(labels) == 1:
        called, names = (p[:, 0] >= threshold).astype(int), [f"not {labels[0]}", labels[0]]
        title = f"Confusion of {method} at the threshold {threshold:.3f} from validation"
    else:
        called, names, title = p.argmax(axis=1), list(labels), f"Confusion of {method}"
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (y, called), 1)
    figure, axes = _axes("called", "true")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else "#222222"
        axes.text(column, row, f"{count}\n{100 * shares[row, column]:.0f} %", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 4 else 45)
    axes.set_yticks(range(len(names)), names, rotation=90 if len(names) < 4 else 0, va="center")
    return title, _svg(figure)


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element; the same figure gives the same text."""
    text = StringIO()
    # Names in an SVG belong to the whole page: each figure salts its own.
    salt = figure.axes[0].get_xlabel() + figure.axes[0].get_ylabel() + str(len(figure.axes[0].lines))
    with matplotlib.rc_context({"svg.hashsalt": salt, "font.size": 9}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
