"""The systems. The file name is the registry: a module in this folder is a system, and `load` imports it by name."""

import difflib
import importlib
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from scanfuse.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import Tensor, nn

    from scanfuse.data.manifest import Manifest
    from scanfuse.explain.gradcam import Method, Target
    from scanfuse.tasks.classify import Scored
    from scanfuse.tasks.classify_job import Job

__all__ = ["Classifier", "System", "available", "load", "summary"]


class System(Protocol):
    """What the engines need to know of a system. A system is built by `System(config)` and nothing else."""

    Config: ClassVar[type["BaseModel"]]
    phantom: ClassVar[str]
    default_preset: ClassVar[str]
    config: Any
    model: "nn.Module"
    modalities: tuple[str, ...]

    def __init__(self, config: Any) -> None: ...

    def open_data(self, root: Path, *, split: bool = True) -> "Manifest":
        """The data under `root` as a manifest, with the splits that the configuration asks for.

        With `split=False` none need be made: to predict one patient must be enough.
        """

    def dataset(self, manifest: "Manifest", *, train: bool) -> Any:
        """A torch dataset over the rows; with `train`, augmentation is on."""

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Samples to one batch."""

    def sample(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """One sample of the data set's form from paths or arrays, one per modality."""

    def loss(self, batch: dict[str, Any]) -> dict[str, "Tensor"]:
        """Scalars; "loss" is the one to minimise, the others are shown."""

    def predict(self, batch: dict[str, Any]) -> list[Any]:
        """One result per sample."""

    def baselines(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Results of plain methods on the same batch, by the method's name."""

    def score(self, result: Any) -> dict[str, float]:
        """The metrics of one result."""

    def metrics(self) -> dict[str, str]:
        """Names of the metrics and which direction is better: higher, lower or none."""

    def save(self, result: Any, folder: Path) -> list[Path]:
        """Writes a result's files, the main one first."""

    def gallery(self, rows: Sequence[dict[str, Any]], path: Path) -> None:
        """One picture of several results beside each other; a row maps a method's name to its result."""


@runtime_checkable
class Classifier(System, Protocol):
    """What the engines need besides, of a system that classifies.

    Its metrics are statistics of all results together, its decisions are fitted on validation samples after the
    training, and a missing input is legal as long as one is there.
    """

    job: "Job"

    @staticmethod
    def adapt(config: Any, root: Path) -> Any:
        """The configuration completed by what only the data (or files that it names) tell: labels, outputs, sizes."""

    def start(self) -> str:
        """Fills the weights that the training starts from; says which they are."""

    def logits(self, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> "Tensor":
        """The outputs (b, n); the inputs named in `without` count as missing."""

    def results(self, batch: dict[str, Any]) -> list["Scored"]:
        """Raw results, one per sample; `predict` gives calibrated ones."""

    def evidence(self, batch: dict[str, Any], target: "Target", method: "Method" = "gradcam") -> dict[str, "Tensor"]:
        """Heat maps (b, h, w) by name: that of an input, or "fused"."""


def available() -> tuple[str, ...]:
    """Names of all systems, from the listing of this folder."""
    folder = importlib.resources.files(__name__)
    names = [entry.name for entry in folder.iterdir() if entry.name.endswith(".py")]
    return tuple(sorted(name.removesuffix(".py") for name in names if not name.startswith("_")))


def load(name: str) -> type[System]:
    """The `System` class of the module of that name.

    Raises:
        UserError: there is no such system.
    """
    known = available()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(known)}."
        raise UserError(f"There is no system {name!r}; {hint}")
    module = importlib.import_module(f"{__name__}.{name}")
    system: type[System] = module.System
    return system


def summary(name: str) -> str:
    """The first line of the system's docstring, read without importing the module."""
    text = (importlib.resources.files(__name__) / f"{name}.py").read_text(encoding="utf-8")
    return text.lstrip().removeprefix('"""').splitlines()[0].strip('" ')
