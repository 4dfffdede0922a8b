"""The head: its initial biases, and boxes from raw maps by hand. The golden network holds the rest."""

import math

import pytest
import torch

from scanfuse.layers.detect_head import DetectHead, cell_centres, decode, expected_distances, flatten


def test_initial_biases() -> None:
    head = DetectHead((8, 16, 24), num_classes=4)
    for stride, box, label in zip((8, 16, 32), head.boxes, head.classes, strict=True):
        assert box[-1].bias.tolist() == [1.0] * 64
        expected = math.log(5 / 4 / (640 / stride) ** 2)
        assert label[-1].bias.tolist() == pytest.approx([expected] * 4)


@pytest.mark.parametrize(("distance", "cells"), [(None, 15.0), (2.0, 4.0), (0.5, 1.0), (7.0, 14.0)])
def test_initial_boxes(distance: float | None, cells: float) -> None:
    """Without an input only the biases speak: boxes of so many cells around every cell."""
    head = DetectHead((8, 16, 24), num_classes=1, initial_distance=distance).eval()
    with torch.no_grad():
        boxes, scores = decode(head(*(torch.zeros(1, c, 2, 2) for c in (8, 16, 24))))
    sides = boxes[0, :, 2:] - boxes[0, :, :2]
    for level, stride in enumerate((8, 16, 32)):
        torch.testing.assert_close(
            sides[4 * level : 4 * level + 4], torch.full((4, 2), cells * stride), rtol=1e-5, atol=0
        )
    assert scores.max() < 0.02


@pytest.mark.parametrize("distance", [0.0, 7.5])
def test_an_initial_distance_that_cannot_be(distance: float) -> None:
    with pytest.raises(ValueError, match=r"must lie between 0 and 7\.5 cells"):
        DetectHead((8, 16, 24), num_classes=1, initial_distance=distance)


@pytest.mark.parametrize(
    ("num_classes", "first", "box_dim", "class_dim"),
    [(3, 8, 64, 8), (80, 64, 64, 80), (200, 64, 64, 100), (3, 320, 80, 320)],
)
def test_widths_of_the_branches(num_classes: int, first: int, box_dim: int, class_dim: int) -> None:
    with torch.device("meta"):
        head = DetectHead((first, 2 * first, 2 * first), num_classes=num_classes)
    assert {branch[0].conv.out_channels for branch in head.boxes} == {box_dim}
    assert {branch[0].conv.out_channels for branch in head.classes} == {class_dim}


def test_a_box_by_hand() -> None:
    """One certain cell: row 1, column 2 of a 2 x 3 map of stride 16, distances 1, 0, 2 and 3.5 cells."""
    raw = torch.full((1, 66, 2, 3), -30.0, dtype=torch.float64)
    for side, bins in enumerate([(1,), (0,), (2,), (3, 4)]):
        for k in bins:
            raw[0, 16 * side + k, 1, 2] = 30.0
    raw[0, 65, 1, 2] = 2.0
    boxes, scores = decode([raw], strides=(16,))
    assert boxes.shape == (1, 6, 4) and scores.shape == (1, 6, 2)
    # Centre (2.5, 1.5) cells: x from 1.5 to 4.5, y from 1.5 to 5 cells.
    torch.testing.assert_close(boxes[0, 5], torch.tensor([24.0, 24.0, 72.0, 80.0], dtype=torch.float64))
    torch.testing.assert_close(scores[0, 5, 1], torch.tensor(2.0, dtype=torch.float64).sigmoid())
    assert scores[0, 4].max() < 1e-12


def test_cells_are_level_by_level_and_row_major() -> None:
    raw = [torch.arange(2 * 3.0).reshape(1, 1, 2, 3), 10 + torch.arange(2.0).reshape(1, 1, 1, 2)]
    centres, sizes = cell_centres(raw, (8, 16))
    assert centres[:3].tolist() == [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5]]
    assert (centres * sizes)[-1].tolist() == [24.0, 8.0]
    assert flatten(raw, num_bins=0)[1][0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 10, 11]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_decoding_is_float32_for_16_bits_and_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    raw = [torch.randn(1, 66, 4, 5).to(dtype)]
    wanted = decode([level.float() for level in raw], strides=(32,))
    with torch.autocast("cpu", torch.bfloat16):
        found = decode(raw, strides=(32,))
        sharp = expected_distances(torch.randn(3, 4, 16))
    assert found[0].dtype == found[1].dtype == sharp.dtype == torch.float32
    assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])


def test_one_stride_per_level() -> None:
    with pytest.raises(ValueError, match="2 levels have 3 strides"):
        DetectHead((8, 16), num_classes=1)
