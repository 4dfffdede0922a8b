"""Volumes: six routes over a volume against six over a map of as many positions, and how time grows with the side.

Called by `scan.py`; by itself (`python benchmarks/scan_volume.py [--out FILE]`) it writes results/scan-volume.md with
computing time of one thread in place of waiting time, which other work on the machine does not lengthen.
"""

import argparse
import datetime
import functools
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from scanfuse.files import write_text
from scanfuse.ops import routes, scan_routes
from scanfuse.verbs import bench

CHANNELS, STATES, ROUTES = 256, 8, 6
SIDES = (16, 32)
MAPS = {16: (64, 64), 32: (128, 256)}
"""Side of the volume -> a map of as many positions."""
GROWTH_CHANNELS, GROWTH_SIDES = 32, (16, 32, 64)
PER_POSITION, EXPONENT = 1.25, 1.1
"""Targets: time per position over that of a map; exponent of time over positions, 1 = linear."""
RESULTS = Path(__file__).parent / "results"
Timer = Callable[[Mapping[str, Callable[[], object]], int], dict[str, list[float]]]


def inputs_of(channels: int, positions: int) -> dict[str, Tensor]:
    """Tensors of `scan_routes` for six routes, batch 1, in natural order."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    return {
        "u": normal(1, positions, channels),
        "delta": 0.5 * normal(1, positions, ROUTES, channels) - 2,
        "A": -torch.rand(ROUTES, channels, STATES, generator=random) - 0.5,
        "B": normal(1, positions, ROUTES, STATES),
        "C": normal(1, positions, ROUTES, STATES),
        "D": normal(ROUTES, channels),
        "delta_bias": 0.1 * normal(ROUTES, channels),
    }


def over_volume(side: int) -> Tensor:
    """Six orders of a volume: the three planes and their reversals."""
    return routes.over("triplane6", (side, side, side))


def over_map(height: int, width: int) -> Tensor:
    """Six orders of a map: rows and columns both ways, and rows both ways again."""
    four = routes.cross(height, width)
    return torch.cat([four, four[[0, 2]]])


def check(channels: int = 8, side: int = 5) -> float:
    """The largest relative error of a small volume against a loop in float64; ParityError above 1e-4."""
    inputs, orders = inputs_of(channels, side**3), over_volume(side)
    got = scan_routes(**inputs, orders=orders, backend="cpu").double()
    want = torch.zeros_like(got)
    exact = {name: x.double() for name, x in inputs.items()}
    for r, order in enumerate(orders):
        delta, B, C = (exact[name][:, order, r].mT for name in ("delta", "B", "C"))
        y = bench.naive(exact["u"][:, order].mT, delta, exact["A"][r], B, C, exact["D"][r], exact["delta_bias"][r])
        want[:, order] += y.mT
    error = float((got - want).abs().max() / want.abs().max())
    if not error <= bench.TOLERANCE:
        raise bench.ParityError(f"six routes over a volume are {error:.1e} off; no speed is reported")
    return error


def forward(inputs: dict[str, Tensor], orders: Tensor) -> Tensor:
    with torch.no_grad():
        return scan_routes(**inputs, orders=orders, backend="cpu")


def both(inputs: dict[str, Tensor], orders: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in inputs.values()]
    y = scan_routes(**dict(zip(inputs, leaves, strict=True)), orders=orders, backend="cpu")
    return torch.autograd.grad(y, leaves, torch.ones_like(y))


def computing_seconds(jobs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every job in turn, after one warm-up each."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(-1, repeats):
        for name, job in jobs.items():
            started = time.process_time()
            job()
            if turn >= 0:
                found[name].append(time.process_time() - started)
    return found


def waiting_seconds(threads: int) -> Timer:
    """Seconds by the clock, in turns."""

    def timed(jobs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
        done = bench.interleave({name: bench.Job(job, threads, repeats) for name, job in jobs.items()})
        return {name: list(times.seconds) for name, times in done.items()}

    return timed


def section(timer: Timer, repeats: int, *, quick: bool = False) -> str:
    """Markdown of both tables. Raises ParityError before any figure."""
    error = check()
    channels = 16 if quick else CHANNELS
    jobs: dict[str, Callable[[], object]] = {}
    for side in SIDES[:1] if quick else SIDES:
        inputs = inputs_of(channels, side**3)
        for kind, orders in (("volume", over_volume(side)), ("map", over_map(*MAPS[side]))):
            jobs[f"{side}/{kind}/forward"] = functools.partial(forward, inputs, orders)
            jobs[f"{side}/{kind}/both"] = functools.partial(both, inputs, orders)
    seconds = timer(jobs, repeats)
    rows = []
    for name in jobs:
        side, kind, what = name.split("/")
        if what != "forward":
            continue
        row = {"positions": f"{side}^3" if kind == "volume" else " x ".join(map(str, MAPS[int(side)])), "": kind}
        for key, title in (("forward", "forward"), ("both", "forward + backward")):
            mine = seconds[f"{side}/{kind}/{key}"]
            ratio = median(mine) / median(seconds[f"{side}/map/{key}"])
            verdict = "" if kind == "map" else " pass" if ratio <= PER_POSITION else " FAIL"
            row |= {title: _ms(mine), f"over the map, {title}": f"{ratio:.2f}x{verdict}"}
        rows.append(row)
    return "\n\n".join(
        [
            f"## Volumes: six routes in one call, batch 1, d = {channels}, N = {STATES}",
            "`triplane6` over a volume, and six routes (rows and columns both ways, rows twice) over a map of as many"
            f" positions, of the same tensors. Within {error:.0e} of a float64 loop. Target: per position at most "
            f"{PER_POSITION} times a map's time.",
            bench.table(rows),
            _growth(timer, repeats, quick),
        ]
    )


def _growth(timer: Timer, repeats: int, quick: bool) -> str:
    sides = (4, 8, 16) if quick else GROWTH_SIDES
    jobs: dict[str, Callable[[], object]] = {}
    for side in sides:
        inputs, orders = inputs_of(GROWTH_CHANNELS, side**3), over_volume(side)
        jobs[f"{side}/forward"] = functools.partial(forward, inputs, orders)
        jobs[f"{side}/both"] = functools.partial(both, inputs, orders)
    seconds = timer(jobs, repeats)
    rows = []
    for what, title in (("forward", "forward"), ("both", "forward + backward")):
        times = {side: median(seconds[f"{side}/{what}"]) for side in sides}
        exponent = math.log(times[sides[-1]] / times[sides[0]]) / math.log((sides[-1] / sides[0]) ** 3)
        row = {"pass": title} | {f"{side}^3": _ms(seconds[f"{side}/{what}"]) for side in sides}
        rows.append(row | {"exponent": f"{exponent:.2f} {'pass' if exponent <= EXPONENT else 'FAIL'}"})
    return (
        f"Growth of the time with the number of positions, d = {GROWTH_CHANNELS}: the exponent is that of the ends, "
        f"1 is linear. Target: at most {EXPONENT}.\n\n{bench.table(rows)}"
    )


def _ms(seconds: list[float]) -> str:
    return f"{1e3 * median(seconds):.3g} ms ({1e3 * min(seconds):.3g}-{1e3 * max(seconds):.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small volumes: to see that it works")
    parser.add_argument("--out", type=Path, default=RESULTS / "scan-volume.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    facts = bench.machine() | {"threads": "1", "date": datetime.date.today().isoformat()}
    text = "\n\n".join(
        [
            "# The scan over volumes, on a CPU",
            "; ".join(f"{key} {value}" for key, value in facts.items()) + ". benchmarks/scan_volume.py",
            "Times are seconds of computing of one thread (median, fastest and slowest in brackets), jobs in turns. "
            f"The machine had other work: its load was {load:.0f} on {os.cpu_count()} cores at the start, which "
            "lengthens computing too, through shared caches; read ratios, not times.",
            section(computing_seconds, options.repeats, quick=options.quick),
        ]
    )
    print(text)
    write_text(options.out, text + "\n")


if __name__ == "__main__":
    main()
