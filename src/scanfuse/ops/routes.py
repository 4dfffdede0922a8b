"""Routes: orders in which a scan reads the positions of a map.

A route over a map of L positions is a permutation of 0..L-1; `orders[r, t]` is the position that route r reads at
step t. Positions count row-major: `h * width + w` in 2D, `(d * height + h) * width + w` in 3D. Every function
returns an int64 tensor (routes, L) that is cached per shape and device and shared by all callers: do not write
into it.

Sets of routes have names, for the options of models: `over` makes the orders of a set by its name, and `SETS` says
what there is. A new set is one line there, its name another in `MapRoutes` or `VolumeRoutes`.

Source: cross is the four-way scan of VMamba (Liu et al., 2024, section 4.2); the triplane sets read a volume along
its three planes, as the text of ClinicalFMamba says (Zhou and Khalvati, 2025).
"""

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "SETS",
    "AxisOrders",
    "MapRoutes",
    "VolumeRoutes",
    "axial",
    "bidirectional",
    "cross",
    "inverse",
    "named",
    "over",
    "raster",
    "triplane3",
    "triplane6",
]

Device = torch.device | str | None

MapRoutes = Literal["raster", "cross"]
"""Sets over a map (h, w): row by row only, or the four of VMamba (rows, columns, and both reversed)."""

VolumeRoutes = Literal["axial", "triplane3", "triplane6"]
"""Sets over a volume (d, h, w): slice by slice only, along all three planes, or these and their reversals."""


class AxisOrders(NamedTuple):
    """What a set of routes is.

    Attributes:
        axes: per route the axes of the map, the one that changes slowest first.
        reverse: whether the reversal of every route follows.
    """

    axes: tuple[tuple[int, ...], ...]
    reverse: bool

    @property
    def num_routes(self) -> int:
        return len(self.axes) * (2 if self.reverse else 1)

    @property
    def num_dims(self) -> int:
        """Sides of the map: 2 or 3."""
        return len(self.axes[0])


_PLANES = ((0, 1, 2), (1, 0, 2), (2, 0, 1))

SETS: dict[MapRoutes | VolumeRoutes, AxisOrders] = {
    "raster": AxisOrders(((0, 1),), False),
    "cross": AxisOrders(((0, 1), (1, 0)), True),
    "axial": AxisOrders(_PLANES[:1], False),
    "triplane3": AxisOrders(_PLANES, False),
    "triplane6": AxisOrders(_PLANES, True),
}


def named(name: MapRoutes | VolumeRoutes) -> AxisOrders:
    """The set of this name.

    Raises:
        ValueError: there is no such set.
    """
    if name not in SETS:
        raise ValueError(f"there are no routes {name!r}; there are {', '.join(SETS)}")
    return SETS[name]


def over(name: MapRoutes | VolumeRoutes, sides: Sequence[int], *, device: Device = None) -> Tensor:
    """The orders (routes, L) of a set by its name, over a map of these sides.

    >>> over("axial", (1, 2, 2)).tolist()
    [[0, 1, 2, 3]]

    Raises:
        ValueError: there is no such set, it is for another number of sides, a side is empty.
    """
    routes = named(name)
    if len(sides) != routes.num_dims:
        fitting = [other for other, routes in SETS.items() if routes.num_dims == len(sides)]
        raise ValueError(
            f"the routes {name!r} read a map of {routes.num_dims} sides, and this one has the sides {tuple(sides)}"
            + (f"; there are {', '.join(fitting)} for it" if fitting else "")
        )
    return _orders(tuple(sides), *routes, device)


def raster(length: int, *, device: Device = None) -> Tensor:
    """One route, first to last position: (1, length).

    >>> raster(3).tolist()
    [[0, 1, 2]]
    """
    return _orders((length,), ((0,),), False, device)


def bidirectional(length: int, *, device: Device = None) -> Tensor:
    """Forward and backward: (2, length).

    >>> bidirectional(3).tolist()
    [[0, 1, 2], [2, 1, 0]]
    """
    return _orders((length,), ((0,),), True, device)


def cross(height: int, width: int, *, device: Device = None) -> Tensor:
    """Row-major, column-major, then the reversals of the two: (4, height * width).

    >>> cross(2, 3)[:2].tolist()
    [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]]
    """
    return over("cross", (height, width), device=device)


def axial(depth: int, height: int, width: int, *, device: Device = None) -> Tensor:
    """One route through a volume, slice by slice and each row by row: (1, depth * height * width)."""
    return over("axial", (depth, height, width), device=device)


def triplane3(depth: int, height: int, width: int, *, device: Device = None) -> Tensor:
    """Axial, coronal and sagittal order of a volume: (3, depth * height * width).

    The axis named first changes slowest: axial d, h, w; coronal h, d, w; sagittal w, d, h.

    >>> triplane3(2, 2, 1)[:2].tolist()
    [[0, 1, 2, 3], [0, 2, 1, 3]]
    """
    return over("triplane3", (depth, height, width), device=device)


def triplane6(depth: int, height: int, width: int, *, device: Device = None) -> Tensor:
    """The three orders of `triplane3`, then the reversals of the three: (6, depth * height * width)."""
    return over("triplane6", (depth, height, width), device=device)


def inverse(orders: Tensor) -> Tensor:
    """The step at which each position is read: `inverse(orders)[r, orders[r, t]] == t`.

    Args:
        orders: (routes, L) int64, a permutation in every row.

    Raises:
        ValueError: `orders` is not two-dimensional.
    """
    if orders.dim() != 2:
        raise ValueError(f"orders must have shape (routes, L), got {tuple(orders.shape)}")
    steps = torch.arange(orders.shape[1], device=orders.device).expand_as(orders)
    return torch.empty_like(orders).scatter_(1, orders, steps)


def _orders(shape: tuple[int, ...], axes: tuple[tuple[int, ...], ...], reverse: bool, device: Device) -> Tensor:
    if min(shape) < 1:
        raise ValueError(f"a route needs at least one position along every side, got the map {shape}")
    # While a graph is traced the tensors are placeholders, which must not end up in the cache.
    if torch.compiler.is_compiling():
        return _build(shape, axes, reverse, device)
    return _cached(shape, axes, reverse, torch.get_default_device() if device is None else torch.device(device))


@functools.lru_cache(maxsize=256)
def _cached(shape: tuple[int, ...], axes: tuple[tuple[int, ...], ...], reverse: bool, device: torch.device) -> Tensor:
    # A tensor made in inference mode could not be saved for a later backward.
    with torch.inference_mode(False):
        return _build(shape, axes, reverse, device)


def _build(shape: tuple[int, ...], axes: tuple[tuple[int, ...], ...], reverse: bool, device: Device) -> Tensor:
    length = 1
    for side in shape:
        length *= side
    positions = torch.arange(length, device=device).reshape(shape)
    orders = torch.stack([positions.permute(order).reshape(length) for order in axes])
    return torch.cat([orders, orders.flip(1)]) if reverse else orders
