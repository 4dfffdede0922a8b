"""Why a box was found: which sensor it rests on, and where in the level that it came from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanfuse.data.transforms.placement import place
from scanfuse.errors import UserError
from scanfuse.explain.explanation import Explanation
from scanfuse.explain.gradcam import Method, scaled_together
from scanfuse.metrics.detection.inputs import iou_matrix, with_sides
from scanfuse.tasks import Instrument
from scanfuse.tasks.detect.detections import Detections
from scanfuse.tasks.detect.drawing import draw
from scanfuse.tasks.detect.found import Found, found_in
from scanfuse.tasks.detect.nms import Selection

__all__ = ["BoxSubject", "explained", "subject_of"]

_SAME = 0.5
_NUM_SIDES = 64


@dataclass(frozen=True)
class BoxSubject:
    """A box to explain: its corners in the stored picture, class, score, and the cell that it came from."""

    box: np.ndarray
    label: int
    name: str
    score: float
    cell: int


def subject_of(result: Found, classes: tuple[str, ...], label: str | None = None) -> BoxSubject:
    """The surest box of an image, or the surest of a class; "class:2" is its second one.

    Raises:
        UserError: there is no such class, or no such box.
    """
    name, _, number = (label or "").partition(":")
    if name and name not in classes:
        raise UserError(f"There is no class {name!r}; the run finds {', '.join(classes)}.")
    if number and not (number.isdecimal() and int(number) > 0):
        raise UserError(f"A box is named by class and number from 1, such as {classes[0]}:2, not {label!r}.")
    found = result.detections
    mine = [row for row in range(len(found)) if not name or found.classes[row] == classes.index(name)]
    place = int(number or 1) - 1
    if place >= len(mine):
        raise UserError(f"{result.id} has {len(mine)} box(es){f' of {name}' if name else ''}; there is no such one.")
    row = mine[place]
    kind = int(found.classes[row])
    return BoxSubject(found.boxes[row], kind, classes[kind], float(found.scores[row]), int(result.cells[row]))


def explained(
    through: Instrument,
    batch: dict[str, Any],
    subject: BoxSubject,
    classes: tuple[str, ...],
    selection: Selection,
    *,
    method: Method,
) -> Explanation:
    """Heat maps and ablation of one box of a batch of one.

    The maps are Grad-CAM of the class score of the box's own cell; the level of that cell is shown. Without a sensor
    the box may be found at a score, or not at all (0): the best box of its class that overlaps it by half counts.
    """
    raw: Any = through.forward(batch)
    level, row, column = _place(subject.cell, raw)

    def wanted(outputs: Any) -> Tensor:
        return outputs[level][:, _NUM_SIDES + subject.label, row, column]

    maps = through.evidence(batch, wanted, method)
    name = f"p{3 + level}"
    joint = scaled_together({name: maps[name][0]})[name]
    present = [sensor for sensor in through.modalities if bool(batch["present"][sensor][0])]
    without = {}
    if len(present) > 1:
        for sensor in present:
            flags = {key: flag & (key != sensor) for key, flag in batch["present"].items()}
            with torch.no_grad():
                alone: Any = through.forward({**batch, "present": flags})
            without[sensor] = _score_of(found_in(alone, batch, classes, selection)[0], subject)
    one = Detections(
        subject.box[None],
        np.array([subject.score]),
        np.array([subject.label]),
        classes,
        batch["meta"][0]["size"],
        str(batch["meta"][0]["id"]),
        str(batch["meta"][0]["group"]),
    )
    pixels, heats, captions = {}, {}, {}
    for sensor in present:
        picture, placement = through.pixels(batch, sensor)
        pixels[sensor] = draw(picture, one, min_score=0.0, min_side=0)
        heats[sensor] = {name: place(joint.cpu(), placement)}
        captions[sensor] = sensor + (f": {without[sensor]:.2f} without it" if sensor in without else "")
    content = {
        "id": one.id,
        "group": one.group,
        "outcome": subject.name,
        "score": subject.score,
        "box": subject.box.tolist(),
        "without": without,
        "level": name,
        "map_places": {name: list(joint.shape)},
    }
    title = {name: f"level {name} ({joint.shape[0]} x {joint.shape[1]})"}
    return Explanation(one.id, subject.name, pixels, heats, captions, title, content)


def _place(cell: int, raw: Any) -> tuple[int, int, int]:
    """Level, row and column of a cell among all."""
    for level, values in enumerate(raw):
        height, width = values.shape[-2:]
        if cell < height * width:
            return level, cell // width, cell % width
        cell -= height * width
    raise ValueError("the network has no such cell")


def _score_of(result: Found, subject: BoxSubject) -> float:
    mine = result.detections.classes == subject.label
    if not mine.any():
        return 0.0
    boxes = with_sides(result.detections.boxes[mine])
    overlap = iou_matrix(boxes, with_sides(subject.box[None]))[:, 0]
    same = overlap >= _SAME
    return float(result.detections.scores[mine][same].max()) if same.any() else 0.0
