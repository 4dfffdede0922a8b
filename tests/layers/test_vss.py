"""VSS blocks: published parameter counts, what drop path does."""

from dataclasses import replace

import pytest
import torch

from scanfuse.layers.drop_path import DropPath
from scanfuse.layers.ss2d import GATED, PLAIN, SS2DOptions
from scanfuse.layers.vss import VSSBlock

RATIO_2 = replace(PLAIN, ratio=2.0)


@pytest.mark.parametrize(
    ("dim", "options", "mlp_ratio", "count"),
    [
        *((dim, GATED, 0.0, 7 * dim**2 + 426 * dim) for dim in (96, 192, 768)),
        (96, RATIO_2, 4.0, 126_624),
        (192, RATIO_2, 4.0, 492_864),
        (384, RATIO_2, 4.0, 1_944_192),
        (768, RATIO_2, 4.0, 7_722_240),
        (96, PLAIN, 4.0, 100_608),
        (192, PLAIN, 4.0, 394_752),
        (384, PLAIN, 4.0, 1_563_648),
        (768, PLAIN, 4.0, 6_223_872),
    ],
)
def test_parameter_count(dim: int, options: SS2DOptions, mlp_ratio: float, count: int) -> None:
    with torch.device("meta"):
        block = VSSBlock(dim, options=options, mlp_ratio=mlp_ratio)
    assert sum(p.numel() for p in block.parameters()) == count


def test_a_block_whose_branches_end_in_zero_is_the_identity() -> None:
    block = VSSBlock(16, options=PLAIN, mlp_ratio=4.0)
    with torch.no_grad():
        block.op.out_proj.weight.zero_()
        block.mlp.fc2.weight.zero_()
        block.mlp.fc2.bias.zero_()
    x = torch.randn(2, 3, 4, 16)
    assert torch.equal(block(x), x)


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25)
    y = layer(torch.ones(8000, 2, 3))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(y.amin(dim=(1, 2)), y.amax(dim=(1, 2)))
    assert abs(y.mean().item() - 1) < 0.03
    assert torch.equal(layer.eval()(y), y)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_drop_path_refuses_impossible_rates(rate: float) -> None:
    with pytest.raises(ValueError, match=str(rate)):
        DropPath(rate)
