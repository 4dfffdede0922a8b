"""Exasens: saliva permittivity, age, sex and smoking of 399 people with COPD, asthma, an infection, or none of them.

There are no pictures: a system that takes a CT and a table is trained on the table alone. Most saliva values are
missing. The published file has two header lines ("Imaginary Part", "Real Part", and below them "Min", "Avg."), a
legend in columns without a name, and empty lines; copies with one header line (MinIP, AvgIP, MinRP, AvgRP) are read
as well.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.cases import manifest_of_cases, rows_of, table_with
from scanfuse.data.layouts import Request
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError

LAYOUT = (
    "<root>/Exasens.csv (or another name) with Diagnosis, ID, four saliva values, Gender, Age, Smoking; no pictures"
)
CITATION = (
    "P. S. Zarrin, N. Roeckendorf, C. Wenger: In-vitro classification of saliva samples of COPD patients and healthy "
    "controls using machine learning tools, IEEE Access 8, 168053 (2020)"
)
LICENCE = "CC BY 4.0"
HOW_TO_GET = "download it from the UCI repository (doi:10.24432/C5ZW38)"
EXPECTED = {"all": (399,)}
"""(people,)."""
RANK = 6
KIND = "series_table"
PHANTOM = "exasens"
GROUPS = ("COPD", "Asthma", "Infected", "HC")
_COLUMNS = ("Diagnosis", "ID", "Gender", "Age", "Smoking")
_PUBLISHED = {"Imaginary Part": "MinIP", "Unnamed: 3": "AvgIP", "Real Part": "MinRP", "Unnamed: 5": "AvgRP"}
"""Names of the columns under the two lines of the published header."""


class Options(Section):
    """What can be chosen."""

    test_share: float = Field(
        0.15, ge=0, lt=0.9, description="share of the people kept for the test; 0 for a cross-validation over all"
    )

    target: Literal["copd_healthy", "copd", "diagnosis"] = Field(
        "copd_healthy", description="COPD against healthy (others left out), COPD against all others, or all four"
    )


def matches(root: Path, request: Request) -> bool:
    """True if a csv file of the folder has the columns of the table."""
    return table_with(root, _COLUMNS) is not None


def read(root: Path, request: Request, options: Options) -> Manifest:
    """One row per person. Gender and smoking are codes (0 and 1; 1 to 3).

    Raises:
        UserError: an unknown diagnosis, or nobody left.
    """
    request.refuse("exasens", "modalities", "group_pattern")
    if request.split == "made":
        request.refuse("exasens", "incomplete")
    file = table_with(root, _COLUMNS)
    if file is None:
        raise UserError(f"{root} is not in the layout 'exasens': expected {LAYOUT}.")
    table = rows_of(file)
    if "Imaginary Part" in table:
        table = table.rename(columns=_PUBLISHED)
        table = table[~table["MinIP"].str.lower().str.startswith("min")]
    table = table[[name for name in map(str, table) if not name.startswith("Unnamed")]]
    table = table[(table != "").any(axis=1)].reset_index(drop=True)
    if not len(table):
        raise UserError(f"{file} has no row.")
    other = sorted(set(table["Diagnosis"]) - set(GROUPS))
    if other:
        raise UserError(f"{file} has the diagnosis {other[0]!r}; Exasens has {', '.join(GROUPS)}.")
    notes = [f"{len(table)} of 399 people"] if len(table) != 399 else []
    if options.target == "copd_healthy":
        kept = table["Diagnosis"].isin(["COPD", "HC"])
        if (~kept).any():
            notes.append(f"{int((~kept).sum())} people with asthma or an infection were left out")
        table = table[kept].reset_index(drop=True)
    features = [name for name in table if name not in ("Diagnosis", "ID")]
    cases = table[features].assign(id=table["ID"], group=table["ID"], target=_targets(table, options))
    whole = replace(request, incomplete="keep")
    rest = 1 - options.test_share
    fractions = {"train": 0.85 * rest, "val": 0.15 * rest, "test": options.test_share}
    found = manifest_of_cases(file, cases, {}, whole, column="ct", fractions=fractions)
    return Manifest(found.table, found.modalities, tuple(notes), found.subgroups)


def _targets(table: pd.DataFrame, options: Options) -> list[str]:
    if options.target == "diagnosis":
        return list(table["Diagnosis"])
    return list((table["Diagnosis"] == "COPD").astype(int).astype(str))
