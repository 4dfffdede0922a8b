"""What is wrong with a data set of volumes: what `check` says of pictures, and whether volumes share a grid."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from scanfuse.data.check import Finding, duplicates, of_table, opened, worst_first
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers.volume import Volume, mismatch, read_volume
from scanfuse.errors import UserError

__all__ = ["check_volumes"]


def check_volumes(
    open_data: Callable[[bool], Manifest], modalities: Sequence[str], *, resample: bool, complete: bool = True
) -> list[Finding]:
    """Opens a data set as training would and reads every volume.

    Args:
        open_data: see `scanfuse.data.check.check`.
        modalities: the inputs of a sample.
        resample: whether volumes of other grids are put on one: then they are worth a look, else wrong.
        complete: whether every sample needs all inputs.

    Returns:
        Findings, errors first.
    """
    manifest, findings = opened(open_data)
    if manifest is None:
        return findings
    hashes: dict[tuple[str, str], list[tuple[Row, Path]]] = defaultdict(list)
    for row in manifest.rows:
        volumes = _read(row, modalities, complete, findings)
        findings += _grids(row, volumes, resample)
        for name, volume in volumes.items():
            voxels = volume.voxels
            if (voxels == voxels.flat[0]).all():
                findings.append(Finding("warning", "constant", f"{volume.source} is constant."))
                continue  # equal to every other constant volume, which says nothing about duplicates
            digest = hashlib.sha256(f"{voxels.shape}{voxels.dtype}".encode() + voxels.tobytes())
            hashes[name, digest.hexdigest()].append((row, volume.source))
    return worst_first(findings + duplicates(hashes, "voxels") + of_table(manifest))


def _read(row: Row, modalities: Sequence[str], complete: bool, findings: list[Finding]) -> dict[str, Volume]:
    missing = [name for name in modalities if name not in row.paths]
    if missing and (complete or len(missing) == len(modalities)):
        findings.append(Finding("error", "unpaired", f"{row.id} has no {missing[0].upper()} volume."))
    found = {}
    for name in modalities:
        if name in row.paths:
            try:
                found[name] = read_volume(row.paths[name])
            except UserError as error:
                findings.append(Finding("error", "unreadable", str(error)))
    return found


def _grids(row: Row, volumes: dict[str, Volume], resample: bool) -> list[Finding]:
    severity: Literal["error", "warning"] = "warning" if resample else "error"
    first, *others = volumes.values() or [None]
    wrong = [mismatch(first, other) for other in others if first is not None and other is not None]
    return [Finding(severity, "size", f"{row.id}: {text}.") for text in wrong if text]
