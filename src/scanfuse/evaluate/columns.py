"""A column of a table of classification: results, and the threshold by which each of them is decided."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from scanfuse.tasks.classify import MetricTable, Scored, Task, metric_table

__all__ = ["Column"]


@dataclass(frozen=True)
class Column:
    """What one column rests on: a run, an ensemble, or all folds of a cross-validation.

    Attributes:
        results: calibrated, of studies or of pairs.
        cuts: for each label the threshold of every result, (n,); empty for multiclass. The folds of a
            cross-validation have each their own.
    """

    results: list[Scored]
    cuts: tuple[Float64[np.ndarray, " n"], ...]

    @classmethod
    def of(cls, results: Sequence[Scored], thresholds: Sequence[float]) -> "Column":
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

    def table(self, task: Task) -> MetricTable:
        """All metrics with intervals over patients."""
        return metric_table(self.results, task, self.cuts or None)
