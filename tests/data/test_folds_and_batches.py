"""Folds by patient, and the batches of an epoch."""

import numpy as np
import pandas as pd
import pytest

from scanfuse.data.batches import balanced_order, epoch_order, ratio_order, sampling_weights
from scanfuse.data.folds import assign_folds, strata, with_fold
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError

BINARY = Labels("binary", ("0", "1"))
FINDINGS = Labels("multilabel", ("x", "y"))


def _samples(seed: int = 0, patients: int = 50) -> tuple[list[str], np.ndarray]:
    """Patients and outcomes, 0 or 1."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    return [f"p{g}" for g in groups], (rng.random(patients) < 0.3)[groups].astype(int)


def manifest(splits: list[str] | None = None, patients: int = 30) -> Manifest:
    groups, target = _samples(patients=patients)
    table = pd.DataFrame(
        {
            "id": [str(i) for i in range(len(groups))],
            "group": groups,
            "split": ["train"] * len(groups),
            "target": [str(t) for t in target],
            "view": "x.png",
        }
    )
    if splits:
        table["split"] = [splits[int(group[1:]) % len(splits)] for group in groups]
    return Manifest(table, ("view",))


def test_folds_hold_whole_patients_and_equal_shares() -> None:
    groups, outcome = _samples()
    fold = assign_folds(groups, outcome, folds=5, seed=1)
    assert pd.Series(fold).groupby(groups).nunique().max() == 1
    shares = [outcome[fold == number].mean() for number in range(5)]
    assert max(shares) - min(shares) < 0.15
    counts = np.bincount(fold)
    assert counts.min() > 0.6 * counts.max()
    np.testing.assert_array_equal(fold, assign_folds(groups, outcome, folds=5, seed=1))
    assert (fold != assign_folds(groups, outcome, folds=5, seed=2)).any()


def test_the_rarest_label_is_spread() -> None:
    rng = np.random.default_rng(0)
    target = np.stack([rng.random(200) < 0.5, rng.random(200) < 0.06], axis=1).astype(int)
    found = strata([f"x={x};y={y}" for x, y in target], FINDINGS)
    # By hand: the rarest positive finding, -1 without any.
    np.testing.assert_array_equal(found, np.where(target[:, 1] == 1, 1, np.where(target[:, 0] == 1, 0, -1)))
    fold = assign_folds([str(i) for i in range(200)], found, folds=4)
    rare = np.bincount(fold[target[:, 1] == 1], minlength=4)
    assert rare.max() - rare.min() <= 1


def test_strata_of_classes_and_of_what_is_not_known() -> None:
    assert strata(["1", "0", "", "1"], BINARY).tolist() == [1, 0, -1, 1]
    assert strata(["b", "", "a"], Labels("multiclass", ("a", "b"))).tolist() == [1, -1, 0]
    assert strata(["x=;y=1", "x=1;y=", "x=0;y=0", ""], FINDINGS).tolist() == [1, 0, -1, -1]
    assert strata([], BINARY).tolist() == []
    with pytest.raises(UserError, match="is none of"):
        strata(["2"], BINARY)


@pytest.mark.parametrize(
    "target",
    [np.zeros(9, int), np.eye(9, dtype=int)[0], np.arange(9) % 3],
    ids=["one class", "one positive", "three of each"],
)
def test_rare_outcomes_do_not_stop_it(target) -> None:
    fold = assign_folds([str(i) for i in range(9)], target, folds=5)
    assert set(fold) == {0, 1, 2, 3, 4}


def test_impossible_folds() -> None:
    groups, outcome = _samples(patients=3)
    with pytest.raises(UserError, match="there are 3"):
        assign_folds(groups, outcome, folds=5)
    with pytest.raises(UserError, match="at least 2 folds"):
        assign_folds(groups, outcome, folds=1)
    with pytest.raises(UserError, match="no fold 5"):
        with_fold(manifest(), BINARY, folds=5, fold=5)
    with pytest.raises(UserError, match="--folds 3"):
        with_fold(manifest(), BINARY, folds=2, fold=0)


def test_without_a_test_part_every_sample_is_tested_once() -> None:
    base = manifest()
    tested, validated = [], []
    for fold in range(5):
        table = with_fold(base, BINARY, folds=5, fold=fold).table
        assert table.groupby("group")["split"].nunique().max() == 1
        tested += list(table["id"][table["split"] == "test"])
        validated += list(table["id"][table["split"] == "val"])
    assert sorted(tested) == sorted(validated) == sorted(base.table["id"])


def test_a_test_part_stays() -> None:
    base = manifest(["train", "val", "test"])
    validated = []
    for fold in range(3):
        found = with_fold(base, BINARY, folds=3, fold=fold)
        test = found.table["split"] == "test"
        assert (test == (base.table["split"] == "test")).all()
        validated += list(found.table["id"][found.table["split"] == "val"])
        assert any("the test samples are the same" in note for note in found.notes)
    assert sorted(validated) == sorted(base.table["id"][base.table["split"] != "test"])


def test_balanced_drawing_equalises_the_classes() -> None:
    target = np.array([[1.0]] * 10 + [[0.0]] * 190)
    weights = sampling_weights(target, np.ones_like(target, bool))
    assert weights.mean() == pytest.approx(1)
    order = balanced_order(weights, 16, seed=3, epoch=0)
    drawn = np.concatenate(order)
    assert len(drawn) == 200 and [len(batch) for batch in order] == [16] * 12 + [8]
    assert 0.4 < target[drawn, 0].mean() < 0.6
    assert order == balanced_order(weights, 16, seed=3, epoch=0)
    assert order != balanced_order(weights, 16, seed=3, epoch=1)


def test_weights_of_several_labels_and_unknown_ones() -> None:
    target = np.array([[1, 0], [0, 0], [0, 1], [0, 0]], float)
    mask = np.array([[1, 1], [1, 1], [1, 0], [0, 0]], bool)
    # x: one positive and two negatives known; y: two negatives known.
    raw = np.array([(3 / 2 + 1) / 2, (3 / 4 + 1) / 2, 3 / 4, 1])
    np.testing.assert_allclose(sampling_weights(target, mask), raw / raw.mean())


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    order = epoch_order(10, 4, seed=1, epoch=2)
    assert [len(batch) for batch in order] == [4, 4, 2]
    assert sorted(index for batch in order for index in batch) == list(range(10))
    assert order == epoch_order(10, 4, seed=1, epoch=2)
    assert order != epoch_order(10, 4, seed=1, epoch=3)
    assert order != epoch_order(10, 4, seed=2, epoch=2)


def test_a_ratio_of_negatives_is_drawn_anew_every_epoch() -> None:
    """All positives, five times as many others, none twice; the epochs differ in which, a seed repeats itself."""
    positive = np.arange(1000) % 100 == 7
    epochs = [ratio_order(positive, 5, 16, 3, epoch) for epoch in (0, 0, 1)]
    assert epochs[0] == epochs[1] != epochs[2]
    chosen = [{index for batch in epoch for index in batch} for epoch in epochs]
    for epoch, indices in zip(epochs, chosen, strict=True):
        assert sum(map(len, epoch)) == len(indices) == 60 and set(np.flatnonzero(positive)) <= indices
        assert max(map(len, epoch)) == 16
    assert len((chosen[0] & chosen[2]) - set(np.flatnonzero(positive))) < 20
    everything = ratio_order(positive, 500, 16, 3, 0)
    assert sorted(index for batch in everything for index in batch) == list(range(1000))
