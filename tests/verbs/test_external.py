"""Which samples a run knows: by what their files hold. Data of which it knows nothing is external, and called so."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image, ImageOps

from scanfuse.cli import main
from scanfuse.data.fingerprint import fingerprints
from scanfuse.data.synthetic import harvard
from scanfuse.verbs.predict import load
from whole_jobs import FOLDS, Capture, fails, json_of, table_of


@pytest.fixture
def run(bones_run: Path, tmp_path: Path) -> Path:
    """A copy that may be written into."""
    return Path(shutil.copytree(bones_run, tmp_path / "both_views"))


@pytest.fixture(scope="module")
def others(bones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other pictures under the very same names."""
    root = Path(shutil.copytree(bones, tmp_path_factory.mktemp("data") / "elsewhere"))
    for path in root.rglob("*.png"):
        with Image.open(path) as picture:
            ImageOps.flip(picture).save(path)
    return root


def evaluated(run: Path, data: Path, *options: str) -> Any:
    """evaluation.json of the folder that was written last."""
    assert main(["evaluate", str(run), "--data", str(data), "--quiet", "--pictures", "0", *options]) == 0
    newest = max((run / "evaluation").glob("*/evaluation.json"), key=lambda path: path.stat().st_mtime_ns)
    return newest.parent, json_of(newest)


def tiles(run: Path) -> list[str]:
    """The numbers on top of the report."""
    page = (run / "report.html").read_text()
    found = re.search(r'<div class="tiles">(.*?)\n', page)
    assert found
    return re.findall(r"<b>(.*?)</b>", found[1])


def test_other_data_are_external_whatever_they_are_called(run: Path, others: Path, capsys: Capture) -> None:
    """Their ids are those of the run's samples, of its training too; the results on its own test stay."""
    before = {path: path.read_bytes() for path in (run / "evaluation" / "test").rglob("*") if path.is_file()}
    headline = tiles(run)
    folder, content = evaluated(run, others)
    assert sorted(table_of(folder / "per_sample.csv")["id"]) == sorted(table_of(run / "split.csv")["id"])
    assert folder.name == "external-elsewhere"
    assert content["split"] == "external"
    everything = sum(1 for path in others.rglob("study*") if path.is_dir())
    assert content["samples"] == len(table_of(folder / "per_sample.csv")) == everything
    assert "external data: the runs know none of these samples" in content["notes"]
    text = (folder / "table.md").read_text()
    assert text.startswith(f"{everything} external studies of ")
    assert "Note: external data" in text
    assert {path: path.read_bytes() for path in before} == before
    page = (run / "report.html").read_text()
    assert tiles(run) == headline
    assert page.index("Results on test") < page.index("Results on external-elsewhere")
    assert f"{everything} studies of" in page[page.index("Results on external-elsewhere") :]
    message = fails(["evaluate", str(run), "--data", str(others), "--on", "val", "--quiet"], capsys)
    assert "holds none of the samples that the runs know: it has no val part of theirs" in message


def test_moved_data_are_still_the_run_s_own(run: Path, bones: Path, tmp_path: Path) -> None:
    _, expected = evaluated(run, bones)
    moved = shutil.move(shutil.copytree(bones, tmp_path / "once"), tmp_path / "twice")
    folder, content = evaluated(run, Path(moved))
    assert folder.name == "test"
    assert content == expected


def test_a_training_sample_under_another_name_is_refused(
    run: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    split = table_of(run / "split.csv")
    views = [name for name in split if str(name).startswith("view")]
    train = split[split["split"] == "train"].iloc[0]
    test = split[split["split"] == "test"].iloc[:3]
    rows = ["study,patient,path,label"]
    for name, row in [("renamed", train), *((row["id"], row) for _, row in test.iterrows())]:
        for path in row[views].dropna():
            rows.append(f"{name},{name}-patient,{(run / path).resolve()},{row['target']}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    command = ["evaluate", str(run), "--data", str(tmp_path), "--quiet", "--pictures", "0"]
    message = fails(command, capsys)
    assert message.startswith("renamed: the training of both_views saw the same files under another id")
    assert main([*command, "--on", "all"]) == 0
    assert any("were trained on" in note for note in json_of(run / "evaluation" / "all" / "evaluation.json")["notes"])


def test_a_run_of_before_knows_its_samples_by_their_ids(run: Path, bones: Path) -> None:
    """Its split.csv has no fingerprints; what it was evaluated on then is what it is evaluated on now."""
    _, expected = evaluated(run, bones)
    file = run / "split.csv"
    notes = [line for line in file.read_text().splitlines() if line.startswith("#")]
    table = pd.read_csv(file, comment="#", dtype=str, keep_default_na=False).drop(columns="fingerprint")
    file.write_text("\n".join([*notes, table.to_csv(index=False)]))
    folder, content = evaluated(run, bones)
    assert folder.name == "test" and content == expected


def test_folds_have_external_data_too(bones_cv: Path, others: Path, tmp_path: Path) -> None:
    """All folds score all of it, on whichever part they are asked for."""
    cv = Path(shutil.copytree(bones_cv, tmp_path / "cv"))
    folder, content = evaluated(cv, others, "--ensemble")
    assert folder == cv / "evaluation" / "ensemble-external-elsewhere"
    assert content["methods"] == [*FOLDS, "ensemble"]
    assert content["split"] == "external"


def test_pairs_of_images_are_known_by_their_files_too(head_phantoms: Path, tmp_path: Path) -> None:
    flags = "--preset tiny --channels 4,4,8 --d-state 2 --mix-state 2 --crop 32 --epochs 1 --batch 8 --quiet".split()
    run = tmp_path / "run"
    assert main(["train", "clinicalfmamba", "--data", str(head_phantoms), "--out", str(run), *flags]) == 0
    other = tmp_path / "other"
    harvard.write(other, harvard.Options(pair="CT-MRI", cases=3, slices=1, size=48, seed=4))
    mine, theirs = ({path.name for path in root.rglob("CT/*.png")} for root in (head_phantoms, other))
    assert mine & theirs
    folder, content = evaluated(run, other)
    assert (folder.name, content["split"], content["samples"]) == ("external-other", "external", len(theirs))
    folder, content = evaluated(run, head_phantoms)
    assert (folder.name, content["split"]) == ("test", "test")


def test_one_changed_picture_is_a_new_sample_beside_the_known_ones(run: Path, bones: Path, tmp_path: Path) -> None:
    """It counts as test, which is said; what the run knew under that id was another picture."""
    data = Path(shutil.copytree(bones, tmp_path / "data"))
    split = table_of(run / "split.csv")
    study = split[split["split"] == "test"].iloc[0]
    picture = (run / study["view"]).resolve()
    changed = data / picture.relative_to(bones.resolve())
    with Image.open(changed) as image:
        ImageOps.flip(image).save(changed)
    _, content = evaluated(run, data)
    assert f"1 of {len(split)} samples are unknown to the training and count as test" in content["notes"]
    assert content["samples"] == (split["split"] == "test").sum()


def test_rows_of_one_file_are_told_apart_by_their_ids(
    run: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    """As slices of a volume are: one that is new is no training sample under another name."""
    picture, other = sorted(bones.rglob("valid/**/image1.png"))[:2]
    rows = ["study,patient,path,label", *(f"s{n},p{n},{picture},{n % 2}" for n in range(4)), f"t,q,{other},1"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    opened = load(run, device="cpu").system.data.open(tmp_path, split=False)
    splits = {"s0": "train", "s1": "val", "s2": "test", "t": "train"}
    known = opened.table[opened.table["id"].isin(splits)]
    seen = replace(opened, table=known.assign(split=known["id"].map(splits)).reset_index(drop=True))
    replace(seen, table=seen.table.assign(fingerprint=fingerprints(seen))).write(run / "split.csv")
    (tmp_path / "manifest.csv").write_text("\n".join(rows[:-1]) + "\n")
    folder, content = evaluated(run, tmp_path)
    assert set(table_of(folder / "per_sample.csv")["id"]) == {"s2", "s3"}
    assert "1 of 4 samples are unknown to the training and count as test" in content["notes"]
    (tmp_path / "manifest.csv").write_text("\n".join([*rows[:-1], f"new,r,{other},1"]) + "\n")
    assert "new: the training of both_views saw the same files" in fails(
        ["evaluate", str(run), "--data", str(tmp_path), "--quiet"], capsys
    )
