"""SSCS: golden parity with all gradients, the swap, published parameter counts, the zero start."""

import pytest
import torch
from golden_pairs import LEVELS, TOLERANCE, check, last, load, maps, of_block, read
from torch import Tensor

from scanfuse.errors import UserError
from scanfuse.fusion.sscs import SSCS, swap_quarters


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return a, b


def block(dim: int = 8, **options: bool) -> SSCS:
    torch.manual_seed(0)
    return SSCS(dim, d_state=3, **options).double()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("case", "dim", "d_state"), [("a", 16, 16), ("b", 8, 4)])
def test_golden_outputs_and_all_gradients(case: str, dim: int, d_state: int, dtype: torch.dtype) -> None:
    arrays = read("fusion_sscs.npz", case)
    module = SSCS(dim, d_state=d_state).to(dtype)
    names = load(module, arrays, of_block)
    inputs = maps(arrays, dtype)
    for m, mixed in zip("ri", swap_quarters(*inputs), strict=True):
        assert torch.equal(mixed, last(arrays[f"swap_{m}"]).to(dtype))
    check(module, arrays, names, inputs, module(*inputs))


def test_the_swap_by_hand_and_twice() -> None:
    rgb, ir = torch.arange(8), torch.arange(8) + 10
    mixed_rgb, mixed_ir = swap_quarters(rgb, ir)
    assert mixed_rgb.tolist() == [0, 1, 12, 13, 4, 5, 16, 17]
    assert mixed_ir.tolist() == [10, 11, 2, 3, 14, 15, 6, 7]
    again = swap_quarters(mixed_rgb, mixed_ir)
    assert torch.equal(again[0], rgb) and torch.equal(again[1], ir)


def test_gradients_of_a_swap_go_where_the_values_came_from() -> None:
    rgb, ir = (torch.zeros(4, requires_grad=True) for _ in range(2))
    swap_quarters(rgb, ir)[0].sum().backward()
    assert rgb.grad.tolist() == [1, 0, 1, 0] and ir.grad.tolist() == [0, 1, 0, 1]


def test_exchanged_inputs_give_exchanged_outputs_only_with_tied_weights() -> None:
    module = block()
    rgb, ir = pair(2, 3, 5, 8)
    assert (module(ir, rgb)[1] - module(rgb, ir)[0]).abs().max() > 1e-3
    module.ir.load_state_dict(module.rgb.state_dict())
    out_rgb, out_ir = module(rgb, ir)
    other_ir, other_rgb = module(ir, rgb)
    torch.testing.assert_close((other_rgb, other_ir), (out_rgb, out_ir))


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in SSCS(dim).parameters()) for dim in LEVELS]
    assert counts == [1_135_616, 4_106_240, 15_552_512] and sum(counts) == 20_794_368


def test_a_zero_start_gives_the_swapped_maps_and_trains_from_the_first_step() -> None:
    module = block(zero_init=True)
    rgb, ir = pair(2, 3, 5, 8)
    assert all(torch.equal(y, t) for y, t in zip(module(rgb, ir), swap_quarters(rgb, ir), strict=True))
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for step in range(2):
        optimiser.zero_grad()
        sum(y.pow(3).sum() for y in module(rgb, ir)).backward()
        trained = {name for name, p in module.named_parameters() if p.grad.abs().max() > 0}
        projections = {f"{m}.op.out_proj.weight" for m in ("rgb", "ir")}
        assert trained == (projections if step == 0 else dict(module.named_parameters()).keys())
        optimiser.step()


def test_a_width_without_quarters_is_refused() -> None:
    with pytest.raises(UserError, match="6 channels"):
        SSCS(6)
    with pytest.raises(UserError, match="multiple of 4"):
        swap_quarters(torch.zeros(2, 7), torch.zeros(2, 7))
