"""The command line: one function per verb. The options of a training are made from the system's configuration."""

import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from scanfuse import __version__
from scanfuse.errors import UserError

__all__ = ["main"]

# Everything heavy is imported inside the verbs: `scanfuse --help` must answer at once.

_FOLDER = click.Path(path_type=Path)
_UNPARSED = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for a mistake of the user, 130 after Ctrl-C."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("scanfuse").setLevel(logging.INFO)
    try:
        outcome = _commands.main(args=arguments, prog_name="scanfuse", standalone_mode=False)
        return int(outcome) if isinstance(outcome, int) else 0
    except click.exceptions.Abort:
        return 130
    except KeyboardInterrupt:
        click.echo("scanfuse: stopped.", err=True)
        return 130
    except click.ClickException as error:
        click.echo(f"scanfuse: {_one_line(error.format_message())}", err=True)
        return 2
    except UserError as error:
        click.echo(f"scanfuse: {_one_line(str(error))}", err=True)
        return 130 if type(error).__name__ == "Interrupted" else 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scanfuse")
def _commands() -> None:
    """Multimodal fusion with selective state-space models (Mamba)."""


@_commands.command("systems")
def _systems() -> None:
    """List the systems."""
    from scanfuse import config, systems

    for name in systems.available():
        click.echo(f"{name:<16} {systems.summary(name)}")
        click.echo(f"{'':<16} presets: {', '.join(config.presets(name))}")


@_commands.command("demo")
@click.argument("system", default="clinicalfmamba")
@click.option("--out", type=_FOLDER, default=Path("demo"), show_default=True, help="folder for everything it makes")
@click.option("--quick", is_flag=True, help="a few steps only: to see that everything works")
def _demo(system: str, out: Path, quick: bool) -> None:
    """Make phantoms, train on them, and compare with plain methods."""
    from scanfuse import demo

    demo.run(system, out, quick=quick)


@_commands.command("doctor")
def _doctor() -> int:
    """Show versions, devices and the scan backend, and run a short self-test."""
    from scanfuse import doctor

    text, well = doctor.report()
    click.echo(text)
    return 0 if well else 1


@_commands.command("bench")
@click.option("--threads", type=int, default=0, help="CPU threads; 0 = leave as it is")
@click.option("--out", type=_FOLDER, default=None, help="also write the table to this Markdown file")
def _bench(threads: int, out: Path | None) -> int:
    """Time the scan backends of this machine side by side."""
    from scanfuse import bench

    return bench.run(threads=threads, out=out)


@_commands.command("train", context_settings=_UNPARSED)
@click.pass_context
def _train(context: click.Context) -> None:
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
    """The system that the file after --from, or the run after --resume, was made for."""
    from scanfuse import config, run

    for flag, read in (("--from", config.read_yaml), ("--resume", lambda path: run.open_run(path).config())):
        for position, argument in enumerate(arguments):
            value = argument.removeprefix(f"{flag}=") if argument.startswith(f"{flag}=") else None
            if argument == flag and position + 1 < len(arguments):
                value = arguments[position + 1]
            if value:
                return str(read(value).get("system"))
    raise UserError("Name the system first, such as: scanfuse train clinicalfmamba --data DIR --out RUN")


def _train_command(name: str) -> click.Command:
    """The command for one system; its options are the leaves of the system's configuration."""
    from scanfuse import config, systems

    config_type = systems.load(name).Config
    leaves = config.leaves(config_type)
    presets = config.presets(name)

    def action(
        data: Path | None,
        out: Path | None,
        preset: str | None,
        source: Path | None,
        resume: Path | None,
        quiet: bool,
        **values: str | None,
    ) -> None:
        from scanfuse import train

        given: dict[str, Any] = {}
        for leaf in leaves:
            value = values[_parameter(leaf.flag)]
            if value is not None:
                here = given
                for part in leaf.path[:-1]:
                    here = here.setdefault(part, {})
                here[leaf.path[-1]] = value.split(",") if leaf.kind == "list" else value
        if resume is not None:
            if given or preset or source or out:
                raise UserError("--resume continues a run as it was: give no other options than --data and --quiet.")
            run = train.resume(resume, data, quiet=quiet)
        else:
            if data is None or out is None:
                raise UserError(f"The option --{'data' if data is None else 'out'} is missing.")
            if source is not None:
                base = config.read_yaml(source)
            else:
                base = config.preset(name, preset or presets[0])
            if base.get("system", name) != name:
                raise UserError(f"{source} is a configuration of {base['system']}, not of {name}.")
            built = config.build(config_type, base, {"system": name}, given)
            run = train.train(built, data, out, quiet=quiet)
        click.echo(f"Saved in {run.path}. Next: scanfuse evaluate {run.path} --data {data or 'DIR'}")

    options: list[click.Parameter] = [
        click.Option(["--data"], type=_FOLDER, help="folder or manifest.csv with the data"),
        click.Option(["--out"], type=_FOLDER, help="run folder to make"),
        click.Option(["--preset"], type=click.Choice(presets), help=f"shipped recipe (default {presets[0]})"),
        click.Option(["--from", "source"], type=_FOLDER, help="start from this configuration file"),
        click.Option(["--resume"], type=_FOLDER, help="continue this run folder"),
        click.Option(["--quiet"], is_flag=True, help="no progress"),
    ]
    for leaf in leaves:
        text = f"{leaf.field.description or ''} [{'.'.join(leaf.path[:-1])}; {leaf.kind}]"
        options.append(click.Option([f"--{leaf.flag}", _parameter(leaf.flag)], metavar=leaf.kind.upper(), help=text))
    return click.Command(name, params=options, callback=action, help=systems.summary(name))


@_commands.command("evaluate")
@click.argument("runs", nargs=-1, required=True, type=_FOLDER)
@click.option("--data", type=_FOLDER, required=True, help="folder or manifest.csv with the data")
@click.option(
    "--on",
    "split",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    show_default=True,
    help="which samples",
)
@click.option("--out", type=_FOLDER, default=None, help="folder for tables and pictures (default RUN/evaluation)")
@click.option("--pictures", type=click.IntRange(0, 50), default=6, show_default=True, help="rows of the gallery")
@click.option("--device", default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="no progress and no table")
def _evaluate(
    runs: tuple[Path, ...], data: Path, split: Any, out: Path | None, pictures: int, device: str, quiet: bool
) -> None:
    """Score one or more runs, and plain baselines, on held-out samples."""
    from scanfuse.evaluate import evaluate, print_table
    from scanfuse.predict import load

    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    predictors = {name: load(run, device=device) for name, run in zip(names, runs, strict=True)}
    folder = out or next(iter(predictors.values())).run.path / "evaluation" / split
    evaluation = evaluate(predictors, data, split=split, out=folder, pictures=pictures, quiet=quiet)
    if not quiet:
        print_table(evaluation)
    click.echo(f"Table, values per sample and pictures are in {folder}.")


@_commands.command("predict", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("run", type=click.Path())
@click.option("--data", type=_FOLDER, default=None, help="a folder or manifest.csv: predict every sample")
@click.option("--out", type=_FOLDER, default=Path("predictions"), show_default=True, help="folder for the results")
@click.option("--device", default="auto", show_default=True)
@click.pass_context
def _predict(context: click.Context, run: str, data: Path | None, out: Path, device: str) -> None:
    """Apply a run to one sample (--mri a.png --ct b.png: one option per input) or to a folder (--data DIR)."""
    from scanfuse.predict import load, predict_folder

    predictor = load(run, device=device)
    inputs = _pairs(context.args, [*predictor.modalities, "data", "out", "device"])
    if data is not None and inputs:
        raise UserError(f"Give either --data or the inputs (--{' --'.join(inputs)}), not both.")
    if data is not None:
        files = predict_folder(predictor, data, out)
    elif inputs:
        files = [predictor.system.save(predictor.predict(**inputs), out)[0]]
    else:
        wanted = " ".join(f"--{name} FILE" for name in predictor.modalities)
        raise UserError(f"Nothing to predict: give {wanted}, or --data DIR.")
    shown = str(files[0]) if len(files) == 1 else f"{len(files)} results in {out}"
    click.echo(f"Wrote {shown}, each with a picture beside its sources.")


@_commands.group("data")
def _data() -> None:
    """Check data, or make phantoms."""


@_data.command("check")
@click.argument("system")
@click.argument("path", type=_FOLDER)
@click.option("--pair", default=None, help="the modalities, such as CT-MRI")
def _data_check(system: str, path: Path, pair: str | None) -> int:
    """Look for faults in a data set before training on it."""
    from scanfuse import config, systems
    from scanfuse.data.check import check

    system_type = systems.load(system)
    base = config.preset(system, config.presets(system)[0])
    built = config.build(system_type.Config, base, {"data": {"pair": pair}} if pair else {})
    findings = check(path, system_type(built).modalities)
    for finding in findings:
        click.echo(f"{finding.severity}: {finding.message}")
    errors = sum(finding.severity == "error" for finding in findings)
    click.echo(f"{errors} error(s), {len(findings) - errors} warning(s) in {path}.")
    return 2 if errors else 0


@_data.command("synth")
@click.argument("name")
@click.argument("path", type=_FOLDER)
@click.option("--cases", type=click.IntRange(1, 10_000), default=24, show_default=True, help="distinct patients")
@click.option("--slices", type=click.IntRange(1, 999), default=4, show_default=True, help="slices of each")
@click.option("--size", type=click.IntRange(32, 1024), default=128, show_default=True, help="side in pixels")
@click.option("--pair", default="CT-MRI", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def _data_synth(name: str, path: Path, cases: int, slices: int, size: int, pair: str, seed: int) -> None:
    """Write a phantom data set in the layout of a published one."""
    from scanfuse.data import phantoms

    phantom = phantoms.load(name)
    phantom.write(path, pair=tuple(pair.split("-")), cases=cases, slices=slices, size=size, seed=seed)
    click.echo(f"Wrote {cases} cases of {slices} slices to {path} in the layout of {name}.")


def _parameter(flag: str) -> str:
    return "option_" + flag.replace("-", "_")


def _pairs(arguments: list[str], known: list[str]) -> dict[str, str]:
    """`--name value` and `--name=value` pairs; an unknown name is refused with the nearest known one."""
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"Unexpected argument {word!r}.")
        name, equals, value = word[2:].partition("=")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean --{near[0]}?" if near else f"known: {', '.join('--' + k for k in known)}."
            raise UserError(f"No such option: --{name}; {hint}")
        if not equals:
            if not rest:
                raise UserError(f"The option --{name} needs a value.")
            value = rest.pop(0)
        found[name] = value
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())
