"""Times COPD per patient, from a DICOM series to a result, on this CPU; writes results/copd-cpu.md.

    .venv/bin/python benchmarks/copd.py [--threads N] [--slices N] [--size N] [--out FILE] [--quick]

The publication names 97.5 ms per patient, and neither hardware, precision, size of slices nor whether reading is in
it. So its steps are timed apart. Weights are random: times do not depend on them. The network is also timed with one
thread: with several, the processor's time holds what threads spend waiting for each other, which on a machine that
others use is more than half of it.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from scanfuse import config
from scanfuse.data.series import Series, read_scan, write_series
from scanfuse.data.synthetic import copd as phantom
from scanfuse.data.transforms.chest import lung_mask, lung_slices
from scanfuse.files import write_text
from scanfuse.ops.selective_scan import resolve_backend
from scanfuse.systems import copd
from scanfuse.verbs import bench

OUT = Path(__file__).parent / "results" / "copd-cpu.md"
PUBLISHED = "97.5 ms per patient"


def timed(name: str, action: Callable[[], Any], repeats: int) -> dict[str, str]:
    """A row: median, fastest and slowest of some calls after one that does not count, and the processor's time.

    The latter counts all threads, those too that wait actively for another one: with one thread it is what a machine
    that others use can be held to.
    """
    action()
    times, computed = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        action()
        times.append(1000 * (time.perf_counter() - started))
        computed.append(1000 * (time.process_time() - used))
    shown = f"{statistics.median(times):,.0f} ({min(times):,.0f}-{max(times):,.0f})"
    return {"step": name, "wall [ms]": shown, "processor [ms]": f"{statistics.median(computed):,.0f}"}


def system_of(preset: str, table: Path) -> copd.System:
    """A network of that preset with the schema of a made-up table, ready to be applied."""
    built = config.build(copd.System.Config, config.preset("copd", preset))
    torch.manual_seed(0)
    system = copd.System(copd.System.completed(built, table))
    system.data.prepare(system.data.open(table).subset("train"))
    system.model.eval()
    return system


@torch.no_grad()
def predicted(system: copd.System, ct: Path, row: dict[str, Any]) -> list[Any]:
    """All that a prediction does of one patient, files apart that it writes."""
    batch = system.data.collate([system.data.sample({"ct": ct, "table": row})])
    return system.task.finished(system.task.results(system.forward, batch))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--slices", type=int, default=200, help="of the made-up DICOM series")
    parser.add_argument("--size", type=int, default=512, help="rows and columns of them")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="a small series, one repeat, nothing written")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    repeats = 1 if arguments.quick else 5
    slices, size = (24, 64) if arguments.quick else (arguments.slices, arguments.size)
    facts = bench.machine() | {"threads": str(arguments.threads), "scan backend": resolve_backend("cpu")[0]}
    with tempfile.TemporaryDirectory() as folder:
        options = phantom.Options(patients=1, slices=slices, size=size, form="dicom")
        raw = phantom.write(Path(folder) / "raw", options) / "ct_raw" / "P00001"
        people = phantom.write(Path(folder) / "people", phantom.Options(patients=40, slices=3, size=32))
        scan = read_scan(raw)
        prepared = Path(folder) / "P00001.npz"
        values, lung, place = lung_slices(scan, count=30, size=224)
        write_series(prepared, Series(values, True, lung, place, raw))
        rows = [
            timed(f"read {slices} DICOM files of {size} x {size}", lambda: read_scan(raw), repeats),
            timed("find the lungs", lambda: lung_mask(scan), repeats),
            timed("the same, and cut 30 slices of 224", lambda: lung_slices(scan, count=30, size=224), repeats),
        ]
        row = {"age": "66", "pack_years": "40", "pao2_kpa": "8.9"}
        for preset in ("base", "tiny"):
            system = system_of(preset, people)
            batch = system.data.collate([system.data.sample({"ct": prepared, "table": row})])
            count, side = batch["ct"].shape[1], batch["ct"].shape[-1]
            name = f"`{preset}`: network alone, {count} slices of {side}"
            with torch.no_grad():
                for threads, said in ((1, ", one thread"), (arguments.threads, "")):
                    torch.set_num_threads(threads)
                    rows.append(timed(name + said, lambda s=system, b=batch: s.forward(b), repeats))
            for name, ct in (("prepared file", prepared), ("DICOM series", raw)):
                rows.append(
                    timed(f"`{preset}`: {name} to result", lambda s=system, c=ct: predicted(s, c, row), repeats)
                )
    text = "\n".join(
        [
            "# COPD per patient on a CPU",
            "",
            "; ".join(f"{name} {value}" for name, value in facts.items()),
            "",
            f"Float32, one patient at a time; median, in brackets fastest and slowest of {repeats} calls. Published: "
            f"{PUBLISHED}, hardware and scope not named.",
            "",
            bench.table(rows),
            "",
        ]
    )
    print(text)
    if not arguments.quick:
        write_text(arguments.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
