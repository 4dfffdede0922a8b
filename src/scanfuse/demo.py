"""`scanfuse demo`: phantoms, a small model trained on them in minutes, and its scores beside plain methods."""

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from scanfuse import config as configuration
from scanfuse import report, systems
from scanfuse.comparison import compare, print_comparisons
from scanfuse.data import synthetic
from scanfuse.evaluate import Evaluation, evaluate, print_table
from scanfuse.explanation import explain_study
from scanfuse.files import write_text
from scanfuse.predict import Predictor, load
from scanfuse.train import train

__all__ = ["run"]


def run(name: str, out: Path, *, quick: bool = False) -> Evaluation:
    """Makes phantoms, trains the `tiny` preset of a system, and evaluates it on held-out cases.

    A classifier is also compared with the same encoder on a single view, and explained.

    Args:
        name: of the system.
        out: folder for `data-...`, `run` (or `run-2`, ... where a demo ran before) and `evaluation`.
        quick: few phantoms and two epochs, to see that everything works.
    """
    console = Console()
    system_type: Any = systems.load(name)
    classifies = hasattr(system_type, "adapt")
    started = time.perf_counter()
    data = _phantoms(system_type.phantom, out, quick, console)
    trained = _trained(name, data, out / "run", {}, quick, console)
    predictors = {name: trained}
    if classifies:
        single = _trained(name, data, out / "run-single", {"model": {"fusion": "single"}}, quick, console)
        predictors = {name: trained, "single view": single}
    console.print("Evaluating on patients that no model has seen ...", highlight=False)
    folder = trained.run.path
    evaluation = evaluate(predictors, data, out=folder / "evaluation" / "test")
    print_table(evaluation, console)
    if classifies:
        print_comparisons(compare(predictors, data, out=folder / "evaluation" / "test", quiet=True), console)
        panels = explain_study(trained, data, _example(folder / "evaluation" / "test"), folder / "explanations")
        look = f"{report.write(trained.run)} and {panels[0]}"
    else:
        look = f"{folder / 'evaluation/test/gallery.png'}"
    console.print(
        f"\nDone in {time.perf_counter() - started:.0f} s. Look at {look}\n"
        f"Apply it to your own files: scanfuse predict {folder} "
        + " ".join(f"--{modality} FILE" for modality in trained.modalities),
        highlight=False,
        soft_wrap=True,
    )
    return evaluation


_DONE = "phantoms.txt"
_SIZES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "harvard": ({"cases": 24, "slices": 4, "size": 128}, {"cases": 6, "slices": 1, "size": 64}),
    "mura": ({"patients": 1600, "size": 96}, {"patients": 20, "size": 48}),
}
"""What the phantoms' `write` is given: for the whole demonstration, and for a quick one."""


def _phantoms(name: str, out: Path, quick: bool, console: Console) -> Path:
    """The folder of the phantoms, written unless they are there from an earlier demonstration."""
    sizes = _SIZES[name][quick]
    data = out / "-".join(["data", name, *(f"{value}{option}" for option, value in sizes.items())])
    if not (data / _DONE).exists():
        console.print(f"Making {name} phantoms in {data} ...", highlight=False)
        module = synthetic.load(name)
        module.write(data, configuration.build(module.Options, dict(sizes)))
        write_text(data / _DONE, "These phantoms are complete.\n")
    return data


def _trained(
    name: str, data: Path, folder: Path, changes: dict[str, Any], quick: bool, console: Console
) -> Predictor:
    system_type = systems.load(name)
    settings: Any = configuration.build(
        system_type.Config, configuration.preset(name, "tiny"), changes, {"train": {"epochs": 2}} if quick else {}
    )
    folder = _free(folder)
    console.print(f"Training {folder} (preset tiny, {settings.train.epochs} epochs) ...", highlight=False)
    return load(train(settings, data, folder).path)


def _example(evaluation: Path) -> str:
    """The study that the report shows first: the clearest right one, with several views where there is one."""
    examples = json.loads((evaluation / "examples.json").read_text(encoding="utf-8"))["examples"]
    return str(examples[0]["id"])


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that does not exist."""
    number = 2
    candidate = path
    while candidate.exists():
        candidate = path.with_name(f"{path.name}-{number}")
        number += 1
    return candidate
