"""Which layout a folder has, and its options: the same two settings of several input kinds."""

from functools import partial
from typing import Annotated

from pydantic import AfterValidator

from scanfuse.data import layouts
from scanfuse.errors import UserError

__all__ = ["LayoutOptions", "known_layout", "layout_of"]


def _names_and_values(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        if not text.partition("=")[0] or "=" not in text:
            raise ValueError(f"expected name=value, not {text!r}")
    return value


def known_layout(kind: str, value: str) -> str:
    """The text of a setting; ValueError, as pydantic wants it, unless it is auto or a layout of the kind."""
    try:
        layouts.check_name(value, kind)
    except UserError as error:
        raise ValueError(str(error).removesuffix(".")) from None
    return value


LayoutOptions = Annotated[tuple[str, ...], AfterValidator(_names_and_values)]
"""Options of a layout as they are typed: name=value."""


def layout_of(kind: str) -> AfterValidator:
    """For `Annotated[str, ...]`: the text must be auto or a layout that an input kind reads."""
    return AfterValidator(partial(known_layout, kind))
