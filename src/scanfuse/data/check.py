"""What is wrong with a data set, before it is trained on: every finding one line, nothing stops at the first."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from scanfuse.data.manifest import COLUMNS, SPLITS, Manifest, Row, check_groups
from scanfuse.data.readers import Image, SliceChoice, read_image
from scanfuse.errors import UserError

__all__ = ["Finding", "check", "check_manifest", "duplicates", "of_table", "opened", "worst_first"]


@dataclass(frozen=True)
class Finding:
    """One line. "error": training or its scores would be wrong; "warning": worth a look."""

    severity: Literal["error", "warning"]
    # layout, unpaired, unreadable, size, duplicate, group, outcomes, constant, mode, leak, order, boxes, shift
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}"


Further = Callable[[Manifest], list[Finding]]
"""What an input kind finds wrong itself."""

Read = Callable[[Row, str], Image]
"""A row and one of its inputs -> the picture, however the input kind reads it."""


def read_file(row: Row, name: str) -> Image:
    """The picture of a row's file, or the slice of it that the row means."""
    slices = SliceChoice.parse(row.slice) if row.slice else None
    return read_image(row.paths[name], slices=slices, member=row.id)


def check(
    open_data: Callable[[bool], Manifest],
    *,
    is_registered: bool,
    further: Further | None = None,
    read: Read = read_file,
) -> list[Finding]:
    """Opens a data set as training would and reads every file.

    Args:
        open_data: how a training opens it; called with True for the splits of the training, and with False for none
            if that fails: the split may be what is wrong, and the files can be looked at all the same.
        is_registered, further, read: see `check_manifest`.

    Returns:
        Findings, errors first; empty if all is well. Data that cannot be opened at all are one finding.
    """
    manifest, findings = opened(open_data)
    if manifest is None:
        return findings
    return worst_first(findings + check_manifest(manifest, is_registered=is_registered, further=further, read=read))


def opened(open_data: Callable[[bool], Manifest]) -> tuple[Manifest | None, list[Finding]]:
    """The data as training opens them, else without splits, and what was wrong; None if they cannot be opened."""
    try:
        return open_data(True), []
    except UserError as error:
        findings = [Finding("error", "layout", str(error))]
    try:
        return open_data(False), findings
    except UserError:
        return None, findings


def check_manifest(
    manifest: Manifest, *, is_registered: bool, further: Further | None = None, read: Read = read_file
) -> list[Finding]:
    """Findings of an opened manifest, errors first: files, sizes, duplicates, splits, constant pictures, leaks.

    With `is_registered`, every row must have all modalities in one size; without, columns are views of a study, and
    the same picture in two columns is a duplicate too. `further` says what is wrong with the targets, and whatever
    else the input kind alone can see; without it targets are outcomes, which every part should have and no column
    should give away. `read` is for kinds whose inputs are no pictures of their own, such as series of slices.
    """
    findings: list[Finding] = []
    hashes: dict[tuple[str, str], list[tuple[Row, Path]]] = defaultdict(list)
    unusual: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for row in manifest.rows:
        images = _read_row(manifest, row, findings, is_registered, read)
        if is_registered:
            findings.extend(_sizes(row, images))
        for name, image in images.items():
            if (image.pixels == image.pixels.flat[0]).all():
                findings.append(
                    Finding(
                        "warning", "constant", f"{image.source} is constant: every pixel is {image.pixels.flat[0]}."
                    )
                )
                continue  # equal to every other constant picture, which says nothing about duplicates
            digest = hashlib.sha256(f"{image.pixels.shape}{image.pixels.dtype}".encode() + image.pixels.tobytes())
            hashes[name if is_registered else "", digest.hexdigest()].append((row, image.source))
            if kind := _unusual(image):
                unusual[name if is_registered else "view", kind].append(image.source)
    findings.extend(duplicates(hashes, "pixels"))
    findings.extend(_modes(unusual))
    findings.extend(of_table(manifest, further))
    findings.extend(_order(manifest))
    return worst_first(findings)


def of_table(manifest: Manifest, further: Further | None = None) -> list[Finding]:
    """What the rows themselves show: groups in two splits, and what `further` (else: outcomes and leaks) finds."""
    return _groups(manifest) + (_outcomes(manifest) + _leaks(manifest) if further is None else further(manifest))


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Errors first, else in order."""
    return sorted(findings, key=lambda finding: finding.severity != "error")


def _read_row(
    manifest: Manifest, row: Row, findings: list[Finding], is_registered: bool, read: Read
) -> dict[str, Image]:
    images: dict[str, Image] = {}
    for name in manifest.modalities:
        if name not in row.paths and not is_registered:
            continue
        if name not in row.paths:
            there = ", ".join(str(path) for path in row.paths.values()) or "no file at all"
            findings.append(Finding("error", "unpaired", f"{row.id} has no {name.upper()} picture (it has {there})."))
            continue
        try:
            images[name] = read(row, name)
        except UserError as error:
            findings.append(Finding("error", "unreadable", str(error)))
    return images


def _sizes(row: Row, images: dict[str, Image]) -> list[Finding]:
    sizes = {name: image.size for name, image in images.items()}
    if len(set(sizes.values())) < 2:
        return []
    said = ", ".join(f"{name.upper()} {height} x {width}" for name, (height, width) in sizes.items())
    return [
        Finding("error", "size", f"{row.id} differs in size between its modalities: {said}; resample one of them.")
    ]


def duplicates(hashes: Mapping[tuple[str, str], list[tuple[Row, Path]]], what: str) -> list[Finding]:
    """Files of one modality and content, by (modality, digest): an error if they are in two splits."""
    findings = []
    for rows in (rows for _, rows in sorted(hashes.items(), key=lambda item: (item[0][0], item[1][0][0].id))):
        if len(rows) < 2:
            continue
        first, path = rows[0]
        other, again = next((found for found in rows[1:] if found[0].split != first.split), rows[1])
        across = first.split != other.split
        where = f"in {first.split} and {other.split}" if across else "in the same split"
        more = f" ({len(rows) - 2} more)" if len(rows) > 2 else ""
        message = f"{path} and {again} hold the same {what}, {where}{more}; keep one."
        findings.append(Finding("error" if across else "warning", "duplicate", message))
    return findings


def _unusual(image: Image) -> str:
    if image.source.suffix.lower() == ".png":
        if image.stored.startswith(("RGBA", "LA", "PA")):
            return "with an alpha channel (dropped where opaque, else black is put behind)"
        if image.stored == "P":
            return "with a palette (read as its colours)"
        if image.pixels.dtype == np.uint16:
            return "of 16 bit (scaled by 65535: dark if the scanner wrote only 12)"
    if image.stored == "CMYK":
        return "in CMYK (converted to RGB)"
    return ""


def _modes(unusual: dict[tuple[str, str], list[Path]]) -> list[Finding]:
    return [
        Finding("warning", "mode", f"{len(paths)} {name.upper()} picture(s) {kind}, such as {paths[0]}.")
        for (name, kind), paths in sorted(unusual.items())
    ]


def _groups(manifest: Manifest) -> list[Finding]:
    try:
        check_groups(manifest.table)
    except UserError as error:
        if not manifest.is_leaky:
            return [Finding("error", "group", str(error))]
        return [Finding("warning", "group", note + ".") for note in manifest.notes if note.startswith("leaky")]
    return []


def _outcomes(manifest: Manifest) -> list[Finding]:
    """Outcomes that a split has no case of, though another one has: nothing can be learned or measured there."""
    table = manifest.table[manifest.table["target"] != ""]
    found = {split: set(";".join(part).split(";")) for split, part in table.groupby("split")["target"] if split}
    known = {piece for pieces in found.values() for piece in pieces if not piece.endswith("=")}
    findings = []
    for split in (name for name in SPLITS if name in found):
        lacking = sorted(known - found[split])
        if lacking:
            part = table[table["split"] == split]
            some = ", ".join(lacking[:4]) + (f" and {len(lacking) - 4} more" if len(lacking) > 4 else "")
            message = f"{split} ({len(part)} studies of {part['group'].nunique()} patients) has no case of {some}."
            findings.append(Finding("warning", "outcomes", message))
    return findings


def _leaks(manifest: Manifest) -> list[Finding]:
    """Further columns that give the target away: one value, one target; or one number that parts the targets."""
    table = manifest.table
    if table["target"].nunique() < 2:
        return []
    findings = []
    for column in table.columns:
        if column in (*COLUMNS, *manifest.modalities):
            continue
        known = table[(table[column] != "") & table[column].notna()]  # numbers may be nan
        number = known[column].nunique()
        if known["target"].nunique() < 2 or number < 2:
            continue
        repeated = number <= len(known) / 2
        if repeated and known.groupby(column)["target"].nunique().max() == 1:
            findings.append(_leak(column, "each of its values goes with one target"))
        elif _parts(known[column], known["target"]):
            findings.append(_leak(column, "the order of its numbers parts the targets"))
    return findings


def _leak(column: str, why: str) -> Finding:
    return Finding("warning", "leak", f"The column {column!r} may leak the target: {why}; do not use it as an input.")


def _parts(column: pd.Series, targets: pd.Series) -> bool:
    """True if, sorted by the column's numbers, every target is one unbroken run of at least four rows."""
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.isna().any() or targets.value_counts().min() < 4:
        return False
    order = np.lexsort((targets.to_numpy(str), numbers.to_numpy()))
    ordered = targets.to_numpy(str)[order]
    return int((ordered[1:] != ordered[:-1]).sum()) == len(set(ordered)) - 1


def _order(manifest: Manifest) -> list[Finding]:
    """DICOM slices of a group whose order by id is not their order in space."""
    from scanfuse.data.readers import dicom  # pydicom is needed only where there are DICOM files

    findings = []
    for name in manifest.modalities:
        places: dict[str, list[tuple[str, float]]] = defaultdict(list)
        for row in sorted(manifest.rows, key=lambda row: (len(row.id), row.id)):
            path = row.paths.get(name)
            if path is None or path.suffix.lower() not in dicom.SUFFIXES or not path.is_file():
                continue
            try:
                place = dicom.position_mm(path)
            except UserError:
                continue  # already reported as unreadable
            if place is not None:
                places[row.group].append((row.id, place))
        for group, found in places.items():
            steps = np.diff([place for _, place in found])
            if len(steps) > 1 and not ((steps > 0).all() or (steps < 0).all()):
                usual = np.sign(np.median(steps))
                wrong = found[1 + int(np.argmax(np.sign(steps) != usual))][0]
                message = (
                    f"The {name.upper()} slices of {group} are not in the order of their names, first at {wrong}; "
                    "rename them by position."
                )
                findings.append(Finding("warning", "order", message))
    return findings
