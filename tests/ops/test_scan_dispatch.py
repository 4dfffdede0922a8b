"""Choice of the backend, the operator's registration, and arguments that do not fit."""

import logging
import subprocess
import sys

import pytest
import torch
from scan_cases import assert_close, results, route_inputs

from scanfuse.ops import BackendUnavailable, routes, scan_routes, selective_scan
from scanfuse.ops.selective_scan import available_backends, backends, resolve_backend


def floats(length: int, d: int, n: int, k: int = 1) -> dict[str, torch.Tensor]:
    return {name: x.float() for name, x in route_inputs(length, d, n, k=k).items()}


def test_importing_the_ops_needs_torch_and_numpy_only() -> None:
    program = (
        "import sys; sys.modules.update(numba=None, llvmlite=None, triton=None)\n"
        "import torch; from scanfuse.ops import routes, scan_routes\n"
        "assert 'torch._dynamo' not in sys.modules, 'importing the compiler takes seconds'\n"
        "x = torch.rand(1, 3, 1, 2); A = -torch.ones(1, 2, 2)\n"
        "scan_routes(x[:, :, 0], x, A, x, x, backend='portable')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_argument_beats_environment_beats_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    assert resolve_backend("cpu")[0] == "cpu"
    assert resolve_backend("mps")[0] == "portable"
    monkeypatch.setenv(backends.VARIABLE, "portable")
    assert resolve_backend("cpu") == ("portable", "asked for by SCANFUSE_SCAN_BACKEND=portable")
    assert resolve_backend("cpu", backend="reference") == ("reference", "asked for by backend='reference'")
    monkeypatch.setenv(backends.VARIABLE, "fast")
    with pytest.raises(ValueError, match=r"SCANFUSE_SCAN_BACKEND=fast.*reference, portable, cpu, triton"):
        scan_routes(**floats(3, 2, 1))


def test_an_explicit_choice_that_cannot_run_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendUnavailable, match=r"backend='triton'.*on cpu.*use backend='auto'"):
        scan_routes(**floats(3, 2, 1), backend="triton")
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None if name == "numba" else object())
    with pytest.raises(BackendUnavailable, match="pip install numba"):
        scan_routes(**floats(3, 2, 1), backend="cpu")
    name, why = resolve_backend("cpu")
    assert name == "portable" and "numba is not installed" in why


def test_available_backends_names_the_obstacle_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    obstacles = available_backends("cpu")
    assert tuple(obstacles) == backends.BACKENDS
    assert obstacles["reference"] is obstacles["portable"] is obstacles["cpu"] is None
    assert "GPU" in str(obstacles["triton"])


def test_the_automatic_choice_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    backends._announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="scanfuse.ops"):
        for _ in range(3):
            scan_routes(**floats(3, 2, 1))
    assert [r.message for r in caplog.records] == ["scan backend for cpu tensors: cpu (the tensors are on the CPU)"]


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # from inside torch's own check
@pytest.mark.parametrize("time_last", [False, True])
def test_opcheck(time_last: bool) -> None:
    inputs = {name: x.requires_grad_() for name, x in floats(9, 3, 2, k=2).items()}
    u = inputs["u"].detach().unsqueeze(2)
    arguments = (
        (u.expand(2, 9, 2, 3).contiguous() if time_last else u).requires_grad_(),
        *(inputs[name] for name in ("delta", "A", "B", "C", "D", "delta_bias")),
        None if time_last else routes.bidirectional(9),
        inputs["initial_state"],
        True,
        not time_last,
        time_last,
        True,
        "cpu",
    )
    torch.library.opcheck(torch.ops.scanfuse.scan_forward.default, arguments)
    with torch.no_grad():
        y, last, states = torch.ops.scanfuse.scan_forward(*arguments)
    plain = [x.detach() if isinstance(x, torch.Tensor) else x for x in arguments]
    torch.library.opcheck(torch.ops.scanfuse.scan_backward.default, (y, last, states, *plain[:11], time_last, "cpu"))


@pytest.mark.parametrize("backend", ["auto", "portable"])
def test_compiles_as_one_graph(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = floats(12, 4, 2, k=4)

    def function(**tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        orders = routes.cross(3, 4)
        y, last = scan_routes(**tensors, orders=orders, return_last_state=True, backend=backend)
        return y * 2, last

    def drop(return_last_state: bool, **tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return compiled(**tensors)

    def eager(return_last_state: bool, **tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return function(**tensors)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_close(results(drop, inputs), results(eager, inputs), 1e-6)


def test_shapes_that_do_not_fit_are_named() -> None:
    good = floats(6, 3, 2)
    for name, wrong, message in [
        ("delta", (2, 5, 1, 3), r"u has shape \(2, 6, 3\).*delta \(2, 5, 1, 3\).*\(2, 5, 3\)"),
        ("A", (1, 4, 2), r"A has shape \(1, 4, 2\).*\(1, 3, 2\)"),
        ("B", (2, 6, 2), r"B has shape \(2, 6, 2\).*\(2, 6, 1, 2\)"),
        ("D", (3,), r"D has shape \(3,\).*\(1, 3\)"),
        ("initial_state", (2, 3, 2), r"initial_state has shape \(2, 3, 2\).*\(2, 1, 3, 2\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            scan_routes(**good | {name: torch.zeros(wrong)})
    with pytest.raises(ValueError, match=r"orders is needed.*k = 2"):
        scan_routes(**floats(6, 3, 2, k=2))
    with pytest.raises(ValueError, match="at least one position"):
        scan_routes(**floats(0, 3, 2))
    with pytest.raises(ValueError, match="merge must be"):
        scan_routes(**good, merge="mean")
    u = torch.zeros(1, 4, 5)
    with pytest.raises(ValueError, match=r"B must be .* got \(1, 5, 2\)"):
        selective_scan(u, u, torch.zeros(4, 2), torch.zeros(1, 5, 2), torch.zeros(1, 2, 5))
    with pytest.raises(ValueError, match="3 groups, which do not divide d = 4"):
        selective_scan(u, u, torch.zeros(4, 2), torch.zeros(1, 3, 2, 5), torch.zeros(1, 2, 5))


@pytest.mark.parametrize("backend", ["reference", "portable", "cpu"])
@pytest.mark.parametrize("orders", [[[0, 1, 1]], [[0, 1, 3]], [[-1, 0, 1]]], ids=str)
def test_orders_that_are_no_permutation_are_refused(orders: list[list[int]], backend: str) -> None:
    with pytest.raises(ValueError, match=r"permutation of 0\.\.2"):
        scan_routes(**floats(3, 2, 1), orders=torch.tensor(orders), backend=backend)
