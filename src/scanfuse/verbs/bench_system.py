"""`scanfuse bench SYSTEM`: how long a system's network takes for one sample, and which operations take the time.

The sample is a phantom of the system's demonstration. Every preset's output is first compared with that of the same
network in float64: no figure without parity. Presets take turns, as the contenders of `bench` do.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from scanfuse import config as configuration
from scanfuse import systems
from scanfuse.data import synthetic
from scanfuse.device import choose_device, to_device
from scanfuse.errors import UserError
from scanfuse.files import write_text
from scanfuse.verbs.bench import Job, ParityError, Times, interleave, machine, table

__all__ = ["KINDS", "TOLERANCE", "kind_of", "run"]

TOLERANCE = 1e-3
"""Largest difference over largest value that a float32 output may have from float64, over all layers."""

KINDS: Mapping[str, str] = {
    "scan": r"scanfuse::scan",
    "route convolutions": r"_OnCPU|route_conv",
    "convolutions": r"conv|im2col",
    "products": r"mm$|addmv|^aten::(mv|dot|linear)|attention|gemm",
    "norms": r"norm",
    "copies": r"copy|clone|contiguous|^aten::(cat|stack|fill|zero|empty|pad|index|gather|scatter|pixel)",
}
"""Kind -> the names of its operations; an operation is of the first kind that fits, else of the rest."""

_REST = "rest"
_REPEATS = 9
_PROFILED = 3


@dataclass(frozen=True)
class _Timed:
    """A network with its sample.

    Attributes:
        system: in evaluation mode, on its device.
        batch: one sample.
        error: see `TOLERANCE`.
    """

    system: systems.System
    batch: dict[str, Any]
    error: float

    def __call__(self) -> object:
        with torch.inference_mode():
            return self.system.forward(self.batch)


def run(
    name: str,
    *,
    presets: Sequence[str] = (),
    size: int = 0,
    device: str = "cpu",
    threads: int = 0,
    out: Path | None = None,
) -> int:
    """Times the networks of a system's presets on one phantom; prints a table.

    Args:
        name: of the system.
        presets: which; all of them if empty.
        size: side of the phantom, and of what the network sees where the system has a setting for it; 0 = the
            system's choice, and the presets'.
        device: where to compute.
        threads: CPU threads, 0 = as many as torch has now.
        out: also write the table to this file.

    Returns:
        0, or 1 if a network in float32 does not give what it gives in float64: then no figure is shown.

    Raises:
        UserError: no such system, preset or size, or a file that cannot be written.
    """
    system_type = systems.load(name)
    known = configuration.presets(name)
    if unknown := [preset for preset in presets if preset not in known]:
        raise UserError(f"{name} has no preset {unknown[0]!r}; choose among: {', '.join(known)}.")
    plan = system_type.demonstration
    side = size or plan.timed_size or int(plan.options["size"])
    place = choose_device(device)
    threads = threads or torch.get_num_threads()
    timed: dict[str, _Timed] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        phantoms = synthetic.load(plan.phantom)
        phantoms.write(data, phantoms.Options(**{**plan.quick, "size": side}))
        try:
            for preset in presets or known:
                timed[preset] = _prepared(name, preset, data, size, place)
        except ParityError as error:
            click.echo(f"scanfuse bench: {error}", err=True)
            return 1
    wait = torch.cuda.synchronize if place.type == "cuda" else None
    times = interleave({key: Job(each, threads, _REPEATS) for key, each in timed.items()}, synchronize=wait)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        text = _text(name, timed, times, machine() | {"threads": str(threads), "device": str(place)})
    finally:
        torch.set_num_threads(before)
    click.echo(text)
    if out is not None:
        write_text(out, text)
    return 0


def _prepared(name: str, preset: str, data: Path, size: int, device: torch.device) -> _Timed:
    """The network of a preset with random weights, and one sample of the test part."""
    system_type = systems.load(name)
    layers: list[dict[str, Any]] = [configuration.preset(name, preset), dict(system_type.demonstration.settings)]
    if size and "size" in system_type.Config.model_fields["data"].annotation.model_fields:  # type: ignore[union-attr]
        layers.append({"data": {"size": size}})
    config: Any = configuration.build(system_type.Config, *layers)
    completed = systems.ability(system_type, "completed")
    if completed is not None:
        config = completed(config, data)
    torch.manual_seed(config.train.seed)
    system = systems.build(config)
    manifest = system.data.open(data)
    system.data.prepare(manifest.subset("train"))
    dataset: Any = system.data.dataset(manifest.subset("test"), train=False)
    batch = system.data.collate([dataset[0]])
    system.model.to(device).eval()
    batch = to_device(batch, device)
    return _Timed(system, batch, _error(system, batch, preset))


@torch.inference_mode()
def _error(system: systems.System, batch: dict[str, Any], preset: str) -> float:
    """The largest relative error of the outputs, against float64.

    Raises:
        ParityError: it is beyond the tolerance.
    """
    ours = list(_tensors(system.forward(batch)))
    single = system.model
    system.model = deepcopy(single).double()
    exact = list(_tensors(system.forward(_doubled(batch))))
    system.model = single
    worst = 0.0
    for one, other in zip(ours, exact, strict=True):
        scale = other.double().abs().max().clamp_min(1e-30)
        worst = max(worst, float((one.double() - other.double()).abs().max() / scale))
    if not worst <= TOLERANCE:
        raise ParityError(f"{preset} is {worst:.1e} off float64 (allowed: {TOLERANCE:.0e}); no speed is reported")
    return worst


def _tensors(found: Any) -> Iterable[Tensor]:
    """All tensors of floating point in an output."""
    if isinstance(found, Tensor):
        if found.is_floating_point():
            yield found
    elif isinstance(found, Mapping):
        for each in found.values():
            yield from _tensors(each)
    elif isinstance(found, (list, tuple)):
        for each in found:
            yield from _tensors(each)


def _doubled(content: Any) -> Any:
    if isinstance(content, Tensor):
        return content.double() if content.is_floating_point() else content
    if isinstance(content, dict):
        return {key: _doubled(value) for key, value in content.items()}
    return content


def kind_of(operation: str) -> str:
    """Which of `KINDS` an operation of torch's profiler is; "rest" for none.

    >>> kind_of("aten::mkldnn_convolution"), kind_of("scanfuse::scan_forward"), kind_of("aten::native_layer_norm")
    ('convolutions', 'scan', 'norms')
    """
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operation)), _REST)


def _shares(timed: _Timed) -> dict[str, float]:
    """Kind -> its share of the computing time."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes "ERROR" where there is no GPU
    on_gpu = next(timed.system.model.parameters()).device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(_PROFILED):
            timed()
    shares = dict.fromkeys((*KINDS, _REST), 0.0)
    for each in profiler.key_averages():
        spent = each.self_device_time_total if on_gpu else each.self_cpu_time_total
        shares[kind_of(each.key)] += float(spent)
    total = sum(shares.values())
    return {kind: spent / total for kind, spent in shares.items()}


def _text(name: str, timed: Mapping[str, _Timed], times: Mapping[str, Times], facts: Mapping[str, str]) -> str:
    rows = []
    for preset, each in timed.items():
        count = sum(p.numel() for p in each.system.model.parameters())
        shapes = {" x ".join(map(str, x.shape)) for x in _inputs(each)}
        shares = {kind: f"{100 * share:.0f} %" for kind, share in _shares(each).items()}
        rows.append(
            {
                "preset": preset,
                "parameters": f"{count:,}",
                "input": ", ".join(sorted(shapes)),
                "time": str(times[preset]),
            }
            | shares
            | {"error": f"{each.error:.0e}"}
        )
    return (
        f"{name}: one sample through the network, float32; median (fastest to slowest) of {_REPEATS} calls, presets "
        "in turn; shares of the computing time by operation; error: largest difference from float64.\n"
        + "; ".join(f"{key} {value}" for key, value in facts.items())
        + f"\n\n{table(rows)}\n"
    )


def _inputs(timed: _Timed) -> list[Tensor]:
    """The inputs of the sample."""
    found = [timed.batch.get(modality) for modality in timed.system.data.modalities]
    return [x for x in found if isinstance(x, Tensor)]
