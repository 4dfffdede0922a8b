"""The run folder: everything that says what was trained, on what, with what, and how well.

config.yaml         the full configuration (repeat with `scanfuse train --from`)
model.safetensors   the best weights by validation
run.json            system, version, digests of the weights and the split, best epoch
split.csv           id, group and split of every sample
history.csv         one row per epoch
environment.json    versions, machine, device, scan backend
checkpoint.pt       the state to continue from (tensors and plain values only)
evaluation/         tables and pictures that `scanfuse evaluate` wrote
"""

import csv
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scanfuse import config as configuration
from scanfuse.data.manifest import Manifest, read_csv
from scanfuse.errors import UserError
from scanfuse.files import atomic_path, write_text

__all__ = ["Run", "create_run", "file_digest", "open_run"]


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
        try:
            return dict(json.loads((self.path / "run.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(
                f"{self.path} has no run.json: the training did not reach its first validation. "
                f"Continue it with: scanfuse train --resume {self.path}"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / 'run.json'} cannot be read: {error}") from None

    def save_config(self, config: BaseModel) -> None:
        configuration.write_yaml(config, self.config_file)

    def save_split(self, manifest: Manifest) -> None:
        manifest.write(self.split_file)

    def split(self) -> pd.DataFrame:
        """The samples that the run was given: columns id, group and split, among others."""
        return read_csv(self.split_file)[1]

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
        """Writes the weights, then run.json with their digest."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        with atomic_path(self.weights_file) as temporary:
            _save_tensors(tensors, temporary)
        self.save_json("run.json", {**record, "weights_sha256": file_digest(self.weights_file)})

    def load_weights(self) -> dict[str, Tensor]:
        """The best weights, after their digest was compared with run.json.

        Raises:
            UserError: the file is missing, damaged or not the one that this run wrote.
        """
        if not self.weights_file.is_file():
            raise UserError(f"{self.weights_file} is missing: restore it, or train again.")
        expected = self.record().get("weights_sha256")
        if file_digest(self.weights_file) != expected:
            raise UserError(
                f"{self.weights_file} was changed after the training (its SHA-256 differs from run.json): "
                "restore the original file, or train again."
            )
        try:
            return dict(load_file(self.weights_file))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.weights_file} cannot be read: {error}") from None

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        with atomic_path(self.checkpoint_file) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:
                # torch reports a full disk as a RuntimeError of its zip writer.
                raise OSError(f"the checkpoint was not written whole ({_first_line(error)})") from error

    def load_checkpoint(self) -> dict[str, Any]:
        if not self.checkpoint_file.is_file():
            raise UserError(f"{self.checkpoint_file} is missing: there is nothing to continue from.")
        try:
            return dict(torch.load(self.checkpoint_file, map_location="cpu", weights_only=True))
        except (RuntimeError, OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.checkpoint_file} is damaged: {_first_line(error)}") from None


def create_run(path: str | Path) -> Run:
    """A new, empty run folder.

    Raises:
        UserError: the folder holds something already.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(
            f"{path} exists already and is not empty: choose another --out, or continue with --resume {path}"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot create {path}: {error.strerror}.") from None
    return Run(path)


def open_run(path: str | Path) -> Run:
    """An existing run folder.

    Raises:
        UserError: it is not one.
    """
    run = Run(Path(path))
    if not run.path.is_dir():
        raise UserError(f"There is no run folder {path}; `scanfuse train` makes one.")
    if not run.config_file.is_file():
        raise UserError(f"{path} is not a run folder: it has no config.yaml.")
    return run


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
