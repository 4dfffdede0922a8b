"""One door for foreign files: what is no ordinary file is refused before it is opened, and nothing else gets out."""

import logging
import os
import socket
import stat
import warnings
from pathlib import Path

import pytest

from scanfuse.errors import UserError
from scanfuse.foreign import check_file, foreign, read_json, read_text, shown


def refusal(path: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        check_file(path, "picture")
    text = str(caught.value)
    assert text.isprintable() and len(text) < 600
    text.encode()  # can be printed on any terminal
    return text


def test_an_ordinary_file_passes_with_its_size(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    assert check_file(tmp_path / "a.png") == check_file(str(tmp_path / "link.png")) == 5
    with pytest.raises(UserError, match=r"has 0\.0 MB, more than the 0\.0 MB allowed for a picture"):
        check_file(tmp_path / "a.png", "picture", largest=4)


def test_what_is_no_ordinary_file_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.png") == f"{tmp_path}/no.png does not exist; check the path."
    assert refusal(tmp_path) == f"{tmp_path} is a folder, not a picture."
    (tmp_path / "empty.png").touch()
    assert refusal(tmp_path / "empty.png").startswith(f"{tmp_path}/empty.png is an empty file;")
    assert refusal(tmp_path / "empty.png" / "b.png").endswith("a part of the path is a file, not a folder.")
    (tmp_path / "self.png").symlink_to("self.png")
    assert "is a link that leads back to itself" in refusal(tmp_path / "self.png")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    assert "is a link to a file that does not exist" in refusal(tmp_path / "dangling.png")
    assert "is too long for the name of a file (304 characters)" in refusal(tmp_path / ("x" * 300 + ".png"))
    assert "NUL character" in refusal("a\0b.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a POSIX feature")
@pytest.mark.timeout(10)
def test_pipes_devices_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert refusal(tmp_path / "pipe.png") == f"{tmp_path}/pipe.png is a named pipe, not a picture."
    assert refusal("/dev/zero") == "/dev/zero is a device, not a picture."
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most about 100 characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("door")
        assert stat.S_ISSOCK(os.stat("door").st_mode)
        assert refusal("door") == "door is a socket, not a picture."


def test_a_name_that_is_not_utf8_or_has_line_breaks_stays_on_one_line(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/h\xe9.png")
    Path(path).write_bytes(b"x")
    assert refusal(path) == f"{tmp_path}/h\\xe9.png has a name that is not UTF-8; rename it."
    assert refusal(tmp_path / "two\nlines.png") == f"{tmp_path}/two\\nlines.png does not exist; check the path."
    assert shown("x" * 9000) == f"{'x' * 150}[8700 characters]{'x' * 150}"


@pytest.mark.parametrize(
    "error",
    [
        IndexError("list index\nout of range"),
        KeyError(7),
        RecursionError(),
        OSError("truncated"),
        ZeroDivisionError("z"),
    ],
)
def test_whatever_is_raised_becomes_one_line(error: Exception) -> None:
    with (
        pytest.raises(
            UserError, match=r"^a\.dat is damaged or cut short \(.+\); copy or export it again\.$"
        ) as caught,
        foreign("a.dat"),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_system_errors_memory_and_user_errors_keep_their_meaning() -> None:
    for error, text in (
        (PermissionError(13, "Permission denied"), "a.dat cannot be read: Permission denied."),
        (MemoryError(), "a.dat needs more memory than there is; cut or shrink it first."),
        (UserError("as it is"), "as it is"),
    ):
        with pytest.raises(UserError) as caught, foreign("a.dat"):
            raise error
        assert str(caught.value) == text
    with pytest.raises(KeyboardInterrupt), foreign("a.dat"):
        raise KeyboardInterrupt


def test_warnings_and_logs_are_silent_inside_only(caplog: pytest.LogCaptureFixture) -> None:
    with foreign("a.dat"):
        warnings.warn("inside", RuntimeWarning, stacklevel=1)
        logging.getLogger("tifffile").error("inside")
    logging.getLogger("tifffile").error("outside")
    assert [record.message for record in caplog.records] == ["outside"]
    with pytest.warns(RuntimeWarning, match="outside"):
        warnings.warn("outside", RuntimeWarning, stacklevel=1)


def test_text_and_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}
    for content, said in (
        (b"[1]", "holds a list, not an object"),
        (b"3", "holds a int, not an object"),
        (b'{"a"', "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b'{\n"a": "\xe9"}', "line 2 holds the byte 0xe9, which is not UTF-8"),
        ("{}".encode("utf-16"), "is UTF-16 text"),
        (b'{\n\n"a\0": 1}', "line 3 holds a NUL character"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"^{path} ") as caught:
            read_json(path)
        assert said in str(caught.value) and str(caught.value).isprintable()
    with pytest.raises(UserError, match="allowed for a note"):
        read_text(path, "note", largest=1)
