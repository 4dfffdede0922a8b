"""Settings from YAML that says plainly what it means: names, lists, text, true, false, null and decimal numbers.

YAML 1.1 makes more of text than a reader sees: 017 is 15, 1:30 is 90, `no` is false, 2001-01-01 is a date, the second
of two equal names wins, tags build objects, and aliases let a few lines stand for gigabytes. Here such text stays
text, and the rest is refused: a setting is what is written. All that `yaml.safe_dump` writes of plain values comes
back as it was.

Source: YAML 1.1 (Ben-Kiki, Evans, Net, 2005); the parser's events are PyYAML's.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from scanfuse.errors import UserError
from scanfuse.foreign import foreign, shown

__all__ = ["MAX_DEPTH", "parse"]

MAX_DEPTH = 20
"""Deeper nesting is refused; settings need three levels."""

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,39})")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def parse(path: str | Path, text: str) -> Any:
    """The content of one YAML document: nested dictionaries and lists; None if it is empty.

    Args:
        path: of the file, for messages.
        text: its content.

    Raises:
        UserError: no YAML; a tag, an alias, a second document, a name that is no text or occurs twice, or too many
            levels. One line that names the file and the line.
    """
    with foreign(path, "is not valid YAML", "correct it"):
        try:
            return _build(path, text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = error.problem or error.context or "it cannot be read"
            if "\\t" in problem:
                problem = "a tab; indent with blanks"
            raise UserError(f"{shown(path)}{_line(mark)} is not valid YAML: {problem}.") from None


def _build(path: str | Path, text: str) -> Any:
    """Builds the values from the parser's events, in a loop: no recursion that deep nesting could exhaust."""
    top: list[Any] = []
    open_values: list[list[Any] | dict[str, Any]] = [top]
    names: list[str | None] = [None]  # for each open value, the name that waits for its own
    documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = f"{shown(path)}{_line(event.start_mark)}"
        documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None or documents > 1:
            raise UserError(
                f"{line} uses a tag, an alias or a second document of YAML, which settings do without; write the "
                "value out."
            )
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event.value) if event.implicit[0] else event.value
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            value = {} if isinstance(event, yaml.MappingStartEvent) else []
        else:
            if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                open_values.pop()
                names.pop()
            continue
        into, name = open_values[-1], names[-1]
        if isinstance(into, list):
            into.append(value)
        elif name is not None:
            into[name], names[-1] = value, None
        elif not isinstance(value, str):
            raise UserError(f"{line} has a name that is not text; put quotes around it.")
        elif value in into:
            raise UserError(f"{line} sets {value[:60]!r} a second time; remove one.")
        else:
            names[-1] = value
        if isinstance(value, list | dict):
            open_values.append(value)
            names.append(None)
            if len(open_values) > MAX_DEPTH + 1:
                raise UserError(f"{line} nests deeper than {MAX_DEPTH} levels; flatten it.")
    return top[0] if top else None


def _line(mark: Any) -> str:
    return f" line {mark.line + 1}" if mark else ""


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
