"""Pascal VOC XML: one file a picture, as LLVIP, M3FD and FLIR come with.

    <annotation> <size> width height depth </size>
      <object> <name/> [<difficult/>] <bndbox> xmin ymin xmax ymax </bndbox> </object> ...
    </annotation>

A file with a DOCTYPE is refused before it is parsed. The standard library's parser fetches no external entity, and
since expat 2.4.1 it stops entities that blow a file up a hundredfold; below 8 MiB of output it does not, and nobody
annotates boxes with entities.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from scanfuse.data.annotations.checking import Annotated, Fault, Faulty, Found, checked, number, read_bytes
from scanfuse.data.boxes import Boxes, ClassMap
from scanfuse.errors import UserError

__all__ = ["MAX_BYTES", "encode", "read"]

MAX_BYTES = 8 * 2**20
"""Of one file; 10,000 objects take 3 MB."""

_EDGES = ("xmin", "ymin", "xmax", "ymax")


def read(
    path: str | Path, *, size: tuple[int, int] | None, classes: ClassMap, faulty: Faulty = "refuse"
) -> Annotated:
    """The boxes of one file; coordinates as `scanfuse.data.annotations` says, faults as `checking` says.

    Args:
        path: the .xml file.
        size: height and width of the picture; must be what the file says, unless that is missing or 0 (old
            annotation tools wrote 0). None: the file's own, which must then be there.
        classes: which names count.
        faulty: "refuse" or "drop".

    Raises:
        UserError: not such a file, another size, or a faulty object.
    """
    path = Path(path)
    root = _parsed(path)
    return checked(path, _objects(root), size=_size(path, root, size), classes=classes, faulty=faulty)


def encode(boxes: Boxes, *, size: tuple[int, int], file_name: str, depth: int = 3) -> str:
    """The text of such a file; `ignore` and `crowd`, which the format does not have, become difficult."""
    height, width = size
    lines = [
        "<annotation>",
        f"  <filename>{escape(file_name)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>{depth}</depth></size>",
        "  <segmented>0</segmented>",
    ]
    for name, edges, counted in zip(boxes.names, boxes.xyxy, boxes.counted, strict=True):
        places = "".join(f"<{tag}>{_number(edge)}</{tag}>" for tag, edge in zip(_EDGES, edges, strict=True))
        lines += [
            "  <object>",
            f"    <name>{escape(name)}</name><pose>Unspecified</pose><truncated>0</truncated>"
            f"<difficult>{int(not counted)}</difficult>",
            f"    <bndbox>{places}</bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _parsed(path: Path) -> ElementTree.Element:
    data = read_bytes(path, limit=MAX_BYTES)
    if not data.strip():
        raise UserError(f"{path} is an empty file; a picture without objects has an <annotation> without <object>.")
    # In every encoding that the parser reads and that has no zero bytes, ASCII characters keep their codes.
    if b"\0" in data:
        raise UserError(f"{path} is not text in UTF-8; save it as UTF-8 XML.")
    if b"<!DOCTYPE" in data:
        raise UserError(
            f"{path} has a DOCTYPE, which annotations do not need and which can hide entities; remove it."
        )
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path} is not well-formed XML ({error}); export it again.") from error
    if root.tag != "annotation":
        raise UserError(f"{path} holds <{root.tag[:40]}>, not the <annotation> of Pascal VOC; export it again.")
    return root


def _size(path: Path, root: ElementTree.Element, size: tuple[int, int] | None) -> tuple[int, int]:
    try:
        stated = [round(number(root.findtext(f"size/{name}", "0"), f"the {name}")) for name in ("height", "width")]
    except Fault as fault:
        raise UserError(f"{path}: {fault}; mend its <size>.") from fault
    if min(stated) < 1:
        if size is None:
            raise UserError(f"{path} does not say the size of the picture; fill its <size> with width and height.")
        return size
    if size is not None and size != (stated[0], stated[1]):
        raise UserError(
            f"{path} is for a picture of {stated[1]} x {stated[0]} pixels, but this one has {size[1]} x {size[0]}; "
            "its boxes would be in the wrong places."
        )
    return stated[0], stated[1]


def _objects(root: ElementTree.Element) -> Iterator[Found]:
    for place, element in enumerate(root.findall("object"), start=1):
        name = element.findtext("name") or ""
        where = f"object {place}" + (f" ({name.strip()[:40]})" if name.strip() else "")
        difficult = (element.findtext("difficult") or "").strip() not in ("", "0", "false", "False")
        yield Found(where, name, _edges(element), difficult=difficult)


def _edges(element: ElementTree.Element) -> tuple[float, float, float, float] | Fault:
    box = element.find("bndbox")
    if box is None:
        return Fault("has no <bndbox>")
    try:
        left, top, right, bottom = (number(box.findtext(name), name) for name in _EDGES)
    except Fault as fault:
        return fault
    return left, top, right, bottom


def _number(edge: float) -> str:
    return str(int(edge)) if float(edge).is_integer() else f"{edge:.2f}"
