"""YOLO's blocks against their equations; the golden network holds C2f and SPPF too."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanfuse.layers.yolo import C3, SPPF, Bottleneck, C2f, ConvNormAct


def plain(m: ConvNormAct, x: Tensor) -> Tensor:
    """The convolution with its norm in evaluation, written out."""
    bn = m.bn
    y = F.conv2d(x, m.conv.weight, stride=m.conv.stride, padding=m.conv.padding)
    scale = bn.weight / torch.sqrt(bn.running_var + 1e-3)
    y = (y - bn.running_mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]
    return y * torch.sigmoid(y)


def ready(module: torch.nn.Module) -> torch.nn.Module:
    """In float64 and evaluation, with norms that do something."""
    torch.manual_seed(0)
    for m in module.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            for tensor in (m.weight, m.bias, m.running_mean):
                torch.nn.init.normal_(tensor)
            torch.nn.init.uniform_(m.running_var, 0.5, 2)
    return module.double().eval()


def test_convolution_norm_and_activation() -> None:
    m = ready(ConvNormAct(3, 4, 3, stride=2))
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(m(x), plain(m, x))
    assert m(x).shape == (2, 4, 4, 4)
    assert m.bn.momentum == 0.03


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, None), (3, 2, None), (6, 2, 2)])
def test_without_gradients_the_norm_is_part_of_the_convolution(
    kernel: int, stride: int, padding: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = ready(ConvNormAct(3, 4, kernel, stride=stride, padding=padding))
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    for _ in range(2):
        with torch.no_grad():
            monkeypatch.setattr(m.bn, "forward", None)  # a pass of its own would fail
            actual = m(x)
            monkeypatch.undo()
            torch.testing.assert_close(actual, plain(m, x))
            m.bn.running_mean.add_(0.5)  # nothing of the norm is kept from call to call
            m.bn.weight.mul_(2)
    given, before = x.clone(), m.bn.running_mean.clone()
    with torch.no_grad():
        m(x)
        assert torch.equal(x, given)
        m.train()(x)
    assert not torch.equal(m.bn.running_mean, before)


def test_without_gradients_autocast_still_decides_the_precision() -> None:
    m = ready(ConvNormAct(3, 4, 3)).float()
    x = torch.randn(2, 3, 7, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = m(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain(m, x), rtol=0.05, atol=0.05)


def test_cross_stage_block_of_yolov5() -> None:
    m = ready(C3(6, 8, num_blocks=2, residual=True))
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    y = plain(m.cv1, x)
    for block in m.m:
        assert block.cv1.conv.kernel_size == (1, 1) and block.cv2.conv.kernel_size == (3, 3)
        y = y + plain(block.cv2, plain(block.cv1, y))
    torch.testing.assert_close(m(x), plain(m.cv3, torch.cat([y, plain(m.cv2, x)], dim=1)))


def test_cross_stage_block_of_yolov8_keeps_every_bottleneck() -> None:
    m = ready(C2f(6, 8, num_blocks=2, residual=False))
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    a = plain(m.cv1, x)
    first = plain(m.m[0].cv2, plain(m.m[0].cv1, a[:, 4:]))
    second = plain(m.m[1].cv2, plain(m.m[1].cv1, first))
    torch.testing.assert_close(m(x), plain(m.cv2, torch.cat([a, first, second], dim=1)))


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_residual_is_an_option_that_matters(kernel: int) -> None:
    m = ready(Bottleneck(4, kernel=kernel))
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    with_residual = m(x)
    m.residual = False
    torch.testing.assert_close(with_residual - m(x), x)


def test_pooling_is_that_of_windows_5_9_and_13() -> None:
    m = ready(SPPF(8, 6))
    x = torch.randn(1, 8, 15, 14, dtype=torch.float64)
    s = plain(m.cv1, x)
    pools = [F.max_pool2d(s, side, stride=1, padding=side // 2) for side in (5, 9, 13)]
    torch.testing.assert_close(m(x), plain(m.cv2, torch.cat([s, *pools], dim=1)))
