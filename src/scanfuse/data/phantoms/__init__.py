"""Made-up data sets in published layouts; the file names of this folder are the phantoms.

A phantom module has `write(root, ...) -> root` and needs no download.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from scanfuse.errors import UserError

__all__ = ["load", "names", "said_of"]


def names() -> tuple[str, ...]:
    """The names of the phantoms, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in modules if not name.startswith("_")))


def load(name: str) -> ModuleType:
    """The module of one phantom; UserError for an unknown name."""
    if name not in names():
        raise UserError(f"Unknown phantom {name!r}; choose {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name}")


def said_of(root: Path) -> tuple[str, ...]:
    """The note that every result on phantoms carries, from the ABOUT.txt in, above or just below `root`."""
    below = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    for folder in (root, root.parent, *below):
        about = folder / "ABOUT.txt"
        if about.is_file() and about.read_bytes().startswith(b"Made-up "):
            return ("phantoms: made-up pictures of nobody",)
    return ()
