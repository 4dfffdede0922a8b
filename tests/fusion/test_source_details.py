"""The choice between two sources and their details: bands against a slow version, what can be in a result."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from scanfuse.fusion.source_details import SourceDetails, bands


def module(**changes: object) -> SourceDetails:
    torch.manual_seed(0)
    return SourceDetails(**{"context": 3, "width": 8, "dilations": (1, 2), "levels": 3, **changes})


def images(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, shape[0], 1, *shape[1:], generator=generator)
    return a, b, torch.randn(shape[0], 3, *shape[1:], generator=generator)


def test_bands_equal_the_slow_version() -> None:
    image = np.random.default_rng(0).random((20, 27))
    found = bands(torch.from_numpy(image)[None, None], 3)[0].numpy()
    for level in range(3):
        taps = np.zeros(4 * 2**level + 1)
        taps[:: 2**level] = np.array([1, 4, 6, 4, 1]) / 16
        smooth = correlate1d(correlate1d(image, taps, axis=0, mode="nearest"), taps, axis=1, mode="nearest")
        np.testing.assert_allclose(found[level], image - smooth, atol=1e-12)
        image = smooth


def test_bands_and_what_is_left_give_the_image_back() -> None:
    image = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    detail = bands(image, 4)
    flat = bands(torch.full_like(image, 0.3), 4)
    torch.testing.assert_close(flat, torch.zeros_like(flat), rtol=0, atol=1e-15)
    left = image - detail.sum(1, keepdim=True)
    assert left.std() < 0.2 * image.std()


def test_the_formula() -> None:
    """Against the docstring, written out with the weights that the network found."""
    details = module()
    a, b, context = images(2, 12, 14)
    found: dict[str, torch.Tensor] = {}
    details.head.register_forward_hook(lambda _m, _i, output: found.update(maps=output))
    with torch.no_grad():
        details.head.weight.mul_(20)
        fused = details(a, b, context)
        lean, of_a, of_b = torch.nn.functional.pixel_shuffle(found["maps"], 2).split([1, 3, 3], dim=1)
        choice = torch.sigmoid(50 * (a - b) + 4 * lean)
        added = (of_a * bands(a, 3)).sum(1, keepdim=True) + (of_b * bands(b, 3)).sum(1, keepdim=True)
        expected = (choice * a + (1 - choice) * b + added).clamp(0, 1)
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-5)
    assert added.abs().max() > 0.1


def test_where_both_sources_are_flat_the_result_is_flat() -> None:
    details = module()
    torch.nn.init.normal_(details.head.weight)
    _, _, context = images(1, 40, 40)
    a, b = torch.full((1, 1, 40, 40), 0.2), torch.full((1, 1, 40, 40), 0.6)
    with torch.no_grad():
        fused = details(a, b, torch.zeros_like(context))
        equal = details(a, a, context)
    inner = fused[..., 12:-12, 12:-12]
    # The network sees zeros outside, and weights of a block of 2 x 2 are four numbers: the same in every block.
    assert (inner[..., ::2, ::2] - inner[..., :1, :1]).abs().max() < 1e-5
    torch.testing.assert_close(equal, a, rtol=0, atol=1e-6)


def test_a_clipped_position_has_a_gradient() -> None:
    details = module(levels=1)
    a, b, context = images(1, 8, 8)
    details.head.bias.data[4:] = 30.0  # behind the four of the choice
    fused = details(a, b, context)
    assert fused.max() == 1 and fused.min() == 0
    (gradient,) = torch.autograd.grad(fused.sum(), details.head.bias)
    assert gradient[4:].abs().min() > 0


@pytest.mark.parametrize("changes", [{}, {"levels": 1}, {"dilations": (1,)}, {"width": 5}], ids=str)
def test_every_parameter_and_input_has_a_gradient(changes: dict[str, object]) -> None:
    details = module(**changes)
    inputs = [x.requires_grad_() for x in images(2, 16, 18)]
    details(*inputs).square().sum().backward()
    for tensor in [*details.parameters(), *inputs]:
        assert tensor.grad is not None and tensor.grad.abs().max() > 0
