"""The tri-plane scan of volumes: golden parity of the scan, a latent and a cross block, unequal sides, symmetry.

The golden values come from two programs written from the equations alone, on a volume of 3 x 4 x 5. Maps are stored
channels first, every route's parameters by themselves.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scanfuse.fusion.cross_mamba import CrossMambaBlock, CrossMambaFusion
from scanfuse.layers.mamba import LatentMamba
from scanfuse.layers.ssm import register_ssm, scan_by
from scanfuse.ops import routes

ARCHIVE = Path(__file__).parents[1] / "golden" / "triplane_scan.npz"
PLANES = ("axial", "coronal", "sagittal")
ROUTES = {"triplane3": PLANES, "triplane6": (*PLANES, *(f"{plane}_rev" for plane in PLANES))}
# dtype -> largest error over largest golden value, of outputs and of gradients
TOLERANCE = {torch.float64: (1e-11, 1e-10), torch.float32: (1e-5, 5e-5)}
CASES = [(dtype, routes) for dtype in TOLERANCE for routes in ROUTES]
# our name -> the stored one, of the parameters that every route has
PER_ROUTE = {
    "conv1d.weight": "conv1d.weight",
    "conv1d.bias": "conv1d.bias",
    "x_proj_weight": "x_proj.weight",
    "dt_projs_weight": "dt_proj.weight",
    "dt_projs_bias": "dt_proj.bias",
    "A_logs": "A_log",
    "Ds": "D",
}
SHARED = {
    "query_norm": "norm",
    "guide_norm": "norm_b",
    "guide_proj": "in_proj_b",
    "norm": "norm",
    "in_proj": "in_proj",
    "out_norm": "out_norm",
    "out_proj": "out_proj",
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(ARCHIVE) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files if key != "meta_json"}


def last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 4, 1)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} instead of {tuple(expected.shape)}"
    return float((actual.detach().double() - expected).abs().max() / expected.abs().max())


def stored(name: str, like: Tensor, arrays: dict[str, Tensor], prefix: str, names: tuple[str, ...]) -> Tensor:
    """The golden array of one of our parameters: those of the routes one after the other, or the shared one."""
    name = name.removeprefix("mixer.")
    if name in PER_ROUTE:
        return torch.cat([arrays[f"{prefix}.{route}.{PER_ROUTE[name]}"].flatten() for route in names]).view_as(like)
    part, rest = name.split(".")
    return arrays[f"{prefix}.{SHARED[part]}.{rest}"]


def fill(module: nn.Module, arrays: dict[str, Tensor], case: str, names: tuple[str, ...]) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(stored(name, parameter, arrays, f"{case}.sd", names))


def check(
    module: nn.Module, arrays: dict[str, Tensor], case: str, route_set: str, inputs: dict[str, Tensor], out: Tensor
) -> None:
    """Loss and all gradients, in the tolerance of the dtype; nothing stored is left unasked."""
    dtype = out.dtype
    loss = (out * last(arrays[f"{case}.w"]).to(dtype)).sum()
    if dtype == torch.float64:
        assert abs(loss.item() - arrays[f"{case}.{route_set}.loss"].item()) <= 1e-9
    loss.backward()
    prefix = f"{case}.{route_set}.g"
    for name, x in inputs.items():
        assert relative_error(x.grad, last(arrays[f"{prefix}.in.{name}"])) <= TOLERANCE[dtype][1], name
    compared = 0
    for name, parameter in module.named_parameters():
        expected = stored(name, parameter, arrays, prefix, ROUTES[route_set])
        assert relative_error(parameter.grad, expected) <= TOLERANCE[dtype][1], name
        compared += expected.numel()
    held = sum(x.numel() for key, x in arrays.items() if key.startswith(f"{prefix}.") and ".g.in." not in key)
    assert compared == held


@pytest.mark.parametrize(("dtype", "route_set"), CASES, ids=str)
def test_golden_scan(golden: dict[str, Tensor], dtype: torch.dtype, route_set: str) -> None:
    names = ROUTES[route_set]
    module = nn.Module()
    register_ssm(module, num_routes=len(names), d_inner=6, d_state=4, dt_rank=2)
    module.to(dtype)
    fill(module, golden, "scan", names)
    x = last(golden["scan.in.x"]).to(dtype).requires_grad_()
    orders = routes.over(route_set, x.shape[1:-1])
    apart = scan_by(module, x.flatten(1, -2), orders, merge="none").unflatten(1, x.shape[1:-1])
    for k, name in enumerate(names):
        assert relative_error(apart[..., k, :], last(golden[f"scan.y.{name}"])) <= TOLERANCE[dtype][0], name
    mean = scan_by(module, x.flatten(1, -2), orders).unflatten(1, x.shape[1:-1]) / len(names)
    assert relative_error(mean, last(golden[f"scan.{route_set}.mean"])) <= TOLERANCE[dtype][0]
    check(module, golden, "scan", route_set, {"x": x}, mean)


@pytest.mark.parametrize(("dtype", "route_set"), CASES, ids=str)
def test_golden_latent_block(golden: dict[str, Tensor], dtype: torch.dtype, route_set: str) -> None:
    module = LatentMamba(6, route_set=route_set, d_state=4).to(dtype)
    fill(module, golden, "block", ROUTES[route_set])
    t = last(golden["block.in.t"]).to(dtype).requires_grad_()
    out = module(t)
    assert relative_error(out, last(golden[f"block.{route_set}.out"])) <= TOLERANCE[dtype][0]
    check(module, golden, "block", route_set, {"t": t}, out)


@pytest.mark.parametrize(("dtype", "route_set"), CASES, ids=str)
def test_golden_cross_block(golden: dict[str, Tensor], dtype: torch.dtype, route_set: str) -> None:
    module = CrossMambaBlock(6, route_set=route_set, d_state=4).to(dtype)
    fill(module, golden, "cross", ROUTES[route_set])
    a, b = (last(golden[f"cross.in.{name}"]).to(dtype).requires_grad_() for name in "ab")
    out = module(a, b)
    assert relative_error(out, last(golden[f"cross.{route_set}.out"])) <= TOLERANCE[dtype][0]
    check(module, golden, "cross", route_set, {"a": a, "b": b}, out)


def volumes(*sides: int) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, 2, *sides, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return a, b


def blocks(route_set: str) -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        LatentMamba(8, route_set=route_set, d_state=3).double(),
        CrossMambaBlock(8, route_set=route_set, d_state=3).double(),
    ]


def applied(block: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    return block(a) if isinstance(block, LatentMamba) else block(a, b)


@pytest.mark.parametrize("sides", [(2, 3, 5), (5, 1, 2), (1, 1, 3)], ids=str)
def test_a_flipped_volume_gives_the_flipped_result_with_every_route_exchanged_for_its_reverse(
    sides: tuple[int, int, int],
) -> None:
    a, b = volumes(*sides)
    for block in blocks("triplane6"):
        before = applied(block, a, b)
        exchange_routes(block, [3, 4, 5, 0, 1, 2])
        after = applied(block, a.flip(1, 2, 3), b.flip(1, 2, 3))
        torch.testing.assert_close(after.flip(1, 2, 3), before, rtol=1e-12, atol=1e-12)
        exchange_routes(block, [1, 0, 2, 3, 4, 5])
        if min(sides) > 1:
            assert (applied(block, a.flip(1, 2, 3), b.flip(1, 2, 3)).flip(1, 2, 3) - before).abs().max() > 1e-4


def test_a_volume_on_its_side_gives_the_result_on_its_side_with_the_planes_exchanged() -> None:
    """Axial d h w and coronal h d w change places when the axes d and h do; the sagittal w d h would become w h d."""
    a, b = volumes(3, 4, 5)
    for block in blocks("triplane3"):
        with torch.no_grad():
            for name in ("x_proj_weight", "dt_projs_weight"):
                getattr(block.mixer, name)[2].zero_()
            block.mixer.Ds.chunk(3)[2].zero_()
            block.mixer.dt_projs_bias[2].fill_(-1000.0)  # no step at all: the sagittal route is silent
        before = applied(block, a, b)
        exchange_routes(block, [1, 0, 2])
        torch.testing.assert_close(applied(block, a.transpose(1, 2), b.transpose(1, 2)).transpose(1, 2), before)


def exchange_routes(block: nn.Module, order: list[int]) -> None:
    with torch.no_grad():
        for parameter in block.mixer.parameters():
            apart = parameter.view(len(order), -1)
            apart.copy_(apart[order].clone())


def test_a_volume_of_one_slice_is_a_map() -> None:
    """The axial and the coronal route are then the rows, the sagittal one the columns."""
    a, b = volumes(1, 4, 5)
    for block, flat in zip(blocks("axial"), blocks("raster"), strict=True):
        flat.load_state_dict(block.state_dict())
        torch.testing.assert_close(applied(block, a, b)[:, 0], applied(flat, a[:, 0], b[:, 0]))
    orders = routes.triplane3(1, 4, 5)
    assert torch.equal(orders[[0, 2]], routes.cross(4, 5)[:2]) and torch.equal(orders[0], orders[1])


@pytest.mark.parametrize("route_set", ["axial", "triplane3", "triplane6"])
def test_a_position_reaches_what_follows_it_on_some_route(route_set: str) -> None:
    """Everything, if every route is read backwards, too; by half if not."""
    torch.manual_seed(0)
    block = LatentMamba(8, route_set=route_set, d_state=3).double()
    a, _ = volumes(3, 4, 5)
    changed = a.clone()
    changed[:, 1, 2, 2] *= -1
    reached = (block(changed) - block(a)).abs().amax(dim=(0, 4)) > 0
    following = torch.zeros(3, 4, 5, dtype=torch.bool)
    for order in routes.over(route_set, (3, 4, 5)).tolist():
        here = (1 * 4 + 2) * 5 + 2
        following.view(-1)[order[order.index(here) :]] = True
    assert torch.equal(reached, following)
    assert reached.all() == (route_set == "triplane6")


def test_a_map_for_routes_over_volumes_is_refused_and_the_other_way_about() -> None:
    volume, _ = volumes(2, 3, 4)
    with pytest.raises(ValueError, match="'triplane3'"):
        LatentMamba(8, route_set="triplane3").double()(volume[:, 0])
    with pytest.raises(ValueError, match="'cross'"):
        CrossMambaBlock(8).double()(volume, volume)
    with pytest.raises(ValueError, match="no routes 'triplane'"):
        LatentMamba(8, route_set="triplane")


@pytest.mark.parametrize(("route_set", "count"), [("axial", 111_104), ("triplane3", 135_168), ("triplane6", 171_264)])
def test_parameter_counts(route_set: str, count: int) -> None:
    assert sum(p.numel() for p in LatentMamba(128, route_set=route_set).parameters()) == count
    fusion = sum(p.numel() for p in CrossMambaFusion(128, route_set=route_set).parameters())
    assert fusion == 2 * (count + 180_224 - 147_200) + 128**2 + 128
