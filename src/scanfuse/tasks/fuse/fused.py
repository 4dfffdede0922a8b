"""One fused pair: from the network's luminance back to pixels in the range, depth and colour of the sources."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from scanfuse.data.readers import Image, from_unit, to_unit
from scanfuse.tasks.fuse.colour import Stretch, blend, join_colour, span, to_plane

__all__ = ["FusedImage", "fused_image"]


@dataclass(frozen=True)
class FusedImage:
    """One fused pair.

    Attributes:
        id, group: of the pair.
        pixels: (H, W) or (H, W, 3), dtype and value range of `reference`.
        luminance: (H, W) float64, 0..255: of `pixels` as they are written.
        sources: the luminance of each source by modality, (H, W) float64, 0..255.
        views: a picture of each source and, under "fused", of the result, (H, W, 3) uint8.
        reference: the source whose range and dtype the result takes: the coloured one, else the deeper one.
        plain: results of plain methods on the same pair by name, where they were asked for.
    """

    id: str
    group: str
    pixels: np.ndarray
    luminance: np.ndarray
    sources: dict[str, np.ndarray]
    views: dict[str, np.ndarray]
    reference: Image
    plain: Mapping[str, "FusedImage"] = field(default_factory=dict)


def fused_image(
    luminance: Float[Tensor, "1 1 h w"],
    tensors: Mapping[str, Float[Tensor, "1 c h w"]],
    meta: Mapping[str, Any],
    *,
    stretched: Stretch | None,
) -> FusedImage:
    """The result of one pair.

    Args:
        luminance: fused, nominally in [0, 1].
        tensors: modality -> the source as the network saw it, in [0, 1].
        meta: of the sample, with its uncropped "images".
        stretched: how the sources of the fused luminance were stretched (a network); None: not (a baseline).
    """
    modalities = list(tensors)
    planes = [to_plane(tensor) for tensor in tensors.values()]
    images: list[Image] = [meta["images"][name] for name in modalities]
    coloured = [index for index, plane in enumerate(planes) if plane.chroma is not None]
    fused = luminance.float()
    if stretched:
        # The colour belongs to the brightness of its own source; grey results span both sources.
        low, high = span([planes[index] for index in coloured if stretched == "each"] or planes)
        fused = fused * (high - low) + low
    fused = fused.clamp(0, 1)
    reference = images[coloured[0]] if coloured else max(images, key=lambda image: image.pixels.dtype.itemsize)
    chromas = [plane.chroma for plane in planes if plane.chroma is not None]
    unit = join_colour(fused, blend(chromas)) if chromas else fused
    array = unit[0].permute(1, 2, 0).cpu().numpy() if chromas else unit[0, 0].cpu().numpy()
    pixels = from_unit(array, reference)
    written = Image(pixels, reference.low, reference.high, reference.spacing_mm, reference.source)
    return FusedImage(
        id=str(meta["id"]),
        group=str(meta["group"]),
        pixels=pixels,
        luminance=_luminance_255(to_unit(written)),
        sources={name: _luminance_255(to_unit(image)) for name, image in zip(modalities, images, strict=True)},
        views={
            **{name: _view(to_unit(image)) for name, image in zip(modalities, images, strict=True)},
            "fused": _view(to_unit(written)),
        },
        reference=reference,
    )


def _luminance_255(unit: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) in [0, 1] to luminance on 0..255; whole numbers stay whole."""
    values = unit.astype(np.float64) * 255.0
    if values.ndim == 3:
        values = values @ np.array([0.299, 0.587, 0.114])
    whole = np.rint(values)
    return np.where(np.abs(values - whole) < 1e-3, whole, values)


def _view(unit: np.ndarray) -> np.ndarray:
    grey = np.rint(unit * 255).astype(np.uint8)
    return grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)
