"""HAM10000: 10,015 dermoscopic pictures of 7,470 pigmented lesions, with age, sex and place.

A lesion may have several pictures: they stay together. "unknown" in the table is a missing value.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.cases import diagnosed, manifest_of_cases, pictures_in, table_with
from scanfuse.data.layouts import Request
from scanfuse.data.manifest import Manifest

LAYOUT = (
    "<root>/HAM10000_metadata.csv (or another name) with lesion_id, image_id, dx, and <image_id>.jpg in "
    "HAM10000_images_part_1, HAM10000_images_part_2 or images"
)
CITATION = (
    "P. Tschandl, C. Rosendahl, H. Kittler: The HAM10000 dataset, a large collection of multi-source dermatoscopic "
    "images of common pigmented skin lesions, Scientific Data 5, 180161 (2018)"
)
LICENCE = "CC BY-NC 4.0"
HOW_TO_GET = "download it from the Harvard Dataverse (doi:10.7910/DVN/DBW86T) and unpack both parts"
EXPECTED = {"all": (10015, 7470)}
"""(pictures, lesions)."""
RANK = 6
KIND = "image_table"
PHANTOM = "ham10000"
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MALIGNANT = ("akiec", "bcc", "mel")
_COLUMNS = ("lesion_id", "image_id", "dx")
_FOLDERS = ("images", "HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images")


class Options(Section):
    """What can be chosen."""

    target: Literal["malignant", "dx"] = Field(
        "malignant", description="akiec, bcc, mel against others, or all seven"
    )


def matches(root: Path, request: Request) -> bool:
    """True if a csv file of the folder has the columns lesion_id, image_id and dx."""
    return table_with(root, _COLUMNS) is not None


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per picture, grouped by lesion. age, sex and localization are features; dx and dx_type would leak.

    Raises:
        UserError: an unknown diagnosis, or pictures that are missing.
    """
    request.refuse("ham10000", "modalities", "group_pattern")
    file, table = diagnosed(root, "ham10000", LAYOUT, _COLUMNS, ("dx", CLASSES), "HAM10000")
    features = [name for name in table if name not in ("image_id", "malignant")]
    targets = table["dx"] if options.target == "dx" else table["dx"].isin(MALIGNANT).astype(int).astype(str)
    cases = table[features].replace("unknown", "").assign(id=table["image_id"], group=table["lesion_id"])
    notes = [f"{len(table)} of 10015 pictures"] if len(table) != 10015 else []
    return manifest_of_cases(
        file,
        cases.assign(target=list(targets)),
        pictures_in([file.parent / name for name in _FOLDERS]),
        request,
        notes=notes,
        subgroups=("sex",) if "sex" in cases else (),
    )
