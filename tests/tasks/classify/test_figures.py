"""The plots of a classification: the numbers in them, which way round the confusion is, and what stands where."""

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from scanfuse import plots
from scanfuse.metrics.classification import calibration
from scanfuse.tasks.classify import figures as of_classification

Figures = dict[str, Figure]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Figures:
    """The figures behind the SVG texts, by the title that a listener hears."""
    found: Figures = {}
    write = plots.as_svg

    def keep(figure: Figure, title: str) -> str:
        found[title] = figure
        return write(figure, title)

    for module in (plots, of_classification):
        monkeypatch.setattr(module, "as_svg", keep)
    return found


def rows_of(method: str, y: np.ndarray, p: np.ndarray) -> list[dict[str, str]]:
    return [
        {"method": method, "id": f"s{k}", "group": f"g{k}", "target": str(t), "p_ill": repr(float(q))}
        for k, (t, q) in enumerate(zip(y, p, strict=True))
    ]


def cell(mean: float) -> dict[str, float | None]:
    return {"mean": mean, "low": mean - 0.125, "high": mean + 0.125}


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def grid_of(figure: Figure) -> dict[tuple[int, int], str]:
    """(row, column) -> the text that stands there."""
    texts = figure.axes[0].texts
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in texts}


def binary_case() -> tuple[np.ndarray, np.ndarray, list[dict[str, str]], dict[str, Any]]:
    random = np.random.default_rng(0)
    y = (random.random(60) < 0.4).astype(int)
    p = expit(2.2 * y - 1 + random.normal(0, 1.5, 60))
    q = expit(random.normal(0, 1, 60))
    cells = {
        name: {"auroc": cell(roc_auc_score(y, v)), "auprc": cell(average_precision_score(y, v))}
        for name, v in (("run", p), ("other", q))
    }
    rows = rows_of("run", y, p) + rows_of("other", y, q)
    rows.append({"method": "run", "id": "u", "group": "u", "target": "", "p_ill": "0.9"})  # not known: in no plot
    return y, p, rows, {"methods": ["run", "other"], "cells": cells}


def test_binary_plots_show_the_numbers_of_the_table(figures: Figures) -> None:
    y, p, rows, content = binary_case()
    found = of_classification.classification(rows, content, {"thresholds": [0.35], "temperature": 2.0})
    assert [title.split(";")[0].split(" at ")[0] for title, _ in found] == [
        "ROC",
        "Precision and recall",
        "Reliability",
        "Confusion of run",
    ]
    area = content["cells"]["run"]["auroc"]
    wanted = f"run: AUROC {area['mean']:.3f} [{area['low']:.3f}, {area['high']:.3f}]"
    assert legend_of(figures["ROC"])[:2] == ["chance", wanted]
    assert (
        f"run: AUPRC {content['cells']['run']['auprc']['mean']:.3f}" in legend_of(figures["Precision and recall"])[0]
    )
    (point,) = [line for line in figures["ROC"].axes[0].lines if line.get_marker() == "o"]
    called = p >= 0.35
    assert point.get_xdata() == [pytest.approx(called[y == 0].mean())]
    assert point.get_ydata() == [pytest.approx(called[y == 1].mean())]
    raw = expit(2.0 * logit(p))  # the logits had been divided by the temperature
    before, after = (float(calibration.ece(y, values)[0]) for values in (raw, p))
    assert legend_of(figures["Reliability"])[1:3] == [
        f"run calibrated: ECE {after:.3f}",
        f"run before calibration: ECE {before:.3f}",
    ]


def test_confusion_has_the_truth_in_rows_and_the_call_in_columns(figures: Figures) -> None:
    y, p, rows, content = binary_case()
    (title, _) = of_classification.classification(rows, content, {"thresholds": [0.35], "temperature": 1.0})[-1]
    assert title == "Confusion of run at the threshold 0.350 from validation"
    matrix = confusion_matrix(y, p >= 0.35)
    assert matrix[0, 1] != matrix[1, 0]
    shown = grid_of(figures[title])
    for place, count in np.ndenumerate(matrix):
        share = 100 * count / matrix[place[0]].sum()
        assert shown[place] == f"{count}\n{share:.0f} %"
    axes = figures[title].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("called", "true")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["not\nill", "ill"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row on top
    assert "before calibration" not in " ".join(
        legend_of(figures["Reliability"])
    )  # a temperature of 1 changes nothing


def test_several_labels_are_pooled_and_their_calls_counted(figures: Figures) -> None:
    random = np.random.default_rng(1)
    labels = [f"label {k}" for k in range(8)]
    y = (random.random((40, 8)) < np.linspace(0.2, 0.6, 8)).astype(int)
    y[:, 0] = 0  # never there: in the counts, not among the curves
    p = expit(2 * y - 1 + random.normal(0, 1, y.shape))
    cuts = list(np.linspace(0.3, 0.6, 8))
    rows = [
        {"method": "run", "id": str(k), "group": str(k)}
        | {f"target_{name}": str(t) for name, t in zip(labels, y[k], strict=True)}
        | {f"p_{name}": repr(float(v)) for name, v in zip(labels, p[k], strict=True)}
        for k in range(40)
    ]
    rows[0]["target_label 7"] = ""
    areas = {name: {"auroc": cell(0.5 + 0.01 * k)} for k, name in enumerate(labels)}
    parts = {"labels": {"cells": {"run": {name: area["auroc"] for name, area in areas.items()}}}}
    content = {"methods": ["run"], "cells": {"run": {}}, "parts": parts}
    found = of_classification.classification(rows, content, {"thresholds": cuts, "temperature": 0.5})
    assert "the 6 labels with most positives" in found[0][0]
    shown = {text.split(":")[0] for text in legend_of(figures["ROC"])} - {"chance"}
    y_known = [np.delete(y[:, k], 0) if k == 7 else y[:, k] for k in range(8)]
    most = sorted(range(1, 8), key=lambda k: -y_known[k].sum())
    assert len(shown) == 6 and {labels[k] for k in most[:5]} <= shown
    assert any(text.startswith("label 7: AUROC 0.570 [") for text in legend_of(figures["ROC"]))
    p_known = [np.delete(p[:, k], 0) if k == 7 else p[:, k] for k in range(8)]
    pooled = float(calibration.ece(np.concatenate(y_known), np.concatenate(p_known))[0])
    assert f"calibrated: pooled ECE {pooled:.3f}" in legend_of(figures["Reliability, all labels pooled"])
    counts = grid_of(figures[found[-1][0]])
    for k in range(8):
        true, call = y_known[k] == 1, p_known[k] >= cuts[k]
        expected = [(true & call).sum(), (true & ~call).sum(), (~true & call).sum(), (~true & ~call).sum()]
        assert [counts[k, column] for column in range(4)] == [str(count) for count in expected]


def test_classes_without_some_outcome_have_no_curve_but_a_confusion(figures: Figures) -> None:
    p = np.array([[0.2, 0.7, 0.1], [0.5, 0.3, 0.2]])
    rows = [
        {"method": "run", "id": str(k), "group": str(k), "target": "1"}
        | {f"p_{name}": repr(float(v)) for name, v in zip("abc", p[k], strict=True)}
        for k in range(2)
    ]
    found = of_classification.classification(
        rows, {"methods": ["run"], "cells": {"run": {}}}, {"thresholds": [], "temperature": 1}
    )
    assert [title.split(";")[0] for title, _ in found] == ["Reliability of the most probable class", "Confusion"]
    assert grid_of(figures[found[1][0]]) == {
        (row, column): ("1\n50 %" if row == 1 and column < 2 else "0") for row in range(3) for column in range(3)
    }
    assert legend_of(figures["Reliability of the most probable class"])[1].startswith("calibrated: ECE 0.")


def test_the_same_figures_give_the_same_text_without_any_address() -> None:
    _, _, rows, content = binary_case()
    decision = {"thresholds": [0.35], "temperature": 2.0}
    first, again = (of_classification.classification(rows, content, decision) for _ in range(2))
    assert first == again
    for _, svg in first:
        assert svg.startswith("<svg role=") and "http:" not in svg and "xmlns" not in svg and svg.count("<svg") == 1
