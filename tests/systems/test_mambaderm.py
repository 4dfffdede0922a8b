"""MambaDerm: ablations that each change the output, what a missing input means, what gets a gradient, and sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from scanfuse import config
from scanfuse.data.inputs.image_table import INPUTS
from scanfuse.data.synthetic import ham10000, pad_ufes
from scanfuse.errors import UserError
from scanfuse.explain.gradcam import output
from scanfuse.systems.mambaderm import Model, ModelConfig, System
from tabled_systems import all_differ, batch_of, built, reached_by_a_step, with_shared_weights

FUSIONS = ("mambaderm", "no_gate", "no_cross", "concat", "image", "table")
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"model": {"fusion": name}} for name in FUSIONS},
    "raster": {"model": {"routes": "raster"}},
    "no positions": {"model": {"position": 0}},
    "timm": {"data": {"size": 64}, "model": {"stem": "timm", "timm_model": "convnext_atto"}},
    "timm image": {"data": {"size": 64}, "model": {"stem": "timm", "timm_model": "convnext_atto", "fusion": "image"}},
    "focal": {"loss": {"name": "focal", "weighting": "balanced"}},
}
ISIC = (0,) * 34 + (2, 5, 18, 8)


@pytest.fixture(scope="module")
def phones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PAD-UFES-20 phantoms: half of the diameters are missing, so that every learned fill is needed."""
    return pad_ufes.write(tmp_path_factory.mktemp("phones") / "data", pad_ufes.Options(patients=24, size=40, seed=3))


def build(root: Path, *layers: dict[str, Any], seed: int = 0) -> System:
    system: System = built(System, "mambaderm", root, {"data": {"size": 32}}, *layers, seed=seed)
    return system


@pytest.mark.parametrize("name", OPTIONS)
def test_a_step_reaches_every_weight_from_the_inputs_that_are_used(name: str, phones: Path) -> None:
    system = build(phones, OPTIONS[name])
    unreached, reached = reached_by_a_step(system, batch_of(system, phones))
    assert not unreached
    assert reached == {"image": {"image"}, "timm image": {"image"}, "table": {"table"}}.get(name, set(INPUTS))


def test_every_ablation_changes_the_output(phones: Path) -> None:
    """All six with the weights that they share; no two of them agree."""
    whole = build(phones).model.eval()
    batch = batch_of(build(phones), phones)
    outputs = {}
    for name in FUSIONS:
        model = with_shared_weights(build(phones, OPTIONS[name], seed=1).model, whole)
        with torch.no_grad():
            outputs[name] = model(batch["image"], batch["table"])[:, 0]
    all_differ(outputs)


def test_the_attention_to_features_is_no_constant(phones: Path) -> None:
    """With the published single key it would be 1 everywhere, and its query and key would never learn."""
    system = build(phones)
    model = system.model.eval()
    batch = batch_of(system, phones)
    with torch.no_grad():
        z = model._map(batch["image"], None).permute(0, 2, 3, 1).flatten(1, 2)
        weights = model.attention.weights(z, model.tokens(batch["table"]))
        assert torch.allclose(weights.sum(-1), torch.ones(()))
        assert float(weights.std(dim=2).max()) > 1e-4  # places ask differently
        assert float(weights.std(dim=3).max()) > 1e-3  # and features answer differently
    with pytest.raises(ValueError, match="single token"):
        model.attention(z, model.tokens(batch["table"])[:, :1])


def test_what_is_missing_never_matters(phones: Path) -> None:
    system = build(phones)
    system.model.eval()
    batch = batch_of(system, phones)
    with torch.no_grad():
        whole = system.forward(batch)
        for name in INPUTS:
            without = system.forward(batch, frozenset({name}))
            other = {**batch, name: torch.rand_like(batch[name])}
            assert torch.equal(system.forward(other, frozenset({name})), without)
            flags = {**batch["present"], name: torch.zeros(6, dtype=torch.bool)}
            assert torch.equal(system.forward({**other, "present": flags}), without)
            assert float((whole - without).abs().max()) > 1e-4
        # One case alone lacks its picture: the others do not notice.
        flags = {**batch["present"], "image": torch.arange(6) != 2}
        some = system.forward({**batch, "present": flags})
        assert torch.allclose(some[[0, 1, 3, 4, 5]], whole[[0, 1, 3, 4, 5]], atol=1e-5)
        assert not torch.allclose(some[2], whole[2], atol=1e-5)
    with pytest.raises(ValueError, match="neither picture nor table"):
        system.forward(batch, frozenset(INPUTS))


def test_maps_and_parts(phones: Path) -> None:
    system = build(phones)
    system.model.eval()
    batch = batch_of(system, phones, 2)
    maps = system.evidence(batch, output(0))
    assert set(maps) == {"image", "fused"} and all(
        value.shape == (2, 8, 8) and value.any() for value in maps.values()
    )
    table_only = build(phones, OPTIONS["table"])
    assert not table_only.evidence(batch, output(0))["image"].any()
    one = batch_of(system, phones, 1)
    parts = system.data.parts(one)["table"]
    known = [name for name, (_, flag) in zip(system.data.table.names, one["table"][0].tolist(), strict=True) if flag]
    assert list(parts) == known
    changed = parts[known[0]]["table"][0]
    place = system.data.table.names.index(known[0])
    assert not changed[place].any()
    kept = [number for number in range(len(changed)) if number != place]
    assert torch.equal(changed[kept], one["table"][0][kept])


def test_any_picture_size(phones: Path) -> None:
    system = build(phones)
    table = batch_of(system, phones, 1)["table"]
    with torch.no_grad():
        sizes = [system.model.eval()(torch.zeros(1, 3, *size), table) for size in ((32, 32), (48, 20), (33, 41))]
    assert all(torch.isfinite(value).all() for value in sizes)


@pytest.mark.parametrize(
    ("preset", "expected", "advertised", "within"),
    [
        ("mambaderm", 30_914_819, 31e6, 0.01),
        ("mambaderm-lite", 11_578_723, 12e6, 0.04),
        ("light", 4_673_411, 4_727_367, 0.012),
        ("tiny", 130_131, 130_131, 0),
    ],
)
def test_parameters_of_the_presets(preset: str, expected: int, advertised: float, within: float) -> None:
    settings = config.build(System.Config, config.preset("mambaderm", preset), {"model": {"categories": ISIC}})
    count = sum(p.numel() for p in Model(settings.model).parameters())
    assert count == expected and abs(count / advertised - 1) <= within


def test_parts_of_the_light_preset_have_the_published_numbers() -> None:
    """Those that are as published: stem, positions, layers, gate, attention, and the head."""
    settings = config.build(System.Config, config.preset("mambaderm", "light"), {"model": {"categories": ISIC}})
    model = Model(settings.model)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count["stem"] == 182_496 and model.position.numel() == 602_112
    assert count["layers"] + count["norm"] == 3_494_400 + 384
    assert count["gate"] + count["attention"] + count["out_norm"] == 223_296
    assert count["head"] + count["classifier"] == 93_121


def test_several_classes_take_as_many_outputs(tmp_path: Path) -> None:
    root = ham10000.write(tmp_path / "data", ham10000.Options(patients=60, size=24))
    system = build(root, {"data": {"size": 32, "options": ["target=dx"]}})
    assert system.config.model.num_outputs == len(system.task.classes.labels) == 7
    assert system.forward(batch_of(system, root)).shape == (6, 7)
    with pytest.raises(UserError, match="has 1 usable feature"):
        build(root, {"data": {"table": {"columns": ["age"]}}})


def test_settings_that_cannot_be(phones: Path) -> None:
    with pytest.raises(ValueError, match="multiple of the 8 heads"):
        ModelConfig(d_model=100)
    system = build(phones, {"start": {"stem_weights": "timm"}})
    with pytest.raises(UserError, match="needs --stem timm"):
        system.start()
    assert "random weights" in build(phones).start()
