"""Slices of volumes are taken only when they are asked for, in training, checks, evaluation and prediction."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from scanfuse.cli import main
from scanfuse.data.inputs.image_pairs import ImagePairs, PairSettings
from whole_jobs import Capture, fails, table_of

SHAPE = (20, 24, 4)
TINY = "--preset tiny --epochs 1 --batch 2 --threads 1 --device cpu --quiet".split()


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients with a CT and an MRI volume of four axial slices each."""
    root = tmp_path_factory.mktemp("volumes")
    random = np.random.default_rng(0)
    for modality in ("CT", "MRI"):
        (root / modality).mkdir()
        for number in range(4):
            values = (random.random(SHAPE) * 1000).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), root / modality / f"p{number}.nii.gz")
    return root


def volume(root: Path, modality: str, number: int) -> np.ndarray:
    return np.asarray(nibabel.load(root / modality / f"p{number}.nii.gz").dataobj)


def test_without_the_option_volumes_are_refused(volumes: Path, tmp_path: Path, capsys: Capture) -> None:
    command = ["train", "clinicalfmamba", "--data", str(volumes), "--out", str(tmp_path / "run"), *TINY]
    assert "--slice axial:middle" in fails(command, capsys)
    assert main(["data", "check", "clinicalfmamba", str(volumes)]) == 2
    assert "is a volume of 20 x 24 x 4" in capsys.readouterr().out
    assert main(["data", "check", "clinicalfmamba", str(volumes), "--slice", "axial:middle"]) == 0


def test_all_slices_are_samples_of_their_patient(volumes: Path) -> None:
    kind = ImagePairs(PairSettings(slice="axial:all"), seed=0)
    manifest = kind.open(volumes, split=False)
    assert list(manifest.table["id"][:5]) == [
        "p0_axial000",
        "p0_axial001",
        "p0_axial002",
        "p0_axial003",
        "p1_axial000",
    ]
    assert list(manifest.table["group"][:5]) == ["p0"] * 4 + ["p1"]
    data = kind.dataset(manifest, train=False)
    for index, (patient, number) in ((0, (0, 0)), (6, (1, 2))):
        found = data[index]["meta"]["images"]["mri"].pixels
        stored = volume(volumes, "MRI", patient)[:, :, number]
        assert sorted(found.ravel().tolist()) == sorted(stored.ravel().tolist())


def test_volumes_of_different_lengths_are_refused(volumes: Path, tmp_path: Path) -> None:
    for modality, count in (("CT", 3), ("MRI", 4)):
        (tmp_path / modality).mkdir()
        values = np.arange(8 * 8 * count, dtype=np.int16).reshape(8, 8, count)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / modality / "p.nii.gz")
    with pytest.raises(Exception, match=r"different numbers of axial slices \(ct 3, mri 4\)"):
        ImagePairs(PairSettings(slice="axial:all"), seed=0).open(tmp_path, split=False)


def test_a_run_takes_the_slices_it_is_told_to(volumes: Path, tmp_path: Path, capsys: Capture) -> None:
    run = str(tmp_path / "run")
    command = ["train", "clinicalfmamba", "--data", str(volumes), "--out", run, *TINY, "--slice", "axial:all"]
    assert main(command) == 0
    assert len(table_of(tmp_path / "run" / "split.csv")) == 16
    assert main(["evaluate", run, "--data", str(volumes), "--quiet"]) == 0
    inputs = ["--ct", str(volumes / "CT/p0.nii.gz"), "--mri", str(volumes / "MRI/p0.nii.gz")]
    assert "name one" in fails(["predict", run, *inputs, "--out", str(tmp_path / "one")], capsys)
    assert main(["predict", run, *inputs, "--slice", "axial:2", "--out", str(tmp_path / "one")]) == 0
    assert main(["predict", run, "--data", str(volumes), "--out", str(tmp_path / "all")]) == 0
    assert len(table_of(tmp_path / "all/predictions.csv")) == 16
    assert "axial:9" in fails(["predict", run, *inputs, "--slice", "axial:9", "--out", str(tmp_path / "x")], capsys)
    assert "names no slice" in fails(
        ["predict", run, *inputs, "--slice", "top", "--out", str(tmp_path / "x")], capsys
    )
