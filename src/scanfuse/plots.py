"""Plots as SVG text that needs no network, for the reports of all tasks: curves by epoch, grids of counts, axes."""

import html
import re
from collections.abc import Sequence
from io import StringIO

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["COLOURS", "FONT", "Plot", "as_svg", "count_grid", "curves", "empty_axes", "metric_name"]

Plot = tuple[str, str]
"""Title and SVG."""

COLOURS = ("#2563a8", "#c2571a", "#3a7d44", "#8b3a8b", "#7a6a1f", "#444444")
FONT = 9
_MOST_LINES = 6

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
    shown = [name for name in others if history[name].notna().any()][:_MOST_LINES]
    figures = [("Loss", losses, ""), ("Validation", shown, "val_")]
    return [_by_epoch(history, title, names, best_epoch, prefix) for title, names, prefix in figures if names]


def _by_epoch(history: pd.DataFrame, title: str, names: Sequence[str], best_epoch: int | None, prefix: str) -> Plot:
    figure, axes = empty_axes("epoch", title.lower())
    for name, colour in zip(names, COLOURS, strict=False):
        label = {"train_loss": "training", "val_loss": "validation"}.get(name, metric_name(name.removeprefix(prefix)))
        axes.plot(history["epoch"], history[name], color=colour, label=label, marker="o", markersize=2.5)
    if best_epoch is not None:
        axes.axvline(best_epoch, color="#999999", linewidth=1, linestyle=":", label=f"best epoch {best_epoch}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return title, as_svg(figure, title)


def count_grid(
    counts: Int[np.ndarray, "r c"], rows: Sequence[str], columns: Sequence[str], x: str, y: str, title: str
) -> str:
    """Counts with their share of the row, or alone where there are many; the deeper the larger the share."""
    figure, axes = empty_axes(x, y, height=max(3.4, 1 + 0.27 * len(rows)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(False)
    few = len(rows) <= 5
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count}\n{100 * shares[row, column]:.0f} %" if few and count else str(count)
        colour = "white" if shares[row, column] > 0.6 else "#222222"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=FONT)
    below, beside = ([name.replace(" ", "\n") for name in columns], [name.replace(" ", "\n") for name in rows])
    beside = beside if few else list(rows)
    # About what fits into the width of a figure.
    upright = len(below) * _widest(below) + _widest(beside) <= 56
    axes.set_xticks(range(len(below)), below, rotation=0 if upright else 30, ha="center" if upright else "right")
    axes.set_yticks(range(len(beside)), beside)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return as_svg(figure, title)


def _widest(names: Sequence[str]) -> int:
    return max(len(line) for name in names for line in name.split("\n"))


def empty_axes(x: str, y: str, height: float = 3.2) -> tuple[Figure, Axes]:
    """A small figure with named axes and a light grid."""
    figure = Figure(figsize=(4.6, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, fontsize=FONT)
    axes.set_ylabel(y, fontsize=FONT)
    axes.tick_params(labelsize=FONT)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def as_svg(figure: Figure, title: str) -> str:
    """The figure as an <svg> element, its legend below the axes; the same figure gives the same text."""
    (axes,) = figure.axes
    with matplotlib.rc_context({"svg.hashsalt": title}):
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            # Beside the curves, never over them.
            columns = 1 if max(map(len, labels)) > 24 else min(3, len(labels))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=FONT)
            figure.set_figheight(figure.get_figheight() + 0.19 * -(-len(labels) // columns))
        text = StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    # Inside a page the namespaces are known; without them no address is left in it.
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
