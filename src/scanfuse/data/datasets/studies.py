"""A user's own studies: a manifest.csv with one row per image, or with one row per study and a column per view.

Column names are found by their usual spellings (`_STUDY`, `_GROUP`, `_PATH`, `_VIEW`, `_TARGET`), so that tables such
as the metadata of covid-chestxray-dataset are read as they are. Usual names of views become roles: PA, AP and
"AP supine" are frontal, L and LL lateral; CC and MLO stay. Other names are roles of their own; without a view column
all are "view".
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from scanfuse.data.labels import join_findings
from scanfuse.data.manifest import COLUMNS, SPLITS, Manifest, read_csv
from scanfuse.data.readers import SUFFIXES
from scanfuse.data.splits import FRACTIONS, split_groups
from scanfuse.data.studies import Incomplete, Study, check_files, hold_out, manifest_of, role_of
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
KIND = "studies"
ROLES = ()
VALIDATION_SHARE = 0.15

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


def matches(root: Path, pair: tuple[str, ...] = ()) -> bool:
    """True if `root` is a .csv file or a folder that holds manifest.csv; never for registered pairs."""
    file = _file(root)
    return not pair and file.suffix.lower() == ".csv" and file.is_file()


def read(
    root: Path,
    *,
    incomplete: Incomplete = "keep",
    seed: int = 0,
    target: Sequence[str] = (),
    positive: Sequence[str] = (),
    study: str = "",
    group: str = "",
    path: str = "",
    view: str = "",
    validation_share: float = VALIDATION_SHARE,
    split: bool = True,
) -> Manifest:
    """One row per study, a column per view; further columns of the file stay where they agree within a study.

    A filled split column is kept, and val is cut from its train rows by group if it has none; without a split column
    train, val and test are made by group. Several target columns are findings (0, 1 or empty); one column holds
    classes. Rows whose target is empty are kept without a label.

    Args:
        root: the csv file, or the folder with manifest.csv.
        incomplete: "drop" leaves out studies with one view (or, with two roles, without one of each).
        seed: of the split.
        target: columns; found by name if empty.
        positive: classes that count as 1, all others as 0, such as ("COVID-19",); makes the target binary.
        study, group, path, view: column names, where they are not the usual ones.
        validation_share: share of the train studies that becomes val, where the file has train and test only.
        split: False makes no split; a filled column stays.

    Raises:
        UserError: a column or file is missing, a cell is empty, a study has two patients or two targets, a split is
            filled in part, or a patient is in two splits.
    """
    file = _file(root)
    notes, table = read_csv(file)
    if not len(table):
        raise UserError(f"{file} has no row; add one per image.")
    targets = _target_columns(file, table, target)
    group_column = _column(file, table, group, _GROUP, "the patient, by whom the split is made")
    path_column = path or _first(table, _PATH)
    if path_column:
        id_column = _column(file, table, study, _STUDY, "the study")
        _column(file, table, path_column, _PATH, "the image")
        studies = _rows_are_images(file, table, id_column, group_column, path_column, view, targets, positive)
    else:
        studies = _rows_are_studies(file, table, study, group_column, targets, positive)
    roles = _order([role for item in studies for role, _ in item.views])
    if incomplete == "drop":
        studies = [item for item in studies if _is_complete(item, roles)]
        if not studies:
            raise UserError(f"{file} has no study with two views; keep incomplete studies.")
    check_files(studies)
    studies, more = _split(file, studies, validation_share, seed, make=split)
    note = f"target: {', '.join(targets) or 'none'}" + (f"; 1 = {', '.join(positive)}" if positive else "")
    return manifest_of(studies, roles=roles, notes=[*notes, note, *more])


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


def _target_columns(file: Path, table: pd.DataFrame, target: Sequence[str]) -> tuple[str, ...]:
    for name in target:
        if name not in table:
            raise UserError(f"{file} has no target column {name!r}; it has {', '.join(map(str, table))}.")
    found = _first(table, _TARGET)
    return tuple(target) or ((found,) if found else ())


def _target(file: Path, records: pd.DataFrame, name: str, targets: Sequence[str], positive: Sequence[str]) -> str:
    cells = []
    for column in targets:
        values = sorted(set(records[column]) - {""})
        if len(values) > 1:
            raise UserError(f"{file} gives study {name!r} the {column} {values[0]!r} and {values[1]!r}; keep one.")
        cells.append(values[0] if values else "")
    if len(targets) > 1:
        plain = [re.sub(r"\.0+$", "", cell) for cell in cells]
        wrong = next((cell for cell in plain if cell not in ("", "0", "1")), None)
        if wrong is not None:
            raise UserError(
                f"{file} holds {wrong!r} as a finding of study {name!r}; several targets are 0, 1 or empty."
            )
        return join_findings(targets, plain)
    if not cells or not cells[0]:
        return ""
    return str(int(cells[0] in positive)) if positive else cells[0]


def _rows_are_images(
    file: Path,
    table: pd.DataFrame,
    id_column: str,
    group_column: str,
    path_column: str,
    view: str,
    targets: Sequence[str],
    positive: Sequence[str],
) -> list[Study]:
    view_column = _column(file, table, view, _VIEW, "the view") if view else _first(table, _VIEW)
    split_column = _first(table, ("split",))
    _check_positive(file, table, targets, positive)
    known = {id_column, group_column, path_column, view_column, split_column, *targets}
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
        target = _target(file, records, str(name), targets, positive)
        studies.append(Study(str(name), first[group_column], split, target, _sorted(views), further))
    return studies


def _rows_are_studies(
    file: Path,
    table: pd.DataFrame,
    study: str,
    group_column: str,
    targets: Sequence[str],
    positive: Sequence[str],
) -> list[Study]:
    id_column = _column(file, table, study, _STUDY, "the study")
    split_column = _first(table, ("split",))
    views = [str(name) for name in table if name not in (id_column, group_column) and _holds_paths(table[name])]
    if not views:
        raise UserError(
            f"{file} has no column of image paths (one named {', '.join(_PATH[:3])}, or cells that end with "
            f"{', '.join(SUFFIXES[:3])}); it has {', '.join(map(str, table))}."
        )
    _check_positive(file, table, targets, positive)
    known = {id_column, group_column, split_column, *targets, *views}
    studies = []
    for number, record in enumerate(table.to_dict("records")):
        found = [(role_of_view(role_of(name)), _locate(file, record[name])) for name in views if record[name]]
        if not found:
            raise UserError(
                f"{file} row {number + 2} ({record[id_column]}) has no image; fill a view or remove the row."
            )
        further = {str(name): record[name] for name in table if name not in known and str(name) not in COLUMNS}
        target = _target(file, table.iloc[[number]], record[id_column], targets, positive)
        split = record[split_column] if split_column else ""
        studies.append(Study(record[id_column], record[group_column], split, target, _sorted(found), further))
    return studies


def _check_positive(file: Path, table: pd.DataFrame, targets: Sequence[str], positive: Sequence[str]) -> None:
    if positive and len(targets) != 1:
        raise UserError(f"Positive classes need one target column; {file} has {', '.join(targets) or 'none'}.")
    for name in positive:
        if name not in set(table[targets[0]]):
            values = ", ".join(sorted(set(table[targets[0]]) - {""})[:8])
            raise UserError(f"{file} has no {targets[0]} {name!r}; it has {values}.")


def _holds_paths(column: pd.Series) -> bool:
    filled = [cell.lower() for cell in column if cell]
    return bool(filled) and all(cell.endswith(SUFFIXES) for cell in filled)


def _locate(file: Path, cell: str) -> Path:
    for folder in _FOLDERS:
        if (file.parent / folder / cell).is_file():
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
    file: Path, studies: list[Study], validation_share: float, seed: int, *, make: bool
) -> tuple[list[Study], tuple[str, ...]]:
    splits = [study.split.lower() for study in studies]
    splits = ["val" if split in ("valid", "validation") else split for split in splits]
    filled = sum(bool(split) for split in splits)
    strata = [study.target if study.target and "=" not in study.target else "" for study in studies]
    if filled == 0:
        if not make:
            return studies, ()
        by_group = split_groups([study.group for study in studies], strata, FRACTIONS, seed)
        return [_with_split(study, by_group[study.group]) for study in studies], ()
    if filled < len(studies):
        raise UserError(
            f"{file} has no split for {len(studies) - filled} of {len(studies)} studies; fill all or none."
        )
    wrong = sorted(set(splits) - set(SPLITS))
    if wrong:
        raise UserError(f"{file} has the split {wrong[0]!r}; use train, val or test.")
    studies = [_with_split(study, split) for study, split in zip(studies, splits, strict=True)]
    if "val" in splits or "train" not in splits or not make:
        return studies, ()
    studies = hold_out(studies, strata, fraction=validation_share, seed=seed)
    return studies, ("val was cut from the given train rows by group",)


def _with_split(study: Study, split: str) -> Study:
    return Study(study.id, study.group, split, study.target, study.views, study.further)
