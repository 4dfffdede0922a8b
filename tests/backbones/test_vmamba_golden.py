"""VMamba against the published code: logits, stage maps, output norms and gradients of small checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scanfuse.backbones.vmamba import VMamba, load_checkpoint, read_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
FLAVOURS = ("v0", "v2r1", "v2r2")
INPUTS = ("sq", "ns", "odd")
NUM_PARAMETERS = {"v0": 356_762, "v2r1": 218_914, "v2r2": 262_462}
# Relative to the largest golden value. Logits are stored in float64, maps and input gradients in float32.
TOLERANCE = {torch.float64: {"logits": 1e-9, "stored32": 2e-7}, torch.float32: {"logits": 2e-5, "stored32": 2e-5}}


def golden(flavour: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"vmamba_{flavour}.npz") as file:
        return {key: file[key] for key in file.files}


def published(arrays: dict[str, np.ndarray], *, with_norms: bool) -> dict[str, Tensor]:
    prefixes = ("sd/", "on/") if with_norms else ("sd/",)
    return {key[3:]: torch.from_numpy(value) for key, value in arrays.items() if key.startswith(prefixes)}


def open_flavour(flavour: str, folder: Path, dtype: torch.dtype, *, with_norms: bool = False) -> VMamba:
    """Through a file in the published layout, as a user would."""
    file = folder / f"{flavour}.pth"
    torch.save({"model": published(golden(flavour), with_norms=with_norms)}, file)
    return load_checkpoint(file).to(dtype)


def relative_error(value: Tensor, expected: np.ndarray) -> float:
    wanted = torch.from_numpy(expected).double()
    assert value.shape == wanted.shape
    return ((value.double() - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_logits_and_stage_maps(flavour: str, dtype: torch.dtype, tmp_path: Path) -> None:
    arrays = golden(flavour)
    plain = open_flavour(flavour, tmp_path, dtype)
    normed = open_flavour(flavour, tmp_path, dtype, with_norms=True)
    assert sum(p.numel() for p in plain.parameters()) == NUM_PARAMETERS[flavour]
    assert json.loads(str(arrays["meta_json"]))["n_params"] == NUM_PARAMETERS[flavour]
    tolerance = TOLERANCE[dtype]
    for name in INPUTS:
        x = torch.from_numpy(arrays[f"{name}.x"]).to(dtype)
        with torch.no_grad():
            assert relative_error(plain(x), arrays[f"{name}.logits"]) < tolerance["logits"]
            maps, normed_maps = plain.features(x), normed.features(x)
        for stage in range(4):
            assert relative_error(maps[stage], arrays[f"{name}.feat{stage}"]) < tolerance["stored32"], stage
            assert relative_error(normed_maps[stage], arrays[f"{name}.featnorm{stage}"]) < tolerance["stored32"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_gradients(flavour: str, dtype: torch.dtype, tmp_path: Path) -> None:
    arrays = golden(flavour)
    file = tmp_path / "weights.pth"
    torch.save(published(arrays, with_norms=False), file)
    model, report = read_checkpoint(file)
    model = model.to(dtype)
    # The reader keeps the order of the file, which pairs published names with ours.
    our_name = dict(zip(published(arrays, with_norms=False), report.matched, strict=True))
    x = torch.from_numpy(arrays["sq.x"]).to(dtype).requires_grad_()
    (model(x) * torch.from_numpy(arrays["sq.ct_logits"]).to(dtype)).sum().backward()
    tolerance = TOLERANCE[dtype]
    assert relative_error(x.grad, arrays["sq.g_x"]) < tolerance["stored32"]
    gradients = {name: p.grad.double() for name, p in model.named_parameters()}
    assert {our_name[name] for name in arrays["sq.g_names"]} == set(gradients)
    for name, norm, total in zip(arrays["sq.g_names"], arrays["sq.g_norm"], arrays["sq.g_sum"], strict=True):
        gradient = gradients[our_name[name]]
        assert gradient.norm().item() == pytest.approx(norm, rel=tolerance["logits"]), name
        # A sum may cancel to nothing, so its scale is that of the sum of magnitudes.
        scale = gradient.abs().sum().item()
        assert gradient.sum().item() == pytest.approx(total, abs=tolerance["logits"] * scale), name
