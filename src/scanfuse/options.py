"""Configuration types as options of a command line, and the words that click cannot know beforehand.

Each leaf field of a configuration is one flag, named after the field with hyphens (or after its `flag` in
`json_schema_extra`, which may also have another name of it, `also`); flags are unique over the sections of a system,
so none needs a prefix.
"""

import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scanfuse.config import without_none
from scanfuse.errors import UserError

__all__ = ["Leaf", "leaves", "nested", "option_name", "pairs", "taken_out", "words_and_options"]


class Leaf(typing.NamedTuple):
    """One setting: the path to it in the configuration and how a command line shows it."""

    path: tuple[str, ...]
    flag: str
    field: FieldInfo

    @property
    def names(self) -> tuple[str, ...]:
        """The flag, and the other name that it may have."""
        extra = self.field.json_schema_extra if isinstance(self.field.json_schema_extra, dict) else {}
        return (self.flag, *([str(extra["also"])] if "also" in extra else []))

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The values of a `Literal` as texts, else None."""
        annotation = without_none(self.field.annotation)
        if typing.get_origin(annotation) is Literal:
            return tuple(str(value) for value in typing.get_args(annotation))
        return None

    @property
    def kind(self) -> str:
        """A word for the help text: integer, number, text, path or list."""
        annotation = without_none(self.field.annotation)
        names = {int: "integer", float: "number", Path: "path", bool: "true|false"}
        if self.choices:
            return "|".join(self.choices)
        if typing.get_origin(annotation) in (tuple, list):
            return "list"
        return names.get(annotation, "text") if isinstance(annotation, type) else "text"

    def value(self, text: str) -> Any:
        """What the configuration is given for the text after the flag; pydantic reads the rest."""
        annotation = without_none(self.field.annotation)
        if typing.get_origin(annotation) is Literal:  # pydantic takes no "2" for 2 there
            return next((choice for choice in typing.get_args(annotation) if str(choice) == text), text)
        return text.split(",") if self.kind == "list" else text


def leaves(config_type: type[BaseModel]) -> list[Leaf]:
    """All settings of a system's configuration in reading order.

    Raises:
        ValueError: two sections use the same flag (a fault of the system's author).
    """
    found: list[Leaf] = []
    for name, field in config_type.model_fields.items():
        if name == "system":
            continue
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for inner in leaves(annotation):
                found.append(Leaf((name, *inner.path), inner.flag, inner.field))
        else:
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            found.append(Leaf((name,), str(extra.get("flag", name)).replace("_", "-"), field))
    flags = [name for leaf in found for name in leaf.names]
    twice = sorted({flag for flag in flags if flags.count(flag) > 1})
    if twice:
        raise ValueError(f"{config_type.__name__}: the flags {twice} occur in more than one section")
    return found


def option_name(name: str) -> str:
    """A name as an option writes it: with hyphens."""
    return name.replace("_", "-")


def words_and_options(words: Sequence[str], flags: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Plain words, and `--name value` or `--name=value`, in any order; options in `flags` take no value."""
    plain, options, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            plain.append(word)
            continue
        options.append(word)
        if "=" not in word and rest and word[2:] not in flags:
            options.append(rest.pop(0))
    return plain, options


def nested(leaves: Sequence[Leaf], values: Mapping[str, str | None]) -> dict[str, Any]:
    """Flag -> value as sections of a configuration; None is left out."""
    given: dict[str, Any] = {}
    for leaf in leaves:
        value = values.get(leaf.flag)
        if value is not None:
            here = given
            for part in leaf.path[:-1]:
                here = here.setdefault(part, {})
            here[leaf.path[-1]] = leaf.value(value)
    return given


def taken_out(arguments: Sequence[str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of the options of these names, and all the other words."""
    options = {option_name(name) for name in names}
    of_names: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        written, equals, _ = word[2:].partition("=")
        into = of_names if word.startswith("--") and option_name(written) in options else others
        into.append(word)
        if word.startswith("--") and not equals and rest:
            into.append(rest.pop(0))
    return of_names, others


def pairs(arguments: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """`--name value` and `--name=value` pairs; hyphens and underscores are the same.

    Raises:
        UserError: an unknown name (the nearest known one is offered), one without a value, or one given twice.
    """
    by_option = {option_name(name): name for name in known}
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"Unexpected argument {word!r}.")
        written, equals, value = word[2:].partition("=")
        name = option_name(written)
        if name not in by_option:
            near = difflib.get_close_matches(name, by_option, n=1)
            hint = f"did you mean --{near[0]}?" if near else f"known: {', '.join('--' + k for k in by_option)}."
            raise UserError(f"No such option: --{written}; {hint}")
        if not equals:
            if not rest:
                raise UserError(f"The option --{name} needs a value.")
            value = rest.pop(0)
        if by_option[name] in found:
            raise UserError(f"The option --{name} was given twice.")
        found[by_option[name]] = value
    return found
