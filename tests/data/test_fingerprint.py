"""Fingerprints of samples: what they follow, and what they do not."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from scanfuse.data.fingerprint import fingerprints
from scanfuse.data.manifest import Manifest


def manifest(*rows: dict[str, Path | str]) -> Manifest:
    table = pd.DataFrame([{"group": row["id"], "split": "", "target": "", **row} for row in rows])
    return Manifest(table.fillna("").astype(str), ("a", "b"))


def of(**files: Path | str) -> str:
    return fingerprints(manifest({"id": "x", "a": "", "b": "", **files}))[0]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 10_000, 65_536, 1_000_000])
def test_it_follows_what_the_files_hold(tmp_path: Path, size: int) -> None:
    """Each byte of a file up to 64 kB, and blocks all over a larger one: two volumes may share both of their ends."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(bytes(size))
    second.mkdir()
    copy = Path(shutil.copy(first, second / "copy"))
    assert of(a=first) == of(a=copy) != of(a=first, b=copy)
    for place in {0, size // 3, size // 2, size - 1} if 0 < size <= 65_536 else {size // 2} if size else ():
        content = bytearray(size)
        content[place : place + max(1, size // 8)] = b"\1" * len(content[place : place + max(1, size // 8)])
        copy.write_bytes(content)
        assert of(a=first) != of(a=copy), place
    copy.write_bytes(bytes(size + 1))
    assert of(a=first) != of(a=copy)
    assert of(a=first, b=copy) != of(a=copy, b=first)


def test_names_do_not_count(tmp_path: Path) -> None:
    file, copy = tmp_path / "one", tmp_path / "two"
    file.write_bytes(os.urandom(100))
    shutil.copy(file, copy)
    found = fingerprints(
        manifest(*({"id": name, "a": path, "b": ""} for name, path in (("p", file), ("q", copy), ("r", copy))))
    )
    assert len(set(found)) == 1 and len(found[0]) == 16


def test_what_cannot_be_read_has_none(tmp_path: Path) -> None:
    file = tmp_path / "one"
    file.write_bytes(b"1")
    (tmp_path / "empty").mkdir()
    assert of(a=file, b=tmp_path / "none") == of(a=tmp_path / "empty") == ""


def test_a_folder_counts_as_the_files_in_it(tmp_path: Path) -> None:
    for name, last in (("one", b"2"), ("moved", b"2"), ("other", b"3")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"1")
        (tmp_path / name / "b.png").write_bytes(last)
    found = {name: of(a=tmp_path / name) for name in ("one", "moved", "other")}
    assert found["one"] == found["moved"] != found["other"] and found["one"]
