"""The short convolution of Mamba along routes over a map, with its SiLU: what stands before the scan.

`_plain` is the definition in torch and serves every device and every traced graph; `cpu.py` (numba) is the fast
program for CPU tensors, forward and backward.
"""

import importlib.util
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scanfuse.ops import routes

__all__ = ["conv_routes"]


def conv_routes(x: Tensor, weight: Tensor, bias: Tensor, orders: Tensor) -> Tensor:
    """SiLU of a causal depthwise convolution along every route, each route with its own kernel.

        v[orders[k, t], k] = bias[k] + sum over j < width of weight[k, :, width - 1 - j] * x[orders[k, t - j]]
        y = v * sigmoid(v)

    Positions before the start of a route count as zero; the last tap meets the position itself. Input and result are
    in the natural order of the map. Computed in float32 (float64 for a float64 x), under autocast too, since the scan
    that follows is.

    Args:
        x: (batch, L, d). weight: (k, d, width). bias: (k, d). orders: (k, L) int64, permutations.

    Returns:
        y (batch, L, k, d), float32 or float64.

    Raises:
        ValueError: shapes that do not fit, an order that is not a permutation (CPU).

    Source: the convolution of Gu and Dao, "Mamba", 2023, along the routes of VMamba, 2024.
    """
    _, length, d = x.shape
    if weight.shape[:2] != bias.shape or weight.shape[1] != d or orders.shape != (weight.shape[0], length):
        raise ValueError(
            f"x is (batch, L, d), weight (k, d, width), bias (k, d), orders (k, L); got x {tuple(x.shape)}, weight "
            f"{tuple(weight.shape)}, bias {tuple(bias.shape)}, orders {tuple(orders.shape)}"
        )
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    if x.device.type == "cpu" and _has_numba() and not torch.compiler.is_compiling():
        result: Tensor = _OnCPU.apply(x, weight, bias, orders)
        return result
    with torch.autocast(x.device.type, enabled=False):
        return _plain(x, weight, bias, orders)


def _plain(x: Tensor, weight: Tensor, bias: Tensor, orders: Tensor) -> Tensor:
    num_routes, d, width = weight.shape
    inverse = routes.inverse(orders)
    results = []
    for k in range(num_routes):
        # (batch, d, 1, L) with the channels innermost in memory: the layout for which convolutions are fast.
        sequence = x.index_select(1, orders[k]).transpose(1, 2).unsqueeze(2)
        v = F.conv2d(sequence, weight[k, :, None, None], bias[k], padding=(0, width - 1), groups=d)
        results.append(v.squeeze(2).transpose(1, 2).index_select(1, inverse[k]))
    return F.silu(torch.stack(results, dim=2))


def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


class _OnCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, orders: Tensor) -> Tensor:
        from scanfuse.ops.route_conv import cpu

        ctx.save_for_backward(x, weight, bias, orders)
        return cpu.forward(x, weight, bias, orders)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        from scanfuse.ops.route_conv import cpu

        return *cpu.backward(dy, *ctx.saved_tensors), None
