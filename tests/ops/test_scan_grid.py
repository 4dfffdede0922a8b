"""The parameter grid of mamba-ssm's own test with its tolerances: outputs, last states and all gradients.

Inputs, their scales and what stays float32 are those of that test. What a backend computes from inputs of a dtype is
compared with the float64 loop on the very same values. A part of the grid that has every option in every dtype runs
by default, the rest is marked `slow`.

Source of the tolerances: the tests of mamba-ssm (Gu and Dao, 2023).
"""

import itertools
from typing import NamedTuple

import pytest
import torch
from scan_cases import BACKENDS, relative_error
from torch import Tensor

from scanfuse.ops import selective_scan

BATCH, D, N = 2, 4, 8
LENGTHS = (8, 64, 372, 1134)
# rtol, atol of outputs, states and gradients that vary over time
TOLERANCE = {
    torch.float32: (6e-4, 2e-3),
    torch.float16: (3e-3, 5e-3),
    torch.bfloat16: (3e-2, 5e-2),
}
WEIGHTS = 1e-3  # both tolerances of gradients of constant weights


class Case(NamedTuple):
    dtype: torch.dtype
    length: int
    bias: bool
    softplus: bool
    z: bool
    D: bool
    B: str
    C: str

    def __str__(self) -> str:
        switches = [name for name in ("bias", "softplus", "z", "D") if getattr(self, name)]
        return "-".join([str(self.dtype)[6:], str(self.length), *switches, f"B{self.B}", f"C{self.C}"])


# (form of B, form of C): constant, varying, or in two groups
FORMS = [("DN", "DN"), ("DN", "BNL"), ("BNL", "DN"), ("BNL", "BNL"), ("BGNL", "BGNL")]
FLAGS = list(itertools.product([False, True], repeat=4))
GRID = [
    Case(dtype, length, *flags, *forms)
    for length in LENGTHS
    for dtype in TOLERANCE
    for flags in FLAGS
    for forms in FORMS
]


STEPS = {8: 7, 64: 7, 372: 13, 1134: 27}


def by_default(index: int, case: Case) -> bool:
    # There are 80 combinations of options a length and dtype. A step that shares no factor with 80 meets all of them
    # in turn, and different ones in each dtype.
    return index % STEPS[case.length] == 0


CHOSEN = [
    pytest.param(case, id=str(case), marks=[] if by_default(index, case) else pytest.mark.slow)
    for index, case in enumerate(GRID)
]


def inputs(case: Case) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(case.length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def weights(form: str) -> Tensor:
        if form == "DN":
            return normal(D, N)
        groups = (2,) if form == "BGNL" else ()
        return normal(BATCH, *groups, N, case.length).to(case.dtype)

    given = {
        "u": normal(BATCH, D, case.length).to(case.dtype),
        "delta": (0.5 * uniform(BATCH, D, case.length)).to(case.dtype),
        "A": -0.5 * uniform(D, N),
        "B": weights(case.B),
        "C": weights(case.C),
    }
    if case.D:
        given["D"] = normal(D)
    if case.z:
        given["z"] = normal(BATCH, D, case.length).to(case.dtype)
    if case.bias:
        given["delta_bias"] = 0.5 * uniform(D)
    return given


def computed(case: Case, given: dict[str, Tensor], cotangent: Tensor, backend: str) -> dict[str, Tensor]:
    """Output, state and the gradient of every input for a cotangent of the output."""
    leaves = {name: x.detach().requires_grad_() for name, x in given.items()}
    out, state = selective_scan(**leaves, delta_softplus=case.softplus, return_last_state=True, backend=backend)
    gradients = torch.autograd.grad(out, list(leaves.values()), cotangent.to(out.dtype))
    return {"out": out, "last_state": state} | dict(zip(leaves, gradients, strict=True))


def tolerances(case: Case) -> dict[str, tuple[float, float]]:
    """rtol and atol of every result by its name; that of an input is the one of its gradient."""
    r, a = TOLERANCE[case.dtype]
    rw, aw = (max(WEIGHTS, r), max(WEIGHTS, a)) if case.z else (WEIGHTS, WEIGHTS)
    return {
        "out": (r, a),
        "last_state": (r, a),
        "u": (2 * r, 2 * a),
        "delta": (5 * r, 10 * a),
        "A": (rw, 5 * aw),
        "B": (rw, aw) if case.B == "DN" else (r, a),
        "C": (rw, aw) if case.C == "DN" else (r, a),
        "D": (rw, aw),
        "z": (rw, aw),
        "delta_bias": (rw, aw),
    }


@pytest.mark.parametrize("case", CHOSEN)
def test_outputs_states_and_gradients(case: Case) -> None:
    given = inputs(case)
    cotangent = torch.randn(given["u"].shape, generator=torch.Generator().manual_seed(1)).to(case.dtype)
    exact = computed(case, {name: x.double() for name, x in given.items()}, cotangent, "reference")
    missed = []
    for backend in BACKENDS:
        if backend == "reference" and case.length > 64:
            continue  # the oracle itself, and slow
        for name, actual in computed(case, given, cotangent, backend).items():
            rtol, atol = tolerances(case)[name]
            assert actual.dtype == (torch.float32 if name == "last_state" else given.get(name, given["u"]).dtype)
            if not torch.allclose(actual.double(), exact[name], rtol=rtol, atol=atol):
                off = (actual.double() - exact[name]).abs().max().item()
                missed.append(f"{backend}: {name} off by {off:.2g}")
    assert not missed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_float32_has_gradients_that_no_rounding_touched(backend: str, dtype: torch.dtype) -> None:
    """Only y is rounded, behind the gate: a y rounded before it would leave errors of 1e-3 here."""
    case = Case(dtype, 100, bias=True, softplus=True, z=True, D=True, B="DN", C="DN")
    given = inputs(case)
    cotangent = torch.randn(given["u"].shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact = computed(case, {name: x.double() for name, x in given.items()}, cotangent, "reference")
    actual = computed(case, given, cotangent, backend)
    for name in ("last_state", "A", "B", "C", "D", "delta_bias"):
        assert relative_error(actual[name], exact[name]) <= 3e-6, name


def test_every_option_is_met_by_default_in_every_dtype() -> None:
    chosen = [case for index, case in enumerate(GRID) if by_default(index, case)]
    assert len(GRID) == 960
    for dtype, length in itertools.product(TOLERANCE, LENGTHS):
        here = [case for case in chosen if (case.dtype, case.length) == (dtype, length)]
        assert {case.z for case in here} == {False, True}
        if length < 1134:
            assert {(case.B, case.C) for case in here} == set(FORMS)
            for option in ("bias", "softplus", "D"):
                assert {getattr(case, option) for case in here} == {False, True}
