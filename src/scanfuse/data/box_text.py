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
    """The text of the boxes of one picture, places with two decimals, or more where a box is smaller than that.

    Raises:
        UserError: the name of a class cannot stand in such a text.
    """
    odd = next((name for name in boxes.names if not name or ";" in name or name != " ".join(name.split())), None)
    if odd is not None:
        raise UserError(f"The class name {odd!r} is empty or has a semicolon or odd blanks in it; rename the class.")
    parts = []
    for row, (name, corners) in enumerate(zip(boxes.names, boxes.xyxy, strict=True)):
        flags = [flag for flag in _FLAGS if getattr(boxes, flag)[row]]
        digits = 2 if (corners[2:] - corners[:2]).min() > 0.02 else 6
        places = (f"{float(value):.{digits}f}".rstrip("0").rstrip(".") for value in corners)
        parts.append(" ".join([name, *places, *flags]))
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
