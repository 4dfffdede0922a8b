"""Boxes as text: there and back, flags, names of several words, and texts that are no boxes."""

import numpy as np
import pytest

from scanfuse.data.box_text import NOTHING, boxes_of, class_names, text_of
from scanfuse.data.boxes import Boxes
from scanfuse.data.labels import plain_target
from scanfuse.errors import UserError

CLASSES = ("person", "traffic light", "car 2")


def boxes() -> Boxes:
    places = [[12, 30.5, 40, 96], [0, 44, 80.25, 90], [1.005, 2, 1279.99, 1023.01]]
    return Boxes.of(places, [0, 1, 2], CLASSES, ignore=[0, 1, 0], crowd=[0, 1, 0], difficult=[0, 0, 1])


def test_the_text_by_hand() -> None:
    assert text_of(boxes()) == (
        "person 12 30.5 40 96; traffic light 0 44 80.25 90 ignore crowd; car 2 1 2 1279.99 1023.01 difficult"
    )
    assert text_of(Boxes.none(CLASSES)) == NOTHING == "none"


def test_there_and_back() -> None:
    found, expected = boxes_of(text_of(boxes()), CLASSES), boxes()
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=0.0051)
    assert found.names == expected.names and found.classes == CLASSES
    for flag in ("ignore", "crowd", "difficult"):
        np.testing.assert_array_equal(getattr(found, flag), getattr(expected, flag))
    # Written again it is the same text: a manifest that is read and saved keeps its digest.
    assert text_of(found) == text_of(expected)
    assert class_names(text_of(boxes())) == list(CLASSES)


def test_random_boxes_survive() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        corners = random.uniform(0, 4000, (9, 2))
        places = np.concatenate([corners, corners + random.uniform(0.02, 500, (9, 2))], axis=1)
        given = Boxes.of(places, random.integers(0, 3, 9), CLASSES, crowd=random.random(9) < 0.5)
        text = text_of(given)
        found = boxes_of(text, CLASSES)
        np.testing.assert_allclose(found.xyxy, places, atol=0.0051)
        assert found.names == given.names and (found.crowd == given.crowd).all()
        assert plain_target(text) == text  # a manifest leaves it as it is


def test_not_annotated_and_nothing_there_have_no_boxes() -> None:
    for text in ("", NOTHING):
        assert len(boxes_of(text, CLASSES)) == 0 and class_names(text) == []


def test_a_box_of_less_than_a_hundredth_keeps_an_area() -> None:
    """A rounded box must still be one: its sides are not rounded to nothing."""
    tiny = Boxes.of([[10.001, 20.001, 10.003, 20.004]], [0], CLASSES)
    found = boxes_of(text_of(tiny), CLASSES)
    assert (found.areas > 0).all() and np.abs(found.xyxy - tiny.xyxy).max() < 0.02


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dog 1 2 3 4", "of the class 'dog'; the classes are person, traffic light, car 2"),
        ("person 1 2 3", "'person 1 2 3' are not of the form 'class left top right bottom'"),
        ("1 2 3 4", "are not of the form"),
        ("person 1 2 3 x", "are not of the form"),
        ("person 1 2 3 4;", "are not of the form"),
        ("person 3 2 1 4", "cannot be used"),
        ("person 1 2 nan 4", "cannot be used"),
        ("person 1 2 1 4", "cannot be used"),
        ("abnormal", "are not of the form"),
    ],
)
def test_other_texts_are_one_line(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        boxes_of(text, CLASSES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a;b", "two  blanks", " edge", "very crowd", ""])
def test_names_that_a_text_cannot_hold_are_refused(name: str) -> None:
    given = Boxes.of([[0, 0, 1, 1]], [0], (name,))
    if name == "very crowd":  # the flag follows the places, so the name is safe
        assert boxes_of(text_of(given), (name,)).names == (name,)
        return
    with pytest.raises(UserError, match="rename the class"):
        text_of(given)
