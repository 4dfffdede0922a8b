"""Task kinds: what systems of one kind share. A folder holds one kind, and all of that kind is in it.

Verbs know the protocol below and nothing else of a task. It answers what a training minimises and how batches are
drawn, which validation value picks the best epoch, what is fitted on validation and stored, what a result is and how
it is written, and which tables, tests and pictures are made of results. A task is given results, never runs.

    forward(batch) --loss--> training
    forward(batch) --results--> raw, per sample --fit--> operating point, stored in the run
                                      |
                                      +--finished--> per reported unit --evaluate, compare, write--> tables and files
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

    from scanfuse.data.inputs import Samples
    from scanfuse.data.manifest import Manifest
    from scanfuse.data.transforms.placement import Placement
    from scanfuse.explain.explanation import Explanation
    from scanfuse.explain.gradcam import Method as MapMethod
    from scanfuse.explain.gradcam import Target
    from scanfuse.tables import Comparisons, Evaluation

__all__ = [
    "Asked",
    "Criterion",
    "Explains",
    "Failure",
    "Forward",
    "Instrument",
    "Joins",
    "Method",
    "Plot",
    "Settled",
    "Task",
    "Words",
]

Forward = Callable[[dict[str, Any]], Any]
"""A batch -> the outputs of the network."""

Plot = tuple[str, str]
"""Title and SVG."""


class Words(NamedTuple):
    """What a reported sample and a group of them are called."""

    samples: str
    groups: str


@dataclass(frozen=True)
class Criterion:
    """What picks the best epoch.

    Attributes:
        value: the best epoch makes it smallest; nan is never the best.
        by: the validation value behind it, such as "loss" or "auroc".
        note: why it is not the one that the settings ask for; "" if it is.
    """

    value: float
    by: str
    note: str = ""


@dataclass(frozen=True)
class Method:
    """A run as a task sees it.

    Attributes:
        task: its own, with what it fitted.
        batches: batches and their raw results; runs the network.
        without: name of an input -> the same run with that input missing; empty unless that was asked for.
        perturbed: name of a perturbation -> the same run on samples spoilt by it; empty unless that was asked for.
    """

    task: "Task"
    batches: Iterable[tuple[dict[str, Any], list[Any]]]
    without: "Mapping[str, Method]" = field(default_factory=dict)
    perturbed: "Mapping[str, Method]" = field(default_factory=dict)

    @property
    def raw(self) -> list[Any]:
        """All raw results in order; runs the network."""
        return [result for _, results in self.batches for result in results]


@dataclass(frozen=True)
class Asked:
    """What a user asked of an evaluation.

    Attributes:
        split: which samples: test, val, train or all.
        ensemble: also the mean of the runs; asked only of a task that can join them.
        by: columns of the data whose values are subgroups.
        pictures: at most so many rows of a gallery, or examples to explain; 0 = none.
        quiet: no progress.
    """

    split: str
    ensemble: bool = False
    by: Sequence[str] = ()
    pictures: int = 0
    quiet: bool = False


@dataclass(frozen=True)
class Failure:
    """A sample that could not be read or computed."""

    id: str
    group: str
    error: str


@dataclass(frozen=True)
class Settled:
    """What was fitted on validation as a report shows it: a sentence, tables of head and rows, and notes."""

    text: str
    tables: list[tuple[list[str], list[list[str]]]]
    notes: tuple[str, ...] = ()


class Task(Protocol):
    """What the verbs need of a task.

    Optional abilities, each asked for by name with `systems.ability`, beside `Joins` and `Explains`:

        any_inputs = name                     runs of other systems and inputs whose tasks have this name predict the
                                              same and can be compared
        compare_folds(runs, samples, asked)   as `compare`, of cross-validations: name -> fold -> method
        derived(samples, folder) -> Path      results that were written into a folder, as data for another system

    Attributes:
        words: of what is reported.
        headline: metrics of which the first four that a table has stand on top of a report.
    """

    words: ClassVar[Words]
    headline: ClassVar[tuple[str, ...]]

    def begin(self, training: "Samples", validation: "Samples") -> None:
        """Looks at what will be trained and validated on: weighs classes, refuses what cannot be learned."""

    def order(self, count: int, *, batch: int, seed: int, epoch: int) -> list[list[int]]:
        """The batches of an epoch of `count` samples as positions, by the arguments and what `begin` saw alone."""

    def loss(self, outputs: Any, batch: Mapping[str, Any]) -> "dict[str, Tensor]":
        """Scalars; "loss" is the one to minimise, the others are shown."""

    def validation(self, scored: Iterable[tuple[Any, dict[str, Any]]]) -> dict[str, float]:
        """Values of one validation pass for the history, at least "loss", from outputs and their batches."""

    def criterion(self, row: Mapping[str, float]) -> Criterion:
        """What picks the best epoch, from values of `validation` under "val_<name>"."""

    def results(self, forward: Forward, batch: dict[str, Any]) -> list[Any]:
        """Raw results, one per sample of the batch."""

    def fit(self, results: Iterable[Any]) -> str:
        """Fits on raw validation results what results are decided by; says what, or "" if there is nothing to fit."""

    def fitted(self) -> dict[str, Any] | None:
        """What `fit` found as plain values, to be stored in the run; None for nothing."""

    def restore(self, fitted: Mapping[str, Any] | None) -> None:
        """Takes what `fitted` returned; None: nothing was fitted."""

    def finished(self, results: Sequence[Any]) -> list[Any]:
        """Raw results as they are reported: decided, and one per reported unit."""

    def evaluate(self, methods: Mapping[str, Method], samples: "Manifest", asked: Asked) -> "Evaluation":
        """The table of several runs on the same samples."""

    def evaluate_folds(
        self, methods: Mapping[str, Method], parts: "Mapping[str, Manifest]", asked: Asked
    ) -> "Evaluation":
        """The table of a cross-validation: every sample scored by the run that held it out."""

    def compare(self, methods: Mapping[str, Method], samples: "Manifest", asked: Asked) -> "Comparisons":
        """Every run against the first one on the same samples, paired."""

    def describe(self, result: Any) -> str:
        """A finished result in one line; "" where its files say it all."""

    def save(self, result: Any, folder: Path) -> list[Path]:
        """Writes the files of one finished result, the main one first."""

    def write(self, found: Iterable[Any], folder: Path) -> list[Path]:
        """Writes raw results of many samples, failures among them; returns the main files."""

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Titles and texts for the head of a report, from the configuration of a run."""

    @staticmethod
    def counts(split: "pd.DataFrame", names: Sequence[str], config: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
        """Rows for a report's table of splits, beside samples and groups, one text per named split."""

    @staticmethod
    def settled(fitted: Mapping[str, Any]) -> "Settled":
        """What was fitted on validation, for a report."""

    @staticmethod
    def figures(folder: Path, content: Mapping[str, Any], fitted: Mapping[str, Any] | None) -> list[Plot]:
        """Plots of an evaluation for a report, from its folder, its evaluation.json and what was fitted."""


class Joins(Protocol):
    """A task whose results from several runs can be joined: an optional ability."""

    def joined(self, tasks: "Mapping[str, Task]") -> "Joined":
        """Several tasks of one kind as one; UserError where they do not predict the same."""


class Joined(Protocol):
    """Several runs' finished results as one."""

    def result(self, found: Mapping[str, Any]) -> Any:
        """The joint result of one sample from those of the members by name."""

    def describe(self, result: Any, found: Mapping[str, Any]) -> str:
        """A joint result in one line, with how far its members agree."""

    def save(self, result: Any, found: Mapping[str, Any], folder: Path) -> list[Path]:
        """Writes the files of one joint result."""

    def write(self, found: Mapping[str, Iterable[Any]], folder: Path) -> list[Path]:
        """Writes joint results from the raw ones of every member, failures among them."""


@dataclass(frozen=True)
class Instrument:
    """What an explanation looks through: the network of a run on one sample.

    Attributes:
        modalities: names of the inputs.
        forward: batch -> outputs.
        evidence: batch, target, method -> heat maps (b, h, w) by name, that of an input or a joint one.
        pixels: of an input of a batch's first sample: the picture as it was stored.
        device: where batches must lie.
        parts: batch of one -> input -> name of a part, such as a column of a table -> the batch without that part;
            None where no input has parts.
        inner: batch of one -> what the network looked at (a gate, weights of slices); None where it cannot say.
    """

    modalities: tuple[str, ...]
    forward: Forward
    evidence: "Callable[[dict[str, Any], Target, MapMethod], dict[str, Tensor]]"
    pixels: "Callable[[dict[str, Any], str], tuple[np.ndarray, Placement]]"
    parts: Callable[[dict[str, Any]], dict[str, dict[str, dict[str, Any]]]] | None = None
    inner: Callable[[dict[str, Any]], dict[str, Any]] | None = None


class Explains(Protocol):
    """A task whose results can be explained by heat maps and by leaving inputs out: an optional ability."""

    def subject(self, results: Sequence[Any], label: str | None = None) -> Any:
        """What there is to explain about raw results of one reported unit; UserError if there is no such label."""

    def explain(
        self, through: Instrument, batch: dict[str, Any], subject: Any, *, method: "MapMethod"
    ) -> "Explanation":
        """Why the sample of a batch of one got its result."""

    def about(self, results: Sequence[Any], subject: Any) -> dict[str, Any]:
        """Plain values of the whole unit to stand beside each explanation."""
