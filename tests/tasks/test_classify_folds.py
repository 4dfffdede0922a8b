"""Folds by patient and balanced drawing."""

import numpy as np
import pandas as pd
import pytest

from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.tasks.classify import Task
from scanfuse.tasks.classify_folds import assign_folds, balanced_order, sampling_weights, with_fold

BINARY = Task("binary", ("abnormal",))
LABELS = Task("multilabel", ("x", "y"))


def _samples(seed: int = 0, patients: int = 50):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    target = (rng.random(patients) < 0.3)[groups][:, None].astype(float)
    return [f"p{g}" for g in groups], target, np.ones_like(target, bool)


def manifest(splits: list[str] | None = None, patients: int = 30) -> Manifest:
    groups, target, _ = _samples(patients=patients)
    table = pd.DataFrame(
        {
            "id": [str(i) for i in range(len(groups))],
            "group": groups,
            "split": ["train"] * len(groups),
            "target": [f"{int(t)}" for t in target[:, 0]],
            "view": "x.png",
        }
    )
    if splits:
        table["split"] = [splits[int(group[1:]) % len(splits)] for group in groups]
    return Manifest(table, ("view",))


def test_folds_hold_whole_patients_and_equal_shares():
    groups, target, mask = _samples()
    fold = assign_folds(groups, target, mask, BINARY, folds=5, seed=1)
    assert pd.Series(fold).groupby(groups).nunique().max() == 1
    shares = [target[fold == number].mean() for number in range(5)]
    assert max(shares) - min(shares) < 0.15
    counts = np.bincount(fold)
    assert counts.min() > 0.6 * counts.max()
    np.testing.assert_array_equal(fold, assign_folds(groups, target, mask, BINARY, folds=5, seed=1))
    assert (fold != assign_folds(groups, target, mask, BINARY, folds=5, seed=2)).any()


def test_the_rarest_label_is_spread():
    rng = np.random.default_rng(0)
    target = np.stack([rng.random(200) < 0.5, rng.random(200) < 0.06], axis=1).astype(float)
    fold = assign_folds([str(i) for i in range(200)], target, np.ones_like(target, bool), LABELS, folds=4)
    rare = np.bincount(fold[target[:, 1] == 1], minlength=4)
    assert rare.max() - rare.min() <= 1


@pytest.mark.parametrize(
    "target",
    [np.zeros((9, 1)), np.eye(9)[:, :1], np.arange(9.0)[:, None] % 3],
    ids=["one class", "one positive", "three of each"],
)
def test_rare_outcomes_do_not_stop_it(target):
    classes = Task("multiclass", ("a", "b", "c"))
    fold = assign_folds([str(i) for i in range(9)], target, np.ones((9, 1), bool), classes, folds=5)
    assert set(fold) == {0, 1, 2, 3, 4}


def test_impossible_folds():
    groups, target, mask = _samples(patients=3)
    with pytest.raises(UserError, match="there are 3"):
        assign_folds(groups, target, mask, BINARY, folds=5)
    with pytest.raises(UserError, match="at least 2 folds"):
        assign_folds(groups, target, mask, BINARY, folds=1)
    with pytest.raises(UserError, match="no fold 5"):
        with_fold(manifest(), BINARY, folds=5, fold=5)
    with pytest.raises(UserError, match="--folds 3"):
        with_fold(manifest(), BINARY, folds=2, fold=0)


def test_without_a_test_part_every_sample_is_tested_once():
    base = manifest()
    tested, validated = [], []
    for fold in range(5):
        table = with_fold(base, BINARY, folds=5, fold=fold).table
        assert table.groupby("group")["split"].nunique().max() == 1
        tested += list(table["id"][table["split"] == "test"])
        validated += list(table["id"][table["split"] == "val"])
    assert sorted(tested) == sorted(validated) == sorted(base.table["id"])


def test_a_test_part_stays():
    base = manifest(["train", "val", "test"])
    validated = []
    for fold in range(3):
        found = with_fold(base, BINARY, folds=3, fold=fold)
        test = found.table["split"] == "test"
        assert (test == (base.table["split"] == "test")).all()
        validated += list(found.table["id"][found.table["split"] == "val"])
        assert any("the test samples are the same" in note for note in found.notes)
    assert sorted(validated) == sorted(base.table["id"][base.table["split"] != "test"])


def test_balanced_drawing_equalises_the_classes():
    target = np.array([[1.0]] * 10 + [[0.0]] * 190)
    weights = sampling_weights(target, np.ones_like(target, bool), BINARY)
    assert weights.mean() == pytest.approx(1)
    order = balanced_order(weights, 16, seed=3, epoch=0)
    drawn = np.concatenate(order)
    assert len(drawn) == 200 and [len(batch) for batch in order] == [16] * 12 + [8]
    assert 0.4 < target[drawn, 0].mean() < 0.6
    assert order == balanced_order(weights, 16, seed=3, epoch=0)
    assert order != balanced_order(weights, 16, seed=3, epoch=1)


def test_weights_of_several_labels_and_unknown_ones():
    target = np.array([[1, 0], [0, 0], [0, 1], [0, 0]], float)
    mask = np.array([[1, 1], [1, 1], [1, 0], [0, 0]], bool)
    # x: one positive and two negatives known; y: two negatives known.
    raw = np.array([(3 / 2 + 1) / 2, (3 / 4 + 1) / 2, 3 / 4, 1])
    np.testing.assert_allclose(sampling_weights(target, mask, LABELS), raw / raw.mean())
