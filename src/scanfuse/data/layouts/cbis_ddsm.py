"""CBIS-DDSM: film mammograms as 16-bit DICOM, CC and MLO of a breast, benign (0) or malignant (1).

Four tables list abnormalities (mass or calc, training or test), several to a breast. Here a row is a breast:

* A breast is malignant if any of its abnormalities is; mixed breasts are counted in the notes.
  BENIGN_WITHOUT_CALLBACK is benign.
* The official test tables are test. Val is cut from the training tables by patient, over mass and calc together.
* Mass and calc were split apart from each other: 31 patients are in the training table of one and the test table of
  the other. Read together, these patients' training rows are left out (or kept and the manifest is labelled leaky).

The tables name files as they once were; the series UID in a path leads through metadata.csv to where the downloader
put it. A crop and its mask share a series in either order, and the tables confuse them: `tell_apart` looks at the
pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Literal

import pandas as pd
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.layouts import Request
from scanfuse.data.manifest import Manifest, read_csv
from scanfuse.data.readers import Image, read_image
from scanfuse.data.studies import Study, check_files, hold_out, manifest_of, with_views
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/{mass,calc}_case_description_{train,test}_set.csv, metadata.csv and "
    "CBIS-DDSM/<series>/<study>/<description>/1-1.dcm (the last two also below <root>/manifest-*/)"
)
CITATION = (
    "R. S. Lee et al.: A curated mammography data set for use in computer-aided detection and diagnosis research, "
    "Scientific Data 4:170177, 2017; The Cancer Imaging Archive, doi:10.7937/K9/TCIA.2016.7O02S9CY"
)
LICENCE = "CC BY 3.0"
HOW_TO_GET = "https://www.cancerimagingarchive.net/collection/cbis-ddsm/ with the NBIA Data Retriever (164 GB)"
EXPECTED = {"mass train": (722, 509), "mass test": (210, 151), "calc train": (662, 565), "calc test": (161, 123)}
"""Table -> (breasts, of these with both views)."""
RANK = 6
KIND = "view_pairs"
PHANTOM = "cbis_ddsm"
ROLES = ("cc", "mlo")

_TYPES = ("mass", "calc")
_SPLITS = ("train", "test")
_PATHOLOGIES = {"MALIGNANT": "1", "BENIGN": "0", "BENIGN_WITHOUT_CALLBACK": "0"}
_SIDE, _VIEW = "left or right breast", "image view"
_FULL, _CROP, _MASK = "image file path", "cropped image file path", "ROI mask file path"
_COLUMNS = ("patient_id", _SIDE, _VIEW, "abnormality id", "pathology", _FULL, _CROP, _MASK)


@dataclass(frozen=True)
class Region:
    """One abnormality in one view: its mask on the whole mammogram and the crop around it."""

    breast: str
    view: str
    number: str
    pathology: str
    mask: Path | None
    crop: Path | None


class Options(Section):
    """What can be chosen."""

    abnormality: Literal["both", "mass", "calc"] = Field("both", description="which tables are read")
    shared_patients: Literal["drop", "keep"] = Field(
        "drop", description="training rows of patients who are in a test table; keep makes the manifest leaky"
    )
    validation_share: float = Field(0.2, ge=0, lt=1, description="share of the train breasts that becomes val")
    files: Literal["check", "ignore"] = Field(
        "check", description="ignore reads the tables alone: paths are those in the tables, and need not exist"
    )


def matches(root: Path, request: Request) -> bool:
    """True if one of the four tables lies in `root`."""
    return any((root / _table_name(kind, split)).is_file() for kind in _TYPES for split in _SPLITS)


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per breast, "P_00001-LEFT": columns cc and mlo; further columns laterality, density, abnormality.

    With "both", a breast with a mass and calcifications is one row, and its label looks at both tables. With
    "mass" or "calc" only that table counts, as in the publications on one of them. A breast without a CC or without
    an MLO view is incomplete. Without a split no val is cut; rows are left out as ever.

    Raises:
        UserError: a table, column, series or file is missing, or a cell holds what it should not.
    """
    request.refuse("cbis_ddsm", "modalities", "fractions", "group_pattern")
    kinds = _TYPES if options.abnormality == "both" else (options.abnormality,)
    tables = [read_table(root, kind, published) for kind in kinds for published in _SPLITS]
    rows = pd.concat(tables, ignore_index=True)
    notes = ["classes: 0 benign, 1 malignant (any abnormality of the breast); the official test tables are test"]
    rows, note = _without_shared(rows, options.shared_patients)
    notes = [*note, *notes]
    mixed = rows.groupby("breast")["label"].nunique().gt(1).sum()
    if mixed:
        notes.append(f"{mixed} breasts hold benign and malignant abnormalities and count as malignant")
    places = _Places(root) if options.files == "check" else None
    studies = _breasts(root, rows, places)
    studies = with_views(root, studies, lambda study: len({role for role, _ in study.views}) == 2, request.incomplete)
    if places is not None and request.split != "none":
        check_files(studies)
    share, seed = options.validation_share, request.seed
    if request.split != "none" and (options.shared_patients == "drop" or not note):
        strata = [f"{study.target} {study.further['abnormality']}" for study in studies]
        studies = hold_out(studies, strata, fraction=share, seed=seed)
    elif request.split != "none":
        studies = _hold_out_unshared(studies, share, seed)
    return manifest_of(studies, roles=ROLES, notes=notes, positive="malignant")


def read_table(root: Path, kind: str, split: str) -> pd.DataFrame:
    """One of the four tables, with further columns kind, split, breast, view ("cc" or "mlo") and label ("0", "1").

    The density column's two names become "density". Cells lose the line breaks that the published files hold.

    Raises:
        UserError: no such file, a column is missing, or a side, view or pathology is unknown.
    """
    path = root / _table_name(kind, split)
    _, table = read_csv(path)
    table = table.rename(columns={"breast density": "density", "breast_density": "density"})
    for name in _COLUMNS:
        if name not in table:
            raise UserError(f"{path} has no column {name!r}; it is not the official table, download it again.")
    allowed = {_SIDE: ("LEFT", "RIGHT"), _VIEW: ("CC", "MLO"), "pathology": tuple(_PATHOLOGIES)}
    for name, values in allowed.items():
        wrong = table.index[~table[name].isin(values)]
        if len(wrong):
            cell = table[name][wrong[0]]
            raise UserError(f"{path} row {wrong[0] + 2} has {name} {cell!r}; it is one of {', '.join(values)}.")
    return table.assign(
        kind=kind,
        split=split,
        breast=table["patient_id"] + "-" + table[_SIDE],
        view=table[_VIEW].str.lower(),
        label=table["pathology"].map(_PATHOLOGIES),
    )


def regions(root: Path, kind: Literal["mass", "calc"], split: Literal["train", "test"]) -> list[Region]:
    """The abnormalities of one table with their mask and crop, told apart by `tell_apart`; None for a missing one.

    Raises:
        UserError: metadata.csv or a series is missing, or a picture cannot be read.
    """
    places = _Places(root)
    found = []
    for record in read_table(root, kind, split).to_dict("records"):
        full = places.files(record[_FULL])
        series = {_series(record[name]): None for name in (_CROP, _MASK)}
        files = [path for uid in series if uid in places.folders for path in places.files_of(uid)]
        mask, crop = tell_apart(files, read_image(full[0]).size if full else None)
        found.append(
            Region(record["breast"], record["view"], record["abnormality id"], record["pathology"], mask, crop)
        )
    return found


def tell_apart(files: Sequence[Path], full_size: tuple[int, int] | None) -> tuple[Path | None, Path | None]:
    """(mask, crop) among the files of an abnormality, by their content, not by name or order.

    A mask has at most two values and, where the size of the mammogram is known, that size; of several the largest
    counts. A crop is what has more than two values; a mammogram-sized picture is none unless it is alone.

    Args:
        files: zero to a few pictures.
        full_size: height and width of the mammogram.
    """
    images = [(path, read_image(path)) for path in files]
    masks = [(path, image) for path, image in images if _is_mask(image)]
    crops = [(path, image) for path, image in images if not _is_mask(image)]
    masks.sort(key=lambda pair: (pair[1].size == full_size, pair[1].pixels.size), reverse=True)
    crops.sort(key=lambda pair: (pair[1].size == full_size, pair[1].pixels.size))
    return (masks[0][0] if masks else None), (crops[0][0] if crops else None)


def _is_mask(image: Image) -> bool:
    pixels = image.pixels
    return bool(((pixels == pixels.min()) | (pixels == pixels.max())).all())


def _table_name(kind: str, split: str) -> str:
    return f"{kind}_case_description_{split}_set.csv"


def _series(path: str) -> str:
    parts = path.split("/")
    if len(parts) < 2:
        raise UserError(f"{path!r} in a CBIS-DDSM table names no series; the series is its second-last part.")
    return parts[-2]


def _without_shared(rows: pd.DataFrame, shared_patients: str) -> tuple[pd.DataFrame, list[str]]:
    tested = set(rows.loc[rows["split"] == "test", "patient_id"])
    shared = (rows["split"] == "train") & rows["patient_id"].isin(tested)
    if not shared.any():
        return rows, []
    number = rows.loc[shared, "patient_id"].nunique()
    if shared_patients == "keep":
        return rows, [f"leaky: {number} patients are in a training table and in the test table of the other kind"]
    breasts = rows.loc[shared, "breast"].nunique()
    note = (
        f"{breasts} training breasts of {number} patients left out: the test table of the other kind has the patient"
    )
    # What the training table says about a breast that is tested still counts for its label.
    said = rows[shared & rows["breast"].isin(set(rows.loc[rows["split"] == "test", "breast"]))]
    malignant = set(said.loc[said["label"] == "1", "breast"])
    kept = rows[~shared].reset_index(drop=True)
    changed = kept["breast"].isin(malignant)
    return kept.assign(label=kept["label"].where(~changed, "1")), [note]


def _breasts(root: Path, rows: pd.DataFrame, places: "_Places | None") -> list[Study]:
    studies = []
    counts = rows.groupby("breast")["split"].nunique()
    in_both = set(counts.index[counts > 1])
    for (breast, split), part in rows.groupby(["breast", "split"], sort=False):
        views: dict[str, Path] = {}
        for role, cell in zip(part["view"], part[_FULL], strict=True):
            if role in views:
                continue
            if places is None:
                views[role] = root / "CBIS-DDSM" / cell
                continue
            files = places.files(cell)
            if len(files) != 1:
                raise UserError(
                    f"The mammogram series {_series(cell)} of {breast} {role.upper()} has {len(files)} DICOM files, "
                    "not one; download it again."
                )
            views[role] = files[0]
        first = part.iloc[0]
        ordered = tuple((role, views[role]) for role in ROLES if role in views)
        studies.append(
            Study(
                f"{breast}-train" if split == "train" and breast in in_both else str(breast),
                first["patient_id"],
                str(split),
                part["label"].max(),
                ordered,
                {
                    "laterality": first[_SIDE].lower(),
                    "density": first.get("density", ""),
                    "abnormality": "+".join(sorted(set(part["kind"]))),
                },
            )
        )
    return studies


def _hold_out_unshared(studies: list[Study], fraction: float, seed: int) -> list[Study]:
    tested = {study.group for study in studies if study.split == "test"}
    free = [study for study in studies if study.split == "train" and study.group not in tested]
    cut = {study.id: study for study in hold_out(free, [s.target for s in free], fraction=fraction, seed=seed)}
    return [cut.get(study.id, study) for study in studies]


class _Places:
    """Where the downloader put each series: metadata.csv, column "File Location", relative to that file."""

    def __init__(self, root: Path) -> None:
        candidates = [root / "metadata.csv", *sorted(root.glob("manifest-*/metadata.csv"))]
        tables = [path for path in candidates if path.is_file()]
        if not tables:
            raise UserError(
                f"{root} has no metadata.csv (also not in manifest-*/); the NBIA Data Retriever writes it beside "
                "the folder CBIS-DDSM: copy it there."
            )
        self.folders: dict[str, Path] = {}
        self.table = tables[0]
        for path in tables:
            _, table = read_csv(path)
            for name in ("Series UID", "File Location"):
                if name not in table:
                    raise UserError(f"{path} has no column {name!r}; it is not the downloader's file.")
            for uid, place in zip(table["Series UID"], table["File Location"], strict=True):
                # The downloader writes backslashes on Windows.
                self.folders[uid] = path.parent / PureWindowsPath(place).as_posix()

    def files(self, cell: str) -> list[Path]:
        """The DICOM files of the series that a table's path names."""
        uid = _series(cell)
        if uid not in self.folders:
            raise UserError(f"{self.table} does not list the series {uid} ({cell}); complete the download.")
        return self.files_of(uid)

    def files_of(self, uid: str) -> list[Path]:
        folder = self.folders[uid]
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist, though {self.table} lists it; complete the download.")
        return sorted(path for path in folder.glob("*.dcm") if not path.name.startswith("."))
