"""The clinical table of an input kind: its schema from training rows, rows by hand, and what it says of leaks."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32

from scanfuse.data.inputs import Fitted
from scanfuse.data.manifest import COLUMNS, Manifest, read_csv
from scanfuse.data.transforms.table import Table, TableSettings
from scanfuse.errors import UserError
from scanfuse.foreign import read_json

__all__ = ["FittedTable", "read_row"]

_log = logging.getLogger(__name__)


class FittedTable:
    """What input kinds with a table share.

    Args:
        settings: which columns.
        seed: of the forest.
    """

    def __init__(self, settings: TableSettings, *, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self._schema: Table | None = None

    @property
    def schema(self) -> Table:
        """The schema; UserError before `prepare` or `restore`."""
        if self._schema is None:
            raise UserError("The table has no schema yet: it is fitted on training rows, or stored in a run.")
        return self._schema

    def fit(self, training: Manifest) -> Table:
        """The schema of training rows, which is not kept."""
        columns = [name for name in training.table if name not in (*COLUMNS, *training.modalities)]
        rows, target = training.table[columns], training.table["target"].tolist()
        return Table.fit(rows, target, self.settings, seed=self.seed)

    def prepare(self, training: Manifest) -> Fitted:
        """Fits the schema, keeps it, and says what leaks, or is left out because it would."""
        self._schema = self.fit(training)
        for text in self._schema.warnings:
            _log.warning("The column %s. Leave it out with --columns if it does.", text)
        left = [f"{name} ({why})" for name, why in self._schema.left_out.items() if why != "not asked for"]
        if left:
            shown = "; ".join(left[:12]) + (f"; and {len(left) - 12} more" if len(left) > 12 else "")
            _log.info("%d features of the table; left out: %s.", len(self._schema.features), shown)
        return self._schema.fitted()

    def restore(self, fitted: Fitted) -> None:
        """Takes what `prepare` once returned."""
        self._schema = Table.restore(fitted)

    def warn_of_absent(self, table: pd.DataFrame) -> None:
        """Says which columns the rows lack."""
        absent = [name for name in self.schema.names if name not in table]
        if absent:
            _log.warning("The data have no column %s: it counts as missing in every row.", ", ".join(absent[:5]))

    def by_hand(self, row: Any, passed_over: tuple[str, ...] = ()) -> Float32[np.ndarray, "f 2"]:
        """One row from a dictionary, or from a JSON or CSV file; all missing for None.

        Raises:
            UserError: a column that the table never had (those in `passed_over` apart), or a cell without sense.
        """
        if row is None:
            return np.zeros((len(self.schema.features), 2), np.float32)
        if not isinstance(row, Mapping):
            row = read_row(row)
        return self.schema.encode_row({k: v for k, v in row.items() if k not in (*COLUMNS, *passed_over)})

    def parts(self, batch: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
        """Known feature of a batch of one -> the batch with that feature missing."""
        found = {}
        for place, name in enumerate(self.schema.names):
            if batch["table"][0, place, 1] > 0:
                table = batch["table"].clone()
                table[:, place] = 0
                found[name] = {**batch, "table": table}
        return {"table": found} if found else {}


def read_row(path: str | Path) -> dict[str, str]:
    """One row of a table from a JSON object or a CSV file with a single row, as text.

    Raises:
        UserError: another kind of file, or not exactly one row.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        content = read_json(path)
        if any(isinstance(value, dict | list) for value in content.values()):
            raise UserError(f'{path} must be one JSON object of plain values, such as {{"age": 55}}.')
        return {str(name): "" if value is None else str(value) for name, value in content.items()}
    _, table = read_csv(path)
    if len(table) != 1:
        raise UserError(f"{path} has {len(table)} rows; --table takes one case: use --data for many.")
    return {str(name): str(value) for name, value in table.iloc[0].items()}
