"""Made-up road scenes as COCO pairs: six classes, 4 : 3, one .json file for training and one for test.

Category ids start at 0. A name has five digits and counts a hundred for each scene. Pictures are PNG, infrared grey.
"""

from pathlib import Path

from scanfuse.data.annotations import coco
from scanfuse.data.boxes import Boxes
from scanfuse.data.layouts.coco_pairs import BLOCK
from scanfuse.data.synthetic._road_writing import ROADS, Moment, RoadOptions, save_picture, write_roads
from scanfuse.files import write_text

__all__ = ["CLASSES", "write"]

CLASSES = ("person", "car", "bus", "motorcycle", "lamp", "truck")


Options = RoadOptions
FACTS = ROADS


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/{Vis,Ir}/*.png, train_coco.json and test_coco.json (one scene in five); truth.csv beside them.

    The same arguments give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    last_of_training = options.scenes - max(1, options.scenes // 5)
    files: dict[str, dict[str, tuple[Boxes, tuple[int, int]]]] = {"train": {}, "test": {}}

    def put(root: Path, moment: Moment) -> str:
        name = f"{(moment.scene - 1) * BLOCK + moment.number:05d}"
        save_picture(root / "Vis" / f"{name}.png", moment.frame.rgb)
        save_picture(root / "Ir" / f"{name}.png", moment.frame.ir)
        split = "test" if moment.scene > last_of_training else "train"
        files[split][f"{name}.png"] = (moment.frame.boxes, moment.size)
        return name

    root = write_roads(root, options, put, classes=CLASSES, form="as COCO pairs")
    for split, pictures in files.items():
        write_text(root / f"{split}_coco.json", coco.encode(pictures, first_category=0))
    return root
