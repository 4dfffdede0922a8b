"""`check` on a good data set, then with one fault at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from dicom_files import write as write_dicom

from opening import open_pairs
from scanfuse.data import check as checking
from scanfuse.data.check import Finding
from scanfuse.data.inputs.image_pairs import ImagePairs, PairSettings
from scanfuse.data.manifest import Manifest
from scanfuse.data.readers import read_image, write_image
from scanfuse.data.synthetic import harvard


def check(root: Path, **settings: Any) -> list[Finding]:
    return ImagePairs(PairSettings(**settings), seed=0).check(root)


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    return harvard.write(tmp_path, harvard.Options(cases=4, slices=2, size=32))


def only(findings: list[Finding], kind: str, severity: str = "error") -> str:
    assert [(finding.severity, finding.kind) for finding in findings] == [(severity, kind)], findings
    assert "\n" not in str(findings[0]) and str(findings[0]).startswith(f"{severity}: ")
    return findings[0].message


def test_nothing_to_say(heads: Path) -> None:
    assert check(heads) == []


def test_missing_folder(tmp_path: Path) -> None:
    assert "does not exist" in only(check(tmp_path / "no"), "layout")


def test_unpaired_and_unreadable_are_all_listed(heads: Path) -> None:
    train = heads / "CT-MRI" / "train"
    (train / "CT" / "1005.png").unlink()
    whole = (train / "MRI" / "2005.png").read_bytes()
    (train / "MRI" / "2005.png").write_bytes(whole[: len(whole) // 2])
    (train / "MRI" / "3005.png").write_text("text")
    messages = [finding.message for finding in check(heads)]
    assert messages[0] == f"1005 has no CT picture (it has {train}/MRI/1005.png)."
    assert messages[1].startswith(f"{train}/MRI/2005.png is damaged or cut short")
    assert messages[2] == f"{train}/MRI/3005.png is not a PNG or JPEG picture but text; export it again."
    assert len(messages) == 3


def test_size(heads: Path) -> None:
    write_image(heads / "CT-MRI/train/CT/1005.png", np.arange(20, dtype=np.uint8).reshape(4, 5))
    message = only(check(heads), "size")
    assert message == "1005 differs in size between its modalities: CT 4 x 5, MRI 32 x 32; resample one of them."


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ({"train": "0 1 0", "val": "1 0", "test": "0 1"}, []),
        ({"train": "0 1 0", "val": "1 1", "test": "0"}, ["val (2 studies of 2 patients) has no case of 0.",
                                                         "test (1 studies of 1 patients) has no case of 1."]),
        ({"train": "a b c d e f", "test": "a"},
         ["test (1 studies of 1 patients) has no case of b, c, d, e and 1 more."]),
        ({"train": "x=1;y=0 x=0;y=", "val": "x=1;y=1 x=;y=0"}, ["train (2 studies of 2 patients) has no case of y=1.",
                                                                "val (2 studies of 2 patients) has no case of x=0."]),
    ],
)  # fmt: skip
def test_outcomes_that_a_split_lacks(tmp_path: Path, targets: dict[str, str], expected: list[str]) -> None:
    rows = [(split, target) for split, texts in targets.items() for target in texts.split()]
    random = np.random.default_rng(0)
    table = {"id": [], "group": [], "split": [], "target": [], "frontal": []}  # type: ignore[var-annotated]
    for number, (split, target) in enumerate(rows):
        write_image(tmp_path / f"{number}.png", random.integers(0, 255, (8, 8)).astype(np.uint8))
        cells = (f"s{number}", f"p{number}", split, target, str(tmp_path / f"{number}.png"))
        for column, cell in zip(table.values(), cells, strict=True):
            column.append(cell)
    manifest = Manifest(pd.DataFrame(table), ("frontal",))
    findings = checking.check(lambda split: manifest, is_registered=False)
    assert [finding.message for finding in findings] == expected
    assert all(finding.kind == "outcomes" and finding.severity == "warning" for finding in findings)


def test_duplicates_matter_across_splits(heads: Path) -> None:
    train = heads / "CT-MRI" / "train" / "CT"
    before = (train / "1005.png").read_bytes()
    (train / "1005.png").write_bytes((train / "1006.png").read_bytes())
    assert "hold the same pixels, in the same split; keep one." in only(check(heads), "duplicate", "warning")
    (train / "1005.png").write_bytes(before)
    # The same pixels, packed otherwise, in another case: still the same picture.
    PIL.Image.fromarray(read_image(train / "1006.png").pixels).save(train / "3005.png", compress_level=1)
    severities = set()
    for seed in range(30):
        findings = check(heads, split_seed=seed)
        severities.add(findings[0].severity)
        only(findings, "duplicate", findings[0].severity)
    assert severities == {"error", "warning"}  # by whether the two cases share a split


def test_constant_alpha_and_depth(heads: Path) -> None:
    ct = heads / "CT-MRI" / "train" / "CT"
    write_image(ct / "1005.png", np.full((32, 32), 9, np.uint8))
    write_image(ct / "1006.png", np.full((32, 32), 9, np.uint8))  # not called a duplicate
    colour = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    PIL.Image.fromarray(colour).save(ct / "3005.png")
    write_image(ct / "3006.png", np.arange(1024, dtype=np.uint16).reshape(32, 32))
    findings = check(heads)
    assert [(finding.severity, finding.kind) for finding in findings] == [("warning", "constant")] * 2 + [
        ("warning", "mode")
    ] * 2
    assert findings[0].message == f"{ct}/1005.png is constant: every pixel is 9."
    assert findings[2].message.startswith("1 CT picture(s) of 16 bit")
    assert findings[3].message.startswith("1 CT picture(s) with an alpha channel")


def test_published_split_is_leaky(heads: Path) -> None:
    assert only(check(heads, split="published"), "group", "warning").startswith("leaky: ")


def table(folder: Path, header: str, rows: list[str]) -> None:
    random = np.random.default_rng(1)
    for index in range(len(rows)):
        for name in ("a", "b"):
            write_image(folder / name / f"{index}.png", random.integers(0, 256, (4, 4), dtype=np.uint8))
    lines = [f"id,group,ct,mri,{header}"]
    lines += [f"{index},g{index // 2},a/{index}.png,b/{index}.png,{row}" for index, row in enumerate(rows)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


def test_the_fractions_of_the_split_are_those_of_the_training(tmp_path: Path) -> None:
    """Three cases can be split into three; nothing is left to train on if two parts take everything."""
    heads = harvard.write(tmp_path / "heads", harvard.Options(cases=12, slices=1, size=32))
    assert check(heads) == []
    assert "leave nothing to train on" in only(check(heads, val_fraction=0.5, test_fraction=0.5), "layout")
    # One picture in two cases: whether that is an error depends on the shares, with which the cases part.
    (heads / "CT-MRI/train/CT/12005.png").write_bytes((heads / "CT-MRI/train/CT/1005.png").read_bytes())
    severities = {
        share: [finding.severity for finding in check(heads, val_fraction=share, split_seed=1)]
        for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    }
    wanted = {}
    for share in severities:
        settings = PairSettings(val_fraction=share, split_seed=1)
        table = ImagePairs(settings, seed=0).open(heads).table.set_index("id")["split"]
        wanted[share] = ["warning"] if table["1005"] == table["12005"] else ["error"]
    assert severities == wanted and len({tuple(found) for found in severities.values()}) == 2


def test_group_in_two_splits_and_the_files_are_still_read(tmp_path: Path) -> None:
    table(tmp_path, "split", ["train", "test", "train", "train", "test", "test"])
    (tmp_path / "a" / "5.png").write_text("text")
    findings = check(tmp_path)
    assert [finding.kind for finding in findings] == ["layout", "unreadable"]
    assert findings[0].message.startswith("The group 'g0' is in train and test")


def test_columns_that_leak_the_target(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    rows = []
    for index in range(16):
        target = index % 2
        diagnosis = ["nevus", "keratosis"][index // 8] if target == 0 else "melanoma"
        rows.append(
            f"{target},{diagnosis},{target * 10 + random.random():.3f},{random.random():.3f},{index % 4 // 2}"
        )
    table(tmp_path, "target,diagnosis,score,age,sex", rows)
    leaks = [finding for finding in check(tmp_path) if finding.kind == "leak"]
    assert [finding.message for finding in leaks] == [
        "The column 'diagnosis' may leak the target: each of its values goes with one target; "
        "do not use it as an input.",
        "The column 'score' may leak the target: the order of its numbers parts the targets; "
        "do not use it as an input.",
    ]


def test_dicom_slices_out_of_order(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    lines = ["id,group,ct,mri"]
    for group, places in (("good", [0, 5, 10, 15]), ("bad", [0, 5, 15, 10])):
        for index, place in enumerate(places):
            for name in ("ct", "mri"):
                pixels = random.integers(0, 4000, (4, 4)).astype(np.int16)
                geometry = {"ImagePositionPatient": [3, 4, place], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
                (tmp_path / name).mkdir(exist_ok=True)
                write_dicom(tmp_path / name / f"{group}{index}.dcm", pixels, **(geometry if name == "ct" else {}))
            lines.append(f"{group}{index},{group},ct/{group}{index}.dcm,mri/{group}{index}.dcm")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    unsplit = open_pairs(tmp_path, ("CT", "MRI"), "none")
    assert only(checking.check_manifest(unsplit, is_registered=True), "order", "warning") == (
        "The CT slices of bad are not in the order of their names, first at bad3; rename them by position."
    )


@pytest.mark.data
def test_real_harvard_is_clean(real_data: Path) -> None:
    assert check(real_data / "harvard") == []
