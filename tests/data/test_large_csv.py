"""Columns of numbers read as numbers mean what the same cells mean as text: schema, values, gaps and errors."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from scanfuse.data import large_csv
from scanfuse.data.large_csv import read_large_csv
from scanfuse.data.layouts import Request, open_manifest
from scanfuse.data.manifest import texts_of
from scanfuse.data.synthetic import isic2024
from scanfuse.data.transforms.table import Table, TableSettings
from scanfuse.errors import UserError

ODD = {
    "whole": ("1", "7", "3", "+5"),
    "levels": ("1", "2.0", "3", "2"),
    "two": ("0", "1", "1.0", "0"),
    "zeros": ("007", "8", "9.50", "1e1"),
    "gaps": ("1.5", "NA", "n/A", "2.25"),
    "null": ("", "3.5", "NuLL", "4.5"),
    "blank": (" NA", "3.5", "1", "4.5"),
    "infinite": ("1", "inf", "2.5", "3"),
    "word": ("1", "x", "2.5", "3"),
    "truth": ("True", "False", "NA", "True"),
    "empty": ("", "", "", ""),
    "alike": ("4", "4", "4.0", "4"),
    "tiny": ("1e-320", "-0.0", "1e30", "123456789012345678901234567890"),
    "said": ('"a, b"', '"c ""d"""', '"e\nf"', "g"),
}
TYPED = {"whole", "levels", "two", "zeros", "gaps", "null", "alike", "tiny"}


def text_of(columns: dict[str, tuple[str, ...]], repeat: int = 20) -> str:
    lines = [",".join(columns)]
    lines += [",".join(column[row % 4] for column in columns.values()) for row in range(4 * repeat)]
    return "\n".join(lines) + "\n"


def as_text(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_odd_cells_mean_the_same_as_text_and_as_numbers(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(text_of(ODD).replace("\n", ending).rstrip().encode())
    typed, text = read_large_csv(path), as_text(path)
    assert {name for name in typed if typed[name].dtype.kind in "if"} == TYPED
    assert list(typed) == list(text) and len(typed) == len(text) == 80
    for name in set(ODD) - TYPED:
        assert typed[name].tolist() == text[name].tolist()
    target = ["0", "1", "1", "0"] * 20
    mine, theirs = (Table.fit(table, target) for table in (typed, text))
    assert mine == theirs and mine.fitted().values == theirs.fitted().values
    assert torch.equal(mine.fitted().tensors["table"], theirs.fitted().tensors["table"])
    for table in (mine, theirs):
        for encoded, wrong in (table.encode(typed), table.encode(text)):
            assert np.array_equal(encoded, theirs.encode(text)[0]) and wrong == theirs.encode(text)[1]
    # A word where training had numbers is named as it stands in the file, whoever reads it.
    for name, word in (("word", "'x'"), ("infinite", "'inf'")):
        other = Table.fit(text[["whole"]].rename(columns={"whole": name}), target)
        expected = f"{name} is {word}, but a number is expected; leave it empty if unknown."
        assert other.encode(typed)[1] == other.encode(text)[1] == dict.fromkeys(range(1, 80, 4), expected)


def test_numbers_have_the_same_bits(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=4000) * 10.0 ** random.integers(-30, 30, 4000)
    texts = [f"{value:.{digits}g}" for value, digits in zip(values, random.integers(1, 18, 4000), strict=True)]
    path = tmp_path / "table.csv"
    path.write_text("x\n" + "\n".join(texts) + "\n", "utf-8")
    expected = np.asarray(pd.to_numeric(pd.Series(texts, dtype=object)), np.float64)
    assert np.array_equal(read_large_csv(path)["x"].to_numpy(), expected)


def test_a_word_far_down_makes_the_column_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("x,y\n" + "1.50,2\n" * 3000 + "unknown,3\n", "utf-8")
    table = read_large_csv(path, texts=("y",))
    assert table["x"].tolist() == ["1.50"] * 3000 + ["unknown"] and table["y"].tolist()[-1] == "3"


def test_the_official_format_gives_the_same_schema(tmp_path: Path) -> None:
    root = isic2024.write(tmp_path / "moles", isic2024.Options(patients=60, size=32))
    manifest = open_manifest(root, "image_table", Request())
    text = as_text(root / "train-metadata.csv")
    rows = manifest.table.drop(columns=["id", "group", "split", "target", "image"])
    assert (rows.dtypes.map(lambda kind: kind.kind) == "f").sum() >= 34
    target = manifest.table["target"].tolist()
    assert target == text["target"].tolist()
    for settings in (TableSettings(), TableSettings(keep_features=8)):
        mine, theirs = (Table.fit(table, target, settings) for table in (rows, text[list(rows)]))
        assert mine == theirs and torch.equal(mine.fitted().tensors["table"], theirs.fitted().tensors["table"])
        assert np.array_equal(mine.encode(rows)[0], theirs.encode(text)[0])


@pytest.mark.parametrize("block", [1, 7, 1 << 23])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('a,b\n1,2\n\n"x\ny",3\n4\n', "line 6 has 1 values for the 2 columns"),
        ('a,b\r\n1,2\r\n\r\n"x,,\r\ny",3\r\n4,5,6\r\n', "line 6 has 3 values for the 2 columns"),
        ("a,b\n1,2\n3", "line 3 has 1 values for the 2 columns"),
        ('a,b\n1,"2\n3,4\n', "line 2 is not CSV (a quote is never closed)"),
    ],
)
def test_a_row_of_another_length_is_named(
    text: str, says: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_csv, "_BLOCK", block)
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        read_large_csv(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("block", [1, 7, 1 << 23])
def test_empty_lines_and_quotes_are_no_rows(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_csv, "_BLOCK", block)
    path = tmp_path / "table.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\n\n1,"x, ""y"", \nz"\n\r\n,\n3,w\n\n')
    table = read_large_csv(path)
    assert list(table) == ["a", "b"] and table["b"].tolist() == ['x, "y", \nz', "", "w"]
    assert texts_of(table["a"]) == ["1.0", "", "3.0"]


def test_what_is_read_once_is_read_again_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,x\n", "utf-8")
    first = read_large_csv(path)
    first.loc[0, "a"] = 5  # the next reader must not see it
    assert read_large_csv(path)["a"].tolist() == [1]
    path.write_text("a,b\n2,x\n", "utf-8")
    os.utime(path, ns=(1, 1))
    assert read_large_csv(path)["a"].tolist() == [2]


def test_values_to_tabulate_by_are_text_again(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("age,score\n60,1.5\n70,\n", "utf-8")
    table = read_large_csv(path)
    assert texts_of(table["age"]) == ["60", "70"] and texts_of(table["score"]) == ["1.5", ""]
