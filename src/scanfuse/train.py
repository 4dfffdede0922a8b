"""The training engine: one short loop for every system.

Seeded runs repeat exactly, and a run that was stopped (Ctrl-C, a full disk, a crash) continues bit for bit: the
order of the data and its augmentation depend only on (seed, epoch, position), the learning rate only on the
step, and the checkpoint holds everything else. A checkpoint is written after every epoch and on Ctrl-C.
"""

import contextlib
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader

from scanfuse import config as configuration
from scanfuse import systems
from scanfuse.config import TrainConfig
from scanfuse.data.batches import balanced_order, epoch_order, sampling_weights
from scanfuse.data.manifest import Manifest
from scanfuse.doctor import environment
from scanfuse.errors import UserError
from scanfuse.layers.ssm import without_weight_decay
from scanfuse.non_finite import first_non_finite
from scanfuse.progress import Progress
from scanfuse.run import Run, create_run, open_run
from scanfuse.tasks.classify import Scored, parse_targets
from scanfuse.tasks.classify_job import DECISION_FILE

__all__ = ["Interrupted", "resume", "train"]

_log = logging.getLogger(__name__)


class Interrupted(UserError):
    """The user stopped the run; its state is saved."""


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


def train(config: Any, data: str | Path, out: str | Path, *, quiet: bool = False) -> Run:
    """Trains a system from the start and returns its run folder.

    Args:
        config: the `Config` of a system.
        data: the folder (or manifest file) with the data.
        out: the run folder to make; must not exist or be empty.
        quiet: no progress bar.

    Raises:
        UserError: unusable data, a folder in use, a full disk, a loss that is not finite, Ctrl-C.
    """
    prepare_threads(config)
    system_type: Any = systems.load(config.system)
    if hasattr(system_type, "adapt"):
        config = system_type.adapt(config, Path(data))
    torch.manual_seed(config.train.seed)
    system = system_type(config)
    manifest = system.open_data(Path(data))
    started_from = ""
    if isinstance(system, systems.Classifier):
        started_from = system.start()
        _log.warning(started_from)  # also where --quiet hides the progress: random weights are never used in silence
    training = _Training(system, manifest, Run(Path(out)), Path(data), quiet, started_from)
    run = create_run(out)  # after all that the data and the settings can be refused for
    run.save_config(config)
    run.save_split(manifest)
    run.save_json("environment.json", environment())
    try:
        return training.fit()
    except UserError:
        _remove_if_empty_handed(run)
        raise


def _remove_if_empty_handed(run: Run) -> None:
    """Removes the description of a run that failed before anything was learned: it would only be in the way."""
    if run.checkpoint_file.exists() or run.weights_file.exists():
        return
    for name in ("config.yaml", "split.csv", "environment.json"):
        (run.path / name).unlink(missing_ok=True)
    if not any(run.path.iterdir()):
        run.path.rmdir()


def resume(path: str | Path, data: str | Path | None = None, *, quiet: bool = False) -> Run:
    """Continues a run bit for bit from its checkpoint; the data must be the same (the split's digest is compared).

    Args:
        path: the run folder.
        data: where the data lies now, if it was moved.
    """
    run = open_run(path)
    content = run.config()
    system_type = systems.load(str(content.get("system")))
    config = configuration.build(system_type.Config, content)
    prepare_threads(config)
    system = system_type(config)
    state = run.load_checkpoint()
    source = Path(data if data is not None else state["data"])
    manifest = system.open_data(source)
    if manifest.digest != state["split_digest"]:
        raise UserError(
            f"The data at {source} gives another split than the one that {path} was trained on; "
            "resume needs the same files."
        )
    training = _Training(system, manifest, run, source, quiet)
    training.restore(state)
    return training.fit()


def prepare_threads(config: Any) -> None:
    """Sets torch's CPU threads if the configuration asks for a number."""
    if config.train.threads:
        torch.set_num_threads(config.train.threads)


class _Training:
    def __init__(
        self,
        system: systems.System,
        manifest: Manifest,
        run: Run,
        source: Path,
        quiet: bool,
        started_from: str = "",
    ) -> None:
        self.system, self.manifest, self.run, self.source, self.quiet = system, manifest, run, source, quiet
        self.started_from = started_from
        self.settings: TrainConfig = system.config.train
        self.train_data = system.dataset(manifest.subset("train"), train=True)
        self.val_data = system.dataset(manifest.subset("val"), train=False)
        self.drawing: np.ndarray | None = None  # how likely each training sample is drawn; None: once per epoch
        if isinstance(system, systems.Classifier):
            targets, known = _known_targets(self.train_data.targets, system, "training")
            _known_targets(self.val_data.targets, system, "validation")
            system.job.weigh(self.train_data.targets)
            if system.config.sampling.sampling:
                self.drawing = sampling_weights(targets, known)
        # A second run in the same process may ask for another precision; accelerate keeps it in a singleton.
        AcceleratorState._reset_state(reset_partial_state=True)
        device = self.settings.device
        self.accelerator = Accelerator(
            cpu=device == "cpu", mixed_precision="bf16" if self.settings.precision == "bf16" else "no"
        )
        self.optimizer = torch.optim.AdamW(
            parameter_groups(system.model, self.settings.weight_decay), lr=self.settings.lr
        )
        self.forward_loss = _LossModule(system)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.forward_loss, self.optimizer)
        self.average = _Average(system.model, self.settings.ema) if self.settings.ema else None
        self.state = _State()
        self.stop = threading.Event()
        self.batches_per_epoch = len(self._order(epoch=0))
        self.updates_per_epoch = math.ceil(self.batches_per_epoch / self.settings.accumulate)

    def fit(self) -> Run:
        """Trains to the last epoch, or until it stops getting better."""
        remaining = self.settings.epochs - self.state.epoch
        total = remaining * self.batches_per_epoch - self.state.step_in_epoch
        with self._stop_on_interrupt(), Progress(total, quiet=self.quiet) as progress:
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
            if self.state.best_epoch < 0:
                raise UserError(
                    "The validation loss was never finite, so nothing is kept: lower --lr or set --precision fp32."
                )
            if isinstance(self.system, systems.Classifier):
                progress.note(self._decide(self.system))
        return self.run

    def _decide(self, system: systems.Classifier) -> str:
        """Fits temperature and thresholds with the best weights on the validation samples and stores them."""
        system.model.load_state_dict(self.run.load_weights())
        system.model.eval()
        decision = system.job.decide([result for batch in self._val_batches() for result in system.results(batch)])
        self.run.save_json(DECISION_FILE, decision.as_dict())
        cuts = ", ".join(f"{cut:.3f}" for cut in decision.thresholds[:4])
        return (
            f"Decided on {decision.validation['studies']} validation studies: temperature {decision.temperature:.3f}"
            + (f", threshold {cuts}{', ...' if len(decision.thresholds) > 4 else ''}" if cuts else "")
            + "".join(f"; {note}" for note in decision.notes)
        )

    def _val_batches(self) -> Iterator[dict[str, Any]]:
        # One at a time where images need not share a size.
        batch = self.settings.batch if isinstance(self.system, systems.Classifier) else 1
        loader = DataLoader(
            self.val_data, batch_size=batch, collate_fn=self.system.collate, generator=torch.Generator()
        )
        for found in loader:
            yield to_device(found, self.accelerator.device)

    def _train_epoch(self, progress: Progress) -> None:
        state, settings = self.state, self.settings
        self.system.model.train()
        self.train_data.set_epoch(state.epoch)
        loader = DataLoader(
            self.train_data,
            batch_sampler=self._order(state.epoch)[state.step_in_epoch :],
            collate_fn=self.system.collate,
            num_workers=settings.workers,
            generator=torch.Generator(),  # else the loader would draw from the global generator
        )
        self.optimizer.zero_grad()
        started = time.perf_counter()
        for batch in loader:
            batch = to_device(batch, self.accelerator.device)
            with self.accelerator.autocast():
                parts = self.wrapped(batch)
            if not torch.isfinite(parts["loss"]):
                raise UserError(self._explain_non_finite(batch))
            # The last group of an epoch may be short; its mean must still be a mean.
            first = state.step_in_epoch - state.step_in_epoch % settings.accumulate
            group = min(settings.accumulate, self.batches_per_epoch - first)
            self.accelerator.backward(parts["loss"] / group)
            state.step_in_epoch += 1
            for name, value in parts.items():
                state.sums[name] = state.sums.get(name, 0.0) + float(value.detach())
            if state.step_in_epoch % settings.accumulate == 0 or state.step_in_epoch == self.batches_per_epoch:
                self._update()
                if self.stop.is_set() and state.step_in_epoch < self.batches_per_epoch:
                    state.seconds += time.perf_counter() - started
                    self._save()
                    raise Interrupted(
                        f"Stopped in epoch {state.epoch + 1}; the state is saved. "
                        f"Continue with: scanfuse train --resume {self.run.path}"
                    )
            progress.advance(state.epoch + 1, settings.epochs, state.sums["loss"] / state.step_in_epoch)
        state.seconds += time.perf_counter() - started

    def _order(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch as lists of indices."""
        settings = self.settings
        if self.drawing is not None:
            order = balanced_order(self.drawing, settings.batch, settings.seed, epoch)
        else:
            order = epoch_order(len(self.train_data), settings.batch, settings.seed, epoch)
        # Batch norms have nothing to go by in a last batch of one sample, and fail where its map is one place.
        if isinstance(self.system, systems.Classifier) and len(order) > 1 and len(order[-1]) == 1 < settings.batch:
            order[-2:] = [order[-2] + order[-1]]
        return order

    def _update(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.state.updates, self.updates_per_epoch)
        limit = self.settings.clip or math.inf
        norm = self.accelerator.clip_grad_norm_(self.system.model.parameters(), limit)
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            raise UserError(self._explain_gradient())
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.updates += 1
        if self.average:
            self.average.update(self.system.model, self.state.updates)

    @torch.no_grad()
    def _validate(self, progress: Progress) -> None:
        state = self.state
        model = self.system.model
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()} if self.average else None
        if self.average:
            model.load_state_dict(self.average.tensors)
        model.eval()
        sums: dict[str, float] = {}
        results: list[Scored] = []
        for batch in self._val_batches():
            if isinstance(self.system, systems.Classifier):
                results += self.system.job.results(self.system.logits(batch), batch)
                continue
            for name, value in self.forward_loss(batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch["meta"])
        row: dict[str, float] = {
            "epoch": state.epoch + 1,
            "lr": learning_rate(self.settings, max(state.updates - 1, 0), self.updates_per_epoch),
        }
        row |= {f"train_{name}": value / state.step_in_epoch for name, value in state.sums.items()}
        row |= {f"val_{name}": value / len(self.val_data) for name, value in sums.items()}
        if isinstance(self.system, systems.Classifier):
            row |= {f"val_{name}": value for name, value in self.system.job.validation(results).items()}
        row["seconds"] = round(state.seconds, 3)
        state.history.append(row)
        criterion = row["val_loss"]
        if isinstance(self.system, systems.Classifier):
            criterion = self.system.job.criterion(row)
            if state.epoch == 0 and self.system.job.selected_by(row) != self.system.job.settings.select_by:
                progress.note("The validation studies show one outcome only: the best epoch is picked by their loss.")
        improved = criterion < state.best
        if improved:
            state.best, state.best_epoch = criterion, state.epoch + 1
            self.run.save_weights(model.state_dict(), self._record(row))
        if own is not None:
            model.load_state_dict(own)
        progress.epoch(row, improved)

    def _record(self, row: dict[str, float]) -> dict[str, Any]:
        import scanfuse

        selection: dict[str, str] = {}
        if isinstance(self.system, systems.Classifier):
            selection = {"selected_by": self.system.job.selected_by(row)}
        return {
            "system": self.system.config.system,
            "scanfuse": scanfuse.__version__,
            "parameters": sum(p.numel() for p in self.system.model.parameters()),
            "best_epoch": self.state.best_epoch,
            **selection,
            "validation": {key: value for key, value in row.items() if key.startswith("val_")},
            "samples": self.manifest.describe(),
            "data": str(self.source),
            **({"started_from": self.started_from} if self.started_from else {}),
            "split_digest": self.manifest.digest,
            "split_notes": list(self.manifest.notes),
        }

    def _patience_is_over(self) -> bool:
        waited = self.state.epoch - max(self.state.best_epoch, 0)
        return bool(self.settings.patience) and waited >= self.settings.patience

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

    @contextlib.contextmanager
    def _stop_on_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C ends the run after the current step, the second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask_to_stop(signum: int, frame: Any) -> None:
            if self.stop.is_set():
                raise KeyboardInterrupt
            self.stop.set()

        before = signal.signal(signal.SIGINT, ask_to_stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

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


def _known_targets(texts: Sequence[str], system: systems.Classifier, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets and masks of a data set; without a single known one nothing could be learned or chosen."""
    targets, known = parse_targets(texts, system.job.task)
    if not known.any():
        raise UserError(f"No {name} study has a known target: check the column with the targets, or the split.")
    return targets, known


class _LossModule(nn.Module):
    """The model seen through its loss, so that wrappers of the model (precision, distribution) see the whole step."""

    def __init__(self, system: systems.System) -> None:
        super().__init__()
        self.model = system.model
        self._loss = system.loss

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return self._loss(batch)


class _Average:
    """Exponential moving average of all weights and buffers; the decay grows from 0.1 to its value at the start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        decay = min(self.decay, (1 + updates) / (10 + updates))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor.detach(), 1 - decay)
            else:
                self.tensors[name].copy_(tensor)


def learning_rate(settings: TrainConfig, update: int, updates_per_epoch: int) -> float:
    """The rate of an update (from 0): linear warm-up, then constant or a cosine down to `min_lr`."""
    warmup = round(settings.warmup_epochs * updates_per_epoch)
    if update < warmup:
        return settings.lr * (update + 1) / warmup
    if settings.schedule == "constant":
        return settings.lr
    total = max(settings.epochs * updates_per_epoch - warmup, 1)
    progress = min((update - warmup) / total, 1.0)
    floor = min(settings.min_lr, settings.lr)
    return floor + (settings.lr - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and kernels decay; scan parameters, norms and biases do not."""
    exempt = without_weight_decay(model)
    named = list(model.named_parameters())
    decay = [parameter for name, parameter in named if name not in exempt]
    keep = [parameter for name, parameter in named if name in exempt]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": keep, "weight_decay": 0.0}]


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Moves the tensors of a batch, also those of a dictionary in it; everything else stays."""
    moved: dict[str, Any] = {}
    for key, value in batch.items():
        if isinstance(value, Tensor):
            moved[key] = value.to(device)
        else:
            moved[key] = to_device(value, device) if isinstance(value, dict) else value
    return moved
