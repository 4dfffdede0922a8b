"""Models that are fitted in one go instead of in epochs: what a system does with its ability `fit_once`.

The run folder is that of any training: weights, record, one row of history, what results are decided by. There is no
checkpoint, as there is nothing to continue: what was stopped is fitted again.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from scanfuse.data.manifest import Manifest
from scanfuse.device import to_device
from scanfuse.run import Run
from scanfuse.systems import System
from scanfuse.verbs.training import training_record

__all__ = ["fit_in_one_go"]

_log = logging.getLogger(__name__)


def fit_in_one_go(
    system: System,
    fit_once: Callable[[Any, Any], str],
    manifest: Manifest,
    run: Run,
    source: Path,
    device: torch.device,
    *,
    quiet: bool = False,
    started_from: str = "",
) -> Run:
    """Fits the model on training and validation samples and writes what a training would write.

    Args:
        system: with the weights that it starts from.
        fit_once: its ability.
        manifest: all samples with their splits.
        run: the folder to write into.
        source: where the data lies, for the record.
        device: to compute on.
        quiet: no progress.
        started_from: what the weights were filled with, for the record.
    """
    started = time.perf_counter()
    training = cast(Any, system.data.dataset(manifest.subset("train"), train=False))
    validation = cast(Any, system.data.dataset(manifest.subset("val"), train=False))
    system.task.begin(training, validation)
    system.model.to(device).eval()
    if not quiet:
        _log.info("Nothing is trained in epochs: their number, learning rates and augmentation do not count.")
    chosen = fit_once(training, validation)
    if not quiet:
        _log.info("%s.", chosen)
    batch = 1 if system.data.mixed_sizes else int(system.config.train.batch)
    loader: DataLoader[Any] = DataLoader(validation, batch_size=batch, collate_fn=system.data.collate)
    with torch.no_grad():
        batches = (to_device(found, device) for found in loader)
        values = system.task.validation((system.forward(found), found) for found in batches)
        row: dict[str, float] = {"epoch": 1, **{f"val_{name}": value for name, value in values.items()}}
        row["seconds"] = round(time.perf_counter() - started, 3)
        criterion = system.task.criterion(row)
        record = training_record(system, manifest, source, row, criterion, 1, started_from)
        run.save_weights(system.model.state_dict(), {**record, "fitted": chosen})
        run.save_history([row])
        said = system.task.fit(
            result for found in loader for result in system.task.results(system.forward, to_device(found, device))
        )
    run.finish(system.task.fitted())
    if said and not quiet:
        _log.info("%s", said)
    return run
