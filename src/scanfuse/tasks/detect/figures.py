"""The plots of a detection for its report: precision and recall of each class, and the confusion matrix."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scanfuse.errors import UserError
from scanfuse.plots import COLOURS, Plot, as_svg, count_grid, empty_axes
from scanfuse.tasks.detect.table import CURVES

__all__ = ["of_evaluation"]


def of_evaluation(folder: Path) -> list[Plot]:
    """The plots of an evaluation that lies in `folder`; none for one without curves."""
    path = folder / CURVES
    if not path.is_file():
        return []
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        return [_precision_recall(content), _confusion(content)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): evaluate the run again.") from None


def _precision_recall(content: Mapping[str, Any]) -> Plot:
    figure, axes = empty_axes("recall", "precision")
    recalls = np.linspace(0, 1, 101)
    for (name, precision), colour in zip(content["precision"].items(), COLOURS * 99, strict=False):
        if precision:
            area = float(np.mean(precision))
            axes.plot(recalls, precision, color=colour, label=f"{name}: AP50 {area:.3f}", linewidth=1.4)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02))
    title = "Precision and recall at IoU 0.5"
    return f"{title} of {content['method']}", as_svg(figure, title)


def _confusion(content: Mapping[str, Any]) -> Plot:
    names = [*content["precision"], "background"]
    counts = np.rint(np.array(content["confusion"])).astype(int)
    title = f"Confusion at IoU 0.5, scores from {content['confidence']:.2f}, of {content['method']}"
    return title, count_grid(counts, names, names, "found as", "is", title)
