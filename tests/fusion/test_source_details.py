"""The choice between two sources and their details: bands against a slow version, what can be in a result."""

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, sobel
from torch.nn import functional

from scanfuse.fusion import source_details
from scanfuse.fusion.source_details import SourceDetails, bands, edges_of


def module(**changes: object) -> SourceDetails:
    torch.manual_seed(0)
    return SourceDetails(**{"context": 3, "width": 8, "dilations": (1, 2), "levels": 3, **changes})


def images(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, shape[0], 1, *shape[1:], generator=generator)
    return a, b, torch.randn(shape[0], 3, *shape[1:], generator=generator)


@pytest.mark.parametrize("sides", [(20, 27), (9, 20, 13), (2, 8, 30)], ids=str)
def test_bands_equal_the_slow_version(sides: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random(sides)
    found = bands(torch.from_numpy(image)[None, None], 3)[0].numpy()
    for level in range(3):
        taps = np.zeros(4 * 2**level + 1)
        taps[:: 2**level] = np.array([1, 4, 6, 4, 1]) / 16
        smooth = image
        for axis in range(len(sides)):
            smooth = correlate1d(smooth, taps, axis=axis, mode="nearest")
        np.testing.assert_allclose(found[level], image - smooth, atol=1e-12)
        image = smooth


def test_equal_slices_have_the_bands_of_their_slice() -> None:
    image = torch.rand(2, 1, 12, 14, dtype=torch.float64)
    deep = image.unsqueeze(2).expand(-1, -1, 5, -1, -1)
    torch.testing.assert_close(bands(deep, 3), bands(image, 3).unsqueeze(2).expand(-1, -1, 5, -1, -1))


def test_images_are_cut_into_blocks_and_smoothed_as_two_dimensional_functions_do_it_to_the_bit() -> None:
    """Shipped weights give what they gave before there were volumes."""
    image, blocks = torch.rand(2, 3, 12, 14), torch.rand(2, 12, 6, 7)
    assert torch.equal(source_details._in_blocks(image), functional.pixel_unshuffle(image, 2))
    assert torch.equal(source_details._out_of_blocks(blocks), functional.pixel_shuffle(blocks, 2))
    one = image[:, :1]
    taps = torch.tensor([1, 4, 6, 4, 1]) / 16
    smooth = functional.conv2d(functional.pad(one, (2, 2, 0, 0), mode="replicate"), taps.view(1, 1, 1, 5))
    smooth = functional.conv2d(functional.pad(smooth, (0, 0, 2, 2), mode="replicate"), taps.view(1, 1, 5, 1))
    assert torch.equal(bands(one, 1), one - smooth)


def test_a_channel_of_blocks_holds_one_place_of_each_block() -> None:
    volume = torch.rand(2, 3, 4, 6, 8)
    blocks = source_details._in_blocks(volume)
    assert blocks.shape == (2, 24, 2, 3, 4)
    for channel, (d, h, w) in enumerate(itertools.product(range(2), repeat=3)):
        assert torch.equal(blocks[:, 8 + channel], volume[:, 1, d::2, h::2, w::2])
    assert torch.equal(source_details._out_of_blocks(blocks), volume)


def test_bands_and_what_is_left_give_the_image_back() -> None:
    image = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    detail = bands(image, 4)
    flat = bands(torch.full_like(image, 0.3), 4)
    torch.testing.assert_close(flat, torch.zeros_like(flat), rtol=0, atol=1e-15)
    left = image - detail.sum(1, keepdim=True)
    assert left.std() < 0.2 * image.std()


@pytest.mark.parametrize(("smooth", "edges"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(("sides", "sharpness"), [((12, 14), 50.0), ((6, 8, 10), 3.0)])
def test_the_formula(sides: tuple[int, ...], sharpness: float, smooth: bool, edges: bool) -> None:
    """Against the docstring, written out with the weights that the network found."""
    details = module(num_dims=len(sides), sharpness=sharpness, smooth=smooth, edges=edges)
    a, b, context = images(2, *sides)
    found: dict[str, torch.Tensor] = {}
    details.head.register_forward_hook(lambda _m, _i, output: found.update(maps=output))
    if edges:
        details.near_head.register_forward_hook(lambda _m, _i, output: found.update(near=output))
    with torch.no_grad():
        details.head.weight.mul_(20)
        fused = details(a, b, context)
        maps = source_details._out_of_blocks(found["maps"])
        if smooth:
            slow = maps.double().numpy()
            for axis in range(2, 2 + len(sides)):
                slow = correlate1d(slow, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
            maps = torch.from_numpy(slow).float()
        if edges:
            maps = maps + found["near"]
            assert found["near"].std() > 1e-3
        lean, of_a, of_b = maps.split([1, 3, 3], dim=1)
        choice = torch.sigmoid(sharpness * (a - b) + 4 * lean)
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


def test_smooth_weights_do_not_alternate_with_the_places_of_blocks() -> None:
    """Each of the eight places of a block has a bias of its own: between two flat sources, a pattern of twos."""
    a, b, _ = (torch.full((1, 1, 8, 8, 8), value) for value in (0.3, 0.6, 0.0))
    spread = {}
    for smooth in (False, True):
        details = module(num_dims=3, sharpness=1.0, smooth=smooth)
        torch.nn.init.zeros_(details.head.weight)
        torch.nn.init.normal_(details.head.bias)
        with torch.no_grad():
            fused = details(a, b, torch.zeros(1, 3, 8, 8, 8))
        spread[smooth] = float(fused[..., 1:-1, 1:-1, 1:-1].std())
    assert spread[False] > 0.03 and spread[True] < 1e-6


@pytest.mark.parametrize("sides", [(12, 14), (3, 12, 14)], ids=str)
def test_how_edges_compare_equals_the_slow_version(sides: tuple[int, ...]) -> None:
    a, b = np.random.default_rng(0).random((2, *sides))
    found = edges_of(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])[0].numpy()
    of_a, of_b = (np.stack([sobel(x, axis=axis, mode="nearest") for axis in (-1, -2)]) for x in (a, b))
    if len(sides) == 3:  # within slices: scipy's also smooths across them
        of_a, of_b = (
            np.stack([[sobel(s, axis=axis, mode="nearest") for s in x] for axis in (-1, -2)]) for x in (a, b)
        )
    strong_a, strong_b = np.linalg.norm(of_a, axis=0), np.linalg.norm(of_b, axis=0)
    expected = (
        strong_a,
        strong_b,
        (strong_a - strong_b) / (strong_a + strong_b + 0.02),
        (of_a * of_b).sum(0) / (strong_a * strong_b + 0.0004),
    )
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4, atol=1e-6)
    assert found[3].min() < -0.9 and found[3].max() > 0.9


def test_where_nothing_is_edges_compare_as_nothing() -> None:
    flat = torch.full((1, 1, 6, 6), 0.4, requires_grad=True)
    found = edges_of(flat, torch.zeros(1, 1, 6, 6))
    assert found.abs().max() < 0.011
    (gradient,) = torch.autograd.grad(found.sum(), flat)
    assert gradient.isfinite().all()


def test_a_clipped_position_has_a_gradient() -> None:
    details = module(levels=1)
    a, b, context = images(1, 8, 8)
    details.head.bias.data[4:] = 30.0  # behind the four of the choice
    fused = details(a, b, context)
    assert fused.max() == 1 and fused.min() == 0
    (gradient,) = torch.autograd.grad(fused.sum(), details.head.bias)
    assert gradient[4:].abs().min() > 0


@pytest.mark.parametrize("sides", [(16, 18), (6, 8, 10)], ids=str)
@pytest.mark.parametrize("changes", [{}, {"levels": 1}, {"dilations": (1,)}, {"width": 5}, {"edges": True}], ids=str)
def test_every_parameter_and_input_has_a_gradient(changes: dict[str, object], sides: tuple[int, ...]) -> None:
    details = module(**changes, num_dims=len(sides))
    inputs = [x.requires_grad_() for x in images(2, *sides)]
    details(*inputs).square().sum().backward()
    for tensor in [*details.parameters(), *inputs]:
        assert tensor.grad is not None and tensor.grad.abs().max() > 0
