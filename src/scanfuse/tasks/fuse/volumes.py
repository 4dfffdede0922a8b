"""Volumes as a medium of fusion: a result has the grid, affine, data type and range of its reference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image as PillowImage
from torch import Tensor

from scanfuse.data.readers.volume import Volume, foreground, from_unit, to_unit, write_volume
from scanfuse.files import atomic_path, file_name
from scanfuse.fusion import pixel
from scanfuse.metrics.fusion.volume import LEAST_SHARE, MOST_SLICES, score_volume
from scanfuse.tasks.fuse.gallery import side_by_side
from scanfuse.tasks.fuse.medium import Compared, PlainMethod
from scanfuse.tasks.fuse.planes import disagreement, planes

__all__ = ["FusedVolume", "Volumes"]

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class FusedVolume:
    """One fused pair.

    Attributes:
        id, group: of the pair.
        voxels: (D, H, W), dtype and value range of `reference`; its background where both sources are background.
        fused: (D, H, W) float32, 0..255: `voxels` as they are written.
        sources: each source by modality, (D, H, W) float32, 0..255.
        box: what is not background.
        views: a picture of each source and, under "fused", of the result, (H, W, 3) uint8: the three planes through
            the middle of the box, and below them those through the largest disagreement of the sources.
        reference: the source whose grid, range and dtype the result takes: the deeper one, else the first.
        plain: results of plain methods on the same pair by name, where they were asked for.
    """

    id: str
    group: str
    voxels: np.ndarray
    fused: np.ndarray
    sources: dict[str, np.ndarray]
    box: Box
    views: dict[str, np.ndarray]
    reference: Volume
    plain: Mapping[str, "FusedVolume"] = field(default_factory=dict)


class Volumes:
    """See `scanfuse.tasks.fuse.medium.Medium`. Networks and plain methods see the same values in [0, 1]."""

    baselines: Mapping[str, PlainMethod] = MappingProxyType(
        {
            "average": partial(pixel.average, num_dims=3),
            "maximum": partial(pixel.maximum, num_dims=3),
            "laplacian": partial(pixel.laplacian_pyramid, num_dims=3),
        }
    )
    notes: tuple[str, ...] = (
        "psnr and ssim are of the volume within the box of what is not background; the other metrics are the mean "
        f"over axial slices with {LEAST_SHARE:.0%} or more of the content of the fullest one (at most {MOST_SLICES}, "
        "evenly spread)",
    )

    def compared(
        self, outputs: Float[Tensor, "b 1 d h w"], batch: Mapping[str, Any], modalities: tuple[str, str]
    ) -> Compared:
        """The outputs and both sources; a single sample within its box."""
        a, b = (batch[name] for name in modalities)
        if len(batch["meta"]) > 1:
            return Compared(outputs, a, b)
        box = (..., *batch["meta"][0]["box"])
        return Compared(outputs[box], a[box], b[box])

    def plain(self, batch: Mapping[str, Any], modality: str) -> Float[Tensor, "b 1 d h w"]:
        """The source."""
        source: Tensor = batch[modality]
        return source

    def results(
        self,
        outputs: Float[Tensor, "b 1 d h w"],
        batch: Mapping[str, Any],
        modalities: tuple[str, str],
        *,
        learned: bool,
    ) -> list[FusedVolume]:
        """One fused volume per sample."""
        return [
            _fused(outputs[index, 0].float().cpu().numpy(), modalities, meta)
            for index, meta in enumerate(batch["meta"])
        ]

    def score(self, result: FusedVolume) -> dict[str, float]:
        """All fusion metrics against the two sources, within the box."""
        a, b = (source[result.box] for source in result.sources.values())
        return score_volume(result.fused[result.box], a, b)

    def save(self, result: FusedVolume, folder: Path) -> list[Path]:
        """Writes `<id>.nii.gz` and `<id>_planes.png`, with the id as `file_name` writes it."""
        name = file_name(result.id)
        main, picture = folder / f"{name}.nii.gz", folder / f"{name}_planes.png"
        write_volume(main, result.voxels, result.reference)
        with atomic_path(picture) as temporary:
            PillowImage.fromarray(side_by_side(result.views)).save(temporary)
        return [main, picture]


def _fused(unit: Float[np.ndarray, "d h w"], modalities: tuple[str, str], meta: Mapping[str, Any]) -> FusedVolume:
    volumes: list[Volume] = [meta["volumes"][name] for name in modalities]
    inside = np.logical_or.reduce([foreground(volume) for volume in volumes])
    reference = max(volumes, key=lambda volume: volume.voxels.dtype.itemsize)
    voxels = from_unit(unit, reference, inside)
    written = Volume(voxels, reference.low, reference.high, reference.background, reference.frame, reference.source)
    shown = {name: 255 * to_unit(volume) for name, volume in zip(modalities, volumes, strict=True)}
    fused = 255 * to_unit(written)
    box: Box = meta["box"]
    middle = tuple((side.start + side.stop) // 2 for side in box)
    place = disagreement(*shown.values())
    spacing = reference.frame.spacing_mm
    views = {
        name: planes(values, (middle, place), box=box, spacing_mm=spacing)
        for name, values in {**shown, "fused": fused}.items()
    }
    return FusedVolume(str(meta["id"]), str(meta["group"]), voxels, fused, shown, box, views, reference)
