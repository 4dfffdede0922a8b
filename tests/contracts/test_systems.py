"""What every system holds, run over the listing of scanfuse.systems: built from its tiny recipe, on its phantoms."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scanfuse import config, options, systems
from scanfuse.data import synthetic
from scanfuse.run import create_run
from scanfuse.verbs.optimisation import parameter_groups
from scanfuse.verbs.predict import load

# Small data of each kind of phantom: what `write` of the module in scanfuse.data.synthetic takes besides the folder.
PHANTOMS: dict[str, dict[str, Any]] = {
    "harvard": {"pair": "CT-MRI", "cases": 4, "slices": 2, "size": 32, "seed": 0},
    "copd": {"patients": 20, "slices": 4, "size": 64, "seed": 0},
    "brats": {"patients": 8, "size": 24, "seed": 0},
    "volume_manifest": {"patients": 8, "size": 24, "seed": 0},
    "isic2024": {"patients": 20, "size": 48, "seed": 0},
    "mura": {"patients": 12, "size": 48, "seed": 0},
    "msrs": {"scenes": 6, "frames": 1, "size": 64, "seed": 0},
}
GRADES = {"inputs": ["t1ce", "flair"], "positives": ["HGG"]}
SMALL: dict[str, dict[str, Any]] = {
    "fusionmamba": {"data": {"size": 64}},
    "plain": {"data": {**GRADES, "slice": "axial:middle"}},
    "plain3d": {"data": {**GRADES, "size": 24}},
}
"""Changes of the tiny recipe that make these tests quick, or say which files are meant."""
SAMPLES = 4
STEPS = 30

every_system = pytest.mark.parametrize("name", systems.available())


def test_this_many_systems_are_found() -> None:
    """A test over an empty listing would pass."""
    assert systems.available() == (
        "clinicalfmamba",
        "clinicalfmamba3d",
        "copd",
        "fusionmamba",
        "mambaderm",
        "plain",
        "plain3d",
        "xfmamba",
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Phantom -> folder, each written once."""
    return {
        kind: synthetic.load(kind).write(tmp_path_factory.mktemp(kind), synthetic.load(kind).Options(**arguments))
        for kind, arguments in PHANTOMS.items()
    }


def build(name: str, seed: int = 0, folder: Path | None = None) -> systems.System:
    """The system of the tiny recipe, in training mode, with weights drawn from a seed.

    With `folder`, its configuration is completed by the data, as in a training.
    """
    system_type = systems.load(name)
    settings = config.build(system_type.Config, config.preset(name, "tiny"), SMALL.get(name, {}))
    completed = systems.ability(system_type, "completed")
    if folder is not None and completed is not None:
        settings = completed(settings, folder)
    torch.manual_seed(seed)
    system = system_type(settings)
    if folder is not None:
        system.data.prepare(system.data.open(folder).subset("train"))
    system.model.train()
    return system


def data_of(name: str, folders: dict[str, Path]) -> Path:
    kind = systems.load(name).demonstration.phantom
    assert kind in folders, f"add small arguments for the phantom {kind!r} to PHANTOMS"
    return folders[kind]


def batch_of(system: systems.System, folder: Path) -> dict[str, Any]:
    """The first samples of the data, augmented as in training."""
    data = system.data.dataset(system.data.open(folder), train=True)
    assert len(data) >= SAMPLES
    return system.data.collate([data[index] for index in range(SAMPLES)])


def parts_of(output: Any) -> tuple[Tensor, ...]:
    """The tensors that a network puts out."""
    return output if isinstance(output, tuple) else (output,)


def loss_of(system: systems.System, batch: dict[str, Any]) -> dict[str, Tensor]:
    return system.task.loss(system.forward(batch), batch)


def train(system: systems.System, batch: dict[str, Any], steps: int) -> list[float]:
    """The losses before each of so many steps on one batch."""
    optimizer = torch.optim.AdamW(parameter_groups(system.model, 0.0), lr=system.config.train.lr)
    losses = []
    for _ in range(steps):
        loss = loss_of(system, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(system.model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@contextlib.contextmanager
def outputs_of(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what a module returns, in the order of its calls."""
    found: list[Tensor] = []
    handle = model.register_forward_hook(lambda module, inputs, output: found.append(output))
    try:
        yield found
    finally:
        handle.remove()


@every_system
def test_the_recipe_and_the_description(name: str) -> None:
    """`tiny` is small; the folder's listing, the configuration and the summary name the system."""
    system = build(name)
    assert system.config.system == name
    assert len(system.data.modalities) >= 2
    assert sum(parameter.numel() for parameter in system.model.parameters()) < 8_000_000
    line = systems.summary(name)
    assert 20 < len(line) <= 118
    assert "\n" not in line
    assert '"' not in line
    assert line.endswith(".")
    # Every setting has a flag of its own and a help text.
    for leaf in options.leaves(systems.load(name).Config):
        assert leaf.field.description, leaf.flag


@every_system
def test_the_loss_is_a_finite_scalar_and_reaches_every_parameter(name: str, folders: dict[str, Path]) -> None:
    system = build(name, folder=data_of(name, folders))
    parts = loss_of(system, batch_of(system, data_of(name, folders)))
    for part, value in parts.items():
        assert value.shape == (), part
        assert value.dtype == torch.float32, part
        assert torch.isfinite(value), part
    assert [part for part, value in parts.items() if value.requires_grad] == ["loss"]
    parts["loss"].backward()
    for parameter_name, parameter in system.model.named_parameters():
        assert parameter.requires_grad, parameter_name
        assert parameter.grad is not None, f"{parameter_name} takes no part in the loss"
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.any(), f"{parameter_name} has a gradient of zero"


@every_system
def test_every_modality_reaches_the_result(name: str, folders: dict[str, Path]) -> None:
    """The network's output, weighted at random, has a gradient in every image that goes in.

    The loss itself would not tell: a fusion loss depends on its sources without any network.
    """
    system = build(name, folder=data_of(name, folders))
    batch = batch_of(system, data_of(name, folders))
    for modality in system.data.modalities:
        batch[modality] = batch[modality].requires_grad_()
    with outputs_of(system.model) as outputs:
        loss_of(system, batch)
    output = torch.cat([part.flatten() for part in parts_of(outputs[0])])
    weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(1))
    (output * weights).sum().backward()
    for modality in system.data.modalities:
        gradient = batch[modality].grad
        assert gradient is not None, f"{modality} does not reach the result"
        for index in range(SAMPLES):
            if not batch["present"][modality][index]:
                continue
            assert gradient[index].any(), f"{modality} of sample {index} does not reach the result"


@every_system
def test_a_seed_repeats_the_losses(name: str, folders: dict[str, Path]) -> None:
    folder = data_of(name, folders)
    runs = []
    for seed in (0, 0, 1):
        system = build(name, seed, folder)
        runs.append(train(system, batch_of(system, folder), 3))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert len(set(runs[0])) == 3


@every_system
def test_a_few_samples_are_learned(name: str, folders: dict[str, Path]) -> None:
    system = build(name, folder=data_of(name, folders))
    losses = train(system, batch_of(system, data_of(name, folders)), STEPS)
    assert sum(losses[-3:]) / 3 < 0.6 * losses[0], losses


@every_system
def test_a_saved_run_predicts_the_same_bits(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """After some steps, so that running statistics count; compared are the network's output and the written files."""
    folder = data_of(name, folders)
    system = build(name, folder=folder)
    train(system, batch_of(system, folder), 2)
    system.model.eval()
    manifest = system.data.open(folder)
    run = create_run(tmp_path / "run", system.config, manifest, system.data.prepare(manifest.subset("train")), {})
    run.save_weights(system.model.state_dict(), {"system": name})
    torch.manual_seed(5)
    loaded = load(run.path, device="cpu").system

    data = system.data.dataset(manifest, train=False)
    of_group = {data.row(index).group: index for index in reversed(range(len(data)))}
    batch = system.data.collate([data[index] for index in sorted(of_group.values())[:2]])  # two reported units
    found = []
    for number, each in enumerate((system, loaded)):
        with torch.no_grad(), outputs_of(each.model) as outputs:
            results = each.task.finished(each.task.results(each.forward, batch))
        assert len(results) == 2
        files = [path for result in results for path in each.task.save(result, tmp_path / str(number))]
        found.append((outputs, {path.name: path.read_bytes() for path in files}))
    assert len(found[0][0]) == len(found[1][0]) > 0
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(parts_of(ours), parts_of(theirs), strict=True))
    assert found[0][1] == found[1][1]
    assert len(found[0][1]) >= 2
