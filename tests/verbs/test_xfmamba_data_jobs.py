"""Whole XFMamba jobs on other data than bones, and from imported weights; what cannot be trained leaves nothing."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score

from opening import open_studies
from scanfuse.backbones.vmamba import load_checkpoint
from scanfuse.cli import main
from scanfuse.data.synthetic import cbis_ddsm, chexpert
from scanfuse.errors import UserError
from scanfuse.tasks.classify import Classification
from scanfuse.verbs import import_weights
from scanfuse.verbs.predict import load
from scanfuse.verbs.training import Training
from whole_jobs import TINY, Capture, fails, json_of, table_of

GOLDEN = Path(__file__).parents[1] / "golden"


# ---- imported weights


def checkpoint(path: Path, flavour: str) -> Path:
    """A small published-layout checkpoint."""
    with np.load(GOLDEN / f"vmamba_{flavour}.npz") as file:
        state = {key[3:]: torch.from_numpy(file[key]) for key in file.files if key.startswith("sd/")}
    torch.save({"model": state, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("flavour", ["v0", "v2r1"])
def test_imported_weights_start_a_training(
    flavour: str,
    bones: Path,
    tmp_path: Path,
    capsys: Capture,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, weights, run = checkpoint(tmp_path / "vmamba.pth", flavour), tmp_path / "weights", tmp_path / "run"
    assert main(["import", "vmamba", str(file), "--out", str(weights)]) == 0
    assert {path.name for path in weights.iterdir()} == {"weights.safetensors", "config.yaml"}
    text = capsys.readouterr().out
    assert "matched: " in text and "skipped: epoch" in text and f"--encoder-weights {weights}" in text
    started: dict[str, torch.Tensor] = {}
    fit = Training.fit

    def keep(self: Any) -> Any:
        started.update({name: tensor.clone() for name, tensor in self.system.model.encoder.state_dict().items()})
        return fit(self)

    monkeypatch.setattr(Training, "fit", keep)
    command = ["train", "xfmamba", *TINY, "--data", str(bones), "--encoder-weights", str(weights), "--out", str(run)]
    assert main([*command, "--options", "validation_share=0.25"]) == 0
    said = [record.getMessage() for record in caplog.records if record.name == "scanfuse.verbs.train"]
    assert len(said) == 1 and said[0].startswith(f"The encoder starts from {weights}: VMamba {flavour[:2]}")
    assert json_of(run / "run.json")["started_from"] == said[0]
    published = load_checkpoint(file)
    expected = {name: tensor for name, tensor in published.state_dict().items() if not name.startswith("head.")}
    expected |= {f"out_norms.3.{part}": expected.pop(f"norm.{part}") for part in ("weight", "bias")}
    assert set(started) == set(expected)
    assert all(torch.equal(started[name], expected[name]) for name in expected)
    settings = yaml.safe_load((run / "config.yaml").read_text())["model"]["vmamba"]
    assert {key: settings[key] for key in ("family", "dim")} == {
        "family": flavour[:2],
        "dim": published.config.dim,
    }
    if flavour == "v0":
        assert main(["evaluate", str(run), "--data", str(bones), "--out", str(tmp_path / "e"), "--quiet"]) == 0
        assert {path.name for path in (tmp_path / "e").iterdir()} >= {"evaluation.json", "examples.json"}
    # The folder is taken now.
    assert "already holds" in fails(["import", "vmamba", str(file), "--out", str(weights)], capsys)


def test_weights_that_cannot_be_imported(
    bones: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, and nothing written."""
    whole = checkpoint(tmp_path / "whole.pth", "v2r1").read_bytes()
    (tmp_path / "short.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"model": {"conv1.weight": torch.zeros(3, 3)}}, tmp_path / "resnet.pth")
    content = torch.load(tmp_path / "whole.pth", weights_only=True)
    del content["model"]["layers.1.blocks.0.op.A_logs"]
    torch.save(content, tmp_path / "holes.pth")
    out = tmp_path / "out"
    for name, message in (
        ("missing.pth", "does not exist"),
        ("short.pth", "damaged or truncated"),
        ("text.pth", "damaged or truncated"),
        ("resnet.pth", "not a VMamba checkpoint"),
        ("holes.pth", "lacks layers.1.blocks.0.op.A_logs"),
    ):
        assert message in fails(["import", "vmamba", str(tmp_path / name), "--out", str(out)], capsys)
        assert not out.exists()
    for name in ("missing.pth", "short.pth"):  # nor can a training start from them
        data = ["--data", str(bones), "--out", str(out), "--encoder-weights", str(tmp_path / name)]
        assert name in fails(["train", "xfmamba", *TINY, *data], capsys)
        assert not out.exists()
    command = ["import", "vmamba", str(tmp_path / "whole.pth"), "--out", str(out)]
    assert "no 'model_ema'" in fails([*command, "--section", "model_ema"], capsys)

    # A disk that is full for the second file.
    def full(*_: Any) -> None:
        raise UserError("Cannot write config.yaml: no space left.")

    with monkeypatch.context() as patch:
        patch.setattr(import_weights, "write_yaml", full)
        assert "no space left" in fails(command, capsys)
    assert list(out.iterdir()) == []
    assert main(command) == 0


# ---- targets of other kinds


def test_findings_of_chexpert(tmp_path: Path) -> None:
    """Several labels of which some are unknown: tables per label, thresholds per label, one finding explained."""
    data, run = chexpert.write(tmp_path / "data", chexpert.Options(patients=30, size=40, seed=3)), tmp_path / "run"
    flags = ["--options", "uncertain=ignore,labels=14,validation_share=0.4", "--data", str(data), "--out", str(run)]
    assert main(["train", "xfmamba", *TINY, *flags, "--pairing", "all"]) == 0
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["task"]["kind"] == "multilabel"
    labels = settings["task"]["labels"]
    assert len(labels) == settings["model"]["num_outputs"] == 14 and labels[0] == "No Finding"
    decision = json_of(run / "decision.json")
    assert len(decision["thresholds"]) == 14
    assert any(note.startswith("Fracture: ") for note in decision["notes"])  # it never occurs

    # The loss of validation is the mean over its known findings, not of batches that know more or fewer of them.
    predictor = load(run, device="cpu")
    raw = predictor.method(predictor.system.data.open(data).subset("val")).raw
    assert len(raw) > 8 and len({int(result.mask.sum()) for result in raw}) > 1
    losses = [
        np.logaddexp(0, -z if y else z)
        for result in raw
        for z, y, known in zip(result.logits, result.target, result.mask, strict=True)
        if known
    ]
    assert json_of(run / "run.json")["validation"]["val_loss"] == pytest.approx(np.mean(losses), rel=1e-5)

    assert main(["evaluate", str(run), "--data", str(data), "--on", "val", "--quiet", "--pictures", "2"]) == 0
    folder = run / "evaluation" / "val"
    rows = table_of(folder / "per_sample.csv")
    content = json_of(folder / "evaluation.json")
    known = {label: rows[rows[f"target_{label}"].notna()] for label in labels}
    assert any(len(part) < len(rows) for part in known.values())
    cells = content["parts"]["labels"]["cells"]["run"]
    defined = []
    for label, part in known.items():
        y = part[f"target_{label}"]
        if y.nunique() == 2:
            defined.append(roc_auc_score(y, part[f"p_{label}"]))
            assert cells[label]["mean"] == pytest.approx(defined[-1]), label
        else:
            assert cells[label]["mean"] is None, label
    assert content["cells"]["run"]["auroc"]["mean"] == pytest.approx(np.mean(defined))
    assert "Pleural Other" in next(note for note in content["notes"] if "without AUROC" in note)
    for example in json_of(folder / "examples.json")["examples"]:
        called = example["text"].split("; called ")[1].split(" with probability")[0]
        label = called.removeprefix("not ")
        row = rows.set_index("id").loc[example["id"]]
        assert (row[f"p_{label}"] >= decision["thresholds"][labels.index(label)]) == (called == label)
        assert example["right"] == ((row[f"target_{label}"] == 1) == (called == label))

    study = rows["id"][0]
    out = tmp_path / "x"
    command = ["explain", str(run), "--data", str(data), "--id", study, "--out", str(out), "--label", "Edema"]
    assert main(command) == 0
    found = json_of(next(out.rglob("explanation.json")))
    assert found["outcome"] == "Edema"
    assert found["probability_of_study"] == pytest.approx(rows["p_Edema"][0], rel=1e-5)


CLASSES = ("bar", "blank", "disc")


def shapes(root: Path, patients: int = 30) -> Path:
    """Studies of two views of three classes, every sixth without a target, in one's own table."""
    random = np.random.default_rng(0)
    rows = ["study,patient,view,path,target"]
    y, x = np.mgrid[:36, :40]
    for number in range(patients):
        kind = CLASSES[number % 3]
        for view in ("PA", "L"):
            picture = random.integers(0, 60, (36, 40))
            picture[{"disc": (x - 20) ** 2 + (y - 18) ** 2 < 80, "bar": abs(x - 20) < 4}.get(kind, x < 0)] += 150
            name = f"{number}_{view}.png"
            (root / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.astype(np.uint8)).save(root / "images" / name)
            rows.append(f"s{number},p{number},{view},{name},{'' if number % 6 == 5 else kind}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root


def test_classes_of_ones_own_table(tmp_path: Path, capsys: Capture) -> None:
    data, run = shapes(tmp_path / "data"), tmp_path / "run"
    flags = ["--data", str(data), "--out", str(run), "--weighting", "balanced", "--epochs", "5", "--lr", "5e-4"]
    assert main(["train", "xfmamba", *TINY, *flags]) == 0
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["task"]["labels"] == list(CLASSES)
    assert settings["model"]["num_outputs"] == 3
    assert json_of(run / "decision.json")["thresholds"] == []
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train_loss"]) < 0.2 * float(rows[0]["train_loss"])
    assert float(rows[-1]["val_auroc"]) > 0.9
    assert main(["evaluate", str(run), "--data", str(data), "--on", "all", "--quiet"]) == 0
    folder = run / "evaluation" / "all"
    table = pd.read_csv(folder / "per_sample.csv", dtype={"target": str})
    p = table[[f"p_{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    known = table["target"].notna().to_numpy()
    assert (~known).sum() == 5
    content = json_of(folder / "evaluation.json")
    y = table["target"][known].astype(float).astype(int).to_numpy()
    expected = roc_auc_score(y, p[known], multi_class="ovr", average="macro")
    assert content["cells"]["run"]["auroc"]["mean"] == pytest.approx(expected)
    assert content["cells"]["run"]["accuracy"]["mean"] == pytest.approx((p[known].argmax(axis=1) == y).mean())
    assert "5 of 30 targets are not known and were left out" in content["notes"]
    capsys.readouterr()
    image = str(data / "images" / "2_PA.png")
    assert main(["predict", str(run), "--view_a", image, "--out", str(tmp_path / "p")]) == 0
    called = json_of(tmp_path / "p" / "2_PA.json")
    assert called["called"] == [max(called["probabilities"], key=called["probabilities"].__getitem__)]
    assert main(["explain", str(run), "--data", str(data), "--id", "s2", "--out", str(tmp_path / "x")]) == 0
    found = json_of(next((tmp_path / "x").rglob("explanation.json")))
    assert found["outcome"] == CLASSES[int(p[2].argmax())]
    assert found["probability"] == pytest.approx(p[2].max(), rel=1e-5)
    assert "no label 'ring'" in fails(
        ["explain", str(run), "--data", str(data), "--id", "s2", "--label", "ring", "--out", str(tmp_path / "y")],
        capsys,
    )
    assert not (tmp_path / "y").exists()


def test_a_training_that_cannot_start_leaves_nothing(tmp_path: Path, capsys: Capture) -> None:
    """No target in a part of the data, a part without studies, a picture that cannot be read."""
    data, run = shapes(tmp_path / "data", 12), tmp_path / "run"
    file = data / "manifest.csv"
    lines = file.read_text().splitlines()
    command = ["train", "xfmamba", *TINY, "--data", str(data), "--out", str(run)]

    def with_splits(split_of: Callable[[int], str], target_of: Callable[[int, str], str]) -> None:
        rows = [line.split(",") for line in lines[1:]]
        changed = [[*row[:4], target_of(int(row[0][1:]), row[4]), split_of(int(row[0][1:]))] for row in rows]
        file.write_text("\n".join([lines[0] + ",split", *(",".join(row) for row in changed)]) + "\n")

    def split_of(number: int) -> str:
        return "train" if number < 8 else "val"

    for name, numbers in (("training", range(8)), ("validation", range(8, 12))):
        with_splits(split_of, lambda number, target, without=numbers: "" if number in without else target)
        assert f"No {name} study has a known target" in fails(command, capsys)
        assert not run.exists()
    with_splits(lambda number: "val", lambda number, target: target)
    assert "No sample is in the split 'train'" in fails(command, capsys)
    assert not run.exists()
    with_splits(split_of, lambda number, target: target)
    (data / "images" / "3_L.png").write_text("no picture")
    assert "3_L.png" in fails(command, capsys)
    assert not run.exists()


def test_one_outcome_in_validation_is_said(tmp_path: Path, capsys: Capture) -> None:
    """There is no AUROC then: the loss picks the best epoch, and both the console and the record say so."""
    data, run = shapes(tmp_path / "data", 12), tmp_path / "run"
    lines = (data / "manifest.csv").read_text().splitlines()
    rows = [line.split(",")[:4] for line in lines[1:]]
    rows = [
        [*row, str(int(int(row[0][1:]) % 3 == 0)), "val" if int(row[0][1:]) in (1, 4) else "train"] for row in rows
    ]
    (data / "manifest.csv").write_text("\n".join([lines[0] + ",split", *(",".join(row) for row in rows)]) + "\n")
    flags = [flag for flag in TINY if flag != "--quiet"]
    assert main(["train", "xfmamba", *flags, "--data", str(data), "--out", str(run)]) == 0
    out = capsys.readouterr().out
    assert "the best epoch is picked by their loss" in out
    assert "threshold left at 0.5" in out
    assert json_of(run / "run.json")["selected_by"] == "loss"
    assert open_studies(data).describe() == "train 10 of 10 groups, val 2 of 2 groups"
    line = fails(["evaluate", str(run), "--data", str(data), "--quiet"], capsys)
    assert "No sample is in the split 'test'" in line


def test_a_last_batch_is_never_a_single_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norms have no statistics of one place: nine studies in batches of four are four and five."""
    sizes: list[int] = []
    loss = Classification.loss

    def counted(self: Classification, outputs: torch.Tensor, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        if outputs.requires_grad:
            sizes.append(len(batch["meta"]))
        return loss(self, outputs, batch)

    monkeypatch.setattr(Classification, "loss", counted)
    data = shapes(tmp_path / "data", 12)
    lines = (data / "manifest.csv").read_text().splitlines()
    rows = [f"{line},{'train' if int(line.split(',')[0][1:]) < 9 else 'val'}" for line in lines[1:]]
    (data / "manifest.csv").write_text("\n".join([f"{lines[0]},split", *rows]) + "\n")
    for number, flags in enumerate((["--fusion", "early"], ["--balanced-sampling", "true", "--norm", "bn"])):
        out = ["--data", str(data), "--out", str(tmp_path / str(number))]
        assert main(["train", "xfmamba", *TINY, *out, "--batch", "4", *flags]) == 0
    assert sizes == [4, 5, 4, 5]


# ---- mammograms


def test_mammograms(tmp_path: Path) -> None:
    data, run = cbis_ddsm.write(tmp_path / "data", cbis_ddsm.Options(patients=20, size=64, seed=1)), tmp_path / "run"
    flags = "--crop body --window percentile --positive malignant --alone self --options validation_share=0.3".split()
    assert main(["data", "check", "xfmamba", str(data)]) == 0
    assert main(["train", "xfmamba", *TINY, *flags, "--data", str(data), "--out", str(run)]) == 0
    command = ["evaluate", str(run), "--data", str(data), "--out", str(tmp_path / "e"), "--quiet", "--pictures", "1"]
    assert main(command) == 0
    rows = table_of(tmp_path / "e" / "per_sample.csv")
    truth = pd.read_csv(data / "truth.csv").set_index("breast")
    tested = truth[truth["split"] == "test"]
    assert set(rows["id"]) == set(tested.index)
    assert (rows.set_index("id")["target"] == tested["label"].loc[rows["id"]]).all()
    content = json_of(tmp_path / "e" / "evaluation.json")
    assert any("training breasts of 1 patients left out" in note for note in content["notes"])
    assert json_of(run / "decision.json")["labels"] == ["malignant"]
    both = next(row for row in open_studies(data).rows if row.split == "test" and len(row.paths) == 2)
    files = [f"--{name}={path}" for name, path in zip(("view_a", "view_b"), both.paths.values(), strict=True)]
    assert main(["predict", str(run), *files, "--out", str(tmp_path / "p")]) == 0
    p = json_of(next((tmp_path / "p").glob("*.json")))["probabilities"]["malignant"]
    assert p == pytest.approx(rows.set_index("id").loc[both.id, "p_malignant"], rel=1e-5)
