"""Pairs with boxes in COCO files: two folders of equal names and one or several .json files beside them.

The annotations' file names are looked up by name in both folders, whatever their suffix. Files whose name holds
train, val or test give the split; a single file gives none.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from scanfuse.data.annotations import coco
from scanfuse.data.boxed_pairs import BoxedPair, BoxedPairs, block_of, find_folder, paired_files
from scanfuse.data.boxes import ClassMap
from scanfuse.data.layouts import Request
from scanfuse.data.layouts._boxed import ClassOptions, manifest_of_pairs
from scanfuse.data.layouts.paired import group_of
from scanfuse.data.manifest import Manifest
from scanfuse.data.readers import stem
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/{Vis,visible,vi,rgb}/*, <root>/{Ir,infrared,thermal}/* of equal names and *.json (or annotations/*.json)"
)
CITATION = "your own data; the format: T.-Y. Lin et al.: Microsoft COCO, ECCV 2014"
LICENCE = "your own"
HOW_TO_GET = "put both sensors' pictures into two folders under equal names and export the boxes as COCO"
EXPECTED: dict[str, tuple[int, int]] = {}
RANK = 3
KIND = "boxed_pairs"
PHANTOM = "coco_pairs"
VISIBLE = ("vis", "visible", "vi", "rgb")
INFRARED = ("ir", "infrared", "thermal", "lwir")
BLOCK = 100
_SPLITS = {"train": "train", "val": "val", "test": "test"}


class Options(ClassOptions):
    """What is read, and what a scene is."""

    block: int = Field(BLOCK, ge=1, description="consecutive numbers that are taken as one scene")


def matches(root: Path, request: Request) -> bool:
    """True if both folders and a .json file lie in `root`."""
    both = find_folder(root, *VISIBLE) is not None and find_folder(root, *INFRARED) is not None
    return both and bool(_files(root))


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per pair, its boxes as target; see `list_pairs`."""
    request.refuse("coco_pairs", "incomplete")
    found = list_pairs(root, block=options.block, group_pattern=request.group_pattern)
    return manifest_of_pairs(found, request, classes=options.classes)


def list_pairs(
    root: Path, *, classes: Sequence[str] = (), block: int = BLOCK, group_pattern: str | None = None
) -> BoxedPairs:
    """One pair per listed picture.

    Args:
        root: the folder of LAYOUT.
        classes: categories to keep, by name; all of the files if empty.
        block: how many consecutive numbers are taken as one scene.
        group_pattern: regular expression whose first bracket (or whole match) in the name is the scene, instead.

    Raises:
        UserError: a listed picture is in neither or only one folder, a picture is in two files, files that do not
            say their split, or what the COCO reader finds wrong.
    """
    visible, infrared = find_folder(root, *VISIBLE), find_folder(root, *INFRARED)
    files = _files(root)
    if visible is None or infrared is None or not files:
        raise UserError(f"{root} is not in the layout 'coco_pairs': expected {LAYOUT}.")
    names = list(dict.fromkeys(name for path in files for name in coco.read_names(path)))
    known = ClassMap(tuple(names))
    there = {name: (rgb, ir) for name, rgb, ir in paired_files(visible, infrared)}
    pairs: dict[str, BoxedPair] = {}
    for path in files:
        split = _split(path) if len(files) > 1 else ""
        for listed in coco.read(path, classes=known, faulty="drop"):
            name = stem(Path(listed).name)
            if name not in there:
                raise UserError(
                    f"{path} lists {listed!r}, which is not in {visible}; add the picture or its entry's."
                )
            if name in pairs:
                raise UserError(f"{path} lists {listed!r}, which {pairs[name].boxes[0].name} lists too; keep one.")
            group = group_of(name, group_pattern) if group_pattern else block_of(name, block)
            pairs[name] = BoxedPair(name, group, split, *there[name], (path,), picture=listed)
    notes = []
    if not group_pattern:
        notes.append(
            f"scenes are blocks of {block} consecutive numbers: give a group pattern if names tell the scene"
        )
    if len(pairs) < len(there):
        notes.append(f"{len(there) - len(pairs)} of {len(there)} pairs are in no annotation file and are left out")
    found = BoxedPairs(tuple(pairs[name] for name in sorted(pairs)), known, notes=tuple(notes))
    return found.only(classes)


def _files(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    folders = [root, *(path for path in (root / "annotations",) if path.is_dir())]
    return sorted(path for folder in folders for path in folder.glob("*.json") if not path.name.startswith("."))


def _split(path: Path) -> str:
    found = [split for word, split in _SPLITS.items() if word in path.stem.lower()]
    if len(found) != 1:
        raise UserError(f"{path} does not say its split; several files must be named after train, val and test.")
    return found[0]
