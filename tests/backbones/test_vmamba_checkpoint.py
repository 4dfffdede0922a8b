"""Checkpoints: every published spelling is read, whatever does not fit is one clear line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from scanfuse.backbones.vmamba import PRESETS, VMamba, VMambaConfig, load_checkpoint, load_encoder, read_checkpoint
from scanfuse.errors import UserError
from scanfuse.verbs.import_weights import import_vmamba

GOLDEN = Path(__file__).parents[1] / "golden"
State = dict[str, Tensor]


def golden_state(flavour: str) -> State:
    with np.load(GOLDEN / f"vmamba_{flavour}.npz") as file:
        return {key[3:]: torch.from_numpy(file[key]) for key in file.files if key.startswith("sd/")}


def newest_names(state: State) -> State:
    """Projections as 1x1 convolutions (4-D), all routes in one weight, as the newest published code saves them."""
    renamed: State = {}
    for key, tensor in state.items():
        if key.endswith(("x_proj_weight", "dt_projs_weight")):
            key, tensor = key.replace("_weight", ".weight"), tensor.flatten(0, 1)
        if re.search(r"(in_proj|out_proj|x_proj|dt_projs|fc1|fc2|reduction)\.weight$", key):
            tensor = tensor[:, :, None, None]
        renamed[key] = tensor
    return renamed


def v0_in_todays_names(state: State) -> State:
    pairs = {
        "patch_embed.proj": "patch_embed.0",
        "patch_embed.norm": "patch_embed.2",
        "ln_1": "norm",
        "self_attention": "op",
        "downsample.norm": "downsample.1",
        "downsample.reduction": "downsample.2",
    }
    renamed: State = {}
    for key, tensor in state.items():
        for old, new in pairs.items():
            key = key.replace(old, new)
        renamed["classifier." + key if key.startswith(("norm.", "head.")) else key] = tensor
    return renamed


def write(file: Path, content: dict[str, Any]) -> Path:
    if file.suffix == ".safetensors":
        save_file(content, file)
    else:
        torch.save(content, file)
    return file


def same_weights(first: VMamba, second: VMamba) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("flavour", ["v0", "v2r1", "v2r2"])
def test_every_spelling_gives_the_same_network(flavour: str, tmp_path: Path) -> None:
    state = golden_state(flavour)
    expected, report = read_checkpoint(write(tmp_path / "a.pth", {"model": state}))
    assert len(report.matched) == len(state) and report.missing == report.skipped == ()
    assert f"matched: {len(state)} tensors" in str(report)
    spellings: dict[str, dict[str, Any]] = {
        "ema.pth": {"model_ema": state, "epoch": 3},
        "bare.pth": state,
        "bare.safetensors": state,
        "half.pth": {"model": {key: tensor.half() for key, tensor in state.items()}},
        "newest.pth": {"model": newest_names(state)},
    }
    if flavour == "v0":
        spellings["today.pth"] = {"model": v0_in_todays_names(state)}
        spellings["today_newest.pth"] = {"model": newest_names(v0_in_todays_names(state))}
    for name, content in spellings.items():
        model = load_checkpoint(write(tmp_path / name, content))
        assert not model.training
        if name.startswith("half"):
            assert model.head.weight.dtype == torch.float32
        else:
            assert same_weights(model, expected), name


def test_sizes_are_read_from_the_shapes(tmp_path: Path) -> None:
    configs = {
        flavour: load_checkpoint(write(tmp_path / f"{flavour}.pth", golden_state(flavour))).config
        for flavour in ("v0", "v2r1", "v2r2")
    }
    assert configs["v0"] == VMambaConfig(
        family="v0", dim=16, depths=(1, 1, 2, 1), d_state=16, ratio=2.0, drop_path=0.0
    )
    assert configs["v2r1"] == VMambaConfig(dim=12, depths=(1, 1, 2, 1), ratio=1.0, drop_path=0.0)
    assert configs["v2r2"] == VMambaConfig(dim=12, depths=(1, 1, 2, 1), ratio=2.0, drop_path=0.0)


def test_a_published_size_gets_its_name_and_its_drop_path(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VMamba(PRESETS["t_s1l8"], num_classes=2)
    loaded, report = read_checkpoint(write(tmp_path / "t.safetensors", model.state_dict()))
    assert loaded.config == PRESETS["t_s1l8"]
    assert "t_s1l8" in str(report)
    assert same_weights(loaded, model)


def test_section_is_a_choice_and_the_report_names_it(tmp_path: Path) -> None:
    state = golden_state("v2r1")
    averaged = {key: tensor + 1 for key, tensor in state.items()}
    file = write(tmp_path / "both.pth", {"model": state, "model_ema": averaged, "max_accuracy": 82.6})
    plain, report = read_checkpoint(file)
    assert torch.equal(plain.head.bias, state["classifier.head.bias"])
    assert report.section == "model" and set(report.skipped) == {"model_ema", "max_accuracy"}
    assert torch.equal(load_checkpoint(file, section="model_ema").head.bias, averaged["classifier.head.bias"])
    with pytest.raises(UserError, match="has no 'model_ema'"):
        load_checkpoint(write(tmp_path / "one.pth", {"model": state}), section="model_ema")


def test_import_writes_a_folder_that_gives_the_network_back(tmp_path: Path) -> None:
    file = write(tmp_path / "published.pth", {"model": golden_state("v0")})
    report = import_vmamba(file, tmp_path / "imported")
    assert sorted(path.name for path in (tmp_path / "imported").iterdir()) == ["config.yaml", "weights.safetensors"]
    assert len(report.matched) == len(golden_state("v0"))
    assert same_weights(load_checkpoint(tmp_path / "imported"), load_checkpoint(file))
    with pytest.raises(UserError, match="already holds"):
        import_vmamba(file, tmp_path / "imported")
    (tmp_path / "imported" / "config.yaml").write_text("family: v0\ndim: 32\n")
    with pytest.raises(UserError, match="does not describe the weights"):
        load_checkpoint(tmp_path / "imported")


def test_encoder_takes_the_final_norm_and_leaves_the_classifier(tmp_path: Path) -> None:
    state = golden_state("v2r1")
    file = write(tmp_path / "a.pth", {"model": state})
    encoder = VMamba(VMambaConfig(dim=12, depths=(1, 1, 2, 1), drop_path=0.1), num_classes=0, out_norms=(2, 3)).eval()
    report = load_encoder(encoder, file)
    assert report.skipped == ("classifier",)
    assert report.missing == ("out_norms.2.weight", "out_norms.2.bias")
    assert torch.equal(encoder.out_norms["3"].weight, state["classifier.norm.weight"])
    # The published logits follow from the encoder's last map and the classifier's linear layer.
    full, x = load_checkpoint(file), torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(full.head(encoder.features(x)[3].mean(dim=(2, 3))), full(x))


def test_encoder_checkpoint_without_classifier(tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in golden_state("v2r1").items() if not key.startswith("classifier")}
    with np.load(GOLDEN / "vmamba_v2r1.npz") as file:
        norms = {key[3:]: torch.from_numpy(file[key]) for key in file.files if key.startswith("on/")}
    model, report = read_checkpoint(write(tmp_path / "encoder.pth", {**state, **norms}))
    assert model.num_classes == 0 and "classifier" in report.missing[0]
    encoder = VMamba(model.config, num_classes=0, out_norms=(3,))
    report = load_encoder(encoder, tmp_path / "encoder.pth")
    assert torch.equal(encoder.out_norms["3"].weight, norms["outnorm3.weight"])
    assert len([name for name in report.skipped if name.startswith("out_norms")]) == 6


def without(part: str) -> Callable[[State], State]:
    return lambda state: {key: tensor for key, tensor in state.items() if part not in key}


def changed(part: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {key: change(tensor) if part in key else tensor for key, tensor in state.items()}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("layers.2.blocks.1.op.Ds"), r"lacks layers\.2\.blocks\.1\.op\.Ds of the network"),
        (without("classifier.norm"), r"lacks norm\.weight, norm\.bias"),
        (without("layers.3."), "lacks blocks of a VMamba"),
        (without("layers.2.blocks.0."), "lacks blocks of a VMamba"),
        (without("layers."), "not a VMamba checkpoint"),
        (without("patch_embed.0"), r"patch_embed\.0\.conv\.weight is missing"),
        (without("patch_embed.5"), r"lacks patch_embed\.2\.conv\.weight"),
        (lambda state: {**state, "layers.0.extra": torch.ones(1)}, r"does not have: layers\.0\.extra"),
        (changed("layers.1.blocks.0.op.in_proj", lambda t: t.repeat(2, 1)), r"in_proj\.weight has shape \(48, 24\)"),
        (changed("layers.3.blocks.0.norm2.weight", lambda t: t[:-1]), r"norm2\.weight has shape \(95,\)"),
        (changed("layers.0.blocks.0.op.Ds", lambda t: t * torch.nan), "not finite"),
        (changed("layers.0.blocks.0.op.Ds", lambda t: t.long()), "must be floating point"),
        (changed("layers.0.blocks.0.op.A_logs", lambda t: t.flatten()), "A_logs has shape"),
        (
            changed("layers.0.blocks.0.op.Ds", lambda t: t[:1].expand(10**12)),
            "more values than the file holds",
        ),
        (changed("layers.0.blocks.0.op.Ds", lambda t: t.to_sparse()), "weights must be plain tensors"),
        (lambda state: {**state, f"layers.{'9' * 5000}.blocks.0.A_logs": torch.ones(1)}, "of 5023 characters"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(damage: Callable[[State], State], message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "bad.pth", {"model": damage(golden_state("v2r1"))})
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_truncated_and_foreign_files_are_one_line(suffix: str, tmp_path: Path) -> None:
    whole = write(tmp_path / f"whole.{suffix}", golden_state("v2r1")).read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"<html>not found</html>"}.items():
        file = tmp_path / f"{name}.{suffix}"
        file.write_bytes(content)
        with pytest.raises(UserError, match=f"{file}.*(damaged|truncated|an empty file)") as caught:
            load_checkpoint(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="does not exist; check the path"):
        load_checkpoint(tmp_path / f"absent.{suffix}")


class Surprise:
    """An object that a pickle would have to construct."""


def test_other_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"model": golden_state("v2r1"), "config": Surprise()}, tmp_path / "objects.pth")
    with pytest.raises(UserError, match="Python objects besides tensors"):
        load_checkpoint(tmp_path / "objects.pth")
    with pytest.raises(UserError, match="not a dictionary"):
        load_checkpoint(write(tmp_path / "list.pth", [1, 2]))
    with pytest.raises(UserError, match="holds no tensors"):
        load_checkpoint(write(tmp_path / "none.pth", {"model": {"epoch": 1}}))
    with pytest.raises(UserError, match="not a VMamba checkpoint"):
        load_checkpoint(write(tmp_path / "resnet.pth", {"conv1.weight": torch.ones(2, 2)}))


def test_the_wrong_family_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "v0.pth", {"model": golden_state("v0")})
    encoder = VMamba(VMambaConfig(dim=16, depths=(1, 1, 2, 1), d_state=16, ratio=2.0), num_classes=0, out_norms=(3,))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(UserError, match=r"holds VMamba v0: .* but the encoder is VMamba v2"):
        load_encoder(encoder, file)
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
