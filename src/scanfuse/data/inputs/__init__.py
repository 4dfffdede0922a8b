"""Input kinds: what one sample of a system is, from the files of a data set to a batch of tensors.

A module of this folder holds one kind: its settings (a section of the configuration) and a class that opens a data
set as a manifest with splits, fits what must be fitted on the training rows alone, and makes data sets, batches and
single samples. Verbs know the protocol below and nothing else; a system says which kind it takes.

A sample is a dictionary: every modality by name (a tensor), "present" {modality: bool}, and "meta", a dictionary of
plain values with at least id, group and target. A batch has the same keys, tensors stacked, "meta" a list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from scanfuse.data.check import Finding
    from scanfuse.data.manifest import Manifest, Row

__all__ = ["Fitted", "Inputs", "Samples"]


@dataclass(frozen=True)
class Fitted:
    """What an input kind has fitted on training rows: plain values for JSON, and tensors for safetensors."""

    values: dict[str, Any] = field(default_factory=dict)
    tensors: "dict[str, Tensor]" = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.values or self.tensors)


@runtime_checkable  # so that annotations of a task can be checked as it runs
class Samples(Protocol):
    """A data set of samples by position, as torch's loader takes it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def row(self, index: int) -> "Row":
        """The row of the manifest that a sample is made of."""

    @property
    def targets(self) -> list[str]:
        """The target text of every sample in order; "" where there is none."""

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose augmentation is drawn; workers that live on see it too."""


class Inputs(Protocol):
    """What the verbs need of an input kind.

    Optional abilities, each asked for by name with `systems.ability`:

        choose_slice(text)                    takes these slices of volumes and stacks from here on
        batch_picture(batch) -> (h, w, 3)     a batch as a picture, for the run folder: what the network is taught
        listed(inputs) -> Manifest            the samples of inputs that are folders or videos; None for those of one
        picture(batch, name) -> (pixels, Placement)   what heat maps of an input of the first sample are shown on,
                                              where that is not its file
        submission_columns(root)              the columns of id and score in the file that a challenge takes, or None
        parts(batch of one)                   input -> part, such as a table's column -> the batch without it
        perturbed(samples) -> {name: samples} the samples spoilt on purpose, one way after the other
        raw_cases(root)                       of `scanfuse data prepare`: file to make -> its raw data, and file ->
                                              what is copied beside them
        convert(source, target)               makes one such file; what to note of it
        how_prepared()                        the settings that it depends on, for the record

    Attributes:
        KIND: by which layouts say what reads them: the name of its module, or of another one that reads the same.
        modalities: names of the inputs of one sample.
        mixed_sizes: True if samples need not share a size, so that they are evaluated one at a time.
    """

    KIND: ClassVar[str]
    modalities: tuple[str, ...]
    mixed_sizes: bool

    def open(self, root: Path, *, split: bool = True) -> "Manifest":
        """The data under `root` as a manifest, with the splits that the settings ask for.

        With `split=False` none need be made, and targets are not needed: to predict one patient must be enough.
        """

    def check(self, root: Path) -> "list[Finding]":
        """What is wrong with the data under `root`, errors first."""

    def prepare(self, training: "Manifest") -> Fitted:
        """Fits what must be fitted on the training rows (of this split or fold alone) and keeps it.

        The run stores what is returned; empty where there is nothing to fit.
        """

    def restore(self, fitted: Fitted) -> None:
        """Takes what `prepare` once returned."""

    def dataset(self, manifest: "Manifest", *, train: bool) -> Samples:
        """The samples of the rows; with `train`, augmentation is on."""

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Samples to one batch."""

    def sample(self, inputs: Mapping[str, Any], *, id: str = "") -> dict[str, Any]:
        """One sample from files, PIL images or arrays by modality; `id` is by default the name of the first file."""
