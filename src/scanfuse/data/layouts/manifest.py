"""A user's own manifest.csv: id, group, optional split and target, one path column per modality."""

import difflib
import os
from pathlib import Path

import pandas as pd

from scanfuse.config import Section
from scanfuse.data.layouts import Request
from scanfuse.data.layouts.paired import group_of
from scanfuse.data.manifest import Manifest, check_groups, read_csv
from scanfuse.data.splits import FRACTIONS, assign, cut_validation
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/manifest.csv (or the csv file itself) with columns id, group, [split], [target], one path per modality"
)
CITATION = "your own data"
LICENCE = "your own"
HOW_TO_GET = "write a manifest.csv; paths are relative to it; leave a path empty where a modality is missing"
EXPECTED: dict[str, tuple[int, int]] = {}
RANK = 3
KIND = "image_pairs"
PHANTOM = "manifest"


class Options(Section):
    """Nothing can be chosen beyond what a request says."""


def matches(root: Path, request: Request) -> bool:
    """True if `root` is a .csv file or a folder that holds manifest.csv."""
    return file_of(root).is_file() and file_of(root).suffix.lower() == ".csv"


def read(root: Path, request: Request, options: Options) -> Manifest:
    """Reads the file. A filled split column is kept; without val, one is cut from train by group.

    split="published" also accepts a split column with groups in two splits and labels it leaky; split="none" empties
    it. `group_pattern` makes the groups from the ids instead of the group column.

    Raises:
        UserError: a column is missing (the nearest name is offered), a split column filled in part, a group
            in two splits, a file that does not exist, an empty path (incomplete="error"), or too few groups.
    """
    pair, group_pattern = request.modalities, request.group_pattern
    file = file_of(root)
    notes, table = read_csv(file)
    table = table.rename(columns=lambda name: name.lower() if name.lower() in (*_KNOWN, *pair) else name)
    required = ["id", *pair] if group_pattern is not None else ["id", "group", *pair]
    _require(file, table, required)
    for name in ("split", "target"):
        if name not in table:
            table[name] = ""
    if group_pattern is not None:
        table["group"] = [group_of(name, group_pattern) for name in table["id"]]
    if request.incomplete == "drop":
        table = table[(table[list(pair)] != "").all(axis=1)].reset_index(drop=True)
    _check_cells(file, table, pair, may_lack=request.incomplete == "keep")
    for name in pair:
        table[name] = [os.path.normpath(file.parent / path) if path else "" for path in table[name]]
    further = [name for name in table if name not in (*_KNOWN, *pair)]
    table = table[[*_KNOWN, *pair, *further]]
    if request.split == "none":
        return Manifest(table.assign(split=""), pair, notes)
    if not (table["split"] != "").any():
        if request.split == "published":
            raise UserError(f"{file} has no split column; add one or use the split by case.")
        return assign(Manifest(table, pair, notes), request.fractions or FRACTIONS, request.seed)
    return _given_split(file, table, notes, request)


_KNOWN = ("id", "group", "split", "target")


def _given_split(file: Path, table: pd.DataFrame, notes: tuple[str, ...], request: Request) -> Manifest:
    empty = int((table["split"] == "").sum())
    if empty:
        raise UserError(f"{file} has no split in {empty} of {len(table)} rows; fill all of them or none.")
    table = table.assign(split=table["split"].str.lower().replace({"valid": "val", "validation": "val"}))
    leaky = False
    try:
        check_groups(table)
    except UserError:
        if request.split != "published":
            raise
        leaky = True
    notes = tuple(note for note in notes if not note.startswith("leaky"))
    if "val" not in set(table["split"]) and "train" in set(table["split"]):
        table = cut_validation(table, seed=request.seed)
        notes = (*notes, "val was cut from the given train rows by group")
    if leaky:
        shared = table.groupby("group")["split"].nunique().gt(1).sum()
        notes = (f"leaky: {shared} of {table['group'].nunique()} groups are in more than one given split", *notes)
    return Manifest(table, request.modalities, notes)


def _require(file: Path, table: pd.DataFrame, names: list[str]) -> None:
    for name in names:
        if name in table:
            continue
        others = [str(column).lower() for column in table if column not in (*_KNOWN, *names)]
        near = difflib.get_close_matches(name, others, n=1, cutoff=0.6)
        actual = next((column for column in table if near and str(column).lower() == near[0]), None)
        hint = f"; rename {actual!r} to {name!r}?" if actual is not None else ""
        raise UserError(f"{file} has no column {name!r} (it has {', '.join(map(str, table))}){hint or '; add it.'}")


def _check_cells(file: Path, table: pd.DataFrame, pair: tuple[str, ...], *, may_lack: bool) -> None:
    for name in ("id", "group"):
        empty = table.index[table[name] == ""]
        if len(empty):
            raise UserError(f"{file} has no {name} in row {empty[0] + 1}; fill it.")
    if may_lack:
        return
    for name in pair:
        for row, path in zip(table["id"], table[name], strict=True):
            if not path:
                raise UserError(f"{file} has no {name} path for id {row!r}; fill it or remove the row.")
            if not os.path.isfile(file.parent / path):
                raise UserError(
                    f"{file} names {path} for id {row!r}, which does not exist; paths start at the csv file."
                )


def file_of(root: Path) -> Path:
    """The table: the file itself, or the manifest.csv of a folder."""
    return root / "manifest.csv" if root.is_dir() else root


def has_columns(root: Path, columns: tuple[str, ...]) -> bool:
    """True if the table is there and its header has these columns, in whatever case."""
    file = file_of(root)
    if not file.is_file() or file.suffix.lower() != ".csv":
        return False
    try:
        _, table = read_csv(file)
    except UserError:
        return False
    return set(columns) <= {str(name).lower() for name in table}


def has_split(file: Path) -> bool:
    """True if a row says which split it is in."""
    _, table = read_csv(file)
    return any(name.lower() == "split" and (table[name] != "").any() for name in map(str, table))
