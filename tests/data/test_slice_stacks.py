"""Slices of cases as volumes: order, place and type by hand, what is refused, and a whole job on them."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from scanfuse.cli import main
from scanfuse.data import slice_stacks
from scanfuse.data.synthetic import harvard
from scanfuse.errors import UserError
from whole_jobs import Capture, fails, json_of, table_of

PREPARE = ["data", "prepare", "clinicalfmamba3d"]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of twelve slices, 32 x 32, in the Harvard layout: the slices of a case lie in train and in test."""
    root = tmp_path_factory.mktemp("atlas")
    harvard.write(root, harvard.Options(cases=6, slices=12, size=32))
    return root


@pytest.fixture(scope="module")
def stacks(atlas: Path) -> Path:
    out = atlas.parent / "stacks"
    assert main([*PREPARE, str(atlas), str(out), "--pair", "CT-MRI", "--jobs", "1"]) == 0
    return out


def write_slices(root: Path, names: list[str], *, colour: bool = False) -> Path:
    """Pictures of 5 x 4 in ct/ and mri/, the value of each the place of its name; row 0 of column 0 is brighter."""
    for place, name in enumerate(names):
        for modality in ("ct", "mri"):
            pixels = np.full((5, 4), 10 * place, np.uint8)
            pixels[0, 0] += 100
            (root / modality).mkdir(parents=True, exist_ok=True)
            shown = np.stack([pixels, 0 * pixels, 0 * pixels], axis=2) if colour and modality == "ct" else pixels
            Image.fromarray(shown).save(root / modality / f"{name}.png")
    return root


def test_slices_lie_in_the_order_of_their_numbers_with_the_spacing_that_is_said(tmp_path: Path) -> None:
    root = write_slices(tmp_path / "raw", ["p1_1", "p1_2", "p1_9", "p1_10", "p2_1", "p2_2"])
    cases = slice_stacks.slices_of_cases(root, ("ct", "mri"), r"^(p\d+)_")
    assert {case: [row.id for row in rows] for case, rows in cases.items()} == {
        "p1": ["p1_1", "p1_2", "p1_9", "p1_10"],
        "p2": ["p2_1", "p2_2"],
    }
    target = tmp_path / "ct" / "p1.nii.gz"
    said = slice_stacks.write_stack([row.paths["ct"] for row in cases["p1"]], target)
    assert said == {"slices": 4, "gaps": 1}
    image = nibabel.load(target)
    voxels = np.asarray(image.dataobj)
    assert voxels.shape == (4, 5, 4) and voxels.dtype == np.uint8
    np.testing.assert_array_equal(voxels[1, 1], [0, 10, 20, 30])
    np.testing.assert_array_equal(voxels[0, 0], [100, 110, 120, 130])
    np.testing.assert_array_equal(image.affine, np.diag([-1, -1, 5, 1]))
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")


def test_of_colour_the_luminance(tmp_path: Path) -> None:
    root = write_slices(tmp_path, ["1001", "1002", "1003"], colour=True)
    (rows,) = slice_stacks.slices_of_cases(root, ("ct", "mri")).values()
    found = slice_stacks.stack([row.paths["ct"] for row in rows])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[:, 0, 0], np.rint(0.299 * np.array([100, 110, 120])))


def test_what_cannot_be_stacked_is_refused(tmp_path: Path) -> None:
    alone = write_slices(tmp_path / "alone", ["a1", "b1"])
    with pytest.raises(UserError, match="a case of its own: give a --group-pattern"):
        slice_stacks.slices_of_cases(alone, ("ct", "mri"))
    with pytest.raises(UserError, match="only slice of its case"):
        slice_stacks.stack([alone / "ct" / "a1.png"])
    named = write_slices(tmp_path / "named", ["a_top", "a_low"])
    with pytest.raises(UserError, match="does not end with the number of a slice"):
        slice_stacks.slices_of_cases(named, ("ct", "mri"), "^(a)")
    mixed = write_slices(tmp_path / "mixed", ["1001", "1002"])
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(mixed / "ct" / "1002.png")
    with pytest.raises(UserError, match=r"5 x 4 of uint8 and .*1002.png 5 x 5 of uint8"):
        slice_stacks.stack([mixed / "ct" / "1001.png", mixed / "ct" / "1002.png"])


def test_the_atlas_becomes_one_volume_of_each_case_with_all_its_slices(atlas: Path, stacks: Path) -> None:
    table = table_of(stacks / "prepared.csv")
    assert len(table) == 12 and set(table["slices"]) == {12} and table["error"].isna().all()
    assert json_of(stacks / "prepared.json")["assumed_spacing_mm"] == [5.0, 1.0, 1.0]
    files = sorted(atlas.rglob("CT/*.png"), key=lambda path: int(path.stem))
    case = files[0].stem[:-3]
    own = [path for path in files if path.stem[:-3] == case]
    assert len(own) == 12
    voxels = np.asarray(nibabel.load(stacks / "ct" / f"{case}.nii.gz").dataobj)
    for place, path in enumerate(own):
        np.testing.assert_array_equal(voxels[..., place].T, np.asarray(Image.open(path)))
    assert main([*PREPARE, str(atlas), str(stacks), "--pair", "CT-MRI", "--jobs", "1"]) == 0  # nothing is left to do


def test_stacks_are_checked_trained_on_evaluated_and_fused(stacks: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["data", "check", "clinicalfmamba3d", str(stacks), "--pair", "CT-MRI"]) == 0
    assert "0 error(s)" in capsys.readouterr().out
    run = tmp_path / "run"
    small = "--preset detail --pair CT-MRI --patch 8 --patches 1 --epochs 1 --threads 1 --device cpu --quiet".split()
    assert main(["train", "clinicalfmamba3d", "--data", str(stacks), "--out", str(run), *small]) == 0
    assert main(["evaluate", str(run), "--data", str(stacks), "--quiet"]) == 0
    notes = json_of(run / "evaluation" / "test" / "evaluation.json")["notes"]
    assert any(note.startswith("phantoms") for note in notes)
    assert main(["predict", str(run), "--data", str(stacks), "--out", str(tmp_path / "fused")]) == 0
    table = table_of(tmp_path / "fused" / "predictions.csv")
    assert len(table) == 6 and table["error"].isna().all()
    fused = nibabel.load(tmp_path / "fused" / table["file"][0])
    source = nibabel.load(stacks / "ct" / table["file"][0])
    assert fused.shape == source.shape == (32, 32, 12) and fused.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(fused.affine, source.affine)


def test_slices_in_place_of_volumes_are_told_what_makes_them_volumes(
    atlas: Path, tmp_path: Path, capsys: Capture
) -> None:
    said = fails(
        ["train", "clinicalfmamba3d", "--data", str(atlas), "--pair", "CT-MRI", "--out", str(tmp_path / "run")],
        capsys,
    )
    assert "No data set of CT and MRI" in said and "It looks like 'harvard'" in said
    assert said.endswith(
        f"Make volumes of the slices: scanfuse data prepare clinicalfmamba3d {atlas} DIR --pair CT-MRI"
    )
    (tmp_path / "ct").mkdir()
    said = fails(
        ["train", "clinicalfmamba3d", "--data", str(tmp_path), "--pair", "CT-MRI", "--out", str(tmp_path / "r")],
        capsys,
    )
    assert "prepare" not in said


def test_other_data_are_refused_in_a_line(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    assert "No data set of CT and MRI" in fails(
        [*PREPARE, str(tmp_path / "empty"), str(tmp_path / "out"), "--pair", "CT-MRI"], capsys
    )
    assert not (tmp_path / "out").exists()
