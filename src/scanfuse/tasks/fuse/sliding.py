"""A function of volumes applied window by window, so that the memory is that of one window.

Neighbouring windows overlap and are cross-faded: along each side the weight of a window rises from its border over
the width of the overlap as the square of a sine and falls likewise, and the weights are made to sum to one. What
reaches further than a window, such as a scan, sees the window alone.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from scanfuse.config import Section

__all__ = ["SlidingWindow", "sliding", "starts"]


class SlidingWindow(Section):
    """How whole volumes are cut for prediction."""

    window: int = Field(96, ge=8, le=1024, description="side in voxels of what is fused at a time: sets the memory")
    overlap: float = Field(0.25, ge=0, le=0.5, description="share of a window that its neighbour covers too")


def sliding(
    function: Callable[..., Float[Tensor, "b 1 d h w"]],
    volumes: Sequence[Float[Tensor, "b _ d h w"]],
    *,
    window: int,
    overlap: float = 0.25,
) -> Float[Tensor, "b 1 d h w"]:
    """The result of `function` on windows of the volumes, blended.

    Args:
        function: windows of all volumes -> a result of the same sides.
        volumes: of one shape, but for the channels.
        window: side of the windows; where a volume is smaller, the window is.
        overlap: of neighbouring windows at least, as a share of the window, in [0, 0.5].

    Raises:
        ValueError: a window below 1, or such an overlap.
    """
    if window < 1 or not 0 <= overlap <= 0.5:
        raise ValueError(f"window is {window} and overlap {overlap}; they must be at least 1, and in [0, 0.5]")
    sides = volumes[0].shape[2:]
    extents = [min(side, window) for side in sides]
    shared = int(overlap * window)
    places = list(itertools.product(*(starts(side, window, shared) for side in sides)))
    if len(places) == 1:
        return function(*volumes)
    total = volumes[0].new_zeros(volumes[0].shape)
    weights = volumes[0].new_zeros((1, 1, *sides))
    for place in places:
        here: Any = (..., *(slice(start, start + extent) for start, extent in zip(place, extents, strict=True)))
        found = function(*(volume[here] for volume in volumes))
        weight = _ramp(extents, shared).to(found)
        total[here] += weight * found
        weights[here] += weight
    return total / weights


def starts(side: int, window: int, shared: int) -> list[int]:
    """Where windows begin along one side: as few as possible that overlap by at least `shared`, evenly spread.

    >>> starts(100, 40, 10)
    [0, 30, 60]
    >>> starts(30, 40, 10)
    [0]
    """
    if side <= window:
        return [0]
    steps = math.ceil((side - window) / (window - shared))
    return [round(step * (side - window) / steps) for step in range(steps + 1)]


def _ramp(extents: Sequence[int], shared: int) -> Tensor:
    """The weight of a window: a product over its sides, never zero."""
    weight = torch.ones(())
    for extent in extents:
        from_border = torch.minimum(torch.arange(extent), torch.arange(extent - 1, -1, -1)) + 0.5
        rising = torch.sin(math.pi / 2 * (from_border / max(shared, 1)).clamp(max=1)) ** 2
        weight = weight[..., None] * rising
    return weight
