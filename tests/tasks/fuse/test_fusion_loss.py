"""The fusion objective: terms by hand, SSIM against scikit-image, Sobel against SciPy, gradients by differences."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch import Tensor

from scanfuse.tasks.fuse.loss import FusionLoss, fusion_loss, sobel_magnitude, ssim_pair

PLAIN = FusionLoss()
# The tensors of this file are (1, 1, 4, 4) where a case is worked by hand.
ZERO = torch.zeros(1, 1, 4, 4)
STEP = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)  # an edge between the second and the third column
HALF_STEP_DOWN = 0.5 * STEP.transpose(2, 3)  # half as high, between the second and the third row


def images(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    f, a, b = (torch.rand(shape, generator=random, dtype=torch.float64).to(dtype) for _ in range(3))
    return f, a, b


def ssim_of_zero_and_step() -> float:
    """One window over the extended 11 columns 0 0 0 0 0 1 1 1 1 1 1: the ones are columns 5 (the middle) to 10."""
    weights = [math.exp(-(k**2) / 4.5) for k in range(-5, 6)]
    mean = sum(weights[5:]) / sum(weights)
    variance = mean - mean**2
    return 1e-4 / (mean**2 + 1e-4) * 9e-4 / (variance + 9e-4)


def test_the_three_terms_and_their_sum_by_hand() -> None:
    """F = B = 0, A a step: |F - max| is 1 in half the pixels; |Sobel_x| is 4 in the two columns at the edge."""
    parts = fusion_loss(ZERO, STEP, ZERO, PLAIN)
    similarity = (ssim_of_zero_and_step() + 1) / 2
    expected = {"pixel": 0.5, "gradient": 2.0, "ssim": similarity, "ssim_loss": 1 - similarity}
    expected["loss"] = 2 * 0.5 + 10 * 2.0 + 5 * (1 - similarity)
    assert set(parts) == set(expected)
    for name, value in expected.items():
        assert parts[name].shape == ()
        assert parts[name].dtype == torch.float32
        assert float(parts[name]) == pytest.approx(value, rel=1e-5), name


def test_the_stronger_edge_and_the_brighter_pixel_count() -> None:
    """Sobel of A: 4 in columns 1, 2. Of B: 2 in rows 1, 2. The larger: 8 pixels of 4, 4 of 2; 40 / 16 in the mean."""
    flat = torch.full_like(ZERO, 0.25)
    parts = fusion_loss(flat, STEP, HALF_STEP_DOWN, PLAIN)
    assert float(parts["gradient"]) == pytest.approx(40 / 16)
    # max(A, B): 8 pixels of 1, 4 of 0.5, 4 of 0
    assert float(parts["pixel"]) == pytest.approx((8 * 0.75 + 8 * 0.25) / 16)


@pytest.mark.parametrize("name", ["pixel", "gradient", "ssim"])
def test_each_weight_belongs_to_its_term(name: str) -> None:
    weights = {f"{term}_weight": 0.0 for term in ("pixel", "gradient", "ssim")} | {f"{name}_weight": 3.0}
    parts = fusion_loss(*images(0, 2, 1, 16, 16), FusionLoss(**weights))
    term = {"ssim": "ssim_loss"}.get(name, name)
    assert float(parts["loss"]) == pytest.approx(3 * float(parts[term]), rel=1e-6)
    assert float(parts[term]) > 0.01


def test_only_the_sum_carries_a_gradient() -> None:
    f, a, b = images(1, 1, 1, 12, 12)
    parts = fusion_loss(f.requires_grad_(), a, b, PLAIN)
    assert [name for name, value in parts.items() if value.requires_grad] == ["loss"]


@pytest.mark.parametrize("size", [(11, 11), (32, 27)])
def test_ssim_is_that_of_scikit_image(size: tuple[int, int]) -> None:
    f, a, b = images(2, 2, 1, *size, dtype=torch.float64)
    a = 0.5 * a + 0.5 * f  # the two sources must not be alike, else a mix-up of them would go unseen
    for found, source in zip(ssim_pair(f, a, b), (a, b), strict=True):
        maps = [
            structural_similarity(
                x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
            )[1][5:-5, 5:-5]
            for x, y in zip(f[:, 0].numpy(), source[:, 0].numpy(), strict=True)
        ]
        assert float(found) == pytest.approx(np.mean(maps), abs=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (10, 10), (40, 3), (11, 11), (64, 48)])
def test_images_of_any_size_give_finite_values_and_equal_images_a_similarity_of_one(size: tuple[int, int]) -> None:
    f, a, b = images(3, 1, 1, *size)
    parts = fusion_loss(f.requires_grad_(), a, b, PLAIN)
    assert all(torch.isfinite(value) for value in parts.values())
    parts["loss"].backward()
    assert f.grad is not None
    assert torch.isfinite(f.grad).all()
    same = fusion_loss(a, a, a, PLAIN)
    assert float(same["ssim"]) == pytest.approx(1, abs=1e-5)
    assert float(same["loss"]) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_images_do_not_divide_by_zero(value: float) -> None:
    flat = torch.full((1, 1, 16, 16), value)
    assert float(fusion_loss(flat, flat, flat, PLAIN)["loss"]) == pytest.approx(0, abs=1e-4)


def test_ssim_of_small_images_is_that_of_the_extended_image() -> None:
    """A 6 x 15 image grows by 5 to 11 x 20, two pixels before and three behind, copies of the border."""
    small = images(4, 1, 1, 6, 15, dtype=torch.float64)
    grown = [torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (2, 3), (2, 3)), mode="edge")) for x in small]
    for ours, theirs in zip(ssim_pair(*small), ssim_pair(*grown), strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=1e-14)


@pytest.mark.parametrize("size", [(1, 1), (5, 8), (31, 16)])
def test_sobel_is_that_of_scipy(size: tuple[int, int]) -> None:
    f, _, _ = images(5, 2, 1, *size, dtype=torch.float64)
    expected = [
        np.abs(ndimage.sobel(x, axis=0, mode="nearest")) + np.abs(ndimage.sobel(x, axis=1, mode="nearest"))
        for x in f[:, 0].numpy()
    ]
    np.testing.assert_allclose(sobel_magnitude(f)[:, 0].numpy(), np.stack(expected), atol=1e-13)


def test_gradients_of_the_parts_by_finite_differences() -> None:
    f, a, b = (x.requires_grad_() for x in images(6, 1, 1, 13, 12, dtype=torch.float64))
    torch.autograd.gradcheck(ssim_pair, (f, a, b))
    torch.autograd.gradcheck(sobel_magnitude, (f,))


def test_gradient_of_the_sum_is_the_slope_of_the_equation() -> None:
    """The equation, in float64 and apart from the function under test, along one direction."""
    f, a, b = images(7, 2, 1, 14, 17, dtype=torch.float64)

    def equation(f: Tensor) -> Tensor:
        edges = torch.maximum(sobel_magnitude(a), sobel_magnitude(b))
        similar_a, similar_b = ssim_pair(f, a, b)
        pixel = (f - torch.maximum(a, b)).abs().mean()
        return 2 * pixel + 10 * (sobel_magnitude(f) - edges).abs().mean() + 5 * (1 - similar_a / 2 - similar_b / 2)

    direction = images(8, *f.shape, dtype=torch.float64)[0] - 0.5
    step = 1e-7
    slope = float((equation(f + step * direction) - equation(f - step * direction)) / (2 * step))
    single = f.float().requires_grad_()
    fusion_loss(single, a.float(), b.float(), PLAIN)["loss"].backward()
    assert single.grad is not None
    assert float((single.grad.double() * direction).sum()) == pytest.approx(slope, rel=1e-4)


def test_autocast_does_not_lower_the_precision() -> None:
    f, a, b = images(9, 2, 1, 24, 24)
    plain = fusion_loss(f, a, b, PLAIN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = fusion_loss(f, a, b, PLAIN)
    for name, value in plain.items():
        assert cast[name].dtype == torch.float32
        assert torch.equal(cast[name], value), name
    f, a, b = f.bfloat16(), a.bfloat16(), b.bfloat16()
    rounded = fusion_loss(f.float(), a.float(), b.float(), PLAIN)
    assert torch.equal(fusion_loss(f, a, b, PLAIN)["loss"], rounded["loss"])
