"""What commands share: types of arguments, quiet, the report that is written anew."""

import logging
from pathlib import Path

import click

__all__ = ["FOLDER", "UNPARSED", "hush", "report_of"]

FOLDER = click.Path(path_type=Path)
UNPARSED = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
"""For commands whose options are known only when they run."""


def report_of(folder: Path) -> Path:
    """The report of a run or a cross-validation, written anew."""
    from scanfuse.verbs import report

    return report.write(folder)


def hush(quiet: bool) -> None:
    """With --quiet only warnings are said."""
    if quiet:
        logging.getLogger("scanfuse").setLevel(logging.WARNING)
