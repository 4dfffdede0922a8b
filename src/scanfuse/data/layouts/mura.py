"""MURA v1.1: bone X-rays of the upper limb, each study normal (0) or abnormal (1), with one to many views.

The csv files have no header. A file that was given one is read all the same: a first line whose cells are no path
and no label is passed over, and a note says so. Labels are those of `*_labeled_studies.csv` and must agree with the
suffix of the study's folder. Which projection a view is, the data do not say.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.layouts import Request
from scanfuse.data.manifest import Manifest
from scanfuse.data.studies import Study, check_files, hold_out, manifest_of, with_views
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/{train,valid}_labeled_studies.csv, {train,valid}_image_paths.csv and "
    "{train,valid}/XR_<PART>/patient*/study*_{positive,negative}/image*.png; "
    "<root> is MURA-v1.1 or the folder above it"
)
CITATION = (
    "P. Rajpurkar et al.: MURA: Large dataset for abnormality detection in musculoskeletal radiographs, MIDL 2018, "
    "arXiv:1712.06957"
)
LICENCE = "Stanford research use agreement: non-commercial research, no redistribution"
HOW_TO_GET = "register at https://stanfordmlgroup.github.io/competitions/mura/ and unpack MURA-v1.1.zip"
EXPECTED = {"train": (13457, 11184, 36808), "valid": (1199, 783, 3197)}
"""Published split -> (studies, patients, images); the hidden test set is not part of the download."""
RANK = 5
KIND = "view_pairs"
PHANTOM = "mura"
ROLES = ("view",)
PARTS = ("ELBOW", "FINGER", "FOREARM", "HAND", "HUMERUS", "SHOULDER", "WRIST")
_STUDY = re.compile(r"(train|valid)/XR_([A-Z]+)/(patient\d+)/(study\d+)_(positive|negative)$")
_NAMES = {"train": "train_labeled_studies.csv", "valid": "valid_labeled_studies.csv"}


class Options(Section):
    """What can be chosen."""

    parts: tuple[str, ...] = Field((), description="body parts to read, such as WRIST+HAND; all seven if empty")
    validation_share: float = Field(0.08, ge=0, lt=1, description="share of the train studies that becomes val")


def matches(root: Path, request: Request) -> bool:
    """True if the published csv files lie in `root` or in its folder MURA-v1.1."""
    return _home(root) is not None


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per study, views in the order of their image numbers; a further column "part" such as WRIST.

    The published valid set is test. Val is cut from train by patient, balanced over parts and labels, unless no split
    is wanted. A study with a single image is incomplete.

    Raises:
        UserError: a csv file or image is missing, a line is odd, or a patient is in train and valid.
    """
    request.refuse("mura", "modalities", "fractions", "group_pattern")
    home = _home(root)
    if home is None:
        raise UserError(f"{root} is not in the layout 'mura': expected {LAYOUT}.")
    wanted = _parts(options.parts)
    studies: list[Study] = []
    notes = ["classes: 0 normal, 1 abnormal; the published valid set is test, val was cut from train by patient"]
    for published, name in _NAMES.items():
        found, had_header = _read_split(home, published, wanted)
        if had_header:
            notes.append(f"{name} has a header line, which the published file does not have; it was passed over")
        expected = EXPECTED[published][0]
        if len(found) != expected and not options.parts:
            notes.append(f"{len(found)} of the {expected} studies of the published {published} set")
        studies += found
    studies = with_views(home, studies, lambda study: len(study.views) > 1, request.incomplete)
    if request.split != "none":
        check_files(studies)
    strata = [f"{study.further['part']} {study.target}" for study in studies]
    if request.split != "none":
        studies = hold_out(studies, strata, fraction=options.validation_share, seed=request.seed)
    return manifest_of(studies, roles=ROLES, notes=notes, subgroups=("part",), positive="abnormal")


def _home(root: Path) -> Path | None:
    for folder in (root, root / "MURA-v1.1"):
        if any((folder / name).is_file() for name in _NAMES.values()):
            return folder
    return None


def _parts(parts: Sequence[str]) -> tuple[str, ...]:
    wanted = tuple(part.upper().removeprefix("XR_") for part in parts) or PARTS
    for part in wanted:
        if part not in PARTS:
            raise UserError(f"MURA has no body part {part!r}; choose {', '.join(PARTS)}.")
    return wanted


def _read_split(home: Path, published: str, wanted: tuple[str, ...]) -> tuple[list[Study], bool]:
    table = home / _NAMES[published]
    images = _images(home, published)
    found: list[Study] = []
    taken: set[str] = set()
    lines = _lines(table)
    had_header = bool(lines) and _STUDY.search(lines[0][0].rstrip("/")) is None and _is_header(lines[0])
    for number, cells in enumerate(lines[had_header:], start=1 + had_header):
        match = _STUDY.search(cells[0].rstrip("/"))
        if match is None or len(cells) < 2 or cells[1] not in ("0", "1") or match.group(1) != published:
            raise UserError(
                f"{table} line {number} is {','.join(cells)!r}; expected "
                f"MURA-v1.1/{published}/XR_WRIST/patient00001/study1_positive/,1."
            )
        _, part, patient, study, label = match.groups()
        if part not in wanted:
            continue
        if (cells[1] == "1") != (label == "positive"):
            raise UserError(f"{table} line {number} gives the label {cells[1]} to a folder named {label}; mend it.")
        key = match.group(0)
        if key in taken:
            raise UserError(f"{table} lists {key} twice; remove one of the lines.")
        taken.add(key)
        name = f"{part}-{patient}-{study}"
        files = images.get(key, []) if images is not None else _listed(home / key)
        if not files:
            raise UserError(f"{home / key} has no image; complete the download, or remove it from {table.name}.")
        views = tuple(("view", path) for path in files)
        split = "train" if published == "train" else "test"
        found.append(Study(name, patient, split, cells[1], views, {"part": part, "published": published}))
    # A patient's study number may come back with the other label: then the folder's whole name tells them apart.
    return _tell_apart(found), had_header


def _tell_apart(studies: list[Study]) -> list[Study]:
    counts: dict[str, int] = {}
    for study in studies:
        counts[study.id] = counts.get(study.id, 0) + 1
    suffix = {"0": "_negative", "1": "_positive"}
    return [
        Study(s.id + suffix[s.target], s.group, s.split, s.target, s.views, s.further) if counts[s.id] > 1 else s
        for s in studies
    ]


def _images(home: Path, published: str) -> dict[str, list[Path]] | None:
    """Study folder -> its images in order, from the list of paths; None if there is no such list."""
    table = home / f"{published}_image_paths.csv"
    if not table.is_file():
        return None
    found: dict[str, list[Path]] = {}
    for cells in _lines(table):
        folder, _, name = cells[0].rpartition("/")
        match = _STUDY.search(folder)
        if match is not None and not name.startswith("."):
            found.setdefault(match.group(0), []).append(home / match.group(0) / name)
    if not found:
        raise UserError(f"{table} names no image below {published}/XR_*; download it again.")
    return {key: sorted(paths, key=_order) for key, paths in found.items()}


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; complete the download, or remove it from the csv file.")
    # The archive was packed on a Mac: "._image1.png" beside an image is no image.
    return sorted((path for path in folder.glob("*.png") if not path.name.startswith(".")), key=_order)


def _order(path: Path) -> tuple[int, str]:
    digits = re.search(r"(\d+)", path.stem)
    return (int(digits.group(1)) if digits else 0, path.name)


def _is_header(cells: list[str]) -> bool:
    return not any("/" in cell or cell in ("0", "1") for cell in cells)


def _lines(table: Path) -> list[list[str]]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{table} does not exist; MURA comes with it, copy it beside the images.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table} cannot be read as text ({error}); download it again.") from error
    rows = ([cell.strip() for cell in cells] for cells in csv.reader(text.splitlines()))
    found = [cells for cells in rows if any(cells)]
    if not found:
        raise UserError(f"{table} is empty; download it again.")
    return found
