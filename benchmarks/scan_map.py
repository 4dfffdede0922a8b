"""Maps: four directions in one call against four flipped scans, and one SS2D block against its parts."""

import functools
import os
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from scanfuse.layers.ss2d import SS2D
from scanfuse.ops import routes, scan_routes
from scanfuse.verbs import bench

CHANNELS, STATES = 96, 16
INNER = 2 * CHANNELS
BLOCK_TARGET = 1.5


def sections(side: int, threads: int, repeats: int) -> list[str]:
    """Two sections of Markdown for a map of side x side. Raises ParityError before any figure."""
    return [_directions(side, threads, repeats), _block(side, threads, repeats)]


def four_flipped(side: int, inputs: dict[str, Tensor], scan: Callable[..., Tensor]) -> Tensor:
    """The four directions as they are usually done: four copies of the map, a scan each, and the merge.

    `inputs` has delta, B and C in the order of the steps, (batch, L, ...) per route: projections that follow the
    copies produce them so, at no extra cost. `scan` takes u, delta, A, B, C, D, delta_bias of one route.
    """
    u = inputs["u"]
    grid = u.unflatten(1, (side, side))
    copies = [u, grid.transpose(1, 2).flatten(1, 2)]
    copies += [x.flip(1) for x in copies]
    ys = []
    for r, x in enumerate(copies):
        one = {name: inputs[f"{name}{r}"] for name in ("delta", "A", "B", "C", "D", "delta_bias")}
        ys.append(scan(u=x, **one))
    rows, columns = ys[0] + ys[2].flip(1), ys[1] + ys[3].flip(1)
    return rows + columns.unflatten(1, (side, side)).transpose(1, 2).flatten(1, 2)


def one_call(side: int, inputs: dict[str, Tensor]) -> Tensor:
    """The same through `scan_routes`, from delta, B and C in natural order."""
    return scan_routes(**inputs, orders=routes.cross(side, side), backend="cpu")


def _by_step(side: int, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of `one_call` as `four_flipped` wants them."""
    orders = routes.cross(side, side)
    given = {"u": inputs["u"]}
    for r in range(4):
        for name in ("delta", "B", "C"):
            given[f"{name}{r}"] = inputs[name][:, orders[r], r].contiguous()
        for name in ("A", "D", "delta_bias"):
            given[f"{name}{r}"] = inputs[name][r]
    return given


def single(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    """One route through our own backend, channels last."""
    return scan_routes(
        u, delta[:, :, None], A[None], B[:, :, None], C[:, :, None], D[None], delta_bias[None], backend="cpu"
    )


def _single_exact(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    return bench.naive(u.mT, delta.mT, A, B.mT, C.mT, D, delta_bias).mT


def _inputs(side: int) -> dict[str, Tensor]:
    one = bench.make_inputs(bench.Size(1, 4 * INNER, side * side, STATES))
    weights = bench.make_inputs(bench.Size(4, 16, side * side, STATES))
    return {
        "u": one["u"][:, :INNER].mT.contiguous(),
        "delta": one["delta"].mT.unflatten(2, (4, INNER)).contiguous(),
        "A": one["A"].unflatten(0, (4, INNER)),
        "B": weights["B"].permute(2, 0, 1)[None].contiguous(),
        "C": weights["C"].permute(2, 0, 1)[None].contiguous(),
        "D": one["D"].unflatten(0, (4, INNER)),
        "delta_bias": one["delta_bias"].unflatten(0, (4, INNER)),
    }


def _gradients(function: Callable[[dict[str, Tensor]], Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    y = function(leaves)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    gradients = torch.autograd.grad(y, list(leaves.values()), weight)
    return {"y": y.detach(), **dict(zip(leaves, gradients, strict=True))}


def _compare(name: str, got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    for key, value in want.items():
        error = float((got[key].double() - value.double()).abs().max() / value.abs().max())
        if not error <= bench.TOLERANCE:
            raise bench.ParityError(f"{name}: {key} is {error:.1e} off; no speed is reported")


def _directions(side: int, threads: int, repeats: int) -> str:
    natural = _inputs(side)
    ordered = _by_step(side, natural)
    merged = functools.partial(one_call, side)
    flipped = functools.partial(four_flipped, side, scan=single)
    want = _gradients(
        functools.partial(four_flipped, side, scan=_single_exact), {k: x.double() for k, x in ordered.items()}
    )
    _compare("four flipped scans", _gradients(flipped, ordered), want)
    orders = routes.cross(side, side)
    got = _gradients(merged, natural)
    split = {"y": got["y"], "u": got["u"]}
    for r in range(4):
        split |= {f"{name}{r}": got[name][:, orders[r], r] for name in ("delta", "B", "C")}
        split |= {f"{name}{r}": got[name][r] for name in ("A", "D", "delta_bias")}
    _compare("scan_routes", split, want)

    def forward(function: Callable[[dict[str, Tensor]], Tensor], inputs: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return function(inputs)

    pairs = {"`scan_routes`, four routes": (merged, natural), "four flipped scans": (flipped, ordered)}
    jobs = {}
    for name, (function, inputs) in pairs.items():
        jobs[f"{name}/forward"] = bench.Job(functools.partial(forward, function, inputs), threads, repeats)
        jobs[f"{name}/both"] = bench.Job(functools.partial(_gradients, function, inputs), threads, repeats)
    times = bench.interleave(jobs)
    ours = next(iter(pairs))
    rows = []
    for name in pairs:
        row = {"four directions": name}
        for what, title in (("forward", "forward"), ("both", "forward + backward")):
            value = times[f"{name}/{what}"]
            ratio = value.median / times[f"{ours}/{what}"].median
            row[title] = str(value)
            row[f"times ours, {title}"] = f"{ratio:.2f}x" + (
                "" if name == ours else " pass" if ratio > 1 else " FAIL"
            )
        rows.append(row)
    return (
        f"## Four directions over a {side}x{side} map, d = {INNER}, N = {STATES}\n\n"
        "The flipped scans are of the same backend, with delta, B and C already in the order of their steps: only "
        "the copies of u and the merge of y are extra. Target: one call is faster.\n\n" + bench.table(rows)
    )


def _block(side: int, threads: int, repeats: int) -> str:
    torch.manual_seed(0)
    block = SS2D(CHANNELS)
    x = torch.randn(1, side, side, CHANNELS)
    rank = block.dt_projs_weight.shape[2]
    tall = torch.randn(side * side, INNER)
    low = torch.randn(4, side * side, rank)
    scan_inputs = _inputs(side)

    def linears(x: Tensor, tall: Tensor, low: Tensor) -> list[Tensor]:
        """The block's four linear layers on maps of their sizes: into the block, to dt, B, C, to delta, out of it."""
        first = functional.linear(x, block.in_proj.weight)
        second = functional.linear(tall, block.x_proj_weight.flatten(0, 1))
        third = torch.bmm(low, block.dt_projs_weight.mT)
        return [first, second, third, functional.linear(tall, block.out_proj.weight)]

    def linears_both() -> None:
        leaves = [v.detach().requires_grad_() for v in (x, tall, low)]
        outputs = linears(*leaves)
        parameters = [block.in_proj.weight, block.x_proj_weight, block.dt_projs_weight, block.out_proj.weight]
        torch.autograd.grad(outputs, [*leaves, *parameters], [torch.ones_like(o) for o in outputs])

    def run_block(backend: str, gradients: bool) -> Tensor | tuple[Tensor, ...]:
        # The layer chooses its backend as users do: by itself, or by this variable.
        before = os.environ.get("SCANFUSE_SCAN_BACKEND")
        os.environ["SCANFUSE_SCAN_BACKEND"] = backend
        try:
            if not gradients:
                with torch.no_grad():
                    return block(x)
            leaf = x.detach().requires_grad_()
            y = block(leaf)
            return torch.autograd.grad(y, [leaf, *block.parameters()], torch.ones_like(y))
        finally:
            if before is None:
                del os.environ["SCANFUSE_SCAN_BACKEND"]
            else:
                os.environ["SCANFUSE_SCAN_BACKEND"] = before

    def no_graph(function: Callable[..., object], *arguments: object) -> object:
        with torch.no_grad():
            return function(*arguments)

    want, want_portable = run_block("reference", False), run_block("portable", True)
    _compare("SS2D", {"y": run_block("cpu", False)}, {"y": want})
    names = ["x", *(name for name, _ in block.named_parameters())]
    _compare(
        "SS2D", dict(zip(names, run_block("cpu", True), strict=True)), dict(zip(names, want_portable, strict=True))
    )
    merged = functools.partial(one_call, side)
    jobs = {
        "SS2D/forward": bench.Job(lambda: run_block("cpu", False), threads, repeats),
        "linear layers/forward": bench.Job(lambda: no_graph(linears, x, tall, low), threads, repeats),
        "four scans/forward": bench.Job(lambda: no_graph(merged, scan_inputs), threads, repeats),
        "SS2D, plain torch scan/forward": bench.Job(lambda: run_block("reference", False), 1, 2, warm_up=False),
        "SS2D/both": bench.Job(lambda: run_block("cpu", True), threads, repeats),
        "linear layers/both": bench.Job(linears_both, threads, repeats),
        "four scans/both": bench.Job(lambda: _gradients(merged, scan_inputs), threads, repeats),
        "SS2D, chunked torch scan/both": bench.Job(lambda: run_block("portable", True), threads, 2, warm_up=False),
    }
    times = bench.interleave(jobs)
    rows = []
    for what, title in (("forward", "forward"), ("both", "forward + backward")):
        parts = times[f"linear layers/{what}"].median + times[f"four scans/{what}"].median
        ratio = times[f"SS2D/{what}"].median / parts
        for key, value in times.items():
            name, _, kind = key.partition("/")
            if kind == what:
                row = {"": name, "pass": title, "time": str(value), "times (linear layers + four scans)": ""}
                row["times (linear layers + four scans)"] = f"{value.median / parts:.2f}x"
                row[f"<= {BLOCK_TARGET}"] = "" if name != "SS2D" else "pass" if ratio <= BLOCK_TARGET else "FAIL"
                rows.append(row)
    return (
        f"## One gated SS2D block, {side}x{side}, C = {CHANNELS}, N = {STATES}, batch 1\n\n"
        "The block also has a depthwise convolution, a normalisation and a gate, which the sum leaves out. The plain "
        "torch scan is the reference backend, at one thread (forward only: its gradient takes minutes); the chunked "
        "one is `portable`.\n\n" + bench.table(rows)
    )
