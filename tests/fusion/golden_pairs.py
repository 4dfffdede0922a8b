"""The golden files of fusion blocks with an RGB and an infrared map: how to read them and what parity means.

Every value comes from two programs written from the equations alone; outputs and gradients are float64, inputs and
weights exact in float32. Maps are stored channels first.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[1] / "golden"
# dtype -> largest error over largest golden value, of outputs and of gradients
TOLERANCE = {torch.float64: (1e-11, 1e-10), torch.float32: (1e-5, 5e-5)}
LEVELS = (256, 512, 1024)


def read(file: str, case: str) -> dict[str, Tensor]:
    """The arrays of one case, without its name in front."""
    with np.load(FOLDER / file) as archive:
        prefix = f"{case}."
        return {k[len(prefix) :]: torch.from_numpy(archive[k]) for k in archive.files if k.startswith(prefix)}


def last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} instead of {tuple(expected.shape)}"
    return float((actual.detach().double() - expected).abs().max() / expected.abs().max())


def load(module: nn.Module, arrays: dict[str, Tensor], rename: Callable[[str], str]) -> dict[str, str]:
    """Fills the module, strictly, in its own dtype; returns its names -> the stored ones."""
    stored = {rename(key[3:]): key[3:] for key in arrays if key.startswith("sd.")}
    dtype = next(module.parameters()).dtype
    module.load_state_dict({ours: arrays[f"sd.{theirs}"].to(dtype) for ours, theirs in stored.items()})
    return stored


def maps(arrays: dict[str, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r, i = (last(arrays[f"in.{m}"]).to(dtype).requires_grad_() for m in "ri")
    return r, i


def check(
    module: nn.Module,
    arrays: dict[str, Tensor],
    names: dict[str, str],
    inputs: tuple[Tensor, Tensor],
    outputs: tuple[Tensor, Tensor],
) -> None:
    """Outputs, loss and all gradients against the stored ones, in the tolerance of the dtype."""
    dtype = inputs[0].dtype
    for_values, for_gradients = TOLERANCE[dtype]
    loss = torch.zeros((), dtype=dtype)
    for m, y in zip("ri", outputs, strict=True):
        assert relative_error(y, last(arrays[f"out_{m}"])) <= for_values, m
        loss = loss + (y * last(arrays[f"w_{m}"]).to(dtype)).sum()
    if dtype == torch.float64:
        assert abs(loss.item() - arrays["loss"].item()) <= 1e-9
    loss.backward()
    for m, x in zip("ri", inputs, strict=True):
        assert relative_error(x.grad, last(arrays[f"g.in.{m}"])) <= for_gradients, m
    parameters = dict(module.named_parameters())
    assert len(parameters) == sum(key.startswith("g.") for key in arrays) - 2
    for ours, parameter in parameters.items():
        assert relative_error(parameter.grad, arrays[f"g.{names[ours]}"]) <= for_gradients, ours


def of_block(name: str) -> str:
    """Published names of the first VMamba block -> ours; r -> rgb, i -> ir."""
    stream, rest = name.split(".", 1)
    rest = rest.replace("ln_1", "norm").replace("self_attention", "op")
    return f"{ {'r': 'rgb', 'i': 'ir'}[stream] }.{rest}"


def of_module(name: str) -> str:
    """Stored names of a DSSF -> ours: norm.r.weight -> norm_rgb.weight; shared ones are the same."""
    for short, ours in (("r", "rgb"), ("i", "ir")):
        name = name.replace(f".{short}.", f"_{ours}.")
    return name
