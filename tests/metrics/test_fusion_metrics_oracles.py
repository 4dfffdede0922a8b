"""The fusion metrics against cases worked by hand, slow obvious versions and what must hold for any images."""

import math

import numpy as np
import piq
import pytest
import torch
from scipy.ndimage import gaussian_filter

from scanfuse.metrics.fusion import METRICS, score
from scanfuse.metrics.fusion.fmi import fmi

SOURCE_FREE = {"en", "sd", "sf", "ag"}


def value(name, fused, a, b):
    return METRICS[name].function(fused, a, b)


def textured(height, width, seed):
    """A smooth image with fine texture, whole grey levels."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(height, width)), 6)
    fine = gaussian_filter(rng.normal(size=(height, width)), 1)
    image = smooth / smooth.std() + 0.5 * fine / fine.std()
    return np.rint(np.clip(128 + 45 * image, 0, 255))


# ---------------------------------------------------------------------------------------------- worked by hand


def test_psnr_by_hand():
    a, b = np.full((8, 8), 100.0), np.full((8, 8), 120.0)
    # errors 5 and 15: mean squared error (25 + 225) / 2 = 125
    assert value("psnr", np.full((8, 8), 105.0), a, b) == pytest.approx(10 * math.log10(255**2 / 125), abs=1e-12)


def test_no_image_beats_the_average_in_psnr():
    a, b = textured(32, 32, 1), textured(32, 32, 2)
    best = value("psnr", (a + b) / 2, a, b)
    for other in (a, b, np.maximum(a, b), np.clip((a + b) / 2 + 1, 0, 255)):
        assert value("psnr", other, a, b) < best


def test_entropy_and_information_by_hand():
    a = np.repeat([[0.0, 0.0, 255.0, 255.0]], 4, axis=0)
    b = a.T
    # two equal levels: 1 bit; rows and columns are independent: no shared information
    assert value("en", a, a, b) == pytest.approx(1, abs=1e-12)
    assert value("mi", a, a, b) == pytest.approx(1, abs=1e-12)
    assert value("nmi", a, a, b) == pytest.approx(1, abs=1e-12)
    assert value("mi", a, b, b) == 0
    # a relabelling of the levels keeps all information
    assert value("nmi", 200 - a / 2, a, a) == pytest.approx(2, abs=1e-12)


def test_histograms_count_rounded_grey_levels():
    a = textured(24, 24, 3)
    shifted = np.clip(a + np.random.default_rng(0).uniform(-0.49, 0.49, a.shape), 0, 255)
    for name in ("en", "mi", "nmi"):
        assert value(name, shifted, shifted, a) == value(name, a, a, a)


def test_sharpness_of_a_ramp_by_hand():
    ramp = np.tile(3.0 * np.arange(20), (10, 1))  # difference 3 along x, 0 along y
    assert value("sf", ramp, ramp, ramp) == pytest.approx(3, abs=1e-12)
    assert value("ag", ramp, ramp, ramp) == pytest.approx(3 / math.sqrt(2), abs=1e-12)
    assert value("sd", ramp, ramp, ramp) == pytest.approx(3 * math.sqrt((20**2 - 1) / 12), abs=1e-12)


def test_correlation_ignores_scale_and_offset_and_scd_by_hand():
    a, b = textured(20, 30, 4), textured(20, 30, 5)
    assert value("cc", 0.5 * a + 20, a, a) == pytest.approx(1, abs=1e-12)
    assert value("cc", 255 - a, a, a) == pytest.approx(-1, abs=1e-12)
    # the average adds to B half of A minus half of B
    half = (a - b) / 2
    expected = np.corrcoef(half.ravel(), a.ravel())[0, 1] + np.corrcoef(-half.ravel(), b.ravel())[0, 1]
    assert value("scd", (a + b) / 2, a, b) == pytest.approx(expected, abs=1e-12)
    assert value("scd", (a + b) / 2, a / 2, b / 2) == pytest.approx(2, abs=1e-12)


# ---------------------------------------------------------------------------------- slow or independent versions


def slow_fmi(fused, source):
    """FMI of one source, written out window by window with the full joint table."""
    scores = []
    for y in range(fused.shape[0] - 2):
        for x in range(fused.shape[1] - 2):
            window_f, window_x = (image[y : y + 3, x : x + 3].T.ravel() for image in (fused, source))
            flat = np.ptp(window_f) == 0 and np.ptp(window_x) == 0
            if flat or np.array_equal(window_f, window_x):
                scores.append(1.0)
                continue
            p, q = (
                np.ones(9) / 9 if np.ptp(w) == 0 else (w - w.min()) / np.sum(w - w.min())
                for w in (window_f, window_x)
            )
            p_cdf, q_cdf = np.cumsum(p), np.cumsum(q)
            uniform = np.ptp(p) == 0 or np.ptp(q) == 0
            r = 0.0 if uniform else np.corrcoef(p, q)[0, 1]
            bound = np.zeros((10, 10))  # joint cumulative distribution with a row and column of zeros in front
            for i in range(9):
                for j in range(9):
                    upper, lower = min(p_cdf[i], q_cdf[j]), max(p_cdf[i] + q_cdf[j] - 1, 0)
                    bound[i + 1, j + 1] = upper if r >= 0 else lower
            coupling = np.diff(np.diff(bound, axis=0), axis=1)
            place = np.arange(9)
            mean_p, mean_q = place @ p, place @ q
            covariance = place @ coupling @ place - mean_p * mean_q
            spread = math.sqrt(max(place**2 @ p - mean_p**2, 0)) * math.sqrt(max(place**2 @ q - mean_q**2, 0))
            phi = r * spread / covariance if spread > 1e-9 else 0.0
            joint = phi * coupling + (1 - phi) * np.outer(p, q)
            h_p, h_q, h_joint = (-sum(t * math.log2(abs(t)) for t in d.ravel() if t != 0) for d in (p, q, joint))
            scores.append(2 * (h_p + h_q - h_joint) / (h_p + h_q) if h_p + h_q > 0 else 0.0)
    return float(np.mean(scores))


@pytest.mark.parametrize("levels", [2, 4, 256])  # few levels give constant windows and windows with one bright pixel
def test_fmi_equals_the_slow_version(levels):
    rng = np.random.default_rng(levels)
    f, a, b = rng.integers(0, levels, (3, 13, 17)).astype(float)
    f[:6], a[:5], b[:4] = 1.0, 0.0, 1.0
    assert fmi(f, a, b) == pytest.approx((slow_fmi(f, a) + slow_fmi(f, b)) / 2, abs=1e-11)


@pytest.mark.parametrize("shape", [(41, 41), (75, 94), (64, 121)])
def test_vif_equals_piq(shape):
    f, a, b = (textured(*shape, seed) for seed in (1, 2, 3))
    f = (a + b + f) / 3
    tensors = {key: torch.from_numpy(image)[None, None] for key, image in (("f", f), ("a", a), ("b", b))}
    expected = sum(float(piq.vif_p(tensors["f"], tensors[key], data_range=255.0)) for key in "ab")
    assert value("vif", f, a, b) == pytest.approx(expected, abs=1e-7)  # piq adds constants to both sums


def slow_qabf(fused, a, b):
    """Q^AB/F pixel by pixel."""

    def edge(image, y, x):
        padded = np.pad(image, 1)
        n = padded[y : y + 3, x : x + 3]
        gx = (n[0, 0] + 2 * n[1, 0] + n[2, 0]) - (n[0, 2] + 2 * n[1, 2] + n[2, 2])
        gy = (n[2, 0] + 2 * n[2, 1] + n[2, 2]) - (n[0, 0] + 2 * n[0, 1] + n[0, 2])
        return math.sqrt(gx * gx + gy * gy), math.pi / 2 if gx == 0 else math.atan(gy / gx)

    above = below = 0.0
    for y in range(fused.shape[0]):
        for x in range(fused.shape[1]):
            g_f, angle_f = edge(fused, y, x)
            for source in (a, b):
                g, angle = edge(source, y, x)
                strength = g_f if g == g_f else min(g, g_f) / max(g, g_f)
                aligned = 1 - abs(angle - angle_f) / (math.pi / 2)
                quality = 0.9994 / (1 + math.exp(-15 * (strength - 0.5)))
                quality *= 0.9879 / (1 + math.exp(-22 * (aligned - 0.8)))
                above, below = above + quality * g, below + g
    return above / below


def test_qabf_equals_the_slow_version():
    a, b = textured(15, 22, 6), textured(15, 22, 7)
    fused = np.rint((a + b) / 2)
    assert value("qabf", fused, a, b) == pytest.approx(slow_qabf(fused, a, b), abs=1e-12)


# ------------------------------------------------------------------------------------- what holds for any images


def test_the_sources_may_be_swapped():
    f, a, b = (textured(165, 171, seed) for seed in (8, 9, 10))
    there, back = score(f, a, b), score(f, b, a)
    for name in METRICS:
        assert math.isfinite(there[name])
        assert there[name] == pytest.approx(back[name], rel=1e-12, abs=1e-12), name


def test_sources_do_not_count_where_the_metric_has_none():
    f, a, b = (textured(30, 31, seed) for seed in (8, 9, 10))
    for name in SOURCE_FREE:
        assert value(name, f, a, b) == value(name, f, b, f)
    for name in set(METRICS) - SOURCE_FREE - {"ms_ssim", "vif"}:  # these two need larger images, tested above
        assert value(name, f, a, b) != value(name, f, b, f)


def test_integers_and_floats_of_equal_value_score_alike():
    f, a, b = (textured(165, 170, seed) for seed in (11, 12, 13))
    floats = score(f, a, b)
    assert score(f.astype(np.uint8), a.astype(np.uint8), b.astype(np.uint8)) == floats
    assert score(f.astype(np.float32), a.astype(np.int64), b.astype(np.uint16)) == floats
    doubled = np.repeat(np.repeat(f, 2, 0), 2, 1)
    assert score(doubled[::2, ::2], np.asfortranarray(a), b[::-1][::-1]) == floats


def test_images_are_left_as_they_are():
    images = [textured(165, 165, seed) for seed in (14, 15, 16)]
    before = [image.copy() for image in images]
    score(*images)
    for image, copy in zip(images, before, strict=True):
        np.testing.assert_array_equal(image, copy)


def test_more_noise_is_never_better():
    clean = textured(176, 176, 17)
    noise = np.random.default_rng(18).normal(size=clean.shape)
    scores = [score(np.clip(clean + s * noise, 0, 255), clean, clean) for s in (1, 6, 36)]
    for name in ("psnr", "ssim", "ms_ssim", "fsim", "fmi", "mi", "nmi", "cc", "vif", "qabf"):
        assert scores[0][name] > scores[1][name] > scores[2][name], name


def test_blur_lowers_sharpness():
    sharp = textured(64, 64, 19)
    blurred = gaussian_filter(sharp, 1.5)
    for name in ("sd", "sf", "ag"):
        assert value(name, blurred, sharp, sharp) < value(name, sharp, sharp, sharp)


def _piq_inputs(shape: tuple[int, int]) -> tuple[list, torch.Tensor, torch.Tensor]:
    f, a, b = (textured(*shape, seed) for seed in (4, 5, 6))
    f = (a + b + f) / 3
    return [f, a, b], torch.from_numpy(np.stack([f, f])[:, None]), torch.from_numpy(np.stack([a, b])[:, None])


@pytest.mark.parametrize("shape", [(161, 161), (176, 201), (201, 170), (256, 256)])
def test_ms_ssim_equals_piq(shape):
    images, x, y = _piq_inputs(shape)
    assert value("ms_ssim", *images) == pytest.approx(float(piq.multi_scale_ssim(x, y, data_range=255.0)), abs=1e-12)


@pytest.mark.parametrize("shape", [(64, 64), (61, 80), (70, 63), (33, 45), (400, 410)])
def test_fsim_equals_piq(shape):
    """piq takes the lower one of the two middle values as the median, the authors' program and ours their mean."""
    images, x, y = _piq_inputs(shape)
    expected = float(piq.fsim(x, y, data_range=255.0, chromatic=False))
    assert value("fsim", *images) == pytest.approx(expected, abs=1e-12 if all(n % 2 for n in shape) else 5e-5)
    assert value("fsim", images[1], images[2], images[0]) != value("fsim", *images)
    assert value("fsim", *images) == pytest.approx(expected, abs=5e-5)  # whatever was computed in between
