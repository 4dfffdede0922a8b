"""Times Fusion-Mamba in every size and ablation, and where the time goes; writes results/detectors-DEVICE.md.

    .venv/bin/python benchmarks/detectors.py [--threads N] [--device cpu|cuda] [--up-to MILLIONS] [--quick]

No figures without parity: first a golden chain of DSSF and the golden YOLOv8 must give the published equations'
outputs, and every network must have its documented number of parameters. On a GPU each network is timed in float32
and in bfloat16, on a CPU in float32.
"""

import argparse
import functools
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from flops import multiply_adds
from scanfuse.backbones.yolo import YOLO, scaled
from scanfuse.backbones.yolov8_checkpoint import read_published
from scanfuse.files import write_text
from scanfuse.fusion.dssf import DSSFChain
from scanfuse.ops.selective_scan import resolve_backend
from scanfuse.systems.fusionmamba import Model, ModelConfig
from scanfuse.verbs import bench

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-4
CLASSES = 3
_SLOW = 100_000_000  # parameters from which a CPU takes many seconds a pair: two calls are timed


@dataclass(frozen=True)
class Network:
    """A row: what it is called, its settings, side of the images, parameters, published milliseconds, batches."""

    name: str
    changes: dict[str, Any]
    size: int
    parameters: int
    published: str = ""
    batches: tuple[int, ...] = (1,)


_PAPER = {"network": "paper", "depth": 8}
NETWORKS = (
    Network("tiny", {"network": "n", "d_state": 4, "expand": 1}, 160, 6_142_377, batches=(1, 8)),
    Network("n", {"network": "n"}, 320, 8_511_401, batches=(1, 8)),
    Network("n, add", {"network": "n", "fusion": "add"}, 320, 4_284_073, batches=(1, 8)),
    Network("n", {"network": "n"}, 640, 8_511_401, batches=(1, 8)),
    Network("n, add", {"network": "n", "fusion": "add"}, 640, 4_284_073, batches=(1, 8)),
    Network("s", {"network": "s"}, 640, 31_552_393, batches=(1, 8)),
    Network("s, add", {"network": "s", "fusion": "add"}, 640, 16_216_457, batches=(1, 8)),
    Network("m", {"network": "m"}, 640, 60_380_649),
    Network("l", {"network": "l"}, 640, 89_281_353),
    Network("paper, add", _PAPER | {"fusion": "add"}, 640, 114_218_825, "48"),
    Network("paper, SSCS alone", _PAPER | {"depth": 0}, 640, 135_013_193, "57"),
    Network("paper, DSSF alone", _PAPER | {"swap": False}, 640, 263_829_321, "69"),
    Network("paper, without IR to RGB", _PAPER | {"ir_to_rgb": False}, 640, 284_623_689, "77"),
    Network("paper, without RGB to IR", _PAPER | {"rgb_to_ir": False}, 640, 284_623_689, "77"),
    Network("paper", _PAPER, 640, 284_623_689, "78"),
    Network("paper, YOLOv5", _PAPER | {"variant": "v5"}, 640, 251_139_529, "61"),
)


def require_parity(device: str) -> float:
    """Largest relative error of a golden chain of three DSSF and of the golden YOLOv8's raw maps.

    Raises:
        ParityError: it is above the tolerance.
    """
    errors = {"a chain of three DSSF": _chain_error(device), "YOLOv8": _yolo_error(device)}
    for name, error in errors.items():
        if not error <= TOLERANCE:
            raise bench.ParityError(f"{name} is {error:.1e} off (allowed {TOLERANCE:.0e}); no figures are reported")
    return max(errors.values())


def _chain_error(device: str) -> float:
    with np.load(GOLDEN / "fusion_dssf.npz") as file:
        arrays = {key[6:]: torch.from_numpy(file[key]) for key in file.files if key.startswith("chain.")}
    # The golden files call the modalities r and i.
    ours = {key[3:].replace(".r.", "_rgb.").replace(".i.", "_ir."): arrays[key] for key in arrays if key[:3] == "sd."}
    inputs = [arrays[f"in.{name}"].permute(0, 2, 3, 1).float().to(device) for name in "ri"]
    num_states = ours["0.A_logs"].shape[-1]
    chain = DSSFChain(inputs[0].shape[-1], depth=3, d_state=num_states)
    chain.load_state_dict({f"links.{key}": value.float() for key, value in ours.items()})
    with torch.no_grad():
        outputs = chain.to(device).eval()(*inputs)
    wanted = [arrays[f"out_{name}"].permute(0, 2, 3, 1) for name in "ri"]
    return max(_relative(*pair) for pair in zip(outputs, wanted, strict=True))


def _yolo_error(device: str) -> float:
    with np.load(GOLDEN / "yolov8_model.npz") as file, tempfile.TemporaryDirectory() as folder:
        state = {key[3:]: torch.from_numpy(file[key]) for key in file.files if key.startswith("sd/")}
        torch.save(state, Path(folder) / "golden.pt")
        published = read_published(Path(folder) / "golden.pt")
        model = YOLO(scaled(0.33, 0.0625), num_classes=published.num_classes)
        model.load_state_dict(published.state)
        with torch.no_grad():
            raw = model.to(device).eval()(torch.from_numpy(file["eval.x"]).float().to(device))
        return max(_relative(level, torch.from_numpy(file[f"eval.raw{n}"])) for n, level in enumerate(raw))


def _relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.cpu().double() - wanted.double()).abs().max() / wanted.double().abs().max())


def built(network: Network) -> Model:
    """The network in evaluation mode.

    Raises:
        ParityError: it has another number of parameters than is documented.
    """
    torch.manual_seed(0)
    model = Model(ModelConfig(num_classes=CLASSES, **network.changes)).eval()
    found = sum(parameter.numel() for parameter in model.parameters())
    if found != network.parameters:
        raise bench.ParityError(f"{network.name} has {found:,} parameters instead of {network.parameters:,}")
    return model


def forward(model: nn.Module, images: tuple[Tensor, Tensor], autocast: Any) -> object:
    with torch.inference_mode(), autocast:
        return model(*images)


def shares(model: Model, call: Callable[[], object], wait: Callable[[], None], *, warm_up: bool) -> dict[str, float]:
    """Part -> its share of the time of one call."""
    seconds: dict[str, float] = defaultdict(float)
    began: list[float] = []

    def before(*_: object) -> None:
        wait()
        began.append(time.perf_counter())

    def after(name: str, *_: object) -> None:
        wait()
        seconds[name] += time.perf_counter() - began.pop()

    parts = [("streams", stage) for stream in model.streams.values() for stage in stream.stages]
    for block in model.blocks.values():
        parts += [(name, part) for name, part in (("SSCS", block.sscs), ("DSSF", block.dssf)) if part is not None]
    parts += [("neck", model.neck), ("head", model.head)]
    handles = [part.register_forward_pre_hook(before) for _, part in parts]
    handles += [part.register_forward_hook(functools.partial(after, name)) for name, part in parts]
    for _ in range(2 if warm_up else 1):
        seconds.clear()
        wait()
        started = time.perf_counter()
        call()
        wait()
        total = time.perf_counter() - started
    for handle in handles:
        handle.remove()
    return {name: value / total for name, value in seconds.items()}


def rows_of(network: Network, device: str, threads: int, repeats: int, quick: bool) -> list[dict[str, str]]:
    model = built(network)
    images = (torch.rand(1, 3, network.size, network.size), torch.rand(1, 3, network.size, network.size))
    giga = multiply_adds(model, images) / 1e9
    warm_up = device == "cuda" or network.parameters < _SLOW  # the count was one call already
    model = model.to(device)
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    rows = []
    for batch in network.batches[:1] if quick else network.batches:
        given = tuple(image.expand(batch, -1, -1, -1).contiguous().to(device) for image in images)
        casts = {"fp32": nullcontext()}
        if device == "cuda":
            casts["bf16"] = torch.autocast("cuda", torch.bfloat16)
        calls = {name: functools.partial(forward, model, given, cast) for name, cast in casts.items()}
        times = bench.interleave(
            {name: bench.Job(call, threads, repeats, warm_up) for name, call in calls.items()},
            synchronize=wait if device == "cuda" else None,
        )
        row = {
            "network": network.name,
            "side": str(network.size),
            "batch": str(batch),
            "parameters [M]": f"{network.parameters / 1e6:.2f}",
            "G multiply-adds": f"{giga * batch:.1f}",
        }
        row |= {f"a batch, {name}": str(found) for name, found in times.items()}
        row |= {f"a pair [ms], {name}": f"{found.median * 1e3 / batch:.1f}" for name, found in times.items()}
        row["published [ms]"] = network.published
        parts = shares(model, calls["fp32"], wait, warm_up=warm_up)
        row |= {name: f"{100 * parts.get(name, 0):.0f} %" for name in ("streams", "SSCS", "DSSF", "neck", "head")}
        rows.append(row)
        click.echo("; ".join(f"{key} {value}" for key, value in row.items() if value))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--up-to", type=float, default=1000, help="networks of at most so many million parameters")
    parser.add_argument("--quick", action="store_true", help="the smallest two, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    try:
        worst = require_parity(device)
        rows = []
        chosen = [network for network in NETWORKS if network.parameters <= arguments.up_to * 1e6]
        for network in chosen[:2] if arguments.quick else chosen:
            repeats = 2 if network.parameters >= _SLOW and device == "cpu" else arguments.repeats
            rows += rows_of(network, device, arguments.threads, repeats, arguments.quick)
    except bench.ParityError as error:
        click.echo(f"benchmarks/detectors.py: {error}", err=True)
        return 1
    facts = bench.machine() | {"threads": str(arguments.threads), "scan backend": resolve_backend(device)[0]}
    text = f"""# Fusion-Mamba: every size and ablation

{"; ".join(f"{key} {value}" for key, value in facts.items())}

Two images -> raw maps of the head, {CLASSES} classes, random weights, no suppression of boxes. Parity before any
figure: a golden chain of three DSSF and the golden YOLOv8 are within {worst:.0e} (allowed {TOLERANCE:.0e}), and every
count of parameters is the documented one. Shown are the median call and, in brackets, the fastest and the slowest.
Multiply-adds contain the scans by the formula 9 L E N + L E per route. The last columns are the shares of one float32
call. On a CPU networks of more than {_SLOW // 1_000_000} million parameters were timed twice, the others
{arguments.repeats} times. The published milliseconds name neither the batch nor the precision.

{bench.table(rows)}
"""
    write_text(arguments.out or RESULTS / f"detectors-{device}.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
