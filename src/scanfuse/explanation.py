"""`scanfuse explain`: where the evidence for a study's result lies in each view, and what each view contributes.

Maps are Grad-CAM at the views' own feature maps and at the joint one. Each is placed on the original picture at its
own size (crop, resize and padding undone). The views' maps share one scale, so that they can be compared; the joint
map, which belongs to no view, is shown on each. The ablation runs the model once without each view.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor

from scanfuse import systems
from scanfuse.data.manifest import Manifest
from scanfuse.data.readers import read_image
from scanfuse.data.transforms.placement import place
from scanfuse.errors import UserError
from scanfuse.explain.ablation import view_ablation
from scanfuse.explain.gradcam import Method, output, scaled_together
from scanfuse.explain.overlay import panel, write_overlay, write_panel
from scanfuse.files import atomic_path, file_name, write_text
from scanfuse.predict import Predictor
from scanfuse.tasks.classify import Scored
from scanfuse.train import to_device

__all__ = [
    "Explanation",
    "Outcome",
    "batches_of",
    "explain",
    "explain_study",
    "outcome_of",
    "picture",
    "study_result",
    "write_examples",
]

MOST_PAIRS = 6

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What is explained: an output of the network, or that it is not so (`against`), and what a reader calls it."""

    column: int
    against: bool
    name: str

    def probability(self, result: Scored) -> float:
        """Of the outcome, for a calibrated result."""
        p = float(result.probabilities[self.column])
        return 1 - p if self.against else p


@dataclass(frozen=True)
class Explanation:
    """Why one pair of views got its result.

    Attributes:
        result: the calibrated result.
        outcome: what the maps speak for, such as "positive" or "not positive".
        probability: of that outcome, for this pair.
        pixels: view -> the original picture.
        heats: view -> name of the map ("view", "fused") -> (H, W) in [0, 1], the size of the picture.
        without: view -> probability of the outcome without that view; empty where the other one is missing.
        names: view -> what the data call it, such as "frontal".
        places: name of the map -> (h', w') as the network gave it, before it was placed on the pictures.
    """

    result: Scored
    outcome: Outcome
    probability: float
    pixels: dict[str, np.ndarray]
    heats: dict[str, dict[str, np.ndarray]]
    without: dict[str, float]
    names: dict[str, str]
    places: dict[str, tuple[int, int]]

    @property
    def captions(self) -> dict[str, str]:
        """View -> its name and what changes without it."""
        found = {}
        for view in self.pixels:
            # Rounded first, so that nothing reads "-0.00".
            change = round(self.without[view] - self.probability, 2) + 0.0 if view in self.without else None
            found[view] = self.names[view] + ("" if change is None else f": {change:+.2f} without it")
        return found

    @property
    def titles(self) -> dict[str, str]:
        """Name of a map -> whose it is, and its own rows and columns: what looks smooth is drawn between few."""
        kinds = {"view": "own map", "fused": "joint map"}
        return {name: f"{kinds.get(name, name)} ({h} x {w})" for name, (h, w) in self.places.items()}


def explain_study(
    predictor: Predictor,
    data: str | Path,
    study: str,
    out: str | Path,
    *,
    label: str | None = None,
    method: Method = "gradcam",
) -> list[Path]:
    """Explains every pair of views of a study (at most six); returns the panels, written with overlays and numbers.

    Args:
        predictor: a classifying run.
        data: folder or manifest that holds the study.
        study: its id.
        out: folder; gets `<pair>/panel.png`, one overlay per view and map in the size of the picture, and
            `<pair>/explanation.json`.
        label: what to explain; None: what the study as a whole is called, see `outcome_of`.
        method: gradcam or hirescam.

    Raises:
        UserError: the run does not classify, there is no such study or label.
    """
    manifest = predictor.classifier.open_data(Path(data), split=False)
    batches = batches_of(predictor, manifest, study)
    whole = study_result(predictor, batches)
    outcome = outcome_of(predictor.classifier, whole, label)
    if len(batches) > MOST_PAIRS:
        _log.warning("%s has %d pairs of views; the first %d are explained.", study, len(batches), MOST_PAIRS)
    written = []
    for batch in batches[:MOST_PAIRS]:
        found = explain(predictor, batch, outcome, method=method)
        folder = Path(out) / file_name(found.result.id)
        for view, heats in found.heats.items():
            for name, heat in heats.items():
                write_overlay(folder / f"{view}_{name}.png", found.pixels[view], heat)
        write_panel(folder / "panel.png", found.pixels, found.heats, captions=found.captions, titles=found.titles)
        write_text(folder / "explanation.json", json.dumps(_plain(found, whole), indent=2) + "\n")
        written.append(folder / "panel.png")
    return written


def batches_of(predictor: Predictor, manifest: Manifest, study: str) -> list[dict[str, Any]]:
    """The pairs of one study, each a batch of one; UserError if there is no such study."""
    rows = manifest.table[manifest.table["id"] == study].reset_index(drop=True)
    if not len(rows):
        some = ", ".join(manifest.table["id"].head(3))
        raise UserError(f"There is no study {study!r} in the data; ids look like {some}.")
    part = Manifest(rows, manifest.modalities, manifest.notes)
    data = predictor.system.dataset(part, train=False)
    return [predictor.system.collate([data[index]]) for index in range(len(data))]


def study_result(predictor: Predictor, batches: Sequence[dict[str, Any]]) -> Scored:
    """The calibrated result of a study from all its pairs."""
    system = predictor.classifier
    raw = [result for batch in batches for result in system.results(to_device(batch, predictor.device))]
    return system.job.decided(raw)[0]


def outcome_of(system: systems.Classifier, result: Scored, label: str | None = None) -> Outcome:
    """What there is to explain about a calibrated result.

    A label that is asked for. Otherwise what the result is called: the class; for one label whether it is given; of
    several labels the most probable one of those given, or that the most probable of all is not given.

    Raises:
        UserError: there is no such label.
    """
    labels = list(system.job.task.labels)
    if label is not None:
        if label not in labels:
            raise UserError(f"There is no label {label!r}; the run predicts {', '.join(labels)}.")
        return Outcome(labels.index(label), False, label)
    called = [labels.index(name) for name in system.job.decision.called(result)]
    column = max(called or range(len(labels)), key=lambda index: result.probabilities[index])
    return _called(system, result, column)


def _called(system: systems.Classifier, result: Scored, column: int) -> Outcome:
    """Whether the result is called that label, as an outcome."""
    name = system.job.task.labels[column]
    is_called = name in system.job.decision.called(result)
    return Outcome(column, not is_called, name if is_called else f"not {name}")


def explain(
    predictor: Predictor, batch: dict[str, Any], outcome: Outcome, *, method: Method = "gradcam"
) -> Explanation:
    """Maps and ablation of a batch of one pair; see `explain_study`."""
    system = predictor.classifier
    batch = to_device(batch, predictor.device)
    meta = batch["meta"][0]
    result = system.predict(batch)[0]

    def probability(views: frozenset[str]) -> Tensor:
        # As any other prediction, test-time flips included, of the sample with these views alone.
        flags = {name: flag & (name in views) for name, flag in batch["present"].items()}
        return torch.tensor([[outcome.probability(value)] for value in system.predict({**batch, "present": flags})])

    present = [name for name in system.modalities if bool(batch["present"][name][0])]
    without: dict[str, float] = {}
    if len(present) > 1:
        without = {view: float(value) for view, value in view_ablation(probability, present).without.items()}
    target = output(outcome.column, against=outcome.against)
    maps = {name: value[0] for name, value in system.evidence(batch, target, method).items()}
    own = scaled_together({name: value for name, value in maps.items() if name in present})
    joint = scaled_together({name: value for name, value in maps.items() if name not in system.modalities})
    pixels = {name: read_image(meta["paths"][name]).pixels for name in present}
    heats: dict[str, dict[str, np.ndarray]] = {}
    places = {title: _size(value) for title, value in [*joint.items(), *(("view", value) for value in own.values())]}
    for name in present:
        placement = meta["placements"][name]
        heats[name] = {"view": place(own[name].cpu(), placement)} if name in own else {}
        heats[name] |= {title: place(value.cpu(), placement) for title, value in joint.items()}
    slots = zip(system.modalities, meta["views"], strict=True)
    names = {name: str(slot or name) for name, slot in slots if name in present}
    return Explanation(result, outcome, outcome.probability(result), pixels, heats, without, names, places)


def _size(values: Tensor) -> tuple[int, int]:
    return int(values.shape[-2]), int(values.shape[-1])


def picture(found: Explanation, height: int = 260) -> np.ndarray:
    """The panel of an explanation, (h, w, 3) uint8."""
    return panel(found.pixels, found.heats, captions=found.captions, titles=found.titles, height=height)


def write_examples(
    predictor: Predictor, manifest: Manifest, results: Sequence[Scored], out: Path, count: int
) -> None:
    """Explains the clearest right and wrong results, half of each: `examples/*.png` and `examples.json` in `out`.

    Studies with a single view come last: they do not show what each view contributes.

    Args:
        predictor: a classifying run.
        manifest: the studies.
        results: calibrated, one per study.
        out: folder of the evaluation.
        count: at most so many; 0 writes none. Earlier ones are removed.
    """
    system = predictor.classifier
    # Those of an earlier evaluation, of other samples perhaps, must not stand beside the new numbers.
    (out / "examples.json").unlink(missing_ok=True)
    for kind in ("right", "wrong"):
        for old in (out / "examples").glob(f"{kind}_*.png"):
            old.unlink()
    judged = [found for result in results for found in _judged(system, result)]
    alone = {row.id for row in manifest.rows if len(row.paths) < 2}
    judged.sort(key=lambda found: (found[0].id in alone, -found[2]))
    examples = []
    for right in (True, False):
        taken: set[str] = set()
        for result, column, _, is_right in judged:
            if is_right != right or result.id in taken or len(taken) >= (count + right) // 2:
                continue
            taken.add(result.id)
            outcome = _called(system, result, column)
            batches = batches_of(predictor, manifest, result.id)
            found = explain(predictor, batches[0], outcome)
            name = f"examples/{'right' if right else 'wrong'}_{len(taken)}.png"
            with atomic_path(out / name) as temporary:
                PillowImage.fromarray(picture(found)).save(temporary, format="PNG")
            truth = _truth(system, result, column)
            text = f"{truth}; called {outcome.name} with probability {outcome.probability(result):.2f}"
            text += f"; shown is the first of {len(batches)} pairs of views" if len(batches) > 1 else ""
            examples.append({"id": result.id, "right": right, "text": text, "file": name})
    if examples:
        write_text(out / "examples.json", json.dumps({"examples": examples}, indent=2) + "\n")


def _judged(system: systems.Classifier, result: Scored) -> list[tuple[Scored, int, float, bool]]:
    """Result, output, how clear the call is, whether it is right; one per known outcome.

    Clear is the distance of the probability from the cut, as a share of what is possible. Of several findings most
    are rightly not called; those come last (1 less), as there is nothing to point at.
    """
    job = system.job
    if job.task.kind == "multiclass":
        best = int(np.argmax(result.probabilities))
        known = bool(result.mask[0])
        return [(result, best, float(result.probabilities[best]), best == int(result.target[0]))] if known else []
    found = []
    for column, (p, cut) in enumerate(zip(result.probabilities, job.decision.thresholds, strict=True)):
        if result.mask[column]:
            called = bool(p >= cut)
            room = (1 - cut if called else cut) or 1.0
            absent = job.task.kind == "multilabel" and not called and not result.target[column]
            found.append((result, column, abs(float(p - cut)) / room - absent, called == bool(result.target[column])))
    return found


def _truth(system: systems.Classifier, result: Scored, column: int) -> str:
    task = system.job.task
    if task.kind == "multiclass":
        return f"is {task.labels[int(result.target[0])]}"
    return f"is {'' if result.target[column] else 'not '}{task.labels[column]}"


def _plain(found: Explanation, study: Scored) -> dict[str, Any]:
    return {
        "id": found.result.id,
        "study": found.result.study,
        "group": found.result.group,
        "outcome": found.outcome.name,
        "probability": found.probability,
        "probability_of_study": found.outcome.probability(study),
        "without_view": found.without,
        "drop_of_view": {view: found.probability - value for view, value in found.without.items()},
        "views": found.names,
        "maps": {view: sorted(heats) for view, heats in found.heats.items()},
        "map_places": {name: list(size) for name, size in found.places.items()},
    }
