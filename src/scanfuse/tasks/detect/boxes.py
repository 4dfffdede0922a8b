"""Boxes: their forms, their overlaps and the distances that a cell predicts. Torch tensors, any leading shape.

A box is x1, y1, x2, y2 (left, top, right, bottom) unless a name says otherwise; units are up to the caller, the same
for both boxes of an overlap.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from scanfuse.layers.detect_head import boxes_from_distances

__all__ = [
    "Overlap",
    "area",
    "boxes_from_distances",
    "corners",
    "distances_to_sides",
    "overlap",
    "pairwise_iou",
    "with_centres",
]

Overlap = Literal["iou", "giou", "diou", "ciou"]

_EPS = 1e-7


def corners(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Centre x, y, width, height -> x1, y1, x2, y2."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def with_centres(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """x1, y1, x2, y2 -> centre x, y, width, height."""
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(first + second) / 2, second - first], dim=-1)


def area(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Width times height; 0 where a box is turned inside out."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def overlap(
    first: Float[Tensor, "*n 4"], second: Float[Tensor, "*n 4"], kind: Overlap = "iou"
) -> Float[Tensor, "*n"]:
    """How much two boxes overlap, pair by pair; higher is better, 1 for equal boxes with an area.

        iou    intersection / union                                                              in [0, 1]
        giou   iou - (hull - union) / hull, hull = area of the smallest box around both          in (-1, 1]
        diou   iou - d^2 / c^2, d between the centres, c the diagonal of the hull                in (-1, 1]
        ciou   diou - a v,  v = 4 / pi^2 (atan(w_2 / h_2) - atan(w_1 / h_1))^2,  a = v / (v - iou + 1)

    The factor a is a constant for the gradient. Heights, union, hull and c^2 have 1e-7 added, so that boxes without
    an area give finite values and gradients; that is in the unit of the boxes, and makes the values of boxes of one
    cell differ from those of the same boxes in pixels in the sixth digit.

    Source: Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019; Zheng et al., "Distance-IoU Loss",
        AAAI 2020 (diou, ciou). The places of 1e-7 are those of the published YOLOv8.
    """
    x11, y11, x12, y12 = first.unbind(-1)
    x21, y21, x22, y22 = second.unbind(-1)
    w1, h1 = x12 - x11, y12 - y11 + _EPS
    w2, h2 = x22 - x21, y22 - y21 + _EPS
    common_w = (torch.minimum(x12, x22) - torch.maximum(x11, x21)).clamp(min=0)
    common_h = (torch.minimum(y12, y22) - torch.maximum(y11, y21)).clamp(min=0)
    intersection = common_w * common_h
    union = w1 * h1 + w2 * h2 - intersection + _EPS
    iou = intersection / union
    if kind == "iou":
        return iou
    hull_w = torch.maximum(x12, x22) - torch.minimum(x11, x21)
    hull_h = torch.maximum(y12, y22) - torch.minimum(y11, y21)
    if kind == "giou":
        hull = hull_w * hull_h + _EPS
        return iou - (hull - union) / hull
    diagonal = hull_w**2 + hull_h**2 + _EPS
    apart = ((x21 + x22 - x11 - x12) ** 2 + (y21 + y22 - y11 - y12) ** 2) / 4
    if kind == "diou":
        return iou - apart / diagonal
    shape = 4 / math.pi**2 * (torch.atan(w2 / h2) - torch.atan(w1 / h1)) ** 2
    with torch.no_grad():
        weight = shape / (shape - iou + (1 + _EPS))
    return iou - (apart / diagonal + weight * shape)


def pairwise_iou(first: Float[Tensor, "n 4"], second: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of all pairs, 0 where neither has an area. No constant is added."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = (high - low).clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]
    union = area(first)[:, None] + area(second)[None] - intersection
    return torch.where(union > 0, intersection / union, torch.zeros_like(union))


def distances_to_sides(
    centres: Float[Tensor, "*n 2"], boxes: Float[Tensor, "*n 4"], num_bins: int
) -> Float[Tensor, "*n 4"]:
    """Distances from a centre to left, top, right, bottom, in [0, num_bins - 1.01]; the unit is one bin (a cell).

    The upper end stays below the last bin, so that a distance always lies between two of them.
    """
    distances = torch.cat([centres - boxes[..., :2], boxes[..., 2:] - centres], dim=-1)
    return distances.clamp(0, num_bins - 1 - 0.01)
