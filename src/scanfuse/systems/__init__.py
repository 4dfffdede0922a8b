"""The systems. The file name is the registry: a module in this folder is a system, and `load` imports it by name."""

import difflib
import importlib
import importlib.resources
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from scanfuse.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import Tensor, nn

    from scanfuse.data.inputs import Inputs
    from scanfuse.explain.gradcam import Method, Target
    from scanfuse.tasks import Task

__all__ = ["Demonstration", "System", "ability", "available", "build", "load", "summary", "task_of"]


@dataclass(frozen=True)
class Demonstration:
    """What `scanfuse demo` does with a system.

    Attributes:
        phantom: name of the made-up data set, a module of `scanfuse.data.synthetic`.
        options: what its `Options` take for the whole demonstration.
        quick: the same for a quick one.
        rivals: plain variants that are trained and compared too: name -> changes of the preset `tiny`.
    """

    phantom: str
    options: Mapping[str, Any]
    quick: Mapping[str, Any]
    rivals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class System(Protocol):
    """What the verbs need to know of a system. A system is built by `System(config)` and nothing else.

    It says by annotations of its class which input kind and which task it is composed with, so that a member that
    one of the three lacks is found when the system is loaded.

    Optional abilities, each asked for by name with `ability`:

        completed(config, root) -> config     static: the configuration completed by what only the data (or files that
                                              it names) tell, such as labels, outputs and sizes
        start() -> str                        fills the weights that a training starts from, and says which they are
        evidence(batch, target, method) -> {name: (b, h, w)}     heat maps of an input, or a joint one
        missing_inputs = True                 a sample may lack inputs, as long as one is there
    """

    Config: ClassVar[type["BaseModel"]]
    demonstration: ClassVar[Demonstration]
    default_preset: ClassVar[str]
    config: Any
    model: "nn.Module"
    data: "Inputs"
    task: "Task"

    def __init__(self, config: Any) -> None: ...

    def forward(self, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> "Tensor":
        """The outputs of the network as the task takes them; the inputs named in `without` count as missing."""


class Abilities(Protocol):
    """The optional abilities of a system, with their types."""

    missing_inputs: ClassVar[bool]

    @staticmethod
    def completed(config: Any, root: Path) -> Any: ...

    def start(self) -> str: ...

    def evidence(self, batch: dict[str, Any], target: "Target", method: "Method") -> dict[str, "Tensor"]: ...


def ability(owner: Any, name: str) -> Any | None:
    """An optional ability of a system, a task or an input kind by name; None if it has none.

    >>> ability(object(), "evidence") is None
    True
    """
    return getattr(owner, name, None)


def available() -> tuple[str, ...]:
    """Names of all systems, from the listing of this folder."""
    folder = importlib.resources.files(__name__)
    names = [entry.name for entry in folder.iterdir() if entry.name.endswith(".py")]
    return tuple(sorted(name.removesuffix(".py") for name in names if not name.startswith("_")))


def load(name: str) -> type[System]:
    """The `System` class of the module of that name.

    Raises:
        UserError: there is no such system, or it, its input kind or its task lacks a member.
    """
    known = available()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(known)}."
        raise UserError(f"There is no system {name!r}; {hint}")
    module = importlib.import_module(f"{__name__}.{name}")
    system: type[System] = module.System
    _check(name, system)
    return system


def build(config: Any) -> System:
    """The system of a configuration, with fresh weights."""
    return load(config.system)(config)


def task_of(name: str) -> type["Task"]:
    """The task of a system by name, without building anything."""
    task: type[Task] = typing.get_type_hints(load(name))["task"]
    return task


def summary(name: str) -> str:
    """The first line of the system's docstring, read without importing the module."""
    text = (importlib.resources.files(__name__) / f"{name}.py").read_text(encoding="utf-8")
    return text.lstrip().removeprefix('"""').splitlines()[0].strip('" ')


def _check(name: str, system: type) -> None:
    """Raises UserError if the system, its input kind or its task lacks a member, with its name."""
    from scanfuse.data.inputs import Inputs
    from scanfuse.tasks import Task

    hints = _lacks(name, "the system", system, System)
    for part, protocol in (("data", Inputs), ("task", Task)):
        kind = hints[part]
        _lacks(name, f"its {part} ({kind.__name__})", kind, protocol)


def _lacks(name: str, who: str, kind: type, protocol: type) -> dict[str, Any]:
    """The annotations of the class, after a look whether it has every member of the protocol."""
    hints = typing.get_type_hints(kind)
    wanted = [*protocol.__annotations__, *(member for member in vars(protocol) if not member.startswith("_"))]
    for member in wanted:
        if member not in hints and not hasattr(kind, member):
            raise UserError(f"The system {name!r} cannot be used: {who} lacks the member {member!r}.")
    return hints
