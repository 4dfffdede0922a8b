"""Weights that ship: found by their name, used as any run, never written to; and the script that makes them."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import scanfuse
from scanfuse import config, pretrained
from scanfuse.cli import main
from scanfuse.data.synthetic import harvard
from scanfuse.metrics.fusion import score
from scanfuse.run import file_digest, open_run
from scanfuse.systems.clinicalfmamba import Config

ROOT = Path(__file__).parents[1]
LARGEST = 2_000_000


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("making", ROOT / "scripts" / "pretrained_clinicalfmamba.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One head of seed 99, which no training has seen: modality -> file."""
    folder = tmp_path_factory.mktemp("head")
    (slices,) = harvard.render(1, slices=1, size=128, seed=99)
    for name, pixels in slices.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in slices}


def test_what_ships() -> None:
    assert pretrained.names() == ("clinicalfmamba",)
    run = open_run("pretrained/clinicalfmamba")
    assert pretrained.is_shipped(run.path) and not pretrained.is_shipped(ROOT)
    assert sum(path.stat().st_size for path in run.path.iterdir()) < LARGEST
    assert json.loads((run.path / "run.json").read_text())["weights_sha256"] == file_digest(run.weights_file)
    card = (run.path / "README.md").read_text(encoding="utf-8")
    for word in ("Phantoms alone", "Limits", "SSIM", "VIF", "Qabf", "scripts/pretrained_clinicalfmamba.py"):
        assert word in card, word


@pytest.mark.parametrize("source", ["CT", "SPECT", "PET"])
def test_it_fuses_in_the_first_minute(source: str, head: dict[str, Path], tmp_path: Path, capsys) -> None:
    """Ahead of the maximum, on a head that no training has seen."""
    words = ["predict", "pretrained/clinicalfmamba", f"--{source.lower()}", str(head[source])]
    words += ["--mri", str(head["MRI"]), "--out", str(tmp_path), "--device", "cpu"]
    assert main(words if source == "CT" else [*words, "--pair", f"{source}-MRI"]) == 0
    assert "Wrote" in capsys.readouterr().out
    predictor = scanfuse.load("pretrained/clinicalfmamba", device="cpu", adjusted={"pair": f"{source}-MRI"})
    result = predictor.predict(**{source.lower(): head[source], "mri": head["MRI"]})
    a, b = result.sources.values()
    names = ["ssim", "vif", "qabf"]
    ours, brightest = (score(f, a, b, names) for f in (result.luminance, np.maximum(a, b)))
    assert all(ours[name] > brightest[name] for name in names), (ours, brightest)


def test_each_source_can_be_stretched_by_itself(head: dict[str, Path]) -> None:
    found = []
    for stretch in ("pair", "each"):
        predictor = scanfuse.load(
            "pretrained/clinicalfmamba", device="cpu", adjusted={"pair": "SPECT-MRI", "stretch": stretch}
        )
        assert set(predictor.changed) == ({"pair"} if stretch == "pair" else {"pair", "stretch"})
        found.append(predictor.predict(spect=head["SPECT"], mri=head["MRI"]).luminance)
    assert np.abs(found[0] - found[1]).max() > 5


def test_a_folder_of_that_name_goes_first(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pretrained/clinicalfmamba").mkdir(parents=True)
    assert main(["predict", "pretrained/clinicalfmamba", "--ct", "a.png", "--mri", "b.png"]) == 2
    assert "is not a run folder: it has no config.yaml" in capsys.readouterr().err


def test_an_unknown_name_says_what_there_is(capsys) -> None:
    assert main(["predict", "pretrained/clinicalmamba", "--ct", "a.png", "--mri", "b.png"]) == 2
    assert "There are no weights pretrained/clinicalmamba; there are clinicalfmamba." in capsys.readouterr().err


def test_nothing_is_written_into_the_installation(head_phantoms: Path, tmp_path: Path, capsys) -> None:
    folder = open_run("pretrained/clinicalfmamba").path
    before = sorted(folder.rglob("*"))
    assert main(["evaluate", "pretrained/clinicalfmamba", "--data", str(head_phantoms)]) == 2
    assert "is part of the installation: say where the table goes, with --out DIR." in capsys.readouterr().err
    assert main(["report", "pretrained/clinicalfmamba"]) == 2
    assert "is part of the installation" in capsys.readouterr().err
    assert main(["train", "--resume", "pretrained/clinicalfmamba"]) == 2
    assert "is part of the installation, and whole" in capsys.readouterr().err
    out = ["--out", str(tmp_path / "table"), "--quiet", "--device", "cpu"]
    assert main(["evaluate", "pretrained/clinicalfmamba", "--data", str(head_phantoms), *out]) == 0
    assert (tmp_path / "table" / "table.md").is_file()
    assert sorted(folder.rglob("*")) == before


def test_the_script_makes_a_run_of_the_same_kind_and_makes_it_again(tmp_path: Path, monkeypatch) -> None:
    making = script()
    small = "--cases 2 --slices 1 --size 48 --epochs 1 --crop 32".split()
    for name in ("one", "two"):
        monkeypatch.setattr(sys, "argv", ["making", str(tmp_path / name), *small])
        making.main()
    one, two, ships = (open_run(run) for run in (tmp_path / "one", tmp_path / "two", "pretrained/clinicalfmamba"))
    first, second, shipped = (run.load_weights() for run in (one, two, ships))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {name: tensor.shape for name, tensor in first.items()} == {n: t.shape for n, t in shipped.items()}
    assert any(not torch.equal(first[name], shipped[name]) for name in first)
    made, there = (config.build(Config, run.config()) for run in (one, ships))
    same = made.model_dump()
    same["train"]["epochs"], same["data"]["crop"] = there.train.epochs, there.data.crop
    assert same == there.model_dump()
