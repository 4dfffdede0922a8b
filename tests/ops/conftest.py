"""Memory that nobody wrote is NaN in the tests of this folder, so that a kernel which leaves a lane out fails."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


def _poisoned(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def allocated(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = allocate(*args, **kwargs)
        if tensor.is_floating_point() and not torch.compiler.is_compiling():
            tensor.fill_(float("nan"))
        return tensor

    return allocated


@pytest.fixture
def nan_filled_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, _poisoned(getattr(owner, name)))
