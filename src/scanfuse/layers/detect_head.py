"""The decoupled, anchor-free detection head with distributions over distances, and how its maps become boxes.

A level of stride s has one cell per s x s pixels. A cell says how far the four sides of a box are from its centre,
each as a distribution over the distances 0, 1, ..., R - 1 cells, and how much the box looks like each class.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scanfuse.layers.yolo import ConvNormAct

__all__ = ["STRIDES", "DetectHead", "boxes_from_distances", "cell_centres", "decode", "expected_distances", "flatten"]

STRIDES = (8, 16, 32)
"""Pixels per cell of the levels P3, P4, P5."""

_IMAGE_SIDE = 640  # the size for which the published head sets its class biases
_OBJECTS_PER_IMAGE = 5


class DetectHead(nn.Module):
    """Maps of the neck -> raw maps, 4 R + n channels per level: logits of left, top, right, bottom, then classes.

        box branch    Conv3, Conv3 at max(16, c_3 // 4, 4 R) channels, 1x1 to 4 R
        class branch  Conv3, Conv3 at max(c_3, min(n, 100)) channels, 1x1 to n

    The last biases start at 1 (boxes) and at log(5 / (n (640 / s)^2)) (classes): five objects per image of 640
    pixels, so that the first steps are not spent on learning that most cells are empty.

    The published start makes all distances equally likely, so that every box is R - 1 cells wide: 120 pixels at P3.
    The assigner wants next to nothing of cells whose boxes overlap an object so little, and in small data with small
    objects these may never be found. With `initial_distance` the boxes start at twice that many cells.

    Args:
        dims: channels of the maps, c_3 the first. num_classes: n. num_bins: R. strides: pixels per cell.
        initial_distance: mean of the first distributions in cells, below (R - 1) / 2; None for the published start.

    Shape:
        one map (b, c, h, w) per level -> one raw map (b, 4 R + n, h, w) per level. `decode` makes boxes of them.

    Source: Li et al., "Generalized Focal Loss", NeurIPS 2020 (distributions); the widths are those of YOLOv8.
    """

    def __init__(
        self,
        dims: Sequence[int],
        *,
        num_classes: int,
        num_bins: int = 16,
        strides: Sequence[int] = STRIDES,
        initial_distance: float | None = None,
    ) -> None:
        super().__init__()
        if len(dims) != len(strides):
            raise ValueError(f"{len(dims)} levels have {len(strides)} strides; there must be one for each")
        self.num_classes = num_classes
        self.num_bins = num_bins
        self.strides = tuple(strides)
        box_dim = max(16, dims[0] // 4, 4 * num_bins)
        class_dim = max(dims[0], min(num_classes, 100))
        self.boxes = nn.ModuleList(_branch(dim, box_dim, 4 * num_bins) for dim in dims)
        self.classes = nn.ModuleList(_branch(dim, class_dim, num_classes) for dim in dims)
        for box, label, stride in zip(self.boxes, self.classes, self.strides, strict=True):
            chance = _OBJECTS_PER_IMAGE / num_classes / (_IMAGE_SIDE / stride) ** 2
            nn.init.constant_(box[-1].bias, 1.0)  # type: ignore[index]
            if initial_distance is not None:
                with torch.no_grad():
                    box[-1].bias.copy_(_falling(initial_distance, num_bins).repeat(4))  # type: ignore[index]
            nn.init.constant_(label[-1].bias, math.log(chance))  # type: ignore[index]

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        levels = zip(maps, self.boxes, self.classes, strict=True)
        return tuple(torch.cat([box(x), label(x)], dim=1) for x, box, label in levels)


def _branch(dim_in: int, dim: int, dim_out: int) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(dim_in, dim, 3), ConvNormAct(dim, dim, 3), nn.Conv2d(dim, dim_out, 1))


def _falling(mean: float, num_bins: int) -> Tensor:
    """Logits -a k of the bins k = 0 .. R - 1 whose distribution has this mean."""
    if not 0 < mean < (num_bins - 1) / 2:
        raise ValueError(f"initial_distance is {mean}; it must lie between 0 and {(num_bins - 1) / 2:g} cells")
    bins = torch.arange(num_bins, dtype=torch.float64, device="cpu")
    low, high = 0.0, 50.0
    for _ in range(60):
        slope = (low + high) / 2
        is_too_far = ((-slope * bins).softmax(0) * bins).sum().item() > mean
        low, high = (slope, high) if is_too_far else (low, slope)
    return (-low * bins).float()


def flatten(raw: Sequence[Tensor], *, num_bins: int = 16) -> tuple[Tensor, Tensor]:
    """Raw maps as rows: side logits (b, N, 4, R) and class logits (b, N, n), level by level, row-major."""
    rows = torch.cat([level.flatten(2) for level in raw], dim=2).transpose(1, 2)
    sides, classes = rows[..., : 4 * num_bins], rows[..., 4 * num_bins :]
    return sides.unflatten(-1, (4, num_bins)), classes


def cell_centres(raw: Sequence[Tensor], strides: Sequence[int] = STRIDES) -> tuple[Tensor, Tensor]:
    """Centres of all cells (N, 2), x and y in cells of their level, and the stride of each (N, 1).

    Times each other they are pixels of the network's input. Order as in `flatten`; dtype and device of the maps.
    """
    centres, sizes = [], []
    for level, stride in zip(raw, strides, strict=True):
        height, width = level.shape[-2:]
        y = torch.arange(height, dtype=level.dtype, device=level.device) + 0.5
        x = torch.arange(width, dtype=level.dtype, device=level.device) + 0.5
        centres.append(torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).flatten(0, 1))
        sizes.append(level.new_full((height * width, 1), stride))
    return torch.cat(centres), torch.cat(sizes)


def expected_distances(sides: Tensor) -> Tensor:
    """Logits (..., 4, R) -> the means of their distributions (..., 4) in cells: sum over k of k softmax(logits)_k."""
    bins = torch.arange(sides.shape[-1], dtype=sides.dtype, device=sides.device)
    return (sides.softmax(dim=-1) * bins).sum(dim=-1)  # a matrix product would run in 16 bits under autocast


def boxes_from_distances(centres: Tensor, distances: Tensor) -> Tensor:
    """Centres (..., 2) and distances to left, top, right, bottom (..., 4), one unit -> corners x1, y1, x2, y2."""
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)


def decode(raw: Sequence[Tensor], *, num_bins: int = 16, strides: Sequence[int] = STRIDES) -> tuple[Tensor, Tensor]:
    """Raw maps -> boxes (b, N, 4) as x1, y1, x2, y2 in pixels of the network's input, and scores (b, N, n) in (0, 1).

    box = (centre -+ expected distances) * stride,   score = sigmoid(class logit);   float32 at least, whatever the
    precision of the maps, since 16 bits would move the sides of large boxes by pixels.
    """
    raw = [level.float() if level.dtype in (torch.float16, torch.bfloat16) else level for level in raw]
    sides, classes = flatten(raw, num_bins=num_bins)
    centres, sizes = cell_centres(raw, strides)
    return boxes_from_distances(centres, expected_distances(sides)) * sizes, classes.sigmoid()
