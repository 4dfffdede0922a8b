"""The detection task end to end on outputs made by hand: what they decode to is known, so is every table."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from torch import Tensor

from scanfuse.data.boxes import Boxes
from scanfuse.data.manifest import Manifest
from scanfuse.data.transforms.paired_letterbox import place_in
from scanfuse.errors import UserError
from scanfuse.metrics.detection.average_precision import summary
from scanfuse.metrics.detection.inputs import ImageBoxes
from scanfuse.metrics.detection.matching import match
from scanfuse.tasks import Asked, Failure, Instrument, Method
from scanfuse.tasks.detect import Detection, DetectionSettings, figures, writing
from scanfuse.tasks.detect.explain import _place, subject_of
from scanfuse.tasks.detect.found import Found, found_in
from scanfuse.tasks.detect.loss import DetectionLoss
from scanfuse.tasks.detect.nms import Selection

CLASSES = ("car", "person")
SIZE = 64
Cells = dict[tuple[int, int, int], tuple[int, float]]


def maps(cells: Cells) -> list[Tensor]:
    """Head outputs of one 64 x 64 image: (level, row, column) -> (class, score), each a box two cells wide and high.

    All logits of a side are far below that of bin 1, so the distances are 1 cell to the precision of float32.
    """
    raw = []
    for level, side in enumerate((8, 4, 2)):
        values = torch.full((1, 64 + 2, side, side), -20.0)
        for border in range(4):
            values[:, 16 * border + 1] = 20.0
        for (at, row, column), (label, score) in cells.items():
            if at == level:
                values[0, 64 + label, row, column] = float(np.log(score / (1 - score)))
        raw.append(values)
    return raw


def box_of(level: int, row: int, column: int) -> list[float]:
    """By hand: centre (column + 1/2, row + 1/2), one cell to each side, cut to the picture."""
    stride = 8 * 2**level
    edges = [(column - 0.5), (row - 0.5), (column + 1.5), (row + 1.5)]
    return [float(np.clip(edge * stride, 0, SIZE)) for edge in edges]


# What the network finds, and what is there: image -> cells, objects (class, box).
FOUND: list[Cells] = [
    {(0, 2, 2): (1, 0.9), (0, 5, 5): (1, 0.6)},  # one right, one false
    {(1, 1, 1): (0, 0.8)},  # right
    {(0, 3, 6): (1, 0.4)},  # right, but unsure
    {},
]
TRUTH: list[list[tuple[int, list[float]]]] = [
    [(1, box_of(0, 2, 2))],
    [(0, box_of(1, 1, 1))],
    [(1, box_of(0, 3, 6))],
    [(1, [2.0, 2.0, 12.0, 22.0])],  # missed
]
OUTPUTS = [torch.cat(level) for level in zip(*map(maps, FOUND), strict=True)]


@pytest.fixture
def batch(tmp_path: Path) -> dict[str, Any]:
    samples = len(TRUTH)
    picture = tmp_path / "picture.png"
    PIL.Image.new("L", (SIZE, SIZE), 90).save(picture)
    placement = place_in((SIZE, SIZE), SIZE)
    objects = [(image, *each) for image, those in enumerate(TRUTH) for each in those]
    return {
        "rgb": torch.zeros(samples, 3, SIZE, SIZE),
        "ir": torch.zeros(samples, 1, SIZE, SIZE),
        "present": {name: torch.ones(samples, dtype=torch.bool) for name in ("rgb", "ir")},
        "objects": {
            "image": torch.tensor([image for image, _, _ in objects]),
            "classes": torch.tensor([label for _, label, _ in objects]),
            "boxes": torch.tensor([box for _, _, box in objects]),
        },
        "meta": [
            {
                "id": f"image{number}",
                "group": f"scene{number // 2}",
                "target": "",
                "size": (SIZE, SIZE),
                "placements": {"rgb": placement, "ir": placement},
                "paths": {"rgb": picture, "ir": picture},
                "truth": Boxes.of([box for _, box in those], [label for label, _ in those], CLASSES),
            }
            for number, those in enumerate(TRUTH)
        ],
    }


def task(**settings: Any) -> Detection:
    return Detection(
        DetectionSettings(classes=CLASSES, **settings), loss=DetectionLoss(), selection=Selection(confidence=0.01)
    )


def results_of(batch: dict[str, Any]) -> list[Found]:
    return task().results(lambda each: OUTPUTS, batch)


def method(batch: dict[str, Any], results: list[Found], **without: list[Found]) -> Method:
    lacking = {name: Method(task(), [(batch, found)]) for name, found in without.items()}
    return Method(task(), [(batch, results)], lacking)


def manifest() -> Manifest:
    rows = [
        {"id": f"image{n}", "group": f"scene{n // 2}", "split": "", "target": "none", "rgb": "a", "ir": "b",
         "time": ("day", "night")[n // 2]}
        for n in range(len(TRUTH))
    ]  # fmt: skip
    return Manifest(pd.DataFrame(rows), ("rgb", "ir"), (), ("time",))


def image_boxes_by_hand() -> list[ImageBoxes]:
    return [
        ImageBoxes(
            np.array([box_of(*place) for place in cells]).reshape(-1, 4),
            np.array([score for _, score in cells.values()]),
            np.array([label for label, _ in cells.values()], np.int64),
            np.array([box for _, box in those]),
            np.array([label for label, _ in those], np.int64),
            np.zeros(len(those), bool),
        )
        for cells, those in zip(FOUND, TRUTH, strict=True)
    ]


# --- from maps to boxes -------------------------------------------------------------------------------------------


def test_the_boxes_are_those_that_were_put_in(batch: dict[str, Any]) -> None:
    for result, cells in zip(results_of(batch), FOUND, strict=True):
        np.testing.assert_allclose(
            result.detections.boxes, [box_of(*p) for p in cells] or np.zeros((0, 4)), atol=1e-4
        )
        np.testing.assert_allclose(result.detections.scores, [score for _, score in cells.values()], atol=1e-6)
        places = [(0, 64, 80)[level] + row * (8, 4, 2)[level] + column for level, row, column in cells]
        assert result.cells.tolist() == places
        raw = maps(cells)
        assert [_place(cell, raw) for cell in places] == list(cells)
    with pytest.raises(ValueError, match="no such cell"):
        _place(84, maps({}))


def test_boxes_go_back_to_a_picture_of_another_shape(batch: dict[str, Any]) -> None:
    """A 128 x 96 picture fills 64 x 48 in the middle: 8 rows of padding, half a pixel for each of its own."""
    placement = place_in((96, 128), SIZE)
    batch["meta"] = [meta | {"size": (96, 128), "placements": {"ir": placement}} for meta in batch["meta"]]
    left, top, right, bottom = box_of(0, 2, 2)
    found = results_of(batch)[0].detections
    np.testing.assert_allclose(found.boxes[0], [2 * left, 2 * (top - 8), 2 * right, 2 * (bottom - 8)], atol=1e-3)
    assert found.size == (96, 128)


# --- training -----------------------------------------------------------------------------------------------------


def test_validation_is_the_metric_of_the_same_boxes(batch: dict[str, Any]) -> None:
    values = task().validation([(OUTPUTS, batch)])
    averages, _ = summary(match(image_boxes_by_hand(), 2))
    assert values["map"] == pytest.approx(float(averages["map"][0]), abs=1e-6)
    assert values["map50"] == pytest.approx(float(averages["map50"][0]), abs=1e-6)
    # By hand: car 1; person right at 0.9 and at 0.4 of 3, with a false one between: 34/101 * 1 + 33/101 * 2/3.
    assert values["map50"] == pytest.approx((1 + (34 + 33 * 2 / 3) / 101) / 2, abs=1e-6)
    halves = [task().validation([(OUTPUTS, batch)] * count)["loss"] for count in (1, 3)]
    assert halves[0] == pytest.approx(halves[1]) and halves[0] > 0


def test_the_loss_counts_samples_and_learns_from_every_part(batch: dict[str, Any]) -> None:
    outputs = [level.clone().requires_grad_() for level in OUTPUTS]
    parts = task().loss(outputs, batch)
    assert [name for name, value in parts.items() if value.requires_grad] == ["loss"]
    parts["loss"].backward()
    assert all(level.grad is not None and bool(level.grad.any()) for level in outputs)
    twice = {
        **batch,
        "objects": {
            "image": torch.cat([batch["objects"]["image"], batch["objects"]["image"] + len(TRUTH)]),
            **{name: batch["objects"][name].repeat(2, *[1] * (batch["objects"][name].dim() - 1))
               for name in ("classes", "boxes")},
        },
        "meta": batch["meta"] * 2,
    }  # fmt: skip
    again = task().loss([torch.cat([level, level]) for level in OUTPUTS], twice)
    assert float(again["loss"]) == pytest.approx(float(parts["loss"].detach()), rel=1e-5)


@pytest.mark.parametrize(
    ("select_by", "row", "by", "value"),
    [
        ("map", {"val_loss": 3.0, "val_map": 0.25, "val_map50": 0.5}, "map", -0.25 + 3e-6),
        ("map50", {"val_loss": 3.0, "val_map": 0.25, "val_map50": 0.5}, "map50", -0.5 + 3e-6),
        ("loss", {"val_loss": 3.0, "val_map": 0.25, "val_map50": 0.5}, "loss", 3.0),
        ("map", {"val_loss": 3.0, "val_map": float("nan"), "val_map50": 0.5}, "loss", 3.0),
    ],
)
def test_what_picks_the_best_epoch(select_by: str, row: dict[str, float], by: str, value: float) -> None:
    found = task(select_by=select_by).criterion(row)
    assert (found.by, found.value) == (by, pytest.approx(value))
    assert bool(found.note) == (select_by == "map" and by == "loss")


def test_batches_hold_every_sample_once_and_none_of_one() -> None:
    for count, batch in ((9, 4), (8, 4), (1, 4), (5, 1), (3, 4)):
        order = task().order(count, batch=batch, seed=1, epoch=2)
        assert sorted(index for part in order for index in part) == list(range(count))
        assert batch == 1 or len(order) == 1 or min(map(len, order)) > 1
    assert task().order(9, batch=4, seed=1, epoch=2) != task().order(9, batch=4, seed=1, epoch=3)


# --- thresholds ---------------------------------------------------------------------------------------------------


def test_thresholds_are_those_of_the_best_f1(batch: dict[str, Any]) -> None:
    """Person: at 0.9 P = 1, R = 1/3, F1 = 1/2; at 0.6 1/3; at 0.4 P = R = 2/3: the lowest is best. Car: 0.8."""
    ours = task()
    said = ours.fit(iter(results_of(batch)))
    np.testing.assert_allclose(ours.thresholds, (0.8, 0.4), atol=1e-6)
    stored = json.loads(json.dumps(ours.fitted()))
    assert stored["f1"] == pytest.approx([1, 2 / 3]) and stored["images"] == 4 and "person 0.40" in said
    other = task()
    other.restore(stored)
    assert other.thresholds == ours.thresholds and other.fitted() == stored
    shown = ours.settled(stored)
    assert shown.tables[0][1] == [["car", "0.800", "1.000"], ["person", "0.400", "0.667"]] and not shown.notes


def test_a_class_that_cannot_be_fitted_keeps_the_usual_threshold(batch: dict[str, Any]) -> None:
    """No object, or none that was found: said, and not the score of the best mistake."""
    ours = task()
    ours.fit(results_of(batch)[1:2])  # no person there
    assert ours.thresholds == (pytest.approx(0.8), 0.25)
    assert "person" in ours.fitted()["notes"][0]  # type: ignore[index]
    ours.fit([results_of(batch)[3]])  # a person, not found
    assert ours.thresholds == (0.25, 0.25)
    wrong = results_of(batch)[0]
    moved = replace(
        wrong, detections=replace(wrong.detections, boxes=wrong.detections.boxes[::-1] * 0 + [0, 0, 3, 3])
    )
    ours.fit([moved])
    assert ours.thresholds == (0.25, 0.25)


def test_damaged_thresholds_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        task().restore(None)
    assert "nothing was fitted on validation" in caplog.text
    good = {"classes": list(CLASSES), "thresholds": [0.1, 0.2]}
    for change, says in (
        ({"thresholds": ["a", 1]}, "damaged"),
        ({"thresholds": None}, "damaged"),
        ({"thresholds": [0.1]}, "of other classes"),
        ({"classes": ["car"]}, "of other classes"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            task().restore(good | change)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="damaged"):
        task().restore({"thresholds": [0.1, 0.2]})


def test_classes_come_from_the_data() -> None:
    table = manifest().table.assign(target=["person 0 0 1 1; car 0 0 1 1", "none", "", "person 0 0 2 2"])
    found = Manifest(table, ("rgb", "ir"))
    assert DetectionSettings().filled(found).classes == ("car", "person")
    assert DetectionSettings(classes=("person", "car", "bus")).filled(found).classes == ("person", "car", "bus")
    with pytest.raises(UserError, match="have boxes of car, but --classes names person"):
        DetectionSettings(classes=("person",)).filled(found)
    with pytest.raises(UserError, match="no box at all"):
        DetectionSettings().filled(manifest())


# --- tables -------------------------------------------------------------------------------------------------------


def test_the_table_and_its_parts(batch: dict[str, Any]) -> None:
    results = results_of(batch)
    nothing = [replace(each, detections=each.detections.above(2.0)) for each in results]
    run = method(batch, results, rgb=nothing, ir=results)
    found = task().evaluate({"run": run}, manifest(), Asked("test", pictures=2))
    averages, each = summary(match(image_boxes_by_hand(), 2))
    cells = found.cells["run"]
    for name in ("map", "map50", "map75"):
        assert cells[name].mean == pytest.approx(float(averages[name][0]), abs=1e-6)
        assert cells[name].low <= cells[name].mean <= cells[name].high or np.isnan(cells[name].low)
    of_class = found.parts["AP50 of each class"].cells["run"]
    assert of_class["car"].mean == pytest.approx(1) and of_class["person"].mean == pytest.approx(
        float(each[1]["map50"][0]), abs=1e-6
    )
    missing = found.parts["with a sensor missing"].cells
    assert list(missing) == ["both", "without rgb", "without ir"]
    assert missing["without rgb"]["map50"].mean == 0
    assert missing["without ir"]["map50"].mean == pytest.approx(missing["both"]["map50"].mean)
    by_time = found.parts["AP50 by time"].cells["run"]
    assert set(by_time) == {"day", "night"} and by_time["day"].mean == pytest.approx(1)
    assert by_time["night"].mean == pytest.approx(51 / 101, abs=1e-6)  # one of two people, no false one
    assert [row["detections"] for row in found.rows] == [2, 1, 1, 0] and found.samples == 4 and found.groups == 2
    assert [row["objects"] for row in found.rows] == [1, 1, 1, 1]
    assert any("only 2 scene(s)" in note for note in found.notes)
    assert found.pictures["gallery.png"].dtype == np.uint8
    # The miss rate of people: at the lowest false positives per image two of three are missed.
    assert 1 / 3 < cells["miss_rate"].mean < 1


def test_the_validation_images_and_other_classes_are_told(batch: dict[str, Any]) -> None:
    run = method(batch, results_of(batch))
    notes = task().evaluate({"run": run}, manifest(), Asked("val")).notes
    assert any("the values are too good" in note for note in notes)
    with pytest.raises(UserError, match="--ensemble is for classification"):
        task().evaluate({"run": run}, manifest(), Asked("test", ensemble=True))
    with pytest.raises(UserError, match="no column 'weather' for --by; there are: time"):
        task().evaluate({"run": run}, manifest(), Asked("test", by=["weather"]))
    stranger = Detection(DetectionSettings(classes=("bus",)), loss=DetectionLoss(), selection=Selection())
    with pytest.raises(UserError, match="other finds other classes than run"):
        task().compare({"run": run, "other": Method(stranger, [])}, manifest(), Asked("test"))


def test_runs_are_compared_with_the_first(batch: dict[str, Any]) -> None:
    results = results_of(batch)
    worse = [replace(each, detections=each.detections.above(0.7)) for each in results]
    runs = {"run": method(batch, results), "worse": method(batch, worse), "same": method(batch, results)}
    found = task().compare(runs, manifest(), Asked("test"))
    rows = {(row.run, row.metric): row for row in found.rows}
    own, other = (summary(match([_boxes(each) for each in those], 2))[0]["map50"][0] for those in (results, worse))
    assert rows["worse", "map50"].difference == pytest.approx(float(other - own), abs=1e-6)
    assert rows["worse", "map50"].difference < 0 == rows["same", "map50"].difference
    assert found.reference == "run" and found.who == "scenes" and found.groups == 2
    assert all(row.adjusted >= row.p_value - 1e-12 for row in found.rows if np.isfinite(row.p_value))


def _boxes(result: Found) -> ImageBoxes:
    found, truth = result.detections, result.detections.truth
    assert truth is not None
    return ImageBoxes(found.boxes, found.scores, found.classes, truth.boxes, truth.classes, truth.ignored)


# --- what is written ----------------------------------------------------------------------------------------------


def test_one_result_in_words_and_files(batch: dict[str, Any], tmp_path: Path) -> None:
    ours = task()
    ours.thresholds = (0.5, 0.7)
    first, second, third, last = results_of(batch)
    assert [ours.describe(each) for each in (first, second, third, last)] == [
        "1 person", "1 car", "nothing found", "nothing found",
    ]  # fmt: skip
    picture, data = ours.save(first, tmp_path / "out")
    content = json.loads(data.read_text())
    assert [(box["class"], box["shown"]) for box in content["boxes"]] == [("person", True), ("person", False)]
    np.testing.assert_allclose(content["boxes"][0]["box"], box_of(0, 2, 2), atol=1e-4)
    assert (content["id"], content["width"], content["thresholds"]) == ("image0", 64, {"car": 0.5, "person": 0.7})
    with PIL.Image.open(picture) as image:
        assert image.size[0] > 2 * SIZE


def test_a_folder_with_a_failure_among_them(batch: dict[str, Any], tmp_path: Path) -> None:
    found = [*results_of(batch), Failure("image9", "scene9", "cannot be read")]
    files = task().write(iter(found), tmp_path / "out")
    table = pd.read_csv(files[0])
    assert list(table["id"]) == ["image0", "image0", "image1", "image2", "image9"]
    assert table["error"].dropna().tolist() == ["cannot be read"]
    rows, data = (json.loads((tmp_path / "out" / name).read_text()) for name in ("predictions.json", "dataset.json"))
    assert len(rows) == 4 and len(data["images"]) == 4 and len(data["annotations"]) == 4
    left, top, right, bottom = box_of(0, 2, 2)
    assert rows[0]["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=1e-4)
    assert len(list((tmp_path / "out/pictures").iterdir())) == 4
    assert writing.write_all([], (0.5, 0.5), tmp_path / "empty")[0].is_file()


def test_the_figures_come_from_the_stored_curves(batch: dict[str, Any], tmp_path: Path) -> None:
    assert figures.of_evaluation(tmp_path) == []
    run = method(batch, results_of(batch))
    records = task().evaluate({"run": run}, manifest(), Asked("test")).records
    curves = records["curves.json"]
    assert np.mean(curves["precision"]["car"]) == pytest.approx(1)
    assert np.array(curves["confusion"]).tolist() == [[1, 0, 0], [0, 2, 1], [0, 1, 0]]
    (tmp_path / "curves.json").write_text(json.dumps(curves))
    (title, svg), (confusion, _) = task().figures(tmp_path, {}, None)
    assert title == "Precision and recall at IoU 0.5 of run" and svg.startswith("<svg") and "Confusion" in confusion
    (tmp_path / "curves.json").write_text('{"precision": 3}')
    with pytest.raises(UserError, match=r"curves\.json cannot be read .*: evaluate the run again"):
        figures.of_evaluation(tmp_path)


# --- explanation --------------------------------------------------------------------------------------------------


def test_which_box_is_meant(batch: dict[str, Any]) -> None:
    first, second, _, last = results_of(batch)
    assert subject_of(first, CLASSES).score == pytest.approx(0.9)
    assert subject_of(first, CLASSES, "person:2").score == pytest.approx(0.6)
    assert subject_of(first, CLASSES, "person:2").cell == 5 * 8 + 5
    assert (subject_of(second, CLASSES, "car").name, subject_of(second, CLASSES, ":1").label) == ("car", 0)
    for result, label, says in (
        (first, "person:3", r"has 2 box\(es\) of person"),
        (first, "car", r"has 0 box\(es\) of car"),
        (last, None, r"has 0 box\(es\)"),
        (first, "bus", "There is no class 'bus'"),
        (first, "person:0", "by class and number from 1"),
        (first, "person:x", "by class and number from 1"),
    ):
        with pytest.raises(UserError, match=says):
            subject_of(result, CLASSES, label)


def test_an_explanation_asks_the_cell_of_the_box_and_each_sensor(batch: dict[str, Any]) -> None:
    """Without RGB the box is found at 0.3, without infrared at another place: 0."""
    one = {
        **{name: batch[name][1:2] for name in ("rgb", "ir")},
        "present": {name: flags[1:2] for name, flags in batch["present"].items()},
        "meta": batch["meta"][1:2],
    }
    whole, weak, elsewhere = maps(FOUND[1]), maps({(1, 1, 1): (0, 0.3)}), maps({(1, 3, 3): (0, 0.8)})

    def forward(each: dict[str, Any]) -> list[Tensor]:
        if not each["present"]["rgb"].all():
            return weak
        return whole if each["present"]["ir"].all() else elsewhere

    asked = []

    def evidence(each: dict[str, Any], target: Any, kind: str) -> dict[str, Tensor]:
        asked.append(float(torch.sigmoid(target(whole))))
        return {"p3": torch.rand(1, 8, 8), "p4": torch.eye(4)[None], "p5": torch.rand(1, 2, 2)}

    def pixels(each: dict[str, Any], name: str) -> tuple[np.ndarray, Any]:
        return np.zeros((SIZE, SIZE), np.uint8), each["meta"][0]["placements"][name]

    ours = task()
    subject = ours.subject(ours.results(forward, one))
    found = ours.explain(Instrument(("rgb", "ir"), forward, evidence, pixels), one, subject, method="gradcam")
    assert asked == [pytest.approx(0.8)]
    assert found.content["level"] == "p4" and found.content["map_places"] == {"p4": [4, 4]}
    assert found.content["without"] == {"rgb": pytest.approx(0.3), "ir": 0.0}
    np.testing.assert_allclose(found.content["box"], box_of(1, 1, 1), atol=1e-4)
    assert ours.about(found_in(whole, one, CLASSES, Selection()), subject) == {"boxes_in_image": 1}
