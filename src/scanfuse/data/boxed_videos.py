"""Two videos in step as samples: frame n of one belongs to frame n of the other."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from scanfuse.data.manifest import SLICE, Manifest
from scanfuse.data.readers import stem, video
from scanfuse.errors import UserError
from scanfuse.foreign import shown

__all__ = ["is_video", "listed_videos"]

_RATES = 0.01
"""Rates that differ by more than this share are those of videos that are not in step."""


def is_video(value: object) -> bool:
    """A path with the suffix of a video."""
    return isinstance(value, str | Path) and Path(value).suffix.lower() in video.SUFFIXES


def listed_videos(files: Mapping[str, Path]) -> Manifest:
    """A row for every frame, named after the first video; all are of one group.

    Args:
        files: "rgb", "ir" -> a video; one may be absent.

    Raises:
        UserError: a video cannot be read, or two that do not hold as many frames, or not as many a second.
    """
    counts = {name: video.count(path) for name, path in files.items()}
    first, *others = files
    for other in others:
        one, two = files[first], files[other]
        rates = video.rate(one), video.rate(two)
        if abs(rates[0] - rates[1]) > _RATES * max(rates):
            raise UserError(
                f"{shown(one)} has {rates[0]:.2f} frames a second and {shown(two)} {rates[1]:.2f}, so they are not "
                "in step; export both at one rate."
            )
        if counts[first] != counts[other]:
            ends, goes_on = (one, two) if counts[first] < counts[other] else (two, one)
            raise UserError(
                f"{shown(ends)} ends after {min(counts.values())} frames and {shown(goes_on)} after "
                f"{max(counts.values())}; cut both to the same moments."
            )
    digits = max(4, math.ceil(math.log10(counts[first] + 1)))
    clip = stem(files[first])
    table = pd.DataFrame(
        {
            "id": [f"{clip}_{number:0{digits}d}" for number in range(counts[first])],
            "group": clip,
            "split": "",
            "target": "",
            **{name: str(files[name]) if name in files else "" for name in ("rgb", "ir")},
            SLICE: [f"frame:{number}" for number in range(counts[first])],
        },
        dtype=str,
    )
    return Manifest(table, ("rgb", "ir"))
