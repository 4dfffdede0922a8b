"""DSSF: golden parity with all gradients and every ablation, the true chain, one scan for both, the identities."""

import pytest
import torch
from golden_pairs import LEVELS, TOLERANCE, check, last, load, maps, of_module, read, relative_error
from torch import Tensor, nn

from scanfuse.errors import UserError
from scanfuse.fusion.dssf import DSSF, DSSFChain
from scanfuse.layers import ssm

ABLATIONS = {
    "no_ir2rgb": {"ir_to_rgb": False},
    "no_rgb2ir": {"rgb_to_ir": False},
    "no_both": {"ir_to_rgb": False, "rgb_to_ir": False},
}


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return a, b


def module(**options: bool) -> DSSF:
    torch.manual_seed(0)
    return DSSF(8, d_state=3, **options).double()


def of_link(name: str) -> str:
    return f"links.{of_module(name)}"


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_golden_outputs_and_all_gradients(dtype: torch.dtype) -> None:
    arrays = read("fusion_dssf.npz", "one")
    dssf = DSSF(8).to(dtype)
    names = load(dssf, arrays, of_module)
    inputs = maps(arrays, dtype)
    check(dssf, arrays, names, inputs, dssf(*inputs))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_golden_chain_and_all_gradients(dtype: torch.dtype) -> None:
    arrays = read("fusion_dssf.npz", "chain")
    chain = DSSFChain(8, depth=3, d_state=4).to(dtype)
    names = load(chain, arrays, of_link)
    inputs = maps(arrays, dtype)
    check(chain, arrays, names, inputs, chain(*inputs))
    rgb, ir = inputs
    for done, link in enumerate(list(chain.links)[:2], start=1):
        rgb, ir = link(rgb, ir)
        for m, y in zip("ri", (rgb, ir), strict=True):
            assert relative_error(y, last(arrays[f"after{done}.out_{m}"])) <= TOLERANCE[dtype][0]


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("case", ["one", "chain"])
def test_golden_ablations(case: str, ablation: str) -> None:
    arrays = read("fusion_dssf.npz", case)
    if case == "one":
        dssf: nn.Module = DSSF(8, **ABLATIONS[ablation]).double()
    else:
        dssf = DSSFChain(8, depth=3, d_state=4, **ABLATIONS[ablation]).double()
    load(dssf, arrays, of_module if case == "one" else of_link)
    for m, y in zip("ri", dssf(*maps(arrays, torch.float64)), strict=True):
        assert relative_error(y, last(arrays[f"{ablation}.out_{m}"])) <= 1e-11


@pytest.mark.parametrize("options", [{}, *ABLATIONS.values()], ids=["full", *ABLATIONS])
def test_every_parameter_and_both_inputs_get_a_gradient(options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    chain = DSSFChain(8, depth=2, d_state=3, **options).double()
    inputs = [x.requires_grad_() for x in pair(2, 3, 5, 8)]
    sum((y * torch.randn_like(y)).sum() for y in chain(*inputs)).backward()
    named = [*chain.named_parameters(), ("rgb", inputs[0]), ("ir", inputs[1])]
    assert [name for name, p in named if p.grad is None or not p.grad.abs().max() > 1e-9] == []


def test_both_modalities_go_through_one_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(u: Tensor, *arguments: Tensor, **options: str) -> Tensor:
        calls.append(len(u))
        return scan_routes(u, *arguments, **options)

    scan_routes = ssm.scan_routes
    monkeypatch.setattr(ssm, "scan_routes", counted)
    module()(*pair(3, 2, 4, 8))
    assert calls == [6]


def test_what_crosses_over_is_what_the_options_say() -> None:
    rgb, ir = pair(1, 3, 4, 8)
    for ir_to_rgb in (True, False):
        for rgb_to_ir in (True, False):
            dssf = module(ir_to_rgb=ir_to_rgb, rgb_to_ir=rgb_to_ir)
            out_rgb, out_ir = dssf(rgb, ir)
            other_rgb, _ = dssf(rgb, ir + 1.5 * ir.abs())
            _, other_ir = dssf(rgb + 1.5 * rgb.abs(), ir)
            assert (not torch.equal(out_rgb, other_rgb)) == ir_to_rgb
            assert (not torch.equal(out_ir, other_ir)) == rgb_to_ir


def test_without_a_gate_it_is_the_identity() -> None:
    dssf = module()
    with torch.no_grad():
        for in_proj in (dssf.in_proj_rgb, dssf.in_proj_ir):
            in_proj.weight.chunk(2)[1].zero_()
    rgb, ir = pair(2, 3, 5, 8)
    out_rgb, out_ir = dssf(rgb, ir)
    assert torch.equal(out_rgb, rgb) and torch.equal(out_ir, ir)


def test_exchanged_inputs_give_exchanged_outputs_with_tied_weights() -> None:
    """With a direction off, the exchange is that of the directions, too."""
    rgb, ir = pair(2, 3, 5, 8)
    for options, exchanged in (({}, {}), ({"ir_to_rgb": False}, {"rgb_to_ir": False})):
        dssf, mirror = module(**options), module(**exchanged)
        assert (dssf(rgb, ir)[0] - mirror(ir, rgb)[1]).abs().max() > 1e-3
        for name in ("norm", "in_proj", "conv2d", "out_norm", "out_proj"):
            getattr(dssf, f"{name}_ir").load_state_dict(getattr(dssf, f"{name}_rgb").state_dict())
        mirror.load_state_dict(dssf.state_dict())
        other_ir, other_rgb = mirror(ir, rgb)
        torch.testing.assert_close((other_rgb, other_ir), dssf(rgb, ir))


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in DSSF(dim).parameters()) for dim in LEVELS]
        chains = [sum(p.numel() for p in DSSFChain(dim, depth=8).parameters()) for dim in LEVELS]
    assert counts == [967_680, 3_639_296, 14_094_336]
    assert sum(chains) == 149_610_496


def test_a_zero_start_is_the_identity_and_trains_from_the_first_step() -> None:
    torch.manual_seed(0)
    chain = DSSFChain(8, depth=3, d_state=3, zero_init=True).double()
    rgb, ir = pair(2, 3, 5, 8)
    out_rgb, out_ir = chain(rgb, ir)
    assert torch.equal(out_rgb, rgb) and torch.equal(out_ir, ir)
    projections = {f"links.{i}.out_proj_{m}.weight" for i in range(3) for m in ("rgb", "ir")}
    optimiser = torch.optim.SGD(chain.parameters(), lr=0.1)
    for step in range(2):
        optimiser.zero_grad()
        sum(y.pow(3).sum() for y in chain(rgb, ir)).backward()
        trained = {name for name, p in chain.named_parameters() if p.grad.abs().max() > 0}
        assert trained == (projections if step == 0 else dict(chain.named_parameters()).keys())
        optimiser.step()


def test_a_chain_of_none_is_refused() -> None:
    with pytest.raises(UserError, match="at least one"):
        DSSFChain(8, depth=0)
