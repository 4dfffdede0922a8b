"""Parts of ClinicalFMamba that images and volumes share: encoder, latent stacks, enlargement, attention, head.

What differs is the number of sides, `num_dims`; a map of k sides is (b, c, *sides) for convolutions and
(b, *sides, c) for Mamba blocks.

Source: M. Zhou and F. Khalvati, "ClinicalFMamba", arXiv 2508.03008, 2025, and its published code.
"""

import itertools
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from scanfuse.config import Section
from scanfuse.fusion.average import AverageFusion
from scanfuse.fusion.channel_attention import CMCA, lift_of
from scanfuse.fusion.concat import ConcatFusion
from scanfuse.fusion.cross_mamba import CrossMambaFusion
from scanfuse.fusion.source_details import SourceDetails
from scanfuse.layers.conv import CONVS, DGCB, LEAK, Dims, EnlargingConv, Norm, norm_of
from scanfuse.layers.mamba import LatentMamba, RouteSet, VolumeRouteSet

__all__ = [
    "Dilation",
    "Encoder",
    "HeadSettings",
    "LatentFusion",
    "Width",
    "attend",
    "attend_volumes",
    "attention",
    "attention_of_volumes",
    "enlarging_stages",
    "fusion_of",
    "latent_stack",
    "padded",
]

LatentFusion = Literal["cross_mamba", "concat", "mean"]
"""How two latent maps become one."""

Width = Annotated[int, Field(ge=1, le=4096)]
Dilation = Annotated[int, Field(ge=1, le=64)]


class HeadSettings(Section):
    """The last layer of a network, as published or ours."""

    head: Literal["sigmoid", "details"] = Field(
        "sigmoid", description="sigmoid: as published; details: a choice between the sources plus their own details"
    )
    detail_width: Width = Field(24, description="of the blocks of the head of details")
    detail_dilations: tuple[Dilation, ...] = Field(
        (1, 2, 4, 1), min_length=1, max_length=16, description="of these blocks, one for each"
    )
    detail_levels: int = Field(4, ge=1, le=8, description="scales of the details: 1, 2, 4, ... pixels")
    detail_sharpness: float = Field(
        50.0, gt=0, le=1000, description="of the choice at the start: 50 the brighter source, 1 about the mean"
    )
    detail_edges: bool = Field(
        False, description="whether the head of details also sees how the edges of the sources compare"
    )

    @model_validator(mode="after")
    def _no_option_without_effect(self) -> "HeadSettings":
        if self.head == "sigmoid":
            for name in ("detail_width", "detail_dilations", "detail_levels", "detail_sharpness", "detail_edges"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} needs the head of details: --head details")
        return self

    def details(self, context: int, num_dims: Dims) -> SourceDetails:
        """The head of details for a context map of so many channels and sides.

        Volumes have it smooth; for images it is as the weights that ship were trained.
        """
        return SourceDetails(
            context=context,
            width=self.detail_width,
            dilations=self.detail_dilations,
            levels=self.detail_levels,
            sharpness=self.detail_sharpness,
            num_dims=num_dims,
            smooth=num_dims == 3,
            edges=self.detail_edges,
        )


class Encoder(nn.Module):
    """Three stages, each a strided 2-wide convolution and a DGCB: image (b, 1, *sides) -> (b, c2, *sides / stride).

    With stem stride 1 the first stage has no strided convolution. The stem belongs to the model, since the decoder
    uses it too.

    Args:
        channels: widths of the stages. dilations: of their DGCBs. stem_stride: 1 or 2. norm: of the DGCBs.
        num_dims: sides of the image. pyramid: of the DGCBs.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        dilations: Sequence[int],
        stem_stride: Literal[1, 2],
        norm: Norm,
        num_dims: Dims,
        pyramid: bool,
    ) -> None:
        super().__init__()
        conv = CONVS[num_dims]

        def block(width: int, dilation: int) -> DGCB:
            return DGCB(width, dilation=dilation, norm=norm, num_dims=num_dims, pyramid=pyramid)

        first = channels[0]
        self.down = conv(first, first, 2, stride=2) if stem_stride == 2 else None
        stages: list[nn.Module] = [block(first, dilations[0])]
        for (before, after), dilation in zip(pairwise(channels), dilations[1:], strict=True):
            stages.append(conv(before, after, 2, stride=2))
            stages.append(block(after, dilation))
        self.stages = nn.Sequential(*stages)
        self.num_dims = num_dims

    def forward(self, image: Float[Tensor, "b 1 *s"], stem: nn.Conv2d | nn.Conv3d) -> Float[Tensor, "b c2 *t"]:
        # An image of one channel has no layout; from here on the channels lie innermost, which convolutions like.
        layout = torch.channels_last if self.num_dims == 2 else torch.channels_last_3d
        if self.down is None:
            return self.stages(stem(image).contiguous(memory_format=layout))
        # No activation stands between stem and down: together they are one 4-wide convolution of stride 2 with a
        # padding of 1, and the map at full size need not be built.
        conv, transposed = (F.conv2d, F.conv_transpose2d) if self.num_dims == 2 else (F.conv3d, F.conv_transpose3d)
        down, bias = self.down.weight, self.down.bias
        with torch.autocast(image.device.type, enabled=False):
            weight = transposed(down, stem.weight)
            bias = bias + down.sum(tuple(range(2, down.ndim))) @ stem.bias  # type: ignore[operator]
        x = conv(image, weight, bias, stride=2, padding=1)
        return self.stages(x.contiguous(memory_format=layout))


def latent_stack(
    dim: int, *, blocks: int, route_set: RouteSet | VolumeRouteSet, d_state: int, expand: int
) -> nn.Sequential:
    """Latent Mamba blocks one after the other: (b, *sides, c) -> the same."""
    return nn.Sequential(
        *(LatentMamba(dim, route_set=route_set, d_state=d_state, expand=expand) for _ in range(blocks))
    )


def fusion_of(
    kind: LatentFusion, dim: int, *, route_set: RouteSet | VolumeRouteSet, d_state: int, expand: int
) -> nn.Module:
    """The block of this kind: two latent maps (b, *sides, c) -> one."""
    if kind == "cross_mamba":
        return CrossMambaFusion(dim, route_set=route_set, d_state=d_state, expand=expand)
    return ConcatFusion(dim) if kind == "concat" else AverageFusion(dim)


def enlarging_stages(
    channels: tuple[int, int, int], *, stem_stride: Literal[1, 2], norm: Norm, num_dims: Dims
) -> nn.Sequential:
    """(Up 2, Conv3, LeakyReLU, norm) as often as the encoder halves: (b, c2, *sides) -> (b, c0, *stride sides).

    For volumes enlargement and convolution are one step (`EnlargingConv`), since an enlarged volume has eight times
    the positions; for images they stay two, to the bit as they were.
    """
    c0, c1, c2 = channels
    stages: list[nn.Module] = []
    for before, after in pairwise([c2, c1, c0] + [c0] * (stem_stride - 1)):
        if num_dims == 2:
            stages += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(before, after, 3, padding=1)]
        else:
            stages.append(EnlargingConv(before, after, num_dims=num_dims))
        stages += [nn.LeakyReLU(LEAK, inplace=True), norm_of(norm, after, num_dims=num_dims)]
    return nn.Sequential(*stages)


def padded(image: Float[Tensor, "b c *sides"], stride: int) -> Float[Tensor, "b c *larger"]:
    """The image extended at the end of each side, by its last values, to a multiple of the stride."""
    missing = [-side % stride for side in image.shape[2:]]
    return F.pad(image, [part for size in reversed(missing) for part in (0, size)], mode="replicate")


def attention(
    cmca: CMCA, pixels: tuple[Float[Tensor, "b j l"], Float[Tensor, "b j l"]], stem: nn.Conv2d | nn.Conv3d
) -> Float[Tensor, "b c 2*j"]:
    """CMCA(s_a, s_b) and CMCA(s_b, s_a), where s = stem(image), as a matrix on the `neighbourhoods` of a and b.

    The stem has no activation: s is a matrix times the pixels around a position and a 1. So both terms are small
    matrices times those numbers, and no full-size map with c channels is built for them.
    """
    lift = lift_of(stem)
    p_a, p_b = pixels
    return torch.cat([cmca.weights(p_b, lift), cmca.weights(p_a, lift)], dim=2)


def attend(
    f: Float[Tensor, "b c h w"],
    pixels: tuple[Float[Tensor, "b j l"], Float[Tensor, "b j l"]],
    weights: Float[Tensor, "b c 2*j"],
) -> Float[Tensor, "b c h w"]:
    """f + `weights` times the neighbourhoods of both images."""
    f_blc = f.permute(0, 2, 3, 1).flatten(1, 2)
    f_blc = torch.baddbmm(f_blc, torch.cat(pixels, dim=1).transpose(1, 2), weights.transpose(1, 2))
    return f_blc.unflatten(1, f.shape[2:]).permute(0, 3, 1, 2)


def attention_of_volumes(
    cmca: CMCA,
    volumes: tuple[Float[Tensor, "b 1 d h w"], Float[Tensor, "b 1 d h w"]],
    stem: nn.Conv2d | nn.Conv3d,
    slices: int = 16,
) -> Float[Tensor, "b c 56"]:
    """`attention` for volumes, whose neighbourhoods would be 27 copies of them: only those at the peaks are taken.

    Args:
        slices: whose keys are in memory at a time.
    """
    lift = lift_of(stem)
    a, b = volumes
    terms = [cmca.weights_at(*_pooled(ref, cmca.keys(lift), slices), lift) for ref in (b, a)]
    return torch.cat(terms, dim=2)


def attend_volumes(
    f: Float[Tensor, "b c d h w"],
    volumes: tuple[Float[Tensor, "b 1 d h w"], Float[Tensor, "b 1 d h w"]],
    weights: Float[Tensor, "b c 56"],
) -> Float[Tensor, "b c d h w"]:
    """f + `weights` times the neighbourhoods of both volumes: one convolution with kernels for each sample."""
    batch, channels = weights.shape[:2]
    apart = weights.unflatten(2, (2, 28))
    kernels = apart[..., :27].reshape(batch * channels, 2, 3, 3, 3)
    both = torch.cat(volumes, dim=1).flatten(0, 1)[None]
    found = F.conv3d(both, kernels, apart[..., 27].sum(dim=2).flatten(), padding=1, groups=batch)
    return f + found.view(f.shape)


def _pooled(
    ref: Float[Tensor, "b 1 d h w"], keys: Float[Tensor, "c 28"], slices: int
) -> tuple[Float[Tensor, "b 28 c"], Float[Tensor, "b 28"]]:
    """The neighbourhoods where each key is largest, and the mean neighbourhood."""
    depth, height, width = ref.shape[2:]
    around = F.pad(ref, (1, 1, 1, 1, 1, 1))
    with torch.no_grad():
        kernels, bias = keys[:, :27].reshape(-1, 1, 3, 3, 3), keys[:, 27].contiguous()
        peaks, places = [], []
        for first in range(0, depth, slices):
            found = F.conv3d(around[:, :, first : first + slices + 2], kernels, bias).flatten(2).max(dim=2)
            peaks.append(found.values)
            places.append(found.indices + first * height * width)
        best = torch.stack(peaks).argmax(dim=0, keepdim=True)
        place = torch.stack(places).gather(0, best)[0]
        d, h, w = place // (height * width), place // width % height, place % width
        corner = (d * (height + 2) + h) * (width + 2) + w
    offsets = list(itertools.product(range(3), repeat=3))
    steps = torch.tensor(offsets, device=ref.device) @ torch.tensor(
        [(height + 2) * (width + 2), width + 2, 1], device=ref.device
    )
    at_peak = around.flatten(1).gather(1, (corner[:, None] + steps[:, None]).flatten(1)).unflatten(1, (27, -1))
    sums = [around[:, 0, i : i + depth, j : j + height, k : k + width].sum(dim=(1, 2, 3)) for i, j, k in offsets]
    mean = torch.stack(sums, dim=1) / (depth * height * width)
    return F.pad(at_peak, (0, 0, 0, 1), value=1.0), F.pad(mean, (0, 1), value=1.0)
