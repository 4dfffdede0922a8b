"""Mamba blocks against a second implementation that permutes sequences and loops over time."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanfuse.fusion.cross_mamba import CrossMambaBlock
from scanfuse.layers.mamba import BidirectionalMamba, LatentMamba, Mamba, RouteMixer
from scanfuse.layers.route_conv import RouteConv
from scanfuse.ops import routes


def looped_mixer(mixer: RouteMixer, x: Tensor, orders: Tensor, guide: Tensor | None = None) -> Tensor:
    """The mixer by the definition: one sequence per route, read in its order, one step of time after the other."""
    total = torch.zeros_like(x)
    rank = mixer.dt_projs_weight.shape[2]
    num_states = mixer.A_logs.shape[1]
    width = mixer.conv1d.weight.shape[2]
    for k, order in enumerate(orders):
        sequence = F.pad(x[:, order].transpose(1, 2), (width - 1, 0))
        u = F.silu(F.conv1d(sequence, mixer.conv1d.weight[k, :, None], mixer.conv1d.bias[k], groups=x.shape[2]))
        u = u.transpose(1, 2)
        source = u if guide is None else guide[:, order]
        dt, B, C = (source @ mixer.x_proj_weight[k].T).split([rank, num_states, num_states], dim=-1)
        delta = F.softplus(dt @ mixer.dt_projs_weight[k].T + mixer.dt_projs_bias[k])
        A = -torch.exp(mixer.A_logs.view(len(orders), -1, num_states)[k])
        D = mixer.Ds.view(len(orders), -1)[k]
        h = x.new_zeros(x.shape[0], x.shape[2], num_states)
        for t, position in enumerate(order.tolist()):
            h = torch.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * u[:, t])[..., None] * B[:, t, None]
            total[:, position] += (h * C[:, t, None]).sum(-1) + D * u[:, t]
    return total


@pytest.mark.parametrize("num_routes", [1, 2, 4])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_route_convolution_matches_convolution_of_sequences(num_routes: int, width: int) -> None:
    torch.manual_seed(0)
    conv = RouteConv(6, num_routes=num_routes, width=width).double()
    orders = routes.cross(3, 5)[:num_routes]
    x = torch.randn(2, 15, 6, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, 15, num_routes, 6, dtype=torch.float64)
    expected = torch.empty_like(cotangent)
    for k, order in enumerate(orders):
        sequence = F.pad(x[:, order].transpose(1, 2), (width - 1, 0))
        y = F.conv1d(sequence, conv.weight[k, :, None], conv.bias[k], groups=6).transpose(1, 2)
        expected[:, order, k] = F.silu(y)
    given = [x, conv.weight, conv.bias]
    wanted = torch.autograd.grad((expected * cotangent).sum(), given)
    actual = conv(x, orders)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad((actual * cotangent).sum(), given), wanted)


@pytest.mark.parametrize("size", [(3, 5), (1, 6), (4, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("with_guide", [False, True])
def test_mixer_matches_the_loop(size: tuple[int, int], with_guide: bool) -> None:
    torch.manual_seed(0)
    mixer = RouteMixer(8, num_routes=4, d_state=3, dt_rank=2).double()
    length = size[0] * size[1]
    orders = routes.cross(*size)
    x = torch.randn(2, length, 8, dtype=torch.float64)
    guide = torch.randn(2, length, 8, dtype=torch.float64) if with_guide else None
    torch.testing.assert_close(mixer(x, orders, guide), looped_mixer(mixer, x, orders, guide))


@pytest.mark.parametrize("route_set", ["cross", "raster"])
def test_latent_block_gates_then_averages_then_norms(route_set: str) -> None:
    torch.manual_seed(0)
    block = LatentMamba(16, route_set=route_set).double()
    t = torch.randn(2, 3, 5, 16, dtype=torch.float64)
    orders = routes.over(route_set, (3, 5))
    x, z = (F.layer_norm(t, (16,), block.norm.weight, block.norm.bias) @ block.in_proj.weight.T).chunk(2, dim=-1)
    y = looped_mixer(block.mixer, x.flatten(1, 2), orders).view_as(x) / len(orders) * z * torch.sigmoid(z)
    y = F.layer_norm(y, (32,), block.out_norm.weight, block.out_norm.bias)
    torch.testing.assert_close(block(t), t + y @ block.out_proj.weight.T)


def test_cross_block_takes_the_step_from_the_guide_and_the_signal_from_the_query() -> None:
    torch.manual_seed(0)
    block = CrossMambaBlock(16).double()
    query, guide = torch.randn(2, 2, 3, 5, 16, dtype=torch.float64)
    x, z = (F.layer_norm(query, (16,)) @ block.in_proj.weight.T).chunk(2, dim=-1)
    g = F.layer_norm(guide, (16,)) @ block.guide_proj.weight.T
    y = looped_mixer(block.mixer, x.flatten(1, 2), routes.cross(3, 5), g.flatten(1, 2)).view_as(x)
    expected = query + F.layer_norm(y / 4 * F.silu(z), (32,)) @ block.out_proj.weight.T
    torch.testing.assert_close(block(query, guide), expected)


def test_plain_mamba_is_causal_and_matches_the_loop() -> None:
    torch.manual_seed(0)
    layer = Mamba(16, d_state=4).double()
    t = torch.randn(1, 9, 16, dtype=torch.float64)
    x, z = (t @ layer.in_proj.weight.T).chunk(2, dim=-1)
    expected = (looped_mixer(layer.mixer, x, routes.raster(9)) * F.silu(z)) @ layer.out_proj.weight.T
    torch.testing.assert_close(layer(t), expected)
    changed = t.clone()
    changed[:, 5] += 1
    difference = (layer(changed) - layer(t)).abs().amax(dim=(0, 2))
    assert (difference[:5] == 0).all() and (difference[5:] > 0).all()


def test_bidirectional_mamba_with_equal_directions_commutes_with_reversal() -> None:
    torch.manual_seed(0)
    layer = BidirectionalMamba(16, d_state=4).double()
    with torch.no_grad():
        for parameter in layer.mixer.parameters():
            forward, backward = parameter.chunk(2)
            backward.copy_(forward)
    t = torch.randn(2, 7, 16, dtype=torch.float64)
    torch.testing.assert_close(layer(t.flip(1)), layer(t).flip(1))


@pytest.mark.parametrize(
    ("block", "count"),
    [
        (lambda: LatentMamba(128), 147_200),
        (lambda: CrossMambaBlock(128), 180_224),
        (lambda: Mamba(128, d_state=8), 110_336),
        (lambda: Mamba(128, d_state=16), 116_480),
    ],
    ids=["latent", "cross", "mamba8", "mamba16"],
)
def test_parameter_count(block, count: int) -> None:
    assert sum(p.numel() for p in block().parameters()) == count


def test_every_route_starts_with_the_step_sizes_of_mamba() -> None:
    """The published code leaves three of four routes at the default of a linear layer, steps of about softplus(0)."""
    steps = F.softplus(LatentMamba(64).mixer.dt_projs_bias)
    assert steps.min() > 0.99e-3 and steps.max() < 0.101
