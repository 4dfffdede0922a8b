"""The command line: one function per verb. The options of a training are made from the system's configuration."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from scanfuse import __version__
from scanfuse.cli.datasets import data
from scanfuse.cli.shared import FOLDER, hush, report_of
from scanfuse.cli.training import train
from scanfuse.errors import UserError

__all__ = ["main"]

# Everything heavy is imported inside the verbs: `scanfuse --help` must answer at once.

_SPLITS = click.Choice(["test", "val", "train", "all"])
_ON = click.option("--on", "split", type=_SPLITS, default="test", show_default=True, help="which samples")
_SLICE = click.option(
    "--slice", "slices", metavar="AXIS:INDEX", help="of volumes and stacks: axial:middle, coronal:40, ..."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for a user's mistake, 130 after Ctrl-C, 143 after SIGTERM."""
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
        return int(getattr(error, "exit_code", 2))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scanfuse")
def _commands() -> None:
    """Multimodal fusion with selective state-space models (Mamba)."""


_commands.add_command(train)
_commands.add_command(data)


@_commands.command("systems")
def _systems() -> None:
    """List the systems."""
    from scanfuse import config, systems

    for name in systems.available():
        click.echo(f"{name:<16} {systems.summary(name)}")
        click.echo(f"{'':<16} presets: {', '.join(config.presets(name))}")


@_commands.command("demo")
@click.argument("system", default="clinicalfmamba")
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="folder for everything it makes")
@click.option("--quick", is_flag=True, help="a few steps only: to see that everything works")
def _demo(system: str, out: Path, quick: bool) -> None:
    """Make phantoms, train on them, and compare with plain methods."""
    from scanfuse.verbs import demo

    demo.run(system, out, quick=quick)


@_commands.command("doctor")
def _doctor() -> int:
    """Show versions, devices and the scan backend, and run a short self-test."""
    from scanfuse.verbs import doctor

    text, well = doctor.report()
    click.echo(text)
    return 0 if well else 1


@_commands.command("bench")
@click.argument("system", required=False)
@click.option("--presets", default="", help="of the system, such as base,tiny; all of them if left out")
@click.option("--size", type=click.IntRange(8, 4096), default=None, help="side of the sample of the system")
@click.option("--device", default=None, help="cpu, cuda, ...: of the system's networks (default cpu)")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="CPU threads; 0 = leave as it is")
@click.option("--out", type=FOLDER, default=None, help="also write the table to this Markdown file")
def _bench(
    system: str | None, presets: str, size: int | None, device: str | None, threads: int, out: Path | None
) -> int:
    """Time the scan backends of this machine side by side, or the networks of a SYSTEM on one sample.

    The table of a system shows what share of the time goes to scans, convolutions and products. Its outputs are
    compared with float64 first.
    """
    if system is None:
        if presets or size or device:
            raise UserError("--presets, --size and --device need a system, such as: scanfuse bench clinicalfmamba")
        from scanfuse.verbs import bench

        return bench.run(threads=threads, out=out)
    from scanfuse.verbs import bench_system

    chosen = tuple(name for name in presets.split(",") if name)
    return bench_system.run(system, presets=chosen, size=size or 0, device=device or "cpu", threads=threads, out=out)


@_commands.command("evaluate", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("words", metavar="RUNS [--SETTING VALUE]...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--data", type=FOLDER, required=True, help="folder or manifest.csv with the data")
@_ON
@click.option("--out", type=FOLDER, default=None, help="folder for tables and pictures (default RUN/evaluation)")
@click.option("--pictures", type=click.IntRange(0, 50), default=6, show_default=True, help="rows of the gallery")
@click.option("--ensemble", is_flag=True, help="also the mean of the runs' probabilities")
@click.option("--each-missing", is_flag=True, help="also with each input missing in turn")
@click.option("--perturb", is_flag=True, help="also with noise, other contrast, slices and values missing")
@click.option("--by", multiple=True, metavar="COLUMN", help="also by subgroup: a column of the data (repeatable)")
@_SLICE
@click.option("--device", default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="no progress and no table")
def _evaluate(
    words: tuple[str, ...],
    data: Path,
    split: Any,
    out: Path | None,
    pictures: int,
    ensemble: bool,
    each_missing: bool,
    perturb: bool,
    by: tuple[str, ...],
    slices: str | None,
    device: str,
    quiet: bool,
) -> None:
    """Score one or more runs, and plain baselines, on held-out samples.

    RUNS may be the folder of a cross-validation: all its folds. On samples that each fold held out for itself, there
    is one column, "out of fold"; on a common test set each fold has one, and with --ensemble their mean too. Settings
    that may be changed when a run is applied can be, such as --window 64; the table says so.
    """
    from scanfuse.options import words_and_options
    from scanfuse.tables import print_table
    from scanfuse.verbs import cross_validation
    from scanfuse.verbs.evaluate import IN_RUN, evaluate
    from scanfuse.verbs.named import adjustments, every_member, load_named

    hush(quiet)
    named, options = words_and_options(words)
    runs = tuple(map(Path, named))
    adjusted = adjustments(every_member(runs), options)
    home = runs[0] if len(runs) == 1 and cross_validation.is_cross_validation(runs[0]) else None
    evaluation = evaluate(
        load_named(every_member(runs), device, slices, adjusted),
        data,
        split=split,
        out=out or IN_RUN,
        home=home,
        pictures=pictures,
        ensemble=ensemble,
        by=by,
        each_missing=each_missing,
        perturbed=perturb,
        quiet=quiet,
    )
    if not quiet:
        print_table(evaluation)
    click.echo(f"Table, values per sample and pictures are in {evaluation.folder}.")
    if out is None:
        click.echo(f"Report: {report_of(home or every_member(runs)[0])}")


@_commands.command("compare")
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--data", type=FOLDER, required=True, help="folder or manifest.csv with the data")
@_ON
@click.option("--out", type=FOLDER, default=None, help="folder for the table, as Markdown and JSON")
@click.option("--device", default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="no progress and no table")
def _compare(runs: tuple[Path, ...], data: Path, split: Any, out: Path | None, device: str, quiet: bool) -> None:
    """Test whether runs differ from the first one: paired, over patients, corrected for several runs.

    RUNS may be folders of cross-validations, each of which scores every sample by the fold that held it out.
    """
    from scanfuse.tables import print_comparisons
    from scanfuse.verbs.compare import compare
    from scanfuse.verbs.named import load_apart

    hush(quiet)
    found = compare(load_apart(runs, device), data, split=split, out=out, quiet=quiet)
    if not quiet:
        print_comparisons(found)
    if out is not None:
        click.echo(f"Wrote {out / 'comparison.md'} and comparison.json.")


@_commands.command("explain")
@click.argument("run", type=click.Path())
@click.option("--data", type=FOLDER, required=True, help="folder or manifest.csv that holds the sample")
@click.option("--id", "sample", required=True, help="id of the sample, as in split.csv or predictions.csv")
@click.option("--label", default=None, help="what to explain (default: the outcome that the sample is called)")
@click.option("--method", type=click.Choice(["gradcam", "hirescam"]), default="gradcam", show_default=True)
@click.option("--out", type=FOLDER, default=Path("explanations"), show_default=True, help="folder for the pictures")
@click.option("--device", default="auto", show_default=True)
def _explain(run: str, data: Path, sample: str, label: str | None, method: Any, out: Path, device: str) -> None:
    """Show where the evidence for a result lies in each input, and what each input contributes."""
    from scanfuse.verbs.explain import explain_sample
    from scanfuse.verbs.predict import load

    for path in explain_sample(load(run, device=device), data, sample, out, label=label, method=method):
        click.echo(f"Wrote {path}")


@_commands.command("report")
@click.argument("run", type=FOLDER)
def _report(run: Path) -> None:
    """Write report.html into a run folder, or that of a cross-validation: one page without a network."""
    from scanfuse.run import open_run
    from scanfuse.verbs import cross_validation

    if not cross_validation.is_cross_validation(run):
        open_run(run)
    click.echo(f"Report: {report_of(run)}")


@_commands.group("import")
def _import() -> None:
    """Turn published weights into this library's form."""


@_import.command("vmamba")
@click.argument("file", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="folder for weights.safetensors and config.yaml")
@click.option(
    "--section",
    type=click.Choice(["auto", "model", "model_ema"]),
    default="auto",
    show_default=True,
    help="which weights of the file",
)
def _import_vmamba(file: Path, out: Path, section: Any) -> None:
    """Read a published VMamba checkpoint of either family (.pth or .safetensors)."""
    from scanfuse.verbs.import_weights import import_vmamba

    click.echo(str(import_vmamba(file, out, section=section)))
    click.echo(f"Wrote {out}. Next: scanfuse train xfmamba --encoder-weights {out} --data DIR --out RUN")


@_import.command("yolov8")
@click.argument("file", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="folder for weights.safetensors and config.yaml")
def _import_yolov8(file: Path, out: Path) -> None:
    """Read a published YOLOv8 detector (a state dict: .pt or .safetensors)."""
    from scanfuse.verbs.import_weights import import_yolov8

    click.echo(str(import_yolov8(file, out)))
    click.echo(f"Wrote {out}. Next: scanfuse train fusionmamba --weights {out} --data DIR --out RUN")


@_commands.command("predict", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("words", metavar="RUNS [--INPUT FILE]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--data", type=FOLDER, default=None, help="a folder or manifest.csv: predict every sample")
@click.option("--out", type=FOLDER, default=Path("predictions"), show_default=True, help="folder for the results")
@click.option("--submission", type=FOLDER, default=None, help="with --data: also the file that a challenge takes")
@click.option("--explain", "explained", is_flag=True, help="of one sample: also heat maps, as scanfuse explain")
@_SLICE
@click.option("--device", default="auto", show_default=True)
def _predict(
    words: tuple[str, ...],
    data: Path | None,
    out: Path,
    submission: Path | None,
    explained: bool,
    slices: str | None,
    device: str,
) -> int:
    """Apply a run to one sample (--mri a.png --ct b.png: one option per input) or to a folder (--data DIR).

    Of inputs whose files belong together by name, folders can be given (--rgb DIR --ir DIR), of those that are frames
    in step, videos. Several runs that can be joined, or the folder of a cross-validation, are an ensemble.
    """
    from scanfuse.options import option_name, pairs, taken_out, words_and_options
    from scanfuse.verbs import predict as verb
    from scanfuse.verbs.named import every_member, load_named

    runs, options = words_and_options(words)
    if not runs:
        raise UserError("Name the run first, such as: scanfuse predict RUN --data DIR")
    paths = every_member(tuple(map(Path, runs))) if any(os.path.exists(run) for run in runs) else []
    if len(paths) > 1:
        predictor: Any = verb.Ensemble(load_named(tuple(paths), device, slices))
    elif len(runs) > 1:
        raise UserError(f"There is no run folder {runs[0]}; `scanfuse train` makes one.")
    else:
        predictor = verb.load(paths[0] if paths else runs[0], device=device)
    adjustable = predictor.adjustable if len(paths) < 2 else ()
    changes, options = taken_out(options, adjustable)
    if changes:  # before the inputs are looked at: a change may rename them
        adjusted = pairs(changes, adjustable)
        predictor = verb.load(paths[0] if paths else runs[0], device=device, adjusted=adjusted)
    inputs = pairs(options, [*predictor.modalities, *adjustable, "data", "out", "device", "slice"])
    if slices is not None and len(paths) < 2:
        predictor.choose_slice(slices)
    flags = [f"--{option_name(name)}" for name in predictor.modalities]
    if data is not None and inputs:
        raise UserError(f"Give either --data or the inputs ({' '.join(flags)}), not both.")
    if submission is not None and data is None:
        raise UserError("--submission needs --data: a challenge takes a score for every case.")
    if data is None and not inputs:
        raise UserError(f"Nothing to predict: give {' '.join(f'{flag} FILE' for flag in flags)}, or --data DIR.")
    if explained and (data is not None or len(paths) > 1):
        raise UserError(
            "--explain is for one sample and one run; of a data set: scanfuse explain RUN --data DIR --id ID"
        )
    if data is not None:
        found = verb.predict_folder(predictor, data, out, quiet=False)
    elif (folders := verb.listed(predictor, inputs)) is not None:
        found = verb.predict_listed(predictor, folders, out, quiet=False)
    else:
        if explained:
            from scanfuse.verbs.explain import explain_one

            # First: it says at once if there is nothing to show.
            panels = explain_one(predictor, inputs, out / "explanations")
        line, files = verb.predict_one(predictor, inputs, out)
        if line:
            click.echo(line)
        files = [*files, *(panels if explained else [])]
        click.echo(f"Wrote {' and '.join(map(str, files))}.")
        return 0
    if submission is not None and data is not None:
        verb.write_submission(predictor, data, found.files[0], submission)
        click.echo(f"Wrote {submission}, to be submitted.")
    if found.replaced:
        click.echo(f"An earlier {found.replaced} was replaced.")
    for failure in found.failures[:1]:
        click.echo(f"{failure.id}: {_one_line(failure.error)}", err=True)
    click.echo(found.summary(out))
    return 2 if found.failures else 0


def _one_line(text: str) -> str:
    return " ".join(text.split())
