"""The neck: its wiring by which input reaches which output, and sides that are no multiples of each other."""

import pytest
import torch
from torch import Tensor

from scanfuse.layers.pan import PAN


def maps(height: int, width: int) -> list[Tensor]:
    torch.manual_seed(1)
    sizes = [(-(-height // step), -(-width // step)) for step in (1, 2, 4)]
    return [torch.randn(1, c, *size, requires_grad=True) for c, size in zip((8, 16, 24), sizes, strict=True)]


@pytest.mark.parametrize("block", ["c2f", "c3"])
@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 1)])
def test_every_level_reaches_every_output_at_any_size(block: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    neck = PAN((8, 16, 24), (8, 16, 32), num_blocks=1, block=block).eval()
    inputs = maps(*size)
    outputs = neck(*inputs)
    assert [tuple(y.shape[1:]) for y in outputs] == [
        (c, *x.shape[2:]) for c, x in zip((8, 16, 32), inputs, strict=True)
    ]
    for y in outputs:
        gradients = torch.autograd.grad(y.square().sum(), inputs, retain_graph=True)
        assert all(g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize("block", ["c2f", "c3"])
def test_no_block_of_the_neck_has_a_residual(block: str) -> None:
    neck = PAN((8, 16, 24), (8, 16, 32), num_blocks=2, block=block)
    residuals = [m.residual for m in neck.modules() if hasattr(m, "residual")]
    assert residuals == [False] * 8


def test_second_implementation_of_the_wiring() -> None:
    """The parts of the module, joined here by hand for sides that halve exactly."""
    for block in ("c2f", "c3"):
        torch.manual_seed(0)
        m = PAN((8, 16, 24), (8, 16, 32), num_blocks=1, block=block).eval()
        p3, p4, p5 = maps(8, 12)

        def twice(x: Tensor) -> Tensor:
            return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

        t5 = m.lateral5(p5)
        t4 = m.lateral4(m.top_down4(torch.cat([twice(t5), p4], 1)))
        n3 = m.top_down3(torch.cat([twice(t4), p3], 1))
        n4 = m.bottom_up4(torch.cat([m.down3(n3), t4], 1))
        n5 = m.bottom_up5(torch.cat([m.down4(n4), t5], 1))
        for ours, wanted in zip(m(p3, p4, p5), (n3, n4, n5), strict=True):
            torch.testing.assert_close(ours, wanted)
