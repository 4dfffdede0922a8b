"""YOLO txt: one file a picture, one line a box: class number, then centre x and y, width and height as shares.

Blanks may be repeated and stand at the end of a line, the last line may lack its end, and an empty file is a picture
without objects (all of which MSRS has). Shares may be outside 0 to 1 by rounding; values beyond 1 % outside are
refused, for they are pixels or corners that were never normalised.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from scanfuse.data.annotations.checking import Annotated, Fault, Faulty, Found, checked, number, read_bytes
from scanfuse.data.boxes import Boxes, ClassMap
from scanfuse.errors import UserError

__all__ = ["MAX_BYTES", "encode", "read", "read_names"]

MAX_BYTES = 4 * 2**20
"""Of one file; 10,000 lines take 0.6 MB."""
SLACK = 0.01
"""How far a share may lie outside 0 to 1."""

_FIELDS = ("the centre x", "the centre y", "the width", "the height")


def read(
    path: str | Path,
    *,
    size: tuple[int, int],
    classes: ClassMap,
    names: Sequence[str],
    faulty: Faulty = "refuse",
) -> Annotated:
    """The boxes of one file; faults as `scanfuse.data.annotations.checking` says.

    Args:
        path: the .txt file.
        size: height and width of the picture.
        classes: which names count.
        names: what the class numbers mean, from 0.
        faulty: "refuse" or "drop".

    Raises:
        UserError: not such a file, or a faulty line.
    """
    path = Path(path)
    return checked(path, _lines(_text(path), size, names), size=size, classes=classes, faulty=faulty)


def encode(boxes: Boxes, *, size: tuple[int, int]) -> str:
    """The text of such a file, six decimals as in MSRS; it has no place for flags.

    Raises:
        ValueError: a box is marked ignore, crowd or difficult, which would be lost.
    """
    if not boxes.counted.all():
        raise ValueError("YOLO files cannot mark boxes as ignore, crowd or difficult")
    height, width = size
    lines = []
    for label, (left, top, right, bottom) in zip(boxes.labels, boxes.xyxy, strict=True):
        shares = ((left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width)
        lines.append(f"{label} " + " ".join(f"{share:.6f}" for share in (*shares, (bottom - top) / height)) + "\n")
    return "".join(lines)


def read_names(path: str | Path) -> tuple[str, ...]:
    """The class names of a classes.txt: one a line, first number 0; UserError if one is empty or doubled."""
    path = Path(path)
    names = tuple(line.strip() for line in _text(path).splitlines())
    while names and not names[-1]:
        names = names[:-1]
    if not names or not all(names) or len(set(names)) < len(names):
        raise UserError(f"{path} must name each class once, one a line; it holds {', '.join(names) or 'nothing'}.")
    return names


def _text(path: Path) -> str:
    try:
        return read_bytes(path, limit=MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8; it is not a YOLO annotation.") from error


def _lines(text: str, size: tuple[int, int], names: Sequence[str]) -> Iterator[Found]:
    for place, line in enumerate(text.splitlines(), start=1):
        cells = line.split()
        if cells:
            where = f"line {place}"
            try:
                yield Found(where, _name(cells, names), _edges(cells, size))
            except Fault as fault:
                yield Found(where, "", fault)


def _name(cells: Sequence[str], names: Sequence[str]) -> str:
    if len(cells) != 5:
        raise Fault(f"has {len(cells)} values instead of a class number and four shares")
    value = number(cells[0], "the class number")
    if not value.is_integer() or not 0 <= value < len(names):
        raise Fault(f"the class number is {cells[0]}, not 0 to {len(names) - 1} ({', '.join(names)})")
    return names[int(value)]


def _edges(cells: Sequence[str], size: tuple[int, int]) -> tuple[float, float, float, float]:
    shares = [number(cell, what) for cell, what in zip(cells[1:], _FIELDS, strict=True)]
    for share, cell, what in zip(shares, cells[1:], _FIELDS, strict=True):
        if not -SLACK <= share <= 1 + SLACK:
            raise Fault(f"{what} is {cell}, but YOLO files hold shares of the picture from 0 to 1")
    x, y, across, down = shares
    height, width = size
    return (x - across / 2) * width, (y - down / 2) * height, (x + across / 2) * width, (y + down / 2) * height
