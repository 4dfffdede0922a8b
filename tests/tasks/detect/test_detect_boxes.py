"""Box overlaps against the published program's values and gradients, finite differences and cases by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scanfuse.tasks.detect.boxes import (
    boxes_from_distances,
    corners,
    distances_to_sides,
    overlap,
    pairwise_iou,
    with_centres,
)

GOLDEN = Path(__file__).parents[2] / "golden"
KINDS = ("iou", "giou", "diou", "ciou")
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


@pytest.fixture(scope="module")
def arrays() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "yolov8_boxes.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if file[key].ndim}


@DTYPES
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(arrays: dict[str, torch.Tensor], kind: str, dtype: torch.dtype) -> None:
    first, second = (arrays[name].clone().to(dtype).detach().requires_grad_() for name in ("box1", "box2"))
    value = overlap(first, second, kind)
    (value * arrays["ct"].to(dtype)).sum().backward()
    tolerance = 1e-11 if dtype == torch.float64 else 1e-5
    assert (value.double() - arrays[kind]).abs().max() < tolerance
    for box, name in ((first, "box1"), (second, "box2")):
        wanted = arrays[f"g_{kind}.{name}"]
        assert (box.grad.double() - wanted).abs().max() < tolerance * max(1.0, wanted.abs().max().item()), name


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    """For ciou up to its constant factor, so only where the shapes are equal and the factor does not change."""
    torch.manual_seed(0)
    first = torch.tensor([[0.0, 0, 4, 3], [1, 1, 5, 4]], dtype=torch.float64)
    second = first + torch.tensor([[1.0, 0.5, 1, 0.5], [9, 9, 9, 9]], dtype=torch.float64)
    shift = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: overlap(first + s.repeat(1, 2), second, kind), (shift,))


def test_cases_by_hand() -> None:
    a = torch.tensor([0.0, 0, 2, 2], dtype=torch.float64)
    b = torch.tensor([1.0, 0, 3, 2], dtype=torch.float64)
    assert overlap(a, b, "iou").item() == pytest.approx(2 / 6, abs=1e-6)
    assert overlap(a, b, "giou").item() == pytest.approx(2 / 6, abs=1e-6)  # the hull is the union
    assert overlap(a, b, "diou").item() == pytest.approx(2 / 6 - 1 / 13, abs=1e-6)
    assert overlap(a, b, "ciou").item() == pytest.approx(2 / 6 - 1 / 13, abs=1e-6)  # the same shape
    assert overlap(a, a + 10, "giou").item() == pytest.approx(-(144 - 8) / 144, abs=1e-6)
    assert pairwise_iou(a[None], torch.stack([b, a, a + 10]))[0].tolist() == pytest.approx([2 / 6, 1, 0])


def test_boxes_without_area_have_no_overlap_and_finite_gradients() -> None:
    point = torch.tensor([[3.0, 3, 3, 3]], requires_grad=True)
    line = torch.tensor([[3.0, 0, 3, 5]], requires_grad=True)
    other = torch.tensor([[0.0, 0, 5, 5]], requires_grad=True)
    for first, second in ((point, point), (point, line), (line, other), (other, point)):
        for kind in KINDS:
            for tensor in (first, second):
                tensor.grad = None
            overlap(first, second, kind).sum().backward()
            assert torch.isfinite(first.grad).all() and torch.isfinite(second.grad).all()
        assert overlap(first, second, "iou").item() == 0
    assert pairwise_iou(point.detach(), point.detach()).item() == 0


def test_forms_are_inverse() -> None:
    torch.manual_seed(0)
    boxes = torch.rand(2, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(with_centres(corners(boxes)), boxes)
    assert corners(torch.tensor([5.0, 4, 2, 6])).tolist() == [4, 1, 6, 7]


def test_distances(arrays: dict[str, torch.Tensor]) -> None:
    found = distances_to_sides(arrays["b2d.anchors"], arrays["b2d.boxes"], 16)
    assert (found - arrays["b2d.ltrb"]).abs().max() < 1e-11
    assert found.max() == 14.99 and found.min() == 0  # the golden boxes reach beyond both ends
    inside = torch.tensor([[1.0, 2, 6, 4]])
    centre = torch.tensor([[2.5, 2.5]])
    torch.testing.assert_close(boxes_from_distances(centre, distances_to_sides(centre, inside, 16)), inside)


def test_the_golden_file_has_what_the_tests_need(arrays: dict[str, torch.Tensor]) -> None:
    assert arrays["box1"].shape == (50, 4) and arrays["dfl.logits"].shape == (96, 16)
    sides = F.relu(arrays["box1"][:, 2:] - arrays["box1"][:, :2])
    assert (sides == 0).any()
