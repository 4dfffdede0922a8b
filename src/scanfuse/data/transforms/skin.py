"""Random movement and light for pictures of skin lesions, which have no upside and no fixed camera."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from scanfuse.errors import UserError

__all__ = ["SkinAugmentation", "augment_skin"]


@dataclass(frozen=True)
class SkinAugmentation:
    """Ranges, each drawn evenly; what is drawn depends on the generator alone.

    Attributes:
        flips: whether pictures are mirrored and turned by quarters at random.
        rotate_degrees: angle from -r to r besides.
        shift: share of the side, from -s to s, in each direction.
        scale: size from 1 - s to 1 + s.
        light: factors of brightness, contrast and saturation from 1 - l to 1 + l.
        hue: turn of the hue from -h to h, as a share of the circle.
        erase: chance that a square of a tenth to a quarter of the side is blanked out.

    Raises:
        UserError: a range that makes no sense.
    """

    flips: bool = True
    rotate_degrees: float = 30.0
    shift: float = 0.1
    scale: float = 0.15
    light: float = 0.2
    hue: float = 0.02
    erase: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.scale, self.light, self.erase)
        if min(self.rotate_degrees, self.shift, self.hue, *shares) < 0 or max(shares) > 1 or self.hue > 0.5:
            raise UserError(f"Nothing may be negative, shares at most 1 and the hue at most 0.5: {self}.")


def augment_skin(
    image: Float[Tensor, "3 s s"], settings: SkinAugmentation, random: np.random.Generator
) -> Float[Tensor, "3 s s"]:
    """One picture in [0, 1] under one draw; beyond its border lies the mean colour of its border."""
    if settings.flips:
        image = torch.rot90(image, int(random.integers(4)), dims=(1, 2))
        image = image.flip(-1) if random.random() < 0.5 else image
    side = image.shape[-1]
    border = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], dim=1).mean(dim=1)
    if settings.rotate_degrees or settings.shift or settings.scale:
        image = functional.affine(
            image,
            angle=random.uniform(-settings.rotate_degrees, settings.rotate_degrees),
            translate=[float(value) for value in random.uniform(-settings.shift, settings.shift, 2) * side],
            scale=random.uniform(1 - settings.scale, 1 + settings.scale),
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
            fill=border.tolist(),
        )
    if settings.light:
        changes = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
        for change in changes:
            image = change(image, random.uniform(1 - settings.light, 1 + settings.light))
    if settings.hue:
        image = functional.adjust_hue(image, random.uniform(-settings.hue, settings.hue))
    if random.random() < settings.erase:
        length = int(side * random.uniform(0.1, 0.25))
        top, left = (int(value) for value in random.integers(0, side - length + 1, 2))
        image = functional.erase(image, top, left, length, length, border[:, None, None])
    return image.clamp(0, 1)
