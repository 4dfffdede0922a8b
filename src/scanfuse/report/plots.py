"""The plots of a report as SVG text: training curves, ROC, precision-recall, reliability, confusion."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scanfuse.metrics.classification import calibration, ranking
from scanfuse.stats.calibration import Kind, logits_of, probabilities_of

__all__ = ["classification", "curves", "metric_name"]

Plot = tuple[str, str]
"""Title and SVG."""

_COLOURS = ("#2563a8", "#c2571a", "#3a7d44", "#8b3a8b", "#7a6a1f", "#444444")
_CHANCE: dict[str, Any] = {"color": "#999999", "linewidth": 1, "linestyle": "--"}
_FONT = 9
_MOST_LABELS = 6
"""Curves in one plot; of more labels those with the most positives are drawn."""

_ACRONYMS = frozenset("auroc auprc f1 ece nll psnr ssim fsim fmi en mi nmi sd sf ag cc scd vif qabf".split())


def metric_name(name: str) -> str:
    """The name of a metric as readers know it: auroc -> AUROC, balanced_accuracy -> balanced accuracy."""
    words = re.split("[_ ]", name.replace("ms_ssim", "MS-SSIM").replace("brier", "Brier score"))
    return " ".join(word.upper() if word in _ACRONYMS else word for word in words)


def curves(history: pd.DataFrame, best_epoch: int | None = None) -> list[Plot]:
    """Losses and other validation values by epoch, the best epoch marked; nothing without a history."""
    if not len(history):
        return []
    losses = [name for name in ("train_loss", "val_loss") if name in history]
    others = [name for name in map(str, history) if name.startswith("val_") and name != "val_loss"]
    shown = [name for name in others if history[name].notna().any()][:_MOST_LABELS]
    figures = [("Loss", losses, ""), ("Validation", shown, "val_")]
    return [_by_epoch(history, title, names, best_epoch, prefix) for title, names, prefix in figures if names]


@dataclass(frozen=True)
class _Curve:
    """One outcome of one method: y (n,) 0 or 1, p (n,), the cut of the run, and the intervals of its areas."""

    name: str
    y: Int[np.ndarray, " n"]
    p: Float[np.ndarray, " n"]
    cut: float | None
    areas: Mapping[str, Mapping[str, float | None]]


def classification(
    rows: Sequence[Mapping[str, str]], content: Mapping[str, Any], decision: Mapping[str, Any] | None
) -> list[Plot]:
    """Plots of a classification; of a binary task for all methods, of others for the first one.

    Args:
        rows: of per_sample.csv.
        content: of evaluation.json; its values and intervals stand in the legends.
        decision: of decision.json; it belongs to the first method. Where rows have a column run, each was decided by
            that one, and no threshold is shown.
    """
    if not rows:
        return []
    each_its_own = "run" in rows[0]
    if each_its_own:
        decision = None
    labels = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    kind: Kind = "multilabel" if "target" not in rows[0] else "binary" if len(labels) == 1 else "multiclass"
    main = [row for row in rows if row["method"] == content["methods"][0]]
    cuts = list((decision or {}).get("thresholds") or [])
    if kind == "binary":
        found = [
            _curve(
                [row for row in rows if row["method"] == method],
                method,
                "target",
                labels[0],
                (cuts or [0.5])[0] if method == content["methods"][0] and not each_its_own else None,
                content["cells"][method],
            )
            for method in content["methods"]
        ]
    else:
        cells = content.get("parts", {}).get("labels", {}).get("cells", {}).get(content["methods"][0], {})
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
    figures += _reliability(kind, found, main, labels, decision)
    if kind == "multilabel":
        figures += _calls(found)
    else:
        figures += _confusion(main, labels, content["methods"], found[0].cut, decision)
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


def _by_epoch(history: pd.DataFrame, title: str, names: Sequence[str], best_epoch: int | None, prefix: str) -> Plot:
    figure, axes = _axes("epoch", title.lower())
    for name, colour in zip(names, _COLOURS, strict=False):
        label = {"train_loss": "training", "val_loss": "validation"}.get(name, metric_name(name.removeprefix(prefix)))
        axes.plot(history["epoch"], history[name], color=colour, label=label, marker="o", markersize=2.5)
    if best_epoch is not None:
        axes.axvline(best_epoch, color="#999999", linewidth=1, linestyle=":", label=f"best epoch {best_epoch}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return title, _svg(figure, title)


def _roc(drawn: Sequence[_Curve], left_out: str) -> Plot:
    figure, axes = _axes("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], label="chance", **_CHANCE)
    for curve, colour in zip(drawn, _COLOURS, strict=False):
        points = ranking.roc_curve(curve.y, curve.p)
        area = _area("AUROC", curve.areas.get("auroc"), ranking.auroc(curve.y, curve.p))
        axes.plot(points.x, points.y, color=colour, label=f"{curve.name}: {area}")
        if curve.cut is not None:
            called = curve.p >= curve.cut
            place = (called[curve.y == 0].mean(), called[curve.y == 1].mean())
            axes.plot(*place, color=colour, marker="o", markersize=6, markeredgecolor="white", clip_on=False)
    marked = "; dots: the thresholds from validation" if any(curve.cut is not None for curve in drawn) else ""
    return f"ROC{left_out}{marked}", _svg(figure, "ROC")


def _precision_recall(drawn: Sequence[_Curve], left_out: str) -> Plot:
    figure, axes = _axes("sensitivity (recall)", "precision")
    for curve, colour in zip(drawn, _COLOURS, strict=False):
        points = ranking.precision_recall_curve(curve.y, curve.p)
        area = _area("AUPRC", curve.areas.get("auprc"), ranking.average_precision(curve.y, curve.p))
        axes.step(points.x, points.y, where="post", color=colour, label=f"{curve.name}: {area}")
        axes.axhline(float(curve.y.mean()), color=colour, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1.02)
    return f"Precision and recall{left_out}; dotted: prevalence", _svg(figure, "Precision and recall")


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
    decision: Mapping[str, Any] | None,
) -> list[Plot]:
    """Of all labels pooled where there are several; of the top label where there are classes."""
    temperature = float((decision or {}).get("temperature", 1.0))
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
    figure, axes = _axes("predicted probability", "observed frequency")
    axes.plot([0, 1], [0, 1], label="perfect", **_CHANCE)
    for (name, (y, p)), colour in zip(drawn.items(), (_COLOURS[0], "#9aa5b1", *_COLOURS[1:]), strict=False):
        bins = calibration.reliability(y, p)
        seen = bins.counts > 0
        x, height, share = bins.confidence[seen], bins.frequency[seen], bins.counts[seen] / bins.counts.sum()
        axes.plot(
            x, height, color=colour, linewidth=1, label=f"{name}: {pooled}ECE {float(calibration.ece(y, p)[0]):.3f}"
        )
        axes.scatter(x, height, s=12 + 240 * share, color=colour, alpha=0.6, linewidths=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.05))
    return [(f"{title}; dots grow with the number of samples", _svg(figure, title))]


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
    decision: Mapping[str, Any] | None,
) -> list[Plot]:
    y, p = _known(main, labels)
    if not len(y) or (cut is None and len(labels) == 1):
        return []
    title = f"Confusion of {methods[0]}" if len(methods) > 1 else "Confusion"
    if cut is None:
        called, names, title = p.argmax(axis=1), list(labels), f"{title}; called the most probable class"
    else:
        called, names = (p[:, 0] >= cut).astype(int), [f"not {labels[0]}", labels[0]]
        title += f" at the threshold {cut:.3f}{' from validation' if decision else ''}"
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (y, called), 1)
    return [(title, _grid(counts, names, names, "called", "true", title))]


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
    return [(title, _grid(np.array(counts), [curve.name for curve in found], columns, "", "", title))]


def _grid(
    counts: Int[np.ndarray, "r c"], rows: Sequence[str], columns: Sequence[str], x: str, y: str, title: str
) -> str:
    """Counts with their share of the row, or alone where there are many; the deeper the larger the share."""
    figure, axes = _axes(x, y, height=max(3.4, 1 + 0.27 * len(rows)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(False)
    few = len(rows) <= 5
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count}\n{100 * shares[row, column]:.0f} %" if few and count else str(count)
        colour = "white" if shares[row, column] > 0.6 else "#222222"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=_FONT)
    below, beside = ([name.replace(" ", "\n") for name in columns], [name.replace(" ", "\n") for name in rows])
    beside = beside if few else list(rows)
    # About what fits into the width of a figure.
    upright = len(below) * _widest(below) + _widest(beside) <= 56
    axes.set_xticks(range(len(below)), below, rotation=0 if upright else 30, ha="center" if upright else "right")
    axes.set_yticks(range(len(beside)), beside)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return _svg(figure, title)


def _widest(names: Sequence[str]) -> int:
    return max(len(line) for name in names for line in name.split("\n"))


def _axes(x: str, y: str, height: float = 3.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, fontsize=_FONT)
    axes.set_ylabel(y, fontsize=_FONT)
    axes.tick_params(labelsize=_FONT)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """The figure as an <svg> element, its legend below the axes; the same figure gives the same text."""
    (axes,) = figure.axes
    with matplotlib.rc_context({"svg.hashsalt": title}):
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            # Beside the curves, never over them.
            columns = 1 if max(map(len, labels)) > 24 else min(3, len(labels))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=_FONT)
            figure.set_figheight(figure.get_figheight() + 0.19 * -(-len(labels) // columns))
        text = StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    # Inside a page the namespaces are known; without them no address is left in it.
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
