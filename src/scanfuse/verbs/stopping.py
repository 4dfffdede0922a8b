"""Asking a training to stop: Ctrl-C, and the signal that schedulers send before they kill."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from scanfuse.errors import UserError

__all__ = ["Interrupted", "Stop", "stop_on_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """The first signal asks the run to end after the current step, the second one ends it at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.signal = number

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
