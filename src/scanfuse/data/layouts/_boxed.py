"""What the layouts of RGB + infrared pairs share: from listed pairs and their annotation files to a manifest."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.box_text import text_of
from scanfuse.data.boxed_pairs import BoxedPairs, leaks, read_annotations
from scanfuse.data.layouts import Request
from scanfuse.data.manifest import Manifest
from scanfuse.data.splits import FRACTIONS, assign, cut_validation
from scanfuse.errors import UserError

__all__ = ["ClassOptions", "manifest_of_pairs"]


class ClassOptions(Section):
    """Which classes are read."""

    classes: tuple[str, ...] = Field((), description="classes to keep, by name; all if empty")


def manifest_of_pairs(found: BoxedPairs, request: Request, *, classes: Sequence[str] = ()) -> Manifest:
    """One row per pair; the target holds the boxes, the further column "time" day or night where it is known.

    A published split stays, and val is cut from its train pairs by scene if it has none; else all is split by scene.

    Args:
        found: of a layout.
        request: what is wanted.
        classes: those to keep.

    Raises:
        UserError: an annotation that cannot be used, or a scene in two splits.
    """
    found = found.only(classes)
    annotations, tally = read_annotations(found)
    targets = {id: text_of(each.boxes) for id, each in annotations.items()}
    columns = {
        "id": [pair.id for pair in found.pairs],
        "group": [pair.group for pair in found.pairs],
        "split": [pair.split if request.split != "none" else "" for pair in found.pairs],
        "target": [targets.get(pair.id, "") for pair in found.pairs],
        "rgb": [str(pair.rgb) for pair in found.pairs],
        "ir": [str(pair.ir) for pair in found.pairs],
        "time": [pair.condition for pair in found.pairs],
    }
    table = pd.DataFrame(columns, dtype=str)
    notes = [*found.notes, *tally.notes()]
    shared = leaks(found.pairs) if request.split != "none" else ()
    if shared:
        notes.insert(0, f"leaky: {len(shared)} scene(s) are in more than one given split, such as {shared[0]}")
    manifest = Manifest(table, ("rgb", "ir"), tuple(notes), ("time",))
    if request.split == "none":
        return manifest
    if not (table["split"] != "").any():
        if request.split == "published":
            raise UserError("This data set has no published split; leave --split out, or give lists.")
        by_time = replace(manifest, table=table.assign(target=table["time"]))  # day and night in every part
        filled = assign(by_time, request.fractions or FRACTIONS, request.seed)
        return replace(filled, table=filled.table.assign(target=table["target"]))
    if "val" not in set(table["split"]) and "train" in set(table["split"]):
        cut = cut_validation(table.assign(target=table["time"]), seed=request.seed)["split"]
        return replace(
            manifest,
            table=table.assign(split=cut.to_numpy()),
            notes=(*manifest.notes, "val was cut from the given train pairs by scene"),
        )
    return manifest
