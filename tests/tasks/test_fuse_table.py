"""The table of a fusion: means over samples, intervals over cases, and what is written of them."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanfuse.metrics.fusion import METRICS
from scanfuse.tables import Evaluation, write
from scanfuse.tasks import fuse
from scanfuse.tasks.fuse import _spread, _summarised


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Evaluation]:
    """rows, notes -> their table, with the metrics m and p in place of fifteen, whichever the rows have."""

    def made(rows: list[dict[str, Any]], *notes: str) -> Evaluation:
        metrics = {name: METRICS["psnr"] for name in ("m", "p") if name in rows[0]}
        monkeypatch.setattr(fuse, "METRICS", metrics)
        return _summarised(rows, "test", notes)

    return made


def test_intervals_are_over_cases(table: Callable[..., Evaluation]) -> None:
    """Draws of two cases: xx, xy or yx, yy; means 1, 2, 3. Draws of four samples would reach 0.5 and 3.5."""
    rows = [
        {"method": "run", "id": str(index), "group": group, "m": value}
        for index, (group, value) in enumerate([("x", 0.0), ("x", 2.0), ("y", 2.0), ("y", 4.0)])
    ]
    evaluation = table(rows, "leaky: yes")
    cell = evaluation.cells["run"]["m"]
    assert (cell.mean, cell.low, cell.high) == (2.0, 1.0, 3.0)
    assert (evaluation.samples, evaluation.groups) == (4, 2)
    assert evaluation.notes[0] == "leaky: yes"
    assert evaluation.notes[1].startswith("only 2 case(s)")
    alone = table(rows[:2])
    assert alone.cells["run"]["m"].mean == 1
    assert math.isnan(alone.cells["run"]["m"].low)


def test_enough_cases_need_no_warning_and_undefined_values_are_left_out(table: Callable[..., Evaluation]) -> None:
    values = [1.0, 2.0, math.nan, 4.0, 5.0]
    rows = [{"method": "run", "id": str(k), "group": str(k), "m": value} for k, value in enumerate(values)]
    evaluation = table(rows)
    assert evaluation.notes == []
    assert evaluation.cells["run"]["m"].mean == 3


def test_files_hold_every_value_and_json_is_strict(table: Callable[..., Evaluation], tmp_path: Path) -> None:
    rows = [
        {"method": method, "id": f"s{k}", "group": f"g{k}", "m": value, "p": math.inf}
        for method, values in (("run", [1.25, math.nan]), ("average", [0.1, 3.0]))
        for k, value in enumerate(values)
    ]
    write(table(rows, "careful"), tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "evaluation.json",
        "per_sample.csv",
        "table.md",
    ]

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "new" / "evaluation.json").read_text()
    content = json.loads(text, parse_constant=refuse)
    assert content["cells"]["run"] == {
        "m": {"mean": 1.25, "low": None, "high": None},
        "p": {"mean": None, "low": None, "high": None},
    }
    assert content["notes"][0] == "careful"
    assert "rows" not in content
    with (tmp_path / "new" / "per_sample.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [(row["method"], row["id"], row["group"]) for row in read] == [
        ("run", "s0", "g0"),
        ("run", "s1", "g1"),
        ("average", "s0", "g0"),
        ("average", "s1", "g1"),
    ]
    np.testing.assert_array_equal([float(row["m"]) for row in read], [1.25, math.nan, 0.1, 3.0])


def test_gallery_positions_are_distinct_and_spread() -> None:
    for total in range(1, 40):
        for count in range(15):
            found = sorted(_spread(total, count))
            assert len(found) == min(count, total)
            assert all(0 <= position < total for position in found)
            if len(found) > 1:
                steps = np.diff(found)
                assert steps.max() - steps.min() <= 1
    assert _spread(9, 3) == {1, 4, 7}
