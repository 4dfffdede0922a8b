"""The words of a command line that click cannot know beforehand: inputs and settings that depend on the system."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from scanfuse.errors import UserError

__all__ = ["nested", "pairs", "words_and_options"]


def words_and_options(words: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Plain words, and `--name value` or `--name=value`, in any order."""
    plain, options, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            plain.append(word)
            continue
        options.append(word)
        if "=" not in word and rest:
            options.append(rest.pop(0))
    return plain, options


def nested(leaves: Sequence[Any], values: Mapping[str, str | None]) -> dict[str, Any]:
    """Flag -> value as sections of a configuration; None is left out."""
    given: dict[str, Any] = {}
    for leaf in leaves:
        value = values.get(leaf.flag)
        if value is not None:
            here = given
            for part in leaf.path[:-1]:
                here = here.setdefault(part, {})
            here[leaf.path[-1]] = value.split(",") if leaf.kind == "list" else value
    return given


def pairs(arguments: list[str], known: list[str]) -> dict[str, str]:
    """`--name value` and `--name=value` pairs; an unknown name is refused with the nearest known one."""
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"Unexpected argument {word!r}.")
        name, equals, value = word[2:].partition("=")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean --{near[0]}?" if near else f"known: {', '.join('--' + k for k in known)}."
            raise UserError(f"No such option: --{name}; {hint}")
        if not equals:
            if not rest:
                raise UserError(f"The option --{name} needs a value.")
            value = rest.pop(0)
        found[name] = value
    return found
