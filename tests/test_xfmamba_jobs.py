"""Whole XFMamba jobs through the command line, on phantoms: train, continue, evaluate, predict, import."""

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from scanfuse import train
from scanfuse.backbones.vmamba import load_checkpoint
from scanfuse.cli import main
from scanfuse.data.phantoms import cbis_ddsm, chexpert
from scanfuse.data.studies import open_studies
from scanfuse.predict import load
from scanfuse.systems.xfmamba import System

GOLDEN = Path(__file__).parent / "golden"
TINY = "--preset tiny --size 32 --epochs 1 --batch 8 --threads 1 --device cpu --quiet".split()
Capture = pytest.CaptureFixture[str]


def fails(arguments: list[str], capsys: Capture) -> str:
    """Runs a command that must end with exit code 2 and one line of explanation; returns the line."""
    capsys.readouterr()
    assert main(arguments) == 2
    text = capsys.readouterr().err.strip().splitlines()
    assert len(text) == 1, text
    assert text[0].startswith("scanfuse: ")
    return text[0]


def table_of(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"id": str, "group": str}, comment="#")


def json_of(path: Path) -> Any:
    return json.loads(path.read_text())


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def views_of(root: Path) -> dict[str, list[Path]]:
    """Study -> its pictures, in order, from the file names alone."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("image*.png")):
        part, patient, study = path.parts[-4:-1]
        found.setdefault(f"{part.removeprefix('XR_')}-{patient}-{study.split('_')[0]}", []).append(path)
    return found


# ---- the run folder


def test_a_training_fills_the_run_folder(bones_run: Path) -> None:
    names = {"config.yaml", "model.safetensors", "run.json", "split.csv", "history.csv", "environment.json"}
    assert names | {"checkpoint.pt", "decision.json", "evaluation", "report.html"} == set(os.listdir(bones_run))
    settings = yaml.safe_load((bones_run / "config.yaml").read_text())
    assert settings["task"] == {
        "kind": "binary",
        "labels": ["abnormal"],
        "positive": "abnormal",
        "select_by": "auroc",
    }
    assert settings["model"]["num_outputs"] == 2
    record = json_of(bones_run / "run.json")
    assert record["started_from"].startswith("The encoder starts from random weights")
    assert record["selected_by"] == "auroc"
    rows = history(bones_run)
    best = max(rows, key=lambda row: (float(row["val_auroc"]), -float(row["val_loss"])))
    assert record["best_epoch"] == int(best["epoch"])
    assert record["validation"]["val_auroc"] == float(best["val_auroc"])
    split = table_of(bones_run / "split.csv")
    assert split.groupby("group")["split"].nunique().max() == 1
    assert set(split["split"]) == {"train", "val", "test"}
    decision = json_of(bones_run / "decision.json")
    assert (decision["kind"], decision["labels"]) == ("binary", ["abnormal"])
    assert decision["validation"]["studies"] == (split["split"] == "val").sum()
    assert decision["temperature"] > 0 and 0 <= decision["thresholds"][0] <= 1


def test_the_decision_is_fitted_on_validation_with_the_best_weights(bones_run: Path, bones: Path) -> None:
    """The threshold is the one of the largest sensitivity + specificity of the validation studies, by trying all."""
    predictor = load(bones_run, device="cpu")
    manifest = predictor.system.open_data(bones)
    results = predictor.classifier.job.decided(list(predictor.raw(manifest.subset("val"))))
    y = np.array([result.target[0] for result in results])
    p = np.array([result.probabilities[0] for result in results])
    cut = json_of(bones_run / "decision.json")["thresholds"][0]

    def youden(value: float) -> float:
        return float((p[y == 1] >= value).mean() + (p[y == 0] < value).mean())

    assert youden(cut) == max(youden(value) for value in [*p, 2.0])
    record = json_of(bones_run / "run.json")
    assert roc_auc_score(y, p) == pytest.approx(record["validation"]["val_auroc"])


@pytest.mark.parametrize("updates", [7])
def test_a_stopped_training_continues_bit_for_bit(
    updates: int, bones_run: Path, bones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated from its record, stopped amid the second epoch and continued where the data were moved to, it is the
    same run: with movement, dropped views, balanced sampling, drop path and averaged weights.
    """
    original = train._Training._update

    def update(self: Any) -> None:
        original(self)
        if self.state.updates == updates:
            os.kill(os.getpid(), signal.SIGINT)

    again = tmp_path / "again"
    with monkeypatch.context() as patch:
        patch.setattr(train._Training, "_update", update)
        source = str(bones_run / "config.yaml")
        assert main(["train", "--from", source, "--data", str(bones), "--out", str(again), "--quiet"]) == 130
    assert len(history(again)) == 1
    torch.manual_seed(999)
    moved = shutil.copytree(bones, tmp_path / "moved")
    assert main(["train", "--resume", str(again), "--data", str(moved), "--quiet"]) == 0
    for name in ("model.safetensors", "decision.json", "config.yaml"):
        assert (again / name).read_bytes() == (bones_run / name).read_bytes(), name
    assert history(again) == history(bones_run)
    ours, theirs = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (again, bones_run))
    for part in ("model", "average"):
        assert all(torch.equal(tensor, theirs[part][name]) for name, tensor in ours[part].items())
    assert json_of(again / "run.json")["started_from"] == json_of(bones_run / "run.json")["started_from"]


def test_another_seed_gives_another_run(bones_run: Path, train_bones: Callable[..., Path]) -> None:
    """And the single-view network is another one; both are used by the tests of comparisons."""
    other = train_bones("one_view", "--fusion", "single", "--seed", "1")
    assert history(other) != history(bones_run)
    assert history(other)[0].keys() == history(bones_run)[0].keys()


# ---- evaluation


def test_evaluation_tables_are_those_of_the_samples(bones_run: Path, bones: Path) -> None:
    folder = bones_run / "evaluation" / "test"
    assert {
        "evaluation.json",
        "table.md",
        "per_sample.csv",
        "per_sample_pairs.csv",
        "examples.json",
        "examples",
    } == set(os.listdir(folder))
    split = table_of(bones_run / "split.csv")
    tested = split[split["split"] == "test"]
    content = json_of(folder / "evaluation.json")
    cut = json_of(bones_run / "decision.json")["thresholds"][0]
    views = views_of(bones)
    pairs = {study: max(1, len(views[study]) * (len(views[study]) - 1) // 2) for study in tested["id"]}
    assert {1, 6} <= set(pairs.values())
    for table, name, count in (
        (content, "per_sample.csv", len(tested)),
        (content["parts"]["pairs"], "per_sample_pairs.csv", sum(pairs.values())),
    ):
        rows = table_of(folder / name)
        assert len(rows) == table["samples"] == count
        assert table["groups"] == tested["group"].nunique()
        cells = {metric: cell["mean"] for metric, cell in table["cells"]["both_views"].items()}
        y, p = rows["target"], rows["p_abnormal"]
        assert cells["auroc"] == pytest.approx(roc_auc_score(y, p))
        assert cells["accuracy"] == pytest.approx(((p >= cut) == y).mean())
        assert cells["sensitivity"] == pytest.approx((p[y == 1] >= cut).mean())
        assert cells["brier"] == pytest.approx(((p - y) ** 2).mean())
    assert list(table_of(folder / "per_sample.csv")["id"]) == list(tested["id"])
    found = table_of(folder / "per_sample_pairs.csv")["id"].str.split("__").str[0].value_counts().to_dict()
    assert found == pairs
    assert "pairs of views" in (folder / "table.md").read_text()


def test_a_study_has_the_mean_probability_of_its_pairs(bones_run: Path) -> None:
    """Uncalibrated, as the temperature was fitted on studies: it is undone, and applied to the mean again."""
    folder = bones_run / "evaluation" / "test"
    temperature = json_of(bones_run / "decision.json")["temperature"]
    pairs = table_of(folder / "per_sample_pairs.csv")
    raw = expit(logit(pairs["p_abnormal"]) * temperature)
    mean = raw.groupby(pairs["id"].str.split("__").str[0], sort=False).mean()
    expected = expit(logit(mean) / temperature)
    studies = table_of(folder / "per_sample.csv").set_index("id")["p_abnormal"]
    assert list(expected.index) == list(studies.index)
    np.testing.assert_allclose(studies.to_numpy(), expected.to_numpy(), rtol=1e-6)


def test_examples_say_what_the_study_is_called(bones_run: Path) -> None:
    """Half of them right, half wrong as far as there are, each with the probability in the table of studies."""
    folder = bones_run / "evaluation" / "test"
    cut = json_of(bones_run / "decision.json")["thresholds"][0]
    studies = table_of(folder / "per_sample.csv").set_index("id")
    examples = json_of(folder / "examples.json")["examples"]
    right = ((studies["p_abnormal"] >= cut) == studies["target"]).sum()
    assert sum(example["right"] for example in examples) == min(3, right)
    assert len(examples) == min(3, right) + min(3, len(studies) - right)
    for example in examples:
        row = studies.loc[example["id"]]
        called = row["p_abnormal"] >= cut
        probability = row["p_abnormal"] if called else 1 - row["p_abnormal"]
        truth = "is abnormal" if row["target"] else "is not abnormal"
        name = "abnormal" if called else "not abnormal"
        assert example["text"].startswith(f"{truth}; called {name} with probability {probability:.2f}")
        assert example["right"] == (called == row["target"])
        with Image.open(folder / example["file"]) as picture:
            assert picture.size[0] > 300
    assert {path.name for path in (folder / "examples").iterdir()} == {Path(e["file"]).name for e in examples}


def test_evaluating_again_leaves_no_old_examples(bones_run: Path, bones: Path, tmp_path: Path) -> None:
    out = tmp_path / "e"
    (out / "examples").mkdir(parents=True)
    for name in ("right_9.png", "wrong_1.png", "mine.png"):
        (out / "examples" / name).touch()
    (out / "examples.json").write_text("{}")
    command = ["evaluate", str(bones_run), "--data", str(bones), "--on", "val", "--out", str(out), "--quiet"]
    assert main([*command, "--pictures", "0"]) == 0
    assert {path.name for path in (out / "examples").iterdir()} == {"mine.png"}
    assert not (out / "examples.json").exists()
    assert not list(out.glob("**/report.html"))
    content = json_of(out / "evaluation.json")
    assert content["samples"] == (table_of(bones_run / "split.csv")["split"] == "val").sum()


# ---- prediction


def test_predictions_are_those_of_the_evaluation(
    bones_run: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    studies = table_of(bones_run / "evaluation" / "test" / "per_sample.csv").set_index("id")["p_abnormal"]
    assert main(["predict", str(bones_run), "--data", str(bones), "--out", str(tmp_path / "all")]) == 0
    table = table_of(tmp_path / "all" / "predictions.csv").set_index("id")
    assert len(table) == len(table_of(bones_run / "split.csv"))
    np.testing.assert_allclose(table.loc[studies.index, "p_abnormal"], studies, atol=1e-6)
    decision = json_of(bones_run / "decision.json")
    called = np.where(table["p_abnormal"] >= decision["thresholds"][0], "abnormal", "not abnormal")
    assert (table["called"] == called).mean() > 0.9  # six digits may round over the threshold
    views = views_of(bones)
    two = next(study for study in studies.index if len(views[study]) == 2)
    one = next(study for study in studies.index if len(views[study]) == 1)
    for number, study in enumerate((two, one)):
        files = [f"--{name}={path}" for name, path in zip(("view_a", "view_b"), views[study], strict=False)]
        capsys.readouterr()
        assert main(["predict", str(bones_run), *files, "--out", str(tmp_path / str(number))]) == 0
        content = json_of(next((tmp_path / str(number)).glob("*.json")))
        assert content["probabilities"]["abnormal"] == pytest.approx(studies[study], rel=1e-5)
        assert content["thresholds"]["abnormal"] == decision["thresholds"][0]
        assert content["temperature"] == decision["temperature"]
        assert f"(abnormal {studies[study]:.3f}, threshold" in capsys.readouterr().out
    # The other view alone, and a second view taken away, are other questions.
    assert main(["predict", str(bones_run), "--view_b", str(views[two][1]), "--out", str(tmp_path / "b")]) == 0
    alone = json_of(next((tmp_path / "b").glob("*.json")))["probabilities"]["abnormal"]
    assert alone != pytest.approx(studies[two], rel=1e-5)


def one_patient(root: Path, bones: Path, study: str) -> Path:
    """A folder with a single study of a run's test data, as one's own table."""
    rows = ["study,patient,path,label"]
    root.mkdir()
    for path in views_of(bones)[study]:
        shutil.copy(path, root / path.name)
        rows.append(f"{study},{study.split('-')[1]},{path.name},{int('positive' in path.parent.name)}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root


def test_one_patient_is_enough(bones_run: Path, bones: Path, tmp_path: Path) -> None:
    """To predict and to evaluate: no split is asked for. The study has four views, so six pairs."""
    studies = table_of(bones_run / "evaluation" / "test" / "per_sample.csv").set_index("id")
    study = next(name for name in studies.index if len(views_of(bones)[name]) == 4)
    data = str(one_patient(tmp_path / "new", bones, study))
    assert main(["predict", str(bones_run), "--data", data, "--out", str(tmp_path / "p")]) == 0
    table = table_of(tmp_path / "p" / "predictions.csv")
    assert list(table["id"]) == [study]
    assert table["p_abnormal"][0] == pytest.approx(studies.loc[study, "p_abnormal"], abs=1e-6)
    assert main(["evaluate", str(bones_run), "--data", data, "--out", str(tmp_path / "e"), "--quiet"]) == 0
    content = json_of(tmp_path / "e" / "evaluation.json")
    assert (content["samples"], content["parts"]["pairs"]["samples"]) == (1, 6)
    assert content["cells"]["both_views"]["auroc"] == {"mean": None, "low": None, "high": None}
    assert any("without AUROC" in note for note in content["notes"])


def test_a_run_without_its_decision_says_so(
    bones_run: Path, bones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(bones_run, run, ignore=shutil.ignore_patterns("decision.json", "evaluation", "checkpoint.pt"))
    picture = next(iter(views_of(bones).values()))[0]
    assert main(["predict", str(run), "--view_a", str(picture), "--out", str(tmp_path / "p")]) == 0
    assert any("nothing was fitted on validation" in record.getMessage() for record in caplog.records)
    content = json_of(next((tmp_path / "p").glob("*.json")))
    assert (content["temperature"], content["thresholds"]) == (1.0, {"abnormal": 0.5})


def test_mistakes_are_one_line(bones_run: Path, bones: Path, tmp_path: Path, capsys: Capture) -> None:
    run, data, out = str(bones_run), str(bones), str(tmp_path / "out")
    picture = str(next(iter(views_of(bones).values()))[0])
    started = ["train", "xfmamba", *TINY, "--data", data, "--out", out]

    for arguments, message in (
        (["predict", run, "--out", out], "give --view_a FILE --view_b FILE"),
        (["predict", run, "--view_a", str(tmp_path / "no.png"), "--out", out], "no.png"),
        (["predict", run, "--view_a", picture, "--data", data, "--out", out], "not both"),
        (["evaluate", run, "--data", str(tmp_path / "nowhere")], "does not exist"),
        ([*started, "--kind", "multilabel"], "are binary, but --kind asks for multilabel"),
        ([*started, "--labels", "a,b"], "--labels asks for a, b"),
        ([*started, "--loss", "hinge"], "'loss.name' cannot be 'hinge'"),
        ([*started, "--fusion", "single", "--share-encoder", "false"], "separate encoders need two maps"),
        ([*started, "--encoder", "timm", "--timm-model", "convnext_tin"], "similar: convnext_tiny"),
        ([*started, "--encoder-weights", "timm"], "needs --encoder timm"),
        ([*started, "--folds", "3", "--fold", "3"], "no fold 3"),
        ([*started, "--options", "parts=KNEE"], "no body part 'KNEE'"),
        ([*started, "--options", "share=0.1"], "no option 'share'"),
        ([*started, "--pairing", "roles"], "two roles"),
        ([*started, "--batch", "1"], "set --batch 2, or --size 64"),
        (["train", "--resume", run, "--epochs", "3"], "give no other options"),
        (["train", "--resume", out], "no run folder"),
    ):
        line = fails([str(each) for each in arguments], capsys)
        assert message in line, line
        assert not Path(out).exists(), arguments


# ---- options that change a whole job


def test_a_last_batch_is_never_a_single_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norms have no statistics of one place: nine studies in batches of four are four and five."""
    sizes: list[int] = []
    loss = System.loss

    def counted(self: System, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        sizes.append(len(batch["meta"]))
        return loss(self, batch)

    monkeypatch.setattr(System, "loss", counted)
    data = shapes(tmp_path / "data", 12)
    lines = (data / "manifest.csv").read_text().splitlines()
    rows = [f"{line},{'train' if int(line.split(',')[0][1:]) < 9 else 'val'}" for line in lines[1:]]
    (data / "manifest.csv").write_text("\n".join([f"{lines[0]},split", *rows]) + "\n")
    for number, flags in enumerate((["--fusion", "early"], ["--balanced-sampling", "true", "--norm", "bn"])):
        out = ["--data", str(data), "--out", str(tmp_path / str(number))]
        assert main(["train", "xfmamba", *TINY, *out, "--batch", "4", *flags]) == 0
    assert sizes == [4, 5, 4, 5]


WHOLE_JOBS = {
    "timm": "--encoder timm --timm-model resnet10t --fusion late --share-encoder false",
    "figure": "--swap token --merge deinterleave --norm bn --gate channel --loss asymmetric --pairing first "
    "--precision bf16 --accumulate 2",
    "flips": "--loss focal --weighting balanced --test-time-flips true --threshold-rule sensitivity",
    "fold": "--folds 3 --fold 1 --fusion early --threshold-rule fixed --fixed-threshold 0.3 --calibrate false",
}


@pytest.mark.parametrize("name", WHOLE_JOBS)
def test_options_of_whole_jobs(name: str, train_bones: Callable[..., Path], bones: Path) -> None:
    run = train_bones(name, *WHOLE_JOBS[name].split(), "--epochs", "1")
    assert main(["evaluate", str(run), "--data", str(bones), "--quiet", "--pictures", "1"]) == 0
    rows = table_of(run / "evaluation" / "test" / "per_sample.csv")
    content = json_of(run / "evaluation" / "test" / "evaluation.json")
    y, p = rows["target"], rows["p_abnormal"]
    assert content["cells"][name]["auroc"]["mean"] == pytest.approx(roc_auc_score(y, p))
    decision = json_of(run / "decision.json")
    split = table_of(run / "split.csv")
    if name == "figure":
        assert "pairs" not in content.get("parts", {})  # one pair of each study
    if name == "flips":
        assert decision["rule"] == "sensitivity"
        assert decision["validation"]["sensitivity"][0] >= 0.9
    if name == "fold":
        assert (decision["temperature"], decision["thresholds"]) == (1.0, [0.3])
        sizes = split["split"].value_counts()
        assert 0.2 < sizes["val"] / (sizes["val"] + sizes["train"]) < 0.5
        assert any(note.startswith("fold 1 of 3 validates") for note in content["notes"])
        # Without calibration the study's probability is plainly the mean of its pairs'.
        pairs = table_of(run / "evaluation" / "test" / "per_sample_pairs.csv")
        mean = pairs["p_abnormal"].groupby(pairs["id"].str.split("__").str[0], sort=False).mean()
        np.testing.assert_allclose(p, mean.to_numpy(), rtol=1e-6)


def test_what_the_encoder_starts_from_is_said(
    bones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also random weights, also with --quiet. The training itself is skipped."""
    monkeypatch.setattr(train._Training, "fit", lambda self: self.run)
    assert main(["train", "xfmamba", *TINY, "--data", str(bones), "--out", str(tmp_path / "run")]) == 0
    said = [record.getMessage() for record in caplog.records if record.name == "scanfuse.train"]
    assert len(said) == 1 and said[0].startswith("The encoder starts from random weights")


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
    fit = train._Training.fit

    def keep(self: Any) -> Any:
        started.update({name: tensor.clone() for name, tensor in self.system.model.encoder.state_dict().items()})
        return fit(self)

    monkeypatch.setattr(train._Training, "fit", keep)
    command = ["train", "xfmamba", *TINY, "--data", str(bones), "--encoder-weights", str(weights), "--out", str(run)]
    assert main([*command, "--options", "validation_share=0.25"]) == 0
    said = [record.getMessage() for record in caplog.records if record.name == "scanfuse.train"]
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
        assert main(["evaluate", str(run), "--data", str(bones), "--quiet", "--pictures", "0"]) == 0
    # The folder is taken now.
    assert "already holds" in fails(["import", "vmamba", str(file), "--out", str(weights)], capsys)


def test_weights_that_cannot_be_imported(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
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
        ("missing.pth", "no file"),
        ("short.pth", "damaged or truncated"),
        ("text.pth", "damaged or truncated"),
        ("resnet.pth", "not a VMamba checkpoint"),
        ("holes.pth", "lacks layers.1.blocks.0.op.A_logs"),
    ):
        assert message in fails(["import", "vmamba", str(tmp_path / name), "--out", str(out)], capsys)
        assert not out.exists()
    command = ["import", "vmamba", str(tmp_path / "whole.pth"), "--out", str(out)]
    assert "no 'model_ema'" in fails([*command, "--section", "model_ema"], capsys)
    # A disk that is full for the second file.
    from scanfuse import import_weights
    from scanfuse.errors import UserError

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
    data, run = chexpert.write(tmp_path / "data", patients=30, size=40, seed=3), tmp_path / "run"
    flags = ["--options", "uncertain=ignore,labels=14,validation_share=0.25", "--data", str(data), "--out", str(run)]
    assert main(["train", "xfmamba", *TINY, *flags, "--pairing", "all"]) == 0
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["task"]["kind"] == "multilabel"
    labels = settings["task"]["labels"]
    assert len(labels) == settings["model"]["num_outputs"] == 14 and labels[0] == "No Finding"
    decision = json_of(run / "decision.json")
    assert len(decision["thresholds"]) == 14
    assert any(note.startswith("Fracture: ") for note in decision["notes"])  # it never occurs

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
    rows = history(run)
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


# ---- mammograms


def test_mammograms(tmp_path: Path) -> None:
    data, run = cbis_ddsm.write(tmp_path / "data", patients=20, size=64, seed=1), tmp_path / "run"
    flags = "--crop body --window percentile --positive malignant --alone self --options validation_share=0.3".split()
    assert main(["data", "check", "xfmamba", str(data)]) == 0
    assert main(["train", "xfmamba", *TINY, *flags, "--data", str(data), "--out", str(run)]) == 0
    assert main(["evaluate", str(run), "--data", str(data), "--quiet", "--pictures", "1"]) == 0
    rows = table_of(run / "evaluation" / "test" / "per_sample.csv")
    truth = pd.read_csv(data / "truth.csv").set_index("breast")
    tested = truth[truth["split"] == "test"]
    assert set(rows["id"]) == set(tested.index)
    assert (rows.set_index("id")["target"] == tested["label"].loc[rows["id"]]).all()
    content = json_of(run / "evaluation" / "test" / "evaluation.json")
    assert any("training breasts of 1 patients left out" in note for note in content["notes"])
    assert json_of(run / "decision.json")["labels"] == ["malignant"]
    both = next(row for row in open_studies(data).rows if row.split == "test" and len(row.paths) == 2)
    files = [f"--{name}={path}" for name, path in zip(("view_a", "view_b"), both.paths.values(), strict=True)]
    assert main(["predict", str(run), *files, "--out", str(tmp_path / "p")]) == 0
    p = json_of(next((tmp_path / "p").glob("*.json")))["probabilities"]["malignant"]
    assert p == pytest.approx(rows.set_index("id").loc[both.id, "p_malignant"], rel=1e-5)
