"""What is wrong with boxed pairs: nothing to find, classes that a part lacks, boxes cut, sensors out of step."""

from collections import Counter

import numpy as np

from scanfuse.data.alignment import CONFIDENT, find_shift
from scanfuse.data.annotations.checking import CLIPPED, LEFT_OUT
from scanfuse.data.box_text import class_names
from scanfuse.data.check import Finding
from scanfuse.data.manifest import SPLITS, Manifest, Row
from scanfuse.data.readers import read_image
from scanfuse.errors import UserError

__all__ = ["check_boxes"]

LOOKED_AT = 50
"""Pairs that are searched for a shift, spread over the data set; each takes about 20 ms."""

_PIXELS = 2.0
_SHARE = 0.01
"""A shift counts from this many pixels, and from this share of the longer side: below it the boxes still fit."""


def check_boxes(manifest: Manifest) -> list[Finding]:
    """The findings of `scanfuse.data.check` that only boxed pairs have."""
    return [*_boxes(manifest), *_notes(manifest), *_shifts(manifest)]


def _boxes(manifest: Manifest) -> list[Finding]:
    table = manifest.table
    counts = {
        str(split): Counter(name for text in part["target"] for name in class_names(text))
        for split, part in table.groupby("split")
    }
    if not any(counts.values()):
        return [Finding("error", "boxes", "No picture has a box: check the annotations, or an option of the layout.")]
    findings = []
    known = sorted(set().union(*counts.values()))
    for split in (name for name in SPLITS if name in counts):
        lacking = [name for name in known if not counts[split][name]]
        if lacking:
            size = int((table["split"] == split).sum())
            findings.append(
                Finding("warning", "boxes", f"{split} ({size} pairs) has no box of {', '.join(lacking)}.")
            )
    bare = int((table["target"] == "").sum())
    if bare:
        findings.append(Finding("warning", "boxes", f"{bare} of {len(table)} pairs are not annotated."))
    return findings


def _notes(manifest: Manifest) -> list[Finding]:
    """What was done to boxes when they were read."""
    return [
        Finding("warning", "boxes", f"{note}.") for note in manifest.notes if note.startswith((CLIPPED, LEFT_OUT))
    ]


def _shifts(manifest: Manifest) -> list[Finding]:
    rows = [row for row in manifest.rows if {"rgb", "ir"} <= set(row.paths)]
    chosen = [
        rows[index] for index in sorted({*np.linspace(0, len(rows) - 1, min(len(rows), LOOKED_AT)).astype(int)})
    ]
    found = [(apart, row, said) for row in chosen if (shift := _shift(row)) for apart, said in [shift]]
    if not found:
        return []
    _, row, said = max(found, key=lambda each: each[0])
    message = (
        f"{len(found)} of {len(chosen)} pairs looked at (of {len(rows)}) are out of step, most {row.id}: infrared "
        f"lies {said}; register the pictures, or see whether the boxes fit both."
    )
    return [Finding("warning", "shift", message)]


def _shift(row: Row) -> tuple[float, str] | None:
    """How many pixels a pair is apart, and in words; None if it is not, or cannot be told."""
    try:
        rgb, ir = (read_image(row.paths[name]).pixels for name in ("rgb", "ir"))
        shift = find_shift(rgb, ir if ir.ndim == 2 else ir[..., 0])
    except UserError:
        return None  # unreadable, tiny or of two sizes: reported already
    apart = float(np.hypot(shift.right, shift.down))
    if shift.confidence < CONFIDENT or apart < max(_PIXELS, _SHARE * max(rgb.shape[:2])):
        return None
    across = f"{abs(shift.right):.1f} pixels {'right' if shift.right > 0 else 'left'}"
    along = f"{abs(shift.down):.1f} {'down' if shift.down > 0 else 'up'}"
    return apart, f"{across} and {along} of RGB (confidence {shift.confidence:.2f})"
