"""Options made from configurations: every word that the help shows is taken, and mistakes are one line."""

import typing
from pathlib import Path
from typing import Any, Literal

import pytest

from scanfuse import config, systems
from scanfuse.config import without_none
from scanfuse.options import leaves, nested
from whole_jobs import Capture, fails


@pytest.mark.parametrize("name", systems.available())
def test_every_word_of_every_choice_is_taken_as_text(name: str) -> None:
    """Also where the choices are numbers, such as --stem-stride 1."""
    config_type = systems.load(name).Config
    found = [leaf for leaf in leaves(config_type) if leaf.choices]
    assert len(found) >= 5
    for leaf in found:
        words = typing.get_args(without_none(leaf.field.annotation))
        section: Any = config_type
        for part in leaf.path[:-1]:
            section = section.model_fields[part].annotation
        for text, word in zip(leaf.choices or (), words, strict=True):
            # What is refused alone.
            beside = {"pauc": {"pauc-above": "0.8"}, "stacked": {"network": "RUN"}}.get(text, {})
            given: Any = nested(leaves(config_type), {leaf.flag: text, **beside})
            for part in leaf.path[:-1]:
                given = given[part]
            assert getattr(config.build(section, given), leaf.path[-1]) == word, f"--{leaf.flag} {text}"


def test_numbers_to_choose_from_are_numbers() -> None:
    class Net(config.Section):
        stride: Literal[1, 2] | None = 2
        widths: tuple[int, ...] = (4, 8)

    class Whole(config.Section):
        net: Net = Net()

    found = leaves(Whole)
    assert nested(found, {"stride": "1", "widths": "3,5"}) == {"net": {"stride": 1, "widths": ["3", "5"]}}
    assert config.build(Whole, nested(found, {"stride": "1", "widths": "3,5"})).net == Net(stride=1, widths=(3, 5))
    assert nested(found, {"stride": "7", "widths": None}) == {"net": {"stride": "7"}}  # pydantic refuses it


def test_underscores_are_hyphens_in_a_training_too(tmp_path: Path, capsys: Capture) -> None:
    base = ["train", "clinicalfmamba", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")]
    for option in ("--split-seed", "--split_seed"):
        assert "split_seed' cannot be 'x'" in fails([*base, option, "x"], capsys)
        assert "does not exist" in fails([*base, option, "3"], capsys)
    said = fails([*base, "--epoch", "3"], capsys)
    assert said.startswith("No such option") and "--epochs" in said
    assert "did you mean 'epochs'" in fails(["train", "--from", str(wrong(tmp_path)), *base[2:]], capsys)


def wrong(folder: Path) -> Path:
    path = folder / "wrong.yaml"
    path.write_text("system: clinicalfmamba\ntrain:\n  epoch: 3\n")
    return path


def test_another_name_of_an_option_and_a_switch_without_a_value(tmp_path: Path, capsys: Capture) -> None:
    base = ["train", "mambaderm", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")]
    for option in ("--batch", "--batch-size", "--batch_size"):
        assert "batch' cannot be 'x'" in fails([*base, option, "x"], capsys)
        assert "does not exist" in fails([*base, option, "3"], capsys)
    for words in (["--quick-test"], ["--quick-test", "false"], ["--quick_test", "--fold", "2"]):
        assert "does not exist" in fails([*base, *words], capsys)
    assert "quick_test' cannot be 'maybe'" in fails([*base, "--quick-test", "maybe"], capsys)
    for fold in ("0", "1", "all"):
        assert "needs --folds K" in fails([*base, "--preset", "tiny", "--fold", fold], capsys)
