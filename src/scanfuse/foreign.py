"""Files that somebody else made: is it a file at all, and one clear line for whatever its reader says against it.

Every reader of pictures, tables, settings and weights begins with `check_file` and keeps the call into a foreign
library inside `foreign`: such libraries raise anything from struct.error to IndexError on a damaged file, warn, and
log.
"""

import contextlib
import contextvars
import errno
import json
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scanfuse.errors import UserError

__all__ = ["check_file", "foreign", "one_line", "read_json", "read_text", "shown"]

_TALKERS = ("nibabel.global", "pydicom", "tifffile", "PIL.PngImagePlugin", "PIL.TiffImagePlugin")
_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFSOCK: "socket",
}
_silent = contextvars.ContextVar("silent", default=False)
_LONGEST_SHOWN = 400


def check_file(path: str | Path, what: str = "file", *, largest: int | None = None) -> int:
    """Makes sure that `path` is an ordinary file with content, without opening it; returns its size in bytes.

    Opening comes later on purpose: to open a named pipe is to wait for ever.

    Args:
        path: as the user or a table gave it.
        what: what it should be, for the message: "picture", "CSV table".
        largest: bytes above which it is refused.

    Raises:
        UserError: it does not exist, cannot be reached, is a folder, pipe, device or socket, has a name that is too
            long, not UTF-8 or with a NUL character, is a link to itself, is empty, or too large.
    """
    name = shown(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{name} has a name that is not UTF-8; rename it.") from None
    try:
        status = os.stat(path)
    except ValueError:
        raise UserError(f"{name} holds a NUL character, which no path can; correct it.") from None
    except OSError as error:
        raise UserError(_unreachable(name, Path(path), error)) from error
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind:
        raise UserError(f"{name} is a {kind}, not a {what}.")
    if status.st_size == 0:
        raise UserError(f"{name} is an empty file; copy or export it again.")
    if largest is not None and status.st_size > largest:
        raise UserError(
            f"{name} has {status.st_size / 1e6:,.1f} MB, more than the {largest / 1e6:,.1f} MB allowed for a {what}."
        )
    return status.st_size


@contextlib.contextmanager
def foreign(
    path: str | Path, says: str = "is damaged or cut short", advice: str = "copy or export it again"
) -> Iterator[None]:
    """Inside the block, any error becomes "<path> <says> (<reason>); <advice>." and warnings and logs are silent.

    Keep only calls into the reader's library inside, so that faults of our own stay visible. A UserError passes.

    Raises:
        UserError: one line that names the file; the library's own error is its cause.
    """
    for talker in _TALKERS:
        logging.getLogger(talker).addFilter(_unless_silent)
    token = _silent.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{shown(path)} needs more memory than there is; cut or shrink it first.") from error
    except OSError as error:
        if error.errno is None:  # a library's own word for damage, not the system's
            raise UserError(f"{shown(path)} {says} ({one_line(error)}); {advice}.") from error
        raise UserError(_unreachable(shown(path), Path(path), error)) from error
    except Exception as error:
        raise UserError(f"{shown(path)} {says} ({one_line(error)}); {advice}.") from error
    finally:
        _silent.reset(token)


def read_text(path: str | Path, what: str, *, largest: int) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: see `check_file`; or it is not UTF-8 (the line is named), or holds NUL characters.
    """
    check_file(path, what, largest=largest)
    with foreign(path):
        raw = Path(path).read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{shown(path)} is UTF-16 text; save it as UTF-8.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"0x{raw[error.start]:02x}"
        raise UserError(
            f"{shown(path)} line {line} holds the byte {byte}, which is not UTF-8; save it as UTF-8."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{shown(path)} line {line} holds a NUL character; this is no {what}, or a damaged one.")
    return text


def read_json(path: str | Path) -> dict[str, Any]:
    """The content of a JSON file that holds one object; at most 100 MB.

    Raises:
        UserError: see `read_text`; or it is no JSON, or holds something other than an object.
    """
    text = read_text(path, "JSON file", largest=100_000_000)
    with foreign(path, "is not valid JSON", "restore it"):
        content = json.loads(text)
    if not isinstance(content, dict):
        raise UserError(f"{shown(path)} holds a {type(content).__name__}, not an object with names; restore it.")
    return content


def shown(path: str | Path) -> str:
    """A path for a message: on one line, printable everywhere, and not longer than a few lines of a terminal."""
    text = os.fsencode(str(path)).decode("utf-8", "backslashreplace") if _has_stray_bytes(path) else str(path)
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    if len(text) > _LONGEST_SHOWN:
        text = f"{text[:150]}[{len(text) - 300} characters]{text[-150:]}"
    return text or "''"


def one_line(error: BaseException) -> str:
    """What an error says, on one line of at most 200 characters; its kind where it says nothing."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error's text may itself be made of damaged data
        text = ""
    text = "".join(sign for sign in text if sign.isprintable()).rstrip(".; ")
    if isinstance(error, LookupError) or not text:
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= 200 else f"{text[:197]}..."


def _unless_silent(record: logging.LogRecord) -> bool:
    return not _silent.get()


def _has_stray_bytes(path: str | Path) -> bool:
    return any("\ud800" <= sign <= "\udfff" for sign in str(path))


def _unreachable(name: str, path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        if os.path.islink(path):
            return f"{name} is a link to a file that does not exist; point it to the file."
        return f"{name} does not exist; check the path."
    if error.errno == errno.ELOOP:
        return f"{name} is a link that leads back to itself; point it to the file."
    if error.errno == errno.ENAMETOOLONG:
        return f"{name} is too long for the name of a file ({len(path.name)} characters); check the path."
    if error.errno == errno.ENOTDIR:
        return f"{name} does not exist: a part of the path is a file, not a folder."
    return f"{name} cannot be read: {error.strerror or one_line(error)}."
