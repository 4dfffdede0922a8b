"""What one call of the scan costs before it computes anything: torch's dispatcher, our arguments, the kernel's start.

    .venv/bin/python benchmarks/scan_call.py [--threads N]

A scan of one step, eight channels and one state has next to nothing to compute. Beside it stand an operator that is
registered in the same way with the same arguments and returns three empty tensors, and the parts of our own call.
"""

import argparse
import functools
from collections.abc import Callable

import torch
from torch import Tensor

from scanfuse.ops import scan_routes
from scanfuse.ops.selective_scan import cpu, operator
from scanfuse.verbs.bench import Job, interleave, machine, table

CALLS = 200
REPEATS = 15


def _nothing(u: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return u.new_empty(1, 1, 1, 8), u.new_empty(1, 1, 8, 1), u.new_empty(0)


def null_operator() -> Callable[..., object]:
    """An operator with the arguments of our forward, whatever these are now."""
    signature = str(torch.ops.scanfuse.scan_forward.default._schema).removeprefix("scanfuse::scan_forward")
    found: Callable[..., object] = torch.library.custom_op(
        "scanfuse_benchmarks::null", _nothing, mutates_args=(), schema=signature
    )
    return found


def many(call: Callable[[], object]) -> None:
    with torch.inference_mode():
        for _ in range(CALLS):
            call()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    threads = parser.parse_args().threads
    u, delta = torch.randn(1, 1, 1, 8), torch.rand(1, 1, 1, 8)
    A, B, C = -torch.rand(1, 8, 1), torch.randn(1, 1, 1, 1), torch.randn(1, 1, 1, 1)
    given = (u, delta, A, B, C, None, None, None, None)
    options = {"delta_softplus": True, "merge": True, "time_last": False, "save": False}
    null = null_operator()
    calls: dict[str, Callable[[], object]] = {
        "null operator": lambda: null(*given, True, True, False, False, "cpu"),
        "our operator": lambda: operator._forward(*given, True, True, False, False, "cpu"),
        "our backend, without torch's dispatcher": lambda: cpu.forward(*given, **options),
        "scan_routes": lambda: scan_routes(u, delta, A, B, C),
    }
    jobs = {name: Job(functools.partial(many, call), threads, REPEATS) for name, call in calls.items()}
    times = interleave(jobs)
    print("; ".join(f"{key} {value}" for key, value in (machine() | {"threads": str(threads)}).items()) + "\n")
    rows = []
    for name, each in times.items():
        low, middle, high = (1e6 * s / CALLS for s in (min(each.seconds), each.median, max(each.seconds)))
        rows.append({"one call": name, "microseconds": f"{middle:.1f} ({low:.1f}-{high:.1f})"})
    print(table(rows))


if __name__ == "__main__":
    main()
