"""A user's own cases: manifest.csv with id, group, a picture and clinical values, optional split and target."""

import os
from dataclasses import replace
from pathlib import Path

from scanfuse.config import Section
from scanfuse.data.cases import IMAGE, manifest_of_cases
from scanfuse.data.layouts import Request, manifest
from scanfuse.data.manifest import Manifest

LAYOUT = (
    "<root>/manifest.csv (or the csv file itself) with columns id, group (the patient), image (a path), [split], "
    "[target], and a column for each clinical value"
)
CITATION = "your own data"
LICENCE = "your own"
HOW_TO_GET = "write a manifest.csv; paths are relative to it; leave a path empty where there is no picture"
EXPECTED: dict[str, tuple[int, int]] = {}
RANK = 3
KIND = "image_table"
PHANTOM = "case_manifest"


class Options(Section):
    """Nothing can be chosen beyond what a request says."""


def matches(root: Path, request: Request) -> bool:
    """True if `root` is a .csv file, or a folder that holds manifest.csv, with the columns id, group and image."""
    return manifest.has_columns(root, ("id", "group", IMAGE))


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per case. A filled split column is kept; without one the groups are split evenly by target.

    Raises:
        UserError: as `layouts.manifest`; pictures that are missing, or no column with a value.
    """
    request.refuse("case_manifest", "modalities", "group_pattern")
    wanted = replace(request, modalities=(IMAGE,), incomplete="keep")
    file = manifest.file_of(root)
    whole = manifest.read(root, replace(wanted, split="none"), manifest.Options())
    given = None
    if request.split != "none" and manifest.has_split(file):
        whole = manifest.read(root, wanted, manifest.Options())
        given = dict(zip(whole.table["group"], whole.table["split"], strict=True))
    # A picture that is named and not there is as good as none: how many lack it is said, or an error.
    pictures = [path if path and os.path.isfile(path) else "" for path in whole.table[IMAGE]]
    return manifest_of_cases(file, whole.table, pictures, request, notes=whole.notes, given=given)
