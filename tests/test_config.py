"""The configuration: recipe, flags and record are one object, and a mistake is one clear line."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from scanfuse import config, options, systems
from scanfuse.errors import UserError


@pytest.mark.parametrize("name", systems.available())
def test_every_recipe_is_valid_and_survives_the_round_trip(name: str, tmp_path: Path) -> None:
    config_type = systems.load(name).Config
    found = config.presets(name)
    assert {"tiny"} <= set(found)
    for preset in found:
        built = config.build(config_type, config.preset(name, preset))
        config.write_yaml(built, tmp_path / "config.yaml")
        assert config.build(config_type, config.read_yaml(tmp_path / "config.yaml")) == built


@pytest.mark.parametrize("name", systems.available())
def test_every_leaf_has_its_own_flag_and_a_description(name: str) -> None:
    leaves = options.leaves(systems.load(name).Config)
    assert len(leaves) > 20
    assert len({leaf.flag for leaf in leaves}) == len(leaves)
    assert [leaf.flag for leaf in leaves if not leaf.field.description] == []


def test_later_layers_win() -> None:
    settings = config.build(config.TrainConfig, {"epochs": 3, "lr": 1e-3}, {"epochs": "7"})
    assert settings.epochs == 7
    assert settings.lr == 1e-3


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"epoch": 3}, "Unknown setting 'epoch': did you mean 'epochs'?"),
        ({"epochs": "many"}, "The setting 'epochs' cannot be 'many'"),
        ({"epochs": 0}, "The setting 'epochs' cannot be 0: input should be greater than or equal to 1."),
        ({"precision": "fp8"}, "The setting 'precision' cannot be 'fp8'"),
    ],
)
def test_mistakes_are_named(layer: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        config.build(config.TrainConfig, layer)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"seed": 99999999999999999999}, "less than or equal to 4294967295 (seed of weights"),
        ({"seed": 10**5000}, "The setting 'seed' cannot be a"),
        ({"seed": "9" * 5000}, "The setting 'seed' cannot be '999999"),
        ({"threads": 100_000_000}, "less than or equal to 1024 (CPU threads"),
        ({"workers": 100_000}, "less than or equal to 256 (processes that load data"),
        ({"epochs": 10**9}, "less than or equal to 1000000"),
        ({"batch": 10**9}, "less than or equal to 65536"),
        ({"accumulate": 10**9}, "less than or equal to 65536"),
        ({"patience": 10**9}, "less than or equal to 1000000"),
        ({"warmup_epochs": 1e9}, "less than or equal to 1000000"),
        ({"lr": "inf"}, "cannot be 'inf': input should be a finite number."),
        ({"lr": float("nan")}, "cannot be nan: input should be a finite number."),
        ({"weight_decay": float("inf")}, "input should be a finite number."),
        ({"epochs": True}, "The setting 'epochs' cannot be True: input should be a number."),
        ({"lr": False}, "The setting 'lr' cannot be False: input should be a number."),
        ({"lr": "2001-01-01"}, "The setting 'lr' cannot be '2001-01-01': input should be a valid number"),
        ({"lr": [[["x" * 1000] * 1000] * 1000] * 1000}, "The setting 'lr' cannot be [[[...]"),
        ({"x" * 100_000: 1}, "Unknown setting 'xxx"),
    ],
)
@pytest.mark.timeout(10)
def test_values_out_of_reason_are_refused_briefly(layer: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        config.build(config.TrainConfig, layer)
    assert message in str(caught.value) and len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = config.TrainConfig()
    with pytest.raises(ValueError, match="frozen"):
        settings.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize("text", ["a: [1", "just words", ""])
def test_a_broken_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml"):
        config.read_yaml(path)


def test_two_sections_with_one_flag_are_a_fault() -> None:
    class Left(config.Section):
        width: int = 1

    class Both(config.Section):
        left: Left = Left()
        width: int = 2

    with pytest.raises(ValueError, match="width"):
        options.leaves(Both)


def test_yaml_is_plain(tmp_path: Path) -> None:
    config.write_yaml(config.TrainConfig(), tmp_path / "train.yaml")
    assert yaml.safe_load((tmp_path / "train.yaml").read_text())["lr"] == 1e-4


@pytest.mark.parametrize("name", systems.available())
def test_every_choice_can_be_given_as_text(name: str) -> None:
    """Also a choice of numbers, which pydantic itself does not read from text."""
    leaves = options.leaves(systems.load(name).Config)
    chosen = [(leaf, text) for leaf in leaves for text in leaf.choices or ()]
    assert len(chosen) > 8
    for leaf, text in chosen:
        found = options.nested(leaves, {leaf.flag: text})
        for part in leaf.path[:-1]:
            found = found[part]
        adapter: TypeAdapter[Any] = TypeAdapter(leaf.field.annotation)
        assert str(adapter.validate_python(found[leaf.path[-1]])) == text
