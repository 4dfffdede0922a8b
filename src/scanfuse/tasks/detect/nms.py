"""From the predictions of all cells to the few boxes of an image: non-maximum suppression per class."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torchvision.ops import batched_nms, nms

from scanfuse.config import Section

__all__ = ["Kept", "Selection", "select"]

_MOST_CANDIDATES = 30_000


class Selection(Section):
    """Which boxes are results. The defaults are for evaluation; for pictures a confidence of 0.25 is usual."""

    confidence: float = Field(0.001, ge=0, lt=1, description="boxes with a lower score are dropped")
    nms_iou: float = Field(0.7, gt=0, le=1, description="of boxes of a class that overlap more, the best stays")
    max_detections: int = Field(300, ge=1, description="most boxes per image")
    several_classes: bool = Field(True, description="a cell gives a box for each class above the confidence, not one")
    across_classes: bool = Field(False, description="boxes of different classes suppress each other too")


class Kept(NamedTuple):
    """The boxes of one image, best first.

    Attributes:
        boxes: corners in the unit of the input. scores: in (0, 1). classes: numbers.
        cells: the row of each box in the input, which tells its level and place.
    """

    boxes: Float[Tensor, "k 4"]
    scores: Float[Tensor, " k"]
    classes: Int[Tensor, " k"]
    cells: Int[Tensor, " k"]


@torch.no_grad()
def select(
    boxes: Float[Tensor, "b n 4"], scores: Float[Tensor, "b n c"], settings: Selection | None = None
) -> list[Kept]:
    """The results of each image of a batch.

    Candidates are all pairs of cell and class whose score exceeds the confidence (or, without `several_classes`, each
    cell with its best class), at most the 30,000 best. Of two that overlap by more than `nms_iou` and are of one
    class, the better stays; of what is left the `max_detections` best. A score or box that is not finite is dropped.

    Args:
        boxes, scores: of `layers.detect_head.decode`, any device.
        settings: the defaults if None.

    Source: the suppression is torchvision's.
    """
    chosen = settings or Selection()
    return [_of_one_image(b, s, chosen) for b, s in zip(boxes, scores, strict=True)]


def _of_one_image(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, "n c"], settings: Selection) -> Kept:
    usable = boxes.isfinite().all(dim=1, keepdim=True)
    if settings.several_classes:
        cells, classes = ((scores > settings.confidence) & usable).nonzero(as_tuple=True)
        found = scores[cells, classes]
    else:
        best, label = scores.max(dim=1)
        cells = ((best > settings.confidence) & usable[:, 0]).nonzero(as_tuple=True)[0]
        found, classes = best[cells], label[cells]
    order = found.argsort(descending=True, stable=True)[:_MOST_CANDIDATES]
    cells, classes, found = cells[order], classes[order], found[order]
    corners = boxes[cells]
    if settings.across_classes:
        kept = nms(corners, found, settings.nms_iou)
    else:
        kept = batched_nms(corners, found, classes, settings.nms_iou)
    kept = kept[: settings.max_detections]
    return Kept(corners[kept], found[kept], classes[kept], cells[kept])
