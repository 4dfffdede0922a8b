"""Files that are whole or absent: write to a temporary name beside the target, then move.

A killed process cannot remove its temporary file. Their names say who wrote them,

    .<start of the target's name>~scanfuse-<machine>-<process>-<random><suffix>

so that the first write into a folder removes what dead processes left there.
"""

import contextlib
import functools
import hashlib
import math
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scanfuse.errors import UserError
from scanfuse.foreign import shown

__all__ = ["atomic_path", "file_name", "free_id", "remove_abandoned", "without_nan", "write_text"]

_TEMPORARY = re.compile(r"\..*~scanfuse-([0-9a-f]{8})-([0-9]+)-[a-z0-9_]+(\.[^.~]*)?")
_SURELY_DEAD_SECONDS = 7 * 24 * 3600
_LONGEST_NAME = 150


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `target`; moves it there when the block ends without an error.

    The temporary name keeps the suffix of `target`, for writers that choose a format by it. An earlier file of
    that name stays as it was if anything fails.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    target = Path(target)
    if "\0" in str(target):
        raise UserError(f"Cannot write {shown(target)}: a path holds no NUL character.")
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clean_once(str(target.parent.absolute()))
        prefix = f".{target.stem[:40]}~scanfuse-{_machine()}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=target.suffix, dir=target.parent)
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
        kept = "The earlier file of that name is unchanged" if os.path.lexists(target) else "No file was made"
        raise UserError(
            f"Cannot write {shown(target)}: {reason}. {kept}; free some space or choose another folder."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_abandoned(folder: str | Path) -> list[Path]:
    """Removes the temporary files that writers left in `folder` when they were killed; returns what was removed.

    A file is abandoned if a process of this machine wrote it that runs no more, or if nobody has written to it for a
    week (its writer may live on another machine or in another container, where its number means something else).
    Files that are not named like a temporary file of this module are never touched, nor are links.
    """
    removed = []
    for entry in os.scandir(folder):
        found = _TEMPORARY.fullmatch(entry.name)
        if found is None or not entry.is_file(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError):  # another process may have removed it, or may be the only one that can
            old = time.time() - entry.stat(follow_symlinks=False).st_mtime > _SURELY_DEAD_SECONDS
            if old or (found[1] == _machine() and not _is_alive(int(found[2]))):
                os.unlink(entry.path)
                removed.append(Path(entry.path))
    return removed


def write_text(target: str | Path, text: str) -> None:
    """Writes `text` (UTF-8) to `target`, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_name(id: str) -> str:
    """An id as the stem of a file's name: itself where it can be one; else changed, with a digest to keep ids apart.

    At most 150 bytes, which leaves room for what is put before and after it.

    >>> file_name("patient1-study2")
    'patient1-study2'
    >>> file_name("a/b") == file_name("a_b")
    False
    """
    safe = "".join(sign if sign.isalnum() or sign in "._+- " else "_" for sign in id).strip(". ")
    if safe == id and id and len(id.encode()) <= _LONGEST_NAME:
        return id
    digest = hashlib.sha256(id.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{safe.encode()[: _LONGEST_NAME - 9].decode(errors='ignore')}-{digest}"


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


@functools.lru_cache(maxsize=4096)
def _clean_once(folder: str) -> None:
    # Once for each folder and process: to look through a folder before every one of 10,000 pictures would take long.
    remove_abandoned(folder)


@functools.cache
def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 is a real one
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
