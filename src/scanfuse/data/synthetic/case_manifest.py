"""Made-up lesions as a user's own table: manifest.csv with id, group, target, image and four clinical values.

Picture and table each know half of what makes a lesion malignant, see `scanfuse.data.synthetic._lesion`; the table
knows its half by age and diameter. One diameter in ten is missing. Nothing here is fit for a medical statement.
"""

from pathlib import Path

import numpy as np
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.synthetic._film import encoded, save
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.data.synthetic._lesion import draw_case, draw_lesion
from scanfuse.files import write_text

__all__ = ["FACTS", "Options", "write"]

FACTS = Facts(counted="patients", seconds=0.02)


class Options(Section):
    """How many lesions, and how large."""

    patients: int = Field(400, ge=5, le=99_999, description="patients with one or two lesions each")
    size: int = Field(96, ge=24, le=1024, description="side of the pictures in pixels")
    malignant: float = Field(0.4, gt=0, lt=1, description="share of malignant lesions")
    seed: int = Field(0, ge=0, description="seed of everything")


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes manifest.csv and the pictures in images/; the same options give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    lines = ["id,group,target,image,age,sex,site,diameter_mm"]
    for number in range(options.patients):
        random = np.random.default_rng([options.seed, number, 30])
        sex = str(random.choice(["female", "male"]))
        for lesion in range(int(random.integers(1, 3))):
            malignant, u, v = draw_case(random, options.malignant)
            name = f"p{number:05d}_{lesion}"
            pixels = draw_lesion(random, u, size=options.size)
            save(root / "images" / f"{name}.png", encoded(pixels, "PNG"))
            age = round(float(np.clip(58 + 14 * v + 5 * random.normal(), 6, 94)))
            diameter = f"{np.clip(9 + 3.5 * v + random.normal(), 1, 30):.1f}" if random.random() < 0.9 else ""
            site = str(random.choice(["face", "chest", "back", "arm", "leg"]))
            lines.append(f"{name},p{number:05d},{int(malignant)},images/{name}.png,{age},{sex},{site},{diameter}")
    write_text(root / "manifest.csv", "\n".join(lines) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up skin lesions, no patients: {options.patients} numbers, size {options.size}, seed {options.seed}, "
        "with a manifest.\nWritten by ScanFuse. Not for any medical statement.\n",
    )
    return root
