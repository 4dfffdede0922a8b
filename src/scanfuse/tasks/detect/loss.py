"""What a detector minimises: overlap of boxes, distributions of distances, class scores."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from scanfuse.config import Section
from scanfuse.layers.detect_head import STRIDES, boxes_from_distances, cell_centres, expected_distances, flatten
from scanfuse.tasks.detect.assigner import FLOOR, SmallBoxes, Targets, assign
from scanfuse.tasks.detect.boxes import distances_to_sides, overlap

__all__ = ["DetectionLoss", "detection_loss", "distance_loss"]


class DetectionLoss(Section):
    """Gains of the terms and how cells are assigned. The defaults are those of YOLOv8."""

    box_gain: float = Field(7.5, ge=0, description="weight of 1 - CIoU of the boxes")
    class_gain: float = Field(0.5, ge=0, description="weight of the cross-entropy of the class scores")
    distance_gain: float = Field(1.5, ge=0, description="weight of the distributions over distances (DFL)")
    topk: int = Field(10, ge=1, description="most cells that answer for an object")
    align_alpha: float = Field(0.5, ge=0, description="exponent of the class score in the choice of cells")
    align_beta: float = Field(6.0, ge=0, description="exponent of the overlap in the choice of cells")
    align_floor: float = Field(
        FLOOR,
        gt=0,
        description="1e-30: what the first predictions hardly overlap is learned in small data too",
    )
    small_boxes: SmallBoxes = Field(
        "old", description="new: boxes under 16 pixels are widened to 16 for the choice of cells; old: as they are"
    )


def detection_loss(
    raw: Sequence[Float[Tensor, "b k _ _"]],
    targets: Targets,
    settings: DetectionLoss | None = None,
    *,
    num_bins: int = 16,
    strides: Sequence[int] = STRIDES,
) -> dict[str, Tensor]:
    """The loss of a batch from the raw maps of the head.

        cls  = class_gain     sum over all cells and classes of BCE(logit, wanted score) / S
        box  = box_gain       sum over assigned cells of w (1 - CIoU(box, target)) / S
        dfl  = distance_gain  sum over assigned cells of w DFL(distances) / S
        loss = b (box + cls + dfl)

    w is the wanted score of a cell and S = max(sum of all w, 1). Boxes are compared in cells of their level.
    Everything is computed in float32 (float64 for float64 maps), under autocast too. A batch without any object has
    box = dfl = 0 with zero gradients.

    Args:
        raw: of `layers.detect_head.DetectHead`, one map per stride.
        targets: all objects of the batch, on any device.
        settings: the defaults if None.
        num_bins: bins per side. strides: pixels per cell.

    Returns:
        {"loss", "box", "cls", "dfl"}: scalars; the last three with their gains but not times b.
    """
    chosen = settings or DetectionLoss()
    targets = targets.to(raw[0].device)
    with torch.autocast(raw[0].device.type, enabled=False):
        maps = [level.float() if level.dtype in (torch.float16, torch.bfloat16) else level for level in raw]
        sides, logits = flatten(maps, num_bins=num_bins)
        centres, sizes = cell_centres(maps, strides)
        boxes = boxes_from_distances(centres, expected_distances(sides))
        assigned = assign(
            boxes.detach() * sizes,
            logits.detach().sigmoid(),
            centres * sizes,
            targets,
            topk=chosen.topk,
            alpha=chosen.align_alpha,
            beta=chosen.align_beta,
            small_boxes=chosen.small_boxes,
            floor=chosen.align_floor,
        )
        total = assigned.scores.sum().clamp(min=1)
        classes = F.binary_cross_entropy_with_logits(logits, assigned.scores, reduction="sum") / total
        image, cell = (assigned.target >= 0).nonzero(as_tuple=True)
        weight = assigned.scores[image, cell].sum(dim=-1)
        goal = targets.boxes.to(boxes)[assigned.target[image, cell]] / sizes[cell]
        box = (weight * (1 - overlap(boxes[image, cell], goal, "ciou"))).sum() / total
        wanted = distances_to_sides(centres[cell], goal, num_bins)
        distances = (weight * distance_loss(sides[image, cell], wanted)).sum() / total
        parts = {
            "box": chosen.box_gain * box,
            "cls": chosen.class_gain * classes,
            "dfl": chosen.distance_gain * distances,
        }
        return {"loss": len(maps[0]) * (parts["box"] + parts["cls"] + parts["dfl"]), **parts}


def distance_loss(logits: Float[Tensor, "n 4 r"], distances: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Distribution focal loss: cross-entropy of the two bins around a distance, each as near as the other is far.

        DFL(d) = -(k + 1 - d) log p_k - (d - k) log p_{k+1},   k = floor(d);   the mean of the four sides

    Args:
        logits: of the R bins. distances: in [0, R - 1), see `boxes.distances_to_sides`.

    Source: Li et al., "Generalized Focal Loss", NeurIPS 2020, equation 6.
    """
    log_p = logits.log_softmax(dim=-1)
    below = distances.floor().long()
    beyond = distances - below
    of_below, of_above = (log_p.gather(-1, bins[..., None])[..., 0] for bins in (below, below + 1))
    return -((1 - beyond) * of_below + beyond * of_above).mean(dim=-1)
