"""`scanfuse train`: one command for each system, whose options are the leaves of its configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from scanfuse.cli.shared import FOLDER, UNPARSED, hush, report_of
from scanfuse.errors import UserError

__all__ = ["train"]


@click.command("train", context_settings=UNPARSED)
@click.pass_context
def train(context: click.Context) -> None:
    """Train a system: scanfuse train SYSTEM --data DIR --out RUN.

    \b
    scanfuse train SYSTEM --help        all options of a system
    scanfuse train --from CONFIG.yaml   repeat a run (options may follow)
    scanfuse train --resume RUN         continue a stopped run
    """
    arguments = context.args
    if not arguments or arguments[0] in ("-h", "--help"):
        click.echo(context.get_help())
        return
    name = None if arguments[0].startswith("-") else arguments[0]
    command = _train_command(name or _system_of(arguments))
    command.main(args=arguments[1 if name else 0 :], prog_name=f"scanfuse train {name or ''}", standalone_mode=False)


def _system_of(arguments: list[str]) -> str:
    """The system that the file after --from, or the run or cross-validation after --resume, was made for."""
    from scanfuse import config, run, systems
    from scanfuse.verbs import cross_validation

    def settings(path: str) -> dict[str, Any]:
        return (
            cross_validation.settings(path)
            if cross_validation.is_cross_validation(path)
            else run.open_run(path).config()
        )

    for flag, read in (("--from", config.read_yaml), ("--resume", settings)):
        for position, argument in enumerate(arguments):
            value = argument.removeprefix(f"{flag}=") if argument.startswith(f"{flag}=") else None
            if argument == flag and position + 1 < len(arguments):
                value = arguments[position + 1]
            if value:
                return systems.load(read(value).get("system")).__module__.rpartition(".")[2]
    raise UserError("Name the system first, such as: scanfuse train clinicalfmamba --data DIR --out RUN")


def _train_command(name: str) -> click.Command:
    """The command for one system; its options are the leaves of the system's configuration."""
    from scanfuse import config, systems
    from scanfuse.options import leaves, nested, option_name

    system_type = systems.load(name)
    found = leaves(system_type.Config)
    presets = config.presets(name)
    usual = system_type.default_preset

    def action(
        data: Path | None,
        out: Path | None,
        preset: str | None,
        source: Path | None,
        resume: Path | None,
        quiet: bool,
        **values: str | None,
    ) -> None:
        from scanfuse.verbs import cross_validation
        from scanfuse.verbs import train as verb

        hush(quiet)
        given = nested(found, {leaf.flag: values[_parameter(leaf.flag)] for leaf in found})
        if resume is not None:
            if given or preset or source or out:
                raise UserError("--resume continues a run as it was: give no other options than --data and --quiet.")
            if cross_validation.is_cross_validation(resume):
                _say_folds(cross_validation.resume_folds(resume, data, quiet=quiet), resume, data)
                return
            run = verb.resume(resume, data, quiet=quiet)
        else:
            if data is None or out is None:
                raise UserError(f"The option --{'data' if data is None else 'out'} is missing.")
            if source is not None and preset is not None:
                raise UserError("Give either --preset or --from, not both.")
            if source is not None:
                base = config.read_yaml(source)
            else:
                base = config.preset(name, preset or usual)
            if base.get("system", name) != name:
                raise UserError(f"{source} is a configuration of {base['system']}, not of {name}.")
            every_fold = cross_validation.takes_every_fold(base, given)
            built = config.build(system_type.Config, base, {"system": name}, given)
            if every_fold:
                _say_folds(cross_validation.train_folds(built, data, out, quiet=quiet), out, data)
                return
            run = verb.train(built, data, out, quiet=quiet)
        click.echo(f"Saved in {run.path}, with {report_of(run.path)}.")
        click.echo(f"Next: scanfuse evaluate {run.path} --data {data or 'DIR'}")

    options: list[click.Parameter] = [
        click.Option(["--data"], type=FOLDER, help="folder or manifest.csv with the data"),
        click.Option(["--out"], type=FOLDER, help="run folder to make"),
        click.Option(["--preset"], type=click.Choice(presets), help=f"shipped recipe (default {usual})"),
        click.Option(["--from", "source"], type=FOLDER, help="start from this configuration file"),
        click.Option(["--resume"], type=FOLDER, help="continue this run folder"),
        click.Option(["--quiet"], is_flag=True, help="no progress"),
    ]
    for leaf in found:
        text = f"{leaf.field.description or ''} [{'.'.join(leaf.path[:-1])}; {leaf.kind}]"
        names = [*(f"--{name}" for name in leaf.names), _parameter(leaf.flag)]
        # A switch alone is "true".
        alone: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if leaf.kind == "true|false" else {}
        options.append(click.Option(names, metavar=leaf.kind.upper(), help=text, **alone))
    # Underscores are as good as hyphens, as in every other command.
    alike = {"token_normalize_func": option_name}
    return click.Command(name, context_settings=alike, params=options, callback=action, help=systems.summary(name))


def _say_folds(runs: Sequence[Any], out: Path, data: Path | None) -> None:
    from scanfuse.verbs import cross_validation

    for run in runs:
        report_of(run.path)
    click.echo(cross_validation.next_step(runs, out, data))
    click.echo(f"Report: {report_of(out)}")


def _parameter(flag: str) -> str:
    return "option_" + flag.replace("-", "_")
