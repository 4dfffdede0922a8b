"""The one typed configuration: the YAML recipe, the command line (see `options`) and the record in the run folder.

A system's `Config` is made of frozen sections (`model`, `data`, `loss`, `train`).
"""

import difflib
import reprlib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from scanfuse import recipes
from scanfuse.errors import UserError
from scanfuse.files import write_text
from scanfuse.foreign import one_line, read_text, shown
from scanfuse.plain_yaml import parse

__all__ = [
    "Section",
    "TrainConfig",
    "build",
    "preset",
    "presets",
    "read_yaml",
    "to_yaml",
    "without_none",
    "write_yaml",
]


C = TypeVar("C", bound=BaseModel)


_MAX_BYTES = 200_000


class Section(BaseModel):
    """A frozen group of settings; an unknown key is refused, and so are numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes true for 1
        wanted = without_none(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and wanted in (int, float):
            raise PydanticCustomError("number_expected", "input should be a number")
        return value


class TrainConfig(Section):
    """How any system is trained.

    The upper bounds keep a slip of the keyboard from filling the memory or crashing torch; none is near what any
    machine needs.
    """

    epochs: int = Field(50, ge=1, le=1_000_000, description="passes over the training data")
    batch: int = Field(
        4,
        ge=1,
        le=65_536,
        description="samples per step, all in memory at once",
        json_schema_extra={"also": "batch-size"},
    )
    accumulate: int = Field(1, ge=1, le=65_536, description="steps whose gradients are added up before an update")
    nominal_batch: int = Field(
        0, ge=0, le=65_536, description="samples per update, reached by accumulating; 0 = as --accumulate says"
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd: with Nesterov momentum")
    momentum: float = Field(0.937, ge=0, lt=1, description="of sgd")
    lr: float = Field(1e-4, gt=0, description="peak learning rate")
    min_lr: float = Field(1e-6, ge=0, description="learning rate at the end of the cosine")
    weight_decay: float = Field(0.0, ge=0, description="decoupled; not for scan, norm, bias")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate after the warm-up")
    warmup_epochs: float = Field(1.0, ge=0, le=1_000_000, description="epochs of linear warm-up, fractions allowed")
    warmup_bias_lr: float = Field(
        0.0, ge=0, description="rate of biases at the first step, from which it goes to --lr; 0 = as other weights"
    )
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 switches clipping off")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights; 0 switches averaging off")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16 = automatic mixed precision")
    patience: int = Field(0, ge=0, le=1_000_000, description="epochs without improvement before stopping; 0 = never")
    start_from: str = Field(
        "", description="run whose weights the training starts from, or pretrained/NAME; none if empty"
    )
    seed: int = Field(
        3407, ge=0, le=2**32 - 1, description="seed of weights, data order and augmentation; numpy takes 32 bits"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps, ...")
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads; 0 = leave as it is; torch crashes on more than can be started"
    )
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="processes that load data, each a copy of the program; 0 = none beside the trainer",
    )


def build(config_type: type[C], *layers: dict[str, Any]) -> C:
    """Lays nested dictionaries over each other (later ones win) and validates the result.

    Raises:
        UserError: one line that names the wrong key (with the nearest right one) or the wrong value.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer)
    try:
        return config_type.model_validate(merged)
    except ValidationError as error:
        raise UserError(_first_problem(config_type, error)) from None


def presets(system: str) -> tuple[str, ...]:
    """Names of the recipes that are shipped for a system."""
    return tuple(sorted(_recipes(system)))


def preset(system: str, name: str) -> dict[str, Any]:
    """The content of a shipped recipe."""
    known = _recipes(system)
    if name not in known:
        raise UserError(f"{system} has no preset {name!r}; choose one of: {', '.join(sorted(known))}.")
    return _settings(known[name], known[name].read_text(encoding="utf-8"))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A configuration file as nested dictionaries.

    Plain values only: see `plain_yaml`.

    Raises:
        UserError: the file cannot be read, is larger than 200 kB, is not plain YAML, or holds no settings. One line
            that names the file, and its line where there is one.
    """
    return _settings(path, read_text(path, "configuration file", largest=_MAX_BYTES))


def to_yaml(config: BaseModel) -> str:
    """The full configuration as YAML; `read_yaml` and `build` give the same object back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def write_yaml(config: BaseModel, path: str | Path) -> None:
    """Writes the full configuration to a file."""
    write_text(path, to_yaml(config))


def _recipes(system: str) -> dict[str, Path]:
    """Name -> file; of the folders on the path of `scanfuse.recipes` the first ones win, as with imports."""
    files = [path for folder in recipes.__path__ for path in sorted(Path(folder, system).glob("*.yaml"))]
    return {path.stem: path for path in reversed(files)}


def _settings(path: str | Path, text: str) -> dict[str, Any]:
    content = parse(path, text)
    if not isinstance(content, dict):
        raise UserError(f"{shown(path)} holds no settings; expected lines such as 'system: clinicalfmamba'.")
    return content


def _merge(into: dict[str, Any], layer: dict[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, dict) else value


def _first_problem(config_type: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    where = [str(part)[:80] for part in problem["loc"]]
    name = ".".join(where)
    if problem["type"] == "extra_forbidden":
        known = _keys_at(config_type, where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}."
        return f"Unknown setting {name!r}: {hint}"
    if problem["type"] == "missing":
        return f"The setting {name!r} is missing."
    why = f"{problem['msg'][:1].lower()}{problem['msg'][1:]}"
    if problem["type"].startswith("less_than"):
        why += f" ({_field_at(config_type, where).description})"
    return f"The setting {name!r} cannot be {_brief(problem['input'])}: {why}."


def _brief(value: Any) -> str:
    """`repr` that stays short without first writing the whole value."""
    form = reprlib.Repr()
    form.maxstring, form.maxother, form.maxlong, form.maxlevel = 60, 60, 40, 2
    try:
        return form.repr(value)
    except ValueError as error:  # Python refuses to write an integer of many digits
        return f"a value that cannot be written ({one_line(error)})"


def _field_at(config_type: type[BaseModel], path: list[str]) -> FieldInfo:
    here: Any = config_type
    for part in path[:-1]:
        here = here.model_fields[part].annotation
    found: FieldInfo = here.model_fields[path[-1]]
    return found


def _keys_at(config_type: type[BaseModel], path: list[str]) -> list[str]:
    here: Any = config_type
    for part in path:
        here = here.model_fields[part].annotation
    return list(here.model_fields)


def without_none(annotation: Any) -> Any:
    """`X` of the annotation `X | None`; any other annotation as it is."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [part for part in typing.get_args(annotation) if part is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation
