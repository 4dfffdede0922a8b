"""Made-up road scenes in the FLIR-Aligned layout: person, car, bicycle, a few dogs, 5 : 4, two lists.

Numbers count fifty for each scene, so that blocks of fifty are scenes; the validation list starts at 08863 as in
FLIR's set. Boxes stand in one file, named after the infrared picture. The published ones were drawn on infrared; here
every object has its box, also those that only RGB shows.
"""

from pathlib import Path

from pydantic import Field

from scanfuse.data.annotations import voc
from scanfuse.data.layouts.flir_aligned import BLOCK, CLASSES
from scanfuse.data.synthetic._road_writing import ROADS, Moment, RoadOptions, save_picture, save_text, write_roads
from scanfuse.files import write_text

__all__ = ["write"]

_KINDS = (*CLASSES.classes, "dog")
_FIRST_OF_VALIDATION = 8863


class Options(RoadOptions):
    """How many scenes, how large, and how well the sensors are registered."""

    scenes: int = Field(120, ge=2, le=175, description="scenes of several frames each")


FACTS = ROADS


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/align/{JPEGImages,Annotations} and the two lists; truth.csv beside them.

    One scene in five is in the validation list. The same arguments give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    training = options.scenes - max(1, options.scenes // 5)
    lists: dict[str, list[str]] = {"align_train.txt": [], "align_validation.txt": []}

    def put(root: Path, moment: Moment) -> str:
        home, frame, scene = root / "align", moment.frame, moment.scene
        if scene <= training:
            published, place = "align_train.txt", (scene - 1) * BLOCK + moment.number + 1
        else:
            # The first block of the validation numbers is not whole: 08850 to 08899 begins in the training numbers.
            published = "align_validation.txt"
            place = _FIRST_OF_VALIDATION + (scene - training - 1) * BLOCK + moment.number
        name = f"FLIR_{place:05d}"
        save_picture(home / "JPEGImages" / f"{name}_RGB.jpg", frame.rgb)
        save_picture(home / "JPEGImages" / f"{name}_PreviewData.jpeg", frame.ir)
        text = voc.encode(frame.boxes, size=moment.size, file_name=f"{name}_PreviewData.jpeg", depth=1)
        save_text(home / "Annotations" / f"{name}_PreviewData.xml", text)
        lists[published].append(f"{name}_PreviewData")
        return name

    root = write_roads(root, options, put, classes=_KINDS, form="in the layout of FLIR-Aligned", ratio=0.8)
    for published, names in lists.items():
        write_text(root / "align" / published, "\n".join(names) + "\n")
    return root
