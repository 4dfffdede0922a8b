"""`--start-from`: a training begins with another run's weights, never with ones that know its held-out patients."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from scanfuse.cli import main
from scanfuse.data.synthetic import harvard
from scanfuse.verbs.training import Training
from whole_jobs import Capture, fails, json_of

SMALL = "--preset tiny --channels 4,4,8 --latent-blocks 1 --decoder-blocks 1 --d-state 2 --crop 32".split()
RUN = "--batch 4 --threads 1 --device cpu --quiet".split()


def command(data: Path, out: Path, *options: str) -> list[str]:
    return ["train", "clinicalfmamba", "--data", str(data), "--out", str(out), *SMALL, *RUN, *options]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other patients than those of `head_phantoms`."""
    options = harvard.Options(cases=4, slices=2, size=48, seed=77)
    return harvard.write(tmp_path_factory.mktemp("others") / "data", options)


@pytest.fixture(scope="module")
def first(head_phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "run"
    assert main(command(head_phantoms, out, "--epochs", "1")) == 0
    return out


def test_the_weights_are_where_it_starts(first: Path, others: Path, tmp_path: Path) -> None:
    """With a rate of almost nothing the weights stay where they started; without --start-from they are others."""
    still = ["--epochs", "1", "--lr", "1e-12", "--min-lr", "0"]
    assert main(command(others, tmp_path / "a", "--start-from", str(first), *still)) == 0
    assert main(command(others, tmp_path / "b", *still)) == 0
    start, begun, fresh = (load_file(path / "model.safetensors") for path in (first, tmp_path / "a", tmp_path / "b"))
    # The running means of batch norm move with every sample, so weights alone are compared.
    learned = [name for name in start if "running" not in name and "num_batches" not in name]
    assert all(torch.allclose(begun[name], start[name], atol=1e-8) for name in learned)
    assert not all(torch.allclose(fresh[name], start[name], atol=1e-4) for name in learned)
    said = json_of(tmp_path / "a" / "run.json")["started_from"]
    assert str(first) in said
    assert json_of(first / "run.json")["weights_sha256"] in said


def test_shipped_weights_are_a_start(others: Path, tmp_path: Path) -> None:
    arguments = [
        "--preset",
        "detail",
        "--start-from",
        "pretrained/clinicalfmamba",
        "--epochs",
        "1",
        "--crop",
        "32",
        *RUN,
    ]
    out = tmp_path / "run"
    assert main(["train", "clinicalfmamba", "--data", str(others), "--out", str(out), *arguments]) == 0
    assert "pretrained/clinicalfmamba" in json_of(out / "run.json")["started_from"]


def test_a_run_that_knows_the_held_out_patients_is_refused(
    first: Path, head_phantoms: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(command(head_phantoms, tmp_path / "same", "--epochs", "1", "--start-from", str(first))) == 0
    out = tmp_path / "other"
    line = fails(
        command(head_phantoms, out, "--split-seed", "3", "--epochs", "1", "--start-from", str(first)), capsys
    )
    assert "has learned from the case" in line
    assert not out.exists()


def test_files_of_other_names_are_known_again(
    first: Path, head_phantoms: Path, tmp_path: Path, capsys: Capture
) -> None:
    """A copy under other names is the same patients."""
    renamed = tmp_path / "renamed"
    shutil.copytree(head_phantoms, renamed)
    for path in sorted(renamed.rglob("*.png")):
        path.rename(path.with_name(f"9{path.name}"))
    line = fails(command(renamed, tmp_path / "out", "--split-seed", "3", "--start-from", str(first)), capsys)
    assert "has learned from the case 9" in line


def test_what_does_not_fit_is_refused(first: Path, others: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    line = fails(command(others, out, "--start-from", str(first), "--latent-blocks", "2"), capsys)
    assert "has another shape (latent_a" in line
    assert "none there" in line
    line = fails(command(others, out, "--start-from", str(first), "--channels", "4,4,16"), capsys)
    assert "has another shape" in line
    assert "There is no run folder" in fails(command(others, out, "--start-from", str(tmp_path / "nowhere")), capsys)
    other = tmp_path / "of-another"
    shutil.copytree(first, other)
    config = (other / "config.yaml").read_text().replace("system: clinicalfmamba", "system: xfmamba")
    (other / "config.yaml").write_text(config)
    assert "is a run of xfmamba" in fails(command(others, out, "--start-from", str(other)), capsys)
    early = tmp_path / "early"
    shutil.copytree(first, early)
    lines = [line.rsplit(",", 1)[0] for line in (early / "split.csv").read_text().splitlines()]
    (early / "split.csv").write_text("\n".join(lines) + "\n")
    assert "does not say which files it has seen" in fails(command(others, out, "--start-from", str(early)), capsys)
    assert not out.exists()


def test_two_starts_at_once_are_refused(first: Path, scans: Path, tmp_path: Path, capsys: Capture) -> None:
    arguments = [
        "train",
        "plain",
        "--data",
        str(scans),
        "--inputs",
        "t1ce,flair",
        "--slice",
        "axial:middle",
        "--out",
        str(tmp_path / "out"),
        *RUN,
    ]
    line = fails([*arguments, "--encoder-weights", "timm", "--start-from", str(first)], capsys)
    assert "--start-from fills all weights" in line


def test_a_stopped_run_goes_on_without_its_start(
    first: Path, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is read once: the checkpoint has all that is needed, and the record still says where it began."""
    start = tmp_path / "start"
    shutil.copytree(first, start)
    update = Training._update

    def stop(training: Any) -> None:
        update(training)
        training.stop.signal = signal.SIGINT

    monkeypatch.setattr(Training, "_update", stop)
    assert main(command(others, tmp_path / "run", "--start-from", str(start), "--epochs", "2")) == 130
    monkeypatch.undo()
    shutil.rmtree(start)
    assert main(["train", "clinicalfmamba", "--resume", str(tmp_path / "run"), "--quiet"]) == 0
    assert str(start) in json_of(tmp_path / "run" / "run.json")["started_from"]
