"""Adapters from published folder layouts to a manifest; the file names of this folder are the layouts.

An adapter module has LAYOUT (the folders it expects), CITATION, LICENCE, HOW_TO_GET, EXPECTED (counts), RANK
(which one wins where several match), `matches(root, pair) -> bool` and `read(root, pair, ...) -> Manifest`.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Literal

from scanfuse.data import phantoms
from scanfuse.data.manifest import Manifest
from scanfuse.data.splits import FRACTIONS
from scanfuse.errors import UserError

__all__ = ["adapter", "layouts", "open_manifest"]


def layouts() -> tuple[str, ...]:
    """The names of the layouts, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def adapter(layout: str) -> ModuleType:
    """The adapter module of one layout; UserError for an unknown name."""
    if layout not in layouts():
        raise UserError(f"Unknown layout {layout!r}; choose auto, {', '.join(layouts())}.")
    return importlib.import_module(f"{__name__}.{layout}")


def open_manifest(
    root: str | Path,
    pair: Sequence[str],
    split: Literal["case", "published", "none"] = "case",
    seed: int = 0,
    layout: str = "auto",
    *,
    fractions: Mapping[str, float] = FRACTIONS,
    group_pattern: str | None = None,
    missing: Literal["error", "allow"] = "error",
) -> Manifest:
    """Finds the layout of `root` and reads it.

    Args:
        root: a folder, or a manifest.csv.
        pair: the modalities, in any case and order, such as ("CT", "MRI"); the manifest keeps the order, lower-case.
        split: "case": by group, made here (a split column of a user's manifest.csv is kept); "published":
            what the data set comes with, labelled leaky where groups are in two splits; "none": the split
            column stays empty.
        seed: of the split.
        layout: a file name of this folder, or "auto".
        fractions: shares of the rows for split="case".
        group_pattern: regular expression; its first bracket (or the whole match) in the id is the group.
        missing: "allow" keeps samples that lack a modality (its path is ""), "error" names them.

    Raises:
        UserError: no such folder, no layout fits, or what the adapter finds wrong.
    """
    root = Path(root)
    names = tuple(name.strip().lower() for name in pair)
    if len(names) < 2 or len(set(names)) != len(names) or not all(names):
        raise UserError(f"Name at least two different modalities, such as CT,MRI; got {', '.join(pair) or 'none'}.")
    if not root.exists():
        raise UserError(
            f"{root} does not exist; give the folder of the data set or make one with scanfuse data synth."
        )
    if layout == "auto":
        found = [name for name in layouts() if adapter(name).matches(root, names)]
        if not found:
            raise UserError(_no_layout(root, names))
        layout = max(found, key=lambda name: adapter(name).RANK)
    elif not adapter(layout).matches(root, names):
        raise UserError(f"{root} is not in the layout {layout!r}: expected {adapter(layout).LAYOUT}.")
    manifest: Manifest = adapter(layout).read(
        root.absolute(),
        names,
        split=split,
        seed=seed,
        fractions=fractions,
        group_pattern=group_pattern,
        missing=missing,
    )
    return replace(manifest, notes=(*manifest.notes, *phantoms.said_of(root)))


def _no_layout(root: Path, pair: tuple[str, ...]) -> str:
    inside = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir()) if root.is_dir() else []
    listing = ", ".join(inside[:6]) + (", ..." if len(inside) > 6 else "") if inside else "nothing"
    upper = [name.upper() for name in pair]
    return (
        f"No data set of {' and '.join(upper)} in {root} (it holds {listing}); expected a manifest.csv or "
        f"the folders {'/ and '.join(upper)}/."
    )
