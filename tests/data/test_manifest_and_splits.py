"""The manifest's own checks, its file, and splits by group."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scanfuse.data.manifest import Manifest
from scanfuse.data.splits import assign, cut_validation, split_groups
from scanfuse.errors import UserError


def table(sizes: dict[str, int], **columns: list[str]) -> pd.DataFrame:
    groups = [group for group, size in sizes.items() for _ in range(size)]
    ids = [f"{group}-{index}" for index, group in enumerate(groups)]
    data = {"id": ids, "group": groups, "split": "", "target": "", "mri": [f"/d/mri/{name}.png" for name in ids]}
    return pd.DataFrame({**data, "ct": [f"/d/ct/{name}.png" for name in ids], **columns}, dtype=str)


def manifest(sizes: dict[str, int], notes: tuple[str, ...] = (), **columns: list[str]) -> Manifest:
    return Manifest(table(sizes, **columns), ("mri", "ct"), notes)


def test_written_and_read_back_the_same(tmp_path: Path) -> None:
    rows = table({"a": 2, "b": 1}, split=["train", "train", "test"], target=["0", "1", "1"])
    for name in ("mri", "ct"):
        rows[name] = [str(tmp_path / name / f"{index}.png") for index in range(3)]
    rows.loc[1, "ct"] = ""
    before = Manifest(rows, ("mri", "ct"), ("leaky: as an example", "second"))
    before.write(tmp_path / "split.csv")
    after = Manifest.read(tmp_path / "split.csv", ("mri", "ct"))
    pd.testing.assert_frame_equal(after.table, before.table, check_dtype=False)
    assert after.notes == before.notes and after.digest == before.digest
    assert str(tmp_path) not in (tmp_path / "split.csv").read_text()
    assert [sorted(row.paths) for row in after.rows] == [["ct", "mri"], ["mri"], ["ct", "mri"]]


def test_digest_follows_content_not_place() -> None:
    one = manifest({"a": 2, "b": 2})
    moved = Manifest(one.table.replace(r"^/d/", "/elsewhere/deep/", regex=True), ("mri", "ct"))
    assert moved.digest == one.digest
    assert Manifest(one.table.assign(split="train"), ("mri", "ct")).digest != one.digest
    renamed = one.table.assign(ct=one.table["ct"].str.replace("a-0", "a-9"))
    assert Manifest(renamed, ("mri", "ct")).digest != one.digest


def test_a_group_in_two_splits_is_an_error_unless_labelled() -> None:
    splits = ["train", "test", "train", "val"]
    with pytest.raises(UserError) as caught:
        manifest({"a": 2, "b": 2}, split=splits)
    assert str(caught.value) == (
        "The group 'a' is in train and test (1 more such): the scores would be too good. "
        "Put all its rows in one split, or leave the split column empty to have it made by group."
    )
    assert manifest({"a": 2, "b": 2}, notes=("leaky: on purpose",), split=splits).is_leaky


def test_manifest_checks_ids_splits_and_columns() -> None:
    with pytest.raises(UserError, match="holds the id 'x' more than once"):
        manifest({"a": 2}, id=["x", "x"])
    with pytest.raises(UserError, match="Unknown split 'Train' in the manifest"):
        manifest({"a": 1}, split=["Train"])
    with pytest.raises(UserError, match="has no column spect; it has id, group"):
        Manifest(table({"a": 1}), ("mri", "spect"))
    with pytest.raises(UserError, match="holds no sample"):
        Manifest(table({"a": 1})[:0], ("mri", "ct"))


def test_subset_and_description() -> None:
    whole = manifest({"a": 2, "b": 1}, split=["train", "train", "test"])
    assert whole.describe() == "train 2 of 1 group, test 1 of 1 group"
    assert list(whole.subset("train").table["id"]) == ["a-0", "a-1"]
    with pytest.raises(UserError, match=r"No sample is in the split 'val'; there are: train 2 of 1 group"):
        whole.subset("val")


# --- splits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 4, 6, 11, 40])
@pytest.mark.parametrize("seed", range(5))
def test_every_split_has_a_group_and_no_group_two_splits(count: int, seed: int) -> None:
    sizes = {f"g{index}": 1 + (index * 7) % 19 for index in range(count)}
    split = assign(manifest(sizes), seed=seed)  # Manifest itself refuses a group in two splits
    assert set(split.table["split"]) == {"train", "val", "test"}
    # No worse than one group away from each wanted share
    for name, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        got = (split.table["split"] == name).sum()
        assert abs(got - share * len(split)) <= 2 * max(sizes.values())


def test_seeds_decide_and_row_order_does_not() -> None:
    sizes = {f"g{index}": 15 + index % 4 for index in range(11)}
    one = manifest(sizes)
    shuffled = Manifest(one.table.sample(frac=1, random_state=3).reset_index(drop=True), one.modalities)
    by_group = [
        dict(zip(part.table["group"], part.table["split"], strict=True))
        for part in (assign(one, seed=4), assign(one, seed=4), assign(shuffled, seed=4))
    ]
    assert by_group[0] == by_group[1] == by_group[2]
    tests = {tuple(sorted(set(assign(one, seed=seed).subset("test").table["group"]))) for seed in range(12)}
    assert len(tests) > 5


def test_large_sets_are_balanced_by_rows_and_target() -> None:
    random = np.random.default_rng(0)
    sizes = {f"g{index}": int(random.integers(1, 6)) for index in range(200)}
    groups = [group for group, size in sizes.items() for _ in range(size)]
    targets = [str(int(int(group[1:]) % 5 == 0)) for group in groups]
    by_group = split_groups(groups, targets, seed=1)
    splits = np.array([by_group[group] for group in groups])
    for target, share in ((t, s) for t in ("0", "1") for s in ({"train": 0.7}, {"val": 0.15}, {"test": 0.15})):
        ((name, wanted),) = share.items()
        of_target = np.array(targets) == target
        assert abs((splits[of_target] == name).mean() - wanted) < 0.07


def test_too_few_groups_say_what_to_do() -> None:
    with pytest.raises(UserError) as caught:
        assign(manifest({"a": 9, "b": 9}))
    assert str(caught.value) == (
        "Only 2 groups (patients, cases): a split into train, val, test needs at least 3. "
        "Add cases, or give a split column in a manifest.csv."
    )
    two = assign(manifest({"a": 9, "b": 9}), fractions={"train": 0.8, "test": 0.2})
    assert set(two.table["split"]) == {"train", "test"}
    with pytest.raises(UserError, match="Split fractions must be shares"):
        assign(manifest({"a": 1, "b": 1, "c": 1}), fractions={"train": 1.0, "dev": 0.5})


def test_validation_is_cut_from_train_by_group() -> None:
    rows = table({"a": 5, "b": 5, "c": 5, "d": 5}, split=["train"] * 15 + ["test"] * 5)
    cut = cut_validation(rows, 0.3, seed=0)
    assert (cut["split"] == "test").sum() == 5 and (cut["split"] == "val").sum() == 5
    assert Manifest(cut, ("mri", "ct")).describe().startswith("train 10 of 2 groups, val 5 of 1 group")
