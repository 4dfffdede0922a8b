"""COPD: ablations that each change the output, what a missing input or slice means, what gets a gradient, leaks."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from scanfuse import config
from scanfuse.data.inputs.series_table import INPUTS
from scanfuse.data.synthetic import exasens
from scanfuse.errors import UserError
from scanfuse.explain.gradcam import output
from scanfuse.systems.copd import Model, ModelConfig, System
from tabled_systems import all_differ, batch_of, built, reached_by_a_step, with_shared_weights

ABLATIONS: dict[str, dict[str, Any]] = {
    **{name: {"fusion": name} for name in ("dual", "slices", "cross", "concat", "ct", "table")},
    **{f"no {name}": {name: False} for name in ("mamba", "axial", "mseb")},
    "no mamba, no axial": {"mamba": False, "axial": False},
}
TABLE = (0,) * 11 + (3,)


def build(root: Path, *layers: dict[str, Any], seed: int = 0) -> System:
    small = {"data": {"size": 64, "slices": 4, "drop_ct": 0.0, "drop_table": 0.0}}
    system: System = built(System, "copd", root, small, *layers, seed=seed)
    return system


def inputs_of(batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    present = torch.stack([batch["present"][name] for name in INPUTS], dim=1)
    return (*(batch[name] for name in ("ct", "seen", "place", "lung", "table")), present)


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_step_reaches_every_weight_from_the_inputs_that_are_used(name: str, chests: Path) -> None:
    system = build(chests, {"model": ABLATIONS[name]})
    unreached, reached = reached_by_a_step(system, batch_of(system, chests, 12), least=1e-9)
    assert not unreached
    assert reached == {"ct": {"ct"}, "table": {"table"}}.get(name, set(INPUTS))


def test_every_ablation_changes_the_output(chests: Path) -> None:
    """All with the weights that they share; no two of them agree."""
    whole = build(chests).model.eval()
    batch = batch_of(build(chests), chests)
    outputs = {}
    for name, changes in ABLATIONS.items():
        model = with_shared_weights(build(chests, {"model": changes}, seed=1).model, whole)
        with torch.no_grad():
            outputs[name] = model(*inputs_of(batch))[:, 0]
    all_differ(outputs)


@pytest.mark.parametrize("fusion", ["dual", "slices", "cross", "concat", "ct"])
def test_slices_that_are_not_seen_never_matter(fusion: str, chests: Path) -> None:
    """Neither their pixels, nor how many there are."""
    system = build(chests, {"model": {"fusion": fusion}})
    system.model.eval()
    ct, seen, place, lung, table, present = inputs_of(batch_of(system, chests))
    rest = (table, present)
    with torch.no_grad():
        alone = system.model(ct, seen, place, lung, *rest)
        more = [torch.cat([x, torch.rand_like(x[:, :2])], 1) for x in (ct, place)]
        lungs = torch.cat([lung, lung[:, :2]], 1)
        padded = system.model(more[0], torch.cat([seen, seen[:, :2] & False], 1), more[1], lungs, *rest)
        assert torch.allclose(padded, alone, atol=1e-5)
        changed = system.model(more[0], torch.cat([seen, seen[:, :2] | True], 1), more[1], lungs, *rest)
        assert float((changed - alone).abs().max()) > 1e-5
        looked = system.model.look(more[0], torch.cat([seen, seen[:, :2] & False], 1), more[1], lungs, *rest)
        assert not looked.weights[:, 4:].any()
        assert torch.allclose(looked.weights.sum(1), torch.ones(6))


def test_the_order_of_slices_matters_by_their_place_alone(chests: Path) -> None:
    system = build(chests)
    system.model.eval()
    ct, seen, place, lung, table, present = inputs_of(batch_of(system, chests))
    with torch.no_grad():
        alone = system.model(ct, seen, place, lung, table, present)
        turned = [x.flip(1) for x in (ct, seen, place, lung)]
        assert torch.allclose(system.model(*turned, table, present), alone, atol=1e-5)
        swapped = system.model(ct, seen, place.flip(1), lung, table, present)
        assert float((swapped - alone).abs().max()) > 1e-5


@pytest.mark.parametrize(("count", "size"), [(1, 64), (7, 64), (30, 64), (2, 224)])
def test_any_number_of_slices_of_any_size(count: int, size: int) -> None:
    settings = config.build(System.Config, config.preset("copd", "tiny"), {"model": {"categories": TABLE}})
    model = Model(settings.model.model_copy(update={"in_channels": 1})).eval()
    ct = torch.rand(2, count, 1, size, size)
    lung, seen = torch.rand(2, count, size, size) > 0.5, torch.ones(2, count, dtype=torch.bool)
    table = torch.ones(2, len(TABLE), 2)
    with torch.no_grad():
        found = model.look(ct, seen, torch.rand(2, count), lung, table, torch.ones(2, 2, dtype=torch.bool))
    assert found.logits.shape == (2, 1) and found.weights.shape == (2, count) and found.gate.shape == (2, 2)
    assert all(torch.isfinite(each).all() for each in found)
    assert torch.allclose(found.gate.sum(1), torch.ones(2))


def test_where_the_lung_is_matters_and_a_slice_without_lung_counts_whole(chests: Path) -> None:
    system = build(chests, {"data": {"size": 128}})
    system.model.eval()
    ct, seen, place, lung, table, present = inputs_of(batch_of(system, chests))
    with torch.no_grad():
        alone = system.model(ct, seen, place, lung, table, present)
        whole = system.model(ct, seen, place, torch.ones_like(lung), table, present)
        none = system.model(ct, seen, place, torch.zeros_like(lung), table, present)
    assert float((alone - whole).abs().max()) > 1e-5
    assert torch.allclose(none, whole, atol=1e-6)


def test_what_is_missing_never_matters(chests: Path) -> None:
    system = build(chests)
    system.model.eval()
    batch = batch_of(system, chests)
    with torch.no_grad():
        whole = system.forward(batch)
        for name in INPUTS:
            without = system.forward(batch, frozenset({name}))
            other = {**batch, name: torch.rand_like(batch[name])}
            assert torch.equal(system.forward(other, frozenset({name})), without)
            flags = {**batch["present"], name: torch.zeros(6, dtype=torch.bool)}
            assert torch.equal(system.forward({**other, "present": flags}), without)
            assert float((without - whole).abs().max()) > 1e-5
            gate = system.model.look(*inputs_of({**batch, "present": flags})).gate
            assert torch.equal(gate[:, INPUTS.index(name)], torch.zeros(6))
    with pytest.raises(ValueError, match="neither CT nor table"):
        system.forward(batch, frozenset(INPUTS))


def test_a_batch_of_patients_without_any_slice(chests: Path) -> None:
    system = build(chests)
    batch = batch_of(system, chests)
    batch["present"] = {**batch["present"], "ct": torch.zeros(6, dtype=torch.bool)}
    loss = system.task.loss(system.forward(batch), batch)["loss"]
    loss.backward()
    assert torch.isfinite(loss)


def test_the_heat_map_lies_on_the_slices_and_zero_weights_are_cold(chests: Path) -> None:
    system = build(chests)
    system.model.eval()
    batch = batch_of(system, chests, 1)
    heat = system.evidence(batch, output(0, against=True))["ct"] + system.evidence(batch, output(0))["ct"]
    pixels, placement = system.data.picture(batch, "ct")
    assert placement.source == pixels.shape == (128 + 4, 64 * 3 + 8)
    assert heat.shape == (1, 33, 50) and heat.any() and not heat[0, 16].any() and not heat[0, :, 16].any()
    with torch.no_grad():
        system.model.pool.score.zero_()
    one = system.evidence(batch, output(0))["ct"]
    batch["seen"][0, 1] = False
    assert not system.evidence(batch, output(0))["ct"][0, :16, 17:33].any() and one.any()
    inner = system.inner(batch_of(system, chests, 1))
    assert sum(inner["gate"].values()) == pytest.approx(1, abs=1e-3) and len(inner["slices"]) == 4
    assert sum(each["weight"] for each in inner["slices"]) == pytest.approx(1, abs=1e-3)


def test_lung_function_is_left_out_unless_it_is_asked_for(chests: Path, caplog: pytest.LogCaptureFixture) -> None:
    left = build(chests).data.table.left_out
    assert {name for name, why in left.items() if "COPD is defined by it" in why} == {
        "FEV1",
        "FVC",
        "FEV1/FVC",
        "GOLD",
    }
    with pytest.raises(UserError, match=r"'FEV1/FVC' would give the target away.*--allow-leaks FEV1/FVC"):
        build(chests, {"data": {"table": {"columns": ["age", "FEV1/FVC"]}}})
    with caplog.at_level(logging.WARNING):
        taken = build(chests, {"data": {"table": {"allow_leaks": ["FEV1/FVC"]}}})
    assert "FEV1/FVC" in taken.data.table.names and "FEV1/FVC alone tells the classes apart" in caplog.text


def test_features_are_selected_on_training_rows_alone(chests: Path, tmp_path: Path) -> None:
    system = build(chests, {"data": {"table": {"keep_features": 5}}})
    manifest = system.data.open(chests)
    before = system.data.prepare(manifest.subset("train"))
    table = manifest.table.copy()
    table.loc[table["split"] != "train", ["age", "crp", "target"]] = ["1000", "77", "0"]
    other = type(manifest)(table, manifest.modalities)
    after = system.data.prepare(other.subset("train"))
    assert before.values == after.values and torch.equal(before.tensors["table"], after.tensors["table"])
    assert len(before.values["table"]["forest"]["kept"]) == 5


def test_a_table_without_pictures_needs_to_be_asked_for(tmp_path: Path) -> None:
    root = exasens.write(tmp_path / "data", exasens.Options(patients=60))
    with pytest.raises(UserError, match="--fusion table"):
        build(root)
    system = build(root, {"model": {"fusion": "table"}})
    assert system.forward(batch_of(system, root)).shape == (6, 1)
    assert not system.evidence(batch_of(system, root), output(0))["ct"].any()


@pytest.mark.parametrize(("preset", "expected"), [("base", 12_178_370), ("tiny", 176_224)])
def test_parameters_of_the_presets(preset: str, expected: int) -> None:
    settings = config.build(System.Config, config.preset("copd", preset), {"model": {"categories": TABLE}})
    assert sum(p.numel() for p in System(settings).model.parameters()) == expected


def test_settings_that_cannot_be(chests: Path) -> None:
    with pytest.raises(ValueError, match="multiple of the 4 heads"):
        ModelConfig(dim=50)
    with pytest.raises(UserError, match="heart to the other side"):
        build(chests, {"decision": {"test_time_flips": True}})
    with pytest.raises(UserError, match="leave --in-channels"):
        build(chests, {"model": {"in_channels": 1}})


def test_several_classes_take_as_many_outputs(chests: Path, tmp_path: Path) -> None:
    table = pd.read_csv(chests / "clinical.csv", dtype=str, keep_default_na=False)
    (tmp_path / "ct").symlink_to(chests / "ct")
    table["label"] = [("healthy", "COPD", "asthma")[number % 3] for number in range(len(table))]
    table.to_csv(tmp_path / "clinical.csv", index=False)
    system = build(tmp_path, {"task": {"positive": ""}})
    assert system.task.classes.labels == ("COPD", "asthma", "healthy")
    assert system.forward(batch_of(system, tmp_path)).shape == (6, 3)
    binary = build(tmp_path, {"data": {"options": ["positive=COPD"]}})
    assert binary.task.classes.kind == "binary" and binary.task.classes.labels == ("COPD",)
