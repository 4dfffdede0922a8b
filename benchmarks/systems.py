"""Times VMamba beside ConvNeXt-T, and XFMamba, on this CPU; writes results/systems-cpu.md.

    .venv/bin/python benchmarks/systems.py [--threads N] [--out FILE] [--quick]

No figures without parity: first the golden checkpoints must give the published logits and gradients, the parameter
counts must be the published ones, and the multiply-adds must be within 3 % of the published figures.
"""

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import timm
import torch
from torch import Tensor, nn

from flops import multiply_adds
from scanfuse.backbones import vmamba
from scanfuse.backbones.vmamba import VMamba, load_checkpoint
from scanfuse.files import write_text
from scanfuse.ops.selective_scan import resolve_backend
from scanfuse.systems import xfmamba
from scanfuse.verbs import bench

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
OUT = Path(__file__).parent / "results" / "systems-cpu.md"
GIGA = 1e9
SIZE = 224
LOGITS_TOLERANCE = 2e-5
COUNT_TOLERANCE = 0.03
RIVAL = "convnext_tiny"
TIMED = ("t_s1l8", "t_s2l5", "v0_t")

# Parameters (exact) and published G FLOPs at 224 x 224.
VMAMBA_PUBLISHED: dict[str, tuple[int, float]] = {
    "v0_t": (22_893_448, 5.6),
    "v0_s": (44_417_416, 11.2),
    "v0_b": (76_254_056, 18.0),
    "t_s1l8": (30_249_064, 4.9),
    "t_s2l5": (30_705_832, 4.9),
    "s_s2l15": (50_147_752, 8.7),
    "b_s2l15": (88_557_800, 15.4),
    "s_s1l20": (49_012_840, 8.6),
    "b_s1l20": (86_614_504, 15.2),
}
# Millions of parameters of the published code, and the G FLOPs of the paper's figure.
XFMAMBA_PUBLISHED = {"t": (38.83, 10.13), "s": (58.73, 16.73), "b": (103.93, 27.61)}


def require_golden_parity() -> float:
    """Largest error of float32 logits and input gradients over the three golden checkpoints.

    Raises:
        ParityError: a value is further off than the tolerance.
    """
    worst = 0.0
    for flavour in ("v0", "v2r1", "v2r2"):
        with np.load(GOLDEN / f"vmamba_{flavour}.npz") as file, tempfile.TemporaryDirectory() as folder:
            state = {key[3:]: torch.from_numpy(file[key]) for key in file.files if key.startswith("sd/")}
            torch.save({"model": state}, Path(folder) / "golden.pth")
            model = load_checkpoint(Path(folder) / "golden.pth")
            x = torch.from_numpy(file["sq.x"]).requires_grad_()
            logits = model(x)
            (logits * torch.from_numpy(file["sq.ct_logits"])).sum().backward()
            pairs = {"logits": (logits.detach(), file["sq.logits"]), "input gradient": (x.grad, file["sq.g_x"])}
        for what, (ours, golden) in pairs.items():
            wanted = torch.from_numpy(golden).double()
            error = float((ours.double() - wanted).abs().max() / wanted.abs().max())
            if not error <= LOGITS_TOLERANCE:
                raise bench.ParityError(f"{flavour}: the {what} is {error:.1e} off; no figures are reported")
            worst = max(worst, error)
    return worst


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def counted_vmamba(name: str) -> dict[str, str]:
    """A row of parameters and multiply-adds beside the published figures.

    Raises:
        ParityError: they differ.
    """
    parameters, giga = VMAMBA_PUBLISHED[name]
    # The count does not depend on the values: zeros spare the initialisation of half a billion weights.
    with torch.device("meta"):
        model = VMamba(vmamba.PRESETS[name]).eval()
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    ours = multiply_adds(model, [torch.zeros(1, 3, SIZE, SIZE)]) / GIGA
    if count(model) != parameters:
        raise bench.ParityError(f"{name} has {count(model):,} parameters, published are {parameters:,}")
    if abs(ours / giga - 1) > COUNT_TOLERANCE:
        raise bench.ParityError(f"{name} needs {ours:.2f} G multiply-adds, published are {giga}")
    return {
        "VMamba": name,
        "parameters": f"{parameters:,}",
        "G multiply-adds": f"{ours:.2f}",
        "published G": f"{giga}",
    }


def forward(model: nn.Module, *inputs: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(*inputs)
    return result


def both(model: nn.Module, *inputs: Tensor) -> None:
    model(*inputs).sum().backward()
    model.zero_grad(set_to_none=True)


def time_backbones(threads: int, quick: bool) -> list[dict[str, str]]:
    """VMamba-T and ConvNeXt-T in turn, at batches 1 and 8."""
    torch.manual_seed(0)
    # Channels last is ConvNeXt's faster layout on a CPU; VMamba is channels last inside.
    rival = timm.create_model(RIVAL).eval().to(memory_format=torch.channels_last)
    models: dict[str, nn.Module] = {RIVAL: rival}
    models |= {name: VMamba(vmamba.PRESETS[name]).eval() for name in TIMED}
    giga = {name: multiply_adds(model, [torch.zeros(1, 3, SIZE, SIZE)]) / GIGA for name, model in models.items()}
    rows = {name: {"model": name, "parameters [M]": f"{count(m) / 1e6:.2f}"} for name, m in models.items()}
    for name in models:
        rows[name]["G multiply-adds"] = f"{giga[name]:.2f}"
    jobs: tuple[tuple[str, int, Callable[..., object], int], ...] = (
        ("forward, batch 1", 1, forward, 9),
        ("forward + backward, batch 1", 1, both, 5),
        ("forward, batch 8", 8, forward, 4),
        ("forward + backward, batch 8", 8, both, 3),
    )
    for title, batch, function, repeats in jobs[:2] if quick else jobs:
        x = torch.randn(batch, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
        turns = {
            name: bench.Job(functools.partial(function, model, x), threads, 1 if quick else repeats)
            for name, model in models.items()
        }
        times = bench.interleave(turns)
        for name in models:
            ratio = times[name].median / times[RIVAL].median
            rows[name][title] = f"{times[name]}, {ratio:.2f}x"
        click.echo(f"{title}: " + "; ".join(f"{name} {times[name]}" for name in models))
    return list(rows.values())


def time_xfmamba(threads: int, quick: bool) -> list[dict[str, str]]:
    """Parameters, multiply-adds and latency of the presets, for one pair of views."""
    views = torch.randn(2, 1, 1, SIZE, SIZE).unbind()
    models = {name: xfmamba.Model(xfmamba.PRESETS[name]).eval() for name in XFMAMBA_PUBLISHED}
    times = bench.interleave(
        {
            name: bench.Job(functools.partial(forward, model, *views), threads, 1 if quick else 5)
            for name, model in models.items()
        }
    )
    return [
        {
            "XFMamba": name.upper(),
            "parameters [M]": f"{count(model) / 1e6:.2f}",
            "published code [M]": f"{XFMAMBA_PUBLISHED[name][0]:.2f}",
            "G multiply-adds": f"{multiply_adds(model, views) / GIGA:.2f}",
            "paper's figure [G]": f"{XFMAMBA_PUBLISHED[name][1]:.2f}",
            "one pair, forward": str(times[name]),
        }
        for name, model in models.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="one repeat of batch 1, to see that it runs")
    arguments = parser.parse_args()
    try:
        worst = require_golden_parity()
        counted = [counted_vmamba(name) for name in VMAMBA_PUBLISHED]
    except bench.ParityError as error:
        click.echo(f"benchmarks/systems.py: {error}", err=True)
        return 1
    facts = bench.machine() | {"threads": str(arguments.threads), "scan backend": resolve_backend("cpu")[0]}
    backbones = time_backbones(arguments.threads, arguments.quick)
    systems = time_xfmamba(arguments.threads, arguments.quick)
    text = f"""# VMamba and XFMamba on a CPU

{"; ".join(f"{key} {value}" for key, value in facts.items())}

Float32, images of {SIZE} x {SIZE}. Parity before any figure: logits and input gradients of the three golden VMamba
checkpoints are within {worst:.0e} of the published code's (allowed {LOGITS_TOLERANCE:.0e}).
Models take turns, one call each; shown are the median call and, in brackets, the fastest and the slowest.

## VMamba-T beside {RIVAL}

The last number of a cell is the time over {RIVAL}'s (below 1: faster).

{bench.table(backbones)}

## Counts

Multiply-adds contain the scans by the formula 9 L E N + L E per route, as in the published figures.

{bench.table(counted)}

## XFMamba, one pair of views

Our networks have no unused weights. The paper's figure is lower than what two passes of its own encoder need in the
sizes S and B, so its method of counting must differ.

{bench.table(systems)}
"""
    write_text(arguments.out, text)
    click.echo(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
