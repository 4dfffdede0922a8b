"""The parts together: two streams that are added, neck, head, assigner, loss, suppression and table overfit pairs."""

import numpy as np
import torch
from torch import Tensor, nn

from scanfuse.backbones.yolo import YOLO, YOLOBackbone, scaled
from scanfuse.layers.detect_head import decode
from scanfuse.metrics.detection.average_precision import summary
from scanfuse.metrics.detection.inputs import checked
from scanfuse.metrics.detection.matching import match
from scanfuse.tasks.detect.assigner import Targets
from scanfuse.tasks.detect.loss import DetectionLoss, detection_loss
from scanfuse.tasks.detect.nms import select

SIDE, PAIRS, STEPS = 64, 5, 80


class TwoStreams(nn.Module):
    """The plainest detector of two sensors: maps of P3, P4, P5 are added."""

    def __init__(self) -> None:
        super().__init__()
        whole = YOLO(scaled(0.33, 0.125), num_classes=2, initial_distance=2.0)
        self.rgb, self.neck, self.head = whole.backbone, whole.neck, whole.head
        self.ir = YOLOBackbone(whole.config)

    def forward(self, rgb: Tensor, ir: Tensor) -> tuple[Tensor, ...]:
        levels = []
        for stage_rgb, stage_ir in zip(self.rgb.stages, self.ir.stages, strict=True):
            rgb, ir = stage_rgb(rgb), stage_ir(ir)
            levels.append(rgb + ir)
        return self.head(*self.neck(*levels[1:]))


def scenes() -> tuple[Tensor, Tensor, Targets]:
    """Rectangles on noise: class 0, on the left, is seen by the first sensor only, class 1 by the second only."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(0.2 * rng.random((2, PAIRS, 3, SIDE, SIDE), np.float32))
    rows = []
    for number in range(PAIRS):
        for label in range(2):
            width, height = rng.integers(14, 30, 2)
            x, y = SIDE // 2 * label + rng.integers(0, SIDE // 2 - width), rng.integers(0, SIDE - height)
            images[label, number, :, y : y + height, x : x + width] += 0.6
            rows.append((number, label, x, y, x + width, y + height))
    table = torch.tensor(rows, dtype=torch.float32)
    return images[0], images[1], Targets(table[:, 0].long(), table[:, 1].long(), table[:, 2:])


def table(model: nn.Module, rgb: Tensor, ir: Tensor, targets: Targets) -> list[float]:
    """mAP50 of each class."""
    model.eval()
    with torch.no_grad():
        found = select(*decode(model(rgb, ir)))
    images = []
    for number, kept in enumerate(found):
        mine = targets.image == number
        images.append(checked(kept.boxes, kept.scores, kept.classes, targets.boxes[mine], targets.classes[mine]))
    return [float(row["map50"][0]) for row in summary(match(images, 2))[1]]


def test_two_streams_overfit_pairs_and_each_class_rests_on_its_sensor() -> None:
    torch.manual_seed(0)
    rgb, ir, targets = scenes()
    model = TwoStreams()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.1  # with the published 0.03, running statistics need hundreds of steps to arrive
    assert max(table(model, rgb, ir, targets)) < 0.1
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    settings = DetectionLoss(align_floor=1e-30)  # the published start leaves most of these objects unseen for ever
    for _ in range(STEPS):
        model.train()
        optimiser.zero_grad()
        detection_loss(model(rgb, ir), targets, settings)["loss"].backward()
        optimiser.step()
        schedule.step()
    assert min(table(model, rgb, ir, targets)) > 0.9
    blind_rgb, blind_ir = (
        table(model, *pair, targets) for pair in ((torch.zeros_like(rgb), ir), (rgb, torch.zeros_like(ir)))
    )
    assert blind_rgb[0] < 0.3 and blind_ir[1] < 0.3
