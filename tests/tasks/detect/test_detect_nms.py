"""Suppression against the published program's rows, and by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scanfuse.tasks.detect.boxes import corners, pairwise_iou
from scanfuse.tasks.detect.nms import Selection, select

GOLDEN = Path(__file__).parents[2] / "golden"
SETTINGS = {
    "predict": Selection(confidence=0.25, nms_iou=0.7, several_classes=False),
    "val": Selection(),
    "tight": Selection(confidence=0.25, nms_iou=0.45, several_classes=False, max_detections=20),
    "agnostic": Selection(confidence=0.25, nms_iou=0.6, several_classes=False, across_classes=True),
}


def golden(source: str, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions (b, 4 + n, cells) and the rows that are kept."""
    if source == "model":
        with np.load(GOLDEN / "yolov8_model.npz") as file:
            return torch.from_numpy(file["eval.decoded"]), torch.from_numpy(file[f"eval.nms_{name}"])
    with np.load(GOLDEN / "yolov8_boxes.npz") as file:
        return torch.from_numpy(file["nms.pred"]), torch.from_numpy(file[f"nms.{name}"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("source", ["model", "boxes"])
def test_the_same_rows_are_kept(source: str, name: str, dtype: torch.dtype) -> None:
    predictions, wanted = golden(source, name)
    rows = predictions.to(dtype).transpose(1, 2)
    (kept,) = select(corners(rows[..., :4]), rows[..., 4:], SETTINGS[name])
    found = torch.cat([kept.boxes, kept.scores[:, None], kept.classes[:, None]], dim=1).double()
    assert found.shape == wanted.shape and len(wanted) > 10
    if dtype == torch.float64:
        # Corners come from centres and sides by the same operations, so nothing is rounded differently.
        assert torch.equal(found, wanted)
    else:
        assert torch.equal(found[:, 5], wanted[:, 5])
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
    assert torch.equal(kept.boxes, corners(rows[0, kept.cells, :4]))


def test_no_two_kept_boxes_of_a_class_overlap_more_and_none_that_could_stay_is_lost() -> None:
    torch.manual_seed(0)
    rows = torch.rand(2, 400, 4) * torch.tensor([300, 300, 100, 100.0])
    scores = torch.rand(2, 400, 3) ** 3
    settings = Selection(confidence=0.3, nms_iou=0.5, max_detections=1000)
    for boxes, s, kept in zip(corners(rows), scores, select(corners(rows), scores, settings), strict=True):
        assert (kept.scores.diff() <= 0).all() and kept.scores.min() > 0.3
        for label in range(3):
            of_class = kept.classes == label
            mine = kept.boxes[of_class]
            assert (pairwise_iou(mine, mine) - torch.eye(len(mine))).max() <= 0.5
            best = pairwise_iou(boxes, mine)
            for cell in (s[:, label] > 0.3).nonzero()[:, 0].tolist():
                if cell not in kept.cells[of_class].tolist():
                    stronger = kept.scores[of_class] >= s[cell, label]
                    assert (best[cell, stronger] > 0.5).any()


def test_options_change_what_is_kept() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.3, 0.4]]])

    def rows(**options: object) -> list[tuple[int, int]]:
        (kept,) = select(boxes, scores, Selection(**{"confidence": 0.05, **options}))
        return list(zip(kept.cells.tolist(), kept.classes.tolist(), strict=True))

    assert rows() == [(0, 0), (1, 1), (2, 1), (2, 0)]
    assert rows(several_classes=False) == [(0, 0), (1, 1), (2, 1)]
    assert rows(across_classes=True) == [(0, 0), (2, 1)]
    assert rows(nms_iou=0.95) == [(0, 0), (1, 1), (2, 1), (2, 0), (1, 0), (0, 1)]
    assert rows(max_detections=1) == [(0, 0)]
    assert rows(confidence=0.85) == [(0, 0)]


def test_nothing_and_numbers_that_are_not_finite() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [float("nan"), 0, 10, 9], [0, 0, float("inf"), 60]]])
    scores = torch.tensor([[[0.9], [0.99], [0.95]]])
    (kept,) = select(boxes, scores)
    assert kept.cells.tolist() == [0]
    (none,) = select(boxes, scores * torch.nan)
    assert none.boxes.shape == (0, 4) and none.scores.shape == none.classes.shape == (0,)
    (none,) = select(torch.empty(1, 0, 4), torch.empty(1, 0, 3), Selection(several_classes=True))
    assert none.boxes.shape == (0, 4)
    assert select(torch.empty(0, 5, 4), torch.empty(0, 5, 3)) == []
