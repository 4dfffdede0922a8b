"""Initial values and projections of the state-space parameters."""

import math

import torch
import torch.nn.functional as F

from scanfuse.layers.ss2d import SS2D
from scanfuse.layers.ssm import initial_dt_bias, initial_ssm, project, transition, without_weight_decay


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


def test_what_is_not_decayed() -> None:
    assert without_weight_decay(SS2D(16)) == {
        "A_logs", "Ds", "dt_projs_bias", "conv2d.bias", "out_norm.weight", "out_norm.bias",
    }  # fmt: skip
