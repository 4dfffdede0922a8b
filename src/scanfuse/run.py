"""The run folder: everything that says what was trained, on what, with what, and how well.

config.yaml         the full configuration (repeat with `scanfuse train --from`)
model.safetensors   the best weights by validation
run.json            system, version, digests of the weights and the split, best epoch
split.csv           id, group, split and fingerprint of every sample
history.csv         one row per epoch
environment.json    versions, machine, device, scan backend
checkpoint.pt       the state to continue from (tensors and plain values only)
decision.json       what was fitted on validation, where there is such a thing
fitted.json, fitted.safetensors    what the inputs were prepared with, fitted on training rows alone
evaluation/         tables and pictures that `scanfuse evaluate` wrote
"""

import contextlib
import csv
import difflib
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import filelock
import pandas as pd
import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scanfuse import config as configuration
from scanfuse import pretrained
from scanfuse.data.fingerprint import fingerprints
from scanfuse.data.inputs import Fitted
from scanfuse.data.manifest import Manifest, read_csv
from scanfuse.errors import UserError
from scanfuse.files import atomic_path, remove_abandoned, write_text
from scanfuse.foreign import check_file, foreign, read_json, shown

__all__ = ["CROSS_VALIDATION", "Run", "create_run", "file_digest", "misfits", "new_run", "open_run"]

CROSS_VALIDATION = "cross_validation.json"
"""The file that makes a folder that of a cross-validation, which is none of a run."""

_DESCRIPTION = ("config.yaml", "split.csv", "environment.json", "fitted.json", "fitted.safetensors")
"""What a run folder holds before anything was learned."""
_BEFORE_CHECKPOINT = ("model.safetensors", "run.json", "history.csv")
"""What is written before the first checkpoint, without which a training cannot go on."""
_LOCK = ".lock"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run folder on disk; see the module's docstring for what it holds."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def weights_file(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def checkpoint_file(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def split_file(self) -> Path:
        return self.path / "split.csv"

    def config(self) -> dict[str, Any]:
        """The configuration as nested dictionaries."""
        return configuration.read_yaml(self.config_file)

    def record(self) -> dict[str, Any]:
        """The content of run.json."""
        if not os.path.lexists(self.path / "run.json"):
            further = (
                f"Continue it with: scanfuse train --resume {self.path}"
                if self.checkpoint_file.exists()
                else "Train again with the same command."
            )
            raise UserError(
                f"{self.path} has no run.json: the training did not reach its first validation. {further}"
            )
        return read_json(self.path / "run.json")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training in the folder while the block runs.

        A process that is killed leaves the file but not the lock.

        Raises:
            UserError: another process does so already, or the folder cannot be written.
        """
        lock = filelock.FileLock(self.path / _LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(
                f"Another process is training in {shown(self.path)}: wait until it ends, or stop it first."
            ) from None
        except OSError as error:
            raise UserError(f"Cannot write {shown(self.path / _LOCK)}: {error.strerror or error}.") from None
        try:
            yield
        finally:
            lock.release()

    def describe(self, config: BaseModel, manifest: Manifest, fitted: Fitted, environment: Mapping[str, Any]) -> None:
        """Writes what is known before the training; the configuration last, as without it a folder is no run."""
        if fitted.values:
            self.save_json("fitted.json", fitted.values)
        if fitted.tensors:
            with atomic_path(self.path / "fitted.safetensors") as temporary:
                _save_tensors(fitted.tensors, temporary)
        self.save_json("environment.json", dict(environment))
        replace(manifest, table=manifest.table.assign(fingerprint=fingerprints(manifest))).write(self.split_file)
        configuration.write_yaml(config, self.config_file)

    @property
    def is_finished(self) -> bool:
        """True for a run that reached its end."""
        # Runs of earlier versions say so by what they decide by.
        record = self.record() if (self.path / "run.json").is_file() else {}
        return bool(record.get("finished", (self.path / "decision.json").is_file()))

    def finish(self, fitted: Mapping[str, Any] | None) -> None:
        """Stores what was fitted on validation and marks the run as finished."""
        if fitted is not None:
            self.save_json("decision.json", dict(fitted))
        self.save_json("run.json", {**self.record(), "finished": True})

    def fitted_on_validation(self) -> dict[str, Any] | None:
        """What `finish` stored; None for nothing."""
        path = self.path / "decision.json"
        return read_json(path) if path.is_file() else None

    def load_fitted(self) -> Fitted:
        """What the inputs were prepared with; empty where nothing was fitted."""
        values, tensors = self.path / "fitted.json", self.path / "fitted.safetensors"
        with foreign(tensors, advice="restore it, or train again"):
            return Fitted(
                read_json(values) if values.is_file() else {}, dict(load_file(tensors)) if tensors.is_file() else {}
            )

    def remove_if_empty_handed(self) -> None:
        """Removes the description of a run that failed before anything was learned: it would only be in the way."""
        if self.checkpoint_file.exists() or self.weights_file.exists():
            return
        for name in (*_DESCRIPTION, "history.csv", _LOCK):
            (self.path / name).unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def drop_checkpoint(self) -> None:
        """Removes the state of a training that cannot be continued to any end."""
        self.checkpoint_file.unlink(missing_ok=True)

    def split(self) -> pd.DataFrame:
        """The samples that the run was given: columns id, group and split, among others."""
        table = read_csv(self.split_file)[1]
        missing = [name for name in ("id", "group", "split") if name not in table]
        if missing:
            raise UserError(f"{self.split_file} has no column {', '.join(missing)}: restore it, or train again.")
        return table

    def split_notes(self) -> tuple[str, ...]:
        """What a reader of the run's results must know of its split, such as "leaky: ..."."""
        return read_csv(self.split_file)[0]

    def save_json(self, name: str, content: dict[str, Any]) -> None:
        write_text(self.path / name, json.dumps(content, indent=2, sort_keys=False) + "\n")

    def save_history(self, rows: list[dict[str, float]]) -> None:
        """Writes history.csv whole; columns are the union of all rows' keys in order of appearance."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / "history.csv", text.getvalue())

    def save_weights(self, state: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Writes the weights, and run.json with their digest.

        run.json comes first and names the weights that it replaces, so that a run that is killed in between has
        weights and a record that fit.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        replaced = {}
        if self.weights_file.is_file():
            replaced = {"replaces": {"weights_sha256": file_digest(self.weights_file)}}
        with atomic_path(self.weights_file) as temporary:
            _save_tensors(tensors, temporary)
            record = {**record, "weights_sha256": file_digest(temporary)}
            if replaced:
                self.save_json("run.json", {**record, **replaced})
        self.save_json("run.json", record)

    def load_weights(self) -> dict[str, Tensor]:
        """The best weights, after their digest was compared with run.json.

        Raises:
            UserError: the file is missing, damaged, not the one that this run wrote, or has values that are not
                finite.
        """
        if not os.path.lexists(self.weights_file):
            raise UserError(f"{self.weights_file} is missing: restore it, or train again.")
        check_file(self.weights_file, "file of weights")
        record = self.record()
        replaced = record.get("replaces")
        with foreign(self.weights_file, advice="restore it, or train again"):
            digest = file_digest(self.weights_file)
            if isinstance(replaced, dict) and digest == replaced.get("weights_sha256"):
                _log.warning(
                    "%s: the training was killed while it saved; these are the weights of an earlier epoch than "
                    "run.json says. Continue with: scanfuse train --resume %s",
                    self.path,
                    self.path,
                )
            elif digest != record.get("weights_sha256"):
                raise UserError(
                    f"{self.weights_file} was changed after the training (its SHA-256 differs from run.json): "
                    "restore the original file, or train again."
                )
            weights = dict(load_file(self.weights_file))
            wrong = [
                name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()
            ]
        if wrong:
            raise UserError(
                f"{self.weights_file} holds values that are not finite, in {wrong[0][:80]}: train again, with a "
                "lower --lr if the training diverged."
            )
        return weights

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        with atomic_path(self.checkpoint_file) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:
                # torch reports a full disk as a RuntimeError of its zip writer.
                raise OSError(f"the checkpoint was not written whole ({_first_line(error)})") from error

    def load_checkpoint(self) -> dict[str, Any]:
        """The state to continue from.

        Raises:
            UserError: the file is missing, damaged, or holds more than tensors and plain values.
        """
        if not os.path.lexists(self.checkpoint_file):
            raise UserError(f"{self.checkpoint_file} is missing: there is nothing to continue from.")
        check_file(self.checkpoint_file, "checkpoint")
        with foreign(self.checkpoint_file, advice="restore it, or train again"):
            try:
                content = torch.load(self.checkpoint_file, map_location="cpu", weights_only=True)
            except UnpicklingError as error:
                raise UserError(
                    f"{self.checkpoint_file} is damaged, or holds Python objects besides tensors and plain values, "
                    "which could run code when loaded and which no training writes: restore it, or train again."
                ) from error
        if not isinstance(content, dict):
            raise UserError(
                f"{self.checkpoint_file} holds a {type(content).__name__}, not the state of a training: restore it, "
                "or train again."
            )
        return content


def create_run(
    path: str | Path, config: BaseModel, manifest: Manifest, fitted: Fitted, environment: Mapping[str, Any]
) -> Run:
    """A new run folder with the description of a training, which is then written to it; see `new_run`."""
    with new_run(path) as run:
        run.describe(config, manifest, fitted, environment)
    return run


@contextlib.contextmanager
def new_run(path: str | Path) -> Iterator[Run]:
    """A run folder for a new training, locked while the block runs; removed if the block ends with an error.

    A folder in which a training was killed before its first checkpoint is emptied: it can be neither continued nor
    of any use.

    Raises:
        UserError: the folder holds something else already, or cannot be made, or another process trains in it.
    """
    run = Run(Path(path))
    with contextlib.ExitStack() as stack:
        try:
            _left_behind(run)  # before the lock, which would leave a file in a folder that is somebody's
            run.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(run.locked())
            left = _left_behind(run)  # another process may have been quicker
            if left & set(_BEFORE_CHECKPOINT):
                _log.warning("%s: an earlier training was killed before its first checkpoint; it is replaced.", path)
            for name in left:
                (run.path / name).unlink()
        except OSError as error:
            raise UserError(f"Cannot create {shown(path)}: {error.strerror}.") from None
        except ValueError:
            raise UserError(f"Cannot create {shown(path)}: a path holds no NUL character.") from None
        try:
            yield run
        except UserError:
            run.remove_if_empty_handed()
            raise


def _left_behind(run: Run) -> set[str]:
    """Names of the files that a killed training has left in a folder that is otherwise empty.

    Raises:
        UserError: it holds something else, such as a run with results.
    """
    if not os.path.lexists(run.path):
        return set()
    if run.path.is_dir():
        remove_abandoned(run.path)
        inside = {entry.name for entry in run.path.iterdir()} - {_LOCK}
        if inside <= {*_DESCRIPTION, *_BEFORE_CHECKPOINT} and (
            "run.json" not in inside or run.record().get("finished") is False
        ):
            return inside
    raise UserError(
        f"{shown(run.path)} exists already and is not empty: choose another --out, or continue with "
        f"--resume {shown(run.path)}"
    )


def open_run(path: str | Path) -> Run:
    """An existing run folder; or one that ships with the package, `pretrained/NAME`, if there is no such folder.

    Raises:
        UserError: it is not one.
    """
    run = Run(Path(path))
    if not os.path.isdir(run.path):
        inside = pretrained.shipped(path)
        if inside is not None:
            return Run(inside)
        if Path(path).as_posix().startswith(pretrained.PREFIX):
            raise UserError(f"There are no weights {shown(path)}; there are {', '.join(pretrained.names())}.")
        raise UserError(f"There is no run folder {shown(path)}; {_near(run.path) or '`scanfuse train` makes one.'}")
    if os.path.lexists(run.path / CROSS_VALIDATION):
        raise UserError(
            f"{shown(path)} is a cross-validation: name one of its runs, such as {shown(run.path / 'fold-0')}"
        )
    if not os.path.lexists(run.config_file):
        raise UserError(f"{shown(path)} is not a run folder: it has no config.yaml.")
    return run


def _near(path: Path) -> str:
    """A question for a run folder of nearly that name, if there is one."""
    try:
        others = [each.parent.name for each in path.parent.glob("*/config.yaml")]
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(path.name, others, n=1)
    return f"did you mean {shown(path.with_name(near[0]))}?" if near else ""


def misfits(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Names of weights that are missing, of another shape than expected, or not expected at all."""
    wrong = [name for name in expected if name not in weights or weights[name].shape != expected[name].shape]
    return wrong + [name for name in weights if name not in expected]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise OSError(f"the weights were not written whole ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
