"""What `scanfuse doctor` tells: versions, devices, the scan backend that would run and why, and a short self-test."""

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from scanfuse.ops import scan_routes
from scanfuse.ops.selective_scan import available_backends, resolve_backend

__all__ = ["environment", "report", "self_test"]

_PACKAGES = ("scanfuse", "torch", "numpy", "numba", "triton", "accelerate", "scikit-image", "safetensors")


def environment() -> dict[str, Any]:
    """Versions, machine, devices and scan backend as plain values, for the record in a run folder."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backend, why = resolve_backend(device, torch.float32)
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["cpu"],
        "scan_backend": backend,
        "scan_backend_reason": why,
    }


def self_test() -> list[dict[str, Any]]:
    """Runs every backend of this machine on one small map and compares it with the reference.

    Returns:
        One entry per backend: `backend`, `seconds` of a second call (the first one may compile), `error` (largest
        difference of outputs and gradients over the largest reference value), `passed` (error below 1e-4).
    """
    generator = torch.Generator().manual_seed(0)
    rows = []
    expected: list[torch.Tensor] = []
    gpu = torch.cuda.is_available()
    usable = [(name, "cpu") for name, obstacle in available_backends("cpu").items() if obstacle is None]
    usable += [(name, "cuda") for name, obstacle in available_backends("cuda").items() if gpu and obstacle is None]
    for backend, device in usable:  # the reference on the CPU comes first
        generator.manual_seed(0)
        inputs = _inputs(generator, device)
        outputs = _run(inputs, backend)
        started = time.perf_counter()
        outputs = _run(inputs, backend)
        seconds = time.perf_counter() - started
        expected = expected or outputs
        error = max(
            float((got - want).abs().max() / want.abs().max()) for got, want in zip(outputs, expected, strict=True)
        )
        rows.append({"backend": f"{backend} ({device})", "seconds": seconds, "error": error, "passed": error < 1e-4})
    return rows


def report() -> tuple[str, bool]:
    """The text of `scanfuse doctor`, and whether everything is well."""
    facts = environment()
    lines = [f"python      {facts['python']} on {facts['platform']}"]
    lines += [f"{name:<11} {version}" for name, version in facts["packages"].items()]
    lines.append(f"processor   {facts['processor']}, {facts['cores']} cores, torch uses {facts['threads']} threads")
    lines.append(f"devices     {', '.join(facts['devices'])}")
    lines.append(f"scan        {facts['scan_backend']}: {facts['scan_backend_reason']}")
    rows = self_test()
    for row in rows:
        verdict = "ok" if row["passed"] else "WRONG RESULT: please report this"
        lines.append(
            f"self-test   {row['backend']:<18} {1e3 * row['seconds']:8.2f} ms   error {row['error']:.1e}   {verdict}"
        )
    return "\n".join(lines), all(row["passed"] for row in rows)


def _inputs(generator: torch.Generator, device: str) -> list[torch.Tensor]:
    batch, length, routes, channels, states = 1, 64, 2, 24, 8

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_()

    a = (-torch.rand(routes, channels, states, generator=generator) - 0.1).to(device).requires_grad_()
    projections = [draw(batch, length, routes, states) for _ in range(2)]
    u, delta = draw(batch, length, channels), draw(batch, length, routes, channels)
    return [u, delta, a, *projections, draw(routes, channels), draw(routes, channels)]


def _run(inputs: list[torch.Tensor], backend: str) -> list[torch.Tensor]:
    length = inputs[0].shape[1]
    order = torch.arange(length, device=inputs[0].device)
    u, delta, a, b, c, d, bias = inputs
    y = scan_routes(u, delta, a, b, c, d, bias, orders=torch.stack([order, order.flip(0)]), backend=backend)
    gradients = torch.autograd.grad(y.square().sum(), inputs)
    return [tensor.detach().cpu() for tensor in (y, *gradients)]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
