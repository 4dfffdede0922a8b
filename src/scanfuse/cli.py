"""The command line: one function per verb. The options of a training are made from the system's configuration."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from scanfuse import __version__
from scanfuse.arguments import nested, pairs, words_and_options
from scanfuse.errors import UserError

__all__ = ["main"]

# Everything heavy is imported inside the verbs: `scanfuse --help` must answer at once.

_FOLDER = click.Path(path_type=Path)
_ON = click.option(
    "--on",
    "split",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    show_default=True,
    help="which samples",
)
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
    """The system that the file after --from, or the run or cross-validation after --resume, was made for."""
    from scanfuse import config, cross_validation, run

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
                return str(read(value).get("system"))
    raise UserError("Name the system first, such as: scanfuse train clinicalfmamba --data DIR --out RUN")


def _train_command(name: str) -> click.Command:
    """The command for one system; its options are the leaves of the system's configuration."""
    from scanfuse import config, systems

    system_type = systems.load(name)
    config_type = system_type.Config
    leaves = config.leaves(config_type)
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
        from scanfuse import cross_validation, train

        given = nested(leaves, {leaf.flag: values[_parameter(leaf.flag)] for leaf in leaves})
        if resume is not None:
            if given or preset or source or out:
                raise UserError("--resume continues a run as it was: give no other options than --data and --quiet.")
            if cross_validation.is_cross_validation(resume):
                runs = cross_validation.resume_folds(resume, data, quiet=quiet)
                click.echo(cross_validation.next_step(runs, resume, data))
                return
            run = train.resume(resume, data, quiet=quiet)
        else:
            if data is None or out is None:
                raise UserError(f"The option --{'data' if data is None else 'out'} is missing.")
            if source is not None:
                base = config.read_yaml(source)
            else:
                base = config.preset(name, preset or usual)
            if base.get("system", name) != name:
                raise UserError(f"{source} is a configuration of {base['system']}, not of {name}.")
            every_fold = cross_validation.takes_every_fold(base, given)
            built = config.build(config_type, base, {"system": name}, given)
            if every_fold:
                runs = cross_validation.train_folds(built, data, out, quiet=quiet)
                click.echo(cross_validation.next_step(runs, out, data))
                return
            run = train.train(built, data, out, quiet=quiet)
        click.echo(f"Saved in {run.path}, with {_report_of(run)}.")
        click.echo(f"Next: scanfuse evaluate {run.path} --data {data or 'DIR'}")

    options: list[click.Parameter] = [
        click.Option(["--data"], type=_FOLDER, help="folder or manifest.csv with the data"),
        click.Option(["--out"], type=_FOLDER, help="run folder to make"),
        click.Option(["--preset"], type=click.Choice(presets), help=f"shipped recipe (default {usual})"),
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
@_ON
@click.option("--out", type=_FOLDER, default=None, help="folder for tables and pictures (default RUN/evaluation)")
@click.option("--pictures", type=click.IntRange(0, 50), default=6, show_default=True, help="rows of the gallery")
@click.option("--ensemble", is_flag=True, help="also the mean of the runs' probabilities")
@click.option("--by", multiple=True, metavar="COLUMN", help="also by subgroup: a column of the data (repeatable)")
@click.option("--device", default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="no progress and no table")
def _evaluate(
    runs: tuple[Path, ...],
    data: Path,
    split: Any,
    out: Path | None,
    pictures: int,
    ensemble: bool,
    by: tuple[str, ...],
    device: str,
    quiet: bool,
) -> None:
    """Score one or more runs, and plain baselines, on held-out samples.

    RUNS may be the folder of a cross-validation: all its folds. On samples that each fold held out for itself, there
    is one column, "out of fold"; on a common test set each fold has one, and with --ensemble their mean too.
    """
    from scanfuse.evaluate import evaluate, is_cross_validation, print_table

    predictors = _loaded(_members(runs), device)
    kind = "ensemble-" if ensemble else "out-of-fold-" if is_cross_validation(predictors, split) else ""
    folder = out or next(iter(predictors.values())).run.path / "evaluation" / f"{kind}{split}"
    evaluation = evaluate(
        predictors, data, split=split, out=folder, pictures=pictures, ensemble=ensemble, by=by, quiet=quiet
    )
    if not quiet:
        print_table(evaluation)
    click.echo(f"Table, values per sample and pictures are in {folder}.")
    if out is None:
        click.echo(f"Report: {_report_of(next(iter(predictors.values())).run)}")


@_commands.command("compare")
@click.argument("runs", nargs=-1, required=True, type=_FOLDER)
@click.option("--data", type=_FOLDER, required=True, help="folder or manifest.csv with the data")
@_ON
@click.option("--out", type=_FOLDER, default=None, help="folder for the table, as Markdown and JSON")
@click.option("--device", default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="no progress and no table")
def _compare(runs: tuple[Path, ...], data: Path, split: Any, out: Path | None, device: str, quiet: bool) -> None:
    """Test whether runs differ from the first one: paired, over patients, corrected for several runs."""
    from scanfuse.comparison import compare, print_comparisons

    found = compare(_loaded(runs, device), data, split=split, out=out, quiet=quiet)
    if not quiet:
        print_comparisons(found)
    if out is not None:
        click.echo(f"Wrote {out / 'comparison.md'} and comparison.json.")


@_commands.command("explain")
@click.argument("run", type=click.Path())
@click.option("--data", type=_FOLDER, required=True, help="folder or manifest.csv that holds the study")
@click.option("--id", "study", required=True, help="id of the study, as in split.csv or predictions.csv")
@click.option("--label", default=None, help="what to explain (default: the outcome that the study is called)")
@click.option("--method", type=click.Choice(["gradcam", "hirescam"]), default="gradcam", show_default=True)
@click.option("--out", type=_FOLDER, default=Path("explanations"), show_default=True, help="folder for the pictures")
@click.option("--device", default="auto", show_default=True)
def _explain(run: str, data: Path, study: str, label: str | None, method: Any, out: Path, device: str) -> None:
    """Show where the evidence for a result lies in each view, and what each view contributes."""
    from scanfuse.explanation import explain_study
    from scanfuse.predict import load

    panels = explain_study(load(run, device=device), data, study, out, label=label, method=method)
    for path in panels:
        click.echo(f"Wrote {path}")


@_commands.command("report")
@click.argument("run", type=_FOLDER)
def _report(run: Path) -> None:
    """Write report.html into a run folder: training, splits, tables and plots on one page without a network."""
    from scanfuse.run import open_run

    click.echo(f"Report: {_report_of(open_run(run))}")


@_commands.group("import")
def _import() -> None:
    """Turn published weights into this library's form."""


@_import.command("vmamba")
@click.argument("file", type=_FOLDER)
@click.option("--out", type=_FOLDER, required=True, help="folder for weights.safetensors and config.yaml")
@click.option(
    "--section",
    type=click.Choice(["auto", "model", "model_ema"]),
    default="auto",
    show_default=True,
    help="which weights of the file",
)
def _import_vmamba(file: Path, out: Path, section: Any) -> None:
    """Read a published VMamba checkpoint of either family (.pth or .safetensors)."""
    from scanfuse.import_weights import import_vmamba

    click.echo(str(import_vmamba(file, out, section=section)))
    click.echo(f"Wrote {out}. Next: scanfuse train xfmamba --encoder-weights {out} --data DIR --out RUN")


@_commands.command("predict", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("words", metavar="RUNS [--INPUT FILE]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--data", type=_FOLDER, default=None, help="a folder or manifest.csv: predict every sample")
@click.option("--out", type=_FOLDER, default=Path("predictions"), show_default=True, help="folder for the results")
@click.option("--device", default="auto", show_default=True)
def _predict(words: tuple[str, ...], data: Path | None, out: Path, device: str) -> None:
    """Apply a run to one sample (--mri a.png --ct b.png: one option per input) or to a folder (--data DIR).

    Several classifying runs, or the folder of a cross-validation, are an ensemble: the mean of their probabilities.
    """
    from scanfuse import systems
    from scanfuse.predict import Ensemble, load, predict_folder

    runs, options = words_and_options(words)
    if not runs:
        raise UserError("Name the run first, such as: scanfuse predict RUN --data DIR")
    paths = _members(tuple(map(Path, runs))) if any(Path(run).exists() for run in runs) else []
    if len(paths) > 1:
        predictor: Any = Ensemble(_loaded(tuple(paths), device))
    elif len(runs) > 1:
        raise UserError(f"There is no run folder {runs[0]}; `scanfuse train` makes one.")
    else:
        predictor = load(paths[0] if paths else runs[0], device=device)
    inputs = pairs(options, [*predictor.modalities, "data", "out", "device"])
    if data is not None and inputs:
        raise UserError(f"Give either --data or the inputs (--{' --'.join(inputs)}), not both.")
    with_pictures = not isinstance(predictor, Ensemble) and not isinstance(predictor.system, systems.Classifier)
    if data is not None:
        files = predict_folder(predictor, data, out)
    elif not inputs:
        wanted = " ".join(f"--{name} FILE" for name in predictor.modalities)
        raise UserError(f"Nothing to predict: give {wanted}, or --data DIR.")
    elif isinstance(predictor, Ensemble):
        result, each = predictor.predict(**inputs)
        click.echo(f"{result.id}: {predictor.describe(result, each)}")
        files = [predictor.save(result, each, out)]
    else:
        result = predictor.predict(**inputs)
        if not with_pictures:
            click.echo(f"{result.id}: {predictor.system.job.describe(result)}")
        files = [predictor.system.save(result, out)[0]]
    shown = str(files[0]) if len(files) == 1 else f"{len(files)} results in {out}"
    click.echo(f"Wrote {shown}, each with a picture beside its sources." if with_pictures else f"Wrote {shown}.")


@_commands.group("data")
def _data() -> None:
    """Check data, or make phantoms."""


@_data.command("check", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("words", metavar="SYSTEM PATH [--OPTION VALUE]...", nargs=-1, type=click.UNPROCESSED)
def _data_check(words: tuple[str, ...]) -> int:
    """Look for faults in a data set before training on it.

    Give the options on the data that the training will get (--pair CT-MRI, --folds 5, --split-seed 1): then what is
    checked is what is trained on.
    """
    from scanfuse import config, systems
    from scanfuse.data.check import Finding

    named, options = words_and_options(words)
    if len(named) != 2:
        raise UserError("Name the system and the folder, such as: scanfuse data check xfmamba DIR")
    system_type: Any = systems.load(named[0])
    path = Path(named[1])
    leaves = [leaf for leaf in config.leaves(system_type.Config) if leaf.path[0] in ("data", "task", "folds")]
    given = nested(leaves, pairs(options, [leaf.flag for leaf in leaves]))
    built: Any = config.build(system_type.Config, config.preset(named[0], "tiny"), given)
    try:
        # The labels, by which folds are made alike, come from the data.
        findings = system_type(system_type.adapt(built, path) if hasattr(system_type, "adapt") else built).data.check(
            path
        )
    except UserError as error:
        findings = [Finding("error", "layout", str(error))]
    for finding in findings:
        click.echo(f"{finding.severity}: {finding.message}")
    errors = sum(finding.severity == "error" for finding in findings)
    click.echo(f"{errors} error(s), {len(findings) - errors} warning(s) in {path}.")
    return 2 if errors else 0


@_data.command("synth")
@click.argument("name")
@click.argument("path", type=_FOLDER)
@click.option("--cases", "--patients", "cases", type=click.IntRange(1, 10_000), help="distinct patients")
@click.option("--slices", type=click.IntRange(1, 999), help="slices of each (harvard)")
@click.option("--size", type=click.IntRange(32, 2048), help="side in pixels")
@click.option("--pair", help="two modalities, such as CT-MRI (harvard)")
@click.option("--seed", type=int, default=0, show_default=True)
def _data_synth(
    name: str, path: Path, cases: int | None, slices: int | None, size: int | None, pair: str | None, seed: int
) -> None:
    """Write a phantom data set in the layout of a published one: harvard, mura, chexpert, cbis_ddsm."""
    from scanfuse import config
    from scanfuse.data import synthetic

    module = synthetic.load(name)
    given = {module.FACTS.counted: cases, "slices": slices, "size": size, "pair": pair, "seed": seed}
    given = {option: value for option, value in given.items() if value is not None}
    for option in given:
        if option not in module.Options.model_fields:
            raise UserError(f"The phantoms of {name} have no --{option}.")
    options: Any = config.build(module.Options, given)
    module.write(path, options)
    slices_too = f" of {options.slices} slices" if hasattr(options, "slices") else ""
    click.echo(f"Wrote {module.FACTS.count(options)} patients{slices_too} to {path} in the layout of {name}.")


def _loaded(runs: tuple[Path, ...], device: str) -> dict[str, Any]:
    """Predictors by the name of their folder, or by the whole path where two folders share a name."""
    from scanfuse.predict import load

    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    if len(set(names)) < len(names):
        raise UserError("The same run was given twice.")
    return {name: load(run, device=device) for name, run in zip(names, runs, strict=True)}


def _members(runs: tuple[Path, ...]) -> tuple[Path, ...]:
    """The runs, with the folds in place of the folder of a cross-validation."""
    from scanfuse.cross_validation import members

    return tuple(member for run in runs for member in members(run))


def _report_of(run: Any) -> Path:
    """The report of a run folder, written anew."""
    from scanfuse import report

    return report.write(run)


def _parameter(flag: str) -> str:
    return "option_" + flag.replace("-", "_")


def _one_line(text: str) -> str:
    return " ".join(text.split())
