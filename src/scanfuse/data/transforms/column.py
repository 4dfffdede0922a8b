"""One column of a clinical table, as text or as numbers, and what its cells mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int

__all__ = ["MISSING", "Column", "canonical", "is_missing"]

MISSING = ("", "na", "n/a", "nan", "null")
"""What a cell says, in any case, where nothing is known."""


@dataclass(frozen=True, eq=False)
class Column:
    """The cells of a column, each different text looked at once: 400,000 rows have columns of a few words.

    Attributes:
        cells: as they were given: text, or numbers with nan where nothing is known.
        number: of every row, not finite where it is none.
        gone: whether the cell says that nothing is known.
    """

    cells: np.ndarray
    number: Float64[np.ndarray, " n"]
    gone: Bool[np.ndarray, " n"]
    _factors: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def of(cls, cells: Sequence[str] | np.ndarray | pd.Series) -> "Column":
        """The column of texts, or of integers or floating-point numbers."""
        given = cells if isinstance(cells, pd.Series | np.ndarray) else np.asarray(cells, object)
        if given.dtype.kind in "if":
            number = np.asarray(given, np.float64)
            return cls(number, number, np.isnan(number), None)
        texts = np.asarray(given, object)
        codes, different = pd.factorize(texts)
        number = np.asarray(pd.to_numeric(pd.Series(different, dtype=object), errors="coerce"), np.float64)
        gone = np.zeros(len(different), bool)
        words = np.flatnonzero(~np.isfinite(number))  # what is a number is not missing, and most columns are numbers
        gone[words] = [is_missing(text) for text in different[words]]
        return cls(texts, number[codes], gone[codes], (codes, different))

    @cached_property
    def different(self) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
        """Of every row the place of its text, and the different texts in their `canonical` spelling."""
        codes, cells = self._factors or pd.factorize(self.cells, use_na_sentinel=False)
        return codes, tuple(canonical(str(cell)) for cell in cells)

    @property
    def levels(self) -> Float64[np.ndarray, " k"]:
        """The different numbers of the known rows, sorted."""
        return np.sort(np.asarray(pd.unique(self.number[~self.gone])))

    @property
    def words(self) -> tuple[str, ...]:
        """The different texts of the known rows in their `canonical` spelling, sorted."""
        codes, words = self.different
        return tuple(sorted({words[code] for code in pd.unique(codes[~self.gone])}))


def is_missing(text: str) -> bool:
    """Whether a cell says that nothing is known."""
    return text.strip().lower() in MISSING


def canonical(text: str) -> str:
    """One spelling for a category: numbers without needless zeros, words in lower case with single blanks."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    return f"{number:g}" if np.isfinite(number) else " ".join(text.split()).casefold()
