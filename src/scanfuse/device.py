"""Where tensors are computed: the choice of a device, and the move of batches to it."""

from typing import Any

import torch
from torch import Tensor

from scanfuse.errors import UserError

__all__ = ["choose_device", "to_device"]


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one.

    Raises:
        UserError: torch does not know it or cannot use it.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).tolist()  # "meta" has devices, but no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"The device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Moves the tensors of a batch, also those of a dictionary in it; everything else stays."""
    moved: dict[str, Any] = {}
    for key, value in batch.items():
        if isinstance(value, Tensor):
            moved[key] = value.to(device)
        else:
            moved[key] = to_device(value, device) if isinstance(value, dict) else value
    return moved
