"""Asking a training to stop: Ctrl-C, and the signal that schedulers send before they kill."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from scanfuse.errors import UserError

__all__ = ["Interrupted", "Stop", "outlive_a_stop", "stop_on_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TO_SAVE_SECONDS = 60


class Interrupted(UserError):
    """The run was asked to stop; its state is saved.

    Attributes:
        exit_code: what a shell expects: 128 and the number of the signal.
    """

    def __init__(self, text: str, exit_code: int = 130) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Stop:
    """Whether a stop was asked for, and by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def interrupted(self, text: str) -> Interrupted:
        """The error to end the run with."""
        return Interrupted(text, 128 + int(self.signal or signal.SIGINT))


class _Asking:
    """A handler of signals that notes the first one in a `Stop`, and in that of the block around it."""

    def __init__(self, stop: Stop, before: Mapping[signal.Signals, Any]) -> None:
        self.stop, self.before = stop, before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.stop:
            raise KeyboardInterrupt
        self.stop.signal = number
        outer = self.before[signal.Signals(number)]
        if isinstance(outer, _Asking):
            outer.stop.signal = number


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """The first signal asks the run to end after the current step, the second one ends it at once.

    Inside another such block it asks both: a cross-validation must not go on to the next fold where the last step of
    a fold was just done.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ask = _Asking(stop, before)
    asked = [outer.stop.signal for outer in before.values() if isinstance(outer, _Asking) and outer.stop]
    stop.signal = asked[0] if asked else None
    for number in _SIGNALS:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outlive_a_stop(worker: int) -> None:
    """Lets a process that loads data go on while the trainer ends its step and saves.

    A terminal and most schedulers send their signal to all processes of a job; a worker that obeyed would take the
    trainer down before it has saved. SIGTERM is put off and not ignored, as it also ends workers at the exit of a
    program that did not shut them down.
    """

    def put_off(number: int, frame: FrameType | None) -> None:
        signal.alarm(_TO_SAVE_SECONDS)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, put_off)
