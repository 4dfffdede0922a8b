"""CMCA on a case worked by hand."""

import math

import pytest
import torch
from torch import nn

from scanfuse.backbones.fmamba import attend_volumes, attention_of_volumes
from scanfuse.fusion.channel_attention import CMCA, lift_of, neighbourhoods


def test_reference_is_pooled_and_query_is_scaled() -> None:
    cmca = CMCA(2)
    with torch.no_grad():
        cmca.ref_proj.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]])[..., None, None])
        cmca.query_proj.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]])[..., None, None])
        ref = torch.tensor([[[[1.0, 3.0]], [[2.0, 4.0]]]])  # W1 ref: (1, 3) and (-2, -4)
        query = torch.tensor([[[[10.0, 20.0]], [[30.0, 40.0]]]])  # W2 query: the channels exchanged
        alpha = [1 / (1 + math.exp(-(3 + 2))), 1 / (1 + math.exp(-(-2 - 3)))]  # max + mean
        expected = torch.tensor([[[[30 * alpha[0], 40 * alpha[0]]], [[10 * alpha[1], 20 * alpha[1]]]]])
        torch.testing.assert_close(cmca(ref, query), expected)


def test_parameter_count() -> None:
    assert sum(p.numel() for p in CMCA(32).parameters()) == 2048


def test_maps_that_are_linear_in_few_numbers_need_not_be_built() -> None:
    torch.manual_seed(0)
    cmca = CMCA(6).double()
    lift = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    r, q = torch.randn(2, 2, 3, 20, dtype=torch.float64)
    given = [lift, *cmca.parameters()]
    by_weights = cmca.weights(r, lift) @ q
    by_maps = cmca((lift @ r).unflatten(2, (4, 5)), (lift @ q).unflatten(2, (4, 5))).flatten(2)
    torch.testing.assert_close(by_weights, by_maps)
    cotangent = torch.randn_like(by_maps)
    torch.testing.assert_close(
        torch.autograd.grad((by_weights * cotangent).sum(), given),
        torch.autograd.grad((by_maps * cotangent).sum(), given),
    )


def test_a_first_convolution_is_its_lift_times_the_neighbourhoods() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 6, 3, padding=1).double()
    image = torch.randn(2, 1, 4, 5, dtype=torch.float64)
    torch.testing.assert_close((lift_of(conv) @ neighbourhoods(image)).unflatten(2, (4, 5)), conv(image))


@pytest.mark.parametrize("slices", [1, 2, 16])
def test_the_attention_of_volumes_is_that_of_the_maps_of_their_first_convolution(slices: int) -> None:
    """Values and gradients, in slabs of any thickness."""
    torch.manual_seed(0)
    cmca, stem = CMCA(6, num_dims=3).double(), nn.Conv3d(1, 6, 3, padding=1).double()
    f = torch.randn(2, 6, 5, 3, 4, dtype=torch.float64)
    a, b = torch.randn(2, 2, 1, 5, 3, 4, dtype=torch.float64)
    given = [*cmca.parameters(), *stem.parameters(), a.requires_grad_(), b.requires_grad_()]
    found = attend_volumes(f, (a, b), attention_of_volumes(cmca, (a, b), stem, slices=slices))
    expected = f + cmca(stem(a), stem(b)) + cmca(stem(b), stem(a))
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((found * cotangent).sum(), given),
        torch.autograd.grad((expected * cotangent).sum(), given),
    )
