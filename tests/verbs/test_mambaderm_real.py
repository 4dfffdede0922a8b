"""MambaDerm on real files: the official test format of ISIC 2024, telephones' RGBA pictures and gaps, HAM10000."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scanfuse.cli import main
from scanfuse.data.inputs.image_table import CaseSettings
from scanfuse.data.synthetic import isic2024, pad_ufes
from whole_jobs import table_of

pytestmark = pytest.mark.data
FLAGS = "--preset tiny --epochs 1 --size 32 --batch 16 --threads 1 --device cpu --quiet".split()


def trained(data: Path, out: Path) -> Path:
    assert main(["train", "mambaderm", "--data", str(data), "--out", str(out), *FLAGS]) == 0
    return out


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def test_the_official_test_format_is_predicted_and_submitted(real_data: Path, tmp_path: Path) -> None:
    moles = isic2024.write(tmp_path / "moles", isic2024.Options(patients=30, size=32))
    run, file = trained(moles, tmp_path / "run"), tmp_path / "submission.csv"
    command = ["predict", str(run), "--data", str(real_data / "isic2024"), "--out", str(tmp_path / "out")]
    assert main([*command, "--device", "cpu", "--submission", str(file)]) == 0
    official = pd.read_csv(real_data / "isic2024/test-metadata.csv", dtype=str)
    found = pd.read_csv(file)
    assert official.shape[1] == 44 and "target" not in official
    assert list(found) == ["isic_id", "target"] and list(found["isic_id"]) == list(official["isic_id"])
    assert found["target"].between(0, 1).all() and found["target"].nunique() == len(found)


def test_rows_without_a_picture_and_pictures_with_transparency(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "pad-ufes-20"
    files = {path.stem: path for path in (root / "images").glob("*.png")}
    assert {opened(path).mode for path in files.values()} == {"RGB", "RGBA"}
    manifest = CaseSettings().open(root, split=False)
    lacking = set(manifest.table["id"][manifest.table["image"] == ""])
    assert lacking == set(manifest.table["id"]) - set(files) and len(lacking) == 2
    phones = pad_ufes.write(tmp_path / "phones", pad_ufes.Options(patients=40, size=32))
    run = trained(phones, tmp_path / "run")
    command = ["predict", str(run), "--data", str(root), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(command) == 0
    found = table_of(tmp_path / "out/predictions.csv")
    assert set(found["id"]) == set(manifest.table["id"]) and "error" not in found
    assert found["p_malignant"].between(0, 1).all()
    # What is transparent does not hide what lies under it: the picture is that of its colours.
    transparent = next(path for path in files.values() if opened(path).mode == "RGBA")
    opened(transparent).convert("RGB").save(tmp_path / "opaque.png")
    values = []
    for number, path in enumerate((transparent, tmp_path / "opaque.png")):
        out = tmp_path / f"one-{number}"
        assert main(["predict", str(run), "--image", str(path), "--out", str(out), "--device", "cpu"]) == 0
        values.append(next(out.glob("*.json")).read_text().partition('"probabilities"')[2].partition("}")[0])
    alpha = np.asarray(opened(transparent).getchannel("A"))
    assert (alpha == 255).all() and values[0] == values[1]


def test_lesions_stay_together(real_data: Path) -> None:
    manifest = CaseSettings().open(real_data / "ham10000")
    table = manifest.table
    assert len(table) == 526 and (table.groupby("group")["split"].nunique() == 1).all()
    assert table["group"].nunique() < len(table)
    assert set(table["target"]) == {"0", "1"} and table["age"].eq("").any()
    shares = table.groupby("split")["target"].apply(lambda part: (part == "1").mean())
    assert shares.max() - shares.min() < 0.1
