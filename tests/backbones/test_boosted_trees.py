"""Trees in arrays against the library that fitted them: the same logits, on rows, categories and gaps never seen."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from scanfuse.backbones import boosted_trees
from scanfuse.backbones.boosted_trees import BoostedTrees, TreeSettings, fit_trees
from scanfuse.errors import UserError

CATEGORIES = (0, 4, 0, 0, 6)
SETTINGS = TreeSettings(rounds=40, leaves=8, rate=0.2, least=5)
Part = tuple[np.ndarray, np.ndarray, np.ndarray]


def table_of(random: np.random.Generator, count: int, *, unseen: bool = False) -> np.ndarray:
    """Values and flags; a fifth is missing. Category 6 of the last feature, and 0, come only where `unseen`."""
    table = np.zeros((count, len(CATEGORIES), 2), np.float32)
    for place, categories in enumerate(CATEGORIES):
        if categories:
            last = categories + 1 if unseen or place != 4 else categories
            table[:, place, 0] = random.integers(0 if unseen else 1, last, count)
        else:
            table[:, place, 0] = random.normal(size=count)
        table[:, place, 1] = random.random(count) > 0.2
    table[..., 0] *= table[..., 1]
    return table


def part_of(count: int, kind: str, seed: int) -> Part:
    """A part whose targets depend on numbers, categories and on what is missing."""
    random = np.random.default_rng(seed)
    table = table_of(random, count)
    score = table[:, 0, 0] + (table[:, 1, 0] == 2) - (table[:, 4, 0] > 3) + 1.5 * (1 - table[:, 2, 1])
    noisy = score + 0.5 * random.normal(size=count)
    if kind == "multiclass":
        target = np.digitize(noisy, [-0.5, 1.0])[:, None]
    else:
        target = (noisy > 0.5).astype(float)[:, None]
        if kind == "multilabel":
            target = np.concatenate([target, (table[:, 3, :1] > 0).astype(float)], axis=1)
    known = np.ones(target.shape, bool)
    if kind == "multilabel":
        known[:40, 1] = False
    return table, target, known


def fitted(kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[BoostedTrees, list[Any], list[tuple[Any, ...]]]:
    """Trees, the library's models, and what the columns of these are."""
    models: list[Any] = []
    layouts: list[tuple[Any, ...]] = []
    columns = boosted_trees._columns

    class Kept(HistGradientBoostingClassifier):  # type: ignore[misc]
        def fit(self, *arguments: Any, **named: Any) -> Any:
            models.append(self)
            return super().fit(*arguments, **named)

    def kept_columns(*arguments: Any) -> Any:
        found = columns(*arguments)
        layouts.append(found[1:])
        return found

    monkeypatch.setattr(boosted_trees, "HistGradientBoostingClassifier", Kept)
    monkeypatch.setattr(boosted_trees, "_columns", kept_columns)
    outputs = {"binary": 1, "multilabel": 2, "multiclass": 3}[kind]
    trees = BoostedTrees(CATEGORIES, outputs, SETTINGS)
    exclusive = kind == "multiclass"
    said = fit_trees(trees, part_of(600, kind, 0), part_of(200, kind, 1), SETTINGS, exclusive=exclusive, seed=3)
    assert "of 40 rounds" in said
    return trees, models, layouts


@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
def test_the_stored_trees_are_those_of_the_library(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trees, models, layouts = fitted(kind, monkeypatch)
    table = table_of(np.random.default_rng(9), 500, unseen=True)
    found = []
    for model, (codes, order) in zip(models, layouts, strict=True):
        x = np.full((len(table), len(order)), np.nan)
        for place, feature in enumerate(order):
            there = table[:, feature, 1] > 0
            value = table[:, feature, 0].astype(np.float64)
            if codes[place]:
                numbers = {code: number for number, code in enumerate(codes[place])}
                value = np.array([numbers.get(int(code), np.nan) for code in value])  # unseen counts as missing
            x[there, place] = value[there]
        stages = list(model.staged_decision_function(x))
        found.append(np.asarray(stages[int(trees.rounds) - 1]).reshape(len(table), -1))
    np.testing.assert_allclose(trees(torch.from_numpy(table)).numpy(), np.concatenate(found, axis=1), atol=2e-6)
    assert 1 <= int(trees.rounds) < 40  # the validation rows stopped it
    assert trees.subset.any() and trees.missing_left.any()


def test_what_is_missing_and_what_is_unknown_go_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    trees, _, _ = fitted("binary", monkeypatch)
    table = torch.from_numpy(table_of(np.random.default_rng(2), 50))
    gone, unknown = table.clone(), table.clone()
    gone[:, 4] = 0
    unknown[:, 4, 0], unknown[:, 4, 1] = 6, 1  # a category that no training row has
    assert torch.equal(trees(gone), trees(unknown))
    assert not torch.equal(trees(gone), trees(table))


def test_the_number_of_rounds_is_the_best_on_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    trees, _, _ = fitted("multiclass", monkeypatch)
    table, target, _ = part_of(200, "multiclass", 1)
    losses = []
    best = int(trees.rounds)
    for rounds in range(1, 41):
        trees.rounds.fill_(rounds)
        logits = trees(torch.from_numpy(table)).double()
        losses.append(float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(target[:, 0]).long())))
    assert int(np.argmin(losses)) + 1 == best


def test_the_same_rows_give_the_same_bits_and_are_stored(tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_file

    made = []
    for _ in range(2):
        trees = BoostedTrees(CATEGORIES, 1, SETTINGS)
        fit_trees(trees, part_of(300, "binary", 0), part_of(100, "binary", 1), SETTINGS, exclusive=False)
        made.append(trees)
    state = made[0].state_dict()
    assert all(torch.equal(state[name], value) for name, value in made[1].state_dict().items())
    save_file(state, tmp_path / "trees.safetensors")
    again = BoostedTrees(CATEGORIES, 1, SETTINGS)
    again.load_state_dict(load_file(tmp_path / "trees.safetensors"))
    table = torch.from_numpy(table_of(np.random.default_rng(2), 50))
    assert torch.equal(again(table), made[0](table))


def test_weights_of_classes_move_the_logits() -> None:
    found = []
    for weights in (None, [5.0]):
        trees = BoostedTrees(CATEGORIES, 1, SETTINGS)
        parts = part_of(300, "binary", 0), part_of(100, "binary", 1)
        fit_trees(trees, *parts, SETTINGS, exclusive=False, weights=weights)
        found.append(float(trees(torch.from_numpy(parts[1][0])).mean()))
    assert found[1] > found[0] + 0.5


def test_a_class_that_training_lacks_is_never_called() -> None:
    table, target, known = part_of(300, "multiclass", 0)
    trees = BoostedTrees(CATEGORIES, 3, SETTINGS)
    rows = target[:, 0] != 1
    fit_trees(trees, (table[rows], target[rows], known[rows]), (table, target, known), SETTINGS, exclusive=True)
    called = trees(torch.from_numpy(table)).argmax(dim=1).numpy()
    assert set(called) == {0, 2}
    assert (called[rows] == target[rows, 0]).mean() > 0.8


def test_what_cannot_be_learned() -> None:
    table, target, known = part_of(60, "binary", 0)
    trees = BoostedTrees(CATEGORIES, 1, SETTINGS)
    with pytest.raises(UserError, match="one class only"):
        fit_trees(trees, (table, 0 * target, known), (table, target, known), SETTINGS, exclusive=False)
    with pytest.raises(ValueError, match="a table of 5 features"):
        trees(torch.zeros(2, 4, 2))


def test_another_library_that_keeps_its_trees_elsewise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted_trees, "_rounded_down", lambda threshold: threshold.astype(np.float32) + 1)
    trees = BoostedTrees(CATEGORIES, 1, SETTINGS)
    with pytest.raises(RuntimeError, match="differ from the fitted ones"):
        fit_trees(trees, part_of(300, "binary", 0), part_of(100, "binary", 1), SETTINGS, exclusive=False)
