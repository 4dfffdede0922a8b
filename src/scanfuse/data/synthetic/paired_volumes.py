"""Made-up brains as plain pairs of volumes: a folder for each modality, equal names, such as p03.nii.gz."""

from pathlib import Path

from pydantic import Field, field_validator

from scanfuse.config import Section
from scanfuse.data.synthetic._folder import empty_folder
from scanfuse.data.synthetic.brats import FACTS, MODALITIES, grades_of, render, write_picture
from scanfuse.files import write_text

__all__ = ["FACTS", "Options", "write"]


class Options(Section):
    """How many patients, how large, and which two volumes of each."""

    patients: int = Field(16, ge=1, le=999, description="patients, numbered from 1")
    size: int = Field(64, ge=16, le=240, description="rows and columns; slices are two thirds; the field is 240 mm")
    pair: str = Field("T1CE-FLAIR", description="two of T1, T1CE, T2, FLAIR, joined by a dash")
    seed: int = Field(0, ge=0, description="seed of everything")

    @field_validator("pair")
    @classmethod
    def _two_modalities(cls, value: str) -> str:
        names = value.lower().split("-")
        if len(names) != 2 or names[0] == names[1] or not set(names) <= set(MODALITIES):
            raise ValueError(f"phantoms come as two of {', '.join(MODALITIES).upper()} joined by a dash")
        return value

    @property
    def modalities(self) -> tuple[str, ...]:
        """The two in lower case."""
        return tuple(self.pair.lower().split("-"))


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/<MODALITY>/p<number>.nii.gz; the same options give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    for number, grade in enumerate(grades_of(options.patients, options.seed), start=1):
        pictures = render(number, grade == "HGG", size=options.size, seed=options.seed)
        for name in options.modalities:
            write_picture(root / name.upper() / f"p{number:02d}.nii.gz", pictures[name])
    write_text(
        root / "ABOUT.txt",
        f"Made-up brains, no patients: {options.patients} volumes of {options.size} columns, seed {options.seed}, as "
        "plain pairs.\nWritten by ScanFuse. Not for any medical statement.\n",
    )
    return root
