"""`scanfuse demo`: phantoms, a small model trained on them in minutes, and its scores beside plain methods."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from scanfuse import config as configuration
from scanfuse import systems
from scanfuse.data import phantoms
from scanfuse.errors import UserError
from scanfuse.evaluate import Evaluation, evaluate, print_table
from scanfuse.files import write_text
from scanfuse.predict import load
from scanfuse.train import train

__all__ = ["run"]


def run(name: str, out: Path, *, quick: bool = False) -> Evaluation:
    """Makes phantoms, trains the `tiny` preset of a system, and evaluates it on held-out cases.

    Args:
        name: of the system.
        out: folder for `data`, `run` (or `run-2`, ... where a demo ran before) and `evaluation`.
        quick: few phantoms and two epochs, to see that everything works.
    """
    console = Console()
    system_type = systems.load(name)
    if system_type.phantom not in _SIZES:
        raise UserError(
            f"There is no demonstration of {name} yet; phantoms: scanfuse data synth {system_type.phantom} DIR"
        )
    started = time.perf_counter()
    cases, slices, size = _SIZES[system_type.phantom][quick]
    data = out / f"data-{cases}x{slices}x{size}"
    if not (data / _DONE).exists():
        console.print(f"Making phantoms of {cases} patients in {data} ...", highlight=False)
        phantoms.load(system_type.phantom).write(data, cases=cases, slices=slices, size=size, seed=0)
        write_text(data / _DONE, "These phantoms are complete.\n")
    settings: Any = configuration.build(
        system_type.Config, configuration.preset(name, "tiny"), {"train": {"epochs": 2}} if quick else {}
    )
    folder = _free(out / "run")
    console.print(f"Training {name} (preset tiny) for {settings.train.epochs} epochs ...", highlight=False)
    trained = train(settings, data, folder)
    console.print("Evaluating on patients that the model has not seen ...", highlight=False)
    evaluation = evaluate({name: load(trained.path)}, data, out=trained.path / "evaluation" / "test")
    print_table(evaluation, console)
    console.print(
        f"\nDone in {time.perf_counter() - started:.0f} s. Look at {trained.path / 'evaluation/test/gallery.png'}\n"
        f"Fuse your own pair: scanfuse predict {trained.path} "
        + " ".join(f"--{modality} FILE" for modality in system_type(settings).modalities),
        highlight=False,
        soft_wrap=True,
    )
    return evaluation


_DONE = "phantoms.txt"
_SIZES = {"harvard": ((24, 4, 128), (6, 1, 64))}
"""Cases, slices and side of the phantoms: for the whole demonstration, and for a quick one."""


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that does not exist."""
    number = 2
    candidate = path
    while candidate.exists():
        candidate = path.with_name(f"{path.name}-{number}")
        number += 1
    return candidate
