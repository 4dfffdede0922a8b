"""Which tensor of a training step was the first that is not finite."""

from typing import Any

import torch
from torch import Tensor, nn

from scanfuse.systems import System

__all__ = ["first_non_finite"]


@torch.no_grad()
def first_non_finite(system: System, batch: dict[str, Any]) -> str:
    """Names the first tensor that is not finite: an input, a parameter, a module's output or a part of the loss."""
    for name, value in batch.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
            ids = [meta["id"] for meta in batch.get("meta", [])]
            return f"the input {name!r} (samples {', '.join(map(str, ids))})"
    for name, parameter in system.model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the parameter {name}"
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple | list) else [output]
            if not found and any(isinstance(t, Tensor) and not torch.isfinite(t).all() for t in tensors):
                found.append(f"the output of {name or 'the model'} ({type(module).__name__})")

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in system.model.named_modules()]
    try:
        parts = system.task.loss(system.forward(batch), batch)
    finally:
        for handle in handles:
            handle.remove()
    bad = [name for name, value in parts.items() if not torch.isfinite(value)]
    return found[0] if found else f"the loss term {bad[0]!r}" if bad else "not reproducible (lower precision)"
