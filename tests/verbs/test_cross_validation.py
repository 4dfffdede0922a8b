"""Training a cross-validation: all folds in one folder, stopped and continued."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from scanfuse.cli import main
from scanfuse.verbs.training import Training
from whole_jobs import FOLDS, Capture, fails, fold_command, json_of


def split(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "split.csv", comment="#", dtype=str, keep_default_na=False)


def test_every_fold_is_a_run_and_validates_its_own_patients(bones_cv: Path) -> None:
    assert sorted(path.name for path in bones_cv.iterdir()) == ["cross_validation.json", *FOLDS, "report.html"]
    assert all((bones_cv / name / "report.html").is_file() for name in FOLDS)
    splits = [split(bones_cv / name) for name in FOLDS]
    for number, name in enumerate(FOLDS):
        assert yaml.safe_load((bones_cv / name / "config.yaml").read_text())["folds"] == {
            "folds": 3, "fold": number, "fold_seed": 0,
        }  # fmt: skip
        assert (bones_cv / name / "decision.json").is_file()
    test = splits[0].loc[splits[0]["split"] == "test", "id"]
    assert len(test)
    assert all(list(table.loc[table["split"] == "test", "id"]) == list(test) for table in splits)
    validated = [group for table in splits for group in table.loc[table["split"] == "val", "group"].unique()]
    assert sorted(validated) == sorted(splits[0].loc[splits[0]["split"] != "test", "group"].unique())


def test_a_fold_by_itself_is_the_same_run(bones_cv: Path, bones: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(fold_command(bones, tmp_path / "one", "--folds", "3", "--fold", "1")) == 0
    assert f"Next: scanfuse evaluate {tmp_path / 'one'} --data" in capsys.readouterr().out
    assert not (tmp_path / "one" / "cross_validation.json").exists()
    for name in ("model.safetensors", "decision.json", "split.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (bones_cv / "fold-1" / name).read_bytes()


def test_an_interrupted_cross_validation_goes_on(
    bones_cv: Path,
    bones: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ctrl-C in the second fold: the first is kept, the second continued, the third trained; the same bytes."""
    update = Training._update

    def stop_in_fold_1(training: Any) -> None:
        update(training)
        if training.run.path.name == "fold-1":
            training.stop.signal = signal.SIGINT

    out = tmp_path / "cv"
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", stop_in_fold_1)
        assert main(fold_command(bones, out, "--folds", "3")) == 130
    error = capsys.readouterr().err
    assert f"Stopped in fold 1; the state is saved. Continue with: scanfuse train --resume {out}" in error
    assert sorted(path.name for path in out.iterdir()) == ["cross_validation.json", "fold-0", "fold-1"]
    kept = (out / "fold-0" / "model.safetensors").stat().st_mtime_ns
    message = fails(["evaluate", str(out), "--data", str(bones)], capsys)
    assert message.startswith(f"{out} is not finished (fold-1, fold-2): continue with scanfuse train --resume {out}")

    assert main(["train", "--resume", str(out)]) == 0
    said = capsys.readouterr().out
    verb = f"scanfuse evaluate {out} --data {bones}"
    assert f"3 folds are in {out}. Next, on the test samples: {verb} --ensemble;" in said
    assert f"held it out: {verb} --on val" in said
    states = [line for line in caplog.messages if line.startswith("Fold")]
    assert [line.split(" is ")[1] for line in states] == ["finished.", "continued.", "trained."]
    assert (out / "fold-0" / "model.safetensors").stat().st_mtime_ns == kept
    for name in FOLDS:
        for file in ("model.safetensors", "decision.json"):
            assert (out / name / file).read_bytes() == (bones_cv / name / file).read_bytes()


def test_the_same_command_goes_on_and_another_one_is_refused(
    bones_cv: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "cv"
    shutil.copytree(bones_cv, out)
    # What a crash right before the first checkpoint leaves behind.
    for name in ("checkpoint.pt", "decision.json"):
        (out / "fold-2" / name).unlink()
    (out / "fold-2" / "report.html").unlink()
    record = json_of(out / "fold-2" / "run.json")
    (out / "fold-2" / "run.json").write_text(json.dumps(record | {"finished": False}))
    (out / "fold-2" / "model.safetensors").write_bytes(b"of the first epoch")
    times = {name: (out / name / "model.safetensors").stat().st_mtime_ns for name in FOLDS[:2]}
    assert main(fold_command(bones, out, "--folds", "3")) == 0
    assert times == {name: (out / name / "model.safetensors").stat().st_mtime_ns for name in FOLDS[:2]}
    assert (out / "fold-2" / "model.safetensors").read_bytes() == (
        bones_cv / "fold-2" / "model.safetensors"
    ).read_bytes()
    message = fails([*fold_command(bones, out, "--folds", "3"), "--lr", "0.5"], capsys)
    assert "other settings (train.lr: 0.001, now 0.5)" in message
    message = fails(["train", "--resume", str(out), "--epochs", "9"], capsys)
    assert message.startswith("--resume continues")
    # Other data: the finished folds would not match the rest.
    (tmp_path / "data").mkdir()
    shutil.copytree(bones / "MURA-v1.1", tmp_path / "data" / "MURA-v1.1")
    table = tmp_path / "data" / "MURA-v1.1" / "train_labeled_studies.csv"
    table.write_text("\n".join(table.read_text().splitlines()[2:]) + "\n")
    message = fails(["train", "--resume", str(out), "--data", str(tmp_path / "data"), "--quiet"], capsys)
    assert message.startswith("Fold 0: ") and "another split" in message


def test_what_cannot_be_a_cross_validation_is_refused(bones: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "cv"
    assert "needs --folds K" in fails(fold_command(bones, out, "--fold", "all"), capsys)
    assert "there is no fold 3: with --folds 3 they are 0 to 2" in fails(
        fold_command(bones, out, "--folds", "3", "--fold", "3"), capsys
    )
    assert "--fold 1 needs --folds K" in fails(fold_command(bones, out, "--fold", "1"), capsys)
    assert "at least 2 folds" in fails(fold_command(bones, out, "--folds", "1"), capsys)
    assert "99 folds need at least as many patients" in fails(fold_command(bones, out, "--folds", "99"), capsys)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    assert "is not empty" in fails(fold_command(bones, out, "--folds", "3"), capsys)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
