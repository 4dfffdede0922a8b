"""Samples of slices and a table, spoilt on purpose: noise, contrast, slices and values that are missing.

What is spoilt in a sample depends on (seed, its index) alone, so that runs are compared on the same.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from scanfuse.data.inputs import Samples
from scanfuse.data.manifest import Row

__all__ = ["PERTURBATIONS", "Perturbed", "perturbations"]

Change = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]


def noise(deviation: float) -> Change:
    """Gaussian noise on every pixel, as a share of the window."""

    def change(sample: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        drawn = torch.from_numpy(random.standard_normal(tuple(sample["ct"].shape), np.float32))
        return {"ct": (sample["ct"] + deviation * drawn).clamp(0, 1)}

    return change


def contrast(factor: float) -> Change:
    """x -> factor (x - mean) + mean, with the mean of the patient's slices."""

    def change(sample: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        mean = sample["ct"].mean(dim=(0, 2, 3), keepdim=True)
        return {"ct": (factor * (sample["ct"] - mean) + mean).clamp(0, 1)}

    return change


def fewer_slices(share: float) -> Change:
    """That share of the slices is not there; one stays at least."""

    def change(sample: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        count = len(sample["seen"])
        kept = np.sort(random.permutation(count)[: max(1, round((1 - share) * count))])
        return {name: sample[name][kept] for name in ("ct", "seen", "lung", "place")}

    return change


def fewer_values(share: float) -> Change:
    """Every value of the table is missing with that chance; one known value stays."""

    def change(sample: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        known = np.flatnonzero(sample["table"][:, 1].numpy())
        lost = known[random.random(len(known)) < share]
        if len(lost) == len(known):
            lost = lost[1:]
        table = sample["table"].clone()
        table[lost] = 0
        return {"table": table}

    return change


PERTURBATIONS: Mapping[str, tuple[str, Change]] = {
    "noise 0.03": ("ct", noise(0.03)),
    "noise 0.1": ("ct", noise(0.1)),
    "contrast -20 %": ("ct", contrast(0.8)),
    "contrast +20 %": ("ct", contrast(1.2)),
    "slices -25 %": ("ct", fewer_slices(0.25)),
    "slices -50 %": ("ct", fewer_slices(0.5)),
    "values -25 %": ("table", fewer_values(0.25)),
    "values -50 %": ("table", fewer_values(0.5)),
}
"""Name -> the input that it spoils, and how."""


def perturbations(samples: Samples, *, seed: int) -> dict[str, Samples]:
    """Name of a perturbation -> the samples under it."""
    return {name: Perturbed(samples, on, change, seed) for name, (on, change) in PERTURBATIONS.items()}


class Perturbed:
    """Samples under one perturbation: see `scanfuse.data.inputs.Samples`. Samples that lack the input stay."""

    def __init__(self, samples: Samples, on: str, change: Change, seed: int) -> None:
        self.samples, self.on, self.change, self.seed = samples, on, change, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        if not sample["present"][self.on]:
            return sample
        return sample | self.change(sample, np.random.default_rng([self.seed, index]))

    def row(self, index: int) -> Row:
        """The row of a sample."""
        return self.samples.row(index)

    @property
    def targets(self) -> list[str]:
        """The target text of every sample in order."""
        return self.samples.targets

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; nothing here depends on it."""
        self.samples.set_epoch(epoch)
