"""SS2D: parity with the published operator, parameter counts, initial values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scanfuse.layers.ss2d import GATED, PLAIN, SS2D, SS2DOptions

GOLDEN = Path(__file__).parents[1] / "golden" / "ss2d_ops.npz"
NUM_GOLDEN = 18
FLAVOURS = [
    (GATED, True),  # v0, stored channels last
    (PLAIN, False),  # v05_noz, stored channels first
    (SS2DOptions(d_state=1, ratio=2.0, gate=True, conv_bias=False), False),  # v05
]


def golden_case(case: int) -> tuple[SS2DOptions, bool, dict[str, Tensor]]:
    """Options, whether maps are stored channels last, and the arrays of one operator."""
    with np.load(GOLDEN) as file:
        prefix = f"op{case:02d}."
        arrays = {key[len(prefix) :]: torch.from_numpy(file[key]) for key in file.files if key.startswith(prefix)}
    options, channels_last = FLAVOURS[case // 6]
    return options, channels_last, arrays


def relative_error(value: Tensor, golden: Tensor) -> float:
    return ((value.double() - golden.double()).abs().max() / golden.double().abs().max()).item()


def test_golden_file_has_every_operator() -> None:
    with np.load(GOLDEN) as file:
        assert (
            sum(key.endswith(".x") and key.startswith("op") and ".g." not in key for key in file.files) == NUM_GOLDEN
        )


@pytest.mark.parametrize("case", range(NUM_GOLDEN))
@pytest.mark.parametrize(
    ("dtype", "output_tolerance", "gradient_tolerance"),
    [(torch.float64, 1e-10, 2e-7), (torch.float32, 1e-5, 5e-5)],
    ids=["float64", "float32"],
)
def test_matches_the_published_operator(
    case: int, dtype: torch.dtype, output_tolerance: float, gradient_tolerance: float
) -> None:
    options, channels_last, arrays = golden_case(case)

    def to_last(x: Tensor) -> Tensor:
        return (x if channels_last else x.permute(0, 2, 3, 1)).to(dtype)

    x = to_last(arrays["x"]).requires_grad_()
    layer = SS2D(x.shape[-1], options).to(dtype)
    state = {key[3:]: value.to(dtype) for key, value in arrays.items() if key.startswith("sd.")}
    layer.load_state_dict({key: value.reshape(layer.state_dict()[key].shape) for key, value in state.items()})

    y = layer(x)
    (y * to_last(arrays["ct"])).sum().backward()

    input_tolerance = output_tolerance if dtype == torch.float64 else gradient_tolerance
    assert relative_error(y, to_last(arrays["y"]).double()) < output_tolerance
    assert relative_error(x.grad, to_last(arrays["g.x"]).double()) < input_tolerance
    parameters = dict(layer.named_parameters())
    assert set(parameters) == set(state)
    for name, parameter in parameters.items():
        assert relative_error(parameter.grad, arrays[f"g.{name}"].reshape(parameter.shape)) < gradient_tolerance, name


@pytest.mark.parametrize("dim", [96, 192, 256, 384, 512])
def test_gated_parameter_count(dim: int) -> None:
    assert sum(p.numel() for p in SS2D(dim).parameters()) == 7 * dim**2 + 424 * dim


def test_a_model_wide_reset_of_linear_layers_keeps_the_ssm_values() -> None:
    layer = SS2D(32)
    before = {name: p.clone() for name, p in layer.named_parameters()}

    def reset(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)

    layer.apply(reset)
    changed = {name for name, p in layer.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"in_proj.weight", "out_proj.weight"}


def test_transposed_map_is_the_same_work_with_exchanged_routes() -> None:
    """Transposing the map and exchanging the row with the column routes is the same computation."""
    torch.manual_seed(0)
    layer = SS2D(16).double()
    mirror = SS2D(16).double()
    mirror.load_state_dict(layer.state_dict())
    with torch.no_grad():
        for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias"):
            getattr(mirror, name).copy_(getattr(layer, name)[[1, 0, 3, 2]])
        mirror.conv2d.weight.copy_(layer.conv2d.weight.transpose(2, 3))
        x = torch.randn(2, 3, 5, 16, dtype=torch.float64)
        torch.testing.assert_close(mirror(x.transpose(1, 2)), layer(x).transpose(1, 2))
