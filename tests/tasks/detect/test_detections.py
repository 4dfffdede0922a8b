"""The result type and its forms: COCO there and back, rows of the table, and refusals in one line."""

import json
from typing import Any

import numpy as np
import pytest

from scanfuse.errors import UserError
from scanfuse.metrics.detection.average_precision import summary
from scanfuse.metrics.detection.coco import library_scores
from scanfuse.metrics.detection.matching import match
from scanfuse.tasks.detect.detections import (
    COLUMNS,
    Detections,
    coco_dataset,
    coco_rows,
    detections_of,
    from_coco,
    image_boxes,
    table_rows,
    truth_of,
)

NAMES = ("person", "car")


def samples() -> list[Detections]:
    """Two images with boxes of full precision, one with nothing found, one without objects."""
    third = 1 / 3
    truth = truth_of([[10.0, 20, 50.5, 80], [0, 0, third, 7]], [0, 1], [False, True])
    common: dict[str, Any] = {"class_names": NAMES, "size": (48, 64)}
    return [
        detections_of(
            [[10, 20 + third, 50, 79], [1, 2, 3, 4]], [0.9, third], [0, 1], id="a", group="s1", truth=truth, **common
        ),
        detections_of([], [], [], id="b", group="s1", truth=truth_of([[5, 5, 9, 9]], [1]), **common),
        detections_of([[0, 0, 64, 48]], [0.5], [1], id="c", truth=truth_of([], []), **common),
    ]


def assert_same(first: Detections, second: Detections) -> None:
    for name in ("class_names", "size", "id", "group"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("boxes", "scores", "classes"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=0, atol=1e-12)
    assert (first.truth is None) == (second.truth is None)
    if first.truth is not None and second.truth is not None:
        np.testing.assert_allclose(first.truth.boxes, second.truth.boxes, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(first.truth.classes, second.truth.classes)
        np.testing.assert_array_equal(first.truth.ignored, second.truth.ignored)


def test_through_coco_and_back() -> None:
    data, rows = coco_dataset(samples()), coco_rows(samples())
    data, rows = json.loads(json.dumps(data)), json.loads(json.dumps(rows))
    assert [image["id"] for image in data["images"]] == [1, 2, 3]
    assert data["categories"] == [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
    assert rows[0]["bbox"][2:] == [40, pytest.approx(59 - 1 / 3)] and len(rows) == 3
    for first, second in zip(samples(), from_coco(rows, data), strict=True):
        assert_same(first, second)


def test_numbers_may_start_at_zero_and_come_in_any_order() -> None:
    data = {
        "images": [{"id": 7, "height": 4, "width": 5, "file_name": "x.png"}, {"id": 0, "height": 4, "width": 5}],
        "categories": [{"id": 3, "name": "car"}, {"id": 0, "name": "person"}],
        "annotations": [{"image_id": 0, "category_id": 3, "bbox": [0, 1, 2, 3]}],
    }
    first, second = from_coco([{"image_id": 0, "category_id": 0, "bbox": [1, 1, 2, 2], "score": 1}], data)
    assert (first.id, second.id, first.group) == ("x.png", "0", "x.png")
    assert first.class_names == ("person", "car") and len(first) == 0 and len(first.truth.boxes) == 0
    assert second.classes.tolist() == [0] and second.truth.classes.tolist() == [1]
    assert second.boxes.tolist() == [[1, 1, 3, 3]] and second.truth.boxes.tolist() == [[0, 1, 2, 4]]


def test_without_annotations_the_truth_is_unknown() -> None:
    data = coco_dataset(samples())
    del data["annotations"]
    assert all(sample.truth is None for sample in from_coco([], data))
    with pytest.raises(UserError, match="sample a has no boxes to compare with"):
        image_boxes(from_coco([], data)[0])


def test_the_metrics_read_them() -> None:
    images = [image_boxes(sample) for sample in samples()]
    assert summary(match(images, 2))[0]["map50"][0] == pytest.approx(library_scores(images, 2)[0]["map50"])
    assert images[0].ignored.tolist() == [False, True]


def test_rows_of_the_table() -> None:
    rows = [row for sample in samples() for row in table_rows(sample)]
    assert len(rows) == 3 and all(tuple(row) == COLUMNS for row in rows)
    assert rows[1] == {
        "id": "a", "group": "s1", "class": "car", "score": 1 / 3, "x1": 1, "y1": 2, "x2": 3, "y2": 4
    }  # fmt: skip
    assert rows[2]["group"] == "c"


def test_above_a_score() -> None:
    sample = samples()[0].above(0.5)
    assert sample.scores.tolist() == [0.9] and sample.classes.tolist() == [0] and sample.truth is not None
    assert len(samples()[0].above(1 / 3)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "result 0 is of image 9, which the data set does not have"),
        ({"category_id": 9}, "result 0 is of category 9"),
        ({"bbox": [0, 0, -1, 2]}, r"has the box \[0, 0, -1, 2\].*sides not negative"),
        ({"bbox": [0, 0, 1]}, "expected x, y, width"),
        ({"bbox": [0, 0, float("nan"), 2]}, "all finite"),
        ({"bbox": "0 0 1 1"}, "expected x, y, width"),
        ({"score": None}, "the score None"),
    ],
)
def test_rows_that_make_no_sense_are_one_line(change: dict[str, Any], message: str) -> None:
    row = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}
    with pytest.raises(UserError, match=message) as caught:
        from_coco([{**row, **change}], coco_dataset(samples()))
    assert "\n" not in str(caught.value)
    lacking = {name: value for name, value in row.items() if name not in change}
    with pytest.raises(UserError, match=f"result 0 has no {next(iter(change))}"):
        from_coco([lacking], coco_dataset(samples()))


def test_a_class_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="class 2 occurs, but there are 2 class names"):
        detections_of([[0, 0, 1, 1]], [0.5], [2], class_names=NAMES, size=(4, 4), id="a")
    with pytest.raises(ValueError, match="class 5 occurs"):
        truth = truth_of([[0, 0, 1, 1]], [5])
        detections_of([], [], [], class_names=NAMES, size=(4, 4), id="a", truth=truth)


def test_nothing_at_all() -> None:
    assert coco_rows([]) == [] and from_coco([], coco_dataset([])) == []
    assert table_rows(samples()[1]) == []
