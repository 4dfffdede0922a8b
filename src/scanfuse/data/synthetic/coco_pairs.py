"""Made-up road scenes as COCO pairs: six classes, 4 : 3, one .json file for training and one for test.

Category ids start at 0. A name has five digits and counts a hundred for each scene. Pictures are PNG, infrared grey.
"""

from pathlib import Path

from pydantic import Field

from scanfuse.data.annotations import coco
from scanfuse.data.boxes import Boxes
from scanfuse.data.layouts.coco_pairs import BLOCK
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.data.synthetic._road_writing import RoadOptions, Truth, moments, save_picture
from scanfuse.files import write_text

__all__ = ["CLASSES", "write"]

CLASSES = ("person", "car", "bus", "motorcycle", "lamp", "truck")


class Options(RoadOptions):
    """How many scenes, how large, and how well the sensors are registered."""

    scenes: int = Field(120, ge=2, le=900, description="scenes of several frames each")


FACTS = Facts(counted="scenes", seconds=0.3)


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/{Vis,Ir}/*.png, train_coco.json and test_coco.json (one scene in five); truth.csv beside them.

    The same arguments give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    scenes, frames, size, seed, misalign = options.values
    empty_folder(root)
    root, truth = Path(root), Truth()
    shape = (round(size * 0.75), size)
    files: dict[str, dict[str, tuple[Boxes, tuple[int, int]]]] = {"train": {}, "test": {}}
    for scene, number, frame in moments(
        scenes=scenes, frames=frames, size=shape, seed=seed, classes=CLASSES, misalign=misalign
    ):
        name = f"{(scene - 1) * BLOCK + number:05d}"
        split = "test" if scene > scenes - max(1, scenes // 5) else "train"
        save_picture(root / "Vis" / f"{name}.png", frame.rgb)
        save_picture(root / "Ir" / f"{name}.png", frame.ir)
        files[split][f"{name}.png"] = (frame.boxes, shape)
        truth.add(name, frame)
    for split, pictures in files.items():
        write_text(root / f"{split}_coco.json", coco.encode(pictures, first_category=0))
    truth.write(root, f"{scenes} scenes of {frames} frames, {size} pixels wide, seed {seed}, as COCO pairs")
    return root
