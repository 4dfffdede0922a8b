"""Made-up chests: what there is to see, what the table says, and what is missing, as the docstrings state it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scanfuse.data.series import read_series
from scanfuse.data.synthetic import copd
from scanfuse.data.synthetic._lesion import one_input
from scanfuse.metrics.classification.ranking import auroc

PATIENTS = 120


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = copd.Options(patients=PATIENTS, slices=3, size=48, seed=3)
    return copd.write(tmp_path_factory.mktemp("people") / "data", options)


def test_emphysema_in_the_slices_goes_with_the_label_no_better_than_stated(people: Path) -> None:
    table = pd.read_csv(people / "clinical.csv").set_index("patient_id")
    low = []
    for name in table.index:
        series = read_series(people / f"ct/{name}.npz", count=3, size=48)
        assert series.lung is not None and series.is_hu
        low.append(float((series.values[series.lung] < -930).mean()))
    area = auroc(table["label"].to_numpy(), np.array(low))
    # The limit of either input alone, and three standard errors of an AUROC of 120.
    assert 0.7 < area < one_input(0.45) + 0.12


def test_spirometry_defines_the_label_and_other_columns_do_not(people: Path) -> None:
    table = pd.read_csv(people / "clinical.csv")
    assert ((table["FEV1/FVC"] < 0.70).astype(int) == table["label"]).all()
    for name in ("pack_years", "cat_score", "wbc", "age"):
        known = table[name].notna()
        area = auroc(table["label"][known].to_numpy(), table[name][known].to_numpy(np.float64))
        assert 0.3 < area < 0.9


def test_values_are_missing_as_often_as_stated(people: Path) -> None:
    table = pd.read_csv(people / "clinical.csv", dtype=str, keep_default_na=False)
    for name in table:
        share = copd._GAPS.get(str(name), 0.0)
        missing = (table[name] == "").mean()
        assert missing == pytest.approx(share, abs=3.5 * np.sqrt(share * (1 - share) / PATIENTS))
