"""What a training is refused for before anything is written, and who loads its data."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from scanfuse.cli import main
from scanfuse.data.inputs import image_pairs, view_pairs
from scanfuse.data.readers import Image, read_image
from scanfuse.tasks.classify import Classification
from whole_jobs import TINY, Capture, fails, fold_command, json_of

FUSION = "--preset tiny --channels 4,4,8 --d-state 2 --mix-state 2 --crop 32 --batch 3 --threads 1 --quiet".split()


def training(system: str, data: Path, out: Path, *options: str) -> list[str]:
    flags = [*TINY[:-3], "--quiet"] if system == "xfmamba" else FUSION
    return ["train", system, "--data", str(data), "--out", str(out), *flags, *options]


# ---- where


@pytest.mark.parametrize("device", ["banana", "cuda", "cuda:7", "meta", ""])
def test_a_device_that_is_not_there_is_refused(
    device: str, bones: Path, head_phantoms: Path, tmp_path: Path, capsys: Capture
) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    out = tmp_path / "run"
    for command in (
        training("clinicalfmamba", head_phantoms, out, "--device", device),
        training("xfmamba", bones, out, "--device", device),
        fold_command(bones, out, "--folds", "3", "--device", device),
    ):
        assert f"The device '{device}' cannot be used: " in fails(command, capsys)
        assert not out.exists()


def test_several_processes_are_refused(
    bones: Path, head_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """As torchrun and accelerate launch would start them: each would train on all data, into the same folder."""
    out = tmp_path / "run"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for command in (training("clinicalfmamba", head_phantoms, out), fold_command(bones, out, "--folds", "3")):
        assert "Training runs in one process: start scanfuse train by itself" in fails(command, capsys)
        assert not out.exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main(training("clinicalfmamba", head_phantoms, out, "--epochs", "1")) == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "one process" in fails(["train", "--resume", str(out)], capsys)


# ---- with which data


@pytest.fixture
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[str]]:
    """Counts how often each picture is decoded, in whatever process."""
    log = tmp_path / "decoded"
    log.touch()

    def counted(path: str | Path, **options: Any) -> Image:
        handle = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.write(handle, f"{path}\n".encode())
        os.close(handle)
        return read_image(path, **options)

    monkeypatch.setattr(image_pairs, "read_image", counted)
    monkeypatch.setattr(view_pairs, "read_image", counted)

    def take() -> Counter[str]:
        found = Counter(log.read_text().splitlines())
        log.write_text("")
        return found

    return take


@pytest.mark.parametrize("system", ["clinicalfmamba", "xfmamba"])
def test_workers_keep_what_they_have_decoded(
    system: str, bones: Path, head_phantoms: Path, tmp_path: Path, decoded: Callable[[], Counter[str]]
) -> None:
    """Over four epochs each of two workers decodes a training picture once, at most; and nothing else changes."""
    data = bones if system == "xfmamba" else head_phantoms
    assert main(training(system, data, tmp_path / "alone", "--epochs", "4")) == 0
    alone = decoded()
    assert main(training(system, data, tmp_path / "helped", "--epochs", "4", "--workers", "2")) == 0
    helped = decoded()
    split = pd.read_csv(tmp_path / "alone" / "split.csv", comment="#", dtype=str, keep_default_na=False)
    files = set(split[split["split"] == "train"].to_numpy().ravel())
    trained = {path: count for path, count in helped.items() if path in files}
    assert len(trained) >= 8
    assert max(trained.values()) == 2  # once in each worker; without keeping them it would be up to four times
    assert all(alone[path] == 1 for path in trained)
    assert all(helped[path] == alone[path] for path in alone if path not in trained)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("alone", "helped"))
    assert one == other


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_picture_that_cannot_be_read_is_one_line_from_a_worker_too(
    workers: str, tmp_path: Path, capsys: Capture
) -> None:
    from scanfuse.data.synthetic import mura

    data = mura.write(tmp_path / "data", mura.Options(patients=24, size=40, seed=2))
    for picture in sorted(data.rglob("train/**/image*.png"))[::7]:
        picture.write_bytes(picture.read_bytes()[:100])
    line = fails(training("xfmamba", data, tmp_path / "run", "--workers", workers), capsys)
    assert "is damaged or cut short" in line and "Traceback" not in line and len(line) < 400
    assert not (tmp_path / "run").exists()


# ---- that comes to nothing


@pytest.mark.parametrize("system", ["clinicalfmamba", "xfmamba"])
def test_a_training_that_diverges_is_one_line(
    system: str, bones: Path, head_phantoms: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = bones if system == "xfmamba" else head_phantoms
    for rate in ("1e30", "1e4"):
        options = ["--lr", rate, "--epochs", "2", "--warmup-epochs", "0", "--clip", "0", "--schedule", "constant"]
        code = main(training(system, data, tmp_path / rate, *options))
        error = capsys.readouterr().err.splitlines()
        if code == 0:
            assert np.isfinite(json_of(tmp_path / rate / "run.json")["validation"]["val_loss"])
            continue
        assert (code, len(error)) == (2, 1)
        assert "not finite" in error[0] or "never finite" in error[0]
        assert not (tmp_path / rate).exists()


def test_a_classifier_whose_validation_is_never_finite_is_one_line(
    bones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Logits that are not finite in validation alone, such as from a batch norm: no AUROC, and nothing to keep."""
    original = Classification.validation

    def poisoned(self: Classification, scored: Any) -> dict[str, float]:
        return original(self, ((outputs * float("nan"), batch) for outputs, batch in scored))

    monkeypatch.setattr(Classification, "validation", poisoned)
    out = tmp_path / "run"
    line = fails(training("xfmamba", bones, out), capsys)
    assert line.startswith("The validation loss was never finite, so nothing is kept: lower --lr")
    assert not out.exists()


# ---- what a file says


def test_settings_that_name_no_system_are_one_line(head_phantoms: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "settings.yaml").write_text("train:\n  epochs: 1\n")
    options = [
        "--from",
        str(tmp_path / "settings.yaml"),
        "--data",
        str(head_phantoms),
        "--out",
        str(tmp_path / "run"),
    ]
    assert "name no system: add the line 'system: NAME', one of: clinicalfmamba" in fails(["train", *options], capsys)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{}", "lacks folds, data, settings"), ("[1]", "holds a list"), ('{"folds": ', "is not valid JSON")],
)
def test_a_damaged_record_of_a_cross_validation_is_one_line(
    content: str, said: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "cross_validation.json").write_text(content)
    assert said in fails(["train", "xfmamba", "--resume", str(tmp_path)], capsys)


@pytest.mark.parametrize("layout", ["manifest", "studies"])
def test_a_name_too_long_for_a_file_is_one_line(layout: str, tmp_path: Path, capsys: Capture) -> None:
    cell = f"{'x' * 300}.png"
    (tmp_path / "data").mkdir()
    rows = {
        "manifest": f"id,group,mri,ct\na,a,{cell},{cell}\n",
        "studies": f"image,patient,study,label,view\n{cell},a,a,1,frontal\n",
    }
    (tmp_path / "data" / "manifest.csv").write_text(rows[layout])
    system = {"manifest": "clinicalfmamba", "studies": "xfmamba"}[layout]
    line = fails(training(system, tmp_path / "data", tmp_path / "run", "--layout", layout), capsys)
    assert "x" * 100 in line and "Errno" not in line
