"""Colour on RGB, gain on infrared, sensors that fail, and thermal counts as values in [0, 1]."""

import colorsys

import numpy as np
import pytest
import torch

from scanfuse.data.boxes import Boxes
from scanfuse.data.transforms.pair import Pair
from scanfuse.data.transforms.paired_colour import (
    ColourJitter,
    SensorDropout,
    ThermalJitter,
    colour_matrix,
    to_tensors,
)
from scanfuse.data.transforms.thermal import thermal_unit
from scanfuse.errors import UserError


@pytest.fixture
def pair() -> Pair:
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return Pair(rgb, random.random((12, 16)).astype(np.float32), Boxes.none(("a",)))


def test_tensors_are_the_pictures_channels_first(pair: Pair) -> None:
    rgb, ir = to_tensors(pair)
    assert rgb.shape == (3, 12, 16) and ir.shape == (1, 12, 16) and rgb.dtype == ir.dtype == torch.float32
    np.testing.assert_allclose(rgb.numpy(), pair.rgb.transpose(2, 0, 1) / 255, atol=1e-6)
    np.testing.assert_array_equal(ir[0].numpy(), pair.ir)
    ir.zero_()
    assert pair.ir.any()  # a copy


def test_the_colour_matrix_means_what_it_says() -> None:
    red, grey = np.array([1.0, 0, 0]), np.full(3, 0.4)
    np.testing.assert_allclose(colour_matrix(), np.eye(3), atol=1e-15)
    np.testing.assert_allclose(colour_matrix(hue=1 / 3) @ red, [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(colour_matrix(hue=-1 / 3) @ red, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(colour_matrix(saturation=0) @ [0.2, 0.6, 0.4], [0.4576] * 3, atol=1e-12)  # BT.601
    for hue, saturation, value in ((0.2, 0.3, 1.3), (-0.1, 1.6, 0.5)):
        matrix = colour_matrix(hue=hue, saturation=saturation, value=value)
        np.testing.assert_allclose(matrix @ grey, value * grey, atol=1e-12)


def test_hue_turns_as_in_hsv() -> None:
    """Against colorsys, for colours whose turn stays inside the colour cube; the two hues are not the same angle."""
    for start in (0.05, 0.3, 0.62, 0.9):
        colour = colorsys.hsv_to_rgb(start, 0.3, 0.5)
        for turn in (-0.05, 0.015, 0.1):
            after = colorsys.rgb_to_hsv(*np.clip(colour_matrix(hue=turn) @ colour, 0, 1))[0]
            assert abs((after - start - turn + 0.5) % 1 - 0.5) < 0.02


def test_jitters_change_their_own_sensor_only(pair: Pair) -> None:
    random = np.random.default_rng(1)
    plain_rgb, plain_ir = to_tensors(pair)
    rgb, ir = to_tensors(pair, colour=ColourJitter().draw(random))
    assert not torch.equal(rgb, plain_rgb) and torch.equal(ir, plain_ir)
    rgb, ir = to_tensors(pair, thermal=ThermalJitter().draw(random))
    assert torch.equal(rgb, plain_rgb) and not torch.equal(ir, plain_ir)
    assert all(
        value.min() >= 0 and value.max() <= 1 for value in to_tensors(pair, colour=3 * np.eye(3), thermal=(5, 0))
    )
    still = to_tensors(
        pair, colour=ColourJitter(hue=0, saturation=0, value=0).draw(random), thermal=ThermalJitter(0, 0).draw(random)
    )
    torch.testing.assert_close(still[0], plain_rgb, atol=1e-6, rtol=0)
    torch.testing.assert_close(still[1], plain_ir, atol=1e-6, rtol=0)


def test_thermal_gain_by_hand() -> None:
    pair = Pair(np.zeros((1, 4, 3), np.uint8), np.array([[0.2, 0.4, 0.4, 0.6]], np.float32), Boxes.none(("a",)))
    _, ir = to_tensors(pair, thermal=(2.0, 0.1))
    torch.testing.assert_close(ir[0, 0], torch.tensor([0.1, 0.5, 0.5, 0.9]))


def test_jitters_fill_their_ranges() -> None:
    random = np.random.default_rng(2)
    values = np.array([np.diag(ColourJitter(hue=0, saturation=0, value=0.4).draw(random)) for _ in range(300)])
    assert 0.6 <= values.min() < 0.62 and 1.38 < values.max() <= 1.4
    pushes = np.array([ThermalJitter(contrast=0.3, brightness=0.1).draw(random) for _ in range(300)])
    assert 0.7 <= pushes[:, 0].min() < 0.72 and 1.28 < pushes[:, 0].max() <= 1.3
    assert -0.1 <= pushes[:, 1].min() < -0.09 and 0.09 < pushes[:, 1].max() <= 0.1


def test_a_missing_sensor_is_zero_and_never_both(pair: Pair) -> None:
    random = np.random.default_rng(3)
    drawn = [SensorDropout(rgb=0.2, ir=0.3).draw(random) for _ in range(2000)]
    assert abs(np.mean([not one["rgb"] for one in drawn]) - 0.2) < 0.03
    assert abs(np.mean([not one["ir"] for one in drawn]) - 0.3) < 0.03
    assert all(one["rgb"] or one["ir"] for one in drawn)
    assert all(SensorDropout().draw(random) == {"rgb": True, "ir": True} for _ in range(50))
    assert not any(SensorDropout(rgb=0.5, ir=0.5).draw(random) == {"rgb": True, "ir": True} for _ in range(50))
    for missing in ("rgb", "ir"):
        rgb, ir = to_tensors(pair, present={"rgb": missing != "rgb", "ir": missing != "ir"},
                             colour=ColourJitter().draw(random), thermal=(1.0, 0.5))  # fmt: skip
        assert bool(rgb.any()) == (missing != "rgb") and bool(ir.any()) == (missing != "ir")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ColourJitter(hue=2),
        lambda: ColourJitter(value=-0.1),
        lambda: ThermalJitter(contrast=1),
        lambda: ThermalJitter(brightness=2),
        lambda: SensorDropout(rgb=0.6, ir=0.6),
        lambda: SensorDropout(rgb=-0.1),
    ],
)
def test_impossible_ranges_are_refused(make: object) -> None:
    with pytest.raises(UserError, match="must be 0"):
        make()  # type: ignore[operator]
    with pytest.raises(UserError, match=r"at most 1 together: rgb 0\.7, ir 0\.6\.$"):
        SensorDropout(rgb=0.7, ir=0.6)


# --- thermal ------------------------------------------------------------------------------------------------------


def test_eight_bit_is_divided_by_255() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_allclose(thermal_unit(pixels), pixels / 255, atol=1e-6)
    np.testing.assert_allclose(thermal_unit(np.repeat(pixels[..., None], 3, axis=2)), pixels / 255, atol=1e-6)
    with_noise = np.repeat(pixels[..., None], 3, axis=2).astype(int)
    with_noise[..., 2] += np.where(with_noise[..., 2] < 255, 1, -1)  # as JPEG leaves it
    np.testing.assert_allclose(thermal_unit(with_noise.astype(np.uint8)), pixels / 255, atol=0.5 / 255)


def test_sixteen_bit_is_windowed_by_percentiles() -> None:
    random = np.random.default_rng(0)
    counts = random.normal(8000, 120, (60, 80)).round().astype(np.uint16)
    counts[0, 0] = 65535  # a dead pixel must not darken the street
    unit = thermal_unit(counts)
    ordered = np.sort(counts.ravel())
    low, high = ordered[int(np.ceil(0.005 * 4800)) - 1], ordered[int(np.ceil(0.995 * 4800)) - 1]
    expected = np.clip((counts.astype(float) - low) / (high - float(low)), 0, 1)
    np.testing.assert_allclose(unit, expected, atol=1e-6)
    assert unit.dtype == np.float32 and unit.min() == 0 and unit.max() == 1
    # Other types come to the same by sorting.
    np.testing.assert_allclose(thermal_unit(counts.astype(np.int32)), expected, atol=1e-6)
    np.testing.assert_allclose(thermal_unit(counts.astype(np.float32)), expected, atol=1e-6)
    for share in (0.0, 33.3, 50.0, 99.9):
        found = thermal_unit(counts, percentiles=(share, 100.0))
        at = np.percentile(counts, share, method="inverted_cdf")
        assert ((found > 0) == (counts > at)).all()


def test_windows() -> None:
    counts = np.array([[7000, 7500], [8000, 9000]], np.uint16)
    np.testing.assert_allclose(thermal_unit(counts, window=(7000.0, 8000.0)), [[0, 0.5], [1, 1]])
    np.testing.assert_allclose(thermal_unit(counts, window="full"), counts / 65535, atol=1e-7)
    small = np.array([[10, 20], [20, 30]], np.uint8)
    np.testing.assert_allclose(thermal_unit(small, window="percentile"), [[0, 0.5], [0.5, 1]])
    assert not thermal_unit(np.full((3, 3), 7000, np.uint16)).any()  # a closed shutter
    broken = np.array([[np.nan, 1.0], [2.0, np.inf]], np.float32)
    np.testing.assert_allclose(thermal_unit(broken, window=(1.0, 2.0)), [[0, 0], [1, 1]])


@pytest.mark.parametrize(
    ("pixels", "options", "says"),
    [
        (np.zeros((2, 2), np.float32), {"window": "full"}, "holds float32, which has no full range"),
        (np.zeros((2, 2), np.uint8), {"window": (5.0, 5.0)}, "The thermal window is 5 to 5"),
        (np.full((2, 2), np.nan, np.float32), {}, "holds no finite value"),
        (np.zeros((2, 2), np.uint16), {"percentiles": (50.0, 5.0)}, "The percentiles are 50 and 5"),
        (np.zeros((2, 2, 4), np.uint8), {}, r"has the shape \(2, 2, 4\)"),
        (np.stack([np.full((4, 4), v, np.uint8) for v in (200, 80, 0)], axis=2), {}, "is coloured .* 200 of 255"),
    ],
)
def test_pictures_that_are_no_temperatures(pixels: np.ndarray, options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        thermal_unit(pixels, **options)
