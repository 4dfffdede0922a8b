"""PAD-UFES-20: 2,298 pictures of skin lesions by telephone cameras, with 21 clinical values of 1,373 patients.

Many values are missing where no biopsy was taken, so that a gap tells something about the diagnosis.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.cases import diagnosed, manifest_of_cases, pictures_in, table_with
from scanfuse.data.layouts import Request
from scanfuse.data.manifest import Manifest

LAYOUT = (
    "<root>/metadata.csv (or another name) with patient_id, img_id, diagnostic, fitspatrick, and the pictures in "
    "images or imgs_part_1 to imgs_part_3 (also below images)"
)
CITATION = (
    "A. G. C. Pacheco et al.: PAD-UFES-20: a skin lesion dataset composed of patient data and clinical images "
    "collected from smartphones, Data in Brief 32, 106221 (2020)"
)
LICENCE = "CC BY 4.0"
HOW_TO_GET = "download it from Mendeley Data (doi:10.17632/zr7vgbcyr2.1) and unpack the three parts"
EXPECTED = {"all": (2298, 1373)}
"""(pictures, patients)."""
RANK = 7
KIND = "image_table"
PHANTOM = "pad_ufes"
CLASSES = ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK")
CANCER = ("BCC", "MEL", "SCC")
_COLUMNS = ("patient_id", "img_id", "diagnostic", "fitspatrick")
_PARTS = ("imgs_part_1", "imgs_part_2", "imgs_part_3")


class Options(Section):
    """What can be chosen."""

    target: Literal["cancer", "diagnostic"] = Field("cancer", description="BCC, MEL, SCC against others, or all six")


def matches(root: Path, request: Request) -> bool:
    """True if a csv file of the folder has the columns of the clinical table."""
    return table_with(root, _COLUMNS) is not None


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per picture, grouped by patient. "UNK" is a missing value; biopsed and diagnostic would leak.

    Raises:
        UserError: an unknown diagnosis, or pictures that are missing.
    """
    request.refuse("pad_ufes", "modalities", "group_pattern")
    file, table = diagnosed(root, "pad_ufes", LAYOUT, _COLUMNS, ("diagnostic", CLASSES), "PAD-UFES-20")
    features = [name for name in table if name not in ("img_id", "patient_id")]
    diagnoses = table["diagnostic"]
    targets = diagnoses if options.target == "diagnostic" else diagnoses.isin(CANCER).astype(int).astype(str)
    names = [Path(name).stem for name in table["img_id"]]
    cases = table[features].replace("UNK", "").assign(id=names, group=table["patient_id"], target=list(targets))
    home = file.parent
    folders = [home / "images", *(home / part for part in _PARTS), *(home / "images" / part for part in _PARTS)]
    notes = [f"{len(table)} of 2298 pictures"] if len(table) != 2298 else []
    subgroups = ("fitspatrick",)
    return manifest_of_cases(file, cases, pictures_in(folders), request, notes=notes, subgroups=subgroups)
