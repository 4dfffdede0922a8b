"""How weights are moved: learning rate by step, which parameters decay, and averaged weights."""

import math
from typing import Any

import torch
from torch import nn

from scanfuse.config import TrainConfig
from scanfuse.layers.ssm import without_weight_decay

__all__ = ["WeightAverage", "learning_rate", "parameter_groups"]


def learning_rate(settings: TrainConfig, update: int, updates_per_epoch: int) -> float:
    """The rate of an update (from 0): linear warm-up, then constant or a cosine down to `min_lr`."""
    warmup = round(settings.warmup_epochs * updates_per_epoch)
    if update < warmup:
        return settings.lr * (update + 1) / warmup
    if settings.schedule == "constant":
        return settings.lr
    total = max(settings.epochs * updates_per_epoch - warmup, 1)
    progress = min((update - warmup) / total, 1.0)
    floor = min(settings.min_lr, settings.lr)
    return floor + (settings.lr - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and kernels decay; scan parameters, norms and biases do not."""
    exempt = without_weight_decay(model)
    named = list(model.named_parameters())
    decay = [parameter for name, parameter in named if name not in exempt]
    keep = [parameter for name, parameter in named if name in exempt]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": keep, "weight_decay": 0.0}]


class WeightAverage:
    """Exponential moving average of all weights and buffers; the decay grows from 0.1 to its value at the start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        """Takes in the weights after so many updates."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor.detach(), 1 - decay)
            else:
                self.tensors[name].copy_(tensor)
