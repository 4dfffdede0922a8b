"""Classification: what a classifying system is composed with.

    outputs --loss--> training       outputs --results--> raw, per sample --fit--> temperature and thresholds, stored
                                                               |
                                                               +--finished--> calibrated, one per study

The classes come from the data: `ClassSettings.filled` writes kind and labels of a manifest into the configuration, so
that the record in the run folder is complete and a run predicts without its training data.

See `classes` (kinds, labels), `prediction` (results), `loss`, `operating_point` (calibration and thresholds),
`column` (metrics), `table`, `subgroups`, `compare`, `explain`, `figures`, `writing`.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from scanfuse.config import Section
from scanfuse.data.batches import balanced_order, epoch_order, ratio_order, sampling_weights
from scanfuse.data.inputs import Samples
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.explain.explanation import Explanation
from scanfuse.explain.gradcam import Method as MapMethod
from scanfuse.metrics.classification import binary, multiclass, multilabel
from scanfuse.tables import Comparisons, Evaluation
from scanfuse.tasks import Asked, Criterion, Failure, Forward, Instrument, Method, Plot, Settled, Words
from scanfuse.tasks.classify import writing
from scanfuse.tasks.classify.classes import ClassSettings, classes_of, parse_targets
from scanfuse.tasks.classify.column import Column
from scanfuse.tasks.classify.compare import comparisons
from scanfuse.tasks.classify.explain import Outcome, examples, explained, outcome_of
from scanfuse.tasks.classify.loss import ClassificationLoss, check_loss, class_weights, classification_loss
from scanfuse.tasks.classify.operating_point import (
    OperatingPoint,
    OperatingPointSettings,
    fit_operating_point,
    settled,
    undecided,
)
from scanfuse.tasks.classify.prediction import Prediction, Predictions, by_study, flip_average, predictions_of
from scanfuse.tasks.classify.table import Decided, conditions, evaluate_folds, evaluate_together

__all__ = ["Classification", "SamplingSettings"]

_log = logging.getLogger(__name__)


class SamplingSettings(Section):
    """How training samples are drawn."""

    sampling: bool = Field(
        False, description="draw classes equally often", json_schema_extra={"flag": "balanced-sampling"}
    )
    negatives: int = Field(
        0,
        ge=0,
        description="negatives for each positive in an epoch, drawn anew every time (binary); 0 = all",
        json_schema_extra={"flag": "negatives-per-positive"},
    )

    @model_validator(mode="after")
    def _one_rule_draws(self) -> "SamplingSettings":
        if self.sampling and self.negatives:
            raise ValueError("balanced sampling and a ratio of negatives exclude each other: choose one")
        return self


class Classification:
    """The classification of one run: the task `scanfuse.tasks.Task`, which can be joined and explained.

    Attributes:
        classes: what is predicted.
        point: temperature and thresholds; those of `undecided` until `fit` or `restore`.
        any_inputs: results are of this kind whatever they were made of, so runs of other systems and inputs compare.
    """

    words = Words("studies", "patients")
    any_inputs = "classification"
    shows_missing = shows_perturbed = True
    headline = ("auroc", "sensitivity", "specificity", "ece", "balanced_accuracy")

    def __init__(
        self,
        settings: ClassSettings,
        *,
        loss: ClassificationLoss,
        operating_point: OperatingPointSettings,
        sampling: SamplingSettings,
    ) -> None:
        self.classes = classes_of(settings)
        self.settings, self.loss_settings, self.point_settings = settings, loss, operating_point
        self.sampling_settings = sampling
        check_loss(loss, self.classes)
        self.weights: Tensor | None = None
        self.positive: np.ndarray | None = None  # which training samples are positive, where a ratio is asked for
        self.drawing: np.ndarray | None = None  # how likely each training sample is drawn; None: once per epoch
        self.point: OperatingPoint = undecided(self.classes)

    @classmethod
    def of(cls, config: Any) -> "Classification":
        """That of a configuration with the sections task, loss, decision and sampling."""
        return cls(config.task, loss=config.loss, operating_point=config.decision, sampling=config.sampling)

    def require_outputs(self, number: int, usual: Collection[int] = ()) -> None:
        """Refuses a network with another number of outputs than the task has (or than is usual for it).

        Raises:
            UserError: it is none of these.
        """
        if number not in (usual or (self.classes.num_outputs,)):
            raise UserError(
                f"The network has {number} outputs, but the task ({self.classes.kind}) has "
                f"{self.classes.num_outputs}: leave --num-outputs and --labels to the data."
            )

    @property
    def targets(self) -> Labels:
        """How a manifest writes the targets."""
        return self.classes.targets

    def begin(self, training: Samples, validation: Samples) -> None:
        """Class weights and chances of being drawn from the training samples, if the settings ask for them.

        Raises:
            UserError: no known target in one of them: nothing could be learned or chosen.
        """
        values, known = self._known(training.targets, "training")
        self._known(validation.targets, "validation")
        if self.loss_settings.weighting == "balanced":
            self.weights = class_weights(values, known, self.classes, self.loss_settings.max_weight)
        if self.sampling_settings.sampling:
            self.drawing = sampling_weights(values, known)
        if self.sampling_settings.negatives:
            self.positive = (values[:, 0] == 1) & known[:, 0]
            if self.classes.kind != "binary" or not self.positive.any():
                raise UserError("--negatives-per-positive needs a binary task with positives in the training part.")
            ratio, positives = self.sampling_settings.negatives, int(self.positive.sum())
            others = min(ratio * positives, int((~self.positive).sum()))
            few = "" if others == ratio * positives else "; there are no more"
            _log.info("An epoch has %d positives and %d others (1 : %d%s).", positives, others, ratio, few)

    def order(self, count: int, *, batch: int, seed: int, epoch: int) -> list[list[int]]:
        """Every sample once, or drawn by class or ratio; a last batch of one joins the one before it.

        Batch norms have nothing to go by in a last batch of one sample, and fail where its map is one place.
        """
        if self.positive is not None:
            order = ratio_order(self.positive, self.sampling_settings.negatives, batch, seed, epoch)
        elif self.drawing is not None:
            order = balanced_order(self.drawing, batch, seed, epoch)
        else:
            order = epoch_order(count, batch, seed, epoch)
        if len(order) > 1 and len(order[-1]) == 1 < batch:
            order[-2:] = [order[-2] + order[-1]]
        return order

    def loss(self, outputs: Float[Tensor, "b n"], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The loss of a batch with `target` and `mask`."""
        weights = None if self.weights is None else self.weights.to(outputs.device)
        return classification_loss(outputs, batch["target"], batch["mask"], self.classes, self.loss_settings, weights)

    def validation(self, scored: Iterable[tuple[Tensor, dict[str, Any]]]) -> dict[str, float]:
        """Loss of the samples; auroc and auprc per study, without a threshold; nan where a logit is not finite.

        The loss is over all samples at once: the mean of batches would weigh known targets by how many others are
        unknown in their batch.
        """
        results = [result for outputs, batch in scored for result in predictions_of(outputs, batch, self.classes)]
        each = Predictions.of(results)
        if not np.isfinite(each.logits).all():
            return dict.fromkeys(("loss", "auroc", "auprc"), float("nan"))
        known_targets = {"target": torch.from_numpy(each.target), "mask": torch.from_numpy(each.mask)}
        loss = self.loss(torch.from_numpy(each.logits), known_targets)["loss"]
        scores = Predictions.of(by_study(results, self.classes))
        known = scores.mask[:, 0]
        if self.classes.kind == "binary":
            above = self.classes.pauc_above
            values = binary(scores.target[known, 0], scores.probabilities[known, 0], pauc_above=above)
        elif self.classes.kind == "multiclass":
            values = multiclass(scores.target[known, 0].astype(int), scores.probabilities[known])
        else:
            values, _ = multilabel(scores.target, scores.mask, scores.probabilities)
        shown = [name for name in ("auroc", "auprc", "pauc") if name in values]
        return {"loss": float(loss)} | {name: float(values[name][0]) for name in shown}

    def criterion(self, row: Mapping[str, float]) -> Criterion:
        """By the area that the settings ask for, if it is defined, else by the loss."""
        wanted = self.settings.select_by
        area = row.get(f"val_{wanted}", float("nan"))
        if wanted != "loss" and np.isfinite(area):
            # Ties of areas are common with few studies; among equals the smaller loss is the better epoch.
            return Criterion(-area + 1e-6 * min(row["val_loss"], 100.0), wanted)
        instead = wanted != "loss" and np.isfinite(row["val_loss"])
        note = "The validation studies show one outcome only: the best epoch is picked by their loss."
        return Criterion(row["val_loss"], "loss", note if instead else "")

    def results(self, forward: Forward, batch: dict[str, Any]) -> list[Prediction]:
        """Raw results, one per sample, with test-time flips or turns if the settings ask for them."""
        turns = self.point_settings.test_time_turns
        if not (self.point_settings.test_time_flips or turns):
            return predictions_of(forward(batch), batch, self.classes)
        return predictions_of(flip_average(forward, batch, self.classes, turns=turns), batch, self.classes)

    def fit(self, results: Iterable[Prediction]) -> str:
        """Fits temperature and thresholds on the validation studies and keeps them."""
        self.point = fit_operating_point(by_study(list(results), self.classes), self.classes, self.point_settings)
        cuts = ", ".join(f"{cut:.3f}" for cut in self.point.thresholds[:4])
        return (
            f"Decided on {self.point.validation['studies']} validation studies: "
            f"temperature {self.point.temperature:.3f}"
            + (f", threshold {cuts}{', ...' if len(self.point.thresholds) > 4 else ''}" if cuts else "")
            + "".join(f"; {note}" for note in self.point.notes)
        )

    def fitted(self) -> dict[str, Any]:
        """The operating point."""
        return self.point.as_dict()

    def restore(self, fitted: Mapping[str, Any] | None) -> None:
        """Takes the operating point that a run has stored; without one, that of `undecided` stays, and this is said.

        Raises:
            UserError: it is damaged or of other classes.
        """
        if fitted is None:
            _log.warning("The run has no operating point: nothing was fitted on validation, thresholds are 0.5.")
            return
        point = OperatingPoint.from_dict(dict(fitted))
        if (point.kind, point.labels) != (self.classes.kind, self.classes.labels):
            raise UserError(
                "The operating point of the run is of another task than config.yaml: restore the original "
                "decision.json, or train again."
            )
        self.point = point

    def finished(self, results: Sequence[Prediction]) -> list[Prediction]:
        """Calibrated results, one per study."""
        return writing.decided(results, self.point, self.classes)

    def evaluate(self, methods: Mapping[str, Method], samples: Manifest, asked: Asked) -> Evaluation:
        """Metrics of all results together, per study, per pair, per label and by subgroup."""
        if asked.split == "val":
            note = "epoch, temperature and threshold were chosen on these samples: the values are too good"
            samples = _noted(samples, note)
        runs = self._decided(methods)
        found = evaluate_together(runs, self.classes, samples, asked.split, joined=asked.ensemble, by=asked.by)
        if not asked.ensemble:
            first = next(iter(runs.values()))
            found.examples = examples(first.studies, samples, first.point, self.classes, asked.pictures)
        for name, method in methods.items():
            where = f" ({name})" if len(methods) > 1 else ""
            spoilt = {"with an input missing": {f"without {key}": each for key, each in method.without.items()},
                      "perturbed": dict(method.perturbed)}  # fmt: skip
            for title, each in spoilt.items():
                if each:
                    others = {key: self._decided_one(other, runs[name].point) for key, other in each.items()}
                    found.parts[title + where] = conditions(runs[name], others, self.classes, asked.split)
        return found

    def evaluate_folds(
        self, methods: Mapping[str, Method], parts: Mapping[str, Manifest], asked: Asked
    ) -> Evaluation:
        """One column, "out of fold", and a table of the folds."""
        if asked.ensemble:
            raise UserError(
                f"Each of these runs holds out another {asked.split} part, which the others were trained on: the "
                "ensemble would be scored on its own training. Without --ensemble each sample is scored by its own "
                "fold."
            )
        return evaluate_folds(self._decided(methods), self.classes, parts, asked.split, by=asked.by)

    def compare(self, methods: Mapping[str, Method], samples: Manifest, asked: Asked) -> Comparisons:
        """Paired bootstrap over patients for every metric, DeLong's test for the AUROC, Holm's correction."""
        runs = self._decided(methods)
        columns = {name: Column.of(run.studies, run.point.thresholds) for name, run in runs.items()}
        found = comparisons(columns, self.classes, asked.split, _with_validation(samples.notes, asked.split))
        found.notes.extend(f"{name}: {note}" for name, run in runs.items() for note in run.point.notes)
        return found

    def compare_folds(self, runs: Mapping[str, Mapping[str, Method]], samples: Manifest, asked: Asked) -> Comparisons:
        """As `compare`, of cross-validations: every study decided by the fold that held it out."""
        columns, further = {}, []
        for name, folds in runs.items():
            found = self._decided(folds)
            columns[name] = Column.joined([Column.of(fold.studies, fold.point.thresholds) for fold in found.values()])
            further += [f"{name}, {fold}: {note}" for fold, each in found.items() for note in each.point.notes]
        notes = [*_with_validation(samples.notes, asked.split), "each sample was scored by the fold that held it out"]
        compared = comparisons(columns, self.classes, asked.split, notes)
        compared.notes.extend(further)
        return compared

    def describe(self, result: Prediction) -> str:
        """A calibrated result in one line."""
        return writing.describe(result, self.point, self.classes)

    def save(self, result: Prediction, folder: Path) -> list[Path]:
        """Writes a calibrated result as `<id>.json`."""
        return writing.save(result, self.point, self.classes, folder)

    def write(self, found: Iterable[Prediction | Failure], folder: Path) -> list[Path]:
        """Writes predictions.csv, one row per study."""
        raw, failures = writing.sorted_out(found)
        path = folder / "predictions.csv"
        writing.write_table(path, self.point, self.finished(raw), failures)
        return [path]

    def submission(self, predictions: Path, columns: tuple[str, str], file: Path) -> None:
        """Writes a challenge's file, id and probability, from a predictions.csv of `write`.

        Raises:
            UserError: several labels, or samples that failed: a challenge wants a number for each.
        """
        if self.classes.kind != "binary":
            raise UserError(f"A submission has one score per case, but the run is {self.classes.kind}.")
        writing.write_submission(predictions, f"p_{self.classes.labels[0]}", columns, file)

    def joined(self, tasks: Mapping[str, Any]) -> writing.JoinedClassification:
        """Several classifications as one; see `JoinedClassification`."""
        points = {name: task.point for name, task in tasks.items()}
        return writing.JoinedClassification(points, {name: task.classes for name, task in tasks.items()})

    def subject(self, results: Sequence[Prediction], label: str | None = None) -> Outcome:
        """What a study is called, or the label that is asked for; see `outcome_of`."""
        return outcome_of(self.finished(results)[0], self.point, self.classes, label)

    def explain(
        self, through: Instrument, batch: dict[str, Any], subject: Outcome, *, method: MapMethod
    ) -> Explanation:
        """Heat maps and ablation of one pair of views; see `explained`."""

        def results_of(part: dict[str, Any]) -> list[Prediction]:
            with torch.no_grad():
                return self.point.apply(self.results(through.forward, part))

        return explained(through, batch, subject, results_of, self.classes, method=method)

    def about(self, results: Sequence[Prediction], subject: Outcome) -> dict[str, Any]:
        """The probability of the study as a whole."""
        return {"probability_of_study": subject.probability(self.finished(results)[0])}

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What is predicted."""
        task = config.get("task", {})
        return [("Predicts", f"{task['kind']}: {', '.join(task['labels'])}")] if task.get("labels") else []

    @staticmethod
    def counts(split: pd.DataFrame, names: Sequence[str], config: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
        """Outcomes by split."""
        from scanfuse.tasks.classify import figures  # matplotlib is heavy, and only reports need it

        return figures.outcome_counts(split, names, list(config.get("task", {}).get("labels", [])))

    @staticmethod
    def settled(fitted: Mapping[str, Any]) -> Settled:
        """Temperature, calibration before and after, and the thresholds with what they reach."""
        return settled(OperatingPoint.from_dict(dict(fitted)))

    @staticmethod
    def figures(folder: Path, content: Mapping[str, Any], fitted: Mapping[str, Any] | None) -> list[Plot]:
        """ROC, precision and recall, reliability, confusion."""
        from scanfuse.tasks.classify import figures

        return figures.of_evaluation(folder, content, fitted)

    def _known(self, texts: Sequence[str], name: str) -> tuple[np.ndarray, np.ndarray]:
        targets, known = parse_targets(texts, self.classes)
        if not known.any():
            raise UserError(f"No {name} study has a known target: check the column with the targets, or the split.")
        return targets, known

    def _decided(self, methods: Mapping[str, Method]) -> dict[str, Decided]:
        """Every run's results by its own operating point.

        Raises:
            UserError: runs that predict other labels.
        """
        first = next(iter(methods))
        tasks: dict[str, Any] = {name: method.task for name, method in methods.items()}
        for name, task in tasks.items():
            if task.classes != self.classes:
                raise UserError(f"{name} predicts other labels than {first}: use them one by one.")
        return {name: self._decided_one(method, tasks[name].point) for name, method in methods.items()}

    def _decided_one(self, method: Method, point: OperatingPoint) -> Decided:
        return Decided.of(method.raw, point, self.classes)


def _noted(samples: Manifest, note: str) -> Manifest:
    return Manifest(samples.table, samples.modalities, (*samples.notes, note), samples.subgroups)


def _with_validation(notes: Sequence[str], split: str) -> list[str]:
    """The notes, and what validation samples say too well."""
    said = ["epoch, temperature and threshold were chosen on these samples: the values are too good"]
    return [*notes, *(said if split == "val" else [])]
