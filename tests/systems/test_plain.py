"""The plain classifiers: what gets a gradient, what a missing input is, options, focal loss, heat maps, sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from scanfuse import config, systems
from scanfuse.backbones.pooled import PooledClassifier
from scanfuse.backbones.resnet3d import ResNet3D
from scanfuse.backbones.timm_encoder import TimmEncoder
from scanfuse.data.transforms.lightbox import lightbox
from scanfuse.errors import UserError
from scanfuse.explain.gradcam import grad_cam, output
from scanfuse.fusion.channels import stacked

NAMES = ("plain", "plain3d")
SIZES = {"plain": 64, "plain3d": 24}
GRADES: dict[str, dict[str, Any]] = {
    "plain": {"positives": ["HGG"], "slice": "axial:middle"},
    "plain3d": {"positives": ["HGG"]},
}
PARAMETERS = {
    ("plain", "resnet50"): 23_506_945,
    ("plain", "tiny"): 1_043_873,
    ("plain3d", "resnet50"): 46_179_073,
    ("plain3d", "tiny"): 230_145,
}

every = pytest.mark.parametrize("name", NAMES)


def build(name: str, root: Path, *layers: dict[str, Any]) -> Any:
    system_type: Any = systems.load(name)
    small = {"data": {**GRADES[name], "size": SIZES[name]}}
    settings = config.build(system_type.Config, config.preset(name, "tiny"), small, *layers)
    torch.manual_seed(0)
    return system_type(system_type.completed(settings, root))


def batch_of(system: Any, root: Path, count: int = 4) -> dict[str, Any]:
    data = system.data.dataset(system.data.open(root, split=False), train=False)
    return system.data.collate([data[index] for index in range(count)])


@pytest.mark.parametrize(("name", "preset"), PARAMETERS)
def test_sizes_are_those_of_the_page(name: str, preset: str) -> None:
    system_type: Any = systems.load(name)
    settings = config.build(system_type.Config, config.preset(name, preset), {"data": {"inputs": ["t1ce", "flair"]}})
    with torch.device("meta"):
        model = system_type(settings).model
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name, preset]


@every
@pytest.mark.parametrize("inputs", [["t1ce"], ["flair", "t1ce"]])
def test_every_weight_and_every_input_gets_a_gradient(name: str, inputs: list[str], scans: Path) -> None:
    system = build(name, scans, {"data": {"inputs": inputs}})
    system.model.train()
    batch = batch_of(system, scans)
    for modality in inputs:
        batch[modality].requires_grad_()
    system.task.loss(system.forward(batch), batch)["loss"].backward()
    assert [key for key, p in system.model.named_parameters() if p.grad is None or not p.grad.any()] == []
    for modality in inputs:
        assert all(batch[modality].grad[index].any() for index in range(4)), modality


@every
def test_a_missing_input_is_zeros_whatever_stands_there_and_left_out_inputs_are_missing(
    name: str, scans: Path
) -> None:
    system = build(name, scans)
    system.model.eval()
    batch = batch_of(system, scans)
    with torch.no_grad():
        whole = system.forward(batch)
        without = system.forward(batch, frozenset(["flair"]))
        lacking = {**batch, "flair": torch.full_like(batch["flair"], 9.0)}
        lacking["present"] = {**batch["present"], "flair": torch.zeros(4, dtype=torch.bool)}
        assert torch.equal(system.forward(lacking), without)
    assert (whole - without).abs().max() > 1e-5
    with pytest.raises(ValueError, match="none of its inputs"):
        system.forward(batch, frozenset(["flair", "t1ce"]))


def test_a_stack_has_its_inputs_side_by_side() -> None:
    a, b = torch.rand(2, 1, 3, 4, 5), torch.rand(2, 2, 3, 4, 5)
    there, one = torch.tensor([True, True]), torch.tensor([True, False])
    found = stacked({"a": a, "b": b}, ("b", "a"), {"a": there, "b": one})
    assert torch.equal(found[0], torch.cat([b, a], dim=1)[0])
    assert not found[1, :2].any() and torch.equal(found[1, 2:], a[1])


CHANGES: dict[str, list[dict[str, Any]]] = {
    "plain": [{"timm_model": "resnet18"}, {"timm_model": "convnext_atto"}],
    "plain3d": [{"depth": 18}, {"depth": 50}, {"width": 4}, {"stem_stride": 2}],
}


@pytest.mark.parametrize(("name", "change"), [(name, change) for name in NAMES for change in CHANGES[name]])
def test_an_option_of_the_network_changes_what_it_computes(name: str, change: dict[str, Any], scans: Path) -> None:
    found = []
    for layer in ({}, {"model": change}):
        system = build(name, scans, layer)
        system.model.eval()
        with torch.no_grad():
            found.append(system.forward(batch_of(system, scans)))
    assert (found[0] - found[1]).abs().max() > 1e-5


@every
def test_dropout_acts_in_training_only(name: str, scans: Path) -> None:
    system = build(name, scans, {"model": {"dropout": 0.5}})
    batch = batch_of(system, scans)
    system.model.eval()
    torch.manual_seed(1)
    with torch.no_grad():
        assert torch.equal(system.forward(batch), system.forward(batch))
        for module in system.model.modules():
            if isinstance(module, nn.Dropout):
                module.train()
        assert not torch.equal(system.forward(batch), system.forward(batch))


@every
def test_options_of_the_inputs_change_what_is_seen(name: str, scans: Path) -> None:
    options: dict[str, dict[str, Any]] = {"size": {"size": 32}, "inputs": {"inputs": ["t1ce"]}}
    if name == "plain":
        options |= {
            "slice": {"slice": "coronal:middle"},
            "window": {"window": "percentile"},
            "colour": {"colour": True},
        }
    else:
        options |= {"percentiles": {"percentiles": (5, 95)}}
    base = batch_of(build(name, scans), scans)
    for flag, change in options.items():
        system = build(name, scans, {"data": change})
        batch = batch_of(system, scans)
        assert set(base) != set(batch) or not torch.equal(
            base["t1ce"].flatten()[: batch["t1ce"].numel()], batch["t1ce"].flatten()[: base["t1ce"].numel()]
        ), flag
        assert system.forward(batch).shape == (4, 1)


@every
@pytest.mark.parametrize("option", ["flip", "rotate", "shift", "scale"])
def test_each_movement_moves(name: str, option: str, scans: Path) -> None:
    still = {"flip": 0.0, "rotate": 0.0, "shift": 0.0, "scale": 0.0}
    value = {"flip": 1.0, "rotate": 30.0, "shift": 0.3, "scale": 0.5}[option]
    found = []
    for settings in (still, {**still, option: value}):
        system = build(name, scans, {"data": settings})
        data = system.data.dataset(system.data.open(scans, split=False), train=True)
        found.append(data[0]["t1ce"])
    assert not torch.allclose(*found, atol=1e-3)


def test_the_loss_is_focal_with_balanced_classes_by_hand(scans: Path) -> None:
    """gamma 2; a positive weighs as many as there are negatives for each."""
    system = build("plain", scans)
    assert (system.config.loss.name, system.config.loss.focal_gamma) == ("focal", 2.0)
    data = system.data.dataset(system.data.open(scans).subset("train"), train=False)
    system.task.begin(data, data)
    weight = data.targets.count("0") / data.targets.count("1")
    logits, target = torch.tensor([[0.4], [-1.2]]), torch.tensor([[1.0], [0.0]])
    p = logits.sigmoid()[:, 0]
    by_hand = (-weight * (1 - p[0]) ** 2 * p[0].log() - p[1] ** 2 * (1 - p[1]).log()) / 2
    batch = {"target": target, "mask": torch.ones(2, 1, dtype=torch.bool)}
    torch.testing.assert_close(system.task.loss(logits, batch)["loss"], by_hand)


def test_grad_cam_of_volumes_is_the_formula_and_shows_where_the_evidence_is() -> None:
    """A network that sums one corner: its map, by hand, and that of pictures on the middle slice agree."""
    torch.manual_seed(0)
    model = PooledClassifier(nn.Conv3d(1, 3, 1), 3, num_outputs=1)
    x = torch.zeros(1, 1, 4, 5, 6)
    x[0, 0, 1, 2, 3] = 5.0
    found = grad_cam(model, ("fused",), lambda: model(x), output(0))["fused"]
    maps = model.encoder(x)
    by_hand = (model.head.weight[0].view(1, 3, 1, 1, 1) / maps[0, 0].numel() * maps).sum(1).relu()
    torch.testing.assert_close(found, by_hand.detach())
    flat = PooledClassifier(nn.Conv2d(1, 3, 1), 3, num_outputs=1)
    flat.load_state_dict({k: v.squeeze(-1) if v.ndim == 5 else v for k, v in model.state_dict().items()})
    slice_map = grad_cam(flat, ("fused",), lambda: flat(x[:, :, 1]), output(0))["fused"]
    torch.testing.assert_close(slice_map, 4 * found[:, 1])


def test_maps_of_volumes_lie_on_the_slices_that_are_shown(scans: Path) -> None:
    system = build("plain3d", scans)
    system.model.eval()
    batch = batch_of(system, scans)
    maps = system.evidence(batch, output(0))
    assert set(maps) == {"fused"} and maps["fused"].shape == (4, 3 * 24, 4 * 24)
    pixels, placement = system.data.picture(batch, "flair")
    assert pixels.shape == placement.source == placement.size == (3 * 24, 4 * 24)
    torch.testing.assert_close(
        torch.from_numpy(pixels / 255).float(), lightbox(batch["flair"][0, 0]), rtol=0, atol=0.002
    )


def test_published_weights_fit_any_number_of_channels(tmp_path: Path) -> None:
    """timm's own rule: the first layer of three channels, repeated and scaled, or summed for one."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    full = timm.create_model("resnet10t")
    save_file(full.state_dict(), tmp_path / "weights.safetensors")
    grey = TimmEncoder("resnet10t", channels=1).eval()
    grey.load(tmp_path / "weights.safetensors")
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            grey(x), full.eval().forward_features(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
        )
    two = TimmEncoder("resnet10t", channels=2)
    two.load(tmp_path / "weights.safetensors")
    assert two(torch.rand(1, 2, 64, 64)).shape[1] == two.dim


@pytest.mark.parametrize("depth", [10, 18, 50])
def test_a_resnet_of_volumes_has_no_unused_part(depth: Any) -> None:
    torch.manual_seed(0)
    encoder = ResNet3D(depth, width=4, channels=2, stem_stride=1)
    z = encoder(torch.rand(2, 2, 32, 16, 48))
    assert z.shape == (2, encoder.dim, 2, 1, 3)
    (z * torch.randn_like(z)).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_mistakes_are_named(scans: Path) -> None:
    with pytest.raises(UserError, match="timm has no model 'resnet5O'"):
        build("plain", scans, {"model": {"timm_model": "resnet5O"}})
    with pytest.raises(UserError, match="--batch 2"):
        build("plain3d", scans, {"data": {"size": 16}, "train": {"batch": 1}}).start()
    with pytest.raises(UserError, match="--batch 2"):
        build("plain", scans, {"data": {"size": 32}, "train": {"batch": 1}}).start()
    system_type: Any = systems.load("plain")
    with pytest.raises(UserError, match="3 outputs, but the task"):
        system_type(config.build(system_type.Config, config.preset("plain", "tiny"), {"model": {"num_outputs": 3}}))
