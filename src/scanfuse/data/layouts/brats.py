"""BraTS, the brain tumour segmentation challenge: a folder of four registered MRI volumes for each scan.

Names by year (all .nii.gz or .nii):

    2019        {HGG,LGG}/BraTS19_<site>_<n>_1/<id>_{flair,t1,t1ce,t2,seg}
    2020        BraTS20_Training_<n>/<id>_{...}, grade in name_mapping.csv; case 355 has W39_1998.09.19_Segm
    2021        BraTS2021_<n>/<id>_{...}
    2023        BraTS-GLI-<patient>-<time>/<id>-{t2f,t1n,t1c,t2w,seg}

Folders of any other name with files of such endings are read too, as for the TCGA collections. A scan may lack its
segmentation: the column "seg" is then empty. The target is the grade, HGG or LGG, where the data set tells it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from scanfuse.config import Section
from scanfuse.data.layouts import Request
from scanfuse.data.layouts.paired import group_of
from scanfuse.data.manifest import Manifest, read_csv
from scanfuse.data.splits import FRACTIONS, assign
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/[{HGG,LGG}/]<scan>/<scan>{_,-}{t1,t1ce,t2,flair,seg}.nii[.gz], also t1n, t1c, t2w, t2f; and a "
    "name_mapping.csv where the grade is in it"
)
CITATION = (
    "B. H. Menze et al.: The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS), IEEE TMI 2015; "
    "S. Bakas et al.: Advancing The Cancer Genome Atlas glioma MRI collections, Scientific Data 2017; "
    "U. Baid et al.: The RSNA-ASNR-MICCAI BraTS 2021 Benchmark, 2021"
)
LICENCE = "terms of the challenge, registration needed; the TCGA collections are CC BY 3.0"
HOW_TO_GET = "register at the challenge's site (Synapse), or take the TCGA glioma collections from TCIA"
EXPECTED = {"2019": (335, 259, 76), "2020": (369, 293, 76), "2021": (1251,)}
"""Year -> (scans, high grade, low grade) of the training data; 2021 has no grades."""
RANK = 3
KIND = "volumes"
PHANTOM = "brats"

GRADES = ("HGG", "LGG")
_ALIASES = {"t1n": "t1", "t1c": "t1ce", "t1gd": "t1ce", "t2w": "t2", "t2f": "flair"}
_FILE = re.compile(r"^(?P<scan>.+)[_-](?P<kind>t1ce|t1gd|t1n|t1c|t1|t2w|t2f|t2|flair|seg)\.nii(\.gz)?$", re.I)
_SCAN_2023 = re.compile(r"^(BraTS-[A-Za-z]+-\d+)-\d{3}$")
_DEPTH = 3
"""Folders below the root in which scans are looked for."""


class Options(Section):
    """Nothing can be chosen beyond what a request says."""


def matches(root: Path, request: Request) -> bool:
    """True if some folder holds volumes with the endings of LAYOUT for all modalities asked for."""
    wanted = {_plain(name) for name in request.modalities}
    return bool(wanted) and any(wanted <= set(_files(folder)) for folder in _folders(root))


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per scan; further columns "seg" (path or "") and "grade".

    The group is the patient: the scan, for 2023 without its time, or what `group_pattern` finds in its name.

    Raises:
        UserError: a scan without one of the modalities (incomplete="error"), two scans of one name, two files of one
            kind, a pattern that does not fit, too few patients, or split="published".
    """
    if request.split == "published":
        raise UserError(f"{root} has no published split of its own; use the split by patient.")
    grades = _mapped_grades(root)
    rows, lacking = [], []
    for folder in _folders(root):
        files = _files(folder)
        if not files:
            continue
        scan = folder.name
        paths = {name: files.get(_plain(name)) for name in request.modalities}
        missing = [name for name, path in paths.items() if path is None]
        if missing:
            lacking.append(f"{scan} (no {', '.join(missing).upper()})")
        if missing and request.incomplete == "drop":
            continue
        patient = _SCAN_2023.match(scan)
        row = {
            "id": scan,
            "group": group_of(scan, request.group_pattern) if request.group_pattern else scan,
            "split": "",
            "target": folder.parent.name if folder.parent.name in GRADES else grades.get(scan, ""),
        }
        if patient and not request.group_pattern:
            row["group"] = patient.group(1)
        row |= {name: str(path or "") for name, path in paths.items()}
        rows.append(row | {"seg": str(files.get("seg") or "")})
    if lacking and request.incomplete == "error":
        more = ", ..." if len(lacking) > 3 else ""
        raise UserError(
            f"{len(lacking)} of {len(rows)} scans in {root} lack a volume: {', '.join(lacking[:3])}{more}; add the "
            "missing files or remove these scans."
        )
    if not rows:
        raise UserError(f"{root} holds no scan with {' and '.join(request.modalities).upper()}.")
    table = pd.DataFrame(rows, dtype=str)
    known = int((table["target"] != "").sum())
    notes = (f"the grade is known of {known} of {len(table)} scans",) if 0 < known < len(table) else ()
    manifest = Manifest(table, request.modalities, notes)
    return assign(manifest, request.fractions or FRACTIONS, request.seed) if request.split == "made" else manifest


def _plain(name: str) -> str:
    """The name of a modality as in 2019 to 2021."""
    return _ALIASES.get(name.lower(), name.lower())


def _folders(root: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """The folder and all below it, to some depth, sorted."""
    if not root.is_dir():
        return
    yield root
    if depth:
        for path in sorted(root.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield from _folders(path, depth - 1)


def _files(folder: Path) -> dict[str, Path]:
    """Kind -> file, for a folder that is one scan: all its volumes have one name but for their endings."""
    volumes = [path for path in sorted(folder.iterdir()) if path.name.lower().endswith((".nii", ".nii.gz"))]
    matched = [(path, match) for path in volumes if path.is_file() and (match := _FILE.match(path.name))]
    if len({match["scan"] for _, match in matched}) != 1:
        return {}
    found: dict[str, Path] = {}
    for path, match in matched:
        kind = _plain(match["kind"])
        if kind in found:
            raise UserError(f"{folder} holds {found[kind].name} and {path.name}; keep one of them.")
        found[kind] = path
    # One published case has a segmentation of another name.
    known = set(found.values())
    segmentations = [path for path in volumes if path not in known and "seg" in path.name.lower()]
    if "seg" not in found and len(segmentations) == 1:
        found["seg"] = segmentations[0]
    return found


def _mapped_grades(root: Path) -> dict[str, str]:
    """Scan -> grade of the name_mapping.csv in the root or the folder above or below it; empty if there is none."""
    below = sorted(root.glob("*/name_mapping.csv"))
    for file in (root / "name_mapping.csv", root.parent / "name_mapping.csv", *below):
        if not file.is_file():
            continue
        _, table = read_csv(file)
        columns = {str(name).lower(): name for name in table}
        scans = columns.get("brats_2020_subject_id")
        grade = columns.get("grade")
        if scans is None or grade is None:
            raise UserError(f"{file} has no columns Grade and BraTS_2020_subject_ID; restore the published file.")
        return {scan: value.upper() for scan, value in zip(table[scans], table[grade], strict=True) if scan}
    return {}
