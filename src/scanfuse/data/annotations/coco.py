"""COCO JSON: one file for many pictures, with "images", "annotations" and "categories".

Category ids may start at 0 and have gaps; they are only ever looked up. "bbox" is left, top, width, height in
pixels. "iscrowd" 1 marks a crowd, "ignore" 1 (an extension of pedestrian sets) a region to ignore. Segmentations and
areas are not read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scanfuse.data.annotations.checking import Annotated, Fault, Faulty, Found, checked, read_bytes
from scanfuse.data.boxes import Boxes, ClassMap
from scanfuse.errors import UserError

__all__ = ["MAX_BYTES", "encode", "read", "read_names"]

MAX_BYTES = 2**30
"""Of one file: the instances of COCO itself take 450 MB, nearly all of it outlines. Parsing needs some ten times that
in memory."""


def read(path: str | Path, *, classes: ClassMap, faulty: Faulty = "refuse") -> dict[str, Annotated]:
    """File name of each picture, as listed, -> its boxes; pictures without annotations have none.

    Args:
        path: the .json file.
        classes: which names count; every listed category must be known, used or not.
        faulty: "refuse" or "drop".

    Raises:
        UserError: not such a file, an id or a file name that occurs twice, an annotation of a picture or category
            that is not listed, or a faulty box.
    """
    path = Path(path)
    content = _content(path)
    names = _names(path, content["categories"])
    for name in names.values():
        try:
            classes.find(name)
        except LookupError as error:
            raise UserError(
                f"{path} has the category {name!r}, which is neither used ({', '.join(classes.classes)}) "
                f"nor dropped ({', '.join(classes.drop) or 'none'})."
            ) from error
    pictures = _pictures(path, content["images"])
    found: dict[int | str, list[Found]] = {key: [] for key in pictures}
    for place, entry in enumerate(content["annotations"]):
        where = f"annotation {place}"
        if not isinstance(entry, dict):
            raise UserError(f"{path}, {where} is not an object; export the file again.")
        where += f" (id {entry['id']})" if "id" in entry else ""
        picture, category = _id(entry.get("image_id")), _id(entry.get("category_id"))
        if picture is None or picture not in found:
            raise UserError(f"{path}, {where}: image_id {_shown(entry.get('image_id'))} is not among the images.")
        if category is None or category not in names:
            raise UserError(f"{path}, {where}: category_id {_shown(entry.get('category_id'))} is not a category.")
        crowd, ignore = (bool(entry.get(flag)) for flag in ("iscrowd", "ignore"))
        found[picture].append(Found(where, names[category], _edges(entry), crowd=crowd, ignore=ignore))
    return {
        name: checked(path, found[key], size=size, classes=classes, faulty=faulty)
        for key, (name, size) in pictures.items()
    }


def read_names(path: str | Path) -> tuple[str, ...]:
    """The names of the categories in the order of the file."""
    path = Path(path)
    return tuple(_names(path, _content(path)["categories"]).values())


def encode(pictures: Mapping[str, tuple[Boxes, tuple[int, int]]], *, first_category: int = 1) -> str:
    """The text of such a file: file name -> boxes, height and width; all of the same classes.

    Ids of pictures and annotations count from 1, of categories from `first_category` in the order of the classes.
    `difficult` becomes "ignore".
    """
    classes = next(iter(pictures.values()))[0].classes if pictures else ()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture, (name, (boxes, (height, width))) in enumerate(pictures.items(), start=1):
        images.append({"id": picture, "file_name": name, "height": height, "width": width})
        for row in range(len(boxes)):
            left, top, right, bottom = boxes.xyxy[row].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": picture,
                    "category_id": first_category + int(boxes.labels[row]),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": int(boxes.crowd[row]),
                }
                | ({"ignore": 1} if boxes.ignore[row] or boxes.difficult[row] else {})
            )
    categories = [{"id": first_category + place, "name": name} for place, name in enumerate(classes)]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def _content(path: Path) -> dict[str, list[Any]]:
    data = read_bytes(path, limit=MAX_BYTES)
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({str(error)[:120] or 'nested too deep'}); export it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a COCO file: it holds a {type(content).__name__}, not an object.")
    for name in ("images", "annotations", "categories"):
        if not isinstance(content.get(name), list):
            raise UserError(f"{path} is not a COCO file: it has no list {name!r}.")
    return content


def _names(path: Path, categories: list[Any]) -> dict[int | str, str]:
    found: dict[int | str, str] = {}
    for entry in categories:
        key, name = (_id(entry.get("id")), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if key is None or not isinstance(name, str) or not name.strip():
            raise UserError(f"{path}: the category {_shown(entry)} needs an id and a name.")
        if key in found or name in found.values():
            raise UserError(f"{path} lists the category {name!r} (id {key}) twice; give each its own id and name.")
        found[key] = name
    return found


def _pictures(path: Path, images: list[Any]) -> dict[int | str, tuple[str, tuple[int, int]]]:
    found: dict[int | str, tuple[str, tuple[int, int]]] = {}
    names: set[str] = set()
    for entry in images:
        key, name = (_id(entry.get("id")), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if key is None or not isinstance(name, str) or not name:
            raise UserError(f"{path}: the image {_shown(entry)} needs an id and a file_name.")
        if key in found or name in names:
            raise UserError(f"{path} lists the image {name!r} (id {key}) twice; keep one of them.")
        size = entry.get("height"), entry.get("width")
        if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size):
            raise UserError(
                f"{path}: the image {name!r} has the height {size[0]} and the width {size[1]}; mend them."
            )
        found[key] = (name, size)
        names.add(name)
    return found


def _edges(entry: Mapping[str, Any]) -> tuple[float, float, float, float] | Fault:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return Fault(f"bbox is {_shown(box)}, not [left, top, width, height]")
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in box):
        return Fault(f"bbox is {_shown(box)}, not four numbers")
    try:
        left, top, width, height = map(float, box)
    except OverflowError:
        return Fault("bbox holds a number that is far too large")
    return left, top, left + width, top + height


def _id(value: object) -> int | str | None:
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _shown(value: object) -> str:
    return repr(value)[:60]
