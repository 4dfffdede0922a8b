"""Cross-validation of what has no labels: every patient is held out once, and one table shows them all."""

from pathlib import Path

import pandas as pd
import pytest

from scanfuse.cli import main
from scanfuse.data.folds import FoldConfig, folded
from scanfuse.data.inputs.boxed_pairs import BoxedPairs, BoxSettings
from scanfuse.data.inputs.image_pairs import ImagePairs, PairSettings
from scanfuse.data.inputs.volumes import VolumePairs, VolumeSettings
from scanfuse.data.manifest import Manifest
from whole_jobs import json_of, table_of

SMALL = "--preset tiny --channels 4,4,8 --latent-blocks 1 --decoder-blocks 1 --d-state 2 --crop 32 --epochs 1".split()
RUN = "--batch 4 --threads 1 --device cpu --quiet".split()


def opened(kind: str, root: Path, folds: FoldConfig) -> Manifest:
    if kind == "images":
        return ImagePairs(PairSettings(test_fraction=0), seed=0, folds=folds).open(root)
    if kind == "volumes":
        return VolumePairs(VolumeSettings(test_fraction=0), seed=0, folds=folds).open(root)
    settings = BoxSettings(test_fraction=0)
    return BoxedPairs(settings, classes=("car", "person", "bike"), seed=0, epochs=1, folds=folds).open(root)


@pytest.mark.parametrize(("kind", "data"), [("images", "head_phantoms"), ("volumes", "brains"), ("boxes", "roads")])
def test_every_group_is_tested_once(kind: str, data: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(data)
    parts = [opened(kind, root, FoldConfig(folds=3, fold=fold)).table for fold in range(3)]
    tested = pd.concat([table[table["split"] == "test"] for table in parts])
    assert sorted(tested["id"]) == sorted(parts[0]["id"])
    for table in parts:
        assert table.groupby("group")["split"].nunique().max() == 1
        assert set(table["split"]) == {"train", "val", "test"}
    whole = opened(kind, root, FoldConfig())
    assert "test" not in set(whole.table["split"])
    assert folded(whole, FoldConfig()) is whole


def test_the_whole_job(head_phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "cv"
    train = ["train", "clinicalfmamba", "--data", str(head_phantoms), "--out", str(out), *SMALL, *RUN]
    assert main([*train, "--folds", "3", "--test-fraction", "0"]) == 0
    assert main(["evaluate", str(out), "--data", str(head_phantoms), "--quiet"]) == 0
    folder = out / "evaluation" / "out-of-fold-test"
    found = json_of(folder / "evaluation.json")
    rows = table_of(folder / "per_sample.csv")
    pooled = rows[rows["method"] == "out of fold"]
    every = table_of(out / "fold-0" / "split.csv")
    assert sorted(pooled["id"]) == sorted(every["id"])
    assert sorted(set(pooled["run"])) == ["fold-0", "fold-1", "fold-2"]
    for name in ("fold-0", "fold-1", "fold-2"):
        split = table_of(out / name / "split.csv")
        assert set(pooled.loc[pooled["run"] == name, "id"]) == set(split.loc[split["split"] == "test", "id"])
    assert {"out of fold", "average", "maximum", "laplacian"} == set(rows["method"])
    assert found["samples"] == len(every)
    assert main(["report", str(out)]) == 0
    assert "out of fold" in (out / "report.html").read_text()
