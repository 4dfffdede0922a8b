"""The hybrid backbone of the COPD network: four stages of convolutions, axial attention and scans over one slice.

    slice (n,c,h,w) -- stem /4 -- MSEB -- down -- Hybrid -- down -- Hybrid -- down -- Axial -- LN --> (n,C,h/32,w/32)
                                   |               |                |                |
                                stage 1         stage 2          stage 3          stage 4

The publication names the three blocks and the four stages, and nothing else of them: widths, depths, kernels, norms,
the place of the scan and what "AAS" stands for are ours, and settings. The order is convolutions early, scans in the
middle, attention last, where the map is small.

Norms are per slice (group norms, and layer norms at a place): what a slice becomes depends on no other slice, so
padding, chunks of slices, accumulated steps and single patients all give the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scanfuse.layers.axial import AxialAttention
from scanfuse.layers.conv import norm_of
from scanfuse.layers.drop_path import DropPath
from scanfuse.layers.linear import Linear
from scanfuse.layers.ss2d import SS2D, SS2DOptions

__all__ = ["MSEB", "AxialAttentionBlock", "ConvBlock", "HybridDWConvAAS", "HybridMamba", "HybridOptions"]

Block = Literal["mseb", "hybrid", "axial", "conv"]


@dataclass(frozen=True, kw_only=True)
class HybridOptions:
    """Sizes and ablations.

    Attributes:
        in_channels: of a slice: its windows.
        widths, depths: channels and blocks of the stages.
        head_dim: channels of a head of the attentions; one head where a width is no multiple of it.
        d_state: states of the scans.
        mamba, axial, mseb: False takes the scan, every axial attention, or the MSEB away.
        drop_path: chance of dropping a branch in training.
    """

    in_channels: int = 1
    widths: tuple[int, ...] = (48, 96, 192, 384)
    depths: tuple[int, ...] = (2, 2, 4, 2)
    head_dim: int = 64
    d_state: int = 16
    mamba: bool = True
    axial: bool = True
    mseb: bool = True
    drop_path: float = 0.0

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The block of each stage: what an ablation takes away, plain convolutions replace."""
        return ("mseb" if self.mseb else "conv", "hybrid", "hybrid", "axial" if self.axial else "conv")

    def heads(self, width: int) -> int:
        """Heads of an attention over so many channels."""
        return width // self.head_dim if width % self.head_dim == 0 else 1


class HybridMamba(nn.Module):
    """The backbone of the module's docstring.

    Args:
        options: see `HybridOptions`.
        chunk: slices that are computed at once; in training each chunk is computed again in the backward pass, so
            that memory holds one chunk instead of all slices. 0 = all at once. It changes no result, up to rounding.

    Shape:
        (n, in_channels, h, w), h and w >= 1, n >= 1 -> (n, widths[-1], ceil(h / 32), ceil(w / 32)).

    Raises:
        ValueError: other than four stages.
    """

    def __init__(self, options: HybridOptions, *, chunk: int = 0) -> None:
        super().__init__()
        if len(options.widths) != 4 or len(options.depths) != 4:
            raise ValueError(f"four widths and four depths are needed, not {options.widths} and {options.depths}")
        self.options, self.chunk, self.dim = options, chunk, options.widths[-1]
        first = options.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(options.in_channels, max(first // 2, 1), 3, stride=2, padding=1),
            norm_of("group", max(first // 2, 1)),
            nn.SiLU(),
            nn.Conv2d(max(first // 2, 1), first, 3, stride=2, padding=1),
            norm_of("group", first),
        )
        self.downs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), PlaceNorm(after))
            for before, after in zip(options.widths, options.widths[1:], strict=False)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(_block(kind, width, options) for _ in range(depth)))
            for kind, width, depth in zip(options.blocks, options.widths, options.depths, strict=True)
        )
        self.norm = PlaceNorm(self.dim)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d p q"]:
        if not self.chunk or len(x) <= self.chunk:
            return self._one(x)
        saves = self.training and torch.is_grad_enabled()
        parts: Sequence[Tensor] = x.split(self.chunk)
        found = [checkpoint(self._one, part, use_reentrant=False) if saves else self._one(part) for part in parts]
        return torch.cat(found)

    def _one(self, x: Tensor) -> Tensor:
        x = self.stages[0](self.stem(x))
        for down, stage in zip(self.downs, self.stages[1:], strict=True):
            x = stage(down(x))
        normed: Tensor = self.norm(x)
        return normed


class PlaceNorm(nn.LayerNorm):
    """A layer norm over the channels of each place, channels first: (n, C, h, w) -> (n, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeedForward(nn.Module):
    """1x1 C -> 4 C, depthwise 3x3, GELU, 1x1 back; channels first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(dim, 4 * dim, 1), nn.Conv2d(4 * dim, 4 * dim, 3, padding=1, groups=4 * dim), nn.GELU(),
            nn.Conv2d(4 * dim, dim, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


class MSEB(nn.Module):
    """Multi-scale squeeze and excitation.

        u = PW(x);  b_k = SiLU(N(DW_k(u))), k = 3, 5, 7;  m = N(PW([b_3; b_5; b_7]))
        y = x + m * sigmoid(W_2 SiLU(W_1 mean(m)))

    Args:
        dim: C. drop_path: chance of dropping the branch in training.

    Shape:
        (n, C, h, w) -> (n, C, h, w).
    """

    def __init__(self, dim: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.enter = nn.Conv2d(dim, dim, 1)
        self.scales = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim), norm_of("group", dim), nn.SiLU())
            for k in (3, 5, 7)
        )
        self.merge = nn.Sequential(nn.Conv2d(3 * dim, dim, 1), norm_of("group", dim))
        hidden = max(dim // 8, 8)
        self.squeeze = nn.Sequential(nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, dim), nn.Sigmoid())
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        u = self.enter(x)
        m = self.merge(torch.cat([scale(u) for scale in self.scales], dim=1))
        return x + self.drop_path(m * self.squeeze(m.mean(dim=(2, 3)))[:, :, None, None])


class HybridDWConvAAS(nn.Module):
    """A depthwise convolution beside axial attention and a scan, mixed by two weights for each channel; then an FFN.

        n = LN x
        l = PW(SiLU(N(DW_5(n))))                        local
        g = SS2D(axial(n))                              global; axial attention has residuals, so n is in it
        w = softmax(W mean([l; g]))                     over the two, for each channel
        x += w_l l + w_g g;   x += FFN(LN x)

    "AAS" is read as axial attention and selective scan. Without the scan a linear map takes its place; without axial
    attention the scan reads n; without both only the local path is left.

    Args:
        dim: C. options: sizes and ablations.

    Shape:
        (n, C, h, w) -> (n, C, h, w).
    """

    def __init__(self, dim: int, options: HybridOptions) -> None:
        super().__init__()
        self.norm, self.ffn_norm = PlaceNorm(dim), PlaceNorm(dim)
        self.local = nn.Sequential(
            nn.Conv2d(dim, dim, 5, padding=2, groups=dim), norm_of("group", dim), nn.SiLU(), nn.Conv2d(dim, dim, 1)
        )
        self.has_global = options.mamba or options.axial
        if options.axial:
            self.axial = AxialAttention(dim, heads=options.heads(dim))
        if self.has_global:
            self.scan: nn.Module = (
                SS2D(dim, SS2DOptions(d_state=options.d_state)) if options.mamba else Linear(dim, dim)
            )
            self.mix = nn.Linear(2 * dim, 2 * dim)
        self.ffn = FeedForward(dim)
        self.drop_path = DropPath(options.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        mixed = self.local(n)
        if self.has_global:
            places = n.permute(0, 2, 3, 1)
            wide = self.scan(self.axial(places) if hasattr(self, "axial") else places).permute(0, 3, 1, 2)
            means = torch.cat([mixed, wide], dim=1).mean(dim=(2, 3))
            weights = self.mix(means).unflatten(1, (2, -1)).softmax(dim=1)[..., None, None]
            mixed = weights[:, 0] * mixed + weights[:, 1] * wide
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.ffn(self.ffn_norm(x)))


class AxialAttentionBlock(nn.Module):
    """x += row attention(LN x);  x += column attention(LN x);  x += FFN(LN x).

    Args:
        dim: C. options: heads and drop path.

    Shape:
        (n, C, h, w) -> (n, C, h, w).
    """

    def __init__(self, dim: int, options: HybridOptions) -> None:
        super().__init__()
        self.attention = AxialAttention(dim, heads=options.heads(dim))
        self.norm = PlaceNorm(dim)
        self.ffn = FeedForward(dim)
        self.drop_path = DropPath(options.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x + self.drop_path(attended - x)
        return x + self.drop_path(self.ffn(self.norm(x)))


class ConvBlock(nn.Module):
    """What an ablation puts in place of a block: x += PW(SiLU(N(DW_5(LN x))));  x += FFN(LN x).

    Shape:
        (n, C, h, w) -> (n, C, h, w).
    """

    def __init__(self, dim: int, options: HybridOptions) -> None:
        super().__init__()
        self.norm, self.ffn_norm = PlaceNorm(dim), PlaceNorm(dim)
        self.depthwise = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.inner_norm = norm_of("group", dim)
        self.pointwise = nn.Conv2d(dim, dim, 1)
        self.ffn = FeedForward(dim)
        self.drop_path = DropPath(options.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.pointwise(F.silu(self.inner_norm(self.depthwise(self.norm(x))))))
        return x + self.drop_path(self.ffn(self.ffn_norm(x)))


def _block(kind: Block, width: int, options: HybridOptions) -> nn.Module:
    if kind == "mseb":
        return MSEB(width, drop_path=options.drop_path)
    return {"hybrid": HybridDWConvAAS, "axial": AxialAttentionBlock, "conv": ConvBlock}[kind](width, options)
