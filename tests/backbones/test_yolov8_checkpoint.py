"""YOLOv8 checkpoints: into one network and into two streams; whatever does not fit is one clear line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scanfuse.backbones.yolo import YOLO, YOLOBackbone, scaled
from scanfuse.backbones.yolov8_checkpoint import fill, read_published, size_of, stem_of_mean
from scanfuse.errors import UserError
from scanfuse.layers.detect_head import DetectHead
from scanfuse.verbs.import_weights import import_yolov8

GOLDEN = Path(__file__).parents[1] / "golden"
STEM = "stages.0.0.conv.weight"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    with np.load(GOLDEN / "yolov8_model.npz") as file:
        return {key[3:]: torch.from_numpy(file[key]) for key in file.files if key.startswith("sd/")}


def write(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def two_streams(num_classes: int = 3, **sizes: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    config = scaled(0.33, 0.0625, **sizes)
    whole = YOLO(config, num_classes=num_classes)
    streams = {"rgb": whole.backbone, "ir": YOLOBackbone(config)}
    return {"streams": streams, "neck": whole.neck, "head": whole.head}


def test_every_spelling_gives_the_same_weights(state: State, tmp_path: Path) -> None:
    expected = read_published(write(tmp_path / "a.pt", state))
    assert len(expected.state) == len(state) - 1  # without the fixed bins
    assert str(size_of(expected.config)) == "None"
    without_counters = {key: tensor for key, tensor in state.items() if not key.endswith("tracked")}
    spellings = {
        "b.safetensors": state,
        "c.pt": {"model": state, "epoch": 3},
        "d.pth": {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}},
        "e.pt": {f"model.{key}": tensor for key, tensor in state.items()},
        "f.safetensors": {key.removeprefix("model."): tensor for key, tensor in state.items()},
        "g.pt": without_counters,
    }
    for name, content in spellings.items():
        found = read_published(write(tmp_path / name, content))
        assert found.config == expected.config and found.num_classes == 3
        assert list(found.state) == list(expected.state)
        for key, tensor in found.state.items():
            assert key.endswith("tracked") or torch.equal(tensor, expected.state[key]), (name, key)
    half = read_published(write(tmp_path / "half.pt", {key: t.half() for key, t in state.items()}))
    assert half.state["head.boxes.0.0.conv.weight"].dtype == torch.float32


def test_sizes_are_named_from_the_shapes(tmp_path: Path) -> None:
    from scanfuse.backbones.yolo import SIZES
    from scanfuse.backbones.yolov8_checkpoint import _published_name

    torch.manual_seed(0)
    model = YOLO(SIZES["n"], num_classes=80)
    published = {_published_name(key): tensor for key, tensor in model.state_dict().items()}
    found = read_published(write(tmp_path / "n.safetensors", published))
    assert size_of(found.config) == "n" and found.num_classes == 80
    for key, tensor in model.state_dict().items():
        assert torch.equal(found.state[key], tensor)


def test_both_streams_neck_and_head(state: State, tmp_path: Path) -> None:
    published = read_published(write(tmp_path / "a.pt", state))
    parts = two_streams()
    report = fill(published, **parts)
    rgb, ir = parts["streams"]["rgb"].state_dict(), parts["streams"]["ir"].state_dict()
    assert torch.equal(rgb[STEM], state["model.0.conv.weight"])
    mean = state["model.0.conv.weight"].mean(dim=1)
    for channel in range(3):
        torch.testing.assert_close(ir[STEM][:, channel], mean)
    assert [key for key in rgb if not torch.equal(rgb[key], ir[key])] == [STEM]
    torch.testing.assert_close(parts["head"].state_dict()["classes.1.2.bias"], state["model.22.cv3.1.2.bias"])
    assert torch.equal(parts["neck"].state_dict()["down4.bn.running_var"], state["model.19.bn.running_var"])
    assert report.missing == report.skipped == ()
    assert len(report.matched) == 2 * len(rgb) + len(parts["neck"].state_dict()) + len(parts["head"].state_dict())
    assert "missing: nothing" in str(report) and "3 classes" in str(report)


def test_a_grey_image_gives_the_same_in_both_streams(state: State, tmp_path: Path) -> None:
    published = read_published(write(tmp_path / "a.pt", state))
    parts = two_streams()
    fill(published, **parts)
    one = YOLOBackbone(scaled(0.33, 0.0625), in_channels=1)
    fill(published, streams={"thermal": one}, averaged=("thermal",))
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        a = parts["streams"]["rgb"].eval()(grey.expand(1, 3, 64, 64))
        b = parts["streams"]["ir"].eval()(grey.expand(1, 3, 64, 64))
        c = one.eval()(grey)
    for level in range(4):
        torch.testing.assert_close(b[level], a[level], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(c[level], a[level], atol=1e-4, rtol=1e-4)
    weight = torch.randn(4, 3, 3, 3)
    torch.testing.assert_close(stem_of_mean(weight).sum(1), weight.sum(1))


@pytest.mark.parametrize("num_classes", [2, 30])
def test_another_number_of_classes_keeps_the_boxes_only(state: State, tmp_path: Path, num_classes: int) -> None:
    """2 classes have hidden layers of the same width (16) and keep them; 30 classes have wider ones."""
    published = read_published(write(tmp_path / "a.pt", state))
    parts = two_streams(num_classes)
    before = {key: tensor.clone() for key, tensor in parts["head"].state_dict().items()}
    report = fill(published, **parts)
    after = parts["head"].state_dict()
    last = [f"classes.{level}.2.{name}" for level in range(3) for name in ("weight", "bias")]
    fresh = {key.removeprefix("head.") for key in report.missing}
    assert fresh >= set(last)
    hidden = {key for key in after if key.startswith("classes.") and key not in last}
    assert fresh == set(last) | (hidden if num_classes == 30 else set())
    for key in after:
        assert torch.equal(after[key], before[key]) == (key in fresh) or key.endswith("tracked"), key
    assert f"classes (the file has 3, the detector {num_classes})" in report.skipped


def test_import_writes_a_folder_that_gives_the_weights_back(state: State, tmp_path: Path) -> None:
    file = write(tmp_path / "a.pt", state)
    report = import_yolov8(file, tmp_path / "imported")
    assert len(report.matched) == len(state) - 1
    found, expected = read_published(tmp_path / "imported"), read_published(file)
    assert found.config == expected.config and found.num_classes == expected.num_classes
    assert all(torch.equal(found.state[key], tensor) for key, tensor in expected.state.items())
    assert len(load_file(tmp_path / "imported" / "weights.safetensors")) == len(expected.state)
    with pytest.raises(UserError, match="already holds"):
        import_yolov8(file, tmp_path / "imported")
    config = tmp_path / "imported" / "config.yaml"
    config.write_text(config.read_text().replace("- 64", "- 128"))
    with pytest.raises(UserError, match="has shape"):
        read_published(tmp_path / "imported")


def test_a_detector_with_a_further_head_is_read_and_the_rest_named(state: State, tmp_path: Path) -> None:
    extra = {**state, "model.22.proto.cv1.conv.weight": torch.ones(1), "model.22.cv4.0.0.conv.weight": torch.ones(1)}
    found = read_published(write(tmp_path / "seg.pt", extra))
    assert set(found.skipped) == {"model.22.proto.cv1.conv.weight", "model.22.cv4.0.0.conv.weight"}


def folded(state: State) -> State:
    """Norms folded into the convolutions, as an exported network has them."""
    kept = {key: tensor for key, tensor in state.items() if ".bn." not in key}
    biases = {key.replace("bn.bias", "conv.bias"): t for key, t in state.items() if key.endswith("bn.bias")}
    return {**kept, **biases}


def without(part: str) -> Callable[[State], State]:
    return lambda state: {key: tensor for key, tensor in state.items() if part not in key}


def changed(part: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {key: change(tensor) if part in key else tensor for key, tensor in state.items()}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (folded, "batch norms folded into the convolutions"),
        (without("model.7.conv"), r"lacks model\.7\.conv\.weight of the network"),
        (without("model.16."), r"lacks model\.16\.conv\.weight, model\.16\.bn\.weight.* and 2 more"),
        (without("model.22.cv3."), "is not a YOLOv8 detector in the published names"),
        (without("model.22.cv2."), r"model\.22\.cv2\.0\.2\.weight is missing"),
        (without("model.9."), r"model\.9\.cv2\.conv\.weight is missing"),
        (without("model.0."), r"model\.0\.conv\.weight is missing"),
        (without("model.4.m.0."), r"lacks model\.4\.m\.0"),
        (lambda state: {**state, "model.10.attn.weight": torch.ones(1)}, "published names.*it has model.10.attn"),
        (lambda state: {**state, "model.2.cv9.weight": torch.ones(1)}, r"does not have: model\.2\.cv9\.weight"),
        (lambda state: {**state, "model.2.cv3.conv.weight": torch.ones(1)}, "is a YOLOv5 network"),
        (lambda state: {f"backbone.{key}": tensor for key, tensor in state.items()}, "published names"),
        (changed("model.12.cv1.conv", lambda t: t[:-1]), r"model\.12\.cv1\.conv\.weight has shape"),
        (changed("model.22.cv2.0.2", lambda t: t[:32]), "has 8 bins per side"),
        (changed("model.22.dfl", lambda t: t + 1), "distances of its bins"),
        (changed("model.3.conv", lambda t: t * torch.nan), "not finite"),
        (changed("model.3.conv", lambda t: t.long()), "must be floating point"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(
    state: State, damage: Callable[[State], State], message: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "bad.pt", damage(state))
    with pytest.raises(UserError, match=message) as caught:
        read_published(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_truncated_and_foreign_files_are_one_line(state: State, suffix: str, tmp_path: Path) -> None:
    whole = write(tmp_path / f"whole.{suffix}", state).read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"<html>not found</html>"}.items():
        file = tmp_path / f"{name}.{suffix}"
        file.write_bytes(content)
        with pytest.raises(UserError, match=f"{file}.*(damaged|truncated)") as caught:
            read_published(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="There is no file"):
        read_published(tmp_path / f"absent.{suffix}")
    with pytest.raises(UserError, match="not a dictionary"):
        read_published(write(tmp_path / "list.pt", [1, 2]))
    with pytest.raises(UserError, match="holds no tensors under 'model'"):
        read_published(write(tmp_path / "none.pt", {"model": {"epoch": 1}}))


class Surprise:
    """An object that a pickle would have to construct."""


def test_pickled_networks_are_refused_and_not_run(state: State, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Python objects besides tensors.*state dict"):
        read_published(write(tmp_path / "objects.pt", {"model": Surprise(), "state": state}))


def test_another_size_changes_nothing(state: State, tmp_path: Path) -> None:
    published = read_published(write(tmp_path / "a.pt", state))
    parts = two_streams(max_channels=512)
    before = {key: tensor.clone() for key, tensor in parts["streams"]["rgb"].state_dict().items()}
    with pytest.raises(
        UserError, match=r"holds YOLOv8: channels 8,8,16,32,64.*but the rgb stream is YOLOv8"
    ) as caught:
        fill(published, **parts)
    assert "\n" not in str(caught.value)
    fitting = two_streams()
    fitting["head"] = DetectHead((16, 32, 128), num_classes=3)
    with pytest.raises(UserError, match="does not fit the head"):
        fill(published, **fitting)
    for stream in (parts["streams"]["rgb"], fitting["streams"]["rgb"]):
        now = stream.state_dict()
        same = [key for key in now if key in before and now[key].shape == before[key].shape]
        assert not any(torch.equal(now[key], published.state[f"backbone.{key}"]) for key in same if "conv" in key)
    with pytest.raises(ValueError, match="averaged"):
        fill(published, streams={"rgb": fitting["streams"]["rgb"]})
