"""Made-up road scenes in the LLVIP layout: people only, 5 : 4, one annotation for both sensors.

A name is <two digits of the scene><four of the frame>; one scene in five (the last ones, as published) is in test.
Pictures are JPEG, infrared as three equal channels. Unlike in LLVIP half of the scenes are by day.
"""

from pathlib import Path

from scanfuse.data.annotations import voc
from scanfuse.data.layouts.llvip import CLASSES
from scanfuse.data.synthetic._road_writing import Truth, grey_rgb, moments, save_picture, save_text

__all__ = ["write"]


def write(
    root: str | Path, *, scenes: int = 24, frames: int = 4, size: int = 160, seed: int = 0, misalign: float = 0.0
) -> Path:
    """Writes <root>/LLVIP/{visible,infrared}/{train,test}/*.jpg and Annotations/*.xml; truth.csv beside them.

    The same arguments give the same bytes.

    Args:
        root: folder; made where it is missing.
        scenes: 2 to 99.
        frames: of each scene, 1 to 20.
        size: width in pixels, 64 to 1280; the height is 4/5 of it.
        seed: of everything.
        misalign: infrared is shifted by up to so many pixels, the same in all frames of a scene.

    Raises:
        UserError: a number out of range, or a folder that cannot be written.
    """
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
