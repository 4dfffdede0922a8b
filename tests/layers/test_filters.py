"""Fixed filters against scipy, and their gradients."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from scanfuse.layers.filters import gaussian_mean, neighbour_mean, sobel, weighted_mean

SIDES = [(13, 16), (9, 13, 16)]


def image(*shape: int) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_sobel_is_scipys_x_first(sides: tuple[int, ...]) -> None:
    x = image(2, 1, *sides)
    found = sobel(x)
    scale = 4 ** (len(sides) - 2)  # scipy does not divide by the sum of what smooths along the further side
    for sample in range(2):
        for part in range(len(sides)):
            slow = ndimage.sobel(x[sample, 0].numpy(), axis=len(sides) - 1 - part, mode="nearest") / scale
            np.testing.assert_allclose(found[sample, part].numpy(), slow, atol=1e-12)


@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_gaussian_windows_lie_inside(sides: tuple[int, ...]) -> None:
    x = image(1, 1, *sides)
    found = gaussian_mean(x, 5, 1.2)[0, 0].numpy()
    inside = tuple(slice(2, -2) for _ in sides)
    slow = ndimage.gaussian_filter(x[0, 0].numpy(), 1.2, radius=2)[inside]
    np.testing.assert_allclose(found, slow, atol=1e-12)


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize(("border", "mode"), [("replicate", "nearest"), ("reflect", "mirror")])
@pytest.mark.parametrize("step", [1, 3])
def test_weighted_mean_is_a_correlation_along_each_side(
    sides: tuple[int, ...], border: str, mode: str, step: int
) -> None:
    x, weights = image(2, 1, *sides), (0.1, 0.2, 0.3, 0.25, 0.15)
    taps = np.zeros(4 * step + 1)
    taps[::step] = weights
    found = weighted_mean(x, weights, step=step, border=border)  # type: ignore[arg-type]
    slow = x[:, 0].numpy()
    for axis in range(1, slow.ndim):
        slow = ndimage.correlate1d(slow, taps, axis=axis, mode=mode)
    np.testing.assert_allclose(found[:, 0].numpy(), slow, atol=1e-12)


@pytest.mark.parametrize("sides", [*SIDES, (1, 2), (3, 1, 2)], ids=str)
def test_the_mean_of_neighbours_of_each_channel(sides: tuple[int, ...]) -> None:
    x = image(2, 3, *sides)
    slow = x.numpy()
    for axis in range(2, slow.ndim):
        slow = ndimage.correlate1d(slow, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    np.testing.assert_allclose(neighbour_mean(x).numpy(), slow, atol=1e-12)


def test_gradients() -> None:
    x = image(1, 1, 4, 5, 6).requires_grad_()
    for function in (
        sobel,
        neighbour_mean,
        lambda y: gaussian_mean(y, 3, 0.8),
        lambda y: weighted_mean(y, (1, 2, 1)),
    ):
        torch.autograd.gradcheck(function, (x,))
