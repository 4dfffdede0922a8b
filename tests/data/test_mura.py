"""MURA's header-less tables: what becomes of each kind of line, and who ends up where."""

from pathlib import Path

import pytest

from opening import open_studies
from scanfuse.data.layouts import mura
from scanfuse.data.manifest import Manifest
from scanfuse.data.synthetic import mura as phantom
from scanfuse.errors import UserError


def make(root: Path, lines: dict[str, str], images: dict[str, list[str]] | None = None, listed: bool = True) -> Path:
    """A small MURA of empty image files: `lines` are the csv files of studies, `images` the names in each folder."""
    home = root / "MURA-v1.1"
    for published, text in lines.items():
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{published}_labeled_studies.csv").write_text(text)
        paths = []
        for line in text.splitlines():
            if "patient" not in line:
                continue
            folder = line.split(",")[0].rstrip("/")
            for name in (images or {}).get(folder.split("/", 1)[1], ["image1.png", "image2.png"]):
                (root / folder).mkdir(parents=True, exist_ok=True)
                (root / folder / name).touch()
                paths.append(f"{folder}/{name}")
        if listed:
            (home / f"{published}_image_paths.csv").write_text("\n".join(paths) + "\n")
    return root


def line(patient: int, label: int, *, part: str = "WRIST", study: int = 1, published: str = "train") -> str:
    name = "positive" if label else "negative"
    return f"MURA-v1.1/{published}/XR_{part}/patient{patient:05d}/study{study}_{name}/,{label}"


TRAIN = "\n".join(line(number, number % 2) for number in range(1, 11)) + "\n"
VALID = "\n".join(line(number, number % 2, published="valid") for number in range(11, 14)) + "\n"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom.write(tmp_path_factory.mktemp("mura"), phantom.Options(patients=60, size=32, seed=3))


def test_the_phantom_is_read_whole_from_either_folder(phantoms: Path) -> None:
    manifest = open_studies(phantoms)
    lines = (phantoms / "truth.csv").read_text().splitlines()[1:]
    assert dict(zip(manifest.table["id"], manifest.table["target"], strict=True)) == {
        row.split(",")[0]: row.split(",")[1] for row in lines
    }
    images = sum(len(row.paths) for row in manifest.rows)
    assert images == len(list(phantoms.rglob("*.png")))
    inner = open_studies(phantoms / "MURA-v1.1")
    assert inner.digest == manifest.digest
    parts = set(manifest.table["part"])
    assert parts == set(mura.PARTS)


def test_valid_is_test_and_val_is_cut_by_patient(phantoms: Path) -> None:
    manifest = open_studies(phantoms, options={"validation_share": 0.2})
    groups = {split: set(manifest.subset(split).table["group"]) for split in ("train", "val", "test")}
    assert groups["test"] == {f"patient{number:05d}" for number in range(5, 61, 5)}
    assert not groups["train"] & groups["val"] and len(groups["val"]) == pytest.approx(0.2 * 48, abs=2)
    assert set(manifest.table.loc[manifest.table["split"] == "test", "published"]) == {"valid"}


def test_the_split_depends_on_the_seed_and_the_digest_on_the_split(phantoms: Path, tmp_path: Path) -> None:
    first, again, other = (open_studies(phantoms, seed=seed) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    first.write(tmp_path / "split.csv")
    assert Manifest.read(tmp_path / "split.csv", first.modalities).digest == first.digest


def test_one_part_and_complete_studies_only(phantoms: Path) -> None:
    whole = open_studies(phantoms)
    wrists = open_studies(phantoms, options={"parts": ("XR_WRIST",), "validation_share": 0.2})
    assert len(wrists) == (whole.table["part"] == "WRIST").sum()
    complete = open_studies(phantoms, incomplete="drop")
    assert len(complete) == sum(len(row.paths) > 1 for row in whole.rows) < len(whole)


def test_images_keep_the_order_of_their_numbers_and_mac_files_are_passed_over(tmp_path: Path) -> None:
    names = ["image10.png", "image2.png", "image1.png", "._image1.png"]
    first = "train/XR_WRIST/patient00001/study1_positive"
    for listed in (True, False):
        root = make(tmp_path / str(listed), {"train": TRAIN, "valid": VALID}, {first: names}, listed)
        row = next(row for row in open_studies(root).rows if row.id == "WRIST-patient00001-study1")
        assert [path.name for path in row.paths.values()] == ["image1.png", "image2.png", "image10.png"]
        assert list(row.paths) == ["view", "view_2", "view_3"]


def test_no_line_is_lost_without_a_header_and_a_header_is_passed_over(tmp_path: Path) -> None:
    plain = open_studies(make(tmp_path / "a", {"train": TRAIN, "valid": VALID}))
    headed = open_studies(make(tmp_path / "b", {"train": "Path,Label\r\n" + TRAIN + "\r\n\n", "valid": VALID}))
    assert len(plain) == len(headed) == 13
    assert not any("header" in note for note in plain.notes) and any("header" in note for note in headed.notes)


def test_the_same_study_number_with_both_labels_gives_two_ids(tmp_path: Path) -> None:
    root = make(tmp_path, {"train": TRAIN + line(1, 0) + "\n", "valid": VALID})
    ids = [name for name in open_studies(root).table["id"] if "patient00001" in name]
    assert sorted(ids) == ["WRIST-patient00001-study1_negative", "WRIST-patient00001-study1_positive"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("MURA-v1.1/train/XR_WRIST/patient00099/study1_positive/,2", "line 11 is"),
        ("MURA-v1.1/train/XR_WRIST/patient00099/study1_positive/", "line 11 is"),
        ("MURA-v1.1/train/XR_WRIST/patient00099/study1_positive/,0", "gives the label 0 to a folder named positive"),
        (line(1, 1), "lists train/XR_WRIST/patient00001/study1_positive twice"),
        (line(99, 1, published="valid"), "line 11 is"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: str, message: str) -> None:
    root = make(tmp_path, {"train": TRAIN, "valid": VALID})
    table = root / "MURA-v1.1" / "train_labeled_studies.csv"
    table.write_text(TRAIN + bad + "\n")
    with pytest.raises(UserError, match=message) as error:
        open_studies(root)
    assert "\n" not in str(error.value)


def test_a_patient_in_train_and_valid_is_an_error(tmp_path: Path) -> None:
    root = make(tmp_path, {"train": TRAIN, "valid": VALID + line(3, 1, published="valid", study=2) + "\n"})
    with pytest.raises(UserError, match="'patient00003' is in"):
        open_studies(root)


def test_missing_things_are_named(tmp_path: Path) -> None:
    root = make(tmp_path, {"train": TRAIN, "valid": VALID})
    gone = root / "MURA-v1.1/train/XR_WRIST/patient00002/study1_negative/image2.png"
    gone.unlink()
    with pytest.raises(UserError, match=r"image2.png does not exist \(1 of 26"):
        open_studies(root)
    gone.touch()
    (root / "MURA-v1.1/valid_labeled_studies.csv").unlink()
    with pytest.raises(UserError, match=r"valid_labeled_studies\.csv does not exist"):
        open_studies(root)
    with pytest.raises(UserError, match="No data set in a known layout"):
        open_studies(root / "MURA-v1.1" / "train")
    with pytest.raises(UserError, match="no body part 'KNEE'"):
        open_studies(root, options={"parts": ("KNEE",)})
