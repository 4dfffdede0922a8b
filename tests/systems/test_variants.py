"""Every option of a model does something: given as its flag, it changes what the network computes or starts from.

Weights are drawn from one seed, and those of the same name and shape are those of the network without the option:
what differs then is the option's doing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scanfuse import config, options, systems

# Other values of options that are no choice; of a choice every other value is tried, of a switch the opposite.
VALUES: dict[tuple[str, str], list[str]] = {
    ("clinicalfmamba", "channels"): ["12,16,24", "12,24,32", "16,16,32"],
    ("clinicalfmamba", "dilations"): ["2,3,5", "1,2,5", "1,3,4"],
    ("clinicalfmamba", "latent-blocks"): ["2"],
    ("clinicalfmamba", "decoder-blocks"): ["0", "2"],
    ("clinicalfmamba", "d-state"): ["4"],
    ("clinicalfmamba", "mix-state"): ["8"],
    ("clinicalfmamba", "expand"): ["1"],
    ("clinicalfmamba", "detail-width"): ["16"],
    ("clinicalfmamba", "detail-dilations"): ["1,2,4", "1,2,2,1"],
    ("clinicalfmamba", "detail-levels"): ["2"],
    ("clinicalfmamba", "detail-sharpness"): ["1"],
    ("clinicalfmamba3d", "channels"): ["12,16,32", "8,24,32", "8,16,16"],
    ("clinicalfmamba3d", "dilations"): ["2,3,5", "1,2,5", "1,3,4"],
    ("clinicalfmamba3d", "latent-blocks"): ["2"],
    ("clinicalfmamba3d", "d-state"): ["4"],
    ("clinicalfmamba3d", "expand"): ["1"],
    ("clinicalfmamba3d", "detail-width"): ["16"],
    ("clinicalfmamba3d", "detail-dilations"): ["1,2,4", "1,2,2,1"],
    ("clinicalfmamba3d", "detail-levels"): ["2"],
    ("clinicalfmamba3d", "detail-sharpness"): ["1"],
    ("xfmamba", "num-outputs"): ["1"],
    ("xfmamba", "dim"): ["16"],
    ("xfmamba", "depths"): ["2,1,1,1", "1,1,1,2"],
    ("xfmamba", "d-state"): ["2"],
    ("xfmamba", "ratio"): ["2"],
    ("xfmamba", "drop-path"): ["0.5"],
    ("xfmamba", "timm-model"): ["convnext_femto"],
    ("xfmamba", "fusion-state"): ["8"],
    ("xfmamba", "expand"): ["1"],
}
# Options that act only beside others, or need them.
BESIDE: dict[tuple[str, str], dict[str, str]] = {
    ("clinicalfmamba", "detail-width"): {"head": "details"},
    ("clinicalfmamba", "detail-dilations"): {"head": "details"},
    ("clinicalfmamba", "detail-levels"): {"head": "details"},
    ("clinicalfmamba", "detail-sharpness"): {"head": "details"},
    ("clinicalfmamba", "detail-edges"): {"head": "details"},
    ("clinicalfmamba3d", "detail-width"): {"head": "details"},
    ("clinicalfmamba3d", "detail-dilations"): {"head": "details"},
    ("clinicalfmamba3d", "detail-levels"): {"head": "details"},
    ("clinicalfmamba3d", "detail-sharpness"): {"head": "details"},
    ("clinicalfmamba3d", "detail-edges"): {"head": "details"},
    ("xfmamba", "timm-model"): {"encoder": "timm", "timm-model": "convnext_atto"},
    ("xfmamba", "encoder"): {"timm-model": "convnext_atto"},
}
# Options that change something else than the outputs of given weights.
OTHERWISE = {
    ("clinicalfmamba", "detail-sharpness"): "start",
    ("clinicalfmamba3d", "detail-sharpness"): "start",
    ("xfmamba", "init"): "start",
    ("xfmamba", "drop-path"): "training",
    ("xfmamba", "recompute"): "memory",
}


def model_leaves(name: str) -> dict[str, options.Leaf]:
    return {leaf.flag: leaf for leaf in options.leaves(systems.load(name).Config) if leaf.path[0] == "model"}


def build(name: str, flags: Mapping[str, str]) -> systems.System:
    """The tiny system with these flags, its weights drawn from a seed."""
    config_type = systems.load(name).Config
    given = options.nested(options.leaves(config_type), flags)
    torch.manual_seed(0)
    return systems.build(config.build(config_type, config.preset(name, "tiny"), given))


def value_of(name: str, leaf: options.Leaf) -> str:
    """The value of the option in the tiny preset, as a flag writes it."""
    found: Any = config.build(systems.load(name).Config, config.preset(name, "tiny"))
    for part in leaf.path:
        found = getattr(found, part)
    return str(found).lower() if isinstance(found, bool) else str(found)


def changes(name: str, leaf: options.Leaf) -> list[str]:
    used = value_of(name, leaf)
    all_values = leaf.choices or (("true", "false") if leaf.kind == "true|false" else ())
    return [value for value in all_values if value != used] or VALUES[name, leaf.flag]


# Of the others `test_fusionmamba_model` and `test_mambaderm` try the options.
NAMES = ("clinicalfmamba", "clinicalfmamba3d", "xfmamba")
CASES = [
    (name, flag, value)
    for name in NAMES
    for flag, leaf in model_leaves(name).items()
    for value in changes(name, leaf)
]


def test_this_many_options_are_tried() -> None:
    assert {name: len(model_leaves(name)) for name in NAMES} == {
        "clinicalfmamba": 18,
        "clinicalfmamba3d": 16,
        "xfmamba": 20,
    }
    assert len(CASES) == 71


@pytest.fixture(scope="module")
def batches(head_phantoms: Path, bones: Path, brains: Path) -> dict[str, dict[str, Any]]:
    """System -> two samples."""
    folders = {"harvard": head_phantoms, "mura": bones, "brats": brains}
    found = {}
    for name in NAMES:
        data = build(name, {}).data
        samples = data.dataset(data.open(folders[systems.load(name).demonstration.phantom]), train=False)
        found[name] = data.collate([samples[0], samples[1]])
    return found


@pytest.mark.parametrize(("name", "flag", "value"), CASES)
def test_an_option_of_the_model_has_an_effect(
    name: str, flag: str, value: str, batches: dict[str, dict[str, Any]]
) -> None:
    beside = BESIDE.get((name, flag), {})
    plain, changed = build(name, beside), build(name, {**beside, flag: value})
    assert plain.config != changed.config
    effect = OTHERWISE.get((name, flag), "outputs")
    before, after = (dict(system.model.state_dict()) for system in (plain, changed))
    alike = {key for key in before.keys() & after.keys() if before[key].shape == after[key].shape}
    if effect == "start":
        assert alike == set(before) == set(after)
        assert any(not torch.equal(before[key], after[key]) for key in alike)
        return
    changed.model.load_state_dict({**after, **{key: before[key] for key in alike}})

    if effect == "memory":
        assert alike == set(before) == set(after)
        _same_with_less(plain, changed, batches[name])
        return
    trained, evaluated = zip(*(_outputs(system, batches[name]) for system in (plain, changed)), strict=True)
    one, other = trained if effect == "training" else evaluated
    assert one.shape != other.shape or float((one - other).abs().max()) > 1e-4
    if effect == "training":
        changed.model.load_state_dict(plain.model.state_dict())  # what the norms have seen
        assert torch.equal(*(system.forward(batches[name]) for system in (plain, changed)))


def _outputs(system: systems.System, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """In a step of training, and afterwards in evaluation, where what batch norms have seen counts."""
    torch.manual_seed(1)
    with torch.no_grad():
        system.model.train()
        trained = system.forward(batch)
        system.model.eval()
        return trained, system.forward(batch)


def _same_with_less(plain: systems.System, changed: systems.System, batch: dict[str, Any]) -> None:
    """Equal outputs and gradients from fewer tensors kept for the backward pass."""
    found = []
    for system in (plain, changed):
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = system.task.loss(system.forward(batch), batch)["loss"]
        loss.backward()
        found.append((loss.detach(), [parameter.grad for parameter in system.model.parameters()], kept))
    (one, grads, kept), (other, again, less) = found
    torch.testing.assert_close(other, one)
    torch.testing.assert_close(again, grads)
    assert less < 0.7 * kept
