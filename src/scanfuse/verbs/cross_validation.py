"""A cross-validation: one run for every fold, in one folder, which can be stopped and continued.

cross_validation.json   the number of folds, the settings that they share, and where the data lie
fold-0, fold-1, ...     the runs, numbered as `--fold` does

A fold that is finished is kept, one that was stopped is continued, the others are trained.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scanfuse import config as configuration
from scanfuse import systems
from scanfuse.errors import UserError
from scanfuse.files import write_text
from scanfuse.foreign import read_json
from scanfuse.run import CROSS_VALIDATION, Run, open_run
from scanfuse.verbs.stopping import Interrupted, stop_on_signals
from scanfuse.verbs.train import resume, train

__all__ = [
    "is_cross_validation",
    "members",
    "resume_folds",
    "settings",
    "train_folds",
]

_log = logging.getLogger(__name__)


def train_folds(config: Any, data: str | Path, out: str | Path, *, quiet: bool = False) -> list[Run]:
    """Trains every fold, or goes on where an earlier call with the same settings ended; returns the runs.

    Args:
        config: the `Config` of a system with a section `folds`; its `fold` is not used.
        data: the folder (or manifest file) with the data.
        out: folder of the cross-validation.
        quiet: no progress.

    Raises:
        UserError: a folder that holds something else, and whatever a training refuses.
    """
    out = Path(out)
    wanted = _shared(config.model_dump(mode="json"))
    if is_cross_validation(out):
        changed = _differences(settings(out), wanted)
        if changed:
            raise UserError(
                f"{out} is a cross-validation with other settings ({changed[0]}): choose another --out, or continue "
                f"it as it is with --resume {out}"
            )
        return _train(out, config, Path(data), quiet)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already and is not empty: choose another --out.")
    content = {"folds": config.folds.folds, "data": str(Path(data).absolute()), "settings": wanted}
    try:
        write_text(out / CROSS_VALIDATION, json.dumps(content, indent=2) + "\n")
        return _train(out, config, Path(data), quiet)
    except UserError:
        # What fails before anything was learned leaves nothing in the way of the next try.
        if not any(out.glob("fold-*")):
            (out / CROSS_VALIDATION).unlink(missing_ok=True)
            out.rmdir()
        raise


def resume_folds(path: str | Path, data: str | Path | None = None, *, quiet: bool = False) -> list[Run]:
    """Continues a cross-validation with its own settings; returns all runs.

    Args:
        path: its folder.
        data: where the data lie now, if they were moved.
        quiet: no progress.
    """
    content = settings(path)
    system_type = systems.load(content.get("system"))
    source = Path(data) if data is not None else Path(str(_record(path)["data"]))
    return _train(Path(path), configuration.build(system_type.Config, content), source, quiet)


def is_cross_validation(path: str | Path) -> bool:
    """True for the folder of a cross-validation."""
    return (Path(path) / CROSS_VALIDATION).is_file()


def settings(path: str | Path) -> dict[str, Any]:
    """What the folds of a cross-validation share: their configuration without the number of the fold."""
    return dict(_record(path)["settings"])


def members(path: str | Path) -> list[Path]:
    """The runs of a cross-validation in order; any other path alone.

    Raises:
        UserError: a fold is not finished.
    """
    path = Path(path)
    if not is_cross_validation(path):
        return [path]
    folders = [path / f"fold-{number}" for number in range(int(_record(path)["folds"]))]
    open_ones = [folder.name for folder in folders if not is_finished(folder)]
    if open_ones:
        raise UserError(
            f"{path} is not finished ({', '.join(open_ones)}): continue with scanfuse train --resume {path}, or name "
            "the runs one by one."
        )
    return folders


def takes_every_fold(base: dict[str, Any], given: dict[str, Any]) -> bool:
    """Whether a training is of all folds; takes `fold: all`, which is no number, out of the settings.

    It is with `--folds K` alone, with `--fold all`, and with a file that names the folds but not the fold.

    Args:
        base: settings of a recipe or a file.
        given: those of the command line.

    Raises:
        UserError: all folds are wanted, but there is no number of them.
    """
    asked, written = given.get("folds", {}), base.get("folds", {})
    fold = asked.get("fold", "all" if "folds" in asked else written.get("fold", "all"))
    if fold != "all" or str(asked.get("folds", written.get("folds", 0))) == "0":
        if "fold" in asked and str(asked.get("folds", written.get("folds", 0))) == "0":
            raise UserError(f"--fold {asked['fold']} needs --folds K, the number of parts.")
        if "all" in (asked.get("fold"), written.get("fold")):
            raise UserError("--fold all needs --folds K, the number of parts.")
        return False
    for section in (asked, written):
        section.pop("fold", None)
    return True


def next_step(runs: Sequence[Run], path: Path, data: Path | None) -> str:
    """What has been trained, and the commands that evaluate it."""
    tested = []
    for run in runs:
        table = run.split()
        tested.append(set(table.loc[table["split"] == "test", "id"]))
    verb = f"scanfuse evaluate {path} --data {data or _record(path)['data']}"
    if all(each == tested[0] for each in tested):
        return (
            f"{len(runs)} folds are in {path}. Next, on the test samples: {verb} --ensemble; "
            f"on all others, each by the fold that held it out: {verb} --on val"
        )
    return f"{len(runs)} folds are in {path}. Next, each sample by the fold that held it out: {verb}"


def _train(out: Path, config: Any, data: Path, quiet: bool) -> list[Run]:
    number = config.folds.folds
    runs: list[Run] = []
    again = f"Continue with: scanfuse train --resume {out}"
    with stop_on_signals() as stop:
        for fold in range(number):
            if stop:
                raise stop.interrupted(f"Stopped before fold {fold}. {again}")
            one = config.model_copy(update={"folds": config.folds.model_copy(update={"fold": fold})})
            try:
                runs.append(_fold(one, out / f"fold-{fold}", data, f"Fold {fold} (of 0 to {number - 1})", quiet))
            except Interrupted as stopped:
                text = f"Stopped in fold {fold}; the state is saved. {again}"
                raise Interrupted(text, stopped.exit_code) from None
            except UserError as error:
                raise UserError(f"Fold {fold}: {error}") from None
    return runs


def _fold(config: Any, path: Path, data: Path, name: str, quiet: bool) -> Run:
    """The run of one fold: kept, continued or trained."""
    if is_finished(path):
        _say(f"{name} is finished.", quiet)
        return _kept(path, data)
    if (path / "checkpoint.pt").is_file():
        _say(f"{name} is continued.", quiet)
        return resume(path, data, quiet=quiet)
    _say(f"{name} is trained.", quiet)
    return train(config, data, path, quiet=quiet)


def is_finished(path: Path) -> bool:
    """True for a run folder whose training reached its end."""
    return path.is_dir() and Run(path).is_finished


def _kept(path: Path, data: Path) -> Run:
    """A finished run, if the data still give its split: else its samples would not match those of the other folds."""
    run = open_run(path)
    system_type = systems.load(run.config().get("system"))
    manifest = systems.build(configuration.build(system_type.Config, run.config())).data.open(data)
    if manifest.digest != run.record().get("split_digest"):
        raise UserError(f"{data} gives another split than the one that {path} was trained on; use the same files.")
    return run


def _record(path: str | Path) -> dict[str, Any]:
    file = Path(path) / CROSS_VALIDATION
    content = read_json(file)
    lacking = [name for name in ("folds", "data", "settings") if name not in content]
    if lacking:
        raise UserError(f"{file} lacks {', '.join(lacking)}: it is no record of a cross-validation; restore it.")
    return content


def _shared(content: dict[str, Any]) -> dict[str, Any]:
    folds = {name: value for name, value in content["folds"].items() if name != "fold"}
    return content | {"folds": folds}


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Settings that differ, as "train.epochs: 1, now 2"."""
    found = []
    for name in dict.fromkeys([*old, *new]):
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differences(before, now, f"{prefix}{name}.")
        elif before != now:
            found.append(f"{prefix}{name}: {before}, now {now}")
    return found


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        _log.info(text)
