"""COCO's table by the published evaluation's own program, through faster-coco-eval."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scanfuse.metrics.detection.inputs import ImageBoxes, check_classes, with_sides
from scanfuse.metrics.detection.matching import AREAS, IOU_THRESHOLDS

__all__ = ["library_scores"]

_NAN = float("nan")


def library_scores(images: Sequence[ImageBoxes], num_classes: int) -> tuple[dict[str, float], list[dict[str, float]]]:
    """map, map50, map75, map_small, map_medium, map_large, ar1, ar10, ar100, ar_small, ar_medium, ar_large.

    Numbers in [0, 1] over all classes and for each class; NaN where there is no object (COCO's -1). The areas are
    those of the boxes. Nothing is printed. `average_precision.summary` gives the same numbers from matches, and for
    resamples.

    Raises:
        ValueError: a class beyond the last.

    Source: Lin et al., "Microsoft COCO", ECCV 2014.
    """
    check_classes(images, num_classes)
    # Imported here, as it loads a compiled part that only evaluation needs.
    from faster_coco_eval import COCO, COCOeval_faster

    objects, detections = _rows(images)
    data = {
        "images": [{"id": number, "width": 1, "height": 1} for number in range(1, len(images) + 1)],
        "categories": [{"id": label, "name": str(label)} for label in range(1, num_classes + 1)],
        "annotations": objects,
    }
    truth = COCO(data, print_function=_say_nothing)
    evaluation = COCOeval_faster(truth, truth.loadRes(detections), "bbox", print_function=_say_nothing)
    evaluation.evaluate()
    evaluation.accumulate()
    # (thresholds, recalls, classes, areas, max detections) and (thresholds, classes, areas, max detections)
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    each = [_table(precision[:, :, [c]], recall[:, [c]]) for c in range(num_classes)]
    return _table(precision, recall), each


def _rows(images: Sequence[ImageBoxes]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    objects: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        truth = zip(with_sides(image.true_boxes).tolist(), image.true_classes, image.ignored, strict=True)
        for box, label, ignored in truth:
            objects.append(
                {
                    "id": len(objects) + 1,  # a match with number 0 would count as none
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(ignored),
                }
            )
        for box, label, score in zip(with_sides(image.boxes).tolist(), image.classes, image.scores, strict=True):
            row = {"image_id": number, "category_id": int(label) + 1, "bbox": box, "score": float(score)}
            detections.append(row)
    return objects, detections


def _table(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    half, three_quarters = IOU_THRESHOLDS.index(0.5), IOU_THRESHOLDS.index(0.75)
    table = {
        "map": _mean(precision[..., 0, -1]),
        "map50": _mean(precision[half, ..., 0, -1]),
        "map75": _mean(precision[three_quarters, ..., 0, -1]),
    }
    further = list(enumerate(AREAS))[1:]
    table |= {f"map_{area}": _mean(precision[..., a, -1]) for a, area in further}
    table |= {f"ar{most}": _mean(recall[..., 0, m]) for m, most in enumerate((1, 10, 100))}
    return table | {f"ar_{area}": _mean(recall[..., a, -1]) for a, area in further}


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else _NAN


def _say_nothing(*_: object) -> None:
    pass
