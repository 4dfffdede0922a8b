"""Degenerate and wrong input of the fusion metrics: a documented value or a clear refusal, never a warning."""

import doctest
import math
import pkgutil
from importlib import import_module

import numpy as np
import pytest

import scanfuse.metrics.fusion as metrics
from scanfuse.metrics.fusion import METRICS, score
from scanfuse.metrics.fusion.fmi import fmi

RANDOM = np.random.default_rng(0).integers(0, 256, (3, 170, 170)).astype(np.float64)


def test_three_identical_images():
    image = RANDOM[0]
    measured = score(image, image, image)
    bits = measured["en"]
    expected = {
        "psnr": math.inf,
        "ssim": 1,
        "ms_ssim": 1,
        "fsim": 1,
        "fmi": 1,
        "mi": 2 * bits,
        "nmi": 2,
        "cc": 1,
        "scd": math.nan,  # nothing was added to either source
        "vif": 2,
    }
    for name, number in expected.items():
        assert measured[name] == pytest.approx(number, abs=1e-9, nan_ok=True), name
    assert 0.97 < measured["qabf"] < 0.9994 * 0.9879


def test_three_constant_images():
    black, grey = np.zeros((170, 170)), np.full((170, 170), 90)
    same = score(black, black, black)
    undefined = {"fsim", "nmi", "cc", "scd", "vif", "qabf", "nabf"}
    assert {name for name in METRICS if math.isnan(same[name])} == undefined
    assert same["psnr"] == math.inf
    assert [same[name] for name in ("ssim", "ms_ssim", "fmi")] == pytest.approx([1, 1, 1], abs=1e-12)
    assert [same[name] for name in ("en", "mi", "sd", "sf", "ag")] == [0, 0, 0, 0, 0]
    assert math.copysign(1, same["en"]) == 1

    different = score(grey, black, grey)
    assert {name for name in METRICS if math.isnan(different[name])} == undefined - {"qabf"}
    assert different["psnr"] == pytest.approx(10 * math.log10(255**2 / (90**2 / 2)))
    assert 0.5 < different["ssim"] < 0.51  # 1 against the equal source, C1 / (90^2 + C1) against the black one


def test_a_constant_source():
    f, b, _ = RANDOM
    measured = score(f, np.full_like(b, 7.0), b)
    assert {name for name in METRICS if math.isnan(measured[name])} == {"cc", "scd", "vif"}


def test_a_constant_fused_image():
    _, a, b = RANDOM
    measured = score(np.full_like(a, 7.0), a, b)
    # SCD is defined: what is added is the other source's negative
    assert {name for name in METRICS if math.isnan(measured[name])} == {"cc"}
    for name in ("en", "mi", "nmi", "sd", "sf", "ag", "vif"):
        assert measured[name] == pytest.approx(0, abs=1e-9), name


@pytest.mark.parametrize(
    ("name", "side"), [("ssim", 11), ("ms_ssim", 161), ("vif", 41), ("fsim", 6), ("fmi", 3), ("sf", 2), ("ag", 2)]
)
def test_images_below_the_documented_size_score_nan(name, side):
    function = METRICS[name].function
    assert math.isfinite(function(*RANDOM[:, :side, :side]))
    assert math.isnan(function(*RANDOM[:, : side - 1, :side]))
    assert math.isnan(function(*RANDOM[:, :, : side - 1]))


def test_one_pixel():
    measured = score([[3]], [[4]], [[5]])
    defined = {name for name in METRICS if not math.isnan(measured[name])}
    assert defined == {"psnr", "en", "mi", "sd"}


@pytest.mark.parametrize("shape", [(41, 200), (200, 43), (47, 53)])
def test_long_and_odd_images(shape):
    rng = np.random.default_rng(1)
    measured = score(*rng.uniform(0, 255, (3, *shape)))
    assert {name for name in METRICS if not math.isfinite(measured[name])} == {"ms_ssim"}


GOOD = RANDOM[0, :20, :20]


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.where(GOOD > 100, np.nan, GOOD), "NaN or infinite"),
        (np.where(GOOD > 100, np.inf, GOOD), "NaN or infinite"),
        (np.where(GOOD > 100, -np.inf, GOOD), "NaN or infinite"),
        (GOOD - 1, "scale is 0..255"),
        (GOOD + 300, "scale is 0..255"),
        (GOOD.astype(np.uint16) * 200, "scale is 0..255"),
        (np.stack([GOOD] * 3, -1), r"shape \(20, 20, 3\)"),
        (GOOD > 100, "dtype bool"),
        (GOOD.astype(complex), "dtype complex"),
        (GOOD.astype(str), "dtype"),
        (GOOD[:, :-1], r"sizes must agree"),
    ],
)
def test_wrong_images_are_refused(position, bad, message):
    images = [GOOD, GOOD, GOOD]
    images[position] = bad
    with pytest.raises(ValueError, match=message):
        score(*images)


def test_an_empty_image_is_refused():
    with pytest.raises(ValueError, match="not empty"):
        score(*np.zeros((3, 0, 5)))


def test_every_function_checks_its_own_input():
    for name, metric in METRICS.items():
        with pytest.raises(ValueError, match=r"scale is 0\.\.255"):
            metric.function(GOOD, GOOD, GOOD + 300)
        with pytest.raises(ValueError, match="fused has dtype"):
            metric.function(GOOD > 3, GOOD, GOOD)
        assert metric.better == ("lower" if name == "nabf" else "higher"), name


def test_images_left_on_the_unit_scale_are_refused():
    with pytest.raises(ValueError, match="multiply them by 255"):
        score(*RANDOM[:, :20, :20] / 255)
    # dark images are legal: whole grey levels 0 and 1, and a faint output for black sources
    score(*(RANDOM[:, :20, :20] > 128).astype(np.uint8), names=["psnr"])
    score(GOOD / 1000, np.zeros_like(GOOD), np.zeros_like(GOOD), names=["psnr"])


def test_rounding_errors_of_a_colour_conversion_are_tolerated():
    white = np.full((20, 20), 255.0)
    beyond = np.nextafter(white, 300)
    assert score(beyond, beyond, GOOD, names=["psnr"]) == score(white, white, GOOD, names=["psnr"])
    with pytest.raises(ValueError, match=r"scale is 0\.\.255"):
        score(white + 0.01, white, white)


def test_names_choose_and_order_the_metrics():
    assert list(score(GOOD, GOOD, GOOD, names=["sd", "psnr"])) == ["sd", "psnr"]
    assert score(GOOD, GOOD, GOOD, names=[]) == {}
    with pytest.raises(ValueError, match="unknown metric 'niqe'; there are psnr, ssim"):
        score(GOOD, GOOD, GOOD, names=["psnr", "niqe"])


def test_an_unknown_feature_is_refused():
    with pytest.raises(ValueError, match="'edge'"):
        fmi(GOOD, GOOD, GOOD, feature="edge")


def test_every_module_of_the_folder_is_in_the_table():
    modules = [
        module.name
        for module in pkgutil.iter_modules(metrics.__path__)
        if module.name not in ("inputs", "phase_congruency", "volume")
    ]
    assert len(modules) == 11
    offered = {
        getattr(module, name)
        for module in (import_module(f"{metrics.__name__}.{name}") for name in modules)
        for name in module.__all__
    }
    assert offered == {metric.function for metric in METRICS.values()}
    for function in offered:
        for part in ("Range", "Raises:"):
            assert part in function.__doc__, (function, part)


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        METRICS["psnr"] = METRICS["ssim"]


def test_the_example_runs():
    assert doctest.testmod(metrics) == (0, 4)


def test_false_edges_are_what_neither_source_has():
    rows, columns = np.mgrid[:32, :32]
    a, b = np.where(columns < 16, 40.0, 120.0), np.where(rows < 16, 40.0, 120.0)
    assert score(a, a, b, names=["nabf"])["nabf"] == 0  # a source itself
    raised = np.where(columns < 16, 40.0, 200.0)
    seam = np.where((rows + columns) < 20, a, a + 60)
    weaker = 80 + (a - 80) / 2
    found = [score(f, a, b, names=["nabf"])["nabf"] for f in (weaker, raised, seam)]
    assert found[0] == 0
    assert all(0 < each < 1 for each in found[1:])
