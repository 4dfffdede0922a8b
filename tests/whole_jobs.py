"""What the tests of whole jobs share: running commands that fail, and reading what was written."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scanfuse.cli import main

__all__ = ["TINY", "Capture", "fails", "json_of", "table_of"]

TINY = "--preset tiny --size 32 --epochs 1 --batch 8 --threads 1 --device cpu --quiet".split()
Capture = pytest.CaptureFixture[str]


def fails(arguments: list[str], capsys: Capture) -> str:
    """Runs a command that must end with exit code 2 and one line of explanation; returns the line."""
    capsys.readouterr()
    assert main(arguments) == 2
    text = capsys.readouterr().err.strip().splitlines()
    assert len(text) == 1, text
    assert text[0].startswith("scanfuse: ")
    return text[0]


def table_of(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"id": str, "group": str}, comment="#")


def json_of(path: Path) -> Any:
    return json.loads(path.read_text())
