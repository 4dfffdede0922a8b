"""Chest CT and a clinical table of each patient, as the COPD network's data folder: slices, clinical.csv, splits."""

import re
from pathlib import Path

import pandas as pd
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.cases import manifest_of_cases, rows_of, table_with
from scanfuse.data.layouts import Request
from scanfuse.data.manifest import SPLITS, Manifest
from scanfuse.data.series import STACKS
from scanfuse.errors import UserError
from scanfuse.foreign import read_text, shown

LAYOUT = (
    "<root>/clinical.csv with patient_id, label and clinical values, the slices of each patient as "
    "<root>/ct/<patient_id>/ (PNG, NPY or DICOM) or <root>/ct/<patient_id>.npz, and optional "
    "<root>/splits/train.txt, val.txt and test.txt with a patient_id in each line"
)
CITATION = "the data behind the published network are not public; its description names these folders"
LICENCE = "your own"
HOW_TO_GET = "your own scans: scanfuse data prepare copd RAW DIR turns DICOM series or NIfTI volumes into ct/"
EXPECTED: dict[str, tuple[int, ...]] = {}
RANK = 8
KIND = "series_table"
PHANTOM = "copd"
FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
_COLUMNS = ("patient_id", "label")


class Options(Section):
    """What can be chosen."""

    positive: str = Field(
        "", description="the label that is 1, all others being 0; none: 0 and 1, or several classes"
    )


def matches(root: Path, request: Request) -> bool:
    """True if the folder's clinical.csv has the columns patient_id and label."""
    return _table(root) is not None


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per line of the table, grouped by patient. A column scan_id tells repeated scans of a patient apart.

    Without split files the patients are split 7:1:2. Files that name a part of the patients leave the others out.

    Raises:
        UserError: patients without slices, twice the same, or split files that do not fit.
    """
    request.refuse("copd", "modalities", "group_pattern")
    file = _table(root)
    if file is None:
        raise UserError(f"{root} is not in the layout 'copd': expected {LAYOUT}.")
    table = rows_of(file)
    ids = table["scan_id"] if "scan_id" in table else table["patient_id"]
    features = [name for name in table if name not in ("patient_id", "scan_id", "label")]
    cases = table[features].assign(id=ids, group=table["patient_id"], target=_targets(file, table, options.positive))
    home = file.parent
    notes, given = [], None
    if request.split != "none":
        given, kept = _given(home / "splits", cases)
        if given is not None:
            notes.append("split as the files in splits/ say")
            if not kept.all():
                notes.append(
                    f"{int((~kept).sum())} of {len(cases)} patients are in no file of splits/ and were left out"
                )
                cases = cases[kept].reset_index(drop=True)
    return manifest_of_cases(
        file,
        cases,
        _series_in(home / "ct"),
        request,
        notes=notes,
        column="ct",
        fractions=FRACTIONS,
        given=given,
    )


def _table(root: Path) -> Path | None:
    if root.is_dir():
        root = root / "clinical.csv"
    return table_with(root, _COLUMNS) if root.name == "clinical.csv" and root.is_file() else None


def _targets(file: Path, table: pd.DataFrame, positive: str) -> list[str]:
    labels = list(table["label"])
    if not positive:
        return labels
    if positive not in labels:
        there = ", ".join(sorted(set(labels) - {""}))
        raise UserError(f"{shown(file)} has no label {positive!r} (it has {there or 'none'}); correct positive=.")
    return ["" if label == "" else str(int(label == positive)) for label in labels]


def _series_in(folder: Path) -> dict[str, Path]:
    """Name -> folder or file with the slices."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        suffix = next((each for each in reversed(STACKS) if path.name.lower().endswith(each)), "")
        if path.is_dir() or suffix:
            name = path.name if path.is_dir() else path.name[: len(path.name) - len(suffix)]
            if name in found:
                raise UserError(f"{shown(folder)} holds {found[name].name} and {path.name}; keep one of them.")
            found[name] = path
    return found


def _given(folder: Path, cases: pd.DataFrame) -> tuple[dict[str, str] | None, pd.Series]:
    """Patient -> split by the files of a folder, and which rows they name; None without such files."""
    files = {split: folder / f"{split}.txt" for split in SPLITS if (folder / f"{split}.txt").is_file()}
    if not files:
        if folder.is_dir() and any(folder.glob("fold*_*.txt")):
            raise UserError(f"{shown(folder)} holds folds without test.txt, train.txt, val.txt; use --folds instead.")
        return None, pd.Series(True, index=cases.index)
    missing = [split for split in SPLITS if split not in files]
    if missing:
        raise UserError(f"{shown(folder)} lacks {missing[0]}.txt; give all three, or none to have them made.")
    found: dict[str, str] = {}
    known = set(cases["group"])
    for split, file in files.items():
        for line in read_text(file, "list of patients", largest=100_000_000).splitlines():
            name = re.sub(r"\s*#.*", "", line).strip()
            if not name:
                continue
            if name not in known:
                raise UserError(f"{shown(file)} names {name!r}, who is not in clinical.csv; correct it.")
            if found.setdefault(name, split) != split:
                raise UserError(f"{shown(file)} names {name!r}, who is in {found[name]}.txt too; keep one.")
    return found, cases["group"].isin(list(found))
