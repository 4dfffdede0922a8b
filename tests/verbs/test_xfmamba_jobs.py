"""Whole XFMamba jobs through the command line, on phantoms: train, continue, evaluate, predict."""

import csv
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from scanfuse.cli import main
from scanfuse.verbs.predict import load
from scanfuse.verbs.training import Training
from whole_jobs import TINY, Capture, fails, json_of, table_of


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
    assert names | {"checkpoint.pt", "decision.json", "evaluation", "report.html", ".lock"} == set(
        os.listdir(bones_run)
    )
    settings = yaml.safe_load((bones_run / "config.yaml").read_text())
    assert settings["task"] == {
        "kind": "binary",
        "labels": ["abnormal"],
        "positive": "abnormal",
        "select_by": "auroc",
        "pauc_above": 0.0,
        "retrieval_top": 0,
    }
    assert settings["model"]["num_outputs"] == 2
    record = json_of(bones_run / "run.json")
    assert record["started_from"].startswith("The encoder starts from random weights")
    assert (record["selected_by"], record["finished"]) == ("auroc", True)
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
    manifest = predictor.system.data.open(bones)
    results = predictor.system.task.finished(predictor.method(manifest.subset("val")).raw)
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
    original = Training._update

    def update(self: Any) -> None:
        original(self)
        if self.state.updates == updates:
            os.kill(os.getpid(), signal.SIGINT)

    again = tmp_path / "again"
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", update)
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
        (["predict", run, "--out", out], "give --view-a FILE --view-b FILE"),
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


WHOLE_JOBS = {
    "timm": "--encoder timm --timm-model resnet10t --fusion late --share-encoder false",
    "figure": "--swap token --merge deinterleave --norm bn --gate channel --loss asymmetric --pairing first "
    "--precision bf16 --accumulate 2",
    "flips": "--loss focal --weighting balanced --test-time-flips true --threshold-rule sensitivity",
    "fold": "--folds 3 --fold 1 --fusion early --threshold-rule fixed --fixed-threshold 0.3 --calibrate false",
}


@pytest.mark.parametrize("name", WHOLE_JOBS)
def test_options_of_whole_jobs(name: str, train_bones: Callable[..., Path], bones: Path, tmp_path: Path) -> None:
    run = train_bones(name, *WHOLE_JOBS[name].split(), "--epochs", "1")
    command = ["evaluate", str(run), "--data", str(bones), "--out", str(tmp_path), "--quiet", "--pictures", "1"]
    assert main(command) == 0
    rows = table_of(tmp_path / "per_sample.csv")
    content = json_of(tmp_path / "evaluation.json")
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
        pairs = table_of(tmp_path / "per_sample_pairs.csv")
        mean = pairs["p_abnormal"].groupby(pairs["id"].str.split("__").str[0], sort=False).mean()
        np.testing.assert_allclose(p, mean.to_numpy(), rtol=1e-6)


def test_what_the_encoder_starts_from_is_said(
    bones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also random weights, also with --quiet. The training itself is skipped, and so is its report."""
    monkeypatch.setattr(Training, "fit", lambda self: self.run)
    monkeypatch.setattr("scanfuse.cli.training.report_of", lambda path: path)
    assert main(["train", "xfmamba", *TINY, "--data", str(bones), "--out", str(tmp_path / "run")]) == 0
    said = [record.getMessage() for record in caplog.records if record.name == "scanfuse.verbs.train"]
    assert len(said) == 1 and said[0].startswith("The encoder starts from random weights")
