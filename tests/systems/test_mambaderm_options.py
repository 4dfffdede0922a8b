"""Options that users of the published code know: each is taken under its name, and each changes something."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scanfuse import config, options
from scanfuse.cli import main
from scanfuse.data.synthetic import isic2024
from scanfuse.systems.mambaderm import System
from scanfuse.tasks.classify.classes import parse_targets
from whole_jobs import Capture, json_of, table_of


def settings_of(*flags: str, preset: str = "tiny") -> Any:
    """The configuration of a command line of `--name value` pairs."""
    leaves = options.leaves(System.Config)
    flag_of = {name: leaf.flag for leaf in leaves for name in leaf.names}
    given = {flag_of[name.removeprefix("--")]: value for name, value in zip(flags[::2], flags[1::2], strict=True)}
    return config.build(System.Config, config.preset("mambaderm", preset), options.nested(leaves, given))


def system_of(root: Path, *flags: str) -> System:
    completed = System.completed(settings_of("--size", "32", *flags), root)
    torch.manual_seed(0)
    system = System(completed)
    system.data.prepare(system.data.open(root).subset("train"))
    system.model.eval()
    return system


def batch_of(system: System, root: Path, *, train: bool = False) -> dict[str, Any]:
    data = system.data.dataset(system.data.open(root).subset("train"), train=train)
    return system.data.collate([data[place] for place in range(6)])


@pytest.mark.parametrize("preset", ["mambaderm", "mambaderm-lite", "light"])
def test_the_published_defaults(preset: str) -> None:
    """Fold 0 of 5, 30 epochs, batch 32, rate 1e-4, d 192, four layers; each under its published name."""
    found = settings_of(preset=preset)
    assert (found.folds.folds, found.folds.fold) == (5, 0)
    assert (found.train.epochs, found.train.batch, found.train.lr) == (30, 32, 1e-4)
    assert (found.model.d_model, found.model.n_mamba_layers) == (192, 4)
    other = settings_of(*"--fold 3 --epochs 2 --batch-size 8 --lr 0.01 --d-model 64 --n-mamba-layers 1".split(),
                        "--quick-test", "true", preset=preset)  # fmt: skip
    assert (other.folds.fold, other.train.epochs, other.train.batch, other.train.lr) == (3, 2, 8, 0.01)
    assert (other.model.d_model, other.model.n_mamba_layers, other.data.quick_test) == (64, 1, True)


def test_sizes_change_the_network(moles: Path) -> None:
    plain = system_of(moles)
    wide, deep = system_of(moles, "--d-model", "64"), system_of(moles, "--n-mamba-layers", "3")
    counts = [sum(p.numel() for p in system.model.parameters()) for system in (plain, wide, deep)]
    assert counts[1] > counts[0] and counts[2] > counts[0] and len(deep.model.layers) == 3


def test_a_quick_test_takes_patients_out_of_their_own_split(tmp_path: Path) -> None:
    """The published one adds positives of all patients to training and validation alike."""
    root = isic2024.write(tmp_path / "data", isic2024.Options(patients=160, size=24, malignant=0.05))
    whole = system_of(root).data.open(root).table.set_index("id")
    system = system_of(root, "--quick-test", "true")
    manifest = system.data.open(root)
    quick = manifest.table.set_index("id")
    kept = quick[quick["split"] != ""]
    assert (kept["split"] == whole.loc[kept.index, "split"]).all()
    assert dict(kept.groupby("split")["group"].nunique()) == {"train": 40, "val": 16, "test": 16}
    assert (kept.groupby("group")["split"].nunique() == 1).all()
    whole_patients = set(kept["group"])
    assert len(whole[whole["group"].isin(whole_patients)]) == len(kept)  # all rows of a patient, or none
    for split, part in kept.groupby("split"):
        assert (part["target"] == "1").any(), split
    assert "quick test" in manifest.notes[-1]
    again = system_of(root, "--quick-test", "true").data.open(root)
    assert manifest.digest == again.digest
    assert manifest.digest != system_of(root, "--quick-test", "true", "--split-seed", "1").data.open(root).digest


def test_a_quick_test_as_a_job(tmp_path: Path) -> None:
    root = isic2024.write(tmp_path / "data", isic2024.Options(patients=120, size=24))
    command = ["train", "mambaderm", "--preset", "tiny", "--data", str(root), "--out", str(tmp_path / "run")]
    flags = "--quick-test --folds 3 --fold 1 --epochs 1 --batch_size 16 --lr 1e-3 --device cpu --threads 1 --quiet"
    assert main([*command, *flags.split()]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(root), "--device", "cpu", "--quiet"]) == 0
    found = json_of(tmp_path / "run/evaluation/test/evaluation.json")
    split = table_of(tmp_path / "run/split.csv")
    assert found["samples"] == (split["split"] == "test").sum() and found["groups"] == 16
    assert any("quick test" in note for note in found["notes"])


def test_without_a_test_part_every_case_is_tested_by_one_fold(moles: Path) -> None:
    flags = ("--test-share", "0", "--folds", "5", "--fold")
    tested = [system_of(moles, *flags, str(fold)).data.open(moles).subset("test").table["id"] for fold in range(5)]
    everyone = [name for part in tested for name in part]
    assert len(set(everyone)) == len(everyone) == len(system_of(moles).data.open(moles))
    alike = [system_of(moles, "--folds", "5", "--fold", fold).data.open(moles).subset("test") for fold in "03"]
    assert list(alike[0].table["id"]) == list(alike[1].table["id"])
    share = len(system_of(moles, "--test-share", "0.4").data.open(moles).subset("test")) / len(everyone)
    assert 0.3 < share < 0.5


def test_the_ratio_of_an_epoch_is_as_asked_and_is_said(moles: Path, caplog: pytest.LogCaptureFixture) -> None:
    system = system_of(moles, "--negatives-per-positive", "2")
    data = system.data.dataset(system.data.open(moles).subset("train"), train=True)
    with caplog.at_level("INFO", logger="scanfuse"):
        system.task.begin(data, data)
    target = parse_targets(data.targets, system.task.classes)[0][:, 0]
    epochs = [
        np.concatenate(system.task.order(len(data), batch=16, seed=3, epoch=epoch)).astype(int) for epoch in range(3)
    ]
    positives = int(target.sum())
    for drawn in epochs:
        assert target[drawn].sum() == positives and len(drawn) == 3 * positives
        assert len(set(drawn)) == len(drawn)
    assert len({frozenset(drawn) for drawn in epochs}) == 3  # other negatives in every epoch
    assert f"{positives} positives and {2 * positives} others (1 : 2)" in caplog.text


@pytest.mark.parametrize(
    "flags",
    [
        ("--loss", "focal"),
        ("--loss", "asymmetric"),
        ("--weighting", "balanced"),
        ("--label-smoothing", "0.1"),
        ("--loss", "focal", "--focal-gamma", "1"),
        ("--loss", "asymmetric", "--asymmetric-negative", "2"),
        ("--loss", "asymmetric", "--asymmetric-positive", "1"),
        ("--loss", "asymmetric", "--asymmetric-margin", "0.2"),
    ],
)
def test_every_loss_costs_something_else(flags: tuple[str, ...], moles: Path) -> None:
    beside = flags[:2] if len(flags) > 2 else ()
    losses = []
    for given in (beside, flags):
        system = system_of(moles, *given)
        data = system.data.dataset(system.data.open(moles).subset("train"), train=False)
        system.task.begin(data, data)
        batch = batch_of(system, moles)
        with torch.no_grad():
            losses.append(float(system.task.loss(system.forward(batch), batch)["loss"]))
    assert abs(losses[0] - losses[1]) > 1e-4


@pytest.mark.parametrize(
    "flags",
    [
        ("--flips", "false"),
        ("--rotate", "0"),
        ("--shift", "0"),
        ("--scale", "0"),
        ("--light", "0"),
        ("--hue", "0.3"),
        ("--erase", "1"),
        ("--drop-image", "0.5"),
        ("--drop-table", "0.5"),
        ("--aspect", "pad"),
    ],
)
def test_every_augmentation_changes_what_is_trained_on(flags: tuple[str, str], tmp_path: Path) -> None:
    from scanfuse.data.synthetic import ham10000  # its pictures are not square

    root = ham10000.write(tmp_path / "data", ham10000.Options(patients=40, size=32))
    plain, other = batch_of(system_of(root), root, train=True), batch_of(system_of(root, *flags), root, train=True)
    name = "table" if flags[0] == "--drop-table" else "image"
    assert not torch.equal(plain[name], other[name])
    still = [batch_of(system_of(root, *each), root) for each in ((), flags)]
    if flags[0] != "--aspect":  # what is evaluated is as it is
        assert all(torch.equal(still[0][key], still[1][key]) for key in ("image", "table"))


def test_the_average_over_eight_positions_is_that_of_the_square(moles: Path) -> None:
    """It is the same for every turned and mirrored picture, and unlike that of flips and of none."""
    systems = {
        flag: system_of(moles, *([f"--test-time-{flag}", "true"] if flag else [])) for flag in ("", "flips", "turns")
    }
    batch = batch_of(systems[""], moles)

    def p(flag: str, picture: torch.Tensor) -> np.ndarray:
        system = systems[flag]
        with torch.no_grad():
            found = system.task.results(system.forward, {**batch, "image": picture})
        return np.array([result.probabilities[0] for result in found])

    image = batch["image"]
    moved = [torch.rot90(image, k, (-2, -1)) for k in range(4)]
    moved += [each.flip(-1) for each in moved]
    plain = np.stack([p("", each) for each in moved])
    np.testing.assert_allclose(p("turns", image), plain.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(p("flips", image), plain[[0, 4]].mean(axis=0), atol=1e-6)
    for each in moved[1:]:
        np.testing.assert_allclose(p("turns", each), p("turns", image), atol=1e-6)
    assert np.abs(p("turns", image) - p("flips", image)).max() > 1e-5 < np.abs(p("flips", image) - p("", image)).max()


def test_averaged_weights_are_what_is_kept(moles: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    base = ["train", "mambaderm", "--preset", "tiny", "--data", str(moles), "--epochs", "1", "--size", "32"]
    found = []
    for name, flags in {"plain": [], "ema": ["--ema", "0.9"]}.items():
        out = tmp_path / name
        assert main([*base, "--out", str(out), "--device", "cpu", "--threads", "1", "--quiet", *flags]) == 0
        found.append(load_file(out / "model.safetensors"))
    different = [name for name in found[0] if not torch.equal(found[0][name], found[1][name])]
    assert len(different) > 0.9 * len(found[0])


def test_options_that_cannot_be_together(moles: Path, tmp_path: Path, capsys: Capture) -> None:
    from whole_jobs import fails

    base = ["train", "mambaderm", "--preset", "tiny", "--data", str(moles), "--out", str(tmp_path / "no")]
    both = ["--balanced-sampling", "--negatives-per-positive", "3"]
    assert "exclude each other" in fails([*base, *both], capsys)
