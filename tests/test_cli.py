"""The command line in process, on phantoms: check, train, evaluate, predict, and every mistake in one line."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import scanfuse
from scanfuse.cli import main
from scanfuse.config import read_yaml
from whole_jobs import fails

TINY = "--preset tiny --channels 4,4,8 --d-state 2 --mix-state 2 --crop 32 --epochs 2 --batch 4 --lr 2e-3".split()


@pytest.fixture(scope="module")
def run(head_phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "clinicalfmamba", "--data", str(head_phantoms), "--out", str(path), "--quiet", *TINY]) == 0
    return path


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = "import sys; from scanfuse.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - started < 5  # under a second on an idle machine; importing torch alone takes longer
    for verb in ("train", "evaluate", "predict", "demo", "systems", "doctor", "data", "bench"):
        assert f"\n  {verb} " in done.stdout


def test_systems_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["systems"]) == 0
    assert "clinicalfmamba" in capsys.readouterr().out
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "self-test" in text
    assert "torch" in text


def test_train_help_lists_the_settings_of_the_system(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "clinicalfmamba", "--help"]) == 0
    text = capsys.readouterr().out
    for flag in ("--epochs", "--cmca", "--routes", "--pair", "--precision", "--ssim-weight", "--from", "--resume"):
        assert flag in text


def test_check_train_evaluate_predict(run: Path, head_phantoms: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["data", "check", "clinicalfmamba", str(head_phantoms)]) == 0
    assert main(["evaluate", str(run), "--data", str(head_phantoms), "--out", str(tmp_path / "e")]) == 0
    text = capsys.readouterr().out
    for word in ("qabf", "average", "maximum", "laplacian"):
        assert word in text
    assert set(os.listdir(tmp_path / "e")) == {"evaluation.json", "per_sample.csv", "table.md", "gallery.png"}
    content = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert content["methods"] == ["run", "average", "maximum", "laplacian"]
    assert len(content["better"]) == 16

    assert main(["predict", str(run), "--data", str(head_phantoms), "--out", str(tmp_path / "p")]) == 0
    assert len(list((tmp_path / "p").glob("*_side_by_side.png"))) == 12
    first = sorted((head_phantoms).rglob("CT/*.png"))[0]
    mri = next(path for path in head_phantoms.rglob(f"MRI/{first.name}"))
    assert main(["predict", str(run), "--mri", str(mri), f"--ct={first}", "--out", str(tmp_path / "one")]) == 0
    folder, single = (PIL.Image.open(tmp_path / name / f"{first.stem}.png") for name in ("p", "one"))
    assert np.array_equal(np.asarray(folder), np.asarray(single))
    assert folder.size == (48, 48)
    assert folder.mode == "L"
    result = scanfuse.load(run).predict(mri=mri, ct=np.asarray(PIL.Image.open(first)))
    assert np.array_equal(result.pixels, np.asarray(single))


def test_two_runs_stand_in_one_table(run: Path, head_phantoms: Path, tmp_path: Path) -> None:
    data = ["--data", str(head_phantoms)]
    other = tmp_path / "without_cmca"
    assert main(["train", "clinicalfmamba", *data, "--out", str(other), "--quiet", *TINY, "--cmca", "off"]) == 0
    assert main(["evaluate", str(run), str(other), *data, "--out", str(tmp_path / "e"), "--quiet"]) == 0
    content = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert content["methods"][:2] == ["run", "without_cmca"]
    assert content["cells"]["run"] != content["cells"]["without_cmca"]


def test_runs_of_different_splits_are_kept_apart(run: Path, head_phantoms: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    other = tmp_path / "other_split"
    arguments = ["train", "clinicalfmamba", "--data", str(head_phantoms), "--out", str(other), "--quiet", *TINY]
    assert main([*arguments, "--split-seed", "3"]) == 0
    line = fails(["evaluate", str(run), str(other), "--data", str(head_phantoms)], capsys)
    assert "different splits" in line


def test_a_training_writes_its_report(run: Path, head_phantoms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    assert main(["evaluate", str(folder), "--data", str(head_phantoms), "--quiet"]) == 0
    (tmp_path / "kept").mkdir()
    (folder / "report.html").rename(tmp_path / "kept" / "report.html")
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0  # at its end already
    pages = [(path / "report.html").read_text(encoding="utf-8") for path in (run, folder)]
    assert ["Not evaluated" in page for page in pages] == [True, False]
    assert [page.count("<img") for page in pages] == [0, 1]


def test_a_run_repeats_from_its_configuration(run: Path, head_phantoms: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    source = str(run / "config.yaml")
    assert main(["train", "--from", source, "--data", str(head_phantoms), "--out", str(again), "--quiet"]) == 0
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_ablations_are_trained_as_their_flags_say(head_phantoms: Path, tmp_path: Path) -> None:
    """Each is recorded and ends at a loss of its own. Every option of the models is in systems/test_variants.py."""
    losses = set()
    flags = [("cmca", "true"), ("routes", "raster"), ("fusion", "concat"), ("fusion", "mean"), ("stem-stride", "2")]
    for number, (flag, value) in enumerate(flags):
        out = tmp_path / str(number)
        arguments = ["train", "clinicalfmamba", "--data", str(head_phantoms), "--quiet", *TINY, "--epochs", "1"]
        assert main([*arguments, f"--{flag}", value, "--out", str(out)]) == 0
        recorded = read_yaml(out / "config.yaml")["model"][flag.replace("-", "_")]
        assert str(recorded).lower() == value
        losses.add(float(pd.read_csv(out / "history.csv")["val_loss"].iloc[-1]))
    assert len(losses) == len(flags)


def test_mistakes_on_the_command_line(run: Path, head_phantoms: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    data, out = str(head_phantoms), str(tmp_path / "new")
    train = ["train", "clinicalfmamba", "--data", data, "--out", out]
    assert "--epochs" in fails([*train, "--epoch", "3"], capsys)
    assert "'tiny'" in fails([*train, "--preset", "huge"], capsys)
    assert "epochs" in fails([*train, "--epochs", "-1"], capsys)
    assert "did you mean 'clinicalfmamba'" in fails(["train", "clinicalmamba", "--data", data, "--out", out], capsys)
    assert "Name the system" in fails(["train", "--data", data, "--out", out], capsys)
    assert "does not exist" in fails([*train[:2], "--data", str(tmp_path / "nowhere"), "--out", out], capsys)
    assert "--out is missing" in fails(train[:4], capsys)
    assert "No such command" in fails(["trian"], capsys)
    assert not Path(out).exists()
    assert "no run folder" in fails(["predict", str(tmp_path / "gone"), "--data", data], capsys)
    assert "did you mean --mri" in fails(["predict", str(run), "--mrj", "a.png"], capsys)
    assert "'ct' is missing" in fails(["predict", str(run), "--mri", "a.png"], capsys)
    assert "not both" in fails(["predict", str(run), "--mri", "a.png", "--data", data], capsys)
    assert "Nothing to predict" in fails(["predict", str(run)], capsys)
    assert "cannot be used" in fails(["predict", str(run), "--data", data, "--device", "tpu9"], capsys)
    assert "--resume continues" in fails(["train", "--resume", str(run), "--epochs", "9"], capsys)


def test_bad_images_are_one_line_and_write_nothing(run: Path, head_phantoms: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    good = sorted(head_phantoms.rglob("MRI/*.png"))[0]
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:300])
    (tmp_path / "text.png").write_text("not a picture")
    PIL.Image.new("L", (20, 30)).save(tmp_path / "small.png")
    for name, word in (
        ("cut.png", "cut.png"),
        ("text.png", "text.png"),
        ("small.png", "48"),
        ("none.png", "none.png"),
    ):
        arguments = ["predict", str(run), "--mri", str(good), "--ct", str(tmp_path / name)]
        assert word in fails([*arguments, "--out", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists()


def test_unusual_images_are_handled(run: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    deep = random.integers(0, 65536, (40, 50), dtype=np.uint16)
    rgba = np.dstack([random.integers(0, 256, (40, 50, 3), dtype=np.uint8), np.full((40, 50), 255, np.uint8)])
    PIL.Image.fromarray(deep).save(tmp_path / "deep.png")
    PIL.Image.fromarray(rgba).save(tmp_path / "rgba.png")
    PIL.Image.new("L", (50, 40), 7).save(tmp_path / "constant.png")
    predictor = scanfuse.load(run)
    fused = predictor.predict(mri=tmp_path / "deep.png", ct=tmp_path / "constant.png").pixels
    assert fused.dtype == np.uint16
    assert fused.shape == (40, 50)
    assert predictor.predict(mri=tmp_path / "rgba.png", ct=tmp_path / "deep.png").pixels.shape == (40, 50, 3)
    constant = predictor.predict(mri=tmp_path / "constant.png", ct=tmp_path / "constant.png").pixels
    assert (constant == 7).all()


def test_a_tampered_or_missing_weight_file_is_refused(run: Path, head_phantoms: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.yaml", "run.json", "split.csv", "model.safetensors"):
        (copy / name).write_bytes((run / name).read_bytes())
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert "was changed" in fails(["predict", str(copy), "--data", str(head_phantoms)], capsys)
    (copy / "model.safetensors").unlink()
    assert "is missing" in fails(["evaluate", str(copy), "--data", str(head_phantoms)], capsys)


def test_leaks_are_refused(run: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    """Neither training slices under another name nor new slices of a training case are test samples."""
    split = pd.read_csv(run / "split.csv", dtype=str, comment="#", keep_default_na=False)
    for column in ("ct", "mri"):
        split[column] = [str((run / path).resolve()) for path in split[column]]
    row = split[split["split"] == "train"].iloc[[0]]
    row.assign(id="new", split="test").to_csv(tmp_path / "renamed.csv", index=False)
    line = fails(["evaluate", str(run), "--data", str(tmp_path / "renamed.csv")], capsys)
    assert "the training of run saw the same files under another id" in line

    changed = row.assign(id="new", split="test")
    for column in ("ct", "mri"):
        pixels = np.asarray(PIL.Image.open(changed[column].item()))
        PIL.Image.fromarray(255 - pixels).save(tmp_path / f"{column}.png")
        changed[column] = str(tmp_path / f"{column}.png")
    pd.concat([split[split["split"] == "test"], changed]).to_csv(tmp_path / "more.csv", index=False)
    line = fails(["evaluate", str(run), "--data", str(tmp_path / "more.csv")], capsys)
    assert f"The cases {row['group'].item()} are in the training of run" in line


def test_synth_writes_phantoms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "synth", "harvard", str(tmp_path / "p"), "--cases", "4", "--slices", "1", "--size", "32"]
    assert main(arguments) == 0
    assert len(list((tmp_path / "p").rglob("*.png"))) == 8
    assert "harvard" in fails(["data", "synth", "havard", str(tmp_path / "q")], capsys)


def test_one_new_patient_is_enough_to_predict_and_evaluate(run: Path, tmp_path: Path) -> None:
    arguments = ["data", "synth", "harvard", str(tmp_path / "new"), "--cases", "1", "--slices", "2", "--size", "48"]
    assert main([*arguments, "--seed", "77"]) == 0
    for path in list((tmp_path / "new").rglob("*.png")):
        path.rename(path.with_name(f"99{path.name}"))
    data = ["--data", str(tmp_path / "new")]
    assert main(["predict", str(run), *data, "--out", str(tmp_path / "p")]) == 0
    assert len(list((tmp_path / "p").glob("*_side_by_side.png"))) == 2
    assert main(["evaluate", str(run), *data, "--out", str(tmp_path / "e"), "--quiet"]) == 0
    content = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert (content["samples"], content["groups"]) == (2, 1)


def test_the_published_split_is_labelled_leaky(head_phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", "clinicalfmamba", "--data", str(head_phantoms), "--out", str(out), "--quiet", *TINY]
    assert main([*arguments, "--split", "published", "--epochs", "1"]) == 0
    evaluation = ["evaluate", str(out), "--data", str(head_phantoms), "--out", str(tmp_path / "e"), "--quiet"]
    assert main(evaluation) == 0
    notes = json.loads((tmp_path / "e" / "evaluation.json").read_text())["notes"]
    assert any(note.startswith("leaky") for note in notes)


def test_demo_trains_evaluates_and_can_be_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("run", "run-2"):
        assert main(["demo", "--quick", "--out", str(tmp_path / "demo")]) == 0
        assert (tmp_path / "demo" / folder / "evaluation" / "test" / "gallery.png").is_file()
    assert "laplacian" in capsys.readouterr().out


def test_demo_of_a_classifier_compares_with_one_view_and_explains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "xfmamba", "--quick", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "single view" in printed and "DeLong" in printed
    evaluation = tmp_path / "run" / "evaluation" / "test"
    assert json.loads((evaluation / "comparison.json").read_text())["reference"] == "xfmamba"
    assert list((tmp_path / "run" / "explanations").glob("*/panel.png"))
    assert "single view" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
