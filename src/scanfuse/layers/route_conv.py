"""Causal depthwise convolution along routes over a map."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanfuse.ops import routes

__all__ = ["RouteConv"]


class RouteConv(nn.Module):
    """Each route k reads the map along its order and convolves, channel by channel:

        y[orders[k, t], k] = bias_k + sum over j < width of weight_k[width - 1 - j] * x[orders[k, t - j]]

    Positions before the start of a route count as zero. The last tap meets the position itself, as in the convolution
    of Mamba, so `weight` (k, i, width) is k such kernels stacked.

    Args:
        channels: i. num_routes: k. width: taps.

    Shape:
        x (b, l, i), orders (k, l) int64 -> (b, l, k, i), natural order.
    """

    def __init__(self, channels: int, *, num_routes: int, width: int = 4) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(num_routes, channels, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_routes, channels).uniform_(-bound, bound))

    def forward(self, x: Tensor, orders: Tensor) -> Tensor:
        width = self.weight.shape[2]
        inverse = routes.inverse(orders)
        outputs = []
        for k in range(orders.shape[0]):
            # (b, i, 1, l) with the channels innermost in memory: the layout for which convolutions are fast.
            sequence = x.index_select(1, orders[k]).transpose(1, 2).unsqueeze(2)
            y = F.conv2d(
                sequence,
                self.weight[k, :, None, None, :],
                self.bias[k],
                padding=(0, width - 1),
                groups=self.weight.shape[1],
            )
            outputs.append(y.squeeze(2).transpose(1, 2).index_select(1, inverse[k]))
        return torch.stack(outputs, dim=2)
