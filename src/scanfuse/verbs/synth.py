"""`scanfuse data synth`: a made-up data set in the layout of a published one."""

import time
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
    started = time.perf_counter()
    module.write(Path(named[1]), settings)
    facts = module.FACTS
    done = (
        f"Wrote {facts.count(settings)} {facts.counted} to {named[1]} in the layout of {named[0]}, "
        f"in {time.perf_counter() - started:.0f} s."
    )
    usual = facts.count(module.Options())
    if facts.trained and facts.count(settings) < usual:
        return f"{done} To learn from they are few: {facts.trained} needs {usual}."
    return f"{done} {facts.trained}".strip()
