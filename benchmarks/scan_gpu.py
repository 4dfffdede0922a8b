"""The table for a GPU: Triton against the bandwidth of a copy and the rate of exponentials. Run by `scan.py`."""

import datetime
import functools

import torch
import triton
import triton.language as tl

from scanfuse.verbs import bench

ROUNDS = 4096
LANES = 1024


@triton.jit
def _exponentials(out, ROUNDS: tl.constexpr, LANES: tl.constexpr):
    """Nothing but 2^x, in registers: four chains in every lane, so that their latency is hidden."""
    at = tl.program_id(0) * LANES + tl.arange(0, LANES)
    x = at * 1e-9
    y = x + 0.1
    z = x + 0.2
    w = x + 0.3
    for _ in range(ROUNDS):
        x = tl.exp2(-x)
        y = tl.exp2(-y)
        z = tl.exp2(-z)
        w = tl.exp2(-w)
    tl.store(out + at, x + y + z + w)


def exponential_rate(repeats: int) -> float:
    """Exponentials per second of the whole GPU."""
    programs = 16 * torch.cuda.get_device_properties().multi_processor_count
    out = torch.empty(programs * LANES, device="cuda")
    job = bench.Job(lambda: _exponentials[(programs,)](out, ROUNDS=ROUNDS, LANES=LANES), 1, repeats)
    times = bench.interleave({"exp": job}, synchronize=torch.cuda.synchronize)["exp"]
    return 4.0 * ROUNDS * LANES * programs / times.median


def report(sizes: list[bench.Size], repeats: int) -> str:
    """Markdown. Raises ParityError before any figure of a size that does not match."""
    rate = exponential_rate(repeats)
    rows = []
    for size in sizes:
        inputs = bench.make_inputs(size, "cuda")
        weight = bench.cotangent(inputs)
        player = bench.backend_contender("triton")
        error = bench.check(player, inputs, bench.expected(inputs))
        # Bytes that must move: forward reads u and delta and writes y; with the backward, these three are read
        # again or written, and the gradients of u and delta are written: 8 tensors of the size of u.
        source, target = (torch.empty(4 * inputs["u"].numel(), device="cuda") for _ in range(2))
        part = 3 * inputs["u"].numel() // 2
        jobs = {
            "forward": bench.Job(functools.partial(player.forward, inputs), 1, repeats),
            "both": bench.Job(functools.partial(player.both, inputs, weight), 1, repeats),
            "copy forward": bench.Job(functools.partial(target[:part].copy_, source[:part]), 1, repeats),
            "copy both": bench.Job(functools.partial(target.copy_, source), 1, repeats),
        }
        times = bench.interleave(jobs, synchronize=torch.cuda.synchronize)
        elements = inputs["u"].numel() * size.states
        for what, exponentials, title in (("forward", 1, "forward"), ("both", 2, "forward + backward")):
            bound = exponentials * elements / rate
            copy = times[f"copy {what}"].median
            rows.append(
                {
                    "(batch, d, L, N)": str(size),
                    "": title,
                    "triton": str(times[what]),
                    "copy of the bytes": str(times[f"copy {what}"]),
                    "exponentials": f"{1e3 * bound:.3g} ms",
                    "over the larger bound": f"{times[what].median / max(bound, copy):.1f}x",
                    "error": f"{error:.0e}",
                }
            )
    facts = bench.machine() | {"triton": triton.__version__, "date": datetime.date.today().isoformat()}
    return (
        "\n\n".join(
            [
                "# The scan on a GPU",
                "; ".join(f"{key} {value}" for key, value in facts.items()) + ".",
                f"{rate:.3g} exponentials a second were measured. The bounds count every exponential once a pass and "
                "every large tensor once a use; the kernels compute exponentials again rather than keep them. Calls "
                "are timed from Python, launches included.",
                bench.table(rows),
            ]
        )
        + "\n"
    )
