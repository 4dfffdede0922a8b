"""`scanfuse data`: check a data set, prepare raw data, make phantoms."""

from pathlib import Path

import click

from scanfuse.cli.shared import UNPARSED
from scanfuse.errors import UserError

__all__ = ["data"]


@click.group("data")
def data() -> None:
    """Check data, prepare raw data, or make phantoms."""


@data.command("check", context_settings=UNPARSED)
@click.argument("words", metavar="SYSTEM PATH [--OPTION VALUE]...", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def _data_check(context: click.Context, words: tuple[str, ...]) -> int:
    """Look for faults in a data set before training on it.

    Give the options on the data that the training will get (--pair CT-MRI, --folds 5, --split-seed 1): then what is
    checked is what is trained on. scanfuse data check SYSTEM --help lists them, and the layouts that the system reads
    with the columns of a manifest.csv of your own.
    """
    from scanfuse.options import nested, pairs, words_and_options
    from scanfuse.verbs.check import check_data, options_on_data, what_is_read

    named, options = words_and_options(words, flags=("help",))
    if "--help" in options or "-h" in named:
        named = [name for name in named if name != "-h"]
        click.echo(f"{context.get_help()}\n\n{what_is_read(named[0] if named else None)}")
        return 0
    if len(named) != 2:
        raise UserError("Name the system and the folder, such as: scanfuse data check xfmamba DIR")
    found = options_on_data(named[0])
    findings = check_data(named[0], nested(found, pairs(options, [leaf.flag for leaf in found])), Path(named[1]))
    for finding in findings:
        click.echo(f"{finding.severity}: {finding.message}")
    errors = sum(finding.severity == "error" for finding in findings)
    click.echo(f"{errors} error(s), {len(findings) - errors} warning(s) in {named[1]}.")
    return 2 if errors else 0


@data.command("synth", context_settings=UNPARSED)
@click.argument("words", metavar="NAME PATH [--OPTION VALUE]...", nargs=-1, type=click.UNPROCESSED)
def _data_synth(words: tuple[str, ...]) -> None:
    """Write a phantom data set in the layout of a published one.

    scanfuse data synth NAME --help lists its options; scanfuse data synth lists the names.
    """
    from scanfuse.verbs import synth

    click.echo(synth.run(words))


@data.command("prepare", context_settings=UNPARSED)
@click.argument("words", metavar="SYSTEM RAW DIR [--OPTION VALUE]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--jobs", type=click.IntRange(0, 1024), default=0, show_default=True, help="processes; 0 = all cores")
def _data_prepare(words: tuple[str, ...], jobs: int) -> int:
    """Turn raw scans into the files that a system is trained on: once, in parallel, and again where it stopped.

    scanfuse data prepare SYSTEM --help lists the options.
    """
    from scanfuse.verbs import prepare

    said, code = prepare.run(words, jobs=jobs)
    click.echo(said)
    return code
