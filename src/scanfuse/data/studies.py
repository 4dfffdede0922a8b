"""A study is one examination with any number of views; a manifest holds one row a study and one column a view.

The column of a view is its role ("frontal", "cc", or plain "view"), for further images of that role with a number:
frontal, frontal_2, lateral. So ids, groups, splits, digest and csv of `Manifest` work as for every other job, and
`Row.paths` lists the views of a study in order. Layouts make their manifests from studies with what is here.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from scanfuse.data.manifest import Manifest
from scanfuse.data.splits import split_groups
from scanfuse.errors import UserError

__all__ = ["Study", "check_files", "hold_out", "manifest_of", "role_of", "with_views"]


@dataclass(frozen=True)
class Study:
    """One examination: `views` are (role, file) in the order in which they are to be paired."""

    id: str
    group: str
    split: str
    target: str
    views: tuple[tuple[str, Path], ...]
    further: Mapping[str, str] = field(default_factory=dict)


def manifest_of(
    studies: Sequence[Study],
    *,
    roles: Sequence[str],
    notes: Sequence[str] = (),
    subgroups: Sequence[str] = (),
    positive: str = "",
) -> Manifest:
    """The manifest of studies; its columns are ordered by `roles`, then by number. The rest: see `Manifest`.

    Raises:
        UserError: no study, or what `Manifest` checks.
    """
    slots = [_slots(study) for study in studies]
    found = {name for views in slots for name in views}
    modalities = sorted(found, key=lambda name: (list(roles).index(role_of(name)), _number(name)))
    further = list(dict.fromkeys(name for study in studies for name in study.further))
    columns: dict[str, list[str]] = {
        "id": [study.id for study in studies],
        "group": [study.group for study in studies],
        "split": [study.split for study in studies],
        "target": [study.target for study in studies],
    }
    columns |= {name: [views.get(name, "") for views in slots] for name in modalities}
    columns |= {name: [study.further.get(name, "") for study in studies] for name in further}
    return Manifest(pd.DataFrame(columns, dtype=str), tuple(modalities), tuple(notes), tuple(subgroups), positive)


def hold_out(studies: Sequence[Study], strata: Sequence[str], *, fraction: float, seed: int) -> list[Study]:
    """Turns whole groups of the train studies to val, about `fraction` of these studies, alike in `strata`.

    Args:
        studies: any splits; only train is cut.
        strata: one per study, what should be as frequent in both parts.
        fraction: share of the train studies, 0 to below 1; 0 leaves all in train.
        seed: of the draw.

    Raises:
        UserError: a fraction out of range, or fewer than two groups.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"The validation share must be 0 or more and below 1, not {fraction}.")
    train = [number for number, study in enumerate(studies) if study.split == "train"]
    if fraction == 0 or not train:
        return list(studies)
    by_group = split_groups(
        [studies[number].group for number in train],
        [strata[number] for number in train],
        {"train": 1 - fraction, "val": fraction},
        seed,
    )
    return [
        Study(study.id, study.group, by_group[study.group], study.target, study.views, study.further)
        if study.split == "train"
        else study
        for study in studies
    ]


def with_views(
    source: Path,
    studies: Sequence[Study],
    is_complete: Callable[[Study], bool],
    incomplete: Literal["error", "keep", "drop"],
) -> list[Study]:
    """The studies that stay: all, or those that have the views they should have.

    Args:
        source: where they come from, for messages.
        studies: as read.
        is_complete: what a study of this layout should have.
        incomplete: whether others are an error, kept, or left out.

    Raises:
        UserError: incomplete studies that are an error, or no study that stays.
    """
    if incomplete == "keep":
        return list(studies)
    lacking = [study for study in studies if not is_complete(study)]
    if lacking and incomplete == "error":
        raise UserError(
            f"{len(lacking)} of {len(studies)} studies in {source} lack a view, such as {lacking[0].id}; "
            "keep or drop incomplete studies."
        )
    if len(lacking) == len(studies):
        raise UserError(f"{source} has no complete study (two views, or one of each role); keep incomplete studies.")
    return [study for study in studies if is_complete(study)]


def check_files(studies: Sequence[Study]) -> None:
    """Raises UserError that counts the missing files and names the first."""
    missing = [path for study in studies for _, path in study.views if not os.path.isfile(path)]
    if missing:
        number = sum(len(study.views) for study in studies)
        raise UserError(
            f"{missing[0]} does not exist ({len(missing)} of {number} listed images are missing); "
            "complete the download, or leave these rows out of the table."
        )


def role_of(slot: str) -> str:
    """The role in a column's name: "frontal_2" -> "frontal"."""
    return re.sub(r"_\d+$", "", slot)


def _slots(study: Study) -> dict[str, str]:
    counts: dict[str, int] = {}
    slots = {}
    for role, path in study.views:
        counts[role] = counts.get(role, 0) + 1
        slots[role if counts[role] == 1 else f"{role}_{counts[role]}"] = str(path)
    return slots


def _number(slot: str) -> int:
    match = re.search(r"_(\d+)$", slot)
    return int(match.group(1)) if match else 1
