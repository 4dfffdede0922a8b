"""LLVIP: pairs from street cameras at night with pedestrians, one annotation for both sensors.

Names have six digits. The first two run from 01 to 26, the number of places that the paper names, so they are taken
as the scene (a guess); a note says so where a scene is in train and test. The annotations were corrected in February
2023; scores on the old and the new ones differ, so say which you have.
"""

from collections.abc import Sequence
from pathlib import Path

from scanfuse.data.boxed_pairs import BoxedPair, BoxedPairs, find_folder, paired_files
from scanfuse.data.boxes import ClassMap
from scanfuse.data.layouts import Request
from scanfuse.data.layouts._boxed import ClassOptions, manifest_of_pairs
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError

LAYOUT = "<root>/visible/{train,test}/*.jpg, infrared/{train,test}/*.jpg and Annotations/*.xml of the same names"
CITATION = "X. Jia et al.: LLVIP: A visible-infrared paired dataset for low-light vision, ICCV Workshops 2021"
LICENCE = "own terms: free for academic and non-academic entities for non-commercial purposes, no redistribution"
HOW_TO_GET = "https://bupt-ai-cz.github.io/LLVIP/ (unpack LLVIP.zip)"
EXPECTED = {"train": (12025, 33648), "test": (3463, 7931)}
"""Published split -> (pairs, boxes)."""
RANK = 6
KIND = "boxed_pairs"
PHANTOM = "llvip"
CLASSES = ClassMap(("person",))


Options = ClassOptions


def matches(root: Path, request: Request) -> bool:
    """True if the folders of LAYOUT lie in `root` or in its folder LLVIP."""
    return _home(root) is not None


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per pair, its boxes as target; see `list_pairs`."""
    request.refuse("llvip", "group_pattern", "incomplete")
    found = list_pairs(root)
    return manifest_of_pairs(found, request, classes=options.classes)


def list_pairs(root: Path, *, classes: Sequence[str] = ()) -> BoxedPairs:
    """One pair per name; the published test set is test.

    Args:
        root: LLVIP or the folder above it.
        classes: some of CLASSES; all if empty.

    Raises:
        UserError: a picture without its partner or without an annotation, or one name in both splits.
    """
    home = _home(root)
    if home is None:
        raise UserError(f"{root} is not in the layout 'llvip': expected {LAYOUT}.")
    pairs = []
    notes = ["scenes are the first two digits of the name, taken as the place of the camera"]
    for split, (expected, _) in EXPECTED.items():
        visible, infrared = home / "visible" / split, home / "infrared" / split
        if not visible.is_dir():
            notes.append(f"the published {split} set is not here")
            continue
        files = paired_files(visible, infrared)
        for name, rgb, ir in files:
            boxes = home / "Annotations" / f"{name}.xml"
            if not boxes.is_file():
                raise UserError(f"{boxes} does not exist, the annotation of {rgb}; complete the download.")
            group = name[:2] if name.isdecimal() and len(name) == 6 else name
            pairs.append(BoxedPair(name, f"place-{group}", split, rgb, ir, (boxes,)))
        if len(files) != expected:
            notes.append(f"{len(files)} of the {expected} pairs of the published {split} set")
    return BoxedPairs(tuple(pairs), CLASSES, notes=tuple(notes)).only(classes)


def _home(root: Path) -> Path | None:
    for folder in (root, root / "LLVIP"):
        visible = find_folder(folder, "visible")
        if visible is not None and (folder / "infrared").is_dir() and (folder / "Annotations").is_dir():
            return folder
    return None
