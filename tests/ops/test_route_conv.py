"""The compiled convolution along routes against its definition in torch, and what it refuses."""

import pytest
import torch
from torch import Tensor

from scanfuse.ops import routes
from scanfuse.ops.route_conv import _plain, conv_routes


@pytest.mark.parametrize("channels", [1, 16, 150, 256])  # single lanes, one unit, four units and remainders
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (9, 8)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_its_definition(channels: int, size: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    orders = routes.cross(*size)
    # x is a slice: its memory is not contiguous
    x = torch.randn(2, size[0] * size[1], 2 * channels, dtype=dtype)[..., ::2].requires_grad_()
    weight = torch.randn(4, channels, 4, dtype=dtype, requires_grad=True)
    bias = torch.randn(4, channels, dtype=dtype, requires_grad=True)
    given = [x, weight, bias]
    expected, actual = _plain(*given, orders), conv_routes(*given, orders)
    cotangent = torch.randn_like(expected)
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(actual, expected, **tolerance)
    torch.testing.assert_close(
        torch.autograd.grad((actual * cotangent).sum(), given),
        torch.autograd.grad((expected * cotangent).sum(), given),
        **tolerance,
    )


def test_large_values_do_not_overflow() -> None:
    x = torch.tensor([-1e4, -90.0, 0.0, 90.0, 1e4]).view(1, 5, 1).expand(1, 5, 16).clone().requires_grad_()
    y = conv_routes(x, torch.ones(1, 16, 1), torch.zeros(1, 16), routes.raster(5))
    torch.testing.assert_close(y[0, :, 0, 0], torch.tensor([0.0, 0.0, 0.0, 90.0, 1e4]))
    y.sum().backward()
    torch.testing.assert_close(x.grad[0, :, 3], torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))


def test_result_does_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    orders = routes.cross(6, 7)
    given = [torch.randn(3, 42, 96), torch.randn(4, 96, 4), torch.randn(4, 96)]

    def gradients() -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        y = conv_routes(*leaves, orders)
        return [y, *torch.autograd.grad(y.square().sum(), leaves)]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single = gradients()
        torch.set_num_threads(3)
        several = gradients()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(single, several, strict=True))


def test_bfloat16_is_computed_in_float32() -> None:
    x = torch.randn(1, 6, 16)
    weight, bias = torch.randn(1, 16, 4), torch.randn(1, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv_routes(x.bfloat16(), weight, bias, routes.raster(6))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, conv_routes(x.bfloat16().float(), weight, bias, routes.raster(6)))


def test_what_does_not_fit_is_refused() -> None:
    x, weight, bias = torch.randn(1, 6, 16), torch.randn(2, 16, 4), torch.randn(2, 16)
    with pytest.raises(ValueError, match=r"orders \(1, 6\)"):
        conv_routes(x, weight, bias, routes.raster(6))
    with pytest.raises(ValueError, match=r"permutation of 0\.\.5"):
        conv_routes(x, weight, bias, torch.full((2, 6), 6))
