"""Made-up road scenes in the LLVIP layout: people only, 5 : 4, one annotation for both sensors.

A name is <two digits of the scene><four of the frame>; one scene in five (the last ones, as published) is in test.
Pictures are JPEG, infrared as three equal channels. Unlike in LLVIP half of the scenes are by day.
"""

from pathlib import Path

from pydantic import Field

from scanfuse.data.annotations import voc
from scanfuse.data.layouts.llvip import CLASSES
from scanfuse.data.synthetic._road_writing import (
    ROADS,
    Moment,
    RoadOptions,
    grey_rgb,
    save_picture,
    save_text,
    write_roads,
)

__all__ = ["write"]


class Options(RoadOptions):
    """How many scenes, how large, and how well the sensors are registered."""

    scenes: int = Field(99, ge=2, le=99, description="scenes of several frames each")


FACTS = ROADS


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/LLVIP/{visible,infrared}/{train,test}/*.jpg and Annotations/*.xml; truth.csv beside them.

    The same arguments give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    last_of_training = options.scenes - max(1, options.scenes // 5)

    def put(root: Path, moment: Moment) -> str:
        home, frame = root / "LLVIP", moment.frame
        name = f"{moment.scene:02d}{moment.number + 1:04d}"
        split = "test" if moment.scene > last_of_training else "train"
        save_picture(home / "visible" / split / f"{name}.jpg", frame.rgb)
        save_picture(home / "infrared" / split / f"{name}.jpg", grey_rgb(frame.ir))
        text = voc.encode(frame.boxes, size=moment.size, file_name=f"{name}.jpg")
        save_text(home / "Annotations" / f"{name}.xml", text)
        return name

    return write_roads(root, options, put, classes=CLASSES.classes, form="in the layout of LLVIP", ratio=0.8)
