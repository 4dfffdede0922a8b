"""The schema of a table: cases worked by hand, the fold it may look at, what leaks, and the way to disk and back."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from scanfuse.data.inputs import Fitted
from scanfuse.data.transforms.leaks import leak_of, separation
from scanfuse.data.transforms.table import Table, TableSettings
from scanfuse.errors import UserError


def made(count: int = 60, seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Text columns of every kind with gaps, and targets of which `signal` knows something."""
    random = np.random.default_rng(seed)
    y = random.random(count) < 0.4
    table = pd.DataFrame(
        {
            "signal": [f"{v + random.normal():.4f}" for v in y],
            "noise": [f"{random.normal():.3f}" for _ in range(count)],
            "stage": [str(random.integers(1, 5)) for _ in range(count)],
            "sex": [str(random.choice(["male", "female"])) for _ in range(count)],
            "site": [str(random.choice(["arm", "leg", "head"])) for _ in range(count)],
        },
        dtype=str,
    )
    for name, rate in (("signal", 0.1), ("sex", 0.2), ("noise", 0.3)):
        table[name] = ["" if random.random() < rate else text for text in table[name]]
    return table, [str(int(v)) for v in y]


def test_a_small_table_by_hand() -> None:
    rows = pd.DataFrame(
        {
            "age": ["10", "20", "NA", "30.5"],
            "grade": ["1", "4.0", "2", "4"],
            "sex": ["Male", "female", "", "male "],
            "wet": ["True", "False", "False", "nan"],
            "diam_mm": ["1.5", "2.5", "0.5", "3.25"],
        },
        dtype=str,
    )
    table = Table.fit(rows, ["0", "1", "0", "1"])
    assert [(f.name, f.kind, f.unit, f.levels, f.missing) for f in table.features] == [
        ("age", "numeric", "years", (), 1),
        ("grade", "ordinal", "", ("1", "2", "4"), 0),
        ("sex", "categorical", "", ("female", "male"), 1),
        ("wet", "categorical", "", ("false", "true"), 1),
        ("diam_mm", "numeric", "mm", (), 0),
    ]
    assert table.categories == (0, 0, 2, 2, 0)
    found, wrong = table.encode(rows)
    ages = np.array([10, 20, 30.5])
    assert wrong == {} and found.dtype == np.float32
    assert np.allclose(found[[0, 1, 3], 0, 0], (ages - ages.mean()) / ages.std())
    places = np.array([0, 2, 1, 2])
    assert np.allclose(found[:, 1, 0], (places - places.mean()) / places.std())
    assert found[:, 2].tolist() == [[2, 1], [1, 1], [0, 0], [2, 1]]
    assert found[2, 0].tolist() == [0, 0]  # missing is kept, not filled
    # Unknown categories, levels between and beyond, and far values:
    other, wrong = table.encode(
        pd.DataFrame({"sex": ["diverse"] * 3, "grade": ["3", "0", "9"], "age": ["1e9", "x", "20"]}, dtype=str)
    )
    assert other[:, 2].tolist() == [[0, 1]] * 3  # known, but no category of the training
    assert np.allclose(other[:, 1, 0], (np.array([1.5, 0, 2]) - places.mean()) / places.std())
    assert other[0, 0].tolist() == [10, 1] and wrong == {
        1: "age is 'x', but a number is expected; leave it empty if unknown."
    }
    assert not other[:, 4].any()  # a column that is not there


@pytest.mark.parametrize("settings", [TableSettings(), TableSettings(keep_features=3)])
def test_held_out_rows_change_nothing_that_is_stored(settings: TableSettings) -> None:
    rows, target = made(120)
    fold = np.arange(120) % 5 == 0

    def stored(table: pd.DataFrame, targets: list[str]) -> Fitted:
        kept = [text for text, out in zip(targets, fold, strict=True) if not out]
        return Table.fit(table[~fold].reset_index(drop=True), kept, settings, seed=3).fitted()

    before = stored(rows, target)
    changed = rows.copy()
    changed.loc[fold, "signal"] = "1e6"
    changed.loc[fold, ["sex", "site"]] = "never seen"
    changed.loc[fold, "stage"] = "99"
    after = stored(changed, ["1" if out else text for text, out in zip(target, fold, strict=True)])
    assert before.values == after.values and torch.equal(before.tensors["table"], after.tensors["table"])
    # The test can fail: one changed training row does change what is stored.
    row = int(np.flatnonzero(~fold)[0])
    changed.loc[row, "signal"] = "1e6"
    changed.loc[row, "site"] = "seen now"
    again = stored(changed, target)
    assert again.values != before.values and not torch.equal(before.tensors["table"], again.tensors["table"])


def test_stored_and_restored_encodes_the_same_bits() -> None:
    rows, target = made()
    table = Table.fit(rows, target, TableSettings(keep_features=4))
    again = Table.restore(table.fitted())
    assert again == table
    assert np.array_equal(again.encode(rows)[0], table.encode(rows)[0])
    with pytest.raises(UserError, match="damaged"):
        Table.restore(Fitted({"table": {"features": [{}]}}, {"table": torch.zeros(1, 2)}))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("patient_id", "identifier"),
        ("lesion_id", "test table"),
        ("iddx_full", "test table"),
        ("iddx_5", "test table"),
        ("mel_mitotic_index", "test table"),
        ("mel_thick_mm", "test table"),
        ("tbp_lv_dnn_lesion_confidence", "test table"),
        ("FEV1", "COPD"),
        ("FEV1 % predicted", "COPD"),
        ("Post-FVC", "COPD"),
        ("FEV1/FVC", "COPD"),
        ("GOLD stage", "COPD"),
        ("dx_type", "once the diagnosis"),
        ("biopsed", "once the diagnosis"),
        ("diagnostic", "target itself"),
        ("attribution", "hospital"),
        ("img_id", "identifier"),
    ],
)
def test_what_leaks_by_its_name(name: str, word: str) -> None:
    assert word in str(leak_of(name))
    rows, target = made()
    rows[name] = rows["noise"]
    table = Table.fit(rows, target)
    assert name not in table.names and word in table.left_out[name]
    with pytest.raises(UserError, match=r"would give the target away.*--allow-leaks"):
        Table.fit(rows, target, TableSettings(columns=("noise", name)))
    allowed = Table.fit(rows, target, TableSettings(columns=("noise",), allow_leaks=(name,)))
    assert allowed.names == ("noise", name)


def test_ordinary_columns_do_not_leak() -> None:
    for name in (
        "age_approx",
        "sex",
        "anatom_site_general",
        "tbp_lv_x",
        "uric_acid",
        "thyroid",
        "localization",
        "region",
    ):
        assert leak_of(name) is None, name


def test_texts_of_no_use_are_left_out_and_said() -> None:
    rows, target = made(300)
    rows["empty"], rows["same"] = "", "TBP tile"
    rows["free"] = [f"note {number}" for number in range(300)]
    table = Table.fit(rows, target)
    assert {"empty", "same", "free"} <= set(table.left_out)
    assert "300 different texts" in table.left_out["free"]


def test_a_column_that_alone_predicts_the_target_is_warned_by_name() -> None:
    rows, target = made(80)
    assert Table.fit(rows, target).warnings == ()
    rows["oracle"] = [f"{float(text) * 2 + 0.01 * n}" for n, text in enumerate(target)]
    rows["code"] = ["x" if text == "1" else str(n % 3) for n, text in enumerate(target)]
    rows["gap"] = ["" if text == "1" else rows["noise"][n] or "1.5" for n, text in enumerate(target)]
    warnings = Table.fit(rows, target).warnings
    assert [text.split(" alone")[0] for text in warnings] == ["oracle", "code", "whether gap is missing"]


def test_separation_by_hand() -> None:
    known, y = np.ones(12, bool), np.repeat([0, 1], 6)
    ordered = np.array([1, 2, 3, 4, 5, 7.5, 6, 7, 8, 9, 10, 11])
    assert separation(ordered, known, y, is_ordered=True) == pytest.approx(34 / 36)
    assert separation(-ordered, known, y, is_ordered=True) == pytest.approx(34 / 36)
    codes = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2.0])
    assert separation(codes, known, y, is_ordered=False) == pytest.approx((1 / 2 + 1 / 2 + 1 / 2) / 2)
    assert separation(ordered, np.arange(12) != 11, y, is_ordered=True) == pytest.approx(28 / 30)
    assert separation(ordered[2:], known[2:], y[2:], is_ordered=True) == 0.5  # four of a class say nothing


def test_the_forest_keeps_what_matters_and_repeats_itself() -> None:
    rows, target = made(200)
    first, again = (Table.fit(rows, target, TableSettings(keep_features=1), seed=seed) for seed in (0, 0))
    assert first == again and first.names == ("signal",) and first.forest is not None
    assert next(iter(first.forest.importances)) == "signal" and set(first.forest.importances) == set(rows)
    assert sum(first.forest.importances.values()) == pytest.approx(1)
    assert first.left_out["noise"] == "not among the best by the forest"
    with pytest.raises(UserError, match="one class only"):
        Table.fit(rows, ["1"] * 200, TableSettings(keep_features=1))


def test_a_row_by_hand() -> None:
    rows, target = made()
    rows["lesion_id"] = [str(n) for n in range(60)]
    table = Table.fit(rows, target)
    row = {name: rows[name][7] for name in rows}
    assert np.array_equal(table.encode_row(row), table.encode(rows[7:8])[0][0])
    assert not table.encode_row({"sex": None}).any()
    with pytest.raises(UserError, match="no column 'sexx'; did you mean 'sex'"):
        table.encode_row({"sexx": "male"})
    with pytest.raises(UserError, match="noise is 'much'"):
        table.encode_row({"noise": "much"})
    with pytest.raises(UserError, match="no column 'sexx'; did you mean 'sex'"):
        Table.fit(rows, target, TableSettings(columns=("sexx",)))


def test_no_pickle_is_needed(tmp_path: Path) -> None:
    """What is stored is JSON and tensors; the run folder's own functions take it."""
    import json

    rows, target = made()
    fitted = Table.fit(rows, target, TableSettings(keep_features=2)).fitted()
    assert json.loads(json.dumps(fitted.values)) == fitted.values
    assert all(isinstance(tensor, torch.Tensor) for tensor in fitted.tensors.values())
