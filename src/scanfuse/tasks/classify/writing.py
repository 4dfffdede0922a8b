"""What a classification writes: one JSON file per result, one table per folder, for one run or several joined."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scanfuse.data.manifest import read_csv
from scanfuse.errors import UserError
from scanfuse.files import file_name, write_text
from scanfuse.tables import write_rows
from scanfuse.tasks import Failure
from scanfuse.tasks.classify.classes import Classes
from scanfuse.tasks.classify.operating_point import OperatingPoint, combine
from scanfuse.tasks.classify.prediction import Prediction, by_study, ensemble

__all__ = ["JoinedClassification", "decided", "describe", "save", "write_submission", "write_table"]


def decided(raw: Sequence[Prediction], point: OperatingPoint, classes: Classes) -> list[Prediction]:
    """Raw results as they are reported: calibrated, one per study."""
    return point.apply(by_study(raw, classes))


def describe(result: Prediction, point: OperatingPoint, classes: Classes) -> str:
    """A calibrated result in one line: every label with its probability, those it is called by in front."""
    called = point.called(result)
    parts = [f"{label} {p:.3f}" for label, p in zip(classes.labels, result.probabilities, strict=True)]
    if classes.kind == "binary":
        verdict = called[0] if called else f"not {classes.labels[0]}"
        return f"{verdict} ({parts[0]}, threshold {point.thresholds[0]:.3f})"
    return f"{', '.join(called) or 'nothing'} ({', '.join(parts)})"


def save(result: Prediction, point: OperatingPoint, classes: Classes, folder: Path) -> list[Path]:
    """Writes a calibrated result as `<id>.json`."""
    content = {
        "id": result.id,
        "study": result.study,
        "group": result.group,
        "called": list(point.called(result)),
        "probabilities": _by_label(classes.labels, result.probabilities),
        "thresholds": dict(zip(classes.labels, point.thresholds, strict=False)),
        "temperature": point.temperature,
    }
    return [_write_json(folder, result.id, content)]


def write_table(
    path: Path,
    point: OperatingPoint,
    studies: Sequence[Prediction],
    failures: Sequence[Failure] = (),
    further: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """One row per study: id, group, what it is called (" + " between labels), and calibrated probabilities.

    Args:
        path: the CSV file to write.
        point: of the run or the ensemble.
        studies: calibrated.
        failures: what could not be scored, as rows with an error in place of numbers.
        further: columns of numbers behind the probabilities, one value per study.
    """
    rows: list[dict[str, str]] = []
    for number, result in enumerate(studies):
        called = " + ".join(point.called(result)) or f"not {' or '.join(point.labels)}"
        row = {"id": result.id, "group": result.group, "called": called}
        row |= {f"p_{label}": f"{p:.6f}" for label, p in zip(point.labels, result.probabilities, strict=True)}
        rows.append(row | {name: f"{values[number]:.6f}" for name, values in (further or {}).items()})
    numbers = dict.fromkeys([*(f"p_{label}" for label in point.labels), *(further or {})], "")
    rows += [
        {"id": failure.id, "group": failure.group, "called": "", **numbers, "error": failure.error}
        for failure in failures
    ]
    write_rows(rows, path)


def write_submission(predictions: Path, score: str, columns: tuple[str, str], file: Path) -> None:
    """The columns id and `score` of a predictions.csv, under other names; UserError where a score is missing."""
    _, table = read_csv(predictions)
    empty = table["id"][table[score] == ""]
    if len(empty):
        raise UserError(
            f"{len(empty)} cases have no score, such as {empty.iloc[0]}: see {predictions}, column error."
        )
    renamed = table[["id", score]].set_axis(list(columns), axis=1)
    write_text(file, renamed.to_csv(index=False, lineterminator="\n"))


def sorted_out(
    found: Iterable[Prediction | Failure],
) -> tuple[list[Prediction], list[Failure]]:
    """Raw results of whole studies, and failures, one per study: a study with a failed part has no result."""
    results: list[Prediction] = []
    failures: dict[str, Failure] = {}
    for each in found:
        if isinstance(each, Failure):
            failures.setdefault(each.id, each)
        else:
            results.append(each)
    return [result for result in results if result.study not in failures], list(failures.values())


class JoinedClassification:
    """Several classifying runs as one, such as the folds of a cross-validation.

    The probability of a study is the mean of the members' calibrated ones. The thresholds are the means of the
    members' own thresholds; nothing is fitted for the ensemble.

    Args:
        points: name of a member -> its operating point.
        classes: name of a member -> what it predicts.

    Raises:
        UserError: a member predicts other labels.
    """

    def __init__(self, points: Mapping[str, OperatingPoint], classes: Mapping[str, Classes]) -> None:
        first, *others = points
        self.points = dict(points)
        self.classes = classes[first]
        for name in others:
            if classes[name] != self.classes:
                raise UserError(f"{name} predicts other labels than {first}: use it alone.")
        self.point = combine(list(points.values()))

    def result(self, found: Mapping[str, Prediction]) -> Prediction:
        """The joint result of one study."""
        return ensemble([[result] for result in found.values()], self.classes)[0]

    def describe(self, result: Prediction, found: Mapping[str, Prediction]) -> str:
        """A result in one line: what it is called, and the range of the members."""
        column = int(np.argmax(result.probabilities))
        low, high = (bound(member.probabilities[column] for member in found.values()) for bound in (min, max))
        called = ", ".join(self.point.called(result)) or f"not {' or '.join(self.classes.labels)}"
        parts = [f"{label} {p:.3f}" for label, p in zip(self.classes.labels, result.probabilities, strict=True)]
        return (
            f"{called} ({', '.join(parts)}; {self.classes.labels[column]} is {low:.3f} to {high:.3f} "
            f"in the {len(found)} members)"
        )

    def save(self, result: Prediction, found: Mapping[str, Prediction], folder: Path) -> list[Path]:
        """Writes the result of one study with those of the members as `<id>.json`."""
        labels = self.classes.labels
        content = {
            "id": result.id,
            "called": list(self.point.called(result)),
            "probabilities": _by_label(labels, result.probabilities),
            "standard_deviations": _by_label(labels, _spread([[member] for member in found.values()])[0]),
            "members": {name: _by_label(labels, member.probabilities) for name, member in found.items()},
            "thresholds": dict(zip(labels, self.point.thresholds, strict=False)),
        }
        return [_write_json(folder, result.id, content)]

    def write(self, found: Mapping[str, Iterable[Prediction | Failure]], folder: Path) -> list[Path]:
        """Writes predictions.csv from the members' raw results.

        Beside the probabilities it has for every label the standard deviation over the members, `sd_<label>`, and
        each member's probability, `p_<label>_<member>`.
        """
        members: dict[str, list[Prediction]] = {}
        failures: dict[str, Failure] = {}
        for name, each in found.items():
            raw, failed = sorted_out(each)
            members[name] = decided(raw, self.points[name], self.classes)
            failures |= {failure.id: failure for failure in failed}
        studies = ensemble(list(members.values()), self.classes)
        spread = _spread(list(members.values()))
        labels = self.classes.labels
        further = {f"sd_{label}": [float(row[column]) for row in spread] for column, label in enumerate(labels)}
        for name, each in members.items():
            by_id = {result.id: result.probabilities for result in each}
            for column, label in enumerate(labels):
                further[f"p_{label}_{name}"] = [float(by_id[study.id][column]) for study in studies]
        path = folder / "predictions.csv"
        write_table(path, self.point, studies, list(failures.values()), further)
        return [path]


def _write_json(folder: Path, id: str, content: Mapping[str, Any]) -> Path:
    path = folder / f"{file_name(id)}.json"
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path


def _spread(members: Sequence[Sequence[Prediction]]) -> np.ndarray:
    """Standard deviation (n - 1) of the members' probabilities, (studies, labels), studies as in the first member."""
    tables = [{result.id: result.probabilities for result in found} for found in members]
    if not members[0]:
        return np.zeros((0, 0))
    values = np.array([[table[result.id] for result in members[0]] for table in tables])
    return np.asarray(values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:]))


def _by_label(labels: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {label: float(value) for label, value in zip(labels, values, strict=True)}
