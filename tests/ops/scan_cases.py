"""Inputs of a scan, and how far two results are apart."""

from typing import Any

import torch
from torch import Tensor

BACKENDS = ("reference", "portable", "cpu")


def route_inputs(
    length: int,
    d: int,
    n: int,
    *,
    batch: int = 2,
    k: int = 1,
    shared: bool = True,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random float64 inputs of `scan_routes`, all of them exact in float32."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).double()

    return {
        "u": random(batch, length, d) if shared else random(batch, length, k, d),
        "delta": random(batch, length, k, d) - 1,
        "A": -random(k, d, n).exp(),
        "B": random(batch, length, k, n),
        "C": random(batch, length, k, n),
        "D": random(k, d),
        "delta_bias": random(k, d),
        "initial_state": random(batch, k, d, n),
    }


def some_orders(k: int, length: int) -> Tensor:
    """k random orders, without structure that a kernel could profit from."""
    generator = torch.Generator().manual_seed(1)
    return torch.stack([torch.randperm(length, generator=generator) for _ in range(k)])


def results(function: Any, inputs: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """y, last state and all gradients of a random weighting of both, in float64 where they were floats."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    y, last = function(**leaves, return_last_state=True, **options)
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(x.shape, generator=generator).to(x.dtype) for x in (y, last)]
    gradients = torch.autograd.grad((y, last), list(leaves.values()), weights)
    return {"y": y, "last_state": last} | {f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Largest error over largest expected value, below the tolerance for every tensor; names the tensors."""
    assert actual.keys() == expected.keys()
    errors = {name: relative_error(actual[name], expected[name]) for name in actual}
    wrong = {name: f"{error:.2e}" for name, error in errors.items() if not error <= tolerance}
    assert not wrong, f"max error / max value above {tolerance:.0e}: {wrong}"


def relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} instead of {tuple(expected.shape)}"
    if expected.numel() == 0:
        return 0.0
    scale = expected.detach().double().abs().max().clamp_min(1e-30)
    return float((actual.detach().double() - expected.detach().double()).abs().max() / scale)
