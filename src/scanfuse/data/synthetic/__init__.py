"""Made-up data sets in published layouts; the file names of this folder are the phantoms.

A phantom is a module with the members of `Phantom`, needs no download, and gives the same bytes for the same options.
Only verbs and tests import what is here.
"""

import difflib
import importlib
import pkgutil
from pathlib import Path
from typing import Any, Protocol, cast

from scanfuse.config import Section
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.errors import UserError

__all__ = ["Facts", "Phantom", "empty_folder", "load", "names"]


class Phantom(Protocol):
    """A module of this folder.

    Attributes:
        Options: how many, how large, which seed; the defaults are enough for a small network to learn from.
        FACTS: what a user should know before writing or training.
    """

    Options: type[Section]
    FACTS: Facts

    def write(self, root: str | Path, options: Any = ...) -> Path:
        """Writes the data set into the folder `root`, which must be empty or absent, and returns it."""


def names() -> tuple[str, ...]:
    """The names of the phantoms, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in modules if not name.startswith("_")))


def load(name: str) -> Phantom:
    """The module of one phantom; UserError for an unknown name."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose {', '.join(names())}."
        raise UserError(f"Unknown phantom {name!r}; {hint}")
    return cast(Phantom, importlib.import_module(f"{__name__}.{name}"))
