"""Which cells answer for which objects in training: task-aligned assignment."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scanfuse.tasks.detect.boxes import overlap

__all__ = ["FLOOR", "SMALL_SIDE", "Assignment", "SmallBoxes", "Targets", "assign"]

SmallBoxes = Literal["old", "new"]
"""Which cells may answer for tiny boxes: "old", those whose centre is inside, which may be none; "new", those whose
centre is inside after sides under `SMALL_SIDE` have been widened to it."""

SMALL_SIDE = 16.0
"""Pixels, the stride of the second level."""

FLOOR = 1e-9
"""Published: what is added to the largest align of an object where it divides."""

_INSIDE = 1e-9


class Targets(NamedTuple):
    """The objects of a batch, in any order.

    Attributes:
        image: which image of the batch. classes: number of the class.
        boxes: x1, y1, x2, y2 in pixels of the network's input.
    """

    image: Int[Tensor, " n"]
    classes: Int[Tensor, " n"]
    boxes: Float[Tensor, "n 4"]

    def to(self, device: torch.device | str) -> "Targets":
        """The same on another device."""
        return Targets(*(part.to(device) for part in self))


class Assignment(NamedTuple):
    """What every cell should say.

    Attributes:
        target: the row in `Targets` that a cell answers for; -1 where it should see nothing.
        scores: the wanted class scores, in [0, 1]; 0 but for the class of the target.
    """

    target: Int[Tensor, "b n"]
    scores: Float[Tensor, "b n c"]


@torch.no_grad()
def assign(
    boxes: Float[Tensor, "b n 4"],
    scores: Float[Tensor, "b n c"],
    centres: Float[Tensor, "n 2"],
    targets: Targets,
    *,
    topk: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
    small_boxes: SmallBoxes = "old",
    floor: float = FLOOR,
) -> Assignment:
    """Gives each object the cells that already predict it best, and each cell at most one object.

        align = score^alpha overlap^beta,   score that of the object's class, overlap = max(CIoU, 0)
        candidates of an object: cells whose centre lies inside its box; of these the `topk` of largest align > 0
        a cell that several objects chose goes to the one with the largest overlap among all that it lies inside of
        wanted score = align (largest overlap of the object's cells) / (largest align of the object's cells + floor)

    So the best cell of an object should score as well as its box fits, and the others less. An object without a
    candidate (smaller than a cell, without an area, or outside of the image) gets none.

    align is the sixth power of an overlap. Where the first predictions are much larger than an object, it lies far
    below the published floor of 1e-9; then nothing is wanted of the object's cells, and it stays unseen unless what
    is learned from others carries over. Large data do that, a handful of images do not: with 1e-30 every object that
    is overlapped at all is learned from the start. `DetectHead(initial_distance=2)` cures it from the other end.

    Args:
        boxes, scores: predictions in pixels and in (0, 1); their gradient is not taken.
        centres: of the cells, in pixels.
        targets: see `Targets`; possibly none.
        topk, alpha, beta, floor: as above; floor > 0.
        small_boxes: see `SmallBoxes`.

    Source: Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021, as YOLOv8 has it. Only pairs of
        an object and a cell inside it are computed, and objects are not padded to equal numbers per image.
    """
    batch, cells, num_classes = scores.shape
    owner = boxes.new_full((batch * cells,), -1, dtype=torch.long)
    wanted = scores.new_zeros(batch * cells, num_classes)
    goal = targets.boxes.to(boxes)
    inside = _inside(centres, goal, small_boxes)
    gt, cell = inside.nonzero(as_tuple=True)
    if gt.numel():
        image = targets.image[gt]
        fit = overlap(goal[gt], boxes[image, cell], "ciou").clamp(min=0)
        align = scores[image, cell, targets.classes[gt]].pow(alpha) * fit.pow(beta)
        pair = torch.full_like(inside, -1, dtype=torch.long)
        pair[gt, cell] = torch.arange(gt.numel(), device=gt.device)
        chosen = _best_pairs(pair, align, topk)
        place = image * cells + cell
        owner = _owners(owner, place, gt, fit, chosen)
        own = (owner >= 0).nonzero()[:, 0]
        of = pair[owner[own], own % cells]
        most_align, most_fit = (_largest(part[of], owner[own], len(goal)) for part in (align, fit))
        weight = align[of] * most_fit[owner[own]] / (most_align[owner[own]] + floor)
        wanted[own, targets.classes[owner[own]]] = weight
    return Assignment(owner.unflatten(0, (batch, cells)), wanted.unflatten(0, (batch, cells)))


def _inside(centres: Tensor, boxes: Tensor, small_boxes: SmallBoxes) -> Tensor:
    """(objects, cells): whether the centre of the cell lies strictly inside the box."""
    if small_boxes == "new":
        middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        half = torch.where(sides < SMALL_SIDE, torch.full_like(sides, SMALL_SIDE), sides) / 2
        boxes = torch.cat([middle - half, middle + half], dim=1)
    after = centres[None] - boxes[:, None, :2]
    before = boxes[:, None, 2:] - centres[None]
    return torch.minimum(after, before).amin(dim=-1) > _INSIDE


def _best_pairs(pair: Tensor, align: Tensor, topk: int) -> Tensor:
    """Numbers of the pairs that are among the `topk` of their object."""
    table = torch.where(pair >= 0, align[pair.clamp(min=0)], align.new_tensor(0.0))
    best = table.topk(min(topk, pair.shape[1]), dim=1)
    # A candidate whose prediction does not overlap would weigh nothing, but take its cell from another object.
    return pair.gather(1, best.indices)[best.values > 0]


def _owners(owner: Tensor, place: Tensor, gt: Tensor, fit: Tensor, chosen: Tensor) -> Tensor:
    """For every cell of every image its object; a contested one has that which fits best, the first of equals."""
    num_places, num_gt = owner.numel(), int(gt.max()) + 1
    claims = torch.zeros_like(owner).index_add_(0, place[chosen], torch.ones_like(chosen))
    best_fit = _largest(fit, place, num_places)
    fits_best = fit == best_fit[place]
    first = torch.full_like(owner, num_gt).scatter_reduce_(0, place[fits_best], gt[fits_best], "amin")
    owner[place[chosen]] = gt[chosen]
    return torch.where(claims > 1, first, owner)


def _largest(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """The largest of the values (not negative) of each group; 0 for a group without."""
    return values.new_zeros(num_groups).scatter_reduce_(0, group, values, "amax")
