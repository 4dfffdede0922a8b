"""CBIS-DDSM: the official counts, the join with the DICOM tree, pathology of a breast, and masks known by content."""

from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from opening import open_studies
from scanfuse.data.inputs.pairing import pairs_of, roles_of
from scanfuse.data.layouts import cbis_ddsm
from scanfuse.data.readers import read_image, to_unit
from scanfuse.data.synthetic import cbis_ddsm as phantom
from scanfuse.errors import UserError


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom.write(tmp_path_factory.mktemp("cbis"), phantom.Options(patients=45, size=64, seed=2))


@pytest.fixture
def copy(phantoms: Path, tmp_path: Path) -> Path:
    """The tables of the phantom to change, beside its pictures."""
    for path in phantoms.iterdir():
        if path.is_dir():
            (tmp_path / path.name).symlink_to(path)
        else:
            (tmp_path / path.name).write_text(path.read_text())
    return tmp_path


@pytest.mark.data
def test_the_official_tables_hold_the_known_breasts(real_data: Path) -> None:
    counts = {}
    for name in cbis_ddsm.EXPECTED:
        views = cbis_ddsm.read_table(real_data / "cbis-ddsm", *name.split()).groupby("breast")["view"].nunique()
        counts[name] = (len(views), int((views == 2).sum()))
    assert {name: both for name, (_, both) in counts.items()} == {
        "mass train": 509, "mass test": 151, "calc train": 565, "calc test": 123,
    }  # fmt: skip
    assert counts == cbis_ddsm.EXPECTED


@pytest.mark.data
def test_the_official_tables_as_manifests(real_data: Path) -> None:
    root = real_data / "cbis-ddsm"
    for kind, train, test in (("mass", 509, 151), ("calc", 565, 123)):
        manifest = open_studies(root, incomplete="drop", options={"abnormality": kind, "files": "ignore"})
        numbers = manifest.table["split"].value_counts()
        assert numbers["train"] + numbers["val"] == train and numbers["test"] == test
        assert numbers["val"] == pytest.approx(0.2 * train, rel=0.1)
    both = open_studies(root, options={"files": "ignore"})
    assert any("34 training breasts of 31 patients left out" in note for note in both.notes) and not both.is_leaky
    # Counted from the tables with a spreadsheet's rules: 369 breasts are in a test table, 2 of them in both.
    assert (both.table["split"] == "test").sum() == 210 + 161 - 2
    kept = open_studies(root, options={"files": "ignore", "shared_patients": "keep"})
    assert kept.is_leaky and len(kept) == len(both) + 34


def test_the_phantom_is_joined_through_metadata(phantoms: Path) -> None:
    manifest = open_studies(phantoms)
    truth = pd.read_csv(phantoms / "truth.csv", dtype=str)
    dropped = truth[(truth["breast"] == "P_00001-LEFT")].index
    truth = truth.drop(dropped).set_index("breast")
    assert set(manifest.table["id"]) == set(truth.index)
    for row in manifest.rows:
        assert row.target == truth.loc[row.id, "label"] and row.group == row.id.split("-")[0]
        assert (row.split == "test") == (truth.loc[row.id, "split"] == "test")
        patient, side = row.id.split("-")
        for view, path in row.paths.items():
            assert f"{patient}_{side}_{view.upper()}/" in str(path) and "full mammogram" in str(path)
        assert [(pair.a, pair.b) for pair in pairs_of(row, 0, roles_of(manifest))] == [
            ("cc" if "cc" in row.paths else None, "mlo" if "mlo" in row.paths else None)
        ]
    assert roles_of(manifest) == ("cc", "mlo") and any(len(row.paths) == 1 for row in manifest.rows)


def test_a_patient_of_both_kinds_leaves_training_or_makes_it_leaky(phantoms: Path) -> None:
    manifest = open_studies(phantoms)
    assert list(manifest.table.loc[manifest.table["group"] == "P_00001", "split"]) == ["test"]
    kept = open_studies(phantoms, options={"shared_patients": "keep"})
    assert kept.is_leaky and sorted(kept.table.loc[kept.table["group"] == "P_00001", "split"]) == ["test", "train"]
    assert not open_studies(phantoms, options={"abnormality": "mass"}).is_leaky


def test_one_malignant_abnormality_makes_the_breast_malignant(copy: Path) -> None:
    table = cbis_ddsm.read_table(copy, "mass", "train")
    kinds = table.groupby("breast")["pathology"].agg(set)
    mixed = kinds.index[kinds.map(lambda found: "MALIGNANT" in found and len(found) > 1)]
    frame = pd.read_csv(copy / "mass_case_description_train_set.csv", dtype=str, keep_default_na=False)
    frame["key"] = frame["patient_id"] + "-" + frame["left or right breast"]
    benign = frame.loc[frame["pathology"] == "BENIGN_WITHOUT_CALLBACK", "key"].iloc[0]
    # A breast with one more abnormality, malignant, listed last.
    extra = frame[frame["key"] == benign].iloc[[0]].assign(**{"abnormality id": "2", "pathology": "MALIGNANT"})
    pd.concat([frame, extra]).drop(columns="key").to_csv(copy / "mass_case_description_train_set.csv", index=False)
    before = {row.id: row.target for row in open_studies(copy, options={"abnormality": "mass"}).rows}
    assert before[benign] == "1" and all(before[name] == "1" for name in mixed)


def test_sixteen_bits_map_to_the_unit_range_by_the_largest_value(phantoms: Path) -> None:
    path = next(path for row in open_studies(phantoms).rows for path in row.paths.values())
    image = read_image(path)
    raw = pydicom.dcmread(path).pixel_array
    assert image.pixels.dtype == np.uint16 and raw.max() > 60000 and (image.pixels == raw).all()
    wanted = (raw.astype(float) - raw.min()) / (float(raw.max()) - float(raw.min()))
    np.testing.assert_allclose(to_unit(image), wanted, atol=1e-6)


def test_mask_and_crop_are_told_apart_whatever_the_table_says(phantoms: Path) -> None:
    orders = set()
    found = [*cbis_ddsm.regions(phantoms, "mass", "train"), *cbis_ddsm.regions(phantoms, "calc", "train")]
    for region in found:
        assert region.mask is not None and region.crop is not None
        mask, crop = read_image(region.mask).pixels, read_image(region.crop).pixels
        assert mask.shape == (64, 38) and set(np.unique(mask)) == {0, 255}
        rows, columns = np.nonzero(mask)
        assert crop.shape == (np.ptp(rows) + 1, np.ptp(columns) + 1) and crop.dtype == np.uint16
        orders.add((region.mask.name, region.crop.name))
    assert orders >= {("1-1.dcm", "1-2.dcm"), ("1-2.dcm", "1-1.dcm"), ("1-1.dcm", "1-1.dcm")}


def test_a_truncated_film_is_one_line_that_names_the_file(phantoms: Path, tmp_path: Path) -> None:
    path = next(path for row in open_studies(phantoms).rows for path in row.paths.values())
    for size in (400, path.stat().st_size - 500):
        cut = tmp_path / f"cut{size}.dcm"
        cut.write_bytes(path.read_bytes()[:size])
        with pytest.raises(UserError, match=f"cut{size}.dcm") as error:
            read_image(cut)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("mass_case_description_train_set.csv", "BENIGN", "PERHAPS", "pathology 'PERHAPS"),
        ("mass_case_description_train_set.csv", "image view", "view", "no column 'image view'"),
        ("calc_case_description_test_set.csv", ",MLO,", ",LM,", "image view 'LM'"),
        ("metadata.csv", "Series UID", "Series", "no column 'Series UID'"),
        ("metadata.csv", "full mammogram images-", "full-", "does not exist, though"),
    ],
)
def test_a_bad_table_is_one_clear_line(copy: Path, name: str, old: str, new: str, message: str) -> None:
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message) as error:
        open_studies(copy)
    assert "\n" not in str(error.value)


def test_missing_metadata_series_and_tables_are_named(copy: Path) -> None:
    lines = (copy / "metadata.csv").read_text().splitlines(keepends=True)
    (copy / "metadata.csv").write_text("".join(line for line in lines if "full mammogram" not in line))
    with pytest.raises(UserError, match="does not list the series"):
        open_studies(copy)
    (copy / "metadata.csv").unlink()
    with pytest.raises(UserError, match=r"has no metadata\.csv"):
        open_studies(copy)
    (copy / "calc_case_description_test_set.csv").unlink()
    with pytest.raises(UserError, match=r"calc_case_description_test_set\.csv does not exist"):
        open_studies(copy)


def test_a_download_folder_of_its_own_name_is_found(copy: Path) -> None:
    inner = copy / "manifest-1234567890"
    inner.mkdir()
    (copy / "metadata.csv").rename(inner / "metadata.csv")
    (copy / "CBIS-DDSM").rename(inner / "CBIS-DDSM")
    assert len(open_studies(copy)) > 30
