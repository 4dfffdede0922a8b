"""What the writers of road scenes share: the loop over scenes and frames, and what is written beside the layout."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.synthetic._film import encoded, save
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.data.synthetic._road import Frame, render
from scanfuse.files import write_text

__all__ = ["ROADS", "Moment", "RoadOptions", "grey_rgb", "save_picture", "save_text", "write_roads"]

MAX_FRAMES = 20
"""So that the frames of a scene fit into one block of numbers of every layout."""


class RoadOptions(Section):
    """How many scenes, how large, and how well the sensors are registered."""

    scenes: int = Field(120, ge=2, le=900, description="scenes of several frames each")
    frames: int = Field(4, ge=1, le=MAX_FRAMES, description="frames of each scene")
    size: int = Field(160, ge=64, le=1280, description="width in pixels; the height is 3/4 or 4/5 of it")
    seed: int = Field(0, ge=0, description="seed of everything")
    misalign: float = Field(
        0.0, ge=0, le=64, description="infrared is shifted by up to so many pixels, alike in all frames of a scene"
    )


ROADS = Facts(counted="scenes", seconds=0.3)


@dataclass(frozen=True)
class Moment:
    """One frame of one scene.

    Attributes:
        scene: number from 1.
        number: of the frame in its scene, from 0.
        frame: pictures and boxes.
        size: height and width of the pictures.
    """

    scene: int
    number: int
    frame: Frame
    size: tuple[int, int]


def write_roads(
    root: str | Path,
    options: RoadOptions,
    put: Callable[[Path, Moment], str],
    *,
    classes: Sequence[str],
    form: str,
    ratio: float = 0.75,
    bits: int = 8,
) -> Path:
    """Hands every moment to `put`, and writes truth.csv and ABOUT.txt, which are part of no layout.

    truth.csv says what each object really is: id, class, box, which sensor shows it, and why.

    Args:
        root: a new or empty folder.
        options: of the phantom.
        put: writes the files of a moment below the folder and returns its id.
        classes: that occur.
        form: for ABOUT.txt, such as "in the layout of MSRS".
        ratio: height over width.
        bits: of the infrared pictures.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    size = (round(options.size * ratio), options.size)
    lines = ["id,class,left,top,right,bottom,shown,cause,night"]
    for scene in range(1, options.scenes + 1):
        rendered = render(
            scene,
            frames=options.frames,
            size=size,
            seed=options.seed,
            classes=classes,
            misalign=options.misalign,
            bits=bits,
        )
        for number, frame in enumerate(rendered):
            lines += _truth(put(root, Moment(scene, number, frame, size)), frame)
    write_text(root / "truth.csv", "\n".join(lines) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up road scenes, nobody and nothing in them exists: {options.scenes} scenes of {options.frames} "
        f"frames, {options.size} pixels wide, seed {options.seed}, {form}.\nWritten by ScanFuse.\n",
    )
    return root


def _truth(id: str, frame: Frame) -> Iterator[str]:
    for name, box, shown, cause in zip(frame.boxes.names, frame.boxes.xyxy, frame.shown, frame.cause, strict=True):
        edges = ",".join(str(int(edge)) for edge in box)
        yield f"{id},{name},{edges},{shown},{cause},{int(frame.night)}"


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """PNG or JPEG by the suffix; whole or not at all."""
    save(path, encoded(pixels, "PNG" if path.suffix == ".png" else "JPEG"))


def save_text(path: Path, text: str) -> None:
    """UTF-8, whole or not at all, without waiting for the disk: there is one such file a picture."""
    save(path, text.encode())


def grey_rgb(ir: np.ndarray) -> np.ndarray:
    """Infrared as three equal channels, as some data sets store it."""
    return np.repeat(ir[..., None], 3, axis=2)
