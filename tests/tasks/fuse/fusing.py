"""Pairs for the tests of image fusion: made by hand, and fused by arithmetic in place of a network."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanfuse.data.inputs.image_pairs import collate_pairs, pair_sample
from scanfuse.tasks.fuse import Fusion
from scanfuse.tasks.fuse.colour import stretch
from scanfuse.tasks.fuse.fused import FusedImage
from scanfuse.tasks.fuse.loss import FusionLoss

__all__ = [
    "DTYPES",
    "PAIR",
    "TASK",
    "Fuser",
    "batch_of",
    "colour",
    "first",
    "fused",
    "grey",
    "rgb_tensor",
    "run",
    "second",
]

Fuser = Callable[[Tensor, Tensor], Tensor]
"""Two luminances to a fused one, in place of a network."""

PAIR = ("a", "b")
DTYPES = ["uint8", "uint16", "int16", "float32", "float64"]
TASK = Fusion(PAIR, loss=FusionLoss())


def batch_of(*pairs: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    return collate_pairs([pair_sample({"a": a, "b": b}) for a, b in pairs])


def fused(fuser: Fuser, batch: dict[str, Any]) -> list[FusedImage]:
    """Results of the task: the fuser sees what a network sees."""
    return TASK.results(lambda each: fuser(*(stretch(each, name) for name in PAIR)), batch)


def run(fuser: Fuser, a: np.ndarray, b: np.ndarray) -> FusedImage:
    return fused(fuser, batch_of((a, b)))[0]


def first(a: Tensor, b: Tensor) -> Tensor:
    return a


def second(a: Tensor, b: Tensor) -> Tensor:
    return b


def grey(dtype: str, low: float, high: float, seed: int = 0, shape: tuple[int, int] = (12, 17)) -> np.ndarray:
    """Random values of a dtype that reach both ends of a range."""
    unit = np.random.default_rng(seed).random(shape)
    unit.flat[:2] = 0, 1
    values = low + unit * (high - low)
    return (np.rint(values) if np.issubdtype(np.dtype(dtype), np.integer) else values).astype(dtype)


def colour(seed: int, dtype: str = "uint8") -> np.ndarray:
    """Random colours away from the ends of the range, so that a small change of brightness clips nothing."""
    top = np.iinfo(dtype).max
    values = np.random.default_rng(seed).uniform(0.3, 0.7, (12, 17, 3)) * top
    return np.rint(values).astype(dtype)


def rgb_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float64) / np.iinfo(pixels.dtype).max).permute(2, 0, 1)[None]
