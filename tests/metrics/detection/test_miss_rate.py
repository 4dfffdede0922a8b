"""Log-average miss rate: all golden settings and conventions, flags and curves, weights, and degenerate sets."""

import json

import numpy as np
import pytest
from detection_cases import GOLDEN, golden_misses, random_images, repeated

from scanfuse.metrics.detection.inputs import ImageBoxes, checked
from scanfuse.metrics.detection.miss_rate import (
    REFERENCES,
    log_average_miss_rate,
    match_misses,
    miss_curve,
    reasonable,
)

RESULTS = json.loads((GOLDEN / "miss_rate.json").read_text())["results"]
CONVENTIONS = ("caltech", "lowest_fppi", "wrap", "kaist_python")
SETTINGS = ("all", "reasonable", "reasonable_expanded", "hand", "hand_fp_first")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "miss_rate.npz") as file:
        return dict(file.items())


def images_of(setting: str, arrays: dict[str, np.ndarray]) -> list[ImageBoxes]:
    if setting.startswith("hand"):
        return golden_misses(f"{setting}_", 3, "gt_ignore")
    images = golden_misses("", 40, "gt_ignore")
    if setting == "all":
        return images
    heavy = [arrays["gt_occlusion"][arrays["gt_image"] == number] == 2 for number in range(40)]
    expanded = 1.25 if setting.endswith("expanded") else None
    return [reasonable(image, o, expanded=expanded) for image, o in zip(images, heavy, strict=True)]


@pytest.mark.parametrize("setting", SETTINGS)
def test_golden_rates(setting: str, arrays: dict[str, np.ndarray]) -> None:
    images = images_of(setting, arrays)
    matches = match_misses(images)
    for convention in CONVENTIONS:
        golden = RESULTS[setting][convention]
        found = log_average_miss_rate(matches, convention=convention)
        assert found.shape == (1,) and found[0] == pytest.approx(golden["mr"], abs=1e-12), convention
    golden = RESULTS[setting]["caltech"]
    counts = [int((matches.state == state).sum()) for state in (1, 0, -1)]
    assert counts == [golden["tp"], golden["fp"], golden["ignored"]]
    assert matches.num_true.sum() == golden["n_positive"]
    by_iou = log_average_miss_rate(match_misses(images, ignored_by="iou"))
    assert by_iou[0] == pytest.approx(RESULTS[setting]["ignore_iou"]["mr"], abs=1e-12)


@pytest.mark.parametrize("setting", SETTINGS)
def test_golden_flags_and_curves(setting: str, arrays: dict[str, np.ndarray]) -> None:
    matches = match_misses(images_of(setting, arrays))
    prefix = f"{setting}_" if setting.startswith("hand") else ""
    score, image = arrays[f"{prefix}det_score"], arrays[f"{prefix}det_image"]
    if setting == "reasonable_expanded":
        kept = arrays["reasonable_expanded_det_kept"].astype(bool)
        score, image = score[kept], image[kept]
    order = np.argsort(-score, kind="stable")
    assert np.array_equal(matches.state, arrays[f"{setting}_det_flag"][order])
    assert np.array_equal(matches.image, image[order])
    curve = miss_curve(matches)
    for ours, name in ((curve.fppi, "fppi"), (curve.miss, "miss"), (curve.score, "score")):
        np.testing.assert_allclose(ours, arrays[f"{setting}_curve_{name}"], rtol=0, atol=1e-12)


def test_the_references_are_the_published_ones(arrays: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(REFERENCES, arrays["refs"])


@pytest.mark.parametrize("setting", ["all", "reasonable"])
def test_whole_weights_are_repeated_images(setting: str, arrays: dict[str, np.ndarray]) -> None:
    images = images_of(setting, arrays)
    matches = match_misses(images)
    weights = np.random.default_rng(0).integers(0, 3, (6, len(images)))
    found = log_average_miss_rate(matches, weights)
    for row, times in enumerate(weights):
        again = log_average_miss_rate(match_misses(repeated(images, times)))
        assert found[row] == pytest.approx(again[0], abs=1e-12)
    assert len(set(found.tolist())) > 3


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_images_without_weight_are_as_if_absent(convention: str, arrays: dict[str, np.ndarray]) -> None:
    images = images_of("all", arrays)
    times = np.arange(40) % 3 > 0
    found = log_average_miss_rate(match_misses(images), times, convention=convention)
    again = log_average_miss_rate(match_misses(repeated(images, times)), convention=convention)
    assert found[0] == pytest.approx(again[0], abs=1e-12)


def test_conventions_and_settings_matter() -> None:
    rates = [RESULTS["hand_fp_first"][c]["mr"] for c in ("caltech", "lowest_fppi", "wrap")]
    assert len(set(rates)) == 3
    images = random_images(0)
    tall = [reasonable(image, min_height=60.0) for image in images]
    flat = [reasonable(image, min_height=60.0, expanded=1.25) for image in images]
    heavy = [reasonable(image, np.ones(len(image.true_boxes)), min_height=0.0) for image in images]
    found = [float(log_average_miss_rate(match_misses(part))[0]) for part in (images, tall, flat, heavy)]
    assert np.isnan(found[3]) and len(set(found[:3])) == 3


def test_degenerate_sets() -> None:
    box, far = [0, 0, 40, 80], [300, 300, 340, 380]
    perfect = [checked([box], [0.9], [0], [box], [0])]
    assert log_average_miss_rate(match_misses(perfect))[0] == pytest.approx(1e-10)
    assert log_average_miss_rate(match_misses(perfect), convention="kaist_python")[0] == 0
    missed = [checked([], [], [], [box], [0])]
    wrong = [checked([far], [0.9], [0], [box], [0])]
    for convention in CONVENTIONS[:3]:
        assert log_average_miss_rate(match_misses(missed), convention=convention)[0] == 1
        assert log_average_miss_rate(match_misses(wrong), convention=convention)[0] == 1
    for images in ([], [checked([], [], [], [], [])], [checked([box], [0.9], [0], [], [])]):
        assert np.isnan(log_average_miss_rate(match_misses(images))[0])
        assert miss_curve(match_misses(images)).fppi.size == 0
    assert np.isnan(log_average_miss_rate(match_misses(perfect, label=1))[0])
    two = [*perfect, checked([far], [0.95], [0], [], [])]
    found = log_average_miss_rate(match_misses(two), [[1, 0], [1, 1], [0, 1], [0, 0]])
    assert found[0] == pytest.approx(1e-10) and found[0] < found[1] < 1
    assert np.isnan(found[2:]).all()
