"""Multiply-adds of a network, its selective scans included.

Products and convolutions are counted by torch's `FlopCounterMode`. For the scan this module registers a formula with
it, the one by which VMamba and its followers publish their figures:

    9 batch L k d n + batch L k d      for k routes of L positions, d channels with n states

Published "FLOPs" are such sums: multiply-adds of the dense layers plus this term. A scan really needs about a third
of it; norms and activations are not counted.

Source: MzeroMiko/VMamba (the formula); torch.utils.flop_counter.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import scanfuse.ops  # noqa: F401 - registers the operator
from scanfuse.ops.selective_scan import available_backends

__all__ = ["multiply_adds", "scan_multiply_adds"]


def scan_multiply_adds(batch: int, length: int, num_routes: int, channels: int, num_states: int) -> int:
    """The formula of the module's docstring."""
    return (9 * num_states + 1) * batch * length * num_routes * channels


def multiply_adds(model: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Multiply-adds of one forward pass, which is run.

    Raises:
        RuntimeError: no backend here runs the scan as one operator, so its calls could not be seen.
    """
    if available_backends(inputs[0].device)["cpu"] is not None:
        raise RuntimeError("counting needs the cpu backend of the scan: run it with CPU tensors and numba installed")
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.scanfuse.scan_forward: _scan_flops})
    with torch.no_grad(), counter:
        model(*inputs)
    return counter.get_total_flops() // 2


def _scan_flops(u: Sequence[int], delta: Sequence[int], A: Sequence[int], *_: Any, **__: Any) -> int:
    """Shapes (b, L, k or 1, d), (b, L, k, d), (k, d, n); doubled because the counter has two per multiply-add."""
    batch, length, num_routes, channels = delta
    return 2 * scan_multiply_adds(batch, length, num_routes, channels, A[2])
