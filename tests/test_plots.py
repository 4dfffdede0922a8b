"""Plots of all tasks: curves of a training, and the names of metrics."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from scanfuse import plots


def test_curves_of_a_training_have_whole_epochs_and_the_best_one(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    write = plots.as_svg
    monkeypatch.setattr(plots, "as_svg", lambda figure, title: (drawn.append(figure), write(figure, title))[1])
    history = pd.DataFrame(
        {"epoch": [1, 2, 3], "train_loss": [3.0, 2, 1], "val_loss": [2.0, 1, 2], "val_auroc": [np.nan] * 3}
    )
    assert [title for title, _ in plots.curves(history, 2)] == ["Loss"]  # an AUROC that is never defined is left out
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["training", "validation", "best epoch 2"]
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    assert plots.curves(history[:0]) == []
    assert len(plots.curves(history[:1].assign(val_auroc=0.5), 1)) == 2  # one epoch is a point


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("auroc", "AUROC"),
        ("balanced_accuracy", "balanced accuracy"),
        ("auprc_micro", "AUPRC micro"),
        ("brier", "Brier score"),
        ("ms_ssim", "MS-SSIM"),
        ("f1", "F1"),
        ("auroc of pairs", "AUROC of pairs"),
    ],
)
def test_names_of_metrics(name: str, shown: str) -> None:
    assert plots.metric_name(name) == shown
