"""Made-up lesions in the PAD-UFES-20 layout: square pictures of telephones, some RGBA, with 21 clinical values.

Picture and table each know half of what makes a lesion malignant, see `scanfuse.data.synthetic._lesion`; the table
knows its half by age, diameter, bleeding and growth. As in the published data, values of the history are missing for
half of the cases. Nothing here is fit for a medical statement.
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
_COLUMNS = (
    "patient_id", "lesion_id", "smoke", "drink", "background_father", "background_mother", "age", "pesticide",
    "gender", "skin_cancer_history", "cancer_history", "has_piped_water", "has_sewage_system", "fitspatrick",
    "region", "diameter_1", "diameter_2", "diagnostic", "itch", "grew", "hurt", "changed", "bleed", "elevation",
    "img_id", "biopsed",
)  # fmt: skip
_HISTORY = ("smoke", "drink", "pesticide", "skin_cancer_history", "cancer_history", "has_piped_water",
            "has_sewage_system")  # fmt: skip


class Options(Section):
    """How many lesions, and how large."""

    patients: int = Field(400, ge=5, le=99_999, description="patients with one or two lesions each")
    size: int = Field(96, ge=24, le=1024, description="side of the pictures in pixels")
    malignant: float = Field(0.4, gt=0, lt=1, description="share of malignant lesions")
    seed: int = Field(0, ge=0, description="seed of everything")


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes metadata.csv and the pictures in images/; the same options give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    lines = [",".join(_COLUMNS)]
    for number in range(options.patients):
        random = np.random.default_rng([options.seed, number, 20])
        told = bool(random.random() < 0.5)
        gender = str(random.choice(["MALE", "FEMALE"]))
        for lesion in range(int(random.integers(1, 3))):
            malignant, u, v = draw_case(random, options.malignant)
            name = f"PAT_{number}_{lesion}_{int(random.integers(1000))}"
            pixels = draw_lesion(random, u, size=options.size)
            if random.random() < 0.3:
                pixels = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], axis=-1)
            save(root / "images" / f"{name}.png", encoded(pixels, "PNG"))
            row = dict.fromkeys(_COLUMNS, "")
            row |= {"patient_id": f"PAT_{number}", "lesion_id": str(lesion), "img_id": f"{name}.png"}
            row |= {"age": str(round(float(np.clip(58 + 14 * v, 6, 94)))), "biopsed": str(malignant or told)}
            row |= {name: str(_told(random, v)) for name in ("itch", "grew", "bleed", "elevation")}
            row |= {name: str(_told(random, 0.0)) for name in ("hurt", "changed")}
            row["region"] = str(random.choice(["FACE", "FOREARM", "CHEST", "BACK", "ARM", "HAND"]))
            row["diagnostic"] = str(random.choice(["BCC", "MEL", "SCC"] if malignant else ["ACK", "NEV", "SEK"]))
            row["diameter_1"] = f"{np.clip(9 + 3.5 * v + random.normal(), 1, 30):.1f}"
            if told:
                row |= {name: str(bool(random.random() < 0.4)) for name in _HISTORY}
                row |= {"gender": gender, "fitspatrick": f"{random.integers(1, 7)}.0"}
                row |= {"background_father": "POMERANIA", "background_mother": str(random.choice(["ITALY", "UNK"]))}
                row["diameter_2"] = f"{random.uniform(3, 14):.1f}"
            lines.append(",".join(row[name] for name in _COLUMNS))
    write_text(root / "metadata.csv", "\n".join(lines) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up skin lesions, no patients: {options.patients} numbers, size {options.size}, seed {options.seed}, "
        "in the PAD-UFES-20 layout.\nWritten by ScanFuse. Not for any medical statement.\n",
    )
    return root


def _told(random: np.random.Generator, v: float) -> str:
    drawn = random.random()
    return "UNK" if drawn > 0.95 else str(bool(random.normal() < v))
