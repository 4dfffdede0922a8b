"""CheXpert v1.0, full and small: chest X-rays, frontal and lateral, 14 findings that may be uncertain.

The published csv gives each image a row; here a row is a study with all its frontal and lateral images. Values are 1
(positive), 0 (negative), -1 (uncertain) and blank (not mentioned). What becomes of -1 is the choice `uncertain`:

    ones, zeros    counts as positive, as negative
    ignore         masked: neither in the loss nor in the scores
    per-label      one of the three for each finding, see `PER_LABEL`

Blank is negative, as in the publication of the data (`blank="ignore"` masks it). The valid set was read by three
radiologists: it has no -1.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.labels import join_findings
from scanfuse.data.layouts import Request
from scanfuse.data.manifest import Manifest, read_csv
from scanfuse.data.studies import Study, check_files, hold_out, manifest_of, with_views
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/{train,valid}.csv and {train,valid}/patient*/study*/view*_{frontal,lateral}.jpg; <root> is "
    "CheXpert-v1.0, CheXpert-v1.0-small, or the folder above them; "
    "the full set also as folders 'CheXpert-v1.0 batch N (...)'"
)
CITATION = (
    "J. Irvin et al.: CheXpert: A large chest radiograph dataset with uncertainty labels and expert comparison, "
    "AAAI 2019, arXiv:1901.07031"
)
LICENCE = "Stanford research use agreement: non-commercial research, no redistribution"
HOW_TO_GET = "register at https://stanfordmlgroup.github.io/competitions/chexpert/ (small: 11 GB, full: 439 GB)"
EXPECTED = {"train": (187641, 64540, 223414), "valid": (200, 200, 234)}
"""Published split -> (studies, patients, images)."""
RANK = 5
KIND = "view_pairs"
PHANTOM = "chexpert"
ROLES = ("frontal", "lateral")
FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other",
    "Fracture", "Support Devices",
)  # fmt: skip

Uncertain = Literal["ones", "zeros", "ignore", "per-label"]
PER_LABEL: Mapping[str, str] = {
    "Atelectasis": "ones",
    "Edema": "ones",
    "Pleural Effusion": "ones",
    "Cardiomegaly": "zeros",
    "Consolidation": "zeros",
}
"""The choice for each finding under "per-label"; a finding that is not listed is ignored where it is uncertain.

[our choice: "ones" where a hedged report mostly means yes, "zeros" where it mostly means no.]
"""

_HOMES = ("", "CheXpert-v1.0", "CheXpert-v1.0-small", "CheXpert-v1.0 batch 1 (validate & csv)")
_IMAGE = re.compile(r"(train|valid)/(patient\d+)/(study\d+)/view(\d+)_(frontal|lateral)\.\w+$")
_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")


class Options(Section):
    """What can be chosen."""

    labels: Literal[13, 14] | tuple[str, ...] = Field(
        13, description="14 findings in the order of the csv, 13 = without No Finding, or names joined by +"
    )
    uncertain: Uncertain = Field("ones", description="what the value -1 becomes")
    per_label: dict[str, str] = Field(
        dict(PER_LABEL), description="finding -> ones, zeros or ignore, for uncertain=per-label; for programs"
    )
    blank: Literal["zeros", "ignore"] = Field("zeros", description="what an empty value means")
    validation_share: float = Field(0.1, ge=0, lt=1, description="share of the train studies that becomes val")


def matches(root: Path, request: Request) -> bool:
    """True if train.csv or valid.csv of CheXpert lies in `root` or a published folder in it."""
    return _home(root) is not None


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per study: columns frontal, frontal_2, ..., lateral, ...; further columns sex, age and projection.

    The projection is that of the frontal images: AP, PA or AP+PA. The target names every finding
    ("Edema=1;Fracture=;..."); labels are those of the study's first frontal image. The published valid set is test.
    Val is cut from train by patient, balanced by the number of positive findings, unless no split is wanted. A study
    without a frontal or without a lateral image is incomplete; the publication drops it.

    Raises:
        UserError: a csv file, column or image is missing, a value is not 1, 0, -1 or blank, or an unknown finding.
    """
    request.refuse("chexpert", "modalities", "fractions", "group_pattern")
    home = _home(root)
    if home is None:
        raise UserError(f"{root} is not in the layout 'chexpert': expected {LAYOUT}.")
    names = _names(options.labels)
    rule = _rule(names, options.uncertain, options.per_label, options.blank)
    studies: list[Study] = []
    policy = options.uncertain
    notes = [f"uncertain findings: {policy}; the published valid set is test, val was cut from train by patient"]
    for published in ("train", "valid"):
        found = _read_split(home, published, names, rule)
        if len(found) != EXPECTED[published][0]:
            notes.append(f"{len(found)} of the {EXPECTED[published][0]} studies of the published {published} set")
        studies += found
    studies = with_views(
        home, studies, lambda study: {role for role, _ in study.views} == set(ROLES), request.incomplete
    )
    if request.split != "none":
        check_files(studies)
    strata = [str(min(4, study.target.count("=1"))) for study in studies]
    if request.split != "none":
        studies = hold_out(studies, strata, fraction=options.validation_share, seed=request.seed)
    return manifest_of(studies, roles=ROLES, notes=notes)


def _home(root: Path) -> Path | None:
    for name in _HOMES:
        for table in (root / name / "train.csv", root / name / "valid.csv"):
            if table.is_file() and _has_header(table):
                return table.parent
    return None


def _has_header(table: Path) -> bool:
    try:
        with table.open(encoding="utf-8-sig") as file:
            return "Frontal/Lateral" in file.readline()
    except (OSError, UnicodeDecodeError):
        return False


def _names(labels: int | Sequence[str]) -> tuple[str, ...]:
    if labels == 14:
        return FINDINGS
    if labels == 13:
        return tuple(name for name in FINDINGS if name != "No Finding")
    if isinstance(labels, int) or not labels:
        raise UserError(f"CheXpert has 13 or 14 labels, or give the names of some; not {labels}.")
    for name in labels:
        if name not in FINDINGS:
            raise UserError(f"CheXpert has no finding {name!r}; choose from {', '.join(FINDINGS)}.")
    return tuple(labels)


def _rule(
    names: Sequence[str], uncertain: str, per_label: Mapping[str, str], blank: str
) -> dict[str, dict[str, str]]:
    """Finding -> value in the csv -> "1", "0", or "" for masked."""
    outcome = {"ones": "1", "zeros": "0", "ignore": ""}
    if uncertain not in (*outcome, "per-label"):
        raise UserError(f"Unknown choice {uncertain!r} for uncertain labels; use ones, zeros, ignore or per-label.")
    if blank not in ("zeros", "ignore"):
        raise UserError(f"Unknown choice {blank!r} for blank labels; use zeros or ignore.")
    rule = {}
    for name in names:
        choice = per_label.get(name, "ignore") if uncertain == "per-label" else uncertain
        if choice not in outcome:
            raise UserError(f"Unknown choice {choice!r} for {name}; use ones, zeros or ignore.")
        rule[name] = {"1": "1", "0": "0", "-1": outcome[choice], "": outcome[blank]}
    return rule


def _read_split(
    home: Path, published: str, names: tuple[str, ...], rule: Mapping[str, Mapping[str, str]]
) -> list[Study]:
    table = home / f"{published}.csv"
    _, rows = read_csv(table)
    lacking = [name for name in (*_COLUMNS, *names) if name not in rows]
    if lacking:
        raise UserError(f"{table} has no column {lacking[0]!r}; it is not the published file, download it again.")
    for name in names:
        # 1.0 and 1 are the same; the files hold both.
        rows[name] = rows[name].str.replace(r"\.0+$", "", regex=True)
        wrong = rows.index[~rows[name].isin(["1", "0", "-1", ""])]
        if len(wrong):
            raise UserError(
                f"{table} row {wrong[0] + 2} has {name} = {rows[name][wrong[0]]!r}; it is 1, 0, -1 or blank."
            )
    parts = rows["Path"].str.extract(_IMAGE)
    bad = rows.index[parts[0].isna() | (parts[0] != published)]
    if len(bad):
        raise UserError(
            f"{table} row {bad[0] + 2} has the path {rows['Path'][bad[0]]!r}; expected "
            f"CheXpert-v1.0/{published}/patient00001/study1/view1_frontal.jpg."
        )
    rows = rows.assign(patient=parts[1], study=parts[2], number=parts[3].astype(int), role=parts[4])
    differs = rows.index[rows["role"] != rows["Frontal/Lateral"].str.lower()]
    if len(differs):
        raise UserError(
            f"{table} row {differs[0] + 2} calls {rows['Path'][differs[0]]} {rows['Frontal/Lateral'][differs[0]]!r}."
        )
    targets = [
        join_findings(names, [rule[name][value] for name, value in zip(names, values, strict=True)])
        for values in rows[list(names)].itertuples(index=False, name=None)
    ]
    return _studies(home, published, rows.assign(target=targets))


def _studies(home: Path, published: str, rows: pd.DataFrame) -> list[Study]:
    rows = rows.sort_values(["patient", "study", "role", "number"], kind="stable")
    folders = _folders(home, published)
    columns = ["patient", "study", "role", "Path", "AP/PA", "Sex", "Age", "target"]
    found: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for record in rows[columns].itertuples(index=False, name=None):
        found.setdefault((record[0], record[1]), []).append(record)
    studies = []
    for (patient, study), records in found.items():
        views = tuple((role, _locate(folders, path)) for _, _, role, path, *_ in records)
        frontal = [projection for _, _, role, _, projection, *_ in records if role == "frontal"]
        projections = "+".join(sorted(set(filter(None, frontal))))
        _, _, _, _, _, sex, age, target = records[0]
        split = "train" if published == "train" else "test"
        further = {"sex": sex, "age": age, "projection": projections, "published": published}
        studies.append(Study(f"{patient}-{study}", patient, split, target, views, further))
    return studies


def _folders(home: Path, published: str) -> list[Path]:
    """Where patients' folders may lie: below train or valid, or (full set) spread over the batch folders."""
    batches = sorted(path for path in home.parent.glob("CheXpert-v1.0 batch *") if path.is_dir())
    places = [home / published]
    places += [place for batch in batches for place in (batch / published, batch) if place.is_dir()]
    return places


def _locate(folders: Sequence[Path], path: str) -> Path:
    match = _IMAGE.search(path)
    assert match is not None  # checked when the table was read
    below = path[match.start(2) :]
    if len(folders) > 1:
        for folder in folders:
            if (folder / below).is_file():
                return folder / below
    return folders[0] / below
