"""Boxes as the target text of a manifest, so that they are split, hashed, recorded and compared like any target.

""                                       not annotated
"none"                                   annotated, and nothing is there
"person 12 30.5 40 96; car 0 44 80 90 difficult"    class, left, top, right, bottom in pixels, and flags
"""

import numpy as np

from scanfuse.data.boxes import Boxes
from scanfuse.errors import UserError

__all__ = ["NOTHING", "boxes_of", "class_names", "text_of"]

NOTHING = "none"
_FLAGS = ("ignore", "crowd", "difficult")


def text_of(boxes: Boxes) -> str:
    """The text of the boxes of one picture, places with at most two decimals."""
    parts = []
    for row, (name, corners) in enumerate(zip(boxes.names, boxes.xyxy, strict=True)):
        flags = [flag for flag in _FLAGS if getattr(boxes, flag)[row]]
        parts.append(" ".join([name, *(f"{round(float(value), 2):g}" for value in corners), *flags]))
    return "; ".join(parts) or NOTHING


def boxes_of(text: str, classes: tuple[str, ...]) -> Boxes:
    """The boxes of a target text; none where the picture is not annotated.

    Raises:
        UserError: a class that is not among `classes`, or a text of another form.
    """
    rows = _rows(text)
    unknown = next((name for name, _, _ in rows if name not in classes), None)
    if unknown is not None:
        raise UserError(f"A box is of the class {unknown!r}; the classes are {', '.join(classes)}.")
    flags = {flag: np.array([flag in row[2] for row in rows], bool) for flag in _FLAGS}
    try:
        return Boxes.of([row[1] for row in rows], [classes.index(row[0]) for row in rows], classes, **flags)
    except ValueError as error:
        raise UserError(f"The boxes {text[:80]!r} cannot be used: {error}.") from None


def class_names(text: str) -> list[str]:
    """The class of every box of a target text."""
    return [name for name, _, _ in _rows(text)]


def _rows(text: str) -> list[tuple[str, list[float], list[str]]]:
    if text in ("", NOTHING):
        return []
    rows = []
    for part in text.split(";"):
        words = part.split()
        flags = []
        while words and words[-1] in _FLAGS:
            flags.append(words.pop())
        try:
            corners = [float(word) for word in words[-4:]]
        except ValueError:
            corners = []
        if len(corners) != 4 or len(words) < 5:
            raise UserError(f"The boxes {part.strip()!r} are not of the form 'class left top right bottom'.")
        rows.append((" ".join(words[:-4]), corners, flags))
    return rows
