"""What the fusion of images and that of volumes do not share: how a result is made, scored, written and drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

__all__ = ["Compared", "Fused", "Medium", "PlainMethod"]

PlainMethod = Callable[[Tensor, Tensor], Tensor]
"""Fusion without training: two sources in [0, 1] -> one."""


@runtime_checkable  # so that annotations can be checked as they run
class Fused(Protocol):
    """One fused pair.

    Attributes:
        id, group: of the pair.
        views: a picture of each source by modality and, under "fused", of the result, (H, W, 3) uint8.
        plain: results of plain methods on the same pair by the method's name, where they were asked for.
    """

    @property
    def id(self) -> str: ...

    @property
    def group(self) -> str: ...

    @property
    def views(self) -> Mapping[str, np.ndarray]: ...

    @property
    def plain(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Compared:
    """What a loss is made of: the outputs of a network and the two sources that it saw, of one shape."""

    outputs: Tensor
    a: Tensor
    b: Tensor


@runtime_checkable
class Medium(Protocol):
    """Images, or volumes.

    Attributes:
        baselines: plain methods that stand in every table.
        notes: what a reader of a table must know of its metrics.
    """

    baselines: Mapping[str, PlainMethod]
    notes: tuple[str, ...]

    def compared(self, outputs: Tensor, batch: Mapping[str, Any], modalities: tuple[str, str]) -> Compared:
        """What the loss of a batch is made of."""

    def plain(self, batch: Mapping[str, Any], modality: str) -> Tensor:
        """A source as plain methods take it, in [0, 1]."""

    def results(
        self, outputs: Tensor, batch: Mapping[str, Any], modalities: tuple[str, str], *, learned: bool
    ) -> list[Any]:
        """One result per sample, from outputs of a network (`learned`) or of a plain method."""

    def score(self, result: Any) -> dict[str, float]:
        """All fusion metrics of a result."""

    def save(self, result: Any, folder: Path) -> list[Path]:
        """Writes the files of a result, the main one first."""
