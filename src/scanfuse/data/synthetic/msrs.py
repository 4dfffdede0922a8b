"""Made-up road scenes in the MSRS layout: person, bicycle, car, 4 : 3, three sets of YOLO files.

A name is <five digits>{D,N}, twenty numbers for each scene. The visible set has the objects that RGB shows, the
infrared set those that infrared shows, each as if drawn by hand (edges off by up to a pixel); the fusion set lacks
one infrared-only object in three, and has the doubled blanks, the long decimals and the unfinished last line of the
published files. So only the union of visible and infrared is complete.
"""

from pathlib import Path

import numpy as np

from scanfuse.data.annotations import yolo
from scanfuse.data.boxes import Boxes
from scanfuse.data.layouts.msrs import BLOCK, CLASSES
from scanfuse.data.synthetic._road import Frame
from scanfuse.data.synthetic._road_writing import ROADS, Moment, RoadOptions, save_picture, save_text, write_roads

__all__ = ["write"]


Options = RoadOptions
FACTS = ROADS


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/{vi,ir}/*.png and labels/{visible,infrared,fusion}/*.txt; truth.csv beside them.

    The same arguments give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """

    def put(root: Path, moment: Moment) -> str:
        frame = moment.frame
        name = f"{moment.scene * BLOCK + moment.number:05d}{'N' if frame.night else 'D'}"
        save_picture(root / "vi" / f"{name}.png", frame.rgb)
        save_picture(root / "ir" / f"{name}.png", frame.ir)
        random = np.random.default_rng([options.seed, moment.scene, moment.number, 7])
        shown = np.array(frame.shown, dtype=str)
        for sensor, other in (("visible", "ir"), ("infrared", "rgb")):
            text = yolo.encode(_drawn(frame, shown != other, random), size=moment.size)
            save_text(root / "labels" / sensor / f"{name}.txt", text)
        fused = _drawn(frame, (shown != "ir") | (random.random(len(shown)) > 1 / 3), random)
        save_text(root / "labels/fusion" / f"{name}.txt", _as_published(fused, moment.size))
        return name

    return write_roads(root, options, put, classes=CLASSES.classes, form="in the layout of MSRS")


def _drawn(frame: Frame, chosen: np.ndarray, random: np.random.Generator) -> Boxes:
    boxes = frame.boxes.at(chosen)
    height, width = frame.ir.shape
    # Small ones less: two drawings of one object must keep an IoU above 0.5.
    most = np.minimum(0.8, 0.06 * np.tile(boxes.xyxy[:, 2:] - boxes.xyxy[:, :2], 2))
    edges = boxes.xyxy + most * random.uniform(-1, 1, boxes.xyxy.shape)
    return boxes.moved(np.clip(edges, 0, [width, height, width, height]))


def _as_published(boxes: Boxes, size: tuple[int, int]) -> str:
    height, width = size
    lines = []
    for label, (left, top, right, bottom) in zip(boxes.labels, boxes.xyxy.tolist(), strict=True):
        shares = (
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        )
        lines.append(f"{label}  " + "  ".join(repr(share) for share in shares) + "  ")
    return "\n".join(lines)
