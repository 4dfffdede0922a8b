"""The YOLO streams: published parameter counts, the family's rule, stages that a fusion can stand between."""

import pytest
import torch

from scanfuse.backbones.yolo import SIZES, SIZES_V5, YOLO, YOLOBackbone, scaled

# As published, so with the 16 fixed values of the distances' bins.
STOCK_V8 = {"n": 3_157_200, "s": 11_166_560, "m": 25_902_640, "l": 43_691_520, "x": 68_229_648}
# With the published head of three anchors of 85 numbers per cell, one 1x1 convolution per level.
STOCK_V5 = {"n": 1_872_157, "s": 7_235_389, "m": 21_190_557, "l": 46_563_709, "x": 86_749_405}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("size", STOCK_V8)
def test_stock_counts_of_yolov8(size: str) -> None:
    with torch.device("meta"):
        assert count(YOLO(SIZES[size], num_classes=80)) + 16 == STOCK_V8[size]


@pytest.mark.parametrize("size", STOCK_V5)
def test_stock_counts_of_yolov5(size: str) -> None:
    with torch.device("meta"):
        model = YOLO(SIZES_V5[size], num_classes=80)
    anchors = sum(255 * dim + 255 for dim in model.config.dims)
    assert count(model.backbone) + count(model.neck) + anchors == STOCK_V5[size]


@pytest.mark.parametrize(
    ("config", "millions"), [(SIZES["paper"], 114.22), (SIZES["l"], 63.44), (SIZES_V5["paper"], 80.73)]
)
def test_counts_of_two_streams_with_three_classes(config: object, millions: float) -> None:
    """What `add` fusion costs; the published 117.2 for YOLOv8 has 2.98 that nothing explains."""
    with torch.device("meta"):
        model = YOLO(config, num_classes=3)
    assert round((count(model) + count(model.backbone)) / 1e6, 2) == millions


def test_the_rule_of_the_family() -> None:
    tiny = scaled(0.33, 0.0625)
    assert tiny.channels == (8, 8, 16, 32, 64) and tiny.depths == (1, 2, 2, 1) and tiny.neck_depth == 1
    assert scaled(1.0, 0.1).channels == (8, 16, 32, 56, 104)  # 6.4, 12.8, 25.6, 51.2, 102.4
    assert SIZES["m"].channels == (48, 96, 192, 384, 576) and SIZES["m"].dims == (192, 384, 576)
    assert SIZES["paper"].depths == (3, 6, 6, 3) and SIZES["paper"].dims == (256, 512, 1024)
    assert SIZES_V5["paper"].depths == (3, 9, 9, 3)


@pytest.mark.parametrize("variant", ["v8", "v5"])
def test_stages_one_by_one_are_the_whole(variant: str) -> None:
    torch.manual_seed(0)
    stream = YOLOBackbone(scaled(0.33, 0.0625, variant=variant)).eval()
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        levels = stream(x)
        y = x
        for stage, level, stride, channels in zip(
            stream.stages, levels, stream.strides, stream.channels, strict=True
        ):
            y = stage(y)
            assert torch.equal(y, level)
            assert tuple(y.shape) == (2, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize("variant", ["v8", "v5"])
def test_what_is_fed_into_a_stage_changes_all_levels_after_it(variant: str) -> None:
    torch.manual_seed(0)
    stream = YOLOBackbone(scaled(0.33, 0.0625, variant=variant)).eval()
    with torch.no_grad():
        _, p3, p4, p5 = stream(torch.rand(1, 3, 64, 64))
        changed4 = stream.stages[2](p3 + 1)
        changed5 = stream.stages[3](changed4)
    assert (changed4 - p4).abs().max() > 1e-4 and (changed5 - p5).abs().max() > 1e-5


@pytest.mark.parametrize("variant", ["v8", "v5"])
def test_every_parameter_of_a_detector_gets_a_gradient(variant: str) -> None:
    torch.manual_seed(0)
    model = YOLO(scaled(0.33, 0.0625, variant=variant), num_classes=2)
    x = torch.rand(2, 3, 64, 96, requires_grad=True)
    sum((raw * torch.randn_like(raw)).sum() for raw in model(x)).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9]
    assert without == [] and x.grad.abs().max() > 0


def test_an_odd_size_gives_maps_that_fit_the_neck() -> None:
    model = YOLO(scaled(0.33, 0.0625), num_classes=2).eval()
    with torch.no_grad():
        raw = model(torch.rand(1, 3, 100, 70))
    assert [tuple(level.shape[2:]) for level in raw] == [(13, 9), (7, 5), (4, 3)]
