"""The scan's published table: `make bench`, or `python benchmarks/scan.py [--sizes ...] [--quick] [--out FILE]`.

Writes benchmarks/results/scan-cpu.md, on a machine with a GPU scan-gpu.md too. README.md beside this file says how
each figure is made. Exit code 1, and no ratio at all, if any contender fails its parity check.
"""

import argparse
import datetime
import functools
import gc
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

import scan_contenders
import scan_map
import scan_volume
from scanfuse.files import write_text
from scanfuse.verbs import bench

SIZES = ("1,384,3136,16", "4,192,3136,1", "1,256,4096,16", "1,96,16384,16")
RESULTS = Path(__file__).parent / "results"
PREFIX = 128
"""Steps on which the backward of transformers is timed."""
FACTORS = {
    "N=16": {"forward": (40.0, 1.5), "both": (50.0, 2.0)},
    "N=1": {"forward": (None, 2.0), "both": (None, 2.0)},
}
"""Targets: at least this many times as fast as the torch loop; at most this many times the time of the C++ kernel."""
OTHERS = 10.0
"""Target: at least this many times as fast as mambapy and transformers."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="batch,d,length,states ...")
    parser.add_argument("--repeats", type=int, default=15, help="calls of the fast contenders (slow ones: 3)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="short sequences, few calls: to see that it works")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the Markdown files")
    parser.add_argument("--measure", nargs=3, metavar=("WHAT", "NAME", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        what, name, size = options.measure
        print(MEASURES[what](name, bench.Size.parse(size), options.threads))
        return 0
    sizes = [bench.Size.parse(text) for text in options.sizes]
    side = 56
    if options.quick:
        sizes = [bench.Size(s.batch, s.d, max(64, s.length // 16), s.states) for s in sizes]
        options.repeats, side = 3, 14
    torch.set_num_threads(options.threads)
    started = time.monotonic()
    say = functools.partial(print, file=sys.stderr, flush=True)
    try:
        report = Report(options.threads, options.repeats)
        for size in sizes:
            say(f"{size} ...")
            report.add_size(size)
        say("four directions and SS2D ...")
        report.sections += scan_map.sections(side, options.threads, options.repeats)
        say("volumes ...")
        timer = scan_volume.waiting_seconds(options.threads)
        report.sections.append(scan_volume.section(timer, options.repeats, quick=options.quick))
        say("memory ...")
        report.sections.append(memory_section(sizes, options.threads))
        say("first call ...")
        report.sections.append(first_call_section(sizes[0], options.threads))
    except bench.ParityError as error:
        print(f"benchmarks/scan.py: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    text = report.text(f"{' '.join(['benchmarks/scan.py', *(arguments or sys.argv[1:])])} took {seconds:.0f} s.")
    print(text)
    write_text(options.out / "scan-cpu.md", text)
    if torch.cuda.is_available():
        import scan_gpu

        text = scan_gpu.report(sizes, options.repeats)
        print(text)
        write_text(options.out / "scan-gpu.md", text)
    return 0


class Report:
    """The sections of scan-cpu.md."""

    def __init__(self, threads: int, repeats: int) -> None:
        self.threads, self.repeats = threads, repeats
        self.ours = bench.backend_contender("cpu")
        self.loop = bench.naive_contender()
        kernel = scan_contenders.cpp_kernel()
        self.missing = [x for x in (kernel, *self._others()) if isinstance(x, scan_contenders.Missing)]
        self.players = [self.ours, self.loop, *(x for x in self._others() if isinstance(x, bench.Contender))]
        self.kernel = None if isinstance(kernel, scan_contenders.Missing) else kernel
        if self.kernel is not None:
            self.players.append(bench.Contender("C++", self.kernel.forward, self.kernel.both))
        self.figures: list[dict[str, str]] = []
        self.targets: list[dict[str, str]] = []
        self.natural: list[dict[str, str]] = []
        self.sections: list[str] = []

    @staticmethod
    def _others() -> list[bench.Contender | scan_contenders.Missing]:
        return [scan_contenders.mambapy(), scan_contenders.transformers()]

    def add_size(self, size: bench.Size) -> None:
        """Parity of everybody first, then the turns."""
        inputs = bench.make_inputs(size)
        weight = bench.cotangent(inputs)
        want = bench.expected(inputs)
        part = {k: x[..., :PREFIX].contiguous() if k in ("u", "delta", "B", "C") else x for k, x in inputs.items()}
        part_want = bench.expected(part)
        errors, jobs, scale = {}, {}, {}
        for player in self.players:
            torch.set_num_threads(player.threads or self.threads)
            prefixed = player.name == "transformers"
            errors[player.name] = bench.check(player, inputs, want, gradients=not prefixed)
            both = functools.partial(player.both, inputs, weight)
            if prefixed:
                errors[player.name] = max(errors[player.name], bench.check(player, part, part_want))
                both = functools.partial(player.both, part, bench.cotangent(part))
                scale[player.name] = max(1.0, size.length / PREFIX)
            threads, repeats = player.threads or self.threads, 3 if player.slow else self.repeats
            forward = functools.partial(player.forward, inputs)
            # The parity check was the warm-up of the slow ones.
            jobs[f"{player.name}/forward"] = bench.Job(forward, threads, repeats, warm_up=not player.slow)
            jobs[f"{player.name}/both"] = bench.Job(both, threads, repeats, warm_up=not player.slow)
        times = bench.interleave(jobs)
        for name, factor in scale.items():
            times[f"{name}/both"] = bench.Times(tuple(factor * s for s in times[f"{name}/both"].seconds))
        elements = size.batch * size.d * size.length * size.states
        ours = {what: times[f"{self.ours.name}/{what}"].median for what in ("forward", "both")}
        for player in self.players:
            values = {what: times[f"{player.name}/{what}"] for what in ours}
            ratios = {what: values[what].median / ours[what] for what in ours}
            bound = "at least " if player.name in scale else ""
            row = {"(batch, d, L, N)": str(size), "contender": player.name}
            # Column titles are keys: those of the second half end in a space.
            row |= {"forward": str(values["forward"]), "ns": f"{1e9 * values['forward'].median / elements:.3f}"}
            row |= {"ours": f"{ratios['forward']:.2f}x", "forward + backward": bound + str(values["both"])}
            row |= {"ns ": f"{1e9 * values['both'].median / elements:.3f}", "ours ": f"{ratios['both']:.2f}x"}
            self.figures.append(row | {"error": f"{errors[player.name]:.0e}"})
            for what, ratio in ratios.items():
                self._judge(size, player.name, what, ratio)
        self._add_natural(size, inputs, weight, want)

    def _add_natural(self, size: bench.Size, inputs: bench.Inputs, weight: Tensor, want: bench.Results) -> None:
        """The layout of the maps, (batch, L, d): one raster route of `scan_routes`, and the C++ kernel."""
        turned = {k: x.mT.contiguous() if k in ("u", "delta", "B", "C") else x for k, x in inputs.items()}
        turned_weight = weight.mT.contiguous()
        players = [bench.contender("scan_routes cpu", scan_map.single)]
        if self.kernel is not None:
            last = {"channels_first": False}
            forward = functools.partial(self.kernel.forward, **last)
            players.append(bench.Contender("C++", forward, functools.partial(self.kernel.both, **last)))
        jobs = {}
        for player in players:
            torch.set_num_threads(self.threads)
            y, gradients = player.both(turned, turned_weight)
            back = {k: g.mT if k in ("u", "delta", "B", "C") else g for k, g in gradients.items()}
            got = bench.Contender(player.name, lambda _, y=y: y.mT, lambda _, __, y=y, back=back: (y.mT, back))
            bench.check(got, inputs, want)
            for what, call in (("forward", (player.forward, turned)), ("both", (player.both, turned, turned_weight))):
                jobs[f"{player.name}/{what}"] = bench.Job(functools.partial(*call), self.threads, self.repeats)
        times = bench.interleave(jobs)
        for player in players:
            row = {"(batch, d, L, N)": str(size), "contender": player.name}
            for what, title in (("forward", "forward"), ("both", "forward + backward")):
                value = times[f"{player.name}/{what}"]
                ours = times[f"{players[0].name}/{what}"].median
                row |= {title: str(value), f"ours{' ' * (what == 'both')}": f"{value.median / ours:.2f}x"}
            self.natural.append(row)

    def _judge(self, size: bench.Size, name: str, what: str, ratio: float) -> None:
        least, most = FACTORS.get(f"N={size.states}", FACTORS["N=16"])[what]
        title = "forward" if what == "forward" else "forward + backward"
        if name == "C++":
            wanted, measured, good = f"<= {most}x its time", f"{1 / ratio:.2f}x", 1 / ratio <= most
        elif name in ("mambapy", "transformers"):
            wanted, measured, good = f">= {OTHERS:.0f}x as fast", f"{ratio:.1f}x", ratio >= OTHERS
        elif name == self.loop.name and least is not None:
            wanted, measured, good = f">= {least:.0f}x as fast", f"{ratio:.1f}x", ratio >= least
        else:
            return
        verdict = "pass" if good else "FAIL"
        self.targets.append(
            {
                "(batch, d, L, N)": str(size),
                "against": name,
                "what": title,
                "target": wanted,
                "measured": measured,
                "": verdict,
            }
        )

    def text(self, command: str) -> str:
        facts = bench.machine() | {
            "threads": str(self.threads),
            "compiler": scan_contenders.compiler_version(),
            "date": datetime.date.today().isoformat(),
        }
        parts = [
            "# The scan on a CPU",
            "; ".join(f"{key} {value}" for key, value in facts.items()) + f". {command}",
            "Times are the median of single calls with the fastest and the slowest in brackets; contenders take "
            "turns. Every output and gradient is within 1e-4 of a float64 loop (column error: the largest relative "
            "difference). The torch loop has one thread, where it is fastest, the others have them all.",
            "## Sequences: `selective_scan`, float32, layout (batch, d, L)",
            bench.table(self.figures),
            "Column ours: that time over ScanFuse's. Column ns: nanoseconds per element of u and state.",
            f"The backward of transformers is timed on the first {PREFIX} steps and scaled by the length: a lower "
            "bound, since its time per step grows with the length.",
            "## Targets",
            bench.table(self.targets),
            "## Maps: `scan_routes` with one raster route, layout (batch, L, d)",
            bench.table(self.natural),
            *self.sections,
            *(f"Not timed: {x.name} ({x.reason})." for x in self.missing),
        ]
        return "\n\n".join(parts) + "\n"


def memory_section(sizes: list[bench.Size], threads: int) -> str:
    """Extra memory of forward + backward, each in a process of its own."""
    rows = []
    for size in sizes:
        for name in ("ScanFuse cpu", "torch loop"):
            text = _in_new_process("memory", name, size, threads, {})
            if not text.replace(".", "").isdigit():
                return f"## Memory\n\nNot measured: {text}."
            good = "" if name == "torch loop" else "pass" if float(text) <= 8 else "FAIL"
            rows.append(
                {"(batch, d, L, N)": str(size), "contender": name, "times the bytes of u": text, "<= 8": good}
            )
    note = (
        "Peak resident memory of one forward + backward beyond what was there before (arguments, code), gradients "
        "and output included; a process each, after a call at a small size."
    )
    return f"## Extra memory of forward + backward\n\n{note}\n\n{bench.table(rows)}"


def first_call_section(size: bench.Size, threads: int) -> str:
    """Forward + backward of the first call in a process: without and with numba's cache on disk."""
    with tempfile.TemporaryDirectory(prefix="scan-cache-") as folder:
        cold = _in_new_process("first", "ScanFuse cpu", size, threads, {"NUMBA_CACHE_DIR": folder})
        warm = _in_new_process("first", "ScanFuse cpu", size, threads, {"NUMBA_CACHE_DIR": folder})
    return (
        "## First call\n\n"
        f"Forward + backward at {size}, first call of a process, import of numba included: {cold} s with an empty "
        f"cache, {warm} s with the cache of an earlier process."
    )


def _in_new_process(what: str, name: str, size: bench.Size, threads: int, variables: dict[str, str]) -> str:
    spelled = f"{size.batch},{size.d},{size.length},{size.states}"
    command = [sys.executable, __file__, "--threads", str(threads), "--measure", what, name, spelled]
    # Freed memory goes back at once, so that the peak is what was in use.
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.splitlines()[-1]


def _player(name: str) -> bench.Contender:
    return bench.naive_contender() if name == "torch loop" else bench.backend_contender("cpu")


def _measure_memory(name: str, size: bench.Size, threads: int) -> str:
    torch.set_num_threads(threads)
    player = _player(name)
    small = bench.make_inputs(bench.Size(1, 16, 32, size.states))
    player.both(small, bench.cotangent(small))
    inputs = bench.make_inputs(size)
    weight = bench.cotangent(inputs)
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
    except OSError:
        return "the system does not let a process reset its peak (/proc/self/clear_refs)"
    result = player.both(inputs, weight)
    extra = _status("VmHWM") - before
    del result
    return f"{extra / (inputs['u'].numel() * 4):.1f}"


def _status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"no {field} in /proc/self/status")


def _measure_first(name: str, size: bench.Size, threads: int) -> str:
    torch.set_num_threads(threads)
    inputs = bench.make_inputs(size)
    weight = bench.cotangent(inputs)
    started = time.perf_counter()
    _player(name).both(inputs, weight)
    return f"{time.perf_counter() - started:.2f}"


MEASURES = {"memory": _measure_memory, "first": _measure_first}


if __name__ == "__main__":
    sys.exit(main())
