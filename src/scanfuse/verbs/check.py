"""`scanfuse data check`: faults of a data set before anything is trained on it."""

from pathlib import Path
from typing import Any

from scanfuse import config as configuration
from scanfuse import systems
from scanfuse.data import layouts
from scanfuse.data.check import Finding
from scanfuse.errors import UserError
from scanfuse.options import Leaf, leaves

__all__ = ["check_data", "options_on_data", "what_is_read"]


def check_data(name: str, settings: dict[str, Any], data: Path) -> list[Finding]:
    """Opens the data as a training of the system would, and reads every file; errors first.

    Args:
        name: of the system.
        settings: those of the data that a training would get, by section.
        data: folder or manifest.
    """
    system_type = systems.load(name)
    built = configuration.build(system_type.Config, configuration.preset(name, "tiny"), settings)
    completed = systems.ability(system_type, "completed")
    if completed is not None:
        try:
            # Labels, by which folds are made alike, come from the data.
            built = completed(built, data)
        except UserError as error:
            return [Finding("error", "layout", str(error))]
    return systems.build(built).data.check(data)


def options_on_data(name: str) -> list[Leaf]:
    """The options of a system's training that change what is read."""
    return [leaf for leaf in leaves(systems.load(name).Config) if leaf.path[0] in ("data", "task", "folds")]


def what_is_read(name: str | None) -> str:
    """The layouts and the options on data of a system, for the help; without one, the layouts of all kinds."""
    kind = systems.kind_of(name) if name else None
    found = {each: layouts.load(each).LAYOUT for each in layouts.names(kind)}
    lines = [f"Layouts that {name} reads:" if name else "Layouts:"]
    lines += [f"  {each}: {text}" for each, text in found.items()]
    if name:
        lines += ["", "Options:"]
        lines += [
            f"  --{leaf.flag} {leaf.kind.upper()}  {leaf.field.description} [{leaf.field.default}]"
            for leaf in options_on_data(name)
        ]
    return "\n".join(lines)
