"""The batches of a training, made by other processes if there are any.

Workers live as long as the training, so that what they have decoded and kept is not thrown away after an epoch.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from scanfuse.data.inputs import Samples
from scanfuse.errors import UserError

__all__ = ["Batches"]

_TO_SAVE_SECONDS = 60

Collate = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]


class Batches:
    """Samples as batches, in whatever order each pass asks for.

    Args:
        samples: the data set.
        collate: samples to one batch.
        workers: processes that make them; 0: this one.
    """

    def __init__(self, samples: Samples, collate: Collate, *, workers: int) -> None:
        self._order = _Order()
        self._loader: DataLoader[Any] = DataLoader(
            _Told(samples),  # type: ignore[arg-type]
            batch_sampler=self._order,
            collate_fn=_ToldCollate(collate),
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_outlive_a_stop,
            generator=torch.Generator(),  # else the loader would draw from the global generator
        )

    def of(self, order: list[list[int]]) -> Iterator[dict[str, Any]]:
        """The batches whose samples have these positions.

        Raises:
            UserError: a sample cannot be read, or its batch not be made.
        """
        self._order.order = order
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


class _Order(Sampler[list[int]]):
    """The batches of the pass at hand, to be set before it."""

    def __init__(self) -> None:
        self.order: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


class _Told:
    """A data set that returns its users' mistakes: raised in a worker, torch would wrap them in a traceback."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any] | UserError:
        try:
            return self.samples[index]
        except UserError as error:
            return UserError(str(error))


class _ToldCollate:
    """The same for what makes batches."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any] | UserError:
        for each in samples:
            if isinstance(each, UserError):
                return each
        try:
            return self.collate(samples)
        except UserError as error:
            return UserError(str(error))


def _outlive_a_stop(worker: int) -> None:
    """Lets a worker go on while the trainer ends its step and saves.

    A terminal and most schedulers send their signal to all processes of a job; a worker that obeyed would take the
    trainer down before it has saved. SIGTERM is put off and not ignored, as it also ends workers at the exit of a
    program that did not shut them down.
    """

    def put_off(number: int, frame: FrameType | None) -> None:
        signal.alarm(_TO_SAVE_SECONDS)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, put_off)
