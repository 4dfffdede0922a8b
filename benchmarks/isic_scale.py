"""Opens a made set of the size of ISIC 2024 and times where an epoch goes; writes results/isic-scale.md.

    .venv/bin/python benchmarks/isic_scale.py [--folder DIR] [--threads N] [--out FILE] [--quick]

Made, from the phantoms of this library: 401,059 rows of 1,042 patients with 393 positives, and an HDF5 container of
as many tiny JPEGs; and 20,000 crops of the published sizes (61 to 239 pixels, median 131). Opening is timed in a
process of its own, from its start to the first batch, whose peak of resident memory is the kernel's. The machine may
be shared: beside the wall clock stands the CPU time, which others do not change much.
"""

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from PIL import Image

from scanfuse import config, systems
from scanfuse.data.inputs import image_table
from scanfuse.data.synthetic import isic2024
from scanfuse.files import write_text
from scanfuse.verbs import bench
from scanfuse.verbs.loading import Batches
from scanfuse.verbs.optimisation import make_optimizer

ROWS, PATIENTS, POSITIVES = 401_059, 1_042, 393
EPOCH = 20_000
SECONDS, MEGABYTES = 20.0, 2000.0
OUT = Path(__file__).parent / "results" / "isic-scale.md"


def make(root: Path, rows: int, *, side: int) -> Path:
    """A training set in the official format with that many rows; crops of about `side` pixels, 500 different ones."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        few = isic2024.write(Path(folder) / "few", isic2024.Options(patients=170, size=side))
        table = pd.read_csv(few / "train-metadata.csv", dtype=str, keep_default_na=False)
        with h5py.File(few / "train-image.hdf5") as file:
            pictures = [bytes(file[name][()].tobytes()) for name in list(file)[:500]]
    known = table["target"] == "1"
    positives = max(2 * 5, round(rows * POSITIVES / ROWS))
    drawn = np.concatenate([
        random.choice(np.flatnonzero(~known), rows - positives), random.choice(np.flatnonzero(known), positives)
    ])  # fmt: skip
    whole = table.iloc[random.permutation(drawn)].reset_index(drop=True)
    for name in whole:
        number = pd.to_numeric(whole[name], errors="coerce")
        if name.startswith(("tbp_lv_", "clin_")) and number.notna().all():
            whole[name] = [f"{value:.6g}" for value in number * (1 + 1e-3 * random.normal(size=rows))]
    whole["isic_id"] = [f"ISIC_{number:07d}" for number in random.permutation(10 * rows)[:rows]]
    patients = random.dirichlet(np.full(min(PATIENTS, rows // 4), 0.7))
    whole["patient_id"] = [f"IP_{number:07d}" for number in random.choice(len(patients), rows, p=patients)]
    root.mkdir(parents=True)
    whole.to_csv(root / "train-metadata.csv", index=False)
    # The groups of the published container are of the older form that readers of all versions know, too.
    with h5py.File(root / "train-image.hdf5", "w") as file:
        for number, name in enumerate(whole["isic_id"]):
            file.create_dataset(name, data=np.void(pictures[number % len(pictures)]))
    return root


def settings_of(size: int, **train: Any) -> Any:
    system_type = systems.load("mambaderm")
    given = {"data": {"size": size}, "task": {"retrieval_top": 15}, "sampling": {"negatives": 20}, "train": train}
    return config.build(system_type.Config, config.preset("mambaderm", "tiny"), given)


def open_once(root: Path) -> dict[str, float]:
    """What a training does before its first step, in this process: seconds of each part, and the peak of memory."""
    marks: dict[str, float] = {}
    started = time.perf_counter()

    def mark(name: str) -> None:
        marks[name] = time.perf_counter() - started - sum(marks.values())

    settings = settings_of(32, batch=32)
    system_type = systems.load("mambaderm")
    completed = system_type.completed(settings, root)  # type: ignore[attr-defined]
    mark("labels and features of the data (opened once, schema fitted)")
    system = systems.build(completed)
    manifest = system.data.open(root)
    mark("rows, pictures and split")
    system.data.prepare(manifest.subset("train"))
    mark("schema of the training rows")
    training = system.data.dataset(manifest.subset("train"), train=True)
    validation = system.data.dataset(manifest.subset("val"), train=False)
    system.task.begin(training, validation)
    mark("tables as numbers, targets")
    order = system.task.order(len(training), batch=32, seed=0, epoch=0)
    next(iter(Batches(training, system.data.collate, workers=0).of(order)))
    mark("first batch")
    digest = manifest.digest
    assert len(digest) == 64
    mark("digest of the split")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    whole = {"wall": time.perf_counter() - started, "cpu": usage.ru_utime + usage.ru_stime}
    return {**marks, **whole, "peak_mb": usage.ru_maxrss / 1024, "rows": float(len(manifest))}


def opened(root: Path) -> dict[str, float]:
    """`open_once` in a fresh process."""
    command = [sys.executable, __file__, "--open", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def parts_of_a_sample(root: Path, size: int, count: int) -> dict[str, float]:
    """Milliseconds of CPU for each part of making a sample and of a step with it."""
    system_type = systems.load("mambaderm")
    system = systems.build(system_type.completed(settings_of(size, batch=32), root))  # type: ignore[attr-defined]
    manifest = system.data.open(root)
    system.data.prepare(manifest.subset("train"))
    training: Any = system.data.dataset(manifest.subset("train"), train=True)
    names = [training.row(place).id for place in range(count)]
    container = image_table.Container(root / "train-image.hdf5")
    with h5py.File(root / "train-image.hdf5") as file:
        contents, read = timed(lambda name: bytes(file[name][()].tobytes()), names)
        _, decoded = timed(lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), contents)
    images, both = timed(lambda name: container.read(name, grey_if_equal=False), names)
    squares, fitted = timed(lambda image: image_table._square(image, system.config.data.letterbox), images)
    floats = [torch.from_numpy(square.astype(np.float32) / 255) for square, _ in squares]
    augmentation, random = system.config.data.augmentation, np.random.default_rng(0)
    _, moved = timed(lambda picture: image_table.augment_skin(picture, augmentation, random), floats)
    samples, whole = timed(lambda place: training[place], list(range(count)))
    batches = [samples[start : start + 32] for start in range(0, count - 31, 32)]
    collated, joined = timed(system.data.collate, batches)
    optimizer = make_optimizer(system.model, system.config.train)

    def step(batch: dict[str, Any]) -> None:
        system.task.loss(system.forward(batch), batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    step(collated[0])
    _, trained = timed(step, collated[:8])
    return {
        "read from the container": read,
        "decode the JPEG": decoded,
        "the rest of reading (checks, colour)": max(0.0, both - read - decoded),
        "to a square": fitted,
        "augment": moved,
        "the rest of a sample": max(0.0, whole - both - fitted - moved),
        "to a batch": joined / 32,
        "step of the tiny network": trained / 32,
    }


def timed(function: Any, arguments: list[Any]) -> tuple[list[Any], float]:
    """Results, and milliseconds of CPU for each."""
    started = time.process_time()
    found = [function(argument) for argument in arguments]
    return found, 1000 * (time.process_time() - started) / len(arguments)


def loaded(root: Path, size: int, workers: int, count: int) -> float:
    """Samples a second through the loader of a training."""
    system_type = systems.load("mambaderm")
    system = systems.build(system_type.completed(settings_of(size, batch=32), root))  # type: ignore[attr-defined]
    manifest = system.data.open(root)
    system.data.prepare(manifest.subset("train"))
    training: Any = system.data.dataset(manifest.subset("train"), train=True)
    order = [list(range(start, start + 32)) for start in range(0, count, 32)]
    batches = Batches(training, system.data.collate, workers=workers)
    source = iter(batches.of(order))
    next(source)  # workers start
    started = time.perf_counter()
    seen = sum(len(batch["target"]) for batch in source)
    return seen / (time.perf_counter() - started)


def report(folder: Path, quick: bool) -> str:
    rows, epoch, count = (4_000, 800, 64) if quick else (ROWS, EPOCH, 512)
    big, crops = folder / f"rows-{rows}", folder / f"crops-{epoch}"
    for root, number, side in ((big, rows, 24), (crops, epoch, 131)):
        if not (root / "done").exists():
            shutil.rmtree(root, ignore_errors=True)
            make(root, number, side=side)
            (root / "done").write_text("complete\n")
    first = opened(big)
    machine = "; ".join(f"{name} {value}" for name, value in bench.machine().items())
    lines = [
        "# A set of the size of ISIC 2024, and where an epoch goes",
        "",
        f"{machine}; load {os.getloadavg()[0]:.1f} at the start.",
        "",
        f"## Opening {rows:,} rows with as many pictures in a container",
        "",
        f"In {first['wall']:.1f} s ({first['cpu']:.1f} s of CPU, starting Python and torch included), at most "
        f"{first['peak_mb']:,.0f} MB; the goal is under {SECONDS:.0f} s and {MEGABYTES:,.0f} MB.",
        "",
        "| part | s |",
        "|---|---|",
    ]
    lines += [f"| {name} | {first[name]:.1f} |" for name in first if name not in ("wall", "cpu", "peak_mb", "rows")]
    lines += [
        "",
        f"## An epoch over {epoch:,} crops of a median of 131 pixels",
        "",
        "Milliseconds of CPU per sample, ",
    ]
    sizes = (32, 224)
    parts = {size: parts_of_a_sample(crops, size, count) for size in sizes}
    lines[-1] += "one thread, no cache; pictures brought to squares of 32 and 224 pixels."
    lines += ["", f"| part | {' | '.join(f'{size} px' for size in sizes)} |", "|---|" + "---|" * len(sizes)]
    lines += [f"| {name} | {' | '.join(f'{parts[size][name]:.2f}' for size in sizes)} |" for name in parts[sizes[0]]]
    whole = {size: sum(parts[size].values()) * epoch / 1000 for size in sizes}
    lines += [f"| an epoch, s | {' | '.join(f'{whole[size]:,.0f}' for size in sizes)} |"]
    lines += ["", "Samples a second through the loader, by processes that load:", ""]
    lines += ["| workers | 32 px | 224 px |", "|---|---|---|"]
    for workers in (0, 1, 2):
        rates = [loaded(crops, size, workers, min(epoch // 2, 1600)) for size in sizes]
        lines.append(f"| {workers} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "scanfuse-isic-scale")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="a small set, to see that everything works")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.open:
        print(json.dumps(open_once(given.open)))
        return 0
    text = report(given.folder, given.quick)
    write_text(given.out, text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
