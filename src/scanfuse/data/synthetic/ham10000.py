"""Made-up lesions in the HAM10000 layout: dermoscopic pictures of 4 to 3, with age, sex and place.

Picture and table each know half of what makes a lesion malignant, see `scanfuse.data.synthetic._lesion`; the table
knows its half by the age and, less surely, the place. Nothing here is fit for a medical statement.
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
_PLACES = ("back", "trunk", "lower extremity", "upper extremity", "face", "scalp")


class Options(Section):
    """How many lesions, and how large."""

    patients: int = Field(400, ge=5, le=99_999, description="lesions of one or two pictures each")
    size: int = Field(96, ge=24, le=1024, description="height of the pictures in pixels")
    malignant: float = Field(0.3, gt=0, lt=1, description="share of malignant lesions")
    seed: int = Field(0, ge=0, description="seed of everything")


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes HAM10000_metadata.csv and the pictures in two parts; the same options give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    taken = 0
    for number in range(options.patients):
        random = np.random.default_rng([options.seed, number, 10])
        malignant, u, v = draw_case(random, options.malignant)
        dx = str(random.choice(["mel", "bcc", "akiec"] if malignant else ["nv", "bkl", "df", "vasc"]))
        sex = str(random.choice(["male", "female", "unknown"], p=[0.5, 0.44, 0.06]))
        age = "" if random.random() < 0.06 else f"{5 * round(float(np.clip(50 + 16 * v, 0, 85)) / 5)}.0"
        place = str(_PLACES[int(np.clip(np.floor(3 + 1.2 * v + random.normal()), 0, 5))])
        for _ in range(int(random.integers(1, 3))):
            name = f"ISIC_{24306 + taken:07d}"
            part = 1 + taken % 2
            taken += 1
            pixels = draw_lesion(random, u, size=round(options.size * 4 / 3))
            cut = (pixels.shape[0] - options.size) // 2
            data = encoded(pixels[cut : cut + options.size], "JPEG")
            save(root / f"HAM10000_images_part_{part}" / f"{name}.jpg", data)
            lines.append(f"HAM_{number:07d},{name},{dx},{'histo' if malignant else 'follow_up'},{age},{sex},{place}")
    write_text(root / "HAM10000_metadata.csv", "\n".join(lines) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up skin lesions, no patients: {options.patients} lesions, size {options.size}, seed {options.seed}, "
        "in the HAM10000 layout.\nWritten by ScanFuse. Not for any medical statement.\n",
    )
    return root
