"""From scores to decisions: the temperature and the thresholds of a run, fitted on its validation studies.

decision = fit_decision(by_study(validation results), task, settings)
run.save_json("decision.json", decision.as_dict())
...
decision = Decision.from_dict(content of decision.json)
results = decision.apply(by_study(test results))          # calibrated probabilities
table = metric_table(results, task, decision.thresholds)
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field

from scanfuse.config import Section
from scanfuse.errors import UserError
from scanfuse.files import without_nan
from scanfuse.stats.calibration import fit_temperature, probabilities_of
from scanfuse.stats.threshold import Rule, choose_threshold
from scanfuse.tasks.classify import Scored, Scores, Task

__all__ = ["Decision", "DecisionConfig", "combine", "fit_decision", "undecided"]


class DecisionConfig(Section):
    """How probabilities are calibrated and turned into decisions; all of it on validation samples."""

    calibrate: bool = Field(True, description="temperature scaling, fitted on validation")
    threshold_rule: Rule = Field("youden", description="how the threshold is chosen on validation")
    wanted_sensitivity: float = Field(0.9, gt=0, le=1, description="of --threshold-rule sensitivity")
    fixed_threshold: float = Field(0.5, ge=0, le=1, description="of --threshold-rule fixed")
    test_time_flips: bool = Field(False, description="average predictions over left-right flips")


@dataclass(frozen=True)
class Decision:
    """What a run decides by; plain values only, so that it can be stored as JSON.

    Attributes:
        kind, labels: the task.
        temperature: the logits of a study are divided by it.
        thresholds: one per label (binary: one; multiclass: none, the most probable class is taken), on calibrated
            probabilities.
        rule: how they were chosen.
        validation: what was seen there: studies, patients, nll_before, nll_after, ece_before, ece_after, and
            sensitivity and specificity per label. None stands for a value that is not defined.
        notes: what could not be fitted, and why.
    """

    kind: str
    labels: tuple[str, ...]
    temperature: float
    thresholds: tuple[float, ...]
    rule: str
    validation: dict[str, Any]
    notes: tuple[str, ...] = ()

    def apply(self, results: Sequence[Scored]) -> list[Scored]:
        """The results with calibrated logits and probabilities. Studies keep their order.

        Gather pairs into studies first: the temperature belongs to what it was fitted on.
        """
        return [
            replace(
                result,
                logits=result.logits / self.temperature,
                probabilities=probabilities_of(result.logits[None], self._task.kind, self.temperature)[0],
            )
            for result in results
        ]

    def called(self, result: Scored) -> tuple[str, ...]:
        """The labels that a calibrated result is called: those at or above their thresholds, or the best class."""
        if self.kind == "multiclass":
            return (self.labels[int(np.argmax(result.probabilities))],)
        pairs = zip(self.labels, result.probabilities, self.thresholds, strict=True)
        return tuple(label for label, probability, threshold in pairs if probability >= threshold)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; `json.dumps` takes them and `from_dict` gives an equal object back."""
        return {**asdict(self), **{name: list(getattr(self, name)) for name in ("labels", "thresholds", "notes")}}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Decision":
        """The inverse of `as_dict`; UserError if a value is missing or makes no sense."""
        try:
            return cls(
                kind=str(content["kind"]),
                labels=tuple(map(str, content["labels"])),
                temperature=float(content["temperature"]),
                thresholds=tuple(map(float, content["thresholds"])),
                rule=str(content["rule"]),
                validation=dict(content["validation"]),
                notes=tuple(map(str, content["notes"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"The record of thresholds and calibration is damaged ({type(error).__name__}: {error})."
            ) from None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it must be positive")
        expected = 0 if self.kind == "multiclass" else len(self.labels)
        if len(self.thresholds) != expected:
            raise ValueError(
                f"there are {len(self.thresholds)} thresholds for {len(self.labels)} labels ({self.kind})"
            )

    @property
    def _task(self) -> Task:
        return Task(self.kind, self.labels)  # type: ignore[arg-type]


def undecided(task: Task) -> Decision:
    """Temperature 1 and thresholds 0.5: what a run has before anything was fitted."""
    thresholds = () if task.kind == "multiclass" else (0.5,) * task.num_outputs
    return Decision(task.kind, task.labels, 1.0, thresholds, "fixed", {}, ("nothing was fitted on validation",))


def fit_decision(results: Sequence[Scored], task: Task, settings: DecisionConfig) -> Decision:
    """Temperature, then thresholds on the calibrated probabilities.

    Args:
        results: of the validation studies, uncalibrated. Give studies and not pairs, which are not independent.
        task: what is predicted.
        settings: see `DecisionConfig`.

    Raises:
        ValueError: no results.
    """
    scores = Scores.of(results)
    fitted = fit_temperature(scores.logits, scores.target, scores.mask, task.kind)
    temperature = fitted.value if settings.calibrate else 1.0
    notes = [fitted.note] if settings.calibrate and fitted.note else []
    validation: dict[str, Any] = {
        "studies": len(results),
        "patients": len(set(scores.groups)),
        "nll_before": fitted.nll_before,
        "nll_after": fitted.nll_after if settings.calibrate else fitted.nll_before,
        "ece_before": fitted.ece_before,
        "ece_after": fitted.ece_after if settings.calibrate else fitted.ece_before,
    }
    chosen = []
    if task.kind != "multiclass":
        probabilities = probabilities_of(scores.logits, task.kind, temperature)
        for label, p, y, known in zip(task.labels, probabilities.T, scores.target.T, scores.mask.T, strict=True):
            chosen.append(
                choose_threshold(
                    y[known],
                    p[known],
                    settings.threshold_rule,
                    sensitivity=settings.wanted_sensitivity,
                    fixed=settings.fixed_threshold,
                )
            )
            if chosen[-1].note:
                notes.append(f"{label}: {chosen[-1].note}")
        validation["sensitivity"] = [threshold.sensitivity for threshold in chosen]
        validation["specificity"] = [threshold.specificity for threshold in chosen]
    rule = "argmax" if task.kind == "multiclass" else settings.threshold_rule
    thresholds = tuple(threshold.value for threshold in chosen)
    return Decision(task.kind, task.labels, temperature, thresholds, rule, without_nan(validation), tuple(notes))


def combine(decisions: Sequence[Decision]) -> Decision:
    """The decision of an ensemble whose members were calibrated before their probabilities were averaged.

    Temperature 1, and the mean of the members' thresholds: the folds' validation samples were training samples of the
    other folds, so nothing can be fitted on them for the ensemble as a whole.

    Raises:
        ValueError: no decisions, or of different tasks.
    """
    if not decisions or any((d.kind, d.labels) != (decisions[0].kind, decisions[0].labels) for d in decisions):
        raise ValueError("the members of an ensemble must predict the same labels")
    thresholds = tuple(float(np.mean(each)) for each in zip(*(d.thresholds for d in decisions), strict=True))
    notes = tuple(dict.fromkeys(note for decision in decisions for note in decision.notes))
    first = decisions[0]
    return Decision(
        first.kind, first.labels, 1.0, thresholds, f"mean of {len(decisions)} members ({first.rule})", {}, notes
    )
