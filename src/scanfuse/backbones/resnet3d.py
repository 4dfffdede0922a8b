"""MONAI's ResNet in three dimensions as an encoder: the last of its feature maps."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Depth", "ResNet3D"]

Depth = Literal[10, 18, 34, 50, 101]

_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class ResNet3D(nn.Module):
    """x (b, c, d, h, w) -> map (b, dim, d', h', w'), its sides those of x over 16 times the stem's stride.

    Only the parts up to that map are built, so nothing goes untrained.

    Args:
        depth: layers of the published network; from 50 on with bottlenecks.
        width: channels of the first stage; each further one doubles them.
        channels: of the input.
        stem_stride: of the first convolution; 1 keeps small volumes from becoming a single place.

    Example:
        >>> ResNet3D(10, width=4, channels=2)(torch.zeros(1, 2, 64, 64, 32)).shape
        torch.Size([1, 32, 2, 2, 1])

    Source: He et al., "Deep Residual Learning for Image Recognition", 2016; Hara et al. 2018 in three dimensions.
    """

    def __init__(self, depth: Depth, *, width: int = 64, channels: int = 1, stem_stride: Literal[1, 2] = 2) -> None:
        super().__init__()
        from monai.networks.nets.resnet import ResNet  # seconds to import, and only volumes need it

        whole = ResNet(
            "bottleneck" if depth >= 50 else "basic",
            list(_BLOCKS[depth]),
            [width, 2 * width, 4 * width, 8 * width],
            spatial_dims=3,
            n_input_channels=channels,
            conv1_t_stride=stem_stride,
            feed_forward=False,
            bias_downsample=False,  # the norm behind it would take a bias away
        )
        parts = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
        self.network = nn.Sequential(*(whole.get_submodule(name) for name in parts))
        self.dim: int = whole.in_planes

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c2 d2 h2 w2"]:
        z: Tensor = self.network(x)
        return z
