"""Made-up road scenes in the M3FD layout: six classes, 4 : 3, no split.

A name has five digits and counts a hundred for each scene, so that blocks of a hundred numbers are scenes. Pictures
are PNG, infrared as three equal channels, as in the published set; boxes carry its class names, such as "People".
"""

from dataclasses import replace
from pathlib import Path

from scanfuse.data.annotations import voc
from scanfuse.data.layouts.m3fd import BLOCK, CLASSES
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

_PUBLISHED = {"person": "People"} | {name: name.capitalize() for name in CLASSES.classes if name != "person"}


Options = RoadOptions
FACTS = ROADS


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/M3FD_Detection/{Vis,Ir}/*.png and Annotation/*.xml; truth.csv beside them.

    The same arguments give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """

    def put(root: Path, moment: Moment) -> str:
        home, frame = root / "M3FD_Detection", moment.frame
        name = f"{(moment.scene - 1) * BLOCK + moment.number:05d}"
        save_picture(home / "Vis" / f"{name}.png", frame.rgb)
        save_picture(home / "Ir" / f"{name}.png", grey_rgb(frame.ir))
        published = replace(frame.boxes, classes=tuple(_PUBLISHED[kind] for kind in CLASSES.classes))
        text = voc.encode(published, size=moment.size, file_name=f"{name}.png")
        save_text(home / "Annotation" / f"{name}.xml", text)
        return name

    return write_roads(root, options, put, classes=CLASSES.classes, form="in the layout of M3FD")
