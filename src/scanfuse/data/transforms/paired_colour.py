"""From a pair to two tensors, with random colour on RGB and random contrast on infrared, and a sensor that fails.

Hue means nothing in infrared and a thermal camera's gain nothing in RGB, so each has its own jitter. Both are linear
maps followed by clipping to [0, 1]; the colour one is the matrix

    M = v H(turn) S(s)      S(s) x = l + s (x - l), l the luma        H: rotation about the grey axis (1, 1, 1)

with the meaning of hue, saturation and value jitter, at a fifth of the time of going through HSV.

Differences from the jitter of the YOLO recipes, which multiplies hue, saturation and value of 8-bit HSV: there the
hue of red cannot change (its number is 0) and that of magenta changes most; here all turn by the same angle.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from scanfuse.data.transforms.pair import Pair
from scanfuse.errors import UserError

__all__ = ["ColourJitter", "SensorDropout", "ThermalJitter", "to_tensors"]

_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class ColourJitter:
    """Ranges of the random colour of RGB; 0 is none. Defaults of the YOLOv8 recipes.

    Attributes:
        hue: turn from -h to h, in whole turns.
        saturation: factor from 1 - s to 1 + s.
        value: factor from 1 - v to 1 + v.
    """

    hue: float = 0.015
    saturation: float = 0.7
    value: float = 0.4

    def __post_init__(self) -> None:
        if not all(0 <= amount <= 1 for amount in (self.hue, self.saturation, self.value)):
            raise UserError(f"Hue, saturation and value must be 0 to 1: {self}.")

    def draw(self, random: np.random.Generator) -> Float64[np.ndarray, "3 3"]:
        """One matrix on RGB columns."""
        turn, saturation, value = random.uniform(-1, 1, 3) * [self.hue, self.saturation, self.value]
        return colour_matrix(hue=turn, saturation=1 + saturation, value=1 + value)


@dataclass(frozen=True)
class ThermalJitter:
    """Ranges of the random gain of infrared: x -> mean + c (x - mean) + b, clipped to [0, 1]; 0 is none.

    Attributes:
        contrast: c from 1 - contrast to 1 + contrast.
        brightness: b from -brightness to brightness.
    """

    contrast: float = 0.3
    brightness: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.contrast < 1 or not 0 <= self.brightness <= 1:
            raise UserError(f"Contrast must be 0 or more and below 1, brightness 0 to 1: {self}.")

    def draw(self, random: np.random.Generator) -> tuple[float, float]:
        """Factor and offset."""
        contrast, brightness = random.uniform(-1, 1, 2)
        return 1 + self.contrast * contrast, self.brightness * brightness


@dataclass(frozen=True)
class SensorDropout:
    """Chance that a training sample lacks a sensor; never both.

    Attributes:
        rgb: chance that RGB is missing.
        ir: chance that infrared is missing.
    """

    rgb: float = 0.0
    ir: float = 0.0

    def __post_init__(self) -> None:
        if min(self.rgb, self.ir) < 0 or self.rgb + self.ir > 1:
            raise UserError(
                f"The chances of losing a sensor must be 0 or more and at most 1 together: rgb {self.rgb:g}, "
                f"ir {self.ir:g}."
            )

    def draw(self, random: np.random.Generator) -> dict[str, bool]:
        """{"rgb": bool, "ir": bool}: which are present."""
        value = random.random()
        return {"rgb": value >= self.rgb, "ir": not self.rgb <= value < self.rgb + self.ir}


def colour_matrix(*, hue: float = 0.0, saturation: float = 1.0, value: float = 1.0) -> Float64[np.ndarray, "3 3"]:
    """The matrix M of above; `hue` in whole turns (1/3 turns red into green)."""
    cos, sin = math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue)
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turned = cos * np.eye(3) + (1 - cos) * grey + sin * cross
    saturated = saturation * np.eye(3) + (1 - saturation) * np.broadcast_to(_LUMA, (3, 3))
    return np.asarray(value * turned @ saturated)


def to_tensors(
    pair: Pair,
    *,
    colour: Float64[np.ndarray, "3 3"] | None = None,
    thermal: tuple[float, float] | None = None,
    present: dict[str, bool] | None = None,
) -> tuple[Float32[Tensor, "3 h w"], Float32[Tensor, "1 h w"]]:
    """RGB and infrared in [0, 1], channels first; all zero for a sensor that is missing.

    Args:
        pair: after all geometry.
        colour: of `ColourJitter.draw`; None leaves the colours.
        thermal: of `ThermalJitter.draw`; None leaves the infrared.
        present: of `SensorDropout.draw`; None: both.
    """
    there = present or {"rgb": True, "ir": True}
    height, width = pair.size
    rgb, ir = torch.zeros(3, height, width), torch.zeros(1, height, width)
    if there["rgb"]:
        flat = torch.from_numpy(np.array(pair.rgb.reshape(-1, 3).T, np.float32, order="C"))
        scale = torch.from_numpy((np.eye(3) if colour is None else colour) / 255).float()
        rgb = (flat.div_(255) if colour is None else scale @ flat).clamp_(0, 1).view(3, height, width)
    if there["ir"]:
        ir = torch.from_numpy(np.array(pair.ir))[None]
        if thermal is not None:
            factor, offset = thermal
            mean = float(ir.mean())
            ir = ir.mul_(factor).add_(mean * (1 - factor) + offset).clamp_(0, 1)
    return rgb, ir
