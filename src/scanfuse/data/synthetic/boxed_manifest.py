"""Made-up road scenes as a user's own pairs: manifest.csv, classes.txt, YOLO files, 16-bit infrared, 4 : 3.

Infrared is PNG with the camera's counts (about 7200 to 9500). Three scenes in five are train, one val, one test.
"""

from pathlib import Path

from scanfuse.data.annotations import yolo
from scanfuse.data.synthetic._road_writing import ROADS, Moment, RoadOptions, save_picture, save_text, write_roads
from scanfuse.files import write_text

__all__ = ["CLASSES", "write"]

CLASSES = ("person", "car", "bicycle")


Options = RoadOptions
FACTS = ROADS


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/manifest.csv, classes.txt and the folders rgb, ir and boxes; truth.csv beside them.

    The same arguments give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    rows = ["id,group,split,rgb,ir,boxes,condition"]

    def put(root: Path, moment: Moment) -> str:
        frame, group = moment.frame, f"scene{moment.scene:03d}"
        name = f"{group}_frame{moment.number:02d}"
        split = ("train", "train", "train", "val", "test")[moment.scene % 5]
        save_picture(root / "rgb" / f"{name}.png", frame.rgb)
        save_picture(root / "ir" / f"{name}.png", frame.ir)
        save_text(root / "boxes" / f"{name}.txt", yolo.encode(frame.boxes, size=moment.size))
        files = f"rgb/{name}.png,ir/{name}.png,boxes/{name}.txt"
        rows.append(f"{name},{group},{split},{files},{'night' if frame.night else 'day'}")
        return name

    root = write_roads(root, options, put, classes=CLASSES, form="with a manifest", bits=16)
    write_text(root / "manifest.csv", "\n".join(rows) + "\n")
    write_text(root / "classes.txt", "\n".join(CLASSES) + "\n")
    return root
