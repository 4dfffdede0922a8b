"""A case is one row of a clinical table and at most one picture, or series of slices; layouts of such data make their
manifests with this.

The picture's column is "image", or what a layout calls it; every further column of the table stays as it is, for an
input kind to choose its features from. A case whose picture is not there has an empty path.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scanfuse.data.layouts import Request
from scanfuse.data.manifest import Manifest, read_csv
from scanfuse.data.splits import FRACTIONS, split_groups
from scanfuse.errors import UserError

__all__ = ["IMAGE", "diagnosed", "manifest_of_cases", "pictures_in", "rows_of", "table_with"]

IMAGE = "image"


def table_with(root: Path, columns: Sequence[str]) -> Path | None:
    """The csv file of a folder (or the file itself) whose header has these columns; the first by name."""
    files = [root] if root.is_file() else sorted(root.glob("*.csv")) if root.is_dir() else []
    for file in files:
        if file.suffix.lower() != ".csv" or file.name.startswith("."):
            continue
        try:
            with file.open(encoding="utf-8-sig") as lines:
                header = [name.strip().strip('"') for name in next(lines, "").split(",")]
        except (OSError, UnicodeDecodeError):
            continue
        if set(columns) <= set(header):
            return file
    return None


def rows_of(file: Path) -> pd.DataFrame:
    """The table of a csv file; UserError if it has no row."""
    _, table = read_csv(file)
    if not len(table):
        raise UserError(f"{file} has no row.")
    return table


def diagnosed(
    root: Path, layout: str, expected: str, columns: Sequence[str], diagnoses: tuple[str, Sequence[str]], name: str
) -> tuple[Path, pd.DataFrame]:
    """The file of a data set's table and its rows, each with one of the known diagnoses.

    Args:
        root: folder or file.
        layout, expected: what the table is looked for as, for messages.
        columns: by which it is known.
        diagnoses: the column of the diagnosis, and what may stand there.
        name: of the data set.

    Raises:
        UserError: there is no such table, or an unknown diagnosis.
    """
    file = table_with(root, columns)
    if file is None:
        raise UserError(f"{root} is not in the layout {layout!r}: expected {expected}.")
    table = rows_of(file)
    column, known = diagnoses
    other = sorted(set(table[column]) - set(known))
    if other:
        raise UserError(f"{file} has the diagnosis {other[0]!r}; {name} has {', '.join(known)}.")
    return file, table


def pictures_in(folders: Sequence[Path], suffixes: Sequence[str] = (".jpg", ".jpeg", ".png")) -> dict[str, Path]:
    """Name of a picture without its suffix -> its path, over the folders that exist."""
    found: dict[str, Path] = {}
    for folder in (folder for folder in folders if folder.is_dir()):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in suffixes and not path.name.startswith("."):
                found.setdefault(path.stem, path)
    return found


def manifest_of_cases(
    source: Path,
    table: pd.DataFrame,
    pictures: Mapping[str, Path] | Sequence[str],
    request: Request,
    *,
    notes: Sequence[str] = (),
    subgroups: Sequence[str] = (),
    column: str = IMAGE,
    fractions: Mapping[str, float] = FRACTIONS,
    given: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest of a table with the columns id, group, target, and the features.

    The splits of "made" are by group, alike in the highest target of the groups: where few have a positive one, these
    are spread evenly.

    Args:
        source: where the table comes from, for messages.
        table: text, one row a case.
        pictures: id -> file; or one path a row, "" where there is none.
        request: `split` and `incomplete` count: cases without a picture are an error, kept, or left out.
        notes, subgroups: see `Manifest`.
        column: what the picture is called.
        fractions: shares of the splits that are made, unless the request names others.
        given: group -> split, of a data set that comes with its splits; none are made then.

    Raises:
        UserError: missing pictures that are an error, no case that stays, or too few groups.
    """
    if isinstance(pictures, Mapping):
        pictures = [str(pictures.get(name, "")) for name in table["id"].tolist()]
    table = table.assign(**{column: list(pictures), "split": ""})
    lacking = table[column] == ""
    notes = list(notes)
    what = "picture" if column == IMAGE else column.upper()
    if lacking.any():
        text = f"{int(lacking.sum())} of {len(table)} cases have no {what}, such as {table['id'][lacking].iloc[0]}"
        if request.incomplete == "error":
            raise UserError(
                f"{source}: {text}; complete the download, or keep them (with their table alone) or drop them with "
                "--incomplete keep or drop."
            )
        notes.append(f"{text}; they {'have their table alone' if request.incomplete == 'keep' else 'were left out'}")
    if request.incomplete == "drop":
        table = table[~lacking].reset_index(drop=True)
        if not len(table):
            raise UserError(f"{source}: no case has a {what}; keep them with --incomplete keep.")
    if request.split != "none":
        if not (table["target"] != "").any():
            raise UserError(f"{source} has no targets: it can be predicted, but not trained on or split.")
        if given is None:
            highest = table.groupby("group")["target"].max()
            strata = highest.loc[table["group"]].tolist()
            given = split_groups(table["group"], strata, request.fractions or fractions, request.seed)
        splits = given
        table["split"] = np.array([splits[group] for group in table["group"].tolist()], object)
    first = ["id", "group", "split", "target", column]
    table = table[[*first, *(name for name in table if name not in first)]]
    return Manifest(table, (column,), tuple(notes), tuple(subgroups))
