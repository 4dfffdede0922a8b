"""Any registered pictures: one folder per modality, equal names (suffixes may differ)."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from scanfuse.config import Section
from scanfuse.data.layouts import Incomplete, Request
from scanfuse.data.manifest import Manifest
from scanfuse.data.readers import SUFFIXES, stem
from scanfuse.data.splits import FRACTIONS, assign
from scanfuse.errors import UserError

LAYOUT = "<root>/<modality>/<name>.<suffix>, one folder per modality, equal names, any readable format"
CITATION = "your own data"
LICENCE = "your own"
HOW_TO_GET = "put the registered pictures into one folder per modality under equal names"
EXPECTED: dict[str, tuple[int, int]] = {}
RANK = 1
KIND = "image_pairs"
PHANTOM = "paired"


class Options(Section):
    """Nothing can be chosen beyond what a request says."""


def matches(root: Path, request: Request) -> bool:
    """True if `root` has a folder for each modality (in any case)."""
    found = modality_folders(root, request.modalities)
    return bool(found) and len(found) == len(request.modalities)


def read(root: Path, request: Request, options: Options) -> Manifest:
    r"""One row per name; the group is the name itself, or what `group_pattern` finds in it.

    Slices of one patient must share a group: names such as p07_slice12 want group_pattern=r"^(p\d+)_".

    Raises:
        UserError: unpaired or doubled names, a pattern that does not fit, too few groups, or split="published".
    """
    if request.split == "published":
        raise UserError(f"{root} is a plain pair of folders without a published split; use the split by case.")
    pair, pattern = request.modalities, request.group_pattern
    table = table_of(index_folders(modality_folders(root, pair), request.incomplete), pair)
    if pattern is not None:
        table["group"] = [group_of(name, pattern) for name in table["id"]]
    notes = () if pattern else ("every picture is its own group: give a group pattern if some share a patient",)
    manifest = Manifest(table, pair, notes)
    return assign(manifest, request.fractions or FRACTIONS, request.seed) if request.split == "made" else manifest


def index_folders(
    folders: Mapping[str, Path], incomplete: Incomplete, *, suffixes: tuple[str, ...] = SUFFIXES
) -> dict[str, dict[str, Path]]:
    """Name -> modality -> file, sorted by name, over folders that should hold the same names.

    Raises:
        UserError: a folder without pictures, two files of one name, or (incomplete="error") a name that not all have.
    """
    found: dict[str, dict[str, Path]] = {}
    for modality, folder in folders.items():
        files = [path for path in sorted(folder.iterdir()) if _is_picture(path, suffixes)]
        if not files:
            raise UserError(f"{folder} holds no picture; ScanFuse reads {', '.join(suffixes)}.")
        for path in files:
            entry = found.setdefault(stem(path), {})
            if modality in entry:
                raise UserError(f"{folder} holds {entry[modality].name} and {path.name}; keep one of them.")
            entry[modality] = path
    unpaired = [name for name in sorted(found) if len(found[name]) < len(folders)]
    if unpaired and incomplete == "error":
        shown = []
        for name in unpaired[:3]:
            lacking = [modality.upper() for modality in folders if modality not in found[name]]
            shown.append(f"{name} (no {', '.join(lacking)})")
        places = " and ".join(str(folder) for folder in folders.values())
        raise UserError(
            f"{len(unpaired)} of {len(found)} names in {places} are unpaired: {', '.join(shown)}"
            f"{', ...' if len(unpaired) > 3 else ''}; add the missing files or remove these."
        )
    kept = set(found) - set(unpaired) if incomplete == "drop" else set(found)
    return {name: found[name] for name in sorted(kept)}


def table_of(index: Mapping[str, Mapping[str, Path]], pair: tuple[str, ...]) -> pd.DataFrame:
    """The manifest's table of an index: group = id, no split, no target, "" for a missing file."""
    columns: dict[str, list[str]] = {"id": list(index), "group": list(index)}
    columns |= {"split": [""] * len(index), "target": [""] * len(index)}
    columns |= {name: [str(files.get(name, "")) for files in index.values()] for name in pair}
    return pd.DataFrame(columns, dtype=str)


def group_of(name: str, pattern: str) -> str:
    """The first bracket of `pattern` (the whole match if it has none) in `name`; UserError if it does not fit."""
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise UserError(f"The group pattern {pattern!r} is not a regular expression: {error}.") from error
    if match is None:
        raise UserError(
            f"The name {name!r} does not fit the group pattern {pattern!r}; rename it or change the pattern."
        )
    return match.group(1) if match.re.groups else match.group(0)


def modality_folders(root: Path, pair: tuple[str, ...]) -> dict[str, Path]:
    """Modality -> its folder in `root`, in any case; only those that are there."""
    if not root.is_dir():
        return {}
    below = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    return {name: below[name] for name in pair if name in below}


def _is_picture(path: Path, suffixes: tuple[str, ...]) -> bool:
    name = path.name.lower()
    return path.is_file() and not name.startswith(".") and name.endswith(suffixes)
