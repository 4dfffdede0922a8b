"""Classification losses against torch and formulas, their masks, and the weights from counts."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scanfuse.errors import UserError
from scanfuse.tasks.classify.classes import Classes
from scanfuse.tasks.classify.loss import ClassificationLoss, class_weights, classification_loss

BINARY = Classes("binary", ("abnormal",))
SEVERAL = Classes("multiclass", ("a", "b", "c"))
LABELS = Classes("multilabel", ("x", "y", "z"))


def loss(z, y, classes, *, mask=None, weights=None, **options):
    mask = torch.ones_like(y, dtype=torch.bool) if mask is None else mask
    return classification_loss(z, y, mask, classes, ClassificationLoss(**options), weights)["loss"]


@pytest.fixture
def labels():
    torch.manual_seed(0)
    return torch.randn(7, 3), torch.randint(0, 2, (7, 3)).float(), torch.rand(7, 3) < 0.6


@pytest.fixture
def numbers():
    torch.manual_seed(1)
    return torch.randn(7, 3), torch.randint(0, 3, (7, 1)).float(), (torch.arange(7) % 3 > 0)[:, None]


def test_several_labels_equal_torch(labels):
    z, y, mask = labels
    w = torch.tensor([2.0, 0.5, 3.0])
    expected = F.binary_cross_entropy_with_logits(z, y, pos_weight=w, reduction="none")[mask].mean()
    torch.testing.assert_close(loss(z, y, LABELS, mask=mask, weights=w), expected)


def test_several_classes_equal_torch(numbers):
    z, y, mask = numbers
    w = torch.tensor([2.0, 0.5, 3.0])
    target = y[:, 0].long().where(mask[:, 0], -100)
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(z, target, weight=w, label_smoothing=smoothing)
        torch.testing.assert_close(loss(z, y, SEVERAL, mask=mask, weights=w, label_smoothing=smoothing), expected)


def test_one_and_two_outputs_cost_the_same():
    torch.manual_seed(2)
    z, y = torch.randn(6, 2), torch.randint(0, 2, (6, 1)).float()
    torch.testing.assert_close(loss(z, y, BINARY), F.cross_entropy(z, y[:, 0].long()))


def test_focal_and_asymmetric_formulas(labels):
    z, y, _ = labels
    p = z.sigmoid()
    q = torch.where(y == 1, p, 1 - p)
    torch.testing.assert_close(loss(z, y, LABELS, name="focal"), (-((1 - q) ** 2) * q.log()).mean())
    shifted = (p - 0.05).clamp(min=0)
    each = torch.where(y == 1, -((1 - p) ** 1) * p.log(), -(shifted**4) * (1 - shifted).log())
    torch.testing.assert_close(loss(z, y, LABELS, name="asymmetric", asymmetric_positive=1), each.mean())
    for plain in (
        {"name": "focal", "focal_gamma": 0},
        {"name": "asymmetric", "asymmetric_negative": 0, "asymmetric_margin": 0},
    ):
        torch.testing.assert_close(loss(z, y, LABELS, **plain), loss(z, y, LABELS))


def test_focal_of_several_classes(numbers):
    z, y, _ = numbers
    q = z.softmax(1).gather(1, y.long())
    torch.testing.assert_close(loss(z, y, SEVERAL, name="focal"), (-((1 - q) ** 2) * q.log()).mean())


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "asymmetric"])
def test_unknown_targets_get_no_gradient(labels, name):
    z, y, mask = labels
    z.requires_grad_()
    junk = y.where(mask, torch.nan)  # whatever stands there
    value = loss(z, junk, LABELS, mask=mask, name=name)
    value.backward()
    assert torch.isfinite(value)
    assert (z.grad[~mask] == 0).all() and (z.grad[mask] != 0).all()


@pytest.mark.parametrize("classes", [BINARY, SEVERAL, LABELS])
def test_a_batch_without_targets_costs_nothing(classes):
    z = torch.randn(4, classes.num_outputs, requires_grad=True)
    y = torch.zeros(4, classes.num_targets)
    value = loss(z, y, classes, mask=torch.zeros_like(y, dtype=torch.bool))
    value.backward()
    assert value == 0 and (z.grad == 0).all()


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "asymmetric"])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 3.0])
def test_extreme_logits_stay_finite(name, exponent):
    z = torch.tensor([[-200.0], [-40.0], [40.0], [200.0]] * 2).requires_grad_()
    y = torch.tensor([[0.0]] * 4 + [[1.0]] * 4)
    options = {"focal_gamma": exponent, "asymmetric_negative": exponent, "asymmetric_margin": 0.0}
    value = loss(z, y, BINARY, name=name, **options)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(z.grad).all()
    three = torch.cat([z.detach(), -z.detach(), z.detach() / 2], dim=1).requires_grad_()
    if name != "asymmetric":
        value = loss(three, y, SEVERAL, name=name, focal_gamma=exponent)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(three.grad).all()


def test_half_precision_logits_are_computed_in_float32():
    z = torch.randn(5, 1)
    y = torch.ones(5, 1)
    assert loss(z.bfloat16(), y, BINARY).dtype == torch.float32
    torch.testing.assert_close(loss(z.bfloat16(), y, BINARY), loss(z.bfloat16().float(), y, BINARY))


def test_asymmetric_is_refused_for_classes(numbers):
    with pytest.raises(UserError, match="--loss focal"):
        loss(*numbers[:2], SEVERAL, name="asymmetric")


def test_weights_by_hand():
    y = np.array([[1, 0], [0, 0], [0, 1], [0, 1]], float)
    mask = np.array([[1, 1], [1, 1], [1, 1], [1, 0]], bool)
    assert class_weights(y, mask, LABELS).tolist() == [3, 2]  # 3 against 1; 2 against 1
    assert class_weights(y, mask, LABELS, largest=2.0).tolist() == [2, 2]
    several = np.array([[0], [0], [0], [1]], float)
    known = np.ones((4, 1), bool)
    assert class_weights(several, known, SEVERAL).tolist() == pytest.approx([4 / 9, 4 / 3, 1])  # class c is absent
    assert class_weights(np.zeros((3, 1)), np.ones((3, 1), bool), BINARY).tolist() == [1]


def test_balanced_weights_make_the_best_constant_a_half():
    """The gradient at logit 0 vanishes: both outcomes weigh the same."""
    y = torch.tensor([[1.0]] * 3 + [[0.0]] * 17)
    z = torch.zeros(20, 1, requires_grad=True)
    loss(z, y, BINARY, weights=class_weights(y.numpy(), np.ones((20, 1), bool), BINARY)).backward()
    assert math.isclose(float(z.grad.sum()), 0, abs_tol=1e-6)
