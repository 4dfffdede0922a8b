"""How weights are moved: learning rate by step, which parameters decay, and averaged weights."""

import math
from typing import Any

import torch
from torch import nn

from scanfuse.config import TrainConfig
from scanfuse.layers.ssm import without_weight_decay

__all__ = ["WeightAverage", "learning_rate", "make_optimizer", "parameter_groups", "steps_per_update"]


def learning_rate(settings: TrainConfig, update: int, updates_per_epoch: int, *, start: float = 0.0) -> float:
    """The rate of an update (from 0): linear warm-up from `start`, then constant or a cosine down to `min_lr`."""
    warmup = round(settings.warmup_epochs * updates_per_epoch)
    if update < warmup:
        if start:
            return start + (settings.lr - start) * update / warmup
        return settings.lr * (update + 1) / warmup
    if settings.schedule == "constant":
        return settings.lr
    total = max(settings.epochs * updates_per_epoch - warmup, 1)
    progress = min((update - warmup) / total, 1.0)
    floor = min(settings.min_lr, settings.lr)
    return floor + (settings.lr - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(model: nn.Module, weight_decay: float, *, biases_apart: bool = False) -> list[dict[str, Any]]:
    """Matrices and kernels decay; scan parameters, norms and biases do not; biases are apart if asked for."""
    exempt = without_weight_decay(model)
    named = list(model.named_parameters())
    decay = [parameter for name, parameter in named if name not in exempt]
    keep = [(name, parameter) for name, parameter in named if name in exempt]
    groups = [{"params": decay, "weight_decay": weight_decay}]
    if not biases_apart:
        return [*groups, {"params": [parameter for _, parameter in keep], "weight_decay": 0.0}]
    biases = [parameter for name, parameter in keep if name.endswith("bias")]
    others = [parameter for name, parameter in keep if not name.endswith("bias")]
    return [
        *groups,
        {"params": others, "weight_decay": 0.0},
        {"params": biases, "weight_decay": 0.0, "is_bias": True},
    ]


def make_optimizer(model: nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser that the settings ask for."""
    groups = parameter_groups(model, settings.weight_decay, biases_apart=settings.warmup_bias_lr > 0)
    if settings.optimizer == "sgd":
        nesterov = settings.momentum > 0
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=settings.lr)


def steps_per_update(settings: TrainConfig) -> int:
    """How many steps' gradients are added up before an update."""
    return max(1, round(settings.nominal_batch / settings.batch)) if settings.nominal_batch else settings.accumulate


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
