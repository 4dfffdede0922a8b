"""The other programs that `scan.py` times: mambapy, transformers and the C++ kernel. Each is absent with a reason.

All of them get the tensors of `scanfuse.verbs.bench.make_inputs`, mamba-ssm's layout (batch, d, L), and do the whole
job: softplus of delta and its bias, the scan, the skip with D.
"""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from scanfuse.verbs import bench

KERNEL = Path(__file__).with_name("scan_kernel.cpp")


@dataclass(frozen=True)
class Missing:
    """A contender that is not here, and why."""

    name: str
    reason: str


def mambapy() -> bench.Contender | Missing:
    """`MambaBlock.selective_scan` of mambapy: its parallel (Blelloch) scan. The method uses nothing of its block."""
    if importlib.util.find_spec("mambapy") is None:
        return Missing("mambapy", "not installed: pip install 'scanfuse[bench]'")
    from mambapy.mamba import MambaBlock

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
        dt = functional.softplus(delta + delta_bias[:, None])
        y = MambaBlock.selective_scan(None, u.mT, dt.mT, A, B.mT, C.mT, D)
        return y.mT

    return bench.contender("mambapy", scan, slow=True)


def transformers() -> bench.Contender | Missing:
    """The torch path of transformers' Mamba: the function that `MambaMixer` calls for its scan.

    It is the sequential one, `use_mambapy` and `use_associative_scan` being off, as they are by default (and the
    second one works under torch.compile only). Called by itself, nothing has to be subtracted.
    """
    if importlib.util.find_spec("transformers") is None:
        return Missing("transformers", "not installed: pip install 'scanfuse[bench]'")
    import transformers
    from transformers.models.mamba import modeling_mamba

    function = getattr(modeling_mamba, "mamba_selective_scan", None)
    if function is None:
        return Missing("transformers", f"version {transformers.__version__} has no separate scan function; need 5.23")
    transformers.logging.set_verbosity_error()

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
        return function(u, delta, A, B, C, D=D, delta_bias=delta_bias, delta_softplus=True)

    return bench.contender("transformers", scan, slow=True)


def compiler() -> str | None:
    """The C++ compiler: $CXX, else the first of g++, clang++, c++."""
    candidates = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    return next((found for name in candidates if name and (found := shutil.which(name))), None)


def compiler_version() -> str:
    found = compiler()
    if found is None:
        return "none"
    lines = subprocess.run([found, "--version"], capture_output=True, text=True).stdout.splitlines()
    return lines[0] if lines else found


class CppKernel:
    """scan_kernel.cpp, compiled for this processor."""

    def __init__(self, program: str, folder: Path) -> None:
        library = folder / "scan_kernel.so"
        flags = "-O3 -march=native -std=c++17 -shared -fPIC -pthread -fno-math-errno -ffp-contract=fast -w"
        subprocess.run(
            [program, *flags.split(), str(KERNEL), "-o", str(library)], check=True, capture_output=True, text=True
        )
        self._library = ctypes.CDLL(str(library))
        self._library.scan_kept.restype = ctypes.c_long
        self.lanes: int = self._library.scan_lanes()

    def forward(self, inputs: bench.Inputs, kept: Tensor | None = None, *, channels_first: bool = True) -> Tensor:
        y = torch.empty_like(inputs["u"])
        self._call("scan_forward", inputs, [y, kept], channels_first)
        return y

    def both(
        self, inputs: bench.Inputs, weight: Tensor, *, channels_first: bool = True
    ) -> tuple[Tensor, bench.Results]:
        batch, d, length, states = _sizes(inputs, channels_first)
        kept = torch.empty(self._library.scan_kept(*map(ctypes.c_long, (batch, length, d)), ctypes.c_int(states)))
        y = self.forward(inputs, kept, channels_first=channels_first)
        gradients = {name: torch.empty_like(x) for name, x in inputs.items()}
        self._call("scan_backward", inputs, [weight, kept, *gradients.values()], channels_first)
        return y, gradients

    def _call(self, name: str, inputs: bench.Inputs, tensors: list[Tensor | None], channels_first: bool) -> None:
        batch, d, length, states = _sizes(inputs, channels_first)
        given = [*inputs.values(), *tensors]
        if not all(x is None or (x.is_contiguous() and x.dtype == torch.float32) for x in given):
            raise ValueError("the C++ kernel takes contiguous float32 tensors")
        status = getattr(self._library, name)(
            *(None if x is None else ctypes.c_void_p(x.data_ptr()) for x in given),
            *map(ctypes.c_long, (batch, length, d)),
            *map(ctypes.c_int, (states, int(channels_first), torch.get_num_threads())),
        )
        if status:
            raise ValueError(f"the C++ kernel takes d in multiples of {self.lanes} and 1 or 16 states")


def cpp_kernel(folder: Path | None = None) -> CppKernel | Missing:
    """The kernel, compiled in `folder` or in a temporary one."""
    program = compiler()
    if program is None:
        return Missing("C++", "no compiler found: install g++ or clang++, or set CXX")
    if os.uname().machine not in ("x86_64", "AMD64"):
        return Missing("C++", f"written for x86-64, this is {os.uname().machine}")
    flags = Path("/proc/cpuinfo")
    if flags.exists() and " avx2 " not in flags.read_text(encoding="utf-8"):
        return Missing("C++", "the processor has no AVX2")
    try:
        return CppKernel(program, folder or Path(tempfile.mkdtemp(prefix="scan-kernel-")))
    except subprocess.CalledProcessError as error:
        return Missing("C++", f"{program} failed: {error.stderr.strip().splitlines()[-1]}")


def _sizes(inputs: bench.Inputs, channels_first: bool) -> tuple[int, int, int, int]:
    batch, *rest = inputs["u"].shape
    d, length = rest if channels_first else rest[::-1]
    return batch, d, length, inputs["A"].shape[1]
