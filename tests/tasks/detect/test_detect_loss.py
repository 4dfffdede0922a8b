"""The detection loss where there is little or nothing to learn from, under autocast, and its options."""

import pytest
import torch
from torch import Tensor

from scanfuse.tasks.detect.assigner import Targets
from scanfuse.tasks.detect.loss import DetectionLoss, detection_loss, distance_loss


def raw_maps(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 66, 64 // s, 96 // s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for s in (8, 16, 32)
    ]


def objects(*rows: tuple[int, int, float, float, float, float]) -> Targets:
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    return Targets(table[:, 0].long(), table[:, 1].long(), table[:, 2:])


SOME = objects((0, 0, 4, 6, 50, 44), (0, 1, 30, 20, 90, 60), (1, 1, 10, 2, 40, 61))


def test_no_object_leaves_the_class_term_only() -> None:
    raw = raw_maps()
    parts = detection_loss(raw, objects())
    assert parts["box"].item() == parts["dfl"].item() == 0 and parts["cls"].item() > 0
    parts["loss"].backward()
    for level in raw:
        assert not level.grad[:, :64].any() and (level.grad[:, 64:] > 0).all()


@pytest.mark.parametrize(
    "odd", [(0, 0, 20, 20, 20, 20), (0, 1, 10, 10, 10, 50), (1, 0, 500, 500, 600, 600), (1, 0, 41, 41, 43, 43)]
)
@pytest.mark.parametrize("rule", ["old", "new"])
def test_boxes_that_no_cell_can_answer_for_are_finite(odd: tuple[float, ...], rule: str) -> None:
    raw = raw_maps()
    parts = detection_loss(raw, objects(odd), DetectionLoss(small_boxes=rule))
    parts["loss"].backward()
    assert all(torch.isfinite(value) for value in parts.values())
    assert all(torch.isfinite(level.grad).all() for level in raw)


def test_a_box_of_the_whole_image_and_beyond() -> None:
    raw = raw_maps()
    parts = detection_loss(raw, objects((0, 0, -500, -500, 900, 900)))
    parts["loss"].backward()
    assert torch.isfinite(parts["loss"]) and parts["box"] > 0
    assert all(torch.isfinite(level.grad).all() for level in raw)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_for_maps_of_16_bits_and_under_autocast(dtype: torch.dtype) -> None:
    raw = raw_maps(dtype)
    wanted = detection_loss([level.detach().float() for level in raw], SOME)
    with torch.autocast("cpu", torch.bfloat16):
        found = detection_loss(raw, SOME)
    for name, value in wanted.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], value), name
    found["loss"].backward()
    assert all(level.grad.dtype == dtype and torch.isfinite(level.grad).all() for level in raw)


@pytest.mark.parametrize(
    "option",
    [
        {"box_gain": 1.0},
        {"class_gain": 1.0},
        {"distance_gain": 1.0},
        {"topk": 1},
        {"align_alpha": 3.0},
        {"align_beta": 1.0},
        {"align_floor": 1.0},
        {"small_boxes": "new"},
    ],
)
def test_every_option_changes_the_loss(option: dict[str, object]) -> None:
    targets = objects((0, 0, 21, 10, 27, 24), (1, 1, 10, 2, 40, 61))
    raw = raw_maps(torch.float64)
    with torch.no_grad():  # boxes of about two cells, so that the tiny one of 6 pixels is met
        for level in raw:
            level[:, [0, 1, 16, 17, 32, 33, 48, 49]] += 5
    plain = detection_loss(raw, targets)["loss"].item()
    changed = detection_loss(raw, targets, DetectionLoss(**option))["loss"].item()
    assert abs(plain - changed) > 1e-3 * plain


def test_gains_multiply_their_terms_and_the_sum_is_times_the_batch() -> None:
    raw = raw_maps(torch.float64)
    parts = detection_loss(raw, SOME)
    ones = detection_loss(raw, SOME, DetectionLoss(box_gain=1, class_gain=1, distance_gain=1))
    for name, gain in (("box", 7.5), ("cls", 0.5), ("dfl", 1.5)):
        assert parts[name].item() == pytest.approx(gain * ones[name].item())
    assert parts["loss"].item() == pytest.approx(2 * sum(parts[name].item() for name in ("box", "cls", "dfl")))


def test_a_step_along_the_gradient_lowers_the_loss() -> None:
    raw = raw_maps(torch.float64)
    before = detection_loss(raw, SOME)["loss"]
    before.backward()
    with torch.no_grad():
        after = detection_loss([level - 1e-3 * level.grad for level in raw], SOME)["loss"]
    assert after < before


def test_distances_between_bins_by_hand() -> None:
    logits = torch.randn(1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(-1)[0]
    distances = torch.tensor([[0.0, 2.25, 4.99, 1.0]], dtype=torch.float64)
    by_hand = [
        p[0, 0].log(),
        0.75 * p[1, 2].log() + 0.25 * p[1, 3].log(),
        0.01 * p[2, 4].log() + 0.99 * p[2, 5].log(),
        p[3, 1].log(),
    ]
    assert distance_loss(logits, distances).item() == pytest.approx(-sum(by_hand).item() / 4)
