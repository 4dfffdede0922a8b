"""Fused samples as data for another system: a table of the sources, the fused files, those of plain methods."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scanfuse.data.manifest import Manifest, read_csv
from scanfuse.errors import UserError

__all__ = ["FUSED", "check_free", "derived_manifest"]

FUSED = "fused"
_OURS = "fused samples, written by a prediction"


def check_free(folder: Path) -> None:
    """Raises UserError if the folder has a manifest.csv that no earlier prediction wrote."""
    file = folder / "manifest.csv"
    if file.exists() and _OURS not in read_csv(file)[0]:
        raise UserError(f"{file} is not of an earlier prediction and would be replaced: choose another --out.")


def derived_manifest(samples: Manifest, folder: Path, plain: Sequence[str]) -> Path | None:
    """Writes manifest.csv into a folder of results: id, group, target, the sources, "fused", each plain method.

    Splits are left open: that of the fusion need not be that of what comes after it. Samples that failed are left
    out; None where all did.

    Args:
        samples: what was fused.
        folder: with the results and their predictions.csv.
        plain: methods whose results lie in folders of their names.
    """
    _, written = read_csv(folder / "predictions.csv")
    files = {id: name for id, name in zip(written["id"], written["file"], strict=True) if name}
    table = samples.table[samples.table["id"].isin(files)].reset_index(drop=True).assign(split="")
    if not len(table):
        return None
    taken = [name for name in (FUSED, *plain) if name in samples.modalities]
    if taken:
        raise UserError(f"An input is called {taken[0]!r}, as a result is: rename it to get a manifest.csv.")
    table = table.assign(**{FUSED: [os.path.abspath(folder / files[id]) for id in table["id"]]})
    for method in plain:
        table = table.assign(**{method: [os.path.abspath(folder / method / files[id]) for id in table["id"]]})
    notes = tuple(dict.fromkeys((*samples.notes, _OURS)))
    columns = (*samples.modalities, FUSED, *plain)
    replace(samples, table=table, modalities=columns, notes=notes).write(folder / "manifest.csv")
    return folder / "manifest.csv"
