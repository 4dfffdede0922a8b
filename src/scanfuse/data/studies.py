"""A study is one examination with any number of views; a manifest holds one row a study and one column a view.

The column of a view is its role ("frontal", "cc", or plain "view"), for further images of that role with a number:
frontal, frontal_2, lateral. So ids, groups, splits, digest and csv of `Manifest` work as for every other job, and
`Row.paths` lists the views of a study in order. `pairs_of` turns a study into the view pairs a two-view model reads.

    >>> manifest = open_studies("MURA-v1.1")                        # doctest: +SKIP
    >>> manifest.subset("test").describe()                          # doctest: +SKIP
    'test 1199 of 783 groups'
"""

import inspect
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pandas as pd

from scanfuse.data import datasets, phantoms
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.splits import split_groups
from scanfuse.errors import UserError

__all__ = [
    "Incomplete",
    "Pairing",
    "Study",
    "ViewPair",
    "check_files",
    "hold_out",
    "manifest_of",
    "open_studies",
    "pairs_of",
    "role_of",
    "roles_of",
    "study_layouts",
]

Incomplete = Literal["keep", "drop"]
Pairing = Literal["auto", "all", "roles", "first"]


@dataclass(frozen=True)
class Study:
    """One examination: `views` are (role, file) in the order in which they are to be paired."""

    id: str
    group: str
    split: str
    target: str
    views: tuple[tuple[str, Path], ...]
    further: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ViewPair:
    """Two views of study number `study` of a manifest; None where there is no such view."""

    study: int
    a: str | None
    b: str | None


def study_layouts() -> tuple[str, ...]:
    """Names of the layouts that hold studies (their module says KIND = "studies"), sorted."""
    return tuple(name for name in datasets.layouts() if _is_study_layout(datasets.adapter(name)))


def open_studies(
    root: str | Path,
    layout: str = "auto",
    *,
    incomplete: Incomplete = "keep",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    split: bool = True,
) -> Manifest:
    """Finds the layout of `root` and reads it.

    Args:
        root: the folder of the data set, the folder above it, or a manifest.csv.
        layout: mura, chexpert, cbis_ddsm, studies, or "auto".
        incomplete: what happens to studies with a single view, or without a view of each role: "keep" or "drop".
        seed: of the split that is made here (validation; everything where nothing is published).
        options: further keyword arguments of that layout's `read`, such as {"uncertain": "ignore"}.
        split: False makes no split (a published one stays): to predict or explain, one patient must be enough.

    Raises:
        UserError: no such folder, no layout fits, an unknown option, or what the adapter finds wrong.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(
            f"{root} does not exist; give the folder of the data set or make one with scanfuse data synth."
        )
    names = study_layouts()
    if layout == "auto":
        found = [name for name in names if datasets.adapter(name).matches(root)]
        if not found:
            raise UserError(
                f"{root} holds no X-ray studies in a known layout ({', '.join(names)}); "
                "give the published folder, or write a manifest.csv with one row per image."
            )
        layout = max(found, key=lambda name: datasets.adapter(name).RANK)
    elif layout not in names:
        raise UserError(f"Unknown study layout {layout!r}; choose auto, {', '.join(names)}.")
    module = datasets.adapter(layout)
    if not module.matches(root):
        raise UserError(f"{root} is not in the layout {layout!r}: expected {module.LAYOUT}.")
    options = dict(options or {})
    own = ("root", "incomplete", "seed", "split")
    known = [name for name in inspect.signature(module.read).parameters if name not in own]
    for name in options:
        if name not in known:
            raise UserError(f"The layout {layout!r} has no option {name!r}; it has {', '.join(known)}.")
    manifest: Manifest = module.read(root.absolute(), incomplete=incomplete, seed=seed, split=split, **options)
    return replace(manifest, notes=(*manifest.notes, *phantoms.said_of(root)))


def manifest_of(
    studies: Sequence[Study], *, roles: Sequence[str], notes: Sequence[str] = (), subgroups: Sequence[str] = ()
) -> Manifest:
    """The manifest of studies; its columns are ordered by `roles`, then by number. `subgroups`: see `Manifest`.

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
    return Manifest(pd.DataFrame(columns, dtype=str), tuple(modalities), tuple(notes), tuple(subgroups))


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


def check_files(studies: Sequence[Study]) -> None:
    """Raises UserError that counts the missing files and names the first."""
    missing = [path for study in studies for _, path in study.views if not path.is_file()]
    if missing:
        number = sum(len(study.views) for study in studies)
        raise UserError(
            f"{missing[0]} does not exist ({len(missing)} of {number} listed images are missing); "
            "complete the download, or leave these rows out of the table."
        )


def role_of(slot: str) -> str:
    """The role in a column's name: "frontal_2" -> "frontal"."""
    return re.sub(r"_\d+$", "", slot)


def roles_of(manifest: Manifest) -> tuple[str, ...]:
    """The roles of the views, in order: ("frontal", "lateral"), ("cc", "mlo"), ("view",)."""
    return tuple(dict.fromkeys(role_of(slot) for slot in manifest.modalities))


def pairs_of(
    row: Row,
    study: int,
    roles: Sequence[str],
    *,
    pairing: Pairing = "auto",
    single: Literal["missing", "self"] = "missing",
) -> list[ViewPair]:
    """The view pairs of one study, first role first.

    "all" gives the N (N - 1) / 2 unordered pairs in the order of the columns; "roles" pairs each view of the first
    role with each of the second (frontal with lateral, CC with MLO); "first" keeps only the first pair of what "auto"
    gives, as the publication does for CheXpert; "auto" is "roles" for two roles, otherwise "all".

    Args:
        row: the study, with at least one view.
        study: its number in the manifest.
        roles: of the manifest.
        pairing: see above.
        single: a view without a partner has None beside it, at the place of the other role ("missing"), or is paired
            with itself, as the publication does for MURA ("self").

    Raises:
        UserError: no view at all, or pairing by roles where there are not two.
    """
    views = list(row.paths)
    if not views:
        raise UserError(f"Study {row.id!r} has no image; remove the row.")
    if pairing == "roles" and len(roles) != 2:
        raise UserError(f"Pairs by role need two roles; the manifest has {', '.join(roles)}.")
    by_role = pairing == "roles" or (pairing in ("auto", "first") and len(roles) == 2)
    first = [view for view in views if role_of(view) == roles[0]] if by_role else views
    second = [view for view in views if role_of(view) == roles[1]] if by_role else []
    found: list[tuple[str | None, str | None]]
    if by_role and first and second:
        found = list(itertools.product(first, second))
    elif not by_role and len(views) > 1:
        found = list(itertools.combinations(views, 2))
    elif single == "self":
        found = [(view, view) for view in views]
    else:
        found = [(view, None) for view in first] + [(None, view) for view in second]
    if pairing == "first":
        found = found[:1]
    return [ViewPair(study, a, b) for a, b in found]


def _is_study_layout(module: ModuleType) -> bool:
    return getattr(module, "KIND", "") == "studies"


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
