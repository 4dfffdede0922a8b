"""MSRS: road pairs by day and night, with boxes in YOLO files, in up to three sets that were drawn separately.

`labels/visible` and `labels/infrared` hold what an annotator saw in the one sensor, `labels/fusion` what was seen in
a fused picture. None is complete: in 12 pairs that were looked at, 17 of 70 infrared boxes (distant people) and 2 of
37 visible ones have no counterpart in the fusion set. So the default is the union of visible and infrared, boxes of
one class with IoU above 0.5 merged. Scores depend on the set; a note says which was read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from scanfuse.data.boxed_pairs import BoxedPair, BoxedPairs, block_of, find_folder, paired_files
from scanfuse.data.boxes import ClassMap
from scanfuse.data.layouts import Request
from scanfuse.data.layouts._boxed import ClassOptions, manifest_of_pairs
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/vi/*.png, ir/*.png and labels/{visible,infrared,fusion}/*.txt, with or without {train,test} above them"
)
CITATION = (
    "L. Tang et al.: PIAFusion: A progressive infrared and visible image fusion network, Information Fusion 2022"
)
LICENCE = "partly not stated; pictures derive from MFNet (Q. Ha et al., IROS 2017)"
HOW_TO_GET = "https://github.com/Linfeng-Tang/MSRS; boxes: https://github.com/Lele-3/MSRS-detection-label"
EXPECTED = {"train": (1083,), "test": (361,)}
"""Published folder -> (pairs,); how many of them have boxes depends on the label set."""
RANK = 6
KIND = "boxed_pairs"
PHANTOM = "msrs"
NAMES = ("person", "bicycle", "car")
"""What the class numbers of the files mean."""
CLASSES = ClassMap(("person", "bicycle", "car"))
SETS = ("visible", "infrared", "fusion")
BLOCK = 20

Labels = Literal["union", "visible", "infrared", "fusion"]


class Options(ClassOptions):
    """What is read, and what a scene is."""

    labels: Labels = Field("union", description="which set of boxes, or the union of visible and infrared")
    block: int = Field(BLOCK, ge=1, description="consecutive numbers that are taken as one scene")


def matches(root: Path, request: Request) -> bool:
    """True if vi, ir and labels lie in `root`, or in a folder train or test."""
    return bool(_places(root))


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per pair, its boxes as target; see `list_pairs`."""
    request.refuse("msrs", "group_pattern", "incomplete")
    found = list_pairs(root, labels=options.labels, block=options.block)
    return manifest_of_pairs(found, request, classes=options.classes)


def list_pairs(
    root: Path, *, classes: Sequence[str] = (), labels: Labels = "union", block: int = BLOCK
) -> BoxedPairs:
    """One pair per name; a name ends in D (day) or N (night).

    Args:
        root: the folder of LAYOUT.
        classes: some of CLASSES; all if empty.
        labels: which set of boxes, or the "union" of visible and infrared.
        block: how many consecutive numbers of one time of day are taken as one scene (a guess; in folders train and
            test, never across both).

    Raises:
        UserError: a picture without its partner or label file, or a set that is not there.
    """
    places = _places(root)
    if not places:
        raise UserError(f"{root} is not in the layout 'msrs': expected {LAYOUT}.")
    if block < 1:
        raise UserError(f"A block of pairs must have one or more, not {block}.")
    wanted = ("visible", "infrared") if labels == "union" else (labels,)
    pairs = []
    notes = [
        f"boxes: {'the union of the visible and the infrared set' if labels == 'union' else f'the {labels} set'}",
        f"scenes are blocks of {block} consecutive numbers (a guess)",
    ]
    for split, home in places.items():
        visible, infrared = find_folder(home, "vi"), find_folder(home, "ir")
        assert visible is not None and infrared is not None
        for name in wanted:
            if not (home / "labels" / name).is_dir():
                there = [other for other in SETS if (home / "labels" / other).is_dir()]
                raise UserError(f"{home / 'labels'} has no set {name!r}; it has {', '.join(there) or 'none'}.")
        for name, rgb, ir in paired_files(visible, infrared):
            boxes = tuple(home / "labels" / each / f"{name}.txt" for each in wanted)
            for path in boxes:
                if not path.is_file():
                    raise UserError(f"{path} does not exist; if nothing is shown, it must be an empty file.")
            condition = {"D": "day", "N": "night"}.get(name[-1:].upper(), "")
            group = "-".join(part for part in (split, condition, block_of(name, block)) if part)
            pairs.append(BoxedPair(name, group, split, rgb, ir, boxes, condition=condition))
        count = sum(pair.split == split for pair in pairs)
        if split and count != EXPECTED[split][0]:
            notes.append(f"{count} of the {EXPECTED[split][0]} published {split} pairs")
    return BoxedPairs(tuple(pairs), CLASSES, NAMES, tuple(notes)).only(classes)


def _places(root: Path) -> dict[str, Path]:
    """Published split ("" for none) -> the folder that holds vi, ir and labels."""
    for splits in (("train", "test"), ("",)):
        found = {
            split: root / split
            for split in splits
            if all(find_folder(root / split, name) is not None for name in ("vi", "ir", "labels"))
        }
        if found:
            return found
    return {}
