"""`scanfuse data synth`: a made-up data set in the layout of a published one."""

from collections.abc import Sequence
from pathlib import Path

from scanfuse import config as configuration
from scanfuse.data import synthetic
from scanfuse.errors import UserError
from scanfuse.options import leaves, nested, pairs, words_and_options

__all__ = ["run"]


def run(words: Sequence[str]) -> str:
    """Writes what the words ask for; returns what to tell the user, or the help that they ask for."""
    named, options = words_and_options(words, flags=("help",))
    if not named:
        return f"Name one of {', '.join(synthetic.names())} and a folder: scanfuse data synth mura DIR --seed 1"
    module = synthetic.load(named[0])
    found = leaves(module.Options)
    if "--help" in options or "-h" in named:
        lines = [
            f"  --{leaf.flag} {leaf.kind.upper()}  {leaf.field.description} [{leaf.field.default}]" for leaf in found
        ]
        return "\n".join([f"scanfuse data synth {named[0]} DIR", *lines])
    if len(named) != 2:
        raise UserError(f"Name the folder too, such as: scanfuse data synth {named[0]} DIR")
    given = nested(found, pairs(options, [leaf.flag for leaf in found]))
    settings = configuration.build(module.Options, given)
    module.write(Path(named[1]), settings)
    return module.told(settings, Path(named[1]))
