"""A user's own studies: a manifest.csv with one row per image, or with one row per study and a column per view.

Column names are found by their usual spellings (`_STUDY`, `_GROUP`, `_PATH`, `_VIEW`, `_TARGET`), so that tables such
as the metadata of covid-chestxray-dataset are read as they are. Usual names of views become roles: PA, AP and
"AP supine" are frontal, L and LL lateral; CC and MLO stay. Other names are roles of their own; without a view column
all are "view".
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.labels import join_findings
from scanfuse.data.layouts import Request
from scanfuse.data.manifest import COLUMNS, SPLITS, Manifest, read_csv
from scanfuse.data.readers import SUFFIXES
from scanfuse.data.splits import FRACTIONS, split_groups
from scanfuse.data.studies import Study, check_files, hold_out, manifest_of, role_of, with_views
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/manifest.csv (or the csv file itself): one row per image with columns study, patient, path, [view], "
    "[target], [split]; or one row per study with columns id, patient and one path per view"
)
CITATION = "your own data"
LICENCE = "your own"
HOW_TO_GET = "write a manifest.csv; paths are relative to it, or to a folder images beside it"
EXPECTED: dict[str, tuple[int, int, int]] = {}
RANK = 4
KIND = "view_pairs"
PHANTOM = "studies"
ROLES = ()

_STUDY = ("study", "study_id", "studyid", "id", "accession", "accession_number", "exam", "exam_id")
_GROUP = ("group", "patient", "patient_id", "patientid", "subject", "subject_id", "subjectid")
_PATH = ("path", "file", "filename", "file_name", "image", "image_path", "filepath")
_VIEW = ("view", "view_position", "viewposition", "projection", "image view")
_TARGET = ("target", "label", "class", "finding", "diagnosis", "pathology")
_FOLDERS = ("", "images", "image", "files", "data")
_VIEW_NAMES = {
    "frontal": ("frontal", "front", "pa", "ap", "ap supine", "ap erect", "ap semi erect", "anteroposterior",
                "posteroanterior"),
    "lateral": ("lateral", "lat", "side", "l", "ll", "rl", "l lateral", "r lateral"),
    "cc": ("cc", "craniocaudal"),
    "mlo": ("mlo", "mediolateral oblique"),
}  # fmt: skip


class Options(Section):
    """What can be chosen."""

    target: tuple[str, ...] = Field((), description="columns with the targets, joined by +; found by name if empty")
    positive: tuple[str, ...] = Field((), description="classes that count as 1, all others as 0, joined by +")
    study: str = Field("", description="column of the study, where it has no usual name")
    group: str = Field("", description="column of the patient, where it has no usual name")
    path: str = Field("", description="column of the image's path, where it has no usual name")
    view: str = Field("", description="column of the view, where it has no usual name")
    validation_share: float = Field(
        0.15, ge=0, lt=1, description="share of the train studies that becomes val, where train and test are given"
    )


def matches(root: Path, request: Request) -> bool:
    """True if `root` is a .csv file or a folder that holds manifest.csv."""
    file = _file(root)
    return file.suffix.lower() == ".csv" and file.is_file()


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per study, a column per view; further columns of the file stay where they agree within a study.

    A filled split column is kept, and val is cut from its train rows by group if it has none; without a split column
    train, val and test are made by group. Several target columns are findings (0, 1 or empty); one column holds
    classes. Rows whose target is empty are kept without a label. A study with one view (or, with two roles, without
    one of each) is incomplete.

    Without a split targets are not needed: their columns may be missing, and a text that is none is left unknown. A
    filled split column stays.

    Raises:
        UserError: a column or file is missing, a cell is empty, a study has two patients or two targets, a split is
            filled in part, or a patient is in two splits.
    """
    request.refuse("studies", "modalities", "group_pattern")
    file = _file(root)
    notes, table = read_csv(file)
    if not len(table):
        raise UserError(f"{file} has no row; add one per image.")
    columns = _Targets.of(file, table, options, lenient=request.split == "none")
    group_column = _column(file, table, options.group, _GROUP, "the patient, by whom the split is made")
    path_column = options.path or _first(table, _PATH)
    if path_column:
        id_column = _column(file, table, options.study, _STUDY, "the study")
        _column(file, table, path_column, _PATH, "the image")
        studies = _rows_are_images(file, table, id_column, group_column, path_column, options.view, columns)
    else:
        studies = _rows_are_studies(file, table, options.study, group_column, columns)
    roles = _order([role for item in studies for role, _ in item.views])
    studies = with_views(file, studies, lambda item: _is_complete(item, roles), request.incomplete)
    if request.split != "none":
        check_files(studies)
    studies, more = _split(file, studies, options.validation_share, request)
    note = f"target: {', '.join(columns.names) or 'none'}"
    note += f"; 1 = {', '.join(columns.positive)}" if columns.positive else ""
    name = columns.positive[0] if len(columns.positive) == 1 else ""
    return manifest_of(studies, roles=roles, notes=[*notes, note, *more], positive=name)


def role_of_view(name: str) -> str:
    """The role of a view by its usual names: "PA" -> "frontal"; others lower-case with _ for blanks, "" -> "view"."""
    plain = re.sub(r"[\s_\-]+", " ", name.strip().lower())
    for role, names in _VIEW_NAMES.items():
        if plain in names:
            return role
    # A trailing _2 would read as "the second of that role".
    return re.sub(r"_(\d+)$", r"\1", plain.replace(" ", "_")) or "view"


def _file(root: Path) -> Path:
    return root / "manifest.csv" if root.is_dir() else root


def _first(table: pd.DataFrame, names: Sequence[str]) -> str:
    by_name = {str(name).lower(): str(name) for name in table}
    return next((by_name[name] for name in names if name in by_name), "")


def _column(file: Path, table: pd.DataFrame, given: str, usual: Sequence[str], meaning: str) -> str:
    name = given or _first(table, usual)
    if name not in table:
        asked = f"no column {given!r}" if given else f"no column for {meaning} (usual names: {', '.join(usual[:4])})"
        raise UserError(f"{file} has {asked}; it has {', '.join(map(str, table))}.")
    empty = table.index[table[name] == ""]
    if len(empty):
        raise UserError(f"{file} row {empty[0] + 2} has nothing in the column {name!r}; fill it.")
    return name


@dataclass(frozen=True)
class _Targets:
    """The columns that hold the targets, and how their cells are read.

    Attributes:
        names: of the columns.
        positive: classes that count as 1.
        lenient: a cell that is no target is unknown instead of an error: nothing is learned or scored.
    """

    names: tuple[str, ...]
    positive: tuple[str, ...]
    lenient: bool

    @classmethod
    def of(cls, file: Path, table: pd.DataFrame, options: Options, *, lenient: bool) -> "_Targets":
        for name in options.target:
            if name not in table and not lenient:
                raise UserError(f"{file} has no target column {name!r}; it has {', '.join(map(str, table))}.")
        usual = _first(table, _TARGET)
        names = options.target or ((usual,) if usual else ())
        positive = options.positive
        if lenient and not set(names) <= set(table):
            return cls((), (), lenient)
        if positive and not lenient:
            if len(names) != 1:
                raise UserError(f"Positive classes need one target column; {file} has {', '.join(names) or 'none'}.")
            values = set(table[names[0]])
            for name in positive:
                if name not in values:
                    some = ", ".join(sorted(values - {""})[:8])
                    raise UserError(f"{file} has no {names[0]} {name!r}; it has {some}.")
        return cls(tuple(names), tuple(positive), lenient)

    def read(self, file: Path, records: pd.DataFrame, study: str) -> str:
        """The target of one study from its rows."""
        cells = []
        for column in self.names:
            values = sorted(set(records[column]) - {""})
            if len(values) > 1 and not self.lenient:
                raise UserError(
                    f"{file} gives study {study!r} the {column} {values[0]!r} and {values[1]!r}; keep one."
                )
            cells.append(values[0] if len(values) == 1 else "")
        if len(self.names) > 1:
            plain = [re.sub(r"\.0+$", "", cell) for cell in cells]
            wrong = next((cell for cell in plain if cell not in ("", "0", "1")), None)
            if wrong is not None and not self.lenient:
                raise UserError(
                    f"{file} holds {wrong!r} as a finding of study {study!r}; several targets are 0, 1 or empty."
                )
            return join_findings(self.names, [cell if cell in ("0", "1") else "" for cell in plain])
        if not cells or not cells[0]:
            return ""
        return str(int(cells[0] in self.positive)) if self.positive else cells[0]


def _rows_are_images(
    file: Path,
    table: pd.DataFrame,
    id_column: str,
    group_column: str,
    path_column: str,
    view: str,
    targets: _Targets,
) -> list[Study]:
    view_column = _column(file, table, view, _VIEW, "the view") if view else _first(table, _VIEW)
    split_column = _first(table, ("split",))
    known = {id_column, group_column, path_column, view_column, split_column, *targets.names}
    studies = []
    for name, records in table.groupby(id_column, sort=False):
        for column, meaning in ((group_column, "patients"), (split_column, "splits")):
            if column and records[column].nunique() > 1:
                values = " and ".join(records[column].unique()[:2])
                raise UserError(f"{file} puts study {name!r} into the {meaning} {values}; a study has one.")
        roles = [role_of_view(cell) for cell in records[view_column]] if view_column else ["view"] * len(records)
        views = [(role, _locate(file, cell)) for role, cell in zip(roles, records[path_column], strict=True)]
        first = records.iloc[0]
        further = {
            column: str(first[column])
            for column in map(str, table)
            if column not in known and column not in COLUMNS and records[column].nunique() == 1
        }
        further = {column: value for column, value in further.items() if role_of(column) not in roles}
        split = first[split_column] if split_column else ""
        target = targets.read(file, records, str(name))
        studies.append(Study(str(name), first[group_column], split, target, _sorted(views), further))
    return studies


def _rows_are_studies(
    file: Path,
    table: pd.DataFrame,
    study: str,
    group_column: str,
    targets: _Targets,
) -> list[Study]:
    id_column = _column(file, table, study, _STUDY, "the study")
    split_column = _first(table, ("split",))
    views = [str(name) for name in table if name not in (id_column, group_column) and _holds_paths(table[name])]
    if not views:
        raise UserError(
            f"{file} has no column of image paths (one named {', '.join(_PATH[:3])}, or cells that end with "
            f"{', '.join(SUFFIXES[:3])}); it has {', '.join(map(str, table))}."
        )
    known = {id_column, group_column, split_column, *targets.names, *views}
    studies = []
    for number, record in enumerate(table.to_dict("records")):
        found = [(role_of_view(role_of(name)), _locate(file, record[name])) for name in views if record[name]]
        if not found:
            raise UserError(
                f"{file} row {number + 2} ({record[id_column]}) has no image; fill a view or remove the row."
            )
        further = {str(name): record[name] for name in table if name not in known and str(name) not in COLUMNS}
        target = targets.read(file, table.iloc[[number]], record[id_column])
        split = record[split_column] if split_column else ""
        studies.append(Study(record[id_column], record[group_column], split, target, _sorted(found), further))
    return studies


def _holds_paths(column: pd.Series) -> bool:
    filled = [cell.lower() for cell in column if cell]
    return bool(filled) and all(cell.endswith(SUFFIXES) for cell in filled)


def _locate(file: Path, cell: str) -> Path:
    for folder in _FOLDERS:
        if os.path.isfile(file.parent / folder / cell):
            return file.parent / folder / cell
    return file.parent / cell


def _sorted(views: Sequence[tuple[str, Path]]) -> tuple[tuple[str, Path], ...]:
    """By role; images of one role keep the order of the file."""
    order = _order([role for role, _ in views])
    return tuple(sorted(views, key=lambda item: order.index(item[0])))


def _order(roles: Sequence[str]) -> list[str]:
    usual = list(_VIEW_NAMES)
    found = list(dict.fromkeys(roles))
    return sorted(found, key=lambda role: usual.index(role) if role in usual else len(usual))


def _is_complete(study: Study, roles: Sequence[str]) -> bool:
    if len(roles) == 2:
        return len({role for role, _ in study.views}) == 2
    return len(study.views) > 1


def _split(
    file: Path, studies: list[Study], validation_share: float, request: Request
) -> tuple[list[Study], tuple[str, ...]]:
    splits = [study.split.lower() for study in studies]
    splits = ["val" if split in ("valid", "validation") else split for split in splits]
    filled = sum(bool(split) for split in splits)
    strata = [study.target if study.target and "=" not in study.target else "" for study in studies]
    if filled == 0:
        if request.split == "none":
            return studies, ()
        shares = request.fractions or FRACTIONS
        by_group = split_groups([study.group for study in studies], strata, shares, request.seed)
        return [_with_split(study, by_group[study.group]) for study in studies], ()
    if filled < len(studies):
        raise UserError(
            f"{file} has no split for {len(studies) - filled} of {len(studies)} studies; fill all or none."
        )
    wrong = sorted(set(splits) - set(SPLITS))
    if wrong:
        raise UserError(f"{file} has the split {wrong[0]!r}; use train, val or test.")
    studies = [_with_split(study, split) for study, split in zip(studies, splits, strict=True)]
    if "val" in splits or "train" not in splits or request.split == "none":
        return studies, ()
    studies = hold_out(studies, strata, fraction=validation_share, seed=request.seed)
    return studies, ("val was cut from the given train rows by group",)


def _with_split(study: Study, split: str) -> Study:
    return Study(study.id, study.group, split, study.target, study.views, study.further)
