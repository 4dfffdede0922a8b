"""Whether a sample is the one that a run has seen: by what its files hold, not by what it is called."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from scanfuse.data.manifest import Manifest

__all__ = ["fingerprints"]

_END = 4096
"""Bytes at either end of a file that count beside its size: enough to tell pictures apart, and cheap on a disk."""


def fingerprints(manifest: Manifest) -> list[str]:
    """One per row, 16 hexadecimal digits: of the sizes, beginnings and ends of its files, in order of the columns.

    Names and folders do not count, so data may be moved. Rows that share all their files, such as the rows of one
    container, are told apart by their ids. "" where a file cannot be read.
    """
    ends: dict[Path, bytes] = {}  # a container is looked at once, not once for each of its rows
    found = [_of_files(row.paths.values(), ends) for row in manifest.rows]
    counts = Counter(found)
    return [
        _short(f"{value} {row.id}".encode()) if value and counts[value] > 1 else value
        for value, row in zip(found, manifest.rows, strict=True)
    ]


def _of_files(paths: Iterable[Path], ends: dict[Path, bytes]) -> str:
    seen = b""
    for path in paths:
        if path in ends:
            seen += ends[path]
            continue
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                head = file.read(_END)
                file.seek(max(0, size - _END))
                ends[path] = str(size).encode() + hashlib.sha256(head + file.read(_END)).digest()
                seen += ends[path]
        except OSError:
            return ""
    return _short(seen)


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
