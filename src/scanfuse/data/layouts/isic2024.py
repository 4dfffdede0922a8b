"""ISIC 2024 (SLICE-3D): 401,059 crops of lesions from total-body photographs, 393 malignant, with 40 measurements.

The training table has 55 columns, the test table 44: eleven are known only after the diagnosis, the target among
them. They are read, and `scanfuse.data.transforms.leaks` says why none of them is a feature.
"""

from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.cases import manifest_of_cases, pictures_in
from scanfuse.data.large_csv import read_large_csv
from scanfuse.data.layouts import Request
from scanfuse.data.manifest import Manifest
from scanfuse.data.readers.hdf5 import Container
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/train-metadata.csv (or test-metadata.csv, or one of these files itself) with isic_id, patient_id, and "
    "the pictures in train-image.hdf5 or train-image/image/<isic_id>.jpg"
)
CITATION = (
    "N. R. Kurtansky et al.: The SLICE-3D dataset: 400,000 skin lesion image crops extracted from 3D TBP for skin "
    "cancer detection, Scientific Data 11, 884 (2024)"
)
LICENCE = "CC BY-NC 4.0 (the permissive part: CC BY 4.0), stated row by row"
HOW_TO_GET = "download it from https://challenge2024.isic-archive.com and unpack it"
EXPECTED = {"train": (401059, 1042, 393)}
"""(crops, patients, malignant)."""
RANK = 8
KIND = "image_table"
PHANTOM = "isic2024"
SUBMISSION = ("isic_id", "target")
"""Columns of the file that the challenge takes."""
TRAIN_ONLY = (
    "target", "lesion_id", "iddx_full", "iddx_1", "iddx_2", "iddx_3", "iddx_4", "iddx_5", "mel_mitotic_index",
    "mel_thick_mm", "tbp_lv_dnn_lesion_confidence",
)  # fmt: skip
_NAMES = ("train-metadata.csv", "test-metadata.csv")


class Options(Section):
    """What can be chosen."""

    pictures: Literal["auto", "hdf5", "folder"] = Field("auto", description="auto: the container where it is there")


def matches(root: Path, request: Request) -> bool:
    """True if the folder has one of the two tables, or `root` is one of them."""
    return _table(root) is not None


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per crop, grouped by patient. A folder with both tables is read as the training data.

    Raises:
        UserError: a column or the pictures are missing, or the test table is to be split.
    """
    request.refuse("isic2024", "modalities", "group_pattern")
    file = _table(root)
    if file is None:
        raise UserError(f"{root} is not in the layout 'isic2024': expected {LAYOUT}.")
    part = file.name.removesuffix("-metadata.csv")
    table = read_large_csv(file, texts=("isic_id", "patient_id", "target"))
    lacking = [name for name in ("isic_id", "patient_id") if name not in table]
    if lacking:
        raise UserError(f"{file} has no column {lacking[0]!r}; download it again.")
    target = table["target"] if "target" in table else pd.Series([""] * len(table), dtype=str)
    cases = table.drop(columns=[name for name in ("isic_id", "patient_id", "target") if name in table])
    cases = cases.assign(id=table["isic_id"], group=table["patient_id"], target=target)
    notes = []
    if part == "train" and len(table) != EXPECTED["train"][0]:
        notes.append(f"{len(table)} of 401059 crops")
    return manifest_of_cases(
        file,
        cases,
        _pictures(file.parent, part, table["isic_id"].tolist(), options.pictures),
        request,
        notes=notes,
        subgroups=("sex",) if "sex" in table else (),
    )


def _table(root: Path) -> Path | None:
    if root.is_file():
        return root if root.name in _NAMES else None
    return next((root / name for name in _NAMES if (root / name).is_file()), None)


def _pictures(home: Path, part: str, ids: list[str], wanted: str) -> list[str]:
    """The path of every crop, that of the container for those which it holds."""
    container = home / f"{part}-image.hdf5"
    if wanted == "hdf5" or (wanted == "auto" and container.is_file()):
        held = Container(container).names()
        path = str(container)
        return [path if name in held else "" for name in ids]
    folders = [home / f"{part}-image" / "image", home / f"{part}-image"]
    if not any(folder.is_dir() for folder in folders):
        raise UserError(f"{home} has neither {container.name} nor the folder {folders[0].relative_to(home)}.")
    files = pictures_in(folders)
    return [str(files.get(name, "")) for name in ids]
