"""Files that annotate boxes: Pascal VOC XML (one a picture), YOLO txt (one a picture), COCO JSON (one for many).

Coordinates are taken as edges: a VOC box of xmin 1 and xmax 5 is 4 pixels wide. Pascal's own files count pixels from
1 and include the last; labelImg and its kin write the rounded edges and only replace 0 by 1. That LLVIP, M3FD and
FLIR were drawn with such a tool is a guess: of the M3FD boxes seen, those at the left border begin at 1, none at 0.
So nothing is subtracted here; half a pixel is at stake.
"""

from collections.abc import Sequence
from pathlib import Path

from scanfuse.data.annotations import coco, voc, yolo
from scanfuse.data.annotations.checking import Annotated, Faulty, Tally
from scanfuse.data.boxes import ClassMap
from scanfuse.errors import UserError

__all__ = ["SUFFIXES", "Annotated", "Faulty", "Tally", "coco", "read_boxes", "voc", "yolo"]

SUFFIXES = (".xml", ".txt")
"""Of the formats with one file a picture."""


def read_boxes(
    path: str | Path,
    *,
    size: tuple[int, int],
    classes: ClassMap,
    names: Sequence[str] = (),
    faulty: Faulty = "refuse",
) -> Annotated:
    """The boxes of one picture from its own .xml or .txt file.

    Args:
        path: the file; its suffix says the format.
        size: height and width of the picture.
        classes: which names count and which are left out.
        names: what the numbers of a YOLO file mean; the classes themselves if empty.
        faulty: "refuse" raises at the first fault, "drop" leaves such boxes out and lists them.

    Raises:
        UserError: another suffix, or what the format's reader finds wrong.
    """
    path = Path(path)
    if path.suffix.lower() == ".xml":
        return voc.read(path, size=size, classes=classes, faulty=faulty)
    if path.suffix.lower() == ".txt":
        return yolo.read(path, size=size, classes=classes, names=names or classes.classes, faulty=faulty)
    raise UserError(f"{path} is no annotation of one picture; expected {' or '.join(SUFFIXES)}.")
