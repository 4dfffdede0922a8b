"""What all phantoms have: a folder that was empty before, and facts for their user."""

from dataclasses import dataclass
from pathlib import Path

from scanfuse.config import Section
from scanfuse.errors import UserError

__all__ = ["Facts", "empty_folder"]


@dataclass(frozen=True)
class Facts:
    """What a user should know of a phantom.

    Attributes:
        counted: the option that says how many there are ("patients", "cases").
        seconds: that writing one of them takes at the default size, on one CPU core.
        trained: the training that was measured with the default options, and what it reached; "" if none was.
    """

    counted: str
    seconds: float
    trained: str = ""

    def count(self, options: Section) -> int:
        """How many patients or cases these options ask for."""
        return int(getattr(options, self.counted))


def empty_folder(root: str | Path) -> Path:
    """The path, if there is nothing yet; phantoms would mix with what is there.

    Raises:
        UserError: it is a file, or a folder that holds something.
    """
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file; name a new folder for the phantoms.")
    if root.is_dir() and any(root.iterdir()):
        raise UserError(f"{root} is not empty, and phantoms would mix with what is there; name a new folder.")
    return root
