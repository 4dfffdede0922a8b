"""The classification metrics against values of scikit-learn, torchmetrics and pROC, all within the stated tolerance.

`tests/golden/classification.json` names the program behind every value and states definitions and tolerances.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from scanfuse.metrics.classification import binary, calibration, multiclass, multilabel, ranking

GOLDEN = Path(__file__).parents[1] / "golden"
VALUES = json.loads((GOLDEN / "classification.json").read_text(encoding="utf-8"))["values"]
SCORES = ("p1", "p2", "p3")

# name in the file -> (function of target and probability, tolerance)
SCALARS = {
    "auroc_{}.pROC": (ranking.auroc, 1e-12),
    "auroc_{}.sklearn": (lambda y, p: ranking.weighted_ranking(y, p)[0][0], 1e-12),
    "auroc_{}.torchmetrics": (ranking.auroc, 1e-7),
    "auroc_{}.scipy_mannwhitney": (ranking.auroc, 1e-12),
    "auprc_ap_{}.sklearn": (ranking.average_precision, 1e-12),
    "auprc_ap_{}.torchmetrics": (lambda y, p: ranking.weighted_ranking(y, p)[1][0], 1e-7),
    "brier_{}.sklearn": (lambda y, p: calibration.brier(y, p)[0], 1e-14),
    "logloss_{}.sklearn": (lambda y, p: calibration.log_loss(y, p)[0], 1e-12),
    "ece15_poscls_{}.torchmetrics": (lambda y, p: calibration.ece(y, p)[0], 1e-9),
    "ece10_poscls_{}.torchmetrics": (lambda y, p: calibration.ece(y, p, bins=10)[0], 1e-9),
}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "classification.npz") as file:
        return {name: file[name] for name in file}


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("key", SCALARS)
def test_binary_values(arrays, key, scores):
    function, tolerance = SCALARS[key]
    assert function(arrays["bin_y"], arrays[f"bin_{scores}"]) == pytest.approx(
        VALUES[key.format(scores)], abs=tolerance, rel=0
    )


def test_top_label_error_of_two_and_four_classes(arrays):
    p = arrays["bin_p3"]
    two = calibration.ece(*calibration.top_label(arrays["bin_y"], np.stack([1 - p, p], axis=1)))[0]
    assert two == pytest.approx(VALUES["ece15_toplabel_p3.numpy_left_open"], abs=1e-9)
    assert two == pytest.approx(VALUES["ece15_toplabel_p3.torchmetrics_2class"], abs=2e-7)
    four = calibration.ece(*calibration.top_label(arrays["mc_y"], arrays["mc_p"]))[0]
    assert four == pytest.approx(VALUES["mc_ece15_toplabel.numpy"], abs=1e-12)


def test_several_classes(arrays):
    y, p = arrays["mc_y"], arrays["mc_p"]
    values = {name: float(value[0]) for name, value in multiclass(y, p).items()}
    assert values["auroc"] == pytest.approx(VALUES["mc_auroc_ovr_macro.sklearn"], abs=1e-12)
    assert values["brier"] == pytest.approx(VALUES["mc_brier_sum.sklearn"], abs=1e-14)
    assert values["ece"] == pytest.approx(VALUES["mc_ece15_toplabel.torchmetrics"], abs=1e-7)


def test_several_labels_with_a_mask(arrays):
    y, p = arrays["ml_y"], arrays["ml_p"]
    averages, each = multilabel(y, y >= 0, p)
    for label in range(5):
        assert each[label]["auroc"][0] == pytest.approx(VALUES[f"ml_auroc_{label}.sklearn_masked"], abs=1e-12)
        assert each[label]["auprc"][0] == pytest.approx(VALUES[f"ml_ap_{label}.sklearn"], abs=1e-12)
    assert VALUES["ml_auroc_5.sklearn_masked"] is None
    assert np.isnan(each[5]["auroc"][0])
    assert averages["auroc"][0] == pytest.approx(VALUES["ml_auroc_macro_defined_only.sklearn_masked"], abs=1e-12)
    assert averages["auroc_micro"][0] == pytest.approx(VALUES["ml_auroc_micro.sklearn_masked"], abs=1e-12)


def test_the_table_holds_the_same_numbers(arrays):
    y, p = arrays["bin_y"], arrays["bin_p1"]
    values = binary(y, p)
    assert values["auroc"][0] == pytest.approx(VALUES["auroc_p1.pROC"], abs=1e-12)
    assert values["auprc"][0] == pytest.approx(VALUES["auprc_ap_p1.sklearn"], abs=1e-12)
    assert values["brier"][0] == pytest.approx(VALUES["brier_p1.sklearn"], abs=1e-14)
    assert values["nll"][0] == pytest.approx(VALUES["logloss_p1.sklearn"], abs=1e-12)
