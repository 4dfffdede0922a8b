"""Why a study got its result: heat maps for its outcome, what each input contributes, and which results to show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanfuse.data.manifest import Manifest
from scanfuse.data.transforms.placement import place
from scanfuse.errors import UserError
from scanfuse.explain.ablation import view_ablation
from scanfuse.explain.explanation import Explanation
from scanfuse.explain.gradcam import Method, output, scaled_together
from scanfuse.tables import Example
from scanfuse.tasks import Instrument
from scanfuse.tasks.classify.classes import Classes, one_logit
from scanfuse.tasks.classify.operating_point import OperatingPoint
from scanfuse.tasks.classify.prediction import Prediction

__all__ = ["Outcome", "examples", "explained", "outcome_of"]


@dataclass(frozen=True)
class Outcome:
    """What is explained: an output of the network, or that it is not so (`against`), and what a reader calls it."""

    column: int
    against: bool
    name: str

    def probability(self, result: Prediction) -> float:
        """Of the outcome, for a calibrated result."""
        p = float(result.probabilities[self.column])
        return 1 - p if self.against else p


def outcome_of(result: Prediction, point: OperatingPoint, classes: Classes, label: str | None = None) -> Outcome:
    """What there is to explain about a calibrated result.

    A label that is asked for. Otherwise what the result is called: the class; for one label whether it is given; of
    several labels the most probable one of those given, or that the most probable of all is not given.

    Raises:
        UserError: there is no such label.
    """
    labels = list(classes.labels)
    if label is not None:
        if label not in labels:
            raise UserError(f"There is no label {label!r}; the run predicts {', '.join(labels)}.")
        return Outcome(labels.index(label), False, label)
    called = [labels.index(name) for name in point.called(result)]
    column = max(called or range(len(labels)), key=lambda index: result.probabilities[index])
    return _called(result, point, classes, column)


def explained(
    through: Instrument,
    batch: dict[str, Any],
    outcome: Outcome,
    results_of: Any,
    classes: Classes,
    *,
    method: Method = "gradcam",
) -> Explanation:
    """Maps and ablation of a batch of one sample.

    Maps are Grad-CAM at the inputs' own feature maps and at the joint one. Each is placed on the original picture at
    its own size (crop, resize and padding undone). The inputs' maps share one scale, so that they can be compared;
    the joint map, which belongs to no input, is shown on each. The ablation runs the model once without each input,
    and without each part of an input that has parts, such as the columns of a table.

    Args:
        through: the network.
        batch: of one sample.
        outcome: what is explained.
        results_of: batch -> calibrated results, as any other prediction, test-time flips included.
        classes: what is predicted.
        method: of the maps.

    Raises:
        UserError: none of the inputs is a picture.
    """
    meta = batch["meta"][0]
    result: Prediction = results_of(batch)[0]

    def probability(inputs: frozenset[str]) -> Tensor:
        flags = {name: flag & (name in inputs) for name, flag in batch["present"].items()}
        return torch.tensor([[outcome.probability(value)] for value in results_of({**batch, "present": flags})])

    present = [name for name in through.modalities if bool(batch["present"][name][0])]
    pictures = [name for name in present if name in meta["placements"]]
    if not pictures:
        raise UserError(f"{meta['id']} has no picture, so there is nothing to show heat maps on.")
    without: dict[str, float] = {}
    if len(present) > 1:
        without = {view: float(value) for view, value in view_ablation(probability, present).without.items()}
    wanted = output(outcome.column, against=outcome.against)
    found = through.evidence(batch, lambda logits: wanted(one_logit(logits, classes)), method)
    maps = {name: value[0] for name, value in found.items()}
    own = scaled_together({name: value for name, value in maps.items() if name in present})
    joint = scaled_together({name: value for name, value in maps.items() if name not in through.modalities})
    pixels, heats = {}, {}
    inner = dict(through.inner(batch)) if through.inner is not None else {}
    places = {title: _size(value) for title, value in [*joint.items(), *(("view", value) for value in own.values())]}
    places |= inner.pop("map_places", {})  # of maps that are put together of smaller ones
    for name in pictures:
        pixels[name], placement = through.pixels(batch, name)
        each = {"view": place(own[name].cpu(), placement)} if name in own else {}
        heats[name] = each | {title: place(value.cpu(), placement) for title, value in joint.items()}
    slots = zip(through.modalities, meta.get("views", through.modalities), strict=True)
    names = {name: str(slot or name) for name, slot in slots if name in present}
    reached = outcome.probability(result)
    parts = {
        of: {part: outcome.probability(results_of(changed)[0]) for part, changed in without_part.items()}
        for of, without_part in (through.parts(batch) if through.parts is not None else {}).items()
    }
    content = {
        "id": result.id,
        "study": result.study,
        "group": result.group,
        "outcome": outcome.name,
        "probability": reached,
        "without_view": without,
        "drop_of_view": {view: reached - value for view, value in without.items()},
        **({"without_part": parts} if parts else {}),
        **inner,
        "views": names,
        "maps": {view: sorted(found) for view, found in heats.items()},
        "map_places": {name: list(size) for name, size in places.items()},
    }
    return Explanation(
        result.id,
        outcome.name,
        pixels,
        heats,
        _captions(names, pictures, without, reached, inner.get("gate", {})),
        _titles(places),
        content,
    )


def examples(
    results: Sequence[Prediction], samples: Manifest, point: OperatingPoint, classes: Classes, count: int
) -> list[Example]:
    """The clearest right and wrong results, half of each.

    Studies with a single view come last: they do not show what each view contributes. Those without any picture are
    left out.

    Args:
        results: calibrated, one per study.
        samples: the studies.
        point: what decides them.
        classes: what is predicted.
        count: at most so many.
    """
    judged = [found for result in results for found in _judged(result, point, classes)]
    files = {row.id: len(row.paths) for row in samples.rows}
    judged = [found for found in judged if files[found[0].id]]
    alone = {name for name, count in files.items() if count < 2}
    judged.sort(key=lambda found: (found[0].id in alone, -found[2]))
    chosen = []
    for right in (True, False):
        taken: set[str] = set()
        for result, column, _, is_right in judged:
            if is_right != right or result.id in taken or len(taken) >= (count + right) // 2:
                continue
            taken.add(result.id)
            outcome = _called(result, point, classes, column)
            text = f"{_truth(result, classes, column)}; called {outcome.name} with probability "
            chosen.append(Example(result.id, right, f"{text}{outcome.probability(result):.2f}", outcome))
    return chosen


def _called(result: Prediction, point: OperatingPoint, classes: Classes, column: int) -> Outcome:
    """Whether the result is called that label, as an outcome."""
    name = classes.labels[column]
    is_called = name in point.called(result)
    return Outcome(column, not is_called, name if is_called else f"not {name}")


def _judged(result: Prediction, point: OperatingPoint, classes: Classes) -> list[tuple[Prediction, int, float, bool]]:
    """Result, output, how clear the call is, whether it is right; one per known outcome.

    Clear is the distance of the probability from the cut, as a share of what is possible. Of several findings most
    are rightly not called; those come last (1 less), as there is nothing to point at.
    """
    if classes.kind == "multiclass":
        best = int(np.argmax(result.probabilities))
        known = bool(result.mask[0])
        return [(result, best, float(result.probabilities[best]), best == int(result.target[0]))] if known else []
    found = []
    for column, (p, cut) in enumerate(zip(result.probabilities, point.thresholds, strict=True)):
        if result.mask[column]:
            called = bool(p >= cut)
            room = (1 - cut if called else cut) or 1.0
            absent = classes.kind == "multilabel" and not called and not result.target[column]
            found.append((result, column, abs(float(p - cut)) / room - absent, called == bool(result.target[column])))
    return found


def _truth(result: Prediction, classes: Classes, column: int) -> str:
    if classes.kind == "multiclass":
        return f"is {classes.labels[int(result.target[0])]}"
    return f"is {'' if result.target[column] else 'not '}{classes.labels[column]}"


def _captions(
    names: Mapping[str, str],
    pictures: Sequence[str],
    without: Mapping[str, float],
    reached: float,
    gate: Mapping[str, float],
) -> dict[str, str]:
    """Picture -> its name and what changes without it; the first one also says it of inputs that are no pictures."""
    said = {}
    for view, name in names.items():
        # Rounded first, so that nothing reads "-0.00".
        change = round(without[view] - reached, 2) + 0.0 if view in without else None
        parts = [] if change is None else [f"{change:+.2f} without it"]
        parts += [f"gate {gate[view]:.2f}"] if view in gate else []
        said[view] = ": ".join([name, *([", ".join(parts)] if parts else [])])
    others = [text for view, text in said.items() if view not in pictures]
    found = {view: said[view] for view in pictures}
    found[pictures[0]] = "; ".join([found[pictures[0]], *others])
    return found


def _titles(places: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Name of a map -> whose it is, and its own rows and columns: what looks smooth is drawn between few."""
    kinds = {"view": "own map", "fused": "joint map"}
    return {name: f"{kinds.get(name, name)} ({h} x {w})" for name, (h, w) in places.items()}


def _size(values: Tensor) -> tuple[int, int]:
    return int(values.shape[-2]), int(values.shape[-1])
