"""`scanfuse train`: from a configuration and data to a run folder.

Seeded runs repeat exactly, and a run that was stopped (Ctrl-C, SIGTERM, a full disk, a crash) continues bit for bit:
the order of the data and its augmentation depend only on (seed, epoch, position), the learning rate only on the step,
and the checkpoint holds everything else. A checkpoint is written after every epoch and when the run is stopped.
"""

import logging
import os
from pathlib import Path
from typing import Any

import torch

from scanfuse import config as configuration
from scanfuse import systems
from scanfuse.device import choose_device
from scanfuse.errors import UserError
from scanfuse.pretrained import is_shipped
from scanfuse.run import Run, new_run, open_run
from scanfuse.verbs.doctor import environment
from scanfuse.verbs.fitting import fit_in_one_go
from scanfuse.verbs.initial import begin
from scanfuse.verbs.stopping import Interrupted
from scanfuse.verbs.training import Training

__all__ = ["Interrupted", "resume", "train"]

_log = logging.getLogger(__name__)


def train(config: Any, data: str | Path, out: str | Path, *, quiet: bool = False) -> Run:
    """Trains a system from the start and returns its run folder.

    Args:
        config: the `Config` of a system.
        data: the folder (or manifest file) with the data.
        out: the run folder to make; must not exist or be empty.
        quiet: no progress bar.

    Raises:
        UserError: unusable data or device, a folder in use, a full disk, a loss that is not finite, a stop.
    """
    _refuse_several_processes()
    source, device = Path(data), choose_device(config.train.device)
    prepare_threads(config)
    completed = systems.ability(systems.load(config.system), "completed")
    if completed is not None:
        config = completed(config, source)
    torch.manual_seed(config.train.seed)
    system = systems.build(config)
    manifest = system.data.open(source)
    started_from = begin(system, manifest)
    if started_from:
        _log.warning(started_from)  # also where --quiet hides the progress: random weights are never used in silence
    fitted = system.data.prepare(manifest.subset("train"))
    fit_once = systems.ability(system, "fit_once")
    if fit_once is not None:
        with new_run(out) as run:
            run.describe(config, manifest, fitted, environment())
            return fit_in_one_go(
                system, fit_once, manifest, run, source, device, quiet=quiet, started_from=started_from
            )
    training = Training(system, manifest, Run(Path(out)), source, device, quiet=quiet, started_from=started_from)
    # Only now, after all that the data and the settings can be refused for, is anything written.
    with new_run(out) as run:
        run.describe(config, manifest, fitted, environment())
        return training.fit()


def resume(path: str | Path, data: str | Path | None = None, *, quiet: bool = False) -> Run:
    """Continues a run bit for bit from its checkpoint; the data must be the same (the split's digest is compared).

    Args:
        path: the run folder.
        data: where the data lies now, if it was moved.
        quiet: no progress bar.
    """
    _refuse_several_processes()
    run = open_run(path)
    if is_shipped(run.path):
        raise UserError(f"{path} is part of the installation, and whole: train a run of your own.")
    with run.locked():
        content = run.config()
        config: Any = configuration.build(systems.load(content.get("system")).Config, content)
        device = choose_device(config.train.device)
        prepare_threads(config)
        system = systems.build(config)
        state = run.load_checkpoint()
        source = Path(data if data is not None else state["data"])
        manifest = system.data.open(source)
        if manifest.digest != state["split_digest"]:
            raise UserError(
                f"The data at {source} gives another split than the one that {path} was trained on; "
                "resume needs the same files."
            )
        system.data.restore(run.load_fitted())
        training = Training(system, manifest, run, source, device, quiet=quiet)
        training.restore(state)
        return training.fit()


def prepare_threads(config: Any) -> None:
    """Sets torch's CPU threads if the configuration asks for a number."""
    if config.train.threads:
        torch.set_num_threads(config.train.threads)


def _refuse_several_processes() -> None:
    """Processes of a launcher would each train the whole data into the same folder."""
    if os.environ.get("WORLD_SIZE", "").strip() not in ("", "0", "1"):
        raise UserError(
            "Training runs in one process: start scanfuse train by itself, not with torchrun or accelerate launch; "
            "choose the device with --device and use the cores with --threads and --workers."
        )
