"""The multi-view combination block against a second implementation, and its symmetry."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanfuse.fusion.cross_view import CrossViewFusion
from scanfuse.ops import selective_scan

GATES = ("silu", "channel")


def block(gate: str, *, dim: int = 8) -> CrossViewFusion:
    torch.manual_seed(0)
    return CrossViewFusion(dim, gate=gate, d_state=3).double()


def views(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return a, b


def second_implementation(m: CrossViewFusion, z_a: Tensor, z_b: Tensor) -> Tensor:
    """Channels first, stream by stream, every direction a flipped or transposed copy and a 1D scan."""
    n_a, n_b = (F.layer_norm(z, z.shape[-1:], m.norm.weight, m.norm.bias).permute(0, 3, 1, 2) for z in (z_a, z_b))
    q = {"a": n_a, "b": n_b, "m": (n_a + n_b) / 2}
    q = {name: torch.einsum("ec,bchw->behw", m.in_proj.weight, n) for name, n in q.items()}
    u = {
        name: F.silu(F.conv2d(value, m.conv2d.weight, m.conv2d.bias, padding=1, groups=value.shape[1]))
        for name, value in q.items()
    }
    rank, num_states = m.dt_projs_weight.shape[2], m.A_logs.shape[1]
    batch, d, height, width = u["m"].shape

    def read(x: Tensor, direction: int) -> Tensor:
        x = (x.transpose(2, 3) if direction % 2 else x).flatten(2)
        return x.flip(2) if direction >= 2 else x

    def put_back(x: Tensor, direction: int) -> Tensor:
        x = x.flip(2) if direction >= 2 else x
        return x.reshape(batch, d, width, height).transpose(2, 3) if direction % 2 else x.reshape(u["m"].shape)

    def scanned(stream: str) -> Tensor:
        total = torch.zeros_like(u["m"])
        for k in range(4):
            s, s_m = read(u[stream], k), read(u["m"], k)
            dt, B, _ = torch.einsum("re,bel->brl", m.x_proj_weight[k], s).split([rank, num_states, num_states], 1)
            C = torch.einsum("re,bel->brl", m.x_proj_weight[k], s_m)[:, rank + num_states :]
            delta = torch.einsum("er,brl->bel", m.dt_projs_weight[k], dt)
            own = slice(k * d, (k + 1) * d)
            A, D = -torch.exp(m.A_logs[own]), m.Ds[own]
            y = selective_scan(s, delta, A, B, C, D, delta_bias=m.dt_projs_bias[k], delta_softplus=True)
            total = total + put_back(y, k)
        total = total.permute(0, 2, 3, 1)
        return F.layer_norm(total, (d,), m.out_norm.weight, m.out_norm.bias)

    q_m = q["m"].permute(0, 2, 3, 1)
    if m.gate == "silu":
        gate = F.silu(q_m)
    else:
        pooled = q_m.mean(dim=(1, 2))
        gate = torch.sigmoid(F.silu(pooled @ m.squeeze.weight.T) @ m.excite.weight.T)[:, None, None]
    return z_a + z_b + ((scanned("a") + scanned("b") + scanned("m")) * gate) @ m.out_proj.weight.T


@pytest.mark.parametrize("gate", GATES)
def test_equals_a_second_implementation(gate: str) -> None:
    m = block(gate)
    with torch.no_grad():  # weights at their initial scale hide the inner parts behind the residual
        m.norm.bias.normal_()
        m.out_proj.weight.mul_(5)
        if gate == "channel":
            m.excite.weight.mul_(20)
    z_a, z_b = views(2, 3, 5, 8)
    torch.testing.assert_close(m(z_a, z_b), second_implementation(m, z_a, z_b), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("dim", "count"), [(768, 5_635_584 - 2_359_296), (1024, 9_873_408 - 4_194_304)])
def test_published_parameter_counts_without_the_unused_ones(dim: int, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in CrossViewFusion(dim).parameters()) == count


@pytest.mark.parametrize("gate", GATES)
def test_symmetric_in_the_views(gate: str) -> None:
    m = block(gate)
    z_a, z_b = views(2, 3, 5, 8)
    torch.testing.assert_close(m(z_a, z_b), m(z_b, z_a))


@pytest.mark.parametrize("gate", GATES)
def test_every_parameter_and_both_views_get_a_gradient(gate: str) -> None:
    m = block(gate)
    z_a, z_b = (z.requires_grad_() for z in views(2, 3, 5, 8))
    z = m(z_a, z_b)
    (z * torch.randn_like(z)).sum().backward()
    named = [*m.named_parameters(), ("a", z_a), ("b", z_b)]
    assert [name for name, p in named if p.grad is None or p.grad.abs().max() < 1e-9] == []


def test_gradients_are_those_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(block("silu", dim=4), [z.requires_grad_() for z in views(1, 2, 3, 4)])
