"""Made-up road scenes in the M3FD layout: six classes, 4 : 3, no split.

A name has five digits and counts a hundred for each scene, so that blocks of a hundred numbers are scenes. Pictures
are PNG, infrared as three equal channels, as in the published set; boxes carry its class names, such as "People".
"""

from dataclasses import replace
from pathlib import Path

from pydantic import Field

from scanfuse.data.annotations import voc
from scanfuse.data.layouts.m3fd import BLOCK, CLASSES
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.data.synthetic._road_writing import RoadOptions, Truth, grey_rgb, moments, save_picture, save_text

__all__ = ["write"]

_PUBLISHED = {"person": "People"} | {name: name.capitalize() for name in CLASSES.classes if name != "person"}


class Options(RoadOptions):
    """How many scenes, how large, and how well the sensors are registered."""

    scenes: int = Field(120, ge=2, le=900, description="scenes of several frames each")


FACTS = Facts(counted="scenes", seconds=0.3)


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/M3FD_Detection/{Vis,Ir}/*.png and Annotation/*.xml; truth.csv beside them.

    The same arguments give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    scenes, frames, size, seed, misalign = options.values
    empty_folder(root)
    root = Path(root)
    home, truth = root / "M3FD_Detection", Truth()
    shape = (round(size * 0.75), size)
    for scene, number, frame in moments(
        scenes=scenes, frames=frames, size=shape, seed=seed, classes=CLASSES.classes, misalign=misalign
    ):
        name = f"{(scene - 1) * BLOCK + number:05d}"
        save_picture(home / "Vis" / f"{name}.png", frame.rgb)
        save_picture(home / "Ir" / f"{name}.png", grey_rgb(frame.ir))
        published = replace(frame.boxes, classes=tuple(_PUBLISHED[kind] for kind in CLASSES.classes))
        save_text(home / "Annotation" / f"{name}.xml", voc.encode(published, size=shape, file_name=f"{name}.png"))
        truth.add(name, frame)
    truth.write(root, f"{scenes} scenes of {frames} frames, {size} pixels wide, seed {seed}, in the layout of M3FD")
    return root
