"""Random movement of squares and cubes: flip, turn, shift and size, the same for all views of a study.

The movement is an affine map about the centre. Both views of a pair get the same one: a flip of one
view alone would make left of one correspond to right of the other.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

from scanfuse.errors import UserError

__all__ = ["Augmentation", "augment", "augment_volume"]


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random movement, each drawn evenly.

    Attributes:
        flip: chance of mirroring left and right.
        rotate_degrees: angle from -r to r.
        shift: fraction of the side, from -s to s, in each direction.
        scale: size from 1 - s to 1 + s.
    """

    flip: float = 0.5
    rotate_degrees: float = 10.0
    shift: float = 0.05
    scale: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1 or not 0 <= self.scale < 1 or min(self.rotate_degrees, self.shift) < 0:
            raise UserError(f"Flip is a chance, scale below 1, and nothing negative: {self}.")

    def draw(self, random: np.random.Generator) -> Float64[np.ndarray, "2 3"]:
        """A map from the place (x, y) in the moved square to the place shown there, both in -1 to 1.

        q = M p + t with M = F R(angle) / scale, F the flip. So the same four numbers move every view alike.
        """
        sign = -1.0 if random.random() < self.flip else 1.0
        angle = math.radians(random.uniform(-self.rotate_degrees, self.rotate_degrees))
        factor = 1 / random.uniform(1 - self.scale, 1 + self.scale)
        x, y = random.uniform(-2 * self.shift, 2 * self.shift, 2)
        cos, sin = factor * math.cos(angle), factor * math.sin(angle)
        return np.array([[sign * cos, sign * -sin, x], [sin, cos, y]])

    def draw_volume(self, random: np.random.Generator) -> Float64[np.ndarray, "3 4"]:
        """The same for a cube, with the place (x, y, z): turned about z only, shifted and sized along all three."""
        (a, b, x), (c, d, y) = self.draw(random)
        factor = 1 / random.uniform(1 - self.scale, 1 + self.scale)
        z = random.uniform(-2 * self.shift, 2 * self.shift)
        return np.array([[a, b, 0, x], [c, d, 0, y], [0, 0, factor, z]])


def augment(views: Float[Tensor, "v s s"], matrix: Float64[np.ndarray, "2 3"]) -> Float[Tensor, "v s s"]:
    """All views under one movement of `Augmentation.draw`; bicubic, black where there was nothing.

    On phantoms bilinear interpolation took away 43 % of the energy of the finest detail, bicubic 16 %. Unmoved
    pictures then look sharper than any in training, and batch norms answer with probabilities that lean to one side.
    """
    theta = torch.from_numpy(matrix).to(views.dtype)[None].expand(1, -1, -1)
    grid = functional.affine_grid(theta, [1, 1, *views.shape[1:]], align_corners=False)
    moved = functional.grid_sample(views[None], grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return moved[0].clamp_(0, 1)


def augment_volume(volumes: Float[Tensor, "v d h w"], matrix: Float64[np.ndarray, "3 4"]) -> Float[Tensor, "v d h w"]:
    """All volumes under one movement of `Augmentation.draw_volume`; linear, black where there was nothing."""
    theta = torch.from_numpy(matrix).to(volumes.dtype)[None]
    grid = functional.affine_grid(theta, [1, 1, *volumes.shape[1:]], align_corners=False)
    moved = functional.grid_sample(volumes[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved[0].clamp_(0, 1)
