"""timm networks as streams: their own maps, in stages that a fusion can stand between, or a clear refusal."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from scanfuse.backbones.timm_pyramid import TimmPyramid
from scanfuse.errors import UserError

# mambaout's maps are channels last inside timm; csatv2 has no map of stride 4; efficientnet runs as a whole.
STAGED = ["resnet10t", "convnext_atto", "regnetx_002", "mambaout_femto", "csatv2"]


def own_maps(stream: TimmPyramid, x: torch.Tensor) -> list[torch.Tensor]:
    """timm's maps with the same weights, channels first."""
    network = timm.create_model(stream.name, features_only=True, out_indices=stream._indices).eval()
    if stream.is_staged:
        state = {key.split(".", 3 if "stage." in key else 2)[-1]: t for key, t in stream.state_dict().items()}
    else:
        state = {key.removeprefix("network."): t for key, t in stream.state_dict().items()}
    network.load_state_dict(state, strict=True)
    maps = network(x)
    is_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
    return [y.permute(0, 3, 1, 2) if is_last else y for y in maps]


@pytest.mark.parametrize("name", [*STAGED, "efficientnet_lite0"])
def test_the_maps_are_timms_own(name: str) -> None:
    torch.manual_seed(0)
    stream = TimmPyramid(name, staged=name in STAGED).eval()
    assert stream.is_staged == (name in STAGED)
    assert stream.strides == ((8, 16, 32) if name == "csatv2" else (4, 8, 16, 32))
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps, wanted = stream(x), own_maps(stream, x)
    for y, own, stride, channels in zip(maps, wanted, stream.strides, stream.channels, strict=True):
        assert tuple(y.shape) == (1, channels, 64 // stride, 96 // stride)
        assert torch.equal(y, own)


@pytest.mark.parametrize("name", STAGED)
def test_stages_can_be_run_apart_and_leave_their_input_alone(name: str) -> None:
    torch.manual_seed(0)
    stream = TimmPyramid(name).eval()
    y = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        levels = stream(y)
        for stage, level in zip(stream.stages, levels, strict=True):
            before = y.clone()
            out = stage(y)
            assert torch.equal(y, before)  # an in-place operation would change the map that goes to the neck
            assert torch.equal(out, level)
            assert (stage(y + 1) - out).abs().max() > 0
            y = out


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "efficientnet_lite0"])
def test_nothing_goes_untrained(name: str) -> None:
    torch.manual_seed(0)
    stream = TimmPyramid(name, staged=False)
    sum((y * torch.randn_like(y)).sum() for y in stream(torch.rand(2, 3, 64, 64))).backward()
    assert stream.training
    assert [n for n, p in stream.named_parameters() if p.grad is None] == []


def test_looking_at_the_shapes_leaves_the_network_as_timm_makes_it() -> None:
    stream = TimmPyramid("resnet10t")
    norms = [m for m in stream.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(not m.running_mean.any() and m.num_batches_tracked == 0 for m in norms) and norms
    assert {p.device.type for p in stream.parameters()} == {"cpu"}


@pytest.mark.parametrize("name", ["convnext_atto", "efficientnet_lite0"])
def test_weights_from_a_file_in_timms_own_names(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    full = timm.create_model(name).eval()
    save_file(full.state_dict(), tmp_path / "weights.safetensors")
    stream = TimmPyramid(name, staged=False).eval()
    stream.load(tmp_path / "weights.safetensors")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = full.forward_intermediates(x, intermediates_only=True)[-1]
        torch.testing.assert_close(stream(x)[-1], wanted)
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="timm cannot load"):
        stream.load(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="There is no file"):
        stream.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet10", r"no model 'resnet10'; similar: .*resnet1"),
        ("efficientnet_lite0", r"runs all stages of 'efficientnet_lite0' at once.*propagate false"),
        ("vit_tiny_patch16_224", "has maps of strides 16; a detector needs 8, 16 and 32"),
        ("swin_tiny_patch4_window7_224", r"fails on an image of 160 x 224: Input height"),
        ("inception_v4", r"gives maps \[.*\] where \[.*\] are needed"),
    ],
)
def test_networks_that_do_not_serve_are_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        TimmPyramid(name)
    assert "\n" not in str(caught.value)
