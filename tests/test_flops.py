"""The multiply-adds that the benchmarks state: a layer counted by hand, and a published network."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from scanfuse.backbones.vmamba import PRESETS, VMamba
from scanfuse.layers.ss2d import PLAIN, SS2D
from scanfuse.layers.ssm import dt_rank_for


@pytest.fixture(scope="module")
def flops() -> ModuleType:
    """benchmarks/flops.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("flops", Path(__file__).parents[1] / "benchmarks" / "flops.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_layer_counted_by_hand(flops: ModuleType) -> None:
    """SS2D without gate: two products, a depthwise 3x3, the thin products of four routes, and 9 L d n + L d each."""
    batch, side, channels, states, routes = 2, 6, 32, 1, 4
    rank, places = dt_rank_for(channels), batch * side * side
    dense = places * (2 * channels * channels + 9 * channels)
    thin = places * routes * (channels * (rank + 2 * states) + rank * channels)
    scans = places * routes * channels * (9 * states + 1)
    assert flops.scan_multiply_adds(batch, side * side, routes, channels, states) == scans
    assert flops.multiply_adds(SS2D(channels, PLAIN), [torch.zeros(batch, side, side, channels)]) == (
        dense + thin + scans
    )


def test_vmamba_t_has_the_published_figure(flops: ModuleType) -> None:
    model = VMamba(PRESETS["t_s1l8"]).eval()
    assert flops.multiply_adds(model, [torch.zeros(1, 3, 224, 224)]) / 1e9 == pytest.approx(4.9, abs=0.05)
