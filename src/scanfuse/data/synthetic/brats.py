"""Made-up patients in the BraTS layouts: four volumes of a brain with a glioma, its segmentation and grade.

High grade shows as an enhancing rim, which T1CE alone shows, in four of ten patients; as wide oedema, which FLAIR
(and T2) alone show, in four; as both in two. Low grade shows neither. So either volume alone tells 60 % of the high
grades from the low ones (best area under the ROC curve 0.8), both tell all. Nothing is fit for a medical statement.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import ndimage

from scanfuse.config import Section
from scanfuse.data.readers.volume import Frame, volume_of, write_volume
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.data.synthetic._head import FIELD_OF_VIEW_MM
from scanfuse.data.synthetic._tumour import BRAIN, TUMOUR, draw_glioma, tissues
from scanfuse.files import write_text

__all__ = ["FACTS", "MODALITIES", "Options", "grades_of", "render", "write", "write_picture"]

MODALITIES = ("t1", "t1ce", "t2", "flair")
FACTS = Facts(counted="patients", seconds=1.5)

_NAMES_2023 = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f", "seg": "seg"}
# Signal of T1, T1CE, T2, FLAIR
_SIGNALS = {
    "white":        (0.70, 0.71, 0.36, 0.42),
    "grey":         (0.52, 0.53, 0.52, 0.58),
    "csf":          (0.17, 0.17, 0.98, 0.14),
    "nuclei":       (0.56, 0.57, 0.46, 0.53),
    "pallidum":     (0.62, 0.63, 0.33, 0.40),
    "dura":         (0.34, 0.62, 0.20, 0.24),
    "blood vessel": (0.30, 0.95, 0.16, 0.18),
    "oedema":       (0.68, 0.70, 0.80, 0.96),
    "core":         (0.40, 0.42, 0.66, 0.74),
    "rim":          (0.40, 1.20, 0.66, 0.74),
    "necrosis":     (0.26, 0.27, 0.88, 0.50),
}  # fmt: skip
_LABELS = {"necrosis": 1, "oedema": 2, "rim": 4, "core": 1}


class Options(Section):
    """How many patients, how large, and named as in which year."""

    patients: int = Field(16, ge=1, le=999, description="patients, numbered from 1; half are high grade")
    size: int = Field(64, ge=16, le=240, description="rows and columns; slices are two thirds; the field is 240 mm")
    year: Literal["2019", "2020", "2021", "2023"] = Field("2020", description="whose names; 2021, 2023 have no grade")
    seed: int = Field(0, ge=0, description="seed of everything")


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes a folder for each patient, name_mapping.csv where that year has one, and a note that they are made up.

    As in a common copy of the published 2020 data, the segmentation of one patient (the last) has another name.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    rows = ["Grade,BraTS_2019_subject_ID,BraTS_2020_subject_ID"]
    grades = grades_of(options.patients, options.seed)
    for number, grade in enumerate(grades, start=1):
        name = _name(options.year, number)
        folder = root / grade / name if options.year == "2019" else root / name
        pictures = render(number, grade == "HGG", size=options.size, seed=options.seed)
        for kind, voxels in pictures.items():
            suffix = f"-{_NAMES_2023[kind]}" if options.year == "2023" else f"_{kind}"
            file = f"{name}{suffix}.nii.gz"
            if kind == "seg" and options.year == "2020" and number == len(grades):
                file = "W39_1998.09.19_Segm.nii.gz"
            write_picture(folder / file, voxels)
        rows.append(f"{grade},BraTS19_Made_{number}_1,{_name('2020', number)}")
    if options.year == "2020":
        write_text(root / "name_mapping.csv", "\n".join(rows) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up brains, no patients: {options.patients} volumes of {options.size} columns, seed {options.seed}.\n"
        f"Written by ScanFuse with the names of BraTS {options.year}. Not for any medical statement.\n",
    )
    return root


def render(number: int, high_grade: bool, *, size: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    """The volumes of patient `number`: t1, t1ce, t2, flair int16 and seg uint8, each (2/3 size, size, size).

    Around the brain everything is 0, but for some negative values at its border, as resampled scans have them.
    """
    random = np.random.default_rng([seed, number])
    shows = ((True, False), (False, True), (True, True))[int(random.choice(3, p=[0.4, 0.4, 0.2]))]
    rim, wide = shows if high_grade else (False, False)
    shape = (round(2 * size / 3), size, size)
    shares = tissues(random, draw_glioma(random, rim=rim, wide_oedema=wide), shape=shape)
    brain = np.sum(list(shares.values()), axis=0) > 0.5
    found = {
        name: _contrast(shares, brain, index, np.random.default_rng([seed, number, index + 1]))
        for index, name in enumerate(MODALITIES)
    }
    tumour = np.stack([shares[name] for name in TUMOUR])
    labels = np.array([_LABELS[name] for name in TUMOUR], np.uint8)[tumour.argmax(axis=0)]
    found["seg"] = np.where(brain & (tumour.sum(axis=0) > 0.5), labels, 0).astype(np.uint8)
    return found


def write_picture(path: Path, voxels: np.ndarray) -> None:
    """Writes a volume (D, H, W) of `render` with the affine that BraTS has, for a field of 240 mm."""
    depth, height, width = voxels.shape
    spacing = FIELD_OF_VIEW_MM / width
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[1, 3] = spacing * (height - 1)
    frame = Frame((width, height, depth), affine, voxels.dtype)
    write_volume(path, voxels, volume_of(voxels.transpose(2, 1, 0), frame, path))


def _contrast(
    shares: dict[str, np.ndarray], brain: np.ndarray, modality: int, random: np.random.Generator
) -> np.ndarray:
    signal = np.sum([shares[name] * _SIGNALS[name][modality] for name in (*BRAIN, *TUMOUR)], axis=0)
    places = np.meshgrid(*(np.linspace(-1, 1, side) for side in signal.shape), indexing="ij")
    bias = np.exp(sum(random.normal(0, 0.05) * place for place in places))
    texture = ndimage.gaussian_filter(random.normal(size=signal.shape), 1.0)
    signal = signal * bias * (1 + 0.03 * texture / texture.std())
    signal = signal + random.normal(0, random.uniform(0.012, 0.022), signal.shape)
    # Resampling undershoots just outside the brain.
    outside = ndimage.binary_dilation(brain) & ~brain & (random.random(brain.shape) < 0.05)
    signal = np.where(outside, -random.uniform(0.01, 0.06, brain.shape), np.where(brain, signal, 0))
    return np.rint(signal * random.uniform(400, 1100)).astype(np.int16)


def grades_of(patients: int, seed: int) -> list[str]:
    """The grades of so many patients, HGG for half of them (the larger half)."""
    grades = np.array(["HGG", "LGG"] * patients)[:patients]
    return [str(grade) for grade in np.random.default_rng(seed).permutation(grades)]


def _name(year: str, number: int) -> str:
    return {
        "2019": f"BraTS19_Made_{number}_1",
        "2020": f"BraTS20_Training_{number:03d}",
        "2021": f"BraTS2021_{number:05d}",
        "2023": f"BraTS-GLI-{number:05d}-000",
    }[year]
