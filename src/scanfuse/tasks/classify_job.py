"""What a classifying system is composed with: the task of its run, the loss, and what was decided on validation.

    logits --loss--> training            logits --results--> raw, per sample --decide--> temperature and thresholds
                                                                    |                      (validation, stored)
                                                                    +--decided--> calibrated, per study

The task comes from the data: `fill` writes kind and labels of a manifest into the configuration, so that the record
in the run folder is complete and a run predicts without its training data.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from scanfuse.config import Section
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.files import file_name, write_text
from scanfuse.metrics.classification import binary, multiclass, multilabel
from scanfuse.tasks.classify import Kind, Scored, Scores, Task, by_study, parse_targets, scored
from scanfuse.tasks.classify_decision import Decision, DecisionConfig, fit_decision, undecided
from scanfuse.tasks.classify_loss import ClassificationLoss, check_loss, class_weights, classification_loss

__all__ = ["DECISION_FILE", "Job", "TaskConfig", "task_of", "write_decided"]

DECISION_FILE = "decision.json"

_log = logging.getLogger(__name__)


class TaskConfig(Section):
    """What is predicted; filled from the targets of the data where it is left open."""

    kind: Literal["auto", "binary", "multiclass", "multilabel"] = Field(
        "auto", description="auto: as the targets say"
    )
    labels: tuple[str, ...] = Field(
        (), description="classes or findings in the order of the outputs; none: all found"
    )
    positive: str = Field("positive", description="name of the class 1 of a binary task")
    select_by: Literal["auroc", "loss"] = Field("auroc", description="which validation value picks the best epoch")

    def filled(self, manifest: Manifest) -> "TaskConfig":
        """With the kind and the labels of the data.

        Raises:
            UserError: the data have other targets than the settings ask for.
        """
        found = Labels.of(list(manifest.table["target"]))
        if self.kind not in ("auto", found.kind):
            raise UserError(f"The targets of the data are {found.kind}, but --kind asks for {self.kind}.")
        names = (self.positive,) if found.kind == "binary" else found.names
        if self.labels and self.labels != names:
            raise UserError(
                f"The targets of the data name {', '.join(names)}, but --labels asks for {', '.join(self.labels)}."
            )
        return self.model_copy(update={"kind": found.kind, "labels": names})


def task_of(settings: TaskConfig) -> Task:
    """The task of filled settings; unfilled ones are binary, so that a system can be built without data."""
    kind: Kind = "binary" if settings.kind == "auto" else settings.kind
    labels = settings.labels or ((settings.positive,) if kind == "binary" else ())
    if not labels:
        raise UserError(f"A {kind} task needs --labels, or data whose targets name them.")
    return Task(kind, labels)


class Job:
    """The classification of one run.

    Attributes:
        task: what is predicted.
        decision: temperature and thresholds; those of `undecided` until `decide` or `restore`.
    """

    def __init__(self, settings: TaskConfig, loss: ClassificationLoss, decision: DecisionConfig) -> None:
        self.task = task_of(settings)
        self.settings, self.loss_settings, self.decision_settings = settings, loss, decision
        check_loss(loss, self.task)
        self.weights: Tensor | None = None
        self.decision: Decision = undecided(self.task)

    def weigh(self, targets: Sequence[str]) -> None:
        """Takes the class weights from the targets of the training samples, if the loss asks for weights."""
        if self.loss_settings.weighting == "balanced":
            values, known = parse_targets(targets, self.task)
            self.weights = class_weights(values, known, self.task, self.loss_settings.max_weight)

    def loss(self, logits: Float[Tensor, "b n"], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The loss of a batch with `target` and `mask`."""
        weights = None if self.weights is None else self.weights.to(logits.device)
        return classification_loss(logits, batch["target"], batch["mask"], self.task, self.loss_settings, weights)

    def results(self, logits: Float[Tensor, "b n"], batch: Mapping[str, Any]) -> list[Scored]:
        """Raw results, one per sample of the batch."""
        return scored(logits, batch["meta"], self.task)

    def validation(self, results: Sequence[Scored]) -> dict[str, float]:
        """Values for the history of a training: loss of the samples; auroc and auprc per study, without a threshold.

        The loss is over all samples at once: the mean of batches would weigh known targets by how many others are
        unknown in their batch.
        """
        each = Scores.of(results)
        known_targets = {"target": torch.from_numpy(each.target), "mask": torch.from_numpy(each.mask)}
        loss = self.loss(torch.from_numpy(each.logits), known_targets)["loss"]
        scores = Scores.of(by_study(results, self.task))
        known = scores.mask[:, 0]
        if self.task.kind == "binary":
            values = binary(scores.target[known, 0], scores.probabilities[known, 0])
        elif self.task.kind == "multiclass":
            values = multiclass(scores.target[known, 0].astype(int), scores.probabilities[known])
        else:
            values, _ = multilabel(scores.target, scores.mask, scores.probabilities)
        return {"loss": float(loss)} | {name: float(values[name][0]) for name in ("auroc", "auprc")}

    def criterion(self, row: Mapping[str, float]) -> float:
        """The number that the best epoch makes smallest; the loss where the AUROC is not defined."""
        if self.selected_by(row) == "loss":
            return row["val_loss"]
        # AUROC ties are common with few studies; among equals the smaller loss is the better epoch.
        return -row["val_auroc"] + 1e-6 * min(row["val_loss"], 100.0)

    def selected_by(self, row: Mapping[str, float]) -> Literal["auroc", "loss"]:
        """Which value of a row of the history `criterion` looks at: as the settings say, if it is defined."""
        return self.settings.select_by if np.isfinite(row.get("val_auroc", float("nan"))) else "loss"

    def decide(self, results: Sequence[Scored]) -> Decision:
        """Fits temperature and thresholds on the validation samples and keeps them."""
        self.decision = fit_decision(by_study(results, self.task), self.task, self.decision_settings)
        return self.decision

    def decided(self, results: Sequence[Scored]) -> list[Scored]:
        """Calibrated results, one per study."""
        return self.decision.apply(by_study(results, self.task))

    def restore(self, folder: Path) -> None:
        """Takes the decision that a run has stored; without one, that of `undecided` stays.

        Raises:
            UserError: the file is damaged or of another task.
        """
        path = folder / DECISION_FILE
        if not path.is_file():
            _log.warning("%s is missing: nothing was fitted on validation, thresholds are 0.5.", path)
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        decision = Decision.from_dict(content)
        if (decision.kind, decision.labels) != (self.task.kind, self.task.labels):
            raise UserError(f"{path} is of another task than config.yaml: restore the original file, or train again.")
        self.decision = decision

    def describe(self, result: Scored) -> str:
        """A calibrated result in one line: every label with its probability, those it is called by in front."""
        called = self.decision.called(result)
        parts = [f"{label} {p:.3f}" for label, p in zip(self.task.labels, result.probabilities, strict=True)]
        if self.task.kind == "binary":
            verdict = called[0] if called else f"not {self.task.labels[0]}"
            return f"{verdict} ({parts[0]}, threshold {self.decision.thresholds[0]:.3f})"
        return f"{', '.join(called) or 'nothing'} ({', '.join(parts)})"

    def save(self, result: Scored, folder: Path) -> list[Path]:
        """Writes a calibrated result as `<id>.json`."""
        path = folder / f"{file_name(result.id)}.json"
        content = {
            "id": result.id,
            "study": result.study,
            "group": result.group,
            "called": list(self.decision.called(result)),
            "probabilities": {
                label: float(p) for label, p in zip(self.task.labels, result.probabilities, strict=True)
            },
            "thresholds": dict(zip(self.task.labels, self.decision.thresholds, strict=False)),
            "temperature": self.decision.temperature,
        }
        write_text(path, json.dumps(content, indent=2) + "\n")
        return [path]


def write_decided(
    path: Path, decision: Decision, studies: Sequence[Scored], further: Mapping[str, Sequence[float]] | None = None
) -> None:
    """One row per study: id, group, what it is called (" + " between labels), and calibrated probabilities.

    Args:
        path: the CSV file to write.
        decision: of the run or the ensemble.
        studies: calibrated.
        further: columns of numbers behind these, one value per study.
    """
    rows = []
    for number, result in enumerate(studies):
        called = " + ".join(decision.called(result)) or f"not {' or '.join(decision.labels)}"
        row = {"id": result.id, "group": result.group, "called": called}
        row |= {f"p_{label}": f"{p:.6f}" for label, p in zip(decision.labels, result.probabilities, strict=True)}
        rows.append(row | {name: f"{values[number]:.6f}" for name, values in (further or {}).items()})
    write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
