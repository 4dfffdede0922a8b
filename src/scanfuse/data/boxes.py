"""Annotated boxes of one picture, the names of their classes, and the union of two annotations.

A box is (left, top, right, bottom) in pixels, edges and not centres: pixel (0, 0) covers 0 to 1 in x and y, so a box
around it alone is (0, 0, 1, 1) and has the area 1. Places are float64 in the stored picture's own pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import ArrayLike

from scanfuse.errors import UserError

__all__ = ["Boxes", "ClassMap", "iou", "joined", "union"]


@dataclass(frozen=True, eq=False)
class Boxes:
    """Any number of boxes, none included.

    Attributes:
        xyxy: left < right and top < bottom, in pixels.
        labels: the class of each box, a place in `classes`.
        classes: the names.
        ignore: a region that is neither to be found nor missed (CityPersons and KAIST have such).
        crowd: a region of several objects that were not told apart (COCO "iscrowd").
        difficult: hard to recognise even for the annotator (Pascal VOC).

    Raises:
        ValueError: arrays that do not fit together, a label without a class, or a box that is no box.
    """

    xyxy: Float64[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    ignore: Bool[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    difficult: Bool[np.ndarray, " n"]

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.xyxy.shape != (count, 4) or any(len(flags) != count for flags in self._flags):
            raise ValueError(f"{count} labels, but boxes {self.xyxy.shape} and {[len(f) for f in self._flags]} flags")
        if count and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise ValueError(f"labels {self.labels.min()} to {self.labels.max()} for {len(self.classes)} classes")
        if not np.isfinite(self.xyxy).all() or (self.xyxy[:, 2:] <= self.xyxy[:, :2]).any():
            raise ValueError("a box is not finite, or has no area")

    @classmethod
    def of(
        cls,
        xyxy: ArrayLike,
        labels: ArrayLike,
        classes: Sequence[str],
        *,
        ignore: ArrayLike | None = None,
        crowd: ArrayLike | None = None,
        difficult: ArrayLike | None = None,
    ) -> "Boxes":
        """From anything array-like; flags that are not given are False.

        >>> Boxes.of([[0, 0, 4, 2]], [1], ("person", "car")).names
        ('car',)
        """
        places = np.asarray(xyxy, np.float64).reshape(-1, 4)
        flags = [
            np.zeros(len(places), bool) if given is None else np.asarray(given, bool).reshape(-1)
            for given in (ignore, crowd, difficult)
        ]
        return cls(places, np.asarray(labels, np.int64).reshape(-1), tuple(classes), *flags)

    @classmethod
    def none(cls, classes: Sequence[str]) -> "Boxes":
        """A picture without an object."""
        return cls.of(np.zeros((0, 4)), np.zeros(0), classes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def _flags(self) -> tuple[Bool[np.ndarray, " n"], ...]:
        return self.ignore, self.crowd, self.difficult

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each box."""
        return tuple(self.classes[label] for label in self.labels)

    @property
    def counted(self) -> Bool[np.ndarray, " n"]:
        """True for objects that are to be found: neither ignore nor crowd nor difficult."""
        return ~(self.ignore | self.crowd | self.difficult)

    @property
    def areas(self) -> Float64[np.ndarray, " n"]:
        """In square pixels."""
        return np.asarray((self.xyxy[:, 2:] - self.xyxy[:, :2]).prod(axis=1))

    def at(self, index: ArrayLike) -> "Boxes":
        """Those of a mask or of a list of places, in that order."""
        chosen = np.asarray(index)
        chosen = chosen.astype(np.int64) if chosen.dtype != bool else chosen
        return Boxes(self.xyxy[chosen], self.labels[chosen], self.classes, *(flags[chosen] for flags in self._flags))

    def moved(self, xyxy: Float64[np.ndarray, "n 4"]) -> "Boxes":
        """The same objects in other places."""
        return replace(self, xyxy=np.asarray(xyxy, np.float64))


def joined(parts: Iterable[Boxes]) -> Boxes:
    """All boxes of several lists of the same classes, in order; ValueError for none or for unequal classes."""
    given = list(parts)
    if not given or any(part.classes != given[0].classes for part in given):
        raise ValueError("expected one or more lists of boxes of the same classes")
    flags = [np.concatenate([part._flags[place] for part in given]) for place in range(3)]
    labels = np.concatenate([part.labels for part in given])
    return Boxes(np.concatenate([part.xyxy for part in given]), labels, given[0].classes, *flags)


def iou(a: Float64[np.ndarray, "n 4"], b: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "n m"]:
    """Area of the intersection over area of the union of every box of `a` with every box of `b`; in [0, 1].

    >>> iou(np.array([[0., 0, 2, 2]]), np.array([[1., 0, 3, 2], [5., 5, 6, 6]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None, :] - shared))


def union(first: Boxes, second: Boxes, *, threshold: float = 0.5) -> Boxes:
    """What either annotation of the same picture shows: boxes of one class with IoU > `threshold` are one object.

    Pairs are merged from the largest IoU down, each box at most once, so |union| = |first| + |second| - merged and
    two boxes of the same annotation never merge. A merged box is the mean of its two, drawn independently; it keeps
    a flag only if both have it, for what one annotator saw clearly is to be found. Order: `first` (merged ones in
    place), then what only `second` shows. Which annotation comes first changes the order, not the boxes.

    Raises:
        ValueError: unequal classes, or a threshold outside [0, 1).
    """
    if first.classes != second.classes or not 0 <= threshold < 1:
        raise ValueError(f"classes {first.classes} and {second.classes}, threshold {threshold}")
    overlap = iou(first.xyxy, second.xyxy)
    overlap[first.labels[:, None] != second.labels[None, :]] = 0
    xyxy = first.xyxy.copy()
    flags = [own.copy() for own in first._flags]
    free, alone = np.ones(len(first), bool), np.ones(len(second), bool)
    pairs = np.argwhere(overlap > threshold)
    for a, b in pairs[np.argsort(-overlap[tuple(pairs.T)], kind="stable")]:
        if not (free[a] and alone[b]):
            continue
        free[a] = alone[b] = False
        xyxy[a] = (first.xyxy[a] + second.xyxy[b]) / 2
        for own, other in zip(flags, second._flags, strict=True):
            own[a] &= other[b]
    return joined([Boxes(xyxy, first.labels, first.classes, *flags), second.at(alone)])


@dataclass(frozen=True)
class ClassMap:
    """From the names of an annotation file to the classes of a task, by name and never by number.

    Names are compared without regard to case and surrounding blanks. A name is one of `classes`, one of `aliases`,
    or one of `drop`; anything else is an error, so that no misspelt class is lost in silence.

    Attributes:
        classes: the task's classes; a box's label is its place here.
        aliases: further spellings, such as {"people": "person"}.
        drop: names that are left out and counted.

    Raises:
        UserError: no class, a class named twice, an alias of no class, or a name that is kept and dropped.
    """

    classes: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = [_key(name) for name in self.classes]
        if not known or "" in known or len(set(known)) < len(known):
            raise UserError(f"Name each class once, and at least one; got {', '.join(self.classes) or 'none'}.")
        for spelling, name in self.aliases.items():
            if _key(name) not in known:
                raise UserError(f"{spelling!r} stands for {name!r}, which is not among {', '.join(self.classes)}.")
        both = [name for name in self.drop if _key(name) in {*known, *map(_key, self.aliases)}]
        if both:
            raise UserError(f"The class {both[0]!r} is both kept and dropped; choose one.")

    def find(self, name: str) -> int | None:
        """The number of a class; None for a name that is dropped.

        Raises:
            LookupError: the name is not known.
        """
        table = self._table
        if _key(name) not in table:
            raise LookupError(name)
        return table[_key(name)]

    def only(self, names: Sequence[str]) -> "ClassMap":
        """The same map for some of the classes, in the order given; the others are dropped (and so counted).

        >>> ClassMap(("person", "car"), {"people": "person"}).only(("car",)).find("People") is None
        True
        """
        numbers = {_key(name): number for number, name in enumerate(self.classes)}
        wanted: list[str] = []
        for name in names:
            try:
                number = self.find(name)
            except LookupError:
                number = None
            if number is None:
                raise UserError(f"There is no class {name!r}; choose from {', '.join(self.classes)}.")
            wanted.append(self.classes[number])
        aliases = {spelling: name for spelling, name in self.aliases.items() if name in wanted}
        lost = [self.classes[number] for name, number in numbers.items() if self.classes[number] not in wanted]
        lost += [spelling for spelling in self.aliases if spelling not in aliases]
        return ClassMap(tuple(wanted), aliases, (*self.drop, *lost))

    @property
    def _table(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {_key(name): None for name in self.drop}
        found |= {_key(name): number for number, name in enumerate(self.classes)}
        return found | {_key(spelling): found[_key(name)] for spelling, name in self.aliases.items()}


def _key(name: str) -> str:
    return name.strip().casefold()
