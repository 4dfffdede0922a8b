"""A settings file says what it means, and one that says something else is one line, at once."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scanfuse import config
from scanfuse.errors import UserError


def read(path: Path, text: str) -> dict[str, Any]:
    (path / "config.yaml").write_text(text, encoding="utf-8")
    return config.read_yaml(path / "config.yaml")


def refusal(path: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        read(path, text)
    message = str(caught.value)
    assert message.startswith(f"{path}/config.yaml") and message.isprintable() and len(message) < 400
    return message.removeprefix(f"{path}/config.yaml ")


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "numbers": [0, -3, 10**20, 0.1, -1e-7, 1e300, 5e-324, 123456789.123, 1.0],
        "words": [True, False, None],
        "texts": [
            "",
            "1",
            "1.5",
            "1e-4",
            "1e5",
            "017",
            "1:30",
            "no",
            "yes",
            "on",
            "~",
            "null",
            "true",
            "0x1F",
            "1_000",
        ],
        "more": [
            "2001-01-01",
            ".5",
            "<<",
            "=",
            "- a",
            "a: b",
            "# c",
            "two\nlines",
            "Müller",
            "'",
            '"',
            " x ",
            "!!int 3",
        ],
        "deeper": {"list": [[1], {"a": []}], "empty": {}},
    }
    assert read(tmp_path, yaml.safe_dump(values, allow_unicode=True)) == values
    assert read(tmp_path, yaml.safe_dump(values, default_flow_style=True)) == values


def test_text_stays_text(tmp_path: Path) -> None:
    found = read(tmp_path, "a: 017\nb: 1:30\nc: no\nd: 2001-01-01\ne: 0x1F\nf: 1_000\ng: 2001-99-99\nh: 1e-4\n")
    assert list(found.values()) == ["017", "1:30", "no", "2001-01-01", "0x1F", "1_000", "2001-99-99", "1e-4"]
    # Where a number is wanted, these are decimal or refused; YAML 1.1 would train with the seed 8.
    assert config.build(config.TrainConfig, read(tmp_path, "seed: 010\nlr: 1e-4\n")).seed == 10
    with pytest.raises(UserError, match="'lr' cannot be '2001-99-99'"):
        config.build(config.TrainConfig, read(tmp_path, "lr: 2001-99-99"))


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb:\n  c: 2\n  c: 3\n", "line 4 sets 'c' a second time; remove one."),
        ("lr: !!int abc", "line 1 uses a tag, an alias or a second document"),
        ("lr: !!timestamp x", "line 1 uses a tag"),
        ("lr: !!python/object/apply:os.system [ls]", "line 1 uses a tag"),
        (BOMB, "line 2 uses a tag, an alias"),
        ("a: &a [*a]", "line 1 uses a tag, an alias"),
        ("a: 1\n---\nb: 2\n", "line 2 uses a tag, an alias or a second document"),
        ("a: " + "[" * 3000, "line 1 nests deeper than 20 levels"),
        ("{a: " * 3000, "line 1 nests deeper than 20 levels"),
        ("1: 2", "line 1 has a name that is not text"),
        ("a:\n  null: 2", "line 2 has a name that is not text"),
        ("[a]: 2", "line 1 has a name that is not text"),
        ("a:\n\tb: 1", "line 2 is not valid YAML: a tab; indent with blanks."),
        ("a: [1", "is not valid YAML: "),
        ("a: 'x", "is not valid YAML: "),
        ("a: b: c", "line 1 is not valid YAML: mapping values are not allowed here."),
        ("a: \x07", "is not valid YAML ("),
        ("a: \x00", "line 1 holds a NUL character"),
        ("just words", "holds no settings"),
        ("- 1", "holds no settings"),
        ("", "is an empty file"),
        ("# a comment", "holds no settings"),
        ("a: " + "9" * 300_000, "has 0.3 MB, more than the 0.2 MB allowed for a configuration file."),
    ],
)
@pytest.mark.timeout(10)
def test_what_is_not_plain_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_number_of_many_digits_is_one_line(tmp_path: Path) -> None:
    settings = read(tmp_path, "seed: " + "9" * 5000)
    with pytest.raises(UserError, match=r"^The setting 'seed' cannot be '9{20,40}\.\.\.9+': .{0,200}$"):
        config.build(config.TrainConfig, settings)
