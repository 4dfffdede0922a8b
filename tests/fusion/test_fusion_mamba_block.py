"""The whole fusion block: golden parity, every published ablation, depths, counts, options that would do nothing."""

import pytest
import torch
from golden_pairs import LEVELS, TOLERANCE, check, last, load, maps, of_block, of_module, read, relative_error
from torch import Tensor

from scanfuse.errors import UserError
from scanfuse.fusion.fusion_mamba_block import FusionMambaBlock
from scanfuse.fusion.sscs import swap_quarters

ABLATIONS = {
    "full": {"depth": 2},
    "sscs_only": {"depth": 0},
    "dssf_only": {"swap": False, "depth": 2},
    "without_ir_to_rgb": {"depth": 2, "ir_to_rgb": False},
    "without_rgb_to_ir": {"depth": 2, "rgb_to_ir": False},
    "deeper": {"depth": 4},
}


def of_fmb(name: str) -> str:
    part, rest = name.split(".", 1)
    return f"sscs.{of_block(rest)}" if part == "sscs" else f"dssf.links.{of_module(rest)}"


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return a, b


def block(**options: int | bool) -> FusionMambaBlock:
    torch.manual_seed(0)
    return FusionMambaBlock(8, d_state=3, **options).double()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_golden_outputs_and_all_gradients(dtype: torch.dtype) -> None:
    arrays = read("fusion_dssf.npz", "fmb")
    module = FusionMambaBlock(8, depth=2, d_state=4).to(dtype)
    names = load(module, arrays, of_fmb)
    inputs = maps(arrays, dtype)
    outputs = module(*inputs)
    assert relative_error(outputs.joint, last(arrays["P"])) <= TOLERANCE[dtype][0]
    check(module, arrays, names, inputs, (outputs.rgb, outputs.ir))


@pytest.mark.parametrize(
    ("golden", "options"),
    [
        ("P_sscs_only", {"depth": 0}),
        ("P_dssf_only", {"swap": False, "depth": 2}),
        ("P_add", {"swap": False, "depth": 0}),
    ],
)
def test_golden_ablations(golden: str, options: dict[str, int | bool]) -> None:
    arrays = read("fusion_dssf.npz", "fmb")
    module = FusionMambaBlock(8, d_state=4, **options).double()
    full = FusionMambaBlock(8, depth=2, d_state=4).double()
    load(full, arrays, of_fmb)
    module.load_state_dict({k: v for k, v in full.state_dict().items() if k in module.state_dict()})
    assert relative_error(module(*maps(arrays, torch.float64)).joint, last(arrays[golden])) <= 1e-11


def test_every_option_changes_the_output() -> None:
    rgb, ir = pair(2, 3, 5, 8)
    whole = block(depth=4)
    joints = [rgb + ir]
    for options in ABLATIONS.values():
        module = block(**options)
        module.load_state_dict({k: v for k, v in whole.state_dict().items() if k in module.state_dict()})
        joints.append(module(rgb, ir).joint)
    for i, one in enumerate(joints):
        for other in joints[:i]:
            assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("options", ABLATIONS.values(), ids=ABLATIONS)
def test_every_parameter_and_both_inputs_get_a_gradient_from_the_joint_map(options: dict[str, int | bool]) -> None:
    module = block(**options)
    inputs = [x.requires_grad_() for x in pair(2, 3, 5, 8)]
    joint = module(*inputs).joint
    (joint * torch.randn_like(joint)).sum().backward()
    named = [*module.named_parameters(), ("rgb", inputs[0]), ("ir", inputs[1])]
    assert [name for name, p in named if p.grad is None or not p.grad.abs().max() > 1e-9] == []


def test_without_anything_the_maps_pass_and_are_added() -> None:
    rgb, ir = pair(2, 3, 5, 8)
    module = FusionMambaBlock(8, swap=False, depth=0)
    assert list(module.parameters()) == []
    out = module(rgb, ir)
    assert torch.equal(out.rgb, rgb) and torch.equal(out.ir, ir) and torch.equal(out.joint, rgb + ir)


def test_a_zero_start() -> None:
    rgb, ir = pair(2, 3, 5, 8)
    out = block(depth=2, zero_init=True)(rgb, ir)
    mixed_rgb, mixed_ir = swap_quarters(rgb, ir)
    assert torch.equal(out.rgb, rgb + mixed_rgb) and torch.equal(out.ir, ir + mixed_ir)
    torch.testing.assert_close(out.joint, 2 * (rgb + ir))


@pytest.mark.parametrize("depth", [2, 4, 8, 16])
def test_published_parameter_counts_at_every_depth(depth: int) -> None:
    with torch.device("meta"):
        blocks = [FusionMambaBlock(dim, depth=depth) for dim in LEVELS]
    count = sum(p.numel() for block in blocks for p in block.parameters())
    assert count == 20_794_368 + 149_610_496 * depth // 8
    assert count == 170_404_864 or depth != 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": -1}, "-1"),
        ({"depth": 0, "ir_to_rgb": False}, "no DSSF"),
        ({"depth": 0, "rgb_to_ir": False}, "no DSSF"),
        ({"swap": False, "depth": 0, "zero_init": True}, "zero_init"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: dict[str, int | bool], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FusionMambaBlock(8, **options)
