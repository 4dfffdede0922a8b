"""Image fusion: what every system that fuses two registered images shares (colour, value range, scores, pictures).

A colour source (SPECT, PET, visible light) is split into luminance and chrominance (YCbCr, BT.601, full range).
Only luminances are fused; the chrominance is carried through. Each luminance is stretched to [0, 1] before the
network sees it, and the stretch is undone afterwards, so that the values leave in the range in which they came.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont
from torch import Tensor

from scanfuse.data.readers import Image, from_unit, suffix_for, to_unit, write_image
from scanfuse.errors import UserError
from scanfuse.files import atomic_path, file_name
from scanfuse.fusion import pixel
from scanfuse.metrics.fusion import METRICS
from scanfuse.metrics.fusion import score as score_pair

__all__ = [
    "BASELINES",
    "FusedImage",
    "Plane",
    "fuse_images",
    "gallery",
    "join_colour",
    "metrics",
    "save",
    "score",
    "side_by_side",
    "split_colour",
    "stretch",
    "to_plane",
]

Fuser = Callable[[Tensor, Tensor], Tensor]

BASELINES: Mapping[str, Fuser] = MappingProxyType(
    {"average": pixel.average, "maximum": pixel.maximum, "laplacian": pixel.laplacian_pyramid}
)
"""Plain methods that stand in every table."""

_CAPTION_HEIGHT = 22


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
    """

    id: str
    group: str
    pixels: np.ndarray
    luminance: np.ndarray
    sources: dict[str, np.ndarray]
    views: dict[str, np.ndarray]
    reference: Image


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


def stretch(batch: dict[str, Any], modality: str) -> Float[Tensor, "b 1 h w"]:
    """The luminances of one modality of a batch, each stretched by the range of its whole image.

    A random crop is stretched as the image it was cut from, so that training sees the values of prediction.
    """
    stretched = []
    for tensor, meta in zip(batch[modality], batch["meta"], strict=True):
        whole = to_plane(_tensor(meta["images"][modality]))
        luminance = to_plane(tensor.unsqueeze(0)).luminance
        span = whole.high - whole.low
        stretched.append((luminance - whole.low) / span if span > 0 else torch.zeros_like(luminance))
    return torch.cat(stretched)


@torch.no_grad()
def fuse_images(
    fuser: Fuser, batch: dict[str, Any], modalities: tuple[str, str], *, stretched: bool
) -> list[FusedImage]:
    """Fuses every pair of a batch.

    Args:
        fuser: maps two luminances (1, 1, H, W) in [0, 1] to a fused one.
        batch: of `scanfuse.data.inputs.image_pairs`: one tensor (B, C, H, W) per modality and `meta`.
        modalities: names of the two sources.
        stretched: whether the fuser gets stretched luminances (a network) or plain ones (a baseline).
    """
    return [
        _fuse_one(fuser, [batch[name][index : index + 1] for name in modalities], meta, modalities, stretched)
        for index, meta in enumerate(batch["meta"])
    ]


def _fuse_one(
    fuser: Fuser, tensors: list[Tensor], meta: dict[str, Any], modalities: tuple[str, str], stretched: bool
) -> FusedImage:
    planes = [to_plane(tensor) for tensor in tensors]
    images: list[Image] = [meta["images"][name] for name in modalities]
    coloured = [index for index, plane in enumerate(planes) if plane.chroma is not None]
    if stretched:
        fused = fuser(planes[0].stretched, planes[1].stretched).float()
        # The colour belongs to the brightness of its own source; grey results span both sources.
        spans = [planes[index] for index in coloured] or planes
        low, high = min(plane.low for plane in spans), max(plane.high for plane in spans)
        fused = fused * (high - low) + low
    else:
        fused = fuser(planes[0].luminance, planes[1].luminance).float()
    fused = fused.clamp(0, 1)
    reference = images[coloured[0]] if coloured else max(images, key=lambda image: image.pixels.dtype.itemsize)
    chromas = [plane.chroma for plane in planes if plane.chroma is not None]
    unit = join_colour(fused, _blend(chromas)) if chromas else fused
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


def _tensor(image: Image) -> Tensor:
    unit = torch.from_numpy(to_unit(image))
    return unit[None, None] if unit.ndim == 2 else unit.permute(2, 0, 1)[None]


def _blend(chromas: list[Tensor]) -> Tensor:
    """Chrominances of one or two coloured sources, each weighted by its distance from grey."""
    if len(chromas) == 1:
        return chromas[0]
    weights = [(chroma - 0.5).abs() + 1e-6 for chroma in chromas]
    return sum((w * c for w, c in zip(weights, chromas, strict=True)), torch.zeros(())) / sum(weights)


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


def metrics() -> dict[str, str]:
    """Names of the metrics in table order, and which direction is better."""
    return {name: metric.better for name, metric in METRICS.items()}


def score(result: FusedImage) -> dict[str, float]:
    """All fusion metrics of one result against its two sources, on luminances of 0..255."""
    a, b = result.sources.values()
    return score_pair(result.luminance, a, b)


def save(result: FusedImage, folder: Path) -> list[Path]:
    """Writes the fused image (in the depth of its reference) and a picture of both sources beside it.

    Returns:
        The paths: `<id>.png` (`.tif` for signed or float values) and `<id>_side_by_side.png`, with the id as
        `file_name` writes it.
    """
    name = file_name(result.id)
    main = folder / f"{name}{suffix_for(result.reference)}"
    write_image(main, result.pixels, bits=16 if result.pixels.dtype == np.uint16 else 8)
    picture = folder / f"{name}_side_by_side.png"
    with atomic_path(picture) as temporary:
        PillowImage.fromarray(side_by_side(result.views)).save(temporary)
    return [main, picture]


def side_by_side(views: dict[str, np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures of one height in a row, each under its name."""
    columns = [_captioned(view, name) for name, view in views.items()]
    gap = np.full((columns[0].shape[0], 4, 3), 255, np.uint8)
    row = [part for column in columns for part in (column, gap)][:-1]
    return np.concatenate(row, axis=1)


def gallery(rows: Sequence[dict[str, FusedImage]], path: Path) -> None:
    """One row per pair: both sources, then the result of every method. A row maps a method's name to its result."""
    if not rows:
        raise UserError("There is no pair to show.")
    lines = []
    for row in rows:
        first = next(iter(row.values()))
        views = {name: view for name, view in first.views.items() if name != "fused"}
        lines.append(side_by_side(views | {method: result.views["fused"] for method, result in row.items()}))
    width = max(line.shape[1] for line in lines)
    lines = [np.pad(line, ((0, 4), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    with atomic_path(path) as temporary:
        PillowImage.fromarray(np.concatenate(lines)).save(temporary)


def _captioned(view: np.ndarray, name: str) -> np.ndarray:
    """The view under its name; one narrower than its name gets white borders, else the name would be cut."""
    font = ImageFont.load_default(size=13)
    missing = max(0, math.ceil(font.getlength(name)) + 2 - view.shape[1])
    view = np.pad(view, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)), constant_values=255)
    strip = PillowImage.new("RGB", (view.shape[1], _CAPTION_HEIGHT), "white")
    ImageDraw.Draw(strip).text((view.shape[1] / 2, _CAPTION_HEIGHT / 2), name, "black", font=font, anchor="mm")
    return np.concatenate([np.asarray(strip), view])
