"""The short convolution of Mamba blocks, one per route."""

import math

import torch
from torch import Tensor, nn

from scanfuse.ops.route_conv import conv_routes

__all__ = ["RouteConv"]


class RouteConv(nn.Module):
    """SiLU of a causal depthwise convolution along every route; see `scanfuse.ops.route_conv.conv_routes`.

    `weight` (k, d, width) is k kernels of a depthwise Conv1d stacked, with its initial values.

    Args:
        channels: d. num_routes: k. width: taps.

    Shape:
        x (b, l, d), orders (k, l) int64 -> (b, l, k, d), natural order, float32 (float64 for a float64 x).
    """

    def __init__(self, channels: int, *, num_routes: int, width: int = 4) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(num_routes, channels, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_routes, channels).uniform_(-bound, bound))

    def forward(self, x: Tensor, orders: Tensor) -> Tensor:
        return conv_routes(x, self.weight, self.bias, orders)
