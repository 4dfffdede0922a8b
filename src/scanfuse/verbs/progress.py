"""The progress of a training on the console: a bar with the loss and the time left, and one line per epoch."""

import types
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

__all__ = ["Progress"]


class Progress:
    """A context manager around the steps of one training.

    Args:
        total: steps to come.
        quiet: print nothing at all.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=total)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, epoch: int, epochs: int, loss: float) -> None:
        """One step done; `loss` is the mean of the epoch so far."""
        self.bar.update(self.task, advance=1, description=f"epoch {epoch}/{epochs}  loss {loss:.4f}")

    def epoch(self, row: dict[str, float], improved: bool) -> None:
        """One epoch done; `row` is its line of history.csv."""
        shown = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in row.items() if name.endswith(_SHOWN)]
        mark = "  best so far" if improved else ""
        line = f"epoch {int(row['epoch']):3d}  {'  '.join(shown)}  {row['seconds']:.1f} s{mark}"
        self.console.print(line, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A remark between the epochs."""
        self.console.print(text, highlight=False, soft_wrap=True)


_SHOWN = ("train_loss", "val_loss", "val_ssim", "val_auroc")
