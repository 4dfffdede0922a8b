"""The generic study manifest, view pairs, and what a target's text means."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from opening import open_pairs, open_studies
from scanfuse.cli import main
from scanfuse.data import layouts
from scanfuse.data.inputs.pairing import Pairing, pairs_of, roles_of
from scanfuse.data.labels import Labels
from scanfuse.data.layouts.studies import role_of_view
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers import write_image
from scanfuse.data.synthetic import load
from scanfuse.errors import UserError

HEAD = "study,patient,path,view,finding,split"


def make(root: Path, lines: list[str], head: str = HEAD) -> Path:
    """A manifest.csv; every cell that ends with .png becomes an empty file in images/."""
    (root / "images").mkdir(exist_ok=True)
    (root / "manifest.csv").write_text("\n".join([head, *lines]) + "\n")
    for cell in ",".join(lines).split(","):
        if cell.endswith(".png"):
            (root / "images" / cell).touch()
    return root


def studies(count: int, split: str = "") -> list[str]:
    found = []
    for number in range(count):
        found.append(f"s{number},p{number // 2},{number}b.png,L,{'flu' if number % 4 < 2 else 'none'},{split}")
        found.append(f"s{number},p{number // 2},{number}a.png,PA,{'flu' if number % 4 < 2 else 'none'},{split}")
    return found


@pytest.mark.data
def test_real_chest_studies_read_without_special_handling(real_data: Path) -> None:
    manifest = open_studies(real_data / "cxr-multiview")
    assert len(manifest) == 12 and manifest.table["group"].nunique() == 8
    assert manifest.modalities == ("frontal", "lateral") and all(len(row.paths) == 2 for row in manifest.rows)
    assert set(manifest.table["target"]) == {"COVID-19", "Bacterial", "Mycoplasma Bacterial Pneumonia", "Legionella"}
    assert set(manifest.table["split"]) == {"train", "val", "test"}
    row = next(row for row in manifest.rows if row.id == "177_0")
    assert [path.name for path in row.paths.values()] == ["16663_1_1.jpg", "16663_1_2.jpg"]
    binary = open_studies(real_data / "cxr-multiview", options={"positive": ("COVID-19",)})
    assert sorted(set(binary.table["target"])) == ["0", "1"] and (binary.table["target"] == "1").sum() == 5


CHEST = (
    "study,patientid,offset,filename,view,modality,finding,sex,age,survival,intubated,went_icu,temperature,"
    "pO2_saturation,leukocyte_count,neutrophil_count,lymphocyte_count,location,license,doi,url"
)


def chest(root: Path) -> Path:
    """Made-up pictures in the layout of the metadata of covid-chestxray-dataset: 12 studies of 8 patients, four
    findings of which three have one patient each, files of any size and mode, some of them PNG in a .jpg."""
    random = np.random.default_rng(0)
    findings = {"7": "Legionella", "8": "Bacterial", "9": "Mycoplasma, other"}
    visits = {"8": (3, 13), "9": (0, 30, 90, 120)}
    lines = []
    (root / "images").mkdir(parents=True)
    for patient in ("1", "2", "3", "4", "5", "7", "8", "9"):
        for day in visits.get(patient, (0,)):
            for view in ("L", "PA"):
                number = len(lines)
                mode, form = (("RGB", "JPEG"), ("L", "JPEG"), ("RGBA", "PNG"), ("RGB", "PNG"))[number % 4]
                name = f"x {number}-{view}.{'png' if mode == 'RGB' and form == 'PNG' else 'jpg'}"
                grey = random.integers(0, 256, (30 + 7 * number % 41, 25 + 5 * number % 33), dtype=np.uint8)
                picture = PillowImage.fromarray(grey).convert(mode)
                picture.save(root / "images" / name, format=form)
                finding = findings.get(patient, "COVID-19")
                lines.append(
                    f'{patient}_{day},{patient},{day}.0,{name},{view},X-ray,"{finding}",M,,,Y,,67.0,,,,,'
                    '"Neuk\ufffdlln, Berlin",CC BY-NC-SA,,https://example.org'
                )
    (root / "manifest.csv").write_text("\n".join([CHEST, *lines]) + "\n", encoding="utf-8")
    return root


def whole_job(data: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check, train, evaluate, predict and explain as a user would; val and test have one outcome each."""
    run, shown = out / "run", out / "explained"
    assert main(["data", "check", "xfmamba", str(data)]) == 0
    said = capsys.readouterr().out
    assert (
        "0 error(s)" in said
        and "warning: test (1 studies of 1 patients) has no case of Bacterial, Legionella" in said
    )
    options = "--preset tiny --size 32 --epochs 1 --batch 4 --threads 1 --device cpu --quiet".split()
    assert main(["train", "xfmamba", "--data", str(data), "--out", str(run), *options]) == 0
    assert main(["evaluate", str(run), "--data", str(data), "--device", "cpu"]) == 0
    result = json.loads((run / "evaluation/test/evaluation.json").read_text())
    assert result["samples"] == 1 and result["cells"]["run"]["auroc"]["mean"] is None
    assert any(note.startswith("one patient only") for note in result["notes"])
    assert any("without AUROC" in note and "COVID-19" in note for note in result["notes"])
    assert "one outcome" not in capsys.readouterr().err
    assert "Leakage checks" in (run / "report.html").read_text(encoding="utf-8")
    assert main(["predict", str(run), "--data", str(data), "--out", str(out / "p"), "--device", "cpu"]) == 0
    with (out / "p/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    labels = ["Bacterial", "COVID-19", "Legionella", next(name[2:] for name in rows[0] if name.startswith("p_Myco"))]
    for row in rows:
        probabilities = [float(row[f"p_{label}"]) for label in labels]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["called"] == labels[int(np.argmax(probabilities))]
    for row in list(open_studies(data).rows)[:2]:
        assert (
            main(["explain", str(run), "--data", str(data), "--id", row.id, "--out", str(shown), "--device", "cpu"])
            == 0
        )
        folder = next(shown.glob(f"{row.id}__*"))
        for view, path in zip(("view_a", "view_b"), row.paths.values(), strict=True):
            with PillowImage.open(path) as original:
                size = original.size
            for kind in ("view", "fused"):
                with PillowImage.open(folder / f"{view}_{kind}.png") as overlay:
                    assert overlay.size == size
        content = json.loads((folder / "explanation.json").read_text())
        assert content["views"] == {"view_a": "frontal", "view_b": "lateral"}
        assert content["map_places"] == {"view": [1, 1], "fused": [1, 1]}


def test_a_table_of_few_mixed_chest_studies_goes_through_the_whole_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole_job(chest(tmp_path / "chest"), tmp_path, capsys)


@pytest.mark.data
def test_real_chest_studies_go_through_the_whole_job(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole_job(real_data / "cxr-multiview", tmp_path, capsys)


def test_rows_of_images_become_studies_with_frontal_first(tmp_path: Path) -> None:
    manifest = open_studies(make(tmp_path, studies(12)))
    assert len(manifest) == 12 and manifest.modalities == ("frontal", "lateral")
    row = next(manifest.rows)
    assert [path.name for path in row.paths.values()] == ["0a.png", "0b.png"]
    spread = manifest.table.groupby("group")["split"].nunique()
    assert (spread == 1).all() and set(manifest.table["split"]) == {"train", "val", "test"}


def test_a_written_manifest_reads_back_as_rows_of_studies(tmp_path: Path) -> None:
    first = open_studies(make(tmp_path, studies(12)))
    first.write(tmp_path / "again.csv")
    again = open_studies(tmp_path / "again.csv")
    assert again.digest == first.digest and again.modalities == first.modalities


def test_the_digest_does_not_depend_on_the_place_but_on_target_split_and_path(tmp_path: Path) -> None:
    places = [tmp_path / name for name in "abcd"]
    for place in places:
        place.mkdir()
        make(place, studies(12))
    assert open_studies(places[0]).digest == open_studies(places[1]).digest
    table = places[2] / "manifest.csv"
    table.write_text(table.read_text().replace("flu", "cold"))
    (places[3] / "images/0a.png").rename(places[3] / "images/x.png")
    (places[3] / "manifest.csv").write_text((places[3] / "manifest.csv").read_text().replace("0a.png", "x.png", 1))
    digests = {open_studies(place).digest for place in places[1:]}
    assert len(digests) == 3


def test_one_row_per_study_with_a_column_per_view(tmp_path: Path) -> None:
    lines = [f"e{n},p{n},{n}f.png,{n}s.png,{n % 2},1,3{n}" for n in range(8)] + ["e8,p8,8f.png,,1,0,40"]
    root = make(tmp_path, lines, "id,patient,front,side,edema,effusion,age")
    manifest = open_studies(root, options={"target": ("edema", "effusion")})
    assert manifest.modalities == ("frontal", "lateral") and list(manifest.table["age"])[:2] == ["30", "31"]
    assert manifest.table["target"].iloc[1] == "edema=1;effusion=1"
    assert open_studies(root, incomplete="drop", options={"target": ("edema",)}).table["id"].tolist() == [
        f"e{n}" for n in range(8)
    ]


def test_a_given_split_is_kept_and_val_cut_from_train(tmp_path: Path) -> None:
    lines = [line + ("test" if line.startswith(("s0,", "s1,")) else "train") for line in studies(20)]
    manifest = open_studies(make(tmp_path, lines))
    assert set(manifest.subset("test").table["id"]) == {"s0", "s1"}
    assert "val" in set(manifest.table["split"]) and any("val was cut" in note for note in manifest.notes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("s1,p0,1b.png", "s1,p7,1b.png", "puts study 's1' into the patients"),
        ("s1,p0,1b.png,L,flu", "s1,p0,1b.png,L,cold", "gives study 's1' the finding 'cold' and 'flu'"),
        ("s1,p0,1b.png", "s1,,1b.png", "row 4 has nothing in the column 'patient'"),
        ("s1,p0,1b.png", "s1,p0,gone.png", "gone.png does not exist"),
        ("study,patient", "study,person", "no column for the patient"),
        (",flu,\n", ",flu,train\n", "no split for"),
    ],
)
def test_a_bad_manifest_is_one_clear_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    root = make(tmp_path, studies(12))
    text = (root / "manifest.csv").read_text()
    assert old in text
    lines = text.replace(old, new, 2 if old == ",flu,\n" else 1)
    (root / "manifest.csv").write_text(lines)
    with pytest.raises(UserError, match=message) as error:
        open_studies(root)
    assert "\n" not in str(error.value)


def test_a_patient_in_two_given_splits_is_an_error(tmp_path: Path) -> None:
    lines = [line + ("test" if line.startswith("s0,") else "train") for line in studies(12)]
    with pytest.raises(UserError, match="'p0' is in"):
        open_studies(make(tmp_path, lines))


def test_wrong_roots_layouts_and_options_are_named(tmp_path: Path) -> None:
    root = make(tmp_path, studies(12))
    for call, message in (
        (lambda: open_studies(tmp_path / "nowhere"), "does not exist"),
        (lambda: open_studies(tmp_path / "images"), "No data set in a known layout"),
        (lambda: open_studies(root, "mura"), "not in the layout 'mura'"),
        (lambda: open_studies(root, "harvard"), "Unknown layout 'harvard'; choose auto, cbis_ddsm, chexpert"),
        (lambda: open_studies(root, options={"target": ("fever",)}), "no target column 'fever'"),
        (lambda: open_studies(root, options={"positive": ("fever",)}), "no finding 'fever'"),
        (lambda: open_studies(root, options={"uncertain": "ones"}), "no option 'uncertain'; it has target"),
        (lambda: open_studies(root, options={"positiv": "flu"}), "no option 'positiv'; did you mean 'positive'"),
        (lambda: open_studies(root, "mora"), "Unknown layout 'mora'; did you mean 'mura'"),
    ):
        with pytest.raises(UserError, match=message):
            call()
    assert layouts.names("view_pairs") == ("cbis_ddsm", "chexpert", "mura", "studies")


def test_registered_pairs_are_never_taken_for_studies(tmp_path: Path) -> None:
    for name in ("CT", "MRI"):
        for number in range(6):
            write_image(tmp_path / name / f"{number}.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "train.csv").write_text("a,b\n")
    assert open_pairs(tmp_path, ("CT", "MRI"), split="none").modalities == ("ct", "mri")
    with pytest.raises(UserError, match="No data set in a known layout"):
        open_studies(tmp_path)


@pytest.mark.parametrize(
    ("name", "role"),
    [("PA", "frontal"), ("AP Supine", "frontal"), ("L", "lateral"), ("LL", "lateral"), ("MLO", "mlo"),
     ("Oblique left", "oblique_left"), ("", "view"), ("Y_2", "y2")],
)  # fmt: skip
def test_roles_of_usual_names(name: str, role: str) -> None:
    assert role_of_view(name) == role


def row_of(*slots: str) -> Row:
    return Row("s", "p", "", "", {slot: Path(f"{slot}.png") for slot in slots})


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7])
def test_n_views_without_roles_make_all_unordered_pairs(number: int) -> None:
    slots = ["view", *(f"view_{n}" for n in range(2, number + 1))]
    pairs = [(pair.a, pair.b) for pair in pairs_of(row_of(*slots), 3, ("view",))]
    assert len(set(map(frozenset, pairs))) == len(pairs) == (number * (number - 1) // 2 or 1)
    if number > 1:
        assert all(slots.index(a) < slots.index(b) for a, b in pairs)  # type: ignore[arg-type]
    else:
        assert pairs == [("view", None)]
        assert [(p.a, p.b) for p in pairs_of(row_of("view"), 3, ("view",), single="self")] == [("view", "view")]


@pytest.mark.parametrize(
    ("pairing", "wanted"),
    [
        ("auto", [("cc", "mlo"), ("cc", "mlo_2")]),
        ("roles", [("cc", "mlo"), ("cc", "mlo_2")]),
        ("first", [("cc", "mlo")]),
        ("all", [("cc", "mlo"), ("cc", "mlo_2"), ("mlo", "mlo_2")]),
    ],
)
def test_pairing_by_role(pairing: Pairing, wanted: list[tuple[str, str]]) -> None:
    row = row_of("cc", "mlo", "mlo_2")
    assert [(pair.a, pair.b) for pair in pairs_of(row, 0, ("cc", "mlo"), pairing=pairing)] == wanted


def test_pairs_by_role_need_two_roles_and_a_study_an_image() -> None:
    with pytest.raises(UserError, match="need two roles"):
        pairs_of(row_of("view", "view_2"), 0, ("view",), pairing="roles")
    with pytest.raises(UserError, match="no image"):
        pairs_of(row_of(), 0, ("view",))


def test_kinds_of_targets() -> None:
    assert Labels.of(["1", "", "0"]) == Labels("binary", ("0", "1"))
    assert Labels.of(["b", "a", "b"]) == Labels("multiclass", ("a", "b"))
    several = Labels.of(["x=1;y=", "x=0;y=1"])
    assert several == Labels("multilabel", ("x", "y"))
    target, mask = several.encode("x=1;y=")
    assert target.tolist() == [1, 0] and mask.tolist() == [True, False]
    assert several.encode("")[1].tolist() == [False, False]
    assert Labels("multiclass", ("a", "b")).encode("b")[0] == 1 and not Labels("binary", ("0", "1")).encode("")[1]


@pytest.mark.parametrize("targets", [[], ["", ""], ["a", "a"], ["x=1", "a"], ["x=1;y=0", "y=0;x=1"]])
def test_targets_that_make_no_task_are_refused(targets: list[str]) -> None:
    with pytest.raises(UserError):
        Labels.of(targets)


def test_values_that_are_no_target_are_refused() -> None:
    for labels, text in (
        (Labels("multilabel", ("x",)), "x=2"),
        (Labels("multilabel", ("x",)), "y=1"),
        (Labels("multiclass", ("a", "b")), "c"),
    ):
        with pytest.raises(UserError):
            labels.encode(text)


def test_roles_of_a_manifest_in_order(tmp_path: Path) -> None:
    manifest: Manifest = open_studies(make(tmp_path, [*studies(12), "s0,p0,z.png,Oblique,flu,"]))
    assert roles_of(manifest) == ("frontal", "lateral", "oblique")


def test_without_a_split_one_patient_is_enough(tmp_path: Path) -> None:
    """Of every layout: what a prediction opens holds no val, and a patient alone is no error."""
    make(tmp_path, studies(2))
    with pytest.raises(UserError, match="Only 1 group"):
        open_studies(tmp_path)
    assert list(open_studies(tmp_path, split=False).table["split"]) == ["", ""]
    for layout, tables in (
        ("mura", ["train_labeled_studies.csv"]),
        ("chexpert", ["train.csv"]),
        ("cbis_ddsm", ["mass_case_description_train_set.csv", "calc_case_description_train_set.csv"]),
    ):
        root = tmp_path / layout
        load(layout).write(root, load(layout).Options(patients=5, size=48))
        assert "val" in set(open_studies(root).table["split"])
        whole = open_studies(root, split=False).table
        first = whole.loc[whole["split"] == "train", "group"].iloc[0]
        for name in tables:
            file = next(root.rglob(name))
            lines = file.read_text().splitlines()
            head = [] if layout == "mura" else lines[:1]
            file.write_text("\n".join(head + [line for line in lines[len(head) :] if first in line]) + "\n")
        with pytest.raises(UserError, match="Only 1 group"):
            open_studies(root)
        alone = open_studies(root, split=False).table
        assert set(alone["split"]) == {"train", "test"}
        assert set(alone.loc[alone["split"] == "train", "group"]) == {first}


def test_split_is_no_option_of_a_layout(tmp_path: Path) -> None:
    make(tmp_path, studies(12))
    with pytest.raises(UserError, match="no option 'split'"):
        open_studies(tmp_path, options={"split": False})
