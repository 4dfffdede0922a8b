"""Adapters: every accepted layout, every way a folder can be wrong, and the real counts."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from opening import open_pairs
from scanfuse.data.readers import read_image, write_image
from scanfuse.errors import UserError

PIXELS = np.arange(16, dtype=np.uint8).reshape(4, 4)


def fill(folder: Path, names: list[str], suffix: str = ".png") -> None:
    for name in names:
        write_image(folder / f"{name}{suffix}", PIXELS)


def message(*arguments: object, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        open_pairs(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


NAMES = ["2004", "2005", "16003", "16004", "20005", "28011"]


# --- Harvard ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["CT-MRI", "ct-mri", "MRI-CT", "."])
@pytest.mark.parametrize("pair", [("CT", "MRI"), ("mri", "ct")])
def test_harvard_places(tmp_path: Path, below: str, pair: tuple[str, str]) -> None:
    for folder in ("CT", "MRI"):
        fill(tmp_path / "flat" / below / folder, NAMES)
        fill(tmp_path / "parts" / below / "train" / folder, NAMES[1:])
        fill(tmp_path / "parts" / below / "test" / folder, NAMES[:1])
    flat, parts = (open_pairs(tmp_path / kind, pair, layout="harvard") for kind in ("flat", "parts"))
    assert flat.modalities == parts.modalities == tuple(name.lower() for name in pair)
    assert list(flat.table["id"]) == list(parts.table["id"]) == NAMES  # by case and slice, train and test pooled
    assert list(parts.table["group"]) == ["2", "2", "16", "16", "20", "28"]
    assert list(parts.table["split"]) == list(flat.table["split"])
    assert list(parts.table["published"]) == ["test"] + ["train"] * 5
    assert set(flat.table["published"]) == {""}
    for row in parts.rows:
        assert row.paths["ct"].parent.name == "CT" and row.paths["mri"].parent.name == "MRI"


def test_harvard_published_split_is_labelled(tmp_path: Path) -> None:
    for folder in ("CT", "MRI"):
        fill(tmp_path / "train" / folder, NAMES[1:])
        fill(tmp_path / "test" / folder, NAMES[:1])
    manifest = open_pairs(tmp_path, ("CT", "MRI"), split="published")
    assert manifest.notes == ("leaky: 1 of 4 cases are in more than one published split",)
    assert list(manifest.subset("test").table["id"]) == ["2004"]
    train, val = (set(manifest.subset(name).table["group"]) for name in ("train", "val"))
    assert train and val and not train & val
    shutil.rmtree(tmp_path / "test")
    assert message(tmp_path, ("CT", "MRI"), split="published") == (
        f"{tmp_path} has no train and test folders, so no published split; use the split by case."
    )


def test_harvard_unpaired_names(tmp_path: Path) -> None:
    fill(tmp_path / "CT", NAMES)
    fill(tmp_path / "MRI", [*NAMES[1:4], "99001"])
    assert message(tmp_path, ("CT", "MRI")) == (
        f"4 of 7 names in {tmp_path}/CT and {tmp_path}/MRI are unpaired: 20005 (no MRI), 2004 (no MRI), "
        "28011 (no MRI), ...; add the missing files or remove these."
    )
    allowed = open_pairs(tmp_path, ("CT", "MRI"), incomplete="keep", split="none")
    assert list(allowed.table["ct"] == "") == [name == "99001" for name in allowed.table["id"]]


def test_harvard_names_and_folders_that_do_not_fit(tmp_path: Path) -> None:
    for folder in ("CT", "MRI"):
        fill(tmp_path / "a" / folder, [*NAMES, "scan-a"])
        fill(tmp_path / "b" / "train" / folder, NAMES)
    fill(tmp_path / "b" / "test" / "CT", ["30001"])
    assert "The name 'scan-a' does not fit the group pattern" in message(tmp_path / "a", ("CT", "MRI"))
    assert message(tmp_path / "b", ("CT", "MRI")) == (f"{tmp_path}/b has a test folder without CT and MRI; add them.")
    fill(tmp_path / "b" / "test" / "MRI", ["30001", "2004"])
    fill(tmp_path / "b" / "test" / "CT", ["2004"])
    assert message(tmp_path / "b", ("CT", "MRI")) == (
        f"{tmp_path}/b holds 2004 in train and in test; remove one of them."
    )


# --- what is not there --------------------------------------------------------------------------------------------


def test_missing_folder_and_unknown_contents(tmp_path: Path) -> None:
    assert message(tmp_path / "no", ("CT", "MRI")) == (
        f"{tmp_path}/no does not exist; give the folder of the data set or make one with scanfuse data synth."
    )
    fill(tmp_path / "MRI", NAMES)
    assert message(tmp_path, ("CT", "MRI")) == (
        f"No data set of CT and MRI in {tmp_path} (it holds MRI/); "
        "expected a manifest.csv or the folders CT/ and MRI/."
    )
    (tmp_path / "list.txt").write_text("no data")
    assert message(tmp_path / "list.txt", ("CT", "MRI")).startswith(
        f"No data set of CT and MRI in {tmp_path}/list.txt (a file); expected"
    )
    (tmp_path / "list.txt").unlink()
    (tmp_path / "CT").mkdir()
    (tmp_path / "CT" / "notes.txt").write_text("no picture")
    assert message(tmp_path, ("CT", "MRI")).startswith(f"{tmp_path}/CT holds no picture; ScanFuse reads .png, .jpg")
    assert message(tmp_path, ("CT", "ct")) == "Name different modalities, such as CT,MRI; got CT, ct."
    assert message(tmp_path, ("CT",)).startswith(f"{tmp_path}/CT holds no picture")
    assert "is not in the layout 'manifest'" in message(tmp_path, ("CT", "MRI"), layout="manifest")


# --- paired folders -----------------------------------------------------------------------------------------------


def test_paired_folders_of_other_formats(tmp_path: Path) -> None:
    names = [f"p{patient:02d}_s{index}" for patient in range(4) for index in range(3)]
    fill(tmp_path / "VIS", names)
    fill(tmp_path / "ir", names, ".tif")
    (tmp_path / "VIS" / ".hidden.png").write_bytes(b"")
    manifest = open_pairs(tmp_path, ("vis", "IR"))
    assert manifest.modalities == ("vis", "ir") and len(manifest) == 12
    assert list(manifest.table["group"]) == names
    grouped = open_pairs(tmp_path, ("vis", "IR"), group_pattern=r"^(p\d+)_")
    assert set(grouped.table["group"]) == {"p00", "p01", "p02", "p03"}
    assert grouped.table.groupby("group")["split"].nunique().max() == 1
    assert "does not fit the group pattern" in message(tmp_path, ("vis", "ir"), group_pattern=r"^q(\d)")
    assert "is not a regular expression" in message(tmp_path, ("vis", "ir"), group_pattern="(")
    fill(tmp_path / "VIS", ["p00_s0"], ".tif")
    assert message(tmp_path, ("vis", "ir")) == (f"{tmp_path}/VIS holds p00_s0.png and p00_s0.tif; keep one of them.")


# --- a user's manifest --------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for folder in ("a", "b"):
        fill(tmp_path / folder, [str(index) for index in range(8)])
    lines = ["id,group,split,CT,mri,age"]
    for index in range(8):
        split = "train" if index < 6 else "test"
        lines.append(f"{index}, g{index // 2}, {split}, a/{index}.png, b/{index}.png, {index}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_manifest_keeps_its_split_and_gets_a_val(own: Path) -> None:
    for root in (own, own / "manifest.csv"):
        manifest = open_pairs(root, ("MRI", "CT"))
        assert manifest.modalities == ("mri", "ct")
        assert manifest.describe() == "train 4 of 2 groups, val 2 of 1 group, test 2 of 1 group"
        assert manifest.notes == ("val was cut from the given train rows by group",)
        assert list(manifest.subset("test").table["id"]) == ["6", "7"]
        assert list(manifest.table)[:6] == ["id", "group", "split", "target", "mri", "ct"]
        assert read_image(next(iter(manifest.rows)).paths["ct"]).size == (4, 4)


def edit(own: Path, old: str, new: str, count: int = -1) -> None:
    text = (own / "manifest.csv").read_text()
    assert old in text
    (own / "manifest.csv").write_text(text.replace(old, new, count))


def test_manifest_names_the_nearest_column(own: Path) -> None:
    edit(own, "group", "groups")
    assert message(own, ("CT", "MRI")) == (
        f"{own}/manifest.csv has no column 'group' (it has id, groups, split, ct, mri, age); "
        "rename 'groups' to 'group'?"
    )
    edit(own, "groups", "group")
    assert "has no column 'spect' (it has id, group, split, CT, mri, age); add it." in message(own, ("SPECT", "MRI"))


def test_manifest_with_bad_cells(own: Path) -> None:
    edit(own, "a/3.png", "a/33.png")
    assert message(own, ("CT", "MRI")) == (
        f"{own}/manifest.csv names a/33.png for id '3', which does not exist; paths start at the csv file."
    )
    edit(own, "a/33.png", "")
    assert message(own, ("CT", "MRI")) == f"{own}/manifest.csv has no ct path for id '3'; fill it or remove the row."
    assert list(open_pairs(own, ("CT", "MRI"), incomplete="keep").table["ct"] == "").count(True) == 1
    edit(own, "g2, train", "g2, ", 1)
    assert "has no split in 1 of 8 rows; fill all of them or none." in message(own, ("CT", "MRI"), incomplete="keep")


def test_manifest_group_in_two_splits(own: Path) -> None:
    edit(own, "g3, test", "g3, train", 1)
    assert message(own, ("CT", "MRI")).startswith(
        "The group 'g3' is in train and test: the scores would be too good."
    )
    published = open_pairs(own, ("CT", "MRI"), split="published")
    assert published.notes[0] == "leaky: 1 of 4 groups are in more than one given split"
    assert set(open_pairs(own, ("CT", "MRI"), split="none").table["split"]) == {""}


# --- real ---------------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(("pair", "count", "cases"), [(("CT", "MRI"), 106, 6), (("SPECT", "MRI"), 212, 11)])
def test_real_harvard(real_data: Path, pair: tuple[str, str], count: int, cases: int) -> None:
    manifest = open_pairs(real_data / "harvard", pair)
    assert len(manifest) == count and manifest.table["group"].nunique() == cases
    assert not manifest.is_leaky and set(manifest.table["split"]) == {"train", "val", "test"}
    for row in manifest.rows:
        images = {name: read_image(path, grey_if_equal=False) for name, path in row.paths.items()}
        assert {image.size for image in images.values()} == {(256, 256)}
        assert images["mri"].channels == 1 and images[pair[0].lower()].channels == (1 if pair[0] == "CT" else 3)
    published = open_pairs(real_data / "harvard", pair, split="published")
    assert published.is_leaky and len(published.subset("test")) == {106: 14, 212: 18}[count]
