"""Which view pairs of a study a two-view model reads: by role (frontal with lateral), all, or the first."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.studies import role_of
from scanfuse.errors import UserError

__all__ = ["Pairing", "ViewPair", "pairs_of", "roles_of"]

Pairing = Literal["auto", "all", "roles", "first"]


@dataclass(frozen=True)
class ViewPair:
    """Two views of study number `study` of a manifest; None where there is no such view."""

    study: int
    a: str | None
    b: str | None


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
