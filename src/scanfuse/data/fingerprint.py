"""Whether a sample is the one that a run has seen: by what its files hold, not by what it is called."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from scanfuse.data.manifest import Manifest

__all__ = ["fingerprints"]

_BLOCK = 4096
_BLOCKS = 16
"""Of a file larger than 64 kB, so many blocks count, spread evenly from its beginning to its end, beside its size.

They tell pictures apart and are cheap on a disk. The two ends alone would not do: volumes that are not compressed
share their header and end in black.
"""


def fingerprints(manifest: Manifest) -> list[str]:
    """One per row, 16 hexadecimal digits: of the sizes and the content of its files, in order of the columns.

    Names and folders do not count, so data may be moved. Rows of the same files, such as those of one container, are
    told apart by their ids. "" where a file cannot be read.
    """
    rows = list(manifest.rows)
    shared = Counter(tuple(row.paths.items()) for row in rows)
    return [_of_files(row.paths.values(), row.id if shared[tuple(row.paths.items())] > 1 else "") for row in rows]


def _of_files(paths: Iterable[Path], id: str) -> str:
    seen = id.encode()
    for path in paths:
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                seen += str(size).encode()
                for place in range(_BLOCKS):
                    file.seek(place * max(0, size - _BLOCK) // (_BLOCKS - 1))
                    seen += hashlib.sha256(file.read(_BLOCK)).digest()
        except OSError:
            return ""
    return hashlib.sha256(seen).hexdigest()[:16]
