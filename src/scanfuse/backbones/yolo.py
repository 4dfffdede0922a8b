"""The networks of YOLOv8 and YOLOv5 as streams of a detector: an image to maps of strides 4, 8, 16 and 32.

    x (b, 3, h, w)
      P2   Conv (stem) s2 · Conv s2 · cross-stage block          c_2 @ h/4
      P3   Conv s2 · cross-stage block                           c_3 @ h/8     -> neck
      P4   Conv s2 · cross-stage block                           c_4 @ h/16    -> neck
      P5   Conv s2 · cross-stage block · SPPF                    c_5 @ h/32    -> neck

"v8" has C2f blocks and a 3x3 stem, "v5" has C3 blocks and a 6x6 stem (the same as the older 3x3 convolution on 2x2
pixels laid side by side). Each level is a module of its own in `stages`, so that a fusion can stand between them and
feed the next stage.

Parameters of a whole detector with 80 classes (`YOLO`; published counts have 16 more, the fixed values of bins):

    v8   n 3,157,184   s 11,166,544   m 25,902,624   l 43,691,504   x 68,229,632

Differences from the publication
* "paper" is the network whose arithmetic fits the published Fusion-Mamba detector: size l of YOLOv8 with 1024
  channels at P5, where the stock network has 512; for v5, l with nine bottlenecks at P3 and P4, as in its release 5.
* v5 has the anchor-free head of v8 in place of three anchors per cell, so that both share assigner and loss.

Source: Jocher et al., YOLOv5 (2020) and YOLOv8 (2023), network descriptions; no paper.
"""

import math
from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from scanfuse.config import Section
from scanfuse.layers.detect_head import DetectHead
from scanfuse.layers.pan import PAN
from scanfuse.layers.yolo import SPPF, Block, ConvNormAct, block_of

__all__ = ["SIZES", "SIZES_V5", "YOLO", "Variant", "YOLOBackbone", "YOLOConfig", "scaled"]

Variant = Literal["v8", "v5"]

_CHANNELS = (64, 128, 256, 512, 1024)
_BLOCKS: dict[Variant, tuple[int, int, int, int]] = {"v8": (3, 6, 6, 3), "v5": (3, 6, 9, 3)}
_NECK_BLOCKS = 3


class YOLOConfig(Section):
    """The sizes of a YOLO network without its classes. See `SIZES` and `SIZES_V5`."""

    variant: Variant = Field("v8", description="v8: C2f blocks; v5: C3 blocks and 1x1 convolutions in the neck")
    channels: tuple[int, int, int, int, int] = Field(description="channels of the stem and of P2, P3, P4, P5")
    depths: tuple[int, int, int, int] = Field(description="bottlenecks at P2, P3, P4, P5")
    neck_depth: int = Field(ge=1, description="bottlenecks in each block of the neck")

    @property
    def block(self) -> Block:
        """The cross-stage block of the variant."""
        return "c2f" if self.variant == "v8" else "c3"

    @property
    def dims(self) -> tuple[int, int, int]:
        """Channels of P3, P4, P5: of the backbone and of the neck."""
        return self.channels[2:]


def scaled(
    depth: float, width: float, max_channels: int = 1024, *, variant: Variant = "v8", blocks: tuple[int, ...] = ()
) -> YOLOConfig:
    """The family's rule: channels = min(c, max_channels) width, up to a multiple of 8; blocks = round(n depth).

    Args:
        depth, width: factors of the largest numbers, 3-6-6-3 (v5: 3-6-9-3) bottlenecks and 64 to 1024 channels.
        max_channels: cap before the factor.
        blocks: other numbers of bottlenecks than those.
    """

    def repeats(number: int) -> int:
        return max(1, round(number * depth))

    p2, p3, p4, p5 = blocks or _BLOCKS[variant]
    stem, *levels = (8 * math.ceil(min(c, max_channels) * width / 8) for c in _CHANNELS)
    return YOLOConfig(
        variant=variant,
        channels=(stem, levels[0], levels[1], levels[2], levels[3]),
        depths=(repeats(p2), repeats(p3), repeats(p4), repeats(p5)),
        neck_depth=repeats(_NECK_BLOCKS),
    )


SIZES: dict[str, YOLOConfig] = {
    "n": scaled(0.33, 0.25),
    "s": scaled(0.33, 0.50),
    "m": scaled(0.67, 0.75, 768),
    "l": scaled(1.0, 1.0, 512),
    "x": scaled(1.0, 1.25, 512),
    "paper": scaled(1.0, 1.0, 1024),
}
"""YOLOv8: the stock sizes, and `paper` with 1024 channels at P5."""

SIZES_V5: dict[str, YOLOConfig] = {
    "n": scaled(0.33, 0.25, variant="v5"),
    "s": scaled(0.33, 0.50, variant="v5"),
    "m": scaled(0.67, 0.75, variant="v5"),
    "l": scaled(1.0, 1.0, variant="v5"),
    "x": scaled(1.33, 1.25, variant="v5"),
    "paper": scaled(1.0, 1.0, variant="v5", blocks=(3, 9, 9, 3)),
}
"""YOLOv5: the sizes of its release 6, and `paper`, size l of its release 5."""


class YOLOBackbone(nn.Module):
    """One stream: the stages of the module's docstring.

    `stages[k]` maps level k - 1 (the image for k = 0) to level k; `strides` and `channels` say what comes out.
    Running them one after the other is `forward`; a detector with fusion between the levels runs them itself.

    Args:
        config: sizes; see `SIZES`.
        in_channels: channels of the image.

    Shape:
        (b, in_channels, h, w), h and w >= 32 -> maps of P2, P3, P4, P5, sides ceil(h / stride).

    Example:
        >>> import torch
        >>> stream = YOLOBackbone(SIZES["n"])
        >>> [tuple(p.shape[1:]) for p in stream(torch.zeros(1, 3, 64, 96))]
        [(32, 16, 24), (64, 8, 12), (128, 4, 6), (256, 2, 3)]
    """

    strides = (4, 8, 16, 32)

    def __init__(self, config: YOLOConfig, *, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.channels = config.channels[1:]
        c1, c2, c3, c4, c5 = config.channels
        n2, n3, n4, n5 = config.depths
        if config.variant == "v8":
            stem = ConvNormAct(in_channels, c1, 3, stride=2)
        else:
            stem = ConvNormAct(in_channels, c1, 6, stride=2, padding=2)

        def level(dim_in: int, dim: int, num_blocks: int) -> list[nn.Module]:
            return [ConvNormAct(dim_in, dim, 3, stride=2), block_of(config.block, dim, dim, num_blocks=num_blocks)]

        self.stages = nn.ModuleList(
            nn.Sequential(*parts)
            for parts in (
                [stem, *level(c1, c2, n2)],
                level(c2, c3, n3),
                level(c3, c4, n4),
                [*level(c4, c5, n5), SPPF(c5, c5)],
            )
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class YOLO(nn.Module):
    """A detector of one image: backbone, neck and head; `decode` of `layers.detect_head` makes boxes of its maps.

    Args:
        config: sizes. num_classes: n. in_channels: channels of the image. initial_distance: see `DetectHead`.

    Shape:
        (b, in_channels, h, w) -> raw maps (b, 64 + n, h / s, w / s) of strides 8, 16, 32.
    """

    def __init__(
        self, config: YOLOConfig, *, num_classes: int, in_channels: int = 3, initial_distance: float | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = YOLOBackbone(config, in_channels=in_channels)
        self.neck = PAN(config.dims, config.dims, num_blocks=config.neck_depth, block=config.block)
        self.head = DetectHead(config.dims, num_classes=num_classes, initial_distance=initial_distance)

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k _ _"], ...]:
        return self.head(*self.neck(*self.backbone(x)[1:]))
