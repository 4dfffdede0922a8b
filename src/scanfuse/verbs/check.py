"""`scanfuse data check`: faults of a data set before anything is trained on it."""

from pathlib import Path
from typing import Any

from scanfuse import config as configuration
from scanfuse import systems
from scanfuse.data.check import Finding
from scanfuse.errors import UserError

__all__ = ["check_data"]


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
