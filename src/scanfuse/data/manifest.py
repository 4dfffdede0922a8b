"""The table every job runs from: one row a sample, one column of paths per modality."""

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import pandas as pd

from scanfuse.data.labels import Labels, plain_target
from scanfuse.errors import UserError
from scanfuse.files import write_text
from scanfuse.foreign import one_line, read_text, shown

__all__ = ["COLUMNS", "SPLITS", "Manifest", "Row", "Rows", "check_groups", "common_folder", "texts_of"]

COLUMNS = ("id", "group", "split", "target")
SPLITS = ("train", "val", "test")
SLICE = "slice_choice"
"""Further column that says which slice of its files a row means."""

_NOTE = "# note: "
_MAX_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """One sample: `paths` holds the present modalities only."""

    id: str
    group: str
    split: str
    target: str
    paths: dict[str, Path]
    slice: str = ""  # of volumes and stacks: which one is meant, such as "axial:12"


class Rows(Sequence[Row]):
    """The samples of a manifest by their place, each made when it is asked for: as objects 400,000 take 0.3 GB."""

    def __init__(self, manifest: "Manifest") -> None:
        table = manifest.table
        self._first = [table[name].tolist() for name in COLUMNS]
        self._texts = {name: table[name].tolist() for name in manifest.modalities}
        self._slices = table[SLICE].tolist() if SLICE in table.columns else None
        self._known: dict[str, Path] = {}  # the pictures of a container share their path

    def __len__(self) -> int:
        return len(self._first[0])

    @property
    def targets(self) -> list[str]:
        """The target text of every sample in order."""
        return self._first[COLUMNS.index("target")]

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        id, group, split, target = (column[place] for column in self._first)
        paths = {name: self._path(column[place]) for name, column in self._texts.items() if column[place]}
        return Row(id, group, split, target, paths, self._slices[place] if self._slices else "")

    def _path(self, text: str) -> Path:
        if text not in self._known:
            self._known[text] = Path(text)
        return self._known[text]


@dataclass(frozen=True)
class Manifest:
    """Samples and where their files are.

    Attributes:
        table: text, apart from further columns that a layout has read as numbers (nan: missing). Columns id (unique),
            group (patient or scene), split ("train", "val", "test" or ""), target (may be ""), then one column per
            modality with an absolute path ("" = missing), then any further columns of the data set (a published
            folder, clinical values).
        modalities: the path columns, in the order they were asked for.
        notes: what a reader of the results must know, such as "leaky: ...".
        subgroups: those further columns by whose values results are usually reported.
        positive: what the data set calls the class 1 of a binary target; "" if it has no name for it.

    Raises:
        UserError: a column is missing, an id occurs twice, a split has another name, or a group is in two
            splits without a note that starts with "leaky".
    """

    table: pd.DataFrame
    modalities: tuple[str, ...]
    notes: tuple[str, ...] = ()
    subgroups: tuple[str, ...] = ()
    positive: str = ""

    def __post_init__(self) -> None:
        missing = [name for name in (*COLUMNS, *self.modalities) if name not in self.table.columns]
        if missing:
            raise UserError(
                f"The manifest has no column {', '.join(missing)}; it has {', '.join(map(str, self.table))}."
            )
        if not len(self.table):
            raise UserError("The manifest holds no sample; check the folder or the csv file.")
        twice = self.table["id"][self.table["id"].duplicated()]
        if len(twice):
            raise UserError(f"The manifest holds the id {twice.iloc[0]!r} more than once; give every row its own id.")
        other = sorted(set(pd.unique(self.table["split"])) - {*SPLITS, ""})
        if other:
            raise UserError(f"Unknown split {other[0]!r} in the manifest; use train, val, test or leave it empty.")
        # Each different text once: there may be 400,000 rows.
        plain = {target: plain_target(target) for target in pd.unique(self.table["target"])}
        if any(target != text for target, text in plain.items()):
            object.__setattr__(
                self, "table", self.table.assign(target=[plain[t] for t in self.table["target"].tolist()])
            )
        if not self.is_leaky:
            check_groups(self.table)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def is_leaky(self) -> bool:
        """True if a note says that groups occur in more than one split."""
        return any(note.startswith("leaky") for note in self.notes)

    @property
    def rows(self) -> Iterator[Row]:
        """The samples in order."""
        return iter(Rows(self))

    def subset(self, split: str) -> "Manifest":
        """The samples of one split, in order; UserError if there are none."""
        part = self.table[self.table["split"] == split].reset_index(drop=True)
        if not len(part):
            raise UserError(f"No sample is in the split {split!r}; there are: {self.describe()}.")
        return replace(self, table=part)

    def with_known_targets(self, labels: Labels) -> "Manifest":
        """The same with "" for targets that the labels do not know: data to be predicted may call them otherwise."""
        known = {text: _is_known(text, labels) for text in dict.fromkeys(self.table["target"])}
        targets = [text if known[text] else "" for text in self.table["target"].tolist()]
        return replace(self, table=self.table.assign(target=targets))

    def describe(self) -> str:
        """Counts in one line, such as "train 74 of 4 groups, val 16 of 1 group"."""
        parts = []
        for split in (*SPLITS, ""):
            groups = self.table.loc[self.table["split"] == split, "group"]
            if len(groups):
                number = groups.nunique()
                parts.append(f"{split or 'no split'} {len(groups)} of {number} group{'' if number == 1 else 's'}")
        return ", ".join(parts)

    @property
    def digest(self) -> str:
        """sha256 over ids, groups, splits, targets and paths relative to their common folder (so it can move)."""
        files = [path for name in self.modalities for path in pd.unique(self.table[name]) if path]
        root = common_folder([Path(path) for path in files])
        table = self.table[[*COLUMNS, *self.modalities]].copy()
        for name in self.modalities:
            table[name] = _relative_each(table[name], root)
        return hashlib.sha256(table.to_csv(index=False, lineterminator="\n").encode()).hexdigest()

    def write(self, path: str | Path) -> None:
        """Writes a CSV file; notes come first as comment lines, paths below the file's folder become relative.

        Args:
            path: the file.
            seen_from: the folder that the file will lie in, if it is moved there afterwards.
        """
        path = Path(path)
        folder = path.parent.absolute()
        table = self.table.copy()
        for name in self.modalities:
            table[name] = _relative_each(table[name], folder)
        notes = "".join(_NOTE + note.replace("\n", " ") + "\n" for note in self.notes)
        write_text(path, notes + table.to_csv(index=False, lineterminator="\n"))

    @classmethod
    def read(cls, path: str | Path, modalities: Sequence[str]) -> "Manifest":
        """Reads what `write` wrote, or a hand-made file with the same columns; relative paths start at its folder.

        Raises:
            UserError: missing or unreadable file, or one of the class's own checks.
        """
        path = Path(path)
        notes, table = read_csv(path)
        for name in modalities:
            if name in table:
                folder = path.parent.absolute()
                table[name] = [os.path.normpath(folder / file) if file else "" for file in table[name]]
        return cls(table, tuple(modalities), notes)


def _is_known(text: str, labels: Labels) -> bool:
    try:
        labels.encode(text)
    except UserError:
        return False
    return True


def read_csv(path: str | Path) -> tuple[tuple[str, ...], pd.DataFrame]:
    """Notes and table of a CSV file, every cell as text without surrounding blanks, empty cells as "".

    Comma-separated UTF-8 with a header. Lines before it that start with "#" are comments. Empty lines are passed
    over, and columns without a name as long as they are empty; one with content is called "Unnamed: <number>", as
    pandas calls the index that it writes.

    Raises:
        UserError: see `foreign.read_text`; or a row is longer or shorter than the header, a quote never closes, a
            cell is larger than 131,072 characters, or two columns have the same name but for case and blanks.
    """
    text = read_text(path, "CSV table", largest=_MAX_BYTES)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    start = 0
    while start < len(lines) and lines[start].startswith("#"):
        start += 1
    notes = tuple(line[len(_NOTE) :].strip() for line in lines[:start] if line.startswith(_NOTE))
    records = _records(path, lines, start)
    _, header = next(records, (0, []))
    if not header:
        raise UserError(f"{shown(path)} has no header; its first line must name the columns.")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise UserError(f"{shown(path)} is separated by semicolons or tabs; save it with commas.")
    rows = []
    for line, record in records:
        if len(record) != len(header):
            raise UserError(
                f"{shown(path)} line {line} has {len(record)} values for the {len(header)} columns of the header; "
                "check its commas, and put quotes around a value that holds one."
            )
        rows.append(record)
    columns = _columns(path, header, rows)
    table = pd.DataFrame(
        [[row[place] for place in columns] for row in rows], columns=list(columns.values()), dtype=str
    )
    return notes, table


def _records(path: str | Path, lines: list[str], start: int) -> Iterator[tuple[int, list[str]]]:
    """Number of its first line, and stripped cells, of each record that is not empty."""
    reader = csv.reader((line + "\n" for line in lines[start:]), strict=True, skipinitialspace=True)
    line = start + 1
    while True:
        try:
            record = next(reader, None)
        except csv.Error as error:
            reason = "a quote is never closed" if "end of data" in str(error) else one_line(error)
            raise UserError(f"{shown(path)} line {line} is not CSV ({reason}); check commas and quotes.") from None
        if record is None:
            return
        cells = [cell.strip() for cell in record]
        if len(cells) > 1 or any(cells):
            yield line, cells
        line = start + reader.line_num + 1


def _columns(path: str | Path, header: list[str], rows: list[list[str]]) -> dict[int, str]:
    """Places and names of the columns that count."""
    columns = {}
    for place, name in enumerate(header):
        if name:
            columns[place] = name
        elif any(row[place] for row in rows):
            columns[place] = f"Unnamed: {place}"
    seen: dict[str, str] = {}
    for name in columns.values():
        if not name.isprintable():
            raise UserError(f"{shown(path)} has the column {name[:60]!r}; a name is one line of printable text.")
        if name.lower() in seen:
            raise UserError(
                f"{shown(path)} has the columns {seen[name.lower()]!r} and {name!r}, which are the same but for case "
                "and blanks; rename one."
            )
        seen[name.lower()] = name
    return columns


def check_groups(table: pd.DataFrame) -> None:
    """Raises UserError if rows of one group lie in different splits (rows without a split do not count)."""
    # Each pair once: 400,000 rows are of a thousand groups.
    assigned = table.loc[table["split"] != "", ["group", "split"]].drop_duplicates()
    spread = assigned.groupby("group", sort=True)["split"].unique()
    spread = spread[spread.map(len) > 1]
    if len(spread):
        splits = " and ".join(sorted(spread.iloc[0], key=SPLITS.index))
        more = f" ({len(spread) - 1} more such)" if len(spread) > 1 else ""
        raise UserError(
            f"The group {spread.index[0]!r} is in {splits}{more}: the scores would be too good. "
            "Put all its rows in one split, or leave the split column empty to have it made by group."
        )


def texts_of(column: pd.Series) -> list[str]:
    """The cells of a manifest's column as text, "" where a number is missing."""
    cells: list[str] = column.tolist()
    return cells if column.dtype.kind not in "if" else ["" if cell != cell else str(cell) for cell in cells]


def common_folder(paths: Sequence[Path]) -> Path:
    """The deepest folder that holds all files; the root folder if there are none."""
    return Path(os.path.commonpath([path.parent for path in paths])) if paths else Path("/")


def _relative_each(paths: pd.Series, root: Path) -> list[str]:
    """Every path as it is seen from a folder."""
    known = {path: _relative(path, root) for path in pd.unique(paths)}
    return [known[path] for path in paths.tolist()]


def _relative(path: str, root: Path) -> str:
    if not path:
        return ""
    full = Path(path)
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else full.as_posix()
