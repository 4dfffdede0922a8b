"""Options of a layout as they are typed, name=value, to the typed section that the layout's module declares."""

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from scanfuse.config import Section
from scanfuse.errors import UserError

__all__ = ["options_of"]


def options_of(layout: str, options_type: type[Section], given: Mapping[str, Any]) -> Section:
    """The layout's options with the given values over its defaults.

    A text stands for a number where one is wanted, and for several words where these are joined by "+".

    Raises:
        UserError: an unknown name (the nearest is offered), or a value that the option cannot have.
    """
    known = options_type.model_fields
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}."
            raise UserError(f"The layout {layout!r} has no option {name!r}; {hint}")
    values = {
        name: _from_text(name, value, known[name].annotation) if isinstance(value, str) else value
        for name, value in given.items()
    }
    try:
        return options_type.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        expected = _expected(known[name].annotation, problem["type"])
        why = f"; it is {expected}." if expected else f": {problem['msg'][:1].lower()}{problem['msg'][1:]}."
        raise UserError(f"The option {name!r} cannot be {given[name]!r}{why}") from None


def _from_text(name: str, text: str, annotation: Any) -> Any:
    kinds = _kinds(annotation)
    words = {str(word): word for word in _words(kinds)}
    if text in words:
        return words[text]
    if any(typing.get_origin(kind) is tuple for kind in kinds):
        return tuple(part for part in text.split("+") if part)
    if any(typing.get_origin(kind) is dict for kind in kinds):
        raise UserError(f"The option {name!r} cannot be given as text; it is for programs.")
    return text  # pydantic makes numbers of it


def _expected(annotation: Any, problem: str) -> str:
    """What the option may be, where a few words say it; else pydantic's own message does."""
    if problem == "float_parsing":
        return "a number"
    kinds = _kinds(annotation)
    words = ", ".join(map(str, _words(kinds)))
    names = ", or names joined by +" if words and any(typing.get_origin(kind) is tuple for kind in kinds) else ""
    return f"one of {words}{names}" if words else ""


def _kinds(annotation: Any) -> tuple[Any, ...]:
    united = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if united else (annotation,)


def _words(kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(word for kind in kinds if typing.get_origin(kind) is Literal for word in typing.get_args(kind))
