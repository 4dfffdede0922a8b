"""Whole jobs of MambaDerm through the command line: train, evaluate, predict, explain, report, folds, resume."""

import json
from pathlib import Path

import h5py
import pandas as pd
import pytest

from scanfuse.cli import main
from scanfuse.data.synthetic import ham10000, isic2024
from scanfuse.verbs import training
from whole_jobs import Capture, fails, json_of, table_of

FLAGS = "--preset tiny --size 32 --batch 16 --threads 1 --device cpu --quiet".split()


@pytest.fixture(scope="module")
def moles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty patients in the ISIC 2024 layout."""
    return isic2024.write(tmp_path_factory.mktemp("moles") / "data", isic2024.Options(patients=40, size=32, seed=5))


@pytest.fixture(scope="module")
def run(moles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, evaluated; do not write into it."""
    out = tmp_path_factory.mktemp("runs") / "run"
    more = ["--keep-features", "12", "--drop-image", "0.1", "--drop-table", "0.1", "--select-by", "pauc"]
    command = ["train", "mambaderm", "--data", str(moles), "--out", str(out), *FLAGS, "--epochs", "2", *more]
    assert main(command) == 0
    assert main(["evaluate", str(out), "--data", str(moles), "--device", "cpu", "--quiet", "--pictures", "2"]) == 0
    return out


def test_what_the_run_stores(run: Path) -> None:
    stored = json_of(run / "fitted.json")["table"]
    assert len(stored["features"]) == 12 and len(stored["forest"]["importances"]) == 38
    assert stored["forest"]["kept"] == list(stored["forest"]["importances"])[:12]
    assert "iddx_1" in stored["left_out"] and (run / "fitted.safetensors").is_file()
    assert not list(run.rglob("*.pkl"))
    history = pd.read_csv(run / "history.csv")
    assert {"val_auroc", "val_pauc"} <= set(history)
    assert json_of(run / "run.json")["selected_by"] == "pauc"


def test_the_evaluation_has_the_area_above_a_sensitivity(run: Path) -> None:
    found = json_of(run / "evaluation/test/evaluation.json")
    cells = next(iter(found["cells"].values())) if "cells" in found else found
    assert "pauc" in json.dumps(found) and "auroc" in json.dumps(cells)
    assert (run / "report.html").read_text().count("pauc") > 0
    assert len(list((run / "evaluation/test/examples").glob("*.png"))) > 0


def test_the_retrieval_per_patient_is_that_of_the_predictions(run: Path) -> None:
    """Of the two lesions of each patient with the highest scores, by hand from the values per sample."""
    found = json_of(run / "evaluation/test/evaluation.json")
    rows = table_of(run / "evaluation/test/per_sample.csv")
    best = rows.sort_values("p_malignant", ascending=False).groupby("group").head(2)
    value = found["cells"][found["methods"][0]]["retrieval"]
    assert value["mean"] == pytest.approx(best["target"].sum() / rows["target"].sum())
    assert value["low"] <= value["mean"] <= value["high"]
    assert any("2 highest scores of their patient" in note for note in found["notes"])


def test_a_folder_a_case_and_parts_of_a_case_are_predicted(
    run: Path, moles: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert (
        main(
            [
                "predict",
                str(run),
                "--data",
                str(moles / "test-metadata.csv"),
                "--out",
                str(tmp_path / "all"),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    everyone = table_of(tmp_path / "all/predictions.csv").set_index("id")
    test = pd.read_csv(moles / "test-metadata.csv", dtype=str, keep_default_na=False)
    assert sorted(everyone.index) == sorted(test["isic_id"])
    row = test.iloc[0].to_dict()
    (tmp_path / "row.json").write_text(json.dumps(row))
    (tmp_path / "picture.jpg").write_bytes(_picture(moles / "test-image.hdf5", row["isic_id"]))
    command = ["predict", str(run), "--out", str(tmp_path / "one"), "--device", "cpu"]
    picture, table = ["--image", str(tmp_path / "picture.jpg")], ["--table", str(tmp_path / "row.json")]
    values = []
    for inputs in ([*picture, *table], picture, table):
        assert main([*command, *inputs]) == 0
        written = sorted((tmp_path / "one").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)[-1]
        values.append(json_of(written)["probabilities"]["malignant"])
    assert values[0] == pytest.approx(everyone.loc[row["isic_id"], "p_malignant"], abs=1e-5)
    assert len(set(values)) == 3
    (tmp_path / "bad.json").write_text('{"tbp_lv_normcolor": 50}')
    assert "did you mean 'tbp_lv_norm_color'" in fails([*command, "--table", str(tmp_path / "bad.json")], capsys)


def test_the_file_of_the_challenge(run: Path, moles: Path, tmp_path: Path, capsys: Capture) -> None:
    """Its two columns, every id of the test table in its order, the scores of predictions.csv."""
    command = ["predict", str(run), "--out", str(tmp_path / "all"), "--device", "cpu"]
    file = tmp_path / "submission.csv"
    assert main([*command, "--data", str(moles / "test-metadata.csv"), "--submission", str(file)]) == 0
    found = pd.read_csv(file, dtype={"isic_id": str})
    test = pd.read_csv(moles / "test-metadata.csv", dtype=str)
    assert list(found) == ["isic_id", "target"] and list(found["isic_id"]) == list(test["isic_id"])
    scores = table_of(tmp_path / "all/predictions.csv").set_index("id")["p_malignant"]
    assert list(found["target"]) == [scores[name] for name in found["isic_id"]]
    assert "needs --data" in fails([*command, "--table", "x.json", "--submission", str(file)], capsys)
    other = ham10000.write(tmp_path / "ham", ham10000.Options(patients=5, size=24))
    message = fails([*command, "--data", str(other), "--submission", str(file)], capsys)
    assert "is of no challenge" in message


def test_a_case_is_explained_by_maps_and_by_features(run: Path, moles: Path, tmp_path: Path) -> None:
    split = pd.read_csv(run / "split.csv", comment="#", dtype=str)
    name = split.loc[split["split"] == "test", "id"].iloc[0]
    assert (
        main(["explain", str(run), "--data", str(moles), "--id", name, "--out", str(tmp_path), "--device", "cpu"])
        == 0
    )
    found = json_of(tmp_path / name / "explanation.json")
    assert found["maps"] == {"image": ["fused", "view"]} and set(found["without_view"]) == {"image", "table"}
    assert 8 <= len(found["without_part"]["table"]) <= 12
    assert any(abs(value - found["probability"]) > 1e-6 for value in found["without_part"]["table"].values())


def test_folds_fit_their_own_tables(moles: Path, tmp_path: Path) -> None:
    out = tmp_path / "cv"
    command = ["train", "mambaderm", "--data", str(moles), "--out", str(out), *FLAGS, "--epochs", "1", "--folds", "3"]
    assert main(command) == 0
    stored = [(out / f"fold-{fold}/fitted.safetensors").read_bytes() for fold in range(3)]
    assert len(set(stored)) == 3
    assert main(["evaluate", str(out), "--data", str(moles), "--device", "cpu", "--quiet", "--on", "val"]) == 0
    test = [pd.read_csv(out / f"fold-{fold}/split.csv", comment="#", dtype=str) for fold in range(3)]
    groups = [{split: set(part["group"]) for split, part in table.groupby("split")} for table in test]
    assert all(not each["train"] & each["val"] for each in groups)


def test_a_killed_training_continues_to_the_same_bits(moles: Path, tmp_path: Path) -> None:
    flags = ["train", "mambaderm", "--data", str(moles), *FLAGS, "--drop-table", "0.2"]
    assert main([*flags, "--epochs", "2", "--out", str(tmp_path / "whole")]) == 0
    original = training.Training._save

    def save_and_stop(self: training.Training) -> None:
        original(self)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Training, "_save", save_and_stop)
        assert main([*flags, "--epochs", "2", "--out", str(tmp_path / "cut")]) == 130
    assert main(["train", "--resume", str(tmp_path / "cut"), "--quiet"]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def _picture(container: Path, name: str) -> bytes:
    with h5py.File(container) as file:
        return bytes(file[name][()].tobytes())
