"""A user's own pairs with boxes: a manifest.csv with one row a pair.

Columns: id, group (the scene), rgb, ir, boxes (a file: .xml Pascal VOC, .txt YOLO or .json COCO), and if wanted
split, boxes_ir (a second annotation, united with the first) and condition (day or night). Paths start at the csv
file. The class names stand in classes.txt beside it, one a line, in the order of the class numbers of YOLO files;
COCO files bring their own.
"""

from collections.abc import Sequence
from pathlib import Path

from scanfuse.data.annotations import SUFFIXES, coco, yolo
from scanfuse.data.boxed_pairs import BoxedPair, BoxedPairs
from scanfuse.data.boxes import ClassMap
from scanfuse.data.layouts import Request
from scanfuse.data.layouts._boxed import ClassOptions, manifest_of_pairs
from scanfuse.data.manifest import Manifest, check_groups, read_csv
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/manifest.csv (or the csv file itself) with columns id, group, rgb, ir, boxes, and classes.txt beside it"
)
CITATION = "your own data"
LICENCE = "your own"
HOW_TO_GET = "write a manifest.csv; paths are relative to it"
EXPECTED: dict[str, tuple[int, int]] = {}
RANK = 8
KIND = "boxed_pairs"
PHANTOM = "boxed_manifest"
COLUMNS = ("id", "group", "rgb", "ir", "boxes")
FURTHER = ("split", "boxes_ir", "condition")


Options = ClassOptions


def matches(root: Path, request: Request) -> bool:
    """True if the csv file is there and has the columns rgb, ir and boxes."""
    file = _file(root)
    if not file.is_file() or file.suffix.lower() != ".csv":
        return False
    _, table = read_csv(file)
    return {"rgb", "ir", "boxes"} <= {str(name).lower() for name in table}


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per pair, its boxes as target; see `list_pairs`."""
    request.refuse("boxed_manifest", "group_pattern", "incomplete")
    found = list_pairs(root)
    return manifest_of_pairs(found, request, classes=options.classes)


def list_pairs(root: Path, *, classes: Sequence[str] = ()) -> BoxedPairs:
    """One pair per row.

    Args:
        root: the folder of manifest.csv, or the csv file.
        classes: names to keep; all if empty.

    Raises:
        UserError: a column, a cell or a file is missing, an unknown split, a group in two splits, or no class names.
    """
    file = _file(root)
    notes, table = read_csv(file)
    table = table.rename(columns=lambda name: name.lower() if name.lower() in (*COLUMNS, *FURTHER) else name)
    for name in COLUMNS:
        if name not in table:
            raise UserError(f"{file} has no column {name!r} (it has {', '.join(map(str, table))}); add it.")
    for name in FURTHER:
        if name not in table:
            table[name] = ""
    table["split"] = table["split"].str.lower().replace({"valid": "val", "validation": "val"})
    unknown = sorted(set(table["split"]) - {"train", "val", "test", ""})
    if unknown:
        raise UserError(f"{file} has the split {unknown[0]!r}; use train, val, test or leave it empty.")
    check_groups(table)
    pairs = []
    for row, cells in enumerate(table.to_dict("records"), start=1):
        for name in COLUMNS:
            if not cells[name]:
                raise UserError(f"{file} has no {name} in row {row}; fill it (an empty file if nothing is shown).")
        paths = [file.parent / cells[name] for name in ("rgb", "ir", "boxes", "boxes_ir") if cells[name]]
        for path in paths:
            if not path.is_file():
                raise UserError(
                    f"{file} names {path} in row {row}, which does not exist; paths start at the csv file."
                )
        for path in paths[2:]:
            if path.suffix.lower() not in (*SUFFIXES, ".json"):
                raise UserError(f"{file} names {path} in row {row}; boxes are .xml, .txt or .json files.")
        rgb, ir, *boxes = paths
        pairs.append(
            BoxedPair(
                cells["id"], cells["group"], cells["split"], rgb, ir, tuple(boxes), rgb.name, cells["condition"]
            )
        )
    names = _names(file, pairs)
    found = BoxedPairs(tuple(pairs), ClassMap(names), names, notes)
    return found.only(classes)


def _names(file: Path, pairs: Sequence[BoxedPair]) -> tuple[str, ...]:
    listed = file.parent / "classes.txt"
    if listed.is_file():
        return yolo.read_names(listed)
    files = dict.fromkeys(path for pair in pairs for path in pair.boxes if path.suffix.lower() == ".json")
    if not files:
        raise UserError(f"{listed} does not exist; write the class names into it, one a line.")
    return tuple(dict.fromkeys(name for path in files for name in coco.read_names(path)))


def _file(root: Path) -> Path:
    return root / "manifest.csv" if root.is_dir() else root
