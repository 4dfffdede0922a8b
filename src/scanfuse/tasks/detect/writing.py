"""What a detection writes: a picture and COCO's JSON per sample or for a folder, a table, and a gallery."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from scanfuse.files import file_name, write_text
from scanfuse.tables import write_rows
from scanfuse.tasks import Failure
from scanfuse.tasks.detect.detections import coco_dataset, coco_rows, table_rows
from scanfuse.tasks.detect.drawing import draw_pair, write_picture
from scanfuse.tasks.detect.found import Found

__all__ = ["gallery", "save", "write_all"]

_TITLES = {"rgb": "RGB", "ir": "infrared"}


def picture(result: Found, min_score: float, title: str | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """The boxes from a score on, on every sensor side by side."""
    pictures = {_TITLES.get(name, name): pixels for name, pixels in result.pictures.items()}
    return draw_pair(pictures, result.detections, min_score=min_score, title=title)


def save(result: Found, thresholds: Sequence[float], folder: Path) -> list[Path]:
    """Writes `<id>.png` and `<id>.json`: COCO rows of all boxes with their class, and whether they are shown."""
    path = folder / f"{file_name(result.id)}.png"
    write_picture(path, picture(result, min(thresholds), result.id))
    found = result.detections
    boxes = [
        {"class": found.class_names[label], "score": score, "shown": bool(score >= thresholds[label]), "box": box}
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.classes, strict=True)
    ]
    content = {
        "id": result.id,
        "height": found.size[0],
        "width": found.size[1],
        "boxes": boxes,
        "thresholds": dict(zip(found.class_names, thresholds, strict=True)),
    }
    data = folder / f"{file_name(result.id)}.json"
    write_text(data, json.dumps(content, indent=2) + "\n")
    return [path, data]


def write_all(found: Iterable[Found | Failure], thresholds: Sequence[float], folder: Path) -> list[Path]:
    """Writes predictions.csv (a row per box, failures as rows), COCO's predictions.json and dataset.json, and a
    picture of every sample under pictures/; returns the table and the JSON."""
    rows: list[dict[str, Any]] = []
    kept = []
    for each in found:
        if isinstance(each, Failure):
            rows.append({"id": each.id, "group": each.group, "error": each.error})
            continue
        rows += table_rows(each.detections)
        write_picture(folder / "pictures" / f"{file_name(each.id)}.png", picture(each, min(thresholds), each.id))
        kept.append(each.detections)
    table, results, data = (folder / name for name in ("predictions.csv", "predictions.json", "dataset.json"))
    write_rows(rows or [{"id": "", "group": "", "class": "", "score": ""}], table)
    write_text(results, json.dumps(coco_rows(kept)) + "\n")
    write_text(data, json.dumps(coco_dataset(kept)) + "\n")
    return [table, results]


def gallery(results: Mapping[str, Sequence[Found]], min_score: float) -> UInt8[np.ndarray, "h w 3"]:
    """One row per image: both sensors with the boxes of every method and the truth."""
    first = next(iter(results.values()))
    lines = []
    for index in range(len(first)):
        row = [
            picture(each[index], min_score, f"{each[index].id}: {name}" if len(results) > 1 else each[index].id)
            for name, each in results.items()
        ]
        height = max(part.shape[0] for part in row)
        row = [np.pad(part, ((0, height - part.shape[0]), (0, 6), (0, 0)), constant_values=255) for part in row]
        lines.append(np.concatenate(row, axis=1))
    width = max(line.shape[1] for line in lines)
    lines = [np.pad(line, ((0, 6), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    return np.concatenate(lines)
