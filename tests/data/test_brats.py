"""The BraTS names of four years, what may be missing, and the phantoms: what grade shows where."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from scanfuse.data.layouts import Request, open_manifest
from scanfuse.data.manifest import Manifest
from scanfuse.data.synthetic import brats
from scanfuse.errors import UserError

YEARS = ("2019", "2020", "2021", "2023")


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        year: brats.write(tmp_path_factory.mktemp(year) / "data", brats.Options(patients=4, size=16, year=year))
        for year in YEARS
    }


def opened(root: Path, *pair: str, **wishes: object) -> Manifest:
    return open_manifest(root, "volumes", Request(pair or ("T1CE", "FLAIR"), **{"split": "none", **wishes}))


@pytest.mark.parametrize("year", YEARS)
def test_every_year_is_read_by_its_names(year: str, years: dict[str, Path]) -> None:
    manifest = opened(years[year])
    names = {"2019": "BraTS19_Made_2_1", "2020": "BraTS20_Training_002", "2021": "BraTS2021_00002"}
    name = names.get(year, "BraTS-GLI-00002-000")
    row = manifest.table.set_index("id").loc[name]
    assert len(manifest) == 4
    expected = ("t1c.nii.gz", "t2f.nii.gz") if year == "2023" else ("t1ce.nii.gz", "flair.nii.gz")
    for modality, end in zip(("t1ce", "flair"), expected, strict=True):
        assert Path(row[modality]).is_file() and row[modality].endswith(end)
    assert Path(row["seg"]).is_file()
    assert row["group"] == name.removesuffix("-000")
    grades = ["HGG", "HGG", "LGG", "LGG"] if year in ("2019", "2020") else [""] * 4
    assert sorted(manifest.table["target"]) == grades


def test_the_two_ways_to_tell_a_grade_agree(years: dict[str, Path]) -> None:
    by_folder, by_table = (opened(years[year]).table.set_index("id")["target"] for year in ("2019", "2020"))
    assert [by_folder[f"BraTS19_Made_{n}_1"] for n in range(1, 5)] == [
        by_table[f"BraTS20_Training_{n:03d}"] for n in range(1, 5)
    ]


def test_names_of_other_years_ask_for_the_same_volume(years: dict[str, Path]) -> None:
    old, new = opened(years["2023"], "T1CE", "T2"), opened(years["2023"], "T1C", "T2W")
    assert list(old.table["t1ce"]) == list(new.table["t1c"]) and list(old.table["t2"]) == list(new.table["t2w"])


def test_the_segmentation_of_another_name_is_found_and_one_that_is_missing_is_no_error(tmp_path: Path) -> None:
    root = brats.write(tmp_path / "data", brats.Options(patients=3, size=16))
    table = opened(root).table.set_index("id")
    assert table.loc["BraTS20_Training_003", "seg"].endswith("W39_1998.09.19_Segm.nii.gz")
    Path(table.loc["BraTS20_Training_001", "seg"]).unlink()
    assert opened(root).table.set_index("id").loc["BraTS20_Training_001", "seg"] == ""


def test_what_is_missing_or_there_twice_is_named(tmp_path: Path) -> None:
    root = brats.write(tmp_path / "data", brats.Options(patients=3, size=16))
    folder = root / "BraTS20_Training_002"
    twin = folder / "BraTS20_Training_002_t1gd.nii.gz"
    twin.write_bytes((folder / "BraTS20_Training_002_t1ce.nii.gz").read_bytes())
    with pytest.raises(UserError, match="keep one of them"):
        opened(root)
    twin.unlink()
    (folder / "BraTS20_Training_002_flair.nii.gz").unlink()
    with pytest.raises(UserError, match=r"1 of 3 scans in .* lack a volume: BraTS20_Training_002 \(no FLAIR\)"):
        opened(root)
    assert len(opened(root, incomplete="drop")) == 2
    kept = opened(root, incomplete="keep").table.set_index("id")
    assert kept.loc["BraTS20_Training_002", "flair"] == ""
    with pytest.raises(UserError, match="no published split"):
        opened(root, split="published")
    (root / "name_mapping.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no columns Grade and BraTS_2020_subject_ID"):
        opened(root, incomplete="drop")


def test_timepoints_of_a_patient_are_one_group(tmp_path: Path) -> None:
    root = brats.write(tmp_path / "data", brats.Options(patients=2, size=16, year="2023"))
    first, again = root / "BraTS-GLI-00001-000", root / "BraTS-GLI-00001-001"
    again.mkdir()
    for path in first.iterdir():
        (again / path.name.replace("-000-", "-001-")).write_bytes(path.read_bytes())
    assert sorted(opened(root).table["group"]) == ["BraTS-GLI-00001"] * 2 + ["BraTS-GLI-00002"]


def test_one_scan_alone_can_be_predicted(years: dict[str, Path]) -> None:
    manifest = opened(years["2021"] / "BraTS2021_00001")
    assert list(manifest.table["id"]) == ["BraTS2021_00001"]


def test_a_phantom_has_a_brain_in_zeros_a_tumour_with_labels_and_the_published_affine(years: dict[str, Path]) -> None:
    row = opened(years["2020"]).table.iloc[0]
    image, labels = nibabel.load(row["t1ce"]), nibabel.load(row["seg"])
    assert image.shape == (16, 16, 11) and image.get_data_dtype() == np.int16
    assert labels.get_data_dtype() == np.uint8
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    np.testing.assert_allclose(np.abs(np.diag(image.affine))[:3], 15.0)
    voxels = np.asarray(image.dataobj)
    assert 0.6 < (voxels == 0).mean() < 0.95 and not voxels[0].any()


def test_grade_shows_partly_in_one_and_partly_in_the_other() -> None:
    """Rim (label 4) brighter than white matter in T1CE alone; wide oedema (label 2) in FLAIR; low grade: neither."""
    rims, oedemas = {}, {}
    for number in range(1, 17):
        for high in (True, False):
            found = brats.render(number, high, size=40)
            brain = int((found["t1"] > 0).sum())
            rims[number, high] = bool((found["seg"] == 4).any())
            oedemas[number, high] = (found["seg"] == 2).sum() / brain > 0.02
            assert (found["seg"] > 0).sum() > 20
            if rims[number, high]:
                rim = found["seg"] == 4
                white = np.median(found["t1ce"][(found["t1ce"] > 0) & (found["seg"] == 0)])
                assert found["t1ce"][rim].mean() > 1.2 * white > found["t1"][rim].mean() * 0.5
    shown = [(rims[number, True], oedemas[number, True]) for number in range(1, 17)]
    assert not any(rims[number, False] or oedemas[number, False] for number in range(1, 17))
    assert all(rim or wide for rim, wide in shown)
    assert {(True, False), (False, True), (True, True)} == set(shown)
