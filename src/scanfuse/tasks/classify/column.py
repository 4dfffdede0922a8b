"""All metrics of one column of a classification's table, with intervals by resampling patients."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from scanfuse.metrics.classification import BETTER, binary, multiclass, multilabel
from scanfuse.stats.bootstrap import Estimate, Statistic, Weights, cluster_intervals
from scanfuse.tasks.classify.classes import Classes
from scanfuse.tasks.classify.prediction import Prediction, Predictions

__all__ = ["Column", "MetricTable", "metric_table", "metrics", "statistic"]


@dataclass(frozen=True)
class MetricTable:
    """Metrics with intervals over patients.

    Attributes:
        summary: metric -> estimate; averages over labels or classes where there are several.
        per_label: label -> metric -> estimate; empty unless multilabel.
        results, groups: how many results and patients stand behind it.
        notes: what a reader must know.
    """

    summary: dict[str, Estimate]
    per_label: dict[str, dict[str, Estimate]]
    results: int
    groups: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """What one column rests on: a run, an ensemble, or all folds of a cross-validation.

    Attributes:
        results: calibrated, of studies or of pairs.
        cuts: for each label the threshold of every result, (n,); empty for multiclass. The folds of a
            cross-validation have each their own.
    """

    results: list[Prediction]
    cuts: tuple[Float64[np.ndarray, " n"], ...]

    @classmethod
    def of(cls, results: Sequence[Prediction], thresholds: Sequence[float]) -> "Column":
        """Results that are all decided by the same thresholds, one per label."""
        return cls(list(results), tuple(np.full(len(results), float(cut)) for cut in thresholds))

    @classmethod
    def joined(cls, columns: Sequence["Column"]) -> "Column":
        """The results of several columns behind each other."""
        cuts = tuple(np.concatenate(each) for each in zip(*(column.cuts for column in columns), strict=True))
        return cls([result for column in columns for result in column.results], cuts)

    def where(self, keep: Sequence[bool]) -> "Column":
        """A part of the results."""
        chosen = np.asarray(keep, bool)
        results = [result for result, kept in zip(self.results, chosen, strict=True) if kept]
        return Column(results, tuple(cut[chosen] for cut in self.cuts))

    def table(self, classes: Classes) -> MetricTable:
        """All metrics with intervals over patients."""
        return metric_table(self.results, classes, self.cuts or None)


def metrics(classes: Classes) -> dict[str, str]:
    """Names of the metrics in table order, and which direction is better."""
    without = {
        "binary": {"auroc_micro", "auprc_micro"},
        "multiclass": {"auroc_micro", "auprc_micro", "sensitivity"},
        "multilabel": set(),
    }[classes.kind]
    if not classes.pauc_above:
        without = without | {"pauc"}
    if not classes.top:
        without = without | {"retrieval"}
    return {name: better for name, better in BETTER.items() if name not in without}


def statistic(scores: Predictions, classes: Classes, thresholds: Sequence[ArrayLike] | None = None) -> Statistic:
    """All metrics of the results as a function of weights, for `scanfuse.stats.bootstrap`.

    The names are those of `metrics`; with several labels also "<label>/<metric>".

    Args:
        scores: the results.
        classes: what is predicted.
        thresholds: one per label (binary: one); 0.5 if None. Not used for multiclass. A threshold is a number, or an
            array (n,) where results have their own, such as those of several folds.
    """
    y, known, p = scores.target, scores.mask, scores.probabilities
    rows = known[:, 0]
    groups = [group for group, there in zip(scores.groups, rows, strict=True) if there]

    def of_weights(weights: Weights) -> dict[str, Float64[np.ndarray, " r"]]:
        if classes.kind == "binary":
            cut = np.broadcast_to(thresholds[0] if thresholds else 0.5, len(y))
            return binary(
                y[rows, 0],
                p[rows, 0],
                cut[rows],
                weights[:, rows],
                pauc_above=classes.pauc_above,
                groups=groups,
                top=classes.top,
            )
        if classes.kind == "multiclass":
            return multiclass(y[rows, 0].astype(int), p[rows], weights[:, rows])
        averages, each = multilabel(y, known, p, thresholds, weights)
        named = [(label, values) for label, values in zip(classes.labels, each, strict=True)]
        return averages | {f"{label}/{name}": value for label, values in named for name, value in values.items()}

    return of_weights


def metric_table(
    results: Sequence[Prediction],
    classes: Classes,
    thresholds: Sequence[ArrayLike] | None = None,
    *,
    level: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> MetricTable:
    """All metrics of results (of pairs or of studies) with intervals by resampling patients.

    Args:
        results: what `predictions_of`, `by_study` or `OperatingPoint.apply` gave.
        classes: what is predicted.
        thresholds: see `statistic`; take those of the run's `OperatingPoint`, never ones chosen on these results.
        level, repeats, seed: see `cluster_intervals`.

    Raises:
        ValueError: no results.
    """
    scores = Predictions.of(results)
    shifted = {"ece", *(f"{label}/ece" for label in classes.labels)}
    found = cluster_intervals(statistic(scores, classes, thresholds), scores.groups, level, repeats, seed, shifted)
    per_label: dict[str, dict[str, Estimate]] = {}
    if classes.kind == "multilabel":
        per_label = {
            label: {name: found[f"{label}/{name}"] for name in BETTER if f"{label}/{name}" in found}
            for label in classes.labels
        }
    groups = len(set(scores.groups))
    return MetricTable(
        {name: found[name] for name in metrics(classes)}, per_label, len(results), groups, _notes(scores, classes)
    )


def _notes(scores: Predictions, classes: Classes) -> tuple[str, ...]:
    notes = []
    groups = len(set(scores.groups))
    if groups < 2:
        notes.append("one patient only: there are no intervals, and the values say nothing about others")
    elif groups < 20:
        notes.append(f"only {groups} patient(s): the intervals are too narrow and say little about others")
    if classes.top:
        most = max(Counter(scores.groups).values())
        notes.append(
            f"retrieval: share of positives among the {classes.top} highest scores of their patient"
            + ("" if most > classes.top else f"; none has more than {most}, so it is 1 whatever the scores are")
        )
    unknown = int((~scores.mask).sum())
    if unknown:
        notes.append(f"{unknown} of {scores.mask.size} targets are not known and were left out")
    if classes.kind == "multiclass":
        counts = np.bincount(scores.target[scores.mask[:, 0], 0].astype(int), minlength=classes.num_outputs)
        undefined = [label for label, count in zip(classes.labels, counts, strict=True) if count in (0, counts.sum())]
    else:
        undefined = [
            label
            for label, y, known in zip(classes.labels, scores.target.T, scores.mask.T, strict=True)
            if np.unique(y[known]).size < 2
        ]
    if undefined:
        names = ", ".join(undefined)
        notes.append(f"without both outcomes, so without AUROC and with an AUPRC that says nothing: {names}")
    return tuple(notes)
