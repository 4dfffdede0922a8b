"""The batches of one epoch as lists of indices: functions of their arguments alone, so that a stopped run goes on.

What an epoch draws depends on (seed, epoch), never on what was drawn before it.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float64, Num

__all__ = ["balanced_order", "epoch_order", "ratio_order", "sampling_weights"]


def epoch_order(count: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Every sample once, in random order."""
    order: list[int] = torch.randperm(count, generator=_generator(seed, epoch)).tolist()
    return [order[start : start + batch] for start in range(0, count, batch)]


def balanced_order(weights: Float64[np.ndarray, " n"], batch: int, seed: int, epoch: int) -> list[list[int]]:
    """n draws with replacement, each sample as likely as its weight says; see `sampling_weights`."""
    generator = _generator(seed, epoch)
    drawn = torch.multinomial(torch.from_numpy(weights), len(weights), replacement=True, generator=generator)
    order: list[int] = drawn.tolist()
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def ratio_order(
    positive: Bool[np.ndarray, " n"], negatives: int, batch: int, seed: int, epoch: int
) -> list[list[int]]:
    """Every positive once, and so many other samples for each, drawn anew every epoch without repeating one.

    All others where there are fewer. So an epoch of 400 positives among 400,000 samples has 40,400 at a ratio of 100.
    """
    generator = _generator(seed, epoch)
    rest = torch.from_numpy(np.flatnonzero(~positive))
    drawn = rest[torch.randperm(len(rest), generator=generator)[: negatives * int(positive.sum())]]
    chosen = torch.cat([torch.from_numpy(np.flatnonzero(positive)), drawn])
    order: list[int] = chosen[torch.randperm(len(chosen), generator=generator)].tolist()
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def sampling_weights(target: Num[np.ndarray, "n k"], mask: Bool[np.ndarray, "n k"]) -> Float64[np.ndarray, " n"]:
    """How likely a sample should be drawn, mean 1, so that classes come up equally often.

    One over the number of samples of its class; with several labels the mean of this over its known labels. A sample
    without any known target has the weight 1.

    Args:
        target: of the training samples; one column with the class, or one per finding with 0 and 1.
        mask: False where the target is not known.
    """
    known = np.asarray(mask, bool)
    share = np.full(target.shape, np.nan)
    for column in range(target.shape[1]):
        rows = known[:, column]
        _, index, counts = np.unique(target[rows, column], return_inverse=True, return_counts=True)
        share[rows, column] = rows.sum() / (len(counts) * counts[index]) if rows.any() else []
    number = known.sum(axis=1)
    weights = np.where(number > 0, np.where(known, share, 0).sum(axis=1) / np.maximum(number, 1), 1.0)
    return weights / weights.mean()


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
