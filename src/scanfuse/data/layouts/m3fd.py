"""M3FD: road and campus pairs by day, at night, in fog and glare, with six classes and no official split.

Frames were taken from videos, and neighbours look alike: a split by frame puts near duplicates of the training
pictures into the test set. Where one video ends and the next begins is not published. So the scene is a block of
consecutive numbers (100 by default), which leaks at its borders only; a list of scenes or lists of a published
paper's split can be given instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from scanfuse.data.boxed_pairs import (
    BoxedPair,
    BoxedPairs,
    block_of,
    find_folder,
    paired_files,
    read_lines,
    with_lists,
)
from scanfuse.data.boxes import ClassMap
from scanfuse.data.layouts import Request
from scanfuse.data.layouts._boxed import ClassOptions, manifest_of_pairs
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError

LAYOUT = "<root>/Vis/*.png, Ir/*.png and Annotation/*.xml of the same names"
CITATION = (
    "J. Liu et al.: Target-aware dual adversarial learning and a multi-scenario multi-modality benchmark, CVPR 2022"
)
LICENCE = "not stated; research use as asked for by the authors"
HOW_TO_GET = "https://github.com/JinyuanLiu-CV/TarDAL (M3FD_Detection.zip)"
EXPECTED = {"all": (4200, 34407)}
"""Part -> (pairs, boxes), for there is no split; the 300 pairs for fusion are a set of their own, unboxed."""
RANK = 6
KIND = "boxed_pairs"
PHANTOM = "m3fd"
CLASSES = ClassMap(("person", "car", "bus", "motorcycle", "lamp", "truck"), {"people": "person"})
"""In the order of the annotation files; numbers differ between loaders, so only names are used."""
BLOCK = 100


class Options(ClassOptions):
    """What is read, and what a scene is."""

    block: int = Field(BLOCK, ge=1, description="consecutive numbers that are taken as one scene")
    scenes: str = Field("", description="text file with lines 'name scene' for every pair, instead of blocks")
    train_list: str = Field("", description="text file of names for training; needs a test list too")
    val_list: str = Field("", description="text file of names for validation")
    test_list: str = Field("", description="text file of names for the test")


def matches(root: Path, request: Request) -> bool:
    """True if the folders of LAYOUT lie in `root` or in M3FD_Detection below it."""
    return _home(root) is not None


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per pair, its boxes as target; see `list_pairs`."""
    request.refuse("m3fd", "group_pattern", "incomplete")
    given = {"train": options.train_list, "val": options.val_list, "test": options.test_list}
    lists = {split: path for split, path in given.items() if path}
    if lists and not {"train", "test"} <= set(lists):
        raise UserError("Lists of M3FD come as train_list and test_list, val_list may stand beside them.")
    found = list_pairs(root, block=options.block, scenes=options.scenes or None, lists=lists or None)
    return manifest_of_pairs(found, request, classes=options.classes)


def list_pairs(
    root: Path,
    *,
    classes: Sequence[str] = (),
    block: int = BLOCK,
    scenes: str | Path | None = None,
    lists: Mapping[str, str | Path] | None = None,
) -> BoxedPairs:
    """One pair per name, without a split unless `lists` give one.

    Args:
        root: M3FD_Detection or the folder above it.
        classes: some of CLASSES; all if empty.
        block: how many consecutive numbers are taken as one scene.
        scenes: a text file with lines "name scene" for every pair, instead of blocks.
        lists: "train", "val", "test" -> a text file of names.

    Raises:
        UserError: a picture without its partner or its annotation, or a list that does not fit.
    """
    home = _home(root)
    if home is None:
        raise UserError(f"{root} is not in the layout 'm3fd': expected {LAYOUT}.")
    if block < 1:
        raise UserError(f"A block of pairs must have one or more, not {block}.")
    visible, infrared = find_folder(home, "Vis"), find_folder(home, "Ir")
    annotations = find_folder(home, "Annotation", "Annotations")
    assert visible is not None and infrared is not None and annotations is not None
    pairs = []
    for name, rgb, ir in paired_files(visible, infrared):
        boxes = annotations / f"{name}.xml"
        if not boxes.is_file():
            raise UserError(f"{boxes} does not exist, the annotation of {rgb}; complete the download.")
        pairs.append(BoxedPair(name, block_of(name, block), "", rgb, ir, (boxes,)))
    notes = [
        f"scenes are blocks of {block} consecutive numbers: neighbours look alike, and the videos are not published"
    ]
    if scenes is not None:
        pairs = _in_scenes(pairs, Path(scenes))
        notes = [f"scenes are those of {Path(scenes).name}"]
    expected = EXPECTED["all"][0]
    if len(pairs) != expected:
        notes.append(f"{len(pairs)} of the {expected} published pairs")
    found = BoxedPairs(tuple(pairs), CLASSES, notes=tuple(notes)).only(classes)
    return with_lists(found, lists) if lists else found


def _in_scenes(pairs: Sequence[BoxedPair], path: Path) -> list[BoxedPair]:
    given: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.replace(",", " ").split()
        if len(cells) != 2:
            raise UserError(f"{path} line {number} is {line!r}; expected a name and a scene.")
        if given.setdefault(cells[0], cells[1]) != cells[1]:
            raise UserError(f"{path} line {number} gives {cells[0]} a second scene; keep one.")
    missing = [pair.id for pair in pairs if pair.id not in given]
    if missing:
        raise UserError(f"{path} gives no scene for {missing[0]} ({len(missing)} of {len(pairs)} pairs); add them.")
    return [replace(pair, group=given[pair.id]) for pair in pairs]


def _home(root: Path) -> Path | None:
    for folder in (root, root / "M3FD_Detection"):
        named = (
            find_folder(folder, "Vis"),
            find_folder(folder, "Ir"),
            find_folder(folder, "Annotation", "Annotations"),
        )
        if all(path is not None for path in named):
            return folder
    return None
