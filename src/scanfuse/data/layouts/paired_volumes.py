"""Any registered volumes: one folder per modality, equal names, NIfTI."""

from pathlib import Path

from scanfuse.config import Section
from scanfuse.data.layouts import Request
from scanfuse.data.layouts.paired import group_of, index_folders, modality_folders, table_of
from scanfuse.data.manifest import Manifest
from scanfuse.data.splits import FRACTIONS, assign
from scanfuse.errors import UserError

LAYOUT = "<root>/<modality>/<name>.nii[.gz], one folder per modality, equal names"
CITATION = "your own data"
LICENCE = "your own"
HOW_TO_GET = "put the registered volumes into one folder per modality under equal names"
EXPECTED: dict[str, tuple[int, int]] = {}
RANK = 1
KIND = "volumes"
PHANTOM = "paired_volumes"

SUFFIXES = (".nii", ".nii.gz")


class Options(Section):
    """Nothing can be chosen beyond what a request says."""


def matches(root: Path, request: Request) -> bool:
    """True if `root` has a folder for each modality (in any case)."""
    found = modality_folders(root, request.modalities)
    return bool(found) and len(found) == len(request.modalities)


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per name; the group is the name itself, or what `group_pattern` finds in it.

    Raises:
        UserError: unpaired or doubled names, a pattern that does not fit, too few groups, or split="published".
    """
    if request.split == "published":
        raise UserError(f"{root} is a plain pair of folders without a published split; use the split by patient.")
    pair, pattern = request.modalities, request.group_pattern
    table = table_of(index_folders(modality_folders(root, pair), request.incomplete, suffixes=SUFFIXES), pair)
    if pattern is not None:
        table["group"] = [group_of(name, pattern) for name in table["id"]]
    notes = () if pattern else ("every volume is its own group: give a group pattern if some share a patient",)
    manifest = Manifest(table, pair, notes)
    return assign(manifest, request.fractions or FRACTIONS, request.seed) if request.split == "made" else manifest
