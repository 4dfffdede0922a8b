"""What a detector says about one sample, and its forms in files: COCO's JSON and table rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import ArrayLike

from scanfuse.errors import UserError
from scanfuse.metrics.detection.inputs import ImageBoxes, checked

__all__ = [
    "COLUMNS",
    "Detections",
    "Truth",
    "coco_dataset",
    "coco_rows",
    "detections_of",
    "from_coco",
    "image_boxes",
    "table_rows",
    "truth_of",
]

COLUMNS = ("id", "group", "class", "score", "x1", "y1", "x2", "y2")
"""Of the table; corners in pixels of the original image."""


@dataclass(frozen=True)
class Truth:
    """The objects of a sample. Make it with `truth_of`.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the original image. classes: numbers.
        ignored: objects that need not be found and whose detections do not count.
    """

    boxes: Float64[np.ndarray, "m 4"]
    classes: Int64[np.ndarray, " m"]
    ignored: Bool[np.ndarray, " m"]


@dataclass(frozen=True)
class Detections:
    """The boxes that a detector gives for a sample. Make it with `detections_of`.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the original image. scores: in [0, 1]. classes: numbers.
        class_names: by number.
        size: height and width of the original image.
        id: of the sample. group: its scene.
        truth: None where it is not known.
    """

    boxes: Float64[np.ndarray, "n 4"]
    scores: Float64[np.ndarray, " n"]
    classes: Int64[np.ndarray, " n"]
    class_names: tuple[str, ...]
    size: tuple[int, int]
    id: str
    group: str
    truth: Truth | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self, score: float) -> "Detections":
        """The detections with at least this score."""
        kept = self.scores >= score
        return replace(self, boxes=self.boxes[kept], scores=self.scores[kept], classes=self.classes[kept])


def truth_of(boxes: ArrayLike, classes: ArrayLike, ignored: ArrayLike | None = None) -> Truth:
    """The arrays as `Truth`; `ignored` None means that no object is.

    Raises:
        ValueError: see `metrics.detection.inputs.checked`.
    """
    parts = checked([], [], [], boxes, classes, ignored)
    return Truth(parts.true_boxes, parts.true_classes, parts.ignored)


def detections_of(
    boxes: ArrayLike,
    scores: ArrayLike,
    classes: ArrayLike,
    *,
    class_names: Sequence[str],
    size: tuple[int, int],
    id: str,
    group: str | None = None,
    truth: Truth | None = None,
) -> Detections:
    """The arrays as `Detections`; the group is the id where it is None.

    Raises:
        ValueError: lengths differ, a number is not finite, a box is turned inside out, a class has no name.
    """
    parts = checked(boxes, scores, classes, [], [])
    labels = parts.classes if truth is None else np.concatenate([parts.classes, truth.classes])
    if labels.max(initial=-1) >= len(class_names):
        raise ValueError(f"class {labels.max()} occurs, but there are {len(class_names)} class names")
    return Detections(
        parts.boxes,
        parts.scores,
        parts.classes,
        tuple(class_names),
        size,
        id,
        id if group is None else group,
        truth,
    )


def image_boxes(detections: Detections) -> ImageBoxes:
    """What the metrics read.

    Raises:
        UserError: the truth of the sample is not known.
    """
    truth = detections.truth
    if truth is None:
        raise UserError(f"The sample {detections.id} has no boxes to compare with: evaluate needs labelled data.")
    found = detections.boxes, detections.scores, detections.classes
    return ImageBoxes(*found, truth.boxes, truth.classes, truth.ignored)


def table_rows(detections: Detections) -> list[dict[str, Any]]:
    """A row per box with the `COLUMNS`; a sample without boxes has none."""
    boxes = zip(detections.boxes.tolist(), detections.scores.tolist(), detections.classes, strict=True)
    return [
        dict(
            zip(
                COLUMNS,
                (detections.id, detections.group, detections.class_names[label], score, *box),
                strict=True,
            )
        )
        for box, score, label in boxes
    ]


def coco_dataset(samples: Sequence[Detections]) -> dict[str, Any]:
    """COCO's description of the data: images (from 1), categories (from 1, in order) and the annotations.

    An image's file name is the id of the sample, and its group is kept under `group`. Annotations are those of the
    samples whose truth is known; what is ignored is a crowd.
    """
    annotations: list[dict[str, Any]] = []
    for number, sample in enumerate(samples, start=1):
        if sample.truth is None:
            continue
        truth = sample.truth
        for box, label, ignored in zip(truth.boxes.tolist(), truth.classes, truth.ignored, strict=True):
            x, y, width, height = _with_sides(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": int(ignored),
                }
            )
    names = samples[0].class_names if samples else ()
    return {
        "images": [
            {"id": number, "file_name": s.id, "height": s.size[0], "width": s.size[1], "group": s.group}
            for number, s in enumerate(samples, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        "annotations": annotations,
    }


def coco_rows(samples: Sequence[Detections]) -> list[dict[str, Any]]:
    """COCO's results, one row per box; numbers of images and categories as in `coco_dataset` of the same samples."""
    return [
        {"image_id": number, "category_id": int(label) + 1, "bbox": list(_with_sides(box)), "score": score}
        for number, sample in enumerate(samples, start=1)
        for box, score, label in zip(sample.boxes.tolist(), sample.scores.tolist(), sample.classes, strict=True)
    ]


def from_coco(rows: Sequence[Mapping[str, Any]], dataset: Mapping[str, Any]) -> list[Detections]:
    """The detections of every image of a COCO data set, in its order, from result rows of any program.

    Numbers of images and categories may start anywhere. An image without rows has no detections. The id is the file
    name, or the number where there is none; the group is `group`, or the id.

    Args:
        rows: image_id, category_id, bbox (x, y, width, height) and score each.
        dataset: images (id, height, width), categories (id, name), and annotations if they are known.

    Raises:
        UserError: a row or annotation lacks something, is of an unknown image or category, or has an impossible box.
    """
    categories = sorted(dataset.get("categories", []), key=lambda category: category["id"])
    label_of = {category["id"]: number for number, category in enumerate(categories)}
    names = tuple(str(category["name"]) for category in categories)
    images = list(dataset.get("images", []))
    found = _by_image(rows, "result", images, label_of, needed=("image_id", "category_id", "bbox", "score"))
    annotations = dataset.get("annotations")
    known = None
    if annotations is not None:
        known = _by_image(annotations, "annotation", images, label_of, needed=("image_id", "category_id", "bbox"))
    samples = []
    for image in images:
        id = str(image.get("file_name", image["id"]))
        mine = found[image["id"]]
        truth = None
        if known is not None:
            own = known[image["id"]]
            flags = [bool(row.get("iscrowd", 0)) for row in own]
            truth = truth_of(_boxes(own), [label_of[row["category_id"]] for row in own], flags)
        samples.append(
            detections_of(
                _boxes(mine),
                [row["score"] for row in mine],
                [label_of[row["category_id"]] for row in mine],
                class_names=names,
                size=(int(image["height"]), int(image["width"])),
                id=id,
                group=str(image.get("group", id)),
                truth=truth,
            )
        )
    return samples


def _by_image(
    rows: Sequence[Mapping[str, Any]],
    kind: str,
    images: Sequence[Mapping[str, Any]],
    label_of: Mapping[int, int],
    *,
    needed: tuple[str, ...],
) -> dict[Any, list[Mapping[str, Any]]]:
    """The rows of each image, in their order; every row is checked."""
    found: dict[Any, list[Mapping[str, Any]]] = {image["id"]: [] for image in images}
    for number, row in enumerate(rows):
        where = f"{kind} {number}"
        absent = [name for name in needed if name not in row]
        if absent:
            raise UserError(f"COCO {where} has no {absent[0]}; it needs {', '.join(needed)}.")
        if row["image_id"] not in found:
            raise UserError(f"COCO {where} is of image {row['image_id']!r}, which the data set does not have.")
        if row["category_id"] not in label_of:
            raise UserError(f"COCO {where} is of category {row['category_id']!r}, which the data set does not have.")
        numbers = [*row["bbox"], row.get("score", 0)] if isinstance(row["bbox"], list | tuple) else []
        is_numeric = all(isinstance(value, int | float) and np.isfinite(value) for value in numbers)
        if len(numbers) != 5 or not is_numeric or min(numbers[2:4]) < 0:
            raise UserError(
                f"COCO {where} has the box {row['bbox']!r} and the score {row.get('score', 0)!r}; expected x, y, "
                "width, height and a score, all finite, sides not negative."
            )
        found[row["image_id"]].append(row)
    return found


def _boxes(rows: Sequence[Mapping[str, Any]]) -> Float64[np.ndarray, "n 4"]:
    sides = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    return np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1)


def _with_sides(box: Sequence[float]) -> tuple[float, float, float, float]:
    return box[0], box[1], box[2] - box[0], box[3] - box[1]
