"""The pixel-level baselines: equal to independently fused images, exact on equal inputs, any size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scanfuse.fusion.pixel import average, laplacian_pyramid, maximum

METHODS = (average, maximum, laplacian_pyramid)
GOLDEN = Path(__file__).parents[1] / "golden" / "fusion_metrics.npz"


@pytest.mark.parametrize("pair", ["phd1", "phd2", "phd3"])
def test_baselines_equal_the_golden_fused_images(pair):
    """Grey levels / 256 are exact in binary, so ties and halves fall as in the integer rule of the golden file."""
    with np.load(GOLDEN) as file:
        a, b = (torch.from_numpy(file[f"{pair}_{name}"]).double() / 256 for name in ("ct", "mri"))
        for method, name in zip(METHODS, ("avg", "max", "lap"), strict=True):
            levels = np.clip(np.floor(method(a, b).numpy() * 256 + 0.5), 0, 255)
            np.testing.assert_array_equal(levels, file[f"{pair}_{name}"], err_msg=name)


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 3), (5, 4), (17, 31), (64, 65)])
@pytest.mark.parametrize("method", METHODS)
def test_equal_images_come_back(method, shape):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(method(image, image), image, rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_batches_and_single_images_agree(method):
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, 3, 1, 33, 46, generator=generator)
    fused = method(a, b)
    assert fused.shape == a.shape
    assert fused.dtype == a.dtype
    assert fused.min() >= 0
    assert fused.max() <= 1
    for one, first, second in zip(fused, a, b, strict=True):
        torch.testing.assert_close(method(first[0], second[0]), one[0], rtol=0, atol=1e-6)


def test_average_and_maximum_by_hand():
    a, b = torch.tensor([[0.0, 0.5], [1.0, 0.25]]), torch.tensor([[1.0, 0.5], [0.5, 0.75]])
    assert average(a, b).tolist() == [[0.5, 0.5], [0.75, 0.5]]
    assert maximum(a, b).tolist() == [[1.0, 0.5], [1.0, 0.75]]


def test_laplacian_keeps_the_detail_of_both_sources():
    """Each source has texture in one half; the fused image has both at nearly full contrast, the mean has half."""
    texture = (torch.arange(64) % 2).double().expand(64, 64) * 0.2
    a, b = torch.full((2, 64, 64), 0.5, dtype=torch.float64)
    a[:, :32] += texture[:, :32]
    b[:, 32:] += texture[:, 32:]
    fused = laplacian_pyramid(a, b)
    for half in (fused[:, 4:26], fused[:, 38:60]):  # away from the seam
        contrast = half.diff(dim=1).abs().mean()
        assert 0.19 < contrast < 0.21
    assert average(a, b)[:, 4:26].diff(dim=1).abs().mean() == pytest.approx(0.1)


def test_laplacian_stays_in_range_and_adapts_its_levels():
    a, b = (torch.rand(40, 40, generator=torch.Generator().manual_seed(seed)).round() for seed in (2, 3))
    fused = laplacian_pyramid(a, b)
    assert fused.min() >= 0
    assert fused.max() <= 1
    small = torch.rand(2, 5, 40, generator=torch.Generator().manual_seed(4))  # 5 -> 3 -> 2: two levels are possible
    torch.testing.assert_close(laplacian_pyramid(*small, levels=9), laplacian_pyramid(*small, levels=2))
    assert not torch.equal(laplacian_pyramid(*small, levels=2), laplacian_pyramid(*small, levels=1))
    tiny = torch.rand(2, 2, 40, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(laplacian_pyramid(*tiny), average(*tiny))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(4, 4), torch.zeros(4, 5), "agree in shape"),
        (torch.zeros(4, 4), torch.zeros(4, 4).double(), "agree in shape and dtype"),
        (torch.zeros(4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8), "floating-point"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), r"\(B, 1, H, W\)"),
        (torch.zeros(4), torch.zeros(4), r"\(H, W\)"),
    ],
)
def test_wrong_images_are_refused(method, a, b, message):
    with pytest.raises(ValueError, match=message):
        method(a, b)


def test_levels_below_one_are_refused():
    with pytest.raises(ValueError, match="levels is 0"):
        laplacian_pyramid(torch.zeros(8, 8), torch.zeros(8, 8), levels=0)


def test_a_volume_of_equal_slices_gives_its_slice() -> None:
    """Along the further side every filter sees a constant: the 3D pyramid must not change what the 2D one gives."""
    flat = torch.rand(2, 1, 21, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for side in (2, 3, 4):
        a, b = (x[:, None].unsqueeze(side).expand(*(-1,) * side, 24, *(-1,) * (4 - side)) for x in flat)
        for rule in (average, maximum, laplacian_pyramid):
            expected = rule(flat[0][None], flat[1][None])
            found = rule(a, b, num_dims=3)
            assert found.shape == a.shape
            torch.testing.assert_close(found.select(side, 5), expected, rtol=0, atol=1e-12)


def test_equal_volumes_come_back_and_images_are_no_volumes() -> None:
    a = torch.rand(9, 8, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(laplacian_pyramid(a, a, num_dims=3), a, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"give \(D, H, W\)"):
        average(a[0], a[0], num_dims=3)
