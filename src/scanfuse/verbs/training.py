"""The training loop: one for every system."""

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image as PillowImage
from torch import Tensor, nn
from torch.utils.data import DataLoader

from scanfuse import __version__, systems
from scanfuse.config import TrainConfig
from scanfuse.data.manifest import Manifest
from scanfuse.device import to_device
from scanfuse.errors import UserError
from scanfuse.files import atomic_path
from scanfuse.run import Run
from scanfuse.systems import System
from scanfuse.tasks import Criterion
from scanfuse.verbs.loading import Batches
from scanfuse.verbs.non_finite import first_non_finite
from scanfuse.verbs.optimisation import WeightAverage, learning_rate, make_optimizer, steps_per_update
from scanfuse.verbs.progress import Progress
from scanfuse.verbs.stopping import Stop, stop_on_signals

__all__ = ["Training", "training_record"]

_PICTURED = 3
"""Batches of the first epoch that are drawn."""


@dataclass
class _State:
    """Where the training stands; together with the tensors it is the checkpoint."""

    epoch: int = 0
    step_in_epoch: int = 0
    updates: int = 0
    best: float = math.inf
    best_epoch: int = -1
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class Training:
    """A training from its first step, or from where `restore` puts it, to its end.

    Args:
        system: with the weights that it starts from.
        manifest: all samples with their splits.
        run: the folder to write into.
        source: where the data lies, for the record.
        device: to compute on.
        quiet: no progress.
        started_from: what the weights were filled with, for the record.
    """

    def __init__(
        self,
        system: System,
        manifest: Manifest,
        run: Run,
        source: Path,
        device: torch.device,
        *,
        quiet: bool = False,
        started_from: str = "",
    ) -> None:
        self.system, self.manifest, self.run, self.source, self.quiet = system, manifest, run, source, quiet
        self.started_from = started_from
        self.settings: TrainConfig = system.config.train
        self.train_data = cast(Any, system.data.dataset(manifest.subset("train"), train=True))
        self.val_data = cast(Any, system.data.dataset(manifest.subset("val"), train=False))
        system.task.begin(self.train_data, self.val_data)
        self.accelerator = _accelerator(device, self.settings.precision)
        self.wrapped, self.optimizer = self.accelerator.prepare(
            _LossModule(system), make_optimizer(system.model, self.settings)
        )
        self.accumulate = steps_per_update(self.settings)
        self.average = WeightAverage(system.model, self.settings.ema) if self.settings.ema else None
        self.state = _State()
        self.stop = Stop()
        self.batches = Batches(self.train_data, system.data.collate, workers=self.settings.workers)
        self.batches_per_epoch = len(self._order(epoch=0))
        self.updates_per_epoch = math.ceil(self.batches_per_epoch / self.accumulate)

    def fit(self) -> Run:
        """Trains to the last epoch, or until it stops getting better; then fits what results are decided by."""
        remaining = self.settings.epochs - self.state.epoch
        total = remaining * self.batches_per_epoch - self.state.step_in_epoch
        with stop_on_signals() as self.stop, Progress(total, quiet=self.quiet) as progress:
            # A run that ended early stays as it is when it is continued.
            while self.state.epoch < self.settings.epochs and not self._patience_is_over():
                self._train_epoch(progress)
                self._validate(progress)
                self.state.epoch += 1
                self.state.step_in_epoch = 0
                self.state.sums = {}
                self.state.seconds = 0.0
                self._save()
                if self._patience_is_over():
                    progress.note(f"no improvement for {self.settings.patience} epochs: stopped")
                elif self.stop and self.state.epoch < self.settings.epochs:
                    raise self._stopped(f"Stopped after epoch {self.state.epoch}")
            if self.state.best_epoch < 0:
                self.run.drop_checkpoint()
                raise UserError(
                    "The validation loss was never finite, so nothing is kept: lower --lr or set --precision fp32."
                )
            said = self._finish()
            if said:
                progress.note(said)
        return self.run

    def restore(self, content: dict[str, Any]) -> None:
        """Takes the state of a checkpoint."""
        self.system.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.average:
            self.average.tensors = {k: v.to(self.accelerator.device) for k, v in content["average"].items()}
        torch.set_rng_state(content["rng"])
        if torch.cuda.is_available() and content["cuda_rng"]:
            torch.cuda.set_rng_state_all(content["cuda_rng"])
        self.state = _State(**content["progress"])
        self.started_from = str(content.get("started_from", ""))

    def _finish(self) -> str:
        """Fits on the validation samples, with the best weights, and stores what was found."""
        system = self.system
        system.model.load_state_dict(self.run.load_weights())
        system.model.eval()
        said = system.task.fit(
            result for batch in self._val_batches() for result in system.task.results(system.forward, batch)
        )
        self.run.finish(system.task.fitted())
        return said

    def _train_epoch(self, progress: Progress) -> None:
        state, settings = self.state, self.settings
        self.system.model.train()
        self.train_data.set_epoch(state.epoch)
        self.optimizer.zero_grad()
        started = time.perf_counter()
        for batch in self.batches.of(self._order(state.epoch)[state.step_in_epoch :]):
            if state.epoch == 0 and state.step_in_epoch < _PICTURED:
                self._picture(batch)
            batch = to_device(batch, self.accelerator.device)
            with self.accelerator.autocast():
                parts = self.wrapped(batch)
            if not torch.isfinite(parts["loss"]):
                raise UserError(self._explain_non_finite(batch))
            # The last group of an epoch may be short; its mean must still be a mean.
            first = state.step_in_epoch - state.step_in_epoch % self.accumulate
            group = min(self.accumulate, self.batches_per_epoch - first)
            self.accelerator.backward(parts["loss"] / group)
            state.step_in_epoch += 1
            for name, value in parts.items():
                state.sums[name] = state.sums.get(name, 0.0) + float(value.detach())
            if state.step_in_epoch % self.accumulate == 0 or state.step_in_epoch == self.batches_per_epoch:
                self._update()
                if self.stop and state.step_in_epoch < self.batches_per_epoch:
                    state.seconds += time.perf_counter() - started
                    self._save()
                    raise self._stopped(f"Stopped in epoch {state.epoch + 1}")
            progress.advance(state.epoch + 1, settings.epochs, state.sums["loss"] / state.step_in_epoch)
        state.seconds += time.perf_counter() - started

    def _picture(self, batch: dict[str, Any]) -> None:
        """Draws what the network is taught, where the inputs can be drawn: a wrong box is seen at once."""
        draw = systems.ability(self.system.data, "batch_picture")
        if draw is not None:
            with atomic_path(self.run.path / "batches" / f"train_{self.state.step_in_epoch}.png") as temporary:
                PillowImage.fromarray(draw(batch)).save(temporary)

    def _order(self, epoch: int) -> list[list[int]]:
        settings = self.settings
        return self.system.task.order(len(self.train_data), batch=settings.batch, seed=settings.seed, epoch=epoch)

    def _update(self) -> None:
        for group in self.optimizer.param_groups:
            start = self.settings.warmup_bias_lr if group.get("is_bias") else 0.0
            group["lr"] = learning_rate(self.settings, self.state.updates, self.updates_per_epoch, start=start)
        limit = self.settings.clip or math.inf
        norm = self.accelerator.clip_grad_norm_(self.system.model.parameters(), limit)
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            raise UserError(self._explain_gradient())
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.updates += 1
        if self.average:
            self.average.update(self.system.model, self.state.updates)

    def _val_batches(self) -> Iterator[dict[str, Any]]:
        batch = 1 if self.system.data.mixed_sizes else self.settings.batch
        loader: DataLoader[Any] = DataLoader(
            self.val_data, batch_size=batch, collate_fn=self.system.data.collate, generator=torch.Generator()
        )
        for found in loader:
            yield to_device(found, self.accelerator.device)

    @torch.no_grad()
    def _validate(self, progress: Progress) -> None:
        state, system = self.state, self.system
        with self._averaged_weights():
            system.model.eval()
            values = system.task.validation((system.forward(batch), batch) for batch in self._val_batches())
            row: dict[str, float] = {
                "epoch": state.epoch + 1,
                "lr": learning_rate(self.settings, max(state.updates - 1, 0), self.updates_per_epoch),
            }
            row |= {f"train_{name}": value / state.step_in_epoch for name, value in state.sums.items()}
            row |= {f"val_{name}": value for name, value in values.items()}
            row["seconds"] = round(state.seconds, 3)
            state.history.append(row)
            criterion = system.task.criterion(row)
            if state.epoch == 0 and criterion.note:
                progress.note(criterion.note)
            improved = criterion.value < state.best
            if improved:
                state.best, state.best_epoch = criterion.value, state.epoch + 1
                self.run.save_weights(system.model.state_dict(), self._record(row, criterion))
        progress.epoch(row, improved)

    @contextlib.contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """The averaged weights, where there are any, in place of the trained ones."""
        if self.average is None:
            yield
            return
        model = self.system.model
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.average.tensors)
        yield
        model.load_state_dict(own)

    def _record(self, row: dict[str, float], criterion: Criterion) -> dict[str, Any]:
        best = self.state.best_epoch
        return training_record(self.system, self.manifest, self.source, row, criterion, best, self.started_from)

    def _patience_is_over(self) -> bool:
        waited = self.state.epoch - max(self.state.best_epoch, 0)
        return bool(self.settings.patience) and waited >= self.settings.patience

    def _stopped(self, where: str) -> UserError:
        return self.stop.interrupted(
            f"{where}; the state is saved. Continue with: scanfuse train --resume {self.run.path}"
        )

    def _save(self) -> None:
        state = self.state
        self.run.save_history(state.history)
        self.run.save_checkpoint(
            {
                "model": self.system.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.tensors if self.average else None,
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "progress": {**vars(state), "history": [dict(row) for row in state.history]},
                "data": str(self.source.absolute()),
                "started_from": self.started_from,
                "split_digest": self.manifest.digest,
            }
        )

    def _explain_non_finite(self, batch: dict[str, Any]) -> str:
        where = f"epoch {self.state.epoch + 1}, step {self.state.step_in_epoch + 1}"
        culprit = first_non_finite(self.system, batch)
        return (
            f"The loss is not finite in {where}: the first bad tensor is {culprit}. Lower --lr, set --clip 1 or "
            f"--precision fp32. {self._what_is_kept()}"
        )

    def _explain_gradient(self) -> str:
        names = [
            name
            for name, parameter in self.system.model.named_parameters()
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
        ]
        return (
            f"The gradient is not finite in epoch {self.state.epoch + 1}: the first bad tensor is the gradient of "
            f"{names[0] if names else 'an unnamed parameter'}. Lower --lr or set --precision fp32. "
            f"{self._what_is_kept()}"
        )

    def _what_is_kept(self) -> str:
        if self.run.checkpoint_file.exists():
            return f"The last whole epoch is kept in {self.run.path}."
        return "No epoch was finished, so nothing is kept."


class _LossModule(nn.Module):
    """The model seen through its loss, so that what wraps it (precision) sees the whole step."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.model = system.model
        self._forward, self._loss = system.forward, system.task.loss

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return self._loss(self._forward(batch), batch)


def training_record(
    system: System,
    manifest: Manifest,
    source: Path,
    row: Mapping[str, float],
    criterion: Criterion,
    best_epoch: int,
    started_from: str,
) -> dict[str, Any]:
    """What run.json says of weights: whose they are, of which epoch, how good on validation, from which data."""
    return {
        "system": system.config.system,
        "scanfuse": __version__,
        "parameters": sum(p.numel() for p in system.model.parameters()),
        "best_epoch": best_epoch,
        "selected_by": criterion.by,
        "finished": False,
        "validation": {key: value for key, value in row.items() if key.startswith("val_")},
        "samples": manifest.describe(),
        "data": str(source),
        **({"started_from": started_from} if started_from else {}),
        "split_digest": manifest.digest,
        "split_notes": list(manifest.notes),
    }


def _accelerator(device: torch.device, precision: str) -> Accelerator:
    # A second run in the same process may ask for another device or precision; accelerate keeps both in singletons.
    AcceleratorState._reset_state(reset_partial_state=True)
    before = os.environ.get("ACCELERATE_TORCH_DEVICE")
    os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    try:
        return Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if precision == "bf16" else "no")
    finally:
        if before is None:
            del os.environ["ACCELERATE_TORCH_DEVICE"]
        else:
            os.environ["ACCELERATE_TORCH_DEVICE"] = before
