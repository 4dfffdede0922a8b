"""YOLOv8 against the published program: neck, raw maps, boxes, batch statistics and gradients of a small detector.

The golden file's network has depth 0.33, width 0.0625 and 3 classes; weights, inputs and values are its own.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scanfuse.backbones.yolo import YOLO, scaled
from scanfuse.backbones.yolov8_checkpoint import our_name, read_published
from scanfuse.layers.detect_head import decode

GOLDEN = Path(__file__).parents[1] / "golden"
# Relative to the largest golden value. Raw maps are stored in float64, maps of the neck in float32.
TOLERANCE = {torch.float64: {"raw": 1e-10, "stored32": 2e-7}, torch.float32: {"raw": 1e-4, "stored32": 1e-4}}
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "yolov8_model.npz") as file:
        return {key: file[key] for key in file.files}


def published_state(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {key[3:]: torch.from_numpy(value) for key, value in arrays.items() if key.startswith("sd/")}


def detector(arrays: dict[str, np.ndarray], folder: Path, dtype: torch.dtype) -> YOLO:
    """Through a file in the published layout, as a user would."""
    torch.save(published_state(arrays), folder / "published.pt")
    published = read_published(folder / "published.pt")
    assert published.config == scaled(0.33, 0.0625) and published.num_classes == 3 and published.skipped == ()
    model = YOLO(published.config, num_classes=published.num_classes)
    model.load_state_dict(published.state, strict=True)
    return model.to(dtype).eval()


def relative_error(value: Tensor, expected: np.ndarray) -> float:
    wanted = torch.from_numpy(expected).double()
    assert value.shape == wanted.shape
    return ((value.double() - wanted).abs().max() / wanted.abs().max()).item()


@DTYPES
def test_neck_raw_maps_and_boxes(arrays: dict[str, np.ndarray], tmp_path: Path, dtype: torch.dtype) -> None:
    model = detector(arrays, tmp_path, dtype)
    assert sum(p.numel() for p in model.parameters()) + 16 == 355_121
    x = torch.from_numpy(arrays["eval.x"]).to(dtype)
    with torch.no_grad():
        neck = model.neck(*model.backbone(x)[1:])
        raw = model(x)
        boxes, scores = decode(raw)
    for level in range(3):
        assert relative_error(neck[level], arrays[f"eval.neck{level}"]) < TOLERANCE[dtype]["stored32"]
        assert relative_error(raw[level], arrays[f"eval.raw{level}"]) < TOLERANCE[dtype]["raw"]
    centre, side = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    decoded = torch.cat([centre, side, scores], dim=-1).transpose(1, 2).double()
    wanted = torch.from_numpy(arrays["eval.decoded"])
    if dtype == torch.float64:
        assert relative_error(decoded, arrays["eval.decoded"]) < 1e-10
    else:
        assert (decoded - wanted)[:, :4].abs().max() < 0.05  # pixels
        assert (decoded - wanted)[:, 4:].abs().max() < 2e-4


def test_running_statistics_after_a_forward_in_training(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    model = detector(arrays, tmp_path, torch.float64).train()
    with np.load(GOLDEN / "yolov8_loss.npz") as file:
        wanted = [file[f"net.raw{level}"] for level in range(3)]
    with torch.no_grad():
        raw = model(torch.from_numpy(arrays["train.x"]).double())
    for level in range(3):
        assert relative_error(raw[level], wanted[level]) < 2e-7
    after = {key.removeprefix("train.bn_after/"): value for key, value in arrays.items() if "bn_after" in key}
    assert len(after) == 114
    state = model.state_dict()
    for key, value in after.items():
        found = state[our_name(key)].numpy()
        assert np.abs(found - value).max() <= 1e-6 * max(1.0, np.abs(value).max()), key
