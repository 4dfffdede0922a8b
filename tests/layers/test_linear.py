"""The linear map through a convolution equals the one of torch, gradients included."""

import pytest
import torch
import torch.nn.functional as F

from scanfuse.layers.linear import Linear, linear


@pytest.mark.parametrize("shape", [(4, 8, 6), (3, 5, 7, 6), (1, 6), (2, 0, 6)], ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_torch(shape: tuple[int, ...], with_bias: bool) -> None:
    torch.manual_seed(0)
    given = [torch.randn(shape, requires_grad=True), torch.randn(5, 6, requires_grad=True)]
    given += [torch.randn(5, requires_grad=True)] if with_bias else []
    expected = F.linear(*given)
    actual = linear(*given)
    cotangent = torch.randn_like(expected)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad((actual * cotangent).sum(), given),
        torch.autograd.grad((expected * cotangent).sum(), given),
    )


def test_a_slice_of_a_larger_tensor_is_read_right() -> None:
    x = torch.randn(4, 9, 12)[:, ::2, 3:9]
    layer = Linear(6, 4)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_autocast_decides_the_precision() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Linear(6, 4)(torch.randn(3, 6)).dtype == torch.bfloat16
