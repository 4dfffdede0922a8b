"""From a fused luminance back to pixels: colour, value range, depth, and what is shown."""

import numpy as np
import pytest
import torch
from fusing import DTYPES, batch_of, colour, first, fused, grey, rgb_tensor, run, second
from torch import Tensor

from scanfuse.data.synthetic import harvard
from scanfuse.tasks.fuse.colour import split_colour, to_plane


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("colour_first", [True, False])
def test_a_colour_source_comes_back_exactly_when_its_luminance_does(dtype: str, colour_first: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (12, 17, 3), dtype=dtype, endpoint=True)
    other = grey("float32", -5, 3)
    result = run(first, pixels, other) if colour_first else run(second, other, pixels)
    assert result.pixels.dtype == pixels.dtype
    assert np.array_equal(result.pixels, pixels)


def test_a_colour_source_keeps_its_chrominance_when_its_luminance_changes() -> None:
    pixels = colour(2)
    result = run(lambda a, b: 0.9 * a + 0.1 * b, pixels, grey("uint8", 0, 255))
    _, before = split_colour(rgb_tensor(pixels))
    luminance, after = split_colour(rgb_tensor(result.pixels))
    # Rounding moves each channel by at most 0.5 / 255, and Cb, Cr by no more than that.
    torch.testing.assert_close(after, before, atol=0.5 / 255 + 1e-6, rtol=0)
    assert float((luminance - split_colour(rgb_tensor(pixels))[0]).abs().max()) > 0.02


def test_two_coloured_sources_share_their_chrominance() -> None:
    """Where one is grey the other's colour counts; equal sources give themselves; the order does not matter."""
    tinted = colour(3)
    mixed = tinted.copy()
    mixed[:, :8] = mixed[:, :8, :1]
    both = run(lambda a, b: a / 2 + b / 2, tinted, mixed)
    _, expected = split_colour(rgb_tensor(tinted))
    _, found = split_colour(rgb_tensor(both.pixels))
    torch.testing.assert_close(found, expected, atol=0.6 / 255, rtol=0)
    assert np.array_equal(run(first, tinted, tinted).pixels, tinted)
    assert np.array_equal(run(first, tinted, mixed).pixels, run(second, mixed, tinted).pixels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("low", "high"), [(0, 255), (17, 90)])
def test_a_fuser_that_returns_a_source_gives_its_values_back(dtype: str, low: int, high: int) -> None:
    """Stretch and range are undone: exactly for integers, to single precision for floats."""
    if dtype == "int16":
        low, high = low - 1024, 30 * high
    source = grey(dtype, low, high)
    result = run(first, source, source)
    assert result.pixels.dtype == source.dtype
    if source.dtype.kind == "f":
        np.testing.assert_allclose(result.pixels, source, rtol=0, atol=3e-7 * (high - low))
    else:
        assert np.array_equal(result.pixels, source)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_source_that_spans_the_other_comes_back_exactly(dtype: str) -> None:
    """The other is 8 bit with values inside the range: the deeper source sets the dtype."""
    low, high = (0, np.iinfo(dtype).max) if dtype.startswith("uint") else (-900, 3000)
    source, narrow = grey(dtype, low, high), grey("uint8", 40, 200, seed=1)
    for result in (run(first, source, narrow), run(second, narrow, source)):
        assert result.pixels.dtype == source.dtype
        np.testing.assert_allclose(result.pixels, source, rtol=0, atol=1e-3 if source.dtype.kind == "f" else 0)


def test_a_grey_result_spans_both_sources() -> None:
    """Sources of 50..100 and 90..200: a fuser's 0 becomes 50 and its 1 becomes 200."""
    a, b = grey("uint8", 50, 100), grey("uint8", 90, 200, seed=1)
    result = run(first, a, b)
    assert (result.pixels.min(), result.pixels.max()) == (50, 200)
    expected = np.rint(50 + (a.astype(float) - 50) / 50 * 150)
    assert np.abs(result.pixels - expected).max() <= 1
    assert np.array_equal(run(second, b, a).pixels, result.pixels)


def test_what_a_fuser_sees() -> None:
    """A network gets luminances that fill [0, 1]."""
    seen: list[Tensor] = []

    def spy(a: Tensor, b: Tensor) -> Tensor:
        seen.extend((a, b))
        return a

    run(spy, grey("uint8", 51, 102), grey("uint16", 0, 13107, seed=1))
    assert [(float(x.min()), float(x.max())) for x in seen] == [(0, 1), (0, 1)]
    assert all(x.shape == (1, 1, 12, 17) for x in seen)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_source_is_harmless(dtype: str) -> None:
    flat = np.full((12, 17), 77, dtype)
    assert np.array_equal(run(first, flat, flat).pixels, flat)
    assert not to_plane(batch_of((flat, flat))["a"]).stretched.any()
    varied = grey("uint8", 0, 255)
    for result in (run(second, flat, varied), run(first, varied, flat)):
        assert np.isfinite(result.pixels).all()
        assert result.sources["a"].shape == result.luminance.shape == (12, 17)
    if dtype == "uint8":
        assert np.array_equal(run(second, flat, varied).pixels, varied)


def test_what_a_fuser_returns_beyond_the_range_is_clipped() -> None:
    source = grey("uint8", 0, 255)
    result = run(lambda a, b: 3 * a - 1, source, source)
    expected = np.clip(3 * source.astype(float) - 255, 0, 255)
    assert np.array_equal(result.pixels, expected)


def test_a_batch_gives_the_results_of_its_samples() -> None:
    pairs = [(grey("uint8", 0, 9 * k, k), grey("uint8", k, 200, k + 1)) for k in (5, 20)]
    for result, pair in zip(fused(first, batch_of(*pairs)), pairs, strict=True):
        assert np.array_equal(result.pixels, run(first, *pair).pixels)


def test_views_show_the_sources_and_the_result() -> None:
    heads = harvard.render(1, slices=1, size=64)[0]
    deep = grey("uint16", 0, 65535, shape=(64, 64))
    result = run(first, heads["SPECT"], deep)
    assert list(result.views) == ["a", "b", "fused"]
    assert np.array_equal(result.views["a"], heads["SPECT"])
    assert np.array_equal(result.views["fused"], result.pixels)
    for channel in range(3):
        assert np.array_equal(result.views["b"][..., channel], np.rint(deep / 257).astype(np.uint8))
