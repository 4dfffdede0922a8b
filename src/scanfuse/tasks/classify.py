"""What classification systems share: what is predicted, results, studies, ensembles, and the table of metrics.

    logits (batch, c) --scored--> [Scored per pair] --by_study--> [Scored per study] --Decision.apply--> calibrated
                                                                        |
                                                                   metric_table, compare

Three kinds, one form. Targets are (k,) and logits (c,) per sample:

    kind        c                     k    target                 probability
    binary      1                     1    0 or 1                 sigmoid
    multiclass  number of classes     1    class number           softmax
    multilabel  number of labels      c    0 or 1 for each        sigmoid of each

`mask` is False where a target is not known; such entries take part in no loss and no metric. A network with two
outputs for a binary question is brought to the one logit z1 - z0, which has the same probabilities and the same loss.

See also `classify_loss` (losses and weights), `classify_decision` (calibration and thresholds), `classify_folds`
(cross-validation, balanced sampling) and `classify_compare` (two runs against each other).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64
from numpy.typing import ArrayLike
from torch import Tensor

from scanfuse.data.labels import Labels, join_findings
from scanfuse.data.manifest import read_csv
from scanfuse.errors import UserError
from scanfuse.files import write_text
from scanfuse.metrics.classification import BETTER, binary, multiclass, multilabel
from scanfuse.stats.calibration import Kind, logits_of, probabilities_of
from scanfuse.stats.cluster_bootstrap import Estimate, Statistic, Weights, cluster_intervals

__all__ = [
    "Kind",
    "MetricTable",
    "Scored",
    "Scores",
    "Task",
    "by_study",
    "ensemble",
    "flip_average",
    "metric_table",
    "metrics",
    "one_logit",
    "parse_target",
    "parse_targets",
    "read_predictions",
    "scored",
    "statistic",
    "write_predictions",
]


@dataclass(frozen=True)
class Task:
    """What is predicted.

    Attributes:
        kind: binary, multiclass or multilabel.
        labels: one name per output. binary: that of the positive class; multiclass: the classes by number;
            multilabel: the findings.
    """

    kind: Kind
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        least = {"binary": 1, "multiclass": 2, "multilabel": 1}[self.kind]
        if len(self.labels) < least or (self.kind == "binary" and len(self.labels) > 1):
            raise UserError(f"A {self.kind} task cannot have {len(self.labels)} label(s): {', '.join(self.labels)}.")
        if len(set(self.labels)) < len(self.labels):
            raise UserError(f"A label occurs twice among {', '.join(self.labels)}; give each its own name.")

    @classmethod
    def of(cls, labels: Labels, positive: str = "positive") -> "Task":
        """The task behind the targets of a manifest; `positive` names the class 1 of a binary one."""
        return cls(labels.kind, (positive,) if labels.kind == "binary" else labels.names)

    @property
    def targets(self) -> Labels:
        """How a manifest writes the targets."""
        return Labels(self.kind, ("0", "1") if self.kind == "binary" else self.labels)

    @property
    def num_outputs(self) -> int:
        """c, logits per sample."""
        return len(self.labels)

    @property
    def num_targets(self) -> int:
        """k, target values per sample."""
        return len(self.labels) if self.kind == "multilabel" else 1


@dataclass(frozen=True)
class Scored:
    """One result: a pair of views, or a study.

    Attributes:
        id: of the sample; that of the study once samples are gathered into studies.
        group: the patient.
        study: the study that the sample belongs to.
        logits: (c,) float64.
        probabilities: (c,) float64.
        target: (k,) float64; 0 where not known.
        mask: (k,) bool, True where the target is known.
    """

    id: str
    group: str
    study: str
    logits: Float64[np.ndarray, " c"]
    probabilities: Float64[np.ndarray, " c"]
    target: Float64[np.ndarray, " k"]
    mask: Bool[np.ndarray, " k"]


@dataclass(frozen=True)
class Scores:
    """Results as arrays, one row a result."""

    ids: list[str]
    groups: list[str]
    logits: Float64[np.ndarray, "n c"]
    probabilities: Float64[np.ndarray, "n c"]
    target: Float64[np.ndarray, "n k"]
    mask: Bool[np.ndarray, "n k"]

    @classmethod
    def of(cls, results: Sequence[Scored]) -> "Scores":
        """Stacks results; ValueError if there are none."""
        if not results:
            raise ValueError("there are no results")
        return cls(
            [result.id for result in results],
            [result.group for result in results],
            np.stack([result.logits for result in results]),
            np.stack([result.probabilities for result in results]),
            np.stack([result.target for result in results]),
            np.stack([result.mask for result in results]),
        )


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


def parse_target(text: str, task: Task) -> tuple[Float64[np.ndarray, " k"], Bool[np.ndarray, " k"]]:
    """Values and mask of a manifest's target, written as `scanfuse.data.labels` says ("" = not known).

    Raises:
        UserError: a value that the task does not have.
    """
    value, known = task.targets.encode(text)
    return np.atleast_1d(value).astype(np.float64), np.atleast_1d(known).astype(bool)


def parse_targets(texts: Sequence[str], task: Task) -> tuple[Float64[np.ndarray, "n k"], Bool[np.ndarray, "n k"]]:
    """`parse_target` of every row."""
    parsed = [parse_target(text, task) for text in texts]
    if not parsed:
        return np.zeros((0, task.num_targets)), np.zeros((0, task.num_targets), bool)
    return np.stack([values for values, _ in parsed]), np.stack([mask for _, mask in parsed])


def one_logit(logits: Float[Tensor, "b c"], task: Task) -> Float[Tensor, "b c2"]:
    """Logits in the form of the module's table: two outputs of a binary network become z1 - z0, the rest stays.

    Raises:
        ValueError: another number of outputs than the task has.
    """
    if task.kind == "binary" and logits.shape[1] == 2:
        return logits[:, 1:] - logits[:, :1]
    if logits.shape[1] != task.num_outputs:
        raise ValueError(f"the network gives {logits.shape[1]} outputs, the task needs {task.num_outputs}")
    return logits


def scored(logits: Float[Tensor, "b c"], metas: Sequence[Mapping[str, Any]], task: Task) -> list[Scored]:
    """The results of a batch.

    Args:
        logits: the network's outputs, uncalibrated.
        metas: one per sample with "id", "group", "target" (text, see `parse_target`) and, where several
            samples make up a study, "study".
        task: what is predicted.
    """
    values = one_logit(logits, task).detach().double().cpu().numpy()
    probabilities = probabilities_of(values, task.kind)
    results = []
    for row, probability, meta in zip(values, probabilities, metas, strict=True):
        target, mask = parse_target(str(meta.get("target", "")), task)
        study = str(meta.get("study") or meta["id"])
        results.append(Scored(str(meta["id"]), str(meta["group"]), study, row, probability, target, mask))
    return results


def by_study(results: Sequence[Scored], task: Task) -> list[Scored]:
    """One result per study, in order of appearance: the mean of the probabilities of its samples.

    Scores of pairs would weigh a study of n views by n (n - 1) / 2.

    Raises:
        UserError: samples of one study that differ in group or target.
    """
    studies: dict[str, list[Scored]] = {}
    for result in results:
        studies.setdefault(result.study, []).append(result)
    gathered = []
    for study, members in studies.items():
        first = members[0]
        for other in members[1:]:
            same = np.array_equal(first.mask, other.mask) and np.array_equal(first.target, other.target)
            if other.group != first.group or not same:
                raise UserError(
                    f"{first.id} and {other.id} are of study {study!r} but differ in patient or target: mend them."
                )
        gathered.append(replace(_mean(members, task), id=study))
    return gathered


def ensemble(members: Sequence[Sequence[Scored]], task: Task) -> list[Scored]:
    """The mean probability of several runs (folds, seeds) for the same samples, in the order of the first run.

    Raises:
        ValueError: no run, or runs of different samples.
    """
    if not members:
        raise ValueError("an ensemble needs at least one run")
    tables = [{result.id: result for result in results} for results in members]
    if any(table.keys() != tables[0].keys() for table in tables):
        raise ValueError("the runs of an ensemble must score the same samples")
    return [_mean([table[result.id] for table in tables], task) for result in members[0]]


def flip_average(
    forward: Callable[[dict[str, Tensor]], Tensor], views: Mapping[str, Float[Tensor, "b c h w"]], task: Task
) -> Float[Tensor, "b c2"]:
    """Test-time augmentation: logits of the mean probability of the views as they are and all flipped left-right.

    Args:
        forward: views by name -> logits.
        views: as the network takes them.
    """
    both = [
        one_logit(forward(dict(part)), task).double()
        for part in (views, {name: view.flip(-1) for name, view in views.items()})
    ]
    if task.kind == "multiclass":
        return torch.stack([z.log_softmax(1) for z in both]).logsumexp(0) - np.log(2)
    # log p and log (1 - p) apart: their difference stays exact where p is close to 1.
    positive = torch.stack([torch.nn.functional.logsigmoid(z) for z in both]).logsumexp(0)
    negative = torch.stack([torch.nn.functional.logsigmoid(-z) for z in both]).logsumexp(0)
    return positive - negative


def metrics(task: Task) -> dict[str, str]:
    """Names of the metrics in table order, and which direction is better."""
    without = {
        "binary": {"auroc_micro", "auprc_micro"},
        "multiclass": {"auroc_micro", "auprc_micro", "sensitivity"},
        "multilabel": set(),
    }[task.kind]
    return {name: better for name, better in BETTER.items() if name not in without}


def statistic(scores: Scores, task: Task, thresholds: Sequence[ArrayLike] | None = None) -> Statistic:
    """All metrics of the results as a function of weights, for `scanfuse.stats.cluster_bootstrap`.

    The names are those of `metrics`; with several labels also "<label>/<metric>".

    Args:
        scores: the results.
        task: what is predicted.
        thresholds: one per label (binary: one); 0.5 if None. Not used for multiclass. A threshold is a number, or an
            array (n,) where results have their own, such as those of several folds.
    """
    y, known, p = scores.target, scores.mask, scores.probabilities
    rows = known[:, 0]

    def of_weights(weights: Weights) -> dict[str, Float64[np.ndarray, " r"]]:
        if task.kind == "binary":
            cut = np.broadcast_to(thresholds[0] if thresholds else 0.5, len(y))
            return binary(y[rows, 0], p[rows, 0], cut[rows], weights[:, rows])
        if task.kind == "multiclass":
            return multiclass(y[rows, 0].astype(int), p[rows], weights[:, rows])
        averages, each = multilabel(y, known, p, thresholds, weights)
        named = [(label, values) for label, values in zip(task.labels, each, strict=True)]
        return averages | {f"{label}/{name}": value for label, values in named for name, value in values.items()}

    return of_weights


def metric_table(
    results: Sequence[Scored],
    task: Task,
    thresholds: Sequence[ArrayLike] | None = None,
    *,
    level: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> MetricTable:
    """All metrics of results (of pairs or of studies) with intervals by resampling patients.

    Args:
        results: what `scored`, `by_study` or `Decision.apply` gave.
        task: what is predicted.
        thresholds: see `statistic`; take those of the run's `Decision`, never ones chosen on these results.
        level, repeats, seed: see `cluster_intervals`.

    Raises:
        ValueError: no results.
    """
    scores = Scores.of(results)
    shifted = {"ece", *(f"{label}/ece" for label in task.labels)}
    found = cluster_intervals(statistic(scores, task, thresholds), scores.groups, level, repeats, seed, shifted)
    per_label: dict[str, dict[str, Estimate]] = {}
    if task.kind == "multilabel":
        per_label = {
            label: {name: found[f"{label}/{name}"] for name in BETTER if f"{label}/{name}" in found}
            for label in task.labels
        }
    groups = len(set(scores.groups))
    return MetricTable(
        {name: found[name] for name in metrics(task)}, per_label, len(results), groups, _notes(scores, task)
    )


def write_predictions(path: str | Path, results: Sequence[Scored], task: Task) -> None:
    """Writes id, group, study, target and one probability per class or label as CSV, with 17 digits."""
    rows = []
    for result in results:
        target = _target_text(result, task)
        row = {"id": result.id, "group": result.group, "study": result.study, "target": target}
        rows.append(
            row | {f"p_{label}": repr(float(p)) for label, p in zip(task.labels, result.probabilities, strict=True)}
        )
    columns = ["id", "group", "study", "target", *(f"p_{label}" for label in task.labels)]
    write_text(path, pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n"))


def read_predictions(path: str | Path, task: Task) -> list[Scored]:
    """What `write_predictions` wrote.

    Raises:
        UserError: no such file, or it is not of this task.
    """
    _, table = read_csv(Path(path))
    wanted = ["id", "group", "study", "target", *(f"p_{label}" for label in task.labels)]
    if list(table.columns) != wanted:
        raise UserError(f"{path} has the columns {', '.join(table.columns)}; expected {', '.join(wanted)}.")
    try:
        probabilities = table[wanted[4:]].to_numpy().astype(np.float64)
    except ValueError as error:
        raise UserError(f"{path} holds a probability that is no number ({error}).") from None
    logits = logits_of(probabilities, task.kind)
    return [
        Scored(row["id"], row["group"], row["study"], z, p, *parse_target(row["target"], task))
        for row, z, p in zip(table.to_dict("records"), logits, probabilities, strict=True)
    ]


def _target_text(result: Scored, task: Task) -> str:
    """The inverse of `parse_target`."""
    if task.kind == "multilabel":
        values = [f"{value:g}" if known else "" for value, known in zip(result.target, result.mask, strict=True)]
        return join_findings(task.labels, values) if result.mask.any() else ""
    return task.targets.names[int(result.target[0])] if result.mask[0] else ""


def _mean(members: Sequence[Scored], task: Task) -> Scored:
    if len(members) == 1:
        return members[0]
    probabilities = np.mean([member.probabilities for member in members], axis=0)
    return replace(members[0], probabilities=probabilities, logits=logits_of(probabilities[None], task.kind)[0])


def _notes(scores: Scores, task: Task) -> tuple[str, ...]:
    notes = []
    groups = len(set(scores.groups))
    if groups < 2:
        notes.append("one patient only: there are no intervals, and the values say nothing about others")
    elif groups < 20:
        notes.append(f"only {groups} patient(s): the intervals are too narrow and say little about others")
    unknown = int((~scores.mask).sum())
    if unknown:
        notes.append(f"{unknown} of {scores.mask.size} targets are not known and were left out")
    if task.kind == "multiclass":
        counts = np.bincount(scores.target[scores.mask[:, 0], 0].astype(int), minlength=task.num_outputs)
        undefined = [label for label, count in zip(task.labels, counts, strict=True) if count in (0, counts.sum())]
    else:
        undefined = [
            label
            for label, y, known in zip(task.labels, scores.target.T, scores.mask.T, strict=True)
            if np.unique(y[known]).size < 2
        ]
    if undefined:
        names = ", ".join(undefined)
        notes.append(f"without both outcomes, so without AUROC and with an AUPRC that says nothing: {names}")
    return tuple(notes)
