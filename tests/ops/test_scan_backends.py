"""Every backend computes what the reference loop computes, gradients of all inputs included."""

import pytest
import torch
from scan_cases import BACKENDS, assert_close, relative_error, results, route_inputs, some_orders
from torch import Tensor

from scanfuse.ops import routes, scan_routes, selective_scan

FAST = ("portable", "cpu")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

# length, d, n: around the chunk (64), the vector (8, 16) and the tile of states (4)
SIZES = [(1, 16, 4), (2, 3, 1), (7, 16, 16), (63, 5, 4), (64, 17, 1), (65, 16, 5), (130, 33, 3), (1000, 19, 2)]


@pytest.fixture(autouse=True)
def _nan_filled(nan_filled_memory: None) -> None:
    pass


def case(length: int, d: int, n: int, **options: int | bool) -> dict[str, Tensor]:
    return route_inputs(length, d, n, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp64", "fp32"])
@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_route(size: tuple[int, int, int], backend: str, dtype: torch.dtype) -> None:
    inputs = case(*size)
    expected = results(scan_routes, inputs, backend="reference")
    actual = results(scan_routes, {name: x.to(dtype) for name, x in inputs.items()}, backend=backend)
    assert actual["y"].dtype == dtype
    assert_close(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp64", "fp32"])
@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("merge", ["sum", "none"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared-u", "u-per-route"])
@pytest.mark.parametrize("d", [16, 21])
def test_several_routes(d: int, shared: bool, merge: str, backend: str, dtype: torch.dtype) -> None:
    inputs = case(77, d, 4, k=3, shared=shared)
    options = {"orders": some_orders(3, 77), "merge": merge}
    expected = results(scan_routes, inputs, backend="reference", **options)
    actual = results(scan_routes, {k: x.to(dtype) for k, x in inputs.items()}, backend=backend, **options)
    assert_close(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_is_computed_in_float32(backend: str) -> None:
    inputs = {name: x.bfloat16() for name, x in case(70, 16, 4, k=2).items()}
    options = {"orders": routes.bidirectional(70), "backend": backend}
    halves = results(scan_routes, inputs, **options)
    floats = results(scan_routes, {name: x.float() for name, x in inputs.items()}, **options)
    assert halves["y"].dtype == torch.bfloat16
    assert halves["last_state"].dtype == torch.float32
    # The weights of the outputs are rounded, too, so gradients agree to bfloat16 only; the state is not rounded.
    assert relative_error(halves.pop("last_state"), floats.pop("last_state")) <= 1e-6
    assert_close(halves, floats, 8e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_changes_nothing(backend: str) -> None:
    inputs = {name: x.float() for name, x in case(70, 16, 4).items()}
    plain = results(scan_routes, inputs, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = results(scan_routes, inputs, backend=backend)
    assert_close(cast, plain, 0.0)


@pytest.mark.parametrize("backend", FAST)
def test_non_contiguous_inputs(backend: str) -> None:
    inputs = {name: x.float() for name, x in case(70, 20, 4, k=2).items()}
    options = {"orders": some_orders(2, 70)}
    expected = results(scan_routes, inputs, backend="reference", **options)

    def strided(x: Tensor) -> Tensor:
        wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1])
        wide[..., ::2] = x
        return wide[..., ::2]

    def transposed(x: Tensor) -> Tensor:
        return x.transpose(0, -1).contiguous().transpose(0, -1)

    for rearranged in (strided, transposed):
        leaves = {name: rearranged(x) for name, x in inputs.items()}
        assert not leaves["delta"].is_contiguous()
        y = scan_routes(**leaves, backend=backend, **options)
        assert relative_error(y, expected["y"]) <= 1e-5
        gradient = torch.randn(70, 2, 20).transpose(0, 1).transpose(0, 1)[:, 0].expand(2, 70, 20)
        leaves["u"].requires_grad_()
        inputs_u = inputs["u"].clone().requires_grad_()
        (ours,) = torch.autograd.grad(scan_routes(**leaves, backend=backend, **options), leaves["u"], gradient)
        reference = scan_routes(**inputs | {"u": inputs_u}, backend="reference", **options)
        assert relative_error(ours, torch.autograd.grad(reference, inputs_u, gradient)[0]) <= 1e-5


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("constant", ["B", "C", "BC"])
def test_constant_weights_in_groups_and_full_vectors(backend: str, constant: str) -> None:
    batch, d, n, length = 2, 40, 6, 100
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    inputs = {
        "u": random(batch, d, length),
        "delta": random(batch, d, length),
        "A": -random(d, n).exp(),
        "B": random(d, n) if "B" in constant else random(batch, 2, n, length),
        "C": random(d, n) if "C" in constant else random(batch, 2, n, length),
        "D": random(d),
        "z": random(batch, d, length),
        "delta_bias": random(d),
    }
    exact = {name: x.double() for name, x in inputs.items()}
    expected = results(selective_scan, exact, delta_softplus=True, backend="reference")
    actual = results(selective_scan, inputs, delta_softplus=True, backend=backend)
    assert_close(actual, expected, 1e-5)


@pytest.mark.parametrize("backend", FAST)
def test_extreme_step_sizes_and_decays(backend: str) -> None:
    inputs = {name: x.float() for name, x in case(200, 16, 4).items()}
    inputs["delta"] *= 20
    inputs["A"] *= 20
    exact = {name: x.double() for name, x in inputs.items()}
    assert inputs["delta"].abs().max() > 60
    assert_close(
        results(scan_routes, inputs, backend=backend), results(scan_routes, exact, backend="reference"), 1e-5
    )


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("softplus", [True, False])
def test_decay_and_growth_in_many_blocks(backend: str, softplus: bool) -> None:
    """More channels than are taken together, some of which grow; without softplus steps may be negative, too."""
    inputs = {name: x.float() for name, x in case(70, 300, 5, batch=1, k=2).items()}
    inputs["A"][0, 17, 3] = inputs["A"][1, 150, 4] = inputs["A"][1, 299, 0] = 0.3
    options = {"orders": some_orders(2, 70), "delta_softplus": softplus}
    if not softplus:
        inputs |= {name: 0.01 * inputs[name] for name in ("delta", "delta_bias")}
    exact = {name: x.double() for name, x in inputs.items()}
    found = results(scan_routes, inputs, backend=backend, **options)
    assert_close(found, results(scan_routes, exact, backend="reference", **options), 1e-5)


def test_growth_beyond_all_numbers_is_infinite_in_one_of_many_blocks() -> None:
    inputs = {name: x.float() for name, x in case(20, 100, 4, batch=1).items()}
    inputs["A"][0, 50, 2] = 3000.0
    y = scan_routes(**inputs, backend="cpu")
    assert not y[..., 50].isfinite().all()
    others = [channel for channel in range(100) if channel != 50]
    assert y[..., others].isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_and_overflow_are_not_hidden(backend: str) -> None:
    inputs = {name: x.float() for name, x in case(20, 16, 4, batch=1).items()}
    for name in ("u", "delta", "A", "B", "C"):
        spoilt = inputs | {name: inputs[name].clone()}
        spoilt[name].view(-1)[0] = float("nan")
        assert scan_routes(**spoilt, backend=backend).isnan().any(), name
    growing = inputs | {"A": inputs["A"].abs() * 1000}
    assert not scan_routes(**growing, backend=backend).isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_sees_only_steps_before_it(backend: str) -> None:
    inputs = case(90, 16, 4, k=2)
    orders = some_orders(2, 90)
    late = orders[1, 70]  # read at step 70 by route 1
    changed = {name: x.clone() for name, x in inputs.items()}
    for name in ("delta", "B", "C"):
        changed[name][:, late, 1] += 1
    options = {"orders": orders, "merge": "none", "backend": backend}
    before, after = scan_routes(**inputs, **options), scan_routes(**changed, **options)
    assert torch.equal(before[:, :, 0], after[:, :, 0])
    assert torch.equal(before[:, orders[1, :70], 1], after[:, orders[1, :70], 1])
    assert (before[:, orders[1, 70:], 1] != after[:, orders[1, 70:], 1]).any(-1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_halves_with_the_state_carried_over_are_the_whole(backend: str) -> None:
    inputs = case(100, 16, 4)
    whole, last = scan_routes(**inputs, return_last_state=True, backend=backend)
    over_time = ("u", "delta", "B", "C")
    halves = [{name: x[:, part] if name in over_time else x for name, x in inputs.items()} for part in SPLIT]
    first, state = scan_routes(**halves[0], return_last_state=True, backend=backend)
    second, end = scan_routes(**halves[1] | {"initial_state": state}, return_last_state=True, backend=backend)
    assert_close({"y": torch.cat([first, second], 1), "last_state": end}, {"y": whole, "last_state": last}, 1e-12)


SPLIT = (slice(None, 37), slice(37, None))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend: str) -> None:
    inputs = {name: x.requires_grad_() for name, x in case(6, 3, 2, batch=1, k=2).items()}
    orders = some_orders(2, 6)

    def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        arguments = dict(zip(inputs, tensors, strict=True))
        return scan_routes(**arguments, orders=orders, return_last_state=True, backend=backend)

    assert torch.autograd.gradcheck(function, tuple(inputs.values()))


def test_reference_has_second_derivatives_and_cpu_says_that_it_has_not() -> None:
    inputs = case(4, 2, 2, batch=1)
    u = inputs.pop("u").requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: scan_routes(x, **inputs, backend="reference"), (u,))
    (first,) = torch.autograd.grad(scan_routes(u, **inputs, backend="cpu").square().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        first.sum().backward()


@pytest.mark.parametrize("threads", [1, 2])
def test_results_repeat_to_the_last_bit(threads: int) -> None:
    torch.set_num_threads(threads)
    inputs = {name: x.float() for name, x in case(150, 48, 4, k=2).items()}
    options = {"orders": routes.bidirectional(150), "backend": "cpu"}
    first = results(scan_routes, inputs, **options)
    for _ in range(5):
        assert_close(results(scan_routes, inputs, **options), first, 0.0)


def test_one_and_two_threads_agree() -> None:
    inputs = {name: x.float() for name, x in case(150, 80, 4, k=2).items()}
    options = {"orders": routes.bidirectional(150), "backend": "cpu"}
    torch.set_num_threads(1)
    alone = results(scan_routes, inputs, **options)
    torch.set_num_threads(2)
    assert_close(results(scan_routes, inputs, **options), alone, 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch_gives_empty_results_and_zero_gradients(backend: str) -> None:
    outcome = results(scan_routes, case(5, 3, 2, batch=0), backend=backend)
    assert outcome["y"].shape == (0, 5, 3)
    assert outcome["last_state"].shape == (0, 1, 3, 2)
    assert torch.equal(outcome["dA"], torch.zeros(1, 3, 2, dtype=torch.float64))
