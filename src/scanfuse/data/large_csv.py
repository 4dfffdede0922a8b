"""CSV tables of hundreds of thousands of rows: columns of numbers are read as numbers, everything else as text.

`scanfuse.data.manifest.read_csv` looks at every cell by itself; 400,000 rows of 55 columns take it a minute, and as
text they take 1.5 GB. Here pandas' parser reads a column of numbers straight into an array, and holds each different
text once.
"""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from scanfuse.data.transforms.column import MISSING, is_missing
from scanfuse.errors import UserError
from scanfuse.foreign import check_file, foreign, shown

__all__ = ["read_large_csv"]

_LOOKED_AT = 1000
"""Rows at the beginning that say which columns may be numbers."""
_BLOCK = 1 << 23
_NEW_LINE, _QUOTE, _COMMA = b'\n",'


def read_large_csv(path: str | Path, *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """The table of a comma-separated UTF-8 file with a header.

    A column is int64 or float64 (nan: missing) where every cell is a finite number or says that nothing is known;
    any other column is text, as it stands in the file.

    Args:
        path: the file.
        texts: columns that stay text even if they hold numbers, such as ids.

    Raises:
        UserError: no such file, no CSV, or a row that is longer or shorter than the header (its line is named).
    """
    size = check_file(path, "CSV table")
    table = _read(str(path), tuple(texts), (size, os.stat(path).st_mtime_ns, os.stat(path).st_ino))
    return table.copy(deep=False)  # what is changed in a copy, pandas copies first


@lru_cache(maxsize=1)
def _read(path: str, texts: tuple[str, ...], state: tuple[int, ...]) -> pd.DataFrame:
    """A training opens its data for the labels and then for the samples: the file of this state is read once."""
    _check_rows(path)
    with foreign(path):
        head = pd.read_csv(path, dtype=str, na_filter=False, nrows=_LOOKED_AT)
        numbers = [name for name in map(str, head) if name not in texts and _may_be_numbers(head[name])]
        table = pd.read_csv(
            path,
            dtype={str(name): str for name in head if name not in numbers},
            keep_default_na=False,
            na_values=dict.fromkeys(numbers, _spellings()),
            low_memory=False,  # read in pieces, a column could be of two types
        )
        wrong = [name for name in numbers if not _are_numbers(table[name])]
        if wrong:
            table[wrong] = pd.read_csv(path, dtype=str, na_filter=False, usecols=wrong)
    return table


def _spellings() -> list[str]:
    """The words for a missing value in every mixture of capitals."""
    pairs = ([(letter, letter.upper()) for letter in word] for word in MISSING)
    return ["".join(letters) for pair in pairs for letters in product(*pair)]


def _may_be_numbers(column: pd.Series) -> bool:
    known = [text for text in pd.unique(column) if not is_missing(text)]
    return bool(known) and bool(pd.to_numeric(pd.Series(known, dtype=object), errors="coerce").notna().all())


def _are_numbers(column: pd.Series) -> bool:
    return column.dtype.kind in "if" and not np.isinf(column).any()


def _check_rows(path: str | Path) -> None:
    """Raises UserError, with its line, for a row of another length than the header: pandas would fill a short one."""
    expected = -1
    for lines, commas in _records(path):
        expected = int(commas[0]) if expected < 0 else expected
        odd = np.flatnonzero(commas != expected)
        if len(odd):
            raise UserError(
                f"{shown(path)} line {lines[odd[0]]} has {commas[odd[0]] + 1} values for the {expected + 1} columns "
                "of the header; check its commas, and put quotes around a value that holds one."
            )


def _records(path: str | Path) -> Iterator[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
    """Some records at a time, empty lines left out: the line that each starts in, and its commas outside quotes."""
    rest, line = b"", 1
    with foreign(path), Path(path).open("rb") as file:
        while raw := file.read(_BLOCK):
            block = np.frombuffer(rest + raw, np.uint8)
            marks = np.flatnonzero((block == _NEW_LINE) | (block == _QUOTE) | (block == _COMMA))
            kinds = block[marks]
            is_outside = np.cumsum(kinds == _QUOTE) % 2 == 0
            ends = np.flatnonzero((kinds == _NEW_LINE) & is_outside)
            if not len(ends):
                rest = block.tobytes()
                continue
            starts = np.concatenate([[0], marks[ends[:-1]] + 1])
            lines = line + np.concatenate([[0], np.cumsum(kinds == _NEW_LINE)[ends]])
            commas = np.diff(np.cumsum((kinds == _COMMA) & is_outside)[ends], prepend=0)
            filled = (marks[ends] - starts > 1) | (block[starts] != _NEW_LINE) & (block[starts] != ord("\r"))
            if filled.any():
                yield lines[:-1][filled], commas[filled]
            rest, line = block[marks[ends[-1]] + 1 :].tobytes(), int(lines[-1])
    if rest.strip():  # the last line need not end
        pieces = rest.split(b'"')
        if len(pieces) % 2 == 0:
            raise UserError(
                f"{shown(path)} line {line} is not CSV (a quote is never closed); check commas and quotes."
            )
        yield np.array([line]), np.array([b"".join(pieces[::2]).count(b",")])
