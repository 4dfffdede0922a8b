"""XFMamba as the verbs see it: options that train every weight from both views, targets of every kind, evidence."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scanfuse import config, systems
from scanfuse.data.synthetic import chexpert, mura
from scanfuse.errors import UserError
from scanfuse.explain.gradcam import output
from scanfuse.systems.xfmamba import ModelConfig, System
from scanfuse.tasks.classify import Classification
from scanfuse.verbs.optimisation import parameter_groups

SIZE = {"data": {"size": 64, "cache_mb": 16.0}}
OPTIONS: dict[str, dict[str, Any]] = {
    "published": {},
    "single": {"model": {"fusion": "single"}},
    "early": {"model": {"fusion": "early"}},
    "late": {"model": {"fusion": "late"}},
    "two encoders": {"model": {"share_encoder": False}},
    "as the figure": {"model": {"swap": "token", "merge": "deinterleave", "norm": "bn", "gate": "channel"}},
    "timm": {"model": {"encoder": "timm", "timm_model": "convnext_atto"}},
    "one output": {"model": {"num_outputs": 1}},
    "focal": {"loss": {"name": "focal", "weighting": "balanced"}},
    "asymmetric": {"loss": {"name": "asymmetric", "label_smoothing": 0.1}},
    "all pairs, each view with itself": {"data": {"one_per_study": False, "alone": "self"}},
    "stretched": {"data": {"aspect": "stretch", "crop": "body", "window": "percentile"}},
}


@pytest.fixture(scope="module")
def bones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients in the MURA layout, of whom every fifth is in the published valid set."""
    return mura.write(tmp_path_factory.mktemp("bones"), mura.Options(patients=8, size=40, seed=4))


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten patients in the CheXpert layout."""
    return chexpert.write(tmp_path_factory.mktemp("chests"), chexpert.Options(patients=10, size=40, seed=2))


def build(root: Path, changes: Mapping[str, Any] | None = None) -> System:
    """The tiny system with the labels of the data, in training mode."""
    settings = config.build(System.Config, config.preset("xfmamba", "tiny"), SIZE, dict(changes or {}))
    torch.manual_seed(0)
    system = System(System.completed(settings, root))
    system.model.train()
    return system


def batch_of(system: System, root: Path, count: int = 3, *, train: bool = True) -> dict[str, Any]:
    """The first studies of the training data that have both views."""
    data = system.data.dataset(system.data.open(root).subset("train"), train=train)
    samples = [sample for sample in (data[index] for index in range(len(data))) if all(sample["present"].values())]
    assert len(samples) >= count
    return system.data.collate(samples[:count])


def weigh(system: System, *targets: str) -> None:
    """Begins a training of samples with these targets."""
    samples: Any = SimpleNamespace(targets=list(targets))
    system.task.begin(samples, samples)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_step_reaches_every_weight_from_both_views(name: str, bones: Path) -> None:
    system = build(bones, OPTIONS[name])
    batch = batch_of(system, bones)
    for view in system.data.modalities:
        batch[view].requires_grad_()
    weigh(system, "0", "0", "0", "1")
    loss = system.task.loss(system.forward(batch), batch)["loss"]
    loss.backward()
    unreached = [
        parameter_name
        for parameter_name, parameter in system.model.named_parameters()
        if parameter.grad is None or not parameter.grad.any() or not torch.isfinite(parameter.grad).all()
    ]
    assert unreached == []
    reached = [view for view in system.data.modalities if batch[view].grad is not None and batch[view].grad.any()]
    assert reached == (["view_a"] if name == "single" else ["view_a", "view_b"])
    optimizer = torch.optim.AdamW(parameter_groups(system.model, 0.05), lr=1e-3)
    before = {key: tensor.detach().clone() for key, tensor in system.model.named_parameters()}
    optimizer.step()
    moved = [key for key, tensor in system.model.named_parameters() if not torch.equal(tensor, before[key])]
    assert len(moved) == len(before)
    assert np.isfinite(float(loss.detach()))


def test_positives_weigh_as_often_as_they_are_rarer(bones: Path) -> None:
    """Three negatives to a positive: the loss of a positive counts three times, that of a negative once."""
    plain, weighted = build(bones), build(bones, {"loss": {"weighting": "balanced"}})
    batch = batch_of(plain, bones)
    weigh(weighted, "0", "0", "0", "1", "")
    with torch.no_grad():
        logits = plain.forward(batch)
        for target, factor in ((1.0, 3.0), (0.0, 1.0)):
            batch["target"] = torch.full_like(batch["target"], target)
            values = [system.task.loss(logits, batch)["loss"] for system in (plain, weighted)]
            assert float(values[1]) == pytest.approx(factor * float(values[0]), rel=1e-6)


def test_dropped_views_are_drawn_by_epoch_and_only_in_training(bones: Path) -> None:
    system = build(bones, {"data": {"view_dropout": 0.5}})
    manifest = system.data.open(bones).subset("train")
    data = system.data.dataset(manifest, train=True)

    def present(epoch: int) -> list[tuple[bool, ...]]:
        data.set_epoch(epoch)
        return [tuple(data[index]["present"].values()) for index in range(len(data))]

    first = present(0)
    assert first == present(0)
    assert first != present(1)
    drawn = {flags for epoch in range(4) for flags in present(epoch)}
    assert drawn == {(True, True), (True, False), (False, True)}
    plain = build(bones)
    both = [len(row.paths) > 1 for row in manifest.rows]
    for evaluated in (system.data.dataset(manifest, train=False), plain.data.dataset(manifest, train=True)):
        found = {s["meta"]["study"]: all(s["present"].values()) for s in map(evaluated.__getitem__, range(len(both)))}
        assert all(found[row.id] == pair for row, pair in zip(manifest.rows, both, strict=True) if row.id in found)


@pytest.mark.parametrize("uncertain", ["ones", "zeros", "ignore", "per-label"])
@pytest.mark.parametrize("labels", [13, 14])
def test_uncertain_findings(uncertain: str, labels: int, chests: Path) -> None:
    """The loss is the mean of the cross-entropies of the known findings, by hand; unknown ones have no gradient."""
    system = build(chests, {"data": {"options": [f"uncertain={uncertain}", f"labels={labels}", "blank=ignore"]}})
    assert system.task.classes.num_outputs == system.config.model.num_outputs == labels
    assert system.task.classes.kind == "multilabel"
    assert ("No Finding" in system.task.classes.labels) == (labels == 14)
    batch = batch_of(system, chests)
    assert batch["mask"].any() and not batch["mask"].all()
    logits = system.forward(batch).detach().requires_grad_()
    loss = system.task.loss(logits, batch)["loss"]
    loss.backward()
    each = [
        np.log1p(np.exp(-z if y else z))
        for z, y, known in zip(
            logits.detach().double().flatten().tolist(),
            batch["target"].flatten().tolist(),
            batch["mask"].flatten().tolist(),
            strict=True,
        )
        if known
    ]
    assert float(loss.detach()) == pytest.approx(np.mean(each), rel=1e-5)
    assert torch.equal(logits.grad != 0, batch["mask"])
    loss = system.task.loss(system.forward(batch), batch)["loss"]
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in system.model.parameters())


def test_what_an_uncertain_finding_becomes(chests: Path) -> None:
    """The csv itself says where -1 stands; blank is negative by default."""
    table = np.genfromtxt(chests / "CheXpert-v1.0-small" / "train.csv", delimiter=",", names=True, dtype=None)
    frontal = [row for row in table if str(row["Path"]).endswith("view1_frontal.jpg")]
    uncertain = [row for row in frontal if row["Edema"] == -1]
    assert uncertain
    for choice, expected in (("ones", (1.0, True)), ("zeros", (0.0, True)), ("ignore", (0.0, False))):
        system = build(chests, {"data": {"options": [f"uncertain={choice}"]}})
        manifest = system.data.open(chests, split=False)
        data = system.data.dataset(manifest, train=False)
        samples = {sample["meta"]["study"]: sample for sample in map(data.__getitem__, range(len(data)))}
        column = system.task.classes.labels.index("Edema")
        for row in uncertain:
            _, _, patient, study, _ = str(row["Path"]).split("/")
            sample = samples[f"{patient}-{study}"]
            assert (float(sample["target"][column]), bool(sample["mask"][column])) == expected


def test_options_of_a_layout_that_make_no_sense_are_refused(chests: Path, bones: Path) -> None:
    for option, message in (
        ("uncertain=perhaps", "one of ones, zeros, ignore, per-label"),
        ("labels=12", "no finding '12'"),
        ("validation_share=many", "is a number"),
        ("per_label=Edema", "cannot be given as text"),
        ("colour=red", "no option 'colour'"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            build(chests, {"data": {"options": [option]}})
        assert "\n" not in str(caught.value)
    table = build(bones).data.open(bones).table
    wanted = sorted(set(table["part"]))[:3]
    chosen = build(bones, {"data": {"options": [f"parts={'+'.join(wanted)}"]}}).data.open(bones).table
    assert sorted(chosen["id"]) == sorted(table.loc[table["part"].isin(wanted), "id"])


def test_outputs_that_do_not_fit_the_task_are_refused(bones: Path) -> None:
    settings = config.build(System.Config, config.preset("xfmamba", "tiny"), {"model": {"num_outputs": 5}})
    with pytest.raises(UserError, match="5 outputs, but the task"):
        System(settings)
    # The data decide.
    assert System(System.completed(settings, bones)).config.model.num_outputs == 1


def test_weights_that_cannot_start_the_encoder_are_refused(bones: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs --encoder timm"):
        build(bones, {"start": {"encoder_weights": "timm"}}).start()
    with pytest.raises(UserError, match=r"none\.pth does not exist"):
        build(bones, {"start": {"encoder_weights": str(tmp_path / "none.pth")}})
    with pytest.raises(UserError, match=r"none\.pth does not exist"):
        changes = {"start": {"encoder_weights": str(tmp_path / "none.pth")}, **OPTIONS["timm"]}
        build(bones, changes).start()
    assert "random" in build(bones).start()


def test_test_time_flips_average_probabilities(bones: Path) -> None:
    """The mean of the probabilities of the views and of the mirrored views, from the network itself."""
    system = build(bones, {"decision": {"test_time_flips": True}})
    system.model.eval()
    batch = batch_of(system, bones, train=False)
    mirrored = {**batch, **{view: batch[view].flip(-1) for view in system.data.modalities}}
    with torch.no_grad():
        each = [system.forward(part).softmax(1)[:, 1].double().numpy() for part in (batch, mirrored)]
    assert np.abs(each[0] - each[1]).max() > 1e-5
    found = [float(result.probabilities[0]) for result in system.task.results(system.forward, batch)]
    np.testing.assert_allclose(found, (each[0] + each[1]) / 2, rtol=1e-5)


def test_without_a_view_is_as_if_it_were_missing(bones: Path) -> None:
    system = build(bones)
    system.model.eval()
    batch = batch_of(system, bones, train=False)
    missing = {**batch, "present": {**batch["present"], "view_b": torch.zeros(3, dtype=torch.bool)}}
    with torch.no_grad():
        assert torch.equal(system.forward(batch, without=frozenset({"view_b"})), system.forward(missing))
        assert not torch.equal(system.forward(batch), system.forward(missing))


@pytest.mark.parametrize("name", ["published", "single", "early", "late"])
def test_evidence_is_that_of_the_views_that_are_there(name: str, bones: Path) -> None:
    """A single-view run that is given the second view alone has its evidence there."""
    system = build(bones, OPTIONS[name])
    system.model.eval()
    batch = batch_of(system, bones, train=False)
    batch["present"]["view_a"][0] = False
    batch["present"]["view_b"][1] = False
    maps = system.evidence(batch, lambda logits: output(0)(logits).abs(), "hirescam")
    expected = {
        "published": {"view_a", "view_b", "fused"},
        "single": {"view_a", "view_b"},
        "early": {"fused"},
        "late": {"view_a", "view_b"},
    }
    assert set(maps) == expected[name]
    assert all(value.shape == (3, 2, 2) and bool((value >= 0).all()) for value in maps.values())
    if name == "single":
        assert not maps["view_a"][0].any() and not maps["view_b"][1:].any()
        alone = {**batch, "view_a": batch["view_b"].clone(), "present": {**batch["present"]}}
        alone["present"]["view_a"] = torch.ones(3, dtype=torch.bool)
        again = system.evidence(alone, lambda logits: output(0)(logits).abs(), "hirescam")
        torch.testing.assert_close(again["view_a"][0], maps["view_b"][0])


def test_a_sample_from_arrays_is_that_from_files(bones: Path) -> None:
    system = build(bones)
    row = next(row for row in system.data.open(bones).rows if len(row.paths) == 2)
    files = dict(zip(system.data.modalities, row.paths.values(), strict=True))
    arrays = {name: np.asarray(Image.open(path)) for name, path in files.items()}
    first, second = system.data.sample(files), system.data.sample(arrays)
    assert all(torch.equal(first[name], second[name]) for name in system.data.modalities)
    assert not first["mask"].any()
    with pytest.raises(UserError, match="No view was given"):
        system.data.sample({})


def test_it_classifies_and_has_every_optional_ability() -> None:
    assert systems.task_of("xfmamba") is Classification
    for name in ("completed", "start", "evidence", "missing_inputs"):
        assert systems.ability(System, name) is not None, name


def test_changed_settings_that_do_nothing_are_named() -> None:
    def said(**model: Any) -> str:
        network = {**config.preset("xfmamba", "tiny")["model"], **model}
        return System(System.Config(model=ModelConfig(**network))).start()

    assert "no effect" not in said(swap="token", merge="deinterleave")
    assert said(fusion="late", swap="token").endswith("The setting swap has no effect with fusion late.")
    assert "The setting expand has no effect with fusion single." in said(fusion="single", expand=4)
    assert said(timm_model="resnet18").endswith("The setting timm_model has no effect with encoder vmamba.")
    timm = said(encoder="timm", timm_model="convnext_atto")
    assert timm.endswith("The setting vmamba has no effect with encoder timm.")
