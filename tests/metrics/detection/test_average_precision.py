"""COCO's table: golden values, the library, repeated images as weights, and data sets with nothing in them."""

import numpy as np
import pytest
from detection_cases import golden_map, random_images, repeated

from scanfuse.metrics.detection.average_precision import average_precision, summary
from scanfuse.metrics.detection.coco import library_scores
from scanfuse.metrics.detection.inputs import ImageBoxes, checked
from scanfuse.metrics.detection.matching import AREAS, match
from scanfuse.stats.bootstrap import cluster_differences, cluster_intervals

OUR_NAMES = {
    "AP": "map",
    "AP50": "map50",
    "AP75": "map75",
    "AP_small": "map_small",
    "AP_medium": "map_medium",
    "AP_large": "map_large",
    "AR_1": "ar1",
    "AR_10": "ar10",
    "AR_100": "ar100",
    "AR_small": "ar_small",
    "AR_medium": "ar_medium",
    "AR_large": "ar_large",
}


def same(first: dict, second: dict, tolerance: float = 1e-13) -> None:
    assert set(first) == set(second)
    for name, value in first.items():
        np.testing.assert_allclose(
            np.ravel(value)[0], np.ravel(second[name])[0], rtol=0, atol=tolerance, err_msg=name
        )


@pytest.mark.parametrize("name", ["plain", "crowd"])
def test_golden_values_from_matches_and_from_the_library(name: str) -> None:
    images, stats = golden_map(name)
    overall, each = summary(match(images, 3))
    library, library_each = library_scores(images, 3)
    for golden, ours in OUR_NAMES.items():
        assert overall[ours][0] == pytest.approx(stats[golden], abs=1e-13), golden
        assert library[ours] == pytest.approx(stats[golden], abs=1e-13), golden
    for label in range(3):
        for golden, ours in (("AP_per_class", "map"), ("AP50_per_class", "map50"), ("AR100_per_class", "ar100")):
            assert each[label][ours][0] == pytest.approx(stats[golden][label], abs=1e-13)
        same(library_each[label], each[label])
    per_level = average_precision(match(images, 3)).precision[0, :, 0].mean(axis=0)
    assert per_level.tolist() == pytest.approx(stats["AP_per_iou"], abs=1e-13)


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_the_library_on_random_images(seed: int) -> None:
    images = random_images(seed)
    overall, each = summary(match(images, 3))
    library, library_each = library_scores(images, 3)
    same(overall, library)
    for label in range(3):
        same(each[label], library_each[label])


@pytest.mark.parametrize("seed", range(4))
def test_whole_weights_are_repeated_images(seed: int) -> None:
    images = random_images(seed)
    matches = match(images, 3)
    weights = np.random.default_rng(seed).integers(0, 4, (5, len(images))).astype(float)
    overall, each = summary(matches, weights)
    for row, times in enumerate(weights):
        library, library_each = library_scores(repeated(images, times), 3)
        same({name: value[row] for name, value in overall.items()}, library)
        for label in range(3):
            same({name: value[row] for name, value in each[label].items()}, library_each[label])


def test_a_large_block_of_weights_is_cut_without_a_trace() -> None:
    images = random_images(0)
    matches = match(images, 3)
    weights = np.random.default_rng(0).integers(0, 3, (40_000, len(images))).astype(float)
    whole = summary(matches, weights)[0]
    for rows in (slice(0, 3), slice(-3, None)):
        part = summary(matches, weights[rows])[0]
        for name in part:
            np.testing.assert_array_equal(part[name], whole[name][rows])


def test_equal_scores_keep_the_order_of_the_images() -> None:
    box = [0, 0, 40, 40]
    hit = checked([box], [0.5], [0], [box], [0])
    miss = checked([[100, 100, 140, 140]], [0.5], [0], [box], [0])
    for images in ([hit, miss], [miss, hit]):
        same(summary(match(images, 1))[0], library_scores(images, 1)[0])
    assert summary(match([hit, miss], 1))[0]["map"][0] > summary(match([miss, hit], 1))[0]["map"][0]


def test_more_detections_than_are_counted() -> None:
    rng = np.random.default_rng(0)
    first = rng.random((150, 2)) * 500
    boxes = np.concatenate([first, first + 40], axis=1)
    images = [checked(boxes, rng.random(150), np.zeros(150, int), boxes[:12], np.zeros(12, int))]
    same(summary(match(images, 1))[0], library_scores(images, 1)[0])
    assert len(match(images, 1).classes[0].image) == 100


def test_equal_overlaps_crowds_and_objects_out_of_range() -> None:
    box, other = [0, 0, 40, 40], [0, 0, 40, 38]
    images = [
        checked([box, other, box], [0.9, 0.8, 0.7], [0, 0, 0], [box, box], [0, 0]),
        checked([box, other], [0.6, 0.85], [0, 0], [box, [0, 0, 400, 400]], [0, 0], [False, True]),
        checked([box, other, other], [0.5, 0.95, 0.4], [0, 0, 0], [[0, 0, 32, 32], [0, 0, 96, 96]], [0, 0]),
    ]
    same(summary(match(images, 1))[0], library_scores(images, 1)[0])


def nothing() -> ImageBoxes:
    return checked([], [], [], [], [])


def test_data_sets_with_nothing_in_them(capfd: pytest.CaptureFixture[str]) -> None:
    box = [0, 0, 40, 40]
    truth_only = checked([], [], [], [box], [0])
    found_only = checked([box], [0.5], [1], [], [])
    for images, map0, map1 in (
        ([], np.nan, np.nan),
        ([nothing(), nothing()], np.nan, np.nan),
        ([found_only], np.nan, np.nan),
        ([truth_only], 0.0, np.nan),
        ([truth_only, found_only], 0.0, np.nan),
        ([checked([box], [0.5], [0], [box], [0]), found_only], 1.0, np.nan),
        ([checked([box], [0.5], [0], [box], [0], [True])], np.nan, np.nan),
    ):
        overall, each = summary(match(images, 2))
        found = [each[0]["map"][0], each[1]["map"][0], overall["map"][0]]
        np.testing.assert_allclose(found, [map0, map1, map0], rtol=0, atol=1e-12)
        library, library_each = library_scores(images, 2)
        same(overall, library)
        same(each[0], library_each[0])
        assert np.isnan(library["map_small"])
    assert capfd.readouterr() == ("", "")


def test_weights_that_leave_no_object_are_undefined() -> None:
    box = [0, 0, 40, 40]
    images = [checked([box], [0.5], [0], [box], [0]), checked([box], [0.6], [0], [], [])]
    found = summary(match(images, 1), [[1, 1], [0, 1], [0, 0], [1, 0]])[0]["map"]
    np.testing.assert_allclose(found, [0.5, np.nan, np.nan, 1.0])


def test_intervals_over_scenes() -> None:
    """The bootstrap calls with its own weights; two detectors are compared on the same scenes."""
    better, worse = random_images(1, 30, crowds=False), random_images(1, 30, crowds=False)
    rng = np.random.default_rng(0)
    worse = [image._replace(scores=rng.random(len(image.scores))) for image in worse]
    first, second = (match(images, 3, areas={"all": AREAS["all"]}) for images in (better, worse))
    scenes = [f"scene{number // 3}" for number in range(30)]
    found = cluster_intervals(lambda w: summary(first, w)[0], scenes, repeats=200)
    assert set(found) == {"map", "map50", "map75", "ar1", "ar10", "ar100"}
    assert found["map"].low < found["map"].value < found["map"].high
    difference = cluster_differences(
        lambda w: summary(first, w)[0], lambda w: summary(second, w)[0], scenes, repeats=200
    )["map50"]
    assert difference.low > 0 and difference.p_value < 0.05


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([[0, 0, 1, 1]], [], [0], [], []), "1 boxes, 0 scores"),
        (([], [], [], [[0, 0, 1, 1]], [0, 1]), "1 true boxes, 2 classes"),
        (([[0, 0, np.nan, 1]], [0.5], [0], [], []), "boxes hold a box that is not finite"),
        (([], [], [], [[5, 0, 1, 1]], [0]), "true_boxes hold"),
        (([[0, 0, 1, 1]], [np.inf], [0], [], []), "a score is not finite"),
        (([[0, 0, 1, 1]], [0.5], [-1], [], []), "class is negative"),
    ],
)
def test_boxes_that_make_no_sense_are_refused(arrays: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked(*arrays)


def test_a_class_beyond_the_last_is_refused() -> None:
    images = [checked([], [], [], [[0, 0, 1, 1]], [3])]
    for function in (match, library_scores):
        with pytest.raises(ValueError, match="class 3 occurs, but there are 3 classes"):
            function(images, 3)
