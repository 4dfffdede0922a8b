"""CheXpert: every policy for uncertain labels by hand, views of a study together, and the layouts it comes in."""

from pathlib import Path

import pytest

from opening import open_studies
from scanfuse.data.inputs.pairing import pairs_of, roles_of
from scanfuse.data.labels import Labels
from scanfuse.data.layouts import chexpert
from scanfuse.data.synthetic import chexpert as phantom
from scanfuse.errors import UserError

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(chexpert.FINDINGS)


def row(
    patient: int,
    view: int,
    role: str,
    *,
    study: int = 1,
    published: str = "train",
    home: str = "CheXpert-v1.0-small",
    **values: str,
) -> str:
    path = f"{home}/{published}/patient{patient:05d}/study{study}/view{view}_{role}.jpg"
    findings = [values.get(name.replace(" ", "_"), "") for name in chexpert.FINDINGS]
    return ",".join([path, "Male", "60", role.title(), "AP" if role == "frontal" else "", *findings])


def make(root: Path, train: list[str], valid: list[str] | None = None, home: str = "CheXpert-v1.0-small") -> Path:
    """A small CheXpert of empty image files."""
    valid = valid or [row(90, 1, "frontal", published="valid", home=home)]
    (root / home).mkdir(parents=True, exist_ok=True)
    for name, lines in (("train", train), ("valid", valid)):
        (root / home / f"{name}.csv").write_text("\n".join([HEADER, *lines]) + "\n")
        for text in lines:
            file = root / text.split(",")[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return root


FILLER = [row(number, 1, "frontal") for number in range(50, 54)]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom.write(tmp_path_factory.mktemp("chexpert"), phantom.Options(patients=50, size=32, seed=5))


@pytest.mark.parametrize(
    ("policy", "edema", "cardiomegaly", "fracture"),
    [("ones", "1", "1", "1"), ("zeros", "0", "0", "0"), ("ignore", "", "", ""), ("per-label", "1", "0", "")],
)
def test_uncertain_labels_by_policy(
    tmp_path: Path, policy: str, edema: str, cardiomegaly: str, fracture: str
) -> None:
    uncertain = row(
        1, 1, "frontal", Edema="-1.0", Cardiomegaly="-1", Fracture="-1.0", Pneumonia="1.0", Lung_Lesion="0.0"
    )
    root = make(tmp_path, [uncertain, *FILLER])
    manifest = open_studies(root, options={"uncertain": policy})
    labels = Labels.of(manifest.table["target"])
    target, mask = labels.encode(next(item.target for item in manifest.rows if item.group == "patient00001"))
    found = dict(zip(labels.names, zip(target, mask, strict=True), strict=True))
    for name, wanted in (("Edema", edema), ("Cardiomegaly", cardiomegaly), ("Fracture", fracture)):
        assert found[name] == ((float(wanted), True) if wanted else (0.0, False))
    assert (
        found["Pneumonia"] == (1.0, True)
        and found["Lung Lesion"] == (0.0, True)
        and found["Pneumothorax"] == (0.0, True)
    )


def test_blank_labels_can_be_masked(tmp_path: Path) -> None:
    manifest = open_studies(make(tmp_path, FILLER), options={"blank": "ignore"})
    labels = Labels.of(manifest.table["target"])
    assert not labels.encode(manifest.table["target"].iloc[0])[1].any()


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (13, chexpert.FINDINGS[1:]),
        (14, chexpert.FINDINGS),
        (("Edema", "Cardiomegaly"), ("Edema", "Cardiomegaly")),
    ],
)
def test_thirteen_fourteen_or_chosen_labels(phantoms: Path, labels: object, names: tuple[str, ...]) -> None:
    manifest = open_studies(phantoms, options={"labels": labels})
    assert Labels.of(manifest.table["target"]).names == tuple(names)


def test_all_views_of_a_study_are_kept_frontal_first(tmp_path: Path) -> None:
    train = [row(1, 1, "lateral"), row(1, 2, "frontal"), row(1, 3, "frontal"), row(2, 1, "lateral"), *FILLER]
    manifest = open_studies(make(tmp_path, train))
    assert manifest.modalities == ("frontal", "frontal_2", "lateral") and roles_of(manifest) == ("frontal", "lateral")
    rows = {item.group: item for item in manifest.rows}
    assert [path.name for path in rows["patient00001"].paths.values()] == [
        "view2_frontal.jpg", "view3_frontal.jpg", "view1_lateral.jpg",
    ]  # fmt: skip
    found = {name: [(p.a, p.b) for p in pairs_of(item, 0, roles_of(manifest))] for name, item in rows.items()}
    assert found["patient00001"] == [("frontal", "lateral"), ("frontal_2", "lateral")]
    assert found["patient00002"] == [(None, "lateral")] and found["patient00050"] == [("frontal", None)]
    assert manifest.table.set_index("group").loc["patient00001", "projection"] == "AP"


def test_incomplete_studies_can_be_dropped_and_valid_is_test(phantoms: Path) -> None:
    manifest = open_studies(phantoms, options={"validation_share": 0.2})
    dropped = open_studies(phantoms, incomplete="drop", options={"validation_share": 0.2})
    roles = [{name.split("_")[0] for name in item.paths} for item in manifest.rows]
    assert 0 < sum(len(found) == 2 for found in roles) == len(dropped) < len(manifest)
    assert set(manifest.subset("test").table["published"]) == {"valid"}
    groups = [set(manifest.subset(name).table["group"]) for name in ("train", "val", "test")]
    assert not groups[0] & groups[1] and not (groups[0] | groups[1]) & groups[2]
    assert sum(len(item.paths) for item in manifest.rows) == len(list(phantoms.rglob("*.jpg")))


def test_the_full_set_in_batch_folders_is_found(tmp_path: Path) -> None:
    first = "CheXpert-v1.0 batch 1 (validate & csv)"
    lines = [row(number, 1, "frontal", home="CheXpert-v1.0") for number in range(1, 6)]
    root = make(
        tmp_path, lines, [row(90, 1, "frontal", published="valid", home="CheXpert-v1.0")], home="CheXpert-v1.0"
    )
    (root / first).mkdir()
    for name in ("train.csv", "valid.csv", "valid"):
        (root / "CheXpert-v1.0" / name).rename(root / first / name)
    for index in range(1, 6):
        batch = root / f"CheXpert-v1.0 batch {2 + index % 3} (train {1 + index % 3})"
        batch.mkdir(exist_ok=True)
        (root / f"CheXpert-v1.0/train/patient{index:05d}").rename(batch / f"patient{index:05d}")
    manifest = open_studies(root, layout="chexpert")
    assert len(manifest) == 6 and all(path.is_file() for item in manifest.rows for path in item.paths.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Fracture,", "Broken,"), "no column 'Fracture'"),
        (("view1_frontal.jpg", "frontal.jpg"), "row 2 has the path"),
        (("Frontal,AP", "Lateral,AP"), "row 2 calls"),
        (("AP,,", "AP,maybe,"), "No Finding = 'maybe'"),
    ],
)
def test_a_bad_table_is_one_clear_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    root = make(tmp_path, FILLER)
    table = root / "CheXpert-v1.0-small/train.csv"
    text = table.read_text()
    assert change[0] in text
    table.write_text(text.replace(*change))
    with pytest.raises(UserError, match=message) as error:
        open_studies(root, options={"labels": 14})
    assert "\n" not in str(error.value)


def test_wrong_options_and_missing_images_are_named(tmp_path: Path) -> None:
    root = make(tmp_path, FILLER)
    for options, message in (
        ({"uncertain": "maybe"}, "'uncertain' cannot be 'maybe'; it is one of ones, zeros"),
        ({"labels": ("Flu",)}, "no finding 'Flu'"),
        ({"labels": 12}, "one of 13, 14, or names"),
        ({"parts": ("WRIST",)}, "no option 'parts'"),
        ({"uncertain": "per-label", "per_label": {"Edema": "twos"}}, "'twos' for Edema"),
    ):
        with pytest.raises(UserError, match=message):
            open_studies(root, options=options)
    (root / "CheXpert-v1.0-small/train/patient00050/study1/view1_frontal.jpg").unlink()
    with pytest.raises(UserError, match="1 of 5 listed images are missing"):
        open_studies(root)
