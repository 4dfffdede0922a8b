"""Assigner, loss and gradients against the published program, by both rules for tiny boxes; also of a network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scanfuse.backbones.yolo import YOLO, scaled
from scanfuse.backbones.yolov8_checkpoint import our_name
from scanfuse.layers.detect_head import boxes_from_distances, cell_centres, expected_distances, flatten
from scanfuse.tasks.detect.assigner import Targets, assign
from scanfuse.tasks.detect.boxes import corners
from scanfuse.tasks.detect.loss import DetectionLoss, detection_loss, distance_loss

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = ("net", "synth", "three", "tiny", "empty")
SIZE = torch.tensor([160.0, 128, 160, 128], dtype=torch.float64)
RULES = pytest.mark.parametrize("rule", ["new", "old"])
NAMES = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "yolov8_loss.npz") as file:
        return {key: file[key] for key in file.files}


def raw_maps(arrays: dict[str, np.ndarray], case: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    name = "net" if case == "empty" else case
    return [torch.from_numpy(arrays[f"{name}.raw{level}"]).to(dtype).requires_grad_() for level in range(3)]


def targets_of(rows: np.ndarray, dtype: torch.dtype = torch.float64) -> Targets:
    table = torch.from_numpy(rows).double()
    return Targets(table[:, 0].long(), table[:, 1].long(), (corners(table[:, 2:]) * SIZE).to(dtype))


def assigned(arrays: dict[str, np.ndarray], case: str, rule: str, dtype: torch.dtype = torch.float64):
    raw = raw_maps(arrays, case, dtype)
    sides, logits = flatten(raw)
    centres, sizes = cell_centres(raw)
    boxes = boxes_from_distances(centres, expected_distances(sides)) * sizes
    targets = targets_of(arrays[f"{case}.targets"], dtype)
    return assign(boxes, logits.sigmoid(), centres * sizes, targets, small_boxes=rule), targets


@RULES
@NAMES
def test_assignment(arrays: dict[str, np.ndarray], case: str, rule: str) -> None:
    found, targets = assigned(arrays, case, rule)
    wanted = torch.from_numpy(arrays[f"{case}.{rule}.target_scores"])
    is_positive = torch.from_numpy(arrays[f"{case}.{rule}.fg"])
    assert (found.scores - wanted).abs().max() < 1e-11
    assert torch.equal(found.target >= 0, is_positive)
    # The golden index counts the objects of one image; the boxes say the same of rows in any order.
    for image, cell in is_positive.nonzero().tolist():
        row = found.target[image, cell]
        assert targets.image[row] == image
        rank = (targets.image[:row] == image).sum()
        assert rank == arrays[f"{case}.{rule}.target_gt_idx"][image, cell]
        if rule == "new":
            box = torch.from_numpy(arrays[f"{case}.new.target_bboxes"][image, cell])
            torch.testing.assert_close(targets.boxes[row], box, rtol=0, atol=1e-5)


@RULES
@NAMES
def test_loss_and_gradients(arrays: dict[str, np.ndarray], case: str, rule: str) -> None:
    raw = raw_maps(arrays, case)
    parts = detection_loss(raw, targets_of(arrays[f"{case}.targets"]), DetectionLoss(small_boxes=rule))
    items = [parts[name].item() for name in ("box", "cls", "dfl")]
    assert items == pytest.approx(arrays[f"{case}.{rule}.items"].tolist(), rel=1e-11, abs=1e-12)
    assert parts["loss"].item() == pytest.approx(arrays[f"{case}.{rule}.total"].item(), rel=1e-11)
    parts["loss"].backward()
    stored = rule if f"{case}.{rule}.g_raw0" in arrays else "new"
    tolerance = 2e-7 if stored == rule else 1e-5  # the rules differ by less than 1e-5 where one is stored
    for level in range(3):
        wanted = torch.from_numpy(arrays[f"{case}.{stored}.g_raw{level}"]).double()
        assert (raw[level].grad - wanted).abs().max() < tolerance * wanted.abs().max()


@NAMES
def test_in_float32(arrays: dict[str, np.ndarray], case: str) -> None:
    raw = raw_maps(arrays, case, torch.float32)
    parts = detection_loss(
        raw, targets_of(arrays[f"{case}.targets"], torch.float32), DetectionLoss(small_boxes="new")
    )
    items = [parts[name].item() for name in ("box", "cls", "dfl")]
    assert items == pytest.approx(arrays[f"{case}.new.items"].tolist(), rel=1e-5, abs=1e-6)
    parts["loss"].backward()
    for level in range(3):
        wanted = torch.from_numpy(arrays[f"{case}.new.g_raw{level}"])
        assert raw[level].grad.dtype == torch.float32
        assert (raw[level].grad - wanted).abs().max() < 5e-5 * wanted.abs().max()


def test_the_rules_differ_on_tiny_boxes_only(arrays: dict[str, np.ndarray]) -> None:
    losses = {}
    for case in CASES:
        targets = targets_of(arrays[f"{case}.targets"])
        losses[case] = [
            detection_loss(raw_maps(arrays, case), targets, DetectionLoss(small_boxes=rule))["loss"].item()
            for rule in ("old", "new")
        ]
    assert losses["tiny"][0] > 1.5 * losses["tiny"][1]
    assert all(old == pytest.approx(new, rel=1e-6) for case, (old, new) in losses.items() if case != "tiny")


def test_distances() -> None:
    with np.load(GOLDEN / "yolov8_boxes.npz") as file:
        logits, target, loss, cotangent, gradient = (
            torch.from_numpy(file[f"dfl.{name}"]) for name in ("logits", "target", "loss", "ct", "g_logits")
        )
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        rows = logits.clone().to(dtype).detach().requires_grad_()
        found = distance_loss(rows.unflatten(0, (-1, 4)), target.clamp(0, 14.99).to(dtype))
        (found * cotangent.to(dtype)).sum().backward()
        assert (found.double() - loss).abs().max() < tolerance
        assert (rows.grad.double() - gradient).abs().max() < tolerance


def test_loss_of_a_network_and_all_its_gradients() -> None:
    with np.load(GOLDEN / "yolov8_model.npz") as file:
        golden = {key: file[key] for key in file.files}
    model = YOLO(scaled(0.33, 0.0625), num_classes=3)
    published = {our_name(key[3:]): torch.from_numpy(v) for key, v in golden.items() if key.startswith("sd/")}
    model.load_state_dict({key: tensor for key, tensor in published.items() if key is not None}, strict=True)
    model.double().train()
    raw = model(torch.from_numpy(golden["train.x"]).double())
    parts = detection_loss(raw, targets_of(golden["train.targets"]), DetectionLoss(small_boxes="new"))
    items = [parts[name].item() for name in ("box", "cls", "dfl")]
    assert items == pytest.approx(golden["train.loss_items"].tolist(), rel=1e-10)
    assert parts["loss"].item() == pytest.approx(golden["train.loss_total"].item(), rel=1e-10)
    parts["loss"].backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert {our_name(name) for name in golden["train.g_names"]} == set(gradients)
    rows = zip(golden["train.g_names"], golden["train.g_norm"], golden["train.g_sum"], strict=True)
    for name, norm, total in rows:
        gradient = gradients[our_name(name)]
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-8), name
        assert gradient.sum().item() == pytest.approx(total, abs=1e-8 * norm), name
