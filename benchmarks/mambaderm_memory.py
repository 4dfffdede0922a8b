"""Parameters and memory of a training step of each MambaDerm preset; writes results/mambaderm-memory.md.

    .venv/bin/python benchmarks/mambaderm_memory.py [--out FILE]

Counted, not sampled: the bytes of weights, gradients and AdamW's two moments, and of all tensors that autograd keeps
for the backward pass, each storage once. The latter are counted at two batches of 224 x 224 and continued to the
published batch of 32, as they grow with the batch. What an allocator adds, and work space of convolutions, is not in
it. 38 features, as ISIC 2024 has them.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scanfuse import config
from scanfuse.files import write_text
from scanfuse.systems.mambaderm import Model, System
from scanfuse.verbs import bench

OUT = Path(__file__).parent / "results" / "mambaderm-memory.md"
FEATURES = (0,) * 34 + (2, 5, 18, 8)
ADVERTISED = {"mambaderm": ("about 31 M", "about 8 GB"), "mambaderm-lite": ("about 12 M", "about 4 GB")}
BATCH, SIZE, GB = 32, 224, 1e9


def kept(model: Model, batch: int, dtype: torch.dtype | None) -> int:
    """Bytes that autograd keeps for the backward pass, without the weights."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    table = torch.zeros(batch, len(FEATURES), 2)
    image = torch.randn(batch, 3, SIZE, SIZE)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        if dtype is None:
            output = model(image, table)
        else:
            with torch.autocast("cpu", dtype=dtype):
                output = model(image, table)
    del output
    return sum(storages.values())


def row(preset: str) -> list[str]:
    settings: Any = config.build(
        System.Config, config.preset("mambaderm", preset), {"model": {"categories": list(FEATURES)}}
    )
    model = Model(settings.model)
    number = sum(parameter.numel() for parameter in model.parameters())
    found = []
    for dtype in (None, torch.bfloat16):
        one, two = kept(model, 1, dtype), kept(model, 2, dtype)
        found.append((16 * number + one + (BATCH - 1) * (two - one)) / GB)
    advertised = ADVERTISED.get(preset, ("", ""))
    return [preset, f"{number:,}", advertised[0], *(f"{each:.1f}" for each in found), advertised[1]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    head = ["preset", "parameters", "advertised", "fp32, GB", "bf16, GB", "advertised"]
    rows = [row(preset) for preset in ("mambaderm", "mambaderm-lite", "light")]
    lines = [
        "# Memory of a training step of MambaDerm",
        "",
        f"Batch {BATCH}, {SIZE} x {SIZE}: weights, gradients, AdamW, and what autograd keeps (counted at 1 and 2 "
        f"samples). torch {torch.__version__}, scan on {bench.processor()}.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(each)} |" for each in rows),
    ]
    write_text(given.out, "\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
