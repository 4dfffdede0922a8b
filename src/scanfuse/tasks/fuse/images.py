"""Images as a medium of fusion: luminances are fused, and come out in the range, depth and colour of the sources."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image as PillowImage
from torch import Tensor

from scanfuse.data.readers import suffix_for, write_image
from scanfuse.files import atomic_path, file_name
from scanfuse.fusion import pixel
from scanfuse.metrics.fusion import score
from scanfuse.tasks.fuse.colour import Stretch, luminance_of, stretch
from scanfuse.tasks.fuse.fused import FusedImage, fused_image
from scanfuse.tasks.fuse.gallery import side_by_side
from scanfuse.tasks.fuse.medium import Compared, PlainMethod

__all__ = ["Images"]


class Images:
    """See `scanfuse.tasks.fuse.medium.Medium`. Networks see luminances stretched by `colour.stretch`.

    Args:
        stretch: by whose range.
    """

    baselines: Mapping[str, PlainMethod] = MappingProxyType(
        {"average": pixel.average, "maximum": pixel.maximum, "laplacian": pixel.laplacian_pyramid}
    )
    notes: tuple[str, ...] = ()

    def __init__(self, stretch: Stretch = "each") -> None:
        self.stretch: Stretch = stretch

    def sources(
        self, batch: Mapping[str, Any], modalities: tuple[str, str]
    ) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"]]:
        """Both luminances as a network sees them."""
        together = modalities if self.stretch == "pair" else ()
        a, b = (stretch(batch, name, together=together) for name in modalities)
        return a, b

    def compared(
        self, outputs: Float[Tensor, "b 1 h w"], batch: Mapping[str, Any], modalities: tuple[str, str]
    ) -> Compared:
        """The outputs and both stretched luminances."""
        return Compared(outputs, *self.sources(batch, modalities))

    def plain(self, batch: Mapping[str, Any], modality: str) -> Float[Tensor, "b 1 h w"]:
        """The luminance without a stretch."""
        return luminance_of(batch[modality])

    def results(
        self,
        outputs: Float[Tensor, "b 1 h w"],
        batch: Mapping[str, Any],
        modalities: tuple[str, str],
        *,
        learned: bool,
    ) -> list[FusedImage]:
        """One fused image per sample."""
        return [
            fused_image(
                outputs[index : index + 1],
                {name: batch[name][index : index + 1] for name in modalities},
                meta,
                stretched=self.stretch if learned else None,
            )
            for index, meta in enumerate(batch["meta"])
        ]

    def score(self, result: FusedImage) -> dict[str, float]:
        """All fusion metrics against the two sources, on luminances of 0..255."""
        a, b = result.sources.values()
        return score(result.luminance, a, b)

    def save(self, result: FusedImage, folder: Path) -> list[Path]:
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
