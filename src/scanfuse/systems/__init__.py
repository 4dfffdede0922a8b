"""The systems. The file name is the registry: a module in this folder is a system, and `load` imports it by name.

Folders that another package puts on this package's `__path__` are listed too.
"""

import difflib
import importlib
import importlib.util
import pkgutil
import typing
from collections.abc import Callable, Mapping
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

__all__ = ["Demonstration", "System", "ability", "available", "build", "kind_of", "load", "summary", "task_of"]


@dataclass(frozen=True)
class Demonstration:
    """What `scanfuse demo` does with a system.

    Attributes:
        phantom: name of the made-up data set, a module of `scanfuse.data.synthetic`.
        options: what its `Options` take for the whole demonstration.
        quick: the same for a quick one.
        rivals: plain variants that are trained and compared too: name -> changes of the preset.
        settings: changes of the preset for all of them: what these data need.
        preset: one that trains in minutes without a GPU.
        timed_size: the option "size" of a phantom on which a speed is worth knowing; 0 = that of the demonstration.
    """

    phantom: str
    options: Mapping[str, Any]
    quick: Mapping[str, Any]
    rivals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "tiny"
    timed_size: int = 0


class System(Protocol):
    """What the verbs need to know of a system. A system is built by `System(config)` and nothing else.

    It says by annotations of its class which input kind and which task it is composed with, so that a member that
    one of the three lacks is found when the system is loaded.

    Optional abilities, each asked for by name with `ability`:

        completed(config, root) -> config     static: the configuration completed by what only the data (or files that
                                              it names) tell, such as labels, outputs and sizes
        facts(config) -> [(title, text)]      static: what a report says first of a run with that configuration
        start() -> str                        fills the weights that a training starts from, and says which they are
        fit_once(training, validation) -> str a property: fits the model in one go, without epochs, and says what was
                                              chosen; None where the configuration asks for a training in steps
        evidence(batch, target, method) -> {name: (b, h, w)}     heat maps of an input, or a joint one
        prepared_by = (flag, ...)             settings that change what `scanfuse data prepare` makes of raw data
        inner(batch of one) -> {name: value}  what the network looked at, such as a gate: plain values; map_places, if
                                              it is there, are the rows and columns of a map of many small ones
        missing_inputs = True                 a sample may lack inputs, as long as one is there
        adjustable = (flag, ...)              settings that may be changed when a run is applied: how it is computed,
                                              or how inputs are read, with the same weights
    """

    Config: ClassVar[type["BaseModel"]]
    demonstration: ClassVar[Demonstration]
    default_preset: ClassVar[str]
    config: Any
    model: "nn.Module"
    data: "Inputs"
    task: "Task"

    def __init__(self, config: Any) -> None: ...

    def forward(self, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> Any:
        """The outputs of the network as the task takes them; the inputs named in `without` count as missing."""


class Abilities(Protocol):
    """The optional abilities of a system, with their types."""

    missing_inputs: ClassVar[bool]
    prepared_by: ClassVar[tuple[str, ...]]
    adjustable: ClassVar[tuple[str, ...]]

    @staticmethod
    def completed(config: Any, root: Path) -> Any: ...

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]: ...

    def start(self) -> str: ...

    @property
    def fit_once(self) -> "Callable[[Any, Any], str] | None": ...

    def evidence(self, batch: dict[str, Any], target: "Target", method: "Method") -> dict[str, "Tensor"]: ...

    def inner(self, batch: dict[str, Any]) -> dict[str, Any]: ...


def ability(owner: Any, name: str) -> Any | None:
    """An optional ability of a system, a task or an input kind by name; None if it has none.

    >>> ability(object(), "evidence") is None
    True
    """
    return getattr(owner, name, None)


def available() -> tuple[str, ...]:
    """Names of all systems, from the listing of this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


def load(name: object) -> type[System]:
    """The `System` class of the module of that name; None is what settings say that name no system.

    Raises:
        UserError: there is no such system, or it, its input kind or its task lacks a member.
    """
    known = available()
    if not isinstance(name, str):
        raise UserError(f"The settings name no system: add the line 'system: NAME', one of: {', '.join(known)}.")
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


def kind_of(name: str) -> str:
    """The input kind of a system by name, as layouts call it, without building anything."""
    kind: type[Inputs] = typing.get_type_hints(load(name))["data"]
    return kind.KIND


def summary(name: str) -> str:
    """The first line of the system's docstring, read without importing the module."""
    spec: Any = importlib.util.find_spec(f"{__name__}.{name}")
    text = str(spec.loader.get_source(spec.name))
    return text.lstrip().removeprefix('"""').splitlines()[0].strip('" ')


def _check(name: str, system: type) -> None:
    """Raises UserError if the system, its input kind or its task lacks a member, with its name."""
    from scanfuse.data.inputs import Inputs
    from scanfuse.tasks import Explains, Joins, Task

    _require(name, "the system", system, System)
    hints = typing.get_type_hints(system)
    for part, protocol in (("data", Inputs), ("task", Task)):
        if part not in hints:
            raise UserError(f"The system {name!r} cannot be used: its class does not annotate {part!r} with a class.")
        _require(name, f"its {part} ({hints[part].__name__})", hints[part], protocol)
    task = hints["task"]
    for optional in (Joins, Explains):
        if any(hasattr(task, member) for member in _members(optional)):  # half an ability fails when it is used
            _require(name, f"its task ({task.__name__})", task, optional)


def _require(name: str, who: str, kind: type, protocol: type) -> None:
    """Raises UserError unless the class has every member of the protocol; an annotation stands for an attribute."""
    annotated = typing.get_type_hints(kind)
    for member, is_of_instances in _members(protocol).items():
        if not (hasattr(kind, member) or (is_of_instances and member in annotated)):
            raise UserError(f"The system {name!r} cannot be used: {who} lacks the member {member!r}.")


def _members(protocol: type) -> dict[str, bool]:
    """Public members of a protocol; True for attributes that only instances need have."""
    attributes = {
        member: typing.get_origin(hint) is not ClassVar for member, hint in protocol.__annotations__.items()
    }
    return attributes | {member: False for member in vars(protocol) if not member.startswith("_")}
