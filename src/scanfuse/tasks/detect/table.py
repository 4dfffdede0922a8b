"""The tables of detectors: average precision, by class, size and subgroup, with intervals over scenes.

A statistic is a function of how often every image was drawn, so the intervals resample whole scenes without matching
anything again (`scanfuse.metrics.detection.average_precision`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanfuse.data.manifest import COLUMNS, Manifest, texts_of
from scanfuse.errors import UserError
from scanfuse.metrics.detection.average_precision import summary
from scanfuse.metrics.detection.confusion import confusion
from scanfuse.metrics.detection.curves import precision_recall
from scanfuse.metrics.detection.matching import Matches, match
from scanfuse.metrics.detection.miss_rate import MissMatches, log_average_miss_rate, match_misses
from scanfuse.stats.bootstrap import Statistic, Weights, cluster_differences, cluster_intervals
from scanfuse.stats.holm import holm
from scanfuse.tables import Cell, Comparisons, Evaluation, Row
from scanfuse.tasks.detect.detections import image_boxes
from scanfuse.tasks.detect.found import Found

__all__ = ["BETTER", "CURVES", "Scored", "comparisons", "evaluated"]

BETTER = {
    "map": "higher",
    "map50": "higher",
    "map75": "higher",
    "map_small": "higher",
    "map_medium": "higher",
    "map_large": "higher",
    "ar100": "higher",
    "miss_rate": "lower",
}
_MOST_GROUPS = 20
CURVES = "curves.json"
"""What the report draws of an evaluation."""
_REPEATS = 1000
_CONFIDENCE = 0.25


@dataclass(frozen=True)
class Scored:
    """Results of one method, matched with the truth.

    Attributes:
        results: one per image.
        matches: of all classes.
        misses: of the class whose miss rate is reported; None where there is no such class.
    """

    results: list[Found]
    matches: Matches
    misses: MissMatches | None

    @classmethod
    def of(cls, results: Sequence[Found], classes: tuple[str, ...], pedestrian: str) -> "Scored":
        """Matches all results; UserError for an image that is not annotated."""
        images = [image_boxes(result.detections) for result in results]
        misses = match_misses(images, classes.index(pedestrian)) if pedestrian in classes else None
        return cls(list(results), match(images, len(classes)), misses)

    @property
    def groups(self) -> list[str]:
        """The scene of every image."""
        return [result.group for result in self.results]

    def statistic(self, classes: tuple[str, ...], only: np.ndarray | None = None) -> Statistic:
        """All metrics as a function of weights of the images, those of the mask `only`; "<class>/<metric>" too."""

        def of_weights(weights: Weights) -> dict[str, np.ndarray]:
            drawn = weights if only is None else weights * only
            averages, each = summary(self.matches, drawn)
            values = {name: averages[name] for name in BETTER if name in averages}
            if self.misses is not None:
                values["miss_rate"] = log_average_miss_rate(self.misses, drawn)
            for label, found in zip(classes, each, strict=True):
                values |= {f"{label}/{name}": found[name] for name in ("map", "map50")}
            return values

        return of_weights


def evaluated(
    scored: Mapping[str, Scored],
    classes: tuple[str, ...],
    samples: Manifest,
    split: str,
    *,
    by: Sequence[str] = (),
    lacking: Mapping[str, Mapping[str, Scored]] | None = None,
) -> Evaluation:
    """The table of several methods on the same images, with parts by class, by subgroup and with sensors missing.

    Args:
        scored: method -> its results.
        classes: names by number.
        samples: the images.
        split: their name.
        by: columns of the samples; by default what the data set is usually reported by.
        lacking: method -> name of a missing sensor -> results without it.

    Raises:
        UserError: there is no such column.
    """
    found = {name: _cells(each, classes) for name, each in scored.items()}
    first = next(iter(scored.values()))
    better = {name: BETTER[name] for name in BETTER if name in next(iter(found.values()))}
    cells = {name: {metric: values[metric] for metric in better} for name, values in found.items()}
    evaluation = _evaluation(split, first, list(scored), better, cells)
    evaluation.rows = [
        {"method": name, "id": result.id, "group": result.group, **_counts(result)}
        for name, each in scored.items()
        for result in each.results
    ]
    evaluation.notes = [*samples.notes, *_notes(first, classes)]
    for title, metric in (("AP of each class", "map"), ("AP50 of each class", "map50")):
        of_class = {name: {c: values[f"{c}/{metric}"] for c in classes} for name, values in found.items()}
        part = _evaluation(split, first, list(scored), dict.fromkeys(classes, "higher"), of_class)
        evaluation.parts[title] = part
    for column in _columns(samples, by):
        values = dict(zip(samples.table["id"], texts_of(samples.table[column]), strict=True))
        evaluation.parts |= _by_column(scored, classes, column, values, split)
    for name, missing in (lacking or {}).items():
        together = {"both": scored[name], **{f"without {sensor}": each for sensor, each in missing.items()}}
        part_cells = {title: _cells(each, classes) for title, each in together.items()}
        shown = {title: {metric: values[metric] for metric in better} for title, values in part_cells.items()}
        where = f" ({name})" if len(scored) > 1 else ""
        evaluation.parts[f"with a sensor missing{where}"] = _evaluation(
            split, first, list(together), dict.fromkeys(better, "none"), shown
        )
    title, best = next(iter(scored.items()))
    evaluation.records[CURVES] = _curves(title, best, classes)
    return evaluation


def comparisons(scored: Mapping[str, Scored], classes: tuple[str, ...], samples: Manifest, split: str) -> Comparisons:
    """Every method against the first: paired bootstrap over scenes, with Holm's correction over methods."""
    reference, *others = scored
    base = scored[reference]
    statistics = {name: each.statistic(classes) for name, each in scored.items()}
    found = {
        name: cluster_differences(statistics[name], statistics[reference], base.groups, repeats=_REPEATS)
        for name in others
    }
    names = [name for name in BETTER if name in next(iter(found.values()))]
    adjusted = {
        metric: dict(zip(others, holm([found[name][metric].p_value for name in others]), strict=True))
        for metric in names
    }
    rows = []
    for name in others:
        for metric in names:
            each = found[name][metric]
            rows.append(
                Row(
                    name,
                    metric,
                    "bootstrap",
                    each.value,
                    each.low,
                    each.high,
                    each.p_value,
                    float(adjusted[metric][name]),
                )
            )
    scenes = len(set(base.groups))
    notes = [*samples.notes, *_notes(base, classes)]
    return Comparisons(reference, split, len(base.results), scenes, rows, notes, who="scenes")


def _cells(scored: Scored, classes: tuple[str, ...], only: np.ndarray | None = None) -> dict[str, Cell]:
    groups = scored.groups
    found = cluster_intervals(scored.statistic(classes, only), groups, repeats=_REPEATS)
    return {name: Cell(*estimate) for name, estimate in found.items()}


def _evaluation(
    split: str, scored: Scored, methods: list[str], better: dict[str, str], cells: dict[str, dict[str, Cell]]
) -> Evaluation:
    return Evaluation(
        split,
        len(scored.results),
        len(set(scored.groups)),
        methods,
        better,
        cells,
        [],
        unit="images",
        who="scenes",
        measure="value",
    )


def _curves(method: str, scored: Scored, classes: tuple[str, ...]) -> dict[str, Any]:
    """What the report draws: precision at 101 recalls (empty without an object), and the confusion matrix."""
    curves = {name: precision_recall(scored.matches, label) for label, name in enumerate(classes)}
    return {
        "method": method,
        "precision": {name: curve.at_recalls.tolist() if curve.score.size else [] for name, curve in curves.items()},
        "confidence": _CONFIDENCE,
        "confusion": confusion(scored.matches, confidence=_CONFIDENCE)[0].tolist(),
    }


def _columns(samples: Manifest, asked: Sequence[str]) -> list[str]:
    further = [name for name in map(str, samples.table) if name not in (*COLUMNS, *samples.modalities)]
    for name in asked:
        if name not in further:
            raise UserError(f"The data have no column {name!r} for --by; there are: {', '.join(further) or 'none'}.")
        if samples.table[name].nunique() > _MOST_GROUPS:
            raise UserError(f"The column {name!r} has more than {_MOST_GROUPS} different values.")
    usual = [name for name in samples.subgroups if name in further and samples.table[name].nunique() > 1]
    return list(dict.fromkeys(asked)) or usual


def _by_column(
    scored: Mapping[str, Scored], classes: tuple[str, ...], column: str, values: Mapping[str, str], split: str
) -> dict[str, Evaluation]:
    """One table per method would be much: rows are the groups, columns the methods, a cell is the AP50."""
    first = next(iter(scored.values()))
    of_image = np.array([values[result.id] or "not given" for result in first.results])
    groups = sorted(set(of_image.tolist()))
    cells = {
        name: {group: _cells(each, classes, (of_image == group).astype(float))["map50"] for group in groups}
        for name, each in scored.items()
    }
    part = _evaluation(split, first, list(scored), dict.fromkeys(groups, "higher"), cells)
    return {f"AP50 by {column}": part}


def _counts(result: Found) -> dict[str, int]:
    truth = result.detections.truth
    return {
        "objects": 0 if truth is None else int((~truth.ignored).sum()),
        "detections": int((result.detections.scores >= 0.25).sum()),
    }


def _notes(scored: Scored, classes: tuple[str, ...]) -> list[str]:
    notes = []
    scenes = len(set(scored.groups))
    if scenes < 20:
        notes.append(f"only {scenes} scene(s): the intervals are too narrow and say little about others")
    absent = [name for name, each in zip(classes, scored.matches.classes, strict=True) if not each.num_true[0].any()]
    if absent:
        notes.append(f"no object of {', '.join(absent)}: left out of the means")
    return notes
