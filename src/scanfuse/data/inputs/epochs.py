"""A data set that draws anew in every epoch, also in worker processes that outlive one."""

from typing import Any

import torch
from torch.utils.data import Dataset

__all__ = ["EpochDataset"]


class EpochDataset(Dataset[dict[str, Any]]):
    """Samples of which something is drawn from (seed, epoch, index).

    The epoch lies in shared memory: workers that live on see the next one.
    """

    def __init__(self) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch for which samples are drawn."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch for which samples are drawn."""
        self._epoch.fill_(epoch)
