"""The assigner against a slow one written from the words of its docstring, and where there is nothing to assign."""

import math

import pytest
import torch
from torch import Tensor

from scanfuse.layers.detect_head import cell_centres
from scanfuse.tasks.detect.assigner import Targets, assign
from scanfuse.tasks.detect.boxes import overlap


def slow(
    boxes: Tensor, scores: Tensor, centres: Tensor, targets: Targets, topk: int, alpha: float, beta: float, new: bool
) -> tuple[list[list[int]], Tensor]:
    """Loops over images, objects and cells; lists and sorting only."""
    batch, cells, _ = scores.shape
    owner = [[-1] * cells for _ in range(batch)]
    wanted = torch.zeros_like(scores)
    for image in range(batch):
        objects = [row for row in range(len(targets.image)) if targets.image[row] == image]
        fit: dict[tuple[int, int], float] = {}
        align: dict[tuple[int, int], float] = {}
        claims: dict[int, list[int]] = {}
        for row in objects:
            x1, y1, x2, y2 = targets.boxes[row].tolist()
            if new and x2 - x1 < 16:
                x1, x2 = (x1 + x2) / 2 - 8, (x1 + x2) / 2 + 8
            if new and y2 - y1 < 16:
                y1, y2 = (y1 + y2) / 2 - 8, (y1 + y2) / 2 + 8
            for cell in range(cells):
                x, y = centres[cell].tolist()
                if x1 < x < x2 and y1 < y < y2:
                    fit[row, cell] = max(overlap(targets.boxes[row], boxes[image, cell], "ciou").item(), 0.0)
                    score = scores[image, cell, targets.classes[row]].item()
                    align[row, cell] = score**alpha * fit[row, cell] ** beta
            ranked = sorted((cell for r, cell in align if r == row), key=lambda cell: -align[row, cell])
            for cell in ranked[:topk]:
                if align[row, cell] > 0:
                    claims.setdefault(cell, []).append(row)
        for cell, rows in claims.items():
            if len(rows) > 1:
                rows = sorted((row for row in objects if (row, cell) in fit), key=lambda row: -fit[row, cell])
            owner[image][cell] = rows[0]
        for row in objects:
            own = [cell for cell in range(cells) if owner[image][cell] == row]
            most_align = max((align[row, cell] for cell in own), default=0)
            most_fit = max((fit[row, cell] for cell in own), default=0)
            for cell in own:
                weight = align[row, cell] * most_fit / (most_align + 1e-9)
                wanted[image, cell, targets.classes[row]] = weight
    return owner, wanted


def scene(seed: int, objects: int = 9) -> tuple[Tensor, Tensor, Tensor, Targets]:
    """Two images of 96 x 64 pixels, crowded objects and predictions that scatter around them."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    maps = [torch.zeros(2, 1, 64 // s, 96 // s, dtype=torch.float64) for s in (8, 16, 32)]
    centres, sizes = cell_centres(maps)
    centres = centres * sizes
    middle = rand(objects, 2) * torch.tensor([96, 64])
    half = (3 + 30 * rand(objects, 2) ** 2) / 2
    targets = Targets(
        (rand(objects) < 0.7).long(), (rand(objects) * 3).long(), torch.cat([middle - half, middle + half], 1)
    )
    boxes = torch.cat([centres, centres], 1) + (rand(2, len(centres), 4) * 24 + 2) * torch.tensor([-1, -1, 1, 1])
    return boxes, rand(2, len(centres), 3), centres, targets


@pytest.mark.parametrize("rule", ["old", "new"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_slow_one(seed: int, rule: str) -> None:
    boxes, scores, centres, targets = scene(seed)
    topk, alpha, beta = ((10, 0.5, 6.0), (3, 1.0, 2.0))[seed % 2]
    found = assign(boxes, scores, centres, targets, topk=topk, alpha=alpha, beta=beta, small_boxes=rule)
    owner, wanted = slow(boxes, scores, centres, targets, topk, alpha, beta, rule == "new")
    assert found.target.tolist() == owner
    assert (found.scores - wanted).abs().max() < 1e-12
    assert (found.target >= 0).any()


def test_contested_cells_occur_in_the_scenes() -> None:
    """Otherwise the test above would not see how they are settled."""
    boxes, scores, centres, targets = scene(0)
    alone = [
        assign(boxes, scores, centres, Targets(*(part[row : row + 1] for part in targets))).target >= 0
        for row in range(len(targets.image))
    ]
    assert (torch.stack(alone).sum(0) > 1).any()


def test_the_order_of_the_objects_does_not_matter() -> None:
    boxes, scores, centres, targets = scene(3)
    first = assign(boxes, scores, centres, targets)
    order = torch.randperm(len(targets.image), generator=torch.Generator().manual_seed(0))
    second = assign(boxes, scores, centres, Targets(*(part[order] for part in targets)))
    assert torch.equal(first.scores, second.scores)
    has = first.target >= 0
    assert torch.equal(order[second.target[has]], first.target[has])


@pytest.mark.parametrize(
    "option", [{"topk": 2}, {"alpha": 2.0}, {"beta": 1.0}, {"small_boxes": "new"}, {"floor": 0.1}]
)
def test_every_option_changes_the_assignment(option: dict[str, object]) -> None:
    boxes, scores, centres, targets = scene(1)
    assert not torch.equal(
        assign(boxes, scores, centres, targets).scores, assign(boxes, scores, centres, targets, **option).scores
    )


def test_no_objects_at_all() -> None:
    boxes, scores, centres, _ = scene(0)
    none = Targets(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
    found = assign(boxes, scores, centres, none)
    assert (found.target == -1).all() and not found.scores.any()
    assert found.scores.shape == scores.shape


def test_objects_without_a_candidate_get_nothing_and_disturb_nobody() -> None:
    boxes, scores, centres, targets = scene(2)
    odd = torch.tensor(
        [
            [20.0, 20, 20, 20],  # a point on a cell's centre
            [10, 10, 10, 50],  # no width
            [500, 500, 600, 600],  # outside
            [41, 41, 43, 43],  # between centres
            [50, 50, 40, 40],  # inside out
        ],
        dtype=torch.float64,
    )
    more = Targets(
        torch.cat([targets.image, torch.zeros(5, dtype=torch.long)]),
        torch.cat([targets.classes, torch.zeros(5, dtype=torch.long)]),
        torch.cat([targets.boxes, odd]),
    )
    for rule in ("old", "new"):
        alone = assign(boxes, scores, centres, targets, small_boxes=rule)
        found = assign(boxes, scores, centres, more, small_boxes=rule)
        assert torch.isfinite(found.scores).all()
        if rule == "old":
            assert torch.equal(found.scores, alone.scores) and torch.equal(found.target, alone.target)
    only = assign(boxes, scores, centres, Targets(*(part[-5:] for part in more)))
    assert (only.target == -1).all()


def test_two_equal_objects_share_nothing() -> None:
    boxes, scores, centres, targets = scene(4, objects=1)
    twice = Targets(*(part.repeat(2, *([1] * (part.dim() - 1))) for part in targets))
    one, two = assign(boxes, scores, centres, targets), assign(boxes, scores, centres, twice)
    assert torch.equal(one.target, two.target) and torch.equal(one.scores, two.scores)


def test_an_object_that_is_hardly_overlapped_starves_with_the_published_floor() -> None:
    """A box of 120 pixels around an object of 20, scored as at the start: 1 / 36 of overlap, to the sixth power."""
    centres, boxes = torch.tensor([[64.0, 64]]), torch.tensor([[[4.0, 4, 124, 124]]])
    target = Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[54.0, 54, 74, 74]]))
    published, low = (
        assign(boxes, torch.full((1, 1, 1), 4e-4), centres, target, floor=floor).scores.item()
        for floor in (1e-9, 1e-30)
    )
    assert low == pytest.approx(1 / 36, rel=1e-3) and 0 < published < 0.01 * low


def test_fewer_cells_than_topk() -> None:
    centres = torch.tensor([[16.0, 16]])
    boxes = torch.tensor([[[2.0, 2, 30, 30]]])
    target = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.0, 0, 32, 32]]))
    found = assign(boxes, torch.full((1, 1, 2), 0.25), centres, target)
    assert found.target.tolist() == [[0]]
    # The only cell is its own best, so it should score what its box fits: 28^2 / 32^2.
    assert found.scores[0, 0].tolist() == pytest.approx([0, 28**2 / 32**2], abs=1e-5)
    assert math.isclose(found.scores.sum().item(), found.scores.max().item())
