"""The fusion of two latent maps: who depends on what, parameter counts."""

import torch

from scanfuse.fusion.average import AverageFusion
from scanfuse.fusion.concat import ConcatFusion
from scanfuse.fusion.cross_mamba import CrossMambaFusion


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts() -> None:
    assert count(CrossMambaFusion(128)) == 2 * 180_224 + 16_512
    assert count(AverageFusion(128)) == 128**2 + 128
    assert count(ConcatFusion(128)) == 2 * 128**2 + 128


def test_average_is_symmetric_and_concat_can_prefer_one_map() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 1, 3, 4, 8)
    average = AverageFusion(8)
    torch.testing.assert_close(average(x, y), average(y, x))
    concat = ConcatFusion(8)
    with torch.no_grad():
        concat.proj.weight.copy_(torch.cat([torch.eye(8), torch.zeros(8, 8)], dim=1))
        concat.proj.bias.zero_()
    torch.testing.assert_close(concat(x, y), x)


def test_exchanging_blocks_and_maps_changes_nothing() -> None:
    torch.manual_seed(0)
    fusion = CrossMambaFusion(16, d_state=2)
    x, y = torch.randn(2, 1, 3, 4, 16)
    before = fusion(x, y)
    fusion.cross1, fusion.cross2 = fusion.cross2, fusion.cross1
    torch.testing.assert_close(fusion(y, x), before)
