"""Opening data as the input kinds do, in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from scanfuse.data.layouts import Incomplete, Request, open_manifest
from scanfuse.data.manifest import Manifest

__all__ = ["open_pairs", "open_studies"]


def open_pairs(
    root: Path,
    pair: tuple[str, ...],
    split: Literal["made", "published", "none"] = "made",
    layout: str = "auto",
    *,
    seed: int = 0,
    group_pattern: str | None = None,
    incomplete: Incomplete = "error",
) -> Manifest:
    """Registered pairs, such as ("CT", "MRI")."""
    request = Request(pair, split=split, seed=seed, group_pattern=group_pattern, incomplete=incomplete)
    return open_manifest(root, "image_pairs", request, layout)


def open_studies(
    root: Path,
    layout: str = "auto",
    *,
    incomplete: Incomplete = "keep",
    seed: int = 0,
    split: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Manifest:
    """Studies of any number of views."""
    request = Request(split="made" if split else "none", seed=seed, incomplete=incomplete)
    return open_manifest(root, "view_pairs", request, layout, options=options)
