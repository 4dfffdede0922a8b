"""What the writers of road scenes share: the loop over scenes and frames, and what is written beside the layout."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.synthetic._film import encoded, save
from scanfuse.data.synthetic._road import Frame, render
from scanfuse.errors import UserError
from scanfuse.files import write_text

__all__ = ["RoadOptions", "Truth", "grey_rgb", "moments", "save_picture", "save_text"]

MAX_FRAMES = 20
"""So that the frames of a scene fit into one block of numbers of every layout."""


class RoadOptions(Section):
    """What all writers of road scenes take beside the number of scenes."""

    scenes: int = Field(120, ge=2, le=900, description="scenes of several frames each")
    frames: int = Field(4, ge=1, le=MAX_FRAMES, description="frames of each scene")
    size: int = Field(160, ge=64, le=1280, description="width in pixels; the height is 3/4 or 4/5 of it")
    seed: int = Field(0, ge=0, description="seed of everything")
    misalign: float = Field(
        0.0, ge=0, le=64, description="infrared is shifted by up to so many pixels, alike in all frames of a scene"
    )

    @property
    def values(self) -> tuple[int, int, int, int, float]:
        """scenes, frames, size, seed, misalign."""
        return self.scenes, self.frames, self.size, self.seed, self.misalign


@dataclass
class Truth:
    """What each object really is, for truth.csv: id, class, box, which sensor shows it, and why."""

    lines: list[str] = field(default_factory=lambda: ["id,class,left,top,right,bottom,shown,cause,night"])

    def add(self, id: str, frame: Frame) -> None:
        """The objects of one frame."""
        for name, box, shown, cause in zip(
            frame.boxes.names, frame.boxes.xyxy, frame.shown, frame.cause, strict=True
        ):
            edges = ",".join(str(int(edge)) for edge in box)
            self.lines.append(f"{id},{name},{edges},{shown},{cause},{int(frame.night)}")

    def write(self, root: Path, what: str) -> None:
        """truth.csv and ABOUT.txt in `root`; neither is part of a layout."""
        write_text(root / "truth.csv", "\n".join(self.lines) + "\n")
        write_text(
            root / "ABOUT.txt",
            f"Made-up road scenes, nobody and nothing in them exists: {what}.\nWritten by ScanFuse.\n",
        )


def moments(
    *,
    scenes: int,
    frames: int,
    size: tuple[int, int],
    seed: int,
    classes: Sequence[str],
    misalign: float = 0.0,
    bits: int = 8,
    most: int = 900,
) -> Iterator[tuple[int, int, Frame]]:
    """Scene number from 1, frame number from 0, and the frame.

    Raises:
        UserError: a number out of range.
    """
    if not 2 <= scenes <= most or not 1 <= frames <= MAX_FRAMES:
        raise UserError(
            f"Road scenes need 2 to {most} scenes of 1 to {MAX_FRAMES} frames here; got {scenes} of {frames}."
        )
    return _moments(scenes, frames, size, seed, classes, misalign, bits)


def _moments(
    scenes: int, frames: int, size: tuple[int, int], seed: int, classes: Sequence[str], misalign: float, bits: int
) -> Iterator[tuple[int, int, Frame]]:
    for scene in range(1, scenes + 1):
        rendered = render(scene, frames=frames, size=size, seed=seed, classes=classes, misalign=misalign, bits=bits)
        for number, frame in enumerate(rendered):
            yield scene, number, frame


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """PNG or JPEG by the suffix; whole or not at all."""
    save(path, encoded(pixels, "PNG" if path.suffix == ".png" else "JPEG"))


def save_text(path: Path, text: str) -> None:
    """UTF-8, whole or not at all, without waiting for the disk: there is one such file a picture."""
    save(path, text.encode())


def grey_rgb(ir: np.ndarray) -> np.ndarray:
    """Infrared as three equal channels, as some data sets store it."""
    return np.repeat(ir[..., None], 3, axis=2)
