"""`scanfuse demo`: phantoms, a small model trained on them in minutes, and its scores beside plain methods."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from scanfuse import config as configuration
from scanfuse import systems
from scanfuse.data import synthetic
from scanfuse.files import write_text
from scanfuse.tables import Evaluation, print_comparisons, print_table
from scanfuse.verbs import report
from scanfuse.verbs.compare import compare
from scanfuse.verbs.evaluate import evaluate
from scanfuse.verbs.explain import can_explain, explain_sample
from scanfuse.verbs.predict import Predictor, load
from scanfuse.verbs.train import train

__all__ = ["run"]


def run(name: str, out: Path, *, quick: bool = False) -> Evaluation:
    """Makes phantoms, trains a small preset of a system and its rivals, and evaluates them on held-out cases.

    Where the system has rivals they are compared, where samples of all of them may lack inputs it is shown what
    is left without each, and where there are heat maps an example is explained.

    Args:
        name: of the system.
        out: folder for `data-...`, `run` (or `run-2`, ... where a demo ran before) and `evaluation`.
        quick: few phantoms and two epochs, to see that everything works.
    """
    console = Console()
    plan = systems.load(name).demonstration
    started = time.perf_counter()
    data = _phantoms(plan, out, quick, console)
    trained = _trained(name, data, out / "run", [plan.settings], quick, console)
    predictors = {name: trained}
    for rival, changes in plan.rivals.items():
        folder = out / f"run-{rival.split()[0]}"
        predictors[rival] = _trained(name, data, folder, [plan.settings, changes], quick, console)
    groups = trained.system.task.words.groups
    console.print(f"Evaluating on {groups} that no model has seen ...", highlight=False)
    folder = trained.run.path / "evaluation" / "test"
    may_lack = all(each.shows_missing for each in predictors.values())
    evaluation = evaluate(predictors, data, out=folder, each_missing=may_lack)
    print_table(evaluation, console)
    if plan.rivals:
        print_comparisons(compare(predictors, data, out=folder, quiet=True), console)
    pictures = [folder / picture for picture in evaluation.pictures]
    if evaluation.examples and can_explain(trained.system):
        # The report shows it first: the clearest right one, with several views where there is one.
        shown = evaluation.examples[0].id
        pictures = explain_sample(trained, data, shown, trained.run.path / "explanations")
    look = [report.write(trained.run), *pictures[:1]]
    console.print(
        f"\nDone in {time.perf_counter() - started:.0f} s. Look at {' and '.join(map(str, look))}\n"
        f"Apply it to your own files: scanfuse predict {trained.run.path} "
        + " ".join(f"--{modality.replace('_', '-')} FILE" for modality in trained.modalities),
        highlight=False,
        soft_wrap=True,
    )
    return evaluation


_DONE = "phantoms.txt"


def _phantoms(plan: systems.Demonstration, out: Path, quick: bool, console: Console) -> Path:
    """The folder of the phantoms, written unless they are there from an earlier demonstration."""
    sizes = plan.quick if quick else plan.options
    data = out / "-".join(["data", plan.phantom, *(f"{value}{option}" for option, value in sizes.items())])
    if not (data / _DONE).exists():
        console.print(f"Making {plan.phantom} phantoms in {data} ...", highlight=False)
        if data.exists():
            shutil.rmtree(data)  # of a demonstration that was stopped while it made them
        module = synthetic.load(plan.phantom)
        module.write(data, module.Options(**sizes))
        write_text(data / _DONE, "These phantoms are complete.\n")
    return data


def _trained(
    name: str, data: Path, folder: Path, changes: Sequence[Mapping[str, Any]], quick: bool, console: Console
) -> Predictor:
    system_type = systems.load(name)
    preset = system_type.demonstration.preset
    layers = [dict(change) for change in changes] + [{"train": {"epochs": 2}} if quick else {}]
    settings: Any = configuration.build(system_type.Config, configuration.preset(name, preset), *layers)
    folder = _free(folder)
    console.print(f"Training {folder} (preset {preset}, {settings.train.epochs} epochs) ...", highlight=False)
    return load(train(settings, data, folder).path)


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that does not exist."""
    number = 2
    candidate = path
    while candidate.exists():
        candidate = path.with_name(f"{path.name}-{number}")
        number += 1
    return candidate
