"""The Triton kernels against the reference and mamba-ssm's golden values.

The cases run on a GPU with `-m gpu`. Without one they run in Triton's interpreter, which must be chosen before Triton
is imported: `test_in_the_interpreter` starts this file again in a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scanfuse.ops import BackendUnavailable, routes, scan_routes, selective_scan

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.usefixtures("nan_filled_memory")
DEVICE = "cpu" if INTERPRETED else "cuda"
GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "selective_scan.npz")
GOLDEN_CASES = [f"c{i:02d}" for i in range(13)]
# Gradients of the long cases take the interpreter too long for every run.
LONG = {"c02", "c03", "c04", "c12"}


def on_the_device(function):
    """A case for the interpreter process, else for a machine with a GPU."""
    if INTERPRETED:
        return function
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
    return pytest.mark.gpu(skip(function))


def difference(ours: Tensor, theirs: Tensor | np.ndarray) -> float:
    theirs = torch.as_tensor(theirs, dtype=torch.float64)
    ours = ours.detach().cpu().double()
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))


def golden(case: str) -> tuple[dict[str, Tensor], bool]:
    entry = json.loads(str(GOLDEN["meta_json"]))[int(case[1:])]
    inputs = {}
    for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias"):
        if f"{case}.in.{name}" in GOLDEN:
            inputs[name] = torch.tensor(GOLDEN[f"{case}.in.{name}"], dtype=torch.float32, device=DEVICE)
    return inputs, bool(entry["softplus"])


@on_the_device
@pytest.mark.parametrize("case", sorted(LONG))
def test_golden_values_of_long_cases(case):
    inputs, softplus = golden(case)
    y, state = selective_scan(**inputs, delta_softplus=softplus, return_last_state=True, backend="triton")
    assert difference(y, GOLDEN[f"{case}.out"]) < 2e-6
    assert difference(state, GOLDEN[f"{case}.last_state"]) < 2e-6


@on_the_device
@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow) if INTERPRETED and c in LONG else c for c in GOLDEN_CASES]
)
def test_golden_values_and_gradients(case):
    inputs, softplus = golden(case)
    for x in inputs.values():
        x.requires_grad_()
    y, state = selective_scan(**inputs, delta_softplus=softplus, return_last_state=True, backend="triton")
    weights = [
        torch.tensor(GOLDEN[f"{case}.{n}"], dtype=torch.float32, device=DEVICE) for n in ("ct_out", "ct_state")
    ]
    gradients = torch.autograd.grad((y * weights[0]).sum() + (state * weights[1]).sum(), list(inputs.values()))
    for name, gradient in zip(inputs, gradients, strict=True):
        key = f"{case}.g_all.{name}" if f"{case}.g_all.{name}" in GOLDEN else f"{case}.g_out.{name}"
        assert difference(gradient, GOLDEN[key]) < 1e-5, name


def random_arguments(b, length, k, d, n, *, shared, skip, bias, initial):
    generator = torch.Generator().manual_seed(1000 * length + 10 * d + n)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "u": random(b, length, d) if shared else random(b, length, k, d),
        "delta": random(b, length, k, d) - 1,
        "A": -torch.rand(k, d, n, generator=generator) * 3,
        "B": random(b, length, k, n),
        "C": random(b, length, k, n),
        "D": random(k, d) if skip else None,
        "delta_bias": random(k, d) if bias else None,
        "initial_state": random(b, k, d, n) if initial else None,
    }


# name: sizes (b, L, k, d, n), routes, u shared, D, bias, initial state, softplus, merge
ROUTES = {
    "cross": ((1, 15, 4, 33, 16), lambda: routes.cross(3, 5), True, True, True, True, True, "sum"),
    "apart": ((1, 6, 4, 3, 1), lambda: routes.cross(2, 3), False, False, False, False, False, "none"),
    "two_chunks": ((2, 65, 1, 5, 3), lambda: None, True, True, False, True, True, "sum"),
    "own_u": ((1, 9, 2, 4, 20), lambda: routes.bidirectional(9), False, True, True, False, True, "sum"),
}


@on_the_device
@pytest.mark.parametrize("name", ROUTES)
def test_routes_against_the_reference(name):
    sizes, make_orders, shared, skip, bias, initial, softplus, merge = ROUTES[name]
    orders = make_orders()
    arguments = random_arguments(*sizes, shared=shared, skip=skip, bias=bias, initial=initial)
    generator = torch.Generator().manual_seed(0)
    results = []
    for backend, device, dtype in (("reference", "cpu", torch.float64), ("triton", DEVICE, torch.float32)):
        inputs = {}
        for key, x in arguments.items():
            inputs[key] = None if x is None else x.to(device, dtype).requires_grad_()
        here = None if orders is None else orders.to(device)
        y, state = scan_routes(
            **inputs, orders=here, delta_softplus=softplus, merge=merge, return_last_state=True, backend=backend
        )
        if not results:
            weights = [torch.randn(x.shape, generator=generator) for x in (y, state)]
        loss = (y * weights[0].to(y)).sum() + (state * weights[1].to(y)).sum()
        results.append((y, state, *torch.autograd.grad(loss, [x for x in inputs.values() if x is not None])))
    for i, (expected, ours) in enumerate(zip(*results, strict=True)):
        assert difference(ours, expected.detach()) < (2e-6 if i < 2 else 1e-5), i


@on_the_device
def test_repeats_bit_for_bit_from_any_memory_layout():
    arguments = random_arguments(1, 10, 4, 6, 4, shared=True, skip=True, bias=True, initial=False)
    orders = routes.cross(2, 5).to(DEVICE)
    results = []
    for strided in (False, True):
        inputs = {}
        for key, x in arguments.items():
            if x is None:
                continue
            x = x.to(DEVICE)
            inputs[key] = x.mT.contiguous().mT.requires_grad_() if strided else x.requires_grad_()
        y = scan_routes(**inputs, orders=orders, backend="triton")
        results.append((y, *torch.autograd.grad(y.square().sum(), list(inputs.values()))))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


@on_the_device
def test_half_precision_in_and_out():
    arguments = random_arguments(1, 7, 1, 4, 4, shared=True, skip=True, bias=True, initial=False)
    halves = {key: None if x is None else x.to(DEVICE, torch.bfloat16) for key, x in arguments.items()}
    y, state = scan_routes(**halves, return_last_state=True, backend="triton")
    exact = {key: None if x is None else x.cpu().double() for key, x in halves.items()}
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert difference(y, scan_routes(**exact, backend="reference")) < 2**-8


@on_the_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_stays_outside_the_gate(dtype):
    generator = torch.Generator().manual_seed(0)
    given = {name: torch.randn(2, 3, 11, generator=generator).to(dtype) for name in ("u", "delta", "z")}
    given |= {"A": -torch.rand(3, 2, generator=generator), "D": torch.randn(3, generator=generator)}
    given |= {name: torch.randn(3, 2, generator=generator) for name in ("B", "C")}
    cotangent = torch.randn(2, 3, 11, generator=generator).to(dtype)
    gradients = []
    for backend, device, wide in (("reference", "cpu", torch.float64), ("triton", DEVICE, None)):
        leaves = {name: x.to(device, wide or x.dtype).requires_grad_() for name, x in given.items()}
        y = selective_scan(**leaves, delta_softplus=True, backend=backend)
        assert y.dtype == (wide or dtype)
        gradients.append(torch.autograd.grad(y, [leaves[name] for name in "ABCD"], cotangent.to(y)))
    for name, expected, ours in zip("ABCD", *gradients, strict=True):
        assert difference(ours, expected) < 1e-5, name


@on_the_device
def test_an_order_that_is_no_permutation():
    arguments = random_arguments(1, 4, 1, 3, 2, shared=True, skip=False, bias=False, initial=False)
    arguments = {key: None if x is None else x.to(DEVICE) for key, x in arguments.items()}
    with pytest.raises(ValueError, match="permutation"):
        scan_routes(**arguments, orders=torch.tensor([[0, 1, 1, 3]], device=DEVICE), backend="triton")


@pytest.mark.skipif(INTERPRETED, reason="the processes that this test starts")
@pytest.mark.parametrize(
    ("which", "number"),
    [("test_golden_values_of_long", 4), ("test_golden_values_and", 9), ("routes or repeats or half or order", 9)],
)
def test_in_the_interpreter(which, number):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    # Inherited settings of a parallel run would reach for its workers.
    environment = {key: value for key, value in environment.items() if not key.startswith("PYTEST_")}
    done = subprocess.run([*command, "-k", which], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{number} passed" in done.stdout


@pytest.mark.skipif(INTERPRETED, reason="the interpreter takes CPU tensors")
def test_cpu_tensors_are_refused_with_the_reason():
    arguments = random_arguments(1, 4, 1, 3, 2, shared=True, skip=False, bias=False, initial=False)
    with pytest.raises(BackendUnavailable, match="GPU"):
        scan_routes(**arguments, backend="triton")


@pytest.mark.skipif(INTERPRETED, reason="compiles for a GPU")
@pytest.mark.parametrize("states", [1, 16])
@pytest.mark.parametrize("options", [True, False])
def test_kernels_compile_for_a_gpu_that_is_not_there(states, options, monkeypatch, tmp_path):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from scanfuse.ops.selective_scan import triton_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"CHUNK": 64, "SUB": 4, "STATES": states, "LANES": 32}
    flags = ("ROUTED", "VARYING_B", "VARYING_C", "HAS_D", "HAS_BIAS", "SOFTPLUS", "REVERSE")
    integers = {"L", "k", "d", "N", "chunks", "batch"}
    for kernel in (kernels.ends, kernels.carry, kernels.forward, kernels.gradient_ends, kernels.backward):
        signature, values = {}, {}
        for name in kernel.arg_names:
            if name in constants or name in flags:
                signature[name], values[name] = "constexpr", constants.get(name, options)
            elif name in integers or name[-2:] in ("_b", "_l", "_k", "_d"):
                signature[name] = "i32"
            else:
                signature[name] = "*i64" if name == "orders" else "*fp32"
        source = ASTSource(kernel, signature, constexprs=values)
        compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": 1})
        assert "ex2.approx" in compiled.asm["ptx"]
