"""Train, val and test by group (patient or scene), so that no group is in two of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pandas as pd

from scanfuse.data.manifest import SPLITS, Manifest
from scanfuse.errors import UserError

__all__ = ["FRACTIONS", "assign", "cut_validation", "quick_part", "split_groups"]

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}

_QUICK = {"train": 40, "val": 16, "test": 16}
"""Groups of each split that a quick look takes."""
_DRAWS = 64
_TOLERANCE = 0.1
"""Random orders tried, and how much worse than the best one may be (share of all rows): seeds must still differ."""


def assign(manifest: Manifest, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0) -> Manifest:
    """The manifest with its split column filled by group; what was in it before is dropped.

    Balanced by number of rows, and by target where every row has one. The result depends on the groups, their
    sizes, targets and the seed, not on the order of the rows.

    Raises:
        UserError: fewer groups than splits with a fraction above zero.
    """
    table = manifest.table
    by_group = split_groups(table["group"], table["target"], fractions, seed)
    filled = table.assign(split=[by_group[group] for group in table["group"]])
    notes = tuple(note for note in manifest.notes if not note.startswith("leaky"))
    return replace(manifest, table=filled, notes=notes)


def cut_validation(table: pd.DataFrame, fraction: float = 0.15, seed: int = 0) -> pd.DataFrame:
    """The table with whole groups of its train rows turned to val (about `fraction` of these rows)."""
    train = table[table["split"] == "train"]
    fractions = {"train": 1 - fraction, "val": fraction}
    by_group = split_groups(train["group"], train["target"], fractions, seed)
    splits = [
        by_group[group] if split == "train" else split
        for group, split in zip(table["group"], table["split"], strict=True)
    ]
    return table.assign(split=splits)


def quick_part(manifest: Manifest, seed: int = 0) -> Manifest:
    """The manifest with few groups in every split, for a quick look; all others are in no split.

    Groups are taken out of their own split only, so that nothing leaks. Those with a high target and those with a
    low one (as text, of their highest row) take turns, so that a rare outcome is there.

    Args:
        manifest: with splits by group.
        seed: of what is drawn.
    """
    table = manifest.table
    random = np.random.default_rng(seed)
    kept: set[str] = set()
    for split, most in _QUICK.items():
        highest = table[table["split"] == split].groupby("group")["target"].max()
        strata = [list(random.permutation(list(part.index))) for _, part in highest.groupby(highest)]
        turns = [group for turn in zip_longest(*strata) for group in turn if group is not None]
        kept |= set(turns[:most])
    shown = len(kept), table["group"].nunique()
    note = f"quick test: {shown[0]} of {shown[1]} patients; its values mean nothing"
    splits = table["split"].where(table["group"].isin(kept), "")
    return replace(manifest, table=table.assign(split=splits), notes=(*manifest.notes, note))


def split_groups(
    groups: Sequence[str] | pd.Series,
    strata: Sequence[str] | pd.Series,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> dict[str, str]:
    """Group -> split: the first good one of `_DRAWS` random orders, each cut where the wanted numbers are reached.

    The error of an order is the sum over splits and strata of |rows wanted - rows got|; good is what exceeds the
    smallest error by at most `_TOLERANCE` times the number of rows. Every split with a
    fraction above zero gets at least one group.

    Args:
        groups: one per row.
        strata: one per row, what should be as frequent in every split; "" throughout for nothing.
        fractions: split -> share of the rows; normalised to sum 1.
        seed: of the random orders.

    Raises:
        UserError: too few groups, or fractions that are no shares.
    """
    unknown = [name for name in fractions if name not in SPLITS]
    if unknown or any(share < 0 for share in fractions.values()) or not sum(fractions.values()) > 0:
        raise UserError(f"Split fractions must be shares for {', '.join(SPLITS)}, not {dict(fractions)}.")
    wanted = {name: share / sum(fractions.values()) for name, share in fractions.items() if share > 0}
    counts = pd.crosstab(np.asarray(groups, object), np.asarray(strata, object)).sort_index()
    if len(counts) < len(wanted):
        raise UserError(
            f"Only {len(counts)} group{'' if len(counts) == 1 else 's'} (patients, cases): a split into "
            f"{', '.join(wanted)} needs at least {len(wanted)}. Add cases, or give a split column in a manifest.csv."
        )
    matrix = counts.to_numpy()
    # The small splits are filled first: they cannot give way as the large one can.
    names = sorted(wanted, key=lambda name: (wanted[name], SPLITS.index(name)))
    majority = matrix.argmax(axis=1)
    parts = [np.flatnonzero(majority == stratum) for stratum in np.unique(majority)]
    if min(map(len, parts)) < len(wanted):
        parts = [np.arange(len(matrix))]
    sizes = matrix.sum(axis=1)
    random = np.random.default_rng(seed)
    draws: list[np.ndarray] = []
    errors: list[float] = []
    for _ in range(_DRAWS):
        labels = np.empty(len(matrix), int)
        for part in parts:
            order = random.permutation(len(part))
            labels[part] = _cut(sizes[part], order, [wanted[name] for name in names])
        missed = [
            np.abs(matrix[labels == place].sum(axis=0) - wanted[name] * matrix.sum(axis=0)).sum()
            for place, name in enumerate(names)
        ]
        draws.append(labels)
        errors.append(float(sum(missed)))
    limit = min(errors) + _TOLERANCE * matrix.sum()
    best = next(labels for labels, error in zip(draws, errors, strict=True) if error <= limit)
    return {str(group): names[label] for group, label in zip(counts.index, best, strict=True)}


def _cut(sizes: np.ndarray, order: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Walks through `order` and starts the next split where one more group would take the count further away."""
    labels = np.empty(len(sizes), int)
    position = 0
    for place, share in enumerate(shares):
        room = len(order) - position - (len(shares) - 1 - place)  # leave one group for each later split
        if place == len(shares) - 1:
            taken = room
        else:
            reached = np.cumsum(sizes[order[position : position + room]])
            taken = 1 + int(np.argmin(np.abs(reached - share * sizes.sum())))
        labels[order[position : position + taken]] = place
        position += taken
    return labels
