"""Made-up road scenes in the LLVIP layout: people only, 5 : 4, one annotation for both sensors.

A name is <two digits of the scene><four of the frame>; one scene in five (the last ones, as published) is in test.
Pictures are JPEG, infrared as three equal channels. Unlike in LLVIP half of the scenes are by day.
"""

from pathlib import Path

from pydantic import Field

from scanfuse.data.annotations import voc
from scanfuse.data.layouts.llvip import CLASSES
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.data.synthetic._road_writing import RoadOptions, Truth, grey_rgb, moments, save_picture, save_text

__all__ = ["write"]


class Options(RoadOptions):
    """How many scenes, how large, and how well the sensors are registered."""

    scenes: int = Field(99, ge=2, le=99, description="scenes of several frames each")


FACTS = Facts(counted="scenes", seconds=0.3)


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/LLVIP/{visible,infrared}/{train,test}/*.jpg and Annotations/*.xml; truth.csv beside them.

    The same arguments give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    scenes, frames, size, seed, misalign = options.values
    empty_folder(root)
    root = Path(root)
    home, truth = root / "LLVIP", Truth()
    shape = (round(size * 0.8), size)
    for scene, number, frame in moments(
        scenes=scenes, frames=frames, size=shape, seed=seed, classes=CLASSES.classes, misalign=misalign, most=99
    ):
        name = f"{scene:02d}{number + 1:04d}"
        split = "test" if scene > scenes - max(1, scenes // 5) else "train"
        save_picture(home / "visible" / split / f"{name}.jpg", frame.rgb)
        save_picture(home / "infrared" / split / f"{name}.jpg", grey_rgb(frame.ir))
        text = voc.encode(frame.boxes, size=shape, file_name=f"{name}.jpg")
        save_text(home / "Annotations" / f"{name}.xml", text)
        truth.add(name, frame)
    truth.write(root, f"{scenes} scenes of {frames} frames, {size} pixels wide, seed {seed}, in the layout of LLVIP")
    return root
