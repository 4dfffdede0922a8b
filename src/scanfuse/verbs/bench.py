"""Side-by-side timings of the selective scan, behind a parity check.

`run` is what `scanfuse bench` does: every backend of this machine against a plain torch loop, on two small problems.
The parts are shared with `benchmarks/scan.py`, which makes the published table. Three rules hold for both:

* No speed without parity. Every contender's output and all its gradients are compared with a float64 loop on the very
  inputs that are timed; `ParityError` names what differs, and no ratio is printed.
* Contenders take turns: one call each, round after round, after a warm-up call. A busy moment of the machine so hits
  all of them. Shown are the median and, in brackets, the fastest and the slowest call.
* A contender may ask for its own number of threads: the plain loop is fastest with one.
"""

import functools
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.nn import functional

from scanfuse.errors import UserError
from scanfuse.files import write_text
from scanfuse.ops import selective_scan
from scanfuse.ops.selective_scan import available_backends

__all__ = [
    "QUICK_SIZES",
    "TOLERANCE",
    "Contender",
    "Inputs",
    "Job",
    "ParityError",
    "Results",
    "Size",
    "Times",
    "backend_contender",
    "check",
    "contender",
    "cotangent",
    "expected",
    "interleave",
    "machine",
    "make_inputs",
    "naive",
    "naive_contender",
    "run",
    "table",
]

TOLERANCE = 1e-4
"""Largest difference over largest value, per tensor, that float32 may have from float64 over 16384 steps."""

Inputs = Mapping[str, Tensor]
Results = dict[str, Tensor]


class ParityError(UserError):
    """A contender does not compute the scan: its speed means nothing."""


@dataclass(frozen=True)
class Size:
    """One problem: u is (batch, d, length), A is (d, states)."""

    batch: int
    d: int
    length: int
    states: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Reads "1,384,3136,16". Raises UserError for anything else."""
        parts = text.replace(" ", "").split(",")
        if len(parts) != 4 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise UserError(f"{text!r} is no size: write batch,d,length,states, such as 1,384,3136,16")
        return cls(*(int(part) for part in parts))

    def __str__(self) -> str:
        return f"({self.batch}, {self.d}, {self.length}, {self.states})"


QUICK_SIZES = (Size(1, 96, 1024, 16), Size(1, 192, 784, 1))


@dataclass(frozen=True)
class Contender:
    """A program that computes the scan of `make_inputs`.

    Attributes:
        forward: inputs -> y (batch, d, L), without a graph.
        both: inputs, cotangent of y -> (y, gradients by the names of the inputs).
        threads: how many threads it wants; None: as many as the benchmark has.
        slow: takes so long that few repeats must do.
    """

    name: str
    forward: Callable[[Inputs], Tensor]
    both: Callable[[Inputs, Tensor], tuple[Tensor, Results]]
    threads: int | None = None
    slow: bool = False


@dataclass(frozen=True)
class Times:
    """Seconds of single calls."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        low, middle, high = (f"{1e3 * s:.3g}" for s in (min(self.seconds), self.median, max(self.seconds)))
        return f"{middle} ms ({low}-{high})" if len(self.seconds) > 1 else f"{middle} ms (one call)"


def make_inputs(size: Size, device: str = "cpu") -> dict[str, Tensor]:
    """Inputs of `selective_scan` with values as in a model at its start: float32, softplus on, dt about 0.001-0.1.

    Returns:
        u, delta (batch, d, L), A (d, n), B, C (batch, n, L), D, delta_bias (d); the same for every call.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    batch, d, length, n = size.batch, size.d, size.length, size.states
    dt = torch.exp(torch.rand(d, generator=generator) * 4.6 - 6.9)
    inputs = {
        "u": random(batch, d, length),
        "delta": 0.5 * random(batch, d, length),
        "A": -torch.arange(1.0, n + 1).repeat(d, 1) * torch.exp(0.1 * random(d, n)),
        "B": random(batch, n, length),
        "C": random(batch, n, length),
        "D": random(d),
        "delta_bias": dt + torch.log(-torch.expm1(-dt)),
    }
    return {name: x.to(device) for name, x in inputs.items()}


def cotangent(inputs: Inputs) -> Tensor:
    """A gradient of y to start the backward with."""
    return torch.randn(inputs["u"].shape, generator=torch.Generator().manual_seed(1)).to(inputs["u"])


def naive(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    """The scan as a loop over time in plain torch, as quick as such a loop gets: the factors of all steps are made
    at once, two operations a step remain, one product makes all y. Its memory is batch x L x d x n several times."""
    dt = functional.softplus(delta + delta_bias[:, None]).permute(2, 0, 1).unsqueeze(-1)
    decays = torch.exp(dt * A)
    drives = (dt * u.permute(2, 0, 1).unsqueeze(-1)) * B.permute(2, 0, 1).unsqueeze(2)
    state = torch.zeros_like(drives[0])
    states = []
    for decay, drive in zip(decays.unbind(), drives.unbind(), strict=True):
        state = torch.addcmul(drive, decay, state)
        states.append(state)
    y = torch.stack(states) @ C.permute(2, 0, 1).unsqueeze(-1)
    return y.squeeze(-1).permute(1, 2, 0) + D[:, None] * u


def contender(
    name: str, function: Callable[..., Tensor], *, threads: int | None = None, slow: bool = False
) -> Contender:
    """A contender from a differentiable function of the inputs."""

    def forward(inputs: Inputs) -> Tensor:
        with torch.no_grad():
            return function(**inputs)

    def both(inputs: Inputs, weight: Tensor) -> tuple[Tensor, Results]:
        leaves = {key: x.detach().requires_grad_() for key, x in inputs.items()}
        y = function(**leaves)
        return y.detach(), dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), weight), strict=True))

    return Contender(name, forward, both, threads, slow)


def backend_contender(backend: str) -> Contender:
    """`scanfuse.ops.selective_scan` on one backend."""
    slow = backend in ("reference", "portable")
    function = functools.partial(selective_scan, delta_softplus=True, backend=backend)
    return contender(f"ScanFuse {backend}", function, slow=slow)


def naive_contender() -> Contender:
    """The plain loop, at one thread, where it is fastest."""
    return contender("torch loop", naive, threads=1, slow=True)


def expected(inputs: Inputs) -> Results:
    """y and all gradients by the plain loop in float64: what every contender must reach.

    The loop itself is held against the reference backend in the tests. That backend would take hours here: its
    gradients touch the whole sequence at every step.
    """
    doubles = {name: x.cpu().double() for name, x in inputs.items()}
    y, gradients = naive_contender().both(doubles, cotangent(inputs).cpu().double())
    return {"y": y} | gradients


def check(player: Contender, inputs: Inputs, want: Results, *, gradients: bool = True) -> float:
    """Compares output and gradients with `expected`; returns the largest relative error.

    Raises:
        ParityError: a tensor is further off than `TOLERANCE`, not finite, or of another shape.
    """
    if gradients:
        y, grads = player.both(inputs, cotangent(inputs))
        pairs = {"the output": (y, want["y"])} | {f"the gradient of {k}": (g, want[k]) for k, g in grads.items()}
        if missing := want.keys() - grads.keys() - {"y"}:
            raise ParityError(
                f"{player.name} gives no gradient of {', '.join(sorted(missing))}; no speed is reported"
            )
    else:
        pairs = {}
    pairs["the output without gradients"] = (player.forward(inputs), want["y"])
    worst = 0.0
    for what, (ours, theirs) in pairs.items():
        if ours.shape != theirs.shape:
            raise ParityError(f"{player.name}: {what} is {tuple(ours.shape)}, not {tuple(theirs.shape)}")
        error = float((ours.cpu().double() - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))
        if not error <= TOLERANCE:
            raise ParityError(
                f"{player.name}: {what} is {error:.1e} off (allowed: {TOLERANCE:.0e}); no speed is reported"
            )
        worst = max(worst, error)
    return worst


@dataclass(frozen=True)
class Job:
    """One thing to time: `call` runs it once on `threads` threads, `repeats` times after one warm-up."""

    call: Callable[[], object]
    threads: int
    repeats: int = 5
    warm_up: bool = True


def interleave(jobs: Mapping[str, Job], *, synchronize: Callable[[], None] | None = None) -> dict[str, Times]:
    """Times every job in turn, round after round, with the garbage collector out of the way.

    Args:
        jobs: by name; those with fewer repeats drop out of the later rounds.
        synchronize: waits until the device is done; None on a CPU.
    """
    before = torch.get_num_threads()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    wait = synchronize or (lambda: None)
    gc.collect()
    gc.freeze()  # what is there already need not be looked through before every call
    try:
        for turn in range(-1, max(job.repeats for job in jobs.values())):
            for name, job in jobs.items():
                if turn >= job.repeats or (turn < 0 and not job.warm_up):
                    continue
                torch.set_num_threads(job.threads)
                gc.collect()
                gc.disable()
                wait()
                started = time.perf_counter()
                result = job.call()
                wait()
                elapsed = time.perf_counter() - started
                gc.enable()
                del result
                if turn >= 0:
                    seconds[name].append(elapsed)
    finally:
        gc.unfreeze()
        gc.enable()
        torch.set_num_threads(before)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def machine() -> dict[str, str]:
    """What the figures depend on: processor, cores, threads, system, versions."""
    import numba

    facts = {
        "processor": processor(),
        "cores": str(torch.multiprocessing.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def processor() -> str:
    """The processor's name and widest vectors."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    family = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("cpu family")]
    vectors = next((v for v in ("avx512f", "avx2", "asimd") if f" {v} " in text.replace("\n", " ")), "")
    name = names[0] if names else platform.processor() or platform.machine()
    return ", ".join(filter(None, (name, f"family {family[0]}" if family else "", vectors)))


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table, aligned for the console; the columns are the keys of the first row."""
    columns = list(rows[0])
    cells = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


@dataclass
class _Row:
    size: Size
    contender: str
    error: float
    forward: Times
    both: Times
    ratio_forward: float = field(default=1.0)
    ratio_both: float = field(default=1.0)


def run(
    *,
    sizes: Sequence[Size | str] | None = None,
    threads: int = 0,
    out: Path | None = None,
    contenders: Sequence[Contender] | None = None,
) -> int:
    """Times every scan backend of this machine against a plain torch loop; prints a table.

    Args:
        sizes: problems, as `Size` or "batch,d,length,states"; `QUICK_SIZES` if None.
        threads: CPU threads, 0 = as many as torch has now.
        out: also write the table (.md) or all figures (.json) to this file.
        contenders: what to time beside the loop; the backends that can run here if None.

    Returns:
        0, or 1 if a contender does not match the reference: then no figure is shown.

    Raises:
        UserError: a size that cannot be read, or a file that cannot be written.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = threads or torch.get_num_threads()
    players = [naive_contender()]
    if contenders is None:
        usable = [name for name, obstacle in available_backends(device).items() if obstacle is None]
        players += [backend_contender(name) for name in usable if name != "reference"]
    else:
        players += contenders
    rows: list[_Row] = []
    try:
        for size in [Size.parse(s) if isinstance(s, str) else s for s in sizes or QUICK_SIZES]:
            rows += _time(size, players, device, threads)
    except ParityError as error:
        click.echo(f"scanfuse bench: {error}", err=True)
        return 1
    facts = machine() | {"threads": str(threads)}
    shown = [
        {
            "(batch, d, L, N)": str(row.size),
            "contender": row.contender,
            "forward": str(row.forward),
            "speed": f"{row.ratio_forward:.1f}x",
            "forward + backward": str(row.both),
            "speed ": f"{row.ratio_both:.1f}x",
            "error": f"{row.error:.0e}",
        }
        for row in rows
    ]
    text = (
        "Selective scan, float32; speed: how many times as fast as the plain torch loop at one thread.\n"
        + "; ".join(f"{key} {value}" for key, value in facts.items())
        + f"\n\n{table(shown)}\n"
    )
    click.echo(text)
    if out is not None:
        write_text(out, _as_json(rows, facts) if out.suffix == ".json" else text)
    return 0


def _time(size: Size, players: Sequence[Contender], device: str, threads: int) -> list[_Row]:
    inputs = make_inputs(size, device)
    weight = cotangent(inputs)
    want = expected(inputs)
    errors = {player.name: check(player, inputs, want) for player in players}
    jobs = {}
    for player in players:
        count, repeats = player.threads or threads, 3 if player.slow else 10
        jobs[f"{player.name} forward"] = Job(functools.partial(player.forward, inputs), count, repeats)
        jobs[f"{player.name} both"] = Job(functools.partial(player.both, inputs, weight), count, repeats)
    times = interleave(jobs, synchronize=torch.cuda.synchronize if device == "cuda" else None)
    rows = [_Row(size, p.name, errors[p.name], times[f"{p.name} forward"], times[f"{p.name} both"]) for p in players]
    for row in rows:
        row.ratio_forward = rows[0].forward.median / row.forward.median
        row.ratio_both = rows[0].both.median / row.both.median
    return rows


def _as_json(rows: Sequence[_Row], facts: Mapping[str, str]) -> str:
    figures = [
        {
            "size": [row.size.batch, row.size.d, row.size.length, row.size.states],
            "contender": row.contender,
            "error": row.error,
            "forward_seconds": row.forward.seconds,
            "both_seconds": row.both.seconds,
            "speed_forward": row.ratio_forward,
            "speed_both": row.ratio_both,
        }
        for row in rows
    ]
    return json.dumps({"machine": dict(facts), "results": figures}, indent=2) + "\n"
