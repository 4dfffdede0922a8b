"""timm networks as encoders: the deepest map, channels first, without unused parts."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from scanfuse.backbones.timm_encoder import TimmEncoder
from scanfuse.errors import UserError


# swin's maps are channels last inside timm, the others channels first.
@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("resnet10t", 64, (512, 2, 2)),
        ("convnext_atto", 64, (320, 2, 2)),
        ("swin_tiny_patch4_window7_224", 224, (768, 7, 7)),
    ],
)
def test_deepest_map_of_an_encoder_without_unused_parts(name: str, size: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    encoder = TimmEncoder(name)
    features = encoder(torch.rand(2, 3, size, size))
    assert tuple(features.shape) == (2, *shape) and encoder.dim == shape[0]
    (features * torch.randn_like(features)).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_weights_from_a_file_in_timms_own_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    full = timm.create_model("convnext_atto")
    save_file(full.state_dict(), tmp_path / "weights.safetensors")
    encoder = TimmEncoder("convnext_atto").eval()
    encoder.load(tmp_path / "weights.safetensors")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), full.eval().forward_features(x))
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="timm cannot load"):
        encoder.load(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"absent\.safetensors does not exist"):
        encoder.load(tmp_path / "absent.safetensors")


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(UserError, match=r"no model 'convnext_tinny'; similar: .*convnext_tiny"):
        TimmEncoder("convnext_tinny")


@pytest.mark.parametrize("name", ["dla46_c", "swin_tiny_patch4_window7_224"])
def test_a_size_that_the_network_cannot_take_is_one_line(name: str) -> None:
    encoder = TimmEncoder(name).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 224, 224)).shape[2:] == (7, 7)
        with pytest.raises(UserError, match=r"cannot take pictures of 48 x 48 pixels: give --size 224"):
            encoder(torch.zeros(1, 3, 48, 48))


def test_other_faults_of_a_network_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        TimmEncoder("resnet18").eval()(torch.zeros(1, 5, 64, 64))
