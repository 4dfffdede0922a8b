"""Colour and value range of a source of image fusion.

A colour source (SPECT, PET, visible light) is split into luminance and chrominance (YCbCr, BT.601, full range).
Only luminances are fused; the chrominance is carried through. Luminances are stretched to [0, 1] before the
network sees them, each by its own range or both by that of the pair, and the stretch is undone afterwards, so that
the values leave in the range in which they came.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from scanfuse.data.readers import Image, to_unit

__all__ = ["Plane", "Stretch", "blend", "join_colour", "luminance_of", "span", "split_colour", "stretch", "to_plane"]


Stretch = Literal["each", "pair"]
"""By whose range luminances become 0 to 1: each by its own, or both by that of the two together."""


@dataclass(frozen=True)
class Plane:
    """A source as the network sees it.

    Attributes:
        stretched: (1, 1, H, W) luminance, smallest value 0 and largest 1; all zero for a constant image.
        luminance: (1, 1, H, W) luminance in [0, 1] before the stretch.
        low, high: smallest and largest luminance; stretched * (high - low) + low gives `luminance` back.
        chroma: (1, 2, H, W) Cb and Cr, 0.5 is grey; None for a grey source.
    """

    stretched: Tensor
    luminance: Tensor
    low: float
    high: float
    chroma: Tensor | None


def split_colour(rgb: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 2 h w"]]:
    """RGB in [0, 1] to luminance Y and chrominance (Cb, Cr), all in [0, 1]. Source: ITU-R BT.601, JPEG range."""
    red, green, blue = rgb.unbind(1)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    return y.unsqueeze(1), torch.stack([(blue - y) / 1.772 + 0.5, (red - y) / 1.402 + 0.5], 1)


def join_colour(y: Float[Tensor, "b 1 h w"], chroma: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 3 h w"]:
    """The inverse of `split_colour`, clipped to [0, 1]."""
    y, cb, cr = y[:, 0], chroma[:, 0] - 0.5, chroma[:, 1] - 0.5
    red, blue = y + 1.402 * cr, y + 1.772 * cb
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return torch.stack([red, green, blue], 1).clamp(0, 1)


def to_plane(image: Float[Tensor, "1 c h w"]) -> Plane:
    """Luminance, chrominance and stretch of one source with values in [0, 1]."""
    luminance, chroma = (image, None) if image.shape[1] == 1 else split_colour(image)
    low, high = (float(end) for end in luminance.detach().aminmax())
    span = high - low
    stretched = (luminance - low) / span if span > 0 else torch.zeros_like(luminance)
    return Plane(stretched, luminance, low, high, chroma)


def luminance_of(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """The luminance of grey or colour sources with values in [0, 1]."""
    return image if image.shape[1] == 1 else split_colour(image)[0]


def stretch(batch: Mapping[str, Any], modality: str, *, together: tuple[str, ...] = ()) -> Float[Tensor, "b 1 h w"]:
    """The luminances of one modality of a batch, stretched by the range of the whole images.

    A random crop is stretched as the image it was cut from, so that training sees the values of prediction.

    Args:
        batch: with the uncropped "images" in the "meta" of each sample.
        modality: which.
        together: modalities whose common range it is; by default that of this one alone.
    """
    stretched = []
    for tensor, meta in zip(batch[modality], batch["meta"], strict=True):
        low, high = span(to_plane(_tensor(meta["images"][name])) for name in together or (modality,))
        luminance = luminance_of(tensor.unsqueeze(0))
        stretched.append((luminance - low) / (high - low) if high > low else torch.zeros_like(luminance))
    return torch.cat(stretched)


def span(planes: Iterable[Plane]) -> tuple[float, float]:
    """The smallest and the largest luminance of some sources."""
    ends = [(plane.low, plane.high) for plane in planes]
    return min(low for low, _ in ends), max(high for _, high in ends)


def blend(chromas: list[Tensor]) -> Tensor:
    """Chrominances of one or two coloured sources, each weighted by its distance from grey."""
    if len(chromas) == 1:
        return chromas[0]
    weights = [(chroma - 0.5).abs() + 1e-6 for chroma in chromas]
    return sum((w * c for w, c in zip(weights, chromas, strict=True)), torch.zeros(())) / sum(weights)


def _tensor(image: Image) -> Tensor:
    unit = torch.from_numpy(to_unit(image))
    return unit[None, None] if unit.ndim == 2 else unit.permute(2, 0, 1)[None]
