"""Made-up road scenes as a user's own pairs: manifest.csv, classes.txt, YOLO files, 16-bit infrared, 4 : 3.

Infrared is PNG with the camera's counts (about 7200 to 9500). Three scenes in five are train, one val, one test.
"""

from pathlib import Path

from pydantic import Field

from scanfuse.data.annotations import yolo
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.data.synthetic._road_writing import RoadOptions, Truth, moments, save_picture, save_text
from scanfuse.files import write_text

__all__ = ["CLASSES", "write"]

CLASSES = ("person", "car", "bicycle")


class Options(RoadOptions):
    """How many scenes, how large, and how well the sensors are registered."""

    scenes: int = Field(120, ge=2, le=900, description="scenes of several frames each")


FACTS = Facts(counted="scenes", seconds=0.3)


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/manifest.csv, classes.txt and the folders rgb, ir and boxes; truth.csv beside them.

    The same arguments give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    scenes, frames, size, seed, misalign = options.values
    empty_folder(root)
    root, truth = Path(root), Truth()
    shape = (round(size * 0.75), size)
    rows = ["id,group,split,rgb,ir,boxes,condition"]
    for scene, number, frame in moments(
        scenes=scenes, frames=frames, size=shape, seed=seed, classes=CLASSES, misalign=misalign, bits=16
    ):
        group = f"scene{scene:03d}"
        name = f"{group}_frame{number:02d}"
        split = ("train", "train", "train", "val", "test")[scene % 5]
        save_picture(root / "rgb" / f"{name}.png", frame.rgb)
        save_picture(root / "ir" / f"{name}.png", frame.ir)
        save_text(root / "boxes" / f"{name}.txt", yolo.encode(frame.boxes, size=shape))
        files = f"rgb/{name}.png,ir/{name}.png,boxes/{name}.txt"
        rows.append(f"{name},{group},{split},{files},{'night' if frame.night else 'day'}")
        truth.add(name, frame)
    write_text(root / "manifest.csv", "\n".join(rows) + "\n")
    write_text(root / "classes.txt", "\n".join(CLASSES) + "\n")
    truth.write(root, f"{scenes} scenes of {frames} frames, {size} pixels wide, seed {seed}, with a manifest")
    return root
