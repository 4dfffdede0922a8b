"""Files that are whole or absent: write to a temporary name beside the target, then move."""

import contextlib
import hashlib
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scanfuse.errors import UserError

__all__ = ["atomic_path", "file_name", "free_id", "without_nan", "write_text"]


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `target`; moves it there when the block ends without an error.

    The temporary name keeps the suffix of `target`, for writers that choose a format by it. An earlier file of
    that name stays as it was if anything fails.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"Cannot write {target}: {reason}. Nothing was changed; free some space or choose another folder."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(target: str | Path, text: str) -> None:
    """Writes `text` (UTF-8) to `target`, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_name(id: str) -> str:
    """An id as the stem of a file's name: itself where it can be one; else changed, with a digest to keep ids apart.

    >>> file_name("patient1-study2")
    'patient1-study2'
    >>> file_name("a/b") == file_name("a_b")
    False
    """
    safe = "".join(sign if sign.isalnum() or sign in "._+- " else "_" for sign in id).strip(". ")
    return id if safe == id and id else f"{safe}-{hashlib.sha256(id.encode()).hexdigest()[:8]}"


def free_id(folder: str | Path, id: str) -> str:
    """The id, or the first of id-2, id-3, ... under whose `file_name` the folder holds nothing yet."""
    folder = Path(folder)
    taken = {entry.name.partition(".")[0] for entry in folder.iterdir()} if folder.is_dir() else set()
    number, found = 2, id
    while file_name(found).partition(".")[0] in taken:
        found, number = f"{id}-{number}", number + 1
    return found


def without_nan(value: Any) -> Any:
    """The value with None for nan and infinity, in dictionaries and lists too: JSON has neither."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
