"""Whether a sample is the one that a run has seen: by what its files hold, not by what it is called."""

import hashlib
from pathlib import Path

from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers import CONTAINERS

__all__ = ["fingerprints"]

_BLOCK = 4096
_BLOCKS = 16
"""Of a file larger than 64 kB, so many blocks count, spread evenly from its beginning to its end, beside its size.

They tell pictures apart and are cheap on a disk. The two ends alone would not do: volumes that are not compressed
share their header and end in black.
"""


def fingerprints(manifest: Manifest) -> list[str]:
    """One per row, 16 hexadecimal digits: of the sizes and the content of its files, in order of the columns.

    Names and folders do not count, so data may be moved. Rows of the same files, such as slices of one volume, have
    the same; pictures of a container are told apart by their ids. "" where a file cannot be read.
    """
    seen: dict[Path, bytes] = {}  # a container is looked at once, not once for each of its rows
    return [_of_row(row, seen) for row in manifest.rows]


def _of_row(row: Row, seen: dict[Path, bytes]) -> str:
    content = b""
    for path in row.paths.values():
        if path not in seen:
            try:
                seen[path] = _content(path)
            except OSError:
                return ""
        content += seen[path]
        if path.suffix.lower() in CONTAINERS:
            content += row.id.encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _content(path: Path) -> bytes:
    if path.is_dir():  # a series of slices: all of its files, in the order of their names
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        if not files:
            raise FileNotFoundError(path)
        return b"".join(map(_content, files))
    with path.open("rb") as file:
        size = file.seek(0, 2)
        found = str(size).encode()
        for place in range(_BLOCKS):
            file.seek(place * max(0, size - _BLOCK) // (_BLOCKS - 1))
            found += hashlib.sha256(file.read(_BLOCK)).digest()
    return found
