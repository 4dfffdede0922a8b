"""Fusion: what a system that fuses two registered images, or two volumes, is composed with.

Results are scored one by one against their two sources; a table shows means. Plain methods (average, maximum,
Laplacian pyramid) stand in every table. What images and volumes do not share is their medium: `images` (with `colour`
and `fused`) and `volumes` (with `planes` and `sliding`). See also `loss`, `gallery`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator
from rich.progress import track
from torch import Tensor

from scanfuse.config import Section
from scanfuse.data.batches import epoch_order
from scanfuse.data.inputs import Samples
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.metrics.fusion import METRICS
from scanfuse.stats.bootstrap import Difference, cluster_differences, interval, mean_of
from scanfuse.stats.holm import holm
from scanfuse.tables import Cell, Comparisons, Evaluation, Row, write_rows
from scanfuse.tasks import Asked, Criterion, Failure, Forward, Method, Plot, Settled, Words
from scanfuse.tasks.fuse.derived import check_free, derived_manifest
from scanfuse.tasks.fuse.gallery import gallery
from scanfuse.tasks.fuse.images import Images
from scanfuse.tasks.fuse.loss import FusionLoss, fusion_loss
from scanfuse.tasks.fuse.medium import Fused, Medium

__all__ = ["Fusion", "OutputSettings"]

POOLED = "out of fold"
PLAIN = ("average", "maximum", "laplacian")
"""The plain methods of every medium."""


class OutputSettings(Section):
    """What is written when a run is applied."""

    baselines: tuple[str, ...] = Field(
        (), description="plain methods whose results are written beside: average, maximum, laplacian"
    )

    @field_validator("baselines")
    @classmethod
    def _are_plain_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if other := [name for name in value if name not in PLAIN]:
            raise ValueError(f"there is no plain method {other[0]!r}; choose among {', '.join(PLAIN)}")
        return value


class Fusion:
    """The fusion of pairs of images or volumes: the task `scanfuse.tasks.Task`.

    The outputs of its network are fused luminances (b, 1, h, w) in [0, 1] of sources stretched by `colour.stretch`,
    or fused volumes (b, 1, d, h, w) in [0, 1].

    Args:
        modalities: names of the two sources.
        loss: weights of the loss.
        medium: images or volumes.
        output: what is written beside the results.
    """

    words = Words("samples", "cases")
    headline = ("ssim", "qabf", "vif", "fmi")

    def __init__(
        self,
        modalities: tuple[str, str],
        *,
        loss: FusionLoss,
        medium: Medium | None = None,
        output: OutputSettings = OutputSettings(),  # noqa: B008 (frozen)
    ) -> None:
        self.modalities = modalities
        self.output = output
        self.medium: Medium = medium or Images()
        self.loss_settings = loss

    def begin(self, training: Samples, validation: Samples) -> None:
        """Nothing to look at: images have no targets."""

    def order(self, count: int, *, batch: int, seed: int, epoch: int) -> list[list[int]]:
        """Every sample once."""
        return epoch_order(count, batch, seed, epoch)

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """See `fusion_loss`."""
        found = self.medium.compared(outputs, batch, self.modalities)
        return fusion_loss(found.outputs, found.a, found.b, self.loss_settings)

    def validation(self, scored: Iterable[tuple[Tensor, dict[str, Any]]]) -> dict[str, float]:
        """The mean over samples of every part of the loss."""
        sums: dict[str, float] = {}
        count = 0
        for outputs, batch in scored:
            size = len(batch["meta"])
            count += size
            for name, value in self.loss(outputs, batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) * size
        return {name: value / count for name, value in sums.items()}

    def criterion(self, row: Mapping[str, float]) -> Criterion:
        """By the loss."""
        return Criterion(row["val_loss"], "loss")

    @torch.no_grad()
    def results(self, forward: Forward, batch: dict[str, Any]) -> list[Fused]:
        """One fused image or volume per sample, with those of the plain methods that are asked for."""
        found = self.medium.results(forward(batch), batch, self.modalities, learned=True)
        if not self.output.baselines:
            return found
        plain = self.baselines(batch, self.output.baselines)
        each = [dict(zip(plain, results, strict=True)) for results in zip(*plain.values(), strict=True)]
        return [replace(result, plain=others) for result, others in zip(found, each, strict=True)]

    def fit(self, results: Iterable[Fused]) -> str:
        """Nothing is fitted; the results are not even computed."""
        return ""

    def fitted(self) -> None:
        """Nothing."""

    def restore(self, fitted: Mapping[str, Any] | None) -> None:
        """Nothing to restore."""

    def finished(self, results: Sequence[Fused]) -> list[Fused]:
        """The same."""
        return list(results)

    @torch.no_grad()
    def baselines(self, batch: dict[str, Any], names: Sequence[str] = PLAIN) -> dict[str, list[Fused]]:
        """Results of plain methods on the same batch, by the method's name."""
        found = {}
        for name in names:
            method = self.medium.baselines[name]
            a, b = (self.medium.plain(batch, modality) for modality in self.modalities)
            found[name] = self.medium.results(method(a, b), batch, self.modalities, learned=False)
        return found

    def evaluate(self, methods: Mapping[str, Method], samples: Manifest, asked: Asked) -> Evaluation:
        """Every metric of every run and plain method, mean and interval over cases, with a gallery."""
        _refuse(asked)
        shown = _spread(len(samples), asked.pictures)
        rows: list[dict[str, Any]] = []
        pictured: list[dict[str, Fused]] = []
        steps = zip(*(method.batches for method in methods.values()), strict=True)
        for index, outcomes in enumerate(
            track(steps, "evaluating", len(samples), transient=True, disable=asked.quiet)
        ):
            results = {name: found[0] for name, (_, found) in zip(methods, outcomes, strict=True)}
            for name, found in self.baselines(outcomes[0][0]).items():
                if name in results:
                    raise UserError(f"A run has the name of the plain method {name!r}: rename its folder.")
                results[name] = found[0]
            rows += [self._scored(name, result) for name, result in results.items()]
            if index in shown:
                pictured.append(results)
        evaluation = _summarised(rows, asked.split, (*samples.notes, *self.medium.notes))
        if asked.split == "val":
            evaluation.notes.append("the best epoch was chosen on these samples: the values are a little too good")
        if pictured:
            evaluation.pictures["gallery.png"] = gallery(pictured)
        return evaluation

    def evaluate_folds(
        self, methods: Mapping[str, Method], parts: Mapping[str, Manifest], asked: Asked
    ) -> Evaluation:
        """Every sample fused by the run that held it out, as one column beside the plain methods."""
        _refuse(asked)
        rows: list[dict[str, Any]] = []
        for name in parts:
            for batch, found in methods[name].batches:
                rows.append(self._scored(POOLED, found[0]) | {"run": name})
                rows += [self._scored(plain, each[0]) | {"run": ""} for plain, each in self.baselines(batch).items()]
        first = next(iter(parts.values()))
        note = f"{POOLED}: each sample was fused by the one of {len(parts)} runs that held it out"
        return _summarised(rows, asked.split, (*first.notes, note, *self.medium.notes))

    def compare(self, methods: Mapping[str, Method], samples: Manifest, asked: Asked) -> Comparisons:
        """Paired bootstrap over cases of the mean metrics, with Holm's correction over runs."""
        evaluation = self.evaluate(methods, samples, asked)
        table = pd.DataFrame(evaluation.rows)
        reference, *others = methods
        base = table[table["method"] == reference]
        rows = []
        for metric in evaluation.better:
            found: dict[str, Difference] = {}
            for name in others:
                values = table[table["method"] == name][metric].to_numpy(float)
                found[name] = _paired(values, base[metric].to_numpy(float), list(base["group"]))
            adjusted = holm([difference.p_value for difference in found.values()])
            rows += [
                Row(name, metric, "bootstrap", each.value, each.low, each.high, each.p_value, float(p))
                for (name, each), p in zip(found.items(), adjusted, strict=True)
            ]
        rows.sort(key=lambda row: others.index(row.run))
        return Comparisons(
            reference,
            asked.split,
            evaluation.samples,
            evaluation.groups,
            rows,
            evaluation.notes,
            who=self.words.groups,
        )

    def describe(self, result: Fused) -> str:
        """Nothing: the files say it."""
        return ""

    def save(self, result: Fused, folder: Path) -> list[Path]:
        """Writes the result, as `Medium.save` says, and those of plain methods in folders of their names."""
        files = self.medium.save(result, folder)
        for name, other in result.plain.items():
            files += self.medium.save(replace(other, id=result.id), folder / name)
        return files

    def write(self, found: Iterable[Fused | Failure], folder: Path) -> list[Path]:
        """Writes every image as `save` does, and predictions.csv: id, group, file, error.

        Raises:
            UserError: the folder holds a manifest.csv of somebody else, which `derived` would replace.
        """
        check_free(folder)
        rows, files = [], []
        for each in found:
            if isinstance(each, Failure):
                rows.append({"id": each.id, "group": each.group, "file": "", "error": each.error})
                continue
            main = self.save(each, folder)[0]
            files.append(main)
            rows.append({"id": each.id, "group": each.group, "file": main.name, "error": ""})
        write_rows(rows, folder / "predictions.csv")
        return files

    def derived(self, samples: Manifest, folder: Path) -> Path | None:
        """Writes manifest.csv: results of `write` as data for another system; see `derived_manifest`."""
        return derived_manifest(samples, folder, self.output.baselines)

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Nothing beside what every run has."""
        return []

    @staticmethod
    def counts(split: pd.DataFrame, names: Sequence[str], config: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
        """Nothing beside samples and cases."""
        return []

    @staticmethod
    def settled(fitted: Mapping[str, Any]) -> Settled:
        """Nothing is fitted."""
        return Settled("Nothing was fitted on validation.", [])

    @staticmethod
    def figures(folder: Path, content: Mapping[str, Any], fitted: Mapping[str, Any] | None) -> list[Plot]:
        """None: a gallery shows more."""
        return []

    def _scored(self, method: str, result: Fused) -> dict[str, Any]:
        """A row of the table."""
        return {"method": method, "id": result.id, "group": result.group, **self.medium.score(result)}


def _refuse(asked: Asked) -> None:
    if asked.by:
        raise UserError("--by is for classification; these runs fuse.")


def _spread(total: int, count: int) -> set[int]:
    """Positions of about `count` samples spread evenly, so that a gallery shows several cases."""
    count = min(count, total)
    return {round((index + 0.5) * total / count - 0.5) for index in range(count)} if count else set()


def _summarised(rows: list[dict[str, Any]], split: str, notes: Sequence[str]) -> Evaluation:
    better: dict[str, str] = {name: metric.better for name, metric in METRICS.items()}
    table = pd.DataFrame(rows)
    methods = list(dict.fromkeys(table["method"]))
    cells = {
        method: {metric: Cell(*interval(part[metric].to_numpy(), part["group"].to_numpy())) for metric in better}
        for method in methods
        for part in [table[table["method"] == method]]
    }
    groups = table["group"].nunique()
    few = [f"only {groups} case(s): the intervals say little about other patients"] if groups < 5 else []
    return Evaluation(split, len(table) // len(methods), groups, methods, better, cells, rows, [*notes, *few])


def _paired(values: np.ndarray, base: np.ndarray, groups: list[str]) -> Difference:
    """Of two means over the samples where both are defined: a metric may not be for a small or empty image."""
    defined = np.isfinite(values) & np.isfinite(base)
    first, second = (mean_of(np.where(defined, column, np.nan)) for column in (values, base))
    return cluster_differences(first, second, groups)["mean"]
