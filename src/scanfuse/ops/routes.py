"""Routes: orders in which a scan reads the positions of a map.

A route over a map of L positions is a permutation of 0..L-1; `orders[r, t]` is the position that route r reads at
step t. Positions count row-major: `h * width + w` in 2D, `(d * height + h) * width + w` in 3D. Every function
returns an int64 tensor (routes, L) that is cached per shape and device and shared by all callers: do not write
into it. A new route is one function here that returns a permutation.

Source: cross is the four-way scan of VMamba (Liu et al., 2024, section 4.2); triplane reads a volume along its
three planes.
"""

import functools

import torch
from torch import Tensor

__all__ = ["bidirectional", "cross", "inverse", "raster", "triplane"]

Device = torch.device | str | None


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
    return _orders((height, width), ((0, 1), (1, 0)), True, device)


def triplane(depth: int, height: int, width: int, reverse: bool = False, *, device: Device = None) -> Tensor:
    """Axial, coronal and sagittal order of a volume, with `reverse` followed by their reversals.

    The axis named first changes slowest: axial d, h, w; coronal h, d, w; sagittal w, d, h.

    Returns:
        (3, depth * height * width), with `reverse` (6, ...).
    """
    axes = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
    return _orders((depth, height, width), axes, reverse, device)


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
