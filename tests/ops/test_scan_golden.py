"""`selective_scan` against values of mamba-ssm's reference function; the archive's meta describes the cases."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scan_cases import BACKENDS, relative_error

from scanfuse.ops import selective_scan

ARCHIVE = Path(__file__).parents[1] / "golden" / "selective_scan.npz"
CASES = [f"c{i:02d}" for i in range(13)]
TOLERANCE = {torch.float64: (1e-11, 1e-10), torch.float32: (2e-6, 1e-5)}  # values, gradients


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(ARCHIVE) as archive:
        return dict(archive)


def test_the_archive_holds_the_cases_listed_here(golden: dict[str, np.ndarray]) -> None:
    assert sorted({name[:3] for name in golden if name[3:4] == "."}) == CASES


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp64", "fp32"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_values_and_all_gradients(
    golden: dict[str, np.ndarray], case: str, backend: str, dtype: torch.dtype, nan_filled_memory: None
) -> None:
    stored = {name[4:]: x for name, x in golden.items() if name.startswith(f"{case}.")}
    inputs = {
        name[3:]: torch.from_numpy(x).to(dtype).requires_grad_()
        for name, x in stored.items()
        if name.startswith("in.")
    }
    softplus = softplus_of(golden, case)
    out, state = selective_scan(**inputs, delta_softplus=softplus, return_last_state=True, backend=backend)
    values, gradients = TOLERANCE[dtype]
    assert relative_error(out, torch.from_numpy(stored["out"])) <= values
    assert relative_error(state, torch.from_numpy(stored["last_state"])) <= values

    ct_out, ct_state = (torch.from_numpy(stored[name]).to(dtype) for name in ("ct_out", "ct_state"))
    leaves = list(inputs.values())
    from_out = torch.autograd.grad(out, leaves, ct_out, retain_graph=True)
    from_both = torch.autograd.grad((out, state), leaves, (ct_out, ct_state))
    for name, g_out, g_all in zip(inputs, from_out, from_both, strict=True):
        expected_out = torch.from_numpy(stored[f"g_out.{name}"])
        expected_all = torch.from_numpy(stored.get(f"g_all.{name}", stored[f"g_out.{name}"]))
        assert relative_error(g_out, expected_out) <= gradients, f"gradient of out for {name}"
        assert relative_error(g_all, expected_all) <= gradients, f"gradient of out and state for {name}"


def softplus_of(golden: dict[str, np.ndarray], case: str) -> bool:
    meta = {entry["name"]: entry for entry in json.loads(str(golden["meta_json"]))}
    return bool(meta[case]["softplus"])
