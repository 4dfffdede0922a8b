"""`scanfuse data check`: what is checked is what would be trained on, with the same options."""

from pathlib import Path

import numpy as np
import pytest

from scanfuse.cli import main
from scanfuse.data.readers import write_image
from scanfuse.systems import load
from whole_jobs import Capture, fails


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twenty cases of one pair each, of which two have the same pictures."""
    random = np.random.default_rng(0)
    rows = ["id,group,ct,mri"]
    for number in range(20):
        for name in ("ct", "mri"):
            pixels = random.integers(0, 255, (16, 16)).astype(np.uint8)
            write_image(tmp_path / name / f"{number}.png", pixels)
        rows.append(f"s{number},g{number},ct/{number}.png,mri/{number}.png")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def splits(data: Path, **settings: float) -> dict[str, str]:
    system = load("clinicalfmamba")
    manifest = system(system.Config(data=settings)).data.open(data)  # type: ignore[call-arg]
    return dict(zip(manifest.table["id"], manifest.table["split"], strict=True))


@pytest.mark.parametrize(
    ("option", "value"), [("--val-fraction", 0.45), ("--test-fraction", 0.5), ("--test_fraction", 0.5)]
)
def test_the_fractions_of_the_split_are_honoured(option: str, value: float, pairs: Path, capsys: Capture) -> None:
    """The same picture twice is an error where the options put it into two splits, and only there."""
    setting = option[2:].replace("-", "_")
    usual, other = splits(pairs), splits(pairs, **{setting: value})
    names = list(usual)
    one, twin = next((a, b) for a in names for b in names if a < b and usual[a] == usual[b] and other[a] != other[b])
    for name in ("ct", "mri"):
        source, target = (pairs / name / f"{each[1:]}.png" for each in (one, twin))
        target.write_bytes(source.read_bytes())
    command = ["data", "check", "clinicalfmamba", str(pairs)]
    assert main(command) == 0
    assert "in the same split" in capsys.readouterr().out
    assert main([*command, option, str(value)]) == 2
    assert f"{other[one]} and {other[twin]}" in capsys.readouterr().out


def test_fractions_that_leave_nothing_are_said(pairs: Path, capsys: Capture) -> None:
    command = ["data", "check", "clinicalfmamba", str(pairs), "--val-fraction", "0.6", "--test-fraction", "0.6"]
    assert main(command) == 2
    assert "leave nothing to train on" in capsys.readouterr().out
    assert "did you mean --val-fraction?" in fails([*command[:4], "--val-fracton", "0.2"], capsys)
