"""A table is read as it was meant, or its line is named: no value may slip into the next column."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scanfuse.data.labels import Labels, plain_target
from scanfuse.data.manifest import Manifest, read_csv
from scanfuse.errors import UserError


def write(path: Path, content: str | bytes) -> Path:
    file = path / "manifest.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def refusal(path: Path, content: str | bytes) -> str:
    file = write(path, content)
    with pytest.raises(UserError) as caught:
        read_csv(file)
    text = str(caught.value)
    assert text.startswith(f"{file} ") and text.isprintable() and len(text) < 500
    return text.removeprefix(f"{file} ")


def test_a_row_longer_or_shorter_than_the_header_is_named(tmp_path: Path) -> None:
    head = "# note: mine\nid,group,ct,mri\n1,a,ct/1.png,mri/1.png\n"
    assert refusal(tmp_path, head + "\n2,a,x,ct/2.png,mri/2.png,more\n").startswith(
        "line 5 has 6 values for the 4 columns of the header;"
    )
    assert refusal(tmp_path, head + "2,a,ct/2.png\n").startswith("line 4 has 3 values for the 4 columns")
    # Every row too long by the same: pandas would take the first two columns for an index.
    assert refusal(tmp_path, "id,group\n1,a,x,y\n2,a,x,y\n").startswith("line 2 has 4 values for the 2 columns")


def test_quotes_blanks_notes_and_line_ends(tmp_path: Path) -> None:
    text = '\ufeff# note: leaky: on purpose\r\n# a comment\r\n id , group,name\r\n\r\n1, a ,"x, ""y""\nz"\r\n2,,\r\n'
    notes, table = read_csv(write(tmp_path, text))
    assert notes == ("leaky: on purpose",)
    assert table.to_dict("records") == [
        {"id": "1", "group": "a", "name": 'x, "y"\nz'},
        {"id": "2", "group": "", "name": ""},
    ]
    assert read_csv(write(tmp_path, "id,group\r1,NA\r"))[1].to_dict("records") == [{"id": "1", "group": "NA"}]
    assert list(read_csv(write(tmp_path, "id,group\n"))[1]) == ["id", "group"]


def test_columns_without_a_name(tmp_path: Path) -> None:
    _, table = read_csv(write(tmp_path, "id,group,,\n1,a,,\n"))
    assert list(table) == ["id", "group"]
    _, table = read_csv(write(tmp_path, ",id\n0,a\n1,b\n"))  # with the index that pandas writes
    assert list(table) == ["Unnamed: 0", "id"]


@pytest.mark.parametrize("names", ["ct,CT", "ct, ct ", "a,a", "mri,ct,Mri"])
def test_columns_equal_but_for_case_and_blanks(tmp_path: Path, names: str) -> None:
    count = names.count(",")
    assert "which are the same but for case and blanks" in refusal(tmp_path, f"id,{names}\n1{',x' * (count + 1)}\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is an empty file"),
        ("\n\n", "has no header"),
        ("# note: x\n", "has no header"),
        ('id,group\n1,a\n2,"a\n3,b\n', "line 3 is not CSV (a quote is never closed)"),
        ('id,group\n1,"a"b\n', "line 2 is not CSV ("),
        ("id,group\n1," + "x" * 200_000 + "\n", "line 2 is not CSV (field larger than field limit (131072))"),
        ("id,group\n1,a\0b\n", "line 2 holds a NUL character"),
        ("id,group\n1,M\xfcller\n".encode("latin-1"), "line 2 holds the byte 0xfc, which is not UTF-8"),
        ("id,group\n1,a\n".encode("utf-16"), "is UTF-16 text"),
        ('id,"gro\nup"\n1,a\n', "has the column 'gro\\nup'; a name is one line"),
        ("id;group\n1;a\n", "is separated by semicolons or tabs"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert said in refusal(tmp_path, content)


def test_a_table_that_is_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, not a CSV table"):
        read_csv(tmp_path)
    with pytest.raises(UserError, match="is too long for the name of a file"):
        read_csv(tmp_path / ("x" * 300))


# --- targets ------------------------------------------------------------------------------------------------------


def test_whole_numbers_beside_a_gap_are_binary(tmp_path: Path) -> None:
    """An integer column with a gap is written by pandas as 0.0 and 1.0."""
    pd.DataFrame({"id": list("abc"), "group": list("abc"), "target": [0, None, 1]}).to_csv(
        tmp_path / "m.csv", index=False
    )
    assert "0.0" in (tmp_path / "m.csv").read_text()
    _, table = read_csv(tmp_path / "m.csv")
    manifest = Manifest(table.assign(split=""), ())
    assert [row.target for row in manifest.rows] == ["0", "", "1"]
    for targets in (["0.0", "", "1.0"], ["0", "1.0"], ["1", "1.00"]):
        assert Labels.of(targets) == Labels("binary", ("0", "1"))
    binary = Labels("binary", ("0", "1"))
    assert [binary.encode(text)[0].item() for text in ("1.0", "0.0", "1", "")] == [1, 0, 1, 0]
    assert not binary.encode("")[1]


def test_other_numbers_keep_their_classes() -> None:
    assert Labels.of(["0.0", "1.0", "2.0"]) == Labels("multiclass", ("0", "1", "2"))
    assert Labels.of(["0.5", "1"]) == Labels("multiclass", ("0.5", "1"))
    assert plain_target("1.0.0") == "1.0.0" and plain_target("v1.0") == "v1.0"
    # A task that was stored with such names is still understood.
    assert Labels("multiclass", ("0.0", "1.0")).encode("1")[0] == 1


def test_findings_take_them_too() -> None:
    labels = Labels.of(["x=1.0;y=", "x=0;y=0.0"])
    assert labels == Labels("multilabel", ("x", "y"))
    target, known = labels.encode("x=1.0;y=")
    np.testing.assert_array_equal(target, [1, 0])
    np.testing.assert_array_equal(known, [True, False])
