"""Runs against each other, as whole jobs: tests that can be worked again from the tables, and what is refused."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, roc_auc_score

from scanfuse import config, systems
from scanfuse.cli import main
from scanfuse.data.inputs import Fitted
from scanfuse.errors import UserError
from scanfuse.metrics.fusion import METRICS
from scanfuse.run import create_run
from scanfuse.tasks import fuse
from scanfuse.tasks.fuse import images
from scanfuse.verbs.compare import compare
from scanfuse.verbs.evaluate import evaluate
from scanfuse.verbs.predict import load

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def one_view(train_bones: Callable[..., Path]) -> Path:
    return train_bones("one_view", "--fusion", "single", "--seed", "1")


def compared(runs: list[Path], data: Path, out: Path) -> dict[str, Any]:
    assert main(["compare", *map(str, runs), "--data", str(data), "--out", str(out), "--quiet"]) == 0
    content: dict[str, Any] = json.loads((out / "comparison.json").read_text())
    return content


def row_of(content: dict[str, Any], run: str, metric: str, test: str) -> dict[str, Any]:
    (row,) = [r for r in content["rows"] if (r["run"], r["metric"], r["test"]) == (run, metric, test)]
    return dict(row)


def paired_delong(y: np.ndarray, a: np.ndarray, b: np.ndarray, patients: np.ndarray) -> tuple[float, float, float]:
    """Difference, standard error and p, from all pairs of a positive and a negative, summed over patients.

    Obuchowski 1997: per patient the sums of the components of its positives and negatives; the variances and the
    covariance of these sums between patients.
    """
    components = []
    for score in (a, b):
        above = (score[y == 1][:, None] > score[y == 0][None]) + 0.5 * (score[y == 1][:, None] == score[y == 0][None])
        components.append((above.mean(), above.mean(axis=1), above.mean(axis=0)))
    difference = components[0][0] - components[1][0]
    v10 = components[0][1] - components[1][1] - difference
    v01 = components[0][2] - components[1][2] - difference
    m, n = int((y == 1).sum()), int((y == 0).sum())
    names = np.unique(patients)
    with_positive = {str(name) for name in patients[y == 1]}
    with_negative = {str(name) for name in patients[y == 0]}
    s10 = np.array([v10[patients[y == 1] == name].sum() for name in names])
    s01 = np.array([v01[patients[y == 0] == name].sum() for name in names])
    i10, i01, i = len(with_positive), len(with_negative), len(names)
    variance = (
        i10 / (i10 - 1) * (s10**2).sum() / m**2
        + i01 / (i01 - 1) * (s01**2).sum() / n**2
        + 2 * i / (i - 1) * (s10 * s01).sum() / (m * n)
    )
    return difference, math.sqrt(variance), 2 * float(norm.sf(abs(difference) / math.sqrt(variance)))


def test_two_runs_on_the_same_studies(bones_run: Path, one_view: Path, bones: Path, tmp_path: Path) -> None:
    content = compared([bones_run, one_view], bones, tmp_path / "c")
    assert (content["reference"], content["split"]) == ("both_views", "test")
    command = ["evaluate", str(bones_run), str(one_view), "--data", str(bones), "--out", str(tmp_path / "e")]
    assert main([*command, "--quiet", "--pictures", "0"]) == 0
    table = pd.read_csv(tmp_path / "e" / "per_sample.csv", dtype={"group": str})
    first = table[table["method"] == "both_views"].set_index("id")
    second = table[table["method"] == "one_view"].set_index("id").loc[first.index]
    assert content["samples"] == len(first) and content["groups"] == first["group"].nunique() < len(first)
    y, patients = first["target"].to_numpy(), first["group"].to_numpy()
    b, a = first["p_abnormal"].to_numpy(), second["p_abnormal"].to_numpy()

    row = row_of(content, "one_view", "auroc", "DeLong")
    difference, error, p = paired_delong(y, a, b, patients)
    assert row["difference"] == pytest.approx(roc_auc_score(y, a) - roc_auc_score(y, b))
    assert row["difference"] == pytest.approx(difference)
    assert row["p_value"] == pytest.approx(p, rel=1e-9)
    assert [row["low"], row["high"]] == pytest.approx([difference - 1.959964 * error, difference + 1.959964 * error])
    assert row["adjusted"] == row["p_value"]  # one run against the reference

    for metric, of in (("auroc", roc_auc_score), ("brier", brier_score_loss)):
        row = row_of(content, "one_view", metric, "bootstrap")
        assert row["difference"] == pytest.approx(of(y, a) - of(y, b)), metric
        assert row["low"] <= row["difference"] <= row["high"]
        assert 0 < row["p_value"] <= 1
    cuts = [
        json.loads((run / "decision.json").read_text())["thresholds"][0] for run in (one_view, bones_run)
    ]  # each run decides by its own
    accuracy = ((a >= cuts[0]) == y).mean() - ((b >= cuts[1]) == y).mean()
    assert row_of(content, "one_view", "accuracy", "bootstrap")["difference"] == pytest.approx(accuracy)
    # A bootstrap over patients, drawn here: its interval of the Brier score is about the same.
    random = np.random.default_rng(7)
    each = {name: (patients == name) for name in np.unique(patients)}
    squares = (a - y) ** 2 - (b - y) ** 2
    sums = np.array([[squares[rows].sum(), rows.sum()] for rows in each.values()])
    drawn = sums[random.integers(len(each), size=(4000, len(each)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    row = row_of(content, "one_view", "brier", "bootstrap")
    assert [row["low"], row["high"]] == pytest.approx([low, high], abs=0.15 * (high - low))

    text = (tmp_path / "c" / "comparison.md").read_text()
    assert f"Difference to both_views on {len(first)} test samples" in text
    assert f"| one_view | auroc | DeLong | {difference:+.3f} [" in text
    assert "only 10 patient(s)" in text and text.count("\n| one_view |") == len(content["rows"])


def test_a_run_does_not_differ_from_itself(bones_run: Path, bones: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bones_run, copy, ignore=shutil.ignore_patterns("evaluation", "checkpoint.pt"))
    content = compared([bones_run, copy], bones, tmp_path / "c")
    assert {row["run"] for row in content["rows"]} == {"copy"}
    for row in content["rows"]:
        assert row["difference"] == 0 and row["p_value"] == 1 and row["adjusted"] == 1, row
        assert row["low"] == row["high"] == 0
    capsys.readouterr()
    assert main(["compare", str(bones_run), str(bones_run), "--data", str(bones)]) == 2
    assert "The same run was given twice" in capsys.readouterr().err


def holm_by_hand(p_values: list[float]) -> list[float]:
    order = np.argsort(p_values)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def test_several_runs_are_corrected(
    bones_run: Path, one_view: Path, train_bones: Callable[..., Path], bones: Path, tmp_path: Path
) -> None:
    figure = train_bones("late", "--fusion", "late", "--epochs", "1")
    content = compared([bones_run, one_view, figure], bones, tmp_path / "c")
    for metric, test in (("auroc", "DeLong"), ("auroc", "bootstrap"), ("brier", "bootstrap"), ("f1", "bootstrap")):
        rows = [row_of(content, run, metric, test) for run in ("one_view", "late")]
        assert [row["adjusted"] for row in rows] == pytest.approx(holm_by_hand([row["p_value"] for row in rows]))
    assert any(row["adjusted"] > row["p_value"] for row in content["rows"] if row["p_value"] is not None)
    # The first two are compared as they are alone.
    alone = compared([bones_run, one_view], bones, tmp_path / "d")
    for row in alone["rows"]:
        assert row_of(content, "one_view", row["metric"], row["test"])["p_value"] == row["p_value"]


def test_runs_that_do_not_belong_together(
    bones_run: Path, one_view: Path, train_bones: Callable[..., Path], bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    fold = train_bones("other_split", "--split-seed", "5", "--epochs", "1")
    renamed = tmp_path / "renamed"
    shutil.copytree(one_view, renamed, ignore=shutil.ignore_patterns("evaluation", "checkpoint.pt"))
    for name in ("config.yaml", "decision.json"):
        text = (renamed / name).read_text()
        (renamed / name).write_text(text.replace("abnormal", "broken"))
    tested = tmp_path / "tested"
    shutil.copytree(one_view, tested, ignore=shutil.ignore_patterns("evaluation", "checkpoint.pt"))
    split = (tested / "split.csv").read_text()
    study = pd.read_csv(tested / "split.csv", comment="#").query("split == 'test'")["id"].iloc[0]
    lines = [
        line.replace(",test,", ",train,") if line.startswith(f"{study},") else line for line in split.split("\n")
    ]
    (tested / "split.csv").write_text("\n".join(lines))
    out = tmp_path / "out"
    for runs, on, message in (
        ([bones_run], "test", "needs two runs"),
        ([bones_run, fold], "val", "different splits"),
        ([bones_run, tested], "test", "different splits"),
        ([bones_run, renamed], "test", "predicts other labels"),
        ([bones_run, tmp_path / "none"], "test", "no run folder"),
    ):
        capsys.readouterr()
        command = ["compare", *map(str, runs), "--data", str(bones), "--on", on, "--out", str(out)]
        assert main(command) == 2, message
        line = capsys.readouterr().err.strip()
        assert message in line and "\n" not in line
        assert not out.exists()
    # Runs of other training parts may be compared on the test samples that both have never seen, and that is said.
    content = compared([bones_run, fold], bones, out)
    assert any("different parts of the data" in note for note in content["notes"])


def test_samples_of_the_training_are_said(bones_run: Path, one_view: Path, bones: Path) -> None:
    found = compare({"a": load(bones_run), "b": load(one_view)}, bones, split="all", quiet=True)
    assert any("were trained on" in note for note in found.notes)
    split = pd.read_csv(bones_run / "split.csv", comment="#")
    assert (found.samples, found.groups) == (len(split), split["group"].nunique())


def test_targets_must_be_known(bones_run: Path, one_view: Path, bones: Path, tmp_path: Path) -> None:
    """Studies without a target are left out; where there is none left, that is said."""
    file = tmp_path / "manifest.csv"
    pictures = sorted(bones.rglob("valid/**/image1.png"))[:11]  # in no training
    rows = [
        f"s{number},new{number},{path},{'' if number % 3 else number % 2}" for number, path in enumerate(pictures)
    ]
    file.write_text("\n".join(["study,patient,path,label", *rows]) + "\n")
    runs = {"a": load(bones_run), "b": load(one_view)}
    found = compare(runs, file, quiet=True)
    assert found.samples == 4
    assert "7 studies have no known target and were left out" in found.notes
    file.write_text("\n".join(["study,patient,path", *(row.rsplit(",", 1)[0] for row in rows)]) + "\n")
    with pytest.raises(UserError, match="No sample has a target"):
        compare(runs, file, quiet=True)


def untrained(path: Path, data: Path, seed: int) -> Path:
    """A run of the tiny fusion network as it was drawn."""
    system_type = systems.load("clinicalfmamba")
    settings = config.build(system_type.Config, config.preset("clinicalfmamba", "tiny"))
    torch.manual_seed(seed)
    system = system_type(settings)
    run = create_run(path, settings, system.data.open(data), Fitted(), {})
    run.save_weights(system.model.state_dict(), {"system": "clinicalfmamba"})
    return path


def test_fusion_runs_are_compared_image_by_image(
    head_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean difference is that of the table of images; an image without a value is left out of both."""
    undefined: list[str] = []

    def scored(self: fuse.Fusion, method: str, result: Any) -> dict[str, Any]:
        grey = float(result.luminance.mean())
        values = {"grey": grey, "some": math.nan if result.id in undefined else grey, "none": math.nan}
        return {"method": method, "id": result.id, "group": result.group, **values}

    monkeypatch.setattr(fuse.Fusion, "_scored", scored)
    monkeypatch.setattr(fuse, "METRICS", dict.fromkeys(("grey", "some", "none"), METRICS["psnr"]))
    runs = [untrained(tmp_path / name, head_phantoms, seed) for name, seed in (("a", 1), ("b", 2))]
    evaluation = evaluate({run.name: load(run) for run in runs}, head_phantoms, split="all", pictures=0, quiet=True)
    table = pd.DataFrame(evaluation.rows).pivot(index="id", columns="method", values="grey")
    undefined += [table.index[0], table.index[5]]
    assert (
        main(["compare", *map(str, runs), "--data", str(head_phantoms), "--on", "all", "--out", str(tmp_path)]) == 0
    )
    content = json.loads((tmp_path / "comparison.json").read_text())
    difference = (table["b"] - table["a"]).mean()
    assert row_of(content, "b", "grey", "bootstrap")["difference"] == pytest.approx(difference)
    kept = table.drop(index=undefined)
    row = row_of(content, "b", "some", "bootstrap")
    assert row["difference"] == pytest.approx((kept["b"] - kept["a"]).mean())
    assert row["low"] <= row["difference"] <= row["high"]
    assert row_of(content, "b", "none", "bootstrap")["difference"] is None


def test_samples_that_the_epoch_was_chosen_on_are_said(
    bones_run: Path, one_view: Path, bones: Path, head_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --on val, as in a table of evaluate; with the defaults not."""
    monkeypatch.setattr(fuse, "METRICS", {"grey": METRICS["psnr"]})
    monkeypatch.setattr(images, "score", lambda fused, a, b: {"grey": float(fused.mean())})
    heads = [untrained(tmp_path / name, head_phantoms, seed) for name, seed in (("a", 1), ("b", 2))]
    for runs, data, expected in (
        ([bones_run, one_view], bones, "chosen on these samples: the values are too good"),
        (heads, head_phantoms, "chosen on these samples: the values are a little too good"),
    ):
        predictors = {run.name: load(run, device="cpu") for run in runs}
        for split in ("val", "test"):
            notes = [
                compare(predictors, data, split=split, quiet=True).notes,  # type: ignore[arg-type]
                evaluate(predictors, data, split=split, pictures=0, quiet=True).notes,  # type: ignore[arg-type]
            ]
            for each in notes:
                assert sum(expected in note for note in each) == (split == "val")
