"""A light ConvNeXt-style stem: a picture to a map of a quarter of its side, by large convolutions."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.layers.drop_path import DropPath
from scanfuse.layers.vss import MLP

__all__ = ["ConvNeXtBlock", "LightStem"]


class ConvNeXtBlock(nn.Module):
    """x += DropPath(gamma * MLP(LN(depthwise7x7(x)))), channels last inside, the MLP of ratio 4.

    Parameters: 8 c^2 + 58 c.

    Args:
        dim: c. layer_scale: what gamma starts from. drop_path: chance of dropping the branch in training.

    Shape:
        (b, c, h, w) -> (b, c, h, w).

    Source: Liu et al., "A ConvNet for the 2020s", 2022.
    """

    def __init__(self, dim: int, *, layer_scale: float = 1e-6, drop_path: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gamma * self.mlp(self.norm(self.conv(x).permute(0, 2, 3, 1)))
        return x + self.drop_path(y).permute(0, 3, 1, 2)


class LightStem(nn.Module):
    """conv 4x4 of stride 4, LN, blocks, conv 1x1, LN; the norms are over the channels of each place.

    Parameters, for width s, d outputs and n blocks: 48 s + 3 s + n (8 s^2 + 58 s) + s d + 3 d; for s = 96, d = 192,
    n = 2: 182,496.

    Args:
        width: s. dim: d. depth: n. layer_scale, drop_path: of the blocks.

    Shape:
        (b, 3, h, w), sides of four pixels or more -> (b, dim, h // 4, w // 4).

    Source: the published MambaDerm code ("CNN stem").

    Differences from the publication: its norm is over all places and channels together, though its comment says per
    place. It is per place here, so that what lies far away does not dim a lesion.
    """

    def __init__(
        self, dim: int, *, width: int = 96, depth: int = 2, layer_scale: float = 1e-6, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.dim = dim
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, layer_scale=layer_scale, drop_path=drop_path) for _ in range(depth)
        )
        self.project = nn.Conv2d(width, dim, 1)
        self.out_norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = _normed(self.patch(x), self.norm)
        for block in self.blocks:
            y = block(y)
        return _normed(self.project(y), self.out_norm)


def _normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """A layer norm over the channels of each place of a map (b, c, h, w)."""
    y = F.layer_norm(x.permute(0, 2, 3, 1), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return y.permute(0, 3, 1, 2)
