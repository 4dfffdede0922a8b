"""Whole jobs of COPD through the command line: prepare, train, evaluate, predict, explain, report, folds."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scanfuse.cli import main
from scanfuse.data.inputs.perturbed import PERTURBATIONS
from scanfuse.data.synthetic import copd, exasens
from whole_jobs import Capture, fails, json_of, table_of

FLAGS = "--preset tiny --size 32 --slices 4 --batch 8 --threads 1 --device cpu --quiet".split()


@pytest.fixture(scope="module")
def run(chests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, evaluated with everything; do not write into it."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "copd", "--data", str(chests), "--out", str(out), *FLAGS, "--epochs", "1"]) == 0
    more = ["--pictures", "2", "--perturb", "--each-missing"]
    assert main(["evaluate", str(out), "--data", str(chests), "--device", "cpu", "--quiet", *more]) == 0
    return out


def test_the_split_is_seven_one_two(run: Path) -> None:
    split = pd.read_csv(run / "split.csv", comment="#", dtype=str)
    assert dict(split["split"].value_counts()) == {"train": 21, "test": 6, "val": 3}
    assert split["group"].is_unique


def test_tables_of_missing_inputs_and_of_perturbations(run: Path) -> None:
    parts = json_of(run / "evaluation/test/evaluation.json")["parts"]
    assert parts["with an input missing"]["methods"] == ["as it is", "without ct", "without table"]
    assert parts["perturbed"]["methods"] == ["as it is", *PERTURBATIONS]
    nll = {name: cells["nll"]["mean"] for name, cells in parts["perturbed"]["cells"].items()}
    changed = [name for name in PERTURBATIONS if nll[name] != nll["as it is"]]
    assert len(changed) == len(PERTURBATIONS)
    assert "noise 0.1" in (run / "report.html").read_text()


def test_a_patient_by_hand_equals_that_of_the_folder(
    run: Path, chests: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["predict", str(run), "--data", str(chests), "--out", str(tmp_path / "all"), "--device", "cpu"]) == 0
    everyone = table_of(tmp_path / "all/predictions.csv").set_index("id")
    assert len(everyone) == 30
    row = pd.read_csv(chests / "clinical.csv", dtype=str, keep_default_na=False).iloc[3].to_dict()
    name = row.pop("patient_id")
    (tmp_path / "row.json").write_text(json.dumps(row))
    command = ["predict", str(run), "--out", str(tmp_path / "one"), "--device", "cpu", "--explain"]
    ct, table = ["--ct", str(chests / f"ct/{name}.npz")], ["--table", str(tmp_path / "row.json")]
    assert main([*command, *ct, *table]) == 0
    said = capsys.readouterr().out
    assert "panel.png" in said and name in said
    value = json_of(tmp_path / f"one/{name}.json")["probabilities"]["COPD"]
    assert value == pytest.approx(everyone.loc[name, "p_COPD"], abs=1e-5)
    found = json_of(tmp_path / f"one/explanations/{name}/explanation.json")
    assert sum(found["gate"].values()) == pytest.approx(1, abs=1e-3)
    assert len(found["slices"]) == 4 and set(found["without_view"]) == {"ct", "table"}
    assert len(found["without_part"]["table"]) >= 8 and found["maps"] == {"ct": ["view"]}
    assert found["map_places"] == {"view": [1, 1]}
    overlay = np.asarray(Image.open(tmp_path / f"one/explanations/{name}/ct_view.png"))
    assert overlay.shape == (66, 100, 3)  # two rows of three tiles of 32 pixels, gaps of 2
    plain = ["predict", str(run), "--out", str(tmp_path / "part"), "--device", "cpu"]
    assert main([*plain, *ct]) == 0 and main([*plain, *table]) == 0
    assert "has no picture" in fails([*command, *table], capsys)
    assert "--explain is for one sample" in fails([*command, "--data", str(chests)], capsys)


def test_raw_series_are_prepared_once_and_predicted_as_they_are(run: Path, tmp_path: Path, capsys: Capture) -> None:
    options = copd.Options(patients=10, slices=14, size=64, form="dicom", seed=2)
    raw, out = copd.write(tmp_path / "raw", options), tmp_path / "out"
    (raw / "ct_raw/P00002/IM0003.dcm").write_bytes(b"nonsense")
    for patient in range(4, 11):
        folder = raw / f"ct_raw/P{patient:05d}"
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    command = ["data", "prepare", "copd", str(raw), str(out), "--size", "32", "--slices", "4"]
    assert main([*command, "--jobs", "1"]) == 2
    said = capsys.readouterr().out
    assert "P00002" in said and "Prepared 2 case(s)" in said and "1 failed" in said
    rows = pd.read_csv(out / "prepared.csv").set_index("file")
    assert rows.loc["ct/P00001.npz", "slices"] == 4 and "IM0003" in str(rows.loc["ct/P00002.npz", "error"])
    assert (out / "clinical.csv").read_bytes() == (raw / "clinical.csv").read_bytes()
    before = (out / "ct/P00001.npz").read_bytes()
    (out / "ct/P00001.npz").unlink()
    assert main([*command, "--jobs", "2"]) == 2 and "Prepared 1 case(s)" in capsys.readouterr().out
    assert (out / "ct/P00001.npz").read_bytes() == before
    assert "other settings" in fails([*command[:5], "--size", "64"], capsys)
    assert "takes its data as they are" in fails(["data", "prepare", "xfmamba", str(raw), str(out)], capsys)
    assert main(["data", "prepare", "copd", "--help"]) == 0 and "--slices" in capsys.readouterr().out
    # The raw series gives what its prepared file gives.
    values = []
    for ct in (raw / "ct_raw/P00001", out / "ct/P00001.npz"):
        folder = tmp_path / ct.suffix.strip(".") / "found"
        assert main(["predict", str(run), "--ct", str(ct), "--out", str(folder), "--device", "cpu"]) == 0
        values.append(json_of(folder / "P00001.json")["probabilities"]["COPD"])
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    # One patient as a clinic has it: a DICOM folder and a row of a table; montage, gate, and what each value does.
    table = pd.read_csv(raw / "clinical.csv", dtype=str, keep_default_na=False).drop(columns=["patient_id", "label"])
    table.iloc[:1].to_csv(tmp_path / "row.csv", index=False)
    given = ["--ct", str(raw / "ct_raw/P00001"), "--table", str(tmp_path / "row.csv"), "--explain"]
    assert main(["predict", str(run), *given, "--out", str(tmp_path / "both"), "--device", "cpu"]) == 0
    found = json_of(tmp_path / "both/explanations/P00001/explanation.json")
    assert set(found["gate"]) == {"ct", "table"} and len(found["slices"]) == 4 and found["without_part"]["table"]
    montage = np.asarray(Image.open(tmp_path / "both/explanations/P00001/ct_view.png"))
    assert montage.shape == (66, 100, 3)


def test_five_folds_keep_the_test_part(chests: Path, tmp_path: Path) -> None:
    out = tmp_path / "cv"
    flags = [*FLAGS, "--epochs", "1", "--folds", "3", "--fusion", "table", "--lr", "1e-4"]
    assert main(["train", "copd", "--data", str(chests), "--out", str(out), *flags]) == 0
    splits = [pd.read_csv(out / f"fold-{fold}/split.csv", comment="#", dtype=str) for fold in range(3)]
    tests = [frozenset(each.loc[each["split"] == "test", "id"]) for each in splits]
    assert len(set(tests)) == 1 and len(tests[0]) == 6
    assert len({(out / f"fold-{fold}/fitted.safetensors").read_bytes() for fold in range(3)}) == 3
    command = ["evaluate", str(out), "--data", str(chests), "--device", "cpu", "--quiet"]
    assert main([*command, "--ensemble"]) == 0


def test_a_table_alone(tmp_path: Path, capsys: Capture) -> None:
    root = exasens.write(tmp_path / "people", exasens.Options(patients=120))
    command = ["train", "copd", "--data", str(root), *FLAGS, "--epochs", "1"]
    assert "--fusion table" in fails([*command, "--out", str(tmp_path / "no")], capsys)
    assert not (tmp_path / "no").exists()
    flags = ["--fusion", "table", "--options", "test_share=0", "--folds", "3"]
    assert main([*command, "--out", str(tmp_path / "cv"), *flags]) == 0
    assert main(["evaluate", str(tmp_path / "cv"), "--data", str(root), "--device", "cpu", "--quiet"]) == 0
    table = (tmp_path / "cv/evaluation/out-of-fold-test/table.md").read_text()
    assert "72 test studies" in table  # COPD and healthy; the others are left out


def test_data_that_do_not_fit_are_one_line(chests: Path, tmp_path: Path, capsys: Capture) -> None:
    def made(name: str) -> Path:
        root = tmp_path / name
        root.mkdir()
        (root / "ct").symlink_to(chests / "ct")
        (root / "clinical.csv").write_bytes((chests / "clinical.csv").read_bytes())
        return root

    def refused(root: Path, *options: str) -> str:
        out = tmp_path / f"{root.name}-run"
        line = fails(["train", "copd", "--data", str(root), "--out", str(out), *FLAGS, *options], capsys)
        assert not out.exists()
        return line

    root = made("splits")
    names = list(pd.read_csv(root / "clinical.csv")["patient_id"])
    (root / "splits").mkdir()
    for split, part in (("train", names[:18]), ("val", names[18:24]), ("test", names[23:29])):
        (root / f"splits/{split}.txt").write_text("\n".join(part) + "\n")
    assert "who is in val.txt too" in refused(root)
    (root / "splits/test.txt").write_text("\n".join(names[24:29]) + "\n")
    assert main(["train", "copd", "--data", str(root), "--out", str(tmp_path / "ok"), *FLAGS, "--epochs", "1"]) == 0
    split = pd.read_csv(tmp_path / "ok/split.csv", comment="#", dtype=str).set_index("id")["split"]
    assert len(split) == 29 and list(split[names[24:29]]) == ["test"] * 5
    (root / "splits/val.txt").unlink()
    assert "lacks val.txt" in refused(root)
    (root / "splits/val.txt").write_text("Nobody\n")
    assert "names 'Nobody', who is not in clinical.csv" in refused(root)

    root = made("gone")
    (root / "ct").unlink()
    assert "30 of 30 cases have no CT" in refused(root)
    assert "would give the target away" in refused(made("leak"), "--columns", "age,FEV1")
    assert "has no label 'copd'" in refused(made("label"), "--options", "positive=copd")
    root = made("windows")
    (root / "ct").unlink()
    assert "emphysema window is lost" in refused(_windowed(root, chests))


def _windowed(root: Path, chests: Path) -> Path:
    """The same patients as 8-bit pictures."""
    for file in (chests / "ct").iterdir():
        (root / "ct" / file.stem).mkdir(parents=True)
        with np.load(file) as content:
            pixels = np.clip((content["ct"] + 1350.0) / 1500 * 255, 0, 255).astype(np.uint8)
        for number, each in enumerate(pixels):
            Image.fromarray(each).save(root / "ct" / file.stem / f"slice_{number}.png")
    return root


def test_folders_of_pictures_train_and_are_known_again(chests: Path, tmp_path: Path) -> None:
    """Their fingerprint is that of all files, so that a test part is found in a folder that was moved."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "clinical.csv").write_bytes((chests / "clinical.csv").read_bytes())
    _windowed(root, chests)
    flags = [*FLAGS, "--epochs", "1", "--emphysema-window", "false"]
    assert main(["train", "copd", "--data", str(root), "--out", str(tmp_path / "run"), *flags]) == 0
    moved = root.rename(tmp_path / "moved")
    command = ["evaluate", str(tmp_path / "run"), "--data", str(moved), "--device", "cpu", "--quiet"]
    assert main(command) == 0
    assert (tmp_path / "run/evaluation/test/table.md").read_text().startswith("6 test studies")
