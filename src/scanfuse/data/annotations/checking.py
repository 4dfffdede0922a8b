"""The rules that every annotation file is held to, whatever its format.

A box that crosses the border of the picture is clipped to it and counted, apart for overhangs of at most one pixel
(rounding) and for larger ones. Refused, with the file and the line or object: coordinates that are no finite
numbers, a width or height of zero or less, a box that lies wholly outside the picture (or only touches it), a class
name that the task does not know.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from scanfuse.data.boxes import Boxes, ClassMap
from scanfuse.errors import UserError

__all__ = [
    "CLIPPED",
    "LEFT_OUT",
    "ROUNDING",
    "Annotated",
    "Fault",
    "Faulty",
    "Found",
    "Tally",
    "checked",
    "number",
    "read_bytes",
]

ROUNDING = 1.0
"""Pixels over the border that count as rounding."""

CLIPPED = "boxes that reached out of their picture and were clipped"
LEFT_OUT = "left out by name"
"""How notes on these begin."""

Faulty = Literal["refuse", "drop"]


class Fault(Exception):
    """One object that cannot be used: says why, without the file's name."""


@dataclass(frozen=True)
class Found:
    """One object as the file lists it.

    Attributes:
        where: such as "line 3" or "object 2".
        name: of the class, as written.
        edges: left, top, right, bottom in pixels, or what is wrong with them.
    """

    where: str
    name: str
    edges: tuple[float, float, float, float] | Fault
    ignore: bool = False
    crowd: bool = False
    difficult: bool = False


@dataclass(frozen=True)
class Annotated:
    """The boxes of one picture, and what was done to them.

    Attributes:
        boxes: inside the picture, of known classes.
        size: height and width of the picture.
        rounded: boxes clipped by at most one pixel.
        clipped: boxes clipped by more.
        dropped: class name as written -> number of boxes left out because the task drops it.
        faults: one line for each box that was left out because it cannot be used (only with faulty="drop").
    """

    boxes: Boxes
    size: tuple[int, int]
    rounded: int = 0
    clipped: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tally:
    """Sums over the annotations of a data set, and how they are said.

    >>> Tally(pictures=2, boxes={"car": 3}, dropped={"dog": 1}).notes()
    ('boxes: 3 car; pictures: 2', 'left out by name: 1 dog')
    """

    pictures: int = 0
    without_boxes: int = 0
    boxes: Mapping[str, int] = field(default_factory=dict)
    not_counted: int = 0
    rounded: int = 0
    clipped: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, annotations: Iterable[Annotated]) -> "Tally":
        """Of all pictures of a data set."""
        given = list(annotations)
        boxes: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        for one in given:
            boxes.update(one.boxes.names)
            dropped.update(one.dropped)
        return cls(
            pictures=len(given),
            without_boxes=sum(not len(one.boxes) for one in given),
            boxes=dict(sorted(boxes.items())),
            not_counted=int(sum((~one.boxes.counted).sum() for one in given)),
            rounded=sum(one.rounded for one in given),
            clipped=sum(one.clipped for one in given),
            dropped=dict(sorted(dropped.items())),
            faults=tuple(fault for one in given for fault in one.faults),
        )

    def notes(self) -> tuple[str, ...]:
        """One line for everything a reader of the results must know."""
        notes = [f"boxes: {_listed(self.boxes) or 'none'}; pictures: {self.pictures}"]
        for what, count in (
            ("pictures without a box", self.without_boxes),
            ("boxes marked ignore, crowd or difficult, which do not count", self.not_counted),
            (CLIPPED, self.clipped),
        ):
            if count:
                notes.append(f"{what}: {count}")
        if self.dropped:
            notes.append(f"{LEFT_OUT}: {_listed(self.dropped)}")
        if self.faults:
            notes.append(f"boxes left out as unusable: {len(self.faults)}, the first: {self.faults[0]}")
        return tuple(notes)


def checked(
    path: Path, found: Iterable[Found], *, size: tuple[int, int], classes: ClassMap, faulty: Faulty = "refuse"
) -> Annotated:
    """The boxes of one picture under the rules above.

    Args:
        path: of the file, for messages.
        found: its objects in order.
        size: height and width of the picture.
        classes: which names count.
        faulty: "refuse" raises at the first fault, "drop" lists them.

    Raises:
        UserError: a fault, in one line with the file and the object.
    """
    kept: list[Found] = []
    edges: list[tuple[float, ...]] = []
    labels: list[int] = []
    dropped: Counter[str] = Counter()
    faults: list[str] = []
    overhangs: list[float] = []
    for one in found:
        try:
            # What is no box is a fault even where its class is dropped: the line may be of another class.
            if isinstance(one.edges, Fault):
                raise one.edges
            label = _label(one, classes)
            if label is None:
                dropped[one.name.strip()] += 1
                continue
            inside, overhang = _inside(one.edges, size)
        except Fault as fault:
            line = f"{path}, {one.where}: {fault}"
            if faulty == "refuse":
                raise UserError(f"{line}; mend or remove it.") from fault
            faults.append(line)
            continue
        kept.append(one)
        edges.append(inside)
        labels.append(label)
        overhangs.append(overhang)
    boxes = Boxes.of(
        edges,
        labels,
        classes.classes,
        ignore=[one.ignore for one in kept],
        crowd=[one.crowd for one in kept],
        difficult=[one.difficult for one in kept],
    )
    rounded = sum(0 < overhang <= ROUNDING for overhang in overhangs)
    clipped = sum(overhang > ROUNDING for overhang in overhangs)
    return Annotated(boxes, size, rounded, clipped, dict(dropped), tuple(faults))


def number(text: str | None, what: str) -> float:
    """A finite number from a file; Fault for anything else (Python would also take "1_000" and "nan")."""
    if text is None or not text.strip():
        raise Fault(f"has no {what}")
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Fault(f"{what} is {text.strip()[:40]!r}, not a finite number")
    return value


def read_bytes(path: Path, *, limit: int) -> bytes:
    """The file's content; UserError if it is absent, cannot be read, or is larger than `limit` bytes."""
    try:
        length = path.stat().st_size
        if length > limit:
            raise UserError(
                f"{path} has {length / 2**20:.0f} MB, more than the {limit / 2**20:.0f} MB allowed; "
                "it is not an annotation of this kind."
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; add the annotation, an empty one if nothing is shown.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def _label(one: Found, classes: ClassMap) -> int | None:
    if not one.name.strip():
        raise Fault("has no class name")
    try:
        return classes.find(one.name)
    except LookupError as error:
        raise Fault(
            f"is of the class {one.name.strip()[:40]!r}, which is neither used ({', '.join(classes.classes)}) "
            f"nor dropped ({', '.join(classes.drop) or 'none'})"
        ) from error


def _inside(
    edges: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[tuple[float, float, float, float], float]:
    """The part inside the picture, and by how many pixels the box reached out of it."""
    left, top, right, bottom = edges
    height, width = size
    if not all(map(math.isfinite, edges)):
        raise Fault(f"the box ({_shown(edges)}) is not finite")
    if right <= left or bottom <= top:
        raise Fault(f"the box ({_shown(edges)}) is {right - left:g} wide and {bottom - top:g} high")
    inside = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        raise Fault(f"the box ({_shown(edges)}) lies outside the picture of {width} x {height} pixels")
    return inside, max(-left, -top, right - width, bottom - height, 0.0)


def _shown(edges: Iterable[float]) -> str:
    return ", ".join(f"{edge:g}" for edge in edges)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
