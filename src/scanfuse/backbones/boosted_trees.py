"""Gradient-boosted trees over a clinical table: fitted by scikit-learn, stored as tensors, evaluated by torch.

    table (b,f,2) --> every tree: from the root to a leaf --> sum of the leaves' values + baseline --> logits (b,k)

The trees lie in arrays of a fixed size, (outputs, rounds, nodes), which are buffers of a module: so a run stores them
as it stores weights, in safetensors, and nothing is pickled. Refitting from stored training rows would need neither,
but a run would then hold its patients' data, and depend on the version of the library.

A split sends a number left if it is at most the threshold, a category if it is in the node's set, and a missing value
(or a category that these trees have not seen) to the side that fitted training best.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Num
from pydantic import Field
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

from scanfuse.config import Section
from scanfuse.errors import UserError

__all__ = ["BoostedTrees", "TreeSettings", "fit_trees"]

_ABSENT = -10.0
"""Logit of a class that no training row has."""
_PARITY = 1e-4
_AT_ONCE = 2048


class TreeSettings(Section):
    """Gradient-boosted trees on the table alone. Their number is chosen on the validation samples."""

    rounds: int = Field(
        300, ge=1, le=5000, description="most boosting rounds of the trees", json_schema_extra={"flag": "tree-rounds"}
    )
    leaves: int = Field(
        15, ge=2, le=255, description="most leaves of a tree", json_schema_extra={"flag": "tree-leaves"}
    )
    rate: float = Field(
        0.05, gt=0, le=1, description="how much of a tree is taken", json_schema_extra={"flag": "tree-rate"}
    )
    least: int = Field(
        20, ge=1, le=1_000_000, description="fewest rows of a leaf", json_schema_extra={"flag": "tree-least"}
    )
    l2: float = Field(
        1.0, ge=0, description="penalty of the leaves' squared values", json_schema_extra={"flag": "tree-l2"}
    )


class BoostedTrees(nn.Module):
    """Trees in arrays; without any until `fit_trees` has filled them. There is no parameter.

    Args:
        categories: for each feature its number of categories, 0 for a number.
        outputs: k.
        settings: how many trees of how many leaves there may be.

    Shape:
        (b, f, 2), values and flags of `scanfuse.data.transforms.table` -> logits (b, k), float32.

    Raises:
        ValueError: a table of another width.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    missing_left: Tensor
    subset: Tensor
    value: Tensor
    seen: Tensor
    baseline: Tensor
    rounds: Tensor
    depth: Tensor
    nominal: Tensor

    def __init__(self, categories: Sequence[int], outputs: int, settings: TreeSettings | None = None) -> None:
        super().__init__()
        settings = settings or TreeSettings()
        self.num_features, self.codes = len(categories), 1 + max(categories, default=0)
        trees, nodes = settings.rounds, 2 * settings.leaves - 1
        shape = (outputs, trees, nodes)
        self.register_buffer("feature", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(shape))
        # A node that is its own child is a leaf.
        self.register_buffer("left", torch.arange(nodes).expand(shape).contiguous())
        self.register_buffer("right", torch.arange(nodes).expand(shape).contiguous())
        self.register_buffer("missing_left", torch.zeros(shape, dtype=torch.bool))
        self.register_buffer("subset", torch.zeros(*shape, self.codes, dtype=torch.bool))
        self.register_buffer("value", torch.zeros(shape))
        self.register_buffer("seen", torch.zeros(outputs, self.num_features, self.codes, dtype=torch.bool))
        self.register_buffer("baseline", torch.zeros(outputs))
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64))
        self.register_buffer("depth", torch.zeros((), dtype=torch.int64))
        self.register_buffer("nominal", torch.tensor([count > 0 for count in categories]), persistent=False)

    def forward(self, table: Float[Tensor, "b f 2"]) -> Float[Tensor, "b k"]:
        return self.baseline + self.steps(table).sum(dim=2)

    def steps(self, table: Float[Tensor, "b f 2"]) -> Float[Tensor, "b k t"]:
        """What each of the `rounds` trees adds to each logit."""
        if table.shape[1:] != (self.num_features, 2):
            raise ValueError(f"a table of {self.num_features} features is (b, {self.num_features}, 2), not "
                             f"{tuple(table.shape)}")  # fmt: skip
        table = table.float()
        x = table[..., 0]
        code = x.round().long().clamp(0, self.codes - 1) * self.nominal
        rounds, outputs = int(self.rounds), len(self.baseline)
        features = torch.arange(self.num_features, device=table.device)
        there = (table[..., 1] > 0) & (~self.nominal | self.seen[:, features, code])  # (k, b, f)
        parts = [
            part[:, :rounds].flatten(0, 1)
            for part in (self.feature, self.threshold, self.left, self.right, self.missing_left, self.subset)
        ]
        feature, threshold, left, right, missing_left, subset = parts
        tree = torch.arange(outputs * rounds, device=table.device)
        output, row = tree // max(rounds, 1), torch.arange(len(table), device=table.device)[:, None]
        node = torch.zeros(len(table), len(tree), dtype=torch.int64, device=table.device)
        for _ in range(int(self.depth)):
            f = feature[tree, node]
            in_set = subset[tree, node, code.gather(1, f)]
            goes_left = torch.where(self.nominal[f], in_set, x.gather(1, f) <= threshold[tree, node])
            goes_left = torch.where(there[output, row, f], goes_left, missing_left[tree, node])
            node = torch.where(goes_left, left[tree, node], right[tree, node])
        return self.value[:, :rounds].flatten(0, 1)[tree, node].unflatten(1, (outputs, rounds))


def fit_trees(
    trees: BoostedTrees,
    training: tuple[Float[np.ndarray, "n f 2"], Num[np.ndarray, "n k"], Bool[np.ndarray, "n k"]],
    validation: tuple[Float[np.ndarray, "m f 2"], Num[np.ndarray, "m k"], Bool[np.ndarray, "m k"]],
    settings: TreeSettings,
    *,
    exclusive: bool,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> str:
    """Fills the trees from training rows; how many of them count is what loses least on the validation rows.

    Args:
        trees: made with the same settings.
        training, validation: tables, targets and which of these are known. One column with the class number if
            `exclusive`, else one column of 0 and 1 for each output.
        settings: see `TreeSettings`.
        exclusive: whether the outputs are classes of one choice.
        weights: of the classes, or of the positives of each output; None: 1.
        seed: of the 200,000 rows that the library makes its bins of, where there are more.

    Returns:
        What was chosen, in words.

    Raises:
        UserError: training rows of one class.

    Source: Friedman, "Greedy function approximation: a gradient boosting machine", 2001; Ke et al., "LightGBM", 2017;
    scikit-learn's HistGradientBoostingClassifier.
    """
    table, target, known = training
    outputs = len(trees.baseline)
    columns = [0] if exclusive else list(range(outputs))
    for column in columns:
        rows = known[:, column]
        y = target[rows, column].astype(int)
        classes = np.unique(y)
        if len(classes) < 2:
            raise UserError("The training rows with a known target show one class only: there is nothing to learn.")
        factors = np.ones(outputs if exclusive else 2) if weights is None else np.ones(2)
        if weights is not None:
            factors = np.asarray(weights) if exclusive else np.array([1.0, weights[column]])
        x, codes, order = _columns(trees, table[rows])
        model = HistGradientBoostingClassifier(
            learning_rate=settings.rate,
            max_iter=settings.rounds,
            max_leaf_nodes=settings.leaves,
            min_samples_leaf=settings.least,
            l2_regularization=settings.l2,
            categorical_features=[bool(codes[place]) for place in range(len(order))],
            early_stopping=False,
            random_state=seed,
        ).fit(x, y, sample_weight=factors[y])
        if exclusive:
            places = list(classes) if len(classes) > 2 else [int(classes[1])]
            trees.baseline.fill_(_ABSENT)
            if len(classes) == 2:
                trees.baseline[int(classes[0])] = 0.0  # the logit of the other one is against this
        else:
            places = [column]
        for place, of_feature in enumerate(codes):
            trees.seen[slice(None) if exclusive else column, order[place], of_feature] = True
        _store(trees, model, places, codes, order)
        trees.rounds.fill_(settings.rounds)
        _require_parity(trees, model, table[rows], x, places)
    return _choose_rounds(trees, validation, exclusive)


def _columns(trees: BoostedTrees, table: np.ndarray) -> tuple[np.ndarray, list[list[int]], list[int]]:
    """The table as the library takes it: categories first and numbered without gaps, nan where missing.

    Returns:
        (n, f); for each column the categories by number (none for numbers); and which feature it is.
    """
    nominal = trees.nominal.numpy()
    order = [*np.flatnonzero(nominal), *np.flatnonzero(~nominal)]
    x = np.full((len(table), len(order)), np.nan)
    codes: list[list[int]] = []
    for place, feature in enumerate(order):
        value, there = table[:, feature, 0].astype(np.float64), table[:, feature, 1] > 0
        codes.append([])
        if nominal[feature]:
            code = value.round().astype(int)
            codes[-1] = [int(each) for each in np.unique(code[there & (code > 0)])]
            there = there & np.isin(code, codes[-1])
            value = np.searchsorted(codes[-1], code).astype(np.float64) if codes[-1] else value
        x[there, place] = value[there]
    return x, codes, [int(feature) for feature in order]


def _store(trees: BoostedTrees, model: Any, places: list[int], codes: list[list[int]], order: list[int]) -> None:
    """Copies fitted trees into the arrays; `places` are the outputs that they belong to."""
    for output, baseline in zip(places, np.ravel(model._baseline_prediction), strict=True):
        trees.baseline[output] = float(baseline)
    for number, of_round in enumerate(model._predictors):
        for output, tree in zip(places, of_round, strict=True):
            nodes = tree.nodes
            size = len(nodes)
            leaf = nodes["is_leaf"].astype(bool)
            own = np.arange(size)
            where = (output, number, slice(0, size))
            place = np.where(leaf, 0, nodes["feature_idx"]).astype(int)
            trees.feature[where] = torch.from_numpy(np.asarray(order)[place])
            trees.left[where] = torch.from_numpy(np.where(leaf, own, nodes["left"]).astype(np.int64))
            trees.right[where] = torch.from_numpy(np.where(leaf, own, nodes["right"]).astype(np.int64))
            trees.missing_left[where] = torch.from_numpy(nodes["missing_go_to_left"].astype(bool))
            trees.value[where] = torch.from_numpy(np.where(leaf, nodes["value"], 0.0).astype(np.float32))
            trees.threshold[where] = torch.from_numpy(_rounded_down(np.where(leaf, 0.0, nodes["num_threshold"])))
            for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf):
                bits = tree.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
                of_feature = codes[place[node]]
                chosen = [code for n, code in enumerate(of_feature) if int(bits[n >> 5]) >> (n & 31) & 1]
                trees.subset[output, number, node, chosen] = True
            trees.depth.fill_(max(int(trees.depth), int(nodes["depth"].max())))


def _rounded_down(threshold: np.ndarray) -> np.ndarray:
    """The largest float32 that is at most the threshold: for float32 values it splits alike."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def _require_parity(trees: BoostedTrees, model: Any, table: np.ndarray, x: np.ndarray, places: list[int]) -> None:
    """What is stored must say what was fitted, whatever a later version of the library keeps its trees in."""
    part = slice(0, 2000)
    ours = trees(torch.from_numpy(table[part].astype(np.float32)))[:, places].numpy()
    theirs = model.decision_function(x[part]).reshape(len(ours), -1)
    if not np.allclose(ours, theirs, atol=_PARITY * max(1.0, float(np.abs(theirs).max()))):
        raise RuntimeError("the stored trees differ from the fitted ones: this version of scikit-learn is not known")


def _choose_rounds(
    trees: BoostedTrees, validation: tuple[np.ndarray, np.ndarray, np.ndarray], exclusive: bool
) -> str:
    """Keeps the number of rounds with the smallest loss on validation rows."""
    table, target, known = validation
    parts = torch.from_numpy(table.astype(np.float32)).split(_AT_ONCE)
    steps = torch.cat([trees.steps(part) for part in parts]).double().cumsum(dim=2)
    logits = trees.baseline.double()[:, None] + steps
    known_rows = torch.from_numpy(known)
    if exclusive:
        rows = known_rows[:, 0]
        y = torch.from_numpy(target[known[:, 0], 0].astype(np.int64))
        each = nn.functional.cross_entropy(logits[rows], y[:, None].expand(-1, logits.shape[2]), reduction="none")
        loss = each.mean(dim=0)
    else:
        y = torch.from_numpy(target).double()[..., None].expand_as(logits)
        each = nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
        loss = each.where(known_rows[..., None], 0.0).sum(dim=(0, 1)) / known_rows.sum()
    best = int(loss.argmin())
    trees.rounds.fill_(best + 1)
    return f"{best + 1} of {len(loss)} rounds of trees, by the validation loss of {float(loss[best]):.4f}"
