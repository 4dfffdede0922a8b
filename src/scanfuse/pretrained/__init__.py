"""Weights that ship with the package: run folders, named `pretrained/NAME` wherever a run is asked for.

Each has a model card, README.md: what it was trained on, what it does and does not do. The scripts that make them
from nothing lie in `scripts/` of the repository.
"""

import os
from pathlib import Path

__all__ = ["PREFIX", "is_shipped", "names", "shipped"]

PREFIX = "pretrained/"
_HERE = Path(__file__).parent


def names() -> tuple[str, ...]:
    """What there is, such as ("clinicalfmamba",)."""
    return tuple(sorted(path.parent.name for path in _HERE.glob("*/config.yaml")))


def shipped(run: str | Path) -> Path | None:
    """The folder of the shipped run of this name; None for every other path, and where there is such a folder."""
    name = Path(run).as_posix()
    if os.path.lexists(run) or not name.startswith(PREFIX) or name.removeprefix(PREFIX) not in names():
        return None
    return _HERE / name.removeprefix(PREFIX)


def is_shipped(folder: Path) -> bool:
    """Whether a folder is that of a shipped run, where nothing may be written."""
    return folder.resolve().is_relative_to(_HERE.resolve())
