"""Samples of one picture, or series of slices, and one row of a clinical table: what kinds of such data share."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32

from scanfuse.data.inputs.epochs import EpochDataset
from scanfuse.data.manifest import Manifest, Row, Rows
from scanfuse.data.transforms.table import Table
from scanfuse.errors import UserError

__all__ = ["MakeSample", "TabledDataset"]


class MakeSample(Protocol):
    """What is read, or None, and the values of the table as a sample."""

    def __call__(
        self, row: Row, seen: Any, values: Float32[np.ndarray, "f 2"], random: np.random.Generator | None
    ) -> dict[str, Any]:
        """The sample of a row; with `random`, moved by it."""


class TabledDataset(EpochDataset):
    """The samples of a manifest whose further columns are a table.

    What is drawn for a sample depends on (seed, epoch, index) alone: first which input is taken away, if both are
    there, and then what `make` draws.

    Args:
        manifest: one row a sample.
        table: the schema by which its table is read.
        read: the place of a row and the row -> its picture or slices, None where it has none.
        make: see `MakeSample`.
        drop: in training, the chances that the picture or slices, and that the table, are taken away.
        train: whether inputs are taken away, and `make` moves the sample.
        seed: of what is drawn.

    Raises:
        UserError: on reading a sample: a cell of the table without sense, or what `read` and `make` raise.
    """

    def __init__(
        self,
        manifest: Manifest,
        table: Table,
        read: Callable[[int, Row], Any],
        make: MakeSample,
        *,
        drop: tuple[float, float],
        train: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.train, self.seed, self._drop = train, seed, drop
        self._read, self._make = read, make
        self._rows = Rows(manifest)
        self._values, self._wrong = table.encode(manifest.table)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        """The row of a sample."""
        return self._rows[index]

    @property
    def targets(self) -> list[str]:
        """The target text of every sample in order."""
        return self._rows.targets

    @property
    def tables(self) -> Float32[np.ndarray, "n f 2"]:
        """The tables of all samples, nothing taken away; UserError for a cell that cannot be read."""
        for index in self._wrong:
            self._check(index)
        return self._values

    def __getitem__(self, index: int) -> dict[str, Any]:
        self._check(index)
        row, values = self._rows[index], self._values[index]
        random = np.random.default_rng([self.seed, self.epoch, index])
        seen = self._read(index, row)
        if self.train and seen is not None and values.any():
            drawn = random.random()
            if drawn < self._drop[0]:
                seen = None
            elif drawn < sum(self._drop):
                values = np.zeros_like(values)
        return self._make(row, seen, values, random if self.train else None)

    def _check(self, index: int) -> None:
        if index in self._wrong:
            raise UserError(f"{self._rows[index].id}: {self._wrong[index]}")
