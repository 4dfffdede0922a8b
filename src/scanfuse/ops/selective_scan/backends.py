"""Which program runs the scan: the argument, else SCANFUSE_SCAN_BACKEND, else the fastest one that can.

An explicit choice that cannot run raises `BackendUnavailable`; nothing falls back in silence. The automatic choice
is logged once (logger `scanfuse.ops`, level INFO).
"""

import functools
import importlib
import importlib.util
import logging
import os
from types import ModuleType

import torch

__all__ = ["BACKENDS", "VARIABLE", "BackendUnavailable", "available_backends", "load", "resolve_backend"]

BACKENDS = ("reference", "portable", "cpu", "triton")
VARIABLE = "SCANFUSE_SCAN_BACKEND"

_log = logging.getLogger("scanfuse.ops")


class BackendUnavailable(RuntimeError):
    """The scan backend that was asked for cannot run here; the message says why and what to do."""


def load(name: str) -> ModuleType:
    """The module of a backend, imported on first use."""
    return importlib.import_module(f"scanfuse.ops.selective_scan.{name}")


def available_backends(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, str | None]:
    """For every backend None if it can run on `device` in `dtype`, else the reason why not, with a remedy."""
    return {name: _obstacle(name, torch.device(device).type, dtype) for name in BACKENDS}


def resolve_backend(
    device: torch.device | str, dtype: torch.dtype = torch.float32, backend: str = "auto"
) -> tuple[str, str]:
    """The backend that would run on `device` in `dtype`, and why.

    Args:
        device: where the tensors are.
        dtype: dtype of u; everything but float64 is computed in float32.
        backend: a name of `BACKENDS`, or "auto".

    Returns:
        (name, reason), the reason for people to read.

    Raises:
        ValueError: an unknown name.
        BackendUnavailable: the argument or the environment variable names a backend that cannot run.
    """
    kind = torch.device(device).type
    if backend != "auto":
        return _explicit(backend, kind, dtype, f"backend={backend!r}")
    wish = os.environ.get(VARIABLE, "auto") or "auto"
    if wish != "auto":
        return _explicit(wish, kind, dtype, f"{VARIABLE}={wish}")
    if kind == "cuda":
        obstacle = _obstacle("triton", kind, dtype)
        if obstacle is None:
            return "triton", "the tensors are on a GPU"
        return "portable", f"the triton backend cannot run: {obstacle}"
    if kind == "cpu":
        obstacle = _obstacle("cpu", kind, dtype)
        if obstacle is None:
            return "cpu", "the tensors are on the CPU"
        return "portable", f"the cpu backend cannot run: {obstacle}"
    return "portable", f"the only fast backend for {kind} tensors"


def choose(backend: str, kind: str, dtype: torch.dtype) -> str:
    """`resolve_backend` for the operator: a constant of a compiled graph; logs an automatic choice once."""
    name, reason = resolve_backend(kind, dtype, backend)
    if backend == "auto" and VARIABLE not in os.environ:
        _announce(name, kind, reason)
    return name


# What torch.compiler.assume_constant_result does, which would import the whole compiler: two seconds.
choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=64)
def _announce(name: str, kind: str, reason: str) -> None:
    _log.info("scan backend for %s tensors: %s (%s)", kind, name, reason)


def _explicit(name: str, kind: str, dtype: torch.dtype, origin: str) -> tuple[str, str]:
    if name not in BACKENDS:
        raise ValueError(f"{origin}: no such scan backend; there are auto, {', '.join(BACKENDS)}")
    obstacle = _obstacle(name, kind, dtype)
    if obstacle is not None:
        raise BackendUnavailable(f"{origin} cannot run: {obstacle}")
    return name, f"asked for by {origin}"


def _obstacle(name: str, kind: str, dtype: torch.dtype) -> str | None:
    if importlib.util.find_spec(f"scanfuse.ops.selective_scan.{name}") is None:
        return f"this installation has no {name} backend; use backend='portable'"
    if name == "cpu":
        if kind != "cpu":
            return f"it needs CPU tensors and these are on {kind}; use backend='auto' or move them with .cpu()"
        if importlib.util.find_spec("numba") is None:
            return "numba is not installed; run `pip install numba`, or use backend='portable'"
    if name == "triton":
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        if kind != "cuda" and not (interpreted and kind == "cpu"):
            return f"it needs GPU tensors and these are on {kind}; use backend='auto' or move them with .cuda()"
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed; run `pip install triton`, or use backend='portable'"
        if dtype == torch.float64 and not interpreted:
            return "it computes in float32; use backend='portable' for float64"
        reason: str | None = load("triton").unavailable_reason()
        return reason
    return None
