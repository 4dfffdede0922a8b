"""Boxes, their overlap, the union of two annotations, and classes by name."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from scanfuse.data.annotations import yolo
from scanfuse.data.boxes import Boxes, ClassMap, iou, joined, union
from scanfuse.errors import UserError

CLASSES = ("person", "bicycle", "car")


def test_overlap_is_that_of_counted_pixels() -> None:
    random = np.random.default_rng(0)
    corners = random.integers(0, 12, (40, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1).astype(float)
    a, b = boxes[:20], boxes[20:]
    masks = [np.zeros((13, 13), bool) for _ in boxes]
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    counted = [[(m & n).sum() / (m | n).sum() for n in masks[20:]] for m in masks[:20]]
    np.testing.assert_allclose(iou(a, b), counted, atol=1e-12)
    assert Boxes.of(boxes, np.zeros(40), CLASSES).areas.tolist() == [mask.sum() for mask in masks]


def test_what_is_no_box_is_refused() -> None:
    for xyxy, labels in (
        ([[0, 0, 0, 1]], [0]),
        ([[0, 2, 1, 1]], [0]),
        ([[0, 0, np.nan, 1]], [0]),
        ([[0, 0, 1, 1]], [3]),
        ([[0, 0, 1, 1]], [-1]),
        ([[0, 0, 1, 1]], [0, 1]),
    ):
        with pytest.raises(ValueError, match=r"box|label"):
            Boxes.of(xyxy, labels, CLASSES)


def test_choosing_and_joining_keep_every_field() -> None:
    boxes = Boxes.of(
        [[0, 0, 1, 1], [1, 1, 3, 3], [2, 2, 5, 5]], [0, 2, 1], CLASSES, ignore=[0, 1, 0], difficult=[0, 0, 1]
    )
    assert boxes.counted.tolist() == [True, False, False]
    back = joined([boxes.at([2]), boxes.at(np.array([True, True, False]))])
    assert back.names == ("bicycle", "person", "car")
    assert back.xyxy[:, 0].tolist() == [2, 0, 1]
    assert (back.ignore.tolist(), back.difficult.tolist()) == ([False, False, True], [True, False, False])
    assert len(boxes.at([])) == 0 == len(Boxes.none(CLASSES))
    with pytest.raises(ValueError, match="same classes"):
        joined([boxes, Boxes.none(("person",))])


# --- union --------------------------------------------------------------------------------------------------------


def test_union_by_hand() -> None:
    first = Boxes.of([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], [0, 0, 2], CLASSES, ignore=[1, 1, 0])
    second = Boxes.of([[0, 0, 10, 8], [20, 0, 30, 10], [45, 0, 55, 10], [60, 0, 70, 9]], [0, 2, 2, 1], CLASSES,
                      ignore=[0, 1, 0, 1])  # fmt: skip
    merged = union(first, second)
    # IoU 0.8 and one class: the mean. IoU 1 of another class, and IoU 1/3: kept apart.
    assert merged.xyxy.tolist() == [
        [0, 0, 10, 9], [20, 0, 30, 10], [40, 0, 50, 10], [20, 0, 30, 10], [45, 0, 55, 10], [60, 0, 70, 9],
    ]  # fmt: skip
    assert merged.names == ("person", "person", "car", "car", "car", "bicycle")
    assert merged.ignore.tolist() == [False, True, False, True, False, True]


def test_a_box_merges_once_and_with_its_best() -> None:
    first = Boxes.of([[0, 0, 10, 10]], [0], CLASSES)
    second = Boxes.of([[0, 0, 10, 8], [0, 0, 10, 9], [0, 0, 10, 7]], [0, 0, 0], CLASSES)
    assert union(first, second).xyxy.tolist() == [[0, 0, 10, 9.5], [0, 0, 10, 8], [0, 0, 10, 7]]
    assert union(first, Boxes.none(CLASSES)).xyxy.tolist() == first.xyxy.tolist()
    assert union(Boxes.none(CLASSES), second).xyxy.tolist() == second.xyxy.tolist()
    # Exactly at the threshold is not above it.
    half = Boxes.of([[0, 0, 10, 5]], [0], CLASSES)
    assert len(union(first, half)) == 2 and len(union(first, half, threshold=0.49)) == 1


def test_union_does_not_depend_on_the_order() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        corners = np.sort(random.uniform(0, 6, (2, 12, 2, 2)), axis=2).reshape(2, 12, 4)
        a, b = (Boxes.of(part, random.integers(0, 2, 12), CLASSES) for part in corners)
        forth, back = union(a, b, threshold=0.2), union(b, a, threshold=0.2)
        assert len(forth) == len(back) < 24
        assert sorted(zip(forth.names, forth.xyxy.tolist(), strict=True)) == sorted(
            zip(back.names, back.xyxy.tolist(), strict=True)
        )


@pytest.mark.data
def test_union_of_the_real_label_sets(real_data: Path) -> None:
    """37 visible and 70 infrared boxes; nothing of either set is lost, and most of the visible ones are in both."""
    counts = {"visible": 0, "infrared": 0, "union": 0}
    for path in sorted((real_data / "msrs/labels/visible").glob("*.txt")):
        sets = [
            yolo.read(
                real_data / "msrs/labels" / name / path.name,
                size=(480, 640),
                classes=ClassMap(CLASSES),
                names=CLASSES,
            ).boxes
            for name in ("visible", "infrared")
        ]
        merged = union(*sets)
        counts["visible"] += len(sets[0])
        counts["infrared"] += len(sets[1])
        counts["union"] += len(merged)
        for boxes in sets:
            # A box and the mean of it and another with IoU above 0.5 overlap by more than 0.5 (checked here).
            best = iou(boxes.xyxy, merged.xyxy) * (boxes.labels[:, None] == merged.labels[None, :])
            assert not len(boxes) or best.max(axis=1).min() > 0.5
    assert (counts["visible"], counts["infrared"]) == (37, 70)
    assert 70 < counts["union"] < 107


# --- classes ------------------------------------------------------------------------------------------------------


def test_classes_are_found_by_name_in_any_case() -> None:
    classes = ClassMap(("person", "car"), {"People": "Person", "automobile": "car"}, ("dog",))
    assert [classes.find(name) for name in ("PERSON", " people ", "Car", "automobile", "Dog")] == [0, 0, 1, 1, None]
    with pytest.raises(LookupError):
        classes.find("cat")


def test_some_of_the_classes_drop_the_others_with_their_spellings() -> None:
    classes = ClassMap(("person", "car", "bus"), {"people": "person"}, ("dog",))
    some = classes.only(["Bus", "car"])
    assert some.classes == ("bus", "car")
    assert [some.find(name) for name in ("car", "bus", "person", "people", "dog")] == [1, 0, None, None, None]
    for chosen in itertools.permutations(("people", "car")):
        assert set(classes.only(chosen).classes) == {"person", "car"}
        assert classes.only(chosen).find("PEOPLE") == chosen.index("people")
    for missing in ("cat", "dog"):
        with pytest.raises(UserError, match=f"There is no class '{missing}'; choose from person, car, bus."):
            classes.only([missing])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (((),), "Name each class once"),
        ((("car", "Car"),), "Name each class once"),
        ((("car",), {"lorry": "truck"}), "'lorry' stands for 'truck'"),
        ((("car",), {}, ("CAR",)), "both kept and dropped"),
        ((("car",), {"auto": "car"}, ("auto",)), "both kept and dropped"),
    ],
)
def test_impossible_class_maps_are_refused(arguments: tuple, says: str) -> None:
    with pytest.raises(UserError, match=says):
        ClassMap(*arguments)
