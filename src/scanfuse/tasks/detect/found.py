"""A result of detection: the boxes of a sample, the cell of the network that each came from, and its pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from scanfuse.data.boxes import Boxes
from scanfuse.data.inputs.slices import chosen
from scanfuse.data.readers import read_image
from scanfuse.data.transforms.paired_letterbox import to_picture
from scanfuse.layers.detect_head import decode
from scanfuse.tasks.detect.detections import Detections, Truth, detections_of, truth_of
from scanfuse.tasks.detect.nms import Selection, select

__all__ = ["Found", "found_in"]


@dataclass(frozen=True)
class Found:
    """What a detector found in one sample.

    Attributes:
        id, group: of the sample.
        detections: boxes in pixels of the stored pictures, best first.
        cells: of each box, its place among all cells of the network, level by level.
        sources: sensor -> the file, or the pixels where there is none.
        slice: which picture of its files a sample is, such as "frame:12"; "" where they hold one.
    """

    id: str
    group: str
    detections: Detections
    cells: Int64[np.ndarray, " n"]
    sources: dict[str, Path | np.ndarray]
    slice: str = ""

    def above(self, thresholds: Sequence[float]) -> Detections:
        """The detections at or above the threshold of their class."""
        each = np.asarray(thresholds)[self.detections.classes] if len(self.detections) else np.zeros(0)
        keep = self.detections.scores >= each
        found = self.detections
        return replace(
            found, id=self.id, boxes=found.boxes[keep], scores=found.scores[keep], classes=found.classes[keep]
        )

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """Sensor -> pixels of the stored picture."""
        return {
            name: source if isinstance(source, np.ndarray) else read_image(source, slices=chosen(self.slice)).pixels
            for name, source in self.sources.items()
        }


def found_in(
    raw: Sequence[Float[Tensor, "b k _ _"]], batch: Mapping[str, Any], classes: tuple[str, ...], selection: Selection
) -> list[Found]:
    """The boxes of every sample of a batch, in pixels of its stored pictures.

    Args:
        raw: maps of the head.
        batch: of `scanfuse.data.inputs.boxed_pairs`.
        classes: names by number.
        selection: which boxes are results.
    """
    with torch.no_grad():
        boxes, scores = decode([level.detach() for level in raw])
        kept = select(boxes, scores, selection)
    results = []
    for one, meta in zip(kept, batch["meta"], strict=True):
        placement = next(iter(meta["placements"].values()))
        corners = to_picture(one.boxes.double().cpu().numpy(), placement)
        whole = ((corners[:, 2:] - corners[:, :2]) > 0).all(axis=1)  # a box on the padding alone has no area
        detections = detections_of(
            corners[whole],
            one.scores.double().cpu().numpy()[whole],
            one.classes.cpu().numpy()[whole],
            class_names=classes,
            size=meta["size"],
            id=str(meta["id"]),
            group=str(meta["group"]),
            truth=_truth(meta.get("truth")),
        )
        sources = meta.get("pixels") or meta["paths"]
        cells = one.cells.cpu().numpy()[whole]
        results.append(
            Found(detections.id, detections.group, detections, cells, dict(sources), meta.get("slice", ""))
        )
    return results


def _truth(boxes: Boxes | None) -> Truth | None:
    return None if boxes is None else truth_of(boxes.xyxy, boxes.labels, ~boxes.counted)
