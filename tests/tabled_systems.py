"""What the tests of systems with a picture or slices and a table share: a small system, a batch, and two checks."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scanfuse import config

__all__ = ["all_differ", "batch_of", "built", "reached_by_a_step", "with_shared_weights"]


def built(system_type: Any, name: str, root: Path, *layers: Mapping[str, Any], seed: int = 0) -> Any:
    """A system of the preset `tiny` with these changes, made ready on the training rows of a folder."""
    settings = config.build(system_type.Config, config.preset(name, "tiny"), *layers)
    completed = system_type.completed(settings, root)
    torch.manual_seed(seed)
    system = system_type(completed)
    system.data.prepare(system.data.open(root).subset("train"))
    return system


def batch_of(system: Any, root: Path, count: int = 6) -> dict[str, Any]:
    """The first training samples, nothing moved."""
    data = system.data.dataset(system.data.open(root).subset("train"), train=False)
    batch: dict[str, Any] = system.data.collate([data[index] for index in range(count)])
    return batch


def reached_by_a_step(system: Any, batch: dict[str, Any], *, least: float = 0.0) -> tuple[set[str], set[str]]:
    """Parameters without a gradient above `least`, and inputs with one."""
    names = system.data.modalities
    for name in names:
        batch[name].requires_grad_()
    system.task.loss(system.forward(batch), batch)["loss"].backward()
    parameters = dict(system.model.named_parameters())
    unreached = {name for name, p in parameters.items() if p.grad is None or not p.grad.abs().max() > least}
    return unreached, {name for name in names if batch[name].grad is not None and batch[name].grad.any()}


def with_shared_weights(model: nn.Module, whole: nn.Module) -> nn.Module:
    """The model with those weights of another one that it has, too, to be applied."""
    own = model.state_dict()
    shared = {k: v for k, v in whole.state_dict().items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(shared, strict=False)
    return model.eval()


def all_differ(outputs: Mapping[str, Tensor], by: float = 1e-4) -> None:
    """Asserts that no two outputs agree."""
    for (first, one), (other, two) in combinations(outputs.items(), 2):
        assert float((one - two).abs().max()) > by, (first, other)
