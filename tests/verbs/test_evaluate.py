"""The evaluation engine: which samples are scored, and what is said of them."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from scanfuse import config, systems
from scanfuse.data.inputs import Fitted
from scanfuse.errors import UserError
from scanfuse.metrics.fusion import METRICS
from scanfuse.run import Run, create_run
from scanfuse.tables import markdown
from scanfuse.tasks import fuse
from scanfuse.tasks.fuse import images
from scanfuse.verbs.evaluate import evaluate
from scanfuse.verbs.predict import Predictor, load
from scanfuse.verbs.samples import leakage

SYSTEM = "clinicalfmamba"


def untrained(path: Path, data: Path, **settings_of_data: str) -> Predictor:
    """A run of the tiny network as it was drawn, with the split of `data`."""
    system_type = systems.load(SYSTEM)
    settings = config.build(system_type.Config, config.preset(SYSTEM, "tiny"), {"data": settings_of_data})
    system = system_type(settings)
    run = create_run(path, settings, system.data.open(data), Fitted(), {})
    run.save_weights(system.model.state_dict(), {"system": SYSTEM})
    return load(path, device="cpu")


@pytest.fixture
def ours(head_phantoms: Path, tmp_path: Path) -> Predictor:
    return untrained(tmp_path / "run", head_phantoms)


@pytest.fixture
def quick_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two metrics in place of fifteen, for tests of what surrounds them: mean grey levels, one of them worse high."""
    monkeypatch.setattr(
        images, "score", lambda fused, a, b: {"grey": float(fused.mean()), "dark": float(255 - fused.mean())}
    )
    directions = {"grey": "higher", "dark": "lower"}
    metrics = {name: METRICS["psnr"]._replace(better=better) for name, better in directions.items()}  # type: ignore[arg-type]
    monkeypatch.setattr(fuse, "METRICS", metrics)


def edit_split(run: Run, change: Any) -> pd.DataFrame:
    """Rewrites split.csv with the changed table and gives the table from before the change."""
    before = run.split()
    change(before.copy()).to_csv(run.split_file, index=False)
    return before


def test_leakage_by_hand() -> None:
    trained = pd.DataFrame({"group": ["a", "b", "c", "c"], "split": ["train", "val", "test", "test"]})
    tested = pd.DataFrame(
        {"group": ["c", "b", "a", "d", "a", "e"], "split": ["test", "test", "train", "test", "test", "val"]}
    )
    assert leakage(tested, trained) == ["a", "b"]
    assert leakage(tested[tested["group"] == "c"], trained) == []


def test_the_test_split_of_the_run_is_scored(
    ours: Predictor, head_phantoms: Path, tmp_path: Path, quick_scores: None
) -> None:
    split = ours.run.split()
    expected = split[split["split"] == "test"]
    evaluation = evaluate({"run": ours}, head_phantoms, out=tmp_path / "e", pictures=1, quiet=True)
    assert evaluation.methods == ["run", "average", "maximum", "laplacian"]
    assert (evaluation.samples, evaluation.groups) == (len(expected), expected["group"].nunique())
    for method in evaluation.methods:
        rows = [row for row in evaluation.rows if row["method"] == method]
        assert [row["id"] for row in rows] == list(expected["id"])
        assert [row["group"] for row in rows] == list(expected["group"])
        mean = np.mean([row["grey"] for row in rows])
        assert evaluation.cells[method]["grey"].mean == pytest.approx(mean, abs=1e-12)
    # The values are those of the pictures that a prediction writes.
    first = next(row for row in evaluation.rows if row["method"] == "run")
    paths = ours.system.data.open(head_phantoms).table.set_index("id").loc[first["id"]]
    predicted = ours.predict(ct=paths["ct"], mri=paths["mri"])
    assert first["grey"] == predicted.luminance.mean()
    with PIL.Image.open(tmp_path / "e" / "gallery.png") as picture:
        assert picture.size[1] == 3 * 48 + 22 + 4  # pictures of 48 pixels are shown three times as large
    with (tmp_path / "e" / "per_sample.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4 * len(expected)


def test_the_other_splits_and_their_note(ours: Predictor, head_phantoms: Path, quick_scores: None) -> None:
    counts = ours.run.split()["split"].value_counts()
    for split, count in (("val", counts["val"]), ("train", counts["train"]), ("all", counts.sum())):
        evaluation = evaluate({"run": ours}, head_phantoms, split=split, pictures=0, quiet=True)  # type: ignore[arg-type]
        assert evaluation.samples == count
        warned = any("were trained on" in note for note in evaluation.notes)
        assert warned == (split != "val")


def test_samples_that_the_run_does_not_know_are_test_samples(
    ours: Predictor, head_phantoms: Path, quick_scores: None
) -> None:
    """A whole case that was in the data's own training split, but not in this run's."""
    split = ours.run.split()
    case = split[split["split"] == "train"]["group"].iloc[0]
    edit_split(ours.run, lambda table: table[table["group"] != case])
    evaluation = evaluate({"run": ours}, head_phantoms, pictures=0, quiet=True)
    wanted = split[(split["split"] == "test") | (split["group"] == case)]
    assert [row["id"] for row in evaluation.rows if row["method"] == "run"] == list(wanted["id"])


def test_unknown_slices_of_a_training_case_are_refused_or_labelled(
    ours: Predictor, head_phantoms: Path, quick_scores: None
) -> None:
    split = ours.run.split()
    row = split[split["split"] == "train"].iloc[0]
    edit_split(ours.run, lambda table: table[table["id"] != row["id"]])
    with pytest.raises(UserError, match=f"The cases {row['group']} are in the training of run .*--on all"):
        evaluate({"run": ours}, head_phantoms, pictures=0, quiet=True)
    evaluation = evaluate({"run": ours}, head_phantoms, split="all", pictures=0, quiet=True)
    assert evaluation.samples == len(split)
    assert any(note.startswith("leaky: of 1 case") for note in evaluation.notes)
    assert "Note: leaky" in markdown(evaluation)


def test_the_notes_of_a_leaky_split_are_shown(head_phantoms: Path, tmp_path: Path, quick_scores: None) -> None:
    leaky = untrained(tmp_path / "run", head_phantoms, split="published")
    evaluation = evaluate({"run": leaky}, head_phantoms, pictures=0, quiet=True)
    assert sum(note.startswith("leaky") for note in evaluation.notes) == 1
    assert "Note: leaky" in markdown(evaluation)


def test_runs_of_other_splits_and_names_of_baselines_are_refused(
    ours: Predictor, head_phantoms: Path, tmp_path: Path, quick_scores: None
) -> None:
    other = untrained(tmp_path / "other", head_phantoms)
    both = evaluate({"a": ours, "b": other}, head_phantoms, pictures=0, quiet=True)
    assert both.methods[:2] == ["a", "b"]

    def swap(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(split=table["split"].replace({"val": "test", "test": "val"}))

    edit_split(other.run, swap)
    with pytest.raises(UserError, match="a and b were trained on different splits"):
        evaluate({"a": ours, "b": other}, head_phantoms, pictures=0, quiet=True)
    with pytest.raises(UserError, match="name of the plain method 'average'"):
        evaluate({"average": ours}, head_phantoms, pictures=0, quiet=True)
