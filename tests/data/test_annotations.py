"""Annotation files as they are published, what is done to their boxes, and every way they can be wrong."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from scanfuse.data.annotations import Tally, coco, read_boxes, voc, yolo
from scanfuse.data.boxes import Boxes, ClassMap
from scanfuse.errors import UserError

CLASSES = ClassMap(("person", "bicycle", "car"), {"people": "person"}, ("dog",))
SIZE = (48, 64)

# As labelImg writes it: tabs, a path, depth, order of the fields.
LABELIMG = """<annotation>
\t<folder>visible</folder>
\t<filename>010001.jpg</filename>
\t<path>C:\\data\\010001.jpg</path>
\t<source><database>Unknown</database></source>
\t<size><width>64</width><height>48</height><depth>3</depth></size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>person</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
\t\t<bndbox><xmin>1</xmin><ymin>10</ymin><xmax>9</xmax><ymax>30</ymax></bndbox>
\t</object>
\t<object>
\t\t<name> People </name><difficult>1</difficult>
\t\t<bndbox><xmax>64.4</xmax><ymax>40</ymax><xmin>50.5</xmin><ymin>20</ymin></bndbox>
\t</object>
\t<object>
\t\t<name>dog</name>
\t\t<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>
\t</object>
</annotation>
"""


def message(call: object, *arguments: object, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def voc_file(path: Path, box: str = "", *, name: str = "<name>car</name>", size: str = "") -> Path:
    size = size or "<size><width>64</width><height>48</height></size>"
    path.write_text(f"<annotation>{size}<object>{name}<bndbox>{box}</bndbox></object></annotation>")
    return path


def edges(left: object, top: object, right: object, bottom: object) -> str:
    return f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"


# --- Pascal VOC ---------------------------------------------------------------------------------------------------


def test_voc_as_published(tmp_path: Path) -> None:
    path = tmp_path / "010001.xml"
    path.write_text(LABELIMG)
    found = read_boxes(path, size=SIZE, classes=CLASSES)
    assert found.boxes.names == ("person", "person")
    assert found.boxes.xyxy.tolist() == [[1, 10, 9, 30], [50.5, 20, 64, 40]]
    assert found.boxes.difficult.tolist() == [False, True] and found.boxes.counted.tolist() == [True, False]
    assert (found.rounded, found.clipped, found.dropped, found.faults) == (1, 0, {"dog": 1}, ())
    assert voc.read(path, size=None, classes=CLASSES).size == SIZE
    with pytest.raises(UserError, match=r"object 3 \(dog\): is of the class 'dog', which is neither used"):
        voc.read(path, size=SIZE, classes=ClassMap(("person",), {"people": "person"}))


def test_voc_without_objects_and_without_a_size(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<annotation><size><width>0</width><height>0</height></size></annotation>")
    assert len(voc.read(path, size=SIZE, classes=CLASSES).boxes) == 0
    assert "does not say the size" in message(voc.read, path, size=None, classes=CLASSES)


def test_voc_round_trip(tmp_path: Path) -> None:
    boxes = Boxes.of([[0, 1, 10, 20], [3.25, 4, 60, 47.5]], [2, 0], CLASSES.classes, ignore=[False, True])
    path = tmp_path / "a.xml"
    path.write_text(voc.encode(boxes, size=SIZE, file_name="a & <b>.jpg"))
    back = voc.read(path, size=SIZE, classes=CLASSES).boxes
    assert back.xyxy.tolist() == boxes.xyxy.tolist() and back.names == boxes.names
    assert back.difficult.tolist() == [False, True]


@pytest.mark.parametrize(
    ("box", "says"),
    [
        (edges("nan", 1, 5, 5), "xmin is 'nan', not a finite number"),
        (edges("1_0", 1, 50, 5), "xmin is '1_0', not a finite number"),
        (edges(1, 1, "inf", 5), "xmax is 'inf', not a finite number"),
        (edges(1, 1, "1e999", 5), "xmax is '1e999', not a finite number"),
        (edges(1, "five", 5, 5), "ymin is 'five', not a finite number"),
        (edges(1, 1, "", 5), "has no xmax"),
        ("<xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>", "has no ymax"),
        (edges(5, 1, 5, 5), "the box (5, 1, 5, 5) is 0 wide and 4 high"),
        (edges(1, 5, 5, 1), "the box (1, 5, 5, 1) is 4 wide and -4 high"),
        (edges(70, 1, 80, 5), "the box (70, 1, 80, 5) lies outside the picture of 64 x 48 pixels"),
        (edges(64, 1, 80, 5), "the box (64, 1, 80, 5) lies outside the picture of 64 x 48 pixels"),
        (edges(1, -9, 5, 0), "the box (1, -9, 5, 0) lies outside the picture of 64 x 48 pixels"),
    ],
)
def test_voc_boxes_that_are_none(tmp_path: Path, box: str, says: str) -> None:
    path = voc_file(tmp_path / "a.xml", box)
    assert (
        message(voc.read, path, size=SIZE, classes=CLASSES) == f"{path}, object 1 (car): {says}; mend or remove it."
    )
    dropped = voc.read(path, size=SIZE, classes=CLASSES, faulty="drop")
    assert len(dropped.boxes) == 0 and dropped.faults == (f"{path}, object 1 (car): {says}",)


def test_voc_objects_without_name_or_box(tmp_path: Path) -> None:
    path = voc_file(tmp_path / "a.xml", edges(1, 1, 5, 5), name="")
    assert "object 1: has no class name" in message(voc.read, path, size=SIZE, classes=CLASSES)
    path.write_text("<annotation><object><name>car</name></object></annotation>")
    assert "object 1 (car): has no <bndbox>" in message(voc.read, path, size=SIZE, classes=CLASSES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is an empty file"),
        ("<annotation>", "is not well-formed XML"),
        ("<annotation>&undefined;</annotation>", "is not well-formed XML"),
        ("not xml", "is not well-formed XML"),
        ("<html></html>", "holds <html>, not the <annotation>"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "is not well-formed XML"),
        ("<annotation><size><width>wide</width><height>9</height></size></annotation>", "the width is 'wide'"),
        ("<annotation><size><width>32</width><height>48</height></size></annotation>", "for a picture of 32 x 48"),
    ],
)
def test_voc_files_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    assert says in message(voc.read, path, size=SIZE, classes=CLASSES)


def test_xml_entities_are_refused_before_they_unfold(tmp_path: Path) -> None:
    laughs = "".join(f'<!ENTITY x{i} "{f"&x{i - 1};" * 10}">' for i in range(1, 10))
    quadratic = f'<!DOCTYPE a [<!ENTITY x "{"y" * 50_000}">]><annotation>{"&x;" * 1000}</annotation>'
    bombs = [
        f'<!DOCTYPE a [<!ENTITY x0 "ha">{laughs}]><annotation>&x9;</annotation>'.encode(),
        quadratic.encode(),
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        b'<!DOCTYPE a SYSTEM "http://localhost/a.dtd"><annotation/>',
    ]
    path = tmp_path / "a.xml"
    for bomb in bombs:
        path.write_bytes(bomb)
        assert "has a DOCTYPE" in message(voc.read, path, size=SIZE, classes=CLASSES)
    # The same in an encoding where the letters of DOCTYPE are two bytes each.
    path.write_bytes(bombs[0].decode().encode("utf-16"))
    assert "is not text in UTF-8" in message(voc.read, path, size=SIZE, classes=CLASSES)


def test_deep_nesting_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<annotation>" + "<a>" * 200_000 + "</a>" * 200_000 + "</annotation>")
    assert len(voc.read(path, size=SIZE, classes=CLASSES).boxes) == 0
    (tmp_path / "a.json").write_text("[" * 200_000)
    assert "is not JSON" in message(coco.read, tmp_path / "a.json", classes=CLASSES)


# --- YOLO ---------------------------------------------------------------------------------------------------------


def test_yolo_as_in_msrs(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    # Doubled blanks, blanks at the end, no end of the last line; shares that round over the border.
    path.write_text("0  0.5  0.5  0.25  0.5  \n2\t0.75 0.25 0.5000004 0.50\n\n1 0.25 0.5 0.125 0.25")
    found = read_boxes(path, size=SIZE, classes=CLASSES)
    assert found.boxes.names == ("person", "car", "bicycle")
    np.testing.assert_allclose(found.boxes.xyxy, [[24, 12, 40, 36], [32, 0, 64, 24], [12, 18, 20, 30]], atol=1e-4)
    assert (found.rounded, found.clipped) == (1, 0)
    path.write_text("")
    assert len(read_boxes(path, size=SIZE, classes=CLASSES).boxes) == 0


def test_yolo_numbers_are_names(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0 0.5 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.5\n2 0.5 0.5 0.25 0.5\n")
    found = read_boxes(path, size=SIZE, classes=CLASSES, names=("dog", "car", "People"))
    assert found.boxes.names == ("car", "person") and found.dropped == {"dog": 1}
    (tmp_path / "classes.txt").write_text("dog\ncar\n People\n\n")
    assert yolo.read_names(tmp_path / "classes.txt") == ("dog", "car", "People")
    for bad in ("", "dog\n\ncar\n", "dog\ndog\n"):
        (tmp_path / "classes.txt").write_text(bad)
        assert "must name each class once" in message(yolo.read_names, tmp_path / "classes.txt")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0.5 0.5 0.5", "has 4 values instead of a class number and four shares"),
        ("0 0.5 0.5 0.5 0.5 0.9", "has 6 values instead of a class number and four shares"),
        ("3 0.5 0.5 0.5 0.5", "the class number is 3, not 0 to 2 (person, bicycle, car)"),
        ("-1 0.5 0.5 0.5 0.5", "the class number is -1, not 0 to 2 (person, bicycle, car)"),
        ("0.5 0.5 0.5 0.5 0.5", "the class number is 0.5, not 0 to 2 (person, bicycle, car)"),
        ("car 0.5 0.5 0.5 0.5", "the class number is 'car', not a finite number"),
        ("0 nan 0.5 0.5 0.5", "the centre x is 'nan', not a finite number"),
        ("0 0.5 0.5 0 0.5", "the box (32, 12, 32, 36) is 0 wide and 24 high"),
        ("0 0.5 0.5 0.5 -0.005", "the box (16, 24.12, 48, 23.88) is 32 wide and -0.24 high"),
        ("0 320 240 30 60", "the centre x is 320, but YOLO files hold shares of the picture from 0 to 1"),
        ("0 0.5 0.5 0.5 1.02", "the height is 1.02, but YOLO files hold shares of the picture from 0 to 1"),
        ("0 1.009 0.5 0.01 0.5", "the box (64.256, 12, 64.896, 36) lies outside the picture of 64 x 48 pixels"),
    ],
)
def test_yolo_lines_that_are_none(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"2 0.5 0.5 0.25 0.5\n{line}\n")
    assert message(read_boxes, path, size=SIZE, classes=CLASSES) == f"{path}, line 2: {says}; mend or remove it."
    dropped = read_boxes(path, size=SIZE, classes=CLASSES, faulty="drop")
    assert dropped.boxes.names == ("car",) and dropped.faults == (f"{path}, line 2: {says}",)


def test_yolo_round_trip(tmp_path: Path) -> None:
    boxes = Boxes.of([[0, 1, 10, 20], [3.25, 4, 60, 47.5]], [2, 0], CLASSES.classes)
    path = tmp_path / "a.txt"
    path.write_text(yolo.encode(boxes, size=SIZE))
    back = read_boxes(path, size=SIZE, classes=CLASSES).boxes
    np.testing.assert_allclose(back.xyxy, boxes.xyxy, atol=64e-6)
    assert back.names == boxes.names
    with pytest.raises(ValueError, match="cannot mark"):
        yolo.encode(Boxes.of([[0, 1, 10, 20]], [0], CLASSES.classes, crowd=[True]), size=SIZE)


# --- COCO ---------------------------------------------------------------------------------------------------------


def content() -> dict:
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": 48, "width": 64},
                   {"id": 0, "file_name": "b.png", "height": 48, "width": 64}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 0, "bbox": [1, 2, 10, 20], "iscrowd": 0, "area": 200},
            {"id": 2, "image_id": 7, "category_id": 9, "bbox": [60, 2, 10, 4.5], "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20], "ignore": 1},
        ],
        "categories": [{"id": 0, "name": "People"}, {"id": 3, "name": "Car", "supercategory": "x"},
                       {"id": 9, "name": "bicycle"}],
    }  # fmt: skip


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_coco_with_ids_from_zero_and_gaps(tmp_path: Path) -> None:
    found = coco.read(written(tmp_path / "a.json", content()), classes=CLASSES)
    assert list(found) == ["a.png", "b.png"] and len(found["b.png"].boxes) == 0
    boxes = found["a.png"].boxes
    assert boxes.names == ("person", "bicycle", "car")
    assert boxes.xyxy.tolist() == [[1, 2, 11, 22], [60, 2, 64, 6.5], [1, 2, 11, 22]]
    assert boxes.crowd.tolist() == [False, True, False] and boxes.ignore.tolist() == [False, False, True]
    assert boxes.counted.tolist() == [True, False, False] and found["a.png"].clipped == 1
    assert coco.read_names(tmp_path / "a.json") == ("People", "Car", "bicycle")


@pytest.mark.parametrize(
    ("place", "change", "says"),
    [
        (("annotations", 0), {"bbox": [1, 2, float("nan"), 4]}, "annotation 0 (id 1): the box (1, 2, nan, 6) is not"),
        (
            ("annotations", 0),
            {"bbox": [1, 2, 10**400, 4]},
            "annotation 0 (id 1): bbox holds a number that is far too",
        ),
        (("annotations", 1), {"bbox": [1, 2, 0, 4]}, "annotation 1 (id 2): the box (1, 2, 1, 6) is 0 wide"),
        (("annotations", 1), {"bbox": [1, 2, 4, -4]}, "annotation 1 (id 2): the box (1, 2, 5, -2) is 4 wide and -4"),
        (("annotations", 1), {"bbox": [64, 2, 4, 4]}, "annotation 1 (id 2): the box (64, 2, 68, 6) lies outside"),
        (("annotations", 1), {"bbox": None}, "annotation 1 (id 2): bbox is None, not [left, top, width, height]"),
        (("annotations", 1), {"bbox": [1, 2, 3]}, "annotation 1 (id 2): bbox is [1, 2, 3], not [left"),
        (("annotations", 1), {"bbox": [1, 2, True, 4]}, "annotation 1 (id 2): bbox is [1, 2, True, 4], not four"),
        (("annotations", 1), {"bbox": [1, "2", 3, 4]}, "annotation 1 (id 2): bbox is [1, '2', 3, 4], not four"),
    ],
)
def test_coco_boxes_that_are_none(tmp_path: Path, place: tuple[str, int], change: dict, says: str) -> None:
    bad = content()
    bad[place[0]][place[1]] |= change
    path = written(tmp_path / "a.json", bad)
    assert message(coco.read, path, classes=CLASSES).startswith(f"{path}, {says}")
    dropped = coco.read(path, classes=CLASSES, faulty="drop")["a.png"]
    assert len(dropped.boxes) == 2 and dropped.faults[0].startswith(f"{path}, {says}")


@pytest.mark.parametrize(
    ("place", "change", "says"),
    [
        (("annotations", 0), {"image_id": 8}, "annotation 0 (id 1): image_id 8 is not among the images"),
        (("annotations", 0), {"image_id": [8]}, "annotation 0 (id 1): image_id [8] is not among the images"),
        (("annotations", 0), {"category_id": 1}, "annotation 0 (id 1): category_id 1 is not a category"),
        (("annotations", 0), {"category_id": None}, "annotation 0 (id 1): category_id None is not a category"),
        (("images", 1), {"id": 7}, "lists the image 'b.png' (id 7) twice"),
        (("images", 1), {"file_name": "a.png"}, "lists the image 'a.png' (id 0) twice"),
        (("images", 1), {"file_name": None}, "needs an id and a file_name"),
        (("images", 1), {"height": 0}, "the image 'b.png' has the height 0 and the width 64"),
        (("images", 1), {"width": "64"}, "the image 'b.png' has the height 48 and the width 64"),
        (("categories", 0), {"id": 3}, "lists the category 'Car' (id 3) twice"),
        (("categories", 0), {"name": "Car"}, "lists the category 'Car' (id 3) twice"),
        (("categories", 0), {"name": ""}, "needs an id and a name"),
        (("categories", 0), {"name": "cat"}, "has the category 'cat', which is neither used"),
    ],
)
def test_coco_lists_that_are_none(tmp_path: Path, place: tuple[str, int], change: dict, says: str) -> None:
    bad = content()
    bad[place[0]][place[1]] |= change
    assert says in message(coco.read, written(tmp_path / "a.json", bad), classes=CLASSES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ('{"images": [' + "9" * 5000 + "]}", "is not JSON"),
        ("[]", "holds a list, not an object"),
        ('{"images": [], "annotations": []}', "has no list 'categories'"),
        ('{"images": [], "annotations": {}, "categories": []}', "has no list 'annotations'"),
        ('{"images": [1], "annotations": [], "categories": []}', "needs an id and a file_name"),
        ('{"images": [], "annotations": [1], "categories": []}', "annotation 0 is not an object"),
    ],
)
def test_coco_files_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert says in message(coco.read, path, classes=CLASSES)
    path.write_bytes(b"\xff\xfe\x00")
    assert "is not JSON" in message(coco.read, path, classes=CLASSES)


def test_coco_round_trip(tmp_path: Path) -> None:
    boxes = Boxes.of([[0, 1, 10, 20], [3.25, 4, 60, 47.5]], [2, 0], CLASSES.classes, crowd=[1, 0], difficult=[0, 1])
    pictures = {"x.png": (boxes, SIZE), "y.png": (Boxes.none(CLASSES.classes), SIZE)}
    for first in (0, 1):
        path = tmp_path / "a.json"
        path.write_text(coco.encode(pictures, first_category=first))
        assert [c["id"] for c in json.loads(path.read_text())["categories"]] == [first, first + 1, first + 2]
        back = coco.read(path, classes=CLASSES)
        assert back["x.png"].boxes.xyxy.tolist() == boxes.xyxy.tolist()
        assert back["x.png"].boxes.names == boxes.names and len(back["y.png"].boxes) == 0
        assert back["x.png"].boxes.crowd.tolist() == [True, False]
        assert back["x.png"].boxes.ignore.tolist() == [False, True]


@pytest.mark.data
def test_the_real_m3fd_sample(real_data: Path) -> None:
    classes = ClassMap(("people", "car", "bus", "motorcycle", "lamp", "truck"))
    found = coco.read(real_data / "m3fd/train2_coco.json", classes=classes)
    tally = Tally.of(found.values())
    assert list(found) == ["00000.png", "00001.png"] and found["00000.png"].size == (768, 1024)
    assert tally.boxes == {"car": 17, "people": 5} and not tally.clipped


@pytest.mark.data
def test_the_real_msrs_sample(real_data: Path) -> None:
    for name, count in (("visible", 37), ("infrared", 70)):
        found = [
            yolo.read(path, size=(480, 640), classes=CLASSES, names=("person", "bicycle", "car"))
            for path in sorted((real_data / "msrs/labels" / name).glob("*.txt"))
        ]
        tally = Tally.of(found)
        assert tally.pictures == 12 and sum(tally.boxes.values()) == count
        assert not tally.faults and not tally.clipped


# --- all ----------------------------------------------------------------------------------------------------------


def test_files_of_a_hundred_megabytes_are_refused_at_once(tmp_path: Path) -> None:
    for name in ("a.xml", "a.txt"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(100 * 2**20)
        start = time.perf_counter()
        said = message(read_boxes, tmp_path / name, size=SIZE, classes=CLASSES)
        assert "has 100 MB, more than the" in said and time.perf_counter() - start < 0.2
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(coco.MAX_BYTES + 1)
    assert "more than the 1024 MB allowed" in message(coco.read, tmp_path / "a.json", classes=CLASSES)


@pytest.mark.parametrize("name", ["a.xml", "a.txt", "a.json", "a.csv"])
def test_missing_files_and_other_suffixes(tmp_path: Path, name: str) -> None:
    if name.endswith("json"):
        assert "does not exist" in message(coco.read, tmp_path / name, classes=CLASSES)
    else:
        said = message(read_boxes, tmp_path / name, size=SIZE, classes=CLASSES)
        assert ("is no annotation of one picture" if name.endswith("csv") else "does not exist") in said


def test_the_tally_says_what_happened(tmp_path: Path) -> None:
    path = tmp_path / "010001.xml"
    path.write_text(LABELIMG)
    (tmp_path / "a.txt").write_text("2 0.9 0.5 0.4 0.5\n0 0.5 0.5 0.5\n")
    (tmp_path / "b.txt").write_text("")
    found = [read_boxes(tmp_path / name, size=SIZE, classes=CLASSES, faulty="drop")
             for name in ("010001.xml", "a.txt", "b.txt")]  # fmt: skip
    tally = Tally.of(found)
    assert tally.boxes == {"car": 1, "person": 2}
    assert tally.notes() == (
        "boxes: 1 car, 2 person; pictures: 3",
        "pictures without a box: 1",
        "boxes marked ignore, crowd or difficult, which do not count: 1",
        "boxes that reached out of their picture and were clipped: 1",
        "left out by name: 1 dog",
        f"boxes left out as unusable: 1, the first: {tmp_path / 'a.txt'}, line 2: has 4 values instead of "
        "a class number and four shares",
    )
