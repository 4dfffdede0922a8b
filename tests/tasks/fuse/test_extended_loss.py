"""Further terms of the loss: against the metrics, their gradients, and what each of them is for."""

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel
from torch import Tensor

from scanfuse.metrics.fusion import score
from scanfuse.tasks.fuse import extended_loss
from scanfuse.tasks.fuse.extended_loss import ExtendedFusionLoss, edge_transfer, false_edges, information
from scanfuse.tasks.fuse.loss import FusionLoss, fusion_loss


def smooth_images(count: int, side: int = 96) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(count, 1, side, side, generator=generator)
    coarse = torch.nn.functional.interpolate(noise[..., ::8, ::8], size=(side, side), mode="bicubic")
    return list((0.7 * coarse + 0.3 * noise).clamp(0, 1).split(1))


def metric(name: str, *images: Tensor) -> float:
    return score(*(255 * image[0, 0].double().numpy() for image in images), names=[name])[name]


def transfer(fused: Tensor, *sources: Tensor) -> float:
    """The metric's formulas in float64, with the angle between lines, which is a right one at most."""

    def edges(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
        gx, gy = (sobel(255 * image[0, 0].double().numpy(), axis=axis, mode="nearest") for axis in (1, 0))
        return np.hypot(gx, gy), np.arctan2(gy, gx)

    g_f, angle_f = edges(fused)
    kept = weight = 0.0
    for source in sources:
        g, angle = edges(source)
        turned = np.abs(angle - angle_f) % np.pi
        aligned = 1 - np.minimum(turned, np.pi - turned) / (np.pi / 2)
        relative = np.minimum(g, g_f) / np.maximum(np.maximum(g, g_f), 1e-9)
        quality = 0.9994 / (1 + np.exp(-15 * (relative - 0.5))) * 0.9879 / (1 + np.exp(-22 * (aligned - 0.8)))
        kept += (quality * g).sum()
        weight += g.sum()
    return kept / weight


@pytest.mark.parametrize("case", range(3))
def test_information_is_the_metric(case: int) -> None:
    a, b, other = smooth_images(3)
    fused = (a, (a + b) / 2, other)[case]
    assert float(sum(information(fused, a, b))) == pytest.approx(metric("vif", fused, a, b), abs=2e-3)


def test_transfer_of_edges_is_the_metric_but_for_the_jump_at_horizontal_edges() -> None:
    a, b, _ = smooth_images(3)
    for fused in (a, torch.maximum(a, b), (a + b) / 2):
        assert float(edge_transfer(fused, a, b)) == pytest.approx(transfer(fused, a, b), abs=2e-3)
    # An edge that is turned by a little to either side of the horizontal: the metric sees the opposite direction.
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    left, right = (torch.sigmoid((rows - 32 + tilt * (columns - 32)) / 4)[None, None] for tilt in (-0.01, 0.01))
    assert float(edge_transfer(left, right, right)) > 0.95
    assert metric("qabf", left, right, right) < 0.5


def test_a_batch_counts_what_there_is_not_how_many() -> None:
    a, b, _ = smooth_images(3)
    fused = (a + b) / 2
    black = torch.zeros_like(a)
    both = [torch.cat([image, black]) for image in (fused, a, b)]
    for of_one, of_both in zip(information(fused, a, b), information(*both), strict=True):
        assert float(of_both) == pytest.approx(float(of_one), abs=1e-5)
    assert float(edge_transfer(*both)) == pytest.approx(float(edge_transfer(fused, a, b)), abs=2e-3)


def test_the_poorer_source_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of both kinds of information likes a copy of one source best; the loss does not."""
    a, b, _ = smooth_images(3)
    found = []
    for kept in ((1.0, 0.05), (0.5, 0.4)):
        monkeypatch.setattr(extended_loss, "information", lambda *_, kept=kept: tuple(map(torch.tensor, kept)))
        found.append(float(ExtendedFusionLoss(information_weight=1).further(a, a, b)["information_loss"][1]))
    assert found[0] == pytest.approx(-(np.log(1.02) + np.log(0.07)) / 2)
    assert found[1] < found[0]


def test_false_edges() -> None:
    a, b, _ = smooth_images(3)
    assert float(false_edges(a, a, b)) == 0
    assert float(false_edges(1.2 * a, a, a)) == pytest.approx(0.2, abs=1e-3)
    assert float(false_edges((a + b) / 2, a, b)) < 0.02
    seam = a.clone()
    seam[..., 40:] += 0.5
    assert float(false_edges(seam, a, b)) > 0.03


def test_the_terms_of_a_volume_are_those_of_its_axial_slices() -> None:
    weights = ExtendedFusionLoss(information_weight=1, edge_weight=1, false_edge_weight=1)
    random = torch.Generator().manual_seed(4)
    fused, a, b = (torch.rand(2, 1, 5, 24, 20, generator=random) for _ in range(3))
    slices = [torch.stack([x[i, :, k] for i in range(2) for k in range(5)]) for x in (fused, a, b)]
    of_volume, of_slices = weights.further(fused, a, b), weights.further(*slices)
    assert set(of_volume) == {"information_loss", "edge_loss", "false_edges"}
    for name, (_, term) in of_volume.items():
        torch.testing.assert_close(term, of_slices[name][1])
        assert float(term.abs()) > 0.01


def test_sizes_and_flat_images_are_finite() -> None:
    weights = ExtendedFusionLoss(information_weight=1, edge_weight=1, false_edge_weight=1)
    for sides in ((1, 1), (8, 8), (16, 16), (40, 40), (3, 20, 7)):
        for a, b in ((torch.zeros(1, 1, *sides), torch.zeros(1, 1, *sides)), torch.rand(2, 1, 1, *sides)):
            fused = ((a + b) / 2).requires_grad_()
            loss = fusion_loss(fused, a, b, weights)["loss"]
            loss.backward()
            assert torch.isfinite(loss) and torch.isfinite(fused.grad).all()


@pytest.mark.parametrize("depth", [0, 3])
def test_the_weighted_sum_and_the_published_loss(depth: int) -> None:
    a, b, fused = smooth_images(3)
    if depth:
        a, b, fused = (torch.stack([0.9**k * image for k in range(depth)], dim=2) for image in (a, b, fused))
    plain = fusion_loss(fused, a, b, FusionLoss())
    assert fusion_loss(fused, a, b, ExtendedFusionLoss()).keys() == plain.keys()
    assert torch.equal(fusion_loss(fused, a, b, ExtendedFusionLoss())["loss"], plain["loss"])
    weights = ExtendedFusionLoss(information_weight=0.5, edge_weight=3, false_edge_weight=2)
    found = fusion_loss(fused, a, b, weights)
    expected = plain["loss"] + 0.5 * found["information_loss"] + 3 * found["edge_loss"] + 2 * found["false_edges"]
    torch.testing.assert_close(found["loss"], expected)


@pytest.mark.parametrize("name", ["information_weight", "edge_weight", "false_edge_weight"])
def test_pixels_that_follow_a_term_improve_its_metric(name: str) -> None:
    a, b, _ = smooth_images(3, 64)
    fused = (torch.maximum(a, b) + 0.05 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))).clamp(
        0, 1
    )
    weights = ExtendedFusionLoss(pixel_weight=0, gradient_weight=0, ssim_weight=0, **{name: 1})
    metric_name = {"information_weight": "vif", "edge_weight": "qabf", "false_edge_weight": "nabf"}[name]
    before = metric(metric_name, fused, a, b)
    pixels = fused.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        fusion_loss(pixels, a, b, weights)["loss"].backward()
        optimizer.step()
    after = metric(metric_name, pixels.detach().clamp(0, 1), a, b)
    assert (after < 0.7 * before) if name == "false_edge_weight" else (after > 1.2 * before)
    assert np.isfinite(after)
