"""`scanfuse predict` writes over nothing, needs no targets, and does not stop at one sample that it cannot read."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scanfuse.cli import main
from whole_jobs import FOLDS, Capture, fails, json_of, table_of


@pytest.fixture(scope="module")
def fusion_run(head_phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "brain"
    flags = "--preset tiny --channels 4,4,8 --d-state 2 --mix-state 2 --crop 32 --epochs 1 --batch 8 --quiet".split()
    assert main(["train", "clinicalfmamba", "--data", str(head_phantoms), "--out", str(out), *flags]) == 0
    return out


def predict(capsys: Capture, *arguments: Any) -> tuple[int, list[str], list[str]]:
    """Exit code, and lines of the console."""
    capsys.readouterr()
    code = main(["predict", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err.splitlines()


def pictures(bones: Path) -> list[Path]:
    return sorted(bones.rglob("image1.png"))


def studies(root: Path, files: dict[str, Path], further: str = "") -> Path:
    """A table of studies of one view, which may have a further column: "name" or "name: value, value, ..."."""
    root.mkdir(exist_ok=True)
    column, _, values = further.partition(": ")
    cells = values.split(", ") if values else [""] * len(files)
    rows = [
        f"{name},{name}p,{path}" + (f",{cell}" if column else "")
        for (name, path), cell in zip(files.items(), cells, strict=True)
    ]
    (root / "manifest.csv").write_text(
        "\n".join(["study,patient,path" + (f",{column}" if column else ""), *rows]) + "\n"
    )
    return root


# ---- over nothing


def test_two_inputs_of_one_name_give_two_results(
    bones_run: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Every picture of MURA is called image1.png."""
    out, expected = tmp_path / "out", []
    for number, picture in enumerate(pictures(bones)[:3]):
        file = tmp_path / str(number) / "x.png"
        file.parent.mkdir()
        shutil.copy(picture, file)
        code, said, _ = predict(capsys, bones_run, "--view-a", file, "--out", out)
        name = "x" if not number else f"x-{number + 1}"
        assert code == 0 and said[0].startswith(f"{name}: ") and said[1] == f"Wrote {out / name}.json."
        expected.append(json_of(out / f"{name}.json")["probabilities"])
    assert sorted(path.name for path in out.iterdir()) == ["x-2.json", "x-3.json", "x.json"]
    assert json_of(out / "x.json")["probabilities"] == expected[0] != expected[1]


def test_two_pairs_of_one_name_give_two_pictures(
    fusion_run: Path, head_phantoms: Path, tmp_path: Path, capsys: Capture
) -> None:
    cts = sorted(head_phantoms.rglob("CT/*.png"))[:2]
    for number, ct in enumerate(cts):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(ct, folder / "x.png")
        mri = ct.parents[1] / "MRI" / ct.name
        code, _, _ = predict(capsys, fusion_run, "--ct", folder / "x.png", "--mri", mri, "--out", tmp_path / "out")
        assert code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{stem}{end}.png" for stem in ("x", "x-2") for end in ("", "_side_by_side")}
    first, second = (np.asarray(Image.open(tmp_path / "out" / f"{stem}.png")) for stem in ("x", "x-2"))
    assert not np.array_equal(first, second)


def test_an_earlier_table_that_is_replaced_is_named(
    bones_run: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = studies(tmp_path / "data", {"a": pictures(bones)[0]})
    code, said, _ = predict(capsys, bones_run, "--data", data, "--out", tmp_path / "out")
    assert code == 0 and len(said) == 1
    assert re.fullmatch(rf"Wrote {tmp_path / 'out' / 'predictions.csv'}: 1 predicted, [0-9.]+ a second\.", said[0])
    code, said, _ = predict(capsys, bones_run, "--data", data, "--out", tmp_path / "out")
    assert said[0] == "An earlier predictions.csv was replaced."


# ---- without targets


@pytest.mark.parametrize(
    "further",
    [
        "",
        "label",
        "label: 0, 1, broken",
        "label: 7, 8, 9",
        "label: , , ",
        "label: 0.5, 1.5, nan",
        "finding: x=1;y=0, , z=2",
    ],
)
def test_targets_are_neither_needed_nor_looked_at(
    further: str, bones_run: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    files = dict(zip("abc", pictures(bones)[:3], strict=True))
    expected = studies(tmp_path / "plain", files)
    assert predict(capsys, bones_run, "--data", expected, "--out", tmp_path / "expected")[0] == 0
    data = studies(tmp_path / "data", files, further)
    code, _, error = predict(capsys, bones_run, "--data", data, "--out", tmp_path / "out")
    assert (code, error) == (0, [])
    one, other = (table_of(tmp_path / name / "predictions.csv") for name in ("expected", "out"))
    pd.testing.assert_frame_equal(one, other)


# ---- with samples that cannot be read


def spoilt(root: Path, kind: str, picture: Path) -> Path:
    """A picture that cannot be read."""
    path = root / f"{kind}.png"
    if kind == "cut short":
        path.write_bytes(picture.read_bytes()[:200])
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "a folder":
        path.mkdir()
    return path


KINDS = ("cut short", "text", "a folder", "missing")


@pytest.mark.parametrize("members", [1, 3])
def test_a_study_that_cannot_be_read_is_a_row_with_its_error(
    members: int, bones_run: Path, bones_cv: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Of a run and of an ensemble: the others are predicted as they would be alone."""
    run = bones_run if members == 1 else bones_cv
    good = pictures(bones)
    bad = {kind: spoilt(tmp_path, kind, good[0]) for kind in KINDS}
    files = {"a": good[0], **{kind.replace(" ", "_"): path for kind, path in bad.items()}, "b": good[1], "c": good[2]}
    out = tmp_path / "out"
    code, said, error = predict(capsys, run, "--data", studies(tmp_path / "data", files), "--out", out)
    assert code == 2
    assert said == [f"Wrote {out / 'predictions.csv'}: 3 predicted, 4 failed (see its column error)."]
    assert len(error) == 1 and error[0].startswith("cut_short: ") and "cut short" in error[0]
    table = pd.read_csv(out / "predictions.csv", dtype=str, keep_default_na=False).set_index("id")
    assert set(table.index) == set(files)
    failed = table[table["error"] != ""]
    assert set(failed.index) == {kind.replace(" ", "_") for kind in KINDS}
    assert all(str(bad[name.replace("_", " ")]) in text for name, text in failed["error"].items())
    assert (failed.drop(columns=["group", "error"]) == "").all(axis=None)
    plain = studies(tmp_path / "plain", {name: files[name] for name in "abc"})
    assert predict(capsys, run, "--data", plain, "--out", tmp_path / "expected")[0] == 0
    expected = pd.read_csv(tmp_path / "expected" / "predictions.csv", dtype=str).set_index("id")
    pd.testing.assert_frame_equal(table.loc[["a", "b", "c"]].drop(columns="error"), expected)
    if members > 1:
        assert {f"p_abnormal_{name}" for name in FOLDS} < set(table)


@pytest.mark.parametrize("members", [1, 3])
def test_nothing_that_can_be_read(
    members: int, bones_run: Path, bones_cv: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = bones_run if members == 1 else bones_cv
    data = studies(tmp_path / "data", {"a": spoilt(tmp_path, "text", bones), "b": spoilt(tmp_path, "missing", bones)})
    code, said, error = predict(capsys, run, "--data", data, "--out", tmp_path / "out")
    assert (code, len(error)) == (2, 1)
    assert said[-1].endswith("0 predicted, 2 failed (see its column error).")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", dtype=str, keep_default_na=False)
    assert list(table["id"]) == ["a", "b"] and all(table["error"])
    assert {"id", "group", "called", "p_abnormal", "error"} <= set(table)


def test_a_study_with_one_bad_view_fails_as_a_whole(
    bones_run: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Three views are three pairs; a result of the pair that can be read would be of another study."""
    good = pictures(bones)
    views = [good[0], good[1], spoilt(tmp_path, "cut short", good[2])]
    rows = ["study,patient,path", *(f"s,p,{path}" for path in views), f"t,q,{good[3]}"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    code, said, _ = predict(capsys, bones_run, "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 2 and said[-1].endswith("1 predicted, 1 failed (see its column error).")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", dtype=str, keep_default_na=False).set_index("id")
    assert sorted(table.index) == ["s", "t"]
    assert table.loc["s", "p_abnormal"] == "" != table.loc["t", "p_abnormal"]


def test_a_pair_that_cannot_be_fused_is_a_row_with_its_error(
    fusion_run: Path, head_phantoms: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = Path(shutil.copytree(head_phantoms, tmp_path / "data"))
    cts = sorted(data.rglob("CT/*.png"))
    cts[0].write_bytes(cts[0].read_bytes()[:100])
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(cts[1])  # of another size than its MRI
    cts[2].unlink()
    out = tmp_path / "out"
    code, said, error = predict(capsys, fusion_run, "--data", data, "--out", out)
    assert code == 2
    assert said == [
        f"Wrote {len(cts) - 3} results in {out}: {len(cts) - 3} predicted, 3 failed (see its column error)."
    ]
    assert len(error) == 1
    table = pd.read_csv(out / "predictions.csv", dtype=str, keep_default_na=False).set_index("id")
    assert len(table) == len(cts)
    failed = table[table["error"] != ""]
    assert set(failed.index) == {path.stem for path in cts[:3]} and (failed["file"] == "").all()
    assert "one size" in failed.loc[cts[1].stem, "error"]
    assert failed.loc[cts[2].stem, "error"] == f"{cts[2].stem} has no CT picture: add it."
    assert all((out / name).is_file() for name in table.loc[table["error"] == "", "file"])
    # What is scored must be whole.
    message = fails(["evaluate", str(fusion_run), "--data", str(data), "--quiet"], capsys)
    assert message == f"{cts[2].stem} has no CT picture; add it, or leave the sample out."
