"""Which picture of a volume or a stack is meant: slices are taken only when they are asked for.

    axial:middle    sagittal:all    coronal:40      slices of a volume, by the patient's axes
    frame:0         frame:all                       frames of a DICOM, pages of a TIFF, frames of an animated PNG

Axial means axial whatever the order in which a file stores its voxels: the affine says which way its axes point.
Slices count from 0: axial from the feet upwards, coronal from back to front, sagittal from the patient's left to
right. "middle" is number count // 2.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scanfuse.errors import UserError
from scanfuse.foreign import shown

__all__ = ["AXES", "SliceChoice", "expand", "pick_frame"]

AXES = ("sagittal", "coronal", "axial")
"""The slices across the patient's axes x (to the right), y (to the front) and z (to the head)."""

_FORM = re.compile(r"(axial|coronal|sagittal|frame):(middle|all|[0-9]{1,7})")


@dataclass(frozen=True)
class SliceChoice:
    """Slices across one axis: number `index`, the middle one, or all of them.

    >>> SliceChoice.parse("axial:middle")
    SliceChoice(axis='axial', index='middle')
    >>> str(SliceChoice("frame", 3))
    'frame:3'
    """

    axis: Literal["axial", "coronal", "sagittal", "frame"]
    index: int | Literal["middle", "all"]

    @classmethod
    def parse(cls, text: str) -> "SliceChoice":
        """Reads "axis:index"; UserError if it is not of that form."""
        found = _FORM.fullmatch(text.strip().lower())
        if found is None:
            raise UserError(
                f"{text[:60]!r} names no slice: write axial, coronal, sagittal or frame, then a colon and a number, "
                "middle or all, such as axial:middle."
            )
        index = found[2] if found[2] in ("middle", "all") else int(found[2])
        return cls(found[1], index)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.axis}:{self.index}"

    def number(self, path: Path, count: int) -> int:
        """The one slice that is meant among `count`; UserError if it is not there or several are meant."""
        if self.index == "all" and count > 1:
            raise UserError(f"{shown(path)} has {count} slices {self}, which are not one picture; name one.")
        if self.index in ("middle", "all"):
            return count // 2
        if int(self.index) >= count:
            has = "has one slice, so only 0" if count == 1 else f"has slices 0 to {count - 1}"
            raise UserError(f"{shown(path)} {has}; {self} was asked for.")
        return int(self.index)


def expand(choice: SliceChoice, count: int) -> tuple[SliceChoice, ...]:
    """All slices across the axis of `choice`, one by one."""
    return tuple(replace(choice, index=number) for number in range(count))


def pick_frame(path: Path, choice: SliceChoice | None, count: int) -> int:
    """The frame to read of a file that is a stack of `count` pictures without patient's axes.

    Raises:
        UserError: there are several and none was asked for, slices of a volume were asked for, or it is not there.
    """
    if choice is None:
        if count > 1:
            raise UserError(
                f"{shown(path)} holds {count} pictures: choose with --slice frame:middle, frame:0 or frame:all."
            )
        return 0
    if choice.axis != "frame":
        raise UserError(
            f"{shown(path)} is no volume and has no {choice.axis} slices; "
            + ("choose with --slice frame:middle." if count > 1 else "leave --slice out.")
        )
    return choice.number(path, count)
