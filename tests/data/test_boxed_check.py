"""What is found wrong with boxed pairs before a training: each fault planted, and nothing else said."""

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from scanfuse.data import boxed_check
from scanfuse.data.check import Finding
from scanfuse.data.inputs.boxed_pairs import BoxedPairs, BoxSettings
from scanfuse.data.synthetic import llvip, msrs


def check(root: Path, **settings: object) -> list[Finding]:
    return BoxedPairs(BoxSettings(**settings), classes=("person",), seed=0, epochs=1).check(root)


def messages(findings: list[Finding], kind: str) -> list[str]:
    return [finding.message for finding in findings if finding.kind == kind]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough to see a shift in."""
    return msrs.write(tmp_path_factory.mktemp("made"), msrs.Options(scenes=8, frames=1, size=256, seed=3))


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def test_good_data_are_not_out_of_step(made: Path) -> None:
    findings = check(made)
    assert messages(findings, "shift") == [] and not any(each.severity == "error" for each in findings)
    assert {finding.kind for finding in findings} <= {"boxes"}


def test_a_shifted_pair_is_found_with_its_pixels(copied: Path) -> None:
    for path in sorted((copied / "ir").iterdir()):
        with PIL.Image.open(path) as picture:
            pixels = np.asarray(picture)
        PIL.Image.fromarray(np.roll(pixels, (5, -9), axis=(0, 1))).save(path)
    (said,) = messages(check(copied), "shift")
    words = said.split()
    assert "pairs looked at (of 8) are out of step" in said and int(words[0]) >= 4
    assert "pixels left and" in said and "down of RGB (confidence 0." in said
    found = float(words[words.index("pixels") - 1]), float(words[words.index("down") - 1])
    assert found == pytest.approx((9, 5), abs=1)


def test_no_more_pairs_are_looked_at_than_said(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxed_check, "LOOKED_AT", 3)
    seen = []
    monkeypatch.setattr(boxed_check, "_shift", lambda row: seen.append(row.id) or (float(len(seen)), "9 pixels"))
    (said,) = messages(check(made), "shift")
    assert len(set(seen)) == 3 and said.startswith(f"3 of 3 pairs looked at (of 8) are out of step, most {seen[-1]}")


def test_boxes_that_were_cut_or_left_out_are_told(copied: Path) -> None:
    file = sorted((copied / "labels/visible").iterdir())[0]
    file.write_text("2 0.98 0.5 0.2 0.2\n")
    assert any("clipped: 1." in said for said in messages(check(copied), "boxes"))
    left_out = messages(check(copied, options=("classes=person",)), "boxes")
    assert any(said.startswith("left out by name: ") and "car" in said for said in left_out)


def test_classes_that_a_part_lacks_are_told_by_name(copied: Path) -> None:
    """One box in all the data: whichever part has it, the others lack the class."""
    files = sorted(copied.glob("labels/*/*.txt"))
    for file in files:
        file.write_text("")
    next(file for file in files if file.parent.name == "visible").write_text("0 0.5 0.5 0.2 0.2\n")
    said = messages(check(copied), "boxes")
    assert sum("has no box of person." in line for line in said) == 2
    assert not messages(check(copied), "outcomes")


def test_no_box_at_all_is_an_error(copied: Path) -> None:
    for file in copied.glob("labels/*/*.txt"):
        file.write_text("")
    (found,) = [each for each in check(copied) if each.severity == "error"]
    assert found.message.startswith("No picture has a box")


def test_scenes_in_two_published_splits_are_told_once(tmp_path: Path) -> None:
    root = llvip.write(tmp_path / "roads", llvip.Options(scenes=5, frames=2, size=64, seed=0))
    home = root / "LLVIP"
    for folder in ("visible", "infrared"):
        (home / folder / "train/010001.jpg").rename(home / folder / "test/010001.jpg")
    said = messages(check(root, split="published"), "group")
    assert said == ["leaky: 1 scene(s) are in more than one given split, such as place-01."]
