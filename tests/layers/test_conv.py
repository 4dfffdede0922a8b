"""DGCB: parameter counts, the gate and the shared pyramid."""

import pytest
import torch
import torch.nn.functional as F

from scanfuse.layers.conv import DGCB, EnlargingConv, norm_of


@pytest.mark.parametrize(("channels", "count"), [(32, 29_056), (64, 115_456), (128, 460_288)])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_parameter_count(channels: int, count: int, norm: str) -> None:
    assert sum(p.numel() for p in DGCB(channels, norm=norm).parameters()) == count == 28 * channels**2 + 12 * channels


def test_pyramid_applies_one_convolution_once_twice_and_thrice() -> None:
    torch.manual_seed(0)
    block = DGCB(4).eval()
    with torch.no_grad():
        # P multiplies by 2; everything before it is left random
        block.pyramid_conv.weight.zero_()
        block.pyramid_conv.weight[range(4), range(4), 1, 1] = 2.0
        block.pyramid_conv.bias.zero_()
        for norm in (block.feature_norm, block.gate_norm, block.dilated_norm, block.pyramid_norm):
            norm.eps = 0.0
        x = torch.randn(1, 4, 6, 7)
        u = F.leaky_relu(block.feature_conv(x), 0.2)
        v = F.leaky_relu(block.gate_conv(x), 0.2)
        d = F.leaky_relu(block.dilated_conv(u * v), 0.2)
        e = F.leaky_relu(d, 0.2)
        torch.testing.assert_close(block(x), x + (2 + 4 + 8) * e)


def test_dilation_sets_the_reach() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 4, 1, 41)
    poked = x.clone()
    poked[..., 20] += 1
    for dilation, reach in ((1, 1 + 1 + 3), (5, 1 + 5 + 3)):
        block = DGCB(4, dilation=dilation).eval()
        changed = (block(poked) - block(x)).abs().amax(dim=(0, 1, 2)).nonzero().flatten()
        assert changed.min() == 20 - reach and changed.max() == 20 + reach


def test_group_norm_has_groups_of_eight_or_one_group() -> None:
    assert norm_of("group", 32).num_groups == 4
    assert norm_of("group", 12).num_groups == 1


@pytest.mark.parametrize(("channels", "count"), [(32, 56_608), (64, 225_856), (128, 902_272)])
def test_parameter_count_for_volumes(channels: int, count: int) -> None:
    block = DGCB(channels, num_dims=3, pyramid=False)
    assert sum(p.numel() for p in block.parameters()) == count == 55 * channels**2 + 9 * channels


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_without_a_pyramid_the_dilated_map_is_added(norm: str) -> None:
    torch.manual_seed(0)
    block = DGCB(8, dilation=2, norm=norm, num_dims=3, pyramid=False).eval()
    x = torch.randn(2, 8, 5, 4, 3)
    with torch.no_grad():
        u = F.leaky_relu(block.feature_conv(block.feature_norm(x)), 0.2)
        v = F.leaky_relu(block.gate_conv(block.gate_norm(x)), 0.2)
        d = F.leaky_relu(block.dilated_conv(block.dilated_norm(u * v)), 0.2)
        torch.testing.assert_close(block(x), x + d)


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 5, 1, 1), (2, 5, 4, 3, 2), (1, 5, 1, 1, 1)], ids=str)
def test_enlarging_convolution_is_enlargement_and_convolution(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = EnlargingConv(5, 3, num_dims=len(shape) - 2).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    given = [x, *module.parameters()]
    in_one, apart = module(x), module.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(in_one, apart)
    cotangent = torch.randn_like(apart)
    torch.testing.assert_close(
        torch.autograd.grad((in_one * cotangent).sum(), given), torch.autograd.grad((apart * cotangent).sum(), given)
    )
