"""Whole jobs of the plain classifiers: own tables, folds, fused samples as data, runs of other inputs compared."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scanfuse.cli import main
from whole_jobs import Capture, fails, json_of, table_of

TINY = "--preset tiny --epochs 1 --batch 4 --threads 1 --device cpu --quiet".split()
PLAIN = [*TINY, "--size", "32"]
VOLUMES = [*TINY, "--size", "16"]
SMALL = "--preset tiny --channels 4,4,8 --patch 8 --patches 1 --epochs 1 --threads 1 --device cpu --quiet"
GRADES = ["--positives", "HGG"]


def train(system: str, data: Path, out: Path, *options: str) -> Path:
    flags = [*PLAIN, "--slice", "axial:middle"] if system == "plain" else VOLUMES
    assert main(["train", system, "--data", str(data), "--out", str(out), *flags, *GRADES, *options]) == 0
    return out


def test_a_table_of_one_column_of_any_name_is_trained_on(tmp_path: Path, capsys: Capture) -> None:
    """Id, group, split, target and one path; bright pictures are the class 1, and no option names the column."""
    random = np.random.default_rng(0)
    rows = []
    for n in range(24):
        grey = random.integers(150, 250) if n % 2 else random.integers(5, 100)
        Image.fromarray(np.full((32, 32), grey, np.uint8)).save(tmp_path / f"{n}.png")
        split = "train" if n < 12 else "val" if n < 18 else "test"
        rows.append({"id": f"s{n}", "group": f"g{n}", "split": split, "target": n % 2, "My Picture": f"{n}.png"})
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    flags = "--timm-model mobilenetv3_small_050 --size 32 --epochs 8 --batch 4 --lr 3e-3 --device cpu --threads 1"
    words = ["train", "plain", "--data", str(tmp_path / "table.csv"), "--out", str(tmp_path / "run"), *flags.split()]
    assert main([*words, "--quiet"]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "table.csv"), "--quiet"]) == 0
    lacking = ["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "table.csv"), "--each-missing"]
    assert "no table with inputs missing: it reads" in fails(lacking, capsys)
    cells = json_of(tmp_path / "run/evaluation/test/evaluation.json")["cells"]["run"]
    assert cells["auroc"]["mean"] == 1.0
    words_of_explain = ["explain", str(tmp_path / "run"), "--data", str(tmp_path / "table.csv"), "--id", "s20"]
    assert main([*words_of_explain, "--out", str(tmp_path / "why")]) == 0
    assert (tmp_path / "why" / "s20" / "panel.png").is_file()
    assert "Inputs" in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    assert main(["data", "check", "plain", str(tmp_path / "table.csv")]) == 0
    (tmp_path / "other.csv").write_text("id,group,target\na,a,1\n")
    assert "columns of files: none" in fails([*words[:3], str(tmp_path / "other.csv"), "--out", "x"], capsys)


@pytest.fixture(scope="module")
def fused(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scans fused by an untrained network and by two plain methods, through `predict --data`."""
    root = tmp_path_factory.mktemp("fused")
    assert main(["train", "clinicalfmamba3d", "--data", str(scans), "--out", str(root / "net"), *SMALL.split()]) == 0
    words = ["predict", str(root / "net"), "--data", str(scans), "--baselines", "average,laplacian"]
    assert main([*words, "--out", str(root / "out")]) == 0
    return root / "out"


def test_what_predict_wrote_is_a_manifest_of_all_inputs(fused: Path, scans: Path) -> None:
    text = (fused / "manifest.csv").read_text()
    assert "# note: phantoms: made-up pictures of nobody" in text
    table = pd.read_csv(fused / "manifest.csv", comment="#", dtype=str).set_index("id")
    source = pd.read_csv(scans / "manifest.csv", dtype=str).set_index("id")
    assert list(table.index) == list(source.index)
    assert table["target"].equals(source["target"]) and table["group"].equals(source["group"])
    assert table["split"].isna().all()
    for name in ("t1ce", "flair"):
        assert [Path(path) for path in table[name]] == [scans / path for path in source[name]]
    for name in ("fused", "average", "laplacian"):
        assert all((fused / path).is_file() for path in table[name]), name
    assert table.loc["p03", "average"] == "average/p03.nii.gz"


def test_the_average_that_was_written_is_the_average(fused: Path, scans: Path) -> None:
    import nibabel

    one, other, mean = (
        np.asarray(nibabel.load(path).dataobj, float)
        for path in (
            scans / "volumes/p01-t1ce.nii.gz",
            scans / "volumes/p01-flair.nii.gz",
            fused / "average/p01.nii.gz",
        )
    )
    inside = (one > 20) & (other > 20)
    assert np.corrcoef(mean[inside], (one / one[inside].std() + other / other[inside].std())[inside])[0, 1] > 0.97


def test_a_second_prediction_replaces_its_own_table_and_nobody_elses(
    fused: Path, scans: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["predict", str(fused.parent / "net"), "--data", str(scans), "--out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.csv").write_text("id,group\na,a\n")
    assert "choose another --out" in fails([*words, str(tmp_path / "mine")], capsys)
    assert (tmp_path / "mine" / "manifest.csv").read_text() == "id,group\na,a\n"
    assert list((tmp_path / "mine").iterdir()) == [tmp_path / "mine" / "manifest.csv"]
    for _ in range(2):
        assert main([*words, str(tmp_path / "again")]) == 0
    assert "there is no plain method 'mean'" in fails([*words, str(tmp_path / "x"), "--baselines", "mean"], capsys)


@pytest.fixture(scope="module")
def runs(fused: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run for each of three inputs of the fused table, and of pictures, with the same split."""
    root = tmp_path_factory.mktemp("runs")
    made = {name: train("plain3d", fused, root / name, "--inputs", name) for name in ("t1ce", "fused", "average")}
    made["both"] = train("plain3d", fused, root / "both", "--inputs", "t1ce,flair")
    made["slice"] = train("plain", fused, root / "slice", "--inputs", "flair")
    return made


def test_runs_of_other_inputs_and_systems_stand_in_one_table_and_are_compared(
    runs: dict[str, Path], fused: Path, tmp_path: Path
) -> None:
    paths = [str(path) for path in runs.values()]
    assert main(["compare", *paths, "--data", str(fused), "--out", str(tmp_path / "c"), "--quiet"]) == 0
    found = json_of(tmp_path / "c" / "comparison.json")
    assert {row["run"] for row in found["rows"]} == {"fused", "average", "both", "slice"}
    assert main(["evaluate", *paths, "--data", str(fused), "--out", str(tmp_path / "e"), "--quiet"]) == 0
    together = table_of(tmp_path / "e" / "per_sample.csv")
    for name, path in runs.items():
        assert main(["evaluate", str(path), "--data", str(fused), "--out", str(tmp_path / name), "--quiet"]) == 0
        alone = table_of(tmp_path / name / "per_sample.csv")
        mine = together[together["method"] == name]
        assert list(mine["id"]) == list(alone["id"])
        np.testing.assert_allclose(mine["p_HGG"], alone["p_HGG"], rtol=0, atol=1e-6)
    assert together.groupby("id")["p_HGG"].nunique().min() > 1


def test_other_samples_under_the_same_folder_are_refused(
    runs: dict[str, Path], fused: Path, tmp_path: Path, capsys: Capture
) -> None:
    """A run that counts LGG as the positive reads other targets."""
    other = train("plain3d", fused, tmp_path / "lgg", "--inputs", "fused", "--positives", "LGG")
    line = fails(["compare", str(runs["t1ce"]), str(other), "--data", str(fused)], capsys)
    assert "do not read the same samples and targets" in line


def test_runs_of_a_task_that_depends_on_its_inputs_stay_apart(
    fused: Path, scans: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["train", "clinicalfmamba3d", "--data", str(scans), "--out", str(tmp_path / "turned"), *SMALL.split()]
    assert main([*words, "--pair", "FLAIR-T1CE"]) == 0
    line = fails(["compare", str(fused.parent / "net"), str(tmp_path / "turned"), "--data", str(scans)], capsys)
    assert line == "net and turned take different inputs: evaluate them one by one."


@pytest.fixture(scope="module")
def folds(fused: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folds")
    flags = ["--folds", "3", "--test-fraction", "0"]
    return {name: train("plain3d", fused, root / name, "--inputs", name, *flags) for name in ("t1ce", "fused")}


def test_cross_validations_are_compared_by_what_each_fold_held_out(
    folds: dict[str, Path], fused: Path, tmp_path: Path
) -> None:
    """Every patient once; differences are those of the two tables "out of fold", by hand."""
    paths = [str(path) for path in folds.values()]
    assert main(["compare", *paths, "--data", str(fused), "--out", str(tmp_path / "c"), "--quiet"]) == 0
    found = json_of(tmp_path / "c" / "comparison.json")
    assert found["samples"] == 16 and found["groups"] == 16
    assert any("by the fold that held it out" in note for note in found["notes"])
    cells = {}
    for name, path in folds.items():
        assert main(["evaluate", str(path), "--data", str(fused), "--quiet", "--out", str(tmp_path / name)]) == 0
        cells[name] = json_of(tmp_path / name / "evaluation.json")["cells"]["out of fold"]
    for row in found["rows"]:
        by_hand = cells["fused"][row["metric"]]["mean"] - cells["t1ce"][row["metric"]]["mean"]
        assert row["difference"] == pytest.approx(by_hand, abs=1e-9), row


def test_folds_and_runs_are_not_compared(
    folds: dict[str, Path], runs: dict[str, Path], fused: Path, capsys: Capture
) -> None:
    words = ["compare", str(folds["t1ce"]), str(runs["fused"]), "--data", str(fused)]
    assert "compare runs with runs" in fails(words, capsys)
