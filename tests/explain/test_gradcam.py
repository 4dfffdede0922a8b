"""Grad-CAM on networks whose answer is known: the map must lie where the class is decided."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanfuse.data.transforms.placement import place, stretched
from scanfuse.explain.ablation import view_ablation
from scanfuse.explain.gradcam import grad_cam, maps_of, output, scaled_together, tapped

SIDE = 32
CORNER = 12
"""The class depends on the CORNER x CORNER pixels at the top right of view b."""


class TwoViews(nn.Module):
    """A small classifier of two views: a convolution for each, one over both, mean, linear."""

    def __init__(self) -> None:
        super().__init__()

        def encoder() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU()
            )

        self.encode_a, self.encode_b = encoder(), encoder()
        self.view_a, self.view_b = nn.Identity(), nn.Identity()
        self.fused = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        maps = torch.cat([self.view_a(self.encode_a(a)), self.view_b(self.encode_b(b))], dim=1)
        return self.head(self.fused(maps).relu().mean(dim=(2, 3)))


def _views(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Views with squares; positive if a filled one lies in the corner of view b.

    Filled squares in view a and hollow ones anywhere in both views are as frequent in both classes.
    """
    views = 0.1 * rng.random((2, count, 1, SIDE, SIDE), dtype=np.float32)
    y = np.arange(count) % 2

    def draw(view: int, index: int, top: int, left: int, *, hollow: bool) -> None:
        views[view, index, 0, top : top + 6, left : left + 6] += 1
        if hollow:
            views[view, index, 0, top + 1 : top + 5, left + 1 : left + 5] -= 1

    for index in range(count):
        for view in (0, 1):
            draw(view, index, *rng.integers(0, SIDE - 6, 2), hollow=True)
        if rng.random() < 0.5:
            draw(0, index, *rng.integers(0, SIDE - 6, 2), hollow=False)
        if y[index]:
            top, left = rng.integers(0, CORNER - 6, 2)
            draw(1, index, top, SIDE - CORNER + left, hollow=False)
    return torch.from_numpy(views[0]), torch.from_numpy(views[1]), torch.from_numpy(y).float()


@pytest.fixture(scope="module")
def trained() -> TwoViews:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, rng = TwoViews(), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(250):
        a, b, y = _views(32, rng)
        a[rng.random(32) < 0.2] = 0  # view dropout: a missing view is nothing new
        loss = F.binary_cross_entropy_with_logits(model(a, b)[:, 0], y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def unseen() -> tuple[Tensor, Tensor, Tensor]:
    return _views(60, np.random.default_rng(1))


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_the_map_lies_in_the_corner_of_the_view_that_decides(trained, unseen, method):
    a, b, y = unseen
    assert ((trained(a, b)[:, 0] > 0) == (y == 1)).all()
    maps = grad_cam(trained, ["view_a", "view_b", "fused"], lambda: trained(a, b), output(0), method=method)
    share, other = [], []
    for index in torch.nonzero(y)[:, 0]:
        heat = place(maps["view_b"][index], stretched((SIDE, SIDE), (SIDE, SIDE)))
        edge = CORNER + SIDE // 8  # a place of the map is an eighth of the picture: it cannot be more exact
        share.append(heat[:edge, -edge:].sum() / heat.sum())
        other.append(float(maps["view_a"][index].sum() / maps["view_b"][index].sum()))
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert row < CORNER and column >= SIDE - CORNER
    assert min(share) > 0.6 and np.mean(share) > 0.7  # of a quarter of the area; hollow squares take the rest
    assert max(other) < 0.01


def test_the_views_contribution_is_found(trained, unseen):
    a, b, y = unseen

    def probability(present: frozenset[str]) -> Tensor:
        return torch.sigmoid(trained(a * ("a" in present), b * ("b" in present)))

    drop = view_ablation(probability, ["a", "b"]).drop
    positive = y == 1
    assert (drop["b"][positive] > 0.9).all()
    assert drop["a"].abs().max() < 0.05


class Weighted(nn.Module):
    """Hand-weighted: logit 0 is the mean over view b of 3 * its first channel where that is in the left half."""

    def __init__(self) -> None:
        super().__init__()
        self.view_a, self.view_b = nn.Identity(), nn.Identity()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        b = self.view_b(b)
        left = torch.zeros_like(b)
        left[..., : b.shape[-1] // 2] = 1
        return torch.stack([3 * (left * b)[:, 0].mean(dim=(1, 2)), self.view_a(a).mean(dim=(1, 2, 3))], dim=1)


def test_values_by_hand():
    torch.manual_seed(0)
    a, b = torch.rand(2, 2, 4, 6), torch.rand(2, 2, 4, 6)
    model = Weighted()
    taps = ["view_a", "view_b"]
    plain = grad_cam(model, taps, lambda: model(a, b), output(0))
    # d logit / d b = 3 / 24 in the left half of channel 0; its mean over the map is half of that.
    torch.testing.assert_close(plain["view_b"], 0.5 * 3 / 24 * b[:, 0])
    assert (plain["view_a"] == 0).all()
    exact = grad_cam(model, taps, lambda: model(a, b), output(0), method="hirescam")
    left = torch.cat([b[:, 0, :, :3], torch.zeros(2, 4, 3)], dim=2)
    torch.testing.assert_close(exact["view_b"], 3 / 24 * left)
    assert (grad_cam(model, taps, lambda: model(a, b), output(0, against=True))["view_b"] == 0).all()
    second = grad_cam(model, taps, lambda: model(a, b), output(1))
    torch.testing.assert_close(second["view_a"], a.sum(dim=1) / 48)


def test_samples_of_a_batch_do_not_mix(trained, unseen):
    a, b, _ = unseen
    whole = grad_cam(trained, ["fused"], lambda: trained(a[:3], b[:3]), output(0))["fused"]
    alone = grad_cam(trained, ["fused"], lambda: trained(a[2:3], b[2:3]), output(0))["fused"]
    torch.testing.assert_close(whole[2:], alone)


def test_it_works_without_gradients_and_leaves_none(unseen):
    a, b, _ = unseen
    torch.manual_seed(1)
    model = TwoViews()
    expected = grad_cam(model, ["view_b"], lambda: model(a, b), output(0))["view_b"]
    with torch.no_grad():
        found = grad_cam(model, ["view_b"], lambda: model(a, b), output(0))["view_b"]
    torch.testing.assert_close(found, expected)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not found.requires_grad
    model.requires_grad_(False)
    torch.testing.assert_close(grad_cam(model, ["view_b"], lambda: model(a, b), output(0))["view_b"], expected)
    assert not model.view_b._forward_hooks


def test_taps_that_do_not_fit():
    model = TwoViews()
    a = torch.rand(1, 1, SIDE, SIDE)
    with pytest.raises(AttributeError):
        grad_cam(model, ["nowhere"], lambda: model(a, a), output(0))
    with pytest.raises(ValueError, match="'head' does not put out one map"):
        grad_cam(model, ["head"], lambda: model(a, a), output(0))
    with pytest.raises(ValueError, match="'view_a' was not called"):
        grad_cam(model, ["view_a"], lambda: model.head(torch.rand(1, 16)), output(0))
    with pytest.raises(ValueError, match="called twice"), tapped(model, ["view_a"]):
        model.view_a(model.view_a(a))
    assert not model.view_a._forward_hooks


def test_views_share_one_scale():
    maps = {"a": torch.tensor([[0.0, 1.0]]), "b": torch.tensor([[4.0, 2.0]])}
    found = scaled_together(maps)
    assert found["a"].tolist() == [[0.0, 0.25]] and found["b"].tolist() == [[1.0, 0.5]]
    assert scaled_together({"a": torch.zeros(2, 2)})["a"].sum() == 0


def test_a_map_that_the_score_does_not_use_is_zero():
    x = torch.rand(1, 2, 3, 3, requires_grad=True)
    unused = torch.rand(1, 2, 3, 3, requires_grad=True)
    found = maps_of(x.sum(dim=(1, 2, 3)), {"x": x, "unused": unused})
    assert found["unused"].sum() == 0 and found["x"].sum() > 0


def test_one_view_cannot_be_ablated():
    with pytest.raises(ValueError, match="needs two views; given: a"):
        view_ablation(lambda present: torch.zeros(1, 1), ["a"])
