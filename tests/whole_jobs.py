"""What the tests of whole jobs share: running commands that fail, and reading what was written."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scanfuse.cli import main

__all__ = ["FOLDS", "TINY", "Capture", "fails", "fold_command", "json_of", "table_of"]

TINY = "--preset tiny --size 32 --epochs 1 --batch 8 --threads 1 --device cpu --quiet".split()
FOLDS = ["fold-0", "fold-1", "fold-2"]
Capture = pytest.CaptureFixture[str]


def fails(arguments: list[str], capsys: Capture) -> str:
    """Runs a command that must end with exit code 2 and one line of explanation; returns the line."""
    capsys.readouterr()
    assert main(arguments) == 2
    text = capsys.readouterr().err.strip().splitlines()
    assert len(text) == 1, text
    assert text[0].startswith("scanfuse: ")
    return text[0].removeprefix("scanfuse: ")


def fold_command(data: Path, out: Path, *options: str) -> list[str]:
    """The training of a cross-validation."""
    return [*f"train xfmamba --data {data} --out {out} --lr 1e-3 --positive abnormal".split(), *TINY, *options]


def table_of(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"id": str, "group": str}, comment="#")


def json_of(path: Path) -> Any:
    return json.loads(path.read_text())
