"""Whole jobs on volumes: train, evaluate, compare, predict and report through the command line, on phantoms."""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import PIL.Image
import pytest

import scanfuse
from scanfuse.cli import main
from scanfuse.data.synthetic import brats
from scanfuse.errors import UserError
from whole_jobs import Capture, fails, json_of, table_of

SMALL = "--preset tiny --patch 12 --patches 2 --epochs 1 --threads 1 --device cpu --quiet".split()


@pytest.fixture(scope="module")
def run(brains: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "volumes"
    assert main(["train", "clinicalfmamba3d", "--data", str(brains), "--out", str(out), *SMALL]) == 0
    return out


def files_of(brains: Path, number: int = 1) -> dict[str, Path]:
    name = f"BraTS20_Training_{number:03d}"
    return {kind: brains / name / f"{name}_{kind}.nii.gz" for kind in ("t1ce", "flair")}


def test_evaluation_scores_whole_volumes_beside_plain_methods(run: Path, brains: Path) -> None:
    assert main(["evaluate", str(run), "--data", str(brains), "--quiet", "--pictures", "2"]) == 0
    folder = run / "evaluation" / "test"
    table = table_of(folder / "per_sample.csv")
    assert set(table["method"]) == {"volumes", "average", "maximum", "laplacian"}
    split = pd.read_csv(run / "split.csv", comment="#")
    assert set(table["id"]) == set(split.loc[split["split"] == "test", "id"])
    assert table["psnr"].notna().all() and table["qabf"].notna().all()
    assert any("of the volume" in note for note in json_of(folder / "evaluation.json")["notes"])
    with PIL.Image.open(folder / "gallery.png") as gallery:
        assert gallery.width > 300
    report = (run / "report.html").read_text()
    assert "of the volume" in report and "data:image/png" in report


def test_prediction_of_a_folder_writes_volumes_that_open_again(run: Path, brains: Path, tmp_path: Path) -> None:
    assert main(["predict", str(run), "--data", str(brains), "--out", str(tmp_path)]) == 0
    table = table_of(tmp_path / "predictions.csv")
    assert len(table) == 8 and table["error"].isna().all()
    for id, file in zip(table["id"], table["file"], strict=True):
        fused = nibabel.load(tmp_path / file)
        source = nibabel.load(brains / id / f"{id}_t1ce.nii.gz")
        np.testing.assert_array_equal(fused.affine, source.affine)
        assert fused.shape == source.shape and fused.get_data_dtype() == source.get_data_dtype()
        assert np.asarray(fused.dataobj).any()


def test_one_pair_of_files_equals_the_library(run: Path, brains: Path, tmp_path: Path) -> None:
    files = files_of(brains)
    words = ["predict", str(run), "--t1ce", str(files["t1ce"]), "--flair", str(files["flair"]), "--out"]
    assert main([*words, str(tmp_path)]) == 0
    (written,) = tmp_path.glob("*.nii.gz")
    result = scanfuse.load(run, device="cpu").predict(**files)
    np.testing.assert_array_equal(np.asarray(nibabel.load(written).dataobj), result.voxels.transpose(2, 1, 0))
    # A volume in another orientation is the same patient.
    turned = {}
    for kind, path in files.items():
        turned[kind] = tmp_path / f"{kind}-ras.nii.gz"
        nibabel.save(nibabel.as_closest_canonical(nibabel.load(path)), turned[kind])
    again = scanfuse.load(run, device="cpu").predict(**turned)
    np.testing.assert_array_equal(again.voxels, result.voxels)
    assert again.reference.frame.orientation == "RAS" and result.reference.frame.orientation == "LPS"


def test_the_window_can_be_changed_when_a_run_is_applied_and_the_network_cannot(
    run: Path, brains: Path, tmp_path: Path, capsys: Capture
) -> None:
    files = files_of(brains)
    words = [
        "predict",
        str(run),
        "--t1ce",
        str(files["t1ce"]),
        "--flair",
        str(files["flair"]),
        "--out",
        str(tmp_path),
    ]
    assert main([*words, "--window", "12", "--overlap", "0.5"]) == 0
    (written,) = tmp_path.glob("*.nii.gz")
    small = scanfuse.load(run, device="cpu", adjusted={"window": "12", "overlap": "0.5"})
    assert small.system.config.prediction.window == 12
    found = small.predict(**files).voxels
    np.testing.assert_array_equal(np.asarray(nibabel.load(written).dataobj), found.transpose(2, 1, 0))
    assert not np.array_equal(found, scanfuse.load(run, device="cpu").predict(**files).voxels)
    assert "window" in fails([*words, "--window", "-3"], capsys)
    assert "--routes" in fails([*words, "--routes", "axial"], capsys)
    with pytest.raises(UserError, match=r"--routes was settled by the training; .* window"):
        scanfuse.load(run, adjusted={"routes": "axial"})


def test_an_evaluation_by_other_windows_says_so(run: Path, brains: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["evaluate", str(run), "--data", str(brains), "--quiet", "--pictures", "0", "--out"]
    assert main([*words, str(tmp_path / "own")]) == 0
    assert main([*words, str(tmp_path / "small"), "--window", "12", "--overlap=0.5"]) == 0
    own, small = (table_of(tmp_path / name / "per_sample.csv").set_index("method") for name in ("own", "small"))
    assert (own.loc["average", "psnr"] == small.loc["average", "psnr"]).all()
    assert (own.loc["volumes", "psnr"] != small.loc["volumes", "psnr"]).all()
    notes = json_of(tmp_path / "small" / "evaluation.json")["notes"]
    assert "computed with window 12, overlap 0.5, not as the runs were trained" in notes
    assert not any("computed with" in note for note in json_of(tmp_path / "own" / "evaluation.json")["notes"])
    trained = scanfuse.load(run, device="cpu").system.config.prediction.window
    assert main([*words, str(tmp_path / "same"), "--window", str(trained)]) == 0
    assert not any("computed with" in note for note in json_of(tmp_path / "same" / "evaluation.json")["notes"])
    assert "No such option: --routes" in fails([*words, "x", "--routes", "axial"], capsys)
    assert "--window" in fails([*words, "x", "--windw", "12"], capsys)


def test_a_shifted_volume_is_refused_or_resampled_when_a_run_is_applied(
    run: Path, brains: Path, tmp_path: Path, capsys: Capture
) -> None:
    files = files_of(brains)
    image = nibabel.load(files["flair"])
    affine = image.affine.copy()
    affine[2, 3] += 20.0
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), tmp_path / "moved.nii.gz")
    words = ["predict", str(run), "--t1ce", str(files["t1ce"]), "--flair", str(tmp_path / "moved.nii.gz")]
    assert "up to 20 mm apart" in fails([*words, "--out", str(tmp_path)], capsys)
    assert main([*words, "--out", str(tmp_path / "out"), "--resample", "true"]) == 0
    (written,) = (tmp_path / "out").glob("*.nii.gz")
    np.testing.assert_array_equal(nibabel.load(written).affine, nibabel.load(files["t1ce"]).affine)


def test_a_damaged_volume_fails_alone(run: Path, tmp_path: Path) -> None:
    root = brats.write(tmp_path / "data", brats.Options(patients=3, size=24, seed=5))
    damaged = files_of(root, 2)["flair"]
    damaged.write_bytes(damaged.read_bytes()[:200])
    assert main(["predict", str(run), "--data", str(root), "--out", str(tmp_path / "out")]) == 2
    table = table_of(tmp_path / "out" / "predictions.csv").set_index("id")
    assert damaged.name in table.loc["BraTS20_Training_002", "error"]
    assert table["file"].notna().sum() == 2
    assert main(["data", "check", "clinicalfmamba3d", str(root)]) == 2


def test_users_mistakes_are_one_line(run: Path, brains: Path, tmp_path: Path, capsys: Capture) -> None:
    files, train = (
        files_of(brains),
        ["train", "clinicalfmamba3d", "--data", str(brains), "--out", str(tmp_path / "r")],
    )
    assert "--flair" in fails(["predict", str(run), "--t1ce", str(files["t1ce"]), "--flare", "x"], capsys)
    assert "missing" in fails(["predict", str(run), "--t1ce", str(files["t1ce"])], capsys)
    assert "--norm group" in fails([*train, "--batch", "1"], capsys)
    assert "T1CE and PET" in fails([*train, "--pair", "T1CE-PET"], capsys)
    picture = tmp_path / "a.png"
    PIL.Image.new("L", (8, 8)).save(picture)
    words = ["predict", str(run), "--t1ce", str(picture), "--flair", str(files["flair"])]
    assert ".nii or .nii.gz" in fails(words, capsys)


def test_the_demonstration_compares_three_planes_with_axial_slices(tmp_path: Path, capsys: Capture) -> None:
    assert main(["demo", "clinicalfmamba3d", "--quick", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "run" / "evaluation" / "test"
    methods = json_of(folder / "evaluation.json")["methods"]
    assert methods == ["clinicalfmamba3d", "axial (one route)", "average", "maximum", "laplacian"]
    assert json_of(folder / "comparison.json")["reference"] == "clinicalfmamba3d"
    assert "| axial (one route) | qabf |" in (folder / "comparison.md").read_text()
    routes = {name: scanfuse.load(tmp_path / name).system.config.model.routes for name in ("run", "run-axial")}
    assert routes == {"run": "triplane3", "run-axial": "axial"}
    assert "axial (one route) - clinicalfmamba3d" in capsys.readouterr().out
