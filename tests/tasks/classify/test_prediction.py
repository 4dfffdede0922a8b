"""Results of a classification: of a batch, of studies, of several runs, and averaged over flips."""

import math

import numpy as np
import pytest
import torch

from scanfuse.errors import UserError
from scanfuse.stats.calibration import logits_of, probabilities_of
from scanfuse.tasks.classify.classes import Classes, parse_target
from scanfuse.tasks.classify.prediction import Prediction, by_study, ensemble, flip_average, predictions_of

ABNORMAL = Classes("binary", ("abnormal",))
SPECIES = Classes("multiclass", ("cat", "dog", "horse"))
FINDINGS = Classes("multilabel", ("Edema", "Fracture"))


def result(
    name: str, p: float | list[float], target: str, classes: Classes = ABNORMAL, *, study: str = "", group: str = ""
):
    probabilities = np.atleast_1d(np.asarray(p, float))
    logits = logits_of(probabilities[None], classes.kind)[0]
    values, mask = parse_target(target, classes)
    return Prediction(name, group or name, study or name, logits, probabilities, values, mask)


def test_results_of_a_batch():
    metas = [{"id": "s1-1", "group": "p1", "study": "s1"}, {"id": "s2", "group": "p2"}]
    batch = {"target": torch.tensor([[1.0], [0.0]]), "mask": torch.tensor([[True], [False]]), "meta": metas}
    first, second = predictions_of(torch.tensor([[0.0], [2.0]]), batch, ABNORMAL)
    assert (first.id, first.group, first.study, first.target[0]) == ("s1-1", "p1", "s1", 1)
    assert first.mask[0] and second.study == "s2" and not second.mask[0]
    assert first.probabilities[0] == 0.5 and second.probabilities[0] == pytest.approx(1 / (1 + math.exp(-2)))
    dog = {"target": torch.tensor([[1.0]]), "mask": torch.tensor([[True]]), "meta": [{"id": "x", "group": "x"}]}
    rows = predictions_of(torch.zeros(1, 3), dog, SPECIES)
    np.testing.assert_allclose(rows[0].probabilities, 1 / 3)
    assert (rows[0].target.tolist(), rows[0].mask.tolist()) == ([1], [True])


def test_pairs_are_gathered_into_studies():
    pairs = [
        result("a1", 0.2, "1", study="a", group="p"),
        result("b", 0.7, "0", study="b", group="q"),
        result("a2", 0.6, "1", study="a", group="p"),
        result("a3", 0.7, "1", study="a", group="p"),
    ]
    a, b = by_study(pairs, ABNORMAL)
    assert (a.id, a.group, b.id) == ("a", "p", "b")
    assert a.probabilities[0] == pytest.approx(0.5) and b.probabilities[0] == 0.7
    np.testing.assert_allclose(probabilities_of(a.logits[None], "binary")[0], a.probabilities)
    with pytest.raises(UserError, match="differ in patient or target"):
        by_study([pairs[0], result("a9", 0.1, "0", study="a", group="p")], ABNORMAL)


def test_an_ensemble_averages_by_id():
    one = [result("a", [0.2, 0.3, 0.5], "cat", SPECIES), result("b", [1, 0, 0], "dog", SPECIES)]
    two = [result("b", [0, 1, 0], "dog", SPECIES), result("a", [0.4, 0.3, 0.3], "cat", SPECIES)]
    a, b = ensemble([one, two], SPECIES)
    np.testing.assert_allclose(a.probabilities, [0.3, 0.3, 0.4])
    np.testing.assert_allclose(b.probabilities, [0.5, 0.5, 0])
    with pytest.raises(ValueError, match="same samples"):
        ensemble([one, two[:1]], SPECIES)


@pytest.mark.parametrize("scale", [0.1, 3])  # probabilities in the middle, and close to 0 and 1
@pytest.mark.parametrize("classes", [ABNORMAL, SPECIES, FINDINGS])
def test_flip_average_is_the_mean_probability(classes, scale):
    """Of the pictures as they are and mirrored; an input that is no picture (a table) stays as it is."""
    torch.manual_seed(0)
    weights = scale * torch.randn(3, 8 * 8, classes.num_outputs, dtype=torch.float64)
    views = {name: torch.randn(3, 1, 8, 8, dtype=torch.float64) for name in "ab"}
    table = torch.randn(3, 64, dtype=torch.float64)
    present = dict.fromkeys(("a", "b", "table"), torch.ones(3, dtype=torch.bool))

    def forward(given: dict[str, torch.Tensor]) -> torch.Tensor:
        assert given["present"] is present
        parts = zip(("a", "b", "table"), weights, strict=True)
        return sum(given[name].flatten(1) @ weight for name, weight in parts)

    batch = {**views, "table": table, "present": present}
    mirrored = batch | {name: view.flip(-1) for name, view in views.items()}
    each = [probabilities_of(forward(part).numpy(), classes.kind) for part in (batch, mirrored)]
    assert np.abs(each[0] - each[1]).max() > 0.1 or scale > 1
    averaged = flip_average(forward, batch, classes)
    np.testing.assert_allclose(probabilities_of(averaged.numpy(), classes.kind), np.mean(each, axis=0))
    torch.testing.assert_close(averaged, flip_average(forward, mirrored, classes))
