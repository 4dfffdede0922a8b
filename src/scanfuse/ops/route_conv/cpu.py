"""The convolution along routes on the CPU: kernels compiled by numba at first use, kept on disk, run by threads.

The work is cut by sample and by channels; each task owns what it writes. The gradients of weight and bias are summed
over the samples afterwards, in a fixed order.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numba import njit
from torch import Tensor

from scanfuse.ops import threads
from scanfuse.ops.route_conv import kernels
from scanfuse.ops.selective_scan import simd

__all__ = ["backward", "forward"]

_BLOCK = 64  # channels: four registers of AVX-512


def forward(x: Tensor, weight: Tensor, bias: Tensor, orders: Tensor) -> Tensor:
    """y (batch, L, k, d) from x (batch, L, d), weight (k, d, width), bias (k, d), orders (k, L); one dtype."""
    batch, length, d = x.shape
    y = x.new_empty(batch, length, weight.shape[0], d)
    if not _are_permutations(orders):
        raise ValueError(f"every row of orders must be a permutation of 0..{length - 1}")
    arrays = _flat(x, weight.transpose(1, 2), bias, orders)
    sizes = kernels.Sizes(length, weight.shape[0], d, weight.shape[2])
    forward_entry, _ = _kernels()
    threads.run([(sizes, *arrays, *_flat(y), *part) for part in _parts(batch, d)], forward_entry)
    return y


def backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, orders: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dweight, dbias)."""
    batch, length, d = x.shape
    num_routes, _, taps = weight.shape
    dx = torch.zeros_like(x, memory_format=torch.contiguous_format)
    dweight = x.new_zeros(batch, num_routes, taps, d)
    dbias = x.new_zeros(batch, num_routes, d)
    arrays = _flat(x, weight.transpose(1, 2), bias, orders, dy, dx, dweight, dbias)
    sizes = kernels.Sizes(length, num_routes, d, taps)
    _, backward_entry = _kernels()
    threads.run([(sizes, *arrays, *part) for part in _parts(batch, d)], backward_entry)
    return dx, dweight.sum(0).transpose(1, 2), dbias.sum(0)


def _are_permutations(orders: Tensor) -> bool:
    # A position outside the map would be read and written outside the tensors.
    low, high = orders.aminmax()
    if low < 0 or high >= orders.shape[1]:
        return False
    return bool(torch.zeros(orders.shape, dtype=torch.bool).scatter_(1, orders, True).all())


def _parts(batch: int, d: int) -> list[tuple[int, int, int]]:
    """(sample, first channel, end channel): whole blocks, about two parts for every thread."""
    blocks = -(-d // _BLOCK)
    groups = min(blocks, -(-2 * torch.get_num_threads() // max(1, batch)))
    edges = [min(d, i * blocks // groups * _BLOCK) for i in range(groups + 1)]
    return [(sample, edges[i], edges[i + 1]) for i in range(groups) for sample in range(batch)]


def _flat(*tensors: Tensor) -> list[Any]:
    # A result that is written must be contiguous already: for it, contiguous() is the tensor itself.
    return [tensor.detach().contiguous().view(-1).numpy() for tensor in tensors]


@functools.lru_cache(maxsize=1)
def _kernels() -> tuple[Callable[..., int], Callable[..., int]]:
    """The compiled tasks, cached on disk under a key that includes the text of everything they call."""
    text = b"".join(Path(str(module.__file__)).read_bytes() for module in (simd, kernels))
    version = int.from_bytes(hashlib.sha256(text).digest()[:4], "big")

    @njit(nogil=True, cache=True)
    def forward_entry(*arguments: Any) -> int:
        kernels.forward_task(*arguments)
        return version

    @njit(nogil=True, cache=True)
    def backward_entry(*arguments: Any) -> int:
        kernels.backward_task(*arguments)
        return version

    return forward_entry, backward_entry
