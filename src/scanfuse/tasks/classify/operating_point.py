"""The operating point of a run: the temperature and the thresholds that are fitted on its validation studies.

point = fit_operating_point(by_study(validation results), classes, settings)
point = OperatingPoint.from_dict(point.as_dict())        # through JSON
results = point.apply(by_study(test results))            # calibrated probabilities
table = metric_table(results, classes, point.thresholds)
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
from scanfuse.tasks import Settled
from scanfuse.tasks.classify.classes import Classes
from scanfuse.tasks.classify.prediction import Prediction, Predictions

__all__ = ["OperatingPoint", "OperatingPointSettings", "combine", "fit_operating_point", "settled", "undecided"]


class OperatingPointSettings(Section):
    """How probabilities are calibrated and turned into decisions; all of it on validation samples."""

    calibrate: bool = Field(True, description="temperature scaling, fitted on validation")
    threshold_rule: Rule = Field("youden", description="how the threshold is chosen on validation")
    wanted_sensitivity: float = Field(0.9, gt=0, le=1, description="of --threshold-rule sensitivity")
    fixed_threshold: float = Field(0.5, ge=0, le=1, description="of --threshold-rule fixed")
    test_time_flips: bool = Field(False, description="average predictions over left-right flips")
    test_time_turns: bool = Field(
        False, description="average over all flips and quarter turns, for pictures without an upside"
    )


@dataclass(frozen=True)
class OperatingPoint:
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

    def apply(self, results: Sequence[Prediction]) -> list[Prediction]:
        """The results with calibrated logits and probabilities. Studies keep their order.

        Gather pairs into studies first: the temperature belongs to what it was fitted on.
        """
        return [
            replace(
                result,
                logits=result.logits / self.temperature,
                probabilities=probabilities_of(result.logits[None], self._classes.kind, self.temperature)[0],
            )
            for result in results
        ]

    def called(self, result: Prediction) -> tuple[str, ...]:
        """The labels that a calibrated result is called: those at or above their thresholds, or the best class."""
        if self.kind == "multiclass":
            return (self.labels[int(np.argmax(result.probabilities))],)
        pairs = zip(self.labels, result.probabilities, self.thresholds, strict=True)
        return tuple(label for label, probability, threshold in pairs if probability >= threshold)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; `json.dumps` takes them and `from_dict` gives an equal object back."""
        return {**asdict(self), **{name: list(getattr(self, name)) for name in ("labels", "thresholds", "notes")}}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "OperatingPoint":
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
    def _classes(self) -> Classes:
        return Classes(self.kind, self.labels)  # type: ignore[arg-type]


def undecided(classes: Classes) -> OperatingPoint:
    """Temperature 1 and thresholds 0.5: what a run has before anything was fitted."""
    thresholds = () if classes.kind == "multiclass" else (0.5,) * classes.num_outputs
    return OperatingPoint(
        classes.kind, classes.labels, 1.0, thresholds, "fixed", {}, ("nothing was fitted on validation",)
    )


def fit_operating_point(
    results: Sequence[Prediction], classes: Classes, settings: OperatingPointSettings
) -> OperatingPoint:
    """Temperature, then thresholds on the calibrated probabilities.

    Args:
        results: of the validation studies, uncalibrated. Give studies and not pairs, which are not independent.
        classes: what is predicted.
        settings: see `OperatingPointSettings`.

    Raises:
        ValueError: no results.
    """
    scores = Predictions.of(results)
    fitted = fit_temperature(scores.logits, scores.target, scores.mask, classes.kind)
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
    if classes.kind != "multiclass":
        probabilities = probabilities_of(scores.logits, classes.kind, temperature)
        for label, p, y, known in zip(classes.labels, probabilities.T, scores.target.T, scores.mask.T, strict=True):
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
    rule = "argmax" if classes.kind == "multiclass" else settings.threshold_rule
    thresholds = tuple(threshold.value for threshold in chosen)
    return OperatingPoint(
        classes.kind, classes.labels, temperature, thresholds, rule, without_nan(validation), tuple(notes)
    )


def combine(points: Sequence[OperatingPoint]) -> OperatingPoint:
    """The operating point of an ensemble whose members were calibrated before their probabilities were averaged.

    Temperature 1, and the mean of the members' thresholds: the folds' validation samples were training samples of the
    other folds, so nothing can be fitted on them for the ensemble as a whole.

    Raises:
        ValueError: no operating points, or of different tasks.
    """
    if not points or any((d.kind, d.labels) != (points[0].kind, points[0].labels) for d in points):
        raise ValueError("the members of an ensemble must predict the same labels")
    thresholds = tuple(float(np.mean(each)) for each in zip(*(d.thresholds for d in points), strict=True))
    notes = tuple(dict.fromkeys(note for point in points for note in point.notes))
    first = points[0]
    return OperatingPoint(
        first.kind, first.labels, 1.0, thresholds, f"mean of {len(points)} members ({first.rule})", {}, notes
    )


def settled(point: OperatingPoint) -> Settled:
    """For a report: the temperature, what calibration changed, and the thresholds with what they reach."""
    seen = point.validation
    rule = f"; thresholds by the rule {point.rule}" if point.thresholds else ""
    tables = []
    if seen:
        head = [f"{seen['studies']} studies of {seen['patients']} patients", "before calibration", "after"]
        names = (("negative log likelihood", "nll"), ("calibration error (ECE)", "ece"))
        rows = [[title, *(_number(seen[f"{key}_{when}"]) for when in ("before", "after"))] for title, key in names]
        tables.append((head, rows))
    if point.thresholds:
        reached = ("sensitivity", "specificity") if seen else ()
        rows = [
            [label, _number(cut), *(_number(seen[name][number]) for name in reached)]
            for number, (label, cut) in enumerate(zip(point.labels, point.thresholds, strict=True))
        ]
        tables.append((["label", "threshold", *reached], rows))
    return Settled(f"Temperature {_number(point.temperature)}{rule}.", tables, point.notes)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
