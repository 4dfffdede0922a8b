"""Position-wise linear maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Linear", "linear", "route_linear"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b on the last axis, as `torch.nn.functional.linear`: (..., i), (o, i), (o) -> (..., o).

    In float32 on the CPU it runs as a 1x1 convolution: torch gives matrix products to MKL, which keeps to half the
    vector width on AMD processors, and convolutions to oneDNN, which does not (Zen 5, 2 threads, 2048 x 128 by
    128 x 256: 203 against 430 GFLOP/s; forward and backward 2.5 against 1.3 ms).
    """
    if (
        x.device.type != "cpu"
        or x.dtype != torch.float32
        or x.numel() == 0
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
    ):
        return F.linear(x, weight, bias)
    # With a single thread torch takes oneDNN for 1x1 convolutions of 16 samples or more only.
    rows = x.reshape(16 if x[..., 0].numel() % 16 == 0 else 1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    y = F.conv2d(rows, weight[:, :, None, None], bias)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


def route_linear(x: Tensor, weight: Tensor) -> Tensor:
    """One linear map per route: (b, l, k, i), (k, o, i) -> (b, l, k, o).

    On the CPU autocast does not lower its precision: these thin products gain nothing from bfloat16, and the scan
    that follows wants float32.
    """
    if x.device.type != "cpu":
        return torch.einsum("blki,koi->blko", x, weight)
    with torch.autocast("cpu", enabled=False):
        return torch.einsum("blki,koi->blko", x.to(weight.dtype), weight)


class Linear(nn.Linear):
    """`torch.nn.Linear` through `linear`: the same parameters and names, the faster product."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
