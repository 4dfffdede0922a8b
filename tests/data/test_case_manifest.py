"""A user's own table of cases with pictures: columns, splits, gaps."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from scanfuse.data.layouts import Request, open_manifest
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError


def cases(root: Path, *, count: int = 12, split: list[str] | None = None) -> Path:
    """Twelve cases of six patients, two values each."""
    root.mkdir(exist_ok=True)
    names = ["ID", "group", "Target", "image", "age", "site", *(["split"] if split else [])]
    lines = [",".join(names)]
    for number in range(count):
        PIL.Image.fromarray(np.full((8, 8), number, np.uint8)).save(root / f"{number}.png")
        row = [f"c{number}", f"p{number // 2}", str(number % 4 // 2), f"{number}.png", str(40 + number), "arm"]
        lines.append(",".join([*row, *([split[number // 2]] if split else [])]))
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


def opened(root: Path, **wishes: str) -> Manifest:
    return open_manifest(root, "image_table", Request(**wishes))  # type: ignore[arg-type]


def test_every_further_column_is_kept_for_the_table(tmp_path: Path) -> None:
    manifest = opened(cases(tmp_path / "a"))
    assert list(manifest.table) == ["id", "group", "split", "target", "image", "age", "site"]
    assert manifest.table["age"].tolist() == [str(40 + number) for number in range(12)]
    assert all(path.is_file() for row in manifest.rows for path in row.paths.values())
    groups = manifest.table.groupby("group")["split"]
    assert set(manifest.table["split"]) == {"train", "val", "test"} and groups.nunique().max() == 1


def test_a_given_split_is_kept_and_val_is_cut_from_train(tmp_path: Path) -> None:
    whole = opened(cases(tmp_path / "a", split=["train", "val", "test", "train", "train", "test"]))
    assert whole.table["split"].tolist()[::2] == ["train", "val", "test", "train", "train", "test"]
    cut = opened(cases(tmp_path / "b", split=["train", "train", "test", "train", "train", "test"]))
    assert set(cut.table["split"][[4, 5, 10, 11]]) == {"test"} and "val" in set(cut.table["split"])
    assert any("val was cut" in note for note in cut.notes)


def test_cases_without_a_picture(tmp_path: Path) -> None:
    root = cases(tmp_path / "a")
    table = root / "manifest.csv"
    table.write_text(table.read_text().replace(",3.png,", ",,"))
    (root / "5.png").unlink()
    with pytest.raises(UserError, match=r"2 of 12 cases have no picture, such as c3"):
        opened(root)
    kept, dropped = opened(root, incomplete="keep"), opened(root, incomplete="drop")
    assert len(kept) == 12 and any("2 of 12" in note for note in kept.notes)
    assert len(dropped) == 10 and not {"c3", "c5"} & set(dropped.table["id"])


def test_a_missing_column_is_one_line(tmp_path: Path) -> None:
    root = cases(tmp_path / "a")
    table = root / "manifest.csv"
    table.write_text(table.read_text().replace("image", "picture"))
    with pytest.raises(UserError, match=r"is not in the layout 'case_manifest': expected .*image \(a path\)"):
        open_manifest(root, "image_table", Request(), "case_manifest")
