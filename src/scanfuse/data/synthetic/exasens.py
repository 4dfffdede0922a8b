"""Made-up people in the Exasens layout: a table of saliva, age, sex and smoking, without pictures.

COPD goes with age and smoking; the saliva values, missing for most, go with it a little. Nothing here is fit for a
medical statement.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.files import write_text

__all__ = ["FACTS", "Options", "write"]

FACTS = Facts(counted="patients", seconds=0.0005)
_HEADS = {
    "plain": ["Diagnosis,ID,MinIP,AvgIP,MinRP,AvgRP,Gender,Age,Smoking"],
    "published": ["Diagnosis,ID,Imaginary Part,,Real Part,,Gender,Age,Smoking,,,,", ",,Min,Avg.,Min,Avg.,,,,,,,"],
}
_LEGEND = (',,Gender,,"(1=Male, 0=Female)"', ',,Smoking,,"(1=Non-smoker, 2=Ex-smoker, 3=Active-smoker)"')
_NO_LEGEND = ",,,,"


class Options(Section):
    """How many people."""

    patients: int = Field(
        399, ge=12, le=99_999, description="people: a fifth each of COPD, asthma, infected; healthy"
    )
    form: Literal["plain", "published"] = Field(
        "plain", description="one header line; or two, a legend in columns without a name, and empty last lines"
    )
    seed: int = Field(0, ge=0, description="seed of everything")


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes Exasens.csv; the same options give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    random = np.random.default_rng([options.seed, 41])
    lines = list(_HEADS[options.form])
    for number in range(options.patients):
        name = ("COPD", "HC", "Asthma", "HC", "Infected")[number % 5]
        ill = name == "COPD"
        age = int(np.clip(random.normal(66 if ill else 48, 12), 18, 95))
        smoking = int(np.clip(round(random.normal(2.3 if ill else 1.6, 0.7)), 1, 3))
        saliva = [""] * 4
        if random.random() < 0.3:
            values = random.normal((-320, -310, -480, -465), 12) - 6 * ill
            saliva = [f"{value:.2f}" for value in values]
        lines.append(",".join([name, f"{number + 1}-{random.integers(1, 5)}", *saliva,
                               str(random.integers(2)), str(age), str(smoking)]))  # fmt: skip
    if options.form == "published":
        people = lines[2:]
        beside = [*_LEGEND, *[_NO_LEGEND] * len(people)]
        lines = [*lines[:2], *(line + cells for line, cells in zip(people, beside, strict=False))]
        lines += ["," * lines[0].count(",")] * 3
    write_text(root / "Exasens.csv", "\n".join(lines) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up people, no patients: {options.patients} rows, seed {options.seed}, in the Exasens layout.\n"
        "Written by ScanFuse. Not for any medical statement.\n",
    )
    return root
