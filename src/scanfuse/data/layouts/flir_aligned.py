"""FLIR-Aligned: the pairs of FLIR's ADAS set that could be registered, with boxes drawn on infrared.

Both lists name the infrared stems. Numbers up to 08862 come from FLIR's training videos and later ones from its
validation videos, sampled once or twice a second, so neighbouring numbers are neighbouring moments; where a video
ends is not published, and the scene is taken as a block of 50 consecutive numbers (a guess).
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from scanfuse.data.boxed_pairs import BoxedPair, BoxedPairs, block_of, find_folder, read_lines
from scanfuse.data.boxes import ClassMap
from scanfuse.data.layouts import Request
from scanfuse.data.layouts._boxed import ClassOptions, manifest_of_pairs
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/JPEGImages/FLIR_<number>_{RGB.jpg,PreviewData.jpeg}, Annotations/FLIR_<number>_PreviewData.xml, "
    "align_train.txt and align_validation.txt (in <root> or in ImageSets/Main)"
)
CITATION = (
    "H. Zhang et al.: Multispectral fusion for object detection with cyclic fuse-and-refine blocks, ICIP 2020; "
    "pictures: Teledyne FLIR, Free ADAS Thermal Dataset v1"
)
LICENCE = "FLIR's terms for the ADAS dataset: non-commercial use, no redistribution"
HOW_TO_GET = (
    "the link in the ICIP paper's repository; the pictures need FLIR's terms (https://www.flir.com/oem/adas/)"
)
EXPECTED = {"train": (4129,), "test": (1013,)}
"""Split -> (pairs,); the published validation list is test here. The authors once wrote 4128."""
RANK = 7
KIND = "boxed_pairs"
PHANTOM = "flir_aligned"
CLASSES = ClassMap(("person", "car", "bicycle"), {"people": "person"}, ("dog", "other vehicle"))
"""A few boxes of dogs have stayed in the training annotations; published results leave them out."""
BLOCK = 50
_LISTS = {"train": "align_train.txt", "test": "align_validation.txt"}


class Options(ClassOptions):
    """What is read, and what a scene is."""

    block: int = Field(BLOCK, ge=1, description="consecutive numbers that are taken as one scene")


def matches(root: Path, request: Request) -> bool:
    """True if JPEGImages and a list lie in `root` or in its folder align."""
    return _home(root) is not None


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per pair, its boxes as target; see `list_pairs`."""
    request.refuse("flir_aligned", "group_pattern", "incomplete")
    found = list_pairs(root, block=options.block)
    return manifest_of_pairs(found, request, classes=options.classes)


def list_pairs(root: Path, *, classes: Sequence[str] = (), block: int = BLOCK) -> BoxedPairs:
    """One pair per line of the lists; the validation list is test.

    Args:
        root: the folder of LAYOUT or the one above it, where it is called align.
        classes: some of CLASSES; all if empty.
        block: how many consecutive numbers are taken as one scene; a scene never spans both lists.

    Raises:
        UserError: a file that a list names is missing, a name that is listed twice, or a list is missing.
    """
    home = _home(root)
    if home is None:
        raise UserError(f"{root} is not in the layout 'flir_aligned': expected {LAYOUT}.")
    if block < 1:
        raise UserError(f"A block of pairs must have one or more, not {block}.")
    pairs: list[BoxedPair] = []
    seen: dict[str, str] = {}
    notes = [
        f"scenes are blocks of {block} consecutive numbers: neighbours look alike, and the videos are not published",
        "boxes were drawn on infrared: what only RGB shows may have none",
    ]
    for split, (expected,) in EXPECTED.items():
        path = _list(home, _LISTS[split])
        if path is None:
            notes.append(f"{_LISTS[split]} is not here")
            continue
        names = [line.removesuffix("_PreviewData").removesuffix("_RGB") for line in read_lines(path)]
        for name in names:
            if name in seen:
                raise UserError(f"{path} names {name}, which is already in {seen[name]}; remove one.")
            seen[name] = path.name
            files = [
                home / "JPEGImages" / f"{name}_RGB.jpg",
                home / "JPEGImages" / f"{name}_PreviewData.jpeg",
                home / "Annotations" / f"{name}_PreviewData.xml",
            ]
            for file in files:
                if not file.is_file():
                    raise UserError(f"{path} names {name}, but {file} does not exist; complete the download.")
            group = f"{split}-{block_of(name, block)}"
            pairs.append(BoxedPair(name, group, split, files[0], files[1], (files[2],)))
        if len(names) != expected:
            notes.append(f"{len(names)} of the {expected} pairs of {path.name}")
    return BoxedPairs(tuple(pairs), CLASSES, notes=tuple(notes)).only(classes)


def _home(root: Path) -> Path | None:
    for folder in (root, root / "align"):
        if find_folder(folder, "JPEGImages") and any(_list(folder, name) for name in _LISTS.values()):
            return folder
    return None


def _list(home: Path, name: str) -> Path | None:
    return next((path for path in (home / name, home / "ImageSets" / "Main" / name) if path.is_file()), None)
