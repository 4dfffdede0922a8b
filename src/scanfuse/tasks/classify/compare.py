"""Runs against each other on the same studies: paired bootstrap of every metric, DeLong for the AUROC, Holm.

Differences are over patients: both runs see the same resampled patients, and DeLong's variance sums over them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from scanfuse.errors import UserError
from scanfuse.stats.bootstrap import Difference, cluster_differences
from scanfuse.stats.delong import AurocTest, delong_test
from scanfuse.stats.holm import holm
from scanfuse.tables import Comparisons, Row
from scanfuse.tasks.classify.classes import Classes
from scanfuse.tasks.classify.column import Column, metrics, statistic
from scanfuse.tasks.classify.prediction import Prediction, Predictions

__all__ = ["Comparison", "compare", "comparisons"]

FEW_PATIENTS = 20
"""Below so many a bootstrap over patients and a normal test are too sure of themselves."""


@dataclass(frozen=True)
class Comparison:
    """One run against the reference.

    Attributes:
        run, reference: their names; differences are run - reference.
        differences: metric -> difference, interval over patients and two-sided p-value by paired bootstrap.
        adjusted: metric -> that p-value after Holm's correction over the runs compared in one call.
        delong: label -> DeLong's test of the AUROC; empty for multiclass.
        delong_adjusted: label -> its p-value after Holm's correction over runs and labels.
        results, patients: how many of each stand behind it.
    """

    run: str
    reference: str
    differences: dict[str, Difference]
    adjusted: dict[str, float]
    delong: dict[str, AurocTest]
    delong_adjusted: dict[str, float]
    results: int
    patients: int


def compare(
    runs: Mapping[str, Sequence[Prediction]],
    classes: Classes,
    thresholds: Mapping[str, Sequence[ArrayLike]] | None = None,
    *,
    reference: str | None = None,
    level: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> list[Comparison]:
    """Every other run against the reference, in the order given.

    Args:
        runs: name -> results (calibrated, of studies) on the same held-out samples; at least two.
        classes: what is predicted.
        thresholds: name -> the run's own thresholds, chosen on its validation samples: one per label, a number or an
            array (n,) in the order of its results; None: 0.5.
        reference: one of the names; None: the first.
        level, repeats, seed: see `cluster_differences`.

    Raises:
        UserError: fewer than two runs, or runs that did not score the same samples with the same targets.
    """
    names = list(runs)
    base = reference or (names[0] if names else "")
    if len(names) < 2 or base not in runs:
        raise UserError(
            f"A comparison needs two runs and one of them as reference; given: {', '.join(names) or 'none'}."
        )
    tables = {name: _aligned(name, base, runs) for name in names}
    known = tables[base]
    others = [name for name in names if name != base]

    def of(name: str) -> Sequence[ArrayLike] | None:
        return None if thresholds is None else _in_order(thresholds[name], runs[name], known.ids)

    differences = {
        name: cluster_differences(
            statistic(tables[name], classes, of(name)),
            statistic(known, classes, of(base)),
            known.groups,
            level,
            repeats,
            seed,
        )
        for name in others
    }
    differences = {
        name: {metric: found[metric] for metric in metrics(classes)} for name, found in differences.items()
    }
    adjusted = {
        metric: dict(zip(others, holm([differences[name][metric].p_value for name in others]), strict=True))
        for metric in metrics(classes)
    }
    tests = {name: _delong(tables[name], known, classes, level) for name in others}
    keys = [(name, label) for name in others for label in tests[name]]
    corrected = dict(zip(keys, holm([tests[name][label].p_value for name, label in keys]), strict=True))
    return [
        Comparison(
            run=name,
            reference=base,
            differences=differences[name],
            adjusted={metric: float(adjusted[metric][name]) for metric in adjusted},
            delong=tests[name],
            delong_adjusted={label: float(corrected[name, label]) for label in tests[name]},
            results=len(known.ids),
            patients=len(set(known.groups)),
        )
        for name in others
    ]


def _aligned(name: str, base: str, runs: Mapping[str, Sequence[Prediction]]) -> Predictions:
    """The results of a run in the order of the reference."""
    table = {result.id: result for result in runs[name]}
    wanted = [result.id for result in runs[base]]
    if len(table) != len(runs[name]) or table.keys() != set(wanted):
        only = sorted(table.keys() ^ set(wanted))[:3]
        raise UserError(
            f"{name} and {base} did not score the same samples"
            f"{' (' + ', '.join(only) + ', ...)' if only else ''}: evaluate both on the same split."
        )
    scores = Predictions.of([table[key] for key in wanted])
    other = Predictions.of(runs[base])
    if not np.array_equal(scores.target, other.target) or not np.array_equal(scores.mask, other.mask):
        raise UserError(f"{name} and {base} were scored against different targets: evaluate both on the same data.")
    return scores


def _delong(scores: Predictions, reference: Predictions, classes: Classes, level: float) -> dict[str, AurocTest]:
    if classes.kind == "multiclass":
        return {}
    groups = np.asarray(reference.groups)
    found = {}
    for column, label in enumerate(classes.labels):
        rows = reference.mask[:, column]
        y = reference.target[rows, column]
        a, b = scores.probabilities[rows, column], reference.probabilities[rows, column]
        found[label] = delong_test(y, a, b, groups[rows], level)
    return found


def comparisons(runs: Mapping[str, Column], classes: Classes, split: str, notes: Sequence[str]) -> Comparisons:
    """The rows of `compare` as a table: DeLong's tests, then the bootstrap of every metric.

    Args:
        runs: name -> calibrated results, one per study, and their thresholds; the reference first.
        classes: what is predicted.
        split: name of the samples.
        notes: what a reader must know of them.

    Raises:
        UserError: no known target, and what `compare` refuses.
    """
    reference = next(iter(runs))
    # A study without any known target says nothing about which run is right.
    known = {name: run.where([bool(result.mask.any()) for result in run.results]) for name, run in runs.items()}
    if not known[reference].results:
        raise UserError("No sample has a target: there is nothing to compare the runs by.")
    notes = list(notes)
    left_out = len(runs[reference].results) - len(known[reference].results)
    if left_out:
        notes.append(f"{left_out} studies have no known target and were left out")
    thresholds = None if classes.kind == "multiclass" else {name: run.cuts for name, run in known.items()}
    compared = compare({name: run.results for name, run in known.items()}, classes, thresholds)
    if compared[0].patients < FEW_PATIENTS:
        notes.append(f"only {compared[0].patients} patient(s): intervals are too narrow and p-values too small")
    rows = []
    for each in compared:
        for label, test in each.delong.items():
            name = "auroc" if classes.kind == "binary" else f"auroc of {label}"
            adjusted = each.delong_adjusted[label]
            rows.append(Row(each.run, name, "DeLong", test.difference, test.low, test.high, test.p_value, adjusted))
        for metric, found in each.differences.items():
            adjusted = each.adjusted[metric]
            rows.append(
                Row(each.run, metric, "bootstrap", found.value, found.low, found.high, found.p_value, adjusted)
            )
    return Comparisons(reference, split, compared[0].results, compared[0].patients, rows, notes)


def _in_order(cuts: Sequence[ArrayLike], results: Sequence[Prediction], ids: Sequence[str]) -> list[np.ndarray]:
    """Thresholds of a run, one per label, for results in the order of `ids`."""
    place = {result.id: number for number, result in enumerate(results)}
    order = [place[id] for id in ids]
    return [np.broadcast_to(np.asarray(cut, float), len(results))[order] for cut in cuts]
