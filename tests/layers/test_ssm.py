"""Initial values of the state-space parameters, their projections and the scan by them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanfuse.layers.ss2d import SS2D
from scanfuse.layers.ssm import (
    initial_dt_bias,
    initial_ssm,
    project,
    register_ssm,
    scan_by,
    transition,
    without_weight_decay,
)
from scanfuse.ops import routes


def test_step_sizes_are_log_uniform_on_every_route() -> None:
    torch.manual_seed(0)
    steps = F.softplus(initial_dt_bias(4, 4000).double())
    assert steps.min() > 0.99e-3 and steps.max() < 0.101
    # log-uniform on [1e-3, 1e-1]: the median is 1e-2, and a quarter lies below 10^-2.5
    torch.testing.assert_close(
        steps.median(dim=1).values, torch.full((4,), 1e-2, dtype=torch.float64), rtol=0.1, atol=0
    )
    assert ((steps < 10**-2.5).double().mean(dim=1) - 0.25).abs().max() < 0.03
    assert not torch.equal(steps[0], steps[1])


def test_a_is_minus_one_to_minus_n_and_d_is_one() -> None:
    ssm = initial_ssm(2, 3, 5, 4)
    expected = -torch.arange(1.0, 6.0).expand(2, 3, 5)
    torch.testing.assert_close(transition(ssm.A_logs, 2), expected)
    assert torch.equal(ssm.Ds, torch.ones(6))
    assert ssm.dt_projs_weight.abs().max() <= 1 / math.sqrt(4)
    assert ssm.x_proj_weight.abs().max() <= 1 / math.sqrt(3)


def test_project_is_one_linear_map_per_route() -> None:
    torch.manual_seed(0)
    ssm = initial_ssm(3, 6, 2, 4)
    x = torch.randn(2, 5, 3, 6)
    delta, B, C = project(x, ssm.x_proj_weight, ssm.dt_projs_weight)
    for k in range(3):
        dbc = x[:, :, k] @ ssm.x_proj_weight[k].T
        torch.testing.assert_close(delta[:, :, k], dbc[..., :4] @ ssm.dt_projs_weight[k].T)
        torch.testing.assert_close(B[:, :, k], dbc[..., 4:6])
        torch.testing.assert_close(C[:, :, k], dbc[..., 6:])
    shared = torch.randn(2, 5, 6)
    alike = project(shared[:, :, None].expand(-1, -1, 3, -1), ssm.x_proj_weight, ssm.dt_projs_weight)
    for one, other in zip(project(shared, ssm.x_proj_weight, ssm.dt_projs_weight), alike, strict=True):
        torch.testing.assert_close(one, other)


def owner(num_routes: int, d_inner: int, d_state: int, dt_rank: int) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Module()
    register_ssm(module, num_routes=num_routes, d_inner=d_inner, d_state=d_state, dt_rank=dt_rank)
    return module


def test_a_module_owns_the_five_tensors_under_their_published_names_with_the_same_draws() -> None:
    module = owner(3, 6, 2, 4)
    after = torch.rand(4)
    torch.manual_seed(0)
    expected = initial_ssm(3, 6, 2, 4)
    assert torch.equal(after, torch.rand(4))
    assert list(module.state_dict()) == ["x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"]
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, getattr(expected, name)), name


def looped(module: nn.Module, u_blki: Tensor, source_blki: Tensor, orders: Tensor, C_blkn: Tensor | None) -> Tensor:
    """(batch, L, K, I): the definition, route by route and step by step; C as given, else as projected."""
    num_states, rank = module.A_logs.shape[1], module.dt_projs_weight.shape[2]
    y = torch.zeros_like(u_blki)
    for k, order in enumerate(orders.tolist()):
        A = -module.A_logs.view(len(orders), -1, num_states)[k].exp()
        D = module.Ds.view(len(orders), -1)[k]
        state = torch.zeros(len(u_blki), *A.shape, dtype=u_blki.dtype)
        for position in order:
            u, source = u_blki[:, position, k], source_blki[:, position, k]
            dt, B, C = (source @ module.x_proj_weight[k].T).split([rank, num_states, num_states], dim=-1)
            C = C if C_blkn is None else C_blkn[:, position, k]
            dt = F.softplus(dt @ module.dt_projs_weight[k].T + module.dt_projs_bias[k])
            state = (dt[..., None] * A).exp() * state + (dt * u)[..., None] * B[:, None]
            y[:, position, k] = (state * C[:, None]).sum(-1) + D * u
    return y


@pytest.mark.parametrize("merge", ["sum", "none"])
@pytest.mark.parametrize("own_c", [False, True])
@pytest.mark.parametrize("with_guide", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_scan_by_is_the_definition(shared: bool, with_guide: bool, own_c: bool, merge: str) -> None:
    module = owner(4, 6, 3, 2).double()
    with torch.no_grad():
        module.Ds.normal_()
    orders = routes.cross(2, 3)
    u, guide = torch.randn(2, 2, 6, 6) if shared else torch.randn(2, 2, 6, 4, 6)
    u, guide = u.double(), guide.double()
    given = torch.randn(2, 6, 4, 3).double()
    actual = scan_by(
        module,
        u,
        orders,
        guide=guide if with_guide else None,
        read_out=(lambda C: C * 2 + given) if own_c else None,
        merge=merge,
    )
    source = guide if with_guide else u
    u, source = (x[:, :, None].expand(-1, -1, 4, -1) if shared else x for x in (u, source))
    C = project(source, module.x_proj_weight, module.dt_projs_weight)[2] * 2 + given if own_c else None
    expected = looped(module, u, source, orders, C)
    torch.testing.assert_close(actual, expected.sum(2) if merge == "sum" else expected)


def test_what_is_not_decayed() -> None:
    assert without_weight_decay(SS2D(16)) == {
        "A_logs", "Ds", "dt_projs_bias", "conv2d.bias", "out_norm.weight", "out_norm.bias",
    }  # fmt: skip
