"""Harvard Whole Brain Atlas pairs as redistributed for image fusion: one folder per modality, equal names.

A file is <case><slice>.png, the slice in three digits: 16003.png is slice 3 of case 16. The published train
and test folders were drawn slice by slice, so neighbouring slices of one case are in both; the default split
is by case.
"""

from pathlib import Path

import pandas as pd

from scanfuse.config import Section
from scanfuse.data.layouts import Request, paired
from scanfuse.data.layouts.paired import group_of, index_folders, table_of
from scanfuse.data.manifest import Manifest
from scanfuse.data.readers import stem
from scanfuse.data.splits import FRACTIONS, assign, cut_validation
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/CT-MRI/{train,test}/{CT,MRI}/*.png, also without the pair folder or without train and test; "
    "likewise SPECT-MRI, PET-MRI"
)
CITATION = (
    "K. A. Johnson, J. A. Becker: The Whole Brain Atlas, Harvard Medical School, https://www.med.harvard.edu/aanlib/"
)
LICENCE = "not stated by the redistribution; the atlas asks for non-commercial use with attribution: check before use"
HOW_TO_GET = "https://github.com/xianming-gu/Havard-Medical-Image-Fusion-Datasets (MyDatasets or the pair folders)"
EXPECTED = {"CT-MRI": (184, 10), "PET-MRI": (269, 3), "SPECT-MRI": (357, 15)}
"""Pair -> (slices, cases) of the full redistribution."""
RANK = 2
KIND = "image_pairs"
PHANTOM = "harvard"

PUBLISHED = ("train", "test")
_CASE = r"^(.+)\d{3}$"


class Options(Section):
    """Nothing can be chosen beyond what a request says."""


def matches(root: Path, request: Request) -> bool:
    """True if `root` has one folder per modality in one of the places of LAYOUT.

    Folders that could as well be plain pairs (directly in `root`) must hold mostly names of case and slice.
    """
    places = _places(root, request.modalities)
    if not places or not paired.matches(root, request):
        return bool(places)
    names = [stem(path) for path in sorted(_folders(root)[request.modalities[0]].iterdir()) if path.is_file()]
    return 2 * sum(name.isdecimal() and len(name) > 3 for name in names) >= len(names)


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per slice; the further column "published" says which folder it came from ("" if there is only one).

    split="made" pools the folders and splits by case. split="published" keeps test as test and cuts val out of
    train by case; where a case is in two splits (as in the original), a note begins with "leaky".

    Raises:
        UserError: unpaired files, a name without case and slice, too few cases, or no train and test folders.
    """
    pair = request.modalities
    tables = []
    for published, folders in _places(root, pair).items():
        if not folders:
            raise UserError(
                f"{root} has a {published} folder without {' and '.join(name.upper() for name in pair)}; add them."
            )
        table = table_of(index_folders(folders, request.incomplete), pair)
        table["group"] = [group_of(name, request.group_pattern or _CASE) for name in table["id"]]
        tables.append(table.assign(published=published))
    table = pd.concat(tables, ignore_index=True)
    twice = table["id"][table["id"].duplicated()]
    if len(twice):
        raise UserError(f"{root} holds {twice.iloc[0]} in train and in test; remove one of them.")
    order = sorted(range(len(table)), key=lambda row: _number(table["id"].iloc[row]))
    table = table.iloc[order].reset_index(drop=True)
    if request.split == "published":
        return _published(root, table, pair, request.seed)
    manifest = Manifest(table, pair)
    return assign(manifest, request.fractions or FRACTIONS, request.seed) if request.split == "made" else manifest


def _published(root: Path, table: pd.DataFrame, pair: tuple[str, ...], seed: int) -> Manifest:
    if set(table["published"]) != {"train", "test"}:
        raise UserError(f"{root} has no train and test folders, so no published split; use the split by case.")
    table = cut_validation(table.assign(split=table["published"]), seed=seed)
    shared = table.groupby("group")["split"].nunique().gt(1).sum()
    notes: tuple[str, ...] = ()
    if shared:
        notes = (f"leaky: {shared} of {table['group'].nunique()} cases are in more than one published split",)
    return Manifest(table, pair, notes)


def _places(root: Path, pair: tuple[str, ...]) -> dict[str, dict[str, Path]]:
    """Published split ("train", "test", or "" for none) -> modality -> folder; empty if nothing fits."""
    inside = _folders(root)
    names = {"-".join(pair), "-".join(reversed(pair))}
    for start in [inside[name] for name in sorted(names) if name in inside] + [root]:
        below = _folders(start)
        parts = {part: _modalities(below[part], pair) for part in PUBLISHED if part in below}
        if any(parts.values()):
            return parts
        if folders := _modalities(start, pair):
            return {"": folders}
    return {}


def _modalities(folder: Path, pair: tuple[str, ...]) -> dict[str, Path]:
    below = _folders(folder)
    return {name: below[name] for name in pair} if pair and all(name in below for name in pair) else {}


def _folders(folder: Path) -> dict[str, Path]:
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()} if folder.is_dir() else {}


def _number(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
