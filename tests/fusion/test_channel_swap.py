"""The cross-view swapping block against a second implementation, and the direction its gradients take."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanfuse.fusion.channel_swap import ChannelSwapFusion, exchange_even
from scanfuse.ops import selective_scan

OPTIONS = [
    (swap, merge, norm)
    for swap in ("channel", "token")
    for merge in ("none", "deinterleave")
    for norm in ("ln2d", "bn")
]


def block(swap: str = "channel", merge: str = "none", norm: str = "ln2d", *, dim: int = 8) -> ChannelSwapFusion:
    torch.manual_seed(0)
    return ChannelSwapFusion(dim, swap=swap, merge=merge, norm=norm, d_state=3).double()


def views(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return a, b


def second_implementation(m: ChannelSwapFusion, z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
    """Channels first, one view and one stream after the other, mixtures by slices, 1D scans; layer norm only."""

    def prepare(z: Tensor) -> tuple[Tensor, Tensor]:
        n = F.layer_norm(z, z.shape[-1:], m.norm.weight, m.norm.bias).permute(0, 3, 1, 2)
        p = torch.einsum("ec,bchw->behw", m.in_proj.weight, n)
        u = F.silu(F.conv2d(p, m.conv2d.weight, m.conv2d.bias, padding=1, groups=p.shape[1]))
        return p, u.flatten(2)

    def mixture(own: Tensor, other: Tensor) -> Tensor:
        mixed = own.clone()
        if m.swap == "channel":
            mixed[:, 0::2] = other[:, 0::2]
        else:
            mixed[:, :, 0::2] = other[:, :, 0::2]
        return mixed

    def scanned(stream: int, s: Tensor) -> Tensor:
        rank, n = m.dt_projs_weight.shape[2], m.A_logs.shape[1]
        d = s.shape[1]
        dt, B, C = torch.einsum("re,bel->brl", m.x_proj_weight[stream], s).split([rank, n, n], dim=1)
        delta = torch.einsum("er,brl->bel", m.dt_projs_weight[stream], dt)
        own = slice(stream * d, (stream + 1) * d)
        A, D = -torch.exp(m.A_logs[own]), m.Ds[own]
        return selective_scan(s, delta, A, B, C, D, delta_bias=m.dt_projs_bias[stream], delta_softplus=True)

    def gate(p: Tensor) -> Tensor:
        pooled = p.mean(dim=(2, 3))
        return torch.sigmoid(F.silu(pooled @ m.squeeze.weight.T) @ m.excite.weight.T)[:, :, None]

    (p_a, u_a), (p_b, u_b) = prepare(z_a), prepare(z_b)
    y_a, y_b = scanned(0, mixture(u_a, u_b)), scanned(1, mixture(u_b, u_a))
    if m.merge == "deinterleave":
        y_a, y_b = mixture(y_a, y_b), mixture(y_b, y_a)

    def out(z: Tensor, y: Tensor, g: Tensor) -> Tensor:
        y = F.layer_norm(y.transpose(1, 2), y.shape[1:2], m.out_norm.weight, m.out_norm.bias)
        return z + ((y * g.transpose(1, 2)) @ m.out_proj.weight.T).reshape(z.shape)

    return out(z_a, y_a, gate(p_b)), out(z_b, y_b, gate(p_a))


@pytest.mark.parametrize("merge", ["none", "deinterleave"])
@pytest.mark.parametrize("swap", ["channel", "token"])
def test_equals_a_second_implementation(swap: str, merge: str) -> None:
    m = block(swap, merge)
    with torch.no_grad():  # weights at their initial scale hide the inner parts behind the residual
        m.norm.bias.normal_()
        m.out_proj.weight.mul_(5)
        m.excite.weight.mul_(20)
    z_a, z_b = views(2, 3, 5, 8)
    for ours, theirs in zip(m(z_a, z_b), second_implementation(m, z_a, z_b), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("dim", "count"), [(768, 3_122_688), (1024, 5_474_304)])
def test_published_parameter_counts(dim: int, count: int) -> None:
    with torch.device("meta"):
        for norm in ("ln2d", "bn"):
            assert sum(p.numel() for p in ChannelSwapFusion(dim, norm=norm).parameters()) == count


def test_exchange_takes_even_entries_from_the_other_and_undoes_itself() -> None:
    a = torch.arange(6.0).reshape(1, 2, 3)
    b = -a - 10
    mixed_a, mixed_b = exchange_even(a, b, "channel")
    assert mixed_a.tolist() == [[[-10, 1, -12], [-13, 4, -15]]]
    assert mixed_b.tolist() == [[[0, -11, 2], [3, -14, 5]]]
    assert exchange_even(a, b, "token")[0].tolist() == [[[-10, -11, -12], [3, 4, 5]]]
    for swap in ("channel", "token"):
        again = exchange_even(*exchange_even(a, b, swap), swap)
        assert torch.equal(again[0], a) and torch.equal(again[1], b)


def test_gradients_go_to_the_view_the_values_came_from() -> None:
    """The published backward gives all of a loss on stream 1 to view 1, though half the stream is view 2."""
    a, b = (torch.randn(1, 2, 4, requires_grad=True) for _ in range(2))
    exchange_even(a, b, "channel")[0].sum().backward()
    assert a.grad.tolist() == [[[0, 1, 0, 1], [0, 1, 0, 1]]]
    assert b.grad.tolist() == [[[1, 0, 1, 0], [1, 0, 1, 0]]]


@pytest.mark.parametrize("merge", ["none", "deinterleave"])
@pytest.mark.parametrize("swap", ["channel", "token"])
def test_gradients_are_those_of_finite_differences(swap: str, merge: str) -> None:
    m = block(swap, merge, dim=4)
    inputs = [z.requires_grad_() for z in views(1, 2, 3, 4)]
    assert torch.autograd.gradcheck(m, inputs, fast_mode=False)


@pytest.mark.parametrize(("swap", "merge", "norm"), OPTIONS)
def test_identical_views_stay_identical_only_if_the_streams_are_tied(swap: str, merge: str, norm: str) -> None:
    m = block(swap, merge, norm)
    z, _ = views(2, 3, 5, 8)
    out_a, out_b = m(z, z)
    assert (out_a - out_b).abs().max() > 1e-3
    tie_streams(m)
    out_a, out_b = m(z, z)
    torch.testing.assert_close(out_a, out_b)


@pytest.mark.parametrize(("swap", "merge", "norm"), OPTIONS)
def test_exchanged_views_give_exchanged_outputs_with_exchanged_streams(swap: str, merge: str, norm: str) -> None:
    m = block(swap, merge, norm)
    z_a, z_b = views(2, 3, 5, 8)
    out_a, out_b = m(z_a, z_b)
    assert (m(z_b, z_a)[1] - out_a).abs().max() > 1e-3
    exchange_streams(m)
    swapped_b, swapped_a = m(z_b, z_a)
    torch.testing.assert_close(swapped_a, out_a)
    torch.testing.assert_close(swapped_b, out_b)


def tie_streams(m: ChannelSwapFusion) -> None:
    with torch.no_grad():
        for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"):
            first, second = getattr(m, name).chunk(2)
            second.copy_(first)


def exchange_streams(m: ChannelSwapFusion) -> None:
    with torch.no_grad():
        for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"):
            parameter = getattr(m, name)
            parameter.copy_(torch.cat(parameter.chunk(2)[::-1]))


@pytest.mark.parametrize(("swap", "merge", "norm"), OPTIONS)
def test_every_parameter_and_both_views_get_a_gradient(swap: str, merge: str, norm: str) -> None:
    m = block(swap, merge, norm)
    z_a, z_b = (z.requires_grad_() for z in views(2, 3, 5, 8))
    out_a, out_b = m(z_a, z_b)
    (out_a * torch.randn_like(out_a) + out_b * torch.randn_like(out_b)).sum().backward()
    named = [*m.named_parameters(), ("a", z_a), ("b", z_b)]
    assert [name for name, p in named if p.grad is None or p.grad.abs().max() < 1e-9] == []
